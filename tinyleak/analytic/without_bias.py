"""The features of one image where the last layer's bias, which shows their size, sent no gradient.

Then the gradient δ hᵀ shows δ and h up to a factor, h = t v and δ = s u / t with singular vectors u
and v. A loss has to make δ of W h + b with some label, and only one t does: it is searched for.
"""

from dataclasses import dataclass, replace

import numpy as np

from tinyleak.analytic.one_image import Fit, OneImage, fits_of, look_at_one_image
from tinyleak.analytic.residuals import sigmoid, softmax
from tinyleak.analytic.shared import Layer
from tinyleak.backend import Array

SIZES = np.geomspace(1e-3, 1e4, 701)
"""The lengths of h that are tried, 2.3 % apart: those of 10 to 10⁶ features of common sizes."""

REFINED = 60
"""How often the interval around the best length is cut by the golden section: to 10⁻¹² of it."""

GOLDEN = 0.5 * (np.sqrt(5.0) - 1.0)

EQUAL = 1e-4  # entries of δ that differ by less than this share, or by their error, are one number


@dataclass(frozen=True, eq=False)
class Direction:
    """What δ hᵀ shows of its factors, either of them turned around and stretched."""

    features: Array  # (F,), v, of length 1
    delta: Array  # (K,), s u
    features_error: Array  # (F,), a standard deviation
    delta_error: Array  # (K,)

    @property
    def is_hinge(self) -> bool:
        """Whether δ is one number wherever it is not 0, but at the label, where it is the rest."""
        if len(self.delta) < 3:
            return False
        sizes = self.delta * -np.sign(self.delta[np.abs(self.delta).argmax()])
        others = np.delete(sizes, int(sizes.argmin()))
        error = np.maximum(EQUAL * others.max(), 6.0 * self.delta_error.max())
        ones = others > error
        equal = bool((np.abs(others[ones] - others.max()) < error).all())
        return equal and ones.sum() > 1 and abs(float(sizes.sum())) < len(sizes) * error


def direction_of(layer: Layer, noise: float) -> Direction:
    """Return the directions of h and δ of the one image behind a gradient that is not all zero."""
    u, sizes, v = np.linalg.svd(layer.gradient, full_matrices=False)
    error = np.sqrt(np.mean(np.square(layer.deviation)) + noise)
    return Direction(
        v[0],
        u[:, 0] * sizes[0],
        np.full(v.shape[1], error / sizes[0]),
        np.full(len(u), error),
    )


def image_of_length(layer: Layer, length: float, noise: float, computed: float) -> OneImage:
    """Return what a layer shows of one image whose features are so many times its direction."""
    return _image(layer, direction_of(layer, noise).delta / length, noise, computed)


@np.errstate(over="ignore")  # lengths that are far off make numbers that are anything
def look_without_bias(layer: Layer, noise: float, computed: float) -> OneImage | None:
    """Return h, δ and z of the one image behind the gradient of a last layer's weight.

    Args:
        layer: the last one; there are more than two classes.
        noise, computed: as for `look_at_one_image`.

    Returns:
        None if no length of h explains δ by a loss and a hard label with its usual factor.
    """
    if len(layer.gradient) < 3 or not layer.gradient.any():
        return None
    u, sizes, v = np.linalg.svd(layer.gradient, full_matrices=False)
    bias = 0.0 if layer.bias is None else layer.bias
    found: list[tuple[Fit, OneImage]] = []
    for sign in (1.0, -1.0):
        z = sign * (layer.weight @ v[0])
        direction = sign * u[:, 0]
        costs = np.array([_costs(direction, size * z + bias) for size in SIZES])
        for loss in range(costs.shape[1]):
            size = _refine(direction, z, bias, loss, int(np.argmin(costs[:, loss])))
            image = _image(layer, direction * sizes[0] / size, noise, computed)
            fit = next(fit for fit in fits_of(image) if fit.kind in ("hard", "several"))
            found.append((fit, image))
    holding = [pair for pair in found if pair[0].holds and abs(pair[0].factor - 1.0) < 1e-2]
    return min(holding, key=lambda pair: pair[0].misfit)[1] if holding else None


def _image(layer: Layer, delta: Array, noise: float, computed: float) -> OneImage:
    nothing = np.zeros(len(delta))
    bias = nothing if layer.bias is None else layer.bias
    with_bias = replace(layer, bias_gradient=delta, bias=bias, bias_deviation=nothing)
    return look_at_one_image(with_bias, noise, computed)


def _costs(direction: Array, z: Array) -> Array:
    """Return how far δ's direction is from that of each loss with the label that suits it best.

    1 − cos² for the cross-entropy, for binary cross-entropy and for the squared error: (3,).
    """
    best = []
    for a in (softmax(z), sigmoid(z), z):
        inner = direction @ a - direction
        squares = a @ a - 2.0 * a + 1.0
        # A label that is certain leaves no δ, and so no direction.
        usable = (inner > 0) & (squares > 1e-12)
        best.append(1.0 - float(np.max(np.where(usable, inner**2 / (squares + 1e-300), 0.0))))
    return np.array(best)


def _refine(direction: Array, z: Array, bias: Array | float, loss: int, start: int) -> float:
    low, high = SIZES[max(start - 1, 0)], SIZES[min(start + 1, len(SIZES) - 1)]
    for _ in range(REFINED):
        near, far = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        at_near, at_far = (_costs(direction, t * z + bias)[loss] for t in (near, far))
        if at_near < at_far:
            high = far
        else:
            low = near
    return float(0.5 * (low + high))
