# %% [markdown]
# # 10. The label was never hidden
#
# *Does the attacker have to search for the label?*
#
# ← [9b. What else decides: precision, scale and weights](09b_what_else_decides.ipynb) ·
# about 35 minutes · needs lessons 6 and 8 ·
# [10b. Your own network](10b_your_own_network.ipynb) → · [all lessons](README.md)
#
# In lesson 8 the attack moved an image and a label together, for hundreds of steps. In this lesson
# we read the label off the gradient with one line and no step at all. Then we do the same to a
# whole image, where the network allows it.

# %%
import textwrap

import matplotlib.pyplot as plt
import numpy as np
from checks import check, expect
from plots import BLUE, ORANGE, pictures, show

from tinyleak import MLP, LeNet, Tensor, attack, cross_entropy, data, grad, one_hot, share, softmax
from tinyleak.analytic import LayerGradient, first_layer_input, separate_inputs
from tinyleak.nn import train

DATA, DATA_DIR = "glyphs", None  # or "mnist", and the folder that holds its files

digits = data.load(DATA, data_dir=DATA_DIR)


def client(model, seed, indices, scheme="uniform"):
    """A client with fresh weights and these images; and the truth."""
    images, labels = digits.batch(indices)
    weights = model.init(np.random.default_rng([seed, 0]), scheme)
    return share(model, weights, images, labels)


# %% [markdown]
# ## The gradient with respect to the logits tells the label
#
# The last layer gives one number for each class, the **logits** $z$. Softmax turns them into
# probabilities $p$. The label, as a row $y$ of zeros with a single one, enters through the loss
#
# $$L = -∑_k y_k \log p_k,$$
#
# which is, with softmax written out,
#
# $$L = -∑_k y_k z_k + \log ∑_k e^{z_k}.$$
#
# Differentiate with respect to one logit. The first part gives $-y_k$, the second gives $p_k$:
#
# $$∂L/∂z_k = p_k - y_k.$$
#
# A probability lies between 0 and 1. So for every wrong class this is $p_k - 0 > 0$, and for the
# right one it is $p_k - 1 < 0$. **One entry is negative, and its position is the label.** Let us
# see whether our `grad` agrees.

# %%
logits = Tensor(np.random.default_rng(0).standard_normal((1, 10)))
target = Tensor(one_hot(np.array([7]), 10))
(by_logits,) = grad(cross_entropy(logits, target), [logits])

assert np.allclose(by_logits.data, softmax(logits).data - target.data), "p − y"
assert np.flatnonzero(by_logits.data[0] < 0).tolist() == [7], "one entry is negative, the label's"

# %% [markdown]
# A client does not share the gradient with respect to the logits, but that with respect to the
# *parameters*. Now the last layer is $z = W h + b$, where $h$ are the
# [**features**](README.md#features) that the layers before it made. The bias is added to the
# logits, so $∂z_k/∂b_k = 1$, and
#
# $$∂L/∂b_k = p_k - y_k.$$
#
# The shared bias gradient *is* $p - y$. This is the whole attack:


# %%
def bias_rule(gradients):
    return int(np.argmin(gradients["fc.0.bias"]))


lenet = LeNet()
one, one_truth = client(lenet, 0, [7])
digit = one_truth.labels[0]
assert bias_rule(one.gradients) == digit, "the smallest of ten numbers"

right = 0
for seed in range(100):
    someone, truth = client(lenet, seed, [seed])
    ours, theirs = bias_rule(someone.gradients), someone.labels
    assert ours == theirs.labels[0] and theirs.rule == "bias" and theirs.trusted, (
        "client.labels says the same"
    )
    right += ours == truth.labels[0]
print(f"{right} of 100 labels read off, each by looking for the smallest of ten numbers")
assert right == 100, "every label"

# %% [markdown]
# `someone.labels` is tinyleak's own answer: not the client's labels, but what its gradient tells of
# them.

