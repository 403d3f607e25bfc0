"""The lessons run, their notebooks are their scripts', and they use only what is public.

Every claim of a lesson is an `assert` in it, so running it is the test of what it says.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import jupytext
import pytest

DIRECTORY = Path(__file__).resolve().parents[1] / "lessons"
SCRIPTS = sorted(DIRECTORY.glob("[0-9][0-9]_*.py"))
SECONDS = 60

# A lesson must work where there is no network, so here there is none. What may take a minute is
# the processor's time, so that a busy machine does not fail it.
WITHOUT_NETWORK = f"""
import resource, runpy, socket, sys
resource.setrlimit(resource.RLIMIT_CPU, ({SECONDS}, {SECONDS}))
def refuse(*_, **__):
    raise OSError("a lesson must not use the network")
socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
names = runpy.run_path(sys.argv[1], run_name="__main__")
for solution in sys.argv[2:]:
    exec(solution, names)
"""


def load_builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lessons_build", DIRECTORY / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


builder = load_builder()


def run(
    script: Path, *solutions: str, absent: str = "no such module"
) -> subprocess.CompletedProcess[str]:
    """Run a script, and then the solutions of its exercise, as if they stood at its end.

    The module named `absent` cannot be imported.
    """
    code = f"import sys\nsys.modules[{absent!r}] = None\n{WITHOUT_NETWORK}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(script), *solutions],
        env=os.environ | {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=10 * SECONDS,
        check=False,
    )
    limit = f"{script.name} was ended after {SECONDS} s of one core, which is what it may take"
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
    """The code of the solution of a script's exercise, which is folded in the next lesson."""
    number = int(script.name[:2])
    summary = f"<summary>Solution to the exercise of lesson {number}</summary>"
    for path in DIRECTORY.glob(f"{number + 1:02}_*.py"):
        text = "\n".join(cell.source for cell in builder.read_cells(path))
        assert summary in text, f"{path.name} has no folded solution of lesson {number}"
        folded = text.split(summary)[1].split("</details>")[0]
        return re.findall(r"^```python\n(.*?)^```$", folded, re.DOTALL | re.MULTILINE)
    return []


def run_whole(script: Path) -> subprocess.CompletedProcess[str]:
    return run(script, *solutions_of(script))


def run_without_torch() -> subprocess.CompletedProcess[str]:
    (script,) = DIRECTORY.glob("15_*.py")
    return run(script, absent="torch")


@pytest.mark.ahead(by=run_whole)
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_script_and_its_solution_run(
    script: Path, ahead: subprocess.CompletedProcess[str]
) -> None:
    assert "# ## Exercise\n" in script.read_text(encoding="utf-8")
    assert ahead.returncode == 0, ahead.stderr[-3000:]
    assert ahead.stderr == ""


@pytest.mark.ahead(by=run_without_torch)
def test_the_lesson_on_pytorch_runs_without_it(ahead: subprocess.CompletedProcess[str]) -> None:
    assert ahead.returncode == 0, ahead.stderr[-3000:]
    assert "tinyleak gives the recorded digits" in ahead.stdout
    assert "PyTorch gives" not in ahead.stdout


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
        number, text = int(lesson.number), lesson.path.read_text(encoding="utf-8")
        link = f'[{number}](lessons/{lesson.notebook.name} "{lesson.title}")'
        assert link in readme, f"README.md needs the link {link}"
        rooms = [root / room for room in re.findall(r"\]\(\.\./(tinyleak/[^)]+)\)", text)]
        assert rooms, f"{lesson.path.name} leads to no file of tinyleak"
        assert [room for room in rooms if not room.exists()] == []
        files = [room / "__init__.py" if room.is_dir() else room for room in rooms]
        taught = [ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) for file in files]
        name = f"lessons/{lesson.path.name}"
        assert any(name in (text or "") for text in taught), f"no room of {name} leads back to it"


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
