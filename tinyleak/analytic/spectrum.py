"""How many inputs a layer's gradient adds up, what noise is on it, and what weight decay.

The gradient G of a linear layer, with that of its bias as its last column, has the rank N of its
inputs (see `layer_gradient`). What is beside that rank is rounding, noise, or weight decay: with
decay the gradient is G + λΘ, and the layer's own weights Θ = [W | b] have every rank.
"""

from dataclasses import dataclass

import numpy as np

from tinyleak.analytic.subspace import without
from tinyleak.backend import Array

EDGE = 1.5
"""How far a singular value stands out from noise, at least. Noise of standard deviation s alone
gives an (m, n) matrix singular values of up to about s (√m + √n) (Davidson and Szarek 2001); half
as much again allows for an s that is itself an estimate."""

ROUNDING_EDGE = 6.0
"""The same where rounding is all the noise. It is uneven, and a sum over a batch is rounded more
often than once: as measured by tests/test_premises.py, it stands out up to half as far."""

ROUNDED = 0.2
"""What writing a number rounds off, root mean square, as a share of it and in units of the format's
`eps`: 1/√3 of half a last place, which is between a quarter and a half of that unit."""

DECOMPOSED = 10.0 * float(np.finfo(float).eps)
"""Rounding in the decomposition itself, of the largest singular value: as in `layer_gradient`."""

FEWEST = 3
"""Noise is told from one more input by this many singular values or more: it has them all."""

MOST_STEPS, DIGITS = 50, 1e-12
"""How often λ is improved, and the relative change from which on it is not any more: that of
float64's own rounding. Ten are enough mostly."""

SIGNIFICANT = 8.0
"""A coefficient counts as present from so many of its standard errors on. Normal noise reaches that
once in 10¹⁵ times; what is not quite normal is allowed for."""


@dataclass(frozen=True)
class Spectrum:
    """What a layer's gradient is made of."""

    rank: int  # how many inputs it shows, or as many as it has room for
    room: int  # how many it has room for
    # The variance of each entry's error; None where the rank leaves none to see.
    noise: float | None
    free: int  # how many numbers the noise was measured with
    # Whether rounding explains that error; where all room is taken that is not known, and `clean`
    # is false.
    clean: bool


def read_spectrum(matrix: Array, deviations: Array, batch: int, *, zero_sum: bool) -> Spectrum:
    """Tell inputs from noise by singular values.

    Args:
        matrix: (O, F + 1), G.
        deviations: (O, F + 1), the standard deviation that rounding alone gives each entry.
        batch: how many inputs were said to be in it.
        zero_sum: whether the rows add up to zero but for the error, which costs one rank.
    """
    # A random matrix of uneven entries is about as long as its longest row and its longest column
    # together (Bandeira and van Handel 2016, theorem 1.1).
    reach = sum(float(np.linalg.norm(deviations, axis=axis).max()) for axis in (0, 1))
    if zero_sum:
        matrix = without(matrix, np.ones(len(matrix)))
    rows, columns = matrix.shape
    sizes = np.linalg.svd(matrix, compute_uv=False)
    room, edge = len(sizes), max(ROUNDING_EDGE * reach, DECOMPOSED * float(sizes[0]))
    kept = int(np.sum(sizes > edge))
    if kept < room:
        return Spectrum(kept, room, *tail(sizes, kept, rows, columns), clean=True)
    for kept in range(max(0, min(batch, room - FEWEST)), room - FEWEST + 1):
        noise, free = tail(sizes, kept, rows, columns)
        edge = EDGE * np.sqrt(noise) * (np.sqrt(rows - kept) + np.sqrt(columns - kept))
        if sizes[kept] <= edge:
            rank = max(1, int(np.sum(sizes > edge)))  # noise alone is no gradient
            return Spectrum(rank, room, noise, free, clean=False)
    if batch < room:
        return Spectrum(room, room, *tail(sizes, batch, rows, columns), clean=False)
    return Spectrum(room, room, None, 0, clean=False)


def read_decay(matrix: Array, weights: Array, rank: int, start: float = 0.0) -> tuple[float, float]:
    """Return λ of G + λΘ by the rank of G, and its standard error.

    Beside the `rank` largest singular values G has nothing, so there the shared gradient is λΘ: a
    regression, repeated with what it says removed until that does not change.

    Args:
        matrix: (O, F + 1), G + λΘ.
        weights: (O, F + 1), Θ.
        rank: of G, below O − 1 and F.
        start: λ as it is known before.
    """
    decay, before, moved_before = start, 0.0, 0.0
    for step in range(MOST_STEPS):
        u, _, v = np.linalg.svd(matrix - decay * weights, full_matrices=False)
        outside = [_outside(array, u[:, :rank], v[:rank]) for array in (matrix, weights)]
        square = float(np.sum(outside[1] ** 2))
        moved = float(np.sum(outside[0] * outside[1])) / square - decay
        if abs(moved) <= DIGITS * abs(decay + moved):
            break
        # The regression comes nearer by the same factor each time, so the secant knows where to.
        slope = (moved - moved_before) / (decay - before) if step and decay != before else -1.0
        before, moved_before = decay, moved
        decay = decay - moved / slope if slope < 0 else decay + moved
    rest = outside[0] - (decay + moved) * outside[1]
    free = (len(matrix) - rank) * (matrix.shape[1] - rank)
    return decay + moved, float(np.sqrt(np.sum(rest**2) / free / square))


def tail(sizes: Array, kept: int, rows: int, columns: int) -> tuple[float, int]:
    """Return the variance of noise that is all beside a rank, and how many numbers measured it."""
    free = (rows - kept) * (columns - kept)
    return float(np.square(sizes[kept:]).sum()) / free, free


def rounded_sizes(
    matrix: Array, decomposition: tuple[Array, Array, Array], roundoff: float
) -> Array:
    """Return how large writing the entries of a matrix alone makes each singular value: (k,).

    It is expected, where there would be none. A long row's rounding may be all of a direction that
    short rows hardly have a part in. Of rows and columns that are alike it is √rows + √columns
    times an entry's.

    Args:
        matrix: (O, F + 1).
        decomposition: its singular vectors and values, (O, k), (k,) and (k, F + 1).
        roundoff: `eps` of the format that it was written in.
    """
    u, _, v = decomposition
    variances = np.square(ROUNDED * roundoff * matrix)
    by_rows, by_columns = variances.sum(axis=1), variances.sum(axis=0)
    return np.asarray(np.sqrt(by_rows @ u**2) + np.sqrt(v**2 @ by_columns))


def _outside(array: Array, u: Array, v: Array) -> Array:
    array = array - u @ (u.T @ array)
    return array - (array @ v.T) @ v
