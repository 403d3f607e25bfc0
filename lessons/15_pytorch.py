# %% [markdown]
# # 15. The same attack in PyTorch, and your own client
#
# *I train my networks in another framework. Does any of this concern me?*
#
# ← [14. A graph is a program](14_a_graph_is_a_program.ipynb) · about 35 minutes ·
# needs lesson 8, and PyTorch for a part of it · [all lessons](README.md)
#
# A gradient is a gradient, whoever computes it. In this lesson we write the attack of lesson 8 in
# PyTorch, line by line beside tinyleak's. We look at how many digits agree, and why they stop
# agreeing. Then we turn to a gradient of your own, and ask what it would give away. It is the last
# lesson, so it ends with what to read next.
#
# (`pip install torch` for PyTorch. Without it the lesson runs too: its cells that need PyTorch are
# skipped, and tinyleak is compared with digits that PyTorch gave before.)

# %%
import tempfile
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from checks import check, expect
from plots import GREY, LIGHT, ORANGE, show, tidy

from tinyleak import (
    Client,
    LeNet,
    Settings,
    Tensor,
    attack,
    data,
    lbfgs,
    load_network,
    one_hot,
    share,
)
from tinyleak.attacks import Matching
from tinyleak.audit import audit
from tinyleak.data.tensors import read_tensors, write_tensors

try:
    import torch
except ModuleNotFoundError:
    torch = None

# %% [markdown]
# ## One network, twice
#
# tinyleak names and shapes its weights as PyTorch does. So they load without a change.


# %%
model = LeNet()
arrays = model.init(np.random.default_rng(0))

if torch:

    class TorchLeNet(torch.nn.Module):
        def __init__(self):
            super().__init__()
            layers, channels = [], 1
            for stride in (2, 2, 1):
                layers.append(torch.nn.Conv2d(channels, 12, 5, stride=stride, padding=2))
                layers.append(torch.nn.Sigmoid())
                channels = 12
            self.body = torch.nn.Sequential(*layers)
            self.fc = torch.nn.Sequential(torch.nn.Linear(588, 10))

        def forward(self, x):
            return self.fc(self.body(x).flatten(1))

    torch.set_num_threads(1)  # so that sums are added up in one order
    network = TorchLeNet().double()  # float64, as in tinyleak
    network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    assert [name for name, _ in network.named_parameters()] == list(arrays), (
        "the same names in the same order"
    )

# %% [markdown]
# ## The attack, line by line
#
# Each line has tinyleak's words first, and PyTorch's after them:
#
# - an array that remembers (lesson 1): `Tensor(a)`, and `torch.tensor(a, requires_grad=True)`;
# - a gradient (2): `grad(y, xs)`, and `torch.autograd.grad(y, xs)`;
# - a gradient with a memory of its own (4): again `grad(y, xs)`, and the same with
#   `create_graph=True`;
# - a convolution (5): `nn.conv2d`, and `torch.nn.Conv2d`;
# - a loss with soft labels (6): `cross_entropy(z, y)`, and `cross_entropy(z, y)` of
#   `torch.nn.functional`;
# - L-BFGS (7): `for iterate in lbfgs(f, x)`, and `torch.optim.LBFGS([x]).step(f)`.
#
# Here is the client, and the attacker's distance.


# %%
def gradient(x, y, create_graph=False):
    """What a client with picture x and label y shares."""
    loss = torch.nn.functional.cross_entropy(network(x), y)
    return torch.autograd.grad(loss, list(network.parameters()), create_graph=create_graph)


def distance(z):
    x, y = z[:784].reshape(1, 1, 28, 28), torch.softmax(z[784:].reshape(1, 10), dim=-1)
    pairs = zip(gradient(x, y, create_graph=True), shared, strict=True)
    return sum(((a - b) ** 2).sum() for a, b in pairs)


truth, label = data.load_glyphs(8).batch([7])
client, _ = share(model, arrays, truth, label)

if torch:
    shared = gradient(torch.from_numpy(truth), torch.from_numpy(one_hot(label, 10)))
    print("largest difference, as a share of the largest entry:")
    for (name, ours), theirs in zip(client.gradients.items(), shared, strict=True):
        difference = np.abs(ours - theirs.numpy()).max() / np.abs(ours).max()
        print(f"  {name:<14} {difference:.0e}")
        assert difference < 1e-13, "all but the last digits"

