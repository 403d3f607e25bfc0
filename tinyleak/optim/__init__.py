"""Minimisation of many smooth functions at once, without any knowledge of what they are."""

from __future__ import annotations

from tinyleak.optim.batch import Objective
from tinyleak.optim.lbfgs import LineSearch, State, lbfgs

__all__ = ["LineSearch", "Objective", "State", "lbfgs"]
