"""Labels as rows of probabilities."""

from __future__ import annotations

import numpy as np

from tinyleak.backend import Array
from tinyleak.interop import as_array


def one_hot(labels: Array, classes: int, dtype: str = "float64") -> Array:
    """Return the rows of probabilities that say each label for certain.

    Args:
        labels: (…) whole numbers in [0, classes).
        classes: how many there are.
        dtype: of the result.

    Returns:
        (…, classes), zeros but for a one at each label.

    Raises:
        ValueError: a label out of range, or labels that are not whole numbers.
    """
    labels = as_array(labels)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"labels of dtype {labels.dtype} were given; whole numbers are needed")
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise ValueError(
            f"label {wrong[0]} was given; with {classes} classes labels are in [0, {classes})"
        )
    return np.eye(classes, dtype=dtype)[labels]


def likeliest(soft: Array) -> Array:
    """Return the class (…) of rows of probabilities (…, K); of a single one whether it is yes."""
    return np.argmax(soft, axis=-1) if soft.shape[-1] > 1 else (soft[..., 0] > 0.5).astype(int)
