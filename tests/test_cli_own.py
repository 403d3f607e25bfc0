"""`--model net.pt2`: a network of one's own, exported from PyTorch, in every command."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Refused, Run, read_result
from safetensors.numpy import load_file, save_file
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from ordinary_networks import export  # noqa: E402  # the benchmarks are scripts, not a package

from tinyleak import attack, load_network  # noqa: E402
from tinyleak.cli.labels import labels_told  # noqa: E402
from tinyleak.client import Client  # noqa: E402
from tinyleak.metrics import matched_mse  # noqa: E402
from tinyleak.nn.model import parameter_gradients  # noqa: E402
from tinyleak.nn.models.exported import ending  # noqa: E402
from tinyleak.nn.split import given_one_row  # noqa: E402
from tinyleak.tensor import Tensor  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

SHAPE = (1, 8, 8)


def network(*, dropout: float = 0.0, training: bool = False) -> nn.Module:
    torch.manual_seed(3)
    layers = (nn.Conv2d(1, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(), nn.MaxPool2d(2))
    net = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(768, 4))
    net[1].running_mean.normal_(0.0, 0.1)
    return net.train(training)


def as_numpy(named: object) -> dict[str, np.ndarray]:
    return {name: one.detach().numpy() for name, one in dict(named).items()}  # type: ignore[call-overload]


def net_state(net: nn.Module) -> list[tuple[str, np.ndarray]]:
    return [(name, p.numpy()) for name, p in net.state_dict().items() if p.ndim]


def save(folder: Path, net: nn.Module) -> np.ndarray:
    """Write net.pt2 and the weights and gradient of one image, as PyTorch saves them."""
    export(net, SHAPE, str(folder / "net.pt2"))
    rng = np.random.default_rng(1)
    image = np.where(rng.random((1, *SHAPE)) < 0.4, rng.random((1, *SHAPE)), 0.0)
    save_file(as_numpy(net.named_parameters()), folder / "w.safetensors")
    loss = nn.functional.cross_entropy(net(torch.tensor(image).float()), torch.tensor([2]))
    loss.backward()
    gradients = {name: p.grad for name, p in net.named_parameters()}
    save_file(as_numpy(gradients), folder / "g.safetensors")
    return image


def options(folder: Path, *, weights: bool = True) -> list[object]:
    given = ["--weights", folder / "w.safetensors"] if weights else []
    return [*given, "--model", folder / "net.pt2", "--gradients", folder / "g.safetensors"]


@pytest.mark.parametrize("weights", [True, False], ids=["weights beside it", "its own weights"])
@pytest.mark.usefixtures("without_pictures")
def test_an_image_comes_back(run: Run, tmp_path: Path, weights: bool) -> None:
    image = save(tmp_path, network())
    out = tmp_path / "out"
    answer = run("attack", *options(tmp_path, weights=weights), "--out", out, "--iterations", 50)
    assert answer.code == 0, answer.out + answer.err
    said = " ".join(answer.out.split())
    assert "1x8x8; net, 4 classes" in said
    assert "network net, with its activations, said (by its file)" in said
    found = np.load(out / "reconstruction.npz")["images"]
    assert np.mean((found - image) ** 2) < 1e-8
    settings = read_result(out)["settings"]
    assert (settings["model"], settings["activation"]) == ("exported", "relu")


def test_buffers_beside_the_weights_take_the_place_of_its_own(tmp_path: Path) -> None:
    net = network()
    save(tmp_path, net)
    buffers = {"1.running_var": np.full(48, 2.0, np.float32)}
    save_file(as_numpy(net.named_parameters()) | buffers, tmp_path / "w.safetensors")
    files = {"weights": tmp_path / "w.safetensors", "gradients": tmp_path / "g.safetensors"}
    client = Client.from_files(**files, model=str(tmp_path / "net.pt2"))
    np.testing.assert_array_equal(client.network.constants["1.running_var"], 2.0)
    np.testing.assert_array_equal(client.network.constants["1.running_mean"], net[1].running_mean)


def test_dropout_and_batch_norm_in_training_are_told(run: Run, tmp_path: Path) -> None:
    image = save(tmp_path, network(dropout=0.3, training=True))
    files = {"weights": tmp_path / "w.safetensors", "gradients": tmp_path / "g.safetensors"}
    client = Client.from_files(**files, model=str(tmp_path / "net.pt2"))
    assert client.facts["dropout"].value == "1 masks of dropout"
    assert client.facts["batch norm"].source == "said"
    assert image.shape == (1, *client.model.image_shape)


def test_masks_of_a_batch_are_a_likely_cause(run: Run, tmp_path: Path) -> None:
    net = network(dropout=0.3, training=True)
    save(tmp_path, net)
    net.zero_grad()
    functional.cross_entropy(net(torch.rand(2, *SHAPE)), torch.tensor([1, 2])).backward()
    gradients = {name: p.grad for name, p in net.named_parameters()}
    save_file(as_numpy(gradients), tmp_path / "g.safetensors")
    how = ["--batch", 2, "--method", "lbfgs", "--iterations", 2]
    said = " ".join(run("attack", *options(tmp_path), *how).out.split())
    assert "dropout was taken to be off: masks are told by the gradient of one image alone" in said


def test_images_that_share_the_statistics_of_a_batch_come_back_together(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Tanh(), nn.AvgPool2d(2))
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 32), nn.Tanh(), nn.Linear(32, 4))
    save(tmp_path, net)
    images = torch.rand(2, *SHAPE)
    net.zero_grad()
    functional.cross_entropy(net(images), torch.tensor([1, 2])).backward()
    gradients = {name: p.grad for name, p in net.named_parameters()}
    save_file(as_numpy(gradients), tmp_path / "g.safetensors")
    files = {"weights": tmp_path / "w.safetensors", "gradients": tmp_path / "g.safetensors"}
    client = Client.from_files(**files, model=str(tmp_path / "net.pt2"), batch=2)
    found = attack(client, method="auto")
    assert client.explain(found).verdict == "exact"
    # How far float32 lets it come depends on how a processor rounds PyTorch's gradient.
    assert matched_mse(found.images, images.numpy()).max() < 1e-6


def test_a_client_is_simulated_swept_and_audited_with_it(run: Run, tmp_path: Path) -> None:
    save(tmp_path, network())
    image = tmp_path / "image.png"
    from PIL import Image

    rng = np.random.default_rng(2)
    Image.fromarray(np.where(rng.random((8, 8)) < 0.4, 255, 0).astype(np.uint8)).save(image)
    own = ["--model", tmp_path / "net.pt2"]
    pictured = ["--image", image, "--shape", "1,8,8", "--classes", 4]
    answer = run("victim", *own, *pictured, "--out", tmp_path / "v")
    assert answer.code == 0 and f"--model {tmp_path}/net.pt2 --weights" in answer.out
    notes = json.loads((tmp_path / "v" / "weights.json").read_text())
    assert notes == {"shape": [1, 8, 8], "classes": 4}
    answer = run("attack", *own, *pictured, "--iterations", 50)
    assert "label      0 (right)" in answer.out
    answer = run("audit", *own, "--image", image, "--examples", 1, "--noise", 0)
    assert answer.code == 0 and "activation  relu is not smooth" in answer.out


def test_a_sweep_takes_it_beside_the_built_in_ones(run: Run, tmp_path: Path) -> None:
    torch.manual_seed(0)
    export(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), (1, 28, 28), str(tmp_path / "net.pt2"))
    grid = ["--model", tmp_path / "net.pt2", "mlp", "--defense", "none", "gaussian:1e-2"]
    table = ["--table", tmp_path / "t.sqlite", "--csv", tmp_path / "t.csv"]
    answer = run("sweep", *grid, "--iterations", 20, "--jobs", 1, "--quiet", *table)
    assert answer.code == 0, answer.err
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert [row["error"] for row in rows] == [""] * 4
    own = {row["defense"]: float(row["mse"]) for row in rows if row["model"] == "exported"}
    assert own["none"] < 1e-12 < own["gaussian:0.01"]


def test_a_client_is_simulated_and_swept_with_other_weights(run: Run, tmp_path: Path) -> None:
    from PIL import Image

    net = network()
    save(tmp_path, net)
    rng = np.random.default_rng(3)
    other = {name: p + 0.01 * rng.random(p.shape).astype("f4") for name, p in net_state(net)}
    save_file(other, tmp_path / "w.safetensors")
    Image.fromarray(rng.integers(256, size=(8, 8)).astype(np.uint8)).save(tmp_path / "i.png")
    own = ["--model", tmp_path / "net.pt2", "--weights", tmp_path / "w.safetensors"]
    pictured = ["--image", tmp_path / "i.png", "--shape", "1,8,8", "--classes", 4]
    assert run("victim", *own, *pictured, "--out", tmp_path / "v").code == 0
    written = load_file(tmp_path / "v" / "weights.safetensors")
    for name, array in other.items():  # the buffers, too
        np.testing.assert_array_equal(written[name], array)
    files = {"weights": tmp_path / "v/weights.safetensors"}
    files["gradients"] = tmp_path / "v/gradients.safetensors"
    client = Client.from_files(**files, model=str(tmp_path / "net.pt2"))
    np.testing.assert_array_equal(client.network.constants["1.running_var"], other["1.running_var"])
    assert "unused" not in client.facts
    table = ["--table", tmp_path / "t.sqlite", "--iterations", 1, "--jobs", 1]
    assert run("sweep", *own[:2], *pictured, *table).out.startswith("1 attacks; 0 are in")
    answer = run("sweep", *own, *pictured, *table, "--csv", tmp_path / "t.csv")
    assert answer.out.startswith("1 attacks; 0 are in"), answer.err
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert [(row["data"], row["error"]) for row in rows] == [("image", "")] * 2


def test_weights_are_those_of_a_network_that_is_named(refused: Refused, tmp_path: Path) -> None:
    save(tmp_path, network())
    weights = ["--weights", tmp_path / "w.safetensors"]
    for command in (["victim", "--out", tmp_path / "v"], ["sweep"]):
        said = refused(*command, *weights)
        assert "--weights are of a network of your own, but lenet was chosen" in said


def test_networks_of_one_name_are_not_taken_for_each_other(run: Run, tmp_path: Path) -> None:
    places = []
    for seed, activation in enumerate((nn.Tanh(), nn.Tanh(), nn.Hardshrink())):
        torch.manual_seed(min(seed, 1))
        net = nn.Sequential(nn.Flatten(), nn.Linear(784, 3), activation, nn.Linear(3, 10))
        places.append(tmp_path / str(seed) / "net.pt2")
        places[-1].parent.mkdir()
        export(net, (1, 28, 28), str(places[-1]))
    table = ["--table", tmp_path / "t.sqlite", "--jobs", 1, "--iterations", 2]
    answer = run("sweep", "--model", *places[:2], "--init", "U", "default", *table)
    assert answer.out.startswith("2 attacks;")
    assert "1 attacks; 0 are in" in run("sweep", "--model", places[2], *table).out


def test_a_network_has_its_own_weights_and_activations(
    run: Run, refused: Refused, tmp_path: Path
) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 3), nn.Tanh(), nn.Linear(3, 10))
    export(net, (1, 28, 28), str(tmp_path / "net.pt2"))
    own = ["--model", tmp_path / "net.pt2"]
    answer = run("attack", *own, "--iterations", 1, "--out", tmp_path / "out")
    assert "net, 10 classes, its own weights, seed 0" in " ".join(answer.out.split())
    assert read_result(tmp_path / "out")["settings"]["init"] is None
    answer = run("audit", *own, "--examples", 1, "--noise", 0, "--out", tmp_path / "audit")
    assert "net with tanh, its own weights;" in " ".join(answer.out.split())
    assert json.loads((tmp_path / "audit/audit.json").read_text())["settings"]["init"] is None
    drawn = ["--init", "U", "--out", tmp_path / "v"]
    assert "--init says how weights are drawn, but" in refused("attack", *own, *drawn)
    assert "--init says how weights are drawn, but" in refused("victim", *own, *drawn)
    for command in ("attack", "audit"):
        assert "relu was said, but" in refused(command, *own, "--activation", "relu")
    assert "--classes 3 was said, but" in refused("audit", *own, "--classes", 3)
    assert run("attack", *own, "--activation", "tanh", "--iterations", 1).code == 0


def test_what_does_not_fit_is_refused_in_a_sentence(
    run: Run, refused: Refused, tmp_path: Path
) -> None:
    net = network()
    save(tmp_path, net)
    assert "--shape (1, 4, 4) was said, but" in refused(
        "attack", *options(tmp_path), "--shape", "1,4,4"
    )
    assert "takes inputs (1, 8, 8) of 4 classes, but the data are (1, 28, 28) of 10" in refused(
        "attack", "--model", tmp_path / "net.pt2"
    )
    said = refused("sweep", "--model", tmp_path / "net.pt2")
    choose = "choose other --data, or --image with --shape and --classes"
    assert said.endswith(f"but the data are (1, 28, 28) of 10; {choose}")
    said = refused("attack", *options(tmp_path), "--activation", "tanh")
    assert "--activation tanh was said, but" in said and said.endswith("has relu")
    assert "nothing.pt2' is not there" in refused("attack", "--model", tmp_path / "nothing.pt2")
    other = {name: p[..., :1] for name, p in as_numpy(net.named_parameters()).items()}
    save_file({k: np.ascontiguousarray(v) for k, v in other.items()}, tmp_path / "w.safetensors")
    assert "cannot be told by name and shape" in run("attack", *options(tmp_path)).err


def test_no_note_names_a_file(refused: Refused, tmp_path: Path) -> None:
    save(tmp_path, network())
    (tmp_path / "w.json").write_text('{"model": "net.pt2"}')
    message = refused("attack", *options(tmp_path))
    assert "that the network is in another file; name that with --model" in message


# Networks that return numbers, or yes and no for each class


def perceptron(outputs: int, *last: nn.Module) -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, outputs), *last
    ).double()


def client_of(folder: Path, net: nn.Module, criterion: nn.Module, target: torch.Tensor) -> list:
    """Write the files of a client with one image, and return its image and the options."""
    image = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(7)).double()
    export(net, SHAPE, str(folder / "net.pt2"))
    save_file(as_numpy(net.named_parameters()), folder / "w.safetensors")
    criterion(net(image), target).backward()
    gradients = {name: p.grad for name, p in net.named_parameters()}
    save_file(as_numpy(gradients), folder / "g.safetensors")
    return [image.numpy(), options(folder)]


@pytest.mark.parametrize(
    ("loss", "net", "criterion", "target", "told"),
    [
        ("mse", perceptron(1), nn.MSELoss(), torch.tensor([[0.7]]), "target 0.7 ("),
        ("mse", perceptron(3), nn.MSELoss(), torch.tensor([[0.0, 1.0, 0.0]]), "target 1 ("),
        ("mse", perceptron(40, nn.Sigmoid()), nn.MSELoss(), torch.linspace(0, 1, 40)[None], "to 1"),
        ("bce", perceptron(4), nn.BCEWithLogitsLoss(), torch.tensor([[1.0, 0, 1, 0]]), "0 2 ("),
        ("bce", perceptron(1), nn.BCEWithLogitsLoss(), torch.tensor([[1.0]]), "label 1 ("),
    ],
    ids=["a number", "one-hot numbers", "an image's numbers", "several classes", "yes or no"],
)
@pytest.mark.usefixtures("without_pictures")
def test_what_a_network_is_trained_for_need_be_no_class(
    run: Run,
    tmp_path: Path,
    loss: str,
    net: nn.Module,
    criterion: nn.Module,
    target: torch.Tensor,
    told: str,
) -> None:
    image, files = client_of(tmp_path, net, criterion, target.double())
    out = tmp_path / "out"
    answer = run("attack", *files, "--loss", loss, "--out", out)
    assert answer.code == 0, answer.out + answer.err
    assert told in " ".join(answer.out.split())
    found = np.load(out / "reconstruction.npz")
    assert np.mean((found["images"] - image) ** 2) < 1e-16
    np.testing.assert_allclose(found["soft_labels"], target, atol=1e-6)
    labels = labels_told(loss, found["soft_labels"], found["labels"])
    assert (labels is None) is (told not in ("target 1 (", "label 1 ("))


def test_what_is_no_row_of_logits_has_another_loss_than_cross_entropy(
    refused: Refused, tmp_path: Path
) -> None:
    torch.manual_seed(6)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, 2, 1), nn.GELU(), nn.ConvTranspose2d(6, 1, 4, 2, 1)
    ).double()
    target = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(8)).double()
    image, files = client_of(tmp_path, net, nn.MSELoss(), target)
    message = refused("attack", *files)
    assert "returns (1, 1, 8, 8) for one input, and cross-entropy takes a row of logits" in message
    assert "--loss mse" in message
    given = {"weights": tmp_path / "w.safetensors", "gradients": tmp_path / "g.safetensors"}
    client = Client.from_files(**given, model=str(tmp_path / "net.pt2"), loss="mse")
    weights = {name: Tensor(array) for name, array in client.params.items()}
    y = Tensor(target.numpy().reshape(1, -1))
    for name, slope in parameter_gradients(client.model, weights, Tensor(image), y).items():
        np.testing.assert_allclose(slope.numpy(), client.gradients[name], rtol=0, atol=1e-12)


class Applied(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.function(z)


YES_AND_NO = torch.tensor([[1.0, 0.0, 1.0, 0.0]]).double()
LOSSES = {
    "a sigmoid's binary": (
        1,
        nn.Sigmoid(),
        lambda p: functional.binary_cross_entropy(p, torch.ones(1, 1).double()),
    ),
    "several of them": (4, nn.Sigmoid(), lambda p: functional.binary_cross_entropy(p, YES_AND_NO)),
    "a softmax's logarithm": (
        4,
        nn.Softmax(-1),
        lambda p: functional.nll_loss(p.log(), torch.tensor([2])),
    ),
    "log-softmax": (4, nn.LogSoftmax(-1), lambda p: functional.nll_loss(p, torch.tensor([2]))),
    "softmax twice": (4, nn.Softmax(-1), lambda p: functional.cross_entropy(p, torch.tensor([2]))),
    "squares of tanh": (4, nn.Tanh(), lambda p: functional.mse_loss(p, YES_AND_NO)),
    "a price": (
        1,
        nn.Identity(),
        lambda z: functional.mse_loss(z, torch.tensor([[40.0]]).double()),
    ),
    "a price of 1": (1, nn.Identity(), lambda z: functional.mse_loss(z, torch.ones_like(z))),
    "a temperature": (
        4,
        Applied(lambda z: z / 3),
        lambda z: functional.cross_entropy(z, torch.tensor([2])),
    ),
    "capped logits": (
        4,
        Applied(lambda z: 5 * torch.tanh(z / 5)),
        lambda z: functional.cross_entropy(z, torch.tensor([2])),
    ),
    "a number up to 10": (
        1,
        Applied(lambda z: 10 * torch.sigmoid(z)),
        lambda z: functional.mse_loss(z, torch.ones_like(z)),
    ),
    "a robust price": (
        1,
        nn.Identity(),
        lambda z: functional.huber_loss(z, torch.tensor([[40.0]]).double()),
    ),
    "hinge": (4, nn.Identity(), lambda z: functional.multi_margin_loss(z, torch.tensor([2]))),
    "Poisson": (
        1,
        nn.Identity(),
        lambda z: functional.poisson_nll_loss(z, torch.tensor([[3.0]]).double()),
    ),
    "cosine": (4, nn.Identity(), lambda z: 1 - functional.cosine_similarity(z, YES_AND_NO).mean()),
}


@pytest.mark.parametrize("name", LOSSES)
def test_of_one_image_the_loss_does_not_matter(tmp_path: Path, name: str) -> None:
    outputs, last, criterion = LOSSES[name]
    net = perceptron(outputs, last)
    image, _ = client_of(tmp_path, net, lambda output, _: criterion(output), torch.zeros(1))
    given = {"weights": tmp_path / "w.safetensors", "gradients": tmp_path / "g.safetensors"}
    client = Client.from_files(**given, model=str(tmp_path / "net.pt2"))
    found = attack(client)
    assert client.explain(found).verdict == "exact"
    assert np.mean((found.images - image) ** 2) < 1e-16
    # The gradient of another image is not explained.
    net.zero_grad()
    criterion(net(torch.tensor(image).flip(-1))).backward()
    other = {n: p.grad.numpy() for n, p in net.named_parameters()}
    wrong = Client.of(client.network, client.params, other)
    assert wrong.explain(found).verdict == "not explained"


@pytest.mark.parametrize(
    ("last", "criterion", "kept"),
    [
        (nn.LogSoftmax(-1), functional.nll_loss, ""),
        (nn.Softmax(-1), lambda p, y: functional.nll_loss(p.log(), y), ""),
        (nn.Softmax(-1), functional.cross_entropy, "softmax"),
    ],
    ids=["log-softmax", "a softmax's logarithm", "softmax twice"],
)
def test_of_a_batch_the_size_of_the_gradient_tells_whose_softmax_it_is(
    last: nn.Module, criterion: Callable[..., torch.Tensor], kept: str, tmp_path: Path
) -> None:
    net = perceptron(5, last)
    export(net, SHAPE, str(tmp_path / "net.pt2"))
    images = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(7)).double()
    criterion(net(images), torch.tensor([1, 2, 3, 0])).backward()
    gradients = {name: p.grad.numpy() for name, p in net.named_parameters()}
    weights = as_numpy(net.named_parameters())
    client = Client.of(load_network(tmp_path / "net.pt2"), weights, gradients, batch=4)
    assert ending(client.network) == kept
    assert client.loss.factor == 1.0


@pytest.mark.parametrize("criterion", [functional.cross_entropy, functional.multi_margin_loss])
def test_a_last_bias_that_is_frozen_is_still_in_the_logits(
    criterion: Callable[..., torch.Tensor], tmp_path: Path
) -> None:
    net = perceptron(4)
    image, _ = client_of(tmp_path, net, criterion, torch.tensor([2]))
    gradients = {name: p.grad.numpy() for name, p in net.named_parameters()} | {"3.bias": None}
    weights = as_numpy(net.named_parameters())
    client = Client.of(load_network(tmp_path / "net.pt2"), weights, gradients)
    usual = criterion is functional.cross_entropy
    assert client.loss.kind == ("cross-entropy" if usual else "mse")
    found = attack(client)
    assert client.explain(found).verdict == "exact"
    assert np.mean((found.images - image) ** 2) < 1e-16


def test_what_is_written_down_last_need_not_be_the_last_layer(tmp_path: Path) -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first, self.middle = (
                nn.Linear(5, 5),
                nn.Linear(64, 32),
                nn.Linear(32, 5),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = functional.gelu(self.first(x.flatten(1)))
            return self.last(functional.gelu(self.middle(h)))

    torch.manual_seed(4)
    image, _ = client_of(tmp_path, Backwards().double(), nn.CrossEntropyLoss(), torch.tensor([2]))
    given = {"weights": tmp_path / "w.safetensors", "gradients": tmp_path / "g.safetensors"}
    client = Client.from_files(**given, model=str(tmp_path / "net.pt2"))
    assert client.loss.kind == "cross-entropy"
    found = attack(client)
    assert client.explain(found).verdict == "exact"
    assert np.mean((found.images - image) ** 2) < 1e-16


def test_one_number_of_a_last_layer_without_bias_is_no_hinge_loss(tmp_path: Path) -> None:
    torch.manual_seed(8)
    convolution = nn.Conv2d(1, 6, 3, 2, 1)
    net = nn.Sequential(convolution, nn.Sigmoid(), nn.Flatten(), nn.Linear(96, 1, bias=False))
    net = nn.Sequential(net, nn.Sigmoid()).double()
    client_of(tmp_path, net, nn.BCELoss(), torch.ones(1, 1).double())
    given = {"weights": tmp_path / "w.safetensors", "gradients": tmp_path / "g.safetensors"}
    client = Client.from_files(**given, model=str(tmp_path / "net.pt2"))
    assert client.loss.kind == "cross-entropy"
    assert ending(client.network) == ""


def test_a_recurrent_layer_is_given_several_rows_by_one_image(tmp_path: Path) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.last = nn.GRU(4, 16, batch_first=True), nn.Linear(16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.gru(x)[0][:, -1])

    torch.manual_seed(9)
    net, series = Recurrent().double(), torch.randn(1, 6, 4).double()
    export(net, (6, 4), str(tmp_path / "net.pt2"))
    nn.functional.cross_entropy(net(series), torch.tensor([1])).backward()
    gradients = {name: p.grad.numpy() for name, p in net.named_parameters()}
    weights = as_numpy(net.named_parameters())
    client = Client.of(load_network(tmp_path / "net.pt2"), weights, gradients)
    assert given_one_row(client.network, client.params).keys() == {"last.weight"}
    assert client.premises.rank == 1
    assert client.premises.causes == ()


def test_a_label_is_told_only_where_one_was_found() -> None:
    soft = np.array([[0.1, 0.8, 0.1], [1 / 3, 1 / 3, 1 / 3]])
    assert labels_told("cross-entropy", soft, np.array([1, 0])) == ["1", "?"]
    assert labels_told("mse", soft, np.array([1, 0])) is None


def test_each_head_has_its_label_told() -> None:
    soft = np.array([[0.05, 0.4, 0.05, 0.0, 0.5], [0.5, 0.0, 0.0, 0.25, 0.25]])
    labels = soft.argmax(axis=1)
    assert labels_told("cross-entropy", soft, labels, (3, 2)) == ["1/1", "0/?"]
    assert labels_told("cross-entropy", soft, labels, (5,)) == ["4", "0"]
