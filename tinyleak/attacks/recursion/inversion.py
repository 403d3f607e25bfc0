"""A gradient inverted layer by layer, from the last to the first: all but the last by linear maps.

The last layer's gradient shows the features hᵢ of each image, and rᵢ, the gradient with respect to
its logits (see `tinyleak.analytic.mixture`). From there every layer below is linear. Let a layer
map aᵢ to zᵢ = M aᵢ + b, and the activation zᵢ to the known hᵢ. Then zᵢ = act⁻¹(hᵢ) is known, and
δᵢ, the gradient with respect to zᵢ, by the chain rule; and aᵢ solves two kinds of linear equations,
for all images of a batch together:

    M aᵢ = zᵢ − b   and   Σᵢ δᵢ aᵢᵀ = the gradient of the layer's weight,

the second with the windows of a convolution in place of aᵢ. Then aᵢ takes the place of hᵢ.

For one image this is R-GAP (Zhu and Blaschko 2021, sections 3.1 to 3.3); unmixing extends it to
batches, and here every equation is weighted by how exactly it is known. Errors grow from layer to
layer, faster with noise, and with relu, whose units show nothing when they are off. The result is a
start that gradient matching makes exact where it would get stuck from noise.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyleak.analytic.layer_gradient import LastLayerGradient
from tinyleak.analytic.mixture import SINGLE_PRECISION, unmix
from tinyleak.attacks.recursion.layers import INVERSES, Inverse, Layer, layers_of
from tinyleak.backend import Array, to_numpy
from tinyleak.nn.models import MLP, LeNet
from tinyleak.optim import bounded_step

GREY, CONTRAST = 0.5, 0.5
"""Mean and standard deviation of a pixel about which nothing is known: most of [0, 1]."""

EDGE = 1e-12
"""The least distance of outputs from the limits of their activation, where its inverse is
infinite; rounding errors are far smaller."""

ON = 3.0  # a unit of relu counts as on if its output is so many standard errors above zero
LEAST_ERROR = 1e-15  # no error of an output is taken to be smaller: float64's rounding

MOST_UNKNOWNS = 5000
"""Inputs of one layer in all images together, at most: 5,000 make a matrix of 200 MB."""

ROUNDS = 10
"""How often inputs out of range are put on its edge, and the others solved for again; a few rounds
are mostly enough."""


def recursion(
    layer: LastLayerGradient,
    shared: Mapping[str, Array],
    labels: Sequence[int] | Array,
    *,
    variance: float | None = None,
) -> Array:
    """Return the images of a batch, recovered from its gradient layer by layer.

    It holds matrices of (N·n)² numbers, for n the most inputs that a layer has.

    Args:
        layer: the last layer's gradient, of a LeNet or an MLP.
        shared: the whole gradient of the mean cross-entropy over the batch, by name.
        labels: (N,), fewer than classes.
        variance: of the noise on every number of the gradient, if it is known; by default what the
            last layer tells of it.

    Returns:
        (N, C, H, W), in [0, 1], in the order of the labels. Where the gradient is not what such a
        batch gives (`unmix` tells the `misfit`), they mean nothing, and may be grey.

    Raises:
        ValueError: another network; too many images, a label out of range, or a gradient of zero,
            as for `unmix`; too many unknowns; a variance below 0.
    """
    model = layer.model
    variance = (layer.noise or 0.0) if variance is None else variance
    if not variance >= 0:
        raise ValueError(f"noise of variance {variance} was given; give 0 or more")
    layers = layers_of(model, layer.params)
    assert isinstance(model, LeNet | MLP), "layers_of has refused all others"
    unknowns = len(labels) * max([one.inputs for one in layers[:-1]], default=0)
    if unknowns > MOST_UNKNOWNS:
        raise ValueError(
            f"a layer has {unknowns} inputs in all images together, more than the "
            f"{MOST_UNKNOWNS} that are solved for at once; give fewer or smaller images"
        )
    known = unmix(layer, labels, variance=variance)
    batch, inverse = len(known.features), INVERSES[model.activation]
    typical = float(np.sqrt(np.mean(layer.weight_gradient**2)))
    noise = max(np.sqrt(variance), SINGLE_PRECISION * typical, LEAST_ERROR**2)
    outputs = known.features
    with np.errstate(divide="ignore"):  # the error of a hidden image is infinite
        errors = np.repeat(noise * batch / known.error_norms[:, None], outputs.shape[1], axis=1)
    slopes = known.residuals @ layers[-1].weight / batch
    for index in reversed(range(len(layers) - 1)):
        one = layers[index]
        inside = Inverse(0.0, 1.0, inverse.of, inverse.slope) if index == 0 else inverse
        equations = _Equations(one, inverse, outputs, errors, slopes)
        by_weight = to_numpy(shared[one.name]).astype(float).ravel()
        spread = (GREY, CONTRAST) if index == 0 else _spread(inside, outputs)
        outputs, errors = equations.solve(by_weight, noise, spread, inside)
        slopes = one.back(equations.deltas)
    # An MLP without a hidden layer has its pixels as features, which nothing has kept in range.
    return outputs.clip(0.0, 1.0).reshape(batch, *model.image_shape)


def _spread(inverse: Inverse, outputs: Array) -> tuple[float, float]:
    """Return a typical mean and standard deviation of an activation's outputs."""
    if np.isfinite(inverse.highest):
        return (inverse.lowest + inverse.highest) / 2, (inverse.highest - inverse.lowest) / 2
    return 0.0, max(float(np.abs(outputs).max()), EDGE)


