"""Clients made by PyTorch in every situation whose sign `tinyleak.analytic.premises` looks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from tinyleak import data
from tinyleak.analytic.premises import Premises, read_premises
from tinyleak.nn import MLP, LeNet

GLYPHS = data.load("glyphs")
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": nn.functional.softplus,
    "relu": torch.relu,
    "leaky_relu": nn.functional.leaky_relu,
    "elu": nn.functional.elu,
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
}


class Net(nn.Module):
    """The paper's LeNet, or an MLP, as a user of PyTorch would write it."""

    def __init__(self, kind: str, activation: str, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        if kind == "lenet":
            sizes, strides = (1, 12, 12, 12), (2, 2, 1)
            self.body = nn.ModuleList(
                nn.Conv2d(a, b, 5, stride=s, padding=2, bias=bias)
                for a, b, s in zip(sizes, sizes[1:], strides, strict=False)
            )
            self.fc = nn.Linear(588, 10, bias=bias)
        else:
            widths = {"mlp": (784, 128, 64), "mlp1": (784, 100)}[kind]
            self.body = nn.ModuleList(
                nn.Linear(a, b, bias=bias) for a, b in zip(widths, widths[1:], strict=False)
            )
            self.fc = nn.Linear(widths[-1], 10, bias=bias)
        self.kind, self.activation, self.dropout = kind, ACTIVATIONS[activation], dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x if self.kind == "lenet" else x.flatten(1)
        for layer in self.body:
            x = self.activation(layer(x))
        x = x.flatten(1)
        return self.fc(nn.functional.dropout(x, self.dropout) if self.dropout else x)


def losses(name: str, smoothing: float = 0.0) -> Callable[[torch.Tensor, torch.Tensor], Any]:
    if name == "cross-entropy":
        return lambda z, y: nn.functional.cross_entropy(z, y)
    if name == "bce":
        return lambda z, y: nn.functional.binary_cross_entropy_with_logits(z, y)
    if name == "mse":
        return lambda z, y: nn.functional.mse_loss(z, y)
    if name == "softmax twice":
        return lambda z, y: nn.functional.cross_entropy(z.softmax(-1), y)
    if name == "mse of probabilities":
        return lambda z, y: nn.functional.mse_loss(z.softmax(-1), y)
    raise KeyError(name)


@dataclass
class Situation:
    kind: str = "lenet"
    activation: str = "sigmoid"
    loss: str = "cross-entropy"
    batch: int = 1
    seed: int = 0
    init: str = "default"  # "uniform", "trained"
    bias: bool = True
    dropout: float = 0.0
    labels: str = "hard"  # "smooth", "mixup", "distilled", "multi"
    pixels: tuple[float, float] = (0.0, 1.0)
    optimizer: str = ""  # "sgd", "nesterov", "momentum", "adam", "adamw"
    rate: float = 0.1
    decay: float = 0.0
    steps: int = 1
    stale: float = 0.0
    said_batch: int = 0
    factor: float = 1.0
    change: Callable[[dict[str, np.ndarray], np.random.Generator], Any] | None = None
    dtype: torch.dtype = torch.float32
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Made:
    model: Any
    params: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    batch: int
    targets: np.ndarray
    images: np.ndarray
    steps: int
    update: bool
    dtype: str
    rounding: dict[str, np.ndarray] | None


_TRAINED: dict[Any, dict[str, torch.Tensor]] = {}


def trained(s: Situation) -> dict[str, torch.Tensor]:
    """Weights of this network, trained to about 95 % on glyphs."""
    key = (s.kind, s.activation, s.bias)
    if key not in _TRAINED:
        torch.manual_seed(1)
        net = Net(*key)
        optimiser = torch.optim.Adam(net.parameters(), 3e-3)
        for step in range(150):
            x, y = GLYPHS.batch([(64 * step + i) % 1000 for i in range(64)])
            loss = nn.functional.cross_entropy(net(torch.tensor(x).float()), torch.tensor(y))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if step > 20 and loss < 0.15:
                break
        _TRAINED[key] = {k: v.detach().clone() for k, v in net.state_dict().items()}
    return _TRAINED[key]


def make(s: Situation) -> Made:
    torch.manual_seed(s.seed)
    rng = np.random.default_rng(s.seed)
    net = Net(s.kind, s.activation, s.bias, s.dropout)
    if s.init == "uniform":
        for p in net.parameters():
            nn.init.uniform_(p, -0.5, 0.5)
    elif s.init == "trained":
        net.load_state_dict(trained(s))
    net = net.to(s.dtype)
    x, labels = GLYPHS.batch(rng.choice(1000, s.batch, replace=False).tolist())
    y = np.eye(10)[labels]
    if s.labels == "smooth":
        y = 0.9 * y + 0.01
    elif s.labels == "mixup":
        other = np.eye(10)[(labels + 1 + rng.integers(0, 8)) % 10]
        y = 0.7 * y + 0.3 * other
    elif s.labels == "distilled":
        y = np.exp(2 * rng.standard_normal(y.shape) + 3 * y)
        y /= y.sum(1, keepdims=True)
    elif s.labels == "multi":
        y = np.maximum(y, np.eye(10)[(labels + 3) % 10])
    images = torch.tensor((x - s.pixels[0]) / s.pixels[1], dtype=s.dtype)
    target = torch.tensor(y, dtype=s.dtype)
    before = {k: v.detach().clone() for k, v in net.named_parameters()}
    params = list(net.parameters())
    if s.optimizer == "sgd":
        optimiser: Any = torch.optim.SGD(params, s.rate, weight_decay=s.decay)
    elif s.optimizer in ("nesterov", "momentum"):
        optimiser = torch.optim.SGD(
            params, s.rate, 0.9, weight_decay=s.decay, nesterov=s.optimizer == "nesterov"
        )
    elif s.optimizer == "adam":
        optimiser = torch.optim.Adam(params, s.rate)
    elif s.optimizer == "adamw":
        optimiser = torch.optim.AdamW(params, s.rate, weight_decay=s.decay)
    elif s.optimizer == "rmsprop":
        optimiser = torch.optim.RMSprop(params, s.rate)
    else:
        optimiser = None
    criterion = losses(s.loss)
    for _ in range(s.steps):
        net.zero_grad()
        (s.factor * criterion(net(images), target)).backward()
        if optimiser is not None:
            optimiser.step()
    if optimiser is None:
        shared = {k: p.grad.detach() + s.decay * p.detach() for k, p in net.named_parameters()}
    else:
        shared = {
            k: (before[k].double() - p.detach().double()) / s.rate
            for k, p in net.named_parameters()
        }
    gradients = {k: v.double().numpy() for k, v in shared.items()}
    if s.change is not None:
        gradients = {k: np.asarray(v, float) for k, v in s.change(gradients, rng).items()}
    weights = {k: v.double().numpy() for k, v in before.items()}
    if s.stale:
        weights = {
            k: v + s.stale * v.std() * rng.standard_normal(v.shape) for k, v in weights.items()
        }
    names = {k: _name(k, s) for k in weights}
    rounding = None
    if optimiser is not None:
        after = {k: p.detach().numpy() for k, p in net.named_parameters()}
        rounding = {
            names[k]: s.steps * np.spacing(np.abs(v)).astype(float) ** 2 / (12 * s.rate**2)
            for k, v in after.items()
        }
    model = _model(s)
    return Made(
        model,
        {names[k]: v for k, v in weights.items()},
        {names[k]: v for k, v in gradients.items()},
        s.said_batch or s.batch,
        y,
        images.double().numpy(),
        s.steps,
        optimiser is not None,
        "float32" if s.dtype == torch.float32 else "float64",
        rounding,
    )


def read(m: Made) -> Premises:
    return read_premises(
        m.model,
        m.params,
        m.gradients,
        m.batch,
        steps=m.steps,
        update=m.update,
        dtype=m.dtype,
        rounding=m.rounding,
    )


def _name(name: str, s: Situation) -> str:
    """Return the model's name for a tensor of `Net`."""
    room, *rest = name.split(".")
    if s.kind == "lenet":
        return f"body.{2 * int(rest[0])}.{rest[1]}" if room == "body" else f"fc.0.{rest[0]}"
    last = 2 if s.kind == "mlp" else 1
    return f"{2 * int(rest[0])}.{rest[1]}" if room == "body" else f"{2 * last}.{rest[0]}"


@dataclass(frozen=True)
class Stub:
    """What `read_premises` needs of a model: its shapes, in order."""

    image_shape: tuple[int, int, int]
    classes: int
    shapes: dict[str, tuple[int, ...]]


def _model(s: Situation) -> Any:
    if s.bias and s.kind == "lenet":
        return LeNet((1, 28, 28))
    if s.bias:
        return MLP((1, 28, 28), 10, "sigmoid", (128, 64) if s.kind == "mlp" else (100,))
    net = Net(s.kind, s.activation, s.bias)
    return Stub((1, 28, 28), 10, {_name(k, s): tuple(p.shape) for k, p in net.named_parameters()})
