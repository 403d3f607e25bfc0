"""Points of a row space that a record can be, in as many coordinates as are left to find out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from tinyleak.analytic.layer_gradient import LayerGradient
from tinyleak.analytic.subspace import without
from tinyleak.backend import Array
from tinyleak.nn.split import Split
from tinyleak.tensor import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class RowSpace:
    """What a layer's inputs span, and what the layer answers to it.

    U, S and V are the gradient's decomposition, as far as it stands out from noise.
    """

    U: Array  # (O, r)
    S: Array  # (r,)
    V: Array  # (r, F), or (r, F + 1) with a bias
    answers: Array  # (r, O), W times each row of V, but for its last entry if there is a bias
    bias: Array | None  # (O,), the layer's; None if it has none

    @classmethod
    def of(cls, layer: LayerGradient, cut: Split) -> RowSpace:
        """Decompose the gradient of the layer that a network is cut at."""
        rank, width = layer.rank, layer.weight_gradient.shape[1]
        U, S, V = layer.decomposition
        shift = cut.outputs(Tensor(np.zeros((1, width)))).data
        answers = cut.outputs(Tensor(V[:rank, :width].copy())).data - shift
        bias = None if layer.bias_gradient is None else shift[0]
        return cls(np.ascontiguousarray(U[:, :rank]), S[:rank], V[:rank], answers, bias)

    def points(self, basis: Array) -> Points:
        """Return the points that a basis of coordinates spans, orthonormal rows (k, r)."""
        start, axes, V = np.zeros(len(self.S)), basis, self.V
        if self.bias is not None:
            ends, V = basis @ V[:, -1], V[:, :-1]
            start, axes = ends @ basis / (ends @ ends), without(basis, ends)
        shift = 0.0 if self.bias is None else self.bias
        return Points(
            start, axes, start @ V, axes @ V, start @ self.answers + shift, axes @ self.answers
        )


@dataclass(frozen=True, eq=False, repr=False)
class Points:
    """Inputs h = h₀ + t H in coordinates t, (n,); with a bias (h, 1) is in the row space."""

    c0: Array  # (r,), h₀ in coordinates of the row space's basis V
    c: Array  # (n, r), H likewise
    h0: Array  # (F,)
    h: Array  # (n, F)
    z0: Array  # (O,), what the layer answers to h₀
    z: Array  # (n, O), and to H

    def at(self, t: Array) -> tuple[Array, Array, Array]:
        """Return c, h and z of a point."""
        return self.c0 + t @ self.c, self.h0 + t @ self.h, self.z0 + t @ self.z

    def faintly(self, share: float) -> Points:
        """Return the same points with so small a share of the layer's answers."""
        return replace(self, z0=share * self.z0, z=share * self.z)

    def nearest(self, c: Array) -> Array:
        """Return t of the point nearest to one in coordinates of V."""
        return np.asarray(self.c @ (c - self.c0))

    def random(self, rng: np.random.Generator) -> Array:
        """Return t of a random point: at most half as far again from h₀ as that is from 0."""
        t = rng.standard_normal(len(self.c))
        if not len(t):
            return t
        size = float(np.linalg.norm(self.h0))
        if size > 0.0:
            return np.asarray(t * (1.5 * rng.uniform() * size / np.linalg.norm(t @ self.h)))
        # Without a bias nothing says how long an input is: about a quarter in each entry.
        size = 0.25 * math.sqrt(self.h.shape[1])
        ones = self.h.sum(axis=1)
        t *= rng.uniform(0.0, 0.5) * size / np.linalg.norm(t @ self.h)
        return np.asarray(t + size * ones / np.linalg.norm(ones))
