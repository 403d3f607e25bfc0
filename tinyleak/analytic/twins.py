"""How far apart records may be that a gradient shows as copies of one.

Records h + dₖ of one label, w of them, whose mean is h, add to the gradient, up to second order,

    Σₖ δ(h + dₖ) (h + dₖ, 1)ᵀ / N = (w δ(h) (h, 1)ᵀ + J Σₖ dₖ (dₖ, 0)ᵀ) / N,   J = ∂δ/∂h,

where w copies of h add its first part alone. So their mean has the certificate of copies where the
second part is lost in noise, or in what other records span. Copies are claimed only where there is
no room for it, that is, where records would be told apart that differ from h by a pixel's
exactness:

- What the gradient has outside of both spaces, R, is noise. With dₖ it would have Σₖ J dₖ dₖᵀ / N
  there, which would show in ⟨J, R⟩, whichever way they point, and in R's largest singular value.
- Where the rank shows records apart, J d is in the column space for one d of the row space. Where h
  is there alone it is so for none.
- Where d is a mixture of h and others, aᵢ of each, the count of h errs by its own a². Noise may
  hide that, as under softplus, whose δ of one label are alike, and so may how the mixture is made.
  But where h is black all of its records are, and there a mixture with others shows.

Under a ReLU the second is not asked: signs that a mean does not share with all of them tell it. Not
told are records that differ only in what the layer does not see, or, where nothing is black, by a
difference of two others.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tinyleak.analytic.deltas import Deltas
from tinyleak.analytic.layer_gradient import LayerGradient
from tinyleak.analytic.points import RowSpace
from tinyleak.backend import Array

EXACT = 1e-3
"""How far records that are claimed as copies may be from their mean, root mean square, as a share
of its largest entry: of pixels that is an error of 1e-6."""

SURE = 4.0
"""How many times what noise is expected to make of something hides copies: of ⟨J, R⟩ of 900 copies
it was 1.1 times, root mean square, and 4.1 at most."""

FREE = 10.0
"""How many times as long as noise makes it what J d has outside of the column space must be for all
d: of twins it was 1 to 5 times as long, of copies 20 times or more."""

RCOND = 1e-10  # under a ReLU δ does not change in most directions at all, but for rounding

MOST = 2048
"""In how many inputs it is looked for what noise hides, at most; where there are more, in some."""


@dataclass(frozen=True, eq=False, repr=False)
class Twins:
    """What a gradient leaves open of records that it shows as copies of one."""

    layer: LayerGradient
    deltas: Deltas  # the network above it
    factor_known: bool  # of the loss; if not, there may be twice as many copies

    @cached_property
    def space(self) -> RowSpace:
        """The row space of the gradient."""
        return RowSpace.of(self.layer, self.deltas.cut)

    def excluded(self, h: Array, target: Array, count: float) -> bool:
        """Tell whether an input that seems to be there several times is no mean of others.

        Args:
            h: (F,), the input.
            target: (K,), its label as a row.
            count: how many copies there are, times the loss's factor.
        """
        layer, deltas, space = self.layer, self.deltas, self.space
        assert layer.records is not None, "who counts copies knows of how many"
        points, U, S = space.points(np.eye(len(space.S))), space.U, space.S
        reach = EXACT * float(np.abs(h).max()) * math.sqrt(len(h))
        # Of a black image no share is known, and where the column space is all there is, no noise.
        if not reach or len(U) == len(S) or (deltas.has_kinks and not self.factor_known):
            return False
        c = np.append(h, np.ones(space.V.shape[1] - len(h))) @ space.V.T
        _, here, z = points.at(points.nearest(c))
        delta, J = deltas.along(z, target, points.z)
        b, within = U.T @ delta, J @ U
        gram = J @ J.T - within @ within.T
        if not deltas.has_kinks and len(gram):
            noise = within / S
            expected = layer.variance * (len(U) - len(S)) * noise @ noise.T
            if np.linalg.eigvalsh(gram - FREE**2 * expected)[0] <= 0.0:
                return False
        # Of so many records each is as far from their mean as all others together.
        others = (count if self.factor_known else layer.records) - 1.0
        blur = math.sqrt(layer.variance * len(h)) * float(np.linalg.norm(c / S))
        apart = _apart_in_the_dark(points.h, here, blur)
        if apart is None:
            # The count is that where δ is nearest to the column space.
            move = np.linalg.pinv(gram, RCOND, hermitian=True) @ (J @ (delta - U @ b))
            coefficient = (c - move @ points.c) / S @ (b - move @ within)
            error = abs(layer.records / (coefficient * count) - 1.0)
            mixed = error * float(h @ h) > reach**2
        else:
            mixed = apart * others > reach
        return not mixed and self._would_show(h, z, target, count, others)

    def _would_show(self, h: Array, z: Array, target: Array, count: float, others: float) -> bool:
        """Tell whether records as far from their mean as counts would show outside of both spaces.

        z is what the layer answers to h, (O,), and `others` beside how many others each record is.
        """
        layer, deltas, space = self.layer, self.deltas, self.space
        U, S = space.U, space.S
        # Where an input is 0 all of them are, as far as they are not negative.
        lit = np.flatnonzero(np.abs(h) > EXACT * np.abs(h).max())
        some = np.random.default_rng(0).permutation(lit)[:MOST]
        weight = np.asarray(deltas.cut.params[deltas.cut.weight], dtype=float)
        J = deltas.along(z, target, np.ascontiguousarray(weight.T[some]))[1]
        J = J - (J @ U) @ U.T
        R = layer.matrix[:, some] - (U * S) @ space.V[:, some]
        free = (len(U) - len(S)) * len(some)
        deviation = math.sqrt(max(layer.variance, float(np.square(R).sum()) / free))
        size = float(np.square(J).sum() - np.square(space.V[:, some] @ J).sum())
        if not 0.0 < size < math.inf:
            return False
        square = (EXACT * float(np.abs(h).max())) ** 2 * len(h)
        shown = count / (layer.records or 1) * square / len(lit) * size
        if max(float((J * R.T).sum()), 0.0) + SURE * deviation * math.sqrt(size) < shown:
            return True
        # They differ along one direction, or along as many as there are others at most.
        largest = _largest(J, R) + SURE * deviation
        return largest * others < shown * math.sqrt(len(lit) / size)


def _apart_in_the_dark(axes: Array, h: Array, blur: float) -> float | None:
    """Return how far from their mean two inputs may be that differ within the row space.

    Args:
        axes: (n, F), orthonormal, in which they may differ.
        h: (F,), their mean.
        blur: how far noise may have moved it.

    Returns:
        What noise leaves of the mean where it is black; None where too little is, or where it is
        less than black.
    """
    limit = EXACT * float(np.abs(h).max())
    dark = np.abs(h) <= limit
    if h.min() < -limit or dark.sum() < len(axes):
        return None
    least = float(np.linalg.svd(axes[:, dark], compute_uv=False)[-1]) if len(axes) else 1.0
    return SURE * max(float(np.linalg.norm(h[dark])), blur) / max(least, RCOND)


def _largest(J: Array, R: Array) -> float:
    """Return the largest singular value of R, (O, M), within what the rows of J, (M, O), span."""
    squares, axes = np.linalg.eigh(J @ J.T)
    seen = squares > RCOND * squares[-1]
    return float(np.linalg.norm((axes[:, seen] / np.sqrt(squares[seen])).T @ (J @ R), 2))
