"""Conjugate gradients (Hestenes and Stiefel 1952): a linear system by products with its matrix."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinyleak.backend import Array


class Rough(NamedTuple):
    """A rough solution of A s = b."""

    s: Array  # (n,)
    products: int  # how many with A it took


def conjugate_gradients(
    times: Callable[[Array], Array],
    right: Array,
    products: int,
    enough: float,
    precondition: Callable[[Array], Array] = lambda left: left,
    inner: Callable[[Array, Array], Any] = np.dot,
) -> Rough:
    """Return about the s for which `times(s)` is `right`.

    Args:
        times: the product with a matrix A, symmetric and positive definite.
        right: b, (n,).
        products: how many, at most.
        enough: a value of leftᵀ M left that is small enough.
        precondition: the product with a matrix M, about A⁻¹, symmetric and positive definite.
        inner: the inner product; of several systems at once, that of each, to be broadcast.
    """
    s, left, count = np.zeros_like(right), right, 0
    direction = precondition(left)
    square = inner(left, direction)
    while count < products and np.any(square > enough):
        image = times(direction)
        length = square / inner(direction, image)
        s, left, count = s + length * direction, left - length * image, count + 1
        turned = precondition(left)
        square, before = inner(left, turned), square
        direction = turned + square / before * direction
    return Rough(s, count)
