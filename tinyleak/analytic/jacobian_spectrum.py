"""What a gradient determines, and at what noise it stops doing so: the singular values of J.

Near an image x the shared gradient is g(x) + J (x′ − x). Let σᵢ be the singular values of J, τ² the
variance of a pixel before anything was shared, and v that of the noise on every number shared. Then
to first order, and for independent pixels, the least error that anybody can reach is known in
closed form: each of the n directions has the posterior variance 1 / (σᵢ²/v + 1/τ²), and the mean of
these is the expected squared error of a pixel.

R-GAP (Zhu and Blaschko 2021, section 4) counts the rank of the linear constraints that an
architecture puts on its input; this measures the spectrum of one network with its weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinyleak.analytic.jacobian import Jacobian
from tinyleak.backend import Array

MOST_DENSE = 3200
"""Up to so many unknown pixels the whole of JᵀJ is computed: a batch of four 28 x 28 images, or one
of 3 x 32 x 32. Beyond, its spectrum is estimated."""

RESOLUTION = float(np.finfo(np.float32).eps)
"""A direction weaker than this, relative to the strongest, is lost when a gradient is stored as
float32. It is also about what is left of float64 once J has been squared."""

STARTS, STEPS = 4, 160
"""How many random vectors the estimate starts from, and how many products it makes with each: its
forecasts are then within 20 % of the whole spectrum's (tests/test_audit.py)."""

LEAST_EXPONENT, MOST_EXPONENT = -40.0, 20.0
"""Powers of ten between which `noise_for` looks for a variance."""


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum:
    """The singular values of the Jacobian at one batch."""

    values: Array  # (m,), descending, 0 or more
    # (m,), the share of all directions that has each value; they add up to 1. Each is 1/n where the
    # spectrum is complete.
    shares: Array
    unknowns: int  # n, how many directions there are: the batch's pixels
    # (n, n), the direction of each value as a column, where the spectrum is complete.
    axes: Array | None = None
    # Whether these are all values, or an estimate of how they are distributed.
    complete: bool = True

    def __repr__(self) -> str:
        about = "" if self.complete else "about "
        return f"<Spectrum: {about}{self.rank} of {self.unknowns} directions determined>"

    @property
    def rank(self) -> int:
        """How many directions a gradient in float32 determines at all; rounded if estimated."""
        return self._count(self.determined)

    @property
    def determined(self) -> Array:
        """Which values are those of directions that a gradient in float32 determines: (m,)."""
        return self.values > RESOLUTION * self.values.max(initial=0.0)

    def seen(self, variance: float, prior: float) -> int:
        """Return how many directions noise of this variance does not drown.

        A direction drowns where its posterior variance is half of the prior's: at v = σ²τ².
        """
        return self._count(self.determined & (self.values**2 * prior > variance))

    def drowning(self, prior: float) -> Array:
        """Return the variance of the noise at which each direction drowns: (m,), descending."""
        return self.values**2 * prior

    def forecast(self, variance: float, prior: float) -> float:
        """Return the mean squared error of a pixel that the best attacker is left with.

        Args:
            variance: v, of the noise on each number of the gradient; 0 or more.
            prior: τ², the variance of a pixel before anything was shared.

        Returns:
            A number from 0 to `prior`, which rises with the variance of the noise.

        Raises:
            ValueError: a variance below 0, or a prior that is not positive.
        """
        if not (variance >= 0 and prior > 0):
            raise ValueError(
                f"a forecast was asked for noise of variance {variance} and pixels of variance "
                f"{prior}; give 0 or more, and more than 0"
            )
        # 1 / (σ²/v + 1/τ²) = τ² · v / (σ²τ² + v), which also holds without any noise.
        strength = self.values**2 * prior
        left = np.ones_like(strength)
        np.divide(variance, strength + variance, out=left, where=self.determined)
        return float(prior * (self.shares @ left))

    def _count(self, which: Array) -> int:
        return round(self.unknowns * float(self.shares[which].sum()))


def measure(jacobian: Jacobian) -> Spectrum:
    """Return the singular values at one batch: all of them up to `MOST_DENSE`, else an estimate."""
    return estimate(jacobian) if jacobian.size > MOST_DENSE else of_gram(jacobian.gram())


