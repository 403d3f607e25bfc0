"""Noise on a gradient, measured where without it there would be zeros."""

from dataclasses import dataclass

import numpy as np

from tinyleak.analytic.cause import Cause
from tinyleak.analytic.shared import Layer, Shared
from tinyleak.analytic.spectrum import FEWEST, SIGNIFICANT, Spectrum
from tinyleak.analytic.subspace import without
from tinyleak.backend import Array

HEAVY_TAIL = 4.5
"""The kurtosis of normal noise is 3 and that of Laplace's 6; halfway between, in thousands of
numbers, neither is taken for the other."""

FILLED = 0.5
"""Noise gives every singular value at least about s (√n − √m) (Davidson and Szarek 2001): half as
much is too little for noise."""


@dataclass(frozen=True)
class Noise:
    """What is on a gradient beside its images.

    Attributes:
        variance: of each entry's error, rounding included; None where it cannot be measured.
        rank: how many images the layers show, at least; None where they cannot.
        clean: whether rounding explains the error; None where that is not known.
        zero_sum: whether the last layer's rows add up to zero, as cross-entropy's do; None where
            noise hides it.
        cause: the same for a person, or None.
    """

    variance: float | None
    rank: int | None
    clean: bool | None
    zero_sum: bool | None
    cause: Cause | None = None


def measure_noise(shared: Shared, last: Layer, *, zero_sum: bool) -> Noise:
    """Measure noise by the fully connected layers that have room for more images than there are.

    One layer that has only rounding beside its images contradicts noise on another, unless that
    has room for as many.
    """
    layers = shared.layers
    spectra = [
        shared.spectrum(layer.matrix, layer.deviations, zero_sum=zero_sum and layer is last)
        for layer in layers
    ]
    clean = [s for s in spectra if s.clean]
    ranks = sorted(s.rank for s in clean)
    rank = ranks[-1] if ranks else None
    if ranks and ranks[0] <= shared.batch < ranks[-1]:
        # More images than were said would show in every layer; something else shows in one.
        rank = shared.batch
    images = shared.batch if rank is None else rank
    noisy = [
        (s, layer)
        for s, layer in zip(spectra, layers, strict=True)
        if not s.clean and images + FEWEST <= s.room and not (zero_sum and layer is last)
    ]
    if noisy:
        rank = max(s.rank for s, _ in noisy)
        rank = None if any(s.rank == s.room for s, _ in noisy) else rank
        variance = _pooled([s for s, _ in noisy])
        tails = [_tail(layer, s.rank) for s, layer in noisy if s.rank < s.room]
        lasting = None if not rank or _is_noise(last) else False
        return Noise(variance, rank, False, lasting, _cause(shared, variance or 0.0, tails))
    total = last.matrix.sum(axis=0)
    variance = float(np.mean(total**2)) / len(last.matrix)
    if zero_sum:
        rank = rank or spectra[-1].room
        return Noise(_pooled(clean) or variance, rank, True, True)
    if clean:
        return Noise(_pooled(clean), rank, True, False)
    # All room is taken: noise, or as many images of another loss than cross-entropy.
    rows, columns = last.matrix.shape
    least = FILLED * np.sqrt(variance) * abs(np.sqrt(columns) - np.sqrt(rows))
    if spectra[-1].room < 2 or np.linalg.svd(last.matrix, compute_uv=False)[-1] < least:
        return Noise(None, None, None, False)
    return Noise(variance, None, False, None, _cause(shared, variance, []))


def _is_noise(last: Layer) -> bool:
    """Return whether noise explains what the rows of the last layer's weight add up to.

    Noise does not favour the few directions that the features of the images lie in, and with
    another loss than cross-entropy the sum lies in them. It is measured by the sum itself, outside
    of them: it may be in proportion to each parameter's gradient.
    """
    total = last.gradient.sum(axis=0)
    others = without(last.gradient, np.ones(len(last.gradient)))
    directions = np.linalg.svd(others, full_matrices=False)[2]
    rank, free = len(directions), len(total) - len(directions)
    along = float(np.sum((directions @ total) ** 2))
    expected = (float(total @ total) - along) / max(free, 1)
    return along <= expected * (rank + SIGNIFICANT * np.sqrt(2.0 * rank))


def _pooled(spectra: list[Spectrum]) -> float | None:
    free = sum(s.free for s in spectra)
    return sum((s.noise or 0.0) * s.free for s in spectra) / free if free else None


def _tail(layer: Layer, rank: int) -> Array:
    """Return a layer's gradient without what its images are seen by, as one row."""
    u, sizes, v = np.linalg.svd(layer.matrix, full_matrices=False)
    return np.asarray((layer.matrix - (u[:, :rank] * sizes[:rank]) @ v[:rank]).ravel())


def _cause(shared: Shared, variance: float, tails: list[Array]) -> Cause:
    size = float(np.mean(np.concatenate([g.ravel() ** 2 for g in shared.gradients.values()])))
    text = (
        f"noise of variance {variance:.2g} lies on each entry, whose mean square is {size:.2g}: "
        "it shows beside the rank of the layers' gradients"
    )
    row = np.concatenate([tail / np.std(tail) for tail in tails]) if tails else np.zeros(1)
    kind = "laplacian" if float(np.mean(row**4)) > HEAVY_TAIL else "gaussian"
    return Cause("noise", text, f"--defense {kind}:{variance:.2g} --aware", sure=True)
