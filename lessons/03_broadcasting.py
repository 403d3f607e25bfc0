# %% [markdown]
# # 3. Broadcasting and its undoing
#
# *NumPy copies a row down a whole table without being asked. Who brings the gradient back?*
#
# ← [2. Walking backwards](02_walking_backwards.ipynb) · about 20 minutes · needs lesson 2 ·
# [4. Gradients of gradients](04_gradients_of_gradients.ipynb) → · [all lessons](README.md)
#
# Add a row of three numbers to a table of four rows. NumPy does not complain that the shapes
# differ. It adds the three numbers to each row, as if they had been copied four times. This is
# called [**broadcasting**](README.md#broadcasting), and every network relies on it.
#
# The copying is part of the computation, so it needs its own rule for walking backwards. Forget it,
# and the gradient has the wrong shape. If you are lucky, that is an error. This lesson is about the
# days when you are not.

# %%
import matplotlib.pyplot as plt
import numpy as np
from checks import check
from plots import show

from tinyleak import Tensor, grad, ops

rng = np.random.default_rng(3)

# %% [markdown]
# ## Where one gets stuck
#
# Take a table `x` of four rows, three numbers in each. To each column we add one number, called
# its [**bias**](README.md#bias). We want the bias with which the columns come out right on average.
# A [**loss**](README.md#loss) says how wrong we are, when `t` would be right:
#
# $$L = ∑ (x + b - t)^2.$$
#
# So the gradient with respect to $x + b$ is $2(x + b - t)$.
#
# Lesson 2's rule for `add` is "pass `g` on to both inputs". So the gradient with respect to `b` is
# that same table, and we step against it. We write the three biases as a table with one row, as is
# usual.
#
# **Predict first.** Three biases cannot make twelve random numbers come out right. Fifty steps with
# the rule of lesson 2: an error message, a loss that stops falling, or a loss of nearly zero?
#
# <details><summary>Answer</summary>
#
# A loss of nearly zero. Most people expect an error, because the shapes differ. But NumPy
# broadcasts in the update as well, and what comes out are no longer three biases.
#
# </details>

# %%
x, t = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
b = np.zeros((1, 3))

for _ in range(50):
    gradient = 2 * (x + b - t)  # the rule of lesson 2: wrong here
    b = b - 0.1 * gradient

loss = ((x + b - t) ** 2).sum()
print("the loss fell to", f"{loss:.1e}", "and b has shape", b.shape)

assert loss < 1e-6, "a wonderful loss"
assert b.shape == (4, 3), "it was (1, 3)"

# %% [markdown]
# No error, and a wonderful loss. But look at the shape of `b`. In the first step `b - 0.1 *
# gradient` was broadcast too, and since then every row has had a bias of its own. The model has
# learnt four rows by heart. It has no bias to add to a fifth.
#
# A number that is moved to make the loss smaller, as `b` here, is called a
# [**parameter**](README.md#parameter). The symptom is a parameter whose shape changed, or a loss
# too good to be true. To find it early, assert after every gradient that it has the shape of its
# parameter. With `b -= 0.1 * gradient` NumPy would have refused, because the result does not fit
# into the memory of `b`:

# %%
b = np.zeros((1, 3))
try:
    b -= 0.1 * 2 * (x + b - t)
except ValueError as error:
    print("ValueError:", error)
else:
    raise AssertionError("it should have been refused")

# %% [markdown]
# ## What copying does to a gradient
#
# Let one number `b` be copied to four places. Move `b` by a little, and all four places move by as
# much. Each of them moves the loss. So the effect of `b` is the *sum* of the four effects:
#
# $$∂L/∂b = g_1 + g_2 + g_3 + g_4$$
#
# **Copying forwards is adding up backwards.** The function that does it is called `sum_to`. It gets
# a table and the shape that was broadcast, and sums over exactly the axes that were copied.


# %%
def sum_to(g, shape):
    """Sum g over every axis along which an array of this shape would have been copied."""
    new_axes = g.ndim - len(shape)  # NumPy puts missing axes in front
    g = g.sum(axis=tuple(range(new_axes)))
    stretched = tuple(axis for axis, length in enumerate(shape) if g.shape[axis] != length)
    return g.sum(axis=stretched, keepdims=True)


gradient = 2 * (x + np.zeros((1, 3)) - t)
print(gradient.shape, "→", sum_to(gradient, (1, 3)).shape)

# %% [markdown]
# With it the same fifty steps find one bias for all rows. We know what it must be: the average
# difference in each column.

# %%
b = np.zeros((1, 3))
for _ in range(50):
    b = b - 0.1 * sum_to(2 * (x + b - t), b.shape)

assert b.shape == (1, 3), "one row of three"
assert np.allclose(b, (t - x).mean(axis=0)), "each column's average difference"

# %% [markdown]
# ## Two maps that belong together
#
# Copying is a linear map. That means there is a matrix that does it. Write the numbers of the small
# array in a column, multiply with the matrix, and you have the numbers of the large one. Here is
# the matrix for copying a row of three to four rows. It has only zeros and ones.

# %% tags=["thumbnail"]
small, large = (3,), (4, 3)
one_at_a_time = np.eye(3)
copy = np.stack([np.broadcast_to(one, large).ravel() for one in one_at_a_time], axis=1)

one_at_a_time = np.eye(12).reshape(12, *large)
add_up = np.stack([sum_to(one, small) for one in one_at_a_time], axis=1)

assert copy.shape == (12, 3), "12 numbers from 3"
assert np.array_equal(add_up, copy.T), "adding up is the transposed matrix of copying"

