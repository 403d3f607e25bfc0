# %% [markdown]
# # 6. A network that reads digits
#
# *How does a network turn a picture into a guess, and how do we tell it how wrong it is?*
#
# Here everything so far comes together: tensors, `grad`, convolutions. We build the network of the
# paper that this project is about, and teach it to read digits in a few seconds. Then we see it
# fail to learn, for a reason that is worth knowing. In lesson 8 we turn around and attack it.

# %%
import matplotlib.pyplot as plt
import numpy as np

from tinyleak import (
    LeNet,
    Tensor,
    cross_entropy,
    data,
    grad,
    log_softmax,
    nn,
    one_hot,
    ops,
    share,
    softmax,
    trace,
)

DATA, DATA_DIR = "glyphs", None  # or "mnist", and the folder that holds its files

digits = data.load(DATA, data_dir=DATA_DIR)
pictures, labels = digits.images[:1000], digits.labels[:1000]
print("pictures:", pictures.shape, "labels:", labels[:12], "…")

# %% [markdown]
# ## The network
#
# It is a **LeNet**, one of the oldest networks for pictures. A picture passes three convolutions
# (lesson 5), each with 12 kernels of 5 × 5. Then all numbers that came out are multiplied with one
# matrix, which leaves ten numbers, one for each digit. These are called the **logits**. The largest
# one is the network's guess.
#
# After each convolution every number $x$ becomes $σ(x) = 1 / (1 + e^{-x})$, the **sigmoid**, which
# lies between 0 and 1. Without something like that three convolutions in a row would be no more
# than one: a linear map of a linear map is linear.


# %%
def lenet(weights, x):
    """Logits (N, 10) of pictures (N, 1, 28, 28)."""
    for layer, stride in enumerate([2, 2, 1]):
        weight, bias = weights[f"body.{2 * layer}.weight"], weights[f"body.{2 * layer}.bias"]
        x = nn.conv2d(x, weight, bias, stride=(stride, stride), padding=(2, 2))
        x = ops.sigmoid(x)
    return nn.linear(nn.flatten(x), weights["fc.0.weight"], weights["fc.0.bias"])


# %% [markdown]
# The weights have the names that the paper's authors gave them. tinyleak's `LeNet` knows their
# shapes and draws random ones, as the paper does: each between −0.5 and 0.5.

# %%
model = LeNet()
start = model.init(np.random.default_rng(0))
for name, array in start.items():
    print(f"{name:<14} {str(array.shape):<16} {array.size:>5}")
print("numbers to learn:", sum(array.size for array in start.values()))
assert start["fc.0.weight"].shape == (10, 588)
assert all(np.abs(array).max() <= 0.5 for array in start.values())


def as_tensors(arrays):
    return {name: Tensor(array) for name, array in arrays.items()}


some = Tensor(pictures[:4])
assert np.allclose(lenet(as_tensors(start), some).data, model(as_tensors(start), some).data)

# %% [markdown]
# `fc.0.weight` has 588 columns. That is the answer to the last exercise: 12 kernels, and pictures
# of 7 × 7 after the strides.
#
# ## How wrong is a guess?
#
# Logits can be any numbers. We turn them into probabilities $p$: positive, with a sum of 1.
#
# $p_k = e^{z_k} / ∑_j e^{z_j}$
#
# This is called **softmax**. Written like that it fails: $e^{1000}$ is too large for a computer.
# But subtract the same number from all logits, and $p$ stays what it is. So subtract the largest.


# %%
def our_log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


z = np.array([[1.0, 2.0, 3.0], [1000.0, 0.0, -1000.0]])
with np.errstate(over="ignore", invalid="ignore"):
    naive = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
print("as written:     ", np.round(naive[1], 3))
print("largest removed:", np.round(np.exp(our_log_softmax(z))[1], 3))

assert np.isnan(naive[1, 0]) and np.allclose(naive[0], softmax(Tensor(z)).data[0])
assert np.allclose(our_log_softmax(z), log_softmax(Tensor(z)).data)

