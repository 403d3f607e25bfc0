"""Operations of exported networks, beside PyTorch: values, and gradients of two orders."""

from __future__ import annotations

import json
import math
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_files import BYTES, SECONDS
from test_exported import assert_close, export
from torch import nn
from torch.nn import functional

from tinyleak import load_network, ops, trace
from tinyleak.gradient import grad
from tinyleak.nn.models.exported import Exported
from tinyleak.tensor import Tensor

pytestmark = pytest.mark.filterwarnings("ignore")


class Calls(nn.Module):
    """A function of what one small convolution gives, and a linear layer behind it."""

    def __init__(self, function: Callable[..., torch.Tensor], *, series: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 4, 3, padding=1) if series else nn.Conv2d(2, 4, 3, padding=1)
        self.function, self.scale = function, nn.Parameter(torch.full((4,), 0.3))
        self.square = nn.Parameter(torch.randn(3, 4, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.first(x), self).flatten(1)


IMAGES: dict[str, Callable[[torch.Tensor, Any], torch.Tensor]] = {
    "activations": lambda x, m: sum(
        f(2 * x)
        for f in (
            *(torch.relu, torch.sigmoid, torch.tanh, functional.relu6, functional.elu),
            *(functional.leaky_relu, functional.selu, functional.silu, functional.mish),
            *(functional.gelu, functional.hardtanh, functional.celu, functional.softsign),
            *(functional.logsigmoid, torch.abs, torch.exp, torch.square),
            lambda x: functional.gelu(x, approximate="tanh"),
            lambda x: functional.softplus(x, 2),
            lambda x: functional.leaky_relu(x, 0.2),
            lambda x: functional.hardtanh(x, -0.5, 0.7),
            lambda x: functional.prelu(x, m.scale),
            lambda x: torch.clamp(x, min=-0.2),
        )
    ),
    "a square root": lambda x, m: torch.log(torch.sqrt(x * x + 1)) + torch.rsqrt(2 + x.square()),
    "arithmetic": lambda x, m: (1 - x) / (2 + x * x) - x.neg() + x**3 - m.scale.view(1, 4, 1, 1),
    "comparisons": lambda x, m: torch.where(x > 0.1, x * x, 2 * x).masked_fill(x < -0.3, 0.5),
    "maxima": lambda x, m: torch.maximum(x, -x) - torch.minimum(x, x * x) + x.amax(1, True),
    "shapes": lambda x, m: (
        x.permute(0, 2, 3, 1)
        .reshape(1, 9, 4, -1)
        .transpose(1, 2)
        .squeeze(0)
        .unsqueeze(0)[:, 1:, ::2]
    ),
    "parts": lambda x, m: (
        torch.cat([*x.chunk(2, 1), torch.stack(x.unbind(1)[:2], 1)], 2)
        + torch.cat(x.split([1, 3], 1)[::-1], 1)[:, :2].select(2, 0).mean()
    ),
    "padding": lambda x, m: functional.pad(x, (1, 2, 0, 1)) * 1.5,
    "means": lambda x, m: x.mean((2, 3)) + x.sum(3).mean(2) + x.mean(),
    "softmaxes": lambda x, m: x.softmax(1) * x.log_softmax(-1),
    "products": lambda x, m: torch.matmul(x, x.transpose(2, 3)) @ x,
    "pooling": lambda x, m: sum(
        p(x).flatten(2).square().sum(2)
        for p in (
            *(nn.MaxPool2d(3, 2, 1), nn.MaxPool2d((2, 3), 1, dilation=2), nn.AvgPool2d(3, 2, 1)),
            *(nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), nn.MaxPool2d(2)),
            *(nn.AdaptiveAvgPool2d((4, 3)), nn.AdaptiveMaxPool2d(3)),
            nn.AdaptiveMaxPool2d((4, 5)),
        )
    ),
    "in place": lambda x, m: functional.silu((x * 2).add_(x), inplace=True) * m.scale[0],
    "a scaled image": lambda x, m: functional.interpolate(x, scale_factor=2),
    "an expanded scale": lambda x, m: x * m.scale[None, :, None, None].expand_as(x),
    "constants": lambda x, m: x + torch.zeros(6) + torch.ones_like(x) + torch.full((6, 1), 0.25),
    "attention": lambda x, m: functional.scaled_dot_product_attention(x, x * 2, x, is_causal=True),
    "norms over axes": lambda x, m: sum(
        functional.normalize(x * y, p, 1) for p, y in ((1, x), (2, 1), (3, x), (math.inf, 1))
    ),
    "the length of nothing": lambda x, m: functional.normalize(torch.relu(x - 9), dim=1) + x.norm(),
    "cosines": lambda x, m: functional.cosine_similarity(x[:, :, None], x[:, None] ** 2, -1),
    "variances": lambda x, m: x.var((2, 3), keepdim=True) / x.std() + sum(torch.std_mean(x, 1)) * x,
    "a standardised weight": lambda x, m: functional.conv2d(
        x, m.square / (m.square.std((1, 2, 3), keepdim=True, correction=0) + 1e-5)
    ),
    "the largest": lambda x, m: (
        (x.max(1, True)[0] - x.min(2).values.unsqueeze(2)) * torch.max(x, x * x)
        + (x.max() - x.amin((1, 2), True)) * torch.min(x, x * x).clamp_max(0.4).clamp_min(-0.4)
    ),
    "sums": lambda x, m: (
        x.cumsum(2) * x.logsumexp((2, 3), True)
        + torch.einsum("bchw,bdhw,c->bdh", x, x, m.scale).mean()
    ),
    "einsums": lambda x, m: (
        torch.einsum("b c i j, b c j k -> b k c i", x, x) + torch.einsum("bchw->bhcw", x).sum()
    ),
    "products with vectors": lambda x, m: (
        x.flatten(2).mT @ m.scale
        + torch.dot(m.scale, x[0, :, 0, 0])
        + torch.mv(x[0, 0], x[0, 1, 0]).sum()
    ),
    "waves": lambda x, m: torch.sin(x) * x.cos() + torch.log1p(x * x) - torch.expm1(x),
    "logarithms": lambda x, m: torch.log2(1 + x * x) - torch.log10(2 + x * x) + 2**x,
    "shrunk": lambda x, m: sum(
        f(x)
        for f in (
            *(
                functional.hardshrink,
                functional.softshrink,
                functional.tanhshrink,
                functional.rrelu,
            ),
            lambda x: functional.threshold(x, 0.1, 0.2) + x.sign() * x,
        )
    ),
    "masks": lambda x, m: (
        x * ((x > 0) & ~(x > 1)).double() + torch.where((x > 0.5) | (x < -0.5), x * x, 0.0)
    ),
    "a causal mask": lambda x, m: (
        x.masked_fill(torch.ones(6, 6).triu(1).bool(), float("-inf")).softmax(-1) * x.triu()
    ),
    "blends": lambda x, m: (
        torch.addcmul(x, x, x, value=0.5)
        - torch.addcdiv(x, x, x * x + 1)
        + torch.lerp(x, x * x, 0.3)
    ),
    "moves": lambda x, m: (
        x.roll((1, 2), (2, 3)) * x.flip(3)
        + x.rot90(1, (2, 3)) * x.movedim(2, 3)
        + functional.pixel_shuffle(functional.pixel_unshuffle(x, 3).flip(1), 3)
        + functional.channel_shuffle(x, 2) * x.swapaxes(2, 3)
    ),
    "repeats": lambda x, m: x.repeat(1, 2, 1, 1) * x.repeat_interleave(2, 1) + x.tile((2, 1, 1)),
    "picks": lambda x, m: (
        x[:, [2, 0]][:, :, :, torch.arange(3)].flatten(2)
        * x.index_select(1, torch.tensor([1, 1])).diagonal(dim1=2, dim2=3).repeat(1, 1, 3)
        * m.scale[torch.tensor([[0], [3]])]
        + x.narrow(1, 1, 2).ravel()[:18]
    ),
    "windows": lambda x, m: (
        functional.unfold(x, (2, 3), dilation=2, padding=(1, 2), stride=(1, 2)).square().sum()
        + x.unfold(2, 3, 2)
    ),
    "padding of every kind": lambda x, m: (
        sum(
            functional.pad(x, (1, 2, 2, 1), mode) * x.mean()
            for mode in ("reflect", "replicate", "circular")
        )
        + functional.pad(functional.pad(x, (2, 2, 2, 1), value=0.5), (-1, 0))
    ),
    "sampled anew": lambda x, m: (
        sum(
            functional.interpolate(x * x, size=(9, 4), **how)
            for how in (
                *({"mode": "nearest"}, {"mode": "nearest-exact"}, {"mode": "bilinear"}),
                {"mode": "bilinear", "align_corners": True},
            )
        )[..., :3]
        + functional.interpolate(x, scale_factor=1.5, mode="bilinear")[..., :3]
    ),
    "made constants": lambda x, m: (
        x @ torch.eye(6, dtype=x.dtype) + torch.full_like(x, 0.5) * x.new_ones(6) + x.view_as(x)
    ),
    "a mask": lambda x, m: functional.scaled_dot_product_attention(
        x, x, x, torch.ones(6, 6).tril().bool()
    ),
}
SERIES: dict[str, Callable[[torch.Tensor, Any], torch.Tensor]] = {
    "pooled series": lambda x, m: functional.avg_pool1d(functional.max_pool1d(x, 3, 2, 1), 2),
    "adaptively pooled": lambda x, m: (
        functional.adaptive_avg_pool1d(x, 3) + functional.adaptive_max_pool1d(x, 3)
    ),
    "gated": lambda x, m: functional.glu(x, 1),
    "looked up": lambda x, m: x[:, :3] + functional.embedding(torch.arange(3), m.scale[:, None]),
}
MODULES: dict[str, nn.Module] = {
    "transposed convolution": nn.ConvTranspose2d(2, 3, 3, 2, 1, 1),
    "a convolution of the same size": nn.Conv2d(2, 3, (2, 3), padding="same", dilation=(1, 2)),
    "norms": nn.Sequential(
        *(nn.Conv2d(2, 4, 1), nn.InstanceNorm2d(4, affine=True), nn.GroupNorm(2, 4)),
        *(nn.LayerNorm([4, 6, 6]), nn.BatchNorm2d(4, affine=False)),
    ),
    "weight norm": nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 3, 3)),
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 2, 1)),
    ),
    "root mean square": nn.Sequential(nn.RMSNorm([6, 6], 1e-5), nn.RReLU()),
    "padded in circles": nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
    "bilinear": nn.Sequential(nn.Flatten(), nn.Linear(72, 4)),
}


