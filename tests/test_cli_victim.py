"""`tinyleak victim`: what it writes, and that `tinyleak attack` gets the data back out of it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from command_line import Run, errors, read_result, runner

from tinyleak.data.tensors import read_notes, read_tensors

SMALL = ["--model", "mlp", "--activation", "tanh", "--init", "default", "--index", "3"]


pytestmark = pytest.mark.usefixtures("without_pictures")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


@pytest.mark.parametrize(("ending", "reduction"), [("safetensors", "mean"), ("npz", "sum")])
def test_attack_reads_what_it_writes(run: Run, tmp_path: Path, ending: str, reduction: str) -> None:
    made = tmp_path / "made"
    answer = run(
        *("victim", *SMALL, "--batch", 2, "--reduction", reduction),
        *("--out", made, "--format", ending),
    )
    assert answer.code == 0, answer.err
    names = [f"gradients.{ending}", "gradients.json", "truth.npz", f"weights.{ending}"]
    assert sorted(path.name for path in made.iterdir()) == sorted([*names, "weights.json"])
    assert read_notes(made / f"gradients.{ending}") == {"batch": "2", "reduction": reduction}
    assert read_notes(made / f"weights.{ending}")["shape"] == "1,28,28"
    assert {a.dtype.name for a in read_tensors(made / f"weights.{ending}").values()} == {"float32"}
    # The command that it names, word for word.
    (command,) = re.findall("attack it: tinyleak (.*)", answer.out)
    answer = run(*command.split(), "--out", tmp_path / "out")
    assert answer.code == 0, answer.out + answer.err
    assert errors(tmp_path / "out", np.load(made / "truth.npz")["images"]).max() < 1e-6


def test_the_same_seed_writes_the_same_bytes(run: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        asked = ["victim", *SMALL, "--defense", "gaussian:1e-4", "--out", tmp_path / name]
        assert run(*asked, "--quiet") == (0, "", "")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_noisy_gradient_is_explained_as_far_as_its_noise_lets_tell(
    run: Run, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    run("victim", *SMALL, "--defense", "gaussian:1e-6", "--out", made)
    files = ["--weights", made / "weights.safetensors", "--gradients"]
    files += [made / "gradients.safetensors"]
    answer = run("attack", *files, "--out", tmp_path / "out")
    assert answer.code == 0, answer.out + answer.err
    assert "success, as far as noise on the gradient lets tell" in " ".join(answer.out.split())
    result = read_result(tmp_path / "out")
    assert 1e-8 < result["relative_distance"] < result["succeeded_below"]
    asked = ["--defense", "gaussian:1e-6", "--aware", "--iterations", 100]
    answer = run("attack", *files, *asked)
    assert "gaussian:1e-6; the attacker knows of it" in answer.out


@pytest.mark.parametrize(
    "steps", [1, 3, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (2, 4, 5))]
)
def test_weights_before_and_after_give_the_image_away(run: Run, tmp_path: Path, steps: int) -> None:
    made = tmp_path / "made"
    answer = run("victim", *SMALL, "--local-steps", steps, "--learning-rate", 0.2, "--out", made)
    assert answer.code == 0, answer.err
    (command,) = re.findall("attack it: tinyleak (.*)", answer.out)
    assert "--weights-after" in command
    answer = run(*command.split(), "--out", tmp_path / "out")
    assert answer.code == 0, answer.out + answer.err
    assert errors(tmp_path / "out", np.load(made / "truth.npz")["images"]).max() < 1e-6
    said = " ".join(answer.out.split())
    assumed = f"steps {steps} of plain SGD, each with the same whole batch and without momentum"
    assert (assumed in said) == (steps > 1)


def pytorch_client(folder: Path, steps: int, reduction: str = "mean") -> np.ndarray:
    """Train with PyTorch's own SGD, save the weights before and after, and return the images."""
    torch.manual_seed(3)
    network = torch.nn.Sequential(
        *(torch.nn.Flatten(), torch.nn.Linear(100, 30), torch.nn.Tanh(), torch.nn.Linear(30, 5))
    )
    x, y = torch.rand(2, 1, 10, 10), torch.tensor([1, 4])
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    safetensors.torch.save_file(network.state_dict(), folder / "before.safetensors")
    for _ in range(steps):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y, reduction=reduction).backward()
        optimiser.step()
    safetensors.torch.save_file(network.state_dict(), folder / "after.safetensors")
    return x.numpy()


