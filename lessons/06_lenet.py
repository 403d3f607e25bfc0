# %% [markdown]
# # 6. A network and its loss
#
# *How does a network turn a picture into a guess, and how do we tell it how wrong it is?*
#
# ← [5. Convolution](05_convolution.ipynb) · about 25 minutes · needs lesson 5 ·
# [6b. Training, and a network that did not see](06b_training.ipynb) → · [all lessons](README.md)
#
# Here everything so far comes together: tensors, `grad`, convolutions. We build the network of the
# paper that this project is about, and the loss that says how wrong it is. In lesson 6b it learns,
# and in lesson 8 we turn around and attack it.

# %%
import matplotlib.pyplot as plt
import numpy as np
from checks import check
from plots import BLUE, GREY, ORANGE, picture, show, tidy

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
# matrix, which leaves ten numbers, one for each digit. These are called the
# [**logits**](README.md#logit). The largest one is the network's guess.
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
assert start["fc.0.weight"].shape == (10, 588), "588 features for ten logits"
assert all(np.abs(array).max() <= 0.5 for array in start.values()), "drawn between −0.5 and 0.5"


def as_tensors(arrays):
    return {name: Tensor(array) for name, array in arrays.items()}


some = Tensor(pictures[:4])
assert np.allclose(lenet(as_tensors(start), some).data, model(as_tensors(start), some).data), (
    "tinyleak's LeNet is this network"
)

# %% [markdown]
# `fc.0.weight` has 588 columns, one for each number that the body of the last exercise makes: 12
# kernels, and pictures of 7 × 7 after the strides.
#
# ## How wrong is a guess?
#
# Logits can be any numbers. We turn them into probabilities $p$: positive, with a sum of 1.
#
# $$p_k = e^{z_k} / ∑_j e^{z_j}$$
#
# This is called [**softmax**](README.md#softmax).
#
# ## Where one gets stuck
#
# Written like that it fails as soon as a logit is large: $e^{1000}$ is more than a computer can
# hold, and infinity divided by infinity is not a number. The symptom is a loss of `nan` in the
# middle of a training that went well. The cure: subtract the same number from all logits, and $p$
# stays what it is. So subtract the largest.


# %%
def our_log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


z = np.array([[1.0, 2.0, 3.0], [1000.0, 0.0, -1000.0]])
with np.errstate(over="ignore", invalid="ignore"):
    naive = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
print("as written:     ", np.round(naive[1], 3))
print("largest removed:", np.round(np.exp(our_log_softmax(z))[1], 3))

assert np.isnan(naive[1, 0]) and np.allclose(naive[0], softmax(Tensor(z)).data[0]), (
    "the largest one overflows, the small ones are right"
)
assert np.allclose(our_log_softmax(z), log_softmax(Tensor(z)).data), "the same as log_softmax"

# %% [markdown]
# ## The loss
#
# What should $p$ have been? We write the right answer as probabilities, too: a row $y$ with a 1 at
# the right digit and 0 elsewhere. The loss compares the two:
#
# $$L = -∑_k y_k \log p_k.$$
#
# It is called the [**cross-entropy**](README.md#cross-entropy). For a row with a single 1 it is
# $-\log$ of the probability that the network gave to the right digit. If that was 1, the loss is 0.
# If that was almost 0, the loss is huge. For a batch we take the mean.


# %%
def our_cross_entropy(z, y):
    return -(y * our_log_softmax(z)).sum(axis=-1).mean()


z = model(as_tensors(start), some)
y = one_hot(labels[:4], 10)
print(y)
assert np.isclose(our_cross_entropy(z.data, y), float(cross_entropy(z, Tensor(y)))), (
    "the same as cross_entropy"
)

# %% [markdown]
# **Predict first.** A network that knows nothing says 0.1 for every digit, and is wrong nine times
# of ten. What is its loss?
#
# <details><summary>Answer</summary>
#
# $-\log 0.1 = \log 10 ≈ 2.303$, whatever the picture. Most people say 0.9, the share of wrong
# guesses. But the cross-entropy does not count guesses. It asks what probability the right digit
# was given, and that is 0.1 every time.
#
# </details>
#
# Remember that number. We shall meet it again.

# %%
assert np.isclose(our_cross_entropy(np.zeros((4, 10)), y), np.log(10)), (
    "the loss of a network that knows nothing"
)

