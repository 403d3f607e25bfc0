"""A network together with how a client trains it: its images normalised, its loss."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyleak.nn.criteria import LOSSES, Loss
from tinyleak.nn.model import Model
from tinyleak.nn.models.exported import Exported, with_outputs_for
from tinyleak.tensor import Tensor


@dataclass(frozen=True)
class AsTrained:
    """A network that normalises its images before it looks at them, and has a loss of its own.

    It is called with pixels in [0, 1], so whatever an attack finds, draws and measures is in them.
    An unknown loss is a ValueError, and so are numbers that do not fit the channels or are out of
    range.
    """

    network: Model
    loss_name: str = "cross-entropy"  # one of `tinyleak.nn.criteria.LOSSES`
    # What is taken off each channel's pixels, and what they are divided by then: one number, or one
    # for each channel; 1/255 makes pixels of 0 to 255 of them.
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if self.loss_name not in LOSSES:
            raise ValueError(f"loss {self.loss_name!r} is unknown; choose from {', '.join(LOSSES)}")
        channels = self.network.image_shape[0]
        lengths = {len(self.mean), len(self.std)} <= {1, channels}
        finite = all(math.isfinite(number) for number in (*self.mean, *self.std))
        if not (lengths and finite and min(self.std) > 0):
            raise ValueError(
                f"images were said to be normalised by mean {self.mean} and standard deviation "
                f"{self.std}; give one number each, or one for each of {channels} channels, and "
                "standard deviations above 0"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self.network.image_shape

    @property
    def classes(self) -> int:
        """K, how many classes are told apart."""
        return self.network.classes

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter, by name."""
        return self.network.shapes

    @property
    def activation(self) -> str | None:
        """The network's, if it names one."""
        return getattr(self.network, "activation", None)

    @property
    def loss(self) -> Loss:
        """The loss, of logits and targets."""
        return LOSSES[self.loss_name]

    @property
    def normalises(self) -> bool:
        """Whether pixels are not given to the network as they are."""
        return {*self.mean, 0.0} != {0.0} or {*self.std, 1.0} != {1.0}

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Return the logits (…, N, K) of images (…, N, C, H, W), pixels in [0, 1]."""
        if self.normalises:
            mean, scale = (np.asarray(v).reshape(-1, 1, 1) for v in (self.mean, self.std))
            x = (x - np.asarray(mean, x.dtype)) * np.asarray(1.0 / scale, x.dtype)
        return self.network(params, x)


def as_trained(
    network: Any,
    loss: str = "cross-entropy",
    normalize: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
) -> Any:
    """Return a network as `AsTrained`; as it is if its loss and its images are as usual.

    Cross-entropy of what is no row of logits is a ValueError.
    """
    if isinstance(network, Exported):
        network = with_outputs_for(network, loss)
    mean, std = normalize or ((0.0,), (1.0,))
    wrapped = AsTrained(network, loss, mean, std)
    return wrapped if wrapped.normalises or loss != "cross-entropy" else network


def network_of(model: Any) -> Any:
    """Return a client's network itself, without its loss and normalisation."""
    return model.network if isinstance(model, AsTrained) else model


def are_images(model: Any) -> bool:
    """Whether a network takes images, whose pixels lie in [0, 1], and no series or table."""
    return len(getattr(network_of(model), "input_shape", (1, *model.image_shape))) == 4


def heads_of(model: Any) -> tuple[int, ...]:
    """Return how many logits each head of a client's network has; a single one tells two classes.

    Several heads have a loss each, which are added.
    """
    heads = getattr(network_of(model), "heads", None)  # a number of them is of attention
    return heads if isinstance(heads, tuple) else (model.classes,)
