"""Layers, losses, models and their initial weights, beside PyTorch's own in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import layer_cases
import numpy as np
import pytest
import torch
from primitive_cases import Case, gradients, on_device, second_order, weights
from torch.nn import functional

from tinyleak import nn, ops
from tinyleak.check import check_gradients
from tinyleak.gradient import grad
from tinyleak.nn import init, tiles
from tinyleak.nn.layers import activation, channels_last
from tinyleak.ops.window import window_counts
from tinyleak.program import trace
from tinyleak.tensor import Tensor

TORCH_ACTIVATIONS = {
    "sigmoid": torch.nn.Sigmoid,
    "tanh": torch.nn.Tanh,
    # Beyond its threshold PyTorch's is x itself, which is wrong in the tenth digit.
    "softplus": partial(torch.nn.Softplus, threshold=700),
    "relu": torch.nn.ReLU,
    "leaky_relu": torch.nn.LeakyReLU,
    "elu": torch.nn.ELU,
    "selu": torch.nn.SELU,
    "gelu": torch.nn.GELU,
    "gelu_tanh": partial(torch.nn.GELU, approximate="tanh"),
    "silu": torch.nn.SiLU,
    "mish": torch.nn.Mish,
    "relu6": torch.nn.ReLU6,
    "hardtanh": torch.nn.Hardtanh,
    "hardswish": torch.nn.Hardswish,
}


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-10) -> None:
    """Equal up to `tolerance` of the largest number expected."""
    scale = float(np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale or 1e-300)


def image_shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


# Layers and losses.


def conv_case(
    image: tuple[int, ...],
    weight: tuple[int, ...],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    *,
    bias: bool = True,
) -> Case:
    shapes = (image, weight, weight[:1]) if bias else (image, weight)
    return Case(
        "conv2d",
        lambda *xs: nn.conv2d(*xs, stride=stride, padding=padding),
        lambda *xs: functional.conv2d(*xs, stride=stride, padding=padding),
        shapes,
        f"stride {stride} padding {padding}",
    )


def five_times(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """On both sides of every kink."""
    return 5.0 * rng.standard_normal(shape)


def torch_hardsigmoid(x: torch.Tensor) -> torch.Tensor:
    return functional.relu6(x + 3) / 6  # the derivative of PyTorch's own has a float32 1/6


def torch_hardswish(x: torch.Tensor) -> torch.Tensor:
    return x * torch_hardsigmoid(x)


def distribution(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    numbers = rng.uniform(0.1, 1.0, shape)
    return numbers / numbers.sum(axis=-1, keepdims=True)


CONVOLUTIONS = [
    conv_case((2, 1, 5, 5), (3, 1, 3, 3)),
    conv_case((2, 3, 6, 5), (4, 3, 3, 2), stride=(2, 1), padding=(1, 2)),
    conv_case((1, 2, 7, 9), (2, 2, 5, 5), stride=(2, 2), padding=(2, 2)),
    conv_case((3, 2, 4, 8), (1, 2, 1, 4), stride=(1, 3), bias=False),
    conv_case((1, 1, 3, 3), (2, 1, 3, 3)),
    conv_case((2, 2, 3, 4), (2, 2, 1, 1), stride=(2, 2)),
    conv_case((1, 1, 4, 4), (2, 1, 2, 2), stride=(3, 3)),  # the last rows are in no window
    conv_case((1, 2, 1, 1), (3, 2, 3, 3), padding=(1, 1)),
]
MEANS, VARIANCES = np.array([0.5, -1.0, 2.0]), np.array([0.3, 2.0, 1.0])
LAYERS = [
    *CONVOLUTIONS,
    Case("linear", nn.linear, functional.linear, ((3, 4), (2, 4), (2,))),
    Case("linear", nn.linear, functional.linear, ((3, 4), (2, 4)), "without bias"),
    *[
        Case(
            "avg_pool2d",
            lambda x, k=kernel, s=stride: nn.avg_pool2d(x, k, stride=s),
            lambda x, k=kernel, s=stride: functional.avg_pool2d(x, k, s),
            ((2, 3, 6, 7),),
            f"kernel {kernel} stride {stride}",
        )
        for kernel, stride in [((2, 2), None), ((3, 2), (1, 2)), ((6, 7), None)]
    ],
    Case("log_softmax", nn.log_softmax, lambda x: functional.log_softmax(x, -1), ((3, 5),)),
    Case("softmax", nn.softmax, lambda x: functional.softmax(x, -1), ((3, 5),)),
    Case("cross_entropy", nn.cross_entropy, functional.cross_entropy, ((4, 5), (4, 5))),
    Case(
        "cross_entropy",
        nn.cross_entropy,
        functional.cross_entropy,
        ((1, 3), (1, 3)),
        "of probabilities",
        distribution,
    ),
    Case(
        "batch_norm",
        lambda x, w, b: nn.batch_norm(x, w, b, MEANS, VARIANCES),
        lambda x, w, b: functional.batch_norm(
            x, torch.tensor(MEANS), torch.tensor(VARIANCES), w, b
        ),
        ((2, 3, 4, 5), (3,), (3,)),
    ),
    Case(
        "batch_norm",
        nn.batch_norm,
        lambda x, w, b: functional.batch_norm(
            x, torch.zeros(3).double(), torch.ones(3).double(), w, b
        ),
        ((2, 3, 4, 5), (3,), (3,)),
        "of a fresh network",
    ),
    Case(
        "layer_norm",
        nn.layer_norm,
        lambda x, w, b: functional.layer_norm(x, (6,), w, b),
        ((4, 6), (6,), (6,)),
    ),
    Case("hardsigmoid", nn.hardsigmoid, torch_hardsigmoid, ((5, 4),), draw=five_times),
    Case("relu6", nn.relu6, functional.relu6, ((5, 4),), draw=five_times),
    Case("hardswish", nn.hardswish, torch_hardswish, ((5, 4),), draw=five_times),
    Case("flatten", nn.flatten, lambda x: x.flatten(1), ((2, 3, 4, 5),)),
    *[
        Case(name, nn.ACTIVATIONS[name], TORCH_ACTIVATIONS[name](), ((3, 4),))
        for name in TORCH_ACTIVATIONS
    ],
    *layer_cases.LAYERS,
]


def torch_inputs(case: Case) -> list[torch.Tensor]:
    return [torch.tensor(array, requires_grad=True) for array in case.arrays()]


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_value_and_gradients_of_two_orders_are_pytorchs(case: Case) -> None:
    xs, txs = on_device(case.arrays()), torch_inputs(case)
    theirs = case.torchs(*txs)
    assert_close(case.ours(*xs).numpy(), theirs.detach().numpy())

    w = torch.tensor(weights(tuple(theirs.shape)))
    first = torch.autograd.grad((theirs * w).sum(), txs, retain_graph=True)
    for mine, expected in zip(gradients(case, xs, ()), first, strict=True):
        assert_close(mine.numpy(), expected.numpy())

    slopes = torch.autograd.grad((theirs * theirs * w).sum(), txs, create_graph=True)
    total = sum((s * torch.tensor(weights(tuple(s.shape), 9))).sum() for s in slopes)
    second = torch.autograd.grad(total, txs)
    for mine, expected in zip(second_order(case, xs, ()), second, strict=True):
        assert_close(mine.numpy(), expected.numpy())


def stackings(count: int) -> list[tuple[bool, ...]]:
    """Which of the inputs have a leading axis: all, the first only, all but the first."""
    several = [(True,) * count, (True,) + (False,) * (count - 1)]
    return several + [(False,) + (True,) * (count - 1)] if count > 1 else several[:1]


# Logits and targets have the same leading axes: cross_entropy has a test of its own.
@pytest.mark.parametrize("case", [c for c in LAYERS if c.primitive != "cross_entropy"], ids=str)
def test_leading_axes_are_a_loop(case: Case) -> None:
    rng = np.random.default_rng(3)
    for stacked in stackings(len(case.shapes)):
        leads = [((2, 3) if lead else ()) for lead in stacked]
        arrays = [
            rng.standard_normal((*lead, *shape))
            for lead, shape in zip(leads, case.shapes, strict=True)
        ]
        xs = on_device(arrays)
        together = case.ours(*xs)
        w = rng.standard_normal(together.shape)
        # The square, so that the gradient depends on the values, as it does in the attack.
        slopes = grad(ops.sum(together * together * Tensor(w)), xs)
        expected = [np.zeros_like(array) for array in arrays]
        for place in np.ndindex(2, 3):
            parts = [a[place] if lead else a for a, lead in zip(arrays, stacked, strict=True)]
            alone_xs = on_device(parts)
            alone = case.ours(*alone_xs)
            assert_close(together.numpy()[place], alone.numpy())
            alone_slopes = grad(ops.sum(alone * alone * Tensor(w[place])), alone_xs)
            for total, slope, lead in zip(expected, alone_slopes, stacked, strict=True):
                total[place if lead else ...] += slope.numpy()
        for found, total in zip(slopes, expected, strict=True):
            assert_close(found.numpy(), total)


@pytest.mark.parametrize("size", [3, 4, 5])
def test_tiles_lose_hardly_a_digit(size: int, rng: np.random.Generator) -> None:
    x, w = rng.standard_normal((2, 32, 14, 15)), rng.standard_normal((24, 32, size, size))
    sides = [(1, 2), (0, 2)]
    image = channels_last(Tensor(x))
    assert tiles.pays(image, Tensor(w), sides)
    padded = np.pad(x, [(0, 0), (0, 0), *sides])
    found = nn.convolution(Tensor(x), Tensor(w), padding=tuple(sides)).numpy()
    plain = nn.conv2d(Tensor(padded), Tensor(w)).numpy()
    assert found.shape == plain.shape
    assert np.abs(found - plain).max() < 5e-15 * np.abs(plain).max()


@pytest.mark.parametrize(
    ("image", "weight"),
    [
        ((1, 15, 40, 40), (32, 15, 3, 3)),
        ((1, 32, 40, 40), (15, 32, 3, 3)),
        ((1, 32, 11, 11), (32, 32, 3, 3)),
        ((1, 32, 40, 40), (32, 32, 2, 2)),
        ((1, 32, 40, 40), (32, 32, 3, 5)),
        ((1, 32, 40, 40), (32, 32, 7, 7)),
    ],
)
def test_tiles_are_not_for_what_is_small(image: tuple[int, ...], weight: tuple[int, ...]) -> None:
    x, w = channels_last(Tensor(np.zeros(image))), Tensor(np.zeros(weight))
    assert not tiles.pays(x, w, [(0, 0), (0, 0)])


def test_max_pool_takes_no_padding_and_passes_nan_and_infinity() -> None:
    image = np.full((1, 1, 4, 4), -1e300)
    image[0, 0, 0, 0], image[0, 0, 3, 3] = np.nan, -np.inf
    image[0, 0, 2:, :2] = -np.inf
    pooled = nn.max_pool2d(Tensor(image), (2, 2)).numpy()
    np.testing.assert_array_equal(pooled[0, 0], [[np.nan, -1e300], [-np.inf, -1e300]])
    padded = nn.max_pool2d(Tensor(image), (2, 2), padding=(1, 1)).numpy()
    assert np.isnan(padded[0, 0, 0, 0]) and padded[0, 0, 2, 2] == -np.inf
    program = trace(lambda x: nn.max_pool2d(x, (2, 2), padding=(1, 1)), np.zeros((1, 1, 4, 4)))
    np.testing.assert_array_equal(program(image)[0], padded)


def test_cross_entropy_of_leading_axes_is_a_loop(rng: np.random.Generator) -> None:
    logits, targets = rng.standard_normal((2, 3, 4, 5)), rng.random((2, 3, 4, 5))
    losses = nn.cross_entropy(Tensor(logits), Tensor(targets))
    assert losses.shape == (2, 3)
    for place in np.ndindex(2, 3):
        alone = nn.cross_entropy(Tensor(logits[place]), Tensor(targets[place]))
        assert_close(losses.numpy()[place], alone.numpy())


@pytest.mark.parametrize(
    "case", [CONVOLUTIONS[1], conv_case((1, 1, 5, 4), (2, 1, 3, 3), (2, 1), (1, 1))], ids=str
)
def test_conv2d_to_third_order_by_differences(case: Case) -> None:
    check_gradients(lambda *xs: ops.tanh(case.ours(*xs)), on_device(case.arrays()), order=3)


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e5])
def test_softmax_of_large_float32_logits_keeps_its_digits(scale: float) -> None:
    logits = (np.array([1.0, 1.0, 1.0]) * scale - [0.0, 0.0, 1.0]).astype(np.float32)
    found = nn.softmax(Tensor(logits))
    assert found.dtype == np.float32
    assert abs(found.data.sum(dtype=float) - 1.0) < 2 * np.finfo(np.float32).eps
    expected = np.exp([0.0, 0.0, -1.0]) / np.exp([0.0, 0.0, -1.0]).sum()
    np.testing.assert_allclose(found.data, expected, rtol=1e-6)


def test_softmax_of_large_logits_is_finite() -> None:
    logits = Tensor(np.array([[1e4, -1e4, 0.0]]))
    np.testing.assert_array_equal(nn.softmax(logits).numpy(), [[1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(nn.log_softmax(logits).numpy(), [[0.0, -2e4, -1e4]])


def test_cross_entropy_of_one_hot_labels_is_that_of_whole_numbers(
    rng: np.random.Generator,
) -> None:
    logits = rng.standard_normal((4, 10))
    labels = np.array([3, 0, 9, 3])
    ours = nn.cross_entropy(Tensor(logits), Tensor(nn.one_hot(labels, 10)))
    theirs = functional.cross_entropy(torch.tensor(logits), torch.tensor(labels))
    assert_close(ours.numpy(), theirs.numpy())


def test_one_hot_of_any_shape() -> None:
    rows = nn.one_hot(np.array([[0, 2], [1, 1]]), 3, "float32")
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows.argmax(axis=-1), [[0, 2], [1, 1]])
    np.testing.assert_array_equal(np.sort(rows, axis=-1), np.broadcast_to([0, 0, 1], (2, 2, 3)))


# LeNet.


class ReferenceLeNet(torch.nn.Module):
    """The network as the paper's code writes it, with any activation."""

    def __init__(
        self, channels: int, features: int, classes: int, squash: Callable[[], torch.nn.Module]
    ) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(channels, 12, kernel_size=5, padding=2, stride=2),
            squash(),
            torch.nn.Conv2d(12, 12, kernel_size=5, padding=2, stride=2),
            squash(),
            torch.nn.Conv2d(12, 12, kernel_size=5, padding=2, stride=1),
            squash(),
        )
        self.fc = torch.nn.Sequential(torch.nn.Linear(features, classes))
        self.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(x).flatten(1))