# %% tags=["thumbnail"]
figure, axes = plt.subplots(figsize=(7, 2.6), layout="constrained")
residual = one.gradients["fc.0.bias"]
axes.bar(range(10), residual, color=[ORANGE if r < 0 else BLUE for r in residual])
axes.axhline(0, color="black", linewidth=0.8)
axes.set(xticks=range(10), xlabel="class k", ylabel="$∂L/∂b_k$", title="Which digit was it?")
show("Ten bars, the last bias's gradient: nine point up, and one, the label's, down.")

# %% [markdown]
# ## The same with no bias
#
# Some networks have no bias in the last layer. The weights tell as much. Row $k$ of $W$ is
# multiplied with $h$ to make logit $k$, so its gradient is
#
# $$∂L/∂W_k = (p_k - y_k) h.$$
#
# After a sigmoid all of $h$ is positive. So the row of the label is all negative, every other row
# is all positive, and the smallest row *sum* is the label.
#
# And if $h$ is not positive? Compare the rows with each other. The inner product of rows $j$ and
# $k$ is
#
# $$(p_j - y_j)(p_k - y_k) ⟨h, h⟩.$$
#
# Whatever the signs in $h$, the last factor is positive. So two wrong classes have a positive
# product, and the label has a product with every other class that is not. That is the rule of iDLG
# (Zhao, Mopuri and Bilen, *iDLG: Improved Deep Leakage from Gradients*, 2020), the paper that first
# noticed this.


# %%
def row_sum_rule(gradients):
    return int(np.argmin(gradients["fc.0.weight"].sum(axis=1)))


def idlg_rule(gradients):
    """The row whose inner products with all other rows are not positive."""
    rows = gradients["fc.0.weight"]
    products = rows @ rows.T
    np.fill_diagonal(products, -np.inf)  # a row with itself does not count
    return int(np.argmin(products.max(axis=1)))


def share_right(rule, model):
    clients = [client(model, seed, [seed]) for seed in range(100)]
    return np.mean([rule(one.gradients) == truth.labels[0] for one, truth in clients])


with_sigmoid = share_right(row_sum_rule, lenet)
idlg_with_sigmoid = share_right(idlg_rule, lenet)
print(f"sigmoid: row sum {with_sigmoid:.0%} right, iDLG's rule {idlg_with_sigmoid:.0%}")
expect(idlg_with_sigmoid == 1, "iDLG's rule finds every label after a sigmoid")
expect(with_sigmoid == 1, "the row sum finds every label after a sigmoid")

# %% [markdown]
# ## Where one gets stuck
#
# Take both rules to a network with tanh in place of the sigmoid, whose values lie between −1 and 1.
#
# **Predict first.** How many of a hundred labels will each rule get right?
#
# <details><summary>Answer</summary>
#
# iDLG's rule all of them, the row sum about half. Those who remember that "tanh breaks the weight
# rule" expect both to fail. It breaks the row sum alone, because that one needs to know the sign of
# $h$. And those who expect a tenth, as if it were guessing, forget that a random sum has the right
# sign half of the time.
#
# </details>

# %%
tanh = LeNet(activation="tanh")
with_tanh, idlg_with_tanh = share_right(row_sum_rule, tanh), share_right(idlg_rule, tanh)
print(f"tanh: row sum {with_tanh:.0%} right, iDLG's rule {idlg_with_tanh:.0%}")
expect(idlg_with_tanh == 1, "iDLG's rule finds every label with tanh")
expect(0.3 < with_tanh < 0.8, "with tanh the row sum finds about half")

# %% [markdown]
# The row sum's symptom is nasty: nothing crashes, and about half of the labels are right. Half is
# too good for guessing among ten classes and too bad for a theorem. That is how a *sign* error
# looks. And a sign is what the rule relied on: tanh is negative half of the time, so the sum of $h$
# can be negative, and then every row changes its sign.
#
# How would one find it? Look at what the rule assumed, not at what it answered:

# %%
assert (one.gradients["fc.0.weight"][digit] < 0).all(), "after a sigmoid the row is all negative"
row = client(tanh, 0, [7])[0].gradients["fc.0.weight"][digit]
print(f"with tanh {np.mean(row < 0):.0%} of the row is negative: h has both signs")
expect(0.2 < np.mean(row < 0) < 0.8, "with tanh the row has both signs")

with_bias = share_right(bias_rule, tanh)
assert with_bias == 1, "the bias rule does not care what h is"