def check_beside_pytorch(network: nn.Module, shape: tuple[int, ...], path: Path) -> Exported:
    """Compare the values and gradients of two orders, for two inputs at once."""
    network = network.double().eval()
    export(network, shape, str(path))
    model = load_network(path)
    x = np.random.default_rng(3).standard_normal((2, *shape))
    z = torch.tensor(x, requires_grad=True)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = torch.cat([network(one).reshape(1, -1) for one in z.split(1)])
        (slope,) = torch.autograd.grad((expected**3).sum(), z, create_graph=True)
        (second,) = torch.autograd.grad((slope**2).sum(), z)
    ours = Tensor(x.reshape(2, *model.image_shape))
    params = {key: Tensor(a) for key, a in model.weights.items()}
    found = model(params, ours)
    slopes = grad(ops.sum(found * found * found), ours)
    twice = grad(ops.sum(slopes * slopes), ours)
    assert_close([found.numpy()], [expected.detach().numpy()])
    assert_close([slopes.numpy().reshape(x.shape)], [slope.detach().numpy()])
    assert_close([twice.numpy().reshape(x.shape)], [second.numpy()])
    return model


@pytest.mark.parametrize("name", IMAGES)
def test_an_operation_on_images(tmp_path: Path, name: str) -> None:
    torch.manual_seed(1)
    check_beside_pytorch(Calls(IMAGES[name]), (2, 6, 6), tmp_path / "net.pt2")


