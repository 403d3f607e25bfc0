"""What the lessons check with: `expect` for what they claim, `check` for what you write.

    from checks import check
    check(3, spread)

says whether `spread` solves the exercise of lesson 3, and if not, what is wrong with it. The right
answers, and the usual mistakes with what is said to them, are in `exercises.py`.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from exercises import EXERCISES, Exercise

from tinyleak import Tensor

STRICT = "TINYLEAK_LESSONS_STRICT"
"""Set by the tests and by `build.py`: a claim that does not hold is an error there."""


def expect(holds: Any, claim: str) -> None:
    """Say so if a claim does not hold, which it does with the seeds that the lesson came with."""
    if holds:
        return
    if os.environ.get(STRICT):
        raise AssertionError(claim)
    print(f"True for the original seeds, but not now: {claim}")


def check(lesson: int | str, answer: Any) -> None:
    """Print whether an answer solves the exercise of a lesson, and if not, what is wrong with it.

    It returns nothing: the last line of a cell would be shown a second time.

    Args:
        lesson: its number, such as 3 or "6b".
        answer: what the exercise asks for.

    Raises:
        ValueError: no lesson has that number.
    """
    if str(lesson) not in EXERCISES:
        raise ValueError(f"{lesson!r} has no exercise; one of {', '.join(EXERCISES)} is expected")
    exercise = EXERCISES[str(lesson)]
    print(f"Exercise {lesson}: {judge(exercise, answer)}")


def judge(exercise: Exercise, answer: Any) -> str:
    """Return what there is to say about an answer; of a right one it begins "right. "."""
    found = []
    for case in exercise.cases:
        try:
            found.append(exercise.use(answer, *case))
        except Exception as error:
            return f"it stops with {type(error).__name__}: {error}"
        if found[-1] is None:
            return "nothing is returned yet. Write it, and run this cell again."
        if not agree(exercise, found[-1], case, exercise.right):
            break
    else:
        return f"right. {exercise.praise}"
    tried = list(zip(found, exercise.cases, strict=False))
    for mistake, sentence in exercise.mistakes:
        if all(agree(exercise, value, case, mistake) for value, case in tried):
            return sentence
    right = exercise.use(exercise.right, *case)
    return f"not yet. It gives {brief(found[-1])}, and {brief(right)} is right."


def agree(exercise: Exercise, value: Any, case: tuple, other: Any) -> bool:
    """Whether another answer to the case gives this value, shape and all."""
    try:
        ours, theirs = plain(value), plain(exercise.use(other, *case))
        close = np.allclose(ours, theirs, rtol=exercise.tolerance, atol=1e-9)
        return ours.shape == theirs.shape and bool(close)
    except (TypeError, ValueError):
        return False


def plain(value: Any) -> np.ndarray:
    """Return numbers as one array: of a number, an array, a Tensor, a list or a dict of them."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        parts = [plain(v) for v in value]
        return np.concatenate([p.ravel() for p in parts]) if parts else np.empty(0)
    return np.asarray(value.data if isinstance(value, Tensor) else value, dtype=float)


def brief(value: Any) -> str:
    """Write a value so that it fits on a line."""
    try:
        array = plain(value)
    except (TypeError, ValueError):  # no numbers at all: a set, a word, a function
        text = repr(value)
        return f"{text if len(text) <= 60 else text[:57] + '...'}, a {type(value).__name__}"
    if array.size > 6:
        return f"{array.ravel()[:4].round(4).tolist()} … of shape {array.shape}"
    return str(array.round(6).tolist())
