"""The Jacobian of the shared gradient with respect to the images, by reverse mode alone.

A client shares g = ∂L/∂θ. Its Jacobian J = ∂g/∂x = ∂²L/∂θ∂x, (P, n) for P weights and n pixels,
says which changes of the images the gradient shows, and how strongly. Since mixed derivatives
commute,

    J v = ∂/∂θ ⟨∂L/∂x, v⟩   and   Jᵀu = ∂/∂x ⟨∂L/∂θ, u⟩:

each is a gradient's `vjp`. R directions go at once, each with its own copy of weights and images
(`transforms.copies`).

Lesson: lessons/11_batches.py
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tinyleak.backend import Array
from tinyleak.gradient import grad, vjp
from tinyleak.nn.criteria import loss_of
from tinyleak.nn.model import Model
from tinyleak.ops import concatenate, reshape, sum
from tinyleak.program import trace
from tinyleak.tensor import Tensor
from tinyleak.transforms import copies

IMAGES_AT_ONCE = 16
"""About how many images are carried through the network at once, counting every direction's."""

TIE = 1e-6  # how far pixels are moved apart: more than rounding, and far less than a grey level


def without_ties(images: Array) -> Array:
    """Return images whose pixels are moved by up to `TIE` at random, so that no two are equal.

    On an even ground all of a window are the largest at once, and max pooling passes the gradient
    back to one of them: taken there, a derivative would not see the others.
    """
    return images + TIE * np.random.default_rng(0).random(images.shape)


@dataclass(frozen=True, eq=False, repr=False)
class Jacobian:
    """The derivative of the shared gradient with respect to the images, at one batch."""

    model: Model  # the network
    params: Mapping[str, Array]  # its weights, by name
    images: Array  # (N, C, H, W), where the derivative is taken; n = N·C·H·W
    targets: Array  # (N, K), rows of probabilities: the labels, which do not move
    # What JᵀJ weighs each number of the gradient with, by name; None is 1.
    precision: Mapping[str, Array] | None = field(default=None, kw_only=True)

    @property
    def size(self) -> int:
        """n, how many numbers the images are."""
        return int(self.images.size)

    @property
    def rows(self) -> int:
        """R, into how many directions at once the work is best cut."""
        return max(1, IMAGES_AT_ONCE // len(self.images))

    def times(self, directions: Tensor) -> dict[str, Tensor]:
        """Return J v for each row v of (R, n): for each parameter (R, …), of its shape."""
        params, images, loss = self._copies(directions.shape[0])
        (by_images,) = grad(loss, [images])
        found = vjp({by_images: reshape(directions, images.shape)}, list(params.values()))
        return dict(zip(params, found, strict=True))

    def transposed_times(self, covectors: Mapping[str, Tensor]) -> Tensor:
        """Return Jᵀu for each of R: (R, n) from, for each parameter, (R, …) of its shape."""
        rows = next(iter(covectors.values())).shape[0]
        params, images, loss = self._copies(rows)
        gradients = grad(loss, list(params.values()))
        cotangents = [covectors[name] for name in params]
        (found,) = vjp(dict(zip(gradients, cotangents, strict=True)), [images])
        return reshape(found, (rows, self.size))

    def gram_times(self, directions: Tensor) -> Tensor:
        """Return JᵀJ v, weighed, for each row v of (R, n): (R, n)."""
        found = self.times(directions)
        if self.precision is not None:
            found = {name: part * Tensor(self.precision[name]) for name, part in found.items()}
        return self.transposed_times(found)

    def gram_product(self, rows: int) -> Callable[[Array], Array]:
        """Return what computes JᵀJ v for each row v of (rows, n), again and again: a program."""
        program = trace(self.gram_times, np.zeros((rows, self.size)), check=False)
        return lambda directions: program(directions)[0]

    def gram(self) -> Array:
        """Return JᵀJ, (n, n), without ever holding J."""
        return self._of_every_direction(self.gram_times)

    def dense(self) -> Array:
        """Return J itself, (P, n), the parameters in their order."""

        def columns(directions: Tensor) -> Tensor:
            parts = self.times(directions).values()
            return concatenate([reshape(part, (self.rows, -1)) for part in parts], axis=1)

        return self._of_every_direction(columns).T

    def _copies(self, rows: int) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Return R copies of weights and images, and the sum of their losses.

        Every call makes new ones, so that the directions are constants, whatever they depend on.
        """
        params = {name: copies(self.params[name].astype(float), rows) for name in self.model.shapes}
        images = copies(self.images.astype(float), rows)
        targets = copies(self.targets.astype(float), rows)
        return params, images, sum(loss_of(self.model)(self.model(params, images), targets))

    def _of_every_direction(self, function: Callable[[Tensor], Tensor]) -> Array:
        """Apply a function of (R, n) to the n unit vectors, as one program: (n, …)."""
        directions = np.zeros((self.rows, self.size))
        program = trace(function, directions, check=False)
        results = []
        for start in range(0, self.size, self.rows):
            count = min(self.rows, self.size - start)
            directions[:] = 0.0
            directions[np.arange(count), start + np.arange(count)] = 1.0
            results.append(program(directions)[0][:count])
        return np.concatenate(results)
