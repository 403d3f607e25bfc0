"""Losses. Labels are soft: a row of probabilities for each image, so that they can be optimised."""

from __future__ import annotations

import numpy as np

from tinyleak.backend import Array
from tinyleak.ops import exp, inner, logsumexp
from tinyleak.tensor import Tensor


def log_softmax(logits: Tensor) -> Tensor:
    """Return `log softmax` along the last axis; large logits do not overflow."""
    return logits - logsumexp(logits)


def softmax(logits: Tensor) -> Tensor:
    """Return probabilities along the last axis: `eᶻ / Σ eᶻ`."""
    return exp(log_softmax(logits))


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return `−Σₖ targetₖ · log softmax(logits)ₖ`, averaged over the batch.

    Args:
        logits: (…, N, K).
        targets: (…, N, K), rows of probabilities.

    Returns:
        (…).

    Raises:
        ValueError: the shapes differ.
    """
    batch = logits.shape[-2]
    return inner(targets, log_softmax(logits), axes=2) * (-1.0 / batch)


def one_hot(labels: Array, classes: int, dtype: str = "float64") -> Array:
    """Return the rows of probabilities that say each label for certain.

    Args:
        labels: (…) whole numbers in [0, classes).
        classes: how many there are.
        dtype: of the result.

    Returns:
        (…, classes), zeros but for a one at each label.

    Raises:
        ValueError: a label out of range.
    """
    labels = np.asarray(labels)
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise ValueError(
            f"label {wrong[0]} was given; with {classes} classes labels are in [0, {classes})"
        )
    return np.eye(classes, dtype=dtype)[labels]
