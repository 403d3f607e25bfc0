"""Losses. Labels are soft: a row of probabilities for each image, so that they can be optimised.

Lesson: lessons/06_lenet.py
"""

from tinyleak.ops import exp, inner, log, max, stop_gradient, sum
from tinyleak.tensor import Tensor


def log_softmax(logits: Tensor) -> Tensor:
    """Return `log softmax` along the last axis: `(z − max z) − log Σ e^(z − max z)`.

    Large logits neither overflow nor lose digits: the maximum is taken off before the exponentials
    and never added back. It cancels, so it is held constant.
    """
    shifted = logits - stop_gradient(max(logits, -1, keepdims=True))
    return shifted - log(sum(exp(shifted), -1, keepdims=True))


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
        ValueError: the shapes differ, have fewer than two axes, or no image or class.
    """
    if logits.ndim < 2 or logits.shape != targets.shape or 0 in logits.shape[-2:]:
        raise ValueError(
            f"cross_entropy was given logits of shape {logits.shape} and targets of shape "
            f"{targets.shape}; both must be (…, N, K), N, K ≥ 1, the targets probabilities"
        )
    return inner(targets, log_softmax(logits), axes=2) * (-1.0 / logits.shape[-2])