# %% [markdown]
# What should $p$ have been? We write the right answer as probabilities, too: a row $y$ with a 1 at
# the right digit and 0 elsewhere. The loss compares the two:
#
# $L = -∑_k y_k \log p_k$.
#
# It is called the **cross-entropy**. For a row with a single 1 it is $-\log$ of the probability
# that the network gave to the right digit. If that was 1, the loss is 0. If that was almost 0, the
# loss is huge. For a batch we take the mean.


# %%
def our_cross_entropy(z, y):
    return -(y * our_log_softmax(z)).sum(axis=-1).mean()


z = model(as_tensors(start), some)
y = one_hot(labels[:4], 10)
print(y)
assert np.isclose(our_cross_entropy(z.data, y), float(cross_entropy(z, Tensor(y))))

# %% [markdown]
# A network that knows nothing says 0.1 for every digit. Then the loss is
# $-\log 0.1 = \log 10 ≈ 2.303$, whatever the picture. Remember that number. We shall meet it again.

# %%
assert np.isclose(our_cross_entropy(np.zeros((4, 10)), y), np.log(10))

# %% [markdown]
# ## Soft labels
#
# Why write the label as a row, when the digit alone would do? Because a row can be moved by a
# little. "70 % a seven, 30 % a one" is a fine row, called a **soft label**. The loss is defined for
# it, so it has a gradient:
#
# $∂L/∂y_k = -\log p_k$.
#
# Nobody can differentiate with respect to the digit 7, but with respect to the row that stands for
# it one can. So in lesson 8
# the attacker can look for the label as it looks for the picture: downhill.

# %%
soft = Tensor(np.array([[0, 0.3, 0, 0, 0, 0, 0, 0.7, 0, 0]]))
z = model(as_tensors(start), Tensor(pictures[7:8]))
(by_label,) = grad(cross_entropy(z, soft), [soft])
assert np.allclose(by_label.data, -log_softmax(z).data)

# %% [markdown]
# ## Training
#
# The whole art: take 32 pictures, compute the gradient of the loss with respect to all 13,426
# numbers, move against it, repeat. We keep 200 pictures apart, to see whether the network can read
# digits that it was not shown.
#
# A thousand gradients take a while. `trace` makes them faster: it watches the computation once, and
# then repeats it with nothing but NumPy's calls. Lesson 14 builds it. Until then it is a faster way
# to the same numbers.

# %%
names = list(model.shapes)
pixels, held_back = pictures[:800].astype("float32"), Tensor(pictures[800:].astype("float32"))


def loss_and_gradients(x, y, *weights):
    loss = cross_entropy(lenet(dict(zip(names, weights, strict=True)), x), y)
    return loss, *grad(loss, list(weights))


def draw(rng):
    chosen = rng.integers(800, size=32)
    return pixels[chosen], one_hot(labels[chosen], 10, "float32")


batch, weights = draw(np.random.default_rng(0)), [w.astype("float32") for w in start.values()]
program = trace(loss_and_gradients, *batch, *weights)
tensors = [Tensor(array) for array in (*batch, *weights)]
for ours, own in zip(loss_and_gradients(*tensors), program(*batch, *weights), strict=True):
    assert np.allclose(ours.data, own, rtol=1e-4, atol=1e-5), "the same numbers"


def right_answers(weights):
    answers = model(as_tensors(dict(zip(names, weights, strict=True))), held_back)
    return answers.data.argmax(axis=1) == labels[800:]


def train(weights, steps=1000, rate=0.2):
    rng = np.random.default_rng(6)
    weights = [array.astype("float32") for array in weights.values()]
    losses = []
    for step in range(steps):
        loss, *gradients = program(*draw(rng), *weights)
        losses.append(float(loss))
        smaller = np.float32(rate * (1 - step / steps))  # shorter and shorter steps, to settle
        weights = [w - smaller * g for w, g in zip(weights, gradients, strict=True)]
    return weights, losses


