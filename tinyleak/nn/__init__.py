"""Networks: layers and losses as functions, initial weights, models, training."""

from tinyleak.nn.activations import (
    ACTIVATIONS,
    elu,
    gelu,
    gelu_tanh,
    glu,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    mish,
    relu6,
    selu,
    silu,
)
from tinyleak.nn.labels import one_hot
from tinyleak.nn.layers import activation, conv2d, flatten, linear
from tinyleak.nn.losses import cross_entropy, log_softmax, softmax
from tinyleak.nn.models import MLP, LeNet, ResNet
from tinyleak.nn.normalisation import batch_norm, layer_norm
from tinyleak.nn.pooling import avg_pool2d
from tinyleak.nn.stochastic import Trained, descend
from tinyleak.nn.training import accuracy, train

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "LeNet",
    "ResNet",
    "Trained",
    "accuracy",
    "activation",
    "avg_pool2d",
    "batch_norm",
    "conv2d",
    "cross_entropy",
    "descend",
    "elu",
    "flatten",
    "gelu",
    "gelu_tanh",
    "glu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "mish",
    "one_hot",
    "relu6",
    "selu",
    "silu",
    "softmax",
    "train",
]
