"""What a client's files tell of it, and how that is known: what `Client.of` is called with."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tinyleak.analytic.premises import read_premises
from tinyleak.backend import Array
from tinyleak.client.facts import Fact, activation_fact, facts_of_exported, listed
from tinyleak.client.files import Files
from tinyleak.nn.models.exported import Exported, with_masks


def arguments_of(files: Files) -> dict[str, Any]:
    """Return what `Client.of` is called with for the client whose files these are."""
    known, steps = files.said, files.steps
    params = {name: array.astype(float) for name, array in files.params.items()}
    shared, rounding = _shared(files, params)
    local = None if steps is None or steps.count == 1 else steps
    frozen = tuple(name for name, gradient in shared.items() if not gradient.any())
    model, read, facts = files.model, None, dict[str, Fact]()
    if isinstance(model, Exported):
        if (known.batch or 1) == 1 and steps is None:
            model = with_masks(model, shared)
        facts |= facts_of_exported(model)
    elif known.activation is None:
        # What the gradient allows does not depend on the activation that the network has.
        read = read_premises(
            model,
            params,
            {name: gradient for name, gradient in shared.items() if name not in frozen},
            known.batch or 1,
            loss=known.loss,
            update=steps is not None,
            dtype=files.dtype,
            rounding=rounding,
        )
        allowed = read.activations
        model = replace(model, activation=allowed[0] if allowed else model.activation)
        count = 1 if steps is None else steps.count
        facts["activation"] = activation_fact(model.activation, allowed, steps=count)
    return {
        "model": model,
        "params": params,
        "gradients": shared,
        "batch": known.batch or 1,
        "reduction": known.reduction,
        "loss": known.loss,
        "normalize": known.normalize,
        "update": steps is not None,
        "local": local,
        "rounding": rounding,
        "dtype": files.dtype,
        "frozen": frozen,
        "facts": facts | _facts(files, frozen),
        # Of several steps the activations alone are read as if they were one.
        "read": read if local is None else None,
    }


def _shared(
    files: Files, params: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, Array] | None]:
    """Return the gradient, or the change of the weights over the rate, and what rounding left."""
    given = {name: array.astype(float) for name, array in files.given.items()}
    if files.steps is None:
        return given, None
    rate, count = files.steps.learning_rate, files.steps.count
    # A step rounds each weight to a multiple of its spacing s, which errs by s² / 12.
    rounding = {
        name: count * np.spacing(np.abs(after)).astype(float) ** 2 / (12.0 * rate**2)
        for name, after in files.given.items()
    }
    return {name: (params[name] - after) / rate for name, after in given.items()}, rounding


def _facts(files: Files, frozen: Sequence[str]) -> dict[str, Fact]:
    facts = {}
    if files.steps is not None and files.steps.count > 1:
        facts["steps"] = Fact(files.steps.said, "assumed")
    if frozen:
        facts["frozen"] = Fact(listed(frozen), "read off", "no gradient, so left out")
    if files.unused:
        facts["unused"] = Fact(listed(files.unused), "read off", "no parameters of the network")
    if str(files.noted):
        facts["notes"] = Fact(files.noted, "said", "by the notes about the files")
    if files.said.model is None:
        name = type(files.model).__name__.lower()
        facts["network"] = Fact(name, "read off", "its weights' shapes")
    return facts
