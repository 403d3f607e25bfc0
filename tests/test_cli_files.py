"""`tinyleak attack --weights W --gradients G`: digits out of files that a PyTorch script saved."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from command_line import Refused, Run, errors, read_result, refuser, runner

from tinyleak import data
from tinyleak.attacks import Progress, Settings, attack
from tinyleak.cli import build_parser
from tinyleak.cli.client import read_client
from tinyleak.cli.explained import explain
from tinyleak.cli.result import FILES


class Net(torch.nn.Module):
    """A LeNet as a user of PyTorch would write it, with names of its own."""

    def __init__(self, size: int = 28) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(1, 12, 5, stride=2, padding=2)
        self.conv2 = torch.nn.Conv2d(12, 12, 5, stride=2, padding=2)
        self.conv3 = torch.nn.Conv2d(12, 12, 5, padding=2)
        self.fc = torch.nn.Linear(12 * (size // 4) ** 2, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.conv1, self.conv2, self.conv3):
            x = torch.sigmoid(layer(x))
        return self.fc(x.flatten(1))


GLYPHS = data.load("glyphs")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys, "attack")


@pytest.fixture
def refused(run: Run) -> Refused:
    return refuser(run)


def client(
    folder: Path,
    images: list[int],
    *,
    steps: int = 0,
    size: int = 28,
    ending: str = "safetensors",
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = torch.nn.functional.cross_entropy,
    normalise: bool = False,
) -> np.ndarray:
    """Train for so many steps, save weights and one gradient, and return the images behind it."""

    def batch(indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        pixels, labels = GLYPHS.batch(indices)
        edge = (28 - size) // 2
        x = torch.tensor(pixels, dtype=torch.float32)[..., edge : 28 - edge, edge : 28 - edge]
        return (x - 0.13) / 0.31 if normalise else x, torch.tensor(labels)

    torch.manual_seed(0)
    network = Net(size)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    for step in range(steps):
        x, y = batch(list(range(100 + 16 * (step % 10), 116 + 16 * (step % 10))))
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        optimiser.step()
    x, y = batch(images)
    optimiser.zero_grad()
    loss(network(x), y).backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    for name, tensors in (("w", network.state_dict()), ("g", gradients)):
        if ending == "npz":
            np.savez(folder / f"{name}.npz", **{k: v.numpy() for k, v in tensors.items()})
        else:
            safetensors.torch.save_file(tensors, folder / f"{name}.safetensors")
    return x.numpy()


def files(folder: Path, ending: str = "safetensors") -> list[object]:
    return ["--weights", folder / f"w.{ending}", "--gradients", folder / f"g.{ending}"]


# Digits come back


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize(
    ("steps", "ending"),
    [
        (0, "safetensors"),
        (50, "npz"),
        pytest.param(0, "npz", marks=pytest.mark.slow),
        pytest.param(50, "safetensors", marks=pytest.mark.slow),
    ],
)
def test_a_digit_comes_back(run: Run, tmp_path: Path, ending: str, steps: int) -> None:
    truth = client(tmp_path, [3], steps=steps, ending=ending)
    answer = run(
        *files(tmp_path, ending),
        *("--shape", "1,28,28", "--classes", 10, "--model", "lenet", "--out", tmp_path / "out"),
    )
    assert answer.code == 0, answer.out + answer.err
    assert errors(tmp_path / "out", truth).max() < 1e-6
    assert re.search(r"^label +3 \(read off beforehand\)$", answer.out, re.MULTILINE)
    assert re.search(r"^loss +as it is, as the last layer tells$", answer.out, re.MULTILINE)
    result = read_result(tmp_path / "out")
    assert result["succeeded"] is True
    assert result["mse"] is result["psnr"] is result["labels_true"] is None
    assert result["labels_recovered"] == [3]
    assert result["relative_distance"] < result["succeeded_below"] < 1e-11
    assert result["loss_factor"] == 1


@pytest.mark.usefixtures("without_pictures")
def test_a_small_batch_comes_back_with_its_loss_added_up(run: Run, tmp_path: Path) -> None:
    truth = client(
        tmp_path, [3, 5], size=16, steps=50, loss=torch.nn.CrossEntropyLoss(reduction="sum")
    )
    answer = run(*files(tmp_path), "--shape", "1,16,16", "--batch", 2, "--out", tmp_path / "out")
    assert answer.code == 0, answer.out + answer.err
    assert errors(tmp_path / "out", truth).max() < 1e-6
    assert re.search(
        r"^loss +a sum over the batch, as the last layer tells$", answer.out, re.MULTILINE
    )
    assert read_result(tmp_path / "out")["loss_factor"] == 2


@pytest.mark.slow
@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("steps", [0, 50])
@pytest.mark.parametrize("ending", ["safetensors", "npz"])
def test_a_batch_of_four_digits_comes_back(
    run: Run, tmp_path: Path, reduction: str, steps: int, ending: str
) -> None:
    loss = torch.nn.CrossEntropyLoss(reduction=reduction)
    truth = client(tmp_path, [3, 4, 5, 6], steps=steps, loss=loss, ending=ending)
    answer = run(*files(tmp_path, ending), "--batch", 4, "--out", tmp_path / "out")
    assert answer.code == 0, answer.out + answer.err
    assert errors(tmp_path / "out", truth).max() < 1e-6


@pytest.mark.slow
@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("steps", [0, 50])
@pytest.mark.parametrize("image", range(10))
def test_any_digit_comes_back(run: Run, tmp_path: Path, image: int, steps: int) -> None:
    truth = client(tmp_path, [image], steps=steps)
    assert run(*files(tmp_path), "--out", tmp_path / "out").code == 0
    assert errors(tmp_path / "out", truth).max() < 1e-6


# What is told, and what is inferred


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize(("factor", "said"), [(0.3, "0.3 times"), (-0.01, "-0.01 times")])
def test_a_factor_on_the_loss_of_one_image_is_read_off(
    run: Run, tmp_path: Path, factor: float, said: str
) -> None:
    truth = client(
        tmp_path,
        [4],
        size=16,
        loss=lambda z, y: factor * torch.nn.functional.cross_entropy(z, y),
    )
    answer = run(*files(tmp_path), "--shape", "1,16,16", "--out", tmp_path / "out")
    assert answer.code == 0, answer.out + answer.err
    assert said in answer.out
    assert read_result(tmp_path / "out")["loss_factor"] == pytest.approx(factor, rel=1e-5)
    assert errors(tmp_path / "out", truth).max() < 1e-6


@pytest.mark.usefixtures("without_pictures")
def test_an_odd_factor_on_the_loss_of_a_batch_is_found_with_the_images(
    run: Run, tmp_path: Path
) -> None:
    truth = client(
        tmp_path,
        [3, 5],
        size=16,
        loss=lambda z, y: 0.4 * torch.nn.functional.cross_entropy(z, y),
    )
    answer = run(*files(tmp_path), "--shape", "1,16,16", "--batch", 2, "--out", tmp_path / "out")
    assert answer.code == 0, answer.out + answer.err
    assert "about 0.4 times the mean; only the gradient's direction is matched" in answer.out
    result = read_result(tmp_path / "out")
    assert result["loss_factor"] == pytest.approx(0.4, rel=1e-5)
    assert result["settings"]["direction"] is True
    assert errors(tmp_path / "out", truth).max() < 1e-6


@pytest.mark.usefixtures("without_pictures")
def test_notes_beside_the_files_say_what_they_do_not(run: Run, tmp_path: Path) -> None:
    truth = client(tmp_path, [3, 5], size=16, ending="npz")
    (tmp_path / "w.json").write_text('{"model": "lenet", "shape": [1, 16, 16]}')
    (tmp_path / "g.json").write_text('{"batch": 2, "reduction": "mean", "by": "somebody"}')
    answer = run(*files(tmp_path, "npz"), "--out", tmp_path / "out")
    assert answer.code == 0, answer.out + answer.err
    assert re.search(r"^told +model lenet, shape 1,16,16, batch 2,", answer.out, re.MULTILINE)
    assert re.search(r"^loss +a mean over the batch, as was said$", answer.out, re.MULTILINE)
    assert errors(tmp_path / "out", truth).max() < 1e-6


def test_a_wrong_note_ends_in_no_success_and_the_command_line_goes_before_it(
    run: Run, tmp_path: Path
) -> None:
    client(tmp_path, [3], size=16, ending="npz")
    (tmp_path / "g.json").write_text('{"activation": "tanh", "shape": "1,16,16"}')
    answer = run(*files(tmp_path, "npz"), "--iterations", 100)
    assert answer.code == 1
    assert "with tanh" in answer.out
    assert "NO success, what was found does not explain the gradient" in answer.out
    assert run(*files(tmp_path, "npz"), "--activation", "sigmoid", "--quiet") == (0, "", "")


@pytest.mark.usefixtures("without_pictures")
def test_names_are_settled_by_a_rename(run: Run, tmp_path: Path) -> None:
    truth = client(tmp_path, [3], size=16, ending="npz")
    for name in ("w.npz", "g.npz"):
        arrays = dict(np.load(tmp_path / name))
        arrays |= {f"deep.{part}": arrays.pop(f"conv3.{part}") for part in ("weight", "bias")}
        np.savez(tmp_path / name, **arrays)
    asked = [*files(tmp_path, "npz"), "--shape", "1,16,16", "--out", tmp_path / "out"]
    answer = run(*asked)
    assert answer.code == 2
    assert "--rename from=to" in answer.err
    assert re.search(r"the file has +the model expects\n", answer.err)
    answer = run(*asked, "--rename", "conv2=body.2", "--rename", "deep=body.4")
    assert answer.code == 0, answer.out + answer.err
    assert errors(tmp_path / "out", truth).max() < 1e-6


def test_all_files_are_written_and_pixels_beyond_the_usual_can_be_drawn(
    run: Run, tmp_path: Path
) -> None:
    truth = client(tmp_path, [3], size=16, normalise=True)
    answer = run(*files(tmp_path), "--shape", "1,16,16", "--out", tmp_path / "out")
    assert answer.code == 0, answer.out + answer.err
    assert "drawn from black to white" in answer.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    assert errors(tmp_path / "out", truth).max() < 1e-6
    low, high = read_result(tmp_path / "out")["pixel_range"]
    assert low == pytest.approx(truth.min(), abs=1e-3)
    assert high == pytest.approx(truth.max(), abs=1e-3)


def test_an_image_that_stays_in_doubt_is_no_success(run: Run, tmp_path: Path) -> None:
    client(tmp_path, [3], size=16)
    answer = run(*files(tmp_path), "--shape", "1,16,16", "--iterations", 20)
    assert answer.code == 1
    assert "out of iterations after 20 iterations" in " ".join(answer.out.split())


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("arguments", [["--dtype", "float32"], ["--recipe", "paper"]])
def test_an_attack_in_float32_is_judged_by_what_float32_can(
    run: Run, tmp_path: Path, arguments: list[str]
) -> None:
    truth = client(tmp_path, [3], size=16)
    asked = [*files(tmp_path), "--shape", "1,16,16", *arguments, "--out", tmp_path / "out"]
    code = run(*asked).code
    assert (code == 0) == (errors(tmp_path / "out", truth).max() < 1e-5)


@pytest.mark.usefixtures("without_pictures")
def test_ctrl_c_keeps_the_best_so_far(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def impatient(*args: object, **kwargs: object) -> Iterator[Callable[[Progress], None]]:
        def stop(progress: Progress) -> None:
            if progress.iteration == 10:
                raise KeyboardInterrupt

        yield stop

    monkeypatch.setattr("tinyleak.cli.attack_files.progress_bar", impatient)
    client(tmp_path, [3], size=16)
    answer = run(*files(tmp_path), "--shape", "1,16,16", "--out", tmp_path / "out")
    assert answer.code == 1
    assert answer.err == f"tinyleak: interrupted; the best so far is in {tmp_path / 'out'}\n"
    result = read_result(tmp_path / "out")
    assert (result["reason"], result["iterations"], result["succeeded"]) == (
        *("interrupted", 10),
        False,
    )


def test_what_is_no_image_at_all_explains_nothing(tmp_path: Path) -> None:
    client(tmp_path, [3], size=16)
    args = build_parser().parse_args(["attack", *map(str, files(tmp_path)), "--shape", "1,16,16"])
    known = read_client(args)
    found = attack(known.model, known.params, known.shared, settings=Settings(iterations=0))
    for pixel in (np.nan, 1e300):
        lost = replace(found, images=np.full_like(found.images, pixel))
        assert not explain(known, lost).succeeded
        inexact = replace(known, loss=replace(known.loss, exact=False))
        assert not explain(inexact, lost).succeeded


# What is turned down


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "w.npz"], "--weights need what the client made of them"),
        (["--gradients", "g.npz"], "--gradients speaks of a client's files, but without --weights"),
        (["--rename", "a=b"], "--rename speaks of a client's files"),
        (["--reduction", "sum"], "--reduction speaks of a client's files"),
        (["--weights", "w.npz", "--data", "glyphs"], "--data describes a simulated client"),
        (["--weights", "w.npz", "--index", "0"], "--index describes a simulated client"),
        (["--weights", "w.npz", "--init", "U"], "--init describes a simulated client"),
        (["--weights", "w.npz", "--labels", "known"], "--labels known needs a client"),
        (["--weights", "w.npz", "--defense", "float16"], "has been shared already; add --aware"),
    ],
)
def test_two_kinds_of_client_are_not_mixed(
    refused: Refused, arguments: list[str], message: str
) -> None:
    assert message in refused(*arguments)


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ('{"batch": "many"}', "say batch 'many': 'many' is no whole number of 1 or more"),
        ('{"batch": 0}', "no whole number of 1 or more"),
        ('{"activation": "gelu"}', "say activation 'gelu': choose from sigmoid, tanh"),
        ('{"reduction": "none"}', "say reduction 'none': choose from mean, sum"),
        ('{"model": "vgg"}', "say model 'vgg': choose from lenet, mlp"),
        ('{"shape": [28]}', "say shape '28': '28' is no shape C,H,W"),
        ('{"strides": [2, -1]}', "say strides '2,-1': '-1' is no whole number"),
    ],
)
def test_notes_that_cannot_be_are_refused(
    refused: Refused, tmp_path: Path, note: str, message: str
) -> None:
    client(tmp_path, [3], size=16, ending="npz")
    (tmp_path / "g.json").write_text(note)
    assert message in refused(*files(tmp_path, "npz"), "--shape", "1,16,16")