# %% tags=["thumbnail"]
probabilities = np.exp(our_log_softmax(z.data))[3]
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(7, 2.8), layout="constrained")
picture(left, pictures[3, 0], f"a {labels[3]}", size=12)
colours = [ORANGE if digit == labels[3] else BLUE for digit in range(10)]
middle.bar(range(10), probabilities, color=colours)
middle.set(xticks=range(10), xlabel="digit", title="the fresh network")
share_of_right = np.linspace(0.005, 1, 200)
right.plot(share_of_right, -np.log(share_of_right), color=BLUE)
right.plot(0.1, np.log(10), "o", color=GREY)
right.text(0.14, np.log(10), "knows nothing", va="center", color=GREY)
right.set(xlabel="probability of\nthe right digit", title="its loss")
tidy(middle, right)
show(
    "A digit; the ten probabilities of a fresh network as bars; and the loss, minus the logarithm."
)

# %% [markdown]
# ## Soft labels
#
# Why write the label as a row, when the digit alone would do? Because a row can be moved by a
# little. "70 % a seven, 30 % a one" is a fine row, called a [**soft label**](README.md#soft-label).
# The loss is defined for it, so it has a gradient:
#
# $$∂L/∂y_k = -\log p_k.$$
#
# Nobody can differentiate with respect to the digit 7, but with respect to the row that stands for
# it one can. So in lesson 8 the attacker can look for the label as it looks for the picture:
# downhill.

# %%
soft = Tensor(np.array([[0, 0.3, 0, 0, 0, 0, 0, 0.7, 0, 0]]))
z = model(as_tensors(start), Tensor(pictures[7:8]))
(by_label,) = grad(cross_entropy(z, soft), [soft])
assert np.allclose(by_label.data, -log_softmax(z).data), "the gradient with respect to the label"

# %% [markdown]
# ## What a client shares
#
# To learn, a network moves its weights against the gradient of the loss (lesson 6b). In
# [**federated learning**](README.md#federated-learning) many clients teach one network together.
# Each keeps its pictures at home and shares only the gradient. tinyleak's `share` plays such a
# client. It returns what the client shares, and apart from it the truth, which the client keeps. It
# computes what we computed above, for one batch:

# %%
seven, label = digits.batch([7])
client, _ = share(model, start, seven, label)

weights = as_tensors(start)
loss = cross_entropy(lenet(weights, Tensor(seven)), Tensor(one_hot(label, 10)))
for name, ours in zip(weights, grad(loss, list(weights.values())), strict=True):
    assert np.allclose(ours.data, client.gradients[name]), "share computes this gradient"
shared = sum(g.size for g in client.gradients.values())
print(f"{shared} numbers are shared about a picture of {seven.size}")
assert shared > 17 * seven.size, "more numbers than pixels"

# %% [markdown]
# Seventeen times as many numbers as the picture has. Perhaps one should have become suspicious
# here.
#
# ## What to remember
#
# - A network is a function of its weights and a picture. Its guess is the largest logit.
# - A label can be a row of probabilities, and then one can differentiate with respect to it.
# - The loss of a network that knows nothing is the logarithm of the number of classes. Compare your
#   first loss with it.
#
# The real things are [`tinyleak/nn/losses.py`](../tinyleak/nn/losses.py) and
# [`tinyleak/nn/models/lenet.py`](../tinyleak/nn/models/lenet.py).
#
# ## Exercise
#
# A loss is for gradients. People want to know how many digits are read right. Write
# `accuracy(logits, labels)`, which returns that share, from 0 to 1; the labels are digits, not
# rows. What would the fresh network's be? (`model(as_tensors(start), Tensor(pictures)).data` are
# its logits.) The next lesson watches it grow.
#
# <details><summary>Solution to the exercise of lesson 5</summary>
#
# $⌊(28 + 4 - 5) / 2⌋ + 1 = 14$, then $⌊(14 + 4 - 5) / 2⌋ + 1 = 7$, then $(7 + 4 - 5) / 1 + 1 = 7$.
# There are 12 channels, so 12 · 7 · 7 = 588 numbers come out.
#
# ```python
# def body(x, kernels):
#     for kernel, stride in zip(kernels, (2, 2, 1)):
#         x = 1 / (1 + np.exp(-convolve(x, kernel, stride, 2)))
#     return x.reshape(len(x), -1)
#
#
# kernels = [rng.standard_normal((12, channels, 5, 5)) for channels in (1, 12, 12)]
# assert body(digit[None, None], kernels).shape == (1, 588)
# ```
#
# </details>


# %%
def accuracy(logits, labels):
    pass  # yours


check(6, accuracy)
