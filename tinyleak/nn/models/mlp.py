"""A multilayer perceptron: the network whose first layer gives its input away."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from numpy.random import Generator

from tinyleak.nn.init import Parameters, draw
from tinyleak.nn.layers import activation, flatten, linear
from tinyleak.tensor import Tensor


@dataclass(frozen=True)
class MLP:
    """Linear layers with an activation between them.

    Parameters are named as in a PyTorch `Sequential` of Linear, activation, Linear, …:
    `0.weight`, `0.bias`, `2.weight`, …

    Attributes:
        image_shape: (C, H, W) of the images, which are flattened.
        classes: how many classes are told apart.
        activation: one of `tinyleak.nn.ACTIVATIONS`.
        widths: the sizes of the hidden layers, one or more.
        unbiased: the layers without a bias, such as ("0", "2").
    """

    image_shape: tuple[int, int, int] = (1, 28, 28)
    classes: int = 10
    activation: str = "sigmoid"
    widths: tuple[int, ...] = (128, 64)
    unbiased: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        activation(self.activation)
        if len(self.image_shape) != 3 or min(*self.image_shape, self.classes, *self.widths) < 1:
            raise ValueError(
                f"{self} is not possible; give it images (C, H, W), counts of at least 1"
            )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter, by name."""
        sizes = (math.prod(self.image_shape), *self.widths, self.classes)
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:], strict=False)):
            shapes[f"{2 * layer}.weight"] = (fan_out, fan_in)
            shapes[f"{2 * layer}.bias"] = (fan_out,)
        return {k: s for k, s in shapes.items() if k.removesuffix(".bias") not in self.unbiased}

    def init(self, rng: Generator, scheme: str = "uniform", dtype: str = "float64") -> Parameters:
        """Draw parameters: "uniform" U(−0.5, 0.5), or PyTorch's "default"."""
        return draw(self.shapes, rng, scheme, dtype=dtype)

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Return the logits (…, N, classes) of images (…, N, C, H, W)."""
        squash = activation(self.activation)
        x = flatten(x)
        last = len(self.widths)
        for layer in range(last + 1):
            x = linear(x, params[f"{2 * layer}.weight"], params.get(f"{2 * layer}.bias"))
            x = x if layer == last else squash(x)
        return x
