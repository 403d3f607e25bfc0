# %% [markdown]
# # 7. L-BFGS
#
# *How does one get down a long valley in forty steps instead of fifteen thousand?*
#
# ← [6b. Training, and a network that did not see](06b_training.ipynb) · about 40 minutes ·
# needs lesson 4 · [8. Deep leakage in 20 lines](08_deep_leakage.ipynb) → ·
# [all lessons](README.md)
#
# The attack of the next lesson minimises a function of 794 numbers. Stepping against the gradient
# would take forever. In this lesson we build the method that the paper uses, L-BFGS. It has two
# parts: a direction, made from what the last steps have taught, and a rule for how far to step.

# %%
import matplotlib.pyplot as plt
import numpy as np
from checks import check, expect
from plots import BLUE, GREEN, GREY, ORANGE, frames_of, show, slider, tidy

from tinyleak import lbfgs
from tinyleak.optim.line_search import CURVATURE, SUFFICIENT_DECREASE
from tinyleak.optim.quasi_newton import InverseHessian

# %% [markdown]
# ## The valley
#
# The last exercise had this function of two numbers, called **Rosenbrock's valley**:
#
# $$f(x, y) = (1 - x)^2 + 100 (y - x^2)^2.$$
#
# Its floor is the curve $y = x^2$, and its lowest point is (1, 1). There the walls curve 2,500
# times as strongly as the floor, and that makes it hard. A step that is right for the floor throws
# us up a wall. A step that is right for the wall hardly moves us along the floor.
#
# **Predict first.** Small steps against the gradient need 15,068 to a height of $10^{-6}$. A method
# that learns from its steps how the ground curves: does it need about ten thousand, a thousand, or
# under fifty?
#
# <details><summary>Answer</summary>
#
# Under fifty, as this lesson shows, and to a height of $10^{-20}$. Most people guess a thousand, as
# if a cleverer method were a faster walker. But it does not walk faster in the same direction. It
# walks in another direction.
#
# </details>


# %%
def value(p):
    x, y = p
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def gradient(p):
    x, y = p
    return np.array([-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)])


at_the_end = np.array([[802.0, -400.0], [-400.0, 200.0]])  # the second derivatives at (1, 1)
floor, wall = np.linalg.eigvalsh(at_the_end)  # how much it curves where least, where most
print(f"curvature across the valley and along it: {wall:.0f} and {floor:.2f}")
assert 2500 < wall / floor < 2520, "2,500 to 1"
nearby = [
    (gradient(np.array([1, 1]) + h) - gradient(np.array([1, 1]))) / 1e-6 for h in 1e-6 * np.eye(2)
]
assert np.allclose(nearby, at_the_end, rtol=1e-4), "as finite differences say"

START = np.array([-1.2, 1.0])
small_steps = [START]
while value(small_steps[-1]) > 1e-6:
    small_steps.append(small_steps[-1] - 0.001 * gradient(small_steps[-1]))
print("small steps against the gradient:", len(small_steps) - 1)
expect(len(small_steps) - 1 == 15_068, "15,068 small steps")

# %% [markdown]
# ## What two gradients tell
#
# The lowest point is where the gradient is zero. So look at the gradient, here of a function of one
# number. We know it at two points. Draw the straight line through both: it crosses zero where the
# lowest point would be, if the line were right. That is the next guess. With the step
# $s = x_\text{new} - x_\text{old}$ and the change of the gradient
# $y = g_\text{new} - g_\text{old}$, the line rises by $y / s$, and from the new point to its zero
# is a step of $-g_\text{new} s / y$. Such a line through two points of a curve is called a
# [**secant**](README.md#secant).

# %%
across = np.linspace(-0.2, 2.4, 200)
bent = np.sinh(across - 0.6)  # the gradient of some function whose lowest point is at 0.6
old_x, new_x = 2.2, 1.6
s, y = new_x - old_x, np.sinh(new_x - 0.6) - np.sinh(old_x - 0.6)
guess = new_x - np.sinh(new_x - 0.6) * s / y
expect(abs(guess - 0.6) < abs(new_x - 0.6), "the guess is nearer than both points")

figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
ax.axhline(0, color=GREY, linewidth=0.8)
ax.plot(across, bent, color=BLUE, linewidth=2, label="the gradient")
line = np.array([guess - 0.3, old_x + 0.1])
ax.plot(line, (line - guess) * y / s, "--", color=ORANGE, label="the secant")
ax.plot([old_x, new_x], np.sinh(np.array([old_x, new_x]) - 0.6), "o", color=BLUE, markersize=8)
ax.plot(guess, 0, "o", color=ORANGE, markersize=8)
for x, text in ((old_x, "old"), (new_x, "new")):
    ax.text(x - 0.03, np.sinh(x - 0.6) + 0.12, text, ha="right")
ax.text(guess + 0.08, -0.4, "next guess", color=ORANGE)
ax.legend(frameon=False)
tidy(ax)
show(
    "The gradient as a curve; a straight line through two of its points crosses zero near its zero."
)

# %% [markdown]
# Now with many numbers. $s$ and $y$ have become vectors, and nothing can be divided by a vector.
# Suppose the ground curved the same everywhere: the second derivatives, the Hessian of
# lesson 4's exercise, were one fixed matrix $A$. Then we would have
#
# $$y = A s, \quad\text{and so}\quad A^{-1} y = s.$$
#
# Why would we like to have $A^{-1}$? Because then one step leads to the bottom: $-A^{-1} g$ is
# exactly the step after which the gradient is zero. But with 794 numbers $A$ has more than 600,000
# entries. So we look for something cheaper. Let $H$ stand for our idea of $A^{-1}$. We keep the
# last few pairs $(s, y)$ and demand that $H$ explains the newest one: $H y = s$. That is the
# **secant condition**: with one number it says $H = s / y$, the line in the picture.
#
# The formula for that is due to Broyden, Fletcher, Goldfarb and Shanno: BFGS. With
# $ρ = 1 / ⟨s, y⟩$, the new $H$ is
#
# $$(I - ρ s y^T) H (I - ρ y s^T) + ρ s s^T.$$
#
# Check it by hand: applied to $y$, the right bracket gives $y - ρ y ⟨s, y⟩ = 0$, and the last term
# gives $s$. Here it is with real matrices, for a few random pairs:


# %%
def dense_inverse(pairs, n):
    """H as a matrix, from pairs (s, y), the oldest first."""
    s, y = pairs[-1]
    H = np.eye(n) * (s @ y) / (y @ y)  # a first idea of the size, from the newest pair
    for s, y in pairs:
        rho = 1 / (s @ y)
        right = np.eye(n) - rho * np.outer(y, s)
        H = right.T @ H @ right + rho * np.outer(s, s)
    return H


rng = np.random.default_rng(7)
n = 6
root = rng.standard_normal((n, n))
A = root @ root.T + np.eye(n)  # a ground that curves upwards in every direction
pairs = [(s, A @ s) for s in rng.standard_normal((4, n))]
s, y = pairs[-1]
assert np.allclose(dense_inverse(pairs, n) @ y, s), "it explains the newest pair"

# %% [markdown]
# ## The two loops
#
# We never need $H$ itself, only $H g$. Read the formula from right to left. Take $g$, apply the
# right bracket of the newest pair: that only subtracts a multiple of $y$. Then the next older pair,
# and so on, until the oldest. Now multiply with the first idea, one number. Then come the left
# brackets, from the oldest to the newest, each subtracting and adding a multiple of $s$. That is
# the **two-loop recursion**. It needs no matrix, just the pairs. The L in L-BFGS means limited
# memory.


# %%
def direction(g, pairs):
    """−H g, from pairs (s, y), the oldest first."""
    g, shares = g.copy(), []
    for s, y in reversed(pairs):
        share = (s @ g) / (s @ y)
        g -= share * y
        shares.append(share)
    if pairs:
        s, y = pairs[-1]
        g *= (s @ y) / (y @ y)
    for (s, y), share in zip(pairs, reversed(shares), strict=True):
        g += (share - (y @ g) / (s @ y)) * s
    return -g


g = rng.standard_normal(n)
assert np.allclose(direction(g, pairs), -dense_inverse(pairs, n) @ g), "the two loops give −H g"

# %% [markdown]
# tinyleak keeps its pairs in an `InverseHessian`. It computes the same direction with a few large
# matrix products in place of two loops over short vectors.
# [`tinyleak/optim/quasi_newton.py`](../tinyleak/optim/quasi_newton.py) tells how.

# %%
inverse_hessian = InverseHessian(np.zeros(n), history=100)  # for n numbers, and 100 pairs
for s, y in pairs:
    inverse_hessian.learn(s, y, curvature=s @ y)
