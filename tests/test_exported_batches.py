"""Networks whose images depend on each other in a batch: exported for one, they cannot tell how."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from ordinary_networks import export  # noqa: E402  # the benchmarks are scripts, not a package

from tinyleak import load_network, simulate  # noqa: E402
from tinyleak.audit import audit  # noqa: E402
from tinyleak.nn.models.exported import Exported  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


class Changed(nn.Module):
    """A layer, something done to what it returns, and another."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.change, self.first, self.last = change, nn.Linear(6, 5), nn.Linear(5, 3)
        self.recurrent = nn.GRU(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.change(self.first(x)))


class Recurrent(Changed):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.recurrent(x[None].expand(4, *x.shape))[0].mean(0))


def network(folder: Path, net: nn.Module) -> Exported:
    export(net, (6,), str(folder / "net.pt2"))
    return load_network(folder / "net.pt2")


MIXING = {
    "the mean of everything": lambda h: h - h.mean(),
    "a mean over the batch": lambda h: h - h.mean(0, keepdim=True),
    "counted from the last": lambda h: h / h.std((-2, -1), correction=0),
    "the length of everything": lambda h: h / h.norm(),
    "the largest of everything": lambda h: h / h.abs().max(),
    "softmax over the batch": lambda h: h.softmax(0),
    "sums so far": lambda h: h.cumsum(0),
    "each image with each": lambda h: (h @ h.t()).softmax(-1) @ h,
}
APART = {
    "a mean over features": lambda h: h - h.mean(1, keepdim=True),
    "time first": lambda h: h.view(-1, 5, 1).transpose(0, 1).mean(0).expand(-1, 5),
    "the larger of two": lambda h: torch.max(h, -h),
    "layer norm": lambda h: nn.functional.layer_norm(h, (5,)),
    "attention": lambda h: ((h[:, None] * h[..., None]).softmax(-1) @ h[..., None]).squeeze(-1),
}


@pytest.mark.parametrize("name", MIXING)
def test_a_network_that_mixes_a_batch_is_refused_for_one(name: str, tmp_path: Path) -> None:
    model, images = network(tmp_path, Changed(MIXING[name])), np.random.rand(2, 1, 1, 6)
    with pytest.raises(ValueError, match="takes the images of a batch together"):
        simulate(model, images, [0, 1])
    with pytest.raises(ValueError, match="takes the images of a batch together"):
        audit(model, model.weights, images=images, labels=[0, 1], batch=2)
    simulate(model, images[:1], [0])  # of one image all is known


@pytest.mark.parametrize("name", APART)
def test_what_keeps_the_images_of_a_batch_apart_is_not(name: str, tmp_path: Path) -> None:
    net = Changed(APART[name])
    model, images = network(tmp_path, net), np.random.rand(3, 1, 1, 6)
    client, _ = simulate(model, images, [0, 1, 2])
    loss = nn.functional.cross_entropy(
        net.double()(torch.tensor(images.reshape(3, 6))), torch.tensor([0, 1, 2])
    )
    loss.backward()
    np.testing.assert_allclose(client.gradients["first.weight"], net.first.weight.grad, atol=1e-7)


def test_a_mean_over_time_and_a_weights_length_are_neither(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Recurrent(lambda h: h)
    net.last = nn.utils.parametrizations.spectral_norm(net.last).eval()
    model = network(tmp_path, net)
    simulate(model, np.random.rand(2, 1, 1, 6), [0, 1])
