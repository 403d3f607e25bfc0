"""What is tried of CUDA both on the stand-in and on a GPU: matrix products and attacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyleak.attacks import Matching, Reconstruction
from tinyleak.client import Client, Truth, simulate
from tinyleak.data import load_glyphs
from tinyleak.nn import LeNet
from tinyleak.nn.model import Model

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Product:
    """Matrices (…, n, k) @ (…, k, m), and how each of the three lies in memory."""

    a: Shape
    b: Shape
    layouts: tuple[str, str, str] = ("plain", "plain", "plain")

    def __str__(self) -> str:
        sizes = " @ ".join("x".join(map(str, shape)) for shape in (self.a, self.b))
        unusual = any(layout != "plain" for layout in self.layouts)
        return f"{sizes} {' '.join(self.layouts)}" if unusual else sizes

    def arrays(self, xp: Any, dtype: str) -> list[Any]:
        """Random a and b, and an empty out."""
        rng = np.random.default_rng(3)
        a, b = (rng.standard_normal(shape).astype(dtype) for shape in (self.a, self.b))
        leading = np.broadcast_shapes(self.a[:-2], self.b[:-2])
        out = np.full((*leading, self.a[-2], self.b[-1]), np.nan, dtype)
        arrays = zip((a, b, out), self.layouts, strict=True)
        return [laid_out(xp, array, layout) for array, layout in arrays]


def laid_out(xp: Any, array: np.ndarray, layout: str) -> Any:
    """Put an array into the memory of a device, in some order."""
    if layout == "transposed":
        return xp.asarray(array.swapaxes(-1, -2).copy()).swapaxes(-1, -2)
    if layout == "reversed":
        return xp.asarray(array[..., ::-1, :].copy())[..., ::-1, :]
    if layout == "inside":  # of a larger one, from which it takes every second column
        rows, columns = array.shape[-2:]
        around = np.full((*array.shape[:-2], rows + 3, 2 * columns + 3), 7, array.dtype)
        around[..., 1 : rows + 1, 2 : 2 * columns + 2 : 2] = array
        return xp.asarray(around)[..., 1 : rows + 1, 2 : 2 * columns + 2 : 2]
    if layout == "leading axis last":
        return xp.moveaxis(xp.asarray(np.moveaxis(array, 0, -1).copy()), -1, 0)
    assert layout == "plain"
    return xp.asarray(array)


PRODUCTS = [
    # Sizes about the kernels' own, 16 and 32, and the depth from which on a warp sums up.
    *[
        Product((n, k), (k, m))
        for n, k, m in [
            (3, 4, 2),
            (1, 1, 1),
            (15, 16, 17),
            (16, 15, 16),
            (33, 31, 18),
            (9, 63, 5),
            (4, 64, 3),
            (1, 100, 1),
            (1, 588, 10),
            (49, 300, 12),
            (300, 80, 300),  # too many elements for a warp each
        ]
    ],
    Product((1, 3, 4), (1, 4, 2)),
    Product((5, 3, 4), (5, 4, 2)),
    Product((300, 2, 3), (300, 3, 2)),
    Product((3, 5, 65), (3, 65, 2)),
    Product((2, 3, 4, 5), (2, 3, 5, 2)),
    # One of the two, or both, broadcast.
    Product((2, 3, 4), (4, 5)),
    Product((3, 4), (2, 4, 5)),
    Product((1, 70), (2, 3, 70, 5)),
    Product((2, 3, 4, 5), (5, 2)),
    Product((2, 1, 3, 4), (3, 4, 2)),
    Product((1, 3, 2, 4), (2, 1, 4, 3)),
    Product((2, 1, 5, 80), (2, 3, 80, 1)),
    # Anyhow in memory.
    *[
        Product(*shapes, layouts)
        for shapes in [((5, 7), (7, 18)), ((2, 5, 66), (2, 66, 3)), ((2, 3, 4, 5), (2, 1, 5, 6))]
        for layouts in [
            ("transposed", "plain", "plain"),
            ("plain", "transposed", "plain"),
            ("transposed", "transposed", "transposed"),
            ("inside", "inside", "inside"),
            ("reversed", "plain", "reversed"),
            ("plain", "reversed", "transposed"),
        ]
    ],
    Product((4, 5, 6), (4, 6, 3), ("leading axis last", "plain", "plain")),
    Product((4, 5, 6), (4, 6, 3), ("plain", "leading axis last", "leading axis last")),
]


def matching(
    xp: Any, model: Model, attacks: int, batch: int, dtype: str, *, stacked: bool, known: bool
) -> Matching:
    """An objective for `attacks` on made-up gradients, on a device."""
    rng = np.random.default_rng(5)
    lead = (attacks,) if stacked else ()

    def draw(shape: Shape) -> Any:
        return xp.asarray(rng.uniform(-0.5, 0.5, (*lead, *shape)).astype(dtype))

    targets = xp.asarray(
        np.eye(model.classes, dtype=dtype)[rng.integers(model.classes, size=batch)]
    )
    return Matching(
        model,
        {name: draw(shape) for name, shape in model.shapes.items()},
        {name: draw(shape) for name, shape in model.shapes.items()},
        batch,
        xp.asarray(np.linspace(1, 2, attacks, dtype=dtype) if stacked else np.array(0.5, dtype)),
        targets if known else None,
    )


def unknowns(objective: Matching) -> int:
    """How many numbers the objective asks for: pixels, and logits of labels that are not known."""
    logits = 0 if objective.targets is not None else objective.batch * objective.model.classes
    return objective.image_size + logits


def dummies(objective: Matching, attacks: int, seed: int) -> np.ndarray:
    """Dummies for an objective: (attacks, n), on the host."""
    dtype = next(iter(objective.params.values())).dtype
    shape = (attacks, unknowns(objective))
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def simulated(count: int, batch: int = 1) -> tuple[tuple[Client, ...], tuple[Truth, ...]]:
    """Clients of LeNet with built-in digits, each with weights of its own, and their truths."""
    digits = load_glyphs(count * batch)
    parts = [slice(start, start + batch) for start in range(0, count * batch, batch)]
    pairs = [
        simulate(LeNet(), digits.images[part], digits.labels[part], seed=seed)
        for seed, part in enumerate(parts)
    ]
    clients, truths = zip(*pairs, strict=True)
    return clients, truths


def largest_difference(found: Reconstruction, expected: Reconstruction, iterations: int) -> float:
    """How far two attacks are apart over their first iterations, relatively."""
    ours, theirs = found.distances[: iterations + 1], expected.distances[: iterations + 1]
    assert len(ours) == len(theirs)
    apart = [abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True)]
    for a, b in zip(found.snapshots, expected.snapshots, strict=False):
        assert a.iteration == b.iteration
        if a.iteration <= iterations:
            apart.append(spread(a.images, b.images))
    return max(apart)


def spread(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, as a share of the largest number expected."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())
