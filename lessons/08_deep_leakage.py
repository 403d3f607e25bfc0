# %% [markdown]
# # 8. Deep leakage in 20 lines
#
# *What does a gradient tell about the picture that it was made from?*
#
# ← [7. L-BFGS](07_lbfgs.ipynb) · about 30 minutes ·
# needs lessons 4 and 6, and lesson 7 or trust in a minimiser ·
# [9. Why it sometimes fails, and what fixed it](09_why_it_fails.ipynb) → ·
# [all lessons](README.md)
#
# A client has a picture that nobody may see. It computes the gradient of a network's loss, as in
# lesson 6, and shares that and nothing else. In this lesson we take the gradient and get the
# picture back. All the parts are there: a gradient of a gradient (lesson 4), a network that looks
# at pictures (5), labels that can be moved by a little (6), and a way down long valleys (7).
#
# ## What the world knew
#
# That a gradient is safe to share was hardly ever claimed, and widely assumed. **Federated
# learning** (McMahan and others, *Communication-Efficient Learning of Deep Networks from
# Decentralized Data*, 2017) was built on it: the data stay at home, only what was learnt from them
# is sent. There had been warnings. A layer with a bias gives its input away by a division (Phong
# and others, *Privacy-Preserving Deep Learning via Additively Homomorphic Encryption*, 2018), and
# Melis and others (*Exploiting Unintended Feature Leakage in Collaborative Learning*, 2019) read
# properties of the data off shared updates. But a whole picture out of a convolutional network was
# not thought possible.
#
# Then Ligeng Zhu, Zhijian Liu and Song Han did it, with an idea of one sentence: *Deep Leakage from
# Gradients*, NeurIPS 2019. This lesson is that idea. What came after: the label by a rule (iDLG,
# 2020; lesson 10), large trained networks by the gradient's direction (Geiping and others,
# *Inverting Gradients*, arXiv 2003.14053), one layer after the other without minimising (R-GAP,
# arXiv 2010.07733), text word for word (DAGER, arXiv 2405.15586; lesson 13), and defences (lesson
# 12).
#
# One more thing to know before being frightened: those who tested such attacks under the
# conditions of real systems, with large batches, many local steps and trained networks, found that
# none of those they tried got through (arXiv 2409.19301). What follows is the paper's setting: one
# picture, fresh weights, the exact gradient.

# %%
import matplotlib.pyplot as plt
import numpy as np
from checks import check, expect
from plots import BLUE, LIGHT, ORANGE, picture, pictures, show, slider, tidy

from tinyleak import LeNet, Tensor, attack, cross_entropy, data, grad, lbfgs, one_hot, ops, softmax
from tinyleak.attacks import Matching

DATA, DATA_DIR = "glyphs", None  # or "mnist", and the folder that holds its files

# %% [markdown]
# ## The client
#
# The network is the LeNet of lesson 6, with fresh weights. Everybody who takes part knows them. The
# picture `truth` and its `label` stay with the client. It shares `shared`: eight arrays, one for
# each array of weights.

# %%
rng = np.random.default_rng(0)
model = LeNet()
arrays = model.init(rng)
weights = {name: Tensor(array) for name, array in arrays.items()}


def gradient(x, y):
    """What a client with picture x and label y shares."""
    return grad(cross_entropy(model(weights, x), y), list(weights.values()))


truth, label = data.load(DATA, data_dir=DATA_DIR).batch([7])
shared = [Tensor(g.data) for g in gradient(Tensor(truth), Tensor(one_hot(label, 10)))]

# %% [markdown]
# ## The attacker
#
# From here on we use `truth` only to see how close we are.
#
# We make a picture of pure noise and a label of pure noise: the [**dummies**](README.md#dummy).
# Together they are 794 random numbers $z$: 784 are the picture and 10 the label. With them we do
# what the client did, and get *their* gradient. How far it is from the shared one is a number:
#
# $$D(z) = ∑_j (g_j(z) - g_j^*)^2,$$
#
# where $g(z)$ is the dummies' gradient, $g^*$ the shared one, and the sum is over all 13,426
# entries.
#
# If the dummy were the client's picture, $D$ would be zero. So we make $D$ small. L-BFGS needs $D$
# and $∂D/∂z$ at each point, and `grad` of `grad` gives both.
#
# The label must be ten probabilities. Softmax turns any ten numbers into probabilities.


