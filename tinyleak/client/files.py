"""A client's files: its weights and what it made of them, as PyTorch saves them.

They are named tensors, a `state_dict()` and `{name: p.grad}`, in `.safetensors` or `.npz`. Which
tensor is which parameter is told by names and shapes (see `tinyleak.nn.models.names`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tinyleak.backend import Array
from tinyleak.client.local import STEPS, LocalSteps
from tinyleak.client.notes import Notes, gather_notes
from tinyleak.data.bounds import shown, wrong_dtype
from tinyleak.data.networks import SUFFIX, load_network
from tinyleak.data.tensors import read_tensors, read_with_others
from tinyleak.nn.model import Model
from tinyleak.nn.models import MLP, LeNet, match_names, model_from_shapes
from tinyleak.nn.models.exported import Exported
from tinyleak.nn.models.names import among, without_copies
from tinyleak.nn.models.shapes import MODELS

MODEL, IMAGE_SHAPE, ACTIVATION = "lenet", (1, 28, 28), "sigmoid"
"""What a client's network is taken to be where nothing else is said: the paper's."""

MOST_NUMBERS = 2**25
"""How many numbers weights and activations may be: an attack holds some dozens of copies."""

MOST_UNKNOWNS = 2**20
"""How many pixels may be searched for: L-BFGS remembers them some two hundred times."""

PROBES_AT_ONCE = 64
"""Images that stand in for a batch go through the network together, however small the batch is."""


@dataclass(frozen=True, eq=False, repr=False)
class Files:
    """What a client's files hold, and what is said about them.

    Attributes:
        model: the network.
        params: its weights, by its names, in the dtype of the file.
        given: the gradient, or the weights after, likewise; of a layer that sent nothing, zeros, or
            the weights before.
        steps: the steps between the weights before and after; None where a gradient is given.
        noted: what the notes beside the files say.
        said: the same, with what was said by whoever read them before it.
        unused: the names of the tensors that are none of the network's parameters.
    """

    model: LeNet | MLP | Exported
    params: dict[str, Array]
    given: dict[str, Array]
    steps: LocalSteps | None
    noted: Notes
    said: Notes
    unused: tuple[str, ...]

    @property
    def dtype(self) -> str:
        """The coarsest dtype in which what the client shared is written."""
        held = [*self.given.values(), *(() if self.steps is None else self.params.values())]
        return min((array.dtype for array in held), key=lambda kind: kind.itemsize).name


def read_files(
    weights: Path,
    gradients: Path | None,
    weights_after: Path | None,
    rename: Mapping[str, str],
    said: Notes,
) -> Files:
    """Read a client's files.

    Raises:
        ValueError: both or none of gradients and weights after; files that cannot be used, or that
            do not fit each other or what is said.
        OSError: files that are not there.
    """
    if (gradients is None) == (weights_after is None):
        raise ValueError(
            "--weights need what the client made of them; give either its gradient with "
            "--gradients, or its weights after its steps with --weights-after"
        )
    exported = weights.suffix == SUFFIX
    noted = gather_notes(None if exported else weights, gradients, weights_after)
    known = noted.under(said)
    if exported and known.model in (None, str(weights)):
        known = replace(known, model=str(weights))
    steps = _steps(weights_after, known, said)
    batch = known.batch or 1
    images = batch if steps is None else max(batch, steps.count * min(steps.batch or batch, batch))
    path = gradients or weights_after
    assert path is not None, "one of the two is given"
    what = "gradients" if steps is None else "weights after"
    tensors, others = read_with_others(weights) if not exported else _saved_with(weights)
    shared, more_others = read_with_others(path)
    _require_numbers(path, shared, what)
    model, names = _network(tensors, known, rename, images, shared)
    _require_room(model, images, 1 if steps is None else steps.count)
    for file, left_out, needed in ((weights, others, shared), (path, more_others, names.values())):
        for name in left_out:
            if name in needed:
                fault = wrong_dtype(name, left_out[name])
                raise ValueError(f"{str(file)!r} cannot be used: {fault}")
    sent = _by_the_same_names(shared, tensors, names, what)
    sent = sent or match_names(model.shapes, _parameter_shapes(shared), rename, what)
    params, given = {name: tensors[old] for name, old in names.items()}, {}
    dtype = shared[next(iter(sent.values()))].dtype
    for name, array in params.items():
        unsent = np.zeros(array.shape, dtype) if steps is None else array
        given[name] = shared[sent[name]] if name in sent else unsent
    if steps is not None and all(np.array_equal(params[name], given[name]) for name in params):
        raise ValueError(
            f"the weights in {str(weights_after)!r} are those from before, so nothing can be read "
            "from them; check that the client has trained before they were saved"
        )
    used = {*names.values(), *sent.values()}
    unused = tuple(sorted({*tensors, *others, *shared, *more_others} - used))
    return Files(model, params, given, steps, noted, known, unused)


def _saved_with(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the weights that were saved with a network, and nothing else."""
    return load_network(path).weights, {}


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
    model, names = _network(tensors, said, rename, images)
    return model, {name: tensors[old] for name, old in names.items()}