assert np.allclose(inverse_hessian.direction(g), direction(g, pairs)), (
    "tinyleak's gives the same direction"
)

# %% [markdown]
# ## How far?
#
# The direction comes with a length, and often a step of exactly that length is right. But not
# always, since the ground does not curve the same everywhere. So we try $t = 1$, and look. Let
# $φ(t) = f(x + t d)$ be the height after a step of $t$ times the direction $d$. We ask two things:
#
# - Did we get lower? $φ(t) ≤ φ(0) + 0.0001 t φ'(0)$. If not, the step was too long.
# - Is it less steep here? $|φ'(t)| ≤ 0.9 |φ'(0)|$. If it still goes steeply down, the step was too
#   short. If it goes steeply up, it was too long.
#
# These are the [**strong Wolfe conditions**](README.md#wolfe). A search for a step that fulfils
# both is called a [**line search**](README.md#line-search). Ours knows only two moves. While every
# step was too short, double it. Once one was too long, halve the interval between too short and too
# long.


# %%
def wolfe_search(x, d):
    """A step length that passes both tests."""
    height, slope = value(x), gradient(x) @ d
    t, short, long = 1.0, 0.0, np.inf
    while True:
        new_slope = gradient(x + t * d) @ d
        if value(x + t * d) > height + 0.0001 * t * slope or new_slope > -0.9 * slope:
            long = t
        elif new_slope < 0.9 * slope:
            short = t
        else:
            return t
        t = (short + long) / 2 if long < np.inf else 2 * t


# %%
def minimise(x, search, most=200):
    """L-BFGS. Returns the points visited, the lengths t, and the slopes the directions had."""
    points, lengths, slopes, pairs = [x], [], [], []
    g = gradient(x)
    for _ in range(most):
        d = direction(g, pairs)
        if not pairs:
            d = d * min(1, 1 / np.abs(g).sum())  # nothing is known yet: be careful
        t = search(x, d)
        lengths.append(t)
        slopes.append(g @ d)
        new = x + t * d
        pairs = [*pairs, (new - x, gradient(new) - g)][-100:]
        x, g = new, gradient(new)
        points.append(x)
        if value(x) < 1e-20:
            break
    return np.array(points), lengths, slopes


points, lengths, slopes = minimise(START, wolfe_search)
print("L-BFGS with a line search:", len(points) - 1, "steps")
print("of these", lengths.count(1.0), "had the length 1")
expect(
    len(points) - 1 < 40 and lengths.count(1.0) > 25, "under forty steps, most of them of length 1"
)
expect(np.allclose(points[-1], [1, 1]), "it arrives at (1, 1)")

# %% [markdown]
# Under forty steps, and not to $10^{-6}$ but to $10^{-20}$. Here is one of the few in which the
# length 1 was wrong. It would have led across the valley and up the other wall.

# %%
step = lengths.index(0.25) if 0.25 in lengths else int(np.argmin(lengths))
x, d = points[step], (points[step + 1] - points[step]) / lengths[step]
t = np.linspace(0, 1.1, 500)
phi = np.array([value(x + u * d) for u in t])
phi_slope = np.array([gradient(x + u * d) @ d for u in t])
passes = (phi <= phi[0] + 0.0001 * t * phi_slope[0]) & (abs(phi_slope) <= 0.9 * abs(phi_slope[0]))
expect(
    not passes[np.searchsorted(t, 1.0)] and passes[np.searchsorted(t, 0.25)],
    "length 1 fails a test, and a quarter passes both",
)

figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
ax.plot(t, phi, color=BLUE, linewidth=2)
ax.fill_between(t, 0, 10, where=passes, color=GREEN, alpha=0.2, linewidth=0)
ax.text(t[passes].mean(), 2.8, "passes\nboth tests", ha="center", color="#006B4F")
for length, colour in ((1.0, ORANGE), (0.5, ORANGE), (0.25, GREEN)):
    ax.plot(length, value(x + length * d), "o", color=colour, markersize=9)
    ax.annotate(
        f"t = {length:g}", (length, value(x + length * d)), (6, -14), textcoords="offset points"
    )
ax.set(xlabel="t", ylabel="φ(t), the height", xlim=(0, 1.12), ylim=(1.4, 3.6))
tidy(ax)
show("The height along one direction: t = 1 and 0.5 are too far, t = 0.25 passes both tests.")

