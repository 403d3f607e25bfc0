# %% [markdown]
# # 5. Convolution
#
# *How does a network look at a picture, and who differentiates that?*
#
# ← [4. Gradients of gradients](04_gradients_of_gradients.ipynb) · about 35 minutes ·
# needs lessons 3 and 4 · [6. A network and its loss](06_lenet.ipynb) → ·
# [all lessons](README.md)
#
# A small window slides over the picture. At each place the same few numbers, the **weights**, are
# multiplied with what the window shows, and the products are added up. This is called a
# [**convolution**](README.md#convolution). In this lesson we write it as a copy and one matrix
# product. The rule of a copy is known from lesson 3, and that of a matrix product is one line. So
# the gradient of a convolution, and the gradient of its gradient, come for free.

# %%
import textwrap

import matplotlib.pyplot as plt
import numpy as np
from checks import check, expect
from plots import ORANGE, numbers, picture, show

from tinyleak import Tensor, check_gradients, data, grad, nn, ops

rng = np.random.default_rng(5)

# %% [markdown]
# ## A window that slides
#
# The weights of the window are called the [**kernel**](README.md#kernel). Let it be 3 × 3 and the
# picture 28 × 28. Then there are 26 places down and 26 across, so the result is a picture of 26 ×
# 26.
#
# The pictures in these lessons are digits that tinyleak draws itself, `glyphs`, so that nothing
# has to be downloaded. A pixel is a number between 0 (black) and 1 (white).


# %%
def slide(image, kernel):
    """The sum of kernel · window at each place: (H, W) and (k, k) give (H − k + 1, W − k + 1)."""
    k = len(kernel)
    rows, columns = image.shape[0] - k + 1, image.shape[1] - k + 1
    out = np.empty((rows, columns))
    for row in range(rows):
        for column in range(columns):
            window = image[row : row + k, column : column + k]
            out[row, column] = (kernel * window).sum()
    return out


digit = data.load_glyphs(8).images[7, 0]
left_to_right = np.array([[-1.0, 0, 1], [-1, 0, 1], [-1, 0, 1]])
top_to_bottom = left_to_right.T

upright, lying = slide(digit, left_to_right), slide(digit, top_to_bottom)
assert digit.shape == (28, 28) and 0 <= digit.min() < digit.max() <= 1, "pixels from 0 to 1"
assert upright.shape == (26, 26), "26 places down and 26 across"

# %% [markdown]
# **Predict first.** The second kernel is the first one turned by a quarter. Which strokes of a 7
# will each of them find?
#
# <details><summary>Answer</summary>
#
# Both find the slanting stroke, since it lies across both directions. The flat bar on top is found
# by the second alone. Many say "by the first, since it looks horizontally". But going from left to
# right *along* a bar nothing changes, so the first sees only the bar's two ends.
#
# </details>

# %% tags=["thumbnail"]
figure, axes = plt.subplots(1, 3, figsize=(6.5, 2.6), layout="constrained")
signed = {"cmap": "RdBu", "vmin": -3, "vmax": 3}
picture(axes[0], digit, "the picture", size=12)
picture(axes[1], upright, "left to right", size=12, **signed)
picture(axes[2], lying, "top to bottom", size=12, **signed)
show("A digit 7, and what two kernels find: both its slanting stroke, the second its bar as well.")

# %% [markdown]
# The first kernel is the right column of the window minus its left column. It answers where the
# picture gets brighter (blue) or darker (red) from left to right. The second asks the same from top
# to bottom. (In mathematics a convolution turns the kernel around first. Networks do not bother.)
#
# A network does not get its kernels from us. It learns them. So we need the gradient with respect
# to the kernel. And the attack needs the gradient with respect to the picture.
#
# ## Unfold
#
# Write down what each window shows, as a row of 9 numbers. Do it for all windows, one row under the
# other. This table is called the **unfolded** picture. Write the kernel as a column of 9 numbers.
# Then "multiply with each window and add up" is the product of a matrix and a column.

# %%
small = np.arange(1, 17).reshape(4, 4)
windows = np.stack([small[i : i + 3, j : j + 3].ravel() for i in range(2) for j in range(2)])
small_kernel = rng.standard_normal((3, 3))

