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
from typing import Any

import numpy as np
import numpy.typing as npt

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
        # How many pairs each was given since it last forgot; on the host.
        self.counts = np.zeros(problems, int)

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
        curvatures = np.array([step.curvature for step in steps])
        rows = np.flatnonzero(curvatures > 0)
        if len(rows):
            where, slot, s_scale, y_scale = self._slots(
                rows, np.array(lengths)[rows], curvatures[rows]
            )
            y[where] *= y_scale
            self.pairs[where, slot, 0] = directions[where] * s_scale
            self.pairs[where, slot, 1] = y[where]
            self.inverse[where, slot] = 0
        problems, room, _, n = self.pairs.shape
        stacked = self.pairs.reshape(problems, 2 * room, n)
        # One pass over the pairs serves both g and y: it is memory that this product waits for.
        products = self.xp.matmul(stacked, gradients[:, :2].swapaxes(1, 2))
        products = products.reshape(problems, room, 2, 2)
        Sg, Yg, Yy = products[..., 0, 0], products[..., 1, 0], products[..., 1, 1]
        # The same for R⁻¹, which is still without the column of the new pairs.
        solved = self.xp.matmul(self.inverse, products[..., 0, :])
        u = solved[..., 0]
        if len(rows):
            solved[where, slot, 1] = -1
            column = -solved[where, :, 1]
            self.inverse[where, :, slot] = column
            u[where] += column * Sg[where, slot, None]
            self.gram[where, slot] = self.gram[where, :, slot] = Yy[where]
            self.scale[where, 0] = 1 / Yy[where, slot]

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
        self.counts[rows] = 0

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these problems, in this order."""
        where = self.xp.asarray(rows)
        self.pairs, self.inverse = self.pairs[where], self.inverse[where]
        self.gram, self.scale = self.gram[where], self.scale[where]
        self.counts = self.counts[rows]

    def _product(self, matrices: Array, vectors: Array) -> Array:
        return self.xp.matmul(matrices, vectors[:, :, None])[:, :, 0]

    def _slots(
        self,
        rows: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.float64],
        curvatures: npt.NDArray[np.float64],
    ) -> tuple[Any, Any, Any, Any]:
        """Choose a slot for each new pair; return the problems, the slots, and s and y's factors.

        These are arrays on the device, (k,) to index with and (k, 1) to multiply with. A single
        problem gets plain numbers, with which NumPy is several times faster.
        """
        slots = self.counts[rows] % self.limit
        self.counts[rows] += 1
        if slots.max() >= self.pairs.shape[1]:
            self._grow()
        y_scales = 1 / np.sqrt(curvatures)
        s_scales = lengths * y_scales
        if len(rows) == 1:
            return rows.item(), slots.item(), s_scales.item(), y_scales.item()
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
