# %% [markdown]
# # 14. A graph is a program
#
# *The attack asks the same question hundreds of times, with other numbers. Why build the answer
# anew each time?*
#
# ← [13. Token for token: text](13_text.ipynb) · about 40 minutes · needs lesson 8 ·
# [15. The same attack in PyTorch, and your own client](15_pytorch.ipynb) → ·
# [all lessons](README.md)
#
# Each evaluation of the attack makes some 300 tensors, walks them twice, and throws them away. The
# next evaluation makes the very same ones. Only the numbers in them differ. In this lesson we
# record the graph once, make it shorter, and play it back. That is why tinyleak's attack is many
# times as fast as the 20 lines of lesson 8, and no derivative was written by hand for it.

# %%
import itertools
import textwrap
import time

import numpy as np
from checks import check, expect
from plots import lifetimes, show

from tinyleak import LeNet, Tensor, data, ops, share, trace
from tinyleak.attacks import Matching, starting_point
from tinyleak.backend import DeviceError, device_module, to_device
from tinyleak.gradient import topological_order
from tinyleak.program import TraceError, capture
from tinyleak.program.kernels import VIEWS

DATA, DATA_DIR = "glyphs", None  # or "mnist", and the folder that holds its files

rng = np.random.default_rng(0)
model = LeNet()
digits = data.load(DATA, data_dir=DATA_DIR)
client, _ = share(model, model.init(rng), *digits.batch([7]))

matching = Matching(model, client.params, client.gradients, batch=1, scale=np.ones(()))
objective = matching.value_and_gradient  # that of lesson 8
z = starting_point(model, batch=1, seed=0)[0]

# %% [markdown]
# ## Record
#
# Every tensor remembers how it was made (lesson 1). So there is nothing to record: run the function
# once and list what the results depend on, each tensor after its inputs (lesson 2). That list *is*
# a program. Each line says: take these, do this, call the result so.
#
# A leaf is either an argument, which will be other numbers next time, or a **constant**: the
# weights, the shared gradient.

# %%
argument = Tensor(z)
results = objective(argument)
tape = topological_order(*results)
steps = [tensor for tensor in tape if tensor.primitive]

print(len(steps), "steps from", len(tape) - len(steps), "leaves to", len(results), "results")
for tensor in steps[100:106]:
    reads = ", ".join(str(x.shape) for x in tensor.inputs)
    print(f"   {tensor.primitive.name:<10} {tensor.shape!s:<18} ← {reads}")
assert argument in tape and 200 < len(steps) < 400, "some 300 steps, one argument"


# %% [markdown]
# ## Make it shorter
#
# A backward pass computes some things twice, because each rule looks only at its own operation. The
# rule of `sigmoid` computes `1 - out`; so does the rule of the rule. Here is how to find out. Two
# steps are **equal** if they do the same operation, with the same settings, on the same inputs.
# Then one of them will do. And two constants are equal if their numbers are: there are many ones
# and twos. We walk along the tape and keep each kind of tensor once.


# %%
def simplify(tape, argument):
    """Map each tensor to the first one that is equal to it."""
    same, known = {argument: argument}, {}
    for tensor in tape:
        if tensor is argument:
            continue
        if tensor.primitive is None:
            key = ("constant", tensor.shape, tensor.data.tobytes())
        else:
            inputs = tuple(same[x] for x in tensor.inputs)
            key = (tensor.primitive.name, inputs, repr(tensor.params))
        same[tensor] = known.setdefault(key, tensor)
    return same


same = simplify(tape, argument)
kept = [tensor for tensor in steps if same[tensor] is tensor]
print(f"{len(steps)} steps, {len(kept)} of them different")
assert len(kept) < len(steps) - 5, "some steps are there twice"


# %% [markdown]
# ## Play it back
#
# `primitive.forward` is the operation on plain arrays: it is given the array library and the
# arrays, and knows nothing of tensors. With it, here is the whole of it in one piece:


