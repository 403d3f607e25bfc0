"""`tinyleak audit`: what it prints, writes and exits with, and what it turns down."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Run
from PIL import Image

from tinyleak.client import share, simulate
from tinyleak.data.glyphs import draw_digit
from tinyleak.defenses import parse
from tinyleak.nn import MLP, LeNet

COMMAND = ("audit",)
MODEL = LeNet((1, 8, 8), 4, hidden=3)
NETWORK = ["--shape", "1,8,8", "--classes", "4"]


@pytest.fixture
def refused(run: Run) -> Callable[..., str]:
    def call(*arguments: object) -> str:
        answer = run(*arguments)
        assert (answer.code, answer.out) == (2, "")
        # One line, and below it the columns that it speaks of, if it does.
        sentence, _, columns = answer.err.partition("\n")
        assert sentence.startswith("tinyleak: "), answer.err
        assert ("compare the columns" in sentence) == (columns != ""), answer.err
        return sentence

    return call


@pytest.fixture
def files(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, Path]:
    """A client's weights, and the noisy gradient that it shared."""
    made, _ = share(
        MODEL,
        MODEL.init(rng),
        rng.random((1, 1, 8, 8)),
        [2],
        defenses=[parse("gaussian:1e-4")],
        rng=rng,
    )
    weights, gradients = tmp_path / "w.npz", tmp_path / "g.npz"
    np.savez(weights, **made.params)
    np.savez(gradients, **made.gradients)
    return weights, gradients


