"""Clients made by PyTorch, with a truth: what may be different in the world from what is assumed.

A `Setting` says how a client computes what it shares, and what the attacker is told of it.
`make` writes its files, in float32, as a user of PyTorch would save them.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from tinyleak.data import load_glyphs

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    **{"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "softplus": nn.Softplus, "relu": nn.ReLU},
    **{"leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "gelu": nn.GELU, "silu": nn.SiLU},
    **{"mish": nn.Mish, "selu": nn.SELU, "hardswish": nn.Hardswish},
}
PIXELS: dict[str, tuple[float, float]] = {
    **{"unit": (0.0, 1.0), "255": (0.0, 1 / 255), "0.1307,0.3081": (0.1307, 0.3081)},
    "0.5,0.5": (0.5, 0.5),
}
"""What images are normalised by: the mean that is taken off, and what is divided by."""

TRAINING_STEPS = 60
STALE_STEPS = 20
GLYPHS = load_glyphs()


@dataclass(frozen=True)
class Setting:
    """How a client computes what it shares, and what the attacker is told.

    Attributes:
        model: "mlp" or "lenet".
        activation: one of `ACTIVATIONS`.
        init: "default", "uniform" or "trained".
        batch: how many images.
        loss: one of `LOSSES`.
        reduction: "mean" or "sum".
        labels: "one", "smooth", "mixup", "teacher" or "several".
        pixels: one of `PIXELS`.
        decay: λ of weight decay within the gradient.
        layer: "", "dropout", "batch norm", "no bias" or "no last bias".
        frozen: whether the first layer sends no gradient.
        defence: one of `DEFENCES`, with its strength after a colon; "" for none.
        update: "" for a gradient, else one of `OPTIMISERS`, and weights after are shared.
        steps: how many of those.
        rate: of them.
        wrong: what the attacker is told wrongly: "", "batch", "rate", "steps", "weights",
            "activation" or "gradient".
        told: more of the command line.
    """

    model: str = "mlp"
    activation: str = "sigmoid"
    init: str = "default"
    batch: int = 1
    loss: str = "cross-entropy"
    reduction: str = "mean"
    labels: str = "one"
    pixels: str = "unit"
    decay: float = 0.0
    layer: str = ""
    frozen: bool = False
    defence: str = ""
    update: str = ""
    steps: int = 1
    rate: float = 0.1
    wrong: str = ""
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class Made:
    """A client's files, and what is true of it.

    Attributes:
        arguments: of the command line, for its files and what is told.
        gradient: whether they hold a gradient, which can be audited.
        images: (N, 1, 28, 28), in [0, 1]; None where there is none to be found.
        shown: (1, 1, 28, 28), what the first layer's gradient, divided by its bias's, shows of one
            image, for pixels in [0, 1]; None if it is not linear.
    """

    arguments: list[str]
    gradient: bool
    images: np.ndarray | None
    shown: np.ndarray | None


def generator(setting: Setting, seed: int) -> torch.Generator:
    """Return the randomness of one client, which depends on nothing but what it is."""
    return torch.Generator().manual_seed(zlib.crc32(repr((setting, seed)).encode()))


def network(setting: Setting) -> nn.Module:
    """Return the client's network, with its initial weights from PyTorch's own generator."""
    act = ACTIVATIONS[setting.activation]
    bias = setting.layer != "no bias"
    drop = [nn.Dropout(0.5)] if setting.layer == "dropout" else []
    if setting.model == "mlp":
        hidden: list[nn.Module] = [nn.Flatten(), nn.Linear(784, 64, bias=bias), act()]
        features = 64
    else:
        normalise = [nn.BatchNorm2d(12)] if setting.layer == "batch norm" else []
        hidden = [nn.Conv2d(1, 12, 5, 2, 2, bias=bias), *normalise, act()]
        hidden += [nn.Conv2d(12, 12, 5, 2, 2, bias=bias), act()]
        hidden += [nn.Conv2d(12, 12, 5, 1, 2, bias=bias), act(), nn.Flatten()]
        features = 588
    last = nn.Linear(features, 10, bias=bias and setting.layer != "no last bias")
    net = nn.Sequential(*hidden, *drop, last)
    if setting.init == "uniform":
        for parameter in net.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5)
    return net


# Losses, labels


def _focal(z: Tensor, y: Tensor) -> Tensor:
    log = functional.log_softmax(z, 1)
    return -(y * (1 - log.exp()) ** 2 * log).sum(1).mean()


def _scaled(factor: float) -> Callable[..., Tensor]:
    return lambda z, y, reduction: factor * functional.cross_entropy(z, y, reduction=reduction)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross-entropy": lambda z, y, reduction: functional.cross_entropy(z, y, reduction=reduction),
    "0.3 cross-entropy": _scaled(0.3),
    "bce": lambda z, y, reduction: functional.binary_cross_entropy_with_logits(
        z, y, reduction=reduction
    ),
    "mse": lambda z, y, reduction: functional.mse_loss(z, y, reduction=reduction),
    "mse of probabilities": lambda z, y, reduction: functional.mse_loss(
        z.softmax(1), y, reduction=reduction
    ),
    "focal": lambda z, y, reduction: _focal(z, y),
    "hinge": lambda z, y, reduction: functional.multi_margin_loss(z, y.argmax(1)),
}


def targets(setting: Setting, labels: Tensor, rng: torch.Generator) -> Tensor:
    """Return the rows of labels, (N, 10), that the loss is computed with."""
    hard = functional.one_hot(labels, 10).float()
    if setting.labels == "smooth":
        return 0.9 * hard + 0.01
    if setting.labels == "mixup":
        return 0.7 * hard + 0.3 * hard.roll(1, 1)
    if setting.labels == "teacher":
        return (3 * hard + torch.randn(hard.shape, generator=rng)).softmax(1)
    if setting.labels == "several":
        return (hard + hard.roll(3, 1)).clamp(max=1)
    return hard


# What happens to a gradient

Gradient = dict[str, Tensor]


def _gaussian(g: Tensor, variance: float, rng: torch.Generator) -> Tensor:
    return g + variance**0.5 * torch.randn(g.shape, generator=rng)


def _laplace(g: Tensor, variance: float, rng: torch.Generator) -> Tensor:
    uniform = torch.rand(g.shape, generator=rng) - 0.5
    return g - (variance / 2) ** 0.5 * uniform.sign() * torch.log1p(-2 * uniform.abs())


def _prune(g: Tensor, share: float, rng: torch.Generator) -> Tensor:
    return torch.where(g.abs() >= torch.quantile(g.abs().flatten()[: 2**24], share), g, 0 * g)


def _int8(g: Tensor, bits: float, rng: torch.Generator) -> Tensor:
    step = g.abs().max() / (2 ** (bits - 1) - 1)
    return (g / step).round() * step if step else g


def _signs(g: Tensor, _: float, rng: torch.Generator) -> Tensor:
    return g.sign() * g.abs().mean()


DEFENCES: dict[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    **{"gaussian": _gaussian, "laplace": _laplace, "prune": _prune, "int": _int8},
    "sign": _signs,
    "bfloat16": lambda g, _, rng: g.bfloat16().float(),
    "float16": lambda g, _, rng: g.half(),
}


def defend(setting: Setting, gradient: Gradient, rng: torch.Generator) -> Gradient:
    """Return what the client shares instead of its gradient."""
    kind, _, strength = setting.defence.partition(":")
    value = float(strength or 0)
    if kind in ("clip", "dp"):
        norm = float(torch.cat([g.flatten() for g in gradient.values()]).norm())
        gradient = {name: g * min(1.0, value / norm) for name, g in gradient.items()}
    if kind == "dp":
        kind, value = "gaussian", (0.1 * value) ** 2
    if kind == "clip entries":
        bound = np.quantile(np.concatenate([g.abs().flatten() for g in gradient.values()]), value)
        gradient = {name: g.clamp(-float(bound), float(bound)) for name, g in gradient.items()}
    if kind in DEFENCES:
        gradient = {name: DEFENCES[kind](g, value, rng) for name, g in gradient.items()}
    return gradient


OPTIMISERS: dict[str, Callable[[Any, float], torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": lambda p, rate: torch.optim.SGD(p, rate, momentum=0.9),
    "sgd with decay": lambda p, rate: torch.optim.SGD(p, rate, weight_decay=1e-2),
    "adam": torch.optim.Adam,
    "adamw": lambda p, rate: torch.optim.AdamW(p, rate, weight_decay=1e-1),
    "rmsprop": torch.optim.RMSprop,
}


# The files


def _choose(setting: Setting, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the client's images, with pixels in [0, 1], and their labels."""
    chosen = torch.randint(len(GLYPHS.labels), (2 * setting.batch,), generator=rng).tolist()
    pixels, labels = GLYPHS.batch(chosen)
    images = torch.tensor(pixels, dtype=torch.float32)
    first, second = images[: setting.batch], images[setting.batch :]
    mixed = 0.7 * first + 0.3 * second if setting.labels == "mixup" else first
    return mixed, torch.tensor(labels[: setting.batch])