class _Equations:
    """The linear equations for the inputs of a layer."""

    def __init__(
        self, layer: Layer, inverse: Inverse, outputs: Array, errors: Array, slopes: Array
    ) -> None:
        self.layer = layer
        if np.isfinite(inverse.highest):
            known = outputs.clip(inverse.lowest + EDGE, inverse.highest - EDGE)
        elif inverse is INVERSES["relu"]:
            known = np.where(outputs > ON * errors, outputs, 0.0)
        else:
            known = outputs.clip(EDGE)
        slope = inverse.slope(known)
        # (N, P, O), the gradient with respect to what the activation is applied to.
        self.deltas = self._by_window(slopes * slope)
        self.wanted = self._by_window(inverse.of(known)) - layer.bias
        self.weights = self._by_window(slope / errors)

    def _by_window(self, numbers: Array) -> Array:
        """Bring outputs, (N, O·P), into the order of windows, (N, P, O)."""
        batch, channels = len(numbers), len(self.layer.weight)
        return numbers.reshape(batch, channels, -1).transpose(0, 2, 1)

    def solve(
        self, by_weight: Array, noise: float, typical: tuple[float, float], inside: Inverse
    ) -> tuple[Array, Array]:
        """Return the inputs, (N, n), and their standard errors."""
        from scipy.sparse import block_diag, diags_array, hstack, vstack

        batch, size = len(self.deltas), self.layer.inputs
        told = self.weights > 0
        forward = self.layer.forward()
        blocks = [
            weights[known][:, None] * forward[known]
            for weights, known in zip(self.weights, told, strict=True)
        ]
        by_deltas = [self.layer.gradient(delta) for delta in self.deltas]
        middle, width = typical
        rows = [
            block_diag(blocks, format="csr"),
            hstack(by_deltas, format="csr") / noise,
            diags_array(np.full(batch * size, 1 / width), format="csr"),
        ]
        wanted = [
            self.weights[told] * self.wanted[told],
            by_weight / noise,
            np.full(batch * size, middle / width),
        ]
        solution, errors = _least_squares(
            vstack(rows, format="csr"), np.concatenate(wanted), inside.lowest, inside.highest
        )
        return solution.reshape(batch, size), errors.reshape(batch, size)


def _least_squares(
    matrix: Any, wanted: Array, lowest: float, highest: float
) -> tuple[Array, Array]:
    """Return the x within bounds that about minimises ‖matrix x − wanted‖, and standard errors."""
    gram, right = (matrix.T @ matrix).toarray(), matrix.T @ wanted
    errors = np.sqrt(np.maximum(np.diag(np.linalg.inv(gram)), LEAST_ERROR**2))
    solution = np.linalg.solve(gram, right)
    # The step starts at the solution without bounds, so it also mends what rounding has left of it.
    slope = matrix.T @ (matrix @ solution - wanted)
    solution += bounded_step(gram, slope, lowest - solution, highest - solution, rounds=ROUNDS)
    return solution.clip(lowest, highest), errors
