"""The LeNet of the Deep Leakage from Gradients paper's reference implementation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tinyleak.backend import Array
from tinyleak.nn import init
from tinyleak.nn.layers import activation, conv2d, flatten, linear
from tinyleak.ops.window import window_counts
from tinyleak.tensor import Tensor

KERNEL = 5
PADDING = 2
STRIDES = (2, 2, 1)


@dataclass(frozen=True)
class LeNet:
    """Three 5×5 convolutions of 12 channels, an activation after each, and one linear layer.

    Strides are 2, 2, 1 and the padding is 2, so a 1×28×28 image becomes 588 features and a
    3×32×32 one 768. Parameters are named as in the reference implementation's state dict
    (`body.0.weight` … `fc.0.bias`), in PyTorch's layouts.

    Attributes:
        image_shape: (C, H, W) of the images.
        classes: how many classes are told apart.
        activation: "sigmoid" (the paper's), "tanh", "softplus" or "relu".
        hidden: channels of each convolution.
    """

    image_shape: tuple[int, int, int] = (1, 28, 28)
    classes: int = 10
    activation: str = "sigmoid"
    hidden: int = 12

    def __post_init__(self) -> None:
        activation(self.activation)
        sizes = (*self.image_shape, self.classes, self.hidden)
        if len(sizes) != 5 or min(sizes) < 1:
            raise ValueError(
                f"LeNet was given images of {self.image_shape}, {self.classes} classes and "
                f"{self.hidden} channels; it needs (C, H, W) and counts of at least 1"
            )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter, by name."""
        channels, height, width = self.image_shape
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, stride in enumerate(STRIDES):
            shapes[f"body.{2 * layer}.weight"] = (self.hidden, channels, KERNEL, KERNEL)
            shapes[f"body.{2 * layer}.bias"] = (self.hidden,)
            channels = self.hidden
            height, width = window_counts(
                (height, width), (KERNEL, KERNEL), (stride, stride), (PADDING, PADDING)
            )
        shapes["fc.0.weight"] = (self.classes, self.hidden * height * width)
        shapes["fc.0.bias"] = (self.classes,)
        return shapes

    def init(
        self, rng: np.random.Generator, scheme: str = "uniform", dtype: str = "float64"
    ) -> dict[str, Array]:
        """Draw parameters: "uniform" U(−0.5, 0.5) as the paper's code, or PyTorch's "default"."""
        return init.draw(self.shapes, rng, scheme, dtype=dtype)

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Return the logits (…, N, classes) of images (…, N, C, H, W)."""
        squash = activation(self.activation)
        for layer, stride in enumerate(STRIDES):
            weight, bias = params[f"body.{2 * layer}.weight"], params[f"body.{2 * layer}.bias"]
            x = squash(conv2d(x, weight, bias, stride=(stride, stride), padding=(PADDING, PADDING)))
        return linear(flatten(x), params["fc.0.weight"], params["fc.0.bias"])