# %% [markdown]
# float64 has about 16 digits, and all but the last one or two agree. Those depend on the order in
# which numbers are added up, and each library has its own. Now the second order, at a random dummy:

# %%
matching = Matching(model, arrays, client.gradients, batch=1, scale=np.ones(()))
start = np.random.default_rng(1).standard_normal(794)
own_value, own_slope = matching.value_and_gradient(Tensor(start))

if torch:
    z = torch.tensor(start, requires_grad=True)
    value = distance(z)
    (slope,) = torch.autograd.grad(value, [z])
    print(f"distance: PyTorch {value.item():.10f}, tinyleak {own_value.data:.10f}")
    difference = np.abs(slope.numpy() - own_slope.data).max() / np.abs(own_slope.data).max()
    print(f"its gradient differs by {difference:.0e} of its largest entry")
    assert np.isclose(value.item(), own_value.data, rtol=1e-12) and difference < 1e-12, (
        "second order, too"
    )

# %% [markdown]
# ## The whole way down
#
# Both L-BFGS take every step with length 1 (lesson 7), from the same start. Do they visit the same
# points? And how would we know what "the same" can mean? Let PyTorch run twice: once from the
# start, and once from the start with the sixteenth digit shaken.
#
# **Predict first.** After one evaluation the two agree to 13 digits or more. To how many do they
# agree after 150 steps?
#
# <details><summary>Answer</summary>
#
# To one, or none. Most people expect to lose a digit or two. But each step multiplies what the last
# one left, and 150 small factors are a large one. That is no mistake of either program.
#
# </details>

# %%
STEPS = 150


def torch_path(start):
    z = torch.tensor(start, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [z], max_iter=1, history_size=100, tolerance_grad=0, tolerance_change=0
    )

    def closure():
        optimizer.zero_grad()
        value = distance(z)
        value.backward()
        return value

    points = [z.detach().numpy().copy()]
    for _ in range(STEPS):
        optimizer.step(closure)
        points.append(z.detach().numpy().copy())
    return np.array(points)


# %%
def objective(z):
    value, slope = matching.value_and_gradient(Tensor(z))
    return value.data, slope.data


unlimited = {"tolerance_gradient": 0, "tolerance_change": 0, "inner_iterations": STEPS}
iterates = lbfgs(objective, start, line_search="none", max_iterations=STEPS, **unlimited)
ours = np.array([iterate.x for iterate in iterates])
if torch:
    theirs = torch_path(start)
    shaken = torch_path(start + 1e-16 * np.random.default_rng(2).standard_normal(start.shape))

# %% tags=["thumbnail"]
if torch:
    between = np.abs(ours - theirs).max(axis=1)
    itself = np.abs(shaken - theirs).max(axis=1)
    figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
    ax.semilogy(np.maximum(itself, 1e-17), color=LIGHT, linewidth=5)
    ax.semilogy(np.maximum(between, 1e-17), color=ORANGE, linewidth=1.5)
    ax.text(75, 1e-9, "PyTorch and tinyleak", color=ORANGE)
    ax.text(75, 1e-11, "PyTorch and PyTorch, its\nlast digit shaken", color=GREY, va="top")
    ax.set(xlabel="step", ylabel="largest difference of a pixel")
    tidy(ax)
    show("Two curves rise together from 1e-16 to 1: PyTorch against tinyleak, and against itself.")

# %%
if torch:
    for step in (1, 10, 30, 60, 100, 150):
        print(f"step {step:>3}: {between[step]:.0e} apart; PyTorch from itself {itself[step]:.0e}")
    expect(between[10] < 1e-9 and between[30] < 1e-6, "eleven digits after ten steps")
    farther = float(np.median(itself[10:101] / between[10:101]))
    nearly = max(farther, 1 / farther)
    print(f"from step 10 to 100 the curves are apart by a factor of {nearly:.0f}")
    expect(nearly < 20, "PyTorch leaves itself about as fast as it leaves tinyleak")