def _train(setting: Setting, net: nn.Module, steps: int, rng: torch.Generator) -> None:
    mean, deviation = PIXELS[setting.pixels]
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(steps):
        pixels, labels = GLYPHS.batch(torch.randint(1000, (32,), generator=rng).tolist())
        x = (torch.tensor(pixels, dtype=torch.float32) - mean) / deviation
        optimiser.zero_grad()
        functional.cross_entropy(net(x), torch.tensor(labels)).backward()
        optimiser.step()
    net.zero_grad()  # else the client's own gradient would be added to the last one


def make(setting: Setting, seed: int, folder: Path) -> Made:
    """Write a client's files into a folder."""
    rng = generator(replace(setting, told=()), seed)
    torch.manual_seed(int(torch.randint(2**31, (1,), generator=rng)))
    net = network(setting)
    if setting.init == "trained":
        _train(setting, net, TRAINING_STEPS, rng)
    images, labels = _choose(setting, rng)
    mean, deviation = PIXELS[setting.pixels]
    inputs, soft = (images - mean) / deviation, targets(setting, labels, rng)
    if setting.frozen:
        for parameter in next(m for m in net if list(m.parameters())).parameters():
            parameter.requires_grad_(False)

    def loss() -> Tensor:
        squares = sum((p**2).sum() for p in net.parameters())
        return (
            LOSSES[setting.loss](net(inputs), soft, setting.reduction)
            + 0.5 * setting.decay * squares
        )

    before = copy.deepcopy(net.state_dict())
    if setting.wrong == "weights":
        _train(setting, net, STALE_STEPS, rng)
    shared = _train_on(setting, net, loss) if setting.update else _share(setting, net, loss, rng)
    files = [folder / "weights.safetensors", folder / "shared.safetensors"]
    flags = ("--weights", "--weights-after" if setting.update else "--gradients")
    arguments = _said(setting)
    for flag, path, tensors in zip(flags, files, (before, shared), strict=True):
        safetensors.torch.save_file({n: t.contiguous() for n, t in tensors.items()}, path)
        arguments += [flag, str(path)]
    truth = None if setting.wrong == "gradient" else images.numpy()
    shown = None if setting.update else _shown(setting, shared)
    return Made(arguments, not setting.update, truth, shown)


