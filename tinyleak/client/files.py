"""A client's files: its weights and what it made of them, as PyTorch saves them.

They are named tensors, a `state_dict()` and `{name: p.grad}`, in `.safetensors` or `.npz`. Which
tensor is which parameter is told by names and shapes (see `tinyleak.nn.models.names`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tinyleak.backend import Array
from tinyleak.client.file_network import (
    names_of,
    network_of_tensors,
    parameter_shapes,
    require_room,
)
from tinyleak.client.local import STEPS, LocalSteps
from tinyleak.client.notes import Notes, gather_notes
from tinyleak.data.bounds import wrong_dtype
from tinyleak.data.networks import SUFFIX, load_network
from tinyleak.data.tensors import read_tensors, read_with_others
from tinyleak.nn.model import Model
from tinyleak.nn.models import MLP, LeNet, match_names
from tinyleak.nn.models.exported import Exported


@dataclass(frozen=True, eq=False, repr=False)
class Files:
    """What a client's files hold, and what is said about them."""

    model: LeNet | MLP | Exported  # the network
    params: dict[str, Array]  # its weights, by its names, in the dtype of the file
    # The gradient, or the weights after, likewise; of a layer that sent nothing, zeros, or the
    # weights before.
    given: dict[str, Array]
    # The steps between the weights before and after; None where a gradient is given.
    steps: LocalSteps | None
    noted: Notes  # what the notes beside the files say
    said: Notes  # the same, with what was said by whoever read them before it
    unused: tuple[str, ...]  # the names of the tensors that are none of the network's parameters

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
    tensors, others = (load_network(weights).weights, {}) if exported else read_with_others(weights)
    shared, more_others = read_with_others(path)
    _require_numbers(path, shared, what)
    model, names = network_of_tensors(tensors, known, rename, images, shared)
    require_room(model, images, 1 if steps is None else steps.count)
    for file, left_out, needed in ((weights, others, shared), (path, more_others, names.values())):
        for name in left_out:
            if name in needed:
                fault = wrong_dtype(name, left_out[name])
                raise ValueError(f"{str(file)!r} cannot be used: {fault}")
    sent = _by_the_same_names(shared, tensors, names, what) or names_in(model, shared, rename, what)
    params, given = {name: tensors[old] for name, old in names.items()}, {}
    dtype = shared[next(iter(sent.values()))].dtype
    for name, array in params.items():
        unsent = np.zeros(array.shape, dtype) if steps is None else array
        given[name] = shared[sent[name]] if name in sent else unsent
    if all(np.array_equal(params[name], given[name]) for name in params):
        raise ValueError(
            f"the {what} in {str(path)!r} are the weights from before, so nothing can be read "
            "from them; check which file is which, and that the client had trained by then"
        )
    # The weights from after the steps may well be those: a network is often exported last.
    if steps is None and isinstance(model, Exported) and model.holds(given):
        raise ValueError(
            f"the {what} in {str(path)!r} are the weights that were saved with the network; check "
            "which file is which"
        )
    used, buffers = {*names.values(), *sent.values()}, getattr(model, "constants", {})
    for held in ({**tensors, **others}, {**shared, **more_others}):
        used |= {old for name, old in names_of(model, held, rename).items() if name in buffers}
    unused = tuple(sorted({*tensors, *others, *shared, *more_others} - used))
    return Files(model, params, given, steps, noted, known, unused)


def _by_the_same_names(
    shared: Mapping[str, Array], weights: Mapping[str, Array], names: Mapping[str, str], what: str
) -> dict[str, str]:
    """Return what is called what in the shared file, if as in that of the weights; else nothing.

    What has a gradient is a parameter, so of gradients all must be known to the network; beside the
    weights after there may be whatever was beside those before.
    """
    sent = {name: old for name, old in names.items() if old in shared}
    known = names.values() if what == "gradients" else weights
    agree = all(name in known for name in parameter_shapes(shared))
    fit = all(shared[old].shape == weights[old].shape for old in sent.values())
    return sent if agree and fit else {}


def names_in(
    model: Model, tensors: Mapping[str, Array], rename: Mapping[str, str], what: str
) -> dict[str, str]:
    """Return what a file calls the parameters that it holds, by the model's names.

    It holds all of them, or of an exported network any, whose buffers may stand beside them.

    Raises:
        ValueError: the tensors are not the model's.
    """
    shapes = parameter_shapes(tensors)
    if isinstance(model, Exported):
        named = names_of(model, shapes, rename)
        held = {name: old for name, old in named.items() if name not in model.constants}
        if all(model.shapes.get(name) == shapes[old] for name, old in held.items()):
            return held
        shapes = {old: shapes[old] for old in held.values()}
    return match_names(model.shapes, shapes, rename, what)


def read_like(model: Model, path: Path, rename: Mapping[str, str], what: str) -> dict[str, Array]:
    """Return the tensors of a file by the names that the model has for them.

    Raises:
        ValueError: they are not the model's, or cannot be used, or all numbers in them are zero.
        OSError: the file is not there.
    """
    tensors = read_tensors(path)
    _require_numbers(path, tensors, what)
    names = names_in(model, tensors, rename, what)
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