# %% [markdown]
# Eleven digits after ten steps, eight after thirty, and hardly one at the end. Each step makes a
# difference a little larger, as a pencil that stands on its tip falls a little faster at each
# moment. But look at the grey curve. When the last digit of its start is shaken, PyTorch leaves
# *itself* at the same pace. How far apart the two curves are, and which is above, is chance: a
# factor between one and ten, as the last digits fall on your computer. Both grow by a factor of
# $10^{14}$. So the two programs agree about as well as anything can here.
#
# When you compare two programs, always ask how far the first one is from itself.
#
# And both find the digit:

# %%
for name, path in {"tinyleak": ours, **({"PyTorch": theirs} if torch else {})}.items():
    error = np.square(path[-1][:784] - truth.ravel()).mean()
    print(f"{name}: mean squared error {error:.0e} after {STEPS} steps")
    expect(error < 3e-2, "both find the digit")

# %% [markdown]
# ## Without PyTorch
#
# These are digits that PyTorch 2.13.0 gave in the cells above, on a CPU and one thread. First: how
# long each array of the shared gradient is. Then the distance at the start, and how long its
# gradient is. And last the middle pixel after 1, 5, 10 and 20 steps.

# %%
RECORDED = {
    "lengths": [
        *(1.8306961258205325, 0.8624813651652706, 6.1864091794162315, 0.6550251812539415),
        *(7.1679327182481725, 0.7855862826617189, 20.109662444100884, 1.2907297412227843),
    ],
    "distance": [413.2557475068691, 60.15420478603028],
    "middle pixel": [
        0.9380837506631313,
        -2.9229143249520058,
        -3.140392753121816,
        -2.6129093261225727,
    ],
}


# %%
def recorded(gradients, value, slope, path):
    """The same of any program: numbers of one kind under one name."""
    return {
        "lengths": [float(np.linalg.norm(gradient)) for gradient in gradients],
        "distance": [float(value), float(np.linalg.norm(slope))],
        "middle pixel": [float(path[step][14 * 28 + 14]) for step in (1, 5, 10, 20)],
    }


sources = {"tinyleak": (client.gradients.values(), own_value.data, own_slope.data, ours)}
if torch:
    sources["PyTorch"] = ([g.numpy() for g in shared], value.item(), slope.numpy(), theirs)
for name, numbers in sources.items():
    for what, digits in recorded(*numbers).items():
        near = 1e-7 if what == "middle pixel" else 1e-12
        expect(np.allclose(digits, RECORDED[what], rtol=near), "the recorded digits")
    print(f"{name} gives the recorded digits")

# %% [markdown]
# ## Where one gets stuck
#
# Two mistakes are so common in PyTorch that you should have seen them once. The first is to forget
# `create_graph=True`. The gradients come back without a memory (lesson 4), and nothing can be
# differentiated. PyTorch says so, if in words of its own:

# %%
if torch:
    z = torch.tensor(start, requires_grad=True)
    x, y = z[:784].reshape(1, 1, 28, 28), torch.softmax(z[784:].reshape(1, 10), dim=-1)
    forgetful = sum(((a - b) ** 2).sum() for a, b in zip(gradient(x, y), shared, strict=True))
    try:
        torch.autograd.grad(forgetful, [z])
    except RuntimeError as error:
        print("RuntimeError:", error)
    else:
        raise AssertionError("it should have failed")

# %% [markdown]
# The second is silent. Training in float16 multiplies the loss by a large number, so that small
# gradients do not vanish, and the gradient is divided again later. A gradient taken in between is
# 1024 times too large. Everything else is right. (tinyleak would notice. So we tell it that the
# loss is the plain mean, and it believes us.)

# %%
scaled = {name: 1024 * g for name, g in client.gradients.items()}
believed = Client.of(model, arrays, scaled, reduction="mean")
lost = attack(believed, settings=Settings(iterations=400))
print(f"distance {lost.distance:.2f} of 1, pixels up to {np.abs(lost.images).max():.0e}")
assert lost.distance > 0.9 and np.abs(lost.images).max() > 100, "no picture makes such a gradient"

# %% [markdown]
# The symptom: the distance stays near 1 from the beginning (tinyleak divides it by the shared
# gradient's squared norm), and the pixels grow without end. No picture makes a gradient
# that long. To find it, put the truth in, as in lesson 8, and divide one gradient by the other.
# Here the ratio is the same everywhere, which gives the mistake away:

