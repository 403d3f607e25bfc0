# %% [markdown]
# # 12. Defences: what stops it, and what it costs
#
# *What can a client do to its gradient so that it stays useful and no longer leaks?*
#
# ← [11b. A batch is a mixture, and comes apart](11b_a_batch_is_a_mixture.ipynb) ·
# about 30 minutes · needs lesson 8 ·
# [12b. Clipping, and noise with a proof](12b_clipping_and_privacy.ipynb) → ·
# [all lessons](README.md)
#
# A client is free to change the gradient before it shares it. It can add noise, round it, or leave
# parts out. Each of these is a [**defence**](README.md#defence). A defence has two sides, and we
# measure both: what the attacker still sees, and what the model still learns.

# %%
import matplotlib.pyplot as plt
import numpy as np
from checks import check, expect
from plots import BLUE, GREEN, ORANGE, pictures, show

from tinyleak import LeNet, Settings, attack, attack_many, data, share
from tinyleak.defenses import knowledge, parse
from tinyleak.nn import accuracy, train

DATA, DATA_DIR = "glyphs", None  # or "mnist", and the folder that holds its files

digits = data.load(DATA, data_dir=DATA_DIR)
model = LeNet(activation="tanh")  # with its weights below it trains well in a few seconds

# %% [markdown]
# ## Two defences in one line each
#
# *Noise*: add a random number to each entry. Its strength is the noise's **variance** $σ^2$, as in
# the paper. *Pruning*: set the smallest entries of each array to zero, say 30 % of them. Pruning
# was invented to send less; that it might also hide something is a hope.


# %%
def add_noise(gradients, variance, rng):
    return {name: g + rng.normal(0, variance**0.5, g.shape) for name, g in gradients.items()}


def prune(gradients, fraction):
    pruned = {}
    for name, g in gradients.items():
        threshold = np.sort(np.abs(g).ravel())[int(fraction * g.size)]
        pruned[name] = np.where(np.abs(g) < threshold, 0, g)
    return pruned


def noise_of(seed):
    return np.random.default_rng([seed, 2])


def client(seed, *defenses, network=model, init="default"):
    """A client with fresh weights and one digit, which defends its gradient; and the truth."""
    images, labels = digits.batch([seed])
    weights = network.init(np.random.default_rng([seed, 0]), init)
    rules = [parse(d) for d in defenses]
    return share(network, weights, images, labels, defenses=rules, rng=noise_of(seed))


# %%
clear, clear_truth = client(7)
ours = add_noise(clear.gradients, 1e-3, noise_of(7)), prune(clear.gradients, 0.3)
for defence, by_us in zip(("gaussian:1e-3", "prune:0.3"), ours, strict=True):
    theirs = client(7, defence)[0].gradients
    assert all(np.array_equal(by_us[name], theirs[name]) for name in theirs), "tinyleak's is this"

# %% [markdown]
# tinyleak writes a defence as a word and a strength: `gaussian:1e-3`, `prune:0.3`, `float16`,
# `int8`. The last two round. `float16` keeps 11 binary digits of each number. `int8` keeps 255
# steps between the largest entry of an array and minus that.

# %%
assert np.finfo(np.float16).nmant + 1 == 11, "eleven binary digits"
assert all(len(np.unique(g)) <= 255 for g in client(7, "int8")[0].gradients.values()), (
    "at most 255 steps"
)

# %% [markdown]
# ## What the attacker still sees
#
# Three clients, ten defences each: thirty attacks. The attacker here is *naive*. It does not know
# of the defence and simply matches what it was given.
#
# **Predict first.** Noise of variance $10^{-6}$, $10^{-5}$, $10^{-4}$, $10^{-3}$, $10^{-2}$;
# numbers of 16 bits, of 8 bits; 30, 70 or 90 % of the entries set to zero. Which of the ten stop
# it?
#
# <details><summary>Answer</summary>
#
# Two, if a black image is the measure: noise of $10^{-3}$, where the eye may still guess the digit,
# and of $10^{-2}$. Nearly everybody adds 8 bits ("only 255 different values") and 90 % pruning
# ("only a tenth is left"). But 255 values are plenty for the eye, and a tenth of the entries is
# still more than there are pixels.
#
# </details>