# %%
def objective(z):
    """The distance at z, and its gradient with respect to z."""
    dummy = Tensor(z)
    x = ops.reshape(dummy[:784], truth.shape)
    y = softmax(ops.reshape(dummy[784:], (1, 10)))
    distance = sum(ops.sum((a - b) ** 2) for a, b in zip(gradient(x, y), shared, strict=True))
    return distance.data, grad(distance, [dummy])[0].data


start = rng.standard_normal(794)
iterates = list(lbfgs(objective, start, goal=1e-8, max_iterations=500))

# %% [markdown]
# That is the whole attack. Count the lines of the last two cells, if you like. Now look at what the
# dummy picture was on the way.

# %% tags=["thumbnail"]
end = len(iterates) - 1
stages = [*(stage for stage in (0, 20, 40, 60, 80, 100, 140) if stage < end), end]
dummies = np.array([iterate.x[:784].reshape(28, 28) for iterate in iterates])
titles = ["noise", *(f"step {stage}" for stage in stages[1:])]
pictures(dummies[stages], titles, rows=2 if len(stages) == 8 else 1, figsize=(7, 3.9))
show("The dummy picture at eight steps: noise, then shadows, and at the end a clear digit 7.")

# %% [markdown]
# Every fourth step, to go through by hand (if the slider does not move, run its cell):

# %%
every = np.arange(0, end + 1, 4)
labels = [f"step {step}: distance {iterates[step].value:.1e}" for step in every]
slider(dummies[every], labels, "The dummy picture, every fourth step, from noise to the digit.")

# %% [markdown]
# There it is. And it does not merely look like the client's digit. It *is* that digit, pixel by
# pixel.

# %%
last = iterates[-1].x
error = np.square(last[:784] - truth.ravel()).mean()
print(f"largest error of a pixel: {np.abs(last[:784] - truth.ravel()).max():.4f}, black 0, white 1")
print(f"mean squared error: {error:.0e}")
print("label:", last[784:].argmax(), "and the client's:", label[0])
expect(error < 1e-4 and last[784:].argmax() == label[0], "the client's digit and its label")

# %% [markdown]
# **Predict first.** Picture and label were noise at first, and nobody told the attacker either.
# Which settles first, the label or the picture, or both at once?
#
# <details><summary>Answer</summary>
#
# The label, long before the picture. Most people say both at once, as they are moved together, or
# the picture, as one must see a digit to name it. But the last layer's gradient hardly depends on
# what the picture looks like, and very much on its label. Lesson 10 makes a rule of that.
#
# </details>

# %%
steps = np.arange(len(iterates))
distances = [iterate.value for iterate in iterates]
errors = [np.square(iterate.x[:784] - truth.ravel()).mean() for iterate in iterates]
beliefs = softmax(Tensor(np.array([iterate.x[784:] for iterate in iterates]))).data

figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
left.semilogy(steps, distances, color=BLUE)
left.semilogy(steps, errors, color=ORANGE)
left.text(steps[-1] * 0.2, distances[0] * 0.3, "distance of the gradients", color=BLUE)
left.text(steps[-1] * 0.2, distances[0] * 0.03, "error of the picture", color=ORANGE)
left.set(xlabel="step")
for digit, belief in enumerate(beliefs.T):
    right.plot(steps, belief, color=ORANGE if digit == label[0] else LIGHT)
right.text(steps[-1] * 0.5, 0.9, f"class {label[0]}", color=ORANGE)
right.set(xlabel="step", ylabel="dummy label", ylim=(0, 1.05))
tidy(left, right)
show("Left: distance and error fall together. Right: the label's class rises to 1 early on.")

