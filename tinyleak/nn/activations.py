"""The activations of language models: gelu (Hendrycks and Gimpel 2016), a smooth relu."""

from __future__ import annotations

import math

from tinyleak.ops import erf, tanh
from tinyleak.tensor import Tensor


def gelu(x: Tensor) -> Tensor:
    """Return `x · Φ(x)`, with Φ the distribution function of N(0, 1)."""
    return x * (0.5 + 0.5 * erf(x * math.sqrt(0.5)))


def gelu_tanh(x: Tensor) -> Tensor:
    """Return gelu with tanh in place of erf, as the authors approximate it (their section 2)."""
    return x * (0.5 + 0.5 * tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))))