figure, (left, right) = plt.subplots(
    1, 2, figsize=(7, 3.2), width_ratios=[1, 3], layout="constrained"
)
for ax, matrix, name in ((left, copy, "copy"), (right, add_up, "add up")):
    ax.imshow(matrix, cmap="Blues", vmax=1.4)
    ax.set_title(f"{name}: {matrix.shape[1]} to {matrix.shape[0]}")
    ax.set_xticks(np.arange(0.5, matrix.shape[1] - 1), [])
    ax.set_yticks(np.arange(0.5, matrix.shape[0] - 1), [])
    ax.tick_params(length=0)
    ax.grid(color="white", linewidth=2)
show("Two tables of squares: copying has 12 rows and 3 columns, adding up the same, transposed.")

# %% [markdown]
# The matrix of `sum_to` is the matrix of copying, *transposed*: rows have become columns. This is
# no accident. For any linear map $y = A x$ the gradient with respect to $x$ is $A^T g$. Such a
# partner is called the [**adjoint**](README.md#adjoint) of the map.
#
# We never build these matrices: they would be huge. But the transposed matrix has a property that
# we can test without seeing it. Write $⟨u, v⟩$ for the inner product: multiply elementwise and add
# up everything. Then
#
# $$⟨A x, y⟩ = ⟨x, A^T y⟩ \quad\text{for all } x \text{ and } y.$$
#
# So take random $x$ and $y$, compute both sides, and compare two numbers. If the partner is wrong
# anywhere, they differ.


# %%
def are_adjoint(forward, backward, x_shape, y_shape):
    x, y = rng.standard_normal(x_shape), rng.standard_normal(y_shape)
    return np.isclose((forward(x) * y).sum(), (x * backward(y)).sum())


assert are_adjoint(
    lambda x: np.broadcast_to(x, (5, 4, 3)), lambda y: sum_to(y, (4, 1)), (4, 1), (5, 4, 3)
), "copying and adding up, with an axis stretched"
assert are_adjoint(np.transpose, np.transpose, (4, 3), (3, 4)), "transposing and transposing back"
assert are_adjoint(lambda x: np.pad(x, 2), lambda y: y[2:-2], (6,), (10,)), "pad and crop"


def average(y):  # Would the test notice? Averaging looks much like adding up.
    return y.mean(axis=0)


assert not are_adjoint(lambda x: np.broadcast_to(x, (4, 3)), average, (3,), (4, 3)), (
    "the test notices"
)

# %% [markdown]
# And the partner of the partner is the map itself. So copying and adding up are each other's rule.
# Write both once, and the derivative of the derivative is right as well.
#
# ## tinyleak's own
#
# The pair is called `ops.broadcast_to` and `ops.sum_to`. They give what ours give:

# %%
for shape in [(3,), (1, 3), (4, 1), (1, 1), ()]:
    array = rng.standard_normal(shape)
    g = rng.standard_normal((5, 4, 3))
    assert np.array_equal(ops.broadcast_to(Tensor(array), shape=g.shape).data, array + 0 * g), (
        "the same copies"
    )
    assert np.allclose(ops.sum_to(Tensor(g), shape=shape).data, sum_to(g, shape)), "the same sums"

# %% [markdown]
# No rule in tinyleak mentions broadcasting. The rule of `add` is still "pass `g` on to both". The
# walk of lesson 2 looks at the answer: if its shape differs from the input's, `grad` sums it down.
# One place for all operations, so no operation can forget it.

# %%
tb = Tensor(np.zeros((1, 3)))
loss = ops.sum((x + tb - t) ** 2)
(gradient,) = grad(loss, [tb])
print("the gradient of a", tb.shape, "bias has shape", gradient.shape)

assert gradient.shape == tb.shape, "the shape of its parameter"
assert np.allclose(gradient.data, sum_to(2 * (x + tb.data - t), tb.shape)), "summed down"

# %% [markdown]
# Many operations are linear: reshaping, transposing, padding, picking elements, and laying out the
# windows of an image, which is lesson 5. Each has a partner, each pair is written once, and one
# test serves them all. You find them in [`tinyleak/ops/reduce.py`](../tinyleak/ops/reduce.py) and
# [`tinyleak/ops/shape.py`](../tinyleak/ops/shape.py).
#
# ## What to remember
#
# - Copying forwards is adding up backwards.
# - The gradient of a linear map is its adjoint, and two random arrays test a pair.
# - A gradient has the shape of what it is for. Assert that.
#
# ## Exercise
#
# Let the map take every second element: $A x$ is `x[::2]`, for `x` of length 7. What is its
# adjoint? Write it, and check it with `are_adjoint`.
#
# <details><summary>Solution to the exercise of lesson 2</summary>
#
# With $c = a / b$ we have $∂c/∂b = -a / b^2 = -c / b$, and $c$ is `out`.
#
# ```python
# RULES["subtract"] = lambda g, out, a, b: (g, -g)
# RULES["divide"] = lambda g, out, a, b: (g / b, -g * out / b)
#
# a, b = Tensor(0.7), Tensor(-0.4)
# y = (a - b) / b
# for ours, own in zip(gradients(y, [a, b]), grad(y, [a, b])):
#     assert np.isclose(ours, own.data)
#
# h = 1e-6
# measured = ((0.7 - (-0.4 + h)) / (-0.4 + h) - (0.7 - (-0.4 - h)) / (-0.4 - h)) / (2 * h)
# assert np.isclose(gradients(y, [b])[0], measured)
# ```
#
# </details>


# %%
def spread(g):
    pass  # yours


check(3, spread)
