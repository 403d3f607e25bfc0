"""A network that somebody exported from PyTorch, run node by node."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from tinyleak.backend import Array, array_module
from tinyleak.interop import quoted
from tinyleak.nn.activations import ACTIVATIONS, PIECEWISE_LINEAR
from tinyleak.nn.losses import log_softmax
from tinyleak.nn.models.exported.elementwise import ELEMENTWISE
from tinyleak.nn.models.exported.graph import Graph, Node, Ref, refs
from tinyleak.nn.models.exported.layers import LAYERS
from tinyleak.nn.models.exported.moves import MOVES
from tinyleak.nn.models.exported.norms import NORMS
from tinyleak.nn.models.exported.reductions import REDUCTIONS
from tinyleak.nn.models.exported.sequences import SEQUENCES
from tinyleak.nn.models.exported.shapes import SHAPES, VIEWS
from tinyleak.nn.models.exported.values import Value
from tinyleak.ops import concatenate, reshape
from tinyleak.program import TraceError
from tinyleak.tensor import Tensor

OPERATIONS: dict[str, Callable[..., Any]] = {
    **{**LAYERS, **NORMS, **SEQUENCES},
    **{**ELEMENTWISE, **REDUCTIONS},
    **{**SHAPES, **MOVES},
}
"""All that is known, by PyTorch's name."""

UNREAD = {"cudnn_enable", "cudnn_enabled", "dropout", "dropout_p", "implicit", "momentum", "train"}
"""Arguments without a bearing on the result: which library computes it, what the running statistics
become, and what `Exported.masks` says of dropout."""

FAULTS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError)
"""What arguments raise that no layer is meant for."""


