# %% [markdown]
# # 4. Gradients of gradients
#
# *A gradient depends on the input, too. How do we differentiate it once more, and what for?*
#
# ← [3. Broadcasting and its undoing](03_broadcasting.ipynb) · about 35 minutes ·
# needs lesson 2, and lesson 3 for the exercise · [5. Convolution](05_convolution.ipynb) → ·
# [all lessons](README.md)
#
# The slope of $x^3$ is $3x^2$. That is again a function of $x$, so it has a slope of its own, $6x$.
# This is called the [**second derivative**](README.md#second-order), or the derivative of second
# order. On paper nothing stops us from going on.
#
# In a program something does. Lesson 2 walked backwards and returned plain arrays, which carry no
# graph to differentiate. In this lesson we change that, with hardly any code, and then check the
# result to any order. At the end three secret numbers come out of a gradient. That is the attack of
# lesson 8 in miniature.

# %%
import textwrap

import matplotlib.pyplot as plt
import numpy as np
from checks import check, expect
from plots import BLUE, GREEN, ORANGE, graph, show, tidy

from tinyleak import Tensor, check_gradients, grad, ops
from tinyleak.gradient import topological_order
from tinyleak.tensor import primitive

# %% [markdown]
# ## A graph that builds a graph
#
# Look at the rules of lesson 2 again. The rule of multiplication says $g · b$ and $g · a$. That is
# itself a computation: it multiplies. We ran it on NumPy arrays, so its result forgot how it was
# made. Run the *same* rule on tensors, and its result remembers.


# %%
RULES = {
    "add": lambda g, out, a, b: (g, g),
    "subtract": lambda g, out, a, b: (g, -1.0 * g),
    "multiply": lambda g, out, a, b: (g * b, g * a),
    "tanh": lambda g, out, x: (g * (1.0 - out * out),),
}


def gradients(y, xs):
    """∂y/∂x for each x, as Tensors. If y has many elements, the gradients of their sum."""
    total = {y: Tensor(np.ones_like(y.data))}
    for node in reversed(topological_order(y)):
        if node.primitive is None:
            continue
        answers = RULES[node.primitive.name](total[node], node, *node.inputs)
        for x, answer in zip(node.inputs, answers, strict=True):
            total[x] = total[x] + answer if x in total else answer
    return [total[x] for x in xs]


# %% [markdown]
# Compare it with lesson 2. The rules now get the tensors themselves, `node.inputs`, where they got
# arrays before. The sum of what arrives is a sum of tensors. Nothing else has changed.
#
# (`1.0 - out * out` was `1 - out**2`. A rule may only use operations that have a rule, and our
# table has none for powers.)

# %%
x = Tensor(2.0)
y = x * x * x
(first,) = gradients(y, [x])
(second,) = gradients(first, [x])
(third,) = gradients(second, [x])

print("x³ at 2 and its derivatives:", *(float(d) for d in (y, first, second, third)))
assert float(first) == 3 * 2.0**2, "3x²"
assert float(second) == 6 * 2.0, "6x"
assert float(third) == 6, "6"

# %% [markdown]
# Second derivatives need no special function: take `gradients` of what `gradients` returned.
# A walk backwards over the first graph has built a second graph. That one can be walked, too.
#
# Here are both graphs for $y = \tanh(a · b)$. Blue is the formula. Orange is what the walk built to
# find $∂y/∂a = g · (1 - y^2) · b$, where $g = ∂y/∂y = 1$ is what it starts with. See how orange
# boxes read from blue ones: `y` is used again, and so is `b`. Through those arrows the gradient
# depends on the input.

# %%
a, b = Tensor(0.5), Tensor(2.0)
product = a * b
y = ops.tanh(product)
(by_a,) = gradients(y, [a])

