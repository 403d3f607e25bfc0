"""Gradient matching as nonlinear least squares."""

from tinyleak.attacks.least_squares.jacobian import Jacobian

__all__ = ["Jacobian"]
