"""The README does what it says: its attack runs, and its commands parse."""

from __future__ import annotations

import io
import re
import shlex
import tokenize
from pathlib import Path

import numpy as np
import pytest

from tinyleak.cli import build_parser, main
from tinyleak.data import load_glyphs

README = Path(__file__).resolve().parents[1] / "README.md"
LESSONS = (README.parent / "lessons").glob("[0-9]*.py")
LINES = 20


def blocks(*languages: str, text: str | None = None) -> list[str]:
    """The contents of the README's fenced code blocks in one of these languages."""
    text = README.read_text(encoding="utf-8") if text is None else text
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def lines_of_code(code: str) -> int:
    """How many lines hold code: not blank ones, nor those that are all comment."""
    ignored = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENCODING}
    ignored |= {tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    held: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type not in ignored:
            held.update(range(token.start[0], token.end[0] + 1))
    return len(held)


def commands(text: str | None = None) -> list[str]:
    """The lines of the README's shell blocks that call tinyleak, a prompt before them or not."""
    found = []
    for block in blocks("console", "bash", "sh", text=text):
        lines = block.replace("\\\n", " ").splitlines()
        # Where there are prompts, lines without one are output.
        prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        parts = [part.strip() for line in prompted or lines for part in line.split("&&")]
        found += [part for part in parts if part.split()[:1] == ["tinyleak"]]
    return found


def test_the_attack_in_the_readme_recovers_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = blocks("python")
    if not found:
        pytest.skip("README.md has no Python block yet")
    code = found[0]
    assert lines_of_code(code) <= LINES
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile(code, str(README), "exec"), names)
    x, truth = np.asarray(names["x"]), np.asarray(names["truth"])
    assert x.size == truth.size > 1
    assert np.mean((x.ravel() - truth.ravel()) ** 2) < 1e-3


def test_the_pytorch_lines_in_the_readme_save_what_the_command_below_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    (code,) = [block for block in blocks("python") if "torch.nn" in block]
    (attack,) = [one for one in commands() if "w.safetensors" in one and " attack " in one]
    torch.manual_seed(0)
    squash, window = torch.nn.Sigmoid, {"kernel_size": 5, "padding": 2}
    net = torch.nn.Sequential(
        *(torch.nn.Conv2d(1, 12, stride=2, **window), squash()),
        *(torch.nn.Conv2d(12, 12, stride=2, **window), squash()),
        *(torch.nn.Conv2d(12, 12, **window), squash()),
        *(torch.nn.Flatten(), torch.nn.Linear(588, 10)),
    )
    images, labels = load_glyphs(4).batch([3])
    monkeypatch.chdir(tmp_path)
    names = {"torch": torch, "save_file": save_file, "net": net, "labels": torch.tensor(labels)}
    exec(code, {**names, "images": torch.tensor(images, dtype=torch.float32)})
    assert main([*shlex.split(attack)[1:], "--out", "found", "--quiet"]) == 0
    with np.load("found/reconstruction.npz") as found:
        assert float(np.mean((found["images"] - images) ** 2)) < 1e-6
        assert found["labels"].tolist() == labels.tolist()


def test_the_commands_in_the_readme_parse() -> None:
    found = commands()
    if not found:
        pytest.skip("README.md has no command yet")
    for line in found:
        try:
            build_parser().parse_args(shlex.split(line, comments=True)[1:])
        except SystemExit as stop:
            assert stop.code == 0, f"README.md: {line!r} is no command of tinyleak"


PROSE = ["README.md", "CONTRIBUTING.md", "benchmarks/README.md", "lessons/README.md"]
LINK = re.compile(r"\]\(([^)\s:{}]+)(?: \"[^\"]*\")?\)")
"""A relative link in Markdown: an address has a colon."""


@pytest.mark.parametrize("name", [*PROSE, *sorted(f"lessons/{p.name}" for p in LESSONS)])
def test_what_is_linked_to_is_there(name: str) -> None:
    path = README.parent / name
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        file, _, heading = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), f"{name} links to {link}"
        if heading:
            text = target.read_text(encoding="utf-8")
            titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            found = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            found += re.findall(r'<a id="([^"]+)">', text)
            assert heading in found, f"{name} links to {link}"


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


# The checks themselves


def test_lines_of_code_are_those_with_code_on_them() -> None:
    code = "# a comment\nx = 1  # and a line\n\nfor i in range(3):\n    x += (i\n          + 1)\n"
    assert lines_of_code(code) == 4
    assert lines_of_code('text = """one\ntwo\n"""\n') == 3


def test_commands_are_found_in_shell_blocks_alone() -> None:
    text = (
        "tinyleak in the text\n```console\n$ tinyleak info\ntinyleak  0.1.0\n```\n"
        "```python\ntinyleak = 1\n```\n"
        "```bash\npip install . && tinyleak info\ntinyleak attack \\\n  --seed 3  # so\n```\n"
    )
    expected = [["tinyleak", "info"], ["tinyleak", "info"], ["tinyleak", "attack", "--seed", "3"]]
    assert [shlex.split(line, comments=True) for line in commands(text)] == expected
