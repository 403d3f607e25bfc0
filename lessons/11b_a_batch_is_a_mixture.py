# %% [markdown]
# # 11b. A batch is a mixture, and comes apart
#
# *Eight pictures in one gradient: can each be found alone, and how does one know that it is one?*
#
# ← [11. Batches, and least squares to machine precision](11_batches.ipynb) · about 30 minutes ·
# needs lessons 10 and 11 · [12. Defences: what stops it, and what it costs](12_defences.ipynb) → ·
# [all lessons](README.md)
#
# Lesson 11 solved for all pictures of a batch at once. Here we take them one by one, out of a first
# layer that is fully connected, and with a certificate: a number that is zero for a picture of the
# batch, and for no other. With it eight pictures take no time, and nobody has to know a label.
#
# (This is a method of this project, not of the paper. Others take such batches apart in other ways:
# SPEAR, and arXiv 2609.09659.)

# %%
import matplotlib.pyplot as plt
import numpy as np
from checks import check, expect
from plots import BLUE, ORANGE, pictures, show, tidy

from tinyleak import MLP, Tensor, attack, data, grad, lbfgs, one_hot, ops, share, softmax
from tinyleak.analytic import LayerGradient, certify
from tinyleak.nn import linear
from tinyleak.nn.split import linear_layers

large = data.load_glyphs(200)
digits = large.images.reshape(200, 1, 14, 2, 14, 2).mean(axis=(3, 5))
model = MLP(image_shape=(1, 14, 14), widths=(200,), activation="tanh")
params = model.init(np.random.default_rng(0), "default")

N = 8
client, truth = share(model, params, digits[:N], large.labels[:N])
print("the first layer's gradient:", client.gradients["0.weight"].shape, "and its bias")

# %% [markdown]
# ## Two spaces
#
# A fully connected layer $z = W x + b$ sees picture $x_i$, and the loss answers with $δ_i$, the
# gradient with respect to $z$. In lesson 10 there was one picture, and the layer's gradient was
# $δ (x, 1)^T$. Now there are $N$, and the client shares the mean:
#
# $$G = \frac{1}{N} ∑_i δ_i (x_i, 1)^T.$$
#
# Lesson 13 looks at such a sum from one side, by its rows. Here we use both. The [**singular value
# decomposition**](README.md#svd) writes $G$ as $U S V^T$. The rows $(x_i, 1)$ span the same space
# as the rows of $V^T$, and the columns $δ_i$ the same as those of $U$. Both have $N$ dimensions, so
# the count of pictures shows, too:


# %%
def spaces(client, count):
    """Orthogonal columns and rows that span those of the first layer's gradient; all sizes."""
    G = np.column_stack([client.gradients["0.weight"], client.gradients["0.bias"]])
    U, sizes, Vt = np.linalg.svd(G, full_matrices=False)
    return U[:, :count], Vt[:count], sizes


columns, rows, sizes = spaces(client, N)
print(f"the {N}th size: {sizes[N - 1]:.0e}, the next: {sizes[N]:.0e}")
assert sizes[N - 1] > 1e9 * sizes[N], "as many dimensions as pictures"

# %% [markdown]
# So every picture of the batch lies in the row space. But so does every *mixture* of them: half of
# this and half of that. The row space alone does not tell a picture from a mixture.
#
# The network does. For any picture $x$ with a label $y$ we can compute the $δ$ that *it* would
# have. For a picture of the batch that $δ$ is one of the $δ_i$, so nothing of it is outside of the
# column space. How much of it is outside, as a share, is a number $f$ from 0 to 1:

# %%
W, b, W2, b2 = (Tensor(params[name]) for name in ("0.weight", "0.bias", "2.weight", "2.bias"))


def outside(x, label, columns):
    """f: the share of δ that lies outside of the column space, for a picture (1, 196)."""
    hidden = ops.tanh(linear(x, W, b))
    residual = softmax(linear(hidden, W2, b2)) - Tensor(one_hot(np.array([label]), 10))
    delta = (residual @ W2) * (1.0 - hidden * hidden)  # two steps back, by the rules of lesson 2
    rest = delta - (delta @ Tensor(columns)) @ Tensor(columns.T)
    return ops.sum(rest * rest) / ops.sum(delta * delta)