def features_of(shape: tuple[int, int, int]) -> int:
    """What PyTorch itself says comes out of the convolutions."""
    body = ReferenceLeNet(shape[0], 1, 2, torch.nn.Sigmoid).body
    return body(torch.zeros(1, *shape, dtype=torch.float64)).numel()


@pytest.mark.parametrize(("shape", "features"), [((1, 28, 28), 588), ((3, 32, 32), 768)])
def test_lenets_parameters_are_the_reference_networks(
    shape: tuple[int, int, int], features: int
) -> None:
    reference = ReferenceLeNet(shape[0], features, 10, torch.nn.Sigmoid).state_dict()
    shapes = nn.LeNet(shape).shapes
    assert list(shapes) == list(reference)
    assert shapes == {name: tuple(weight.shape) for name, weight in reference.items()}
    assert shapes["fc.0.weight"] == (10, features)


@pytest.mark.parametrize("squash", TORCH_ACTIVATIONS)
@pytest.mark.parametrize(
    "shape", [(1, 28, 28), (3, 32, 32), (1, 9, 14), (2, 17, 5), (1, 1, 1)], ids=image_shape
)
def test_lenet_is_the_reference_network(
    shape: tuple[int, int, int], squash: str, rng: np.random.Generator
) -> None:
    model = nn.LeNet(shape, classes=7, activation=squash)
    params = model.init(rng)
    images, targets = rng.random((2, *shape)), distribution(rng, (2, 7))
    reference = ReferenceLeNet(shape[0], features_of(shape), 7, TORCH_ACTIVATIONS[squash])
    reference.load_state_dict({name: torch.tensor(array) for name, array in params.items()})

    tensors = {name: Tensor(array) for name, array in params.items()}
    logits = model(tensors, Tensor(images))
    theirs = reference(torch.tensor(images))
    assert_close(logits.numpy(), theirs.detach().numpy())

    loss = nn.cross_entropy(logits, Tensor(targets))
    functional.cross_entropy(theirs, torch.tensor(targets)).backward()
    expected = dict(reference.named_parameters())
    for name, slope in zip(tensors, grad(loss, list(tensors.values())), strict=True):
        assert_close(slope.numpy(), expected[name].grad.numpy())