def _network(
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
    shapes = _parameter_shapes(tensors)
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
            _require_room(model, images)
            return model, match_names(model.shapes, some, rename, "weights")
        except ValueError as error:
            refused = refused or error
    average = next((name for name in tensors if name.endswith("running_mean")), None)
    if average is not None:
        raise ValueError(
            f"the weights are a network's with batch normalisation ({shown(average)}), and no "
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
    model = load_network(said.model)
    for what, wanted, there in (
        ("shape", said.shape, model.image_shape),
        ("classes", said.classes, model.classes),
    ):
        if wanted not in (None, there):
            raise ValueError(f"--{what} {wanted} was said, but {said.model!r} has {there}")
    fits = {n: a for n, a in tensors.items() if n in model.constants}
    buffers = {n: a for n, a in fits.items() if a.shape == model.constants[n].shape}
    model = replace(model, constants={**model.constants, **buffers})
    _require_room(model, images)
    left = {n: a for n, a in tensors.items() if n not in model.constants}
    if set(model.shapes) <= set(left):  # what else a checkpoint holds is not used
        left = {name: left[name] for name in model.shapes}
    return model, match_names(model.shapes, _shapes_of(left), rename, "weights")


def _by_the_same_names(
    shared: Mapping[str, Array], weights: Mapping[str, Array], names: Mapping[str, str], what: str
) -> dict[str, str]:
    """Return what is called what in the shared file, if as in that of the weights; else nothing.

    What has a gradient is a parameter, so of gradients all must be known to the network; beside the
    weights after there may be whatever was beside those before.
    """
    sent = {name: old for name, old in names.items() if old in shared}
    known = names.values() if what == "gradients" else weights
    agree = all(name in known for name in _parameter_shapes(shared))
    fit = all(shared[old].shape == weights[old].shape for old in sent.values())
    return sent if agree and fit else {}


def _parameter_shapes(tensors: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of tensors, by name, without single numbers, which no layer here has."""
    return {name: array.shape for name, array in tensors.items() if array.ndim}


def _shapes_of(tensors: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in tensors.items()}


def read_like(model: Model, path: Path, rename: Mapping[str, str], what: str) -> dict[str, Array]:
    """Return the tensors of a file by the names that the model has for them.

    Raises:
        ValueError: they are not the model's, or cannot be used, or all numbers in them are zero.
        OSError: the file is not there.
    """
    tensors = read_tensors(path)
    _require_numbers(path, tensors, what)
    names = match_names(model.shapes, _parameter_shapes(tensors), rename, what)
    return {name: tensors[old] for name, old in names.items()}


def _require_numbers(path: Path, tensors: Mapping[str, Array], what: str) -> None:
    if not any(array.any() for array in tensors.values()):
        raise ValueError(
            f"every number in {str(path)!r} is zero, so nothing can be read from it; check that "
            f"the client's backward pass was run before its {what} were saved"
        )


def _steps(weights_after: Path | None, known: Notes, said: Notes) -> LocalSteps | None:
    """Return the steps of SGD that lie between the weights before and after, if those are given."""
    if weights_after is None:
        for name in ("learning_rate", *STEPS):
            if getattr(said, name) is not None:
                raise ValueError(
                    f"--{name.replace('_', '-')} speaks of steps between weights, but --gradients "
                    "are one step's; leave one of the two out"
                )
        return None
    if known.learning_rate is None:
        raise ValueError(
            "weights before and after tell a gradient only together with the learning rate; give "
            "it with --learning-rate"
        )
    told = {name: getattr(known, name) for name in STEPS}
    return LocalSteps.of(known.batch or 1, known.learning_rate, **told)


def _require_room(model: Model, batch: int, steps: int = 1) -> None:
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