def _train_on(setting: Setting, net: nn.Module, loss: Callable[[], Tensor]) -> Gradient:
    """Return the weights after the client's steps."""
    optimiser = OPTIMISERS[setting.update](net.parameters(), setting.rate)
    for _ in range(setting.steps):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    return dict(net.state_dict())


def _share(
    setting: Setting, net: nn.Module, loss: Callable[[], Tensor], rng: torch.Generator
) -> Gradient:
    """Return the gradient that the client shares."""
    loss().backward()
    shared = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
    if setting.wrong == "gradient":
        shared = {n: torch.randn(g.shape, generator=rng) for n, g in shared.items()}
    return defend(setting, shared, rng)


def _said(setting: Setting) -> list[str]:
    """Return what the attacker is told."""
    said = ["--model", setting.model, "--shape", "1,28,28", "--classes", "10", *setting.told]
    batch = setting.batch
    if setting.wrong == "batch":
        batch = 1 if batch > 1 else 2
    if batch > 1:
        said += ["--batch", str(batch)]
    if setting.update:
        said += ["--learning-rate", str(setting.rate * (10 if setting.wrong == "rate" else 1))]
        said += [] if setting.wrong == "steps" else ["--local-steps", str(setting.steps)]
    if setting.wrong == "activation":
        said += ["--activation", "tanh" if setting.activation == "sigmoid" else "sigmoid"]
    return said


