"""Attention and recurrent layers by the names that an exported graph has for them."""

from collections.abc import Callable
from functools import partial
from typing import Any

from tinyleak import nn
from tinyleak.backend import to_numpy
from tinyleak.nn.models.exported.values import Value, require_room
from tinyleak.nn.recurrent import State, Step, gru, gru_step, lstm, lstm_step, plain_step, rnn
from tinyleak.ops import concatenate, relu, reshape, tanh, transpose
from tinyleak.tensor import Tensor

MOST_STEPS = 10_000  # how many steps a recurrent layer may take


def _scaled_dot_product_attention(
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        raise ValueError("attention with fewer keys than queries is not known here")
    require_room(*query.shape[:-1], key.shape[-2])
    mask = None if attn_mask is None else attn_mask.lifted(query.rank)
    settings = {"mask": mask, "causal": is_causal, "scale": scale}
    return nn.attention(query.tensor, key.tensor, value.tensor, **settings)  # type: ignore[arg-type]


def _recur(
    function: Any,
    states: int,
    input: Value,
    hx: Value | tuple[Value, ...],
    params: tuple[Value, ...],
    has_biases: bool = True,
    num_layers: int = 1,
    bidirectional: bool = False,
    batch_first: bool = False,
) -> tuple[Tensor, ...]:
    starts = [hx] if isinstance(hx, Value) else list(hx)
    directions, each = 1 + bidirectional, 4 if has_biases else 2
    if input.rank != 3 or len(params) != num_layers * directions * each:
        raise ValueError(
            "a recurrent layer with projections, or without a batch, is not known here"
        )
    if any(to_numpy(start.tensor._array).any() for start in starts):
        raise ValueError("a recurrent layer that does not start from zeros is not known here")
    if input.shape[1 if batch_first else 0] > MOST_STEPS:
        raise ValueError(f"it takes more than {MOST_STEPS:,} steps")
    x = input if batch_first else Value(transpose(input.tensor, (1, 0, 2)), 3)
    ended: list[list[Tensor]] = [[] for _ in range(states)]
    groups = [params[first : first + each] for first in range(0, len(params), each)]
    for first in range(0, len(groups), directions):
        outputs = []
        for backwards, group in enumerate(groups[first : first + directions]):
            weights = [one.weight for one in group]
            ends: list[Tensor] = []
            run = partial(_recur_once, function, weights, backwards > 0, ends)
            outputs.append(x.each(2, run))
            for states_so_far, end in zip(ended, ends, strict=True):
                states_so_far.append(reshape(end, (*x.lead, 1, x.shape[0], end.shape[-1])))
        x = Value(concatenate(outputs, -1) if len(outputs) > 1 else outputs[0], 3)
    out = x.tensor if batch_first else transpose(x.tensor, (1, 0, 2))
    return out, *[concatenate(several, -3) for several in ended]


def _recur_once(
    function: Any, weights: list[Tensor], backwards: bool, ends: list[Tensor], series: Tensor
) -> Tensor:
    """Run a recurrent layer in one direction; add its last state to `ends`."""
    out: Tensor
    out, state = function(series, *weights, backwards=backwards)
    ends += state
    return out


def _cell(
    step: Step,
    input: Value,
    hx: Value | tuple[Value, ...],
    w_ih: Value,
    w_hh: Value,
    b_ih: Value | None = None,
    b_hh: Value | None = None,
) -> Tensor | State:
    """Take one step of a recurrent layer."""
    states = (hx,) if isinstance(hx, Value) else tuple(hx)
    inputs, hidden = (
        one.each(1, partial(_linear, weight, bias))
        for one, weight, bias in ((input, w_ih, b_ih), (states[0], w_hh, b_hh))
    )
    after = step(inputs, hidden, tuple([one.tensor for one in states]))
    return after[0] if isinstance(hx, Value) else after


def _linear(weight: Value, bias: Value | None, x: Tensor) -> Tensor:
    return nn.linear(x, weight.weight, None if bias is None else bias.weight)


SEQUENCES: dict[str, Callable[..., Tensor | tuple[Tensor, ...]]] = {
    "scaled_dot_product_attention": _scaled_dot_product_attention,
    "gru": partial(_recur, gru, 1),
    "lstm": partial(_recur, lstm, 2),
    "rnn_tanh": partial(_recur, partial(rnn, tanh), 1),
    "rnn_relu": partial(_recur, partial(rnn, relu), 1),
    "gru_cell": partial(_cell, gru_step),
    "lstm_cell": partial(_cell, lstm_step),
    "rnn_tanh_cell": partial(_cell, plain_step(tanh)),
    "rnn_relu_cell": partial(_cell, plain_step(relu)),
}
"""By PyTorch's name."""
