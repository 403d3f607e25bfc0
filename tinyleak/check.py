"""Is this gradient right? A check by finite differences along random directions, to any order.

For a function f and a random direction v, the slope of f along v can be had twice: as the inner
product ⟨∇f, v⟩, and from two values of f a small step apart. If both agree the gradient is right
along v, and a wrong gradient agrees by chance with probability 0. The next order is the same
check on the function x ↦ ∇f(x), so one short recursion covers them all.

Lesson: lessons/04_gradients_of_gradients.py
"""

from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np

from tinyleak import ops
from tinyleak.backend import array_module, to_device
from tinyleak.gradient import grad
from tinyleak.tensor import Tensor


def check_gradients(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    *,
    order: int = 2,
    step: float = 1e-5,
    tolerance: float = 1e-6,
    rng: np.random.Generator | None = None,
) -> None:
    """Check the derivatives of a function of Tensors, of every order up to `order`.

    Args:
        function: takes the inputs and returns one Tensor of any shape.
        inputs: float64 Tensors of any shapes, at which every derivative checked exists.
        order: the highest order to check; 1 is the gradient itself.
        step: the length of the finite difference, in units of the inputs.
        tolerance: the largest error allowed, relative to the size of the slope (or to 1).
        rng: where the random directions come from; a fixed one by default.

    Raises:
        AssertionError: a derivative is wrong; the message says of which order and by how much.
        ValueError: an input is not float64, in which the differences would drown in rounding.
    """
    wrong = [x.dtype for x in inputs if x.dtype != np.float64]
    if wrong:
        raise ValueError(f"check_gradients was given {wrong[0]} inputs; it needs float64 ones")
    rng = np.random.default_rng(0) if rng is None else rng
    weights = _random_like(function(*inputs), rng)
    scalar = _weighted(function, weights)
    for level in range(1, order + 1):
        directions = [_random_like(x, rng) for x in inputs]
        exact = _inner(grad(scalar(*inputs), inputs), directions)
        ahead = scalar(*_moved(inputs, directions, step))
        behind = scalar(*_moved(inputs, directions, -step))
        measured = (float(ahead) - float(behind)) / (2 * step)
        error = abs(float(exact) - measured) / max(1.0, abs(measured))
        if not error <= tolerance:
            raise AssertionError(
                f"the derivative of order {level} is wrong: the graph says {float(exact):.12g} "
                f"along a random direction, finite differences say {measured:.12g} "
                f"(error {error:.1e}, allowed {tolerance:.1e})"
            )
        scalar = _slope_along(scalar, directions)


def _weighted(function: Callable[..., Tensor], weights: Tensor) -> Callable[..., Tensor]:
    return lambda *xs: ops.sum(function(*xs) * weights)


def _slope_along(scalar: Callable[..., Tensor], directions: list[Tensor]) -> Callable[..., Tensor]:
    """The function x ↦ ⟨∇ scalar(x), v⟩: the next thing to differentiate."""

    def slope(*xs: Tensor) -> Tensor:
        return _inner(grad(scalar(*xs), xs), directions)

    return slope


def _inner(slopes: Sequence[Tensor], directions: list[Tensor]) -> Tensor:
    """Return ⟨∇f, v⟩, over all inputs."""
    return reduce(ops.add, [ops.sum(s * v) for s, v in zip(slopes, directions, strict=True)])


def _random_like(x: Tensor, rng: np.random.Generator) -> Tensor:
    return Tensor(to_device(rng.standard_normal(x.shape), array_module(x.data)))


def _moved(inputs: Sequence[Tensor], directions: list[Tensor], step: float) -> list[Tensor]:
    return [Tensor(x.data + step * v.data) for x, v in zip(inputs, directions, strict=True)]