@dataclass(frozen=True, eq=False, repr=False)
class Exported:
    """A network as `torch.export` wrote it down, of any number of inputs at a time.

    An operation that is not known, or that does not fit what it is given, is a ValueError.
    """

    graph: Graph  # its operations
    weights: dict[str, Array]  # the parameters that were saved with it, by name
    constants: dict[str, Array]  # its buffers and other arrays, by name
    name: str = "network"  # what to call it
    # What dropout multiplies by, by the name of its node, where that is known.
    masks: Mapping[str, Array] = field(default_factory=dict)
    # Whether it returns numbers as they are, for losses other than the cross-entropy.
    numbers_out: bool = False
    _cast: dict[Any, dict[str, Tensor]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        unknown = [node for node in self.graph.nodes if node.operation not in OPERATIONS]
        if unknown:
            raise ValueError(
                f"its node {quoted(unknown[0].name)} is the operation "
                f"{quoted(unknown[0].operation)}, which is not known; known are "
                f"{', '.join(sorted(OPERATIONS))}"
            )
        if self.input_shape[:1] != (1,):
            raise ValueError(
                f"it was exported for inputs {self.input_shape}; export it for one, (1, …)"
            )
        if not 1 <= len(self.input_shape) - 1 <= 3:
            raise ValueError(
                f"it takes inputs {self.input_shape[1:]}, not (C, H, W), (C, T) or (F,)"
            )
        tables = [node for node in self.graph.nodes if node.operation == "embedding"]
        if any(self.graph.input in refs(tuple(node.arguments.values())) for node in tables):
            raise ValueError(
                "it looks its input up in a table, as words are, and here numbers are looked for; "
                "for the words of a BERT or GPT-2 there is tinyleak text"
            )
        changed = "its graph and its weights do not belong together: "
        for about, arrays in (
            (self.graph.parameters, self.weights),
            (self.graph.constants, self.constants),
        ):
            for value, name in about.items():
                if name not in arrays or arrays[name].shape != self.graph.shapes[value]:
                    given = f"is {arrays[name].shape}" if name in arrays else "is missing"
                    wanted = self.graph.shapes[value]
                    raise ValueError(f"{changed}{quoted(name)} {given}, and should be {wanted}")
        with np.errstate(all="ignore"):
            params = {name: Tensor(array.astype(float)) for name, array in self.weights.items()}
            self(params, Tensor(np.zeros((1, *self.image_shape))))

    def __reduce__(self) -> tuple[Any, ...]:
        fields = (self.graph, self.weights, self.constants, self.name, self.masks, self.numbers_out)
        return Exported, fields

    def __repr__(self) -> str:
        return f"Exported({self.name!r}, {self.input_shape[1:]} → {self.classes} classes)"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input, as the network takes it: (1, C, H, W), (1, C, T) or (1, F)."""
        return self.graph.shapes[self.graph.input]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The same as (C, H, W): of a series (C, 1, T), and of a row of numbers (1, 1, F)."""
        *channels, last = self.input_shape[1:]
        c, h, w = (*channels, *(1,) * (2 - len(channels)), last)
        return c, h, w

    @cached_property
    def heads(self) -> tuple[int, ...]:
        """The sizes of what it returns; its loss is the sum of those of all."""
        return tuple([math.prod(self.graph.shapes[name]) for name in self.graph.outputs])

    @property
    def classes(self) -> int:
        """How many classes it tells apart: 2 by a single logit, by several heads their sum."""
        return 2 if self.heads == (1,) and not self.numbers_out else sum(self.heads)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter, by name."""
        return {name: self.graph.shapes[value] for value, name in self.graph.parameters.items()}

    def holds(self, arrays: Mapping[str, Array]) -> bool:
        """Return whether these are the parameters that were saved with the network."""
        return all(np.array_equal(self.weights[name], array) for name, array in arrays.items())

    def with_buffers(self, arrays: Mapping[str, Array]) -> Exported:
        """Return the network with those of the arrays that are buffers in place of its own."""
        own = {n: a for n, a in arrays.items() if n in self.constants}
        fits = {n: a for n, a in own.items() if a.shape == self.constants[n].shape}
        return replace(self, constants={**self.constants, **fits})

    @cached_property
    def training(self) -> tuple[str, ...]:
        """What it does as in training: "dropout" whose mask is not known, and "batch norm"."""
        dropout = any(node.name not in self.masks for node in self.random)
        norm = any("norm" in n.operation and n.arguments.get("training") for n in self.graph.nodes)
        return ("dropout",) * dropout + ("batch norm",) * norm

    @cached_property
    def random(self) -> tuple[Node, ...]:
        """The nodes that drop features at random."""
        nodes = [node for node in self.graph.nodes if "dropout" in node.operation]
        return tuple([n for n in nodes if n.arguments.get("train") and n.arguments.get("p")])

    @cached_property
    def activations(self) -> tuple[str, ...]:
        """The activations in it, by PyTorch's names, each once."""
        return tuple(
            dict.fromkeys(n.operation for n in self.graph.nodes if n.operation in ACTIVATIONS)
        )

    @property
    def activation(self) -> str | None:
        """The activation that hinders most, a piecewise linear one; else the first; else None."""
        found = self.activations
        return next((name for name in found if name in PIECEWISE_LINEAR), next(iter(found), None))

    @property
    def numbers(self) -> int:
        """How many numbers one input becomes on its way."""
        own = {*self.graph.parameters, *self.graph.constants}
        return sum(math.prod(s) for name, s in self.graph.shapes.items() if name not in own)

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Return the logits (…, N, classes) of images (…, N, *image_shape).

        A single logit z becomes (0, z), whose cross-entropy is that of z with its sigmoid. Those of
        several heads become their log-softmax side by side: with targets side by side as well, the
        cross-entropy is the sum of the heads', and a constant. An operation that does not fit what
        it is given is a ValueError.
        """
        lead = x.shape[:-3]
        values = dict(self._constants(x))
        for value, name in self.graph.parameters.items():
            rank, t = len(self.graph.shapes[value]), params[name]
            networks = t.shape[: t.ndim - rank]
            # One more axis, that of the inputs, behind those of separate networks.
            shape = (*networks, *(1,) * bool(networks), *t.shape[t.ndim - rank :])
            values[value] = Value(reshape(t, shape), rank)
        values[self.graph.input] = Value(
            reshape(x, (*lead, *self.input_shape)), len(self.input_shape)
        )
        stale = self._run(values, x)
        outputs = []
        for name in self.graph.outputs:
            if name in stale:
                raise ValueError(
                    f"its output {quoted(name)} is changed in place after it is computed"
                )
            found = values[name]
            outputs.append(reshape(found.tensor, (*lead, math.prod(found.shape))))
        if self.numbers_out:
            return outputs[0] if len(outputs) == 1 else concatenate(outputs, -1)
        if self.heads == (1,):
            return concatenate([outputs[0] * 0.0, outputs[0]], -1)
        return (
            outputs[0] if len(outputs) == 1 else concatenate([log_softmax(z) for z in outputs], -1)
        )

    def _constants(self, x: Tensor) -> dict[str, Value]:
        """Return the buffers in the dtype of x, and where it lives."""
        module = array_module(x._array)
        if (module, x.dtype) not in self._cast:
            self._cast[module, x.dtype] = {
                name: Tensor(module.asarray(a, dtype=x.dtype if a.dtype.kind == "f" else a.dtype))
                for name, a in self.constants.items()
            }
        cast = self._cast[module, x.dtype]
        about = self.graph.constants
        return {value: Value(cast[name], cast[name].ndim) for value, name in about.items()}

    def _run(self, values: dict[str, Value], x: Tensor) -> set[str]:
        """Compute all nodes; return the values that no longer are what was computed."""
        root: dict[str, str] = {}  # by a view, the value whose memory it looks at
        stale: set[str] = set()
        for node in self.graph.nodes:
            sources = refs(tuple(node.arguments.values()))
            try:
                if not stale.isdisjoint(sources):
                    raise ValueError("it reads what was changed in place by way of a view")
                results = compute(node, values)
                if node.name in self.masks:
                    results = (results[0] * as_input(Tensor(self.masks[node.name]), x),)
                for name, tensor in zip(node.outputs, results, strict=False):
                    values[name] = found = Value(as_input(tensor, x), len(self.graph.shapes[name]))
                    if found.shape != self.graph.shapes[name]:
                        wanted = self.graph.shapes[name]
                        raise ValueError(f"it gives {found.shape}, and {wanted} was written down")
            except TraceError:
                raise
            except FAULTS as error:
                raise ValueError(
                    f"its node {quoted(node.name)}, {node.operation}, cannot be computed: "
                    f"{quoted(error)[1:-1]}"
                ) from error
            if sources and (node.in_place or node.operation in VIEWS):
                first = root.get(sources[0], sources[0])
                root.update(dict.fromkeys(node.outputs, first))
                if node.in_place:
                    values[sources[0]] = values[node.outputs[0]]
                    shared = {name for name in values if root.get(name, name) == first}
                    stale |= shared - {sources[0], *node.outputs}
        return stale


def compute(node: Node, values: Mapping[str, Value]) -> tuple[Tensor, ...]:
    """Return what a node makes of the values that it reads."""
    read = {name: argument for name, argument in node.arguments.items() if name not in UNREAD}
    arguments = {name: _resolved(argument, values) for name, argument in read.items()}
    result = OPERATIONS[node.operation](**arguments)
    return result if isinstance(result, tuple) else (result,)


def _resolved(argument: Any, values: Mapping[str, Value]) -> Any:
    if isinstance(argument, Ref):
        return values[argument.name]
    if isinstance(argument, tuple):
        return tuple([_resolved(one, values) for one in argument])
    return argument


def as_input(tensor: Tensor, x: Tensor) -> Tensor:
    """Return a constant in the dtype of the input, and where that lives; anything else as it is."""
    if tensor.primitive is not None or tensor.dtype.kind != "f" or tensor.dtype == x.dtype:
        return tensor
    return Tensor(array_module(x._array).asarray(tensor._array, dtype=x.dtype))