@pytest.mark.parametrize(("steps", "reduction"), [(1, "mean"), (1, "sum"), (3, "sum")])
def test_pytorch_s_own_steps_are_undone(
    run: Run, tmp_path: Path, steps: int, reduction: str
) -> None:
    truth = pytorch_client(tmp_path, steps, reduction)
    asked = ["--weights", tmp_path / "before.safetensors", "--weights-after"]
    asked += [tmp_path / "after.safetensors", "--learning-rate", 0.1, "--local-steps", steps]
    asked += ["--model", "mlp", "--shape", "1,10,10", "--batch", 2]
    if steps > 1:
        asked += ["--reduction", reduction]
    answer = run("attack", *asked, "--out", tmp_path / "out")
    assert answer.code == 0, answer.out + answer.err
    assert errors(tmp_path / "out", truth).max() < 1e-4
    assert "tanh, as the features that the last layer shows tell" in answer.out
    if steps == 1:
        assert f"a {reduction} over the batch, as the last layer tells" in answer.out


def test_an_attack_starts_from_what_it_reads_off_the_gradient(run: Run, tmp_path: Path) -> None:
    """Layer by layer that is the images already, whatever is done after."""
    truth = pytorch_client(tmp_path, 1, "mean")
    asked = ["attack", "--weights", tmp_path / "before.safetensors", "--weights-after"]
    asked += [tmp_path / "after.safetensors", "--learning-rate", 0.1, "--model", "mlp"]
    asked += ["--shape", "1,10,10", "--batch", 2, "--iterations", 0, "--start", "recursion"]
    run(*asked, "--labels", "infer", "--out", tmp_path / "out")
    assert errors(tmp_path / "out", truth).max() < 1e-4
    assert read_result(tmp_path / "out")["settings"]["start"] == "recursion"
    answer = run(*asked, "--labels", "optimise")
    assert (answer.code, answer.out) == (2, "")
    assert "for which labels must be known first; give --labels infer" in answer.err
    answer = run(*asked, "--local-steps", 2)
    assert (answer.code, answer.out) == (2, "")
    assert "--start recursion reads the gradient of one step" in answer.err


# What is turned down


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["victim"], "the following arguments are required: --out"),
        (["victim", "--out", "o", "--learning-rate", "1"], "--learning-rate is of --local-steps"),
        (["victim", "--out", "o", "--local-steps", "6"], "6 local steps were asked for, and 5"),
        (["victim", "--out", "o", "--local-steps", "0"], "'0' is no whole number of 1 or more"),
        (
            ["victim", "--out", "o", "--local-steps", "1", "--learning-rate", "0"],
            "'0' is no learning rate above 0",
        ),
        (
            ["victim", "--out", "o", "--reduction", "sum", "--defense", "float16"],
            "--defense protects a mean over the batch",
        ),
        (["victim", "--out", "o", "--model", "resnet"], "--model resnet cannot be told from files"),
        (["victim", "--out", "o", "--index", "100000"], "lower one of them"),
        (
            ["attack", "--weights", "w.npz", "--weights-after", "v.npz", "--gradients", "g.npz"],
            "give either its gradient with --gradients, or its weights after its steps",
        ),
        (["attack", "--learning-rate", "0.1"], "--learning-rate speaks of a client's files"),
        (["attack", "--weights-after", "w.npz"], "--weights-after speaks of a client's files"),
    ],
)
def test_a_bad_request(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = run(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert re.fullmatch(r"tinyleak: [^\n]+\n", answer.err), answer.err
    assert message in answer.err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "tell a gradient only together with the learning rate"),
        (["--learning-rate", "0.1", "--local-steps", "6"], "5 at most can be unrolled"),
        (["--learning-rate", "0.1"], "so nothing can be read from them; check that the client has"),
    ],
)
def test_weights_after_that_say_nothing(
    run: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    pytorch_client(tmp_path, 0)
    files = ["--weights", tmp_path / "before.safetensors", "--weights-after"]
    files += [tmp_path / "after.safetensors", "--model", "mlp", "--shape", "1,10,10"]
    answer = run("attack", *files, *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err
