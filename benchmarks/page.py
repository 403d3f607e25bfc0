"""The live page, measured: how fast it evaluates, and how many drawings it brings back.

    python benchmarks/page.py --data-dir DIR    with MNIST's test digits from that folder
    python benchmarks/page.py --quick           two digits of each kind

Half of the drawings are MNIST's test digits, half are built-in ones; each with a start of its own.
They are attacked by the page's own scripts in Node, whose processor time counts; Chromium, if it is
there, opens the page and is timed by the clock.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "lessons" / "leak.html"
RESULTS = ROOT / "benchmarks" / "results" / "page.txt"

READ, EXACT, RECOVERED = 1e-2, 1e-6, 1e-3
"""Mean squared errors: it can be read; nothing is left to see; what counts as recovered."""

ATTACK = """
const { page, images, labels, seed, limit } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const now = () => { const { user, system } = process.cpuUsage(); return (user + system) / 1e6; };
const laboratory = new Laboratory(page);
const given = { weights: "untrained", defence: {}, aware: false };
const answer = [];
for (const [k, label] of labels.entries()) {
  const began = now(), one = { ...given, images: Float64Array.from(images[k]), labels: [label] };
  const { shared } = laboratory.share({ ...one, seed: 0 }), found = { read: null, exact: null };
  for (const at of laboratory.attack({ ...one, shared, seed: seed + k })) {
    const seconds = now() - began;
    Object.assign(found, { error: at.errors[0], seconds, evaluations: at.evaluations });
    if (found.error < 1e-2) found.read ??= seconds;
    if (found.error < 1e-6) found.exact ??= seconds;
    if (found.exact !== null || seconds > limit) break;
  }
  answer.push(found);
}
process.stdout.write(JSON.stringify(answer));
"""


def parts_of(page: Path) -> tuple[Any, str]:
    """Return the data that a page holds, and its engine."""
    text = page.read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text)
    engine = re.search(r'<script id="engine">(.*?)</script>', text, re.S)
    assert data is not None
    assert engine is not None
    return json.loads(data[1]), engine[1]


def drawings(count: int, data_dir: Path | None) -> tuple[list[list[float]], list[int]]:
    """Return digits, MNIST's first if there are any, and their labels."""
    from tinyleak import data

    sources = [data.load_glyphs(count)]
    if data_dir is not None:
        sources.insert(0, data.load_mnist(data_dir))
    images, labels = [], []
    for source in sources:
        some, numbers = source.consecutive(0, count // len(sources))
        images += [image.ravel().tolist() for image in some]
        labels += numbers.tolist()
    return images, labels


def attacks(count: int, data_dir: Path | None) -> list[dict[str, Any]]:
    """Attack so many drawings in Node, one after the other."""
    page, engine = parts_of(PAGE)
    images, labels = drawings(count, data_dir)
    said = {"page": page, "images": images, "labels": labels, "seed": 1, "limit": 20}
    done = subprocess.run(
        ["node", "-e", engine + ATTACK],
        input=json.dumps(said),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def in_browser() -> list[str]:
    """Open the page in Chromium and attack its first digit: lines about it."""
    sys.path.insert(0, str(ROOT / "tests"))
    from in_browser import HERE, browser

    if not HERE:
        return ["Chromium is not installed: not timed"]
    attack = "document.getElementById('attack').dataset"
    ready = []
    with browser() as opened:
        page = opened(PAGE)
        for _ in range(5):
            page.open(wait="document.body.dataset.ready")
            ready.append(int(page.js("document.body.dataset.ready")))
        page.until("document.getElementById('share').dataset.norm")
        began = page.js("performance.now()")
        page.find("#start").click()
        page.until(f"{attack}.mse < {READ}")
        read = (page.js("performance.now()") - began) / 1000
        page.until(f"{attack}.mse < {EXACT}")
        exact = (page.js("performance.now()") - began) / 1000
        frames = int(page.js(f"{attack}.frames"))
    return [
        f"Chromium, by the clock: ready after {median(ready)} ms, {min(ready)} to {max(ready)}",
        f"  a digit below {READ:g} after {read:.1f} s, below {EXACT:g} after {exact:.1f} s, "
        f"{frames / exact:.0f} pictures a second",
    ]


def main() -> int:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="a folder with MNIST's test files")
    parser.add_argument("--quick", action="store_true", help="only show that it works")
    args = parser.parse_args()
    found = attacks(4 if args.quick else 50, args.data_dir)
    back = sum(one["error"] < RECOVERED for one in found)
    lines = [
        f"the page: {PAGE.stat().st_size / 1000:.0f} kB",
        *in_browser(),
        f"Node, processor time: {back} of {len(found)} drawings back (MSE < {RECOVERED:g})",
    ]
    for name, level in (("read", READ), ("exact", EXACT)):
        seconds = sorted(one[name] for one in found if one[name] is not None)
        lines.append(
            f"  MSE < {level:g}: {len(seconds)} of {len(found)}, median {median(seconds):.1f} s, "
            f"slowest {seconds[-1]:.1f} s"
        )
    each = median(1000 * one["seconds"] / one["evaluations"] for one in found)
    lines.append(f"  an evaluation, with its share of the search: {each:.1f} ms")
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if not args.quick:
        RESULTS.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
