"""The objective of the attack: how far a dummy's gradient is from the gradient that was shared.

Deep Leakage from Gradients (Zhu, Liu, Han, NeurIPS 2019), section 3: take dummy images and dummy
labels, compute the gradient they would have made, and move them until it matches. The distance is
a function of the dummies that contains a gradient, so its own gradient is of second order.

Everything here maps over leading axes: (R, …) dummies, with or without (R, …) weights and shared
gradients, are R attacks at once.

Lesson: lessons/08_deep_leakage.py
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tinyleak.backend import Array
from tinyleak.client.local import LocalSteps
from tinyleak.gradient import vjp
from tinyleak.nn.losses import softmax
from tinyleak.nn.model import Model, parameter_gradients
from tinyleak.ops import broadcast_to, inner, reshape, sqrt, sum
from tinyleak.tensor import Tensor, as_tensor

FLAT = 1e-3
"""A difference between neighbouring pixels, of a range of 1, that counts as hardly any."""


def squared_distance(
    found: Mapping[str, Tensor],
    shared: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    precision: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Return `Σ precision · (found − shared)²` over all parameters, for each attack: (…)."""
    differences = {name: found[name] - shared[name] for name in shapes}
    return squared_norm(differences, shapes, precision)


def squared_norm(
    gradients: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    precision: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Return `Σ precision · gradient²` over all parameters, for each attack: (…)."""
    total: Tensor | None = None
    for name, shape in shapes.items():
        gradient = gradients[name]
        weighted = gradient if precision is None else gradient * precision[name]
        part = inner(weighted, gradient, axes=len(shape))
        total = part if total is None else total + part
    assert total is not None, "a model has parameters"
    return total


def total_variation(images: Tensor) -> Tensor:
    """Return how rough images are, for each attack: (…) from (…, N, C, H, W).

    It is `Σ √(down² + across² + ε²)` over the differences between each pixel and the next, after
    Rudin, Osher and Fatemi (1992); the small ε makes it differentiable where an image is flat.
    """
    every = (slice(None),) * (images.ndim - 2)
    here = images[(*every, slice(0, -1), slice(0, -1))]
    below = images[(*every, slice(1, None), slice(0, -1))]
    right = images[(*every, slice(0, -1), slice(1, None))]
    down, across = below - here, right - here
    slopes = sqrt(down * down + across * across + FLAT * FLAT)
    return sum(slopes, axes=(-4, -3, -2, -1))


@dataclass(frozen=True)
class Matching:
    """The distance between gradients as a function of flat dummies z: (R, n).

    A row of z is the dummy images, N·C·H·W numbers, followed by the dummy label logits, N·K
    numbers, unless the labels are known.

    Attributes:
        model: the network.
        params: its weights, by name: of the model's shapes, or with one leading axis R.
        shared: the gradient to match, by name, likewise.
        batch: N, how many images the client's batch had.
        weight: (R,) or () what the squared distance is multiplied with.
        targets: (N, K) or (R, N, K) known labels, or None to optimise them.
        precision: what each entry's squared difference is multiplied with, by name; or None.
        direction: match the shared gradient's direction, whatever its length.
        smoothness: β; `2β` times the images' total variation is added to the squared distance.
        local: the steps that the client took, if what it shared is not one gradient but their sum.
    """

    model: Model
    params: Mapping[str, Array]
    shared: Mapping[str, Array]
    batch: int
    weight: Array
    targets: Array | None = None
    precision: Mapping[str, Array] | None = None
    direction: bool = False
    smoothness: float = 0.0
    local: LocalSteps | None = None

    @property
    def image_size(self) -> int:
        """How many numbers of z are pixels."""
        return self.batch * math.prod(self.model.image_shape)

    @property
    def size(self) -> int:
        """n, the length of a row of z."""
        return self.image_size + (self.batch * self.model.classes if self.targets is None else 0)

    def images(self, z: Tensor) -> Tensor:
        """Return the dummy images of z: (R, N, C, H, W)."""
        pixels = z[:, : self.image_size]
        return reshape(pixels, (z.shape[0], self.batch, *self.model.image_shape))

    def labels(self, z: Tensor) -> Tensor:
        """Return the soft labels of z: (R, N, K), the softmax of the dummy logits."""
        if self.targets is not None:
            return broadcast_to(
                Tensor(self.targets), shape=(z.shape[0], self.batch, self.model.classes)
            )
        logits = z[:, self.image_size :]
        return softmax(reshape(logits, (z.shape[0], self.batch, self.model.classes)))

    def distances(self, z: Tensor) -> Tensor:
        """Return the weighted squared distance between gradients, for each row of z: (R,)."""
        return self._unweighted(z)[0] * Tensor(self.weight)

    def _unweighted(self, z: Tensor) -> tuple[Tensor, dict[Tensor, Tensor]]:
        """Return the distances without the weight, and half of them by what they are made of."""
        shapes = self.model.shapes
        # A copy of the weights for each attack: the gradient by the copies keeps attacks apart.
        params = {
            name: broadcast_to(Tensor(self.params[name]), shape=(z.shape[0], *shape))
            for name, shape in shapes.items()
        }
        images, labels = self.images(z), self.labels(z)

        def gradient(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return parameter_gradients(self.model, weights, images, labels)

        found = gradient(params) if self.local is None else self.local.update(params, gradient)
        shared = _tensors(self.shared)
        precision = None if self.precision is None else _tensors(self.precision)
        if self.direction:
            lengths = [squared_norm(g, shapes, precision) for g in (shared, found)]
            scale = sqrt(lengths[0] / lengths[1])
            found = {
                name: found[name] * reshape(scale, (*scale.shape, *(1,) * len(shape)))
                for name, shape in shapes.items()
            }
        differences = {name: found[name] - shared[name] for name in shapes}
        distance = squared_norm(differences, shapes, precision)
        halves = {
            difference: difference if precision is None else difference * precision[name]
            for name, difference in differences.items()
        }
        if self.smoothness:
            roughness = total_variation(images)
            distance = distance + roughness * (2.0 * self.smoothness)
            share = as_tensor(self.smoothness, like=roughness)
            halves[roughness] = broadcast_to(share, shape=roughness.shape)
        return distance, halves

    def value_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distances (R,) and the gradient of each by its own row of z, (R, n)."""
        distance, halves = self._unweighted(z)
        weight = Tensor(self.weight)
        # Half the distance has the differences for derivatives, without a factor of 2; that and the
        # weight are then multiplied with once, at the end, and not with every parameter's.
        (gradient,) = vjp(halves, [z])
        return distance * weight, gradient * (2.0 * reshape(weight, (*weight.shape, 1)))


def _tensors(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    return {name: Tensor(array) for name, array in arrays.items()}
