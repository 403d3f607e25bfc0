"""What is said of the labels that were found."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyleak.backend import Array

NEARLY_HARD = 1e-2  # numbers so near one 1 among 0s are a label


def labels_told(
    kind: str, soft: Array, labels: Array, heads: Sequence[int] = ()
) -> list[str] | None:
    """Return each image's label, "?" where all are as likely; None where targets are no labels.

    Of several heads, with so many classes each, an image has a label by each.
    """
    classes = soft.shape[1]
    if kind == "cross-entropy" and len(heads) > 1 and sum(heads) == classes:
        parts = np.split(soft, np.cumsum(heads)[:-1], axis=1)
        each = [labels_told(kind, part, part.argmax(axis=1)) or [] for part in parts]
        return ["/".join(told) for told in zip(*each, strict=True)]
    hard = np.arange(classes) == labels[:, np.newaxis]
    numbers = classes == 1 or np.abs(soft - hard).max() >= NEARLY_HARD
    if (kind == "mse" and numbers) or (kind == "bce" and classes > 1):
        return None
    unknown = (soft.min(axis=1) == soft.max(axis=1)) & (classes > 1)
    return ["?" if one else str(label) for one, label in zip(unknown, labels, strict=True)]


def listed(labels: Any) -> str:
    """Return labels as text."""
    return " ".join(map(str, labels))