# %%
DEFENCES = [
    *("gaussian:1e-6", "gaussian:1e-5", "gaussian:1e-4", "gaussian:1e-3", "gaussian:1e-2"),
    *("float16", "int8", "prune:0.3", "prune:0.7", "prune:0.9"),
]
CLIENTS = [7, 13, 25]


def defended(*defenses, **network):
    return [client(seed, *defenses, **network) for seed in CLIENTS]


def attack_all(some, iterations=200, **known):
    """Attack clients. Return the first image, the median squared error, the labels' share."""
    clients, truths = zip(*some, strict=True)
    found = attack_many(clients, settings=Settings(iterations), **known)
    outcomes = [truth.judge(one) for truth, one in zip(truths, found, strict=True)]
    errors = [outcome.mse[0] for outcome in outcomes]
    right = [outcome.labels[0] == outcome.labels_true[0] for outcome in outcomes]
    return found[0].images[0, 0], float(np.median(errors)), np.mean(right)


naive = {defence: attack_all(defended(defence)) for defence in DEFENCES}
for defence, (_, error, right) in naive.items():
    print(f"{defence:<14} median squared error {error:8.1e}, {right:4.0%} of the labels right")

# %% tags=["thumbnail"]
titles = [f"{defence}\n{error:.0e}" for defence, (_, error, _) in naive.items()]
figure = pictures([image for image, *_ in naive.values()], titles, 2, figsize=(6, 3.4), size=9)
figure.suptitle("What comes back of a 7, and the median squared error of three digits", fontsize=11)
show("A 7 from ten defended gradients: clear at little noise and rounding, gone at noise of 1e-2.")

# %% [markdown]
# Read the first row from left to right. The error grows in step with the variance: ten times the
# variance, ten times the squared error, until the picture is gone. How bad is an error? Compare it
# with a guess that needs no gradient at all: an image that is black everywhere.
#
# The second row is a warning. Rounding to 16 bits or to 8 hides nothing. Those are ways to send
# less, not ways to say less. (There are several ways to round to eight bits. This is a
# simple one, with one scale for each array. Before you trust another, measure it.)

# %%
error_of = {defence: error for defence, (_, error, _) in naive.items()}
black = float(np.mean([np.square(digits.images[seed]).mean() for seed in CLIENTS]))
print(f"a black image has an error of {black:.2f}")
expect(
    5 < error_of["gaussian:1e-5"] / error_of["gaussian:1e-6"] < 20,
    "ten times the variance, ten times the error",
)
expect(
    5 < error_of["gaussian:1e-4"] / error_of["gaussian:1e-5"] < 20,
    "ten times the variance, ten times the error",
)
expect(
    error_of["gaussian:1e-4"] < black < error_of["gaussian:1e-3"],
    "between them the picture is gone",
)
expect(error_of["float16"] < 1e-3 and error_of["int8"] < 1e-3, "rounding hides nothing")
expect(1e-2 < error_of["prune:0.9"] < black, "a smudge")

# %% [markdown]
# ## What the paper says
#
# Of pruning the paper's abstract says: "without changes on training setting, the most effective
# defense method is gradient pruning." So it speaks of defences that leave the batch, the pictures
# and the rest of the training as they are. Its threshold we know at second hand only: artefacts
# when 20 % of the entries are pruned, and safe above. Here a picture comes back from 30 %:

# %%
print(f"prune:0.3, naive attacker: squared error {error_of['prune:0.3']:.0e}")
expect(error_of["prune:0.3"] < 1e-2 < black, "pruning 30 % does not hide the digit here")

# %% [markdown]
# ## An attacker who knows
#
# Pruning 90 % leaves a faint and noisy picture. But look at what the naive attacker does: it takes
# every zero for a true zero, and bends the image until the gradient is zero there, too. It believes
# a lie.
#
# An entry that was pruned is not zero. It is *unknown*. So leave it out of the distance. Give each
# entry a weight, its *precision*: 0 where the shared gradient is zero, 1 elsewhere:
#
# $$D(x) = ∑_i w_i (g_i(x) - s_i)^2,$$
#
# where $g(x)$ is the gradient of the dummy image and $s$ is what was shared.


