"""A network as the list of its linear layers: which inputs each window sees, and its weights."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyleak.backend import Array, to_numpy
from tinyleak.nn.model import Model
from tinyleak.nn.models import MLP, LeNet


@dataclass(frozen=True, eq=False, repr=False)
class Layer:
    """A convolution, or a fully connected layer, which is one with a single window."""

    name: str  # of its weight
    weight: Array  # (O, J), for J inputs to a window
    bias: Array  # (O,), zeros where it has none
    indices: Array  # (P, J), which input each of P windows sees; n where it sees the padding
    inputs: int  # n

    def forward(self) -> Array:
        """Return the matrix of its linear map, (P, O, n)."""
        matrix = np.zeros((len(self.indices), len(self.weight), self.inputs + 1))
        for window, indices in enumerate(self.indices):
            matrix[window][:, indices] = self.weight
        return matrix[..., :-1]

    def gradient(self, deltas: Array) -> Any:
        """Return the sparse matrix that maps inputs to the weight's gradient, (O·J, n).

        It is made of `deltas`, (P, O), the gradient with respect to the layer's outputs.
        """
        from scipy.sparse import coo_array

        outputs, size = self.weight.shape
        windows, positions = np.nonzero(self.indices < self.inputs)  # all but the padding
        rows = np.arange(outputs) * size + positions[:, None]
        columns = np.repeat(self.indices[windows, positions], outputs)
        entries = deltas[windows].ravel(), (rows.ravel(), columns)
        return coo_array(entries, shape=(outputs * size, self.inputs)).tocsr()

    def back(self, deltas: Array) -> Array:
        """Return the gradient with respect to its inputs, (N, n), from (N, P, O) of its outputs."""
        found = np.zeros((len(deltas), self.inputs + 1))
        for one, by_window in zip(found, deltas @ self.weight, strict=True):
            np.add.at(one, self.indices, by_window)
        return found[:, :-1]


@dataclass(frozen=True, eq=False, repr=False)
class Inverse:
    """An activation backwards."""

    lowest: float  # the greatest lower bound of its outputs
    highest: float  # their least upper bound
    of: Callable[[Array], Array]  # the input that gave an output
    slope: Callable[[Array], Array]  # its derivative there, as a function of the output


INVERSES = {
    "sigmoid": Inverse(0.0, 1.0, lambda a: np.log(a / (1.0 - a)), lambda a: a * (1.0 - a)),
    "tanh": Inverse(-1.0, 1.0, np.arctanh, lambda a: 1.0 - a * a),
    "softplus": Inverse(0.0, np.inf, lambda a: a + np.log(-np.expm1(-a)), lambda a: -np.expm1(-a)),
    # Where a unit is off, its input is negative, and nothing else is known of it.
    "relu": Inverse(0.0, np.inf, lambda a: a, lambda a: (a > 0).astype(float)),
}


def layers_of(model: Model, params: Mapping[str, Array]) -> list[Layer]:
    """Return the layers of a LeNet or an MLP, the first one first.

    Raises:
        ValueError: another network, or an activation that is not among `INVERSES`.
    """
    if getattr(model, "activation", None) not in {None, *INVERSES}:
        raise ValueError(
            f"{model} was given; layer by layer a network can be inverted whose activation is "
            f"one of {', '.join(INVERSES)}"
        )
    weights = {name: to_numpy(array).astype(float) for name, array in params.items()}
    names = [name for name in model.shapes if name.endswith(".weight")]
    windows = _windows(model)
    return [
        Layer(
            name,
            weights[name].reshape(len(weights[name]), -1),
            weights.get(name.removesuffix("weight") + "bias", np.zeros(len(weights[name]))),
            where,
            inputs,
        )
        for name, (where, inputs) in zip(names, windows, strict=True)
    ]


def _windows(model: Model) -> list[tuple[Array, int]]:
    """Return which inputs the windows of each layer see, and how many inputs there are."""
    if isinstance(model, MLP):
        sizes = (math.prod(model.image_shape), *model.widths)
        return [(np.arange(size)[None], size) for size in sizes]
    if not isinstance(model, LeNet):
        raise ValueError(
            f"{model} was given; layer by layer a LeNet or an MLP can be inverted, whose "
            "activations follow one another"
        )
    channels, height, width = model.image_shape
    found = []
    for out, stride in zip(model.channels, model.strides, strict=True):
        size = channels * height * width
        found.append((_convolution(channels, height, width, model.kernel, stride), size))
        channels, height, width = out, -(-height // stride), -(-width // stride)
    size = channels * height * width
    return [*found, (np.arange(size)[None], size)]


def _convolution(channels: int, height: int, width: int, kernel: int, stride: int) -> Array:
    """Return the inputs of each window, (P, C·k·k), row by row of windows."""
    edge = kernel // 2
    size = channels * height * width
    inputs = np.arange(size).reshape(channels, height, width)
    padded = np.pad(inputs, ((0, 0), (edge, edge), (edge, edge)), constant_values=size)
    seen = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(1, 2))
    strided = seen[:, ::stride, ::stride]
    return strided.transpose(1, 2, 0, 3, 4).reshape(-1, channels * kernel * kernel)
