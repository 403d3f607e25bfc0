"""The fourteen networks in JAX: PyTorch's exported graphs, computed node by node.

Each operation is written as a user of JAX writes it, so that what is compared is how fast the same
graph is evaluated and differentiated, compiled for one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import lax

jax.config.update("jax_enable_x64", True)  # otherwise float64 is computed in float32


def distance(
    name: str, network: torch.nn.Module, label: int, wanted: Sequence[np.ndarray], x: np.ndarray
) -> Callable[[Any], tuple[Any, Any]]:
    """Return the relative distance between gradients, and its gradient with respect to an image.

    Args:
        name: of the network.
        network: in float64.
        label: the image's.
        wanted: the client's gradient, in the order of the network's parameters.
        x: an image to export the network with, (1, ...).
    """
    exported = torch.export.export(network, (torch.tensor(x),))
    params = {name: jnp.asarray(p.detach().numpy()) for name, p in network.named_parameters()}
    others = {name: jnp.asarray(b.numpy()) for name, b in network.named_buffers()}
    target = dict(zip(params, map(jnp.asarray, wanted), strict=True))
    length = sum((g * g).sum() for g in target.values())

    def loss(params: Mapping[str, Any], x: Any) -> Any:
        return _loss_of(name, _outputs(exported, params | others, x), label)

    def apart(x: Any) -> Any:
        found = jax.grad(loss)(params, x)
        return sum(((found[name] - g) ** 2).sum() for name, g in target.items()) / length

    return jax.jit(jax.value_and_grad(apart))


def _loss_of(name: str, outputs: Any, label: int) -> Any:
    """Return the loss that such a client has, as `ordinary_networks.loss_of`."""
    if name == "two_heads":
        digit, odd = outputs
        return _cross_entropy(digit, label) + _cross_entropy(odd, label % 2)
    if name == "binary":
        return jax.nn.softplus(outputs[0, 0]) - label * outputs[0, 0]
    return _cross_entropy(outputs, label)


def _cross_entropy(logits: Any, label: int) -> Any:
    return -jax.nn.log_softmax(logits)[0, label]


def _outputs(exported: Any, state: Mapping[str, Any], x: Any) -> Any:
    """Return what an exported network makes of an input."""
    signature = exported.graph_signature
    names = signature.inputs_to_parameters | signature.inputs_to_buffers
    values: dict[Any, Any] = {}

    def value_of(given: Any) -> Any:
        return torch.fx.node.map_arg(given, values.__getitem__)

    for node in exported.graph.nodes:
        if node.op == "placeholder":
            values[node] = state[names[node.name]] if node.name in names else x
        elif node.op == "call_function":
            operation = _OPERATIONS[getattr(node.target, "overloadpacket", node.target).__name__]
            values[node] = operation(*value_of(node.args))
    (outputs,) = [value_of(node.args[0]) for node in exported.graph.nodes if node.op == "output"]
    heads = len(signature.user_outputs)  # before them stand the statistics of batch norm
    return outputs[-1] if heads == 1 else outputs[-heads:]


def _pairs(numbers: int | Sequence[int], many: int) -> tuple[int, ...]:
    given = (numbers,) if isinstance(numbers, int) else tuple(numbers)
    return given * many if len(given) == 1 else given


def _convolution(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    axes = x.ndim - 2
    letters = "HW"[:axes]
    found = lax.conv_general_dilated(
        x,
        weight,
        _pairs(stride, axes),
        [(each, each) for each in _pairs(padding, axes)],
        rhs_dilation=_pairs(dilation, axes),
        dimension_numbers=(f"NC{letters}", f"OI{letters}", f"NC{letters}"),
        feature_group_count=groups,
    )
    return found if bias is None else found + bias.reshape(-1, *[1] * axes)


def _windows(x, start, combine, size, stride, padding):
    axes = x.ndim - 2
    size = _pairs(size, axes)
    stride = _pairs(stride, axes) if stride else size
    around = [(0, 0)] * 2 + [(each, each) for each in _pairs(padding, axes)]
    return lax.reduce_window(x, start, combine, (1, 1, *size), (1, 1, *stride), around)


def _max_pool(x, size, stride=(), padding=0):
    return _windows(x, -jnp.inf, lax.max, size, stride, padding)


def _average_pool(x, size, stride=()):
    return _windows(x, 0.0, lax.add, size, stride, 0) / np.prod(_pairs(size, x.ndim - 2))


def _adaptive_average_pool(x, size):
    rows, columns = (
        [(k * many // parts, -(-(k + 1) * many // parts)) for k in range(parts)]
        for many, parts in zip(x.shape[2:], _pairs(size, 2), strict=True)
    )
    parts = [[x[:, :, a:b, c:d].mean((2, 3)) for c, d in columns] for a, b in rows]
    return jnp.stack([jnp.stack(row, -1) for row in parts], -2)


def _standardised(x, axes, eps):
    return (x - x.mean(axes, keepdims=True)) / jnp.sqrt(x.var(axes, keepdims=True) + eps)


def _batch_norm(x, weight, bias, mean, variance, training, momentum, eps, *_):
    by_channel = (1, -1, *[1] * (x.ndim - 2))
    if training:
        x = _standardised(x, (0, *range(2, x.ndim)), eps)
    else:
        x = (x - mean.reshape(by_channel)) / jnp.sqrt(variance.reshape(by_channel) + eps)
    return x * weight.reshape(by_channel) + bias.reshape(by_channel)


def _group_norm(x, groups, weight, bias, eps=1e-5, *_):
    by_channel = (1, -1, *[1] * (x.ndim - 2))
    found = _standardised(x.reshape(len(x), groups, -1), -1, eps).reshape(x.shape)
    return found * weight.reshape(by_channel) + bias.reshape(by_channel)


def _layer_norm(x, shape, weight, bias, eps=1e-5, *_):
    return _standardised(x, tuple(range(-len(shape), 0)), eps) * weight + bias


def _attention(query, key, value, *_):
    scores = query @ jnp.swapaxes(key, -1, -2) / np.sqrt(query.shape[-1])
    return jax.nn.softmax(scores) @ value


def _gru(x, state, weights, *_):
    into, within, bias_into, bias_within = weights

    def step(h, now):
        reset_into, update_into, new_into = jnp.split(now, 3, axis=-1)
        reset, update, new = jnp.split(h @ within.T + bias_within, 3, axis=-1)
        keep = jax.nn.sigmoid(update_into + update)
        fresh = jnp.tanh(new_into + jax.nn.sigmoid(reset_into + reset) * new)
        h = (1 - keep) * fresh + keep * h
        return h, h

    last, all_of = lax.scan(step, state[0], jnp.swapaxes(x @ into.T + bias_into, 0, 1))
    return jnp.swapaxes(all_of, 0, 1), last[None]


def _unflatten(x, axis, sizes):
    axis %= x.ndim
    return x.reshape(*x.shape[:axis], *sizes, *x.shape[axis + 1 :])


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "adaptive_avg_pool2d": _adaptive_average_pool,
    "add": lambda x, y: x + y,
    "add_": lambda x, y: x + y,
    "avg_pool2d": _average_pool,
    "batch_norm": _batch_norm,
    "cat": lambda parts, axis=0: jnp.concatenate(parts, axis),
    "contiguous": lambda x: x,
    "conv1d": _convolution,
    "conv2d": _convolution,
    "dropout": lambda x, *_: x,
    "elu": jax.nn.elu,
    "expand": lambda x, sizes: jnp.broadcast_to(
        x, [old if new == -1 else new for old, new in zip(x.shape, sizes, strict=True)]
    ),
    "flatten": lambda x, first=0, _=-1: x.reshape(*x.shape[:first], -1),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "getitem": lambda x, k: x[k],
    "group_norm": _group_norm,
    "gru": _gru,
    "hardswish": jax.nn.hard_swish,
    "layer_norm": _layer_norm,
    "leaky_relu": jax.nn.leaky_relu,
    "linear": lambda x, weight, bias: x @ weight.T + bias,
    "max_pool1d": _max_pool,
    "max_pool2d": _max_pool,
    "permute": jnp.transpose,
    "relu": jax.nn.relu,
    "reshape": lambda x, sizes: x.reshape(sizes),
    "scaled_dot_product_attention": _attention,
    "select": lambda x, axis, k: jnp.take(x, k, axis),
    "silu": jax.nn.silu,
    "squeeze": jnp.squeeze,
    "tanh": jnp.tanh,
    "transpose": jnp.swapaxes,
    "unflatten": _unflatten,
    "unsqueeze": jnp.expand_dims,
    "view": lambda x, sizes: x.reshape(sizes),
    "zeros": jnp.zeros,
}
