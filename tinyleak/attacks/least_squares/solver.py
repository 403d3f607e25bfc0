"""Gradient matching as nonlinear least squares, by Levenberg–Marquardt.

An image has fewer pixels than the network has weights, so the shared gradient overdetermines it,
and one can solve for all n pixels at once, with the (n, n) matrix JᵀJ. Then tens of iterations do
what thousands of L-BFGS's do not: they end at the rounding error, for whole batches.

Three things that L-BFGS does not know are used on the way. Pixels are in [0, 1]. A label is one of
K classes: its logits, which would run to infinity, are unknowns only until it is clear which. And
the last layer's gradient confines every image's features to a subspace, and once all labels are
known shows the features themselves (see `features`). They separate the images, which are then
solved for one by one. Where they do not determine the images, their distance is minimised beside
the gradient's, until neither becomes smaller. Where a gradient is rounded so that it shows only
those features whose label no other image has, it ends there, with the others where their mean is.

Lesson: lessons/11_batches.py
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tinyleak.analytic.layer_gradient import LastLayerGradient
from tinyleak.attacks.least_squares.features import FIRST_DAMPING, FeatureResidual, FeatureSubspace
from tinyleak.attacks.least_squares.last_layer import Indices
from tinyleak.attacks.least_squares.one_by_one import Search, alone, moved
from tinyleak.attacks.least_squares.polishing import polished
from tinyleak.attacks.least_squares.residual import GradientResidual, as_float64
from tinyleak.attacks.matching import Matching
from tinyleak.backend import Array
from tinyleak.nn.criteria import one_hot
from tinyleak.nn.losses import softmax
from tinyleak.optim import Fit, Residual, State, levenberg_marquardt
from tinyleak.tensor import Tensor

MOST_ITERATIONS = 200
"""Levenberg–Marquardt steps, at most: it converges in tens, and what has not by then is stuck."""

LEAST_PROGRESS = 1e-3  # ten steps that lower the distance by a smaller share than this lead nowhere
SETTLED = 3  # iterations for which a label must be the most probable before it is fixed

CERTAIN = 50.0
"""The logit of a fixed label, where those of the others are 0: its probability is 1 in float64."""

SHARE = 10.0  # the features' part of the objective at the start, in units of the gradients' part


def unstarted(starts: Array) -> State:
    """Return the state of attacks, (R, n), before any has been evaluated."""
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
    layers: Sequence[LastLayerGradient | None],
    state: State,
    *,
    max_iterations: int,
    goal: float,
) -> Iterator[State]:
    """Refine all attacks of a state, one after the other; the restarts of a client until one is in.

    Yield the state after each step of any of them.

    Args:
        matching_of: the problem of each.
        layers: the last layer's gradient of each client, if that layer is linear.
        state: where they are; equally many rows in succession are of one client.
        max_iterations: steps at most, for each.
        goal: the distance at which one has converged.
    """
    restarts = len(state.x) // len(layers)
    for row in range(len(state.x)):
        first = row - row % restarts
        if "converged" in state.reasons[first : first + restarts]:
            continue
        begun = state
        start, matching = as_float64(begun.x[row]), matching_of(row)
        # Where some entries count differently, its gradient is not exact.
        layer = layers[row // restarts] if matching.precision is None else None
        for fit in refine(matching, start, layer, max_iterations=max_iterations, goal=goal):
            state = _with(begun, row, fit)
            yield state


def _with(begun: State, row: int, fit: Fit) -> State:
    """Return a state with one attack where its fit is, counting on from where it had begun."""

    def put(array: Array, value: Any) -> Array:
        array = array.copy()
        array[row] = value
        return array

    return State(
        x=put(as_float64(begun.x), fit.x),
        values=put(begun.values, fit.value),
        gradient_norms=put(begun.gradient_norms, fit.gradient_norm),
        iterations=put(begun.iterations, begun.iterations[row] + fit.iterations),
        evaluations=put(begun.evaluations, begun.evaluations[row] + fit.evaluations),
        finished=put(begun.finished, fit.reason is not None),
        reasons=(*begun.reasons[:row], fit.reason, *begun.reasons[row + 1 :]),
    )


def refine(
    matching: Matching,
    start: Array,
    layer: LastLayerGradient | None,
    *,
    max_iterations: int,
    goal: float,
) -> Iterator[Fit]:
    """Minimise the distance from a start on, with pixels in [0, 1], and fix labels as they settle.

    Args:
        matching: one attack, with labels that are known or not.
        start: (n,) dummy pixels, and label logits unless the labels are known.
        layer: the last layer's gradient, which shows the features; None to do without them.
        max_iterations: steps at most.
        goal: the distance at which it is satisfied.

    Yields:
        As `levenberg_marquardt` does, x being the dummies, of the start's shape. Solving for the
        images one by one counts as one step, and as no evaluation.
    """
    search = Search(layer)
    rest = yield from alone(matching, start, search, max_iterations, goal)
    if rest is not None:
        yield from _together(matching, rest, search, max_iterations, goal)


def _together(
    matching: Matching, start: Array, search: Search, max_iterations: int, goal: float
) -> Iterator[Fit]:
    """Solve for all images at once, from a start on; one by one as soon as features are known."""
    size, batch, classes = matching.image_size, matching.batch, matching.model.classes
    known = matching.targets is not None
    pixels = start[:size].astype(float)
    logits = (np.zeros(batch * classes) if known else start[size:].astype(float)).reshape(batch, -1)
    targets = softmax(Tensor(logits)).data
    if matching.targets is not None:
        targets = as_float64(matching.targets).reshape(batch, classes)
    unsettled = np.arange(0 if known else batch)
    favourites: list[Array] = []
    iterations, evaluations, damping = 0, 0, FIRST_DAMPING
    subspace = search.span()
    weight: float | None = None
    while True:
        gradient = GradientResidual(matching, targets, unsettled)
        x = np.concatenate([pixels, logits[unsettled].ravel()])
        residual: Residual = gradient
        if subspace is not None:
            weight = _feature_weight(gradient, subspace, x) if weight is None else weight
            residual = FeatureResidual(gradient, subspace, weight)
        inside = np.where(np.arange(len(x)) < size, 1.0, np.inf)
        for step in levenberg_marquardt(
            residual,
            x,
            lowest=np.where(inside == 1.0, 0.0, -np.inf),
            highest=inside,
            damping=damping,
            radius=np.inf,
            max_iterations=max_iterations - iterations,
            tolerance_change=LEAST_PROGRESS,
            goal=goal if subspace is None else -np.inf,
        ):
            fit = step if subspace is None else _of_gradient_alone(step, gradient, goal)
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
                told = residual.subspace.is_known
                found = None if told else search.features(targets, residual.features(fit.x))
                if found is not None:
                    pixels, determined = moved(found, gradient, fit.x)
                    subspace, weight = None if determined.all() else found, None
                    iterations += int(determined.any())
                    if determined.all():
                        fit = yield from polished(
                            gradient,
                            pixels,
                            goal,
                            left,
                            iterations + fit.iterations,
                            evaluations + fit.evaluations,
                            search.roundoff,
                        )
                        if fit.reason is not None:
                            return
                        pixels, iterations, evaluations = fit.x, 0, 0
                    break
        else:
            # With the features it goes no further; the rest is for the gradients alone.
            subspace, settled = None, unsettled[:0]
        targets[settled] = one_hot(favourites[-1][settled], classes)
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


def _feature_weight(gradient: GradientResidual, subspace: FeatureSubspace, x: Array) -> float:
    """Return what makes the features' part of the squared residual `SHARE` times the gradient's."""
    distance = float(np.square(gradient.value(x)).sum())
    outside = float(np.square(FeatureResidual(gradient, subspace, 1.0).outside(x)).sum())
    return math.sqrt(SHARE * distance / outside) if outside > 0 else 0.0


def _settled(favourites: list[Array], images: Indices) -> Indices:
    """Return those of the images whose most probable label has not changed for `SETTLED` steps."""
    if len(favourites) < SETTLED:
        return images[:0]
    lately = np.stack(favourites[-SETTLED:])[:, images]
    return images[(lately == lately[0]).all(axis=0)]