trained, losses = train(start)
accuracy = right_answers(trained).mean()
print(f"the loss fell from {losses[0]:.2f} to about {np.mean(losses[-50:]):.2f}")
print(f"of 200 pictures never shown, {accuracy:.0%} are read right")
assert np.mean(losses[-50:]) < 0.4 and accuracy > 0.88

# %% [markdown]
# `nn.train` is this loop, with what people like to add to it: momentum, Adam, a bar that shows how
# far it is. A hundred steps are enough to compare.

# %%
own = nn.train(
    model,
    pixels,
    labels[:800],
    params=start,
    steps=100,
    learning_rate=lambda step: 0.2 * (1 - step / 1000),
    momentum=0.0,
    seed=6,
)
assert np.allclose(own.losses, losses[:100], rtol=1e-3), "the same steps"
last = dict(zip(names, trained, strict=True))
assert nn.accuracy(model, last, pictures[800:], labels[800:]) == accuracy

# %%
guesses = model(as_tensors(dict(zip(names, trained, strict=True))), held_back).data.argmax(axis=1)
wrong = np.flatnonzero(guesses != labels[800:])
assert len(wrong) >= 6, "a row of errors to show"
shown = [*wrong[:6], *np.flatnonzero(guesses == labels[800:])[: 12 - len(wrong[:6])]]

# %% tags=["thumbnail"]
figure, axes = plt.subplots(2, 6, figsize=(8, 3.1), layout="constrained")
for ax, index in zip(axes.flat, shown, strict=True):
    ax.imshow(held_back.data[index, 0], cmap="gray")
    right = guesses[index] == labels[800 + index]
    ax.set_title(f"{guesses[index]}", fontsize=15, color="#009E73" if right else "#D55E00")
    ax.axis("off")
plt.show()

# %% [markdown]
# Above: what it takes for something else, in orange. Below: what it reads right. Some of its errors
# one can understand.
#
# ## Where one gets stuck
#
# The start above was drawn between −0.5 and 0.5. That looks arbitrary. Many libraries draw smaller
# weights: between $-1/\sqrt{n}$ and $1/\sqrt{n}$, where $n$ is how many numbers go into a sum. For
# the middle layers $n = 12 · 25$, so that is ±0.058. Let us do as they do.

# %%
small_start = model.init(np.random.default_rng(0), "default")
assert 0.057 < np.abs(small_start["body.2.weight"]).max() < 0.058
still, flat = train(small_start, steps=300)
accuracy = right_answers(still).mean()
print(f"after 300 steps the loss is {np.mean(flat[-50:]):.3f}, and {accuracy:.0%} are right")
assert abs(np.mean(flat[-50:]) - np.log(10)) < 0.05 and accuracy < 0.25

figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
ax.plot(losses, color="#0072B2", linewidth=0.7)
ax.plot(flat, color="#D55E00", linewidth=0.7)
ax.axhline(np.log(10), color="#666666", linestyle=":")
ax.text(1005, np.log(10), "log 10", va="center")
ax.text(310, 2.0, "small weights", color="#D55E00")
ax.text(500, 0.8, "between −0.5 and 0.5", color="#0072B2")
ax.set(xlabel="step", ylabel="loss", ylim=(0, 3.2), xlim=(0, 1000))
ax.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# The loss sits at 2.303. There is the number again. The symptom says: the network answers the same
# to every picture. It has not learnt badly, it does not *see*.
#
# How would one find out where it goes blind? Show it many pictures, and look after each layer how
# much the numbers still differ from picture to picture.


# %%
def spread_by_layer(weights):
    """How much the numbers after each sigmoid vary from picture to picture."""
    x, weights = Tensor(pictures[:100]), as_tensors(weights)
    spreads = [x.data.std(axis=0).mean()]
    for layer, stride in enumerate([2, 2, 1]):
        weight, bias = weights[f"body.{2 * layer}.weight"], weights[f"body.{2 * layer}.bias"]
        x = ops.sigmoid(nn.conv2d(x, weight, bias, stride=(stride, stride), padding=(2, 2)))
        spreads.append(x.data.std(axis=0).mean())
    return np.array(spreads)


