"""How an attack is run.

Lesson: lessons/09b_what_else_decides.py
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from tinyleak.optim.descent import LineSearch

OUTER_STEP = 20
"""How many iterations an outer step of L-BFGS has without a line search, as in PyTorch."""

GOALS = {"float64": 1e-20, "float32": 1e-12}
"""The relative distance that is as good as zero, by dtype."""


@dataclass(frozen=True)
class Settings:
    """How the attack is run; what cannot be is refused when the settings are made.

    Attributes:
        iterations: at most; without a line search, outer steps of 20. Levenberg–Marquardt makes
            no more than 200.
        line_search: "strong-wolfe" or "none".
        history: how many steps L-BFGS remembers, 1 or more.
        dtype: "float64" or "float32".
        scale_free: divide the distance by the squared norm of the shared gradient.
        goal: the distance at which the attack is satisfied; None is what the dtype can reach.
        compiled: replay a traced program instead of running the engine eagerly.
        direction: match the direction of the shared gradient, whatever its length.
        smoothness: β, how strongly smooth images are preferred, as by a prior exp(−β · total
            variation) beside noise of variance 1 / precision; 0 is not at all.

    Raises:
        ValueError: an unknown dtype or line search, or a number out of range.
        TypeError: a count that is not a whole number.
    """

    iterations: int = 2000
    line_search: LineSearch = "strong-wolfe"
    history: int = 100
    dtype: str = "float64"
    scale_free: bool = True
    goal: float | None = None
    compiled: bool = True
    direction: bool = False
    smoothness: float = 0.0

    def __post_init__(self) -> None:
        if self.dtype not in GOALS:
            raise ValueError(f"dtype {self.dtype!r} is unknown; choose float64 or float32")
        if self.line_search not in ("strong-wolfe", "none"):
            raise ValueError(
                f"line search {self.line_search!r} is unknown; choose strong-wolfe or none"
            )
        from tinyleak.interop import number, whole  # beside the path

        whole(self.iterations, 0, "{} iterations were asked for; give 0 or more")
        whole(self.history, 1, "a history of {} steps was asked for; give 1 or more")
        number(self.smoothness, 0, "a smoothness of {} was asked for; give 0 or more")
        if self.goal is not None:
            number(self.goal, -math.inf, "a goal of {} was asked for; give a distance", math.inf)

    @property
    def near_enough(self) -> float:
        """The distance at which the attack is satisfied: the goal, or what the dtype can reach."""
        return GOALS[self.dtype] if self.goal is None else self.goal

    @property
    def most_iterations(self) -> int:
        """How many iterations of L-BFGS there are at most, those of all outer steps together."""
        return self.iterations * (1 if self.line_search == "strong-wolfe" else OUTER_STEP)

    @classmethod
    def paper(cls, **changes: Any) -> Settings:
        """Return the paper's recipe: raw distance, float32, no line search, 300 outer steps."""
        recipe = cls(300, "none", dtype="float32", scale_free=False, goal=-math.inf)
        return replace(recipe, **changes)
