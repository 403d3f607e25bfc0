"""The input of a fully connected layer, read off its gradient by a division.

For output o of such a layer and image i let δᵢₒ be the gradient of the loss by the output, before
the activation. Then ∂L/∂b_o = Σᵢ δᵢₒ and ∂L/∂W_o = Σᵢ δᵢₒ xᵢ: the ratio of the two is a weighted
mean of the images, and for a single image the image itself (Phong et al. 2018, section 3;
Geiping et al., "Inverting Gradients", 2020, proposition 3.1).

Lesson: lessons/10_labels.py
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinyleak.backend import Array

NEGLIGIBLE = 1e-9
"""A bias gradient this much smaller than the largest is too small to divide by."""


class Separated(NamedTuple):
    """One input of a batch: x (F,), and the rows, two or more, in which it is alone."""

    x: Array
    rows: Array


def first_layer_input(weight_gradient: Array, bias_gradient: Array) -> Array:
    """Return the one input of a fully connected layer, from the gradient by its weight and bias.

    All rows contribute, by how large they are: it is the least-squares solution x of
    `bias_gradient xᵀ = weight_gradient`. For a batch it is a weighted mean of the inputs.

    Args:
        weight_gradient: (O, F), ∂L/∂W.
        bias_gradient: (O,), ∂L/∂b.

    Returns:
        (F,). If the layer is the network's first, these are the pixels.

    Raises:
        ValueError: shapes that do not belong together, or a bias gradient that is all zero.
    """
    if weight_gradient.ndim != 2 or bias_gradient.shape != weight_gradient.shape[:1]:
        raise ValueError(
            f"gradients of shapes {weight_gradient.shape} and {bias_gradient.shape} were given; a "
            "fully connected layer's are (O, F) by the weight and (O,) by the bias"
        )
    largest = float(np.abs(bias_gradient).max(initial=0.0))
    if not 0 < largest < np.inf:
        raise ValueError(
            f"the bias gradient's largest entry is {largest}; the input is a ratio to it, so it "
            "must be finite and not zero: choose a layer whose units are not all dead"
        )
    row = bias_gradient / largest  # so that no square underflows
    return (row @ weight_gradient) / (row @ row) / largest


def separate_inputs(
    weight_gradient: Array, bias_gradient: Array, *, tolerance: float = 1e-6
) -> list[Separated]:
    """Return those inputs of a batch that are alone in two rows or more.

    After ReLU a row's δᵢₒ is zero for all images that do not switch unit o on. Where one image
    alone does, the row's ratio is that image. A single such row cannot be told from a mixture, but
    two rows of equal ratio give an image away, since mixtures differ from row to row.

    That holds when the rows' δ are in general position: there are more than two classes, and the
    gradient is not rounded. A mixture is also returned if some rows of δ are proportional.

    Args:
        weight_gradient: (O, F), ∂L/∂W.
        bias_gradient: (O,), ∂L/∂b.
        tolerance: how far equal ratios may differ, relative to the largest entry of an input.

    Returns:
        The inputs, the one with the most rows first; for one image that one, with all its rows.

    Raises:
        ValueError: as `first_layer_input` does.
    """
    first_layer_input(weight_gradient, bias_gradient)
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
        Separated(first_layer_input(weight_gradient[group], bias_gradient[group]), np.sort(group))
        for group in sorted(groups, key=len, reverse=True)
        if len(group) > 1
    ]
