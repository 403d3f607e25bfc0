# %% [markdown]
# # 1. A tensor that remembers
#
# *How can a number know where it came from?*
#
# about 20 minutes · needs nothing but NumPy and the chain rule ·
# [2. Walking backwards](02_walking_backwards.ipynb) → · [all lessons](README.md)
#
# Add two numbers in Python and you get a number. Nothing in it says that it is a sum. But a
# derivative is a question about origins: if I move this input a little, how much does the result
# move? To answer it, a program must know how the result was made.
#
# So in this lesson we build an array that keeps a memory. It is the smallest part of tinyleak, and
# everything else stands on it: derivatives, networks, and in lesson 8 the attack that turns a
# gradient back into a picture.

# %%
import numpy as np
from checks import check
from plots import graph, show

from tinyleak import Tensor, ops

# %% [markdown]
# ## The idea
#
# We keep three things together:
#
# - `data`: the numbers, an ordinary NumPy array;
# - `made_by`: the name of the operation that computed them, or `None` if nobody did;
# - `inputs`: the objects that the operation read.
#
# An object that no operation computed is called a [**leaf**](README.md#leaf). You made it by hand,
# from data.
#
# The inputs are not copied. They are the same objects, with memories of their own. So from a result
# we can walk back to its inputs, then to theirs, until only leaves are left.


# %%
class Node:
    def __init__(self, data, made_by=None, inputs=()):
        self.data = np.asarray(data, dtype=float)
        self.made_by = made_by
        self.inputs = inputs

    def __repr__(self):
        return f"Node({self.data}" + (f", made by {self.made_by})" if self.made_by else ")")

    def __add__(self, other):
        other = as_node(other)
        return Node(self.data + other.data, "add", (self, other))

    def __mul__(self, other):
        other = as_node(other)
        return Node(self.data * other.data, "multiply", (self, other))

    def __sub__(self, other):
        other = as_node(other)
        return Node(self.data - other.data, "subtract", (self, other))

    def __neg__(self):
        return Node(-self.data, "negate", (self,))

    def __radd__(self, other):  # what Python calls for 2 + node
        return as_node(other) + self

    def __rmul__(self, other):  # and for 2 * node
        return as_node(other) * self


# %%
def as_node(value):
    return value if isinstance(value, Node) else Node(value)


def tanh(x):
    return Node(np.tanh(x.data), "tanh", (x,))


# %% [markdown]
# That is all. Python calls `__add__` when it meets `a + b`, so we can write formulas as usual. Take
#
# $$y = \tanh(a · b + b)$$
#
# and let every operation leave its trace:

# %%
a, b = Node(0.5), Node(-2.0)
product = a * b
total = product + b
y = tanh(total)

print("y:     ", y)
print("from:  ", *y.inputs)
print("from:  ", *y.inputs[0].inputs)

assert y.data == np.tanh(0.5 * -2.0 + -2.0), "the numbers are NumPy's"
assert y.inputs == (total,) and total.inputs == (product, b), "each remembers what it read"
assert a.made_by is None, "a is a leaf"

# %% [markdown]
# A number in a formula becomes a leaf, too, and a minus is an operation like any other:

# %%
z = 2 * a - (-b) + 1
print(z, "from", *z.inputs)

assert z.data == 2 * 0.5 - 2.0 + 1, "numbers may stand on either side"
assert [x.made_by for x in z.inputs] == ["subtract", None], "the 1 has become a leaf"

# %% [markdown]
# ## What it looks like
#
# Draw a box for every object, and an arrow from each input to what was made of it. This picture is
# called the [**graph**](README.md#graph) of the computation. Nobody had to describe it: running the
# formula built it.
#
# **Predict first.** The formula $\tanh(a · b + b)$ has three letters and three operations. How many
# boxes does its graph have, and how many arrows?
#
# <details><summary>Answer</summary>
#
# Five boxes and five arrows. Most people say six boxes, one for each letter that they read and one
# for each operation. But both letters $b$ are the *same* object, and it is drawn once. That it is
# used twice shows in its two arrows.
#
# </details>

# %% tags=["thumbnail"]
boxes = {
    a: (0, 1, f"a\n{a.data:g}"),
    b: (0, 0, f"b\n{b.data:g}"),
    product: (1, 1, f"{product.made_by}\n{product.data:g}"),
    total: (2, 0.5, f"{total.made_by}\n{total.data:g}"),
    y: (3, 0.5, f"{y.made_by}\n{y.data:.3f}"),
}
arrows = [(x, node) for node in boxes for x in node.inputs]
assert len(boxes) == len(arrows) == 5, "five boxes, five arrows"
assert sum(start is b for start, _ in arrows) == 2, "b is used twice"

