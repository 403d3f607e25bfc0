"""Temporary."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyleak.optim.lbfgs import lbfgs as lbfgs_many


@dataclass
class Iterate:
    x: Any
    value: float
    gradient_norm: float
    iterations: int
    evaluations: int
    reason: Any


def lbfgs(objective: Any, start: Any, **options: Any) -> Any:
    def many(x: Any, rows: Any) -> Any:
        value, gradient = objective(x[0].copy())
        return np.asarray(value)[None], gradient[None]

    for s in lbfgs_many(many, start[None], **options):
        yield Iterate(
            s.x[0],
            float(s.values[0]),
            float(s.gradient_norms[0]),
            int(s.iterations[0]),
            int(s.evaluations[0]),
            s.reasons[0],
        )
