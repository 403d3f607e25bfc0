# %% [markdown]
# # 11. Batches, and least squares to machine precision
#
# *Four pictures in one gradient: can they still be told apart, and how exactly?*
#
# ← [10b. Your own network](10b_your_own_network.ipynb) · about 35 minutes · needs lesson 10 ·
# [11b. A batch is a mixture, and comes apart](11b_a_batch_is_a_mixture.ipynb) → ·
# [all lessons](README.md)
#
# A client rarely shares the gradient of one picture. It takes a batch and shares the mean. So the
# attacker has as many numbers as before, and several times as many unknown pixels. In this lesson
# we get four pictures out of one gradient, and we do it in eight steps where L-BFGS takes hundreds.
# At the end every digit that float64 can hold is right, up to the last few.

# %%
import itertools

import matplotlib.pyplot as plt
import numpy as np
from checks import check, expect
from plots import BLUE, ORANGE, picture, show, tidy

from tinyleak import LeNet, Tensor, attack, cross_entropy, data, grad, one_hot, share
from tinyleak.analytic.jacobian import Jacobian
from tinyleak.metrics import match_batch, mse
from tinyleak.nn.model import parameter_gradients
from tinyleak.optim import levenberg_marquardt

# %% [markdown]
# To be done in seconds, we make everything smaller: pictures of 14 × 14, each pixel the mean of
# four, and a LeNet with six kernels in place of twelve.

# %%
large = data.load_glyphs(40)
digits = large.images.reshape(40, 1, 14, 2, 14, 2).mean(axis=(3, 5))

model = LeNet(image_shape=(1, 14, 14), hidden=6)
arrays = model.init(np.random.default_rng(0))
chosen = [30, 13, 25, 7]
truth, labels = digits[chosen], large.labels[chosen]
client, _ = share(model, arrays, truth, labels)

size = sum(g.size for g in client.gradients.values())
print(f"{size} numbers are shared, and {truth.size} pixels are unknown")
assert size == 2938 and truth.size == 784, "numbers and pixels"

# %% [markdown]
# ## A mean has no order
#
# The mean of four gradients is the same, whichever of the pictures comes first. So no attacker can
# find their order, and we must not expect it. `match_batch` looks for the order that fits best.

# %%
order = [2, 0, 3, 1]
shuffled, _ = share(model, arrays, truth[order], labels[order])
for name, g in client.gradients.items():
    assert np.allclose(g, shuffled.gradients[name], rtol=1e-10, atol=1e-14), (
        "the same gradient in another order"
    )
assert np.array_equal(truth[order][match_batch(truth[order], truth)], truth), (
    "match_batch finds the order"
)

# %% [markdown]
# Their labels are read off first, as in lesson 10. (Below we keep them in the client's order, so
# that pictures can be laid side by side.)

# %%
inferred = client.labels.labels
print("labels:", *inferred)
assert sorted(inferred) == sorted(labels), "the labels, in some order"

# %% [markdown]
# ## What L-BFGS does not know
#
# Let $g(x)$ be the gradient that pictures $x$ would make, and $g^*$ the one that was shared. Take
# the difference, relative to the length of $g^*$:
#
# $$r(x) = (g(x) - g^*) / \|g^*\|.$$
#
# It is called the [**residual**](README.md#residual), and has one entry for each of the 2938
# numbers. The distance that the attack makes small is the sum of its squares, $D = ⟨r, r⟩$.
#
# L-BFGS sees only $D$ and its slope. It does not know that $D$ is made of 2938 squares, each of
# which should become zero. So let us use that. Near $x$ a small step $s$ changes the residual by
# $J s$, where $J$ is the [**Jacobian**](README.md#jacobian): a matrix with the derivative of each
# entry of $r$ with respect to each pixel, here 2938 × 784. If that were exact for large steps too,
# the best step would be the one for which $r + J s$ is as small as possible. That is a problem of
# **least squares**, and its solution is known:
#
# $$J^T J s = -J^T r.$$
#
# ## Where the Jacobian comes from
#
# $J$ is a derivative of a gradient. We need what lesson 4's exercise had: first differentiate with
# respect to the pixels, and take the inner product with a direction $v$. Then differentiate that
# with respect to the weights. It does not matter which of the two comes first, so this is $J v$.
# For $v$ with a single 1 at one pixel it is one column of $J$.


