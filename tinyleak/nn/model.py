"""What the package needs of a network, and the gradient that a client shares of one.

A model is any object with `image_shape`, `classes` and `shapes` that can be called with parameters
and images: no base class, no registration, no hidden state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from tinyleak.backend import Array, array_module
from tinyleak.gradient import grad
from tinyleak.nn.losses import cross_entropy
from tinyleak.ops import sum
from tinyleak.tensor import Tensor


class HasShapes(Protocol):
    """Whatever has named parameters."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter, by name."""


class Model(HasShapes, Protocol):
    """What the attack needs of a network."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""

    @property
    def classes(self) -> int:
        """How many classes are told apart."""

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Return the logits (…, N, K) of images (…, N, C, H, W)."""


def parameter_gradients(
    model: Model,
    params: Mapping[str, Tensor],
    images: Tensor,
    targets: Tensor,
    scale: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return the gradient of the mean cross-entropy for each parameter: what a client shares.

    Args:
        model: the network.
        params: its parameters, by name; with leading axes (R, …), R networks.
        images: (…, N, C, H, W).
        targets: (…, N, K), rows of probabilities.
        scale: (…), what the loss is multiplied by; nothing, by default.

    Returns:
        For each name the gradient, of the parameter's shape.
    """
    losses = cross_entropy(model(params, images), targets)
    losses = losses if scale is None else losses * scale
    # The sum over leading axes has, for each separate copy of the weights, that copy's gradient.
    gradients = grad(sum(losses), list(params.values()))
    return dict(zip(params, gradients, strict=True))


def require_fit(model: HasShapes, arrays: Mapping[str, Array], what: str) -> None:
    """Check that named arrays are a model's: the names, the shapes, and every number finite.

    Raises:
        ValueError: they are not; the message lists what was given beside what was expected.
    """
    if set(arrays) != set(model.shapes):
        missing = sorted(set(model.shapes) - set(arrays))
        extra = sorted(set(arrays) - set(model.shapes))
        raise ValueError(
            f"the {what} do not fit {model}: missing {missing or 'none'}, not known "
            f"{extra or 'none'}; give exactly the names of model.shapes"
        )
    for name, shape in model.shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(
                f"the {what} do not fit {model}: {name} has shape {arrays[name].shape}, "
                f"the model's is {shape}; check the model's settings"
            )
        if not bool(array_module(arrays[name]).isfinite(arrays[name]).all()):
            raise ValueError(
                f"the {what} hold NaN or infinity in {name}; the attack needs finite numbers, "
                "so share a gradient from a step that did not overflow"
            )
