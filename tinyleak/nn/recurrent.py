"""Recurrent layers: one step after another, each from its input and the state before.

Weights are PyTorch's, with the gates in its order.
"""

from collections.abc import Callable

from tinyleak.backend import array_module
from tinyleak.nn.layers import linear
from tinyleak.ops import reshape, sigmoid, split, stack, tanh
from tinyleak.tensor import Tensor

State = tuple[Tensor, ...]
"""A GRU's is h, an LSTM's h and c, each (…, N, H)."""

Step = Callable[[Tensor, Tensor, State], State]
"""Takes what a step's input and the last h contribute to the gates, (…, N, k·H) each."""


def rnn(
    activation: Callable[[Tensor], Tensor], x: Tensor, *weights: Tensor, backwards: bool = False
) -> tuple[Tensor, State]:
    """Run a plain recurrent layer over series, from zeros: h becomes f(W x + U h) (Elman 1990).

    As `gru`, with H in place of 3·H.
    """
    return _run(plain_step(activation), 1, x, weights, backwards)


def gru(x: Tensor, *weights: Tensor, backwards: bool = False) -> tuple[Tensor, State]:
    """Run a layer of gated recurrent units over series, from zeros (Cho et al. 2014).

    Args:
        x: (…, N, T, F).
        weights: PyTorch's `weight_ih`, (…, 3·H, F), with the reset, update and new gate;
            `weight_hh`, (…, 3·H, H); and, where there are any, `bias_ih` and `bias_hh`, (…, 3·H).
        backwards: whether the last step comes first.

    Returns:
        h after every step, (…, N, T, H), and the last state.
    """
    return _run(gru_step, 1, x, weights, backwards)


def lstm(x: Tensor, *weights: Tensor, backwards: bool = False) -> tuple[Tensor, State]:
    """Run a layer of long short-term memory over series (Hochreiter and Schmidhuber 1997).

    As `gru`, with 4·H in place of 3·H: input, forget, cell and output gate.
    """
    return _run(lstm_step, 2, x, weights, backwards)


def plain_step(activation: Callable[[Tensor], Tensor]) -> Step:
    """Return the step of a plain recurrent layer, from what input and last h contribute to it."""
    return lambda inputs, hidden, _: (activation(inputs + hidden),)


def gru_step(inputs: Tensor, hidden: Tensor, state: State) -> State:
    """Return h after a step, from what input and last h contribute to the gates, and that h."""
    (h,) = state
    reset, update, new = split(inputs, (h.shape[-1],) * 3, -1)
    by_state = split(hidden, (h.shape[-1],) * 3, -1)
    candidate = tanh(new + sigmoid(reset + by_state[0]) * by_state[2])
    return (candidate + sigmoid(update + by_state[1]) * (h - candidate),)


def lstm_step(inputs: Tensor, hidden: Tensor, state: State) -> State:
    """Return h and c after a step, from what input and last h contribute, and both before it."""
    h, c = state
    write, forget, cell, read = split(inputs + hidden, (h.shape[-1],) * 4, -1)
    c = sigmoid(forget) * c + sigmoid(write) * tanh(cell)
    return sigmoid(read) * tanh(c), c


def _run(
    step: Step, parts: int, x: Tensor, weights: tuple[Tensor, ...], backwards: bool
) -> tuple[Tensor, State]:
    by_input, by_state, *biases = weights
    input_bias, state_bias = biases or (None, None)
    *leading, batch, steps, features = x.shape
    # What the inputs contribute does not depend on the state: one product for all steps.
    lines = linear(reshape(x, (*leading, batch * steps, features)), by_input, input_bias)
    inputs = reshape(lines, (*lines.shape[:-2], batch, steps, lines.shape[-1]))
    shape = (*lines.shape[:-2], batch, by_state.shape[-1])
    state: State = (Tensor(array_module(x._array).zeros(shape, dtype=x.dtype)),) * parts
    outputs = []
    every = [reshape(one, (*one.shape[:-2], -1)) for one in split(inputs, (1,) * steps, -2)]
    for one in reversed(every) if backwards else every:
        state = step(one, linear(state[0], by_state, state_bias), state)
        outputs.append(state[0])
    return stack(outputs[::-1] if backwards else outputs, -2), state