class Resources(HTMLParser):
    """What a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe")
        for name, value in attrs:
            if name in ("src", "href"):
                self.sources.append(value or "")
        self.images += tag == "img"


def test_it_says_what_to_expect(run: Run) -> None:
    answer = run(*NETWORK, "--noise", "1e-6", "1e-2")
    assert answer.code == 0
    assert answer.err == ""
    for word in ("expect", "counting", "activation", "last layer", "saturation", "rank"):
        assert re.search(rf"^{word}  ", answer.out, re.MULTILINE), word
    assert "64 of 64 directions" in answer.out
    assert "float32 rounding" in answer.out
    assert re.search(r"^10⁻⁶ ", answer.out, re.MULTILINE)
    assert re.search(r"^0\.01 ", answer.out, re.MULTILINE)
    assert not re.search(r"^gradient ", answer.out, re.MULTILINE)
    assert max(map(len, answer.out.splitlines())) <= 100


def test_a_gradient_from_a_file_is_looked_at(run: Run, files: tuple[Path, Path]) -> None:
    weights, gradients = files
    answer = run(*NETWORK, "--weights", weights, "--gradients", gradients)
    assert answer.code == 0
    assert re.search(r"^expect +the given gradient, with noise of variance", answer.out, re.M)
    assert "(the given gradient)" in answer.out
    assert re.search(r"^noise +of variance about", answer.out, re.MULTILINE)
    assert re.search(r"^labels +\d", answer.out, re.MULTILINE)
    assert re.search(
        r"^doubt +the network is unsure of the image by [\d.]+", answer.out, re.MULTILINE
    )


def test_out_gets_a_page_that_needs_nothing_else_and_the_numbers(
    run: Run, files: tuple[Path, Path], tmp_path: Path
) -> None:
    weights, gradients = files
    out = tmp_path / "out"
    answer = run(*NETWORK, "--weights", weights, "--gradients", gradients, "--out", out, "--quiet")
    assert answer == (0, "", "")
    assert sorted(path.name for path in out.iterdir()) == ["audit.html", "audit.json"]
    page = Resources()
    page.feed((out / "audit.html").read_text(encoding="utf-8"))
    assert page.images == 3
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    result = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    assert result["counting"]["unknowns"] == 64
    assert result["counting"]["parameters"] == sum(np.prod(s) for s in MODEL.shapes.values())
    assert result["identifiability"]["ranks"] == [64] * 5
    assert len(result["identifiability"]["singular_values"][0]) == 64
    errors = [one["mse"] for one in result["forecast"] if one["noise"] == "asked for"]
    assert errors == sorted(errors)
    assert result["gradient"]["noise_variance"] == pytest.approx(1e-4, rel=0.7)
    assert result["settings"]["model"] == "lenet"
    assert len(result["scope"]) >= 3


def test_the_same_request_writes_the_same_bytes(run: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert run(*NETWORK, "--out", tmp_path / name, "--quiet").code == 0
    for name in ("audit.html", "audit.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_batch_of_a_perceptron_at_ones_own_images(run: Run, tmp_path: Path) -> None:
    paths = []
    for index in range(4):
        paths.append(tmp_path / f"<{index}>.png")
        Image.fromarray(np.rint(255 * draw_digit(index)).astype(np.uint8)).save(paths[-1])
    model = MLP((1, 6, 6), 3, "tanh", (9, 5))
    np.savez(tmp_path / "w.npz", **model.init(np.random.default_rng(0)))
    network = ["--weights", tmp_path / "w.npz", "--model", "mlp", "--activation", "tanh"]
    answer = run(
        *(*network, "--shape", "1,6,6", "--batch", 2, "--image", *paths),
        *("--out", tmp_path / "out"),
    )
    assert answer.code == 0, answer.err
    said = " ".join(answer.out.split())
    assert "3 classes" in said
    assert "2 typical batches" in said
    assert "mixture of the images" in said
    page = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert "&lt;0&gt;.png" in page
    assert "<0>.png" not in page


def test_pytorchs_own_names_are_matched(run: Run, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        *(torch.nn.Flatten(), torch.nn.Linear(64, 9), torch.nn.Tanh(), torch.nn.Linear(9, 4))
    )
    loss = torch.nn.functional.cross_entropy(network(torch.rand(1, 8, 8)), torch.tensor([3]))
    loss.backward()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    save_file(gradients, tmp_path / "g.safetensors")
    answer = run(
        *("--model", "mlp", "--activation", "tanh", "--shape", "1,8,8"),
        *("--weights", tmp_path / "w.safetensors", "--gradients", tmp_path / "g.safetensors"),
    )
    assert answer.code == 0, answer.err
    assert re.search(r"^labels +3 \(read off", answer.out, re.MULTILINE)
    assert re.search(r"^noise +none beyond rounding", answer.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "nowhere.npz"], "nowhere.npz"),
        (["--batch", "0"], "a whole number of 1 or more is needed"),
        (["--noise", "-1"], "the variance of noise is a number of 0 or more"),
        (["--noise", "nan"], "the variance of noise is a number of 0 or more"),
        (["--shape", "28"], "write a shape as C,H,W"),
        (["--model", "resnet"], "a ResNet is not audited: its Jacobian takes minutes"),
        (["--model", "transformer"], "invalid choice"),
        (["--data", "portrait", "--batch", "2"], "1 typical images were given for a batch of 2"),
        (["--rename", "a"], "write a renaming as FROM=TO"),
        (["--image", "a.png", "--data-dir", "."], "leave one of the two out"),
        (["--image", "nowhere.png"], "nowhere.png"),
    ],
)
def test_what_is_turned_down(refused: Callable[..., str], arguments: Any, message: str) -> None:
    assert message in refused(*NETWORK, *arguments)


def test_weights_of_another_network_are_turned_down(
    refused: Callable[..., str], files: tuple[Path, Path]
) -> None:
    weights, _ = files
    refused("--weights", weights, "--shape", "1,28,28")
    refused("--weights", weights, "--shape", "1,8,8", "--model", "mlp")
    refused(*NETWORK, "--weights", weights, "--init", "U")
    refused(*NETWORK, "--weights", weights, "--gradients", "nowhere.npz")


def test_a_directory_that_is_there_is_not_written_into(
    refused: Callable[..., str], run: Run, tmp_path: Path
) -> None:
    assert "exists already" in refused(*NETWORK, "--out", tmp_path)
    assert run(*NETWORK, "--out", tmp_path, "--force", "--quiet").code == 0


def test_a_bad_request_leaves_no_directory(refused: Callable[..., str], tmp_path: Path) -> None:
    refused(*NETWORK, "--data", "portrait", "--batch", "2", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_notes_beside_the_files_say_what_the_options_leave_out(
    run: Run, files: tuple[Path, Path]
) -> None:
    weights, gradients = files
    shared = dict(np.load(gradients))
    np.savez(gradients, **{name: 2 * array for name, array in shared.items()})
    said = {"model": "lenet", "shape": "1,8,8", "batch": 2, "reduction": "sum"}
    gradients.with_suffix(".json").write_text(json.dumps(said), encoding="utf-8")
    out = weights.parent / "out"
    answer = run("--weights", weights, "--gradients", gradients, "--noise", "1e-4", "--out", out)
    assert answer.code == 0, answer.err
    assert re.search(r"^loss +a sum over the batch, said$", answer.out, re.MULTILINE)
    result = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    assert result["settings"]["image_shape"] == [1, 8, 8]
    assert result["settings"]["batch"] == result["counting"]["batch"] == 2
    assert result["settings"]["loss"]["factor"] == 2
    assert result["gradient"]["noise_variance"] == pytest.approx(1e-4, rel=0.7)


def test_notes_say_which_network_it_is(run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **MLP((1, 4, 4), 3).init(np.random.default_rng(0)))
    (tmp_path / "w.json").write_text('{"model": "mlp", "shape": "1,4,4"}', encoding="utf-8")
    answer = run("--weights", tmp_path / "w.npz", "--examples", "1", "--noise", "1e-4")
    assert answer.code == 0, answer.err
    assert "mlp with sigmoid" in answer.out


def test_an_attack_is_rehearsed_where_it_is_asked_for(run: Run, tmp_path: Path) -> None:
    asked = ["--model", "mlp", "--shape", "1,4,4", "--classes", 3, "--examples", 1]
    answer = run(*asked, "--rehearsals", 2, "--out", tmp_path / "out")
    assert answer.code == 0, answer.err
    assert re.search(r"^rehearsal +attacked, 2 simulated clients with", answer.out, re.MULTILINE)
    result = json.loads((tmp_path / "out" / "audit.json").read_text(encoding="utf-8"))
    assert result["settings"]["rehearsals"] == len(result["rehearsals"]) == 2
    assert max(one["mse"] for one in result["rehearsals"]) < 1e-6
    assert "rehearsal" not in run(*asked).out


def test_a_gradient_of_a_fresh_network_needs_no_weights(run: Run, tmp_path: Path) -> None:
    client, _ = simulate(LeNet((1, 8, 8), 4), np.full((1, 1, 8, 8), 0.5), [2], seed=4)
    np.savez(tmp_path / "g.npz", **{name: 3 * g for name, g in client.gradients.items()})
    answer = run(*NETWORK, "--seed", 4, "--gradients", tmp_path / "g.npz", "--examples", 1)
    assert answer.code == 0, answer.err
    assert re.search(r"^labels +2 \(read off", answer.out, re.MULTILINE)
    assert re.search(r"^loss +3 times as large, read off", answer.out, re.MULTILINE)


def test_what_an_audit_takes_for_granted_is_not_said(tmp_path: Path, run: Run) -> None:
    model = LeNet((1, 12, 12))
    client, _ = simulate(model, np.random.default_rng(0).random((1, *model.image_shape)), [3])
    shared = tmp_path / "alone.npz"
    np.savez(shared, **client.gradients)
    for options, source in (([], "assumed"), (["--batch", 1, "--activation", "sigmoid"], "said")):
        out = tmp_path / source
        asked = ["--gradients", shared, "--shape", "1,12,12", "--examples", 1, *options]
        assert run(*asked, "--quiet", "--out", out).code == 0
        known = json.loads((out / "audit.json").read_text(encoding="utf-8"))["knows"]
        assert [known[topic]["source"] for topic in ("batch_size", "activation")] == [source] * 2


def test_the_network_and_its_activation_are_both_told(tmp_path: Path, run: Run) -> None:
    client, _ = simulate(LeNet(), np.random.default_rng(0).random((1, 1, 28, 28)), [3])
    np.savez(tmp_path / "w.npz", **client.params)
    np.savez(tmp_path / "g.npz", **client.gradients)
    files = ["--weights", tmp_path / "w.npz", "--gradients", tmp_path / "g.npz"]
    answer = run(*files, "--examples", 1)
    said = " ".join(answer.out.split())
    assert "network lenet, read off (its weights' shapes); sigmoid, read off (no other" in said
