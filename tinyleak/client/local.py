"""Several local steps: a client that trains before it shares, and shares its weights.

In federated averaging (McMahan et al., AISTATS 2017, algorithm 1) a client takes K steps of SGD
from the weights θ₀ that it was given, each with a mini-batch, and what is seen of it is θ_K. As
PyTorch's SGD has them, with momentum m,

    vₖ = m vₖ₋₁ + gₖ(θₖ),    θₖ₊₁ = θₖ − η vₖ,    so that    (θ₀ − θ_K) / η = Σₖ vₖ,

which for K = 1 is the gradient itself. For more, an attacker who knows how the client trained goes
the same steps with its dummies: each is differentiable, and so is their sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from tinyleak.backend import Array
from tinyleak.interop import whole
from tinyleak.nn.model import Model, parameter_gradients
from tinyleak.tensor import Tensor

MOST_STEPS = 100
"""How many may be unrolled. An attack on one digit by the paper's LeNet takes 7 MB more for each,
and an evaluation a millisecond."""

STEPS = ("local_steps", "epochs", "local_batch", "momentum")
"""What `LocalSteps.of` is told, and notes and options may say, beside the learning rate."""


@dataclass(frozen=True)
class LocalSteps:
    """Steps of SGD, with the whole batch or with mini-batches in an order that does not change.

    Attributes:
        count: K, 1 or more.
        learning_rate: η, above 0.
        batch: images of a mini-batch; None for all. The first step has the first of them, and so
            on; after the last, with what is left over, the first have their turn again: an epoch
            as of PyTorch's `DataLoader(shuffle=False)`. Where it shuffles, the first epoch has some
            order, which may be called this one; for more than one epoch it is an assumption.
        momentum: m, in [0, 1).

    Raises:
        ValueError: a number out of range.
        TypeError: a count or a batch that is not a whole number.
    """

    count: int
    learning_rate: float
    batch: int | None = None
    momentum: float = 0.0

    def __post_init__(self) -> None:
        sentence = (
            f"{{}} local steps with learning rate {self.learning_rate!r} were given; give 1 step "
            "or more, and a learning rate above 0"
        )
        object.__setattr__(self, "count", whole(self.count, 1, sentence))
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(sentence.format(self.count))
        if self.batch is not None:
            sentence = "mini-batches of {} were given; give them 1 image or more"
            object.__setattr__(self, "batch", whole(self.batch, 1, sentence))
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum {self.momentum!r} was given; give one in [0, 1)")

    @classmethod
    def of(
        cls,
        images: int,
        learning_rate: float,
        *,
        local_steps: int | None = None,
        epochs: int | None = None,
        local_batch: int | None = None,
        momentum: float | None = None,
    ) -> LocalSteps:
        """Return the steps of a client with so many images, from what is said of them.

        Raises:
            ValueError: both a number of steps and one of epochs; more steps than can be unrolled,
                or too few to see all images; or as for the class.
        """
        if epochs is not None and local_steps is not None:
            raise ValueError(
                f"{local_steps} local steps and {epochs} epochs were given; give one of the two"
            )
        in_epoch = -(-images // (local_batch or images))
        count = (local_steps or 1) if epochs is None else epochs * in_epoch
        if count > MOST_STEPS:
            raise ValueError(
                f"{count} local steps were given, and {MOST_STEPS} at most can be unrolled; give "
                "fewer steps or epochs, or larger mini-batches"
            )
        steps = cls(count, learning_rate, local_batch, momentum or 0.0)
        steps.parts(images)
        return steps if in_epoch > 1 else replace(steps, batch=None)

    @property
    def gradients(self) -> float:
        """How many times one gradient their sum is, if it hardly turns: Σₖ (1 + m + … + mᵏ)."""
        return sum((self.count - k) * self.momentum**k for k in range(self.count))

    @property
    def said(self) -> str:
        """How many they are, and how each is taken, as a fact about a client says it."""
        kind = "SGD" if self.momentum else "plain SGD"
        data = (
            "the same whole batch"
            if self.batch is None
            else f"a mini-batch of {self.batch}, the next in an order that stays"
        )
        without = (
            f"with momentum {self.momentum:g} and no" if self.momentum else "without momentum or"
        )
        return f"{self.count} of {kind}, each with {data}, {without} decay"

    def of_loss(self, factor: float) -> LocalSteps:
        """Return the steps by the mean loss that these are by `factor` times as much.

        Raises:
            ValueError: a factor other than 1, and mini-batches, not all of which need be as large.
        """
        if factor != 1.0 and self.batch is not None:
            raise ValueError(
                "a sum over each mini-batch was said; say a mean (--reduction mean), and the "
                "learning rate times the images of a mini-batch"
            )
        return replace(self, learning_rate=self.learning_rate * factor)

    def parts(self, images: int) -> list[slice]:
        """Return which of so many images each step is taken with.

        Raises:
            ValueError: some would never be.
        """
        size = min(self.batch or images, images)
        starts = range(0, images, size)
        if self.count < len(starts):
            raise ValueError(
                f"{self.count} local steps with {size} images each do not see all of a batch of "
                f"{images}; give {len(starts)} steps or more, or larger mini-batches"
            )
        epoch = [slice(start, min(start + size, images)) for start in starts]
        return [epoch[step % len(epoch)] for step in range(self.count)]

    def update(
        self,
        params: Mapping[str, Tensor],
        gradient: Callable[[Mapping[str, Tensor], Tensor, Tensor], Mapping[str, Tensor]],
        images: Tensor,
        labels: Tensor,
    ) -> dict[str, Tensor]:
        """Take the steps, and return Σₖ vₖ by name.

        Args:
            params: θ₀, by name.
            gradient: g, from weights by name, images and labels to a gradient by name.
            images: (…, N, C, H, W).
            labels: (…, N, K), rows of probabilities.
        """
        many = images.shape[-4]
        total: dict[str, Tensor] = {}
        velocity: dict[str, Tensor] = {}
        for part in self.parts(many):
            if velocity:
                params = {k: params[k] - velocity[k] * self.learning_rate for k in params}
            seen, told = images, labels
            if part != slice(0, many):
                seen, told = images[..., part, :, :, :], labels[..., part, :]
            found = dict(gradient(params, seen, told))
            if velocity and self.momentum:
                found = {k: velocity[k] * self.momentum + found[k] for k in found}
            velocity = found
            total = {k: total[k] + velocity[k] for k in found} if total else velocity
        return total


def shared_gradients(
    model: Model,
    params: Mapping[str, Array],
    images: Array,
    targets: Array,
    local: LocalSteps | None,
) -> dict[str, Array]:
    """Return what a client shares, before any defence, by parameter name.

    The weights, by name, the images (N, C, H, W) and their labels as rows of probabilities (N, K)
    are of the dtype that it computes in. Without local steps it is the mean loss's gradient.
    """
    start = {name: Tensor(weight) for name, weight in params.items()}
    steps = local or LocalSteps(1, 1.0)
    shared = steps.update(
        start, partial(parameter_gradients, model), Tensor(images), Tensor(targets)
    )
    return {name: gradient.data for name, gradient in shared.items()}