# %%
ours, _ = share(model, arrays, truth, label)
ratios = np.concatenate([(scaled[name] / ours.gradients[name]).ravel() for name in scaled])
print(f"ratios between {ratios.min():.3f} and {ratios.max():.3f}")
assert np.allclose(ratios, 1024), "one ratio everywhere"

found = attack(believed, settings=Settings(iterations=400, direction=True))
print(f"by direction alone: mean squared error {np.square(found.images - truth).mean():.0e}")
assert np.square(found.images - truth).mean() < 1e-4, "the direction is enough"

unaided = Client.of(model, arrays, scaled)
print(f"by the last layer the loss is {unaided.loss.factor:.6f} times the mean")
assert np.isclose(unaided.loss.factor, 1024), "the factor, read off"

# %% [markdown]
# A factor protects nobody. An attacker who matches the *direction* of the gradient, and not its
# length, does not care. And if nobody tells tinyleak what the loss is, it reads the factor off the
# last layer's gradient and divides by it.
#
# ## A network that is not built in
#
# The LeNet above was written twice. Your network need not be: PyTorch writes it down, tinyleak
# reads that. Here is one with ReLU and max pooling. It is exported with an image of zeros, since
# the file holds the example, too. (tinyleak never opens that part of it, a pickle.)

# %%
if torch:
    torch.manual_seed(0)
    layers = torch.nn
    yours = layers.Sequential(
        *(layers.Conv2d(1, 16, 5, padding=2), layers.ReLU(), layers.MaxPool2d(2), layers.Flatten()),
        *(layers.Linear(3136, 32), layers.ReLU(), layers.Linear(32, 10)),
    ).double()
    loss = layers.functional.cross_entropy(yours(torch.from_numpy(truth)), torch.from_numpy(label))
    loss.backward()
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "net.pt2")
        example = torch.zeros(1, 1, 28, 28, dtype=torch.float64)
        torch.export.save(torch.export.export(yours.eval(), (example,)), file)
        read = load_network(file)
    logits = read({name: Tensor(array) for name, array in read.weights.items()}, Tensor(truth))
    difference = np.abs(logits.data - yours(torch.from_numpy(truth)).detach().numpy()).max()
    print(f"{len(read.weights)} arrays of weights; the logits differ by {difference:.0e}")
    assert difference < 1e-12, "the same network"

# %% [markdown]
# From here on PyTorch is not needed. What would this gradient give away, and does it?

# %%
if torch:
    gradients = {name: p.grad.numpy() for name, p in yours.named_parameters()}
    your_client = Client.of(read, read.weights, gradients, reduction="mean")
    for finding in audit(your_client, examples=1).findings:
        print(textwrap.fill(f"- {finding.text}", 90))
    leaked = attack(your_client)
    error = np.square(leaked.images - truth).mean()
    print(f"label {leaked.labels[0]}, mean squared error {error:.0e}")
    assert error < 1e-12 and leaked.labels[0] == label[0], "ReLU and max pooling do not stop it"

# %% [markdown]
# Lesson 10b says why that works. On the command line: `tinyleak audit --model net.pt2`, with the
# gradient in a file beside it, as in the next section.
#
# ## Your own client
#
# Now let PyTorch be yours. Save the weights and one gradient, as arrays by name. Take a picture
# that may be seen, since whoever has these two files has the picture.

# %%
to_save, its_gradients = arrays, client.gradients
if torch:
    to_save = {name: weight.detach().numpy() for name, weight in network.named_parameters()}
    its_gradients = {name: g.numpy() for name, g in zip(to_save, shared, strict=True)}

with tempfile.TemporaryDirectory() as folder:
    weights_file, gradients_file = Path(folder) / "weights.npz", Path(folder) / "gradients.npz"
    write_tensors(weights_file, to_save)
    write_tensors(gradients_file, its_gradients)
    weights, gradients = read_tensors(weights_file), read_tensors(gradients_file)

# %% [markdown]
# An [**audit**](README.md#audit) attacks nothing. It counts, looks at the layers, and measures at
# typical pictures how the gradient moves when a pixel does: how many of the 784 directions it
# determines, and how much noise would drown them.

# %%
digits = data.load_glyphs(20)
report = audit(
    model, weights, digits.images[10:], digits.labels[10:], gradients=gradients, examples=2
)
for finding in report.findings:
    print("-", finding.text)