graph(boxes)
show("A graph of five boxes: a and b lead to multiply, that and b again to add, and that to tanh.")

# %% [markdown]
# Look at `b`. It is used twice, so two arrows leave it. It is still one object. That small fact
# decides how lesson 2 has to work.
#
# ## Where one gets stuck
#
# `node * array` works. What about `array * node`? Three numbers times three numbers should be
# three numbers.

# %%
weights = np.array([1.0, 2.0, 3.0])
x = Node([10.0, 20.0, 30.0])
if "__array_ufunc__" in vars(Node):
    del Node.__array_ufunc__  # the cure below, undone, so that this cell can be run again

print("node * array:", (x * weights).data)

wrong = weights * x
print("array * node:", type(wrong).__name__, "of", wrong.dtype, "elements")
print("the first element:", wrong[0].data)

assert isinstance(wrong, np.ndarray), "no Node, so no memory"
assert len(wrong) * wrong[0].data.size == 9, "nine numbers instead of three"

# %% [markdown]
# No error, and nine numbers instead of three. Python asks the left operand first. The left operand
# is a NumPy array, and NumPy has never heard of `Node`. It treats the node as a single object
# without elements, and multiplies *each* of its own elements by the whole node.
#
# The symptom is an array of dtype `object`. If you ever see one, ask who did the multiplying. The
# cure is one line. It tells NumPy to leave such operations to us:

# %%
Node.__array_ufunc__ = None

right = weights * x
print("array * node:", type(right).__name__, right.data, "made by", right.made_by)

assert isinstance(right, Node) and np.array_equal(right.data, [10.0, 40.0, 90.0]), "cured"

# %% [markdown]
# The memory has a second enemy: changing an array after it was used. The node below remembers that
# it is twice `x`. Then we write into the array of `x`, and the memory is false. So nothing in
# tinyleak ever writes into the data of a tensor; it makes a new one.

# %%
x = Node([10.0, 20.0, 30.0])
double = x + x
x.data[0] = 7.0

assert double.data[0] != 2 * x.data[0], "the result no longer fits its inputs"

# %% [markdown]
# ## tinyleak's own
#
# tinyleak's class is called `Tensor`. (A tensor is an array with any number of axes: a number, a
# row, a table, a stack of pictures.) It keeps the same three things. Only the operation is more
# than a name. It is an object of the class `Primitive`, which knows how to compute itself and, from
# lesson 2 on, how to differentiate itself.
#
# Let us make the same formula with it, and walk both graphs side by side.


# %%
def same_memory(node, tensor):
    """Whether two graphs have the same numbers, operations and inputs, all the way back."""
    name = tensor.primitive.name if tensor.primitive else None
    return (
        np.array_equal(node.data, tensor.data)
        and node.made_by == name
        and len(node.inputs) == len(tensor.inputs)
        and all(same_memory(n, t) for n, t in zip(node.inputs, tensor.inputs, strict=True))
    )


ta, tb = Tensor(0.5), Tensor(-2.0)
ty = ops.tanh(ta * tb + tb)
print(ty)

assert same_memory(y, ty), "the same numbers, operations and inputs, all the way back"
assert same_memory(z, 2 * ta - (-tb) + 1), "with numbers and a minus, too"
assert ty.inputs[0].inputs[1] is tb, "inputs are kept, not copied"

# %% [markdown]
# The same holds for arrays of any shape, since nothing in `Node` mentions a shape.

# %%
rng = np.random.default_rng(1)
p, q = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))

ours, own = tanh(Node(p) * Node(q) + q), ops.tanh(Tensor(p) * Tensor(q) + q)
assert same_memory(ours, own), "for tables as for numbers"

# %% [markdown]
# An operation often needs settings that are not inputs: which shape to make, how far to move a
# window. A `Tensor` keeps those too, under `params`.

# %%
column_sums = ops.sum_to(Tensor(p), shape=(1, 3))
print(column_sums.primitive.name, column_sums.params)

assert column_sums.params == {"shape": (1, 3)}, "the setting is remembered"

# %% [markdown]
# Read the real thing now: [`tinyleak/tensor.py`](../tinyleak/tensor.py). `Tensor` is its first
# class. Most of what it has beyond ours is operators and clear errors.
#
# ## What to remember
#
# - A derivative is a question about origins. So every result keeps its inputs and its operation.
# - An object that is used twice is one box with two arrows.
# - Never write into an array that somebody remembers.
#
# ## Exercise
#
# Write `count(y)`, which returns how many different objects `y` depends on, itself included. The
# graph above has 5. Then try it on a node that was doubled thirty times, `x = x + x`. The answer is
# 31. If yours takes forever, you have met the question of the next lesson.


# %%
def count(y):
    pass  # yours


check(1, count)
