"""`tinyleak victim`: what it writes, and that `tinyleak attack` gets the data back out of it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from command_line import Run, errors, read_result

from tinyleak.data.tensors import read_notes, read_tensors

SMALL = ["--model", "mlp", "--activation", "tanh", "--init", "default", "--index", "3"]


pytestmark = pytest.mark.usefixtures("without_pictures")


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
    assert "consistent: what was found makes the shared gradient as nearly" in " ".join(
        answer.out.split()
    )
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
    assumed = f"steps {steps} of plain SGD, each with the same whole batch, without momentum"
    assert (assumed in said) == (steps > 1)


# What is turned down


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["victim"], "the following arguments are required: --out"),
        (["victim", "--out", "o", "--learning-rate", "1"], "--learning-rate is of --local-steps"),
        (["victim", "--out", "o", "--local-steps", "101"], "101 local steps were given, and 100"),
        (["victim", "--out", "o", "--momentum", "0.9"], "--momentum is of --local-steps"),
        (["victim", "--out", "o", "--local-steps", "1", "--epochs", "1"], "give one of the two"),
        (
            ["victim", "--out", "o", "--local-steps", "0"],
            "'0' was given; a whole number of 1 or more",
        ),
        (
            ["victim", "--out", "o", "--local-steps", "1", "--learning-rate", "0"],
            "'0' was given; a learning rate is a finite number above 0",
        ),
        (
            ["victim", "--out", "o", "--reduction", "sum", "--defense", "float16"],
            "--defense protects a mean over the batch",
        ),
        (["victim", "--out", "o", "--model", "resnet"], "--model resnet cannot be told from files"),
        (["victim", "--out", "o", "--index", "100000"], "lower one of them"),
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