# %% [markdown]
# ## A batch: labels without names
#
# With $N$ images the client shares the *mean* of their gradients. The bias gradient becomes
# $\text{mean}(p) - \text{mean}(y)$, so
#
# $$N \text{mean}(y)_k = N (\text{mean}(p)_k - ∂L/∂b_k).$$
#
# The left side counts how many images have label $k$. On the right one thing is missing:
# $\text{mean}(p)$, what the network thinks of the client's images. But the attacker has the
# network. A fresh network thinks nearly the same of every image. So show it noise, and take the
# answer.


# %%
def counts_rule(model, params, gradients, batch):
    noise = np.random.default_rng(0).uniform(size=(64, *model.image_shape))
    weights = {name: Tensor(array) for name, array in params.items()}
    mean_p = softmax(model(weights, Tensor(noise))).data.mean(axis=0)
    return batch * (mean_p - gradients["fc.0.bias"])


many, truth = client(lenet, 1, [3, 3, 17, 25, 40, 51, 63, 74])
true_counts = np.bincount(truth.labels, minlength=10)
estimate = counts_rule(lenet, many.params, many.gradients, 8)
print("true counts:", *true_counts)
print("estimate:   ", *np.round(estimate, 1))
expect(np.abs(estimate - true_counts).max() < 0.8, "near, but a rounding away from wrong")

# %% [markdown]
# Near, but a rounding away from wrong. The client's `labels` do better. They also use the *weight*
# gradient, where each image's $p - y$ is multiplied with its own $h$. Twenty batches of eight:

# %%
chosen = np.random.default_rng(0).integers(200, size=(20, 8))
batches = [client(lenet, seed, indices) for seed, indices in enumerate(chosen)]
simple = better = 0
for batch, truth in batches:
    true_counts = np.bincount(truth.labels, minlength=10)
    rounded = np.rint(counts_rule(lenet, batch.params, batch.gradients, 8))
    simple += (rounded == true_counts).all()
    better += (batch.labels.counts == true_counts).all()
print(f"all counts right: {simple} of 20 by the line above, {better} of 20 by tinyleak's own")
expect(simple < better and better >= 18, "tinyleak's counts are right more often")

# %% [markdown]
# Two warnings. The counts say *which* labels, not which image has which. And once a network is
# trained, it thinks very different things of different images. Then what it thinks of noise is no
# guess at $\text{mean}(p)$. Let us see: 200 steps against the gradients that clients share.

# %%
images, numbers = digits.batch(range(800))
fresh = lenet.init(np.random.default_rng(0))
settings = {"steps": 200, "learning_rate": 0.2, "momentum": 0.0, "dtype": "float64", "seed": 10}
weights = train(lenet, images, numbers, params=fresh, **settings).params

trained = share(lenet, weights, *digits.batch(chosen[0] + 800))
for text, (someone, truth) in (("fresh weights", batches[0]), ("trained weights", trained)):
    found = someone.labels
    right = (found.counts == np.bincount(truth.labels, minlength=10)).all()
    print(f"{text}: {'right' if right else 'wrong'}, and trusted: {found.trusted}")
    expect(
        found.trusted == (text == "fresh weights") and (right or not found.trusted),
        "it is trusted only where it is right",
    )
print(textwrap.fill(f"it says: {found.warning}", 80))
expect("the label counts are an estimate" in found.warning, "it says why")

# %% [markdown]
# `labels` says when it is not to be trusted, and why. It showed its own noise to the network,
# and saw that the answers differ.
#
# ## What is the label worth?
#
# With the label fixed the attack searches for 784 pixels and nothing else.

# %%
searched = attack(one)
told = attack(one, labels="infer")
for name, found in (("label optimised", searched), ("label read off", told)):
    error = np.square(found.images - one_truth.images).mean()
    print(f"{name}: {found.evaluations} evaluations, mean squared error {error:.0e}")
    expect(error < 1e-12 and found.labels[0] == digit, "both arrive")
expect(told.evaluations < 0.7 * searched.evaluations, "with the label fixed it is faster")

