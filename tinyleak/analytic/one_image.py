"""The loss, its factor and the targets of one image, exactly, from the last layer's gradient.

For one image the weight's gradient divided by the bias's is the features h, so the logits
z = W h + b are known, and δ = ∂L/∂z is the bias's gradient itself. A loss is right if it makes δ of
z with targets that can be: zeros with a one, or ones in several places for binary cross-entropy.
Soft targets are right if all of them are probabilities.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from tinyleak.analytic.residuals import OTHERS, RESIDUALS, Residual, softmax
from tinyleak.analytic.shared import ALLOWED, Layer
from tinyleak.backend import Array

OPERATIONS = 4.0
"""How many times a loss rounds on its way from logits to δ: an exponential, a sum, a quotient and a
difference."""


@dataclass(frozen=True, eq=False)
class OneImage:
    """What the last layer shows of one image, each with its standard deviation."""

    features: Array  # (F,), h
    delta: Array  # (K,), ∂L/∂z
    logits: Array  # (K,), z
    features_error: Array  # (F,)
    delta_error: Array  # (K,)
    logits_error: Array  # (K,)
    computed: float  # half of the last place in which the client computed


@dataclass(frozen=True, eq=False)
class Fit:
    """A loss with the targets that suit it best."""

    loss: str  # its name
    kind: str  # of the targets: "hard", "several", "smoothed", "mixed" or "soft"
    targets: Array  # (K,), y
    factor: float  # c
    error: float  # how far off c may be, relative to it
    misfit: float  # the largest deviation of δ, in those that noise and rounding allow

    @property
    def holds(self) -> bool:
        """Whether it explains δ."""
        return self.misfit <= ALLOWED


def look_at_one_image(layer: Layer, noise: float, computed: float) -> OneImage:
    """Return h, δ and z of the one image behind a last layer's gradient.

    Args:
        layer: the last one, with a bias whose gradient is not all zero.
        noise: the variance of what is on each number beside rounding.
        computed: half of the last place in which the client computed.
    """
    delta, bias = layer.bias_gradient, layer.bias
    assert delta is not None and bias is not None and layer.bias_deviation is not None
    largest = float(np.abs(delta).max())
    row = delta / largest  # so that no square underflows
    share = row / (row @ row) / largest
    features = share @ layer.gradient
    delta_error = np.hypot(layer.bias_deviation, np.sqrt(noise))
    entries = np.square(layer.deviation) + noise
    variance = np.square(share) @ (entries + np.outer(np.square(delta_error), features**2))
    features_error = np.hypot(np.sqrt(variance), computed * np.abs(features))
    # A sum of products in floating point errs in proportion to their sizes.
    size = np.abs(layer.weight) @ np.abs(features) + np.abs(bias)
    logits_error = np.hypot(np.sqrt(layer.weight**2 @ features_error**2), computed * size)
    delta_error = np.hypot(delta_error, computed * np.abs(delta))
    logits = layer.weight @ features + bias
    return OneImage(features, delta, logits, features_error, delta_error, logits_error, computed)


def fits_of(image: OneImage) -> list[Fit]:
    """Return every loss with the targets that suit it best; those that hold first, by simplicity.

    Hard targets leave only the factor open; smoothed and mixed ones, of the cross-entropy, one
    number more. Targets that are soft in any other way are tried with a factor of 1 alone, since
    with others nearly any δ has some.
    """
    found: list[Fit] = []
    for loss, residual in RESIDUALS.items():
        (a, b), by_logits = residual(image.logits), partial(_without_labels, residual)
        error = _error(image, by_logits, np.abs(b).max(axis=1))
        hard = [(row, "hard") for row in np.eye(len(a))]
        several = _several(image.delta) if loss == "bce" else []
        fits = [_fit(image, loss, kind, y, [a - b @ y], error) for y, kind in (*hard, *several)]
        # Of two classes either label fits, and one of them with a factor below 0.
        found.append(min(fits, key=lambda f: (not f.holds, f.holds and f.factor < 0, f.misfit)))
        if loss == "cross-entropy" and len(a) > 1:
            found += _soft(image, a, error)
    found += [_recognised(image, loss, delta) for loss, delta in OTHERS.items()]
    simple = ["hard", "several", "smoothed", "mixed", "soft"]
    return sorted(found, key=lambda fit: (not fit.holds, simple.index(fit.kind), fit.misfit))


def _several(delta: Array) -> Iterator[tuple[Array, str]]:
    """Yield ones wherever an output's sign says so: σ is above 0 and below 1, whatever c's sign."""
    for sign in (1.0, -1.0):
        targets = np.asarray(sign * delta < 0, float)
        if targets.sum() != 1:
            yield targets, "several"


def _soft(image: OneImage, p: Array, error: Array) -> list[Fit]:
    """Return the cross-entropy with smoothed, mixed and any other soft targets."""
    classes, eye = len(p), np.eye(len(p))
    loss, found = "cross-entropy", []
    for label in eye:
        found.append(_fit(image, loss, "smoothed", label, [p, -label, -np.ones(classes)], error))
    # Only where an image has a label is δ another multiple of p than elsewhere.
    usual = np.median(image.delta / np.maximum(p, np.finfo(float).eps))
    first, second = np.argsort(image.delta - usual * p)[:2]
    found.append(_fit(image, loss, "mixed", eye[first], [p, -eye[first], -eye[second]], error))
    kept = [fit for fit in found if fit.misfit < np.inf and (fit.targets > -fit.error).all()]
    targets = p - image.delta
    allowed = np.hypot(image.delta_error, error)
    outside = float((np.maximum(-targets, targets - 1.0) / allowed).max())
    total = abs(float(targets.sum()) - 1.0) / float(np.linalg.norm(allowed))
    relative = ALLOWED * float(np.linalg.norm(allowed) / np.linalg.norm(image.delta))
    return [*kept, Fit(loss, "soft", targets, 1.0, relative, max(outside, total, 0.0))]


def _fit(
    image: OneImage, loss: str, kind: str, targets: Array, parts: list[Array], error: Array
) -> Fit:
    """Fit δ by a combination of parts, the first of which has the loss's factor.

    What is known less exactly counts for less: the errors of two probabilities that are nearly
    alike would else be taken for a factor.
    """
    columns = np.stack(parts, axis=1)
    exactness = 1.0 / np.hypot(image.delta_error, error)
    weighted = columns * exactness[:, None], image.delta * exactness
    weights, *_ = np.linalg.lstsq(*weighted, rcond=None)
    factor = float(weights[0])
    if factor == 0.0 or not np.isfinite(factor):
        return Fit(loss, kind, targets, 1.0, np.inf, np.inf)
    allowed = np.hypot(image.delta_error, abs(factor) * error)
    misfit = float(np.max(np.abs(image.delta - columns @ weights) / allowed))
    if len(parts) > 1:
        targets = -(columns[:, 1:] @ weights[1:]) / factor
        total = abs(float(targets.sum()) - 1.0)
        misfit = max(misfit, total * abs(factor) / float(np.linalg.norm(allowed)))
    length = float(np.linalg.norm(columns[:, 0] * factor))
    relative = ALLOWED * float(np.linalg.norm(allowed)) / length
    return Fit(loss, kind, targets, factor, relative, misfit)


def _without_labels(residual: Callable[[Array], Residual], z: Array) -> Array:
    return residual(z)[0]


def _recognised(image: OneImage, loss: str, residual: Callable[[Array, int], Array]) -> Fit:
    """Return the fit of a loss that is only recognised, with the label that comes nearest."""
    rows = np.array([residual(image.logits, label) for label in range(len(image.logits))])
    lengths = np.maximum(np.linalg.norm(rows, axis=1), np.finfo(float).tiny)
    label = int(np.argmax(rows @ image.delta / lengths))
    # Where a prediction is certain δ is a small difference of probabilities.
    error = _error(image, lambda z: residual(z, label), softmax(image.logits))
    return _fit(image, loss, "hard", np.eye(len(rows))[label], [rows[label]], error)


def _error(image: OneImage, part: Callable[[Array], Array], labels: Array) -> Array:
    """Return how far a part of δ may be off for the error of z and rounding, with c = 1: (K,)."""
    step = 1e-4  # a difference quotient, good to about eight digits
    slopes = [
        (part(image.logits + step * unit) - part(image.logits - step * unit)) / (2 * step)
        for unit in np.eye(len(image.logits))
    ]
    moved = np.sqrt(np.square(image.logits_error) @ np.square(slopes))
    rounded = OPERATIONS * image.computed * (np.abs(part(image.logits)) + labels)
    return np.asarray(np.hypot(moved, rounded))