# %%
def make_program(function, example):
    """A function of arrays that repeats what the function of tensors did with the example."""
    argument = Tensor(example)
    results = function(argument)
    tape = topological_order(*results)
    same = simplify(tape, argument)
    leaves = [tensor for tensor in tape if not tensor.primitive]
    kept = [tensor for tensor in tape if tensor.primitive and same[tensor] is tensor]

    def replay(array):
        value = {tensor: tensor.data for tensor in leaves}
        value[argument] = array
        for tensor in kept:
            arrays = [value[same[x]] for x in tensor.inputs]
            value[tensor] = tensor.primitive.forward(np, *arrays, **tensor.params)
        return [value[same[result]] for result in results]

    return replay


small_program = make_program(objective, z)
program = trace(objective, z)
other = rng.standard_normal(z.shape)
for ours, own, eager in zip(
    small_program(other), program(other), objective(Tensor(other)), strict=True
):
    assert np.allclose(ours, eager.data, rtol=1e-13, atol=0), "ours gives what the function gives"
    assert np.allclose(own, eager.data, rtol=1e-9, atol=1e-12), (
        "trace gives what the function gives"
    )

# %% [markdown]
# Numbers that were not there when we recorded, and the right answer. tinyleak's own is called
# `trace`, and it gives the same. It knows more ways to make a program shorter. Ours knew one. Here
# is what it found:

# %%
for what, count in program.removed.items():
    print(f"{count:>4} {what}")
print(f"{len(program.instructions):>4} instructions remain")
assert len(program.instructions) < 0.7 * len(kept), "tinyleak's is shorter still"

# %% [markdown]
# It records whatever depends on the argument, also what no result needs: that is "dead". Some of
# the others are identities from school: $x · 1 = x$, or $x − (−y) = x + y$, or two transpositions
# in a row. Some only change where numbers lie in memory. Each is a few lines in
# [`tinyleak/program/rewrites.py`](../tinyleak/program/rewrites.py).
#
# ## A place for everything
#
# Our program still asks for new memory at every step. But we know beforehand which arrays will be
# needed, how large they are, and who reads them last. So every step can get its place in advance,
# and a place whose value nobody will read any more can be given to a later step. NumPy writes where
# one tells it to:

# %%
place = np.empty(3)
answer = np.add([1.0, 2.0, 3.0], 10.0, out=place)
assert answer is place, "no new array was made"

# %% [markdown]
# In the picture each row is one piece of memory, and time runs to the right. A bar reaches from the
# step that writes a value to the step that reads it last. Where a bar begins at the end of another,
# a step writes its result over what it has just read. No two bars in a row overlap, and that is all
# there is to it.


