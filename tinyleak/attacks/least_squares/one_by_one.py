"""Images of a batch one by one: by their features, once the last layer's gradient shows these."""

import math
from collections.abc import Generator, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tinyleak.analytic.layer_gradient import LastLayerGradient
from tinyleak.attacks.least_squares.features import (
    FIRST_DAMPING,
    FeatureSubspace,
    images_with,
    read_features,
    read_span,
)
from tinyleak.attacks.least_squares.one_label import in_own_units, told_apart
from tinyleak.attacks.least_squares.polishing import DETERMINED, ROUNDINGS, polished
from tinyleak.attacks.least_squares.residual import GradientResidual, as_float64, named
from tinyleak.attacks.matching import Matching
from tinyleak.backend import Array
from tinyleak.optim import Fit

FIRST_STARTS = 60
"""How many starts the first search for the features has; each later one has one. Sixty take up to
ten seconds for nine digits, one step of all of them twenty."""


class Search:
    """The search for a batch's features: once from many starts, later from where its images are."""

    def __init__(self, layer: LastLayerGradient | None) -> None:
        self.layer = layer
        self.rng = np.random.default_rng(0)
        self.starts = FIRST_STARTS

    @property
    def roundoff(self) -> float:
        """Of the last layer's gradient, relative; infinite if there is none."""
        return math.inf if self.layer is None else self.layer.roundoff

    def span(self) -> FeatureSubspace | None:
        """Return the subspace that all features span, if the gradient shows it."""
        return None if self.layer is None else read_span(self.layer)

    def features(self, targets: Array, guess: Array | None = None) -> FeatureSubspace | None:
        """Search for the features, near a guess, (N, F), first; not if a given label is soft."""
        if self.layer is None or not (targets.max(1) == 1.0).all():
            return None
        starts, self.starts = self.starts, 1
        return read_features(self.layer, targets.argmax(axis=1), guess, self.rng, starts)


def moved(
    features: FeatureSubspace, gradient: GradientResidual, x: Array
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Move the pixels at x to where each image has these features, if these determine it."""
    matching = gradient.matching
    params = named(matching.params, matching.model)
    images, determined = images_with(matching.model, params, features, gradient.images(x))
    return images.ravel(), determined


def alone(
    matching: Matching, start: Array, search: Search, most: int, goal: float
) -> Generator[Fit, None, Array | None]:
    """Solve for images one by one where labels are known and rounding hides the features' span.

    Return where to go on from, as `start`; None if there is nothing left that the gradient shows.
    """
    if matching.targets is None or search.span() is not None:
        return start
    targets = as_float64(matching.targets).reshape(matching.batch, -1)
    found = search.features(targets)
    if found is None:
        return start
    gradient = GradientResidual(matching, targets, np.zeros(0, np.int64))
    images, determined = moved(found, gradient, start)
    if not determined.any():  # of images that are all hidden L-BFGS has been nearer to some
        return start
    r, done = gradient.value(images), bool(determined.all())
    yield Fit(images, float(r @ r), math.inf, FIRST_DAMPING, 1, 1, None if done else "stalled")
    if not done:
        yield from _told_apart(gradient, images, targets, found, search)
        return None
    fit = yield from polished(gradient, images, goal, most - 1, 1, 1, search.roundoff)
    return fit.x if fit.reason is None else None


def _told_apart(
    gradient: GradientResidual,
    x: Array,
    targets: Array,
    features: FeatureSubspace,
    search: Search,
) -> Iterator[Fit]:
    """Tell apart images that rounding left as their mean, if that leads to the client's."""
    labels, hidden = targets.argmax(axis=1), ~np.isfinite(features.errors)
    groups = [np.flatnonzero(hidden & (labels == label)) for label in np.unique(labels[hidden])]
    # Of three wrong mixtures leave no more than right ones, so that all would be tried in vain.
    if search.layer is None or {len(group) for group in groups} != {2}:
        return
    goal = max(DETERMINED, (ROUNDINGS * search.layer.roundoff) ** 2)
    for fit in told_apart(in_own_units(gradient), x, groups, goal, search.rng):
        if fit.reason == "converged":
            r = gradient.value(fit.x)
            yield replace(fit, value=float(r @ r), iterations=1 + fit.iterations)
