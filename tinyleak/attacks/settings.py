"""How an attack is run.

Lesson: lessons/09_why_it_fails.py
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from tinyleak.optim import LineSearch

Method: TypeAlias = Literal["lbfgs", "levenberg-marquardt", "lbfgs+levenberg-marquardt"]
"""How the distance is minimised: the third is L-BFGS, and Levenberg–Marquardt to finish."""

OUTER_STEP = 20
"""How many iterations an outer step of L-BFGS has without a line search, as in PyTorch."""


@dataclass(frozen=True)
class Settings:
    """How the attack is run.

    Attributes:
        iterations: L-BFGS iterations at most; without a line search, outer steps of 20. Of
            Levenberg–Marquardt no more than as many either, nor more than 200.
        line_search: "strong-wolfe" or "none".
        history: how many steps L-BFGS remembers.
        dtype: "float64" or "float32".
        scale_free: divide the distance by the squared norm of the shared gradient, so that
            neither the network's nor the loss's scale decides when the attack stops.
        goal: the distance at which the attack is satisfied.
        compiled: replay a traced program instead of running the engine eagerly.
        direction: match the direction of the shared gradient, whatever its length: the client may
            have scaled it.
        smoothness: β, how strongly smooth images are preferred, as by a prior exp(−β · total
            variation) beside noise of variance 1 / precision; 0 is not at all.
    """

    iterations: int = 2000
    line_search: LineSearch = "strong-wolfe"
    history: int = 100
    dtype: str = "float64"
    scale_free: bool = True
    goal: float = 1e-20
    compiled: bool = True
    direction: bool = False
    smoothness: float = 0.0

    def __post_init__(self) -> None:
        if self.dtype not in ("float64", "float32"):
            raise ValueError(f"dtype {self.dtype!r} is unknown; choose float64 or float32")
        if self.iterations < 0:
            raise ValueError(f"{self.iterations} iterations were asked for; give 0 or more")
        if not 0 <= self.smoothness < math.inf:
            raise ValueError(f"a smoothness of {self.smoothness} was asked for; give 0 or more")

    @classmethod
    def paper(cls, **changes: Any) -> Settings:
        """Return the paper's recipe: raw distance, float32, no line search, 300 outer steps."""
        recipe = cls(300, "none", dtype="float32", scale_free=False, goal=-np.inf)
        return replace(recipe, **changes)
