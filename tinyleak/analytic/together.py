"""Records that were found one by one, refined together: each says where the others are.

For D of the columns δᵢ = U bᵢ and H of the rows cᵢᵀ V, G = U S V = Dᵀ H / N, so that for any two of
the records that were found, whatever others there are,

    cᵢᵀ S⁻¹ bⱼ = N / copies for i = j, and 0 otherwise.

One record alone is found by what its δ has outside of the column space, whose noise may hide how
records that look alike, as parts of one photograph do, are mixed. These are M² equations more. With
those of each record they are solved by Gauss and Newton's method, each divided by its own noise,
which is, for noise of variance s² on every entry of G, s |S⁻¹ bᵢ| for what δᵢ has outside, and
s |S⁻¹ cᵢ| |S⁻¹ bⱼ| for a product. A step is solved for by conjugate gradients, which each record's
own equations precondition.
"""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from tinyleak.analytic.deltas import Deltas
from tinyleak.analytic.points import RowSpace
from tinyleak.backend import Array
from tinyleak.optim.conjugate_gradients import conjugate_gradients

STEPS, HALVINGS, PRODUCTS = 20, 4, 500
"""Steps of Gauss and Newton's method at most, how often one is halved that leads up, and products
of the conjugate gradients for each."""

LEAST_GAIN = 1.0
"""What a step must take from the sum of squares, in units of the noise: less tells nothing."""

ENOUGH = 1e-5
"""A step is known well enough when what is left of it is this share of the noise of each record; at
1e-2 twins were left 20 times as far from where they end as noise moves them."""

RIDGE = 1e-12
"""Added to each record's own equations, relative to their diagonal, so that an inverse exists."""

MEDIAN = 0.674  # of the size of a normal variable, in units of its standard deviation
PROBES = 4  # how many draws of the noise tell how far it may have moved each record


@dataclass(frozen=True, eq=False)
class Together:
    """Records after they were refined."""

    c: Array  # (M, r), in coordinates of the row space's basis
    spreads: Array  # (M,), how far noise may have moved each, in units of its input
    misfits: Array  # (M, M), the larger error of the two equations of a pair, in units of its noise


