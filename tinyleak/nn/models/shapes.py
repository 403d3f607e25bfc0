"""The size of a network, read off the shapes of its weights."""

import itertools
import math
from collections.abc import Callable, Sequence

from tinyleak.nn.models.lenet import LeNet
from tinyleak.nn.models.mlp import MLP
from tinyleak.nn.models.names import Shapes, mismatch, natural

MODELS: dict[str, type[LeNet] | type[MLP]] = {"lenet": LeNet, "mlp": MLP}

MOST_LAYERS = 100
"""Layers of one kind; ordering them takes time quadratic in their number, and no attack succeeds on
deeper networks."""

MOST_CONVOLUTIONS = 12
"""Whose strides are searched for: 2¹² combinations are tried in well under a second."""


def kind_of(model: object) -> str:
    """Return the name in `MODELS` of a network's kind; of another, that of its class."""
    names = [name for name, kind in MODELS.items() if isinstance(model, kind)]
    return names[0] if names else type(model).__name__.lower()


def model_from_shapes(
    kind: str,
    shapes: Shapes,
    image_shape: tuple[int, int, int],
    classes: int | None = None,
    activation: str = "sigmoid",
    strides: tuple[int, ...] | None = None,
) -> LeNet | MLP:
    """Return the network that has parameters of these shapes, whatever they are called.

    Args:
        kind: "lenet" or "mlp".
        shapes: the shape of each tensor in a file of weights, by its name there.
        image_shape: (C, H, W) of the images.
        classes: how many are expected; by default the size of the last layer.
        activation: of the network; the shapes do not show it.
        strides: of a LeNet's convolutions; only the number of features shows them. By default
            2, 2, 1 if that fits, else the only combination of 1s and 2s that does.

    Raises:
        ValueError: an unknown kind or activation; shapes that such a network cannot have, or that
            leave its strides open; another number of classes.
    """
    if kind not in MODELS:
        raise ValueError(f"model {kind!r} is unknown; choose from {', '.join(MODELS)}")
    try:
        if kind == "mlp":
            model: LeNet | MLP = _mlp(shapes, image_shape, activation)
        else:
            model = _lenet(shapes, image_shape, activation, strides)
        if classes not in (None, model.classes):
            raise ValueError(f"its last layer tells {model.classes} classes apart, not {classes}")
    except ValueError as error:
        usual = MODELS[kind](image_shape, classes or 10, activation)
        raise mismatch(
            f"the weights are not a {MODELS[kind].__name__}'s for images of {image_shape}: "
            f"{error}; compare the columns, or give any other network as --model net.pt2, as "
            "torch.export saves it",
            shapes,
            usual.shapes,
            f"the usual {MODELS[kind].__name__} has",
        ) from error
    return model


def _mlp(shapes: Shapes, image_shape: tuple[int, int, int], activation: str) -> MLP:
    chain = _chain(shapes, 2, math.prod(image_shape))
    *widths, classes = [shapes[name][0] for name in chain]
    if not widths:
        raise ValueError("it has no hidden layer")
    unbiased = [f"{2 * layer}" for layer in _without_bias(chain, shapes)]
    return MLP(image_shape, classes, activation, tuple(widths), tuple(unbiased))


def _lenet(
    shapes: Shapes,
    image_shape: tuple[int, int, int],
    activation: str,
    strides: tuple[int, ...] | None,
) -> LeNet:
    chain = _chain(shapes, 4, image_shape[0])
    kernels = {length for name in chain for length in shapes[name][2:]}
    if len(kernels) != 1 or max(kernels) % 2 == 0:
        raise ValueError(
            f"its windows measure {sorted(kernels)}, and all should have one odd height and width"
        )
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    if len(matrices) != 1:
        raise ValueError(f"{len(matrices)} linear layers follow its convolutions, and not one")
    classes, features = shapes[matrices[0]]
    channels = tuple(shapes[name][0] for name in chain)
    if math.prod(channels) < 1 or classes < 1:
        raise ValueError("a layer of it has no outputs")
    hidden = channels[0] if len(set(channels)) == 1 else channels
    names = [f"body.{2 * layer}" for layer in range(len(chain))] + ["fc.0"]
    unbiased = tuple(names[layer] for layer in _without_bias([*chain, *matrices], shapes))

    def build(candidate: tuple[int, ...]) -> LeNet:
        return LeNet(image_shape, classes, activation, hidden, max(kernels), candidate, unbiased)

    def fits(candidate: tuple[int, ...]) -> bool:
        return build(candidate).shapes["fc.0.weight"][1] == features

    return build(_strides(len(chain), fits, features, strides))


def _strides(
    layers: int,
    fits: Callable[[tuple[int, ...]], bool],
    features: int,
    given: tuple[int, ...] | None,
) -> tuple[int, ...]:
    """Return the strides that lead this many convolutions to this many features."""
    if given is not None:
        if len(given) != layers or not fits(given):
            raise ValueError(
                f"strides {given} do not lead its {layers} convolutions to {features} features"
            )
        return given
    usual = (LeNet.strides + (1,) * layers)[:layers]
    if fits(usual):
        return usual
    if layers > MOST_CONVOLUTIONS:
        raise ValueError(f"the strides of its {layers} convolutions cannot be told")
    others = [
        candidate for candidate in itertools.product((1, 2), repeat=layers) if fits(candidate)
    ]
    if len(others) == 1:
        return others[0]
    if not others:
        raise ValueError(f"no strides of 1 and 2 lead to the {features} features of its last layer")
    raise ValueError(
        f"strides {' and '.join(map(str, others[:3]))} all lead to its {features} features; "
        "say which in the notes beside the file"
    )


def _without_bias(weights: Sequence[str], shapes: Shapes) -> list[int]:
    """Return which of these layers have no bias: neither beside the weight, nor of any name."""
    beside = {name: name.removesuffix("weight") + "bias" for name in shapes}
    spare = {shape for name, shape in shapes.items() if name not in beside.values()}
    return [
        layer
        for layer, name in enumerate(weights)
        if beside[name] not in shapes and shapes[name][:1] not in spare
    ]


def _chain(shapes: Shapes, axes: int, inputs: int) -> list[str]:
    """Return the weights with this many axes, each taking what the one before it gives."""
    left = sorted((name for name, shape in shapes.items() if len(shape) == axes), key=natural)
    if not 0 < len(left) <= MOST_LAYERS:
        raise ValueError(f"it has {len(left)} weights of {axes} axes, and not 1 to {MOST_LAYERS}")
    chain: list[str] = []
    while left:
        following = next((name for name in left if shapes[name][1] == inputs), None)
        if following is None:
            raise ValueError(
                f"after {len(chain)} layers {inputs} numbers go on, and no weight left takes those"
            )
        left.remove(following)
        chain.append(following)
        inputs = shapes[following][0]
    return chain
