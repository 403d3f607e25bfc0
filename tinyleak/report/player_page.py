"""One HTML page that plays an attack: its moments as numbers, drawn on a canvas when shown."""

import base64
import html
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak.backend import Array
from tinyleak.data.files import PathLike
from tinyleak.report.canvas import number, on_screen, tile
from tinyleak.report.files import write_page
from tinyleak.report.snapshots import Shown, SnapshotLike, choose, prepare

HERE = Path(__file__).parent

TILES = 16  # images of a batch that the player shows: a square of 4 by 4

PIXEL_BYTES, FEWEST = 130_000, 8
"""What the frames take together, a byte a number, and how many there are even so: as base64, and
with the rest, the page then stays below 200 kB."""

BODY = """<h1>{title}</h1>
<p>{line}</p>
<div id="pictures">{pictures}</div>
<p id="caption"></p>
<input id="slider" type="range" min="0" value="0" aria-label="iteration">
<div>
<button id="first" aria-label="first">|◄</button>
<button id="back" aria-label="back">‹</button>
<button id="play" aria-label="play">►</button>
<button id="on" aria-label="on">›</button>
<button id="end" aria-label="last">►|</button>
</div>
<canvas id="curves" role="img" aria-label="distance and error against the iteration"></canvas>
<script type="application/json" id="data">{data}</script>
<script>
{script}</script>"""

PICTURE = """<figure><canvas id="{name}" width="{width}" height="{height}" role="img"
aria-label="{title}"></canvas><figcaption>{title}</figcaption></figure>"""


def player(
    path: PathLike,
    snapshots: Sequence[SnapshotLike],
    truth: Array | None = None,
    *,
    title: str = "An image out of a gradient",
    count: int = 30,
    labels: Sequence[object] | Array | None = None,
    labels_true: Sequence[object] | Array | None = None,
) -> None:
    """Write one HTML page that plays `count` iterations, with a slider, and needs nothing else.

    Other arguments, and errors, are those of `emergence`: of large images fewer iterations are
    shown. A file that cannot be written is an OSError. `title` is the page's heading.
    """
    moments, order, truth = prepare(snapshots, truth)
    images, size = len(order), moments[0].images[0].size
    shown = max(1, min(images, TILES, PIXEL_BYTES // ((FEWEST + 1) * size)))
    shape = tile(moments[0].images[:shown]).shape
    # The truth is one more picture.
    frames = choose(moments, min(count, max(FEWEST, PIXEL_BYTES // math.prod(shape) - 1)))
    line = "The reconstruction" if truth is None else "Left the truth, right the reconstruction"
    line += " from the shared gradient, iteration by iteration."
    if images > shown:
        line += f" The first {shown} of the batch's {images} images are shown."
    names = [] if truth is None else [("truth", _named("truth", labels_true, range(shown)))]
    names.append(("found", _named("reconstruction", labels, order[:shown])))
    pictures = [
        PICTURE.format(name=name, title=html.escape(text), width=shape[2], height=shape[1])
        for name, text in names
    ]
    told = {
        "shape": shape,
        "frames": [_bytes(one.images[:shown]) for one in frames],
        "captions": [_caption(one) for one in frames],
        "iterations": [one.iteration for one in frames],
        "truth": None if truth is None else _bytes(truth[:shown]),
        "curves": _curves(moments),
        "most": moments[-1].iteration,
    }
    parts = {
        "title": html.escape(title),
        "line": html.escape(line),
        "pictures": "\n".join(pictures),
        # What is between script tags ends at the first that looks like one.
        "data": json.dumps(told, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        "script": "".join(_read(name) for name in ("drawing.js", "player.js")),
    }
    write_page(path, title, f"<style>\n{_read('player.css')}</style>", BODY.format(**parts))


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _named(what: str, labels: Any, order: Any) -> str:
    """Return what a picture is called, with the labels of its images."""
    if labels is None:
        return what
    several = "labels" if len(order) > 1 else "label"
    return f"{what}, {several} {' '.join(str(labels[index]) for index in order)}"


def _bytes(images: Array) -> str:
    """Return images (N, C, H, W), laid out in a square, as base64: a byte a number."""
    levels = np.rint(255 * on_screen(tile(images))).astype(np.uint8)
    return base64.b64encode(levels.tobytes()).decode()


def _curves(moments: Sequence[Shown]) -> list[dict[str, Any]]:
    """Return the distance, and the mean error, at each moment; null where it is not finite."""
    told = [("gradient distance", "distance", [one.distance for one in moments])]
    errors = [float(np.mean(one.mse)) for one in moments if one.mse is not None]
    if errors:
        told.append(("MSE" if len(moments[0].images) == 1 else "mean MSE", "error", errors))
    return [
        {
            "name": name,
            "colour": colour,
            "points": [
                [one.iteration, float(value) if math.isfinite(value) else None]
                for one, value in zip(moments, values, strict=True)
            ],
        }
        for name, colour, values in told
    ]


def _caption(moment: Shown) -> str:
    text = f"iteration {moment.iteration}: gradient distance {number(moment.distance)}"
    if moment.mse is None:
        return text
    mean = "MSE" if len(moment.mse) == 1 else "mean MSE"
    return f"{text}, {mean} {number(float(np.mean(moment.mse)))}"