chain = by_a.inputs[0]  # g · (1 − y²), the gradient with respect to the product
one_minus = chain.inputs[1]
square = one_minus.inputs[1]
assert by_a.inputs == (chain, b) and square.inputs == (y, y), "the arrows of the picture"
assert np.isclose(by_a.data, (1 - np.tanh(1.0) ** 2) * 2.0), "the gradient that one finds on paper"

places = {
    a: (0, 1, "a"),
    b: (0, 0, "b"),
    product: (1.2, 1, "a · b"),
    y: (2.4, 1, "y = tanh"),
    square: (3.6, 1, "y · y"),
    one_minus: (4.8, 1, "1 − y²"),
    chain: (4.8, 0, "g · (1 − y²)"),
    by_a: (3.0, 0, "∂y/∂a"),
}
built_backwards = {square, one_minus, chain, by_a}
graph(places, figsize=(7, 2.4), orange=built_backwards)  # the constants 1 and g are left out
show("Two graphs: a and b lead to a·b and tanh, in blue; in orange y·y, 1−y², g·(1−y²) and ∂y/∂a.")

# %% [markdown]
# ## tinyleak's own
#
# tinyleak's `grad` is this walk. So `grad` of `grad` is the second order, and there is no switch to
# turn on. Let us compare, up to the fourth order, at a hundred points at once.
#
# **Predict first.** The graph of the first derivative of $\tanh$ has nine tensors. How does that
# number grow with the order: does each order add about nine, or multiply?
#
# <details><summary>Answer</summary>
#
# It about doubles each time. Many people expect that each order adds as much, since each is one
# more walk. But each walk goes over the graph that the last one left, which is longer every time.
#
# </details>

# %%
points = Tensor(np.linspace(-3, 3, 101))
ours = own = ops.tanh(points)
curves, sizes = [own.data], []
for order in range(1, 5):
    (ours,) = gradients(ours, [points])
    (own,) = grad(ops.sum(own), [points])
    assert np.allclose(ours.data, own.data, rtol=1e-12, atol=1e-12), "the same numbers as grad"
    curves.append(own.data)
    sizes.append(len(topological_order(own)))
    print(f"order {order}: the graph has {sizes[-1]} tensors")

t = np.tanh(points.data)
assert np.allclose(curves[1], 1 - t**2), "as one finds on paper"
assert np.allclose(curves[2], -2 * t * (1 - t**2)), "as one finds on paper"

# %% tags=["thumbnail"]
figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
names = ["tanh", "1st derivative", "2nd", "3rd"]
colours = ["black", BLUE, ORANGE, GREEN]
for curve, name, colour in zip(curves[:4], names, colours, strict=True):
    ax.plot(points.data, curve, color=colour, linewidth=2, label=name)
ax.set(xlabel="x", xlim=(-3, 3))
ax.legend(frameon=False, loc="lower right")
tidy(ax)
show("tanh from -3 to 3 and its first three derivatives, each with more waves than the last.")

growth = np.array(sizes[1:]) / np.array(sizes[:-1])
assert (growth > 1.8).all() and (growth < 2.2).all(), "each order about doubles the graph"

# %% [markdown]
# The price is size: each order makes the graph about twice as large. The attack needs order two,
# and that is cheap enough.
#
# ## A check that knows no rules
#
# Is it right? For the first order lesson 2 moved one input by a little and looked. With a thousand
# inputs that would be a thousand looks. Here is a better way. Move *all* of them at once, by $h$
# times a random direction $v$. The slope along $v$ can be had in two ways, and they must agree:
#
# $$⟨∇f(x), v⟩ ≈ (f(x + h v) - f(x - h v)) / 2h$$
#
# ($∇f$ is short for all gradients together; $⟨ , ⟩$ is the inner product of lesson 3.) If one entry
# of the gradient is wrong, the two differ, unless $v$ happens to be perpendicular to the error. A
# random $v$ practically never is.
#
# Now the trick. The left side is a number that depends on $x$. So it is a function like $f$, and we
# can check *its* gradient in the same way. That is the second order of $f$. And so on.

