"""The door for parameters, and gradients by their names: whether named arrays are a model's."""

from collections.abc import Mapping
from typing import Any

from tinyleak.backend import Array, array_module
from tinyleak.interop import as_array, called
from tinyleak.nn.model import HasShapes


def require_fit(model: HasShapes, arrays: Mapping[str, Array], what: str) -> None:
    """Refuse, with ValueError, arrays that lack a model's names or shapes, or are not finite."""
    expected, given = set(model.shapes), set(arrays)
    missing, extra = sorted(expected - given), sorted(given - expected)
    if missing or extra:
        names = f"missing {missing or 'none'}, not known {extra or 'none'}"
        raise ValueError(f"the {what} do not fit {model}: {names}; give the names of model.shapes")
    for name, shape in model.shapes.items():
        if arrays[name].shape != shape:
            sizes = f"{name} has shape {arrays[name].shape}, the model's is {shape}"
            raise ValueError(f"the {what} do not fit {model}: {sizes}; check the model's settings")
        if not array_module(arrays[name]).isfinite(arrays[name]).all():
            where = f"NaN or infinity in {name}"
            raise ValueError(f"the {what} hold {where}; the attack needs finite numbers")


def own_parameters(model: HasShapes, arrays: Any, what: str) -> dict[str, Array]:
    """Return a copy of a model's parameters, or of the gradients by their names, in its order.

    `arrays` are of any library, by name; `what` they are called in errors. What is not the model's,
    or not finite, is a ValueError; what is not an array of numbers a TypeError.
    """
    found = copied(arrays, what)
    require_fit(model, found, what)
    return {name: found[name] for name in model.shapes}


def copied(arrays: Any, what: str) -> dict[str, Array]:
    """Return a copy of named arrays of any library.

    Anything without names, or among them what is not an array of numbers, is a TypeError.
    """
    if not isinstance(arrays, Mapping):
        raise TypeError(
            f"the {what} were given as {called(arrays)}; give a dictionary of arrays by "
            "parameter name, as state_dict() is"
        )
    # Rows after one another, as files hold them.
    return {name: as_array(array).copy(order="C") for name, array in arrays.items()}
