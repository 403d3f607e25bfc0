"""What the package needs of a network, and the gradient that a client shares of one.

A model is any object with `image_shape`, `classes` and `shapes` that returns logits when called.
"""

from collections.abc import Mapping
from typing import Protocol

from tinyleak.gradient import grad
from tinyleak.nn.losses import cross_entropy
from tinyleak.ops import sum
from tinyleak.tensor import Tensor


class HasShapes(Protocol):
    """Anything with named parameters of known shapes."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]: ...


class Model(HasShapes, Protocol):
    """A network for images (C, H, W) that tells K classes apart: (…, N, C, H, W) → (…, N, K)."""

    @property
    def image_shape(self) -> tuple[int, int, int]: ...
    @property
    def classes(self) -> int: ...
    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor: ...


def parameter_gradients(
    model: Model,
    params: Mapping[str, Tensor],
    images: Tensor,
    targets: Tensor,
    scale: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return the gradient of the mean cross-entropy, or of the model's `loss`, by parameter name.

    Args:
        model: the network.
        params: its parameters, by name; with leading axes (R, …), R networks.
        images: (…, N, C, H, W).
        targets: (…, N, K), rows of probabilities.
        scale: (…), what the loss is multiplied by; nothing, by default.
    """
    losses = getattr(model, "loss", cross_entropy)(model(params, images), targets)
    losses = losses if scale is None else losses * scale
    # The sum over leading axes has, for each separate copy of the weights, that copy's gradient.
    gradients = grad(sum(losses), list(params.values()))
    return dict(zip(params, gradients, strict=True))
