"""Gradient matching as nonlinear least squares, by Levenberg–Marquardt.

An image has fewer pixels than the network has weights, so the shared gradient overdetermines it,
and one can solve for all n pixels at once, with the (n, n) matrix JᵀJ. Then tens of iterations do
what thousands of L-BFGS's do not: they end at the rounding error, for whole batches.

Three things that L-BFGS is not told are used on the way. Pixels are in [0, 1]. A label is one of K
classes: its logits, which would run to infinity, are unknowns only until it is clear which. And
the last layer's gradient shows a span that every image's features lie in, and once all labels are
known the features themselves (see `features`). They part the images, which are then solved for one
by one. Where they do not determine them, they are asked for beside the gradient, until nothing more
comes of it.

Lesson: lessons/11_batches.py
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tinyleak.attacks.least_squares.features import (
    FeatureResidual,
    Place,
    images_with,
    read_features,
    read_span,
)
from tinyleak.attacks.least_squares.last_layer import Places
from tinyleak.attacks.least_squares.residual import GradientResidual, as_float64, named
from tinyleak.attacks.matching import Matching
from tinyleak.backend import Array
from tinyleak.nn.losses import one_hot, softmax
from tinyleak.optim import FIRST_DAMPING, Fit, Residual, State, levenberg_marquardt
from tinyleak.tensor import Tensor

MOST_ITERATIONS = 200
"""More are never of use: what has not converged by then is stuck."""

SETTLED = 3
"""Iterations for which a label must be the most probable before it is fixed."""

CERTAIN = 50.0
"""The logit of a fixed label, where those of the others are 0."""

STARTS = 8
"""How often the features are searched for at first; after that, once at each iteration."""

SHARE = 10.0
"""How many times the squared difference of the gradients that of the features is, at the start."""


def unstarted(starts: Array) -> State:
    """Return the state of attacks, (R, n), of which none has been evaluated."""
    attacks = len(starts)
    return State(
        x=starts.astype(float),
        values=np.full(attacks, np.inf),
        gradient_norms=np.full(attacks, np.inf),
        iterations=np.zeros(attacks, np.int64),
        evaluations=np.zeros(attacks, np.int64),
        finished=np.zeros(attacks, np.bool_),
        reasons=(None,) * attacks,
    )


def refine_all(
    matching_of: Callable[[int], Matching],
    state: State,
    restarts: int,
    *,
    max_iterations: int,
    goal: float,
) -> Iterator[State]:
    """Refine all attacks of a state, one after the other; the restarts of a client until one is in.

    Args:
        matching_of: the problem of each.
        state: where they are.
        restarts: how many rows in succession are of one client.
        max_iterations: steps at most, for each.
        goal: the distance at which one has converged.

    Yields:
        The state after each step of any of them.
    """
    for row in range(len(state.x)):
        first = row - row % restarts
        if "converged" in state.reasons[first : first + restarts]:
            continue
        begun = state
        start = as_float64(begun.x[row])
        for fit in refine(matching_of(row), start, max_iterations=max_iterations, goal=goal):
            state = _with(begun, row, fit)
            yield state


def _with(begun: State, row: int, fit: Fit) -> State:
    """Return a state with one attack where its fit is, counting on from where it had begun."""
    x = as_float64(begun.x).copy()
    x[row] = fit.x

    def put(array: Array, value: float) -> Array:
        array = array.copy()
        array[row] = value
        return array

    return State(
        x=x,
        values=put(begun.values, fit.value),
        gradient_norms=put(begun.gradient_norms, fit.gradient_norm),
        iterations=put(begun.iterations, begun.iterations[row] + fit.iterations),
        evaluations=put(begun.evaluations, begun.evaluations[row] + fit.evaluations),
        finished=put(begun.finished, fit.reason is not None),
        reasons=(*begun.reasons[:row], fit.reason, *begun.reasons[row + 1 :]),
    )


def refine(matching: Matching, start: Array, *, max_iterations: int, goal: float) -> Iterator[Fit]:
    """Minimise the distance from a start on, with pixels in [0, 1], and fix labels as they settle.

    Args:
        matching: one attack, with labels that are known or not.
        start: (n,) dummy pixels, and label logits unless the labels are known.
        max_iterations: steps at most.
        goal: the distance at which it is satisfied.

    Yields:
        As `levenberg_marquardt` does, x being the dummies, of the start's shape. To solve for
        images one by one counts as one step of all, and as no evaluation of theirs.

    """
    size, batch, classes = matching.image_size, matching.batch, matching.model.classes
    known = matching.targets is not None
    pixels = start[:size].astype(float)
    logits = np.zeros((batch, classes)) if known else start[size:].reshape(batch, classes)
    logits = logits.astype(float)
    targets = softmax(Tensor(logits)).data
    if matching.targets is not None:
        targets = as_float64(matching.targets).reshape(batch, classes)
    unsettled = np.arange(0 if known else batch)
    favourites: list[Array] = []
    iterations = evaluations = 0
    damping = FIRST_DAMPING
    place = _span(matching)
    weight: float | None = None
    search = _Search()
    while True:
        gradient = GradientResidual(matching, targets, unsettled)
        x = np.concatenate([pixels, logits[unsettled].ravel()])
        residual: Residual = gradient
        if place is not None:
            weight = _feature_weight(gradient, place, x) if weight is None else weight
            residual = FeatureResidual(gradient, place, weight)
        inside = np.where(np.arange(len(x)) < size, 1.0, np.inf)
        for step in levenberg_marquardt(
            residual,
            x,
            lowest=np.where(inside == 1.0, 0.0, -np.inf),
            highest=inside,
            damping=damping,
            max_iterations=max_iterations - iterations,
            goal=goal if place is None else -np.inf,
        ):
            fit = step if place is None else _of_gradient_alone(step, gradient, goal)
            pixels, logits[unsettled] = fit.x[:size], fit.x[size:].reshape(-1, classes)
            yield replace(
                fit,
                x=pixels if known else np.concatenate([pixels, logits.ravel()]),
                iterations=iterations + fit.iterations,
                evaluations=evaluations + fit.evaluations,
            )
            if fit.reason is not None:
                return
            targets = gradient.labels(fit.x)
            favourites.append(targets.argmax(axis=1))
            settled = _settled(favourites, unsettled)
            if len(settled):
                break
            left = max_iterations - iterations - fit.iterations
            if isinstance(residual, FeatureResidual) and not len(unsettled) and left > 0:
                found = search.features(residual, fit.x)
                if found is not None:
                    pixels, determined = _images_with(found.points, gradient, fit.x)
                    place, weight = None if determined.all() else found, None
                    iterations += int(determined.any())
                    break
        else:
            # With the features it goes no further; the rest is for the gradients alone.
            place, settled = None, unsettled[:0]
        labels = favourites[-1][settled]
        targets[settled] = one_hot(labels, classes)
        logits[settled] = CERTAIN * targets[settled]
        unsettled = np.setdiff1d(unsettled, settled)
        iterations += fit.iterations
        evaluations += fit.evaluations
        damping = fit.damping


def _of_gradient_alone(fit: Fit, gradient: GradientResidual, goal: float) -> Fit:
    """Return a fit whose value is the distance between gradients, without what features add."""
    r = gradient.value(fit.x)
    distance = float(r @ r)
    return replace(fit, value=distance, reason="converged" if distance <= goal else None)


def _span(matching: Matching) -> Place | None:
    """Read what the features of the batch span, unless some entries of the gradient are unsure."""
    if matching.precision is not None:
        return None
    return read_span(matching.model, named(raw_gradients(matching), matching.model), matching.batch)


class _Search:
    """The search for a batch's features: once from many starts, later from where its images are."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.starts = STARTS

    def features(self, residual: FeatureResidual, x: Array) -> Place | None:
        """Search for the features, unless they are known, or labels were given that are none."""
        matching, targets = residual.gradient.matching, residual.gradient.targets
        if residual.place.is_known or not (targets.max(axis=1) == 1.0).all():
            return None
        starts, self.starts = self.starts, 1
        model, guess = matching.model, residual.features(x)
        params, shared = named(matching.params, model), named(raw_gradients(matching), model)
        return read_features(model, params, shared, targets.argmax(axis=1), guess, self.rng, starts)


def _images_with(
    features: Array, gradient: GradientResidual, x: Array
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Move the pixels at x to where each image has these features, if these determine it."""
    matching = gradient.matching
    params = named(matching.params, matching.model)
    images, determined = images_with(matching.model, params, features, gradient.images(x))
    return images.ravel(), determined


def _feature_weight(gradient: GradientResidual, place: Place, x: Array) -> float:
    """Return what makes the features' part of the squared residual `SHARE` times the gradient's."""
    distance = float(np.square(gradient.value(x)).sum())
    outside = float(np.square(FeatureResidual(gradient, place, 1.0).outside(x)).sum())
    return math.sqrt(SHARE * distance / outside) if outside > 0 else 0.0


def _settled(favourites: list[Array], images: Places) -> Places:
    """Return those of these images whose most probable label has not changed for a while."""
    if len(favourites) < SETTLED:
        return images[:0]
    lately = np.stack(favourites[-SETTLED:])[:, images]
    return images[(lately == lately[0]).all(axis=0)]


def raw_gradients(matching: Matching) -> dict[str, Array]:
    """Return the gradient that was shared, without the scale that makes the distance relative."""
    scale = float(matching.scale)
    return {name: as_float64(gradient) / scale for name, gradient in matching.shared.items()}
