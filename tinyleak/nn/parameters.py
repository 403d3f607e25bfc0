"""The door for parameters, and gradients by their names, that a caller passes in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinyleak.backend import Array, as_array
from tinyleak.nn.model import HasShapes, require_fit


def own_parameters(model: HasShapes, arrays: Mapping[str, Any], what: str) -> dict[str, Array]:
    """Return a copy of named arrays of any library, in the model's order, after a check.

    Args:
        model: whose parameters they are, or the gradients with respect to them.
        arrays: by name.
        what: they are called in errors.

    Raises:
        ValueError: they are not the model's, or not finite.
        TypeError: they have no names, or one of them is not an array of numbers.
    """
    if not isinstance(arrays, Mapping):
        raise TypeError(
            f"the {what} are a {type(arrays).__name__}; give arrays by name, as model.init does"
        )
    found = {name: as_array(array, copy=True) for name, array in arrays.items()}
    require_fit(model, found, what)
    return {name: found[name] for name in model.shapes}