# %% [markdown]
# ## tinyleak's own
#
# `lbfgs` wants one function that returns both the height and the gradient. It is a loop: it hands
# out every point that it visits. Without a line search, when every step has length 1, it must visit
# the same points as ours. (It does so for ten steps. Then comes a pair with $⟨s, y⟩ < 0$. We keep
# it, and tinyleak leaves it out. Why that is wise we shall see.)


# %%
def objective(p):
    return value(p), gradient(p)


def unit_step(x, d):
    return 1.0


careless, _, _ = minimise(START, unit_step)
own = [iterate.x for iterate in lbfgs(objective, START, line_search="none", max_iterations=100)]
s, y = careless[11] - careless[10], gradient(careless[11]) - gradient(careless[10])
assert np.allclose(careless[:12], own[:12], rtol=1e-6), "the same points"
expect(
    s @ y < 0 and not np.allclose(careless[12], own[12]),
    "tinyleak leaves the pair out from here on",
)

# %% [markdown]
# tinyleak's line search is cleverer than ours. Where we halve, it guesses from heights and slopes
# where the lowest point of $φ$ is. So its points differ. But every one of its steps passes both
# tests, with 0.8 in place of 0.9, and that we can check from outside. With a step $s = t d$ we have
# $t φ'(0) = ⟨g, s⟩$.

# %%
iterates = list(lbfgs(objective, START, goal=1e-20))
own = np.array([iterate.x for iterate in iterates])
for old, new in zip(own[:-1], own[1:], strict=True):
    before, after = gradient(old) @ (new - old), gradient(new) @ (new - old)
    assert value(new) <= value(old) + SUFFICIENT_DECREASE * before, "lower by enough"
    assert abs(after) <= CURVATURE * abs(before) * (1 + 1e-6), "less steep by enough"
print("tinyleak:", iterates[-1].iterations, "steps,", iterates[-1].reason)
expect(len(own) - 1 < 45 and np.allclose(own[-1], [1, 1]), "tinyleak arrives, too")

# %% tags=["thumbnail"]
across, up = np.meshgrid(np.linspace(-1.7, 1.5, 300), np.linspace(-0.6, 2.1, 300))
terrain = (1 - across) ** 2 + 100 * (up - across**2) ** 2
figure, axes = plt.subplots(1, 3, figsize=(7, 2.9), sharey=True, layout="constrained")
walks = [
    (np.array(small_steps)[::500], "against the gradient\na dot for 500 steps"),
    (careless, "L-BFGS, always length 1\na dot for each step"),
    (points, "L-BFGS, line search\na dot for each step"),
]


def valley(ax, walk):
    ax.contourf(across, up, np.log10(terrain + 0.01), levels=15, cmap="Greys", alpha=0.6)
    ax.plot(*walk.T, "o-", color=ORANGE, markersize=4, linewidth=1)
    ax.plot(1, 1, "*", color=BLUE, markersize=16)
    ax.set(xlim=(-1.7, 1.5), ylim=(-0.6, 2.1))


for ax, (walk, title) in zip(axes, walks, strict=True):
    valley(ax, walk)
    ax.set_title(title, fontsize=11)
show("Three walks down a curved valley: many small steps; leaps far off; a short walk along it.")

# %% [markdown]
# Here is the third walk once more, step by step. Pull the slider, and see it turn with the valley.
# (If it does not move, run its cell: Jupyter runs no scripts of a notebook that was only opened. On
# a page that shows notebooks without running anything it may be missing.)

# %%
frames = frames_of(lambda ax, number: valley(ax, points[: number + 1]), len(points))
labels = [f"step {number}: height {value(p):.1e}" for number, p in enumerate(points)]
slider(frames, labels, "The walk of L-BFGS with a line search, step by step along the valley.")

# %% [markdown]
# ## Where one gets stuck
#
# The middle run used no line search. The paper's code does it like that, and on this valley it
# even arrives, after three times as many steps as with a search. But look at the heights on the
# way:

# %%
heights = np.array([value(p) for p in careless])
print(f"{len(careless) - 1} steps, {(np.diff(heights) > 0).sum()} of them upwards")
print(f"height at step 18: {heights[18]:.1f}, at step 19: {heights[19]:.0f}")
print(f"highest point of all: {heights.max():.0e}")
expect(heights[18] < 2 and heights[19] > 1854 and heights.max() > 1e7, "it jumps, and very high")
expect(len(careless) > 3 * len(points), "more than three times as many steps")

