# %% [markdown]
# # 2. Walking backwards
#
# *How does the chain rule become a program, and why does the order matter so much?*
#
# ← [1. A tensor that remembers](01_a_tensor_that_remembers.ipynb) · about 30 minutes ·
# needs lesson 1 · [3. Broadcasting and its undoing](03_broadcasting.ipynb) → ·
# [all lessons](README.md)
#
# A tensor remembers how it was made (lesson 1). Now we use that memory. We walk from a result back
# to its inputs and collect, on the way, how strongly each of them moves the result. That is the
# whole of automatic differentiation. Most of this lesson is about one question: in which order to
# walk.

# %%
import matplotlib.pyplot as plt
import numpy as np
from checks import check
from plots import BLUE, ORANGE, show, tidy

from tinyleak import Tensor, grad, ops
from tinyleak.gradient import topological_order
from tinyleak.tensor import primitive

# %% [markdown]
# ## One step of the chain rule
#
# Let $y$ be a number at the end of a long computation, and let $c = a · b$ be one step in the
# middle of it. Suppose we already know $∂y/∂c$: how much $y$ moves when $c$ moves. Call it $g$, for
# gradient. Then
#
# $$∂y/∂a = g · b \quad\text{and}\quad ∂y/∂b = g · a.$$
#
# For this we need not know what happens between $c$ and $y$. It is all in $g$. So every operation
# needs just one small [**rule**](README.md#rule): given $g$, what it read and what it computed,
# return the gradient with respect to each input.

# %%
RULES = {
    "add": lambda g, out, a, b: (g, g),
    "multiply": lambda g, out, a, b: (g * b, g * a),
    "tanh": lambda g, out, x: (g * (1 - out**2),),
}

# %% [markdown]
# The last one says that the derivative of $\tanh x$ is $1 - (\tanh x)^2$. The rule may use `out`,
# which is $\tanh x$ already, so it need not compute it again.
#
# If an input is used in two places, it moves $y$ in two ways, and the two effects add up. For
# $y = a · b + b$ that gives $∂y/∂b = a + 1$: the $a$ comes along one arrow, the 1 along the other.
#
# So the plan is: start with $∂y/∂y = 1$, walk backwards, apply rules, add up what arrives.
#
# ## Where one gets stuck
#
# Here is the plan as most people write it first. Each tensor hands its gradient to its inputs at
# once, and they hand theirs on:


# %%
def walk_at_once(node, g, total):
    """Add g to what node has received so far, and pass everything on at once."""
    total[node] = total.get(node, 0.0) + g
    if node.primitive:
        arrays = [x.data for x in node.inputs]
        answers = RULES[node.primitive.name](total[node], node.data, *arrays)
        for x, answer in zip(node.inputs, answers, strict=True):
            walk_at_once(x, answer, total)
    return total


a, b = Tensor(3.0), Tensor(2.0)
y = ops.tanh(a * b)
found = walk_at_once(y, 1.0, {})
assert np.isclose(found[a], (1 - np.tanh(6.0) ** 2) * 2.0), "right"

# %% [markdown]
# It works. It passes every test in which each tensor is used once. Now take the smallest graph in
# which two tensors are each used twice: $b = a + a$ and $c = b + b$.
#
# **Predict first.** So $c = 4a$, and $∂c/∂a = 4$. What will `walk_at_once` say: 4, or 6, or 8?
#
# <details><summary>Answer</summary>
#
# 6. Most people say 4, since every step of the walk is right by itself, or 8, for twice too many
# passes. How it comes to 6 is told below.
#
# </details>

# %%
a = Tensor(1.0)
b = a + a
c = b + b  # so c = 4 a, and ∂c/∂a = 4

found = walk_at_once(c, 1.0, {})
print("∂c/∂a, it says:", found[a])

assert found[a] == 6.0, "wrong: it is 4"

# %% [markdown]
# The symptom is a gradient that is too large, and only for tensors that are used more than once.
# Let us follow it. `c` sends 1 to `b` along its first arrow. `b` has 1 now, and passes it on to `a`
# along both of its arrows: 2. Then `c` sends 1 along its second arrow. `b` has 2 now, and passes on
# *2*: another 4. But half of this 2 had been passed on before, so it was counted twice.
#
# One cure is to pass on only what just arrived, not the sum. That is right, but slow: it walks
# along every path from the end to the start. Each doubling below doubles the number of paths.


# %%
def walk_every_path(node, g, total):
    """Pass on what just arrived. Returns the number of visits."""
    total[node] = total.get(node, 0.0) + g
    visits = 1
    if node.primitive:
        answers = RULES[node.primitive.name](g, node.data, *[x.data for x in node.inputs])
        for x, answer in zip(node.inputs, answers, strict=True):
            visits += walk_every_path(x, answer, total)
    return visits


def doublings(depth):
    first = last = Tensor(1.0)
    for _ in range(depth):
        last = last + last
    return first, last


