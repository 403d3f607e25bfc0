"""ResNet against the same network written in PyTorch: parameters, logits, gradients, the attack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tinyleak.attacks import Matching, Settings, attack
from tinyleak.client.simulated import share
from tinyleak.metrics import mse
from tinyleak.nn import LeNet, ResNet, batch_norm, one_hot
from tinyleak.tensor import Tensor

SMALL = ResNet((2, 5, 6), classes=4, width=2, blocks=2)


class TorchBlock(nn.Module):
    """He's basic block for CIFAR, with a sigmoid for ReLU and no stride."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.missing = (outside - inside) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(torch.sigmoid(self.bn1(self.conv1(x)))))
        shortcut = functional.pad(x, (0, 0, 0, 0, self.missing, self.missing))
        return torch.sigmoid(out + shortcut)


class TorchResNet(nn.Module):
    """A CIFAR ResNet as PyTorch users write and name it."""

    def __init__(self, model: ResNet) -> None:
        super().__init__()
        width = model.width
        self.conv1 = nn.Conv2d(model.image_shape[0], width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        inside = width
        for stage in range(3):
            blocks = []
            for _ in range(model.blocks):
                blocks.append(TorchBlock(inside, width * 2**stage))
                inside = width * 2**stage
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(inside, model.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.sigmoid(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((-2, -1)))


def theirs(model: ResNet, params: dict[str, np.ndarray]) -> TorchResNet:
    made = TorchResNet(model).double().eval()
    state = {name: torch.tensor(array) for name, array in (params | dict(model.statistics)).items()}
    missing, unexpected = made.load_state_dict(state, strict=False)
    assert unexpected == []
    assert all("running" in name or "tracked" in name for name in missing)
    return made


def trained_statistics(model: ResNet, rng: np.random.Generator) -> dict[str, np.ndarray]:
    made = TorchResNet(model)
    return {
        name: rng.uniform(0.3, 2.0, tuple(tensor.shape)) * (1 if "var" in name else -1)
        for name, tensor in made.state_dict().items()
        if "running" in name
    }


def model_of(kind: str, rng: np.random.Generator) -> ResNet:
    if kind == "fresh":
        return SMALL
    return ResNet((2, 5, 6), 4, width=2, blocks=2, statistics=trained_statistics(SMALL, rng))


def as_tensors(params: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: Tensor(array) for name, array in params.items()}


def test_resnet_20_has_the_parameters_of_pytorchs_in_their_order() -> None:
    model = ResNet((3, 32, 32), 100)
    expected = {name: tuple(p.shape) for name, p in TorchResNet(model).named_parameters()}
    assert model.shapes == expected
    assert list(model.shapes) == list(expected)
    assert sum(len(shape) > 1 for shape in model.shapes.values()) == 20


@pytest.mark.parametrize("kind", ["fresh", "trained"])
def test_logits_are_pytorchs(kind: str, rng: np.random.Generator) -> None:
    model = model_of(kind, rng)
    params, images = model.init(rng), rng.random((3, 2, 5, 6))
    expected = theirs(model, params)(torch.tensor(images)).detach().numpy()
    assert np.ptp(expected, axis=0).min() > 1e-9, "the logits depend on the image"
    np.testing.assert_allclose(model(as_tensors(params), Tensor(images)).data, expected, atol=1e-12)


@pytest.mark.parametrize("kind", ["fresh", "trained"])
def test_the_attacks_objective_and_its_gradient_are_pytorchs(
    kind: str, rng: np.random.Generator
) -> None:
    """The distance between gradients holds a gradient, so its own is of second order."""
    model = model_of(kind, rng)
    params = model.init(rng)
    client, _ = share(model, params, rng.random((2, *model.image_shape)), [1, 3])
    matching = Matching(model, params, client.gradients, 2, np.ones(()), one_hot([0, 1], 4))
    z = rng.standard_normal((1, matching.image_size))
    distance, gradient = matching.value_and_gradient(Tensor(z))

    made = theirs(model, params)
    images = torch.tensor(z.reshape(2, *model.image_shape), requires_grad=True)
    loss = functional.cross_entropy(made(images), torch.tensor([0, 1]))
    found = torch.autograd.grad(loss, list(made.parameters()), create_graph=True)
    shared = [torch.tensor(client.gradients[name]) for name in model.shapes]
    expected = sum(((g - s) ** 2).sum() for g, s in zip(found, shared, strict=True))
    (slope,) = torch.autograd.grad(expected, [images])
    np.testing.assert_allclose(distance.data, expected.detach().numpy(), rtol=1e-10)
    allowed = 1e-9 * float(slope.abs().max())
    np.testing.assert_allclose(gradient.data.ravel(), slope.numpy().ravel(), rtol=0, atol=allowed)


def test_weights_with_leading_axes_are_a_loop(rng: np.random.Generator) -> None:
    params = [SMALL.init(rng) for _ in range(2)]
    images = rng.random((2, 3, *SMALL.image_shape))
    stacked = {name: Tensor(np.stack([one[name] for one in params])) for name in SMALL.shapes}
    together = SMALL(stacked, Tensor(images)).data
    for one, batch, found in zip(params, images, together, strict=True):
        alone = SMALL(as_tensors(one), Tensor(batch)).data
        np.testing.assert_allclose(found, alone, atol=1e-13)


def test_batch_norm_is_pytorchs(rng: np.random.Generator) -> None:
    x, weight, bias, centre = (rng.standard_normal(s) for s in ((2, 3, 4, 5), (3,), (3,), (3,)))
    variance = rng.uniform(0.5, 2, 3)
    found = batch_norm(Tensor(x), Tensor(weight), Tensor(bias), centre, variance).data
    numbers = (torch.tensor(a) for a in (x, centre, variance, weight, bias))
    np.testing.assert_allclose(found, functional.batch_norm(*numbers).numpy(), atol=1e-13)


def test_default_weights_are_as_pytorch_draws_them(rng: np.random.Generator) -> None:
    drawn = SMALL.init(rng, "default")
    for name, array in drawn.items():
        if "bn" in name:
            assert (array == ("weight" in name)).all(), name
        else:
            inside = np.prod(SMALL.shapes[name.replace("bias", "weight")][1:])
            assert 0 < np.abs(array).max() <= inside**-0.5, name
    # What has no normalisation is drawn as it always was.
    expected = np.random.default_rng(3).uniform(-0.2, 0.2, (12, 1, 5, 5))
    first = LeNet().init(np.random.default_rng(3), "default")["body.0.weight"]
    np.testing.assert_array_equal(first, expected)


def test_an_image_comes_back(rng: np.random.Generator) -> None:
    model = ResNet((1, 8, 8), 4, width=8, blocks=1)
    image = rng.random((1, 1, 8, 8))
    client, _ = share(model, model.init(rng), image, [2])
    # So deep a sigmoid network's gradient depends on its input in the seventh digit and beyond.
    settings = Settings(iterations=600, goal=1e-30)
    found = attack(model, client.params, client.gradients, labels="infer", settings=settings)
    assert found.labels.tolist() == [2]
    assert mse(found.images, image)[0] < 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 3}, "an even width"),
        ({"blocks": 0}, "counts of at least 1"),
        ({"activation": "step"}, "activation 'step' is unknown"),
        ({"statistics": {"bn9.running_mean": np.zeros(2)}}, "statistics named bn9.running_mean"),
    ],
)
def test_a_bad_request_is_answered_with_one_clear_sentence(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ResNet(**options)