print("numbers shared:", report.counting.parameters, "for", report.counting.unknowns, "pixels")
print("directions determined:", *report.ranks)
print("label read off:", report.shared.labels[0], "and the gradient is exact:", report.shared.exact)
print(f"recovered below noise of variance {report.recovered_below:.0e}")
print(f"hidden above {report.hidden_above:.0e}")

assert report.ranks == [784, 784] and report.shared.exact, (
    "every direction is determined, and the gradient is exact"
)
assert report.shared.labels == [int(label[0])], "the label is read off"
expect(
    report.recovered_below < 1e-4 and report.hidden_above > 1e-2,
    "recovered below one noise, hidden above another",
)

# %% [markdown]
# On the command line the same is
#
# ```console
# tinyleak audit --weights weights.npz --gradients gradients.npz --model lenet --out audit
# ```
#
# which also writes a page with figures. What it cannot know: how many pictures were in a batch, how
# many steps a client makes before it shares, and whether a server sees single clients at all. Each
# of these changes the answer. The page says how.
#
# ## What to remember
#
# - A gradient is a gradient, whoever computes it.
# - When two programs differ, ask how far each is from itself.
# - Put the truth in, and divide one gradient by the other: a constant ratio names the mistake.
#
# ## What to read next
#
# Where this comes from:
#
# - Zhu, Liu and Han, *Deep Leakage from Gradients*, NeurIPS 2019: lesson 8.
# - Zhao, Mopuri and Bilen, *iDLG: Improved Deep Leakage from Gradients*, 2020: lesson 10.
# - Petrov and others, *DAGER*, NeurIPS 2024 (arXiv 2405.15586): lesson 13.
#
# Where it goes:
#
# - Geiping and others, *Inverting Gradients*, 2020 (arXiv 2003.14053): large networks, trained
#   weights, and what pictures usually look like.
# - Zhu and Blaschko, *R-GAP*, 2021 (arXiv 2010.07733): layer by layer, without a minimiser, and
#   when an architecture determines its input.
# - And for balance arXiv 2409.19301, which finds that none of the attacks it tested breached a
#   realistic federated setting. Be as careful with claims of danger as with claims of safety.
#
# And in this repository: [`tinyleak/audit/`](../tinyleak/audit/forecasting.py), and
# [`benchmarks/`](../benchmarks/README.md), where every figure of the README comes from.
#
# ## Exercise
#
# Somebody sends you a gradient, and it is not quite the one that you compute. Write
# `factor(mine, shared)`: given two gradients by name, it returns the number that all of `shared` is
# times `mine`, or NaN (`np.nan`) if there is no such number.
#
# And one without a solution: take a network of your own that is small enough, save its weights and
# the gradient of one batch, and audit it. Then change one thing that makes it leak less, and
# measure what that costs.
#
# <details><summary>Solution to the exercise of lesson 15</summary>
#
# Least squares finds the best number, and then one looks whether it is right everywhere.
#
# ```python
# def factor(mine, shared):
#     ours = np.concatenate([g.ravel() for g in mine.values()])
#     theirs = np.concatenate([shared[name].ravel() for name in mine])
#     best = (ours @ theirs) / (ours @ ours)
#     return best if np.allclose(theirs, best * ours, rtol=1e-6, atol=0) else np.nan
#
#
# assert np.isclose(factor(client.gradients, scaled), 1024)
# ```
#
# </details>
#
# <details><summary>Solution to the exercise of lesson 14</summary>
#
# Begin with the argument, and add every step that reads something you have. The steps come after
# their inputs, so one walk is enough.
#
# ```python
# def varying(steps, argument):
#     depends = {argument}
#     for tensor in steps:
#         if not depends.isdisjoint(tensor.inputs):
#             depends.add(tensor)
#     return [tensor for tensor in steps if tensor in depends]
#
#
# constant = len(steps) - len(varying(steps, argument))
# print(f"{constant} of {len(steps)} steps are the same every time")
# assert 20 < constant < 100
# ```
#
# Most of them turn and copy the weights. `trace` does not even record a step that depends on no
# argument.
#
# </details>


# %%
def factor(mine, shared):
    pass  # yours


check(15, factor)