depths = range(1, 13)
paths = []
for depth in depths:
    first, last = doublings(depth)
    total = {}
    paths.append(walk_every_path(last, 1.0, total))
    assert total[first] == 2.0**depth, "right"

print("visits for 12 doublings:", paths[-1], "for", len(topological_order(last)), "tensors")
assert paths == [2 ** (depth + 1) - 1 for depth in depths], "the number of paths doubles each time"

# %% [markdown]
# ## The right order
#
# Both failures have one cause: `b` passed on before it had heard from everybody. So:
#
# **A tensor may pass on its gradient only when everything made from it has done so.**
#
# An order that keeps to this is called [**topological**](README.md#topological-order). To find one,
# list every tensor *after* its inputs, and then read the list from the end. In the list, whatever
# is made of `b` comes after `b`; from the end, it comes before.
#
# How do we list a tensor after its inputs? We put it on a stack with a note, "list me when you see
# me again", and put its inputs on top. They will be dealt with before we are back at the note.
# Recursion would do the same, but Python allows only about a thousand nested calls, and graphs are
# deeper than that.


# %%
def list_inputs_first(y):
    """Every tensor y depends on, each once, and after its own inputs."""
    order, seen = [], set()
    stack = [(y, False)]
    while stack:
        node, inputs_are_listed = stack.pop()
        if inputs_are_listed:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(x, False) for x in node.inputs]
    return order


def gradients(y, xs):
    """∂y/∂x for each x, as NumPy arrays."""
    total = {y: np.ones_like(y.data)}
    for node in reversed(list_inputs_first(y)):
        if node.primitive is None:
            continue
        arrays = [x.data for x in node.inputs]
        answers = RULES[node.primitive.name](total[node], node.data, *arrays)
        for x, answer in zip(node.inputs, answers, strict=True):
            total[x] = total.get(x, 0.0) + answer
    return [total[x] for x in xs]


assert gradients(c, [a]) == [4.0], "right at last"
assert gradients(a * b + b, [b]) == [a.data + 1], "two effects, added up"

# %% [markdown]
# Every tensor is visited once now, however often it is used.

# %% tags=["thumbnail"]
tensors = [len(list_inputs_first(doublings(depth)[1])) for depth in depths]
assert tensors == [depth + 1 for depth in depths], "one visit a tensor"

figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
ax.semilogy(depths, paths, "o-", color=ORANGE)
ax.semilogy(depths, tensors, "o-", color=BLUE)
ax.text(12.2, paths[-1], "along every path", color=ORANGE, va="center")
ax.text(12.2, tensors[-1], "in topological order", color=BLUE, va="center")
ax.set(xlabel="doublings", ylabel="visits", xlim=(0.5, 16), xticks=[2, 4, 6, 8, 10, 12])
tidy(ax)
show("Visits for 1 to 12 doublings: along every path 8,191 at the end, in topological order 13.")

# %% [markdown]
# ## Why backwards?
#
# One could walk forwards as well: begin at one input, and carry along how much everything moves
# when that input does. The rules are as short. But a walk forwards gives the derivatives with
# respect to *one* input, and a walk backwards those of *one* result with respect to all inputs at
# once. A network has many thousand weights, and one number that says how wrong it is, its
# [**loss**](README.md#loss). So everybody walks backwards. It is called [**reverse
# mode**](README.md#reverse-mode), and for the loss of a network
# [**backpropagation**](README.md#backpropagation). Let us count the rules that each way applies,
# for a sum of $n$ products:

# %%
FORWARD = {
    "add": lambda out, a, b, moved_a, moved_b: moved_a + moved_b,
    "multiply": lambda out, a, b, moved_a, moved_b: moved_a * b + a * moved_b,
    "tanh": lambda out, x, moved: (1 - out**2) * moved,
}


# %%
def forwards(y, x):
    """∂y/∂x for one x, walking from the inputs to y; and how many rules were applied."""
    moved, rules = {x: 1.0}, 0
    for node in list_inputs_first(y):
        if node.primitive:
            arrays, moves = [i.data for i in node.inputs], [moved[i] for i in node.inputs]
            moved[node] = FORWARD[node.primitive.name](node.data, *arrays, *moves)
            rules += 1
        elif node is not x:
            moved[node] = 0.0
    return moved[y], rules


# %%
for count in (4, 16, 64):
    inputs = [Tensor(0.1 * number) for number in range(count)]
    y = Tensor(0.0)
    for number in range(count):
        y = y + ops.tanh(inputs[number] * inputs[number - 1])
    one_by_one = [forwards(y, x) for x in inputs]
    assert np.allclose([slope for slope, _ in one_by_one], gradients(y, inputs)), "the same numbers"
    forward_rules = sum(rules for _, rules in one_by_one)
    backward_rules = sum(node.primitive is not None for node in list_inputs_first(y))
    print(f"{count:>2} inputs: {forward_rules:>6} rules forwards, {backward_rules:>3} backwards")
    assert forward_rules == count * backward_rules, "one whole walk for each input"