def _shown(setting: Setting, shared: Gradient) -> np.ndarray | None:
    if setting.model != "mlp" or setting.batch > 1 or "1.bias" not in shared:
        return None
    by_weight, by_bias = shared["1.weight"].double(), shared["1.bias"].double()
    mean, deviation = PIXELS[setting.pixels]
    image = mean + deviation * (by_bias @ by_weight) / (by_bias @ by_bias)
    return image.reshape(1, 1, 28, 28).numpy()


# The space

SMOOTH = ("sigmoid", "tanh", "softplus")


def right_causes(setting: Setting) -> set[str]:
    """Return the names of what is different from what is assumed, any of which is right."""
    names: set[str] = set()
    if setting.activation != "sigmoid" or setting.wrong == "activation":
        names |= {"activation"}
    if setting.loss not in ("cross-entropy", "0.3 cross-entropy"):
        names |= {"loss"}
    if setting.loss == "0.3 cross-entropy" or setting.reduction == "sum":
        names |= {"factor", "reduction", "scale"}
    if setting.labels != "one":
        names |= {"soft labels", "several labels", "labels"}
    if setting.pixels != "unit":
        names |= {"normalisation", "pixels"}
    if setting.decay or setting.update == "sgd with decay":
        names |= {"weight decay"}
    if setting.layer in ("dropout", "batch norm"):
        names |= {setting.layer}
    if setting.frozen:
        names |= {"frozen"}
    kind = setting.defence.partition(":")[0]
    names |= {
        **{"gaussian": {"noise"}, "laplace": {"noise"}, "dp": {"noise", "clipping"}},
        **{
            "prune": {"pruning"},
            "clip": {"clipping", "factor"},
            "clip entries": {"clipping", "zero"},
        },
        **{"int": {"rounding"}, "float16": {"rounding"}, "bfloat16": {"rounding"}},
        **{"sign": {"rounding", "adam", "sign", "clipping"}, "": set[str]()},
    }[kind]
    if setting.update in ("adam", "rmsprop"):
        names |= {"adam", "rmsprop", "adaptive", "optimiser"}
    if setting.update == "adamw":
        names |= {"adam", "decoupled decay", "adamw", "optimiser"}
    if setting.update == "momentum" and setting.steps > 1:
        names |= {"momentum", "local steps"}
    if setting.activation in ("relu", "leaky_relu", "hardswish"):
        names |= {"kinks"}
    names |= {
        **{"batch": {"batch size"}, "rate": {"factor", "learning rate", "rate", "scale"}},
        **{"steps": {"local steps", "steps", "factor", "learning rate"}},
        **{"weights": {"stale weights", "weights"}, "activation": set[str](), "": set[str]()},
        "gradient": {"noise", "random", "no gradient", "stale weights", "loss"},
    }[setting.wrong]
    return names


def loss_factor(setting: Setting) -> float | None:
    """Return how many times PyTorch's mean the client's loss is, as far as the attacker is told."""
    batch, kind = setting.batch, setting.loss
    if kind == "0.3 cross-entropy":
        factor = 0.3 * (batch if setting.reduction == "sum" else 1)
    elif kind in ("cross-entropy", "bce", "mse"):
        several = batch if kind == "cross-entropy" else batch * 10
        factor = float(several) if setting.reduction == "sum" else 1.0
    else:
        return None
    return factor * {"rate": 0.1, "steps": float(setting.steps)}.get(setting.wrong, 1.0)


def accounted_for(setting: Setting, result: Mapping[str, Any]) -> set[str]:
    """Return the names of what a result.json says that the attack has taken into account."""
    names: set[str] = set()
    if result["settings"]["activation"] == setting.activation:
        names |= {"activation"}
    factor = loss_factor(setting)
    if factor is not None and abs(result["loss_factor"] / factor - 1) < 0.01:
        names |= {"factor", "reduction", "scale", "rate", "learning rate"}
    knows = result.get("knows", {})
    if setting.loss in str(knows.get("loss", {}).get("value", "")).lower():
        names |= {"loss"}
    if "weight_decay" in knows and setting.wrong != "weights":
        names |= {"weight decay"}
    if knows.get("pixels", {}).get("source", "assumed") != "assumed":
        names |= {"normalisation", "pixels"}
    return names