def of_gram(gram: Array) -> Spectrum:
    """Return the spectrum of a Jacobian J, with its directions, from JᵀJ, (n, n)."""
    squares, axes = np.linalg.eigh(gram)
    values, size = np.sqrt(np.maximum(squares[::-1], 0.0)), len(gram)
    return Spectrum(values, np.full(size, 1.0 / size), size, axes[:, ::-1])


def estimate(jacobian: Jacobian, *, steps: int = STEPS) -> Spectrum:
    """Return an estimate of the spectrum, from some hundred products with JᵀJ and without a matrix.

    Stochastic Lanczos quadrature (Ubaru, Chen and Saad 2017): from a random vector, the Krylov
    space of JᵀJ yields a few values and weights that integrate smooth functions over the spectrum
    as all its values would. A forecast is such an integral.

    Args:
        jacobian: at one batch.
        steps: the dimension of each Krylov space, at most n.
    """
    size = jacobian.size
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (STARTS, size))
    found = seen_from(jacobian, signs, steps)
    every = np.concatenate([values for values, _ in found])
    shares = np.concatenate([shares for _, shares in found]) / STARTS
    order = np.argsort(every)[::-1]
    return Spectrum(every[order], shares[order], size, complete=False)


def seen_from(jacobian: Jacobian, vectors: Array, steps: int = STEPS) -> list[tuple[Array, Array]]:
    """Return the singular values that vectors see, and the share of each vector along each.

    For a vector b, the sum over these of share · f(value²) is about bᵀ f(JᵀJ) b / ‖b‖². The vectors
    are (R, n), none of them zero; for the others see `estimate`.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    diagonals, sides = _lanczos(jacobian, vectors / lengths, min(steps, jacobian.size))
    found = []
    for diagonal, side in zip(diagonals, sides, strict=True):
        squares, directions = np.linalg.eigh(
            np.diag(diagonal) + np.diag(side[:-1], 1) + np.diag(side[:-1], -1)
        )
        found.append((np.sqrt(np.maximum(squares, 0.0)), directions[0] ** 2))
    return found


def _lanczos(jacobian: Jacobian, starts: Array, steps: int) -> tuple[Array, Array]:
    """Run Lanczos from each of (R, n) unit vectors.

    Returns:
        The entries of R tridiagonal matrices: on the diagonal and beside it, (R, steps) each.
    """
    product = jacobian.gram_product(len(starts))
    rows, size = starts.shape
    basis = np.zeros((rows, steps, size))
    diagonals, sides = np.zeros((rows, steps)), np.zeros((rows, steps))
    vector = starts
    for step in range(steps):
        basis[:, step] = vector
        image = product(vector)
        diagonals[:, step] = (image * vector).sum(axis=1)
        for _ in range(2):  # once is not enough to stay orthogonal
            overlap = np.einsum("rsn,rn->rs", basis[:, : step + 1], image)
            image = image - np.einsum("rs,rsn->rn", overlap, basis[:, : step + 1])
        length = np.linalg.norm(image, axis=1)
        # Where the space is exhausted, nothing is left to go on with.
        exhausted = length <= RESOLUTION**2 * diagonals[:, : step + 1].max(axis=1)
        sides[:, step] = np.where(exhausted, 0.0, length)
        vector = np.where(exhausted, 0.0, image.T / np.where(exhausted, 1.0, length)).T
    return diagonals, sides


def forecasts(spectra: Sequence[Spectrum], variances: Array, prior: float) -> Array:
    """Return the forecast at each of several batches and variances: (batches, variances)."""
    return np.array([[one.forecast(float(v), prior) for v in variances] for one in spectra])


def noise_for(error: float, spectra: Sequence[Spectrum], prior: float) -> float:
    """Return the variance of the noise at which the mean forecast reaches this mean squared error.

    Returns:
        0 if the error is as large without any noise, infinity if it never is.
    """

    def mean(variance: float) -> float:
        return float(np.mean([one.forecast(variance, prior) for one in spectra]))

    if mean(0.0) >= error:
        return 0.0
    if error >= prior:
        return float("inf")
    low, high = LEAST_EXPONENT, MOST_EXPONENT
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(10.0**middle) < error else (low, middle)
    return float(10.0**high)
