# %% [markdown]
# # 10b. Your own network
#
# *My network has ReLU and max pooling, and lesson 8's attack gets stuck on it. Is it safe?*
#
# ← [10. The label was never hidden](10_labels.ipynb) · about 25 minutes · needs lessons 8 and 10 ·
# [11. Batches, and least squares to machine precision](11_batches.ipynb) → ·
# [all lessons](README.md)
#
# The paper replaced ReLU by a sigmoid and left pooling out. Your network has both, as many have. In
# this lesson you write one in ten lines. Matching its gradient stalls, for a reason that lesson
# 8's exercise found. Then one of its layers gives its input away, as in lesson 10, and from there
# the picture comes back, without a label and without a second derivative.

# %%
from dataclasses import dataclass

import numpy as np
from checks import check, expect
from plots import pictures, show

from tinyleak import Settings, Tensor, attack, data, grad, lbfgs, nn, ops, share
from tinyleak.nn.init import draw

large = data.load_glyphs(40)
digits = large.images.reshape(40, 1, 14, 2, 14, 2).mean(axis=(3, 5))

# %% [markdown]
# ## Ten lines
#
# A network is any object with three things: the shape of its images, the number of its classes, and
# the shapes of its parameters by name; and it can be called. No class to inherit from, nothing to
# register. (Change it! Only keep `below` and `hidden` for what follows.)


# %%
@dataclass(frozen=True)
class Mine:
    image_shape: tuple = (1, 14, 14)
    classes: int = 10
    shapes = {
        **{"conv.weight": (16, 1, 5, 5), "conv.bias": (16,)},
        **{"hidden.weight": (32, 784), "hidden.bias": (32,)},
        **{"out.weight": (10, 32), "out.bias": (10,)},
    }

    def below(self, params, x):
        """What the hidden layer is given: (N, 784)."""
        x = nn.conv2d(x, params["conv.weight"], params["conv.bias"], padding=(2, 2))
        return nn.flatten(nn.max_pool2d(ops.relu(x), (2, 2)))

    def __call__(self, params, x):
        x = self.below(params, x)
        x = ops.relu(nn.linear(x, params["hidden.weight"], params["hidden.bias"]))
        return nn.linear(x, params["out.weight"], params["out.bias"])


model = Mine()


def make_client(seed):
    params = draw(model.shapes, np.random.default_rng(seed), "default")
    return share(model, params, digits[[seed]], large.labels[[seed]])


# %% [markdown]
# ## Matching stalls
#
# Lesson 8's attack, on eight clients with this network, from noise:

# %%
clients = [make_client(seed) for seed in range(8)]
matched = [attack(one, start="noise", settings=Settings(200)) for one, _ in clients]
errors = [
    np.square(m.images - truth.images).mean()
    for m, (_, truth) in zip(matched, clients, strict=True)
]
print("matching:", *(f"{error:.0e}" for error in errors))
stalled = sum(error > 1e-3 for error in errors)
print(f"{stalled} of 8 digits do not come out")
expect(stalled >= 3, "many do not come out")

# %% [markdown]
# The second derivative of ReLU is zero, and max pooling hands on one pixel of four and forgets the
# rest. The distance is made of pieces with creases between them. L-BFGS learns how the ground
# curves on this side of a crease, and steps over it.
#
# **Predict first.** So gradient matching fails on many. Is there something in the shared gradient
# that gives the picture away nonetheless?
#
# <details><summary>Answer</summary>
#
# Yes. Most people conclude from a failed attack that there is nothing to find. But an attack that
# fails shows that *it* fails. The hidden layer is fully connected and has a bias, so lesson 10's
# division gives its input, exactly. ReLU and pooling are below it, and the division does not care.
#
# </details>
#
# ## One layer gives its input away
#
# The hidden layer is $z = W h + b$, with $h$ the 784 features that convolution and pooling made.
# For one picture its gradients are $δ h^T$ and $δ$, whatever stands above. Each row of the first
# divided by an entry of the second is $h$. To use all rows, and not to divide by a zero, take least
# squares:
#
# $$h = \frac{∑_o (∂L/∂b_o) (∂L/∂W_o)}{∑_o (∂L/∂b_o)^2}.$$

# %%
client, truth = clients[3]
by_weight, by_bias = client.gradients["hidden.weight"], client.gradients["hidden.bias"]
features = by_bias @ by_weight / (by_bias @ by_bias)

params = {name: Tensor(array) for name, array in client.params.items()}
exact = model.below(params, Tensor(truth.images)).data[0]
print(f"the largest error of a feature is {np.abs(features - exact).max():.0e}")
print(f"{(features > 0).sum()} features are not zero, for {truth.images.size} pixels")
assert np.allclose(features, exact, atol=1e-12), "exactly what the layer was given"

# %% [markdown]
# ## From features to the picture
#
# Now everything above is out of the way: the label, the softmax, the loss. What is left is to find
# a picture with these features, $\|f(x) - h\|^2 = 0$. That has *no* gradient in it, so its slope is
# of first order, and a ReLU has a fine first derivative. There are still creases, so a start may
# get stuck. Then take another one.


# %%
def distance(z):
    x = Tensor(z)
    f = model.below(params, ops.reshape(x, truth.images.shape))
    value = ops.sum((f - Tensor(features[np.newaxis])) ** 2) * (1 / (features @ features))
    return value.data, grad(value, x).data


