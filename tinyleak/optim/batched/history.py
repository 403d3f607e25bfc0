"""The inverse Hessian of L-BFGS in its compact form, for many problems at once.

The formula is that of `quasi_newton.InverseHessian`, with an axis over the problems in front. With
S and Y as columns, and as one product with the stacked pairs [S; Y],

    u = R⁻¹·Sᵀg,    v = R⁻ᵀ·(u + γ·(YᵀY·u − Yᵀg)),    −H·g = −γ·g − S·v + γ·Y·u.

The pairs lie in a ring. When a slot is used again, its row of R⁻¹ is set to zero; its column, being
the oldest pair's, is zero but for the diagonal. An empty slot is zero as well and adds nothing to
any sum, so problems with different counts need no mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np

from tinyleak.backend import Array, array_module
from tinyleak.optim.line_search import Step

_FIRST_ROOM = 8
"""Slots at first; they are doubled when they are full, so that short runs stay cheap."""


class History:
    """The pairs of A problems and what follows from them; everything large stays on the device."""

    def __init__(self, start: Array, limit: int) -> None:
        """Begin with no pairs for problems that start at `start`, (A, n); keep at most `limit`."""
        self.xp: Any = array_module(start)
        self.limit = limit
        problems, n = start.shape
        room = min(limit, _FIRST_ROOM)
        self.pairs = self.xp.zeros((problems, room, 2, n), dtype=start.dtype)  # scaled s and y
        self.inverse = self.xp.zeros((problems, room, room), dtype=start.dtype)  # R⁻¹
        self.gram = self.xp.zeros((problems, room, room), dtype=start.dtype)  # YᵀY
        self.scale = self.xp.ones((problems, 1), dtype=start.dtype)  # γ: all of H without a pair
        self.counts = [0] * problems  # pairs that each was given since it last forgot, on the host

    def next_directions(
        self, directions: Array, gradients: Array, lengths: Sequence[float], steps: Sequence[Step]
    ) -> Array:
        """Add the pairs of the steps just accepted, then return −H·g of all problems, (A, n).

        Args:
            directions: (A, n) the directions d that were followed.
            gradients: (A, ≥2, n) the gradient g now, and its change y over the step; where a pair
                is added, y is scaled in place.
            lengths: how far along d each problem moved: its pair is s = length·d and y.
            steps: the pair is added if `curvature`, its sᵀy, is positive.
        """
        g, y = gradients[:, 0], gradients[:, 1]
        rows = [row for row, step in enumerate(steps) if step.curvature > 0]
        if rows:
            where, slot, s_scale, y_scale = self._slots(
                rows, [lengths[row] for row in rows], [steps[row].curvature for row in rows]
            )
            y[where] *= y_scale
            self.pairs[where, slot, 0] = directions[where] * s_scale
            self.pairs[where, slot, 1] = y[where]
        problems, room, _, n = self.pairs.shape
        stacked = self.pairs.reshape(problems, 2 * room, n)
        # One pass over the pairs serves both g and y: it is memory that this product waits for.
        products = self.xp.matmul(stacked, gradients[:, :2].swapaxes(1, 2))
        products = products.reshape(problems, room, 2, 2)
        if rows:
            self._border(where, slot, products[..., 0, 1], products[..., 1, 1])
        Sg, Yg = products[..., 0, 0], products[..., 1, 0]

        u = self._product(self.inverse, Sg)
        weights = self.xp.empty((problems, 1, room, 2), dtype=g.dtype)
        inner = u + self.scale * (self._product(self.gram, u) - Yg)
        weights[:, 0, :, 0] = -self.xp.matmul(inner[:, None], self.inverse)[:, 0]
        weights[:, 0, :, 1] = self.scale * u
        combined = self.xp.matmul(weights.reshape(problems, 1, 2 * room), stacked)[:, 0]
        combined -= self.scale * g
        return combined

    def forget(self, rows: Sequence[int], scales: Array) -> None:
        """Drop all pairs of some problems, so that their H is γ·I, with γ from `scales`, (k, 1)."""
        where = self.xp.asarray(rows)
        for array in (self.pairs, self.inverse, self.gram):
            array[where] = 0
        self.scale[where] = scales
        for row in rows:
            self.counts[row] = 0

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these problems, in this order."""
        where = self.xp.asarray(rows)
        self.pairs, self.inverse = self.pairs[where], self.inverse[where]
        self.gram, self.scale = self.gram[where], self.scale[where]
        self.counts = [self.counts[row] for row in rows]

    def _border(self, where: Any, slot: Any, Sy: Array, Yy: Array) -> None:
        """Let the pairs just written to `slot` take the place of what was there."""
        self.inverse[where, slot] = 0
        column = self._product(self.inverse, Sy)[where]
        self.inverse[where, :, slot] = -column
        self.inverse[where, slot, slot] = 1
        self.gram[where, slot] = Yy[where]
        self.gram[where, :, slot] = Yy[where]
        self.scale[where, 0] = 1 / self.gram[where, slot, slot]

    def _product(self, matrices: Array, vectors: Array) -> Array:
        return self.xp.matmul(matrices, vectors[:, :, None])[:, :, 0]

    def _slots(
        self, rows: Sequence[int], lengths: Sequence[float], curvatures: Sequence[float]
    ) -> tuple[Any, Any, Any, Any]:
        """Choose a slot for each new pair; return the problems, the slots, and s and y's factors.

        These are arrays on the device, (k,) to index with and (k, 1) to multiply with. A single
        problem gets plain numbers, with which NumPy is several times faster.
        """
        slots = [self.counts[row] % self.limit for row in rows]
        for row in rows:
            self.counts[row] += 1
        if max(slots) >= self.pairs.shape[1]:
            self._grow()
        y_scales = [1 / sqrt(curvature) for curvature in curvatures]
        s_scales = [length * scale for length, scale in zip(lengths, y_scales, strict=True)]
        if len(rows) == 1:
            return rows[0], slots[0], s_scales[0], y_scales[0]
        where = self.xp.asarray(np.array([rows, slots]))
        factors = self.xp.asarray(np.array([s_scales, y_scales], dtype=self.pairs.dtype))
        return where[0], where[1], factors[0, :, None], factors[1, :, None]

    def _grow(self) -> None:
        """Double the room; the arrays stay contiguous."""
        room = self.pairs.shape[1]
        more = (0, min(2 * room, self.limit) - room)
        self.pairs = self.xp.pad(self.pairs, ((0, 0), more, (0, 0), (0, 0)))
        self.inverse = self.xp.pad(self.inverse, ((0, 0), more, more))
        self.gram = self.xp.pad(self.gram, ((0, 0), more, more))
