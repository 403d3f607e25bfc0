"""Layers that multiply their inputs with one another, and the look-up in a table."""

from typing import Any

import numpy as np

from tinyleak.nn.layers import as_row
from tinyleak.nn.losses import softmax
from tinyleak.ops import reshape, sum, swap_last_axes, take, transpose, where
from tinyleak.tensor import Tensor


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Return `softmax(query · keyᵀ · scale + mask) · value` (Vaswani et al. 2017, 3.2.1).

    Args:
        query: (…, T, d).
        key: (…, S, d).
        value: (…, S, e); the result is (…, T, e).
        mask: added to the scores, or, of booleans, true where a row may be looked at; (…, T, S).
        causal: whether the t-th row looks at the first t rows alone.
        scale: by default 1/√d.
    """
    scores = query @ swap_last_axes(key) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        mask = Tensor(np.tri(*scores.shape[-2:], dtype=bool))
    if mask is not None:
        scores = where(mask, scores, -np.inf) if mask.dtype.kind == "b" else scores + mask
    return softmax(scores) @ value


def bilinear(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `Σ xᵢ weightₒᵢⱼ yⱼ + biasₒ`: (…, N, O), for (…, N, I), (…, N, J) and (…, O, I, J)."""
    outputs, inputs, others = weight.shape[-3:]
    matrix = reshape(transpose(weight, (1, 0, 2)), (*weight.shape[:-3], inputs, outputs * others))
    by_x = x @ matrix
    by_x = reshape(by_x, (*by_x.shape[:-1], outputs, others))
    out = sum(by_x * as_row(y), -1)
    return out if bias is None else out + as_row(bias)


def embedding(table: Tensor, indices: Any) -> Tensor:
    """Return the rows of a table, (…, V, d), at whole numbers (T…): (…, T…, d)."""
    return take(table, indices, axis=-2)
