"""The network that tensors in a file are the weights of, as far as an attack has room for it."""

import math
from collections.abc import Collection, Mapping
from pathlib import Path

from tinyleak.backend import Array
from tinyleak.client.notes import Notes
from tinyleak.data.networks import SUFFIX, load_network
from tinyleak.data.tensors import read_tensors
from tinyleak.interop import quoted
from tinyleak.nn.model import Model
from tinyleak.nn.models import MLP, LeNet, match_names, model_from_shapes
from tinyleak.nn.models.exported import Exported
from tinyleak.nn.models.names import among, unwrapped, without_copies
from tinyleak.nn.models.shapes import MODELS

MODEL, IMAGE_SHAPE, ACTIVATION = "lenet", (1, 28, 28), "sigmoid"
"""What a client's network is taken to be where nothing else is said: the paper's."""

MOST_NUMBERS = 2**25
"""How many numbers weights and activations may be: an attack holds some dozens of copies."""

MOST_UNKNOWNS = 2**20
"""How many pixels may be searched for: L-BFGS remembers them some two hundred times."""

PROBES_AT_ONCE = 64
"""Images that stand in for a batch go through the network together, however small the batch is."""


def read_network(
    path: Path, said: Notes, rename: Mapping[str, str], images: int
) -> tuple[LeNet | MLP | Exported, dict[str, Array]]:
    """Return the network whose weights are in a file, and them by its names.

    Raises:
        ValueError: they are not such a network's, or cannot be used, or a batch of so many images
            would take more memory than is reasonable.
        OSError: the file is not there.
    """
    tensors = read_tensors(path)
    model, names = network_of_tensors(tensors, said, rename, images)
    return model, {name: tensors[old] for name, old in names.items()}


def network_of_tensors(
    tensors: Mapping[str, Array],
    said: Notes,
    rename: Mapping[str, str],
    images: int,
    shared: Collection[str] = (),
) -> tuple[LeNet | MLP | Exported, dict[str, str]]:
    """Return the network that tensors are the weights of, and what each is called there.

    A checkpoint may hold more than weights. If all tensors together are no network's, those are
    tried of which something was shared, and those that are no copies of others.
    """
    shapes = parameter_shapes(tensors)
    if said.model is not None and said.model.endswith(SUFFIX):
        return _exported(tensors, said, rename, images, shared)
    refused, tried = None, []
    for some in (shapes, among(shapes, shared), without_copies(shapes)):
        if some in tried:
            continue
        tried.append(some)
        try:
            model = model_from_shapes(
                said.model or MODEL,
                some,
                said.shape or IMAGE_SHAPE,
                said.classes,
                said.activation or ACTIVATION,
                said.strides,
            )
            require_room(model, images)
            return model, match_names(model.shapes, some, rename, "weights")
        except ValueError as error:
            refused = refused or error
    average = next((name for name in tensors if name.endswith("running_mean")), None)
    if average is not None:
        raise ValueError(
            f"the weights are a network's with batch normalisation ({quoted(average)}), and no "
            f"{MODELS[said.model or MODEL].__name__} has that; give the network itself as --model "
            "net.pt2, as torch.export saves it"
        )
    assert refused is not None, "the loop tries something"
    raise refused


def _exported(
    tensors: Mapping[str, Array],
    said: Notes,
    rename: Mapping[str, str],
    images: int,
    shared: Collection[str],
) -> tuple[Exported, dict[str, str]]:
    """Return the network that a file holds, with the buffers that stand beside the weights."""
    assert said.model is not None, "a file was named"
    model = exported_network(said.model, said)
    called = names_of(model, tensors, rename)
    model = model.with_buffers({name: tensors[old] for name, old in called.items()})
    require_room(model, images)
    left = {name: old for name, old in called.items() if name not in model.constants}
    if set(model.shapes) <= set(left):  # what else a checkpoint holds is not used
        left = {name: left[name] for name in model.shapes}
    shapes = {name: tensors[old].shape for name, old in left.items()}
    found = match_names(model.shapes, shapes, rename, "weights")
    return model, {name: left[old] for name, old in found.items()}


def exported_network(path: str, said: Notes) -> Exported:
    """Return the network that a file holds; a ValueError if something else was said of it."""
    model = load_network(path)
    for what, wanted, there in (
        ("shape", said.shape, [model.image_shape]),
        ("classes", said.classes, [model.classes]),
        ("activation", said.activation, model.activations),
    ):
        if wanted not in (None, *there):
            has = ", ".join(map(str, there)) or "none"
            raise ValueError(f"--{what} {wanted} was said, but {path!r} has {has}")
    return model


def names_of(model: Model, given: Collection[str], rename: Mapping[str, str]) -> dict[str, str]:
    """Return the names in a file by what an exported network calls them, its buffers too."""
    if rename or not isinstance(model, Exported):
        return {name: name for name in given}
    return unwrapped(given, model.shapes, model.constants)


def parameter_shapes(tensors: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of tensors, by name, without single numbers, which no layer here has."""
    return {name: array.shape for name, array in tensors.items() if array.ndim}


def require_room(model: Model, batch: int, steps: int = 1) -> None:
    """Refuse what shapes of little size in a file, or of none, multiply to."""
    unknown = batch * math.prod(model.image_shape)
    if unknown > MOST_UNKNOWNS:
        raise ValueError(
            f"{batch} images of {model.image_shape} are {unknown:,} unknown pixels, and "
            f"{MOST_UNKNOWNS:,} are searched for at most; check the shape and the batch"
        )
    together = batch if batch == 1 else max(batch, PROBES_AT_ONCE)
    parameters = sum(math.prod(shape) for shape in model.shapes.values())
    needed = steps * parameters + together * _numbers_of_an_image(model)
    if needed > MOST_NUMBERS:
        steps_too = "" if steps == 1 else f" in {steps} steps"
        raise ValueError(
            f"{together} images of {model.image_shape} make {needed:,} numbers in this network"
            f"{steps_too}, and {MOST_NUMBERS:,} are worked with at most; check the shape, the "
            "batch and the steps"
        )


def _numbers_of_an_image(model: Model) -> int:
    """Return how many numbers one image becomes on its way through the network."""
    if isinstance(model, Exported):
        return model.numbers
    assert isinstance(model, LeNet | MLP), "files tell no other"
    channels, *size = model.image_shape
    total = channels * math.prod(size) + model.classes
    if isinstance(model, MLP):
        return total + sum(model.widths)
    for out_channels, stride in zip(model.channels, model.strides, strict=True):
        size = [-(-length // stride) for length in size]
        # The windows that a convolution multiplies, and what comes out.
        total += (model.kernel**2 * channels + out_channels) * math.prod(size)
        channels = out_channels
    return total
