"""Labels as rows of probabilities."""

import numpy as np

from tinyleak.backend import Array
from tinyleak.interop import as_array


def one_hot(labels: Array, classes: int, dtype: str = "float64") -> Array:
    """Return rows of probabilities that say each label for certain, (…, classes), from (…).

    Labels are whole numbers in [0, classes); any others are a ValueError.
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