# %% [markdown]
# Half the work, for one `argmin`.
#
# ## The same trick on pixels
#
# Nothing above needed the layer to be the *last* one. It only needed it to be [**fully
# connected**](README.md#fully-connected): each output is a sum over all inputs, with weights. A
# network made of such layers alone is called an **MLP**. Its first layer sees the image. With input
# $x$ and outputs $a = W x + b$, let $δ_o = ∂L/∂a_o$. Then
#
# $$∂L/∂b_o = δ_o \quad\text{and}\quad ∂L/∂W_o = δ_o x.$$
#
# Both are shared. Divide one by the other and out comes $x$: the image. No dummy, no L-BFGS. It is
# the question of lesson 4's toy, whose three secret numbers came out by a division, too.

# %%
mlp = MLP()
someone, truth = client(mlp, 0, [7])
by_weight, by_bias = someone.gradients["0.weight"], someone.gradients["0.bias"]
print("gradient of the weight", by_weight.shape, "and of the bias", by_bias.shape)

best = np.argmax(np.abs(by_bias))  # the largest divisor loses the fewest digits
divided = by_weight[best] / by_bias[best]
assert np.allclose(divided, truth.images.ravel(), atol=1e-12), "a division"
assert np.allclose(divided, first_layer_input(LayerGradient(by_weight, by_bias)), atol=1e-12), (
    "first_layer_input divides, too"
)

# %% [markdown]
# And a batch? Then $∂L/∂W_o$ is a sum over the images, and the ratio is a *weighted mean* of them.
# But let a relu follow, the $\max(0, a)$ of lesson 8's exercise. Where $a_o$ is negative, the relu
# is flat, so that image has $δ_o = 0$: we say that it does not switch output $o$ on. An output that
# only one image switches on gives that image away. `separate_inputs` looks for those.

# %%
relu = MLP(activation="relu")
four, truth = client(relu, 0, [3, 7, 14, 21], scheme="default")
by_weight, by_bias = four.gradients["0.weight"], four.gradients["0.bias"]
first = LayerGradient(by_weight, by_bias)
mixture = first_layer_input(first)
alone = [isolated.x for isolated in separate_inputs(first)]
expect(len(alone) == 4, "four outputs with one image each")
for image in truth.images:
    expect(min(np.abs(x - image.ravel()).max() for x in alone) < 1e-10, "every image is there")

panels = [divided, mixture, *alone]
names = ["one image:\na division", "four images:\nmean ratio", *["four images:\none output"] * 4]
scale = {"vmin": None, "vmax": None}  # each as bright as it is
pictures([pixels.reshape(28, 28) for pixels in panels], names, 2, figsize=(6, 4.6), **scale)
show("One image by a division; the mixture of four; and each of the four by an output of its own.")

# %% [markdown]
# ## What to remember
#
# - The gradient of cross-entropy with respect to the logits is $p - y$. The last bias shares it as
#   it is.
# - A rule that needs a sign must say what gives it that sign.
# - A fully connected first layer shares its input, times a number that its bias shares.
#
# The real things are [`tinyleak/analytic/labels.py`](../tinyleak/analytic/labels.py) and
# [`tinyleak/analytic/first_layer.py`](../tinyleak/analytic/first_layer.py).
#
# ## Exercise
#
# Convolutions do not fall to a division, so for a LeNet the attacker must solve for the pixels. How
# many images could one gradient determine at most? Write `most_images(shapes, pixels)`: count the
# numbers of a gradient whose arrays have these shapes, and divide. (`lenet.shapes` is such a dict.)
# Is that a promise, or only a limit? The next lesson comes close to it.
#
# <details><summary>Solution to the exercise of lesson 9b</summary>
#
# ```python
# def attacks_needed(p, width, z=1.959964):
#     def wide(n):
#         return 2 * z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
#
#     n = 1
#     while wide(n) > width:
#         n += 1
#     return n
#
#
# print(*(attacks_needed(0.9, width) for width in (0.2, 0.1, 0.05)))
# assert attacks_needed(0.9, 0.1) > 100
# ```
#
# Half the width takes about four times the attacks.
#
# </details>


# %%
def most_images(shapes, pixels):
    pass  # yours


check(10, most_images)