flat = digits.reshape(200, -1)
inside = [float(outside(Tensor(flat[[i]]), large.labels[i], columns)) for i in range(N)]
print(f"pictures of the batch: f at most {max(inside):.0e}")
assert max(inside) < 1e-24, "zero, for each picture of the batch"

# %% [markdown]
# **Predict first.** Walk in a straight line from one picture of the batch to another. Every point
# on the way lies in the row space. What will $f$ be half-way: zero, nearly zero, or far from it?
#
# <details><summary>Answer</summary>
#
# Far from it, and zero at one end alone. Most people expect zero: half of one and half of the other
# looks like half of what is known. The $δ$ of a mixture would be the mixture of the $δ$, if the
# network were linear. The tanh and the softmax see to it that it is not. That is what makes a
# certificate of $f$.
#
# </details>

# %% tags=["thumbnail"]
t = np.linspace(0, 1, 101)
line = flat[0] + t[:, np.newaxis] * (flat[1] - flat[0])
curves = [
    [float(outside(Tensor(x[np.newaxis]), label, columns)) for x in line]
    for label in large.labels[:2]
]
print("largest on the way:", *(f"{max(curve):.0e}" for curve in curves))
expect(min(max(curve) for curve in curves) > 1e-6, "far from zero between")

figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
for curve, colour, label in zip(curves, (BLUE, ORANGE), large.labels[:2], strict=True):
    ax.semilogy(t, np.maximum(curve, 1e-32), color=colour, label=f"with the label {label}")
ax.set(xlabel="from one picture of the batch to another", ylabel="f, outside of the columns")
ax.legend(frameon=False)
tidy(ax)
show(
    "Two curves between two pictures: each falls to zero at one end, and is far from it elsewhere."
)

# %% [markdown]
# ## The search
#
# Now we look for the zeros of $f$ in the row space. A point there is $(x, 1) = c^T V^T$ with $N$
# numbers $c$. The 1 at the end fixes one of them, so 7 are left, whatever the size of the
# pictures. L-BFGS (lesson 7) goes downhill from random points, for each label.


# %%
def search(label, columns, rows, rng):
    """One walk downhill, for a label. Returns f and the picture at its end."""
    ones = rows[:, -1]
    middle = ones / (ones @ ones)  # the c of the shortest point whose last number is 1
    directions = np.linalg.svd(ones[np.newaxis])[2][1:]  # along these it stays 1
    base, along = (middle @ rows)[np.newaxis, :-1], (directions @ rows)[:, :-1]

    def objective(numbers):
        t = Tensor(numbers)
        x = Tensor(base) + ops.reshape(t, (1, -1)) @ Tensor(along)
        f = outside(x, label, columns)
        return f.data, grad(f, t).data

    start = rng.standard_normal(len(along))
    start *= rng.uniform() * np.linalg.norm(base) / np.linalg.norm(start)
    *_, end = lbfgs(objective, start, goal=1e-20, max_iterations=300)
    return end.value, (base + end.x @ along)[0]


# %%
rng, found = np.random.default_rng(1), []
for walk in range(300):
    f, x = search(walk % 10, columns, rows, rng)
    if f < 1e-18 and all(np.abs(x - other).max() > 1e-4 for other in found):
        found.append(x)
    if len(found) == N:
        break
nearest = [np.abs(flat[:N] - x).max(axis=1) for x in found]
print(f"{len(found)} pictures in {walk + 1} walks")
print(f"the largest error of a pixel is {max(errors.min() for errors in nearest):.0e}")
expect(len(found) == N, "all eight are found")
expect(sorted(errors.argmin() for errors in nearest) == list(range(N)), "each once")
assert max(errors.min() for errors in nearest) < 1e-6, "and what is found is right"

# %%
pictures([x.reshape(14, 14) for x in found], [""] * len(found), figsize=(7, 1.1))
show("Eight digits in the order in which they were found, all clear.")

# %% [markdown]
# Nothing was known of the pictures, not even a label or that pixels lie between 0 and 1. And no
# picture was compared with the truth to decide that it is one: $f$ says so.
#
# ## tinyleak's own
#
# `certify` has the same test, and two more: that the picture lies in the row space, and that it is
# in the batch a whole number of times. A method of `attack` searches, too. What it has found makes
# the space smaller for the rest, so that it takes larger batches apart. Here are 32:

