"""The row space of a weight's gradient: where the layer's inputs must lie.

For a linear layer with inputs x_t and gradients δ_t by its outputs, the gradient by its weight is
Σ_t δ_t x_tᵀ. All its rows are sums of inputs, and as long as there are fewer inputs than an input
has numbers, and the δ_t are independent, its row space is spanned by the inputs and by nothing
else (DAGER: Petrov et al., NeurIPS 2024). That holds in whole or not at all, so an
input is told from everything else by whether it lies in that space.

Lesson: lessons/13_text.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinyleak.backend import Array

ROUNDING = 10.0
"""How many float64 roundings of the largest singular value the decomposition itself is off."""

EDGE = 1.5
"""How far a direction stands out from noise, at least: noise of standard deviation s alone gives an
(m, n) matrix singular values of up to about s (√m + √n) (Davidson and Szarek 2001)."""

MARGIN = 30.0
"""How many times the error that is expected of an input, it may be away from the space."""


@dataclass(frozen=True)
class RowSpace:
    """The space that a layer's inputs span, and how exactly it is known.

    Attributes:
        basis: (r, d), orthonormal rows.
        sizes: (r,), the singular value that belongs to each, of the gradient scaled to 1.
        noise: what is wrong with an entry of that gradient: the standard deviation, measured where
            without noise or rounding there would be zeros.
    """

    basis: Array
    sizes: Array
    noise: float

    @classmethod
    def of(cls, gradients: Sequence[Array], inputs: int) -> RowSpace:
        """Measure the space.

        Args:
            gradients: (O, d) each, of the weights of layers that have the same inputs.
            inputs: how many there are.

        Raises:
            ValueError: as many inputs as an input has numbers, or more; or all gradients are zero.
        """
        width = gradients[0].shape[1]
        if inputs >= width:
            raise ValueError(
                f"{inputs} tokens span all {width} numbers of a token's vector, so every word "
                "lies in their space; give fewer or shorter sentences, or more --width"
            )
        lengths = [float(np.linalg.norm(g.astype(float))) for g in gradients]
        if max(lengths) == 0.0:
            raise ValueError(
                "the first layer's gradient is zero, so it has no row space; a defence may have "
                "pruned it away"
            )
        # Each by its own length, since rounding and what it says are in proportion to that.
        scaled = [g.astype(float) / n for g, n in zip(gradients, lengths, strict=True) if n > 0]
        rows = np.concatenate(scaled)
        _, sizes, directions = np.linalg.svd(rows, full_matrices=False)
        rounding = ROUNDING * np.finfo(float).eps * sizes[0] / np.sqrt(rows.size)
        # Directions beyond as many as there are inputs are noise and nothing else; and as there may
        # be fewer different inputs than inputs, so are those that do not stand out from it.
        kept, before = inputs, width
        while kept < before:
            free = (len(rows) - kept) * (width - kept)
            noise = max(float(np.sqrt(np.square(sizes[kept:]).sum() / free)), float(rounding))
            edge = EDGE * noise * (np.sqrt(len(rows)) + np.sqrt(width))
            kept, before = int(np.sum(sizes[:kept] > edge)), kept
        return cls(directions[:kept], sizes[:kept], noise)

    def distances(self, inputs: Array) -> Array:
        """Return how far each of (…, d) is from the space, (…), relative to its length."""
        inside = inputs @ self.basis.T
        outside = inputs - inside @ self.basis
        return np.linalg.norm(outside, axis=-1) / np.linalg.norm(inputs, axis=-1)

    def expected(self, inputs: Array) -> Array:
        """Return the distance that noise alone gives each of (…, d), if it is an input: (…).

        An input is some cᵀ times the gradient's rows, and noise N there moves it by cᵀN. The
        shortest such c has length ‖Σ⁻¹ V x‖ for singular values Σ and directions V.
        """
        combination = (inputs @ self.basis.T) / self.sizes
        free = inputs.shape[-1] - len(self.basis)
        moved = self.noise * np.sqrt(free) * np.linalg.norm(combination, axis=-1)
        return moved / np.linalg.norm(inputs, axis=-1)

    def allowance(self, inputs: Array) -> Array:
        """Return the distance up to which each of (…, d) counts as lying in the space, (…)."""
        return MARGIN * self.expected(inputs)

    def holds(self, inputs: Array) -> Array:
        """Return, for each of (…, d), whether it is no farther away than noise explains: (…)."""
        return self.distances(inputs) <= self.allowance(inputs)