class _Equations:
    """What records say of each other and of themselves, linear in small moves."""

    def __init__(
        self,
        space: RowSpace,
        deltas: Deltas,
        c: Array,
        targets: Array,
        counts: Array | None,
        noise: float,
    ) -> None:
        points = space.points(np.eye(len(space.S)))
        self.axes = points.c
        t = np.array([points.nearest(one) for one in c])
        self.c = points.c0 + t @ points.c
        z = points.z0 + t @ points.z
        count, (n, rank) = len(c), points.c.shape
        b, own = np.empty((count, rank)), np.empty(count)
        self.own, self.slope = np.empty((count, n, n)), np.empty((count, n))
        self.by_b = np.empty((count, count, n))
        for k in range(count):
            delta, J = deltas.along(z[k], targets[k], points.z)
            b[k], within = space.U.T @ delta, J @ space.U
            size = noise * float(np.linalg.norm(b[k] / space.S))
            rest = (delta - space.U @ b[k]) / size
            self.own[k] = (J @ J.T - within @ within.T) / size**2
            self.slope[k] = J @ rest / size
            own[k] = rest @ rest
            self.by_b[k] = (self.c / space.S) @ within.T
        self.by_c = (b / space.S) @ points.c.T
        sizes = noise * np.outer(
            np.linalg.norm(self.c / space.S, axis=1), np.linalg.norm(b / space.S, axis=1)
        )
        self.weights = 1.0 / sizes
        if counts is None:
            np.fill_diagonal(self.weights, 0.0)
        wanted = np.diag(np.zeros(count) if counts is None else counts)
        self.products = (self.c @ (b / space.S).T - wanted) * self.weights
        self.slope += self.back(self.products[None])[0]
        self.value = float(own.sum() + np.square(self.products).sum())

    def along(self, a: Array) -> Array:
        """Return how the products change, (P, M, M), with P moves of all records, (P, M, n)."""
        by_b = np.matmul(self.by_b, a.transpose(1, 2, 0)).transpose(2, 1, 0)
        return np.asarray((a @ self.by_c.T + by_b) * self.weights)

    def back(self, change: Array) -> Array:
        """Return what is the transpose of `along`."""
        change = change * self.weights
        by_b = np.matmul(change.transpose(2, 0, 1), self.by_b).transpose(1, 0, 2)
        return np.asarray(change @ self.by_c + by_b)

    def solve(self, slopes: Array, inverse: Array) -> Array:
        """Return P moves that have these slopes, (P, M, n), by preconditioned conjugate gradients.

        Args:
            slopes: (P, M, n).
            inverse: (M, n, n), of each record's own block.
        """

        def of_each(blocks: Array, a: Array) -> Array:
            return np.matmul(blocks, a.transpose(1, 2, 0)).transpose(2, 0, 1)

        def times(a: Array) -> Array:
            return of_each(self.own, a) + self.back(self.along(a))

        def inner(a: Array, b: Array) -> Array:
            return np.einsum("pmn,pmn->p", a, b)[:, None, None]

        enough, precondition = ENOUGH * slopes.shape[1], partial(of_each, inverse)
        return conjugate_gradients(times, slopes, PRODUCTS, enough, precondition, inner).s

    def inverse(self) -> Array:
        """Return the inverses of each record's own block of the Gauss–Newton matrix, (M, n, n)."""
        squares = self.weights**2
        blocks = np.empty_like(self.own)
        for k, own in enumerate(self.own):
            by_c = (self.by_c.T * squares[k]) @ self.by_c
            blocks[k] = own + by_c + (self.by_b[k].T * squares[:, k]) @ self.by_b[k]
            blocks[k] += RIDGE * np.diag(np.diag(blocks[k]))
        return np.linalg.inv(blocks)


def refine(
    space: RowSpace,
    deltas: Deltas,
    c: Array,
    targets: Array,
    counts: Array | None,
    noise: float,
    rng: np.random.Generator,
) -> Together:
    """Refine records together.

    Args:
        space: the row space.
        deltas: what the network answers.
        c: (M, r), the records as they were found.
        targets: (M, K), their labels as rows.
        counts: (M,), what cᵢᵀ S⁻¹ bᵢ are; None where the loss's factor is not known.
        noise: the standard deviation of each entry of the gradient.
        rng: draws the noise that is tried.
    """
    now = _Equations(space, deltas, c, targets, counts, noise)
    inverse = now.inverse()
    for _ in range(STEPS):
        move, before = now.solve(now.slope[None], inverse)[0] @ now.axes, now.value
        for _ in range(HALVINGS):
            new = _Equations(space, deltas, now.c - move, targets, counts, noise)
            if new.value < before:
                now, inverse = new, new.inverse()
                break
            move = 0.5 * move
        if before - now.value < LEAST_GAIN:
            break
    # A client rounds each δ as well, by more than the sum of all outside of what they span.
    size = np.abs(now.products)
    equations = len(c) * (len(space.U) - len(space.S) + len(c))
    scale = max(1.0, math.sqrt(now.value / equations), float(np.median(size)) / MEDIAN)
    axes, sizes, _ = np.linalg.svd(now.own, hermitian=True)
    roots = axes * np.sqrt(sizes)[:, None]
    drawn = now.back(rng.standard_normal((PROBES, *now.products.shape)))
    own = rng.standard_normal(drawn.shape).transpose(1, 2, 0)
    drawn += np.matmul(roots, own).transpose(2, 0, 1)
    moved = now.solve(drawn, inverse) @ now.axes @ space.V
    spreads = scale * np.sqrt(np.square(moved).sum(axis=2).mean(axis=0))
    return Together(now.c, spreads, np.maximum(size, size.T) / scale)