assert np.allclose(windows @ small_kernel.ravel(), slide(small, small_kernel).ravel()), (
    "a window's row times the kernel"
)

figure, (left, right) = plt.subplots(
    1, 2, figsize=(7, 2.6), width_ratios=[4, 9], layout="constrained"
)
numbers(left, small, "a picture", vmin=-4, vmax=26)
numbers(right, windows, "its four windows, unfolded", vmin=-4, vmax=26)
left.add_patch(plt.Rectangle((-0.5, -0.5), 3, 3, fill=False, edgecolor=ORANGE, linewidth=3))
right.add_patch(plt.Rectangle((-0.5, -0.5), 9, 1, fill=False, edgecolor=ORANGE, linewidth=3))
show("A picture of 4 × 4 numbers, and its four windows of 3 × 3 as rows; one of each is framed.")

# %% [markdown]
# Now in earnest. A network has more of everything:
#
# - a [**batch**](README.md#batch) of N pictures at once;
# - each with C [**channels**](README.md#channel), such as red, green and blue, or what the
#   convolution before found. A window then shows C · k · k numbers;
# - O kernels, each with its own question. Each makes one channel of the result;
# - a [**stride**](README.md#stride) s: the window moves s pixels at a time. With 2 the result has
#   half the size;
# - [**padding**](README.md#padding) p: a frame of p zeros around the picture, so that windows can
#   begin outside of it.
#
# With them there are $⌊(H + 2p - k) / s⌋ + 1$ places from top to bottom, where $⌊ ⌋$ means rounded
# down. We loop over the k · k places *within* the window, and take that pixel of all windows at
# once.


