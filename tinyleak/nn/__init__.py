"""Networks: layers and losses as functions, initial weights, models."""

from tinyleak.nn.layers import (
    ACTIVATIONS,
    avg_pool2d,
    batch_norm,
    conv2d,
    flatten,
    linear,
    linear_on_images,
)
from tinyleak.nn.losses import cross_entropy, log_softmax, one_hot, softmax
from tinyleak.nn.models import MLP, LeNet, ResNet

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "LeNet",
    "ResNet",
    "avg_pool2d",
    "batch_norm",
    "conv2d",
    "cross_entropy",
    "flatten",
    "linear",
    "linear_on_images",
    "log_softmax",
    "one_hot",
    "softmax",
]
