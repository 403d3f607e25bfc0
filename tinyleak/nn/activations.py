"""Activations, and the table by which they are called by name."""

import math
from collections.abc import Callable

from tinyleak.ops import clip, erf, exp, relu, sigmoid, softplus, split, tanh, where
from tinyleak.tensor import Tensor

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
"""What keeps mean 0 and variance 1 from layer to layer (Klambauer et al. 2017, equation 14)."""


def gelu(x: Tensor) -> Tensor:
    """Return `x · Φ(x)`, Φ the distribution function of N(0, 1) (Hendrycks and Gimpel 2016)."""
    return x * (0.5 + 0.5 * erf(x * math.sqrt(0.5)))


def gelu_tanh(x: Tensor) -> Tensor:
    """Return gelu with tanh in place of erf, as the authors approximate it (their section 2)."""
    return x * (0.5 + 0.5 * tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))))


def silu(x: Tensor) -> Tensor:
    """Return `x · sigmoid(x)`, also called swish (Ramachandran, Zoph and Le 2017)."""
    return x * sigmoid(x)


def mish(x: Tensor) -> Tensor:
    """Return `x · tanh(softplus(x))` (Misra 2019)."""
    return x * tanh(softplus(x))


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """Return `x` where it is positive, else `alpha · (eˣ − 1)` (Clevert et al. 2015)."""
    positive = relu(x)
    return positive + (exp(x - positive) - 1.0) * alpha


def selu(x: Tensor) -> Tensor:
    """Return elu with the constants of self-normalising networks (Klambauer et al. 2017)."""
    return elu(x, SELU_ALPHA) * SELU_SCALE


def leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    """Return `x` where it is positive, else `slope · x` (Maas, Hannun and Ng 2013)."""
    return where(x > 0.0, x, x * slope)


def relu6(x: Tensor) -> Tensor:
    """Return `x` held between 0 and 6."""
    return clip(x, 0.0, 6.0)


def hardtanh(x: Tensor, lowest: float = -1.0, highest: float = 1.0) -> Tensor:
    """Return `x` held between two numbers."""
    return clip(x, lowest, highest)


def hardsigmoid(x: Tensor) -> Tensor:
    """Return `x / 6 + 1/2` held between 0 and 1."""
    return relu6(x + 3.0) * (1 / 6)


def hardswish(x: Tensor) -> Tensor:
    """Return `x · hardsigmoid(x)` (Howard et al. 2019)."""
    return x * hardsigmoid(x)


def glu(x: Tensor, axis: int = -1) -> Tensor:
    """Return the first half of an axis times the sigmoid of the second (Dauphin et al. 2017)."""
    half = x.shape[axis] // 2
    values, gates = split(x, (half, x.shape[axis] - half), axis)
    return values * sigmoid(gates)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": sigmoid,
    "tanh": tanh,
    "softplus": softplus,
    "relu": relu,
    "leaky_relu": leaky_relu,
    "elu": elu,
    "selu": selu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": silu,
    "mish": mish,
    "relu6": relu6,
    "hardtanh": hardtanh,
    "hardswish": hardswish,
}
"""Activations by name. The search by gradients needs a smooth one."""

PIECEWISE_LINEAR = ("relu", "leaky_relu", "relu6", "hardtanh")
"""Those whose second derivative is zero."""
