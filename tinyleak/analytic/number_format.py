"""In which numbers a gradient was written, and how far that, and computing it, rounds it."""

import math
from collections.abc import Mapping

import numpy as np

from tinyleak.analytic.layer_gradient import LastLayerGradient
from tinyleak.analytic.probes import logits_of, smooth_noise
from tinyleak.backend import Array
from tinyleak.defenses.rounding import round_to_bfloat16

LEVELS = 256  # how many values eight bits can tell apart

ENOUGH = 600
"""Of fewer entries than this, twice `LEVELS` and some, many may have values of their own."""

UNITS = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Half of the last place: the largest relative rounding of a number, by the dtype of it."""

COMPUTED = {dtype: UNITS[dtype] for dtype in ("float64", "float32")}
"""The same of those that gradients are computed in: how far one operation rounds."""

TYPICAL = 0.41
"""The root mean square of it in these units: rounding to the nearest errs by up to half of the last
place, evenly (1/√3), and that is between the whole and the half of it relative to the number."""

FEW = 16  # probes that tell how large logits are: of all 512 a ResNet takes a minute


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


def relative_roundoff(layer: LastLayerGradient | None, written: str) -> float:
    """Return how far rounding is expected to take a gradient, relative to its length.

    A client computes δ = p − y, a difference of numbers up to 1, from logits z which are rounded in
    proportion to their own size. So δ is off by about ε·max(1, |z|), however small it is, and a
    network that is sure of its image shares a gradient of few digits. With features of length about
    √F that is an error of ε·max(1, |z|)·√(F/N) in the last layer's gradient, and the layers below
    inherit it in proportion. Measured over 576 clients (LeNet and MLP, four activations, both
    initialisations, one image and four, last layers as they are and three and ten times as large):
    the gradient in float32 is off by 0.2 to 4.3 times that, where it does not vanish.

    Args:
        layer: the last layer's gradient, whose size says how small the differences p − y are; None
            if the last layer is not linear, and then they are taken to be of order 1.
        written: the dtype in which the gradient is written, one of `UNITS`. What is shorter than
            float32 was computed in that.
    """
    written_in = TYPICAL * UNITS[written]
    computed_in = min(UNITS[written], UNITS["float32"])
    if layer is None:
        return written_in + computed_in
    length = float(np.linalg.norm(layer.weight_gradient)) * math.sqrt(layer.batch)
    with np.errstate(all="ignore"):  # huge weights make any logits
        probes = smooth_noise(layer.model.image_shape, FEW)
        largest = np.abs(logits_of(layer.model, layer.params, probes)).max(axis=1)
        logits = max(1.0, float(largest.mean()))
        error = logits * math.sqrt(layer.weight.shape[1]) / np.float64(length)
    return written_in + computed_in * float(error)