# %%
cut = linear_layers(model, params)[0]
layer = LayerGradient(client.gradients["0.weight"], client.gradients["0.bias"], N, 0.0)
certificates = certify(layer, cut, flat[: 2 * N], large.labels[: 2 * N])
print("pictures of the batch:", certificates.verdicts[:N].count(True), "of", N, "certified")
print("other pictures:       ", certificates.verdicts[N:].count(False), "of", N, "refused")
assert certificates.verdicts == (True,) * N + (False,) * N, "no doubt about any"

batch_of_32, its_truth = share(model, params, digits[:32], large.labels[:32])
own = its_truth.judge(attack(batch_of_32, method="records"))
print(f"attack on 32: largest squared error {max(own.mse):.0e}")
expect(own.succeeded and max(own.mse) < 1e-15, "all of 32, exactly")

# %% [markdown]
# ## Where one gets stuck
#
# Now the client takes 120 pictures. The row space has 120 dimensions of 197, the column space 120
# of 200: there is still room. So we search as before.

# %%
many, _ = share(model, params, digits[:120], large.labels[:120])
f, x = search(int(large.labels[0]), *spaces(many, 120)[:2], np.random.default_rng(0))
off = np.square(flat[:120] - x).mean(axis=1).min()
print(f"f = {f:.0e}, and from the nearest picture of the batch a squared error of {off:.2f}")
expect(f < 1e-15 and off > 0.01, "zero, and no picture of the batch")

# %% [markdown]
# $f$ is zero, and the picture is nonsense. The symptom is a search that always succeeds, each time
# with another picture. *Count.* We look for $N - 1$ numbers. The column space leaves $200 - N$
# dimensions outside of it, in each of which $δ$ must be zero: so many equations. With 8 pictures
# there are 192 equations for 7 unknowns, and a solution is no accident. With 120 there are 80 for
# 119, and solutions lie everywhere. A certificate is worth as much as there are more equations than
# unknowns. tinyleak counts, and certifies nothing:

# %%
layer = LayerGradient(many.gradients["0.weight"], many.gradients["0.bias"], 120, 0.0)
certificates = certify(layer, cut, flat[:120], large.labels[:120])
print(certificates.why)
assert not certificates.certified.any() and certificates.why, "not even the true ones"

# %% [markdown]
# ## What to remember
#
# - A batch's gradient is a mixture with two sides: pictures span its rows, their δ its columns.
# - Every mixture is in the row space. Only pictures of the batch have their δ in the column space.
# - Count equations and unknowns before you believe a zero.
#
# The real things are [`tinyleak/analytic/records.py`](../tinyleak/analytic/records.py) and
# [`tinyleak/analytic/certificate.py`](../tinyleak/analytic/certificate.py). A table in
# [benchmarks](../benchmarks/README.md) has batches of up to 128.
#
# ## Exercise
#
# Write `most_records(outputs, inputs)`: the largest $N$ for which a first layer with so many
# outputs and inputs tells pictures from mixtures, by this lesson's count: more equations than
# unknowns, and no more pictures than inputs.
#
# <details><summary>Solution to the exercise of lesson 11</summary>
#
# The weakest direction gets weaker and weaker, long before the numbers run out. For eight pictures
# float32's rounding is about $5 · 10^{-5}$ of a pixel there, twenty times as much as for two. It
# still cannot be seen. But noise ten thousand times as large could, and that is what this lesson is
# about.
#
# ```python
# weakest, in_pixels = [], []
# for count in (2, 4, 8):
#     some = np.arange(10, 10 + count)
#     J = Jacobian(model, arrays, digits[some], one_hot(large.labels[some], 10)).dense()
#     weakest.append(np.linalg.svd(J, compute_uv=False)[-1])
#     someone, _ = share(model, arrays, digits[some], large.labels[some])
#     exact = as_row(someone.gradients)
#     rounding = 6e-8 * np.sqrt(np.square(exact).mean())
#     in_pixels.append(rounding / weakest[-1])
# def amplified(J, error):
#     return error / np.linalg.svd(J, compute_uv=False)[-1]
#
#
# assert np.isclose(amplified(J, rounding), in_pixels[-1])
# assert weakest[0] > 3 * weakest[1] > 3 * weakest[2]
# assert 10 < in_pixels[2] / in_pixels[0] < 50 and in_pixels[2] < 1e-3
# ```
#
# </details>


# %%
def most_records(outputs, inputs):
    pass  # yours


check("11b", most_records)