MLP, LENET = Setting(), Setting(model="lenet")
SITUATIONS: dict[str, Setting] = {
    "MLP": MLP,
    "MLP, U(±0.5)": replace(MLP, init="uniform"),
    "MLP, trained": replace(MLP, init="trained"),
    "LeNet": LENET,
    "LeNet, U(±0.5)": replace(LENET, init="uniform"),
    "LeNet, trained": replace(LENET, init="trained"),
    **{f"MLP, {a}": replace(MLP, activation=a) for a in ACTIVATIONS if a != "sigmoid"},
    **{f"LeNet, {a}": replace(LENET, activation=a) for a in ("tanh", "relu", "gelu", "elu")},
    "MLP, sigmoid, tanh said": replace(MLP, wrong="activation"),
    "LeNet, tanh, sigmoid said": replace(LENET, activation="tanh", wrong="activation"),
    "MLP, 2 images": replace(MLP, batch=2),
    "MLP, 4 images, a sum": replace(MLP, batch=4, reduction="sum"),
    "LeNet, 2 images": replace(LENET, batch=2),
    "MLP, 2 images, 1 said": replace(MLP, batch=2, wrong="batch"),
    "LeNet, 2 images, 1 said": replace(LENET, batch=2, wrong="batch"),
    "LeNet, 1 image, 2 said": replace(LENET, wrong="batch"),
    "LeNet, 0.3 times the loss": replace(LENET, loss="0.3 cross-entropy"),
    "LeNet, MSE": replace(LENET, loss="mse"),
    "MLP, MSE of probabilities": replace(MLP, loss="mse of probabilities"),
    "MLP, BCE": replace(MLP, loss="bce"),
    "MLP, BCE, two labels": replace(MLP, loss="bce", labels="several"),
    "LeNet, BCE, a sum": replace(LENET, loss="bce", reduction="sum"),
    "MLP, BCE, 2 images": replace(MLP, loss="bce", batch=2),
    "LeNet, MSE, said": replace(LENET, loss="mse", told=("--loss", "mse")),
    "LeNet, focal loss": replace(LENET, loss="focal"),
    "LeNet, hinge loss": replace(LENET, loss="hinge"),
    "LeNet, label smoothing": replace(LENET, labels="smooth"),
    "MLP, mixup": replace(MLP, labels="mixup"),
    "LeNet, a teacher's labels": replace(LENET, labels="teacher"),
    "MLP, label smoothing, 2 images": replace(MLP, labels="smooth", batch=2),
    "MLP, pixels 0..255": replace(MLP, pixels="255"),
    "MLP, pixels normalised": replace(MLP, pixels="0.1307,0.3081"),
    "LeNet, pixels normalised": replace(LENET, pixels="0.5,0.5"),
    "LeNet, pixels normalised, said": replace(
        LENET, pixels="0.5,0.5", told=("--normalize", "0.5,0.5")
    ),
    "LeNet, weight decay": replace(LENET, decay=1e-2),
    "MLP, weight decay": replace(MLP, decay=5e-4),
    "MLP, weight decay, 4 images": replace(MLP, decay=1e-2, batch=4),
    "MLP, dropout": replace(MLP, layer="dropout"),
    "LeNet, dropout": replace(LENET, layer="dropout"),
    "LeNet, batch norm": replace(LENET, layer="batch norm", batch=2),
    "MLP, no bias": replace(MLP, layer="no bias"),
    "LeNet, no last bias": replace(LENET, layer="no last bias"),
    "LeNet, first layer frozen": replace(LENET, frozen=True),
    "MLP, first layer frozen": replace(MLP, frozen=True),
    "MLP, noise 1e-2": replace(MLP, defence="gaussian:1e-2"),
    "MLP, noise 1e-8": replace(MLP, defence="gaussian:1e-8"),
    "LeNet, noise 1e-2": replace(LENET, defence="gaussian:1e-2"),
    "LeNet, noise 1e-6": replace(LENET, defence="gaussian:1e-6"),
    "LeNet, noise 1e-10": replace(LENET, defence="gaussian:1e-10"),
    "LeNet, Laplace noise 1e-3": replace(LENET, defence="laplace:1e-3"),
    "MLP, pruning 0.9": replace(MLP, defence="prune:0.9"),
    "LeNet, pruning 0.9": replace(LENET, defence="prune:0.9"),
    "LeNet, pruning 0.3": replace(LENET, defence="prune:0.3"),
    "LeNet, clipping to 0.1": replace(LENET, defence="clip:0.1"),
    "MLP, clipping entries": replace(MLP, defence="clip entries:0.95"),
    "LeNet, DP-SGD": replace(LENET, defence="dp:1"),
    "LeNet, float16": replace(LENET, defence="float16"),
    "MLP, bfloat16": replace(MLP, defence="bfloat16"),
    "LeNet, 8 bits": replace(LENET, defence="int:8"),
    "MLP, signs": replace(MLP, defence="sign"),
    "LeNet, SGD": replace(LENET, update="sgd"),
    "MLP, 3 steps of SGD": replace(MLP, update="sgd", steps=3),
    "LeNet, 3 steps, 1 said": replace(LENET, update="sgd", steps=3, wrong="steps"),
    "LeNet, 3 steps with momentum": replace(LENET, update="momentum", steps=3),
    "LeNet, SGD, another rate": replace(LENET, update="sgd", wrong="rate"),
    "LeNet, SGD with weight decay": replace(LENET, update="sgd with decay"),
    "LeNet, Adam": replace(LENET, update="adam", rate=1e-3),
    "MLP, Adam": replace(MLP, update="adam", rate=1e-3),
    "LeNet, AdamW": replace(LENET, update="adamw", rate=1e-3),
    "MLP, RMSprop": replace(MLP, update="rmsprop", rate=1e-3),
    "MLP, stale weights": replace(MLP, wrong="weights"),
    "LeNet, stale weights": replace(LENET, wrong="weights"),
    "MLP, random numbers": replace(MLP, wrong="gradient"),
    "LeNet, random numbers": replace(LENET, wrong="gradient"),
}