# %%
def column(x, pixel):
    """How the gradient of all weights changes with one pixel of the batch: (2938,)."""
    weights = {name: Tensor(array) for name, array in arrays.items()}
    pictures = Tensor(x.reshape(truth.shape))
    loss = cross_entropy(model(weights, pictures), Tensor(one_hot(labels, 10)))
    (by_pictures,) = grad(loss, [pictures])
    one = np.zeros(truth.size)
    one[pixel] = 1
    moved = grad(by_pictures, list(weights.values()), Tensor(one.reshape(truth.shape)))
    return np.concatenate([part.data.ravel() for part in moved])


def flat_gradient(x):
    """The gradient that these pictures would make, as one row: (2938,)."""
    weights = {name: Tensor(array) for name, array in arrays.items()}
    pictures, targets = Tensor(x.reshape(truth.shape)), Tensor(one_hot(labels, 10))
    found = parameter_gradients(model, weights, pictures, targets)
    return np.concatenate([part.data.ravel() for part in found.values()])


start = 0.5 + 0.1 * np.random.default_rng(0).standard_normal(truth.size)  # grey, a little noisy
own = Jacobian(model, arrays, start.reshape(truth.shape), one_hot(labels, 10)).dense()
step = np.zeros(truth.size)
step[300] = 1e-5
measured = (flat_gradient(start + step) - flat_gradient(start - step)) / 2e-5
assert own.shape == (2938, 784), "a row for each number, a column for each pixel"
assert np.allclose(column(start, 300), own[:, 300], rtol=1e-10, atol=1e-14), (
    "our column is the package's"
)
assert np.allclose(measured, own[:, 300], rtol=1e-5, atol=1e-9), "finite differences agree"

# %% [markdown]
# The package's `Jacobian` does the same for many directions at once.
#
# ## Careful steps
#
# Far from the solution the straight line is a bad guess, and a step may be much too long. So we add
# a [**damping**](README.md#damping) $λ$ to the diagonal of $J^T J$. The larger it is, the shorter
# the step. After a step that made $D$ smaller by a share $ρ$ of what the line promised, multiply
# $λ$ by $1 - (2ρ - 1)^3$, but by no less than a tenth. If the line kept its promise, that is a
# tenth; if it kept half of it, $λ$ stays; if hardly any, $λ$ doubles. After a step that did not
# help at all, take it back and try again with twice the $λ$, then with four times that, and so on.
# This is the method of **Levenberg and Marquardt**.
#
# **Predict first.** L-BFGS takes hundreds of steps for this. How many will this method take from
# grey pictures to nearly every digit that float64 holds?
#
# <details><summary>Answer</summary>
#
# Eight. Most people guess fifty or so, as the first few steps seem to gain little. But near the end
# each step nearly *doubles* the number of right digits: of a pixel about 1, 2, 4, 7, 11, 14.
#
# </details>


# %%
class Problem:
    """The residual and its Jacobian; `target` is what was shared, as one row."""

    def __init__(self, target):
        self.target, self.scale = target, np.linalg.norm(target)

    def value(self, x):
        return (flat_gradient(x) - self.target) / self.scale

    def jacobian(self, x):
        pictures = x.reshape(truth.shape)
        return Jacobian(model, arrays, pictures, one_hot(labels, 10)).dense() / self.scale

    def gram(self, x):  # what tinyleak's own asks for, below
        J = self.jacobian(x)
        return J.T @ J

    def slope(self, x, r):
        return self.jacobian(x).T @ r


# %%
def least_squares(problem, x, steps=20, damping=1e-3):
    """Levenberg–Marquardt: the points visited and the distance at each."""
    r = problem.value(x)
    points, distances, scale = [x], [r @ r], 0.0
    while len(points) <= steps and distances[-1] > 1e-28:
        J = problem.jacobian(x)
        A, b = J.T @ J, J.T @ r
        scale = np.maximum(scale, np.diag(A))
        for failures in range(10):
            s = np.linalg.solve(A + damping * np.diag(scale), -b)
            new = problem.value(x + s)
            if new @ new < r @ r:
                break
            damping *= 2 * 2**failures
        else:
            break  # nothing leads lower
        fell, promised = r @ r - new @ new, r @ r - np.square(r + J @ s).sum()
        share = min(1, fell / promised) if promised > 0 else 1
        damping *= max(1 / 100, 1 - (2 * share - 1) ** 3)
        x, r = x + s, new
        points.append(x)
        distances.append(r @ r)
    return np.array(points), distances


