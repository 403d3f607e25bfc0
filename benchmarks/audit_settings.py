"""The settings of `audit.py`, each drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyleak.nn import MLP, LeNet
from tinyleak.report.canvas import number


@dataclass(frozen=True)
class Setting:
    """One point of the figure.

    Attributes:
        seed: from which all the rest was drawn.
        model: the network.
        init: of its weights.
        trained: whether it was trained.
        batch: N.
        noise: its standard deviation on all numbers together, as a share of the gradient's norm; 0
            is none but float32's rounding.
    """

    seed: int
    model: LeNet | MLP
    init: str
    trained: bool
    batch: int
    noise: float

    @classmethod
    def drawn(cls, seed: int) -> Setting:
        """Draw a setting."""
        rng = np.random.default_rng([seed, 3])
        batch = int(rng.choice([1, 1, 2, 4]))
        side = {1: int(rng.choice([16, 20])), 2: 12, 4: 10}[batch]
        activation = str(rng.choice(["sigmoid", "sigmoid", "tanh", "softplus", "relu"]))
        if rng.random() < 0.5:
            hidden = int(rng.choice([4, 8, 12, 16]))
            model = LeNet((1, side, side), activation=activation, hidden=hidden)
        else:
            widths = [(24,), (48,), (48, 24), (64, 32)][rng.integers(4)]
            model = MLP((1, side, side), activation=activation, widths=widths)
        init = str(rng.choice(["uniform", "default"]))
        trained = bool(rng.random() < 0.4)
        noise = 0.0 if rng.random() < 0.2 else float(10.0 ** rng.uniform(-5, 0))
        return cls(seed, model, init, trained, batch, noise)

    def __str__(self) -> str:
        name = "LeNet" if isinstance(self.model, LeNet) else "MLP"
        size = self.model.hidden if isinstance(self.model, LeNet) else self.model.widths
        weights = self.init + (" trained" if self.trained else "")
        return (
            f"{self.seed}: {name} {size} {self.model.activation}, {weights}, N={self.batch} of "
            f"{self.model.image_shape[1]}², noise {number(self.noise)}"
        )
