"""δ of one record, and how it changes with the record: what the network above a layer answers.

With the layer's answer z = W h + b and the loss ℓ of the network above for one label, δ = ∂ℓ/∂z,
and along directions Z, (n, O), of z it changes by the Hessian's ∂²ℓ/∂z² Z. Most networks above a
linear layer are activations and further linear layers. There n directions are carried through the
graph of δ together: what is elementwise multiplies all of them by one row, so it is the rows that
are multiplied, and only the products with weights touch n rows of numbers.
"""

from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np

from tinyleak.backend import Array
from tinyleak.gradient import grad, topological_order, vjp
from tinyleak.nn.criteria import Loss
from tinyleak.nn.losses import cross_entropy
from tinyleak.nn.split import Split
from tinyleak.ops import (
    broadcast_to,
    greater,
    matmul,
    maximum,
    mean,
    sigmoid,
    sqrt,
    stop_gradient,
    subtract,
    sum,
    where,
)
from tinyleak.program import Program, trace
from tinyleak.tensor import PRIMITIVES, Primitive, Tensor
from tinyleak.transforms import jvp

Parts = dict[Tensor, "Tensor | None"]
"""A derivative along n directions: blocks, (n, W), each times a row of factors or as it is."""

ELEMENTWISE = {
    *("add", "subtract", "multiply", "divide", "negate", "exp", "log", "sqrt", "tanh", "sigmoid"),
    *("softplus", "erf", "power", "where", "maximum"),
}
"""Primitives whose derivative with respect to an input of their own shape is a row of factors."""

STEP = 16  # a program is traced for a multiple of so many directions; the others are zero


