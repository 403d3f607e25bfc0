"""Files of a stranger's network, as training scripts leave them: understood, or refused at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_exported import export
from torch import nn
from torch.nn import functional

from tinyleak.client import Client

pytestmark = pytest.mark.filterwarnings("ignore")

Named = dict[str, torch.Tensor]


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 4))
    return nn.Sequential(*layers).eval()


def shared_by(net: nn.Module) -> Named:
    functional.cross_entropy(net(torch.rand(1, 1, 6, 6)), torch.tensor([2])).backward()
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def read(folder: Path, weights: Named, gradients: Named) -> Client:
    for name, tensors in (("w", weights), ("g", gradients)):
        plain = {key: one.detach().clone().contiguous() for key, one in tensors.items()}
        save_file(plain, folder / f"{name}.safetensors")
    files = (folder / "w.safetensors", folder / "g.safetensors")
    return Client.from_files(*files, model=str(folder / "net.pt2"))


@pytest.mark.parametrize(
    ("before", "shared"),
    [
        *(("module.{}", "module.{}"), ("_orig_mod.{}", "{}"), ("{}", "module._orig_mod.{}")),
        *(("model.{}", "{}.grad"), ("{}", "grad.{}")),
    ],
)
def test_names_are_told_without_what_wraps_them(tmp_path: Path, before: str, shared: str) -> None:
    net = network()
    export(net, (1, 6, 6), str(tmp_path / "net.pt2"))
    net[1].running_mean.fill_(0.5)
    gradients, weights = shared_by(net), net.state_dict()
    for held in (gradients, {**gradients, "1.running_mean": weights["1.running_mean"]}):
        client = read(
            tmp_path,
            {before.format(name): one for name, one in weights.items()},
            {shared.format(name): one for name, one in held.items()},
        )
        assert "unused" not in client.facts and client.frozen == ()
        np.testing.assert_array_equal(client.network.constants["1.running_mean"], 0.5)
        for name, gradient in gradients.items():
            np.testing.assert_allclose(
                client.gradients[name] * client.loss.factor, gradient, rtol=1e-6
            )


def test_a_layer_that_sent_nothing_may_be_wrapped_as_well(tmp_path: Path) -> None:
    net = network()
    export(net, (1, 6, 6), str(tmp_path / "net.pt2"))
    gradients = {f"module.{name}": one for name, one in shared_by(net).items()}
    del gradients["module.0.weight"], gradients["module.0.bias"]
    assert read(tmp_path, net.state_dict(), gradients).frozen == ("0.weight", "0.bias")


def test_files_that_were_swapped_are_refused(tmp_path: Path) -> None:
    net = network()
    export(net, (1, 6, 6), str(tmp_path / "net.pt2"))
    gradients = shared_by(net)
    with pytest.raises(ValueError, match="are the weights that were saved with the network"):
        read(tmp_path, gradients, net.state_dict())
    with pytest.raises(ValueError, match="are the weights from before, so nothing can be read"):
        read(tmp_path, gradients, gradients)
    with pytest.raises(ValueError, match="gradients, 2 tensors, cannot be told by name and shape"):
        read(tmp_path, net.state_dict(), {"a": torch.ones(3, 3), "b": torch.ones(2)})


def test_a_network_may_be_exported_for_any_batch(tmp_path: Path) -> None:
    class Series(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent, self.last = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            batch = x.size(0)
            start = torch.zeros(1, batch, 5)
            y, _ = self.recurrent(x.view(batch, -1, 6), (start, start))
            return self.last(y.reshape(2 * batch, -1, 5).view(batch, 2, -1, 5)[:, 1, -1])

    net, axes = Series(), ({0: torch.export.Dim("batch")},)
    program = torch.export.export(net, (torch.zeros(2, 1, 6, 6),), dynamic_shapes=axes)
    torch.export.save(program, tmp_path / "net.pt2")
    gradients = shared_by(net)
    client = read(tmp_path, net.state_dict(), gradients)
    assert client.model.image_shape == (1, 6, 6) and client.loss.kind == "cross-entropy"
    assert client.premises.loss_source == "read off"
