"""Minimisation of smooth functions, without any knowledge of what they are."""

from __future__ import annotations

from tinyleak.optim.batch import Objective
from tinyleak.optim.lbfgs import LineSearch, State, lbfgs
from tinyleak.optim.lbfgs import lbfgs as lbfgs_many
from tinyleak.optim.levenberg_marquardt import (
    FIRST_DAMPING,
    Fit,
    Residual,
    bounded_step,
    levenberg_marquardt,
)

__all__ = [
    "FIRST_DAMPING",
    "Fit",
    "LineSearch",
    "Objective",
    "Residual",
    "State",
    "bounded_step",
    "lbfgs",
    "levenberg_marquardt",
]
