"""In which numbers a gradient was written, and how far that rounds it."""

from collections.abc import Mapping

import numpy as np

from tinyleak.backend import Array
from tinyleak.defenses.rounding import round_to_bfloat16

LEVELS = 256
"""How many values eight bits can tell apart."""

ENOUGH = 600
"""Of fewer entries than this, twice `LEVELS` and some, many may have values of their own."""

COMPUTED = {"float64": 2.0**-53, "float32": 2.0**-24}
"""Half of the last place, relative to a number: how far one operation in it rounds."""


def number_format(gradients: Mapping[str, Array], dtype: str) -> str:
    """Return the coarsest format that holds every number of a gradient as it is.

    Args:
        gradients: as they were shared, not multiplied with anything.
        dtype: that of the files, which the numbers may be coarser than.

    Returns:
        "int8" for tensors of few, evenly spaced values, else "float16", "bfloat16", "float32" or
        "float64".
    """
    levels = [_has_levels(array) for array in gradients.values()]
    if True in levels and False not in levels:
        return "int8"
    for name in ("float16", "bfloat16", "float32"):
        if all(np.array_equal(_rounded(array, name), array) for array in gradients.values()):
            return name
    return "float64" if dtype == "float64" else dtype


def rounding_deviation(gradient: Array, written: str) -> Array:
    """Return the standard deviation that writing a number so leaves on it, for each entry.

    A number anywhere in an interval of width s errs by s / √12.
    """
    with np.errstate(over="ignore"):
        if written == "int8":
            values = np.unique(np.append(np.abs(gradient), 0.0))
            return np.full(gradient.shape, _step(values) / np.sqrt(12.0))
        # A bfloat16 is a float32 without its last 16 bits.
        dtype, times = ("float32", 2.0**16) if written == "bfloat16" else (written, 1.0)
        spacing = np.spacing(np.abs(gradient).astype(dtype)).astype(float)
    return times / np.sqrt(12.0) * spacing


def _rounded(array: Array, name: str) -> Array:
    with np.errstate(over="ignore"):
        if name == "bfloat16":
            return round_to_bfloat16(array).astype(float)
        return array.astype(name).astype(float)


def _has_levels(array: Array) -> bool | None:
    """Return whether there are few values and evenly spaced; None where entries are too few."""
    values, counts = np.unique(array[array != 0], return_counts=True)
    if counts.sum() < ENOUGH or (len(values) <= LEVELS and counts.sum() < 2 * len(values)):
        return None
    if len(values) > LEVELS:
        return False
    whole = values / _step(np.unique(np.append(np.abs(values), 0.0)))
    # Multiples up to 255 of a step that float32 rounded: off by 255 · 2⁻²⁴ · a few.
    return bool(np.abs(whole - np.rint(whole)).max() < 1e-3)


def _step(values: Array) -> float:
    """Return the smallest distance between sorted magnitudes, zero among them."""
    gaps = np.diff(values)
    # Two roundings of one multiple are no step.
    gaps = gaps[gaps > 1e-5 * values[-1]]
    if not gaps.size:
        return float(values[-1] or 1.0)
    # The largest is a whole number of steps, and known to more digits than a difference.
    return float(values[-1] / np.rint(values[-1] / gaps.min()))
