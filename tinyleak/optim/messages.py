"""What one problem and the batch say to each other between two evaluations.

Each problem is a coroutine (see `descent`). It yields an `Order`, the batch obeys the orders of
all problems with one evaluation, and the coroutine is sent the `Look` at its own point.
"""

from __future__ import annotations

from collections.abc import Generator
from math import isfinite
from typing import NamedTuple


class Look(NamedTuple):
    """What one evaluation showed at the point x + t·d."""

    slope: float
    """∇f(x + t·d)·d"""
    bend: float
    """(∇f(x + t·d) − ∇f(x))·d, so that t·bend is the sᵀy of this step."""
    start_slope: float
    """∇f(x)·d"""
    value: float
    """f(x + t·d)"""
    gradient: float
    """The largest component of ∇f(x + t·d), in magnitude."""
    gradient_sum: float
    """The sum of the magnitudes of the components of ∇f(x + t·d)."""
    length: float
    """The largest component of d, in magnitude."""

    def is_finite(self) -> bool:
        """Whether the value and the gradient are numbers that can be compared."""
        return isfinite(self.value) and isfinite(self.slope) and isfinite(self.gradient)


class Order(NamedTuple):
    """What a problem wants done before the next evaluation, in the order of the fields."""

    accept: bool = False
    """Move x to the point just evaluated, and take a new direction there."""
    taken: float = 1.0
    """The step t that is accepted, so that s = t·d."""
    curvature: float = 0.0
    """The sᵀy of the accepted step; the pair (s, y) enters the history if it is positive."""
    scale: float = 0.0
    """If positive: forget all pairs and let H be scale·I, so that d = −scale·∇f(x)."""
    step: float = 1.0
    """Evaluate at x + step·d."""
    reason: str | None = None
    """Set when the problem is finished: x stays where it is and nothing more is evaluated."""


Course = Generator[Order, Look, None]
"""One problem's way to its minimum. Its first order is void: the batch evaluates the start."""