# %%
def as_row(gradients):
    return np.concatenate([gradients[name].ravel() for name in model.shapes]).astype(float)


problem = Problem(as_row(client.gradients))
points, distances = least_squares(problem, start)
errors = [np.square(x - truth.ravel()).mean() for x in points]
for number, (distance, error) in enumerate(zip(distances, errors, strict=True)):
    print(f"step {number}: distance {distance:.0e}, error of the pictures {error:.0e}")
expect(len(points) - 1 <= 8 and errors[-1] < 1e-24, "few steps, and nearly every digit")
doubling = [new < old**1.5 for old, new in itertools.pairwise(errors[3:-1])]
expect(all(doubling), "half as many right digits again with each step, at least")

# %% tags=["thumbnail"]
stages = np.minimum([0, 2, 3, 4, len(points) - 1], len(points) - 1)
figure, axes = plt.subplots(4, 5, figsize=(6, 5.2), layout="constrained")
for column_of_axes, stage in zip(axes.T, stages, strict=True):
    for ax, pixels in zip(column_of_axes, points[stage].reshape(4, 14, 14), strict=True):
        picture(ax, pixels, f"step {stage}" if ax is column_of_axes[0] else "")
show("Four pictures at five steps: grey noise, then shapes, and from step 4 on four clear digits.")

# %% [markdown]
# Look at the last steps of the list. The error is squared, again and again: $5 · 10^{-5}$,
# $4 · 10^{-10}$, $9 · 10^{-20}$. So the number of right digits doubles with each step. That is how
# it goes when the straight line becomes a better guess the nearer we are. It ends where float64
# ends.
#
# ## tinyleak's own
#
# The package has the same loop, `levenberg_marquardt`, and given the same problem it visits the
# same points. (It also keeps a step within a radius, which helps from starts that are far away; we
# need none.)

# %%
settings = {"damping": 1e-3, "radius": np.inf, "max_iterations": 5}
own_points = [fit.x for fit in levenberg_marquardt(problem, start, **settings)]
for ours, theirs in zip(points, own_points[:6], strict=False):
    assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-7), "the same points"

# %% [markdown]
# And it is a method of `attack`. Besides what we did, it keeps the pixels between 0 and 1, and
# finds the labels on the way if they are not known. It also reads the last layer, whose gradient is
# a mixture of the features of the four pictures: of the numbers that this layer is given. How it is
# mixed can be worked out ([`tinyleak/analytic/mixture.py`](../tinyleak/analytic/mixture.py)), so
# each picture's features are known, and are asked for as well. (In lesson 6's LeNet they are 588.
# Most of a digit is black, as low as a pixel can be, so they determine it by themselves: by the
# [benchmarks](../benchmarks/README.md), eight digits come out exactly in less than a minute of one
# core.) L-BFGS arrives, too, but look at the number of steps.

# %%
by_lm = attack(client, labels=labels, method="levenberg-marquardt")
by_lbfgs = attack(client, labels=labels)
for name, found in (("Levenberg–Marquardt", by_lm), ("L-BFGS", by_lbfgs)):
    worst = mse(found.images, truth).max()
    print(f"{name}: {found.iterations} steps, error {worst:.0e}, {found.reason}")
expect(
    mse(by_lm.images, truth).max() < 1e-15 and mse(by_lbfgs.images, truth).max() < 1e-8,
    "both arrive",
)
expect(by_lbfgs.iterations > 30 * by_lm.iterations, "L-BFGS takes many more steps")

# %%
figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
ax.loglog(np.arange(1, len(by_lbfgs.distances) + 1), by_lbfgs.distances, color=BLUE)
ax.loglog(np.arange(1, len(distances) + 1), distances, "o-", color=ORANGE)
ax.text(30, 1e-2, "L-BFGS", color=BLUE)
ax.text(10, 1e-26, "Levenberg–Marquardt", color=ORANGE)
ax.set(xlabel="step, the start being 1", ylabel="distance")
tidy(ax)
show("The distance, step by step: least squares falls to 1e-31 in eight, L-BFGS takes hundreds.")

