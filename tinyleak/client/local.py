"""Several local steps: a client that trains before it shares, and shares its weights.

In federated averaging (McMahan et al., AISTATS 2017) a client takes K steps of SGD from the weights
θ₀ that it was given, and what is seen of it is θ_K. With plain steps θₖ₊₁ = θₖ − η g(θₖ),

    (θ₀ − θ_K) / η = Σₖ g(θₖ),

which for K = 1 is the gradient itself. For more, an attacker who knows η and K goes the same steps
with its dummies: each is differentiable, and so is their sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tinyleak.backend import Array
from tinyleak.interop import whole
from tinyleak.nn.model import Model, parameter_gradients
from tinyleak.tensor import Tensor

MOST_STEPS = 5
"""How many may be unrolled: each makes the attack's graph as long again, and slower to trace."""


@dataclass(frozen=True)
class LocalSteps:
    """Steps of plain SGD, all with the same whole batch: no momentum, decay, or shuffling.

    Attributes:
        count: K, 1 or more.
        learning_rate: η, above 0.

    Raises:
        ValueError: a number out of range.
        TypeError: a count that is not a whole number.
    """

    count: int
    learning_rate: float

    def __post_init__(self) -> None:
        sentence = (
            f"{{}} local steps with learning rate {self.learning_rate!r} were given; give 1 step "
            "or more, and a learning rate above 0"
        )
        object.__setattr__(self, "count", whole(self.count, 1, sentence))
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(sentence.format(self.count))

    def update(
        self,
        params: Mapping[str, Tensor],
        gradient: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Take the steps, and return Σₖ g(θₖ) by name.

        Args:
            params: θ₀, by name.
            gradient: g, from weights to their gradient, both by name.
        """
        found = dict(gradient(params))
        total = found
        for _ in range(self.count - 1):
            params = {name: params[name] - found[name] * self.learning_rate for name in params}
            found = dict(gradient(params))
            total = {name: total[name] + found[name] for name in total}
        return total


def shared_gradients(
    model: Model,
    params: Mapping[str, Array],
    images: Array,
    targets: Array,
    local: LocalSteps | None,
) -> dict[str, Array]:
    """Return what a client with these images shares, before any defence, by parameter name.

    Args:
        model: its network.
        params: the weights, by name, of the dtype that it computes in; so the next two.
        images: (N, C, H, W).
        targets: (N, K), labels as rows of probabilities.
        local: its local steps; None for the gradient of the mean cross-entropy.
    """

    def gradient(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return parameter_gradients(model, weights, Tensor(images), Tensor(targets))

    start = {name: Tensor(weight) for name, weight in params.items()}
    gradients = gradient(start) if local is None else local.update(start, gradient)
    return {name: gradient.data for name, gradient in gradients.items()}
