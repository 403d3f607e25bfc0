# %% [markdown]
# # 12b. Clipping, and noise with a proof
#
# *Is there a defence that is proved to work, and what exactly is proved?*
#
# ← [12. Defences: what stops it, and what it costs](12_defences.ipynb) · about 35 minutes ·
# needs lesson 12 · [13. Token for token: text](13_text.ipynb) → · [all lessons](README.md)
#
# Lesson 12 measured defences. A measurement says "this attack, on this network". In this lesson we
# look at the defence that comes with a theorem, [**DP-SGD**](README.md#dp-sgd): clip each gradient,
# then add noise in proportion. We measure it like the others, and read what its theorem promises
# and what not. Then an attacker who knows the defence tries each of them.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
from checks import check, expect
from plots import BLUE, ORANGE, show, tidy

from tinyleak import (
    LeNet,
    Settings,
    attack,
    attack_many,
    cross_entropy,
    data,
    one_hot,
    share,
)
from tinyleak.defenses import parse
from tinyleak.nn import accuracy, train
from tinyleak.transforms import per_example_gradients

DATA, DATA_DIR = "glyphs", None  # or "mnist", and the folder that holds its files

digits = data.load(DATA, data_dir=DATA_DIR)
model = LeNet(activation="tanh")
CLIENTS = [7, 13]


# %%
def client(seed, *defenses):
    """A client with fresh weights and one digit, which defends its gradient; and the truth."""
    weights = model.init(np.random.default_rng([seed, 0]), "default")
    rng = np.random.default_rng([seed, 2])
    return share(model, weights, *digits.batch([seed]), defenses=defenses, rng=rng)


def attack_all(defence, aware=False):
    """The mean squared error over the clients, by an attacker who knows the defence or not."""
    defences = [parse(defence)]
    clients, truths = zip(*(client(seed, *defences) for seed in CLIENTS), strict=True)
    known = {"defenses": defences} if aware else {}
    found = attack_many(clients, settings=Settings(400 if aware else 250), **known)
    outcomes = [truth.judge(one) for truth, one in zip(truths, found, strict=True)]
    return float(np.mean([outcome.mse[0] for outcome in outcomes]))


def norm(gradients):
    return np.sqrt(sum(np.square(g).sum() for g in gradients.values()))


# %% [markdown]
# ## Clipping
#
# To [**clip**](README.md#clip) a gradient is to shorten it to a given norm, if it is longer. That
# is the last exercise, and tinyleak's `clip:1` does it with norm 1. All entries are multiplied by
# one number.
#
# **Predict first.** Every entry of the shared gradient has changed, to a half or so. The naive
# attacker looks for a picture whose gradient is *this* one. Will it fail?
#
# <details><summary>Answer</summary>
#
# No, the picture comes back exactly. Most people say that no picture has such a gradient. But the
# attacker looks for a label, too, and may take a soft one: half of $p - y$ is the residual of the
# label half-way between $p$ and $y$. So the label takes the factor, and the picture stays.
#
# </details>

# %%
plain, clipped = client(7)[0].gradients, client(7, parse("clip:1"))[0].gradients
factor = 1 / norm(plain)
print(f"norm {norm(plain):.2f} becomes {norm(clipped):.2f}")
assert all(np.allclose(clipped[name], factor * plain[name]) for name in plain), "one factor for all"

someone, its_truth = client(7, parse("clip:1"))
found = attack(someone, settings=Settings(250))
error, belief = its_truth.judge(found).mse[0], found.soft_labels[0].max()
print(f"clip:1, naive attacker: squared error {error:.0e}, label {found.labels[0]} by {belief:.0%}")
expect(error < 1e-6 and 0.4 < belief < 0.7, "clipping hides nothing, and the label is soft")

# %% [markdown]
# Clipping alone is no defence, then. It is there to make the *noise* mean something: once nobody's
# gradient is longer than $C$, noise of a size in proportion to $C$ can cover anybody's.
#
# ## DP-SGD
#
# Abadi and others (*Deep Learning with Differential Privacy*, 2016, algorithm 1): clip the gradient
# of each of the $N$ examples to norm $C$, add them up, add normal noise of standard deviation $σ C$
# to each entry, and divide by $N$. tinyleak writes it `dpsgd:C,σ`.


# %%
def dpsgd(each, bound, sigma, rng):
    """One step's gradient, from each example's own, with a leading axis over N examples."""
    count = len(next(iter(each.values())))
    norms = np.sqrt(sum(np.square(g).reshape(count, -1).sum(axis=1) for g in each.values()))
    factors = np.minimum(1, bound / norms)
    shared = {}
    for name, g in each.items():
        mean = np.tensordot(factors, g, axes=1) / count
        shared[name] = mean + rng.normal(0, sigma * bound / count, mean.shape)
    return shared


