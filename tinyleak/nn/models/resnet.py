"""A residual network for small images, as the Deep Leakage from Gradients paper changes it.

He, Zhang, Ren and Sun ("Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2)
give the CIFAR form: 6n + 2 layers, ResNet-20 for n = 3, and shortcuts without parameters. Zhu, Liu
and Han (NeurIPS 2019, section 4.1) put a sigmoid in place of ReLU, since a second derivative is
needed, and remove the strides, so that no pixel is left out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from numpy.random import Generator

from tinyleak.backend import Array
from tinyleak.nn.init import Parameters, draw
from tinyleak.nn.layers import activation, conv2d, linear
from tinyleak.nn.normalisation import batch_norm
from tinyleak.ops import mean, pad
from tinyleak.tensor import Tensor

STAGES = 3
STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class ResNet:
    """A 3×3 convolution, three stages of residual blocks, the mean over all pixels, and a layer.

    A block is convolution, batch norm, activation, convolution, batch norm, to which its input is
    added before the second activation; all images keep their height and width. A stage has twice
    the channels of the one before, and where they double, the shortcut has channels of zeros on
    both sides. Parameters are named as in the state dict of PyTorch ResNets for CIFAR:
    `conv1.weight`, `bn1.weight`, `bn1.bias`, `layer1.0.conv1.weight` … `linear.bias`.

    Batch norm is in evaluation form: it uses running statistics, and so keeps the images of a batch
    apart. They are not parameters, so they have no gradient. A fresh network's are 0 and 1.

    Attributes:
        image_shape: (C, H, W) of the images.
        classes: how many classes are told apart.
        activation: "sigmoid" (the paper's), or another of `tinyleak.nn.ACTIVATIONS`.
        width: channels of the first stage, even.
        blocks: n, of each stage: 3 for ResNet-20, 9 for ResNet-56.
        statistics: running means and variances, (channels,) each, by their names in the state dict
            (`bn1.running_mean`, `bn1.running_var`, …); 0 and 1 where there are none.
    """

    image_shape: tuple[int, int, int] = (3, 32, 32)
    classes: int = 10
    activation: str = "sigmoid"
    width: int = 16
    blocks: int = 3
    statistics: Mapping[str, Array] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        activation(self.activation)
        sizes = (*self.image_shape, self.classes, self.width, self.blocks)
        if len(self.image_shape) != 3 or min(sizes) < 1 or self.width % 2:
            raise ValueError(
                f"{self} is not possible; give it images (C, H, W), counts of at least 1 and an "
                "even width"
            )
        norms = [norm for _, norm, _, _ in self._convolutions()]
        known = {f"{norm}.{part}" for norm in norms for part in STATISTICS}
        strange = sorted(set(self.statistics) - known)
        if strange:
            raise ValueError(
                f"ResNet was given statistics named {', '.join(strange)}, which it has no batch "
                "norm for; give the running_mean and running_var of its state dict alone"
            )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter, by name."""
        shapes: dict[str, tuple[int, ...]] = {}
        for conv, norm, inside, outside in self._convolutions():
            shapes[f"{conv}.weight"] = (outside, inside, 3, 3)
            shapes[f"{norm}.weight"] = shapes[f"{norm}.bias"] = (outside,)
        shapes["linear.weight"] = (self.classes, outside)
        shapes["linear.bias"] = (self.classes,)
        return shapes

    def init(self, rng: Generator, scheme: str = "uniform", dtype: str = "float64") -> Parameters:
        """Draw parameters: "uniform" U(−0.5, 0.5) as the paper's code, or PyTorch's "default"."""
        return draw(self.shapes, rng, scheme, dtype=dtype)

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Return the logits (…, N, classes) of images (…, N, C, H, W)."""
        squash = activation(self.activation)
        x = squash(self._normed(params, x, "conv1", "bn1"))
        for block in self._blocks():
            inside = squash(self._normed(params, x, f"{block}.conv1", f"{block}.bn1"))
            out = self._normed(params, inside, f"{block}.conv2", f"{block}.bn2")
            x = squash(out + _with_channels(x, out.shape[-3]))
        return linear(mean(x, (-2, -1)), params["linear.weight"], params["linear.bias"])

    def _normed(self, params: Mapping[str, Tensor], x: Tensor, conv: str, norm: str) -> Tensor:
        """Convolve without changing height and width, then apply batch norm."""
        return batch_norm(
            conv2d(x, params[f"{conv}.weight"], padding=(1, 1)),
            params[f"{norm}.weight"],
            params[f"{norm}.bias"],
            self.statistics.get(f"{norm}.running_mean"),
            self.statistics.get(f"{norm}.running_var"),
        )

    def _blocks(self) -> list[str]:
        return [f"layer{stage + 1}.{n}" for stage in range(STAGES) for n in range(self.blocks)]

    def _convolutions(self) -> Iterator[tuple[str, str, int, int]]:
        """Yield the names of each convolution and its batch norm, and its channels in and out."""
        yield "conv1", "bn1", self.image_shape[0], self.width
        inside = self.width
        for position, block in enumerate(self._blocks()):
            outside = self.width * 2 ** (position // self.blocks)
            yield f"{block}.conv1", f"{block}.bn1", inside, outside
            yield f"{block}.conv2", f"{block}.bn2", outside, outside
            inside = outside


def _with_channels(x: Tensor, channels: int) -> Tensor:
    """Put as many channels of zeros before and behind those of (…, C, H, W) as are missing."""
    missing = channels - x.shape[-3]
    return x if missing == 0 else pad(x, [(missing // 2, missing // 2), (0, 0), (0, 0)])