# %%
rng = np.random.default_rng(4)


def first_wrong_order(gradients, f, x, orders=3, h=1e-5):
    """The lowest order at which gradients and finite differences of the sum of f disagree."""
    for order in range(1, orders + 1):
        v = rng.standard_normal(x.shape)

        def slope(x, f=f, v=v):
            return gradients(f(x), [x])[0] * v

        ahead, behind = f(Tensor(x.data + h * v)), f(Tensor(x.data - h * v))
        measured = (ahead.data.sum() - behind.data.sum()) / (2 * h)
        if abs(slope(x).data.sum() - measured) > 1e-6 * max(1, abs(measured)):
            return order
        f = slope  # the next thing to differentiate
    return None


def formula(x):
    return ops.tanh(x * x) * x - x


x = Tensor(rng.standard_normal(5))
expect(first_wrong_order(gradients, formula, x) is None, "the table of rules is right to order 3")
check_gradients(formula, [x], order=3)  # tinyleak's own: silent, so it found nothing either

# %% [markdown]
# ## Where one gets stuck
#
# Suppose someone writes the rule of `tanh` with arrays. It looks harmless. Perhaps it is even
# faster:


# %%
def tanh_rule(g, out, x):  # the right one, as above
    return (g * (1.0 - out * out),)


RULES["tanh"] = lambda g, out, x: (g * Tensor(1.0 - out.data * out.data),)

assert np.allclose(gradients(formula(x), [x])[0].data, grad(ops.sum(formula(x)), [x])[0].data), (
    "the first order notices nothing"
)
print("the gradient is right")

wrong = first_wrong_order(gradients, formula, x)
print("but the derivative of order", wrong, "is not")
expect(wrong == 2, "the second order notices")

# %% [markdown]
# The first order is right to the last digit, so every usual test passes. But the rule has cut an
# arrow: the box `1 − y²` in the picture above no longer reads from `y`. The walk does not get
# through there, and what should have come along that way is missing.
#
# There is no error, and often not even a zero. Other terms still arrive, so the second derivative
# looks plausible:

# %%
RULES["tanh"] = lambda g, out, x: (g * Tensor(1.0 - out.data * out.data),)
(first,) = gradients(formula(x), [x])
(cut,) = gradients(first, [x])
RULES["tanh"] = tanh_rule
(first,) = gradients(formula(x), [x])
(whole,) = gradients(first, [x])
print("with the cut:", np.round(cut.data, 2))
print("the truth:   ", np.round(whole.data, 2))

expect(
    not np.allclose(cut.data, whole.data) and np.abs(cut.data).min() > 0.01,
    "wrong everywhere, and nowhere zero",
)

# %% [markdown]
# An attack that follows such a gradient does not walk straight downhill, and nothing tells it so.
# So check each operation to the order at which you use it, and one more. tinyleak's check sees
# through the same mistake, and says what it saw. An operation of tinyleak is made of a function on
# arrays and a rule. (`xp` is the library of the arrays: NumPy, or its counterpart on a GPU.)


# %%
@primitive()
def careless_tanh(xp, x):
    return xp.tanh(x)


@careless_tanh.rule
def _(g, out, x):
    return (g * Tensor(1.0 - out.data * out.data),)


check_gradients(lambda x: careless_tanh(x * x), [x], order=1)
try:
    check_gradients(lambda x: careless_tanh(x * x), [x], order=2)
except AssertionError as error:
    message = str(error)
print(textwrap.fill(message, 80))
assert "order 2 is wrong" in message, "tinyleak's check notices as well"