# %% [markdown]
# A step of least squares costs much more: the whole Jacobian, and a system of 784 equations. It is
# worth it as long as the Jacobian fits into memory.
#
# ## Where one gets stuck
#
# Now the client computes in float32, as most do. Everything else is as before.

# %%
rounded, _ = share(model, arrays, truth, labels, dtype="float32")
points32, distances32 = least_squares(Problem(as_row(rounded.gradients)), start, steps=12)
for number, distance in enumerate(distances32):
    print(f"step {number}: distance {distance:.0e}")
error32 = np.square(points32[-1] - truth.ravel()).mean()
print(f"error of the pictures {error32:.0e}")
expect(
    1e-15 < distances32[-1] < 1e-14 and error32 > 1e6 * errors[-1],
    "it stands still far above float64",
)

# %% [markdown]
# The symptom: it goes down as before, and then stands still at $4 · 10^{-15}$. Should the damping
# be smaller? Is the minimiser broken? One can lose days with that.
#
# To find out how deep the valley is, put the truth in (lesson 8). float32 has about 7 digits, so
# the shared gradient is not quite that of the true pictures, and their residual is not zero. How
# much of it is the rounding of the numbers that were shared, and how much went wrong before, while
# the client computed in float32? Round the *exact* gradient to float32, and see:

# %%
floor = Problem(as_row(rounded.gradients)).value(truth.ravel())
exact = as_row(client.gradients)
rounding = (exact.astype("float32") - exact) / np.linalg.norm(exact)
print(f"at the truth: {floor @ floor:.1e}; found: {distances32[-1]:.1e}")
print(f"the last rounding alone: {rounding @ rounding:.1e}")
expect(
    rounding @ rounding < distances32[-1] < floor @ floor < 1e-13,
    "found below the truth, and both above the rounding alone",
)

# %% [markdown]
# So rounding the result makes the smallest part. Most of the error was made on the way, in sums of
# many rounded products. And the minimiser has gone *below* the truth: it found pictures that fit
# the client's gradient better than the true ones do. It moved 784 pixels a little, and took some of
# the error away. Nobody can see the difference. What is left no picture explains. (That the square
# of float32's rounding, $6 · 10^{-8}$, is about what was found is a coincidence. Do not explain a
# number by another that is as large.) Before you improve a minimiser, ask how deep the valley is.
#
# ## What to remember
#
# - A mean forgets the order. Here it forgets nothing else.
# - If the objective is a sum of squares that can all be zero, use it: the digits double.
# - The floor of the distance is about the square of the error of the data, all of it.
#
# The real things are
# [`tinyleak/attacks/least_squares/solver.py`](../tinyleak/attacks/least_squares/solver.py),
# [`tinyleak/analytic/jacobian.py`](../tinyleak/analytic/jacobian.py) and
# [`tinyleak/optim/gauss_newton.py`](../tinyleak/optim/gauss_newton.py).
#
# ## Exercise
#
# Is everything well as long as there are fewer pixels than numbers? A step $s$ of length 1 in the
# pictures changes the gradient by $|J s|$: far in some directions, hardly in others. The **singular
# values** of $J$ tell how far, in as many perpendicular directions as there are pixels. Compute
# them (`np.linalg.svd(J, compute_uv=False)`) at the truth, for 2, 4 and 8 pictures. A direction of
# singular value $σ$ turns an error $ε$ of the gradient into an error $ε / σ$ of the pictures. What
# becomes of float32's rounding in the weakest direction of eight pictures? Write
# `amplified(J, error)`, which returns that largest error of the pictures.
#
# <details><summary>Solution to the exercise of lesson 10b</summary>
#
# ```python
# def shows(shapes, pixels):
#     return [
#         at
#         for at, (name, shape) in enumerate(shapes.items())
#         if name.endswith("weight")
#         and len(shape) == 2
#         and shape[1] >= pixels
#         and name.replace("weight", "bias") in shapes
#     ]
#
#
# assert shows(Mine.shapes, 196) == [2]
# ```
#
# </details>


# %%
def amplified(J, error):
    pass  # yours


check(11, amplified)
