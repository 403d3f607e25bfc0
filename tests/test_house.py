"""The order of the house, read from the source of the package.

A room imports only from rooms above it, no two files import each other, and what is heavy, unsafe
or foreign stays outside. Each check is a function of sources, and is itself tested on sources that
break its rule.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "tinyleak"

# The ground floor is at the top. A room inside another, "attack.text", has a floor of its own.
ROOMS = [
    *("backend", "interop", "tensor", "ops", "gradient", "transforms", "check", "program", "nn"),
    *("optim", "defenses", "data", "metrics", "report", "analytic", "client", "attacks", "text"),
    *("audit", "sweep", "page", "cli"),
]
EXEMPT = {"tinyleak", "tinyleak.__main__"}

# Imported inside the functions that use them, so that importing tinyleak stays quick.
HEAVY = {
    *("PIL", "matplotlib", "mpl_toolkits", "pooch", "safetensors", "scipy", "tokenizers", "tqdm"),
}
OTHER_ENGINES = {"jax", "tensorflow", "torch"}
GPU_LIBRARIES = {"cupy", "cupyx"}
UNSAFE = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}

# The student's path: what is read from the ground floor to the attack, file by file. Nothing on it
# imports, at the top of a file, anything that is not. The `__init__` files are tables of contents.
STUDENT_PATH = [
    *("backend", "tensor", "ops.elementwise", "ops.shape", "ops.reduce", "ops.linalg"),
    *("ops.window", "gradient", "nn.layers", "nn.losses", "nn.init", "nn.model"),
    *("nn.models.lenet", "optim.line_search", "optim.descent", "optim.quasi_newton"),
    *("attacks.matching", "attacks.settings", "attacks.result", "attacks.dlg"),
]
LONGEST_PATH = 2000  # lines, docstrings counted: an afternoon's walk

Sources = dict[str, ast.Module]


def read_package() -> tuple[Sources, set[str]]:
    """The parsed file of every module of tinyleak by its dotted name, and which are packages."""
    sources, packages = {}, set()
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
            packages.add(".".join(parts))
        sources[".".join(parts)] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return sources, packages


SOURCES, PACKAGES = read_package()


def statements_on_import(tree: ast.AST) -> Iterator[ast.AST]:
    """What runs when the module is imported: everything but the insides of functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from statements_on_import(node)


