"""The LeNet of the Deep Leakage from Gradients paper's reference implementation.

Lesson: lessons/06_lenet.py
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from numpy.random import Generator

from tinyleak.nn.init import Parameters, draw
from tinyleak.nn.layers import activation, channels_first, checked_images, convolve, flatten, linear
from tinyleak.tensor import Tensor


@dataclass(frozen=True)
class LeNet:
    """Three 5×5 convolutions of 12 channels, an activation after each, and one linear layer.

    Attributes:
        image_shape: (C, H, W) of the images.
        classes: how many classes are told apart.
        activation: "sigmoid" (the paper's), or another of `tinyleak.nn.ACTIVATIONS`.
        hidden: channels of each convolution: one number for all, or a number for each.
        kernel: height and width of the windows, odd; the padding is half of it, rounded down.
        strides: of each convolution.
        unbiased: the layers without a bias, such as ("body.0", "fc.0").
    """

    image_shape: tuple[int, int, int] = (1, 28, 28)
    classes: int = 10
    activation: str = "sigmoid"
    hidden: int | tuple[int, ...] = 12
    kernel: int = 5
    strides: tuple[int, ...] = (2, 2, 1)
    unbiased: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        activation(self.activation)
        counts = (*self.image_shape, self.classes, *self.channels, self.kernel, *self.strides)
        fits = len(self.image_shape) == 3 and len(self.channels) == len(self.strides)
        if not fits or min(counts) < 1 or self.kernel % 2 == 0:
            needs = "images (C, H, W), counts of at least 1, an odd kernel, a stride for each layer"
            raise ValueError(f"{self} is not possible; give it {needs}")

    @property
    def channels(self) -> tuple[int, ...]:
        """The channels of each convolution."""
        return (self.hidden,) * len(self.strides) if isinstance(self.hidden, int) else self.hidden

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter, by name: `body.0.weight` … `fc.0.bias`."""
        inside, *size = self.image_shape
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, (outside, stride) in enumerate(zip(self.channels, self.strides, strict=True)):
            shapes[f"body.{2 * layer}.weight"] = (outside, inside, self.kernel, self.kernel)
            shapes[f"body.{2 * layer}.bias"] = (outside,)
            inside, size = outside, [-(-length // stride) for length in size]  # rounded up
        shapes["fc.0.weight"] = (self.classes, inside * math.prod(size))
        shapes["fc.0.bias"] = (self.classes,)
        return {k: s for k, s in shapes.items() if k.removesuffix(".bias") not in self.unbiased}

    def init(self, rng: Generator, scheme: str = "uniform", dtype: str = "float64") -> Parameters:
        """Draw parameters: "uniform" U(−0.5, 0.5) as the paper's code, or PyTorch's "default"."""
        return draw(self.shapes, rng, scheme, dtype=dtype)

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Return the logits (…, N, classes) of images (…, N, C, H, W)."""
        squash, images = activation(self.activation), checked_images(x, params["body.0.weight"])
        pad = (self.kernel // 2, self.kernel // 2)
        for layer, stride in enumerate(self.strides):
            weight, bias = params[f"body.{2 * layer}.weight"], params.get(f"body.{2 * layer}.bias")
            images = squash(convolve(images, weight, bias, (stride, stride), pad))
        features = flatten(channels_first(images))
        return linear(features, params["fc.0.weight"], params.get("fc.0.bias"))
