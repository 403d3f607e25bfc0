"""Models: small frozen dataclasses with `init(rng)` and `__call__(params, x)`, no hidden state."""

from typing import TypeAlias

from tinyleak.nn.models.lenet import LeNet
from tinyleak.nn.models.mlp import MLP
from tinyleak.nn.models.names import match_names
from tinyleak.nn.models.resnet import ResNet
from tinyleak.nn.models.shapes import model_from_shapes

Network: TypeAlias = LeNet | MLP | ResNet
"""The networks for images."""

__all__ = ["MLP", "LeNet", "Network", "ResNet", "match_names", "model_from_shapes"]