# %%
def owner(array):
    """The piece of memory that an array lies in."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


rows, bars = {}, []
for now, step in enumerate(program.instructions):
    for read in step.reads:
        for bar in reversed(bars):
            if bar["memory"] is owner(read):
                bar["end"] = now
                break
    row = rows.setdefault(id(owner(step.out)), len(rows))
    bars.append({"memory": owner(step.out), "row": row, "begin": now, "end": now, "step": step})
for output in program.outputs:  # a result is read at the end
    next(bar for bar in reversed(bars) if bar["memory"] is owner(output))["end"] = len(bars)

# %% tags=["thumbnail"]
lifetimes(bars, orange="matmul")
show("Time runs to the right, a row for each piece of memory; bars in a row follow one another.")

for bar, later in itertools.combinations(bars, 2):
    assert bar["row"] != later["row"] or bar["end"] <= later["begin"], "two values at one place"
needed = sum(step.out.nbytes for step in program.instructions)
print(f"{len(bars)} values, {len(rows)} pieces of memory")
print(f"{needed:,} bytes if each had its own, {program.buffer_bytes:,} bytes as it is")
assert len(rows) < len(bars) / 2 and program.buffer_bytes < needed / 2, "less than half the memory"


# %% [markdown]
# ## How much faster?
#
# We let the computer take the times, and print none: they differ from machine to machine.


# %%
def seconds(calls, repeats=15):
    """The shortest of several runs of each call, in seconds of the processor. They take turns."""
    shortest = [np.inf] * len(calls)
    for _ in range(repeats):
        for index, (function, argument) in enumerate(calls):
            begin = time.thread_time()  # the process's clock is coarse where its time is limited
            function(argument)
            shortest[index] = min(shortest[index], time.thread_time() - begin)
    return shortest


eager, own = seconds([(objective, Tensor(z)), (program, z)])
expect(own < eager, "playing back is faster than building")

# %% [markdown]
# So playing back is faster than building. The benchmarks have
# [times](../benchmarks/README.md#how-often-and-how-fast), with their machine and their command,
# beside those of PyTorch and of JAX, which compiles the function to machine code.
#
# ## Where one gets stuck
#
# A program does the same steps whatever the numbers are. So what if the function does *not*? Here
# is one that leaves out negative sums. We record it at a point where the sum is positive.
#
# **Predict first.** Its program is then given the numbers 1 and −5. Does it say 0, say −4, or stop
# with an error?
#
# <details><summary>Answer</summary>
#
# −4. Most people say 0, because they read the `if` in the function. But the program has never seen
# the function. It has what the function *did*, once.
#
# </details>


# %%
def positive_part(x):
    total = ops.sum(x)
    return (total if total.data > 0 else total * 0.0,)


frozen = make_program(positive_part, np.array([1.0, 2.0]))
elsewhere = np.array([1.0, -5.0])
(wrong,), (right,) = frozen(elsewhere), positive_part(Tensor(elsewhere))
print("the program says", wrong, "and the function", abs(right.data))
assert wrong == -4.0 and right.data == 0.0, "frozen where it was recorded"

# %% [markdown]
# The symptom: right where you recorded, wrong elsewhere, and no error. The `if` was decided while
# recording. It is not in the graph; the graph has only what was done. The same happens to random
# numbers: whatever was drawn while recording is drawn for ever.
#
# How would one have found it? Compare the program with the function at a *second* point. `trace`
# does that. And it goes further: while it records, the numbers cannot be looked at.

# %%
for trap in (positive_part, lambda x: x * rng.standard_normal()):
    try:
        trace(trap, np.array([1.0, 2.0]))
    except TraceError as error:
        print(textwrap.shorten(f"TraceError: {error}", 80, placeholder=" …"))
    else:
        raise AssertionError("it should have been refused")


# What to write instead: both cases, and a choice that is an operation like any other.
def positive_part_of_any(x):
    return ops.relu(ops.sum(x))


assert trace(positive_part_of_any, np.array([1.0, 2.0]))(elsewhere)[0] == 0.0, (
    "a choice that is an operation"
)

# %% [markdown]
# ## Many attacks, one program
#
# At 28×28 pixels many steps are small, and a call of NumPy costs something however little it does:

# %%
many, few = seconds([(np.square, np.ones(1200)), (np.square, np.ones(12))])
expect(many < 10 * few, "a hundred times the work, not a hundred times the time")

# %% [markdown]
# So let each call do more. Everything in tinyleak accepts further axes in front: with weights of
# shape `(16, …)` and dummies of shape `(16, 794)`, one program evaluates sixteen attacks. It has as
# many steps as for one attack, up to a few, and each does sixteen times the work.

# %%
clients = [
    share(model, model.init(np.random.default_rng(seed)), *digits.batch([seed]))[0]
    for seed in range(16)
]


def stack(all_named):
    return {name: np.stack([named[name] for named in all_named]) for name in model.shapes}


params, shared = stack([one.params for one in clients]), stack([one.gradients for one in clients])
sixteen = Matching(model, params, shared, batch=1, scale=np.ones(16))
dummies = np.tile(z, (16, 1))
together = trace(sixteen.value_and_gradient, dummies, check=False)
print(f"steps: {len(program.instructions)} for 1 attack, {len(together.instructions)} for 16")
assert len(together.instructions) < 1.2 * len(program.instructions), (
    "as many steps, sixteen times the work"
)

values, slopes = together(dummies)
for one, value, slope in zip(clients, values, slopes, strict=True):
    alone = Matching(model, one.params, one.gradients, batch=1, scale=np.ones(()))
    its_value, its_slope = alone.value_and_gradient(Tensor(z))
    assert np.isclose(value, its_value.data, rtol=1e-10), "each attack's value"
    assert np.allclose(slope, its_slope.data, rtol=1e-8, atol=1e-10), "and its gradient"

# %% [markdown]
# Lesson 9 attacked a hundred clients this way.
#
# ## And on a GPU
#
# A GPU computes quickly, but each launch costs microseconds. Each call sends it one small piece of
# work, a **kernel** (not that of lesson 5). The processor has to prepare and send every one of
# them, and our pieces are tiny. But the list of calls never changes. So CUDA, through which one
# uses these GPUs, can record it: a **CUDA graph** holds all the calls with all their places, and is
# sent as one. It is the idea of this lesson once more, one floor down. Since every value has its
# place already, there is nothing left to do but to let CUDA listen while the program is played
# once. In tinyleak that is `capture(program)`.
#
# Let us count what the processor sends for one evaluation. (A step that only looks at an array in
# another way, as a reshape does, sends nothing.)

# %%
eagerly = sum(tensor.primitive.name not in VIEWS for tensor in steps)
print(f"tensor by tensor:         {eagerly} steps, each of one call or more")
print(f"the program:              {len(program.instructions)} steps, {len(program.calls)} calls")
print("the captured program:     1 graph")
assert len(program.instructions) < eagerly, "fewer steps than tensor by tensor"

# %% [markdown]
# What does sending cost? **We have not measured it: this package was written without a GPU.** But
# others have, and published what they found. Here it is, in µs, millionths of a second.
#
# | what it takes | µs | on | found by |
# | --- | --- | --- | --- |
# | to send one kernel | 4 to 6 | RTX 5070 Ti | a [blog on launches][1], February 2026 |
# | to send a graph of n kernels | 2.5 + 0.001 n | Ampere, CUDA 12.6 | [NVIDIA][2], September 2024 |
# | to run 80 small kernels, sent one by one | 260 | not said | the manual of [CUDA.jl][3] |
# | to run them as a graph (sending it: 3.5) | 70 | not said | the manual of [CUDA.jl][3] |
#
# [1]: https://susun-blog.com/blog/pegainfer-3-cuda-graph
# [2]: https://developer.nvidia.com/blog/constant-time-launch-for-straight-line-cuda-graphs-and-other-performance-enhancements/
# [3]: https://cuda.juliagpu.org/dev/usage/graphs/
#
# The next cell multiplies their figures by our counts, at one kernel for each call. So it is no
# measurement of tinyleak. (Sixteen attacks have as many steps as one, so on a GPU as much is sent
# for them as for one.) Compare it with a *whole* evaluation by tinyleak on a processor alone. That
# takes a few hundred µs by the [benchmarks](../benchmarks/README.md#how-often-and-how-fast), and
# `own` on the machine that runs this.

# %%
KERNEL, GRAPH, NODE = (4.0, 6.0), 2.5, 0.001  # µs, from the table
calls = len(program.calls)
least, most = (each * calls for each in KERNEL)
as_graph = GRAPH + NODE * calls

print("sending alone, nothing computed yet, in µs for each attack:")
for attacks in (1, 16):
    one_by_one = f"{least / attacks:3.0f} to {most / attacks:4.0f}"
    print(f"{attacks:>4} at once: one by one {one_by_one}, as a graph {as_graph / attacks:.1f}")
assert as_graph < least / 100, "a graph is sent for next to nothing"

# %% [markdown]
# For one small attack the sending dominates: kernel by kernel it takes as long as the whole
# evaluation takes a processor, and the GPU waits. There are two answers. **Many attacks at once**
# share what is sent. **A graph** is sent at almost no cost. The last rows of the table say what a
# graph cannot do: the kernels still run one after the other, there about 0.9 µs each. So one attack
# alone will never keep a GPU busy, and it is best to do both.
#
# What runs on a GPU in tinyleak is tested against a stand-in that keeps CuPy's rules. (CuPy is
# NumPy's counterpart on a GPU.) One thing is known from CuPy itself: while a graph is being
# recorded, it refuses matrix products. In version 14.2 it says "calling cuBLAS API during stream
# capture is currently unsupported". So a captured program brings matrix products of its own. If you
# have a GPU, `python benchmarks/compare.py --device cuda` measures, and the next cell compares the
# numbers.

# %%
try:
    module = device_module("cuda")
except DeviceError:
    print("no GPU here")
else:
    on_gpu = {name: to_device(a, module) for name, a in client.params.items()}
    shared = {name: to_device(a, module) for name, a in client.gradients.items()}
    there = Matching(model, on_gpu, shared, 1, to_device(np.ones(()), module))
    captured = capture(trace(there.value_and_gradient, to_device(z, module)))
    for found, expected in zip(captured(to_device(other, module)), program(other), strict=True):
        assert np.allclose(module.asnumpy(found), expected, rtol=1e-8), "the GPU gives the same"

# %% [markdown]
# ## What to remember
#
# - A graph that is the same every time is a program. Record it once, simplify it, play it back.
# - Plan the memory while you have time, so that nobody has to ask for any later.
# - A recording knows no `if`. Compare it at a second point.
# - When calls cost more than work, put more work into each call, or send all calls at once.
#
# Recording is in [`tinyleak/program/tracing.py`](../tinyleak/program/tracing.py), the places in
# [`tinyleak/program/memory.py`](../tinyleak/program/memory.py), how each operation writes into its
# place in [`tinyleak/program/kernels.py`](../tinyleak/program/kernels.py), and the whole in
# [`tinyleak/program/program.py`](../tinyleak/program/program.py). CUDA graphs are in
# [`tinyleak/program/cuda.py`](../tinyleak/program/cuda.py).
#
# ## Exercise
#
# Some steps read nothing but constants: the weights are brought into another shape, say. They give
# the same every time, so they need not be in the program. Write `varying(steps, argument)`, which
# returns the steps that depend on the argument, in a list. How many of the steps of `objective` do
# not? (Tensors are compared element by element. To ask whether you have met one, keep those you met
# in a set, not in a list.)
#
# <details><summary>Solution to the exercise of lesson 13</summary>
#
# More than one would think. The answer depends on the noise that was drawn, but not by much.
#
# ```python
# def noisy(gradients, share, rng):
#     sizes = [share * np.sqrt(np.square(g).mean()) for g in gradients]
#     return [g + rng.normal(0, size, g.shape) for g, size in zip(gradients, sizes)]
#
#
# rng = np.random.default_rng(13)
# right = {}
# for share in (1e-6, 1e-4, 1e-2, 1e-1, 1.0):
#     _, directions = spanned(noisy(by_weight, share, rng))
#     best = sticking_out(candidates, directions[:23]).argmin(axis=1)
#     right[share] = (best == read).sum()
# print(right)
# assert right[1e-6] == right[1e-4] == 23 and right[1e-2] > 20
# assert right[1e-1] > 10 > right[1.0]
# ```
#
# At a hundredth of the typical entry nearly all are found, at a tenth still more than half. When
# the noise is as large as the gradient, a few are.
#
# </details>


# %%
def varying(steps, argument):
    pass  # yours


check(14, varying)