large, small = spread_by_layer(start), spread_by_layer(small_start)
print("between −0.5 and 0.5:", *(f"{spread:.4f}" for spread in large))
print("small weights:       ", *(f"{spread:.4f}" for spread in small))
assert (small[1:] < small[:-1] / 5).all() and large[3] > 30 * small[3]

# %% [markdown]
# With small weights each layer makes the differences more than five times smaller. A sigmoid is
# never steeper than 1/4, and the weights do the rest. After three layers all pictures look the
# same. What fades forwards fades backwards, too. Compare the gradient of the first kernels with
# that of the last matrix:

# %%
ends = ("body.0.weight", "fc.0.weight")
for text, weights in (("between −0.5 and 0.5", start), ("small weights", small_start)):
    batch = Tensor(pictures[:32]), Tensor(one_hot(labels[:32], 10))
    _, *gradients = loss_and_gradients(*batch, *as_tensors(weights).values())
    first, last = (np.abs(gradients[names.index(name)].data).max() for name in ends)
    print(f"{text}: the first layer's gradient is {first / last:.4f} of the last one's")
assert first / last < 0.01

# %% [markdown]
# The cure is a larger start, or a function that is steeper than the sigmoid. (With `tanh`, whose
# slope is 1 at 0, the small start learns well. Lesson 12 uses that.)
#
# ## What a client shares
#
# In **federated learning** many clients teach one network together. Each keeps its pictures at home
# and shares only the gradient. tinyleak's `share` plays such a client. It returns what the client
# shares, and apart from it the truth, which the client keeps. It is what we did, for one batch:

# %%
picture, label = digits.batch([7])
client, _ = share(model, start, picture, label)

weights = as_tensors(start)
loss = cross_entropy(lenet(weights, Tensor(picture)), Tensor(one_hot(label, 10)))
for name, ours in zip(weights, grad(loss, list(weights.values())), strict=True):
    assert np.allclose(ours.data, client.gradients[name])
shared = sum(g.size for g in client.gradients.values())
print(f"{shared} numbers are shared about a picture of {picture.size}")
assert shared > 17 * picture.size

# %% [markdown]
# Seventeen times as many numbers as the picture has. Perhaps one should have become suspicious
# here.
#
# ## What to remember
#
# - A label can be a row of probabilities, and then one can differentiate with respect to it.
# - The loss of a network that knows nothing is the logarithm of the number of classes. Compare your
#   first loss with it, and be worried if it stays there.
# - To find where a network goes blind, look at the spread layer by layer.
#
# The real things are [`tinyleak/nn/losses.py`](../tinyleak/nn/losses.py),
# [`tinyleak/nn/init.py`](../tinyleak/nn/init.py) and
# [`tinyleak/nn/models/lenet.py`](../tinyleak/nn/models/lenet.py).
#
# ## Exercise
#
# Small steps against the gradient are slow. See for yourself, on a function of two numbers with a
# long curved valley,
#
# $f(x, y) = (1 - x)^2 + 100 (y - x^2)^2$,
#
# whose lowest point is (1, 1). Start at (−1.2, 1) and step against the gradient with a rate of
# 0.001. How many steps until $f < 10^{-6}$? And what happens with a rate of 0.01? (The derivatives
# are easy on paper, and `grad` knows them as well.)
#
# <details><summary>Solution to the exercise of lesson 5</summary>
#
# $⌊(28 + 4 - 5) / 2⌋ + 1 = 14$, then $⌊(14 + 4 - 5) / 2⌋ + 1 = 7$, then $(7 + 4 - 5) / 1 + 1 = 7$.
# There are 12 channels, so 12 · 7 · 7 = 588 numbers come out.
#
# ```python
# x = rng.standard_normal((1, 1, 28, 28))
# for stride, side in [(2, 14), (2, 7), (1, 7)]:
#     x = convolve(x, rng.standard_normal((12, x.shape[1], 5, 5)), stride, 2)
#     assert x.shape == (1, 12, side, side)
# assert x.size == 588
# ```
#
# </details>