class Deltas:
    """δ and its derivatives, of one record at a time, as programs."""

    def __init__(self, cut: Split, loss: Loss = cross_entropy) -> None:
        self.cut, self.loss = cut, loss  # the network, cut at the layer, and the client's loss
        self._programs: dict[tuple[int, bool], Program] = {}

    def of(self, z: Array, targets: Array) -> Array:
        """Return δ of M records: (M, O) from their answers (M, O) and targets (M, K)."""
        answers, labels = Tensor(z), Tensor(targets)
        loss = self.loss(self.cut.above(answers), labels) * float(len(z))
        return np.asarray(grad(loss, answers).data)

    def along(
        self, z: Array, target: Array, directions: Array, softness: float = 0.0
    ) -> tuple[Array, Array]:
        """Return δ of a record, (O,), and its derivatives along n directions, (n, O).

        Args:
            z: (O,).
            target: (K,).
            directions: (n, O).
            softness: how far a ReLU's slope goes from 0 to 1, in units of the spread of its inputs;
                its value stays what it is.
        """
        count = -(-max(len(directions), 1) // STEP) * STEP
        padded = np.zeros((count, len(z)))
        padded[: len(directions)] = directions
        arguments = (z[None], target[None], padded, np.array(softness, dtype=float))
        key = (count, softness > 0.0)
        if key not in self._programs:
            compute = self._soft if softness > 0.0 else self._exact
            self._programs[key] = trace(compute, *arguments, check=False)
        delta, changes = self._programs[key](*arguments)
        return delta[0], changes[: len(directions)]

    @cached_property
    def has_kinks(self) -> bool:
        """Whether the slopes above are steps, as a ReLU's: the same nearby, and others far away."""
        z = np.random.default_rng(0).standard_normal(self.cut.width)
        here, near, far = (self.jacobian(factor * z) for factor in (1.0, 1.0 + 1e-5, -1.0))

        def alike(other: Array) -> float:
            return float(np.mean(np.abs(here - other) <= 1e-9 * np.abs(here).max()))

        return alike(near) > 0.9 > alike(far)

    def jacobian(self, z: Array) -> Array:
        """Return how fast each logit rises with each answer of the layer: (K, O) from (O,)."""
        classes = self.cut.model.classes
        rows = Tensor(np.repeat(z[None], classes, axis=0))
        own = sum(self.cut.above(rows) * Tensor(np.eye(classes)))
        return np.asarray(grad(own, rows).data)

    def _exact(
        self, z: Tensor, y: Tensor, directions: Tensor, softness: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self._along(self.cut.above, z, y, directions)

    def _soft(
        self, z: Tensor, y: Tensor, directions: Tensor, softness: Tensor
    ) -> tuple[Tensor, Tensor]:
        def larger(a: Tensor, b: Tensor) -> Tensor:
            return soft_choice(a - b, a, b, softness)

        def chosen(gap: Tensor, a: Tensor, b: Tensor) -> Tensor:
            return soft_choice(gap, a, b, softness)

        # A mask is the gap that it was made of, until something is chosen by it.
        soft: dict[Primitive, Callable[..., Tensor]] = {maximum: larger, greater: subtract}
        soft[PRIMITIVES["where"]] = chosen
        return self._along(lambda rows: self.cut.above(rows, soft), z, y, directions)

    def _along(
        self, above: Callable[[Tensor], Tensor], z: Tensor, y: Tensor, directions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The gradient with respect to z of one record, and its derivatives, by two passes.

        The first carries the directions up to the logits, the second down again. Where they cannot
        be carried, each has a copy of the record.
        """
        count = directions.shape[0]
        targets = broadcast_to(y, shape=(count, y.shape[1]))

        def by_logits(rows: Tensor) -> Tensor:
            return grad(self.loss(rows, targets) * float(count), rows)

        def by_answers(rows: Tensor) -> Tensor:
            return grad(self.loss(above(rows), targets) * float(count), rows)

        try:
            logits = above(z)
            up = carried(logits, {z: directions})
            error, change = jvp(by_logits, [broadcast_to(logits, shape=targets.shape)], [up])
            first = error[:1]
            (delta,) = vjp({logits: first}, [z])
            return delta, carried(delta, {z: directions, first: change})
        except NotImplementedError:
            rows = broadcast_to(z, shape=directions.shape)
            deltas, changes = jvp(by_answers, [rows], [directions])
            return deltas[:1], changes


def soft_choice(gap: Tensor, a: Tensor, b: Tensor, softness: Tensor) -> Tensor:
    """Return a where the gap is positive, else b, but with slopes that go from b's to a's slowly.

    They do so over a stretch of `softness` times the spread of the gap.
    """
    spread = gap - mean(gap)
    width = stop_gradient(softness * sqrt(mean(spread * spread)))
    soft = b + (a - b) * sigmoid(gap / width)
    return soft + stop_gradient(where(gap > 0.0, a, b) - soft)


def carried(output: Tensor, seeds: Mapping[Tensor, Tensor]) -> Tensor:
    """Return the derivative of a row, (1, W), along n directions of others: (n, W).

    Args:
        output: of a graph of rows.
        seeds: for each row that moves, (1, V), the n directions in which it does, (n, V).

    Raises:
        NotImplementedError: something on the way is neither elementwise nor a product with
            constant weights.
    """
    # A derivative is kept as Σ row ∘ block, for a few blocks of (n, W): by block, the row.
    moving: dict[Tensor, Parts] = {x: {block: None} for x, block in seeds.items()}
    lost: set[Tensor] = set()  # of which it is not known; what lies below a seed is not asked for
    for node in topological_order(output):
        sources = [x for x in node.inputs if x in moving]
        if node in moving or node.primitive in (stop_gradient, None) or node.dtype.kind != "f":
            continue
        if not lost.isdisjoint(node.inputs):
            lost.add(node)
        elif not sources:
            continue
        elif node.primitive is matmul and node.inputs[1] not in moving:
            moving[node] = {_total(moving[sources[0]]) @ node.inputs[1]: None}
        elif node.primitive.name in ELEMENTWISE and all(x.shape == node.shape for x in sources):
            moving[node] = _scaled(node, moving)
        else:
            lost.add(node)
    if output in lost:
        raise NotImplementedError("something on the way is neither elementwise nor a product")
    return _total(moving[output])


def _scaled(node: Tensor, moving: Mapping[Tensor, Parts]) -> Parts:
    """The derivative of what is elementwise: the blocks of its inputs, by its slopes."""
    assert node.primitive is not None
    found: Parts = {}
    slopes = node.primitive.gradients(Tensor(np.ones(node.shape, node.dtype)), node)
    for x, slope in zip(node.inputs, slopes, strict=True):
        if x in moving and slope is not None:
            row = slope if isinstance(slope, Tensor) else slope()
            for block, before in moving[x].items():
                here = row if before is None else row * before
                there = found.get(block)
                found[block] = here if there is None else there + here
    return found


def _total(parts: Parts) -> Tensor:
    total: Tensor | None = None
    for block, row in parts.items():
        part = block if row is None else block * row
        total = part if total is None else total + part
    assert total is not None, "an output that moves has parts"
    return total