# %% [markdown]
# It jumped from a height of 2 to one of 1,854, and later to one of fifty million. That it came back
# was luck. In lesson 9 we count how often an attack does not.
#
# The second mistake is harder to see. A line search that only asks for *lower* looks reasonable.
# Halve until it is lower, then go. Let us start elsewhere, at (−0.5, 1.2):


# %%
def lower_is_enough(x, d):
    t = 1.0
    while value(x + t * d) > value(x) + 0.0001 * t * (gradient(x) @ d) and t > 1e-9:
        t /= 2
    return t


stuck, lengths, slopes = minimise(np.array([-0.5, 1.2]), lower_is_enough, most=12)
for number in range(5, 9):
    p = stuck[number]
    print(
        f"step {number}: height {value(p):.4f}, gradient {np.abs(gradient(p)).max():.1f}, "
        f"slope along d {slopes[number]:+.2f}, length {lengths[number]:.0e}"
    )
expect(
    np.abs(gradient(stuck[-1])).max() > 1 and max(lengths[7:]) < 1e-8, "it stands still on a slope"
)
assert slopes[6] < 0 < slopes[7], "this direction goes up"

# %% [markdown]
# The symptom: it stands still, although the gradient is not zero. The steps have become tiny. To
# find out why, print the slope along the direction, as above. It is *positive*: L-BFGS proposes to
# go up. No step length can help then.
#
# How did that come about? Look at the pair of the step before. Along it the slope fell, so
# $⟨s, y⟩ < 0$: the ground curved downwards. From such a pair $H$ learns that down is up. The second
# test prevents it. It demands a slope that is closer to zero than before, so the slope has risen,
# and $⟨s, y⟩ > 0$.

# %%
s, y = stuck[7] - stuck[6], gradient(stuck[7]) - gradient(stuck[6])
print(f"⟨s, y⟩ of the step before: {s @ y:.2f}")
expect(s @ y < 0, "the ground curved downwards")

well, lengths, slopes = minimise(np.array([-0.5, 1.2]), wolfe_search)
steps = np.diff(well, axis=0)
changes = np.diff([gradient(p) for p in well], axis=0)
expect(
    ((steps * changes).sum(axis=1) > 0).all() and max(slopes) < 0,
    "with both tests each pair says: upwards",
)
assert np.allclose(well[-1], [1, 1]), "with both tests it arrives"

# %% [markdown]
# ## What to remember
#
# - A step and the change of the gradient over it tell how the ground curves. L-BFGS learns from the
#   last of these pairs.
# - A direction is not a step. Test heights *and* slopes.
# - If a minimiser stands still with a gradient that is not zero, print the slope along its
#   direction.
#
# The real things are [`tinyleak/optim/quasi_newton.py`](../tinyleak/optim/quasi_newton.py),
# [`tinyleak/optim/line_search.py`](../tinyleak/optim/line_search.py), and
# [`tinyleak/optim/descent.py`](../tinyleak/optim/descent.py), where one problem's way down reads
# like `minimise` above.
#
# ## Exercise
#
# How many pairs should one keep? Take a chain of valleys of many numbers,
#
# $$f(x) = ∑_i (1 - x_i)^2 + 100 (x_{i+1} - x_i^2)^2,$$
#
# and write `chain(x)`, which returns its height and its gradient, as `lbfgs` wants them. Then start
# at $-1.2, 1, -1.2, 1, …$, fifty numbers, and count the steps that `lbfgs` needs to a height of
# $10^{-12}$, with `history=1`, 5 and 100.
#
# <details><summary>Solution to the exercise of lesson 6b</summary>
#
# 15,068 steps. With a rate of 0.01 it is thrown from wall to wall, higher each time, and after a
# few steps the numbers are too large for the computer.
#
# ```python
# def valley(p):
#     x, y = p
#     return (1 - x) ** 2 + 100 * (y - x**2) ** 2
#
#
# def slope(p):
#     x, y = p
#     return np.array([-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)])
#
#
# def descend(rate):
#     p, steps = np.array([-1.2, 1.0]), 0
#     while valley(p) >= 1e-6:
#         p, steps = p - rate * slope(p), steps + 1
#         if np.abs(p).max() > 1e6:
#             return np.inf
#     return steps
#
#
# p = Tensor(np.array([-1.2, 1.0]))
# assert np.allclose(grad(valley(p), p).data, slope(p.data))
# assert descend(0.001) == 15_068
# ```
#
# </details>


# %%
def chain(x):
    pass  # yours


check(7, chain)
