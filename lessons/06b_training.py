# %% [markdown]
# # 6b. Training, and a network that did not see
#
# *How does a network learn to read, and what is wrong if its loss does not move?*
#
# ← [6. A network and its loss](06_lenet.ipynb) · about 25 minutes · needs lesson 6 ·
# [7. L-BFGS](07_lbfgs.ipynb) → · [all lessons](README.md)
#
# The network of lesson 6 has 13,426 random weights. In this lesson it learns to read digits, in a
# few seconds, by nothing but steps against the gradient. Then we see it fail to learn, for a reason
# that is worth knowing.

# %%
import matplotlib.pyplot as plt
import numpy as np
from checks import check, expect
from plots import BLUE, GREEN, GREY, ORANGE, picture, show, tidy

from tinyleak import LeNet, Tensor, cross_entropy, data, grad, nn, one_hot, ops, trace

DATA, DATA_DIR = "glyphs", None  # or "mnist", and the folder that holds its files

digits = data.load(DATA, data_dir=DATA_DIR)
pictures, labels = digits.images[:1000], digits.labels[:1000]
model = LeNet()
start = model.init(np.random.default_rng(0))


def as_tensors(arrays):
    return {name: Tensor(array) for name, array in arrays.items()}


# %% [markdown]
# ## Training
#
# The whole art: take 32 pictures, compute the gradient of the loss with respect to all 13,426
# numbers, move against it, repeat. We keep 200 pictures apart, to see whether the network can read
# digits that it was not shown.
#
# A thousand gradients take a while. tinyleak's `trace` makes them faster: it watches the
# computation once, and then repeats it with nothing but NumPy's calls. Lesson 14 builds it. Until
# then it is a faster way to the same numbers.

# %%
names = list(model.shapes)
pixels, held_back = pictures[:800].astype("float32"), Tensor(pictures[800:].astype("float32"))


def loss_and_gradients(x, y, *weights):
    loss = cross_entropy(model(dict(zip(names, weights, strict=True)), x), y)
    return loss, *grad(loss, list(weights))


def draw(rng):
    chosen = rng.integers(800, size=32)
    return pixels[chosen], one_hot(labels[chosen], 10, "float32")


batch, weights = draw(np.random.default_rng(0)), [w.astype("float32") for w in start.values()]
program = trace(loss_and_gradients, *batch, *weights)
tensors = [Tensor(array) for array in (*batch, *weights)]
for ours, own in zip(loss_and_gradients(*tensors), program(*batch, *weights), strict=True):
    assert np.allclose(ours.data, own, rtol=1e-4, atol=1e-5), "the same numbers"


# %%
def right_answers(weights):
    answers = model(as_tensors(dict(zip(names, weights, strict=True))), held_back)
    return answers.data.argmax(axis=1) == labels[800:]


SEED = 6  # of the batches


def train(weights, steps=1000, rate=0.2):
    rng = np.random.default_rng(SEED)
    weights = [array.astype("float32") for array in weights.values()]
    losses = []
    for step in range(steps):
        loss, *gradients = program(*draw(rng), *weights)
        losses.append(float(loss))
        smaller = np.float32(rate * (1 - step / steps))  # shorter and shorter steps, to settle
        weights = [w - smaller * g for w, g in zip(weights, gradients, strict=True)]
    return weights, losses


# %%
trained, losses = train(start)
accuracy = right_answers(trained).mean()
print(f"the loss fell from {losses[0]:.2f} to about {np.mean(losses[-50:]):.2f}")
print(f"of 200 pictures never shown, {accuracy:.0%} are read right")
expect(np.mean(losses[-50:]) < 0.4 and accuracy > 0.88, "it has learnt to read")

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
    seed=SEED,
)
assert np.allclose(own.losses, losses[:100], rtol=1e-3), "the same steps"
last = dict(zip(names, trained, strict=True))
assert nn.accuracy(model, last, pictures[800:], labels[800:]) == accuracy, (
    "nn.accuracy counts the same"
)

# %%
guesses = model(as_tensors(dict(zip(names, trained, strict=True))), held_back).data.argmax(axis=1)
wrong = np.flatnonzero(guesses != labels[800:])
expect(len(wrong) >= 6, "there is a row of errors to show")
shown = [*wrong[:6], *np.flatnonzero(guesses == labels[800:])[: 12 - len(wrong[:6])]]

