"""Beyond the paper's objective: local steps, a direction alone, a preference for smooth images."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from tinyleak.attacks.matching import Matching
from tinyleak.client.local import LocalSteps
from tinyleak.nn.criteria import targets_of
from tinyleak.nn.model import parameter_gradients
from tinyleak.ops import broadcast_to, inner, reshape, sqrt, sum
from tinyleak.tensor import Tensor, as_tensor

FLAT = 1e-3
"""ε: differences between neighbouring pixels, in [0, 1], far below it count as none. It is a
quarter of a grey level of 256."""


@dataclass(frozen=True, eq=False, repr=False)
class ExtendedMatching(Matching):
    """The distance to a client that took local steps, scaled its gradient, or put noise on it."""

    # The local steps, if the client shared the sum of what they did.
    local: LocalSteps | None = None
    direction: bool = False  # match the shared gradient's direction, whatever its length
    # β; `2β` times the images' total variation is added to the distance that has not been made
    # relative.
    smoothness: float = 0.0

    def labels(self, z: Tensor) -> Tensor:
        """Return the targets of z: (…, N, K), all that the client's loss may have."""
        if self.targets is not None:
            return super().labels(z)
        dummies = reshape(z[..., self.image_size :], (*z.shape[:-1], self.batch, -1))
        return targets_of(getattr(self.model, "loss_name", "cross-entropy"), dummies)

    def gradients(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return what such a client would share, multiplied by `scale`."""
        if self.local is None:
            return super().gradients(images, labels)

        gradient, scale = partial(parameter_gradients, self.model), as_tensor(self.scale)
        found = self.local.update(self.copies(images), gradient, images, labels)
        return {
            name: _along(scale, shape) * found[name] for name, shape in self.model.shapes.items()
        }

    def compare(
        self, found: Mapping[str, Tensor], images: Tensor
    ) -> tuple[Tensor, dict[Tensor, Tensor]]:
        """Return what is minimised (…), and the cotangents of half of it."""
        if self.direction:
            found = self._stretched(found)
        distance, cotangents = super().compare(found, images)
        if self.smoothness:
            roughness = total_variation(images)
            # The distance is relative: the same factor goes before the variation.
            scale = as_tensor(self.scale)
            weight = scale * scale * as_tensor(self.smoothness, like=roughness)
            distance = distance + roughness * (2.0 * weight)
            cotangents[roughness] = broadcast_to(weight, shape=roughness.shape)
        return distance, cotangents

    def _stretched(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the gradient found, made as long as the shared one."""
        shared = {name: as_tensor(self.shared[name]) for name in found}
        wanted, length = self._squared_norm(shared), self._squared_norm(found)
        stretch = sqrt(wanted / length)
        return {
            name: found[name] * _along(stretch, shape) for name, shape in self.model.shapes.items()
        }

    def _squared_norm(self, gradients: Mapping[str, Tensor]) -> Tensor:
        parts = []
        for name, shape in self.model.shapes.items():
            gradient = weighted = gradients[name]
            if self.precision is not None:
                weighted = gradient * as_tensor(self.precision[name])
            parts.append(inner(weighted, gradient, axes=len(shape)))
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total


def total_variation(images: Tensor) -> Tensor:
    """Return how rough images are, for each attack: (…) from (…, N, C, H, W).

    It is `Σ √(down² + across² + ε²)` over the differences between each pixel and the next, after
    Rudin, Osher and Fatemi (1992); the small ε makes it differentiable where an image is flat.
    """
    here = images[..., :-1, :-1]
    down, across = images[..., 1:, :-1] - here, images[..., :-1, 1:] - here
    slopes = sqrt(down * down + across * across + FLAT * FLAT)
    return sum(slopes, axes=(-4, -3, -2, -1))


def _along(numbers: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return (…) as (…, 1, …, 1), to be multiplied with arrays (…, *shape)."""
    return reshape(numbers, (*numbers.shape, *(1,) * len(shape)))
