# %% [markdown]
# # 9b. What else decides: precision, scale and weights
#
# *With a line search the attack arrives. What can still stop it?*
#
# ← [9. Why it sometimes fails, and what fixed it](09_why_it_fails.ipynb) · about 25 minutes ·
# needs lesson 9 · [10. The label was never hidden](10_labels.ipynb) → · [all lessons](README.md)
#
# Lesson 9 found what makes the attack run away. Here are three things more that decide how it ends,
# each tried alone: the precision of the numbers, the scale of the loss, and the initial weights.

# %%
import numpy as np
from checks import check, expect
from plots import pictures, show

from tinyleak import (
    LeNet,
    Settings,
    Tensor,
    attack,
    attack_many,
    data,
    grad,
    lbfgs,
    ops,
    share,
    softmax,
)
from tinyleak.attacks import starting_point
from tinyleak.nn.init import draw
from tinyleak.nn.model import parameter_gradients

DATA, DATA_DIR = "glyphs", None  # or "mnist", and the folder that holds its files

digits, labels = data.load(DATA, data_dir=DATA_DIR).batch(range(100))
digits = digits.reshape(100, 1, 14, 2, 14, 2).mean(axis=(3, 5))  # 28×28 becomes 14×14
model = LeNet(image_shape=(1, 14, 14))


# %%
def make_client(seed, scheme="uniform", scale=0.5):
    """A client with its own digit and its own weights, drawn from the seed; and the truth."""
    weights = draw(model.shapes, np.random.default_rng([seed, 0]), scheme, scale=scale)
    return share(model, weights, digits[[seed]], labels[[seed]])


def run_on(some, settings):
    """Attack these clients. Return what was found, the errors, and who was recovered."""
    clients, truths = zip(*some, strict=True)
    found = attack_many(clients, seeds=range(len(clients)), settings=settings)
    outcomes = [truth.judge(one) for truth, one in zip(truths, found, strict=True)]
    errors = np.array([outcome.mse[0] for outcome in outcomes])
    return found, errors, np.array([outcome.succeeded for outcome in outcomes])


# %% [markdown]
# ## What the precision does
#
# It decides how far down one gets. Ask six attacks for a relative distance of $10^{-20}$, in both
# precisions. Their networks have smaller weights, PyTorch's default, so that the end is soon
# reached.

# %%
small = [make_client(seed, "default") for seed in range(6)]
ends = {
    dtype: run_on(small, Settings(500, dtype=dtype, goal=1e-20)) for dtype in ("float32", "float64")
}
for dtype, (found_here, errors_here, _) in ends.items():
    distance = np.median([one.distance for one in found_here])
    print(f"{dtype}: median squared error {np.median(errors_here):.0e}, distance {distance:.0e}")
expect(all(good.all() for _, _, good in ends.values()), "all succeed in both")
expect(
    np.median(ends["float64"][1]) < 1e-4 * np.median(ends["float32"][1]),
    "float64 gets much farther",
)
assert all(one.distance > 1e-15 for one in ends["float32"][0]), "far above the goal"
assert all(one.distance <= 1e-20 for one in ends["float64"][0]), "at the goal"

# %% [markdown]
# In float32 the distance is a sum of squares of differences that are themselves rounded. Near the
# end these differences are all rounding, and the attack **stagnates**: it moves, and the distance
# no longer falls. The picture is right to the eye, in both. But when you test your own code, you
# want to know whether an error of $10^{-6}$ is rounding or a mistake. In float64 you can tell.
#
# ## Where one gets stuck
#
# Most libraries stop when the gradient of what they minimise is small, say when no entry is above
# $10^{-5}$. (That is SciPy's default for L-BFGS; PyTorch's is $10^{-7}$.) Small compared to what?
# Here is an attacker who writes the loop as such a library does. The client's network has a loss
# that is divided by 1000: somebody took the mean over a thousand things. So its gradient is a
# thousand times smaller, and so is the dummy's.


# %%
def distance_of(client, loss_scale, divide_by_norm=False):
    """The objective of lesson 8, for a client whose loss has a factor in front of it."""
    params = {name: Tensor(array) for name, array in client.params.items()}
    shared = {name: loss_scale * g for name, g in client.gradients.items()}
    squared_norm = sum(np.square(g).sum() for g in shared.values()) if divide_by_norm else 1.0

    def objective(z):
        z = Tensor(z)
        x, y = ops.reshape(z[:196], (1, 1, 14, 14)), softmax(ops.reshape(z[196:], (1, 10)))
        mine = parameter_gradients(model, params, x, y)
        parts = [ops.sum((loss_scale * mine[n] - shared[n]) ** 2) for n in shared]
        distance = sum(parts) * (1 / squared_norm)
        return distance.data, grad(distance, [z])[0].data

    return objective


# %%
SEED = 0
START = starting_point(model, 1, seed=SEED)[0]


def minimise(objective, tolerance):
    """Stop when no entry of the gradient is larger than the tolerance: an absolute one."""
    for iterate in lbfgs(objective, START, max_iterations=200, goal=1e-12):
        if iterate.gradient_norm < tolerance:
            break
    return iterate, np.square(iterate.x[:196] - truth.images.ravel()).mean()


