"""One HTML page that plays an attack."""

from __future__ import annotations

import html
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak.backend import Array
from tinyleak.data.files import PathLike
from tinyleak.report.canvas import PNG_METADATA, drawing, number, pixels, show_image, tile
from tinyleak.report.page import write_page
from tinyleak.report.snapshots import Shown, SnapshotLike, choose, prepare

TILES = 16
"""Images of a batch that the player shows: a square of 4 by 4."""

BODY = """<h1>{title}</h1>
<p>{line}</p>
{controls}"""

STYLE = """<style>
body { margin: 1rem auto; padding: 0 1rem; max-width: 800px; text-align: center;
       font: 1.1rem/1.5 system-ui, sans-serif; color: #222; background: #fff; }
h1 { margin: 0; font-size: 1.6rem; }
p { margin: 0.2rem 0 0.6rem; }
.animation img { max-width: 100%; }
input[type=range].anim-slider { width: 90%; }
.anim-buttons button { width: 2.8rem; height: 2.2rem; font-size: 1rem; }
.fa { font-style: normal; }
.fa-minus::before { content: "\\2212"; }
.fa-plus::before { content: "+"; }
.fa-play::before { content: "\\25BA"; }
.fa-play.fa-flip-horizontal::before { content: "\\25C4"; }
.fa-pause::before { content: "\\275A\\275A"; }
.fa-step-backward::before { content: "\\2039"; }
.fa-step-forward::before { content: "\\203A"; }
.fa-fast-backward::before { content: "|\\25C4"; }
.fa-fast-forward::before { content: "\\25BA|"; }
</style>"""
"""The page's looks. matplotlib's buttons expect an icon font; these rules give them letters."""


def player(
    path: PathLike,
    snapshots: Sequence[SnapshotLike],
    truth: Array | None = None,
    *,
    title: str = "An image out of a gradient",
    count: int = 30,
) -> None:
    """Write one HTML page that plays `count` iterations, with a slider, and needs nothing else.

    Args:
        path: the page to write.
        snapshots: moments of an attack, the start first, with images (N, C, H, W); some that show
            the emergence are chosen.
        truth: (N, C, H, W), the client's images, shown beside them.
        title: the page's heading.
        count: iterations shown.

    Raises:
        ValueError: no snapshot; images that cannot be drawn, or that do not fit the truth.
        OSError: the file cannot be written.
    """
    moments, _, truth = prepare(snapshots, truth)
    controls = _controls(choose(moments, count), truth)
    line = "The reconstruction" if truth is None else "Left the truth, right the reconstruction"
    line += " from the shared gradient, iteration by iteration."
    images = len(moments[0].images)
    if images > TILES:
        line += f" The first {TILES} of the batch's {images} images are shown."
    body = BODY.format(title=html.escape(title), line=html.escape(line), controls=controls)
    write_page(path, title, STYLE, body)


def _controls(moments: Sequence[Shown], truth: Array | None) -> str:
    """The pictures, the slider and the buttons, as matplotlib writes them, made self-contained."""
    from matplotlib.animation import HTMLWriter

    # Typed as Any: matplotlib's writers have no types.
    writer: Any = HTMLWriter(fps=6, embed_frames=True, default_mode="once", embed_limit=100)
    panels = 1 if truth is None else 2
    _, height, width = tile(moments[0].images[:TILES]).shape
    with (
        drawing(3.75 * panels, 3.7 * height / width + 0.85) as figure,
        tempfile.TemporaryDirectory() as directory,
    ):
        all_axes = figure.subplots(1, panels, squeeze=False)[0]
        if truth is not None:
            show_image(all_axes[0], tile(truth[:TILES]))
            all_axes[0].set_title("truth", fontweight="bold")
        axes = all_axes[-1]
        picture = show_image(axes, tile(moments[0].images[:TILES]))
        axes.set(title="iteration 0", xlabel="10⁻¹\n10⁻¹")
        # Lay out once, with the tallest text: a picture that moves would seem to change.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        draft = Path(directory) / "player.html"  # the writer cannot fill a stream
        with writer.saving(figure, draft, dpi=100):
            for one in moments:
                picture.set_data(pixels(tile(one.images[:TILES])))
                axes.set(title=f"iteration {one.iteration}", xlabel=_measures(one))
                writer.grab_frame(metadata=PNG_METADATA)
        controls = draft.read_text()
    # matplotlib would have the buttons' icons fetched from the network; STYLE has its own.
    controls = re.sub(r"<link[^>]*>", "", controls)
    # It names the elements by a random number, to put several players on a page; here is one.
    random_name = re.search(r"_anim_img([0-9a-f]{32})", controls)
    return controls if random_name is None else controls.replace(random_name[1], "_player")


def _measures(moment: Shown) -> str:
    distance = f"gradient distance {number(moment.distance)}"
    if moment.mse is None:
        return distance
    mean = "MSE" if len(moment.mse) == 1 else "mean MSE"
    return f"{mean} {number(float(np.mean(moment.mse)))}\n{distance}"