def imported(nodes: Iterator[ast.AST], module: str, known: set[str]) -> list[str]:
    """The dotted names of the modules that the statements import."""
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            home = module.split(".") if module in PACKAGES else module.split(".")[:-1]
            above = home[: len(home) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # `from package import name` is an import of package.name where that is a module.
            for alias in node.names:
                full = f"{base}.{alias.name}"
                found.append(full if full in known else base)
    return found


def imports_of(sources: Sources) -> dict[str, list[str]]:
    return {name: imported(ast.walk(tree), name, set(sources)) for name, tree in sources.items()}


def room_of(module: str) -> str:
    inside = [room for room in ROOMS if "." in room and is_in(module, room)]
    return inside[0] if inside else module.split(".")[1] if "." in module else ""


def is_in(module: str, place: str) -> bool:
    return f"{module}.".startswith(f"tinyleak.{place}.")


# The checks: each answers with one sentence for every breach.


def rooms_that_nobody_planned(sources: Sources) -> list[str]:
    return [
        f"{module} is no room of the house: add it to ROOMS in tests/test_house.py, below every "
        "room that it imports from"
        for module in sources
        if module not in EXEMPT and room_of(module) not in ROOMS
    ]


def imports_that_look_down(sources: Sources) -> list[str]:
    return [
        f"{module} imports {target}, a room below its own"
        for module, targets in imports_of(sources).items()
        for target in targets
        if module not in EXEMPT
        and target.startswith("tinyleak.")
        and not (room_of(target) in ROOMS and _floor(target) <= _floor(module))
    ]


def _floor(module: str) -> int:
    return ROOMS.index(room_of(module)) if room_of(module) in ROOMS else len(ROOMS)


def circle_of_imports(sources: Sources) -> list[str]:
    graph = {
        module: {target for target in targets if target in sources and target != module}
        for module, targets in imports_of(sources).items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [f"these files import each other in a circle: {' ← '.join(error.args[1])}"]
    return []


def foreign_imports(sources: Sources) -> list[str]:
    breaches = []
    for module, targets in imports_of(sources).items():
        for library in {target.split(".")[0] for target in targets}:
            if library in OTHER_ENGINES:
                breaches.append(f"{module} imports {library}, which only tests compare with")
            if library in GPU_LIBRARIES and module != "tinyleak.backend":
                breaches.append(f"{module} imports {library}; only tinyleak.backend may")
            if library in UNSAFE:
                breaches.append(f"{module} imports {library}, which can run code from a file")
    return breaches


def heavy_imports_at_the_top(sources: Sources) -> list[str]:
    return [
        f"{module} imports {target} when it is imported; import it in the function that uses it"
        for module, tree in sources.items()
        for target in imported(statements_on_import(tree), module, set(sources))
        if target.split(".")[0] in HEAVY
    ]


def allowed_pickles(sources: Sources) -> list[str]:
    return [
        f"{module}, line {node.value.lineno}: allow_pickle must be False"
        for module, tree in sources.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle"
        if not (isinstance(node.value, ast.Constant) and node.value.value is False)
    ]


def steps_off_the_path(sources: Sources) -> list[str]:
    path = {f"tinyleak.{place}" for place in STUDENT_PATH}
    tables = {module for module in PACKAGES if any(step.startswith(module) for step in path)}
    return [
        f"{module}, which a student reads, imports {target}, which stands beside"
        for module in path & set(sources)
        for target in imported(statements_on_import(sources[module]), module, set(sources))
        if target.startswith("tinyleak.") and target not in path | tables
    ]


def modules_that_a_function_hides(sources: Sources) -> list[str]:
    """`import tinyleak.a.b` must give the module, and not a function of that name."""
    breaches = []
    for package in PACKAGES & set(sources):
        for node in ast.iter_child_nodes(sources[package]):
            if isinstance(node, ast.ImportFrom) and node.module != package:
                breaches += [
                    f"{package} calls something {name.name}, which hides its module of that name"
                    for name in node.names
                    if f"{package}.{name.asname or name.name}" in SOURCES
                ]
    return breaches


CHECKS = [
    rooms_that_nobody_planned,
    imports_that_look_down,
    circle_of_imports,
    foreign_imports,
    heavy_imports_at_the_top,
    allowed_pickles,
    steps_off_the_path,
    modules_that_a_function_hides,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_house_is_in_order(check) -> None:
    assert len(SOURCES) > 10
    assert check(SOURCES) == []


@pytest.mark.parametrize(
    ("check", "sources"),
    [
        (rooms_that_nobody_planned, {"tinyleak.cellar": ""}),
        (rooms_that_nobody_planned, {"tinyleak.cellar.wine": ""}),
        (imports_that_look_down, {"tinyleak.ops.shape": "from tinyleak.gradient import grad"}),
        (imports_that_look_down, {"tinyleak.ops.shape": "from tinyleak import gradient"}),
        (imports_that_look_down, {"tinyleak.ops.shape": "def f():\n import tinyleak.cli"}),
        (imports_that_look_down, {"tinyleak.ops.shape": "from ..gradient import grad"}),
        (imports_that_look_down, {"tinyleak.ops.shape": "from .. import gradient"}),
        (imports_that_look_down, {"tinyleak.attacks.dlg": "from tinyleak.text import x"}),
        (imports_that_look_down, {"tinyleak.report.a": "from tinyleak.text import x"}),
        (circle_of_imports, {"tinyleak": "import tinyleak.nn", "tinyleak.nn": "import tinyleak"}),
        (
            circle_of_imports,
            {
                "tinyleak.ops.a": "from tinyleak.ops.b import x",
                "tinyleak.ops.b": "from tinyleak.ops import c",
                "tinyleak.ops.c": "def f():\n from . import a",
            },
        ),
        (
            circle_of_imports,
            {
                "tinyleak.ops": "from tinyleak.ops.a import x",
                "tinyleak.ops.a": "import tinyleak.ops",
            },
        ),
        (foreign_imports, {"tinyleak.nn.a": "from torch.nn import Module"}),
        (foreign_imports, {"tinyleak.nn.a": "def f():\n import jax.numpy as jnp"}),
        (foreign_imports, {"tinyleak.nn.a": "import cupy"}),
        (foreign_imports, {"tinyleak.nn.a": "from cupyx import scatter_add"}),
        (foreign_imports, {"tinyleak.data.a": "import pickle"}),
        (heavy_imports_at_the_top, {"tinyleak.report": "import matplotlib.pyplot as plt"}),
        (heavy_imports_at_the_top, {"tinyleak.report": "try:\n from PIL import Image\nfinally: 0"}),
        (heavy_imports_at_the_top, {"tinyleak.report": "class A:\n import tqdm"}),
        (allowed_pickles, {"tinyleak.data.a": "np.load(path, allow_pickle=True)"}),
        (allowed_pickles, {"tinyleak.data.a": "np.load(path, allow_pickle=trusted)"}),
        (steps_off_the_path, {"tinyleak.nn.layers": "from tinyleak.check import check_gradients"}),
        (steps_off_the_path, {"tinyleak.nn.layers": "from tinyleak.program import trace"}),
        (steps_off_the_path, {"tinyleak.nn.layers": "from tinyleak.nn.models.bert import Bert"}),
        (steps_off_the_path, {"tinyleak.attacks.dlg": "from tinyleak.attacks.many import run"}),
        (modules_that_a_function_hides, {"tinyleak.optim": "from tinyleak.a import descent"}),
        (modules_that_a_function_hides, {"tinyleak": "from tinyleak.gradient import gradient"}),
    ],
)
def test_a_breach_is_found(check, sources: dict[str, str]) -> None:
    trees = {name: ast.parse(source) for name, source in sources.items()}
    for name in ("tinyleak", "tinyleak.gradient", "tinyleak.metrics"):
        trees.setdefault(name, ast.parse(""))
    assert check(trees)


@pytest.mark.parametrize(
    ("check", "sources"),
    [
        (imports_that_look_down, {"tinyleak.gradient": "from tinyleak.ops import add"}),
        (imports_that_look_down, {"tinyleak.check": "from tinyleak import gradient\nimport os"}),
        (imports_that_look_down, {"tinyleak.text.a": "from tinyleak.data.text import x"}),
        (imports_that_look_down, {"tinyleak": "from tinyleak.cli import main"}),
        (imports_that_look_down, {"tinyleak.cli": "from tinyleak import __version__"}),
        (circle_of_imports, {"tinyleak.ops": "from tinyleak.ops.a import x", "tinyleak.ops.a": ""}),
        (foreign_imports, {"tinyleak.backend": "def f():\n import cupy"}),
        (heavy_imports_at_the_top, {"tinyleak.report": "def f():\n import matplotlib"}),
        (
            heavy_imports_at_the_top,
            {"tinyleak.report": "if TYPE_CHECKING:\n from matplotlib.figure import Figure"},
        ),
        (allowed_pickles, {"tinyleak.data.a": "np.load(path, allow_pickle=False)"}),
        (steps_off_the_path, {"tinyleak.text.client": "from tinyleak.nn.models import bert"}),
        (
            steps_off_the_path,
            {"tinyleak.attacks.dlg": "def f():\n from tinyleak.program import trace"},
        ),
        (modules_that_a_function_hides, {"tinyleak": "from tinyleak import ops"}),
        (steps_off_the_path, {"tinyleak.client.simulated": "from tinyleak.data import load_mnist"}),
    ],
)
def test_what_is_right_is_not_reported(check, sources: dict[str, str]) -> None:
    trees = {name: ast.parse(source) for name, source in sources.items()}
    trees.setdefault("tinyleak", ast.parse(""))
    trees.setdefault("tinyleak.gradient", ast.parse(""))
    assert check(trees) == []


def test_the_path_is_walked_in_an_afternoon() -> None:
    counts = {}
    for place in STUDENT_PATH:
        file = PACKAGE.joinpath(*place.split(".")).with_suffix(".py")
        counts[place] = len(file.read_text(encoding="utf-8").splitlines())
    longest = sorted(counts, key=counts.__getitem__, reverse=True)[:5]
    assert sum(counts.values()) <= LONGEST_PATH, (
        f"the student's path has {sum(counts.values())} lines, and {LONGEST_PATH} at most are "
        f"walked; its longest files are {', '.join(f'{one} ({counts[one]})' for one in longest)}"
    )


def test_importing_everything_loads_nothing_heavy() -> None:
    script = (
        "import importlib, sys\n"
        "for name in sys.argv[1].split(): importlib.import_module(name)\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    names = " ".join(name for name in SOURCES if not name.endswith("__main__"))
    done = subprocess.run(
        [sys.executable, "-c", script, names],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "tinyleak" in loaded
    assert loaded & (HEAVY | OTHER_ENGINES | GPU_LIBRARIES) == set()
