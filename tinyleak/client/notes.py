"""What is said about a client: by its owner, or by the notes beside its files.

Notes are a JSON object beside a file, or safetensors' metadata. Keys that tinyleak does not know
are somebody else's, and are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tinyleak.client.loss import REDUCTIONS
from tinyleak.data.networks import SUFFIX
from tinyleak.data.tensors import read_notes
from tinyleak.nn.activations import ACTIVATIONS
from tinyleak.nn.criteria import LOSSES
from tinyleak.nn.models.shapes import MODELS

T = TypeVar("T")

LONGEST_NOTE = 200  # no note that means anything has more letters


@dataclass(frozen=True)
class Notes:
    """What is said about a client; each is None where nothing is. A text is read as its value.

    Attributes:
        model: "lenet" or "mlp"; or the path of a `.pt2` file, which no notes may name.
        shape: (C, H, W) of an image.
        classes: how many there are.
        activation: the network's.
        strides: of a LeNet's convolutions.
        batch: N, how many images the gradient was computed from.
        reduction: "mean" or "sum", of the losses of a batch.
        learning_rate: of the client's steps, where weights after them are given.
        local_steps: how many they were.
        epochs: how many times they went through all images, instead.
        local_batch: images of the mini-batch of each.
        momentum: of the steps, in [0, 1).
        loss: one of `tinyleak.nn.criteria.LOSSES`.
        normalize: of images with pixels in [0, 1], means and standard deviations: one number each,
            or one for each channel.

    Raises:
        ValueError: what cannot be.
    """

    model: str | None = None
    shape: tuple[int, int, int] | None = None
    classes: int | None = None
    activation: str | None = None
    strides: tuple[int, ...] | None = None
    batch: int | None = None
    reduction: str | None = None
    learning_rate: float | None = None
    local_steps: int | None = None
    epochs: int | None = None
    local_batch: int | None = None
    momentum: float | None = None
    loss: str | None = None
    normalize: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def __post_init__(self) -> None:
        for name, parse in PARSERS.items():
            value = getattr(self, name)
            if value is None:
                continue
            text = _text(value)
            try:
                if len(text) > LONGEST_NOTE and not text.endswith(SUFFIX):
                    raise ValueError(f"{LONGEST_NOTE} letters are read at most")
                object.__setattr__(self, name, parse(text))
            except ValueError as error:
                raise ValueError(f"{name} {text[:80]!r}: {error}") from error

    @property
    def told(self) -> dict[str, Any]:
        """What is said, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def under(self, said: Notes) -> Notes:
        """Return these notes with what somebody said instead taking their place."""
        told = said.told
        if {"epochs", "local_steps"} & told.keys():  # the one takes the place of the other, too
            told = {"epochs": None, "local_steps": None} | told
        return replace(self, **told)

    def __str__(self) -> str:
        return ", ".join(f"{k.replace('_', ' ')} {_text(v)}" for k, v in self.told.items())


def gather_notes(*paths: Path | None) -> Notes:
    """Return what the notes about these files say, a later one's over an earlier's.

    Raises:
        ValueError: notes that cannot be read, or that say what cannot be.
        OSError: a file is not there.
    """
    notes = Notes()
    for path in paths:
        said = {} if path is None else read_notes(path)
        try:
            told: dict[str, Any] = {key: said[key] for key in PARSERS if key in said}
            if _is_number(told.get("loss")):
                del told["loss"]  # another tool's: what the loss came to, and not which it is
            if told.get("model", "").endswith(SUFFIX):
                raise ValueError("that the network is in another file; name that with --model")
            notes = notes.under(Notes(**told))
        except ValueError as error:
            raise ValueError(
                f"the notes about {str(path)!r} say {error}; put them right"
            ) from error
    return notes


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def parse_shape(text: str) -> tuple[int, int, int]:
    """Parse the shape of an image, such as 1,28,28.

    Raises:
        ValueError: it is something else.
    """
    try:
        channels, height, width = (int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r} was given; write a shape as C,H,W, such as 1,28,28") from None
    return channels, height, width


def parse_normalize(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Parse MEAN,STD, such as 0.1307,0.3081; of C channels, C means and C standard deviations.

    Raises:
        ValueError: it is something else.
    """
    with suppress(ValueError):
        numbers = tuple(float(part) for part in text.split(","))
        half = len(numbers) // 2
        if len(numbers) % 2 == 0 and np.isfinite(numbers).all() and min(numbers[half:]) > 0:
            return numbers[:half], numbers[half:]
    raise ValueError(
        f"{text!r} was given; write what images were normalised by as MEAN,STD, such as "
        "0.1307,0.3081, or the means of all channels and then their standard deviations"
    )


def parse_number(
    kind: Callable[[str], T], fits: Callable[[T], bool], wanted: str
) -> Callable[[str], T]:
    """Return what parses a number, and says in a ValueError what was wanted if it does not fit."""

    def parse(text: str) -> T:
        with suppress(ValueError):
            if fits(number := kind(text)):
                return number
        raise ValueError(f"{text!r} was given; {wanted}")

    return parse


def parse_whole(least: int) -> Callable[[str], int]:
    """Return what parses a whole number of `least` or more."""
    wanted = f"a whole number of {least} or more is needed"
    return parse_number(int, lambda number: number >= least, wanted)


parse_rate = parse_number(
    float, lambda rate: 0 < rate < float("inf"), "a learning rate is a finite number above 0"
)


def _one_of(choices: Collection[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"choose from {', '.join(choices)}")
        return text

    return parse


def _network(text: str) -> str:
    if text.endswith(SUFFIX):
        return text
    return _one_of([*MODELS, f"a file *{SUFFIX} that torch.export.save wrote"])(text)


def _text(value: object) -> str:
    return ",".join(map(_text, value)) if isinstance(value, tuple | list) else str(value)


PARSERS: dict[str, Callable[[str], Any]] = {
    "model": _network,
    "shape": parse_shape,
    "classes": parse_whole(1),
    "activation": _one_of(ACTIVATIONS),
    "strides": lambda text: tuple(parse_whole(1)(part) for part in text.split(",")),
    "batch": parse_whole(1),
    "reduction": _one_of(REDUCTIONS),
    "learning_rate": parse_rate,
    "local_steps": parse_whole(1),
    "epochs": parse_whole(1),
    "local_batch": parse_whole(1),
    "momentum": parse_number(float, lambda m: 0 <= m < 1, "a momentum is a number in [0, 1)"),
    "loss": _one_of(LOSSES),
    "normalize": parse_normalize,
}
"""What notes may say, and how it is read."""
