"""`tinyleak attack --weights W --gradients G`: what it prints, writes and turns down."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import Refused, Run, errors, read_result
from pytorch_client import save_step

from tinyleak.attacks import Progress
from tinyleak.cli.attack_result import FILES

COMMAND = ("attack",)


def files(folder: Path, ending: str = "safetensors") -> list[object]:
    return ["--weights", folder / f"w.{ending}", "--gradients", folder / f"g.{ending}"]


@pytest.mark.usefixtures("without_pictures")
def test_a_digit_comes_back(run: Run, tmp_path: Path) -> None:
    truth = save_step(tmp_path, [3])
    answer = run(
        *files(tmp_path),
        *("--shape", "1,28,28", "--classes", 10, "--model", "lenet", "--out", tmp_path / "out"),
    )
    assert answer.code == 0, answer.out + answer.err
    assert errors(tmp_path / "out", truth).max() < 1e-6
    said = " ".join(answer.out.split())
    assert re.search(r"^label +3 \(read off beforehand\)$", answer.out, re.MULTILINE)
    assert "lenet with sigmoid, 10 classes" in said
    assert "activation sigmoid, read off (no other makes such features and gradients)" in said
    assert "loss as it is, read off (the last layer's gradient)" in said
    assert "result success: converged" in said or "result success: stalled" in said
    assert "verdict exact: what was found makes the shared gradient, to its rounding" in said
    result = read_result(tmp_path / "out")
    assert result["verdict"] == "exact"
    assert result["succeeded"] is True
    assert result["mse"] is result["psnr"] is result["labels_true"] is None
    assert result["labels_recovered"] == result["labels_inferred"] == [3]
    assert result["relative_distance"] < result["succeeded_below"] < 1e-11
    assert result["loss_factor"] == 1
    settings = result["settings"]
    for name in ("data", "image", "index", "label", "init", "weights_after", "notes"):
        assert settings[name] is None
    assert (settings["model"], settings["image_shape"]) == ("lenet", [1, 28, 28])
    assert settings["weights"] == str(tmp_path / "w.safetensors")
    assert settings["goal"] == 1e-20
    assert "truth" not in np.load(tmp_path / "out" / "reconstruction.npz")


@pytest.mark.usefixtures("without_pictures")
def test_the_direction_alone_is_matched_where_the_loss_is_not_known_exactly(
    run: Run, tmp_path: Path
) -> None:
    import torch

    cross_entropy = torch.nn.functional.cross_entropy
    save_step(tmp_path, [3, 5], size=16, loss=lambda z, y: 0.4 * cross_entropy(z, y))
    asked = [*files(tmp_path), "--shape", "1,16,16", "--batch", 2, "--iterations", 5]
    answer = run(*asked, "--out", tmp_path / "out")
    assert "about 0.4 times the mean, read off" in answer.out
    assert "the same command with --" in " ".join(answer.out.split())
    assert read_result(tmp_path / "out")["settings"]["direction"] is True


@pytest.mark.usefixtures("without_pictures")
def test_notes_are_told_and_the_command_line_goes_before_them(run: Run, tmp_path: Path) -> None:
    save_step(tmp_path, [3], size=16, ending="npz")
    (tmp_path / "g.json").write_text(
        '{"activation": "tanh", "shape": "1,16,16", "reduction": "mean"}'
    )
    asked = [*files(tmp_path, "npz"), "--out", tmp_path / "out"]
    answer = run(*asked, "--iterations", 100)
    assert answer.code == 1
    assert "with tanh" in " ".join(answer.out.split())
    assert re.search(
        r"^notes +shape 1,16,16, activation tanh, reduction mean, said", answer.out, re.M
    )
    assert "verdict not explained: what was found does not make" in " ".join(answer.out.split())
    settings = read_result(tmp_path / "out")["settings"]
    assert (settings["reduction"], settings["learning_rate"]) == ("mean", None)
    assert settings["notes"] == "shape 1,16,16, activation tanh, reduction mean"
    assert run(*asked, "--force", "--activation", "sigmoid", "--quiet") == (0, "", "")


def test_names_that_leave_a_choice_are_shown_and_settled_by_a_rename(
    run: Run, tmp_path: Path
) -> None:
    save_step(tmp_path, [3], size=16, ending="npz")
    for name in ("w.npz", "g.npz"):
        arrays = dict(np.load(tmp_path / name))
        arrays |= {f"deep.{part}": arrays.pop(f"conv3.{part}") for part in ("weight", "bias")}
        np.savez(tmp_path / name, **arrays)
    asked = [*files(tmp_path, "npz"), "--shape", "1,16,16", "--iterations", 1]
    answer = run(*asked)
    assert answer.code == 2
    assert "--rename from=to" in answer.err
    assert re.search(r"the file has +the model expects\n", answer.err)
    assert run(*asked, "--rename", "conv2=body.2", "--rename", "deep=body.4").code == 1


def test_all_files_are_written_and_pixels_beyond_the_usual_can_be_drawn(
    run: Run, tmp_path: Path
) -> None:
    truth = save_step(tmp_path, [3], size=16, normalise=True)
    answer = run(*files(tmp_path), "--shape", "1,16,16", "--out", tmp_path / "out")
    assert answer.code == 0, answer.out + answer.err
    assert "drawn from black to white: the client did not have its pixels in [0, 1]" in answer.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    assert errors(tmp_path / "out", truth).max() < 1e-6
    low, high = read_result(tmp_path / "out")["pixel_range"]
    assert low == pytest.approx(truth.min(), abs=1e-3)
    assert high == pytest.approx(truth.max(), abs=1e-3)


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

    monkeypatch.setattr("tinyleak.cli.attack.progress_bar", impatient)
    save_step(tmp_path, [3], size=16)
    answer = run(*files(tmp_path), "--shape", "1,16,16", "--out", tmp_path / "out")
    assert answer.code == 1
    assert answer.err == f"tinyleak: interrupted; the best so far is in {tmp_path / 'out'}\n"
    result = read_result(tmp_path / "out")
    assert (result["reason"], result["iterations"], result["succeeded"]) == (
        *("interrupted", 10),
        False,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "w.npz"], "--weights need what the client made of them"),
        (
            ["--weights", "w.npz", "--weights-after", "v.npz", "--gradients", "g.npz"],
            "give either its gradient with --gradients, or its weights after its steps",
        ),
        (["--gradients", "g.npz"], "--gradients speaks of a client's files, but without --weights"),
        (["--rename", "a=b"], "--rename speaks of a client's files"),
        (["--rename", "ab"], "'ab' was given; write a renaming as FROM=TO"),
        (["--reduction", "sum"], "--reduction speaks of a client's files"),
        (["--learning-rate", "0.1"], "--learning-rate speaks of a client's files"),
        (["--learning-rate", "0"], "'0' was given; a learning rate is a finite number above 0"),
        (["--weights-after", "w.npz"], "--weights-after speaks of a client's files"),
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
