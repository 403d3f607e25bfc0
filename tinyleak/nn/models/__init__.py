"""Models: small frozen dataclasses with `init(rng)` and `__call__(params, x)`, no hidden state."""

from tinyleak.nn.models.lenet import LeNet
from tinyleak.nn.models.mlp import MLP

__all__ = ["MLP", "LeNet"]
