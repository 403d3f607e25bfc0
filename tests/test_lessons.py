"""The lessons run, their notebooks are their scripts', and they use only what is public.

Every claim of a lesson is an `assert` in it, so running it is the test of what it says.
"""

from __future__ import annotations

import ast
import html
import importlib
import importlib.util
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import jupytext
import matplotlib
import numpy as np
import pytest

from tinyleak import Tensor, grad, nn, ops

DIRECTORY = Path(__file__).resolve().parents[1] / "lessons"
SCRIPTS = sorted(DIRECTORY.glob("[0-9][0-9]*_*.py"))
SECONDS = 60

# A lesson must work where there is no network, so here there is none. What may take a minute is
# the processor's time, so that a busy machine does not fail it.
WITHOUT_NETWORK = f"""
import resource, runpy, socket
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
def refuse(*_, **__):
    raise OSError("a lesson must not use the network")
socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
sys.path.insert(0, {str(DIRECTORY)!r})
names = runpy.run_path(sys.argv[1], run_name="__main__")
for solution in sys.argv[2:]:
    exec(solution, names)
"""
sys.path.insert(0, str(DIRECTORY))  # where the lessons find `checks` and `plots`


def load_builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lessons_build", DIRECTORY / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


builder = load_builder()
checks, exercises = importlib.import_module("checks"), importlib.import_module("exercises")
with matplotlib.rc_context():  # its letters are for the lessons' figures alone
    plots = importlib.import_module("plots")


def run(
    script: Path, *solutions: str, absent: str = "no such module", times: int = 1
) -> subprocess.CompletedProcess[str]:
    """Run a script, and then the solutions of its exercise, as if they stood at its end.

    The module named `absent` cannot be imported. If the script's cells stand there more `times`
    than once, with other seeds, claims may fail.
    """
    seconds = times * SECONDS
    code = f"import sys\nsys.modules[{absent!r}], seconds = None, {seconds}\n{WITHOUT_NETWORK}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(script), *solutions],
        env=os.environ
        | {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        | {builder.STRICT: "1" if times == 1 else ""},  # which building lessons here has set
        capture_output=True,
        text=True,
        timeout=10 * seconds,
        check=False,
    )
    limit = f"{script.name} was ended after {seconds} s of one core, which is what it may take"
    assert -done.returncode not in {signal.SIGXCPU, signal.SIGKILL}, limit
    return done


# What a lesson may name


def names_of_tinyleak(source: str) -> Iterator[tuple[str, str]]:
    """The (module, name) pairs that a script takes from tinyleak, by import or as an attribute."""
    tree = ast.parse(source)
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "tinyleak":
                    *above, name = alias.name.split(".")
                    if above:
                        yield ".".join(above), name
                    modules[alias.asname or "tinyleak"] = alias.name if alias.asname else "tinyleak"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tinyleak":
            for alias in node.names:
                yield str(node.module), alias.name
                if is_module(full := f"{node.module}.{alias.name}"):
                    modules[alias.asname or alias.name] = full
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (home := module_of(node.value, modules)):
            yield home, node.attr


def module_of(node: ast.expr, modules: dict[str, str]) -> str | None:
    """The module that an expression such as `tinyleak.ops` stands for, or None."""
    if isinstance(node, ast.Name):
        return modules.get(node.id)
    if isinstance(node, ast.Attribute) and (above := module_of(node.value, modules)):
        return full if is_module(full := f"{above}.{node.attr}") else None
    return None


def is_module(name: str) -> bool:
    try:
        return isinstance(importlib.import_module(name), ModuleType)
    except ModuleNotFoundError:
        return False


def is_public(home: str, name: str) -> bool:
    """Whether the module lists the name, is a package that has it, or defines and documents it."""
    if name.startswith("_"):
        return name == "__version__"
    module = importlib.import_module(home)
    if name in getattr(module, "__all__", ()):
        return True
    if is_module(f"{home}.{name}"):
        return bool(importlib.import_module(f"{home}.{name}").__doc__)
    thing = getattr(module, name, None)
    if hasattr(module, "__all__") or thing is None:
        return False
    return name.isupper() or (thing.__module__ == home and bool(thing.__doc__))


def private_names(source: str) -> list[str]:
    """What a lesson takes from tinyleak, or from one of its objects, that is not public."""
    found = [f"{home}.{name}" for home, name in names_of_tinyleak(source)]
    private = [full for full in found if not is_public(*full.rsplit(".", 1))]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            private += [] if ast.unparse(node.value) == "self" else [ast.unparse(node)]
    return private


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