# %% [markdown]
# ## What it is for
#
# Somebody has a model with three weights $w$ and a bias $b$, and a secret: three numbers $x$. The
# model should answer $t$. So the loss is
#
# $$L = (⟨w, x⟩ + b - t)^2.$$
#
# To improve the model together with others, they share the gradient of $L$ with respect to $w$ and
# $b$. Not their $x$, only the gradient.
#
# **Predict first.** Four numbers are shared, and the secret has three. Could one read the secret
# off with pencil and paper, without minimising anything?
#
# <details><summary>Answer</summary>
#
# Yes. With $e = 2(⟨w, x⟩ + b - t)$ the gradients are $∂L/∂w = e x$ and $∂L/∂b = e$. Divide one by
# the other, and there is $x$. Most people look for an equation to solve, and there is none: a layer
# with a bias gives its input away by a division. Lesson 10 comes back to it, with a picture.
#
# </details>
#
# But only a layer of this kind can be divided like that. Here is the way that works for any model
# that we know. We can compute, for any guess of $x$, the gradient *it* would give. How far that is
# from the shared one is a number $D$, the sum of the squared differences. We move the guess against
# $∂D/∂x$ and make $D$ small. But $D$ contains a gradient. So $∂D/∂x$ is a gradient of a gradient.

# %%
w, bias, t = Tensor([0.7, -1.2, 0.4]), Tensor(0.3), 1.0


def model_gradient(x):
    loss = (ops.sum(w * x) + bias - t) ** 2
    return grad(loss, [w, bias])


secret = np.array([0.2, 0.9, -0.5])
shared = [Tensor(g.data) for g in model_gradient(Tensor(secret))]

guess = np.zeros(3)
for step in range(401):
    x = Tensor(guess)
    distance = sum(ops.sum((a - b) ** 2) for a, b in zip(model_gradient(x), shared, strict=True))
    if step % 100 == 0:
        print(f"step {step:3}: distance {float(distance):.0e}, guess {np.round(guess, 4)}")
    guess = guess - 0.02 * grad(distance, [x])[0].data

expect(np.allclose(guess, secret, atol=1e-5), "the secret is out")
by_division = shared[0].data / shared[1].data
assert np.allclose(by_division, secret), "and by a division at once"

# %% [markdown]
# The three numbers are out. In lesson 8 there are 784 of them, and they are a picture. What is
# missing until then is a network that looks at pictures (lessons 5 and 6), and a faster way down
# than small steps (lesson 7).
#
# The real things are [`tinyleak/gradient.py`](../tinyleak/gradient.py), which you know by now, and
# [`tinyleak/check.py`](../tinyleak/check.py). The tests put every operation of tinyleak through
# that check, to order three.
#
# ## What to remember
#
# - If the rules are written in Tensors, a gradient has a graph, and `grad` of it is second order.
# - A rule that computes with arrays cuts the graph, and nothing complains.
# - Check each operation to the order at which you use it, and one more.
#
# ## Exercise
#
# Let $f$ be a function of $n$ numbers. Its second derivatives form a table $H$ of $n$ rows and $n$
# columns, called the [**Hessian**](README.md#hessian). Write `hessian_times(f, x, v)`, which
# returns $H v$ for a direction $v$ without ever building the table: it is the gradient of
# $⟨∇f(x), v⟩$. Then use the test of lesson 3 to show that $H$ is its own adjoint,
# $⟨H u, v⟩ = ⟨u, H v⟩$.
#
# <details><summary>Solution to the exercise of lesson 3</summary>
#
# Four of seven elements are taken. The adjoint puts four numbers back where they came from, with
# zeros between them.
#
# ```python
# def spread(g):
#     x = np.zeros(7)
#     x[::2] = g
#     return x
#
#
# assert are_adjoint(lambda x: x[::2], spread, (7,), (4,))
# ```
#
# Write $1$ where the map reads an element, and you have its matrix: a 1 in each row. Transposed, it
# has a 1 in each column that was read, and a row of zeros for what was left out.
#
# </details>


# %%
def hessian_times(f, x, v):
    pass  # yours


check(4, hessian_times)