def random_setting(rng: np.random.Generator) -> Setting:
    """Draw a client from the whole space: each thing is usual more often than not."""

    def odd(chance: float, *choices: Any, usual: Any) -> Any:
        return choices[rng.integers(len(choices))] if rng.random() < chance else usual

    setting = Setting(
        model=odd(0.5, "lenet", usual="mlp"),
        activation=odd(0.5, *ACTIVATIONS, usual="sigmoid"),
        init=odd(0.4, "uniform", "trained", usual="default"),
        batch=odd(0.25, 2, 4, usual=1),
        loss=odd(0.25, *LOSSES, usual="cross-entropy"),
        reduction=odd(0.2, "sum", usual="mean"),
        pixels=odd(0.25, *PIXELS, usual="unit"),
        decay=odd(0.2, 10.0 ** rng.uniform(-4, -1), usual=0.0),
        layer=odd(0.15, "dropout", "no bias", "no last bias", usual=""),
        frozen=odd(0.1, True, usual=False),
    )
    if setting.loss in ("cross-entropy", "bce"):
        setting = replace(setting, labels=odd(0.25, "smooth", "mixup", "teacher", usual="one"))
    if rng.random() < 0.25:
        update = odd(0.7, *OPTIMISERS, usual="sgd")
        rate = 1e-3 if update in ("adam", "adamw", "rmsprop") else 0.1
        steps, wrong = odd(0.3, 2, 3, usual=1), odd(0.15, "rate", "weights", usual="")
        return replace(setting, update=update, rate=rate, steps=steps, wrong=wrong)
    defence = odd(
        0.4,
        *(f"{kind}:{10.0 ** rng.integers(-10, 0):g}" for kind in ("gaussian", "laplace")),
        *(f"prune:{rng.uniform(0.1, 0.99):.2f}", "clip:0.1", "clip entries:0.95", "dp:1"),
        *("float16", "bfloat16", "int:8", "sign"),
        usual="",
    )
    wrong = odd(0.15, "batch", "weights", "activation", "gradient", usual="")
    return replace(setting, defence=defence, wrong=wrong)
