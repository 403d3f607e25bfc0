"""What a stranger's machine does to the command: signals, links, full devices, odd terminals."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Refused, Run, read_result

from tinyleak.analytic.jacobian_spectrum import measure
from tinyleak.cli.attack_result import Result
from tinyleak.cli.interrupts import interruptible, undisturbed
from tinyleak.cli.output import printable, say
from tinyleak.data.files import write_atomically
from tinyleak.text import Snapshot

ROOT = Path(__file__).resolve().parents[1]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
BRIEF = ("--data", "portrait", "--iterations", 20)
NETWORK = ("--shape", "1,8,8", "--classes", 4, "--model", "mlp", "--examples", 3)


@pytest.fixture(autouse=True)
def signals_are_not_ignored() -> Iterator[None]:
    """As they are where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def sends(number: int, at: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which is interrupted in its call number `at`."""
    calls = []

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        if len(calls) == at:
            signal.raise_signal(number)
        return function(*args, **kwargs)

    return call


# Signals


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_interrupts_and_the_next_ones_wait(number: int) -> None:
    before = signal.getsignal(number)
    with interruptible():
        with undisturbed():
            signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_python_swallows_comes_again(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """While it cleans up, where an exception goes no further than a line on the terminal."""

    class Dying:
        def __del__(self) -> None:
            signal.raise_signal(number)

    with interruptible(), pytest.raises(KeyboardInterrupt):
        Dying()
        time.sleep(5)
    assert capsys.readouterr().err == ""


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interruptible():
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.usefixtures("without_pictures")
def test_an_attack_keeps_the_best_so_far_and_a_second_signal_spoils_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    @contextlib.contextmanager
    def bar(*args: object, **kwargs: object) -> Iterator[Callable[[object], None]]:
        yield sends(number, 4, lambda progress: None)

    monkeypatch.setattr("tinyleak.cli.attack.progress_bar", bar)
    monkeypatch.setattr(Result, "write", sends(number, 1, Result.write))
    written = sends(number, 1, np.savez)
    monkeypatch.setattr("tinyleak.report.files.np.savez", written)
    out = tmp_path / "out"
    answer = run("attack", *BRIEF, "--out", out)
    assert (answer.code, answer.err) == (
        1,
        f"tinyleak: interrupted; the best so far is in {out}\n",
    )
    assert read_result(out)["reason"] == "interrupted"
    assert sorted(p.name for p in out.iterdir()) == ["reconstruction.npz", "result.json"]


@pytest.mark.usefixtures("without_pictures")
def test_a_signal_while_results_are_written_costs_none_of_them(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Result, "write", sends(signal.SIGTERM, 1, Result.write))
    answer = run("attack", *BRIEF, "--out", tmp_path / "out")
    assert (answer.code, answer.err) == (1, "")
    assert read_result(tmp_path / "out")["reason"] == "out of iterations"


@pytest.mark.parametrize("made", ["out", "new/and/deep"])
def test_a_directory_that_was_made_for_nothing_goes_away(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    for more in ([], ["--force"]):
        monkeypatch.setattr("tinyleak.data.load", sends(signal.SIGTERM, 1, print))
        answer = run("attack", *BRIEF, "--out", tmp_path / made, *more)
        assert (answer.code, answer.err) == (1, "tinyleak: interrupted before it was done\n")
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    monkeypatch.setattr("tinyleak.data.load", sends(signal.SIGTERM, 1, print))
    run("attack", *BRIEF, "--out", tmp_path / "mine", "--force")
    assert (tmp_path / "mine").exists()


def test_an_attack_on_text_keeps_the_best_and_counts_its_evaluations(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Snapshot] = []

    @contextlib.contextmanager
    def bar(*args: object, **kwargs: object) -> Iterator[Callable[[Snapshot], None]]:
        yield sends(signal.SIGTERM, 3, seen.append)

    monkeypatch.setattr("tinyleak.cli.text.snapshot_bar", bar)
    given = ["--attack", "match", "--layers", 1, "--width", 8, "--heads", 1]
    answer = run("text", *given, "--out", tmp_path / "out")
    assert "interrupted; the best so far is in" in answer.err
    result = read_result(tmp_path / "out")
    assert (answer.code, result["reason"]) == (1, "interrupted")
    assert result["evaluations"] > 0
    distances = [snapshot["distance"] for snapshot in result["history"]]
    assert distances[-1] == min(distances)


def test_an_audit_writes_what_it_has(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinyleak.audit.forecasting.measure", sends(signal.SIGTERM, 3, measure))
    answer = run("audit", *NETWORK, "--out", tmp_path / "out")
    said = "tinyleak: interrupted; the audit is of what was measured by then\n"
    assert (answer.code, answer.err) == (1, said)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["audit.html", "audit.json"]
    monkeypatch.setattr("tinyleak.audit.forecasting.measure", sends(signal.SIGTERM, 1, measure))
    answer = run("audit", *NETWORK, "--out", tmp_path / "none")
    assert (answer.code, answer.err) == (1, "tinyleak: interrupted before it was done\n")
    assert not (tmp_path / "none").exists()


def test_ctrl_c_during_imports_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(30)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "tinyleak", "info"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )
    said = "tinyleak: interrupted before it was done\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


# Files


@pytest.mark.parametrize("link", ["none", "symbolic", "hard"])
@pytest.mark.parametrize("name", ["reconstruction.npz", "result.npz"])
def test_an_input_is_not_replaced_by_an_output(
    refused: Refused, tmp_path: Path, name: str, link: str
) -> None:
    out, weights = tmp_path / "out", tmp_path / "w.npz"
    out.mkdir()
    (out / name).write_bytes(b"precious")
    (out / "result.json").write_text("notes on result.npz")
    given = out / name
    if link != "none":
        given = tmp_path / name
        make = given.symlink_to if link == "symbolic" else given.hardlink_to
        make(out / name)
        if name == "result.npz":
            make = given.with_suffix(".json")
            (make.symlink_to if link == "symbolic" else make.hardlink_to)(out / "result.json")
    for pair in ((given, weights), (weights, given)):
        options = ("--weights", pair[0], "--gradients", pair[1], "--out", out, "--force")
        message = refused("attack", *options)
        assert "--out would write" in message
        assert message.endswith("reads; choose another --out")
    assert (out / name).read_bytes() == b"precious"
    assert (out / "result.json").read_text() == "notes on result.npz"


def test_no_command_writes_what_it_reads(refused: Refused, tmp_path: Path) -> None:
    for name in ("truth.npz", "audit.html", "sentences.txt"):
        (tmp_path / name).write_bytes(b"precious")
    out = ["--out", tmp_path, "--force"]
    assert "--image reads" in refused("victim", "--image", tmp_path / "truth.npz", *out)
    assert "--image reads" in refused("audit", "--image", tmp_path / "audit.html", *out)
    assert "--vocabulary reads" in refused("text", "--vocabulary", tmp_path / "sentences.txt", *out)
    assert all(path.read_bytes() == b"precious" for path in tmp_path.iterdir())


def test_a_csv_does_not_replace_the_data(refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "t10k-images-idx3-ubyte"
    file.write_bytes(b"precious")
    given = ["--data", "mnist", "--data-dir", tmp_path, "--table", tmp_path / "t"]
    assert "--data-dir reads" in refused("sweep", *given, "--csv", file)
    assert file.read_bytes() == b"precious"


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="needs files without a name")
def test_a_process_that_is_killed_while_it_writes_leaves_nothing(tmp_path: Path) -> None:
    def write(file: Any) -> None:
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        write_atomically(tmp_path / "a", write)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


# What is printed

CONTROLS = "\x1b]0;title\x07\x9b31m\u202e\u2028\x7f\r"


@pytest.mark.parametrize("error", [False, True])
def test_a_terminal_obeys_nothing_that_is_said(
    capsys: pytest.CaptureFixture[str], error: bool
) -> None:
    say(f"{CONTROLS} déjà vu 漢字\u3000\udcff", error=error)
    said = capsys.readouterr()[error]
    escaped = r"\x1b]0;title\x07\x9b31m\u202e\u2028\x7f\r déjà vu 漢字"
    assert said == escaped + "\u3000\\udcff\n"


def escapes(text: str) -> bool:
    return text == printable(text)


def test_names_and_tokens_are_escaped(run: Run, tmp_path: Path) -> None:
    name = "a\x1b[31m\x07"
    answers = [
        run("attack", *BRIEF, "--quiet", "--image", name),
        run("attack", *BRIEF, f"--{name}"),
        run("sweep", "--dask", name, "--table", tmp_path / name),
        run("text", name, "--attack", "rows"),
    ]
    weights, gradients, words = (tmp_path / n for n in ("w.npz", "g.npz", "words"))
    np.savez(weights, **{"embedding.weight": np.ones((7, 4))})
    table = np.zeros((7, 4))
    table[5] = 1.0
    np.savez(gradients, **{"embedding.weight": table})
    words.write_text(f"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n{name}\nb\n")
    given = ["--weights", weights, "--gradients", gradients, "--vocabulary", words]
    answers.append(run("audit", "--model", "text", *given, "--out", tmp_path / "out"))
    assert r"a\x1b[31m\x07" in answers[-1].out
    for answer in answers:
        assert escapes(answer.out), answer.out
        assert escapes(answer.err), answer.err
    text = (tmp_path / "out" / "audit.json").read_text(encoding="utf-8")
    assert escapes(text)
    assert read_audit(tmp_path / "out")["words"] == [name]


def read_audit(folder: Path) -> dict[str, Any]:
    import json

    return json.loads((folder / "audit.json").read_text(encoding="utf-8"))


@pytest.mark.usefixtures("without_pictures")
def test_no_control_reaches_the_table_of_sentences(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinyleak.text import TextClient

    words = TextClient.as_words
    monkeypatch.setattr(
        TextClient, "as_words", lambda *a: [[f"{w}\x1b\n" for w in s] for s in words(*a)]
    )
    run("text", "We ate it.", "--attack", "span", "--layers", 1, "--out", tmp_path / "out")
    written = (tmp_path / "out" / "sentences.txt").read_text(encoding="utf-8")
    assert "[CLS]\\x1b\\n we\\x1b\\n" in written
    assert escapes(written)


def outside(*arguments: str, stdout: Any = subprocess.PIPE, **environment: str) -> Any:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "tinyleak", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_device_is_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        done = outside("info", stdout=full)
    said = b"tinyleak: the output could not be printed (No space left on device)\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_a_sentence_is_read_in_any_locale() -> None:
    ascii = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = outside("text", "the café is open", **ascii)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"the cafe is open" in done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "tinyleak", "text", b"caf\xe9"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **ascii},
    )
    assert done.returncode == 2
    assert b"is not text in UTF-8; write the sentence in that encoding" in done.stderr
    assert done.stderr.count(b"\n") == 1
