"""Clients made by PyTorch in every situation whose sign `tinyleak.analytic.premises` looks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import nn

from tinyleak import Tensor, data, ops
from tinyleak.analytic import Premises, read_premises
from tinyleak.defenses import parse, protect
from tinyleak.nn import MLP, LeNet
from tinyleak.nn.layers import linear

GLYPHS = data.load("glyphs")
ACTIVATIONS: dict[str, Callable[..., torch.Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": nn.functional.softplus,
    "relu": torch.relu,
    "leaky_relu": nn.functional.leaky_relu,
    "elu": nn.functional.elu,
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
}
LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "cross-entropy": nn.functional.cross_entropy,
    "bce": nn.functional.binary_cross_entropy_with_logits,
    "mse": nn.functional.mse_loss,
    "softmax twice": lambda z, y: nn.functional.cross_entropy(z.softmax(-1), y),
    "mse of probabilities": lambda z, y: nn.functional.mse_loss(z.softmax(-1), y),
    "hinge": lambda z, y: nn.functional.multi_margin_loss(z, y.argmax(-1)),
}
OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "nesterov": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}
WIDTHS = {"mlp": (784, 128, 64), "mlp1": (784, 100)}


@dataclass(frozen=True)
class Situation:
    """A client: its network, data, loss, optimiser, and what it does to its gradient."""

    kind: str = "lenet"
    activation: str = "sigmoid"
    init: str = "default"
    bias: bool = True
    batch: int = 1
    seed: int = 0
    loss: str = "cross-entropy"
    labels: str = "hard"
    pixels: tuple[float, float] = (0.0, 1.0)
    dropout: float = 0.0
    decay: float = 0.0
    optimiser: str = ""
    rate: float = 0.1
    steps: int = 1
    defenses: tuple[str, ...] = ()
    stale: float = 0.0
    said_batch: int = 0
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Expected:
    """What is true of it: the cause to be named, and what may be claimed."""

    cause: str = ""
    others: tuple[str, ...] = ()
    loss: str | None = "cross-entropy"
    factor: float | None = 1.0
    noise: float = 0.0
    written: str = ""

    @property
    def causes(self) -> set[str]:
        return {self.cause, *self.others}


@dataclass(frozen=True)
class Made:
    """What is handed to `read_premises`, and the targets."""

    model: Any
    params: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    targets: np.ndarray
    said: dict[str, Any] = field(default_factory=dict)

    def read(self, **more: Any) -> Premises:
        return read_premises(self.model, self.params, self.gradients, **(self.said | more))


class Net(nn.Module):
    """The paper's LeNet, or an MLP, as a user of PyTorch would write it."""

    def __init__(self, kind: str, activation: str, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        if kind == "lenet":
            sizes = zip((1, 12, 12), (12, 12, 12), (2, 2, 1), strict=True)
            layers = [nn.Conv2d(a, b, 5, stride=s, padding=2, bias=bias) for a, b, s in sizes]
            last = 588
        else:
            widths = WIDTHS[kind]
            pairs = zip(widths, widths[1:], strict=False)
            layers, last = [nn.Linear(a, b, bias=bias) for a, b in pairs], widths[-1]
        self.body, self.fc = nn.ModuleList(layers), nn.Linear(last, 10, bias=bias)
        self.kind, self.activation, self.dropout = kind, ACTIVATIONS[activation], dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x if self.kind == "lenet" else x.flatten(1)
        for layer in self.body:
            x = self.activation(layer(x))
        x = x.flatten(1)
        return self.fc(nn.functional.dropout(x, self.dropout) if self.dropout else x)


@dataclass(frozen=True)
class Stub:
    """What `read_premises` needs of a network without biases: its shapes, in order."""

    image_shape: tuple[int, int, int]
    classes: int
    shapes: Mapping[str, tuple[int, ...]]

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Give each layer of two axes one row, as such a network does."""
        total = Tensor(np.zeros((len(x.data), 1)))
        for name, shape in self.shapes.items():
            if len(shape) == 2:
                row = ops.sum(x) * np.ones((len(x.data), shape[1]))
                total = total + ops.sum(linear(row, params[name]), -1, keepdims=True)
        return total


@cache
def trained(kind: str, activation: str, bias: bool) -> dict[str, torch.Tensor]:
    """Weights trained on glyphs until most are right."""
    torch.manual_seed(1)
    net, size, rate = Net(kind, activation, bias), 64, 3e-3
    if kind == "lenet":
        size, rate = 32, 1e-2
        if activation in ("sigmoid", "softplus"):  # from PyTorch's weights these learn nothing
            for parameter in net.parameters():
                nn.init.uniform_(parameter, -0.5, 0.5)
    optimiser = torch.optim.Adam(net.parameters(), rate)
    for step in range(150):
        x, y = GLYPHS.batch([(size * step + i) % 1000 for i in range(size)])
        loss = nn.functional.cross_entropy(net(torch.tensor(x).float()), torch.tensor(y))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step > 20 and loss < 0.15:
            break
    assert loss < 1.0, "it has learnt"
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def make(s: Situation) -> Made:
    """Let PyTorch compute what such a client shares."""
    torch.manual_seed(s.seed)
    rng = np.random.default_rng(s.seed)
    net = Net(s.kind, s.activation, s.bias, s.dropout)
    if s.init == "uniform":
        for parameter in net.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5)
    elif s.init == "trained":
        net.load_state_dict(trained(s.kind, s.activation, s.bias))
    net = net.to(s.dtype)
    pixels, labels = GLYPHS.batch(rng.choice(1000, s.batch, replace=False).tolist())
    targets = _targets(labels, s.labels, rng)
    x = torch.tensor((pixels - s.pixels[0]) / s.pixels[1], dtype=s.dtype)
    named = {_name(name, s.kind): parameter for name, parameter in net.named_parameters()}
    before = {name: parameter.detach().double().numpy() for name, parameter in named.items()}
    before = {name: array.copy() for name, array in before.items()}
    gradients, rounding = _shared(s, net, named, before, x, torch.tensor(targets, dtype=s.dtype))
    if s.defenses:
        gradients = protect([parse(text) for text in s.defenses], gradients, rng)
    params = {
        name: array + s.stale * array.std() * rng.standard_normal(array.shape)
        for name, array in before.items()
    }
    said = {
        "batch": s.said_batch or s.batch,
        "steps": s.steps,
        "update": bool(s.optimiser),
        "dtype": "float32" if s.dtype == torch.float32 else "float64",
        "rounding": rounding,
    }
    return Made(_model(s, before), params, gradients, targets, said)


def _shared(s: Situation, net: Net, named: Any, before: Any, x: Any, y: Any) -> Any:
    kwargs = {} if s.optimiser in ("adam", "rmsprop") else {"weight_decay": s.decay}
    optimiser = OPTIMISERS[s.optimiser](net.parameters(), s.rate, **kwargs) if s.optimiser else None
    for _ in range(s.steps):
        net.zero_grad()
        LOSSES[s.loss](net(x), y).backward()
        if optimiser is not None:
            optimiser.step()
    if optimiser is None:
        shared = {name: p.grad + s.decay * p.detach() for name, p in named.items()}
        return {name: value.double().numpy() for name, value in shared.items()}, None
    after = {name: p.detach().numpy() for name, p in named.items()}
    rounding = {
        name: s.steps * np.spacing(np.abs(array)).astype(float) ** 2 / (12 * s.rate**2)
        for name, array in after.items()
    }
    return {name: (before[name] - array) / s.rate for name, array in after.items()}, rounding


def _targets(labels: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    hard = np.eye(10)[labels]
    if kind == "smoothed":
        return 0.9 * hard + 0.01
    if kind == "mixed":
        return 0.7 * hard + 0.3 * np.eye(10)[(labels + 1 + rng.integers(0, 8)) % 10]
    if kind == "distilled":
        powers = np.exp(2 * rng.standard_normal(hard.shape) + 3 * hard)
        return powers / powers.sum(1, keepdims=True)
    if kind == "several":
        return np.maximum(hard, np.eye(10)[(labels + 3) % 10])
    return hard


def _name(name: str, kind: str) -> str:
    """Return the model's name for a tensor of `Net`."""
    room, *rest = name.split(".")
    if kind == "lenet":
        return f"body.{2 * int(rest[0])}.{rest[1]}" if room == "body" else f"fc.0.{rest[0]}"
    last = len(WIDTHS[kind]) - 1
    return f"{2 * int(rest[0])}.{rest[1]}" if room == "body" else f"{2 * last}.{rest[0]}"


def _model(s: Situation, params: Mapping[str, np.ndarray]) -> Any:
    if not s.bias:
        shapes = {name: array.shape for name, array in params.items()}
        return Stub((1, 28, 28), 10, shapes)
    return LeNet() if s.kind == "lenet" else MLP(widths=WIDTHS[s.kind][1:])


COMMON: dict[str, tuple[dict[str, Any], Expected]] = {
    "clean": ({}, Expected()),
    "float64": ({"dtype": torch.float64}, Expected()),
    "bce": ({"loss": "bce"}, Expected("loss", loss="bce")),
    "mse": ({"loss": "mse"}, Expected("loss", loss="mse")),
    "decay": ({"decay": 1e-2}, Expected("weight decay")),
    "small decay": ({"decay": 5e-4}, Expected("weight decay")),
    "decay, bce": ({"decay": 1e-2, "loss": "bce"}, Expected("weight decay", ("loss",), "bce")),
    "decay, mse": ({"decay": 5e-4, "loss": "mse"}, Expected("weight decay", ("loss",), "mse")),
    **{
        f"{kind} {variance}": (
            {"defenses": (f"{kind}:{variance}",)},
            Expected("noise", noise=variance),
        )
        for kind in ("gaussian", "laplacian")
        for variance in (1e-6, 1e-4, 1e-2)
    },
    "noise, decay": (
        {"defenses": ("gaussian:1e-6",), "decay": 1e-2},
        Expected("noise", ("weight decay",), noise=1e-6),
    ),
    **{
        f"prune {share}": ({"defenses": (f"prune:{share}",)}, Expected("pruning"))
        for share in (0.1, 0.5, 0.9)
    },
    **{
        name: ({"defenses": (name,)}, Expected("rounding", written=name.split("-")[0]))
        for name in ("float16", "bfloat16", "int8", "int8-affine")
    },
    "clip": ({"defenses": ("clip:0.01",)}, Expected("clipping", factor=None)),
    "wrong batch": ({"batch": 4, "said_batch": 1}, Expected("batch size")),
    "sgd": ({"optimiser": "sgd"}, Expected()),
    "sgd, decay": ({"optimiser": "sgd", "decay": 1e-2}, Expected("weight decay")),
    "adam": ({"optimiser": "adam", "rate": 1e-3}, Expected("adam")),
    "rmsprop": ({"optimiser": "rmsprop", "rate": 1e-3}, Expected("adam")),
    "adamw": (
        {"optimiser": "adamw", "rate": 1e-3, "decay": 1e-2},
        Expected("decoupled decay", ("adam",)),
    ),
    "steps": ({"optimiser": "sgd", "steps": 3, "rate": 0.01}, Expected()),
    "steps of adam": ({"optimiser": "adam", "steps": 3, "rate": 1e-3}, Expected("adam")),
    "steps of rmsprop": ({"optimiser": "rmsprop", "steps": 3, "rate": 1e-3}, Expected("adam")),
}
"""Situations that a batch shows as well as an image, whatever the network."""

ONE_IMAGE: dict[str, tuple[dict[str, Any], Expected]] = {
    "several labels": (
        {"loss": "bce", "labels": "several"},
        Expected("loss", ("several labels",), "bce"),
    ),
    "softmax twice": ({"loss": "softmax twice"}, Expected("loss", loss=None)),
    "mse of probabilities": ({"loss": "mse of probabilities"}, Expected("loss", loss=None)),
    "hinge": ({"loss": "hinge"}, Expected("loss", loss=None)),
    "hinge without bias": ({"loss": "hinge", "bias": False}, Expected("loss", loss=None)),
    "smoothed": ({"labels": "smoothed"}, Expected("soft labels")),
    "mixed": ({"labels": "mixed"}, Expected("soft labels")),
    "distilled": ({"labels": "distilled"}, Expected("soft labels")),
    "dropout": ({"dropout": 0.5}, Expected("dropout")),
    "stale 0.01": ({"stale": 0.01}, Expected("stale weights")),
    "stale 1": ({"stale": 1.0}, Expected("stale weights")),
    "nesterov": ({"optimiser": "nesterov"}, Expected("factor", factor=1.9)),
    "steps of momentum": (
        {"optimiser": "momentum", "steps": 3, "rate": 0.01},
        Expected("momentum"),
    ),
    "stale under sgd": (
        {"optimiser": "sgd", "stale": 0.1},
        Expected("stale weights", ("noise", "batch size", "loss", "weight decay")),
    ),
    "too large a batch": ({"said_batch": 4}, Expected("batch size")),
    "no bias": ({"bias": False}, Expected()),
}
"""Situations that only a single image shows."""

PIXELS: dict[str, tuple[dict[str, Any], Expected]] = {
    f"pixels {pixels}": ({"pixels": pixels, "kind": "mlp"}, Expected("normalisation"))
    for pixels in ((0.1307, 0.3081), (0.5, 0.5))
} | {"pixels 0..255": ({"pixels": (0.0, 1 / 255), "kind": "mlp"}, Expected("normalisation"))}
"""Situations that only a network shows whose first layer is fully connected."""


def drawn(rng: np.random.Generator) -> tuple[str, Situation, Expected]:
    """Draw a client at random."""
    every = COMMON | ONE_IMAGE | PIXELS
    name = str(rng.choice(list(every)))
    changes, expected = every[name]
    batch = int(rng.choice([2, 4, 8])) if name in COMMON and rng.random() < 0.4 else 1
    settings = {
        "kind": str(rng.choice(["lenet", "mlp", "mlp1"])),
        "activation": str(rng.choice(list(ACTIVATIONS))),
        "init": str(rng.choice(["default", "uniform", "trained"])),
        "batch": batch,
        "seed": int(rng.integers(10**6)),
    }
    return name, Situation(**(settings | changes)), expected


def wrong_claims(found: Premises, made: Made, s: Situation, expected: Expected) -> list[str]:
    """Return what is claimed, and is not so."""
    true = [
        (found.loss_source != "read off" or found.loss == expected.loss, "loss"),
        (not found.factor_exact or _near(found.factor, expected.factor, found), "factor"),
        (
            found.loss is None or found.targets is None or _same(found.targets, made.targets),
            "targets",
        ),
        (len(found.activations) != 1 or found.activations[0] == s.activation, "activation"),
        (not found.decay or abs(found.decay - s.decay) <= 0.3 * s.decay, "decay"),
        (found.normalisation is None or _pixels(found) == s.pixels, "normalisation"),
        (not found.pruned or expected.cause == "pruning", "pruned"),
        (found.rank is None or found.rank <= s.batch * s.steps, "rank"),
        (not expected.written or found.written == expected.written, "written"),
        (
            not expected.noise
            or found.noise is None
            or abs(found.noise / expected.noise - 1) < 0.3,
            "noise",
        ),
    ]
    sure = [c.name for c in found.causes if c.sure and c.name not in expected.causes]
    return [what for right, what in true if not right] + [f"sure of {name}" for name in sure]


def named(found: Premises, expected: Expected) -> bool:
    """Whether the cause stands first or second; where there is none, that none is sure."""
    if not expected.cause:
        return not any(cause.sure for cause in found.causes)
    return bool(expected.causes & {cause.name for cause in found.causes[:2]})


def _near(found: float | None, true: float | None, premises: Premises) -> bool:
    allowed = max(1e-3, premises.factor_error)
    return true is None or (found is not None and abs(found / true - 1.0) <= allowed)


def _same(found: np.ndarray, true: np.ndarray) -> bool:
    return bool(np.abs(found - true).max() < 0.1)


def _pixels(found: Premises) -> tuple[float, float]:
    assert found.normalisation is not None
    mean, std = found.normalisation
    return mean[0], std[0]
