"""The row space of a layer's gradient, and whether a vector lies in it.

An input of the layer lies in the row space up to the noise on the gradient, and any other vector is
far away from it, so membership is a test (DAGER: Petrov et al., NeurIPS 2024, section 4).
"""

import math
from dataclasses import dataclass

import numpy as np

from tinyleak.backend import Array

MARGIN = 30.0
"""How many times the distance that noise is expected to give an input still counts as lying in the
space. In the tests inputs are at 0.4 to 2.5; the rest is left for noise that is uneven."""


@dataclass(frozen=True, eq=False, repr=False)
class Subspace:
    """What the rows of a gradient span, and how exactly that is known."""

    basis: Array  # (r, d), orthonormal rows
    sizes: Array  # (r,), the singular value of the gradient that belongs to each
    noise: float  # the variance of the error of each entry of the gradient, rounding included

    def __repr__(self) -> str:
        rank, width = self.basis.shape
        return f"Subspace({rank} of {width} dimensions)"

    def distances(self, inputs: Array) -> Array:
        """Return how far each of (…, d) is from the space, (…), relative to its own length."""
        outside = inputs - (inputs @ self.basis.T) @ self.basis
        return np.linalg.norm(outside, axis=-1) / np.linalg.norm(inputs, axis=-1)

    def expected(self, inputs: Array) -> Array:
        """Return the distance that noise alone is expected to give each of (…, d) inputs: (…).

        An input x is cᵀG for some c, and noise E on G moves it by cᵀE. The shortest such c has the
        length ‖Σ⁻¹ V x‖, for singular values Σ and the basis V.
        """
        combination = (inputs @ self.basis.T) / self.sizes
        free = inputs.shape[-1] - len(self.basis)
        outside = np.sqrt(self.noise * free) * np.linalg.norm(combination, axis=-1)
        return outside / np.linalg.norm(inputs, axis=-1)

    def allowance(self, inputs: Array) -> Array:
        """Return the distance up to which each of (…, d) counts as lying in the space: (…)."""
        return MARGIN * self.expected(inputs)

    def holds(self, inputs: Array) -> Array:
        """Return whether each of (…, d) is no farther away than noise explains: (…) booleans."""
        return self.distances(inputs) <= self.allowance(inputs)


def without(rows: Array, coefficients: Array) -> Array:
    """Return combinations of rows, (k, r), as one fewer, by a basis of those that lack one of them.

    They are at right angles to that one, whose coefficients are (k,), if the rows are orthonormal.
    """
    # Householder's reflection takes the vector to the first axis, which is then left out.
    u = coefficients / np.linalg.norm(coefficients)
    u[0] += math.copysign(1.0, u[0])
    return np.asarray(rows[1:] - np.outer(u[1:], u @ rows) * (2.0 / (u @ u)))