# %%
def unfold(x, k, stride, padding):
    """The windows of x as rows: (N, C, H, W) → (N, oH · oW, C · k · k)."""
    n, channels, *size = x.shape
    rows, columns = ((length + 2 * padding - k) // stride + 1 for length in size)
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    out = np.empty((n, channels, k, k, rows, columns))
    for i in range(k):
        for j in range(k):
            down = slice(i, i + stride * rows, stride)
            across = slice(j, j + stride * columns, stride)
            out[:, :, i, j] = x[:, :, down, across]
    return out.reshape(n, channels * k * k, rows * columns).swapaxes(1, 2)


def convolve(x, weight, stride, padding):
    """(N, C, H, W) and kernels (O, C, k, k) give (N, O, oH, oW); squares only."""
    out_channels, *_, k = weight.shape
    out = unfold(x, k, stride, padding) @ weight.reshape(out_channels, -1).T
    side = int(np.sqrt(out.shape[1]))
    return out.swapaxes(1, 2).reshape(len(x), out_channels, side, side)


# %% [markdown]
# tinyleak's function is `nn.conv2d`. It gives the same numbers:

# %%
x = rng.standard_normal((2, 3, 9, 9))
weight = rng.standard_normal((5, 3, 3, 3))
for stride, padding in [(1, 0), (2, 0), (1, 2), (2, 1), (3, 2)]:
    ours = convolve(x, weight, stride, padding)
    own = nn.conv2d(Tensor(x), Tensor(weight), stride=(stride, stride), padding=(padding, padding))
    assert np.allclose(ours, own.data), "conv2d gives the same"
    print(f"stride {stride}, padding {padding}: {x.shape} → {ours.shape}")

assert np.allclose(convolve(digit[None, None], left_to_right[None, None], 1, 0)[0, 0], upright), (
    "and so it does for the digit"
)

# %% [markdown]
# ## The way back
#
# Walking backwards, we first meet the matrix product $Z = U K$, where $U$ is the unfolded picture
# and $K$ holds a kernel in each column. With $G = ∂L/∂Z$ its rule has two more products in it:
#
# $$∂L/∂U = G K^T, \quad ∂L/∂K = U^T G.$$
#
# Then we meet `unfold`. It computes nothing, it only copies: each pixel goes to every window that
# shows it. Lesson 3 told us what to do. **Copying forwards is adding up backwards.** Each window's
# numbers go back to where they came from, and where windows overlap, they are added up. This is
# called **fold**. It is `unfold` with one line turned around:


# %%
def fold(g, shape, k, stride, padding):
    """The adjoint of unfold: (N, oH · oW, C · k · k) → shape, which is (N, C, H, W)."""
    n, channels, *size = shape
    rows, columns = ((length + 2 * padding - k) // stride + 1 for length in size)
    g = g.swapaxes(1, 2).reshape(n, channels, k, k, rows, columns)
    x = np.zeros((n, channels, size[0] + 2 * padding, size[1] + 2 * padding))
    for i in range(k):
        for j in range(k):
            down = slice(i, i + stride * rows, stride)
            across = slice(j, j + stride * columns, stride)
            x[:, :, down, across] += g[:, :, i, j]
    return x[:, :, padding : padding + size[0], padding : padding + size[1]]


settings = {"k": 3, "stride": 2, "padding": 1}
unfolded = unfold(x, **settings)
g = rng.standard_normal(unfolded.shape)
assert np.isclose((unfolded * g).sum(), (x * fold(g, x.shape, **settings)).sum()), "adjoint"

# %% [markdown]
# That was the test of lesson 3, $⟨A x, y⟩ = ⟨x, A^T y⟩$. Now the whole gradient, ours by hand
# against tinyleak's `grad`:

# %%
g = rng.standard_normal((2, 5, 5, 5))  # the gradient with respect to the convolution's result
rows = g.reshape(2, 5, 25).swapaxes(1, 2)
by_weight = (unfolded.swapaxes(1, 2) @ rows).sum(axis=0).T.reshape(weight.shape)
by_x = fold(rows @ weight.reshape(5, -1), x.shape, **settings)

tx, tw = Tensor(x), Tensor(weight)
out = nn.conv2d(tx, tw, stride=(2, 2), padding=(1, 1))
own_x, own_w = grad(out, [tx, tw], Tensor(g))
assert np.allclose(by_x, own_x.data) and np.allclose(by_weight, own_w.data), "grad gives both"

# %% [markdown]
# The derivative of `fold` is `unfold` again. So second derivatives need no extra code. The check of
# lesson 4 agrees, up to order three:

# %%
tx, tw = Tensor(rng.standard_normal((1, 2, 5, 5))), Tensor(rng.standard_normal((3, 2, 3, 3)))
check_gradients(
    lambda x, w: ops.tanh(nn.conv2d(x, w, stride=(2, 2), padding=(1, 1))), [tx, tw], order=3
)

# %% [markdown]
# How many windows does a pixel send its number to? Unfold a picture of ones, and fold it again. The
# network of the next lesson looks at a picture through exactly these windows, of 5 × 5 with a
# stride of 2. A pixel is seen four, six or nine times, and in the last row and column less often.
# None is missed, and the attack will be glad of that.

# %%
ones = np.ones((1, 1, 12, 12))
times = fold(unfold(ones, 5, 2, 2), ones.shape, 5, 2, 2)[0, 0]
assert set(np.unique(times[:-1, :-1])) == {4, 6, 9}, "seen four, six or nine times"
assert max(times[-1].max(), times[:, -1].max()) < 4, "less often in the last row and column"
assert times.min() > 0, "none is missed"

figure, ax = plt.subplots(figsize=(4.6, 3.6), layout="constrained")
numbers(ax, times, "in how many windows each pixel is", size=10, vmax=14)
show("12 × 12 pixels and how many windows each is in: 4, 6 or 9, less at two borders.")

# %% [markdown]
# ## Where one gets stuck
#
# There are two ways to make a matrix of the kernels, with one column for each. Both have the right
# shape:

# %%
right_one = weight.reshape(5, 27).T
wrong_one = weight.reshape(27, 5)
assert right_one.shape == wrong_one.shape, "both shapes fit"
assert not np.allclose(right_one, wrong_one), "and the numbers differ"

# %% [markdown]
# `reshape` does not transpose anything. It only cuts the same row of numbers at other places. So
# the second matrix holds the right numbers at the wrong places. No error will ever tell you.
#
# Its cousin is the weight with its first two axes swapped. It comes from another library, in which
# the channels that go in are written first. In the middle of our network 12 channels go in and 12
# come out, so this fits as well:

# %%
middle = rng.standard_normal((12, 12, 5, 5))
features = Tensor(rng.standard_normal((1, 12, 14, 14)))
swapped = middle.transpose(1, 0, 2, 3)

a = nn.conv2d(features, Tensor(middle), stride=(2, 2), padding=(2, 2))
b = nn.conv2d(features, Tensor(swapped), stride=(2, 2), padding=(2, 2))
print("shapes:", a.shape, "and", b.shape)
print(f"typical size of a number: {a.data.std():.0f} and {b.data.std():.0f}")
print(f"typical difference: {(a.data - b.data).std():.0f}")

expect(
    a.shape == b.shape and 0.8 < a.data.std() / b.data.std() < 1.25,
    "the numbers are as large as before",
)
assert (a.data - b.data).std() > 1.1 * a.data.std(), "the difference is larger than the numbers"

# %% [markdown]
# The symptom is nasty. A network with such a mistake even learns, since for random weights one
# order is as good as another. You notice when somebody else's weights come in and every answer is
# nonsense. Or when an attack on somebody else's gradient converges to noise.
#
# How would one have found it? Test with lengths that are *all different*. Then swapped axes cannot
# fit. And compare *values* with the slow loops, not shapes:

# %%
try:
    nn.conv2d(Tensor(x), Tensor(weight.transpose(1, 0, 2, 3)))
except ValueError as error:
    print(textwrap.fill(f"ValueError: {error}", 80))
else:
    raise AssertionError("3 channels in and 5 out cannot be swapped")

slow = sum(slide(x[0, channel], weight[0, channel]) for channel in range(3))
rows = unfold(x, 3, 1, 0)[0]
assert np.allclose((rows @ right_one)[:, 0].reshape(7, 7), slow), (
    "the loops agree with the transposed kernels"
)
assert not np.allclose((rows @ wrong_one)[:, 0].reshape(7, 7), slow), (
    "and not with the reshaped ones"
)

# %% [markdown]
# ## What to remember
#
# - A convolution is `unfold` and a matrix product.
# - `unfold` copies, so its partner `fold` adds up. Each is the other's derivative.
# - A shape that fits proves nothing.
#
# The real things are [`tinyleak/ops/window.py`](../tinyleak/ops/window.py), with the pair, and
# `conv2d` in [`tinyleak/nn/layers.py`](../tinyleak/nn/layers.py), which needs no rule of its own.
# There the channels stand last, so that the C numbers of a pixel lie side by side in memory and are
# copied in one go. That changes no number.
#
# ## Exercise
#
# Build the body of the next lesson's network. It has three convolutions, each with 12 kernels of 5
# × 5 and a padding of 2. Their strides are 2, 2 and 1. After each, every number $x$ becomes
# $1 / (1 + e^{-x})$, the [**sigmoid**](README.md#sigmoid). Write `body(x, kernels)`, which takes
# pictures (N, 1, 28, 28) and three arrays of kernels, and returns what comes out as rows. Before
# you run it: how large is a picture after each of the three, and how many numbers come out at the
# end?
#
# <details><summary>Solution to the exercise of lesson 4</summary>
#
# The Hessian is the table of the gradient's gradients. To multiply it with $v$, weight the gradient
# with $v$, add up, and differentiate.
#
# ```python
# def hessian_times(f, x, v):
#     (slopes,) = grad(f(x), [x])
#     return grad(ops.sum(slopes * v), [x])[0].data
#
#
# def f(x):
#     return ops.sum(formula(x)) ** 2
#
#
# x = Tensor(rng.standard_normal(5))
# u, v = rng.standard_normal(5), rng.standard_normal(5)
# assert np.isclose((hessian_times(f, x, u) * v).sum(), (u * hessian_times(f, x, v)).sum())
# ```
#
# It is its own adjoint because it does not matter with respect to which of two numbers one
# differentiates first: $∂^2f/∂x_i∂x_j = ∂^2f/∂x_j∂x_i$.
#
# </details>


# %%
def body(x, kernels):
    pass  # yours, with `convolve`


check(5, body)