# %%
images, labels = digits.batch([7, 13, 25, 30])
weights = model.init(np.random.default_rng(0), "default")
targets = one_hot(labels, 10)
alone = per_example_gradients(
    lambda params, x, y: cross_entropy(model(params, x), y), weights, images, targets
)
each = {name: g.data for name, g in alone.items()}
ours = dpsgd(each, 1.0, 0.1, np.random.default_rng(1))
own = parse("dpsgd:1,0.1")(each, np.random.default_rng(1))
assert all(np.allclose(ours[name], own[name]) for name in own), "tinyleak's is this"

# %% [markdown]
# ## What is proved
#
# A step is [**(ε, δ)-differentially private**](README.md#epsilon) if, whether a single example is
# in the batch or not, and whatever it is, no outcome gets more likely than by a factor of $e^ε$,
# but for events of probability δ. So nobody can tell much better than by guessing that an example
# was there at all, let alone what it looked like. This holds against every attacker, today's and
# later ones. For one step of normal noise the least ε that a given δ allows is known exactly: it
# solves
#
# $$Φ(\tfrac{1}{2σ} - εσ) - e^ε Φ(-\tfrac{1}{2σ} - εσ) = δ,$$
#
# with Φ the normal distribution function (Balle and Wang, *Improving the Gaussian Mechanism for
# Differential Privacy*, 2018, theorem 8). Note that $C$ is not in it: clipping has taken care of
# that.


# %%
def epsilon(sigma, delta=1e-5):
    """The least ε of one step with noise multiplier σ."""

    def normal(x):
        return math.erfc(-x / math.sqrt(2)) / 2

    def excess(e):
        a, b = 1 / (2 * sigma), e * sigma
        return normal(a - b) - math.exp(e) * normal(-a - b) - delta

    low, high = 0.0, 500.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return high


SIGMAS = (0.1, 0.3, 1.0, 5.0)
promised = [epsilon(sigma) for sigma in SIGMAS]
for sigma, e in zip(SIGMAS, promised, strict=True):
    print(f"σ = {sigma:<4} ε = {e:5.1f}, a factor of {math.exp(e):.1e}")
assert promised[0] > 50 and promised[-1] < 1, "from no promise at all to a good one"

# %% [markdown]
# Read it honestly. An ε of 1 is a promise, a factor of 2.7. An ε of 90 allows a factor of more than
# $10^{38}$: that is a theorem, and it says nothing. And this is *one* step. A client that takes
# part in a thousand spends a thousand times, less what random batches give back, and an accountant
# keeps the book (theirs is in the same paper). So whoever says "we use DP-SGD" has said nothing
# yet. Ask for ε, for δ, and for how many steps. And the other way round: noise that stops *this*
# attack may be far from any promise.
#
# ## An attacker who knows each of them
#
# **Predict first.** Six defences: noise of variance $10^{-3}$, eight bits, 90 % pruning, clipping,
# and DP-SGD with σ = 0.01 and 0.1, both without a promise worth the name. Which of them stops an
# attacker who knows exactly what was done?
#
# <details><summary>Answer</summary>
#
# The noisy ones: at $10^{-3}$ and σ = 0.01 the pictures are worse than a black one, at σ = 0.1
# nothing is left. Knowing helps against what is *left out* and against what is *scaled*. It does
# not help against noise, since what was drawn is not known. That is the whole reason why the
# theorem is about noise.
#
# </details>

# %%
TRIED = ["gaussian:1e-3", "int8", "prune:0.9", "clip:1", "dpsgd:1,0.01", "dpsgd:1,0.1"]
naive = {defence: attack_all(defence) for defence in TRIED}
aware = {defence: attack_all(defence, aware=True) for defence in TRIED}
black = float(np.mean([np.square(digits.images[seed]).mean() for seed in CLIENTS]))
for defence in TRIED:
    print(f"{defence:<14} naive {naive[defence]:7.0e}, aware {aware[defence]:7.0e}")
print(f"a black image   {black:.2f}")
readable = ("int8", "prune:0.9", "clip:1")
expect(all(aware[d] < 5e-3 for d in readable), "what is left out or scaled does not hide")
expect(all(aware[d] > black for d in TRIED if d not in readable), "noise hides")

