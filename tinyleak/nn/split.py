"""Cut a network at one of its linear layers: what comes into it, and what is above it.

No network says where its layers are; it is a function. But a function of Tensors leaves a graph,
and in that graph a linear layer is the one product that reads its weight. What comes into the
product is `below`; and `above` is the rest of the graph, computed once more from other numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyleak.backend import Array
from tinyleak.gradient import depending_on, topological_order
from tinyleak.nn.layers import linear
from tinyleak.nn.model import Model
from tinyleak.ops import add, matmul
from tinyleak.tensor import Primitive, Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """A network, cut at a linear layer z = W h + b."""

    model: Model  # the network
    params: Mapping[str, Array]  # its parameters, by name
    weight: str  # the name of W, (O, F)
    bias: str | None  # that of b, (O,); None if the layer has none
    is_last: bool  # whether z are the logits themselves

    def __repr__(self) -> str:
        return f"Split({type(self.model).__name__} at {self.weight!r})"

    @property
    def width(self) -> int:
        """O, how many answers the layer has."""
        return int(self.model.shapes[self.weight][0])

    def outputs(self, h: Tensor) -> Tensor:
        """Return z = W h + b, (…, N, O) from (…, N, F)."""
        own = _as_tensors(self.params, h.dtype)
        return linear(h, own[self.weight], None if self.bias is None else own[self.bias])

    def below(self, images: Tensor) -> Tensor:
        """Return h, what comes into the layer: (…, N, F) from images (…, N, C, H, W)."""
        return _run(self.model, self.params, images, self.weight).h

    def above(self, z: Tensor, replaced: Mapping[Primitive, Callable[..., Tensor]] = {}) -> Tensor:
        """Return the logits (…, N, K) of what the layer answers, z of (…, N, O).

        Args:
            z: the layer's answers.
            replaced: what to compute in place of a primitive, from its inputs.
        """
        blank = Tensor(np.zeros((*z.shape[:-1], *self.model.image_shape), z.dtype))
        run = _run(self.model, self.params, blank, self.weight)
        return computed_again(run.logits, {run.z: z}, replaced)


def computed_again(
    end: Tensor,
    given: Mapping[Tensor, Tensor],
    replaced: Mapping[Primitive, Callable[..., Tensor]] = {},
) -> Tensor:
    """Return what a node of a graph is, where some nodes before it are other numbers.

    Args:
        end: the node.
        given: what stands for some of the others, of which it depends on one at least.
        replaced: what to compute in place of a primitive, from its inputs.
    """
    again = dict(given)
    for node in topological_order(end):
        if node not in again and not again.keys().isdisjoint(node.inputs):
            assert node.primitive is not None, "it has inputs"
            compute = replaced.get(node.primitive, node.primitive)
            again[node] = compute(*[again.get(x, x) for x in node.inputs], **node.params)
    return again[end]


def split(model: Model, params: Mapping[str, Array], weight: str) -> Split:
    """Cut a network at the linear layer whose weight has this name.

    A ValueError where the layer is not linear, is used more than once, has not one row for each
    image, or the logits depend on the image in another way as well.
    """
    run = _run(model, params, Tensor(np.zeros((1, *model.image_shape))), weight)
    return Split(model, params, weight, run.bias, run.z is run.logits)


def linear_layers(model: Model, params: Mapping[str, Array]) -> list[Split]:
    """Return all cuts of a network that `split` can make, in the order of its parameters."""
    cuts = []
    for name, shape in model.shapes.items():
        if len(shape) == 2:
            try:
                cuts.append(split(model, params, name))
            except ValueError:
                continue
    return cuts


def given_one_row(
    model: Model, params: Mapping[str, Array], image: Array | None = None
) -> dict[str, Array]:
    """Return the one row that an image, (C, H, W), gives each linear layer, by weight.

    A recurrent layer is given one at every time, and attention one for every position: they are
    left out. Which layers these are does not depend on the image.
    """
    images = Tensor(np.zeros((1, *model.image_shape)) if image is None else image[np.newaxis])
    own = _as_tensors(params, images.dtype)
    order = topological_order(model(own, images))
    by_image, found = depending_on([images], order), {}
    for name, tensor in own.items():
        readers = _readers(tensor, order, by_image)
        if tensor.ndim == 2 and len(readers) == 1 and readers[0].primitive is matmul:
            h = readers[0].inputs[0]
            if h in by_image and h.shape == (1, tensor.shape[-1]):
                found[name] = h.numpy()[0]
    return found


def _readers(weight: Tensor, order: Sequence[Tensor], by_image: set[Tensor]) -> list[Tensor]:
    """Return the nodes at which something that depends on images meets a parameter."""
    return [
        node
        for node in order
        if not by_image.isdisjoint(node.inputs) and any(leaf_of(x) is weight for x in node.inputs)
    ]


def leaf_of(node: Tensor) -> Tensor:
    """Return what a node is in another shape."""
    while len(node.inputs) == 1:
        node = node.inputs[0]
    return node


@dataclass(frozen=True)
class _Run:
    """The graph of one forward pass: what comes into the layer, what it answers, the logits."""

    h: Tensor
    z: Tensor
    logits: Tensor
    bias: str | None


def _as_tensors(params: Mapping[str, Array], dtype: Any) -> dict[str, Tensor]:
    return {name: Tensor(np.asarray(array, dtype=dtype)) for name, array in params.items()}


def _run(model: Model, params: Mapping[str, Array], images: Tensor, weight: str) -> _Run:
    own = _as_tensors(params, images.dtype)
    logits = model(own, images)
    order = topological_order(logits)
    by_image = depending_on([images], order)

    def parameter(node: Tensor) -> str | None:
        """The parameter that a node holds, in whatever shape."""
        return next((name for name, tensor in own.items() if tensor is leaf_of(node)), None)

    def refuse(why: str) -> ValueError:
        return ValueError(f"{model} cannot be cut at {weight!r}: {why}; choose another layer")

    readers = _readers(own[weight], order, by_image)
    if len(readers) != 1 or readers[0].primitive is not matmul:
        raise refuse("it is not the weight of one linear layer")
    z, (h, _) = readers[0], readers[0].inputs
    if h not in by_image or h.shape != (*images.shape[:-3], own[weight].shape[-1]):
        raise refuse(f"its input is of shape {h.shape}, not one row for each image")
    bias, users = None, [node for node in order if any(x is z for x in node.inputs)]
    if len(users) == 1 and users[0].primitive is add:
        (other,) = [x for x in users[0].inputs if x is not z] or [z]
        name = parameter(other)
        if name is not None and own[name].shape == own[weight].shape[:-1]:
            z, bias = users[0], name
    if logits in depending_on([images], [n for n in order if n is not z]):
        raise refuse("the logits depend on the image without it as well")
    return _Run(h, z, logits, bias)
