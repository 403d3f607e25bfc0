"""PyTorch's normalisations by the names that an exported graph has for them."""

from collections.abc import Callable

import numpy as np

from tinyleak import nn
from tinyleak.backend import array_module
from tinyleak.nn.models.exported.elementwise import aligned
from tinyleak.nn.models.exported.values import Ints, Value
from tinyleak.ops import mean, multiply, reshape, sqrt, sum
from tinyleak.tensor import Tensor


def _batch_norm(
    input: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value | None = None,
    running_var: Value | None = None,
    training: bool = False,
    eps: float = 1e-5,
) -> Tensor:
    w, b = scale_and_shift(input, 1, weight, bias)

    def apply(x: Tensor) -> Tensor:
        image = reshape(x, (*x.shape[: x.ndim - input.rank + 2], -1, 1))
        if training or running_mean is None or running_var is None:
            return reshape(nn.batch_norm_of_batch(image, w, b, eps), x.shape)
        means, variances = running_mean.tensor.data, running_var.tensor.data
        return reshape(nn.batch_norm(image, w, b, means, variances, eps), x.shape)

    return input.each(input.rank - 1, apply)


def _instance_norm(
    input: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value | None = None,
    running_var: Value | None = None,
    use_input_stats: bool = True,
    eps: float = 1e-5,
) -> Tensor:
    if not use_input_stats:
        return _batch_norm(input, weight, bias, running_mean, running_var, eps=eps)
    return _group_norm(input, input.shape[1], weight, bias, eps)


def _group_norm(
    input: Value,
    num_groups: int,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
) -> Tensor:
    w, b = scale_and_shift(input, 1, weight, bias)

    def apply(x: Tensor) -> Tensor:
        image = reshape(x, (*x.shape[: x.ndim - input.rank + 2], -1, 1))
        return reshape(nn.group_norm(image, num_groups, w, b, eps), x.shape)

    return input.each(input.rank - 1, apply)


def _layer_norm(
    input: Value,
    normalized_shape: Ints,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
) -> Tensor:
    keep = len(normalized_shape)
    w, b = scale_and_shift(input, -keep, weight, bias)

    def apply(x: Tensor) -> Tensor:
        rows = reshape(x, (*x.shape[:-keep], -1))
        w_row, b_row = (reshape(t, (*t.shape[: t.ndim - keep], -1)) for t in (w, b))
        return reshape(nn.layer_norm(rows, w_row, b_row, eps), x.shape)

    return input.each(keep, apply)


def _rms_norm(
    input: Value, normalized_shape: Ints, weight: Value | None = None, eps: float | None = None
) -> Tensor:
    axes = tuple(range(-len(normalized_shape), 0))
    # PyTorch adds what is 1's last place in the dtype of the client, float32.
    least = float(np.finfo(np.float32).eps) if eps is None else eps
    squares = mean(input.tensor * input.tensor, axes, keepdims=True)
    row = input.tensor / sqrt(squares + least)
    return row if weight is None else multiply(*aligned(Value(row, input.rank), weight))


def _weight_norm(v: Value, g: Value, dim: int = 0) -> Tensor:
    axes = tuple(n for n in range(-v.rank, 0) if dim == -1 or n != v.axis(dim))
    lengths = sqrt(sum(v.tensor * v.tensor, axes, keepdims=True))
    return v.tensor * (g.lifted(v.rank) / lengths)


def scale_and_shift(
    input: Value, first: int, weight: Value | None, bias: Value | None
) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of a normalisation; 1 and 0 where it has none."""
    shape = input.shape[first : first + 1] if first > 0 else input.shape[first:]
    module, dtype = array_module(input.tensor._array), input.tensor.dtype
    return (
        Tensor(module.ones(shape, dtype=dtype)) if weight is None else weight.weight,
        Tensor(module.zeros(shape, dtype=dtype)) if bias is None else bias.weight,
    )


NORMS: dict[str, Callable[..., Tensor]] = {
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "_weight_norm": _weight_norm,
}
"""By PyTorch's name."""
