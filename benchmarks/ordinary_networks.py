"""Fourteen networks of federated-learning tutorials and papers, in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

Activation = Callable[[], nn.Module]


def mnist_cnn(act: Activation) -> nn.Module:
    """PyTorch's MNIST example."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3), act(), nn.Conv2d(32, 64, 3), act(), nn.MaxPool2d(2)),
        *(nn.Dropout(0.25), nn.Flatten(), nn.Linear(9216, 128), act(), nn.Dropout(0.5)),
        nn.Linear(128, 10),
    )


def lenet5(act: Activation) -> nn.Module:
    """LeCun et al. 1998."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), act(), nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 16, 5), act(), nn.AvgPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), act(), nn.Linear(120, 84), act(), nn.Linear(84, 10)),
    )


def fedavg_cnn(act: Activation) -> nn.Module:
    """McMahan et al. 2017."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 5, padding=2), act(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 5, padding=2), act(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(3136, 512), act(), nn.Linear(512, 10)),
    )


def cifar_cnn(act: Activation) -> nn.Module:
    """Two convolutions with batch norm, one of them without a bias."""
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), act(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), act()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4096, 10)),
    )


def mlp(act: Activation) -> nn.Module:
    """McMahan et al. 2017: two hidden layers of 200."""
    layers = (nn.Linear(784, 200), act(), nn.Linear(200, 200), act(), nn.Linear(200, 10))
    return nn.Sequential(nn.Flatten(), *layers)


def vgg(act: Activation) -> nn.Module:
    """Simonyan and Zisserman's, small."""
    layers: list[nn.Module] = []
    for inside, outside in ((1, 16), (16, 32), (32, 32)):
        for channels in (inside, outside):
            layers += [nn.Conv2d(channels, outside, 3, padding=1), act()]
        layers += [nn.MaxPool2d(2)] if outside > inside else []
    return nn.Sequential(
        *(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(288, 128), act()),
        *(nn.Dropout(), nn.Linear(128, 10)),
    )


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int, act: Activation) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outside), nn.BatchNorm2d(outside)
        self.act, self.shortcut = act(), nn.Sequential()
        if stride > 1:
            narrow = nn.Conv2d(inside, outside, 1, stride, bias=False)
            self.shortcut = nn.Sequential(narrow, nn.BatchNorm2d(outside))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        out += self.shortcut(x)
        return self.act(out)


def resnet18(act: Activation) -> nn.Module:
    """He et al. 2016, with 16 channels at first."""
    blocks: list[nn.Module] = []
    inside = 16
    for outside in (16, 32, 64, 128):
        stride = 1 if inside == outside else 2
        blocks += [Block(inside, outside, stride, act), Block(outside, outside, 1, act)]
        inside = outside
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16), act()),
        *(nn.MaxPool2d(3, 2, 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(128, 10),
    )


class ViT(nn.Module):
    """Dosovitskiy et al. 2021, tiny: 16 patches, two layers of four heads."""

    def __init__(self, act: Activation) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 32, 7, 7)
        self.first = nn.Parameter(0.02 * torch.randn(1, 1, 32))
        self.position = nn.Parameter(0.02 * torch.randn(1, 17, 32))
        layer = nn.TransformerEncoderLayer(
            32, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(len(x), -1, -1), patches], 1) + self.position
        return self.head(self.norm(self.encoder(tokens)[:, 0]))


def group_norm_net(act: Activation) -> nn.Module:
    """Group norm in place of batch norm (Hsieh et al. 2020), depthwise and dilated convolutions."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, 2, 1), nn.GroupNorm(4, 16), nn.SiLU()),
        *(nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.GroupNorm(4, 16), nn.LeakyReLU(0.1)),
        *(nn.Conv2d(16, 32, 3, 1, 2, dilation=2), nn.ELU()),
        *(nn.Conv2d(32, 32, 3, 2, 1), nn.Hardswish(), nn.Flatten(), nn.Linear(1568, 10)),
    )


def logistic(act: Activation) -> nn.Module:
    """Logistic regression on a table of 30 columns."""
    return nn.Sequential(nn.Linear(30, 2))


def binary(act: Activation) -> nn.Module:
    """One logit, trained with the binary cross-entropy."""
    return nn.Sequential(nn.Linear(30, 16), act(), nn.Linear(16, 1))


class TwoHeads(nn.Module):
    """Joined channels, and two answers: the digit, and whether it is odd."""

    def __init__(self, act: Activation) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 5, 2, 2), nn.Conv2d(8, 8, 3, 1, 1)
        self.conv3, self.act = nn.Conv2d(16, 16, 3, 2, 1), act()
        self.digit, self.odd = nn.Linear(784, 10), nn.Linear(784, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.act(self.conv1(x))
        x = torch.cat([x, self.act(self.conv2(x))], 1)
        x = self.act(self.conv3(x)).flatten(1)
        return self.digit(x), self.odd(x)


class Series(nn.Module):
    """Human activity from six sensors: a convolution over time, and a GRU."""

    def __init__(self, act: Activation) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv1d(6, 16, 5, padding=2), act()
        self.gru, self.head = nn.GRU(16, 24, batch_first=True), nn.Linear(24, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool1d(self.act(self.conv(x)), 2).transpose(1, 2)
        return self.head(self.gru(x)[0][:, -1])


class Kind(NamedTuple):
    """One network: how it is made, what it takes, and whether it is in training mode."""

    make: Callable[[Activation], nn.Module]
    shape: tuple[int, ...] = (1, 28, 28)
    training: bool = False
    act: Activation = nn.ReLU


NETWORKS = {
    "mnist_cnn": Kind(mnist_cnn),
    "lenet5": Kind(lenet5, act=nn.Tanh),
    "fedavg_cnn": Kind(fedavg_cnn),
    "cifar_cnn": Kind(cifar_cnn, (3, 32, 32)),
    "cifar_cnn_training": Kind(cifar_cnn, (3, 32, 32), training=True),
    "mlp": Kind(mlp),
    "vgg": Kind(vgg),
    "resnet18": Kind(resnet18, (3, 32, 32)),
    "vit": Kind(ViT),
    "group_norm": Kind(group_norm_net),
    "logistic": Kind(logistic, (30,)),
    "binary": Kind(binary, (30,)),
    "two_heads": Kind(TwoHeads),
    "series": Kind(Series, (6, 128)),
}


def build(name: str, seed: int = 0) -> nn.Module:
    """Return the network with PyTorch's initial weights, and norms as after some training."""
    torch.manual_seed(seed)
    kind = NETWORKS[name]
    network = kind.make(kind.act)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0.0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
            if isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
                module.weight.uniform_(0.8, 1.2)
                module.bias.normal_(0.0, 0.1)
    return network.train(kind.training)


def loss_of(name: str, network: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the loss that such a client has."""
    out = network(x)
    if name == "two_heads":
        digit, odd = out
        return functional.cross_entropy(digit, labels) + functional.cross_entropy(odd, labels % 2)
    if name == "binary":
        return functional.binary_cross_entropy_with_logits(out[:, 0], labels.to(out.dtype))
    return functional.cross_entropy(out, labels)


def export(network: nn.Module, shape: tuple[int, ...], path: str) -> None:
    """Save a network as a user does, with zeros for an example."""
    like = next(network.parameters(), torch.zeros(1))
    program = torch.export.export(network, (torch.zeros(1, *shape, dtype=like.dtype),))
    torch.export.save(program, path)
