"""The objective of the attack: how far a dummy's gradient is from the gradient that was shared.

Deep Leakage from Gradients (Zhu, Liu, Han, NeurIPS 2019), section 3: take dummy images and dummy
labels, compute the gradient they would have made, and move them until it matches. The distance is
a function of the dummies that contains a gradient, so its own gradient is of second order.

Everything here maps over leading axes: dummies (R, n), with or without leading axes on weights and
shared gradients, are R attacks at once. One attack has none: (n,).

Lesson: lessons/08_deep_leakage.py
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tinyleak.backend import Array
from tinyleak.gradient import vjp
from tinyleak.nn.losses import softmax
from tinyleak.nn.model import Model, parameter_gradients
from tinyleak.ops import broadcast_to, inner, reshape
from tinyleak.tensor import Tensor, as_tensor


@dataclass(frozen=True, eq=False, repr=False)
class Matching:
    """The distance between gradients as a function of flat dummies z: (…, n).

    A row of z is the dummy images, N·C·H·W numbers, followed by the dummy label logits, N·K
    numbers, unless the labels are known.

    Attributes:
        model: the network.
        params: its weights, by name: of the model's shapes, or with one leading axis R.
        shared: the gradient to match, by name, likewise; multiplied by `scale`.
        batch: N, how many images the client's batch had.
        scale: () or (R,): what the loss is multiplied by. 1 / ‖gradient‖ makes the distance
            relative, whatever the scale of the network and of the loss.
        targets: (N, K) or (R, N, K) known labels, as probabilities; None to optimise them.
        precision: what each entry's squared difference is multiplied by, by name; None is 1.
    """

    model: Model
    params: Mapping[str, Array]
    shared: Mapping[str, Array]
    batch: int
    scale: Array
    targets: Array | None = None
    precision: Mapping[str, Array] | None = None

    @property
    def image_size(self) -> int:
        """How many numbers of z are pixels."""
        return self.batch * math.prod(self.model.image_shape)

    def images(self, z: Tensor) -> Tensor:
        """Return the dummy images of z: (…, N, C, H, W)."""
        pixels = z[..., : self.image_size]
        return reshape(pixels, (*z.shape[:-1], self.batch, *self.model.image_shape))

    def labels(self, z: Tensor) -> Tensor:
        """Return the soft labels of z: (…, N, K), the softmax of the dummy logits."""
        shape = (*z.shape[:-1], self.batch, self.model.classes)
        if self.targets is not None:
            return broadcast_to(as_tensor(self.targets), shape=shape)
        return softmax(reshape(z[..., self.image_size :], shape))

    def gradients(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return what a client with these images and labels would share, multiplied by `scale`."""
        scale = as_tensor(self.scale)
        return parameter_gradients(self.model, self.copies(images), images, labels, scale)

    def copies(self, images: Tensor) -> dict[str, Tensor]:
        """Return a copy of the weights for each attack, which keeps their gradients apart."""
        leading = images.shape[:-4]
        return {
            name: broadcast_to(as_tensor(self.params[name]), shape=(*leading, *shape))
            for name, shape in self.model.shapes.items()
        }

    def compare(
        self, found: Mapping[str, Tensor], images: Tensor
    ) -> tuple[Tensor, dict[Tensor, Tensor]]:
        """Return the squared distance (…), and the cotangents of half of it: the differences.

        `found` is what the dummies share, by name, and `images` what they look like.
        """
        distance, cotangents = None, {}
        for name, shape in self.model.shapes.items():
            difference = found[name] - as_tensor(self.shared[name])
            cotangent = difference
            if self.precision is not None:
                cotangent = difference * as_tensor(self.precision[name])
            cotangents[difference] = cotangent
            part = inner(cotangent, difference, axes=len(shape))
            distance = part if distance is None else distance + part
        assert distance is not None, "a model has parameters"
        return distance, cotangents

    def distances(self, z: Tensor) -> Tensor:
        """Return the squared distance between gradients, for each row of z: (…)."""
        images = self.images(z)
        return self.compare(self.gradients(images, self.labels(z)), images)[0]

    def value_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distances (…) and the gradient of each with respect to its row, (…, n)."""
        images = self.images(z)
        distance, cotangents = self.compare(self.gradients(images, self.labels(z)), images)
        (half,) = vjp(cotangents, [z])
        return distance, half * 2.0
