"""The input of a fully connected layer is the ratio of its gradients.

For output o of such a layer and image i let δᵢₒ be the gradient of the loss with respect to the
output, before the activation. Then ∂L/∂b_o = Σᵢ δᵢₒ and ∂L/∂W_o = Σᵢ δᵢₒ xᵢ: the ratio of the two
is a weighted mean of the images, and for a single image the image itself (Phong et al. 2018,
section 3; Geiping et al., "Inverting Gradients", 2020, proposition 3.1).

Lesson: lessons/10_labels.py
"""

from dataclasses import dataclass

import numpy as np

from tinyleak.analytic.layer_gradient import LayerGradient
from tinyleak.backend import Array

NEGLIGIBLE = 1e-9
"""A bias gradient this much smaller than the largest is too small to divide by: of float64's 16
digits it leaves the ratio 7, and `tolerance` asks for 6."""


@dataclass(frozen=True, eq=False, repr=False)
class IsolatedInput:
    """One input of a batch: x (F,), and the rows, two or more, in which it is alone."""

    x: Array
    rows: Array

    def __repr__(self) -> str:
        return f"IsolatedInput({len(self.x)} numbers, alone in {len(self.rows)} rows)"


def first_layer_input(layer: LayerGradient) -> Array:
    """Return the one input of a linear layer, from its gradient.

    All rows contribute, by how large they are: it is the least-squares solution x of
    `bias_gradient xᵀ = weight_gradient`. For a batch it is a weighted mean of the inputs.

    Args:
        layer: the gradient, (O, F), with that of the bias.

    Returns:
        (F,). If the layer is the network's first, these are the pixels.

    Raises:
        ValueError: the layer has no bias, or its gradient is all zero.
    """
    weight_gradient, bias_gradient = _both(layer)
    largest = float(np.abs(bias_gradient).max(initial=0.0))
    if largest == 0.0:
        raise ValueError(
            "the bias gradient is zero, and the input is a ratio to it; choose a layer whose units "
            "are not all dead"
        )
    row = bias_gradient / largest  # so that no square underflows
    return (row @ weight_gradient) / (row @ row) / largest


def error_of_input(layer: LayerGradient) -> float:
    """Return the expected squared error of each number of `first_layer_input`, for one record.

    Of one record the gradient δ (x, 1)ᵀ has rank 1, so what is left of it is noise, of variance v
    on each entry. The ratio then errs by v (1 + x²) / ‖δ‖² in each number.

    Raises:
        ValueError: as `first_layer_input` does; or more records than one.
    """
    if layer.records != 1:
        raise ValueError(f"{layer} was given; an input is a ratio where there is one record")
    x = first_layer_input(layer)
    noise = layer.variance
    return float(noise * (1.0 + np.mean(x**2)) / np.square(layer.matrix[:, -1]).sum())


def separate_inputs(layer: LayerGradient, *, tolerance: float = 1e-6) -> list[IsolatedInput]:
    """Return those inputs of a batch that are alone in two rows or more.

    After ReLU a row's δᵢₒ is zero for all images that do not switch unit o on. Where one image
    alone does, the row's ratio is that image. A single such row cannot be told from a mixture, but
    two rows of equal ratio give an image away, since mixtures differ from row to row.

    That holds when the rows' δ are in general position: there are more than two classes, and the
    gradient is not rounded. A mixture is also returned if some rows of δ are proportional.

    Args:
        layer: the gradient, (O, F), with that of the bias.
        tolerance: how far equal ratios may differ, relative to the largest entry of an input.

    Returns:
        The inputs, the one with the most rows first; for one image that one, with all its rows.

    Raises:
        ValueError: as `first_layer_input` does.
    """
    first_layer_input(layer)
    weight_gradient, bias_gradient = _both(layer)
    sizes = np.abs(bias_gradient)
    rows = np.flatnonzero(sizes > NEGLIGIBLE * sizes.max())
    ratios = weight_gradient[rows] / bias_gradient[rows, np.newaxis]
    # Equal ratios lie side by side when sorted along any line; a random one splits all others.
    line = np.random.default_rng(0).standard_normal(ratios.shape[1])
    order = np.argsort(ratios @ line)
    jumps = np.abs(np.diff(ratios[order], axis=0)).max(axis=1, initial=0.0)
    allowed = tolerance * np.abs(ratios[order][1:]).max(axis=1, initial=0.0)
    groups = np.split(rows[order], np.flatnonzero(jumps > allowed) + 1)
    return [
        IsolatedInput(
            first_layer_input(LayerGradient(weight_gradient[group], bias_gradient[group])),
            np.sort(group),
        )
        for group in sorted(groups, key=len, reverse=True)
        if len(group) > 1
    ]


def _both(layer: LayerGradient) -> tuple[Array, Array]:
    if layer.bias_gradient is None:
        raise ValueError(
            f"{layer} was given; an input is a ratio to the bias's gradient: give that as well"
        )
    return layer.weight_gradient, layer.bias_gradient