client, truth = make_client(0)
for scale in (1.0, 1e-3):
    iterate, error = minimise(distance_of(client, scale), tolerance=1e-5)
    print(f"loss × {scale:g}: stopped after {iterate.iterations} iterations, error {error:.0e}")
expect(iterate.iterations < 20 and error > 0.1, "it stops at once")

# %% [markdown]
# The symptom is an attack that says "converged" at once, with a picture of noise.
# People then blame the attack. To find it, print the distance at the start, and ask what the
# tolerance means beside it. The gradient is a thousand times smaller, its square a million times,
# and $10^{-5}$ is suddenly large.
#
# The cure is to divide the distance by the squared norm of the shared gradient. Then it is
# relative, about 1 at the start, whatever anyone multiplies the loss with. tinyleak does that by
# default.

# %%
for scale in (1.0, 1e-3):
    objective = distance_of(client, scale, divide_by_norm=True)
    iterate, error = minimise(objective, tolerance=1e-9)
    print(f"loss × {scale:g}: stopped after {iterate.iterations} iterations, error {error:.0e}")
    expect(error < 1e-3, "now it arrives")

own = attack(client, settings=Settings(0), seed=SEED)
value, _ = distance_of(client, 1.0, divide_by_norm=True)(START)
assert np.isclose(value, own.distances[0], rtol=1e-10), "the package divides, too"

# %% [markdown]
# ## The initial weights
#
# All clients so far drew their weights from U(−0.5, 0.5): any number between the two, equally
# likely. That is what the paper's code does. What if they are smaller, or larger?
#
# **Predict first.** From U(−0.1, 0.1) to U(−1.5, 1.5): where does the digit come out fastest?
#
# <details><summary>Answer</summary>
#
# With the smallest weights, and with the largest not at all. Many say the other way round: larger
# weights make larger gradients, and more signal. But what counts is not how large the gradient is.
# It is how much it *changes* with the picture.
#
# </details>

# %%
WIDTHS = [0.1, 0.25, 0.5, 1.0, 1.5]
by_width, steps = {}, []
for width in WIDTHS:
    some = [make_client(seed, scale=width) for seed in range(4)]
    by_width[width] = run_on(some, Settings(450, goal=1e-11))
    found_here, error, good = by_width[width]
    steps.append(np.median([one.iterations for one in found_here]))
    print(
        f"U(±{width:<4}): {good.sum()} of 4, {steps[-1]:.0f} iterations, "
        f"median squared error {np.median(error):.0e}"
    )
expect(
    all(by_width[width][2].all() for width in (0.1, 0.25, 0.5)),
    "small and middle weights let all digits out",
)
expect(
    not by_width[1.5][2].any() and (np.diff(steps) > 0).all(),
    "the larger, the slower; the largest let none out",
)

# %% tags=["thumbnail"]
images = [by_width[width][0][3].images[0, 0] for width in WIDTHS]
pictures(images, [f"U(±{width:g})" for width in WIDTHS], size=12)
show("Five pictures from growing weights: a clear digit from the first four, noise from the last.")

# %% [markdown]
# The larger the weights, the more iterations, and with the largest the digit has not come out when
# the attack must stop. Large weights make large inputs of the sigmoids, and those are flat from the
# start: here it is the *client's* network that lets little through. No line search helps against
# that. Small weights keep every sigmoid in its steep middle. The default weights of PyTorch for
# these layers are small. So a client is not protected by having an ordinary network.

# %% [markdown]
# ## What to remember
#
# - float32 ends earlier, but it does not fail.
# - A tolerance without a scale is a guess. Divide the distance by the gradient's squared norm.
# - Large initial weights make the attack hard; ordinary ones do not.
#
# The settings are in [`tinyleak/attacks/settings.py`](../tinyleak/attacks/settings.py), the initial
# weights in [`tinyleak/nn/init.py`](../tinyleak/nn/init.py).
#
# ## Exercise
#
# Four clients for each width say little. Write `attacks_needed(p, width)`: how many attacks does it
# take until Wilson's range (lesson 9) is at most `width` wide from end to end, if the share `p` of
# them succeeds? For a count that is not whole, use the formula of lesson 9, not
# `wilson_interval`.
#
# <details><summary>Solution to the exercise of lesson 9</summary>
#
# With $n$ starts all fail with probability $(1 - p)^n$. With $p = 0.9$ that is $0.001$ for $n = 3$.
#
# ```python
# def starts_needed(p, wanted):
#     n = 1
#     while (1 - p) ** n > 1 - wanted + 1e-12:  # a little, for the rounding
#         n += 1
#     return n
#
#
# assert starts_needed(0.9, 0.999) == 3
#
# again = np.repeat(failed, 10)
# _, _, good = run_on([everyone[seed] for seed in again], np.arange(1000, 1000 + len(again)), paper)
# low, high = wilson_interval(int(good.sum()), len(good))
# print(f"of {len(good)} other starts {good.sum()} succeed, likely {low:.0%} to {high:.0%}")
# assert 0.6 < good.mean() < recovered.mean() and high < 0.9
# ```
#
# Most of them succeed, so above all it was the start that failed. But fewer than with all clients,
# and that is more than chance, as the range says. So some clients are harder than others, and for
# them it takes more than three.
#
# </details>


# %%
def attacks_needed(p, width):
    pass  # yours


check("9b", attacks_needed)