# %% tags=["thumbnail"]
figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
rows = np.arange(len(TRIED))[::-1]
ax.axvline(black, color="0.8")
ax.text(black * 1.3, rows[0] + 0.35, "a black image", color="0.5", fontsize=11)
ax.scatter([naive[d] for d in TRIED], rows, color=BLUE, s=60, label="naive attacker")
ax.scatter([aware[d] for d in TRIED], rows, color=ORANGE, marker="v", s=60, label="aware attacker")
ax.set(yticks=rows, yticklabels=TRIED, xscale="log", xlabel="squared error of the leak")
ax.legend(loc="lower left", fontsize=11)
tidy(ax)
show("Leak by defence: pruning and clipping leak to the aware; noise stops both attackers alike.")

# %% [markdown]
# ## What it costs
#
# The same training as in lesson 12, with each example's gradient clipped to 1 and noise added.

# %%
pixels, classes = digits.images[:1000], digits.labels[:1000]
start = model.init(np.random.default_rng(0), "default")


def accuracy_with(defence, steps=250):
    trained = train(
        model,
        pixels[:800],
        classes[:800],
        params=start,
        steps=steps,
        learning_rate=lambda step: 0.2 * (1 - step / steps),
        momentum=0.0,
        seed=1,
        protect=parse(defence) if defence else None,
        per_example=defence is not None,
    )
    return accuracy(model, trained.params, pixels[800:], classes[800:])


undefended = accuracy_with(None)
price = {defence: accuracy_with(defence) for defence in ("dpsgd:1,0.1", "dpsgd:1,1")}
print(f"no defence   {undefended:.1%} of the digits are read right")
for defence, right in price.items():
    print(
        f"{defence:<12} {right:.1%}, ε of one step {epsilon(parse(defence).noise_multiplier):.0f}"
    )
expect(min(price.values()) > 0.6 and max(price.values()) < undefended, "it costs, but it learns")

# %% [markdown]
# A part of the price is the clipping: shorter gradients are shorter steps, and 250 of them do not
# go as far. Real trainings take larger batches, in which the noise, which is divided by $N$, weighs
# less. So this is not the price of DP-SGD. It is its price here.
#
# ## Where one gets stuck
#
# It is tempting to clip the *mean* of the batch, which is cheaper than to clip each example. But
# then one example may move the mean by up to twice the bound, and noise that was made for $C / N$
# no longer covers it. Nothing looks wrong. To find it, take an example as different as can
# be, leave it out, and measure how far the result moves without noise.


# %%
def first_times(factor):
    """The gradients, the first example's multiplied by a factor."""
    weights = np.array([factor, 1, 1, 1])
    return {name: (g.T * weights).T for name, g in each.items()}


def moved(aggregate):
    loud, silent = aggregate(first_times(-100)), aggregate(first_times(1e-9))
    return norm({name: loud[name] - silent[name] for name in loud})


def clip_the_mean(gradients):
    return parse("clip:1")({name: g.mean(axis=0) for name, g in gradients.items()}, None)


per_example = moved(lambda gradients: dpsgd(gradients, 1.0, 0.0, np.random.default_rng(0)))
mean_only = moved(clip_the_mean)
print(f"one example of four moves the result by {per_example:.2f}, clipped by itself")
print(f"and by {mean_only:.2f}, where the mean is clipped")
assert per_example <= 1 / 4 + 1e-6 < mean_only, "C / N is what noise was made for"

# %% [markdown]
# ## What to remember
#
# - Clipping bounds, and hides nothing.
# - Noise in proportion to the bound is what can be proved. Ask for ε, δ and the number of steps.
# - Knowing a defence helps against all but noise.
#
# The real things are [`tinyleak/defenses/clipping.py`](../tinyleak/defenses/clipping.py) and
# [`tinyleak/defenses/aware.py`](../tinyleak/defenses/aware.py).
#
# ## Exercise
#
# A network for text begins with a table: word $v$ is row $v$ of $E$. A sentence of words 2, 7, 7
# looks up three rows, and so only these get a gradient. Write `words_read(gradient)`, which returns
# the words that were looked up, in a list, given the gradient of the table. Then make a random
# table of 10 rows, take those rows with `ops.take`, compute any loss of them, and try it. Would
# `prune:0.5` hide it?
#
# <details><summary>Solution to the exercise of lesson 12</summary>
#
# Everything but the length: the direction is as it was, so the attacker matches that.
#
# ```python
# def clip(gradients, bound):
#     norm = np.sqrt(sum(np.square(g).sum() for g in gradients.values()))
#     factor = min(1, bound / norm)
#     return {name: factor * g for name, g in gradients.items()}
#
#
# short = clip(clear.gradients, 1.0)
# assert np.isclose(norm(short), 1.0)
# found = clear_truth.judge(attack(model, clear.params, short, settings=Settings(200)))
# assert found.mse[0] < 1e-3
# ```
#
# </details>


# %%
def words_read(gradient):
    pass  # yours


check("12b", words_read)