# %%
def precision_of(gradients):
    return {name: np.where(g == 0, 0.0, 1.0) for name, g in gradients.items()}


some, prune_most = defended("prune:0.9"), parse("prune:0.9")
for someone, _ in some:
    ours = precision_of(someone.gradients)
    theirs = knowledge([prune_most], someone.gradients).precision
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours), "the same precisions"

image, aware_error, _ = attack_all(some, iterations=500, defenses=[prune_most])
print(f"prune:0.9, naive {error_of['prune:0.9']:.1e}, aware {aware_error:.1e}")
expect(aware_error < 1e-3, "the aware attacker reads it")

# %%
titles = [f"prune:0.9, {who} attacker" for who in ("naive", "aware")]
pictures([naive["prune:0.9"][0], image], titles, figsize=(4.2, 2.3), size=9)
show("From a gradient pruned by 90 %: a faint 7 to the naive attacker, a clear one to the other.")

# %% [markdown]
# Nothing was hidden at all. The remaining 10 % of the entries are still more than a thousand exact
# equations for 784 pixels. The lesson is an old one: **judge a defence by an attacker who knows
# it.**

# %%
entries = sum(g.size for g in someone.gradients.values())
kept = sum(int((g != 0).sum()) for g in someone.gradients.values())
print(f"{kept} of {entries} entries are left, for {28 * 28} pixels")
expect(kept > 1000 > 28 * 28, "more equations than pixels")

# %% [markdown]
# ## Where one gets stuck
#
# A client wants noise of variance $10^{-3}$ and writes this:

# %%
rng = np.random.default_rng(0)
wrong = {name: g + rng.normal(0, 1e-3, g.shape) for name, g in clear.gradients.items()}

# %% [markdown]
# NumPy's `normal` takes a mean and a **standard deviation**. So the variance is $10^{-6}$: a
# thousand times too little. Nothing warns you. The symptom is a defence that costs nothing and
# stops nothing, and a client who believes that it is safe. The test takes one line: measure what
# was added.

# %%
added = np.concatenate([(wrong[name] - clear.gradients[name]).ravel() for name in wrong])
print(f"variance asked for 1e-3, variance found {added.var():.1e}")
expect(0.9e-6 < added.var() < 1.1e-6, "a thousand times too little")

leaked = clear_truth.judge(attack(model, clear.params, wrong, settings=Settings(200)))
print(f"squared error of what leaks: {leaked.mse[0]:.1e}")
expect(leaked.mse[0] < error_of["gaussian:1e-3"] / 10, "it leaks")

# %% [markdown]
# ## What it costs
#
# Now the other side. We train the same LeNet for 250 steps of plain gradient descent, on 800
# digits, in batches of 32. *Each* step's gradient is defended before it is used. Then we count how
# many of 200 other digits the network reads right.
#
# `train` is the loop of lesson 6b. What it is given as `protect` is done to every gradient.

# %%
pixels, labels = digits.images[:1000], digits.labels[:1000]
start = model.init(np.random.default_rng(0), "default")


def accuracy_with(defence, steps=250):
    trained = train(
        model,
        pixels[:800],
        labels[:800],
        params=start,
        steps=steps,
        learning_rate=lambda step: 0.2 * (1 - step / steps),  # ever smaller steps, to settle
        momentum=0.0,
        seed=1,
        protect=parse(defence) if defence else None,
    )
    return accuracy(model, trained.params, pixels[800:], labels[800:])


# %%
PRICED = ["gaussian:1e-4", "gaussian:1e-3", "gaussian:1e-2", "gaussian:1e-1", "prune:0.9"]
price = {defence: accuracy_with(defence) for defence in PRICED}
undefended = accuracy_with(None)
print(f"no defence     {undefended:.1%} of the digits are read right")
for defence, right in price.items():
    print(f"{defence:<14} {right:.1%}")