# %% tags=["thumbnail"]
figure, axes = plt.subplots(2, 6, figsize=(7, 2.8), layout="constrained")
for ax, index in zip(axes.flat, shown, strict=True):
    picture(ax, held_back.data[index, 0], f"{guesses[index]}", size=15)
    right = guesses[index] == labels[800 + index]
    ax.title.set_color(GREEN if right else ORANGE)
show("Twelve digits with the network's guess above each: six wrong ones and six right ones.")

# %% [markdown]
# Top row: digits that it misreads, with its guess in orange. Bottom row: digits that it reads
# right. Some of the errors are easy to understand.
#
# ## Where one gets stuck
#
# The start above was drawn between −0.5 and 0.5. That looks arbitrary. Many libraries draw smaller
# weights: between $-1/\sqrt{n}$ and $1/\sqrt{n}$, where $n$ is how many numbers go into a sum. For
# the middle layers $n = 12 · 25$, so that is ±0.058. Let us do as they do.
#
# **Predict first.** The same network, the same steps, ten times smaller weights to begin with. Will
# it learn faster, slower, or not at all?
#
# <details><summary>Answer</summary>
#
# Not at all, in 300 steps. Most people say "a little slower", since weights can grow. They can, but
# only if the gradient says which way.
#
# </details>

# %%
small_start = model.init(np.random.default_rng(0), "default")
assert 0.057 < np.abs(small_start["body.2.weight"]).max() < 0.058, "one over the root of 300"
still, flat = train(small_start, steps=300)
accuracy = right_answers(still).mean()
print(f"after 300 steps the loss is {np.mean(flat[-50:]):.3f}, and {accuracy:.0%} are right")
expect(abs(np.mean(flat[-50:]) - np.log(10)) < 0.05 and accuracy < 0.25, "it has not learnt")

# %%
figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
ax.plot(losses, color=BLUE, linewidth=0.7)
ax.plot(flat, color=ORANGE, linewidth=0.7)
ax.axhline(np.log(10), color=GREY, linestyle=":")
ax.text(1005, np.log(10), "log 10", va="center")
ax.text(310, 2.0, "small weights", color=ORANGE)
ax.text(500, 0.8, "between −0.5 and 0.5", color=BLUE)
ax.set(xlabel="step", ylabel="loss", ylim=(0, 3.2), xlim=(0, 1000))
tidy(ax)
show("The loss over 1,000 steps: from weights up to 0.5 it falls, from small ones it stays.")

# %% [markdown]
# The loss sits at 2.303. There is lesson 6's number again. The symptom says: the network answers
# the same to every picture. It has not learnt badly, it does not *see*.
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
expect(
    (small[1:] < small[:-1] / 5).all() and large[3] > 30 * small[3],
    "each layer takes the differences away",
)

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
expect(first / last < 0.01, "what fades forwards fades backwards")

# %% [markdown]
# The cure is a larger start, or a function that is steeper than the sigmoid. (With `tanh`, whose
# slope is 1 at 0, the small start learns well. Lesson 12 uses that.)
#
# ## What to remember
#
# - Training is a step against the gradient, many times, each on another batch.
# - If the loss stays at the logarithm of the number of classes, the network sees nothing.
# - To find where a network goes blind, look at the spread layer by layer.
#
# The real things are [`tinyleak/nn/training.py`](../tinyleak/nn/training.py) and
# [`tinyleak/nn/init.py`](../tinyleak/nn/init.py).
#
# ## Exercise
#
# Small steps against the gradient are slow. See for yourself, on a function of two numbers with a
# long curved valley,
#
# $$f(x, y) = (1 - x)^2 + 100 (y - x^2)^2,$$
#
# whose lowest point is (1, 1). Write `descend(rate)`, which starts at (−1.2, 1), steps against the
# gradient, and returns how many steps it takes until $f < 10^{-6}$, or infinity (`np.inf`) if the
# numbers grow beyond a million. Try a rate of 0.001, and of 0.01. (The derivatives are easy on
# paper, and `grad` knows them as well.)
#
# <details><summary>Solution to the exercise of lesson 6</summary>
#
# The fresh network's accuracy is about a tenth, as it would be for any network that answers the
# same to every picture.
#
# ```python
# def accuracy(logits, labels):
#     return (logits.argmax(axis=1) == labels).mean()
#
#
# logits = model(as_tensors(start), Tensor(pictures)).data
# assert accuracy(logits, labels) < 0.25
# ```
#
# </details>


# %%
def descend(rate):
    pass  # yours


check("6b", descend)