@pytest.mark.parametrize("name", SERIES)
def test_an_operation_on_series(tmp_path: Path, name: str) -> None:
    torch.manual_seed(1)
    check_beside_pytorch(Calls(SERIES[name], series=True), (2, 8), tmp_path / "net.pt2")


@pytest.mark.parametrize("name", MODULES)
def test_a_module(tmp_path: Path, name: str) -> None:
    torch.manual_seed(1)
    tail = nn.Flatten()
    check_beside_pytorch(nn.Sequential(MODULES[name], tail), (2, 6, 6), tmp_path / "net.pt2")


@pytest.mark.parametrize(
    "layer",
    [
        nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True),
        nn.GRU(3, 4, bias=False, batch_first=True),
        nn.RNN(3, 4, 2, batch_first=True, nonlinearity="relu"),
    ],
)
def test_a_recurrent_layer(tmp_path: Path, layer: nn.Module) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out, state = self.layer(x.transpose(1, 2))
            last = state[0] if isinstance(state, tuple) else state
            return torch.cat([out.flatten(1), last.transpose(0, 1).flatten(1)], 1)

    check_beside_pytorch(Net(), (3, 5), tmp_path / "net.pt2")


@pytest.mark.parametrize(
    "cell", [nn.GRUCell(3, 4), nn.LSTMCell(3, 4), nn.RNNCell(3, 4), nn.RNNCell(3, 4, False, "relu")]
)
def test_a_cell_that_a_loop_of_ones_own_calls(tmp_path: Path, cell: nn.Module) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            state: Any = None
            for step in range(x.shape[2]):
                state = self.cell(x[:, :, step], state)
            return torch.cat(state, 1) if isinstance(state, tuple) else state

    check_beside_pytorch(Net(), (3, 5), tmp_path / "net.pt2")


