"""What all pictures have in common: the canvas, how images and numbers look on it, and the PNG."""

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tinyleak.backend import Array
from tinyleak.data.files import PathLike, write_atomically

Floats: TypeAlias = npt.NDArray[np.floating[Any]]

DISTANCE_COLOUR, MSE_COLOUR, QUIET_COLOUR = "#0072B2", "#D55E00", "#666666"
"""Blue and vermilion of Okabe and Ito's palette, told apart by any colour vision; and a grey."""

STYLE = ("default", {"font.size": 12, "axes.titlesize": 12})
"""matplotlib's own, whatever the user's settings are, with letters that a slide can show."""

DOTS_PER_INCH = 200  # a figure of 11 inches then fills a projector's 1,920 pixels

PNG_METADATA = {"Software": None}
"""Leave out matplotlib's version: two versions that draw the same should write the same bytes."""


@contextmanager
def drawing(width: float, height: float) -> Iterator[Any]:
    """Give a new figure of a size in inches, to be drawn on in `STYLE`.

    It belongs to no window and to no pyplot, so it needs neither a display nor closing. As the last
    expression of a notebook's cell it shows itself.
    """
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style.context(list(STYLE)):
        figure: Any = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        figure._repr_png_ = partial(as_png, figure)
        yield figure


def as_png(figure: Any, dots_per_inch: int = DOTS_PER_INCH) -> bytes:
    """Return a figure as a PNG: the same bytes whenever it is drawn."""
    from matplotlib import style

    file = io.BytesIO()
    with style.context(list(STYLE)):
        figure.savefig(file, format="png", dpi=dots_per_inch, metadata=PNG_METADATA)
    # It is laid out once: the next layout would start from this one, and end elsewhere.
    figure.set_layout_engine("none")
    return file.getvalue()


def png_of(plot: Callable[[], Any]) -> bytes | None:
    """Return what `plot` draws as a PNG, or None if it raises ValueError: what it cannot draw."""
    try:
        return as_png(plot())
    except ValueError:
        return None


def save(figure: Any, path: PathLike) -> None:
    """Write a figure as a PNG that appears under its name once it is whole."""
    content = as_png(figure)
    write_atomically(path, lambda file: file.write(content))


def show_image(axes: Any, image: Array) -> Any:
    """Draw an image (C, H, W), C = 1 or 3, with nothing around it."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes.imshow(pixels(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def on_screen(images: Array) -> Floats:
    """Return images as a screen shows them: clipped to [0, 1], NaN a middle grey."""
    return np.clip(np.nan_to_num(images, nan=0.5), 0, 1)


def pixels(image: Array) -> Floats:
    """Return an image (C, H, W) in matplotlib's layout: (H, W) if grey, else (H, W, 3)."""
    shown = on_screen(image)
    return shown[0] if len(shown) == 1 else shown.transpose(1, 2, 0)


def tile(images: Array) -> Floats:
    """Lay images (N, C, H, W) out in a near-square grid, white between them: (C, H', W')."""
    count, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = np.ones((channels, rows * (height + 1) - 1, columns * (width + 1) - 1))
    for index, image in enumerate(images):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        grid[:, top : top + height, left : left + width] = image
    return grid


def on_log_scale(values: Floats) -> Floats:
    """Return values that a log axis can draw: zero a decade below the smallest, the rest gaps."""
    usable = np.isfinite(values) & (values > 0)
    floor = values[usable].min() / 10 if usable.any() else 1.0
    return np.where(usable, values, np.where(values == 0, floor, np.nan))


def number(value: float) -> str:
    """Write a number to two figures, as a person would: 0.053, 3.2×10⁻⁵, 10⁻³."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0 or 0.01 <= abs(value) < 99.5:
        return f"{value:.2g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if mantissa == "1.0" else f"{mantissa}×{power}"
