"""What the lessons draw with: one palette, graphs, tables, sliders, and figures that say what they
show. Nothing here is taught.
"""

from __future__ import annotations

import base64
import html
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from checks import STRICT
from matplotlib.text import Text

BLUE, ORANGE, GREEN, GREY, LIGHT = "#0072B2", "#D55E00", "#009E73", "#666666", "#AAAAAA"
"""Colours that the colour-blind tell apart too (Okabe and Ito)."""
PALE_BLUE, PALE_ORANGE = "#EAF2F8", "#FDEBDD"

PHONE, READABLE = 344, 7
"""How wide a figure is on a small phone, and how high its letters are at least there, in pixels."""
plt.rcParams.update({"font.size": 12, "axes.titlesize": "medium"})


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this, and not a script."""
    return "ipykernel" in sys.modules


if in_notebook():  # twice as many dots, for screens that have them
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("retina")


def show(description: str) -> None:
    """Show the figure, and under it what it shows, for those who cannot see it.

    The description stands in the figure's metadata as well, but of the programs that show notebooks
    few read it there.

    Raises:
        ValueError: when a lesson is tested or built, of letters that nobody can read on a phone.
    """
    figure = plt.gcf()
    sizes = [text.get_fontsize() for text in figure.findobj(Text) if text.get_text()]
    smallest = min(sizes, default=np.inf) * PHONE / (72 * figure.get_figwidth())
    if smallest < READABLE and os.environ.get(STRICT):
        raise ValueError(
            f"a letter of this figure has {smallest:.1f} pixels on a phone, of {READABLE} at "
            "least; make it larger, or the figure narrower"
        )
    if in_notebook():
        from IPython.display import HTML, display

        display(figure, metadata={"image/png": {"alt": description}})
        display(HTML(f"<small>{html.escape(description)}</small>"))
    else:
        plt.show()
    plt.close(figure)


def tidy(*axes: Any) -> None:
    """Take the upper and the right line off."""
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)


def picture(ax: Any, pixels: np.ndarray, title: str = "", size: float = 12, **how: Any) -> None:
    """Draw one picture, black 0 and white 1, without axes."""
    ax.imshow(pixels, **({"cmap": "gray", "vmin": 0, "vmax": 1} | how))
    ax.set_title(title, fontsize=size)
    ax.axis("off")


def pictures(
    images: Sequence, titles: Sequence[str], rows: int = 1, figsize: tuple = (7, 1.9), **how: Any
) -> Any:
    """Draw pictures in rows; return the figure."""
    figure, axes = plt.subplots(
        rows, len(images) // rows, figsize=figsize, layout="constrained", squeeze=False
    )
    for ax, pixels, title in zip(axes.flat, images, titles, strict=True):
        picture(ax, pixels, title, **how)
    return figure


def numbers(ax: Any, table: np.ndarray, title: str = "", size: float = 12, **how: Any) -> None:
    """Draw a table of numbers, darker where they are larger."""
    ax.imshow(table, **({"cmap": "Blues"} | how))
    for (row, column), number in np.ndenumerate(table):
        ax.text(column, row, f"{number:g}", ha="center", va="center", fontsize=size)
    ax.set_title(title)
    ax.axis("off")


def graph(boxes: dict, figsize: tuple = (7, 2.4), orange: Sequence = ()) -> None:
    """Draw tensors as boxes, {tensor: (across, up, text)}, and an arrow from each input."""
    _, ax = plt.subplots(figsize=figsize, layout="constrained")
    across = max(x for x, _, _ in boxes.values())
    ax.set(xlim=(-0.4, across + 0.5), ylim=(-0.4, 1.4))
    ax.axis("off")
    outlines = {}
    for node, (x, y, text) in boxes.items():
        fill, edge = (PALE_ORANGE, ORANGE) if node in orange else (PALE_BLUE, BLUE)
        style = {"boxstyle": "round,pad=0.45", "facecolor": fill, "edgecolor": edge}
        label = ax.text(x, y, text, ha="center", va="center", fontsize=12, bbox=style)
        outlines[node] = label.get_bbox_patch()
    for node in boxes:
        for start in node.inputs:
            if start in boxes:
                ends = {"patchA": outlines[start], "patchB": outlines[node]}
                style = {"arrowstyle": "-|>", "color": GREY, "mutation_scale": 15, **ends}
                ax.annotate("", boxes[node][:2], boxes[start][:2], arrowprops=style)


def lifetimes(bars: Sequence[dict], orange: str) -> None:
    """Draw when each value of a program is alive, and in which piece of memory."""
    _, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
    for bar in bars:
        colour = ORANGE if bar["step"].name == orange else BLUE
        width = max(bar["end"] - bar["begin"], 0.8)
        ax.broken_barh([(bar["begin"], width)], (bar["row"] - 0.4, 0.8), color=colour, alpha=0.6)
    ax.set(xlabel="step of the program", ylabel="piece of memory", xlim=(0, len(bars)))
    ax.set_title(f"Every value's place; {orange} in orange")
    ax.invert_yaxis()


def frames_of(draw: Any, count: int, figsize: tuple = (4.4, 3.4)) -> np.ndarray:
    """Return what draw(ax, number) draws for each number, as bytes (count, height, width, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    frames: list = []
    for number in range(count if in_notebook() else 0):  # a script shows no slider
        figure = Figure(figsize=figsize, dpi=72, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        draw(figure.subplots(), number)
        canvas.draw()
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return np.array(frames)


def slider(frames: np.ndarray, labels: Sequence[str], description: str, height: int = 260) -> None:
    """Show one frame of many, (F, H, W) from 0 to 1 or (F, H, W, 3) bytes, and a slider.

    All frames lie side by side in one PNG, which the slider moves: it needs no kernel. A script
    shows nothing.
    """
    if not in_notebook():
        return
    from IPython.display import HTML, display
    from PIL import Image

    if frames.ndim == 3:
        frames = np.uint8(255 * np.clip(frames, 0, 1) + 0.5)
    width = round(height * frames.shape[2] / frames.shape[1])
    file = io.BytesIO()
    strip = Image.fromarray(np.concatenate(list(frames), axis=1))
    strip.quantize(64, dither=Image.Dither.NONE).save(file, format="png", optimize=True)
    data, last = base64.b64encode(file.getvalue()).decode(), len(frames) - 1
    text = html.escape("|".join(labels), quote=True)
    move = (
        "this.parentNode.querySelector('img').style.marginLeft=-this.value*"
        f"{width}+'px';this.nextElementSibling.value=this.dataset.labels.split('|')[this.value]"
    )
    display(
        HTML(
            f'<figure style="margin:0;width:{width}px">'
            f'<div style="width:{width}px;height:{height}px;overflow:hidden">'
            f'<img alt="{html.escape(description, quote=True)}" '
            f'src="data:image/png;base64,{data}" style="width:{width * len(frames)}px;'
            f"height:{height}px;max-width:none;image-rendering:pixelated;"
            f'margin-left:{-last * width}px"></div>'
            f'<input type="range" min="0" max="{last}" value="{last}" aria-label="stage" '
            f'style="width:100%" data-labels="{text}" oninput="{move}">'
            f"<output>{html.escape(labels[last])}</output></figure>"
        )
    )
