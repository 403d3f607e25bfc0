"""Every table and figure of the paper's image half, and what goes past it, with one command.

    python benchmarks/paper.py                     all parts, which takes many hours on two cores
    python benchmarks/paper.py labels defences     some of them
    python benchmarks/paper.py --list              what each part is

A part leaves its table as `results/paper/PART.md`, its figures beside it, and what it has computed
in a folder of its own: interrupted and started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
RESULTS = Path("results/paper")


class Part(NamedTuple):
    """A part of the paper's experiments.

    Attributes:
        title: what it shows.
        script: the benchmark that computes it, with options.
    """

    title: str
    script: tuple[str, ...]


PARTS = {
    "batches": Part(
        "N = 1, 2, 4, 8 by L-BFGS on digits and in colour, as Table 1", ("batches.py",)
    ),
    "squares": Part(
        "batches to the rounding error by Levenberg–Marquardt, and its time and memory",
        ("least_squares.py",),
    ),
    "labels": Part(
        "labels inferred and optimised, 1,000 digits, beside iDLG's published figures",
        ("labels.py", "--part", "one"),
    ),
    "counts": Part(
        "label counts of batches up to 64, untrained and trained", ("labels.py", "--part", "counts")
    ),
    "inputs": Part(
        "images that a fully connected first layer gives away", ("labels.py", "--part", "separated")
    ),
    "defences": Part(
        "what each defence stops, naive and aware, what it costs, and the figures of it",
        ("defenses.py",),
    ),
    "networks": Part("a photograph out of a LeNet and out of a ResNet-20", ("networks.py",)),
}


def run(name: str, folder: Path, quick: bool) -> int:
    """Compute what is missing of a part, keep its table, draw its figures; return its exit code."""
    part = PARTS[name]
    print(f"\n## {name}: {part.title}\n", flush=True)
    script, *options = part.script
    # Parts of one script share its folder: what they compute is apart by name.
    cells = folder / {"labels.py": "labels"}.get(script, name)
    command = [sys.executable, str(HERE / script), *options, "--results", str(cells)]
    done = subprocess.run(
        [*command, *(["--quick"] if quick else [])], stdout=subprocess.PIPE, text=True, check=False
    )
    print(done.stdout, end="", flush=True)
    if done.returncode == 0:
        temporary = folder / f"{name}.md.tmp"
        temporary.write_text(f"# {part.title}\n\n{done.stdout}", encoding="utf-8")
        temporary.replace(folder / f"{name}.md")
    return done.returncode


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (all)")
    parser.add_argument("--list", action="store_true", help="say what each part is")
    parser.add_argument("--results", type=Path, help=f"the folder for all of it ({RESULTS})")
    parser.add_argument("--quick", action="store_true", help="few and short: a smoke test")
    options = parser.parse_args(arguments)
    for name in options.parts:
        if name not in PARTS:
            parser.error(f"part {name!r} is unknown; choose from {', '.join(PARTS)}")
    return options


def main() -> int:
    """Run the parts that were asked for, one after the other; a part that fails stops no other."""
    options = parse_arguments()
    if options.list:
        for name, part in PARTS.items():
            print(f"{name:<10}{part.title}")
        return 0
    folder = options.results or (Path(tempfile.mkdtemp()) if options.quick else RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    failed = [name for name in options.parts or PARTS if run(name, folder, options.quick)]
    if failed:
        print(f"paper: {', '.join(failed)} failed; what they computed is kept", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
