"""Whether named arrays are a model's."""

from __future__ import annotations

from collections.abc import Mapping

from tinyleak.backend import Array, array_module
from tinyleak.nn.model import HasShapes


def require_fit(model: HasShapes, arrays: Mapping[str, Array], what: str) -> None:
    """Check that named arrays are a model's: the names, the shapes, and every number finite.

    Raises:
        ValueError: they are not; the message says what was given and what was expected.
    """
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