def test_weights_of_the_reference_network_drop_in(rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    reference = ReferenceLeNet(3, 768, 100, torch.nn.Sigmoid)
    images = rng.random((2, 3, 32, 32))
    params = {name: Tensor(weight.numpy()) for name, weight in reference.state_dict().items()}
    logits = nn.LeNet((3, 32, 32), classes=100)(params, Tensor(images))
    assert_close(logits.numpy(), reference(torch.tensor(images)).detach().numpy())


def test_lenets_with_weights_of_their_own_run_as_one(rng: np.random.Generator) -> None:
    model = nn.LeNet((1, 8, 8), classes=3)
    each = [model.init(rng) for _ in range(3)]
    images = rng.random((3, 2, 1, 8, 8))
    stacked = {name: Tensor(np.stack([one[name] for one in each])) for name in model.shapes}
    together = model(stacked, Tensor(images))
    assert together.shape == (3, 2, 3)
    for r, params in enumerate(each):
        alone = model({name: Tensor(array) for name, array in params.items()}, Tensor(images[r]))
        assert_close(together.numpy()[r], alone.numpy())


# The multilayer perceptron.


@pytest.mark.parametrize("squash", TORCH_ACTIVATIONS)
@pytest.mark.parametrize("widths", [(8,), (16, 5), (6, 6, 6)])
def test_mlp_is_a_sequential(
    widths: tuple[int, ...], squash: str, rng: np.random.Generator
) -> None:
    model = nn.MLP((2, 3, 4), classes=5, activation=squash, widths=widths)
    layers: list[torch.nn.Module] = []
    for fan_in, fan_out in zip((24, *widths), (*widths, 5), strict=True):
        layers += [torch.nn.Linear(fan_in, fan_out), TORCH_ACTIVATIONS[squash]()]
    reference = torch.nn.Sequential(*layers[:-1]).double()
    assert model.shapes == {n: tuple(w.shape) for n, w in reference.state_dict().items()}

    params = model.init(rng)
    reference.load_state_dict({name: torch.tensor(array) for name, array in params.items()})
    images, targets = rng.random((3, 2, 3, 4)), distribution(rng, (3, 5))
    tensors = {name: Tensor(array) for name, array in params.items()}
    logits = model(tensors, Tensor(images))
    theirs = reference(torch.tensor(images).flatten(1))
    assert_close(logits.numpy(), theirs.detach().numpy())

    loss = nn.cross_entropy(logits, Tensor(targets))
    functional.cross_entropy(theirs, torch.tensor(targets)).backward()
    expected = dict(reference.named_parameters())
    for name, slope in zip(tensors, grad(loss, list(tensors.values())), strict=True):
        assert_close(slope.numpy(), expected[name].grad.numpy())


# Initial weights.


def largest(params: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(np.abs(array).max()) for name, array in params.items()}


def test_uniform_weights_fill_their_range(rng: np.random.Generator) -> None:
    for name, array in nn.LeNet().init(rng).items():
        near = 0.49 if array.ndim > 1 else 0.2  # a bias has few numbers
        assert -0.5 <= array.min() < -near, name
        assert near < array.max() <= 0.5, name


def test_scale_is_half_the_width(rng: np.random.Generator) -> None:
    drawn = init.draw({"weight": (40, 50), "bias": (40,)}, rng, scale=0.1)
    assert 0.0999 < np.abs(drawn["weight"]).max() <= 0.1
    assert drawn["weight"].min() < -0.0999
    assert 0.09 < np.abs(drawn["bias"]).max() <= 0.1


@pytest.mark.parametrize("model", [nn.LeNet(), nn.LeNet((3, 32, 32), 100), nn.MLP()], ids=str)
def test_default_weights_have_pytorchs_bounds(
    model: nn.LeNet | nn.MLP, rng: np.random.Generator
) -> None:
    torch.manual_seed(0)
    ours = largest(model.init(rng, "default"))
    for name in model.shapes:
        if name.endswith("bias"):
            continue
        out, fan_in, *kernel = shape = model.shapes[name]
        if kernel:
            layer: torch.nn.Module = torch.nn.Conv2d(fan_in, out, tuple(kernel)).double()
        else:
            layer = torch.nn.Linear(fan_in, out).double()
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        bias = name.replace("weight", "bias")
        for mine, theirs in [(ours[name], layer.weight), (ours[bias], layer.bias)]:
            # Both fill the range that PyTorch documents, and neither leaves it.
            for size in (mine, float(theirs.detach().abs().max())):
                assert 0.6 * bound < size <= bound, name


def test_one_seed_is_one_network() -> None:
    model = nn.LeNet()
    first, again, other = (model.init(np.random.default_rng(seed)) for seed in (1, 1, 2))
    for name in model.shapes:
        np.testing.assert_array_equal(first[name], again[name])
        assert not np.array_equal(first[name], other[name])


def test_float32_weights_are_the_float64_ones_rounded() -> None:
    model = nn.MLP()
    wide = model.init(np.random.default_rng(1), "default")
    narrow = model.init(np.random.default_rng(1), "default", dtype="float32")
    for name in model.shapes:
        assert narrow[name].dtype == np.float32
        np.testing.assert_array_equal(narrow[name], wide[name].astype(np.float32))


# What is refused.


def zeros(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [Tensor(np.zeros(shape)) for shape in shapes]


def weights_of(model: nn.LeNet) -> dict[str, Tensor]:
    return {name: Tensor(np.zeros(shape)) for name, shape in model.shapes.items()}


BAD_REQUESTS: list[tuple[Callable[[], object], Sequence[str]]] = [
    (lambda: activation("swish"), ["'swish'", "sigmoid, tanh, softplus, relu"]),
    (lambda: nn.LeNet(activation="swish"), ["'swish'", "choose from"]),
    (lambda: nn.MLP(activation="swish"), ["'swish'", "choose from"]),
    (lambda: nn.LeNet().init(np.random.default_rng(0), "xavier"), ["'xavier'", "uniform, default"]),
    (lambda: nn.LeNet((1, 0, 28)), ["(1, 0, 28)", "at least 1"]),
    (lambda: nn.LeNet((28, 28)), ["(28, 28)", "(C, H, W)"]),  # type: ignore[arg-type]
    (lambda: nn.LeNet(classes=0), ["classes=0", "at least 1"]),
    (lambda: nn.MLP(widths=(8, 0)), ["(8, 0)"]),
    (lambda: nn.MLP((28, 28)), ["(28, 28)", "(C, H, W)"]),  # type: ignore[arg-type]
    (
        lambda: nn.conv2d(*zeros((1, 3, 8, 8), (4, 1, 3, 3))),
        ["(1, 3, 8, 8)", "(4, 1, 3, 3)", "with one C"],
    ),
    (
        lambda: nn.LeNet()(weights_of(nn.LeNet()), *zeros((1, 3, 28, 28))),
        ["(1, 3, 28, 28)", "(12, 1, 5, 5)", "with one C"],
    ),
    (
        lambda: nn.conv2d(*zeros((3, 8, 8), (4, 3, 3, 3))),
        ["(…, N, C, H, W)", "(3, 8, 8)"],
    ),
    (
        lambda: nn.conv2d(*zeros((1, 3, 8, 8), (4, 3))),
        ["(…, O, C, kH, kW)", "(4, 3)"],
    ),
    (lambda: nn.conv2d(*zeros((1, 1, 4, 4), (1, 1, 5, 5))), ["(5, 5)", "(4, 4)", "padding"]),
    (lambda: nn.avg_pool2d(zeros((1, 1, 4, 4))[0], (5, 5)), ["(5, 5)", "(4, 4)"]),
    (lambda: nn.avg_pool2d(zeros((4, 4))[0], (2, 2)), ["(4, 4)", "(…, N, C, H, W)"]),
    (lambda: nn.LeNet(kernel=4), ["kernel=4", "odd kernel"]),
    (lambda: nn.LeNet(hidden=(6, 8)), ["hidden=(6, 8)", "a stride for each layer"]),
    (lambda: nn.linear(*zeros((2, 3), (4, 5))), ["(2, 3)", "(4, 5)", "one F"]),
    (lambda: nn.cross_entropy(*zeros((2, 3), (2, 4))), ["(2, 3)", "(2, 4)"]),
    (lambda: nn.cross_entropy(*zeros((3,), (3,))), ["(3,)", "(…, N, K)"]),
    (lambda: nn.one_hot(np.array([0, 10]), 10), ["label 10", "[0, 10)"]),
    (lambda: nn.one_hot(np.array([-1]), 10), ["label -1", "[0, 10)"]),
    (lambda: nn.one_hot(np.array([1.5]), 10), ["float64", "whole numbers"]),
    (lambda: window_counts((4, 4), (2, 2), (0, 1), (0, 0)), ["at least 1"]),
]


@pytest.mark.parametrize(("request_", "words"), BAD_REQUESTS)
def test_a_bad_request_is_answered_with_one_clear_sentence(
    request_: Callable[[], object], words: Sequence[str]
) -> None:
    with pytest.raises(ValueError) as caught:
        request_()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("name", nn.ACTIVATIONS)
def test_an_activation_keeps_the_dtype(name: str, rng: np.random.Generator) -> None:
    x = Tensor(rng.standard_normal((3, 4)).astype(np.float32))
    out = nn.ACTIVATIONS[name](x)
    (slope,) = grad(ops.sum(out * out), [x])
    assert out.dtype == slope.dtype == np.float32