def test_a_mask_is_made_anew_of_other_numbers(tmp_path: Path, rng: np.random.Generator) -> None:
    network = Calls(lambda x, m: x * (x > 0).float()).double()
    model = check_beside_pytorch(network, (2, 6, 6), tmp_path / "net.pt2")
    params = {key: Tensor(a) for key, a in model.weights.items()}
    x = rng.standard_normal((1, 2, 6, 6))
    (found,) = trace(lambda z: model(params, z), x, check=False)(-x)
    assert_close([found], [model(params, Tensor(-x)).numpy()])


def test_a_distance_of_rows(tmp_path: Path, rng: np.random.Generator) -> None:
    network = Calls(lambda x, m: torch.cdist(x[0, 0], x[0, 1] + 1)).double()
    export(network, (2, 6, 6), str(tmp_path / "net.pt2"))
    model, x = load_network(tmp_path / "net.pt2"), rng.standard_normal((1, 2, 6, 6))
    found = model({key: Tensor(a) for key, a in model.weights.items()}, Tensor(x))
    assert_close([found.numpy().ravel()], [network(torch.tensor(x)).detach().numpy().ravel()])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x, m: x * x.detach(), "node 'detach', detach, .*: a gradient that stops inside"),
        (lambda x, m: x[:, x[0, :, 0, 0].argsort()], "node 'argsort' is the operation 'argsort'"),
        (lambda x, m: x.norm(0.5, 1), "node 'linalg_vector_norm'.* norm of order 0.5 is not known"),
        (lambda x, m: torch.einsum("...c,...c->...", x, x), "the sum '....*' is not known here"),
        (
            lambda x, m: x + functional.embedding(torch.arange(4), m.scale[:, None], 1)[:, :, None],
            "node 'embedding', .*: row 1, which is looked up, has no gradient",
        ),
    ],
)
def test_what_is_not_known_is_told_with_its_node(
    tmp_path: Path, function: Callable[..., torch.Tensor], message: str
) -> None:
    export(Calls(function), (2, 6, 6), str(tmp_path / "net.pt2"))
    with pytest.raises(ValueError, match=message):
        load_network(tmp_path / "net.pt2")


@pytest.mark.parametrize(
    ("function", "argument"),
    [
        (lambda x, m: functional.adaptive_avg_pool2d(x, 3), "output_size"),
        (lambda x, m: functional.adaptive_max_pool2d(x, 3), "output_size"),
        (lambda x, m: x.repeat(1, 2, 1, 1), "repeats"),
        (lambda x, m: x.repeat_interleave(2, 1), "repeats"),
        (lambda x, m: x.tile(2, 1), "dims"),
        (lambda x, m: x + torch.zeros(6), "size"),
        (lambda x, m: x * torch.arange(6), "end"),
        (lambda x, m: x * torch.linspace(0, 1, 6), "steps"),
        (lambda x, m: x @ torch.eye(6), "n"),
        (lambda x, m: functional.conv2d(x, m.square, None, 1, 1), "padding"),
        (lambda x, m: functional.conv_transpose2d(x, m.square.transpose(0, 1), None, 2), "stride"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
@pytest.mark.parametrize("size", [10**5, 10**9, 2**62])
def test_no_argument_makes_an_operation_large(
    tmp_path: Path, function: Callable[..., torch.Tensor], argument: str, size: int
) -> None:
    export(Calls(function), (2, 6, 6), str(tmp_path / "net.pt2"))
    with zipfile.ZipFile(tmp_path / "net.pt2") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(one for one in members if one.endswith("models/model.json"))
    program = json.loads(members[name])
    for node in program["graph_module"]["graph"]["nodes"][1:]:
        for one in node["inputs"]:
            if one["name"] == argument:
                (kind, value), *_ = one["arg"].items()
                one["arg"] = {kind: [size] * len(value) if isinstance(value, list) else size}
    members[name] = json.dumps(program).encode()
    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
        for one, content in members.items():
            archive.writestr(one, content)
    began = time.process_time()
    tracemalloc.start()
    with pytest.raises(ValueError, match="cannot be computed"):
        load_network(tmp_path / "net.pt2")
    assert tracemalloc.get_traced_memory()[1] < BYTES
    tracemalloc.stop()
    assert time.process_time() - began < SECONDS
