"""Initial weights, drawn by NumPy whatever the device, so that one seed means one network.

`"uniform"` is the reference implementation's, U(−0.5, 0.5) for weights and biases.
`"default"` is PyTorch's: U(±1/√fan_in) for both, but 1 and 0 for a normalisation's.

Lesson: lessons/06b_training.py
"""

import math
from collections.abc import Mapping
from typing import TypeAlias

from numpy.random import Generator

from tinyleak.backend import Array

Parameters: TypeAlias = dict[str, Array]
SCHEMES = ("uniform", "default")


def draw(
    shapes: Mapping[str, tuple[int, ...]],
    rng: Generator,
    scheme: str = "uniform",
    *,
    scale: float = 0.5,
    dtype: str = "float64",
) -> Parameters:
    """Draw parameters of the given shapes, in the order given.

    Args:
        shapes: by name; a weight is (out, in, …), and the bias after it (out,) has its fan-in. A
            `weight` of one axis is a normalisation's, and so is the bias after it.
        rng: where the random numbers come from.
        scheme: "uniform" or "default".
        scale: half the width of the uniform distribution.
        dtype: of the parameters; they are drawn in float64 and rounded.

    Raises:
        ValueError: the scheme is unknown.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"initialisation {scheme!r} is unknown; choose from {', '.join(SCHEMES)}")
    params, bound = {}, scale
    for name, shape in shapes.items():
        normalises = scheme == "default" and len(shape) == 1 and name.endswith("weight")
        if normalises:
            bound = 0.0
        elif scheme == "default" and len(shape) > 1:
            bound = 1.0 / math.sqrt(math.prod(shape[1:]))
        params[name] = (float(normalises) + rng.uniform(-bound, bound, shape)).astype(dtype)
    return params
