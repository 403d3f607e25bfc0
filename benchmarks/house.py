"""Draw the house: its rooms from the ground floor down, and what each imports.

    python benchmarks/house.py

The picture is made of the imports in the source, as they are now. Of the arrows only those are
drawn that do not follow from others.
"""

from __future__ import annotations

import ast
import math
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tinyleak"
PICTURE = ROOT / "benchmarks" / "results" / "house.png"


def room_of(module: str) -> str:
    """Return the room of a module, such as "ops" of "tinyleak.ops.shape"."""
    return (module.split(".") + [""])[1]


def rooms() -> dict[str, set[str]]:
    """Return for each room the rooms that it imports from."""
    imports: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room.startswith("__"):
            continue
        found = imports.setdefault(room, set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tinyleak"):
                module = node.module or ""
                names = [alias.name for alias in node.names] if module == "tinyleak" else []
                found.update(names or [room_of(module)])
    return {room: (targets & set(imports)) - {room} for room, targets in imports.items()}


def floors(imports: dict[str, set[str]]) -> dict[str, int]:
    """Return the floor of each room: one below the lowest of those that it imports from."""
    found: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in found:
            found[room] = 1 + max((floor(other) for other in imports[room]), default=-1)
        return found[room]

    for room in imports:
        floor(room)
    return found


def arrows(imports: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Return the imports that do not follow from others, each as (room, room it imports from)."""

    def below(room: str) -> set[str]:
        return imports[room].union(*(below(other) for other in imports[room]))

    return sorted(
        (room, other)
        for room, others in imports.items()
        for other in others
        if not any(other in below(third) for third in others - {other})
    )


def draw(path: Path) -> None:
    """Draw the picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    imports = rooms()
    floor = floors(imports)
    levels = [sorted(r for r in floor if floor[r] == k) for k in range(max(floor.values()) + 1)]
    height = len(levels)
    figure = Figure(figsize=(9, 0.82 * height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 1)
    axes.set_ylim(height - 0.4, -0.6)
    axes.axis("off")
    places = {
        room: ((k + 1) / (len(level) + 1), number)
        for number, level in enumerate(levels)
        for k, room in enumerate(level)
    }
    for room, other in arrows(imports):
        (x, y), (to_x, to_y) = places[room], places[other]
        bend = 0.0 if y - to_y == 1 else 0.12 * math.copysign(1, x - 0.5 or 1)
        style = {"arrowstyle": "-|>", "color": "#9aa7b4", "connectionstyle": f"arc3,rad={bend}"}
        axes.annotate("", (to_x, to_y + 0.24), (x, y - 0.24), arrowprops=style)
    for room, (x, y) in places.items():
        box = {"boxstyle": "round,pad=0.35", "facecolor": "#eef4fa", "edgecolor": "#0072B2"}
        axes.text(x, y, room, ha="center", va="center", fontsize=11, bbox=box)
    figure.savefig(path, dpi=110, metadata={"Software": None, "Comment": signature(imports)})


def signature(imports: dict[str, set[str]]) -> str:
    """Return the arrows as text, which the picture carries along: a test compares them."""
    return "; ".join(f"{room} <- {other}" for room, other in arrows(imports))


if __name__ == "__main__":
    draw(PICTURE)
    print(f"drawn: {PICTURE.relative_to(ROOT)}")
