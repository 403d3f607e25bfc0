"""Files of a stranger's network, as training scripts leave them: understood, or refused at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_exported import export
from torch import nn
from torch.nn import functional

from tinyleak import attack, load_network
from tinyleak.analytic.premises import Premises
from tinyleak.attacks import Attacker, Settings, problem_of
from tinyleak.attacks.advice import likely_causes
from tinyleak.client import Client, LocalSteps, reading
from tinyleak.nn.models.exported import Exported

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


def test_dropout_that_was_off_in_the_client_is_told(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = (nn.Flatten(), nn.Linear(36, 60), nn.Tanh(), nn.Dropout(0.3), nn.Linear(60, 4))
    net = nn.Sequential(*layers).train()
    export(net, (1, 6, 6), str(tmp_path / "net.pt2"))
    gradients = shared_by(net.eval())
    client = read(tmp_path, net.state_dict(), gradients)
    said = "off, though it was exported with it, read off (no zeros in what linear layers were"
    assert str(client.facts["dropout"]).startswith(said)
    assert client.explain(attack(client, settings=Settings(iterations=200))).verdict == "exact"


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


def test_a_network_may_be_exported_after_the_steps(tmp_path: Path) -> None:
    net = network()
    before = {name: one.clone() for name, one in net.state_dict().items()}
    shared = shared_by(net)
    with torch.no_grad():
        for name, one in net.named_parameters():
            one.sub_(0.1 * shared[name])
    export(net, (1, 6, 6), str(tmp_path / "net.pt2"))
    for name, tensors in (("w", before), ("g", net.state_dict())):
        plain = {key: one.detach().clone().contiguous() for key, one in tensors.items()}
        save_file(plain, tmp_path / f"{name}.safetensors")
    client = Client.from_files(
        tmp_path / "w.safetensors",
        weights_after=tmp_path / "g.safetensors",
        model=str(tmp_path / "net.pt2"),
        learning_rate=0.1,
    )
    assert np.allclose(client.gradients["4.bias"], shared["4.bias"], atol=1e-5)


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


# Losses of networks that end in more than their last layer.

Function = Callable[[torch.Tensor], torch.Tensor]

LABEL, ONES = torch.tensor([2]), torch.tensor([[0.0, 0.0, 1.0]])


class Ends(nn.Module):
    """Two layers, or two heads, each of which ends in a function."""

    def __init__(self, end: Function, heads: int = 1, outputs: int = 3) -> None:
        super().__init__()
        self.first, self.end = nn.Linear(16, 20), end
        self.heads = nn.ModuleList([nn.Linear(20, outputs) for _ in range(heads)])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        h = torch.tanh(self.first(x.flatten(1)))
        return tuple(self.end(head(h)) for head in self.heads)


def as_arrays(net: nn.Module, of: str = "data") -> dict[str, np.ndarray]:
    return {name: getattr(p, of).detach().numpy().copy() for name, p in net.named_parameters()}


def exported(net: nn.Module, folder: Path) -> Exported:
    export(net, (1, 4, 4), str(folder / "net.pt2"))
    return load_network(folder / "net.pt2")


def plain(z: torch.Tensor) -> torch.Tensor:
    return z


def log_softmax(z: torch.Tensor) -> torch.Tensor:
    return z.log_softmax(1)


def softmax(z: torch.Tensor) -> torch.Tensor:
    return z.softmax(1)


def cross_entropy(z: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(z, LABEL)


def likelihood(z: torch.Tensor) -> torch.Tensor:
    return functional.nll_loss(z.log() if z.min() > 0 else z, LABEL)


def binary(z: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy(z, ONES)


def squares(z: torch.Tensor) -> torch.Tensor:
    return (z - 0.7 * ONES).square().mean()


HEADS: dict[str, tuple[Function, Function, str]] = {
    "logits": (plain, cross_entropy, "as it is, summed over 2 heads, read off"),
    "log-softmax": (log_softmax, likelihood, "as it is, summed over 2 heads, read off"),
    "softmax": (softmax, likelihood, "as it is, summed over 2 heads, read off"),
    "softmax twice": (softmax, cross_entropy, "no usual one of each of 2 heads"),
    "sigmoid": (torch.sigmoid, binary, "no usual one of each of 2 heads"),
    "numbers": (plain, squares, "no usual one of each of 2 heads"),
}


@pytest.mark.parametrize("name", HEADS)
def test_two_heads_of_one_image_may_have_any_loss(tmp_path: Path, name: str) -> None:
    torch.manual_seed(4)
    end, loss, said = HEADS[name]
    net, x = Ends(end, 2), torch.rand(1, 1, 4, 4)
    one, other = net(x)
    (loss(one) + loss(other)).backward()
    client = Client.of(exported(net, tmp_path), as_arrays(net), as_arrays(net, "grad"))
    assert str(client.loss.fact).startswith(said)
    found = attack(client, settings=Settings(iterations=100))
    assert client.explain(found).verdict == "exact"
    assert np.mean((found.images - x.numpy()) ** 2) < 1e-8


def test_features_beside_the_logits_are_no_head_of_their_own(tmp_path: Path) -> None:
    class Both(Ends):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            h = torch.tanh(self.first(x.flatten(1)))
            return self.heads[0](h), h

    torch.manual_seed(4)
    net, x = Both(plain), torch.rand(1, 1, 4, 4)
    cross_entropy(net(x)[0]).backward()
    client = Client.of(exported(net, tmp_path), as_arrays(net), as_arrays(net, "grad"))
    assert client.explain(attack(client, settings=Settings(iterations=100))).verdict == "exact"


STEPS: dict[str, tuple[Function, int, Function, str]] = {
    "logits": (plain, 3, cross_entropy, "cross-entropy"),
    "log-softmax": (log_softmax, 3, likelihood, "cross-entropy"),
    "softmax": (softmax, 3, likelihood, "cross-entropy"),
    "softmax twice": (softmax, 3, cross_entropy, "cross-entropy"),
    "sigmoid": (torch.sigmoid, 3, binary, "bce"),
    "squares of sigmoids": (torch.sigmoid, 3, squares, "mse"),
    "numbers": (plain, 3, squares, "mse"),
    "one number": (plain, 1, lambda z: (z - 1.5).square().mean(), "mse"),
    "one logit": (plain, 1, lambda z: -functional.logsigmoid(z).mean(), "cross-entropy"),
}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", STEPS)
def test_the_loss_of_several_steps_is_told(tmp_path: Path, name: str, momentum: float) -> None:
    torch.manual_seed(7)
    end, outputs, loss, kind = STEPS[name]
    net, x = Ends(end, 1, outputs), torch.rand(1, 1, 4, 4)
    model, before = exported(net, tmp_path), as_arrays(net)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=momentum)
    for _ in range(3):
        optimiser.zero_grad()
        loss(*net(x)).backward()
        optimiser.step()
    moved = {name: (before[name] - after) / 0.1 for name, after in as_arrays(net).items()}
    local = LocalSteps(3, 0.1, momentum=momentum)
    client = Client.of(model, before, moved, update=True, local=local, dtype="float32")
    assert client.loss.kind == kind
    assert not [cause for cause in client.premises.causes if cause.name in ("loss", "noise")]
    if not momentum:
        outcome = client.explain(attack(client, settings=Settings(iterations=200)))
        assert outcome.verdict == "exact"
        assert np.mean((outcome.images - x.numpy()) ** 2) < 1e-6


class Plain(nn.Module):
    """Two layers after a convolution that leaves no linear layer but the last."""

    def __init__(self, outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 6, 3, padding=1), nn.Linear(96, outputs, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.sigmoid(self.first(x)).flatten(1))


def client_of(
    net: nn.Module, folder: Path, of: Function, noise: float = 0.0, **said: str
) -> tuple[Client, np.ndarray]:
    x, rng = torch.rand(1, 1, 4, 4), np.random.default_rng(0)
    found = net(x)
    of(found[0] if isinstance(found, tuple) else found).backward()
    gradients = {
        name: one + np.float32(noise) * rng.standard_normal(one.shape, dtype=np.float32)
        for name, one in as_arrays(net, "grad").items()
    }
    return Client.of(exported(net, folder), as_arrays(net), gradients, **said), x.numpy()


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("loss", [squares, lambda z: z.abs().mean()])
def test_a_last_layer_without_bias_leaves_the_loss_open(
    tmp_path: Path, outputs: int, loss: Function
) -> None:
    torch.manual_seed(1)
    client, x = client_of(Plain(outputs, bias=False), tmp_path, loss)
    assert str(client.loss.fact).startswith("mse, a mean over the batch, assumed")
    found = attack(client, settings=Settings(iterations=200))
    assert client.explain(found).verdict == "exact"
    assert np.mean((found.images - x) ** 2) < 1e-6


@pytest.mark.parametrize("size", [1e-20, 1e-8, 1e8])
def test_an_unknown_loss_may_be_scaled(tmp_path: Path, size: float) -> None:
    torch.manual_seed(1)
    client, x = client_of(Ends(plain), tmp_path, lambda z: squares(z) * size)
    assert client.premises.loss is None
    found = attack(client, settings=Settings(iterations=100))
    assert client.explain(found).verdict == "exact"
    assert np.mean((found.images - x) ** 2) < 1e-6


@pytest.mark.parametrize("said", [{}, {"loss": "mse"}])
@pytest.mark.parametrize("loss", [squares, lambda z: -functional.logsigmoid(z).mean()])
def test_noise_on_the_gradient_of_one_output_is_measured(
    tmp_path: Path, loss: Function, said: dict[str, str]
) -> None:
    torch.manual_seed(1)
    client, _ = client_of(Ends(plain, 1, 1), tmp_path, loss, 1e-3, **said)
    assert client.noise is not None and 3e-7 < client.noise < 3e-6
    assert client.explain(attack(client, settings=Settings(iterations=100))).verdict == "consistent"


def test_noise_that_no_layer_shows_is_a_likely_cause(tmp_path: Path) -> None:
    torch.manual_seed(1)
    client, _ = client_of(Plain(1), tmp_path, squares, 1e-4)
    problem = problem_of(client, Attacker(settings=Settings(iterations=100)))
    found = attack(problem)
    first, *_ = likely_causes(problem, found, client.explain(found))
    assert "may be noise on it: no layer has room to show that" in first.text


@pytest.mark.parametrize("end", [plain, torch.sigmoid])
def test_numbers_of_a_batch_are_not_taken_for_labels(tmp_path: Path, end: Function) -> None:
    torch.manual_seed(2)
    net, x, aims = Ends(end), torch.rand(2, 1, 4, 4), torch.rand(2, 3)
    (net(x)[0] - aims).abs().pow(1.5).mean().backward()
    arrays = (as_arrays(net), as_arrays(net, "grad"))
    client = Client.of(exported(net, tmp_path), *arrays, batch=2)
    assert str(client.loss.fact).startswith("mse, a mean over the batch, assumed")
    problem = problem_of(client, Attacker(settings=Settings(iterations=20)))
    found = attack(problem)
    causes = likely_causes(problem, found, client.explain(found))
    assert all("or mse" in cause.text for cause in causes if cause.advice == "--loss bce")


def test_what_speaks_for_a_yes_or_no_speaks_not_against_the_cross_entropy_of_one_logit(
    tmp_path: Path,
) -> None:
    torch.manual_seed(1)
    client, _ = client_of(Plain(1), tmp_path, lambda z: -functional.logsigmoid(z).mean())
    assert client.loss.kind == "cross-entropy"
    assert "loss" not in [cause.name for cause in client.premises.causes]


def test_a_squared_error_of_two_heads_that_was_said_is_said(tmp_path: Path) -> None:
    torch.manual_seed(4)
    net, x = Ends(plain, 2), torch.rand(1, 1, 4, 4)
    sum(squares(z) for z in net(x)).backward()
    arrays = as_arrays(net), as_arrays(net, "grad")
    client = Client.of(exported(net, tmp_path), *arrays, loss="mse", reduction="mean")
    assert str(client.loss.fact).startswith("mse, a mean over the batch, summed over 2 heads, said")
    np.testing.assert_allclose(client.targets, [[0.0, 0.0, 0.7] * 2], atol=1e-5)
    found = attack(client, settings=Settings(iterations=100))
    assert client.explain(found).verdict == "exact"
    assert np.mean((found.images - x.numpy()) ** 2) < 1e-8


@pytest.mark.parametrize("idle", [0, 1])
def test_a_head_that_is_not_in_the_loss_is_left_out(tmp_path: Path, idle: int) -> None:
    torch.manual_seed(4)
    net, x = Ends(plain, 2), torch.rand(1, 1, 4, 4)
    cross_entropy(net(x)[1 - idle]).backward()
    gradients = {n: None if p.grad is None else p.grad.numpy() for n, p in net.named_parameters()}
    client = Client.of(exported(net, tmp_path), as_arrays(net), gradients)
    assert client.loss.fact.source == "read off" and client.labels.labels.tolist() == [2]
    assert str(client.facts["heads"]).startswith("1 of 2 in the loss, assumed")
    found = attack(client, settings=Settings(iterations=100))
    assert client.explain(found).verdict == "exact"
    assert np.mean((found.images - x.numpy()) ** 2) < 1e-8


@pytest.mark.parametrize("end", [plain, torch.sigmoid])
def test_one_output_of_a_batch_may_be_a_number(tmp_path: Path, end: Function) -> None:
    torch.manual_seed(2)
    net, x = Ends(end, 1, 1), torch.rand(2, 1, 4, 4)
    (net(x)[0] - 0.5).square().mean().backward()
    arrays = as_arrays(net), as_arrays(net, "grad")
    model = exported(net, tmp_path)
    client = Client.of(model, *arrays, batch=2)
    assert client.loss.kind == "cross-entropy" and client.premises.rank == 2
    assert [(one.name, one.advice) for one in client.premises.causes] == [("loss", "--loss mse")]
    assert Client.of(model, *arrays, batch=2, loss="mse").premises.causes == ()


def test_a_binary_loss_of_several_steps_that_was_said_is_that_of_logits(tmp_path: Path) -> None:
    torch.manual_seed(7)
    net, x = Ends(torch.sigmoid), torch.rand(1, 1, 4, 4)
    model, before = exported(net, tmp_path), as_arrays(net)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        binary(net(x)[0]).backward()
        optimiser.step()
    moved = {name: (before[name] - after) / 0.1 for name, after in as_arrays(net).items()}
    known = {"update": True, "local": LocalSteps(3, 0.1), "dtype": "float32", "loss": "bce"}
    client = Client.of(model, before, moved, **known)
    assert client.explain(attack(client, settings=Settings(iterations=200))).verdict == "exact"


@pytest.mark.parametrize("kind", ["heads", "steps", "softmax"])
def test_what_has_been_read_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    batch = 2 if kind == "softmax" else 1
    net = Ends(softmax if kind == "softmax" else plain, 2 if kind == "heads" else 1)
    outputs, labels = net(torch.rand(batch, 1, 4, 4)), torch.tensor([2, 0][:batch])
    sum(functional.cross_entropy(z, labels) for z in outputs).backward()
    known = {"batch": batch, "local": LocalSteps(3, 0.1) if kind == "steps" else None}
    read = Premises(factor=0.5)
    monkeypatch.setattr(reading, "read_premises", None)
    client = Client.of(
        exported(net, tmp_path), as_arrays(net), as_arrays(net, "grad"), read=read, **known
    )
    assert client.premises.factor == 0.5 and client.loss.kind == "cross-entropy"