# %% [markdown]
# ## Is it right?
#
# We can ask without trusting any of this. Move an input by a little, $h$, in both directions, and
# see how far the result moves:
#
# $$∂y/∂x ≈ (y(x + h) - y(x - h)) / 2h$$
#
# This is called a [**finite difference**](README.md#finite-difference). It is slow and never exact,
# but it knows nothing of our rules, so it cannot share their mistakes.


# %%
def formula(a, b):
    inner = ops.tanh(a * b + b)
    return inner * inner + a * inner  # `inner` is used three times


a, b = Tensor(0.7), Tensor(-0.4)
y = formula(a, b)
by_a, by_b = gradients(y, [a, b])

h = 1e-6
ahead, behind = formula(Tensor(0.7 + h), b), formula(Tensor(0.7 - h), b)
measured = (float(ahead) - float(behind)) / (2 * h)
print(f"the graph says {by_a:.9f}, finite differences say {measured:.9f}")

assert abs(by_a - measured) < 1e-8, "finite differences agree"

# %% [markdown]
# ## tinyleak's own
#
# tinyleak calls it `grad`. The rules are not in a table. Each stands beside its operation, in
# `tinyleak/ops/`. The walk is the same, and so are the numbers. (Give `grad` a list, and a list
# comes back, one gradient for each. Give it one tensor, and its gradient comes back alone.)

# %%
y = formula(a, b)
own_a, own_b = grad(y, [a, b])
assert np.isclose(by_a, own_a.data, rtol=1e-14), "the same numbers as grad"
assert np.isclose(by_b, own_b.data, rtol=1e-14), "the same numbers as grad"

rng = np.random.default_rng(2)
p, q = Tensor(rng.standard_normal((4, 3))), Tensor(rng.standard_normal((4, 3)))
table = formula(p, q)
for ours, own in zip(gradients(table, [p, q]), grad(ops.sum(table), [p, q]), strict=True):
    assert np.allclose(ours, own.data, rtol=1e-14), "the same numbers as grad"

# %% [markdown]
# Its graphs can be as deep as you like:

# %%
first = last = Tensor(1.0)
for _ in range(20_000):
    last = last + 1.0
(slope,) = grad(last, [first])
assert slope.data == 1.0, "a graph 20,000 deep"

try:
    walk_every_path(last, 1.0, {})
except RecursionError:
    print("the recursive walk gives up: RecursionError")
else:
    raise AssertionError("it should have given up")

# %% [markdown]
# `grad` does two more things. An input on which `y` does not depend gets a gradient of zeros,
# not `None`:

# %%
stranger = Tensor([1.0, 2.0])
assert np.array_equal(grad(slope * a, [stranger])[0].data, [0.0, 0.0]), "zeros, not None"

# %% [markdown]
# And it walks only along paths that lead to the `xs` you ask for. To see that, we make an operation
# that has no rule. (`@primitive()` makes an operation of a function on arrays. Its first argument
# `xp` is the library of the arrays, here NumPy.) With respect to `a` we can still differentiate.
# With respect to `b` we cannot: the only path leads through it.


# %%
@primitive()
def floor(xp, x):
    return xp.floor(x)


a, b = Tensor(3.0), Tensor(2.5)
y = a * a + floor(b)
assert grad(y, [a])[0].data == 6.0, "it never went to floor, or it would have missed the rule"
try:
    grad(y, [b])
except NotImplementedError as error:
    print("NotImplementedError:", error)
else:
    raise AssertionError("there is no rule to walk by")

# %% [markdown]
# Now read [`tinyleak/gradient.py`](../tinyleak/gradient.py). You know almost every line of it.
# One function there is new, `_undo_broadcasting`. It is the next lesson.
#
# ## What to remember
#
# - An operation needs one rule. All that happens between its result and the end is in $g$.
# - Pass on only when you have heard from everybody: topological order.
# - Backwards, because there is one loss and many weights.
#
# ## Exercise
#
# Add two rules to `RULES`: `"subtract"`, for $a - b$, and `"divide"`, for $a / b$. For the second,
# try to use `out`. Check both against `grad` and against finite differences.
#
# <details><summary>Solution to the exercise of lesson 1</summary>
#
# Keep a set of what you have seen. Without it, `x = x + x` repeated 30 times sends you along
# $2^{30}$ paths.
#
# ```python
# def count(y):
#     seen, stack = set(), [y]
#     while stack:
#         node = stack.pop()
#         if node not in seen:
#             seen.add(node)
#             stack.extend(node.inputs)
#     return len(seen)
#
#
# x = Node(1.0)
# for _ in range(30):
#     x = x + x
# assert count(x) == 31 and count(y) == 5
# ```
#
# It is `len(list_inputs_first(y))` of this lesson, without the care for the order.
#
# </details>

# %%
RULES["subtract"] = lambda g, out, a, b: None  # yours
RULES["divide"] = lambda g, out, a, b: None  # yours

check(2, RULES)