# The lessons


def solutions_of(script: Path) -> list[str]:
    """The code that solves a script's exercise, folded in the next lesson, and its check."""
    number = builder.read_lesson(script).name
    summary = f"<summary>Solution to the exercise of lesson {number}</summary>"
    after = SCRIPTS[SCRIPTS.index(script) : SCRIPTS.index(script) + 2]  # the last has its own
    text = "\n".join(cell.source for cell in builder.read_cells(after[-1]))
    assert summary in text, f"{after[-1].name} has no folded solution of lesson {number}"
    folded = text.split(summary)[1].split("</details>")[0]
    solution = re.findall(r"^```python\n(.*?)^```$", folded, re.DOTALL | re.MULTILINE)
    (checked,) = re.findall(r"^check\(.+\)$", script.read_text(encoding="utf-8"), re.MULTILINE)
    return [*solution, checked]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_script_and_its_solution_run(script: Path) -> None:
    assert "# ## Exercise\n" in script.read_text(encoding="utf-8")
    done = run(script, *solutions_of(script))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""
    assert ": right. " in done.stdout.splitlines()[-1]


def test_the_lesson_on_pytorch_runs_without_it() -> None:
    (script,) = DIRECTORY.glob("15_*.py")
    done = run(script, absent="torch")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "tinyleak gives the recorded digits" in done.stdout
    assert "PyTorch gives" not in done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_notebook_is_the_script(script: Path) -> None:
    rebuild = f"python lessons/build.py {script.name[:2]}"
    path = script.with_suffix(".ipynb")
    assert path.is_file(), f"{path.name} is missing: {rebuild}"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = jupytext.reads(script.read_text(encoding="utf-8"), fmt="py:percent").cells
    expected = [(cell.cell_type, cell.source) for cell in cells]
    held = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert held == expected, f"{path.name} is not what its script says: {rebuild}"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in code]
    assert counts == list(range(1, len(code) + 1)), f"{path.name} was not executed: {rebuild}"
    assert path.stat().st_size < builder.LARGEST_NOTEBOOK
    lesson = builder.read_lesson(script)
    assert lesson.thumbnail.is_file(), f"{lesson.thumbnail.name} is missing: {rebuild}"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_lesson_uses_only_what_is_public(script: Path) -> None:
    source = script.read_text(encoding="utf-8")
    assert list(names_of_tinyleak(source)), "a lesson compares with tinyleak's own"
    assert private_names(source) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_no_text_stands_on_the_line_that_begins_a_cell(script: Path) -> None:
    marks = [line for line in script.read_text(encoding="utf-8").splitlines() if "# %%" in line]
    allowed = ("# %%", "# %% [markdown]", '# %% tags=["thumbnail"]')
    assert set(marks) <= set(allowed), "a notebook loses what stands there: move it down a line"


def test_the_contents_page_lists_every_lesson() -> None:
    page = builder.CONTENTS.read_text(encoding="utf-8")
    lessons = builder.find_lessons()
    assert [lesson.path for lesson in lessons] == SCRIPTS
    assert builder.with_contents(page, lessons) == page, (
        "lessons/README.md: python lessons/build.py"
    )
    assert all(lesson.path.name in page and lesson.notebook.name in page for lesson in lessons)


def test_the_readme_leads_to_each_lesson_and_each_to_its_rooms_which_lead_back() -> None:
    root = DIRECTORY.parent
    readme = (root / "README.md").read_text(encoding="utf-8")
    for lesson in builder.find_lessons():
        number, text = lesson.name, lesson.path.read_text(encoding="utf-8")
        link = f'[{number}](lessons/{lesson.notebook.name} "{lesson.title}")'
        assert link in readme, f"README.md needs the link {link}"
        rooms = [root / room for room in re.findall(r"\]\(\.\./(tinyleak/[^)]+)\)", text)]
        assert rooms, f"{lesson.path.name} leads to no file of tinyleak"
        assert [room for room in rooms if not room.exists()] == []
        files = [room / "__init__.py" if room.is_dir() else room for room in rooms]
        taught = [ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) for file in files]
        name = f"lessons/{lesson.path.name}"
        assert any(name in (text or "") for text in taught), f"no room of {name} leads back to it"


# What every lesson has


def each_cell() -> Iterator[tuple[Path, str, str]]:
    for script in SCRIPTS:
        for cell in builder.read_cells(script):
            yield script, cell.cell_type, cell.source


