"""What every defence is: a function of named gradients, and what can be known of its result."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, TypeAlias

import numpy as np

from tinyleak.backend import Array
from tinyleak.interop import as_array

Gradients: TypeAlias = Mapping[str, Array]


@dataclass(frozen=True)
class Defense(ABC):
    """A function of named gradients; `str(defense)` is what `parse` reads."""

    name: ClassVar[str]  # what it is called
    # It needs each example's own gradient, along a leading axis, and averages them.
    per_example: ClassVar[bool] = False
    # It may multiply all gradients with one number that is not known.
    changes_scale: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, gradients: Gradients, rng: np.random.Generator) -> dict[str, Array]:
        """Return what is shared in place of `gradients`, in their shapes and dtypes."""

    def variance(self, shared: Gradients, batch: int) -> dict[str, Array]:
        """Return how far each shared entry is from the true one: the variance, infinity if unknown.

        `shared` is what the client shared in the end, by name, the mean over `batch` examples.
        """
        return {name: np.zeros(gradient.shape) for name, gradient in shared.items()}

    def __str__(self) -> str:
        strengths = ",".join(repr(getattr(self, field.name)) for field in fields(self))
        return f"{self.name}:{strengths}" if strengths else self.name


def protect(
    defenses: Sequence[Defense], gradients: Gradients, rng: np.random.Generator
) -> dict[str, Array]:
    """Return what a client shares that applies defences, in order.

    The gradients are of the mean loss, by name; or, if `need_examples(defenses)`, each example's
    own, along a leading axis. The noise comes from `rng`. A defence that needs each example's own
    gradient and is not the first is a ValueError; gradients that are not arrays of numbers, or
    defences that are not ones, are a TypeError.
    """
    need_examples(defenses)
    shared = {name: as_array(gradient) for name, gradient in gradients.items()}
    for defense in defenses:
        shared = defense(shared, rng)
    return shared


def as_defenses(defenses: Sequence[Defense]) -> tuple[Defense, ...]:
    """Return defences as they are applied, in order.

    A text or a single defence in place of several, or anything else among them, is a TypeError.
    """
    several = () if isinstance(defenses, str | Defense) else tuple(defenses)
    if isinstance(defenses, str | Defense) or not all(isinstance(d, Defense) for d in several):
        raise TypeError(
            f"{defenses!r} was given as defences; give a list of objects, such as "
            '[tinyleak.defenses.parse("prune:0.2")]'
        )
    return several


def need_examples(defenses: Sequence[Defense]) -> bool:
    """Return whether the first defence needs each example's own gradient; no later one may."""
    defenses = as_defenses(defenses)
    for defense in defenses[1:]:
        if defense.per_example:
            raise ValueError(
                f"defence {str(defense)!r} clips each example's own gradient, so it must come "
                "first: the defences before it would have averaged them"
            )
    return bool(defenses) and defenses[0].per_example


def require_positive(what: str, number: float) -> None:
    """Refuse, with ValueError, a strength that is not positive and finite."""
    if not 0 < number < math.inf:
        raise ValueError(f"the {what} must be positive and finite, not {number}")