expect(
    undefended > 0.9 and abs(price["gaussian:1e-3"] - undefended) < 0.04,
    "noise of 1e-3 costs next to nothing",
)
expect(0 < undefended - price["gaussian:1e-2"] < 0.1, "noise of 1e-2 costs a few digits")
assert price["gaussian:1e-1"] < 0.3, "little better than a guess"

# %%
error_of["gaussian:1e-1"] = attack_all(defended("gaussian:1e-1"), iterations=50)[1]
noise = [defence for defence in PRICED if defence.startswith("gaussian")]
figure, axes = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
axes.axvline(undefended, color="0.8", label="no defence")
axes.plot([price[d] for d in noise], [error_of[d] for d in noise], "o-", color=BLUE, label="noise")
axes.plot(
    price["prune:0.9"], error_of["prune:0.9"], "s", color=GREEN, label="prune:0.9, naive attacker"
)
axes.plot(price["prune:0.9"], aware_error, "v", color=ORANGE, label="prune:0.9, aware attacker")
for defence in noise:
    point = (price[defence], error_of[defence])
    axes.annotate(defence, point, xytext=(5, 5), textcoords="offset points", fontsize=10)
axes.set(xlabel="accuracy of the model", ylabel="squared error of the leak", yscale="log")
axes.set(xlim=(0, 1.2), xticks=[0, 0.2, 0.4, 0.6, 0.8, 1])
axes.margins(y=0.15)
axes.legend(fontsize=10)
show(
    "Accuracy against leak: noise trades one for the other; 90 % pruning leaks all if one knows it."
)

# %% [markdown]
# Good defences are at the top right: little leaks, much is learnt. Noise moves along a curve; you
# buy safety with accuracy. At variance $10^{-3}$ the error is worse than a black image's, and this
# task loses next to nothing, but the eye still guesses a 7. At $10^{-2}$ nothing is left to see,
# and the model reads a few digits in a hundred less. At $10^{-1}$ it learns next to
# nothing.
#
# Why does training bear noise that the attack does not? Because the noise is new at every step, and
# over 250 steps much of it averages out. The attacker has a single gradient.
#
# Do not carry this figure over to another network. A larger gradient needs more noise: with weights
# from U(−0.5, 0.5) and a sigmoid the same variance leaves an error several times smaller. A harder
# task pays more for the noise. And this attacker is not the best one. One who also knows that
# images are smooth sees more (`python benchmarks/defenses.py` measures that one, too). So a figure
# like this says "this attack, on this network", never "safe".

# %%
fresh = {"network": LeNet(), "init": "uniform"}
large, _ = client(7, **fresh)


def norm(gradients):
    return np.sqrt(sum(np.square(g).sum() for g in gradients.values()))


print(f"norm of the gradient: {norm(clear.gradients):.1f} here, {norm(large.gradients):.1f} there")
expect(norm(large.gradients) > 4 * norm(clear.gradients), "a larger gradient")

here, there = error_of["gaussian:1e-3"], attack_all(defended("gaussian:1e-3", **fresh))[1]
print(f"gaussian:1e-3: median squared error {here:.2f} here, {there:.2f} there")
expect(there < here / 2, "needs more noise")

# %% [markdown]
# ## What to remember
#
# - A defence is two numbers: what still leaks, and what is still learnt.
# - Rounding sends less and hides nothing, as long as enough bits are left.
# - Judge by an attacker who knows the defence, and by what was really added.
#
# The real things are in [`tinyleak/defenses/`](../tinyleak/defenses). In [leak.html](leak.html),
# which a browser opens, they are sliders.
#
# ## Exercise
#
# Before noise is added, one often bounds how long a gradient may be. Write `clip(gradients,
# bound)`: if the norm of all arrays together is larger than the bound, multiply all of them by one
# number, so that it is the bound; if not, change nothing. What can an attacker still read off the
# result?
#
# <details><summary>Solution to the exercise of lesson 11b</summary>
#
# $N - 1$ unknowns are fewer than the $m - N$ equations as long as $2N ≤ m$.
#
# ```python
# def most_records(outputs, inputs):
#     return min(outputs // 2, inputs)
#
#
# assert most_records(200, 196) == 100
# ```
#
# </details>


# %%
def clip(gradients, bound):
    pass  # yours


check(12, clip)