def test_no_cell_is_longer_than_30_lines() -> None:
    cells = [
        (script.name, source.splitlines()) for script, kind, source in each_cell() if kind == "code"
    ]
    assert [(name, lines[0]) for name, lines in cells if len(lines) > 30] == []


def test_no_assert_is_without_a_message() -> None:
    for script, kind, source in each_cell():
        if kind == "code":
            asserts = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Assert)]
            silent = [ast.unparse(node) for node in asserts if node.msg is None]
            assert silent == [], f"{script.name}: say what holds"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_lesson_asks_first_and_says_where_it_stands(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    asked, answered = text.count("**Predict first.**"), text.count("<summary>Answer</summary>")
    assert asked == answered >= 1
    assert re.search(r"about \d+ minutes", text)
    for part in ("one gets stuck", "## What to remember"):
        assert part in text, part
    at = SCRIPTS.index(script)
    first = text.split("\n\n")[0]
    before = [f"]({path.stem}.ipynb)" for path in SCRIPTS[max(0, at - 1) : at]]
    after = [f"]({path.stem}.ipynb) →" for path in SCRIPTS[at + 1 : at + 2]]
    assert all(link in first for link in (*before, *after, "](README.md)"))


def test_every_link_leads_somewhere() -> None:
    words = builder.CONTENTS.read_text(encoding="utf-8")
    texts = [(script, source) for script, kind, source in each_cell() if kind == "markdown"]
    for path, text in (*texts, (builder.CONTENTS, words)):
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
            file, _, word = target.partition("#")
            assert (DIRECTORY / file).exists(), f"{path.name} links to {target}"
            if file == "README.md" and word:
                assert f'<a id="{word}">' in words, f"{path.name} links to {target}"


def test_a_word_is_linked_first_in_the_lesson_that_the_list_names() -> None:
    words = builder.CONTENTS.read_text(encoding="utf-8")
    listed = dict(re.findall(r'<a id="([^"]+)"></a>.* \| \[(\w+)\]\(', words))
    first: dict[str, str] = {}
    for script in SCRIPTS:
        for word in re.findall(r"\]\(README\.md#([\w-]+)\)", script.read_text(encoding="utf-8")):
            first.setdefault(word, builder.read_lesson(script).name)
    assert first == listed


def test_every_figure_is_described() -> None:
    for script in SCRIPTS:
        assert "plt.show()" not in script.read_text(encoding="utf-8")
        notebook = json.loads(script.with_suffix(".ipynb").read_text(encoding="utf-8"))
        outputs = [out for cell in notebook["cells"] for out in cell.get("outputs", ())]
        for output, under in itertools.zip_longest(outputs, outputs[1:]):
            if "image/png" in output.get("data", {}):
                alt = output["metadata"]["image/png"]["alt"]
                assert len(alt) > 30, script.name
                caption = f"<small>{html.escape(alt)}</small>"
                assert "".join(under["data"]["text/html"]) == caption, script.name
            for page in output.get("data", {}).get("text/html", ()):
                assert "<img" not in page or 'alt="' in page, script.name
    pictures = re.findall(r'alt="([^"]*)"', builder.CONTENTS.read_text(encoding="utf-8"))
    assert len(pictures) == len(SCRIPTS) and all(pictures)


def test_no_cell_shows_a_bare_truth_value() -> None:
    for script in SCRIPTS:
        notebook = json.loads(script.with_suffix(".ipynb").read_text(encoding="utf-8"))
        for output in (out for cell in notebook["cells"] for out in cell.get("outputs", ())):
            plain = "".join(output.get("data", {}).get("text/plain", ""))
            assert plain not in {"True", "False"}, f"{script.name} shows {plain}"


def test_a_figure_that_nobody_can_read_on_a_phone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(checks.STRICT, "1")
    plots.plt.figure(figsize=(7, 1)).suptitle("as large as the others", fontsize=11)
    plots.show("A title.")
    plots.plt.figure(figsize=(9, 1))
    plots.show("No letters at all.")
    plots.plt.figure(figsize=(9, 1)).suptitle("too small", fontsize=10)
    with pytest.raises(ValueError, match="5.3 pixels on a phone, of 7 at least"):
        plots.show("A title.")
    plots.plt.close("all")


TOLD_LATER = {  # a word, and the lesson from which on it may stand without "lesson N" beside it
    "InverseHessian": 7,
    "LayerGradient": 10,
    "Jacobian(": 11,
    "trace(": 14,
}


def test_no_name_comes_before_its_lesson_without_a_word() -> None:
    for script, kind, source in each_cell():
        number = int(script.name[:2])
        for name, lesson in TOLD_LATER.items():
            if kind == "code" and name in source and number < lesson:
                told = f"esson {lesson}" in script.read_text(encoding="utf-8")
                assert told, f"{script.name} uses {name} without a word on lesson {lesson}"


def shifted(script: Path) -> str:
    """A script with every literal seed another one."""
    text = script.read_text(encoding="utf-8")
    return re.sub(r"default_rng\((\d+)\)", lambda seed: f"default_rng({int(seed[1]) + 7})", text)


SECONDS_LONG = {"06b", "08", "09", "09b", "10", "10b", "11", "11b", "12", "12b", "15"}
"""Lessons whose cells take too long to be run twice in every run of the tests."""

TWICE = [
    pytest.param(script, marks=[pytest.mark.slow] * (script.name.split("_")[0] in SECONDS_LONG))
    for script in SCRIPTS
]


@pytest.mark.parametrize("script", TWICE, ids=lambda path: path.stem)
def test_a_lesson_survives_other_seeds_and_each_cell_run_twice(
    script: Path, tmp_path: Path
) -> None:
    changed = tmp_path / script.name
    changed.write_text(shifted(script), encoding="utf-8")
    cells = [cell.source for cell in builder.read_cells(changed) if cell.cell_type == "code"]
    changed.write_text("\n\n".join(part for cell in cells for part in (cell, cell)), "utf-8")
    done = run(changed, times=2)
    assert done.returncode == 0, done.stderr[-2000:]


# The exercises


def say(lesson: str, answer: object, capsys: pytest.CaptureFixture[str]) -> tuple[bool, str]:
    checks.check(lesson, answer)
    said = capsys.readouterr().out
    return said.startswith(f"Exercise {lesson}: right. "), said


def test_every_lesson_has_an_exercise_and_every_exercise_a_lesson() -> None:
    assert list(exercises.EXERCISES) == [lesson.name for lesson in builder.find_lessons()]


@pytest.mark.parametrize("lesson", exercises.EXERCISES)
def test_an_answer_that_is_not_written_yet(lesson: str, capsys: pytest.CaptureFixture[str]) -> None:
    rule = dict.fromkeys(("subtract", "divide"), lambda *_: None)
    right, said = say(lesson, rule if lesson == "2" else lambda *_: None, capsys)
    assert not right and "nothing is returned yet" in said


def planted() -> Iterator[tuple[str, object, str]]:
    """Two mistakes for each exercise, as somebody might make them, and what is said of each."""
    yield "1", lambda y: 1 + sum(count_paths(x) for x in y.inputs), "right for a tree"
    yield "1", lambda y: len(everything(y)) - 1, "one too few"
    rules = dict(exercises.RULES)
    yield "2", rules | {"subtract": lambda g, out, a, b: (g, +g)}, "a - b falls"
    yield "2", rules | {"divide": lambda g, out, a, b: (g / b, out * g / b)}, "a / b falls"
    yield "3", lambda g: np.array([g[0], g[0], g[1], g[1], g[2], g[2], g[3]]), "zeros, not copies"
    yield "3", lambda g: np.stack([g, 0 * g], axis=1).ravel(), "it has 8 elements"
    yield "4", lambda f, x, v: v * grad(f(x), [x])[0].data, "of first order"
    yield "4", hessian_first, "weight the gradient with v"
    yield "5", lambda x, kernels: layers(x, kernels, False), "sigmoids are missing"
    yield "5", lambda x, kernels: 1 / (1 + np.exp(-layers(x, kernels, False))), "after *each*"
    yield "6", lambda z, y: (z.argmax(axis=1) == y).sum(), "how many are right"
    yield "6", lambda z, y: np.mean(np.argmax(z, 0) == y), "each *row*"
    yield "6b", one_after_the_other, "at the same point"
    yield "6b", lambda rate: {0.001: 15_067, 0.01: np.inf}[rate], "count the last step"
    yield "7", lambda x: chain(x, both=False), "stands in two terms"
    yield "7", lambda x: (chain(x)[0], -chain(x)[1]), "wrong sign"
    yield "8", lambda x: (x > 0).astype(float), "the first derivative"
    yield "8", lambda x: x * (x > 0), "relu itself"
    yield "9", lambda p, wanted: int(np.ceil(np.log(1 - wanted) / np.log(p))), "must *fail*"
    yield "9", lambda p, wanted: int(np.log(1 - wanted) // np.log(1 - p)), "round up"
    yield "9b", lambda p, width: attacks(p, 2 * width), "not from the middle"
    yield "9b", lambda p, width: attacks(0.5, width), "the share p"
    yield "10", lambda shapes, n: -(-sum(np.prod(s) for s in shapes.values()) // n), "round down"
    yield "10", lambda shapes, n: sum(s[0] for s in shapes.values()) // n, "not 10"
    yield "10b", lambda shapes, n: wide(shapes, n, 0), "(outputs, inputs)"
    yield "10b", lambda shapes, n: wide(shapes, n, 1), "nothing to divide by"
    yield "11", lambda J, error: error / np.linalg.norm(J, 2), "the strongest direction"
    yield "11", lambda J, error: error / np.linalg.eigvalsh(J.T @ J)[0], "eigenvalue"
    yield "11b", min, "no dimension outside"
    yield "11b", lambda m, d: m // 2, "more pictures than inputs"
    yield "12", lambda gs, bound: {n: scaled(g, bound) for n, g in gs.items()}, "on its own"
    yield "12", lambda gs, bound: {n: np.clip(g, -bound, bound) for n, g in gs.items()}, "cuts"
    yield "12b", lambda g: [v for v, row in enumerate(g) if row.sum() != 0], "adds up to 0"
    yield "12b", lambda g: [v for v, row in enumerate(g) if (row == 0).all()], "*not* looked up"
    yield "13", lambda gs, share, rng: with_noise(gs, share**0.5, rng), "noise is too large"
    yield "13", lambda gs, share, rng: [g + share * rng.normal(size=g.shape) for g in gs], "*each*"
    yield "14", lambda steps, x: [t for t in steps if x in set(t.inputs)], "whoever reads *them*"
    yield "14", lambda steps, x: list(steps), "constants alone"
    yield "15", lambda a, b: np.mean(np.concatenate([(b[n] / a[n]).ravel() for n in a])), "differ"
    yield "15", lambda a, b: exercises.factor(b, a), "upside down"


def count_paths(y):
    return 1 + sum(count_paths(x) for x in y.inputs)


def everything(y):
    found, new = {y}, [y]
    while new:
        new = [x for node in new for x in node.inputs if x not in found]
        found.update(new)
    return found


def hessian_first(f, x, v):
    (slopes,) = grad(f(x), [x])
    return grad(ops.sum(slopes), [x])[0].data * v


def layers(x, kernels, squashed):
    for kernel, stride in zip(kernels, (2, 2, 1), strict=True):
        x = nn.conv2d(Tensor(x), Tensor(kernel), stride=(stride, stride), padding=(2, 2)).data
        x = 1 / (1 + np.exp(-x)) if squashed else x
    return x.reshape(len(x), -1)


def one_after_the_other(rate):
    x, y, steps = -1.2, 1.0, 0
    while (1 - x) ** 2 + 100 * (y - x**2) ** 2 > 1e-6:
        x -= rate * (-2 * (1 - x) - 400 * x * (y - x**2))
        y -= rate * 200 * (y - x**2)
        steps += 1
        if abs(x) > 1e6:
            return np.inf
    return steps


def chain(x, both=True):
    height, slope = 0.0, np.zeros(len(x))
    for i in range(len(x) - 1):
        wall = x[i + 1] - x[i] ** 2
        height += (1 - x[i]) ** 2 + 100 * wall**2
        slope[i] += -2 * (1 - x[i]) - 400 * x[i] * wall
        slope[i + 1] += 200 * wall * both
    return height, slope


def attacks(p, width):
    return next(n for n in range(1, 10_000) if range_of(p, n) <= width)


def range_of(p, n, z=1.959964):
    return 2 * z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)


def wide(shapes, pixels, axis):
    return [i for i, s in enumerate(shapes.values()) if len(s) == 2 and s[axis] >= pixels]


def scaled(g, bound):
    return g * min(1, bound / np.sqrt((g * g).sum()))


def with_noise(gradients, share, rng):
    return [g + rng.normal(0, share * np.sqrt((g * g).mean()), g.shape) for g in gradients]


@pytest.mark.parametrize(("lesson", "answer", "sentence"), list(planted()))
def test_a_usual_mistake_is_told_by_name(
    lesson: str, answer: object, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    right, said = say(lesson, answer, capsys)
    assert not right
    assert sentence in said


def test_a_mistake_that_nobody_foresaw_is_told_by_an_example(
    capsys: pytest.CaptureFixture[str],
) -> None:
    right, said = say("3", lambda g: np.ones(7), capsys)
    assert not right and "not yet. It gives [1.0, 1.0" in said
    right, said = say("3", lambda g: g + np.ones(3), capsys)
    assert not right and "it stops with ValueError" in said
    right, said = say("12b", lambda g: {1, 4, 5}, capsys)
    assert not right and "It gives {1, 4, 5}, a set, and [1.0, 4.0, 5.0] is right" in said


def test_two_mistakes_are_planted_for_each_exercise() -> None:
    counts = Counter(lesson for lesson, _, _ in planted())
    assert counts == dict.fromkeys(exercises.EXERCISES, 2)


def test_an_exercise_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="99 has no exercise; one of 1, 2"):
        checks.check(99, None)


def test_a_claim_that_does_not_hold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(checks.STRICT, raising=False)
    checks.expect(False, "two is three")
    assert capsys.readouterr().out == "True for the original seeds, but not now: two is three\n"
    monkeypatch.setenv(checks.STRICT, "1")
    with pytest.raises(AssertionError, match="two is three"):
        checks.expect(np.False_, "two is three")


# The builder and the checks themselves

SMALL = """# %% [markdown]
# # 1. Small
#
# *Is it the same twice?*

# %%
import sys
import matplotlib.pyplot as plt

for part in range(20):
    print(part, flush=True)

# %% tags=["thumbnail"]
plt.figure(figsize=(2, 1))
plt.plot([1, 2])
plt.show()
"""


def small_lesson(directory: Path, source: str = SMALL):
    (directory / "01_small.py").write_text(source, encoding="utf-8")
    (lesson,) = builder.find_lessons(directory)
    return lesson


def test_building_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    lesson = small_lesson(tmp_path)
    assert (lesson.title, lesson.question) == ("Small", "Is it the same twice?")
    first = builder.build(lesson)
    thumbnail = lesson.thumbnail.read_bytes()
    assert builder.build(lesson) == first == lesson.notebook.read_bytes()
    assert lesson.thumbnail.read_bytes() == thumbnail
    notebook = json.loads(first)
    assert [cell["id"] for cell in notebook["cells"]] == ["cell-00", "cell-01", "cell-02"]
    assert "language_info" not in notebook["metadata"]
    assert len(notebook["cells"][1]["outputs"]) == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (SMALL.replace("# %% tags", "# %% other"), "no thumbnail"),
        (SMALL.replace("print(part, ", "print(part, file=sys.stderr, "), "wrote to stderr"),
        (SMALL.replace("# # 1. Small", "# # 2. Small"), "its first cell must be markdown"),
        (SMALL.replace("*Is it the same twice?*", "It is."), "its first cell must be markdown"),
    ],
)
def test_the_builder_refuses(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        builder.build(small_lesson(tmp_path, source))


def test_a_lesson_that_fails_or_uses_the_network_is_found(tmp_path: Path) -> None:
    script = tmp_path / "lesson.py"
    script.write_text("assert 1 + 1 == 3\n", encoding="utf-8")
    assert "AssertionError" in run(script).stderr
    script.write_text(
        "import urllib.request\nurllib.request.urlopen('http://localhost:9')", encoding="utf-8"
    )
    assert "must not use the network" in run(script).stderr


@pytest.mark.parametrize(
    "source",
    [
        "from tinyleak.tensor import _register",
        "from tinyleak.ops.reduce import _normalise",
        "from tinyleak import ops\nops._unfold",
        "import tinyleak\ntinyleak.nn.layers._as_row",
        "import tinyleak.ops as o\no.no_such_thing",
        "from tinyleak.attacks import require_fit",
        "from tinyleak.gradient import array_module",
        "from tinyleak import Tensor\nTensor(1.0)._array",
    ],
)
def test_a_private_name_is_found(source: str) -> None:
    assert private_names(source)


@pytest.mark.parametrize(
    "source",
    [
        "from tinyleak import Tensor, ops\nops.sum(Tensor(1.0)).data",
        "import tinyleak\ntinyleak.nn.layers.conv2d",
        "from tinyleak.gradient import topological_order",
        "from tinyleak.attacks.extended import FLAT",
        "from tinyleak.optim.quasi_newton import InverseHessian",
        "class A:\n def f(self): return self._x",
    ],
)
def test_a_public_name_is_not_reported(source: str) -> None:
    assert private_names(source) == []
