"""Minimisation of smooth functions, without any knowledge of what they are."""

from tinyleak.optim.bounds import bounded_step
from tinyleak.optim.descent import LineSearch
from tinyleak.optim.gauss_newton import Fit, Residual, levenberg_marquardt
from tinyleak.optim.many import State, lbfgs_many
from tinyleak.optim.quasi_newton import Iterate, Objective, lbfgs

__all__ = [
    "Fit",
    "Iterate",
    "LineSearch",
    "Objective",
    "Residual",
    "State",
    "bounded_step",
    "lbfgs",
    "lbfgs_many",
    "levenberg_marquardt",
]