for seed in range(8):
    start = 0.5 + 0.1 * np.random.default_rng(seed).standard_normal(truth.images.size)
    *_, end = lbfgs(distance, start, goal=1e-24, max_iterations=600)
    print(f"start {seed}: {end.iterations} steps to a distance of {end.value:.0e}")
    if end.value < 1e-20:
        break
error = np.square(end.x - truth.images.ravel()).mean()
print(f"mean squared error {error:.0e}")
expect(error < 1e-20, "the picture, exactly")

# %% tags=["thumbnail"]
ours = end.x.reshape(14, 14)
titles = ["the client's", "by matching gradients", "by its features"]
pictures([truth.images[0, 0], matched[3].images[0, 0], ours], titles, figsize=(6, 2.4), size=11)
show(
    "Three pictures: the client's digit; noise, by matching; and the digit again, by its features."
)

# %% [markdown]
# ## tinyleak's own
#
# `attack` does this by itself where a layer has at least as many features as the image has pixels.
# It then starts from the picture that has them, and needs no further step:

# %%
first = [attack(one) for one, _ in clients]
errors = [
    np.square(f.images - truth.images).mean() for f, (_, truth) in zip(first, clients, strict=True)
]
print("features first:", *(f"{error:.0e}" for error in errors))
expect(sum(error < 1e-15 for error in errors) >= 7, "nearly all come out exactly")

# %% [markdown]
# So ReLU and max pooling protect nobody. They stop one attack.
#
# ## Where one gets stuck
#
# A smaller network, and a friendlier one, without creases: two kernels in place of sixteen, a
# softened ReLU, and the mean of four pixels in place of the largest. Its hidden layer sees 98
# features of 196 pixels. They come out exactly, as before. And the search finds a picture that has
# them:

# %%
small = {**Mine.shapes, "conv.weight": (2, 1, 5, 5), "conv.bias": (2,), "hidden.weight": (32, 98)}
few = {n: Tensor(a) for n, a in draw(small, np.random.default_rng(3), "default").items()}


def below_few(x):
    x = nn.conv2d(x, few["conv.weight"], few["conv.bias"], padding=(2, 2))
    return nn.flatten(nn.avg_pool2d(ops.softplus(x), (2, 2)))


wanted = below_few(Tensor(truth.images)).data


def distance_of_few(z):
    x = Tensor(z)
    f = below_few(ops.reshape(x, truth.images.shape))
    value = ops.sum((f - Tensor(wanted)) ** 2) * float(1 / (wanted**2).sum())
    return value.data, grad(value, x).data


start = 0.5 + 0.1 * np.random.default_rng(0).standard_normal(truth.images.size)
*_, end = lbfgs(distance_of_few, start, goal=1e-16, max_iterations=600)
best, off = end.value, np.square(end.x - truth.images.ravel()).mean()
print(f"features agree to {best:.0e}, and the squared error of the picture is {off:.2f}")
expect(best < 1e-10 and off > 1e-2, "the features fit, and the picture is another one")

# %% [markdown]
# The distance is zero, and the picture is wrong. Nothing failed: many pictures have these features.
# The symptom is that each start ends at another picture, all with a distance of zero. To find it,
# *count*: 98 equations for 196 unknowns. Then more must be asked of the picture: that its pixels
# lie between 0 and 1, and that it makes the convolution's gradients, too. tinyleak does that with
# `start="features"`.
#
# ## What to remember
#
# - An attack that fails proves nothing about the next one.
# - A fully connected layer with a bias gives away what it is given, wherever it stands.
# - Count features and pixels before you believe a picture.
#
# The real things are [`tinyleak/attacks/features_first.py`](../tinyleak/attacks/features_first.py)
# and [`tinyleak/nn/pooling.py`](../tinyleak/nn/pooling.py). A network that you trained in PyTorch
# need not be written again: lesson 15 reads it from a file.
#
# ## Exercise
#
# Which layers of a network give away enough? Write `shows(shapes, pixels)`. It gets the shapes of
# the parameters by name, as `Mine.shapes`, and returns, in a list, the *positions* (0, 1, 2, …) of
# the weights of fully connected layers that have at least as many inputs as there are pixels and a
# bias beside them. (The bias of `x.weight` is `x.bias`; a convolution's weight has four axes.)
#
# <details><summary>Solution to the exercise of lesson 10</summary>
#
# The LeNet's gradient has 13,426 numbers, and a picture 784. So no gradient can determine more than
# 17 pictures. Not all of the numbers are news: the ten probabilities add up to 1, so the ten rows
# of the last layer's gradient add up to 0, and one of them follows from the others. 16 are left.
#
# ```python
# def most_images(shapes, pixels):
#     return sum(int(np.prod(shape)) for shape in shapes.values()) // pixels
#
#
# assert most_images(lenet.shapes, 784) == 17
# row = lenet.shapes["fc.0.weight"][1] + 1
# assert (13_426 - row) // 784 == 16
# ```
#
# It is a limit and no promise: an equation that hardly depends on a pixel counts in full here, and
# says next to nothing. And it is the limit for pictures about which nothing else is known. A pixel
# that is held at black needs no equation.
#
# </details>


# %%
def shows(shapes, pixels):
    pass  # yours


check("10b", shows)
