"""What the package needs of a network, and the gradient that a client shares of one.

A model is any object with `image_shape`, `classes` and `shapes` that returns logits when called.
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
    """Whatever has named parameters, and says the shape of each."""

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
    """Return the gradient of the mean cross-entropy with respect to each parameter, by name.

    Args:
        model: the network.
        params: its parameters, by name; with leading axes (R, …), R networks.
        images: (…, N, C, H, W).
        targets: (…, N, K), rows of probabilities.
        scale: (…), what the loss is multiplied by; nothing, by default.
    """
    losses = cross_entropy(model(params, images), targets)
    losses = losses if scale is None else losses * scale
    # The sum over leading axes has, for each separate copy of the weights, that copy's gradient.
    gradients = grad(sum(losses), list(params.values()))
    return dict(zip(params, gradients, strict=True))


def require_fit(model: HasShapes, arrays: Mapping[str, Array], what: str) -> None:
    """Check that named arrays are a model's: the names, the shapes, and every number finite.

    Raises:
        ValueError: they are not; the message says what was given and what was expected.
    """
    expected, given = set(model.shapes), set(arrays)
    missing, extra = sorted(expected - given), sorted(given - expected)
    if missing or extra:
        names = f"missing {missing or 'none'}, not known {extra or 'none'}"
        raise ValueError(f"the {what} do not fit {model}: {names}; give the names of model.shapes")
    for name, shape in model.shapes.items():
        if arrays[name].shape != shape:
            sizes = f"{name} has shape {arrays[name].shape}, the model's is {shape}"
            raise ValueError(f"the {what} do not fit {model}: {sizes}; check the model's settings")
        if not array_module(arrays[name]).isfinite(arrays[name]).all():
            where = f"NaN or infinity in {name}"
            raise ValueError(f"the {what} hold {where}; the attack needs finite numbers")