# %% [markdown]
# Left: the attacker sees the blue curve. It does not need the orange one. When the distance goes to
# zero, the picture comes along. Right: nobody told the attacker the label. It settles first, and
# then the picture follows.

# %%
label_settles = int(np.flatnonzero(beliefs[:, label[0]] < 0.9).max()) + 1
picture_settles = int(np.flatnonzero(np.array(errors) > 1e-2).max()) + 1
print(f"the label is found at step {label_settles}, the picture at step {picture_settles}")
expect(label_settles < picture_settles, "the label settles first")

# %% [markdown]
# ## Why it works
#
# The shared gradient is 13,426 numbers. The dummies are 794 unknowns. So there are almost
# seventeen times as many equations as unknowns. The client's picture solves all of them. That
# another picture solves them, too, would be a strange accident. This is a reason and not a proof.
# There are networks for which it is wrong, and lesson 9 looks at what can go wrong here.
#
# ## tinyleak's own
#
# The objective of the package is called `Matching`. At any $z$ it has the same distance and the
# same gradient as ours:

# %%
named = dict(zip(arrays, [g.data for g in shared], strict=True))
matching = Matching(model, arrays, named, batch=1, scale=np.ones(()))
for z in (start, iterates[end // 3].x):
    value, slope = objective(z)
    own_value, own_slope = matching.value_and_gradient(Tensor(z))
    assert np.allclose(value, own_value.data, rtol=1e-10), "the package's distance"
    assert np.allclose(slope, own_slope.data, rtol=1e-8, atol=1e-10), "and its gradient"

# %% [markdown]
# And the attack is called `attack`. It starts from other noise, divides the distance by the size of
# the gradient, and goes on for longer. Each step is faster, too, since it records the graph of
# `objective` once and repeats it (lesson 14).

# %%
found = attack(model, arrays, named)
print(f"{found.reason} after {found.iterations} steps, label {found.labels[0]}")
print(f"mean squared error: {np.square(found.images - truth).mean():.0e}")
expect(
    np.square(found.images - truth).mean() < 1e-14 and found.labels[0] == label[0],
    "attack finds the digit exactly",
)

# %% [markdown]
# ## Where one gets stuck
#
# The attacker gets the weights from somewhere, perhaps in a file. Suppose that the file keeps those
# of the second convolution in another order: the first two axes are swapped. There, 12 channels go
# in and 12 come out. So everything fits.

# %%
right_weights = {name: Tensor(array) for name, array in arrays.items()}
turned = np.ascontiguousarray(arrays["body.2.weight"].transpose(1, 0, 2, 3))
swapped_weights = {**right_weights, "body.2.weight": Tensor(turned)}

weights = swapped_weights  # `objective` takes them from here
wrong = list(lbfgs(objective, start, goal=1e-8, max_iterations=150))
weights = right_weights
print(f"the distance falls from {wrong[0].value:.0f} to {wrong[-1].value:.0f}, and stays")
print(f"pixels lie between {wrong[-1].x[:784].min():.0f} and {wrong[-1].x[:784].max():.0f}")
expect(np.abs(wrong[-1].x[:784]).max() > 10, "pixels far from black and white")
expect(wrong[-1].value > max(1, 0.8 * wrong[-50].value), "the distance stays")

figure, axes = plt.subplots(1, 3, figsize=(7, 2.5), width_ratios=[1, 1, 2.2], layout="constrained")
picture(axes[0], iterates[-1].x[:784].reshape(28, 28), "right weights")
picture(axes[1], wrong[-1].x[:784].reshape(28, 28), "swapped axes")
axes[2].semilogy(distances, color=BLUE, label="right weights")
axes[2].semilogy([iterate.value for iterate in wrong], color=ORANGE, label="swapped axes")
axes[2].set(xlabel="step", ylabel="distance")
axes[2].legend(frameon=False)
tidy(axes[2])
show("A 7 from the right weights, noise from swapped ones, whose distance stays far above zero.")

# %% [markdown]
# The symptom: the distance falls at first, and then stays far above zero. The picture is noise, and
# its pixels grow. It looks like a failure of the minimiser. One could spend days on line
# searches and starts.
#
# Here is what to do first, before any attack. Make a gradient of a picture that you *do* know, in
# the same way as the client does, and put that picture in. **At the truth the distance must be
# zero.** If it is not, there is nothing to be found, and no minimiser will help:


# %%
def at_the_truth():
    logits = np.where(one_hot(label, 10) > 0, 50.0, 0.0)  # softmax makes it a 1 and nine zeros
    value, slope = objective(np.concatenate([truth.ravel(), logits[0]]))
    return value, np.abs(slope).max()


weights = swapped_weights
value, slope = at_the_truth()
print(f"swapped axes:  distance {value:.1f}, slope {slope:.1f}")
assert value > 100, "the truth does not fit swapped axes"

weights = right_weights
value, slope = at_the_truth()
print(f"right weights: distance {value:.1f}, slope {slope:.1f}")
assert value < 1e-20 and slope < 1e-9, "at the truth the distance is zero"

# %% [markdown]
# It is the same test for a loss that was divided by two, or a label that was counted from one:

# %%
right_gradient = [Tensor(g.data) for g in gradient(Tensor(truth), Tensor(one_hot(label, 10)))]
one_too_many = Tensor(one_hot((label + 1) % 10, 10))
shared = [Tensor(g.data / 2) for g in right_gradient]
halved, _ = at_the_truth()
shared = [Tensor(g.data) for g in gradient(Tensor(truth), one_too_many)]
miscounted, _ = at_the_truth()
shared = right_gradient
print(f"half the loss:  distance {halved:.1f}")
print(f"the next label: distance {miscounted:.1f}")
assert min(halved, miscounted) > 1, "neither fits the truth"

# %% [markdown]
# ## What to remember
#
# - A gradient is a system of equations for the data that it was made from. Here there are enough of
#   them.
# - The attack is: compute the same for a dummy, measure the distance, go downhill.
# - Before you attack, put the truth in.
#
# And what to keep in mind: this attacker knows the network, its weights, and the exact gradient of
# *one* picture. With many pictures at once, with noise on the gradient, or with a sum over many
# clients it gets harder. Lessons 9 to 13 look at that.
#
# The real things are [`tinyleak/attacks/matching.py`](../tinyleak/attacks/matching.py) and
# [`tinyleak/attacks/dlg.py`](../tinyleak/attacks/dlg.py). To watch it live, on a digit that you
# draw, save [leak.html](leak.html) and open it in a browser.
#
# ## Exercise
#
# Many networks use $\max(0, x)$ in place of the sigmoid, called [**relu**](README.md#relu). What is
# its second derivative? Write `second(x)`, which returns it at an array of numbers, by `grad` and
# `ops.relu`. Then let `LeNet(activation="relu")` be the model, and attack from noise, as here, with
# 100 iterations (`attack` takes `start="noise"` and `settings=Settings(iterations=100)`). What
# comes out, and why?
#
# <details><summary>Solution to the exercise of lesson 7</summary>
#
# The more pairs, the fewer steps: about 480, 290 and 240. For a function as costly as the attack's
# that is a bargain, and so tinyleak keeps 100.
#
# ```python
# def chain(x):
#     wall = x[1:] - x[:-1] ** 2
#     height = ((1 - x[:-1]) ** 2 + 100 * wall**2).sum()
#     slope = np.zeros_like(x)
#     slope[:-1] += -2 * (1 - x[:-1]) - 400 * x[:-1] * wall
#     slope[1:] += 200 * wall
#     return height, slope
#
#
# start = np.tile([-1.2, 1.0], 25)
# counts = []
# for pairs_kept in (1, 5, 100):
#     *_, end = lbfgs(chain, start, history=pairs_kept, goal=1e-12)
#     assert end.value <= 1e-12
#     counts.append(end.iterations)
# assert counts[0] > 1.3 * counts[1] > 1.3 * counts[2]
# ```
#
# </details>


# %%
def second(x):
    pass  # yours


check(8, second)
