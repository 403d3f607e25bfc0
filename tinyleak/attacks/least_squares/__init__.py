"""Gradient matching as nonlinear least squares."""

from tinyleak.attacks.least_squares.solver import MOST_ITERATIONS, refine, refine_all, unstarted

__all__ = ["MOST_ITERATIONS", "refine", "refine_all", "unstarted"]
