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
from tinyleak.nn.convolutions import convolution, transposed_convolution
from tinyleak.nn.criteria import one_hot
from tinyleak.nn.layers import activation, conv2d, flatten, linear
from tinyleak.nn.losses import cross_entropy, log_softmax, softmax
from tinyleak.nn.models import MLP, LeNet, ResNet
from tinyleak.nn.normalisation import batch_norm, batch_norm_of_batch, group_norm, layer_norm
from tinyleak.nn.pooling import (
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    avg_pool2d,
    max_pool2d,
)
from tinyleak.nn.products import attention, bilinear, embedding
from tinyleak.nn.recurrent import gru, lstm
from tinyleak.nn.stochastic import Trained, descend
from tinyleak.nn.training import accuracy, train

__all__ = [
    "ACTIVATIONS",
    "LeNet",
    "MLP",
    "ResNet",
    "Trained",
    "accuracy",
    "activation",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "attention",
    "avg_pool2d",
    "batch_norm",
    "batch_norm_of_batch",
    "bilinear",
    "conv2d",
    "convolution",
    "cross_entropy",
    "descend",
    "elu",
    "embedding",
    "flatten",
    "gelu",
    "gelu_tanh",
    "glu",
    "group_norm",
    "gru",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "lstm",
    "max_pool2d",
    "mish",
    "one_hot",
    "relu6",
    "selu",
    "silu",
    "softmax",
    "train",
    "transposed_convolution",
]
