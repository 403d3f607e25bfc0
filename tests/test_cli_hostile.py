"""Hostile files through the commands: one sentence on the standard error, and exit 2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import refuser, runner
from hostile_files import build

from tinyleak.client import share
from tinyleak.nn import LeNet

MODEL = LeNet((1, 8, 8), 4, hidden=3)


@pytest.mark.parametrize("name", ["npz, a bomb", "safetensors, truncated", "npz, objects"])
@pytest.mark.parametrize(("command", "role"), [("attack", "gradients"), ("audit", "weights")])
def test_a_hostile_file_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, command: str, role: str
) -> None:
    rng = np.random.default_rng(0)
    client, _ = share(MODEL, MODEL.init(rng), rng.random((1, 1, 8, 8)), [2])
    np.savez(tmp_path / "w.npz", **client.params)
    np.savez(tmp_path / "g.npz", **client.gradients)
    ending, content, _ = build(name)
    path = tmp_path / f"file{ending}"
    path.write_bytes(content)
    files = {"weights": tmp_path / "w.npz", "gradients": tmp_path / "g.npz", role: path}
    refused = refuser(runner(capsys, command))
    asked = ["--weights", files["weights"], "--gradients", files["gradients"], "--shape", "1,8,8"]
    assert f"{str(path)!r} cannot be used: " in refused(*asked)


@pytest.mark.parametrize("command", ["attack", "audit"])
def test_a_table_stands_below_the_line_that_speaks_of_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    rng = np.random.default_rng(0)
    client, _ = share(MODEL, MODEL.init(rng), rng.random((1, 1, 8, 8)), [2])
    np.savez(tmp_path / "w.npz", **client.params)
    gradients = dict(client.gradients)
    gradients["\x1b[2J\n" * 99] = np.ones(5)
    np.savez(tmp_path / "g.npz", **gradients)
    asked = ["--weights", tmp_path / "w.npz", "--gradients", tmp_path / "g.npz"]
    answer = runner(capsys, command)(*asked, "--shape", "1,8,8")
    assert (answer.code, answer.out) == (2, "")
    sentence, *table = answer.err.splitlines()
    assert "compare the columns" in sentence
    assert len(table) > 8
    assert all(line.isprintable() for line in (sentence, *table))
