"""Digits that look handwritten, drawn from matplotlib's fonts: no network, no files.

A digit starts as the outline of a printed one. The outline is moved to the width of a pen, bent
and slanted as a hand would, and filled. Blurring the filled shape and raising the contrast again
rounds its corners, as ink does. As in MNIST, a digit fills about 20 of 28 pixels and lies with
its centre of mass near the middle.
"""

from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinyleak.backend import Array
from tinyleak.data.dataset import Dataset
from tinyleak.interop import whole

# In pixels: the image, the longer side of a digit, what stays empty around it, and the distance
# of the points that make up an outline.
SIZE = 28
DIGIT_SIZE = 20.0
MARGIN = 1.5
POINT_SPACING = 0.7
# The shape is filled on a finer grid, this many cells to a pixel and axis.
SUPERSAMPLING = 4
# In pixels; and the grey of the blurred shape, 0 to 255, that ends up as the edge of the ink.
BLUR_RADIUS = 0.5
EDGE_GREY = 118
CONTRAST = 2.2
# What each grey of the blurred shape becomes.
_SHARP = np.clip(127.5 + CONTRAST * (np.arange(256) - EDGE_GREY), 0, 255)
CONTRAST_TABLE: list[int] = _SHARP.astype(int).tolist()

SANS, ROMAN, ITALIC = "DejaVuSans.ttf", "STIXGeneral.ttf", "STIXGeneralItalic.ttf"
MODERN, ROUND = "cmss10.ttf", "cmtt10.ttf"

# Which outlines serve for a digit. Twice means twice as often. A handwritten 1 is mostly a plain
# stroke, which is a printed l; an open 4 is a Cyrillic Che; a wide 0 is an O.
SHAPES: dict[int, list[tuple[str, str]]] = {
    digit: [(font, str(digit)) for font in (SANS, MODERN, ROUND, ROMAN, ITALIC)]
    for digit in range(10)
}
SHAPES[0] += [(SANS, "O"), (MODERN, "O")]
SHAPES[1] = [(SANS, "l"), (SANS, "l"), (MODERN, "l"), (SANS, "1"), (ROMAN, "1")]
SHAPES[3] += [(SANS, "\N{CYRILLIC CAPITAL LETTER ZE}")]
SHAPES[4] = [(SANS, "4"), (MODERN, "4"), (ROMAN, "4")]
SHAPES[4] += 2 * [(SANS, "\N{CYRILLIC CAPITAL LETTER CHE}")]
SHAPES[7] = [(SANS, "7"), (SANS, "7"), (MODERN, "7"), (ROUND, "7"), (ROMAN, "7")]


def load_glyphs(count: int = 1000, seed: int = 0) -> Dataset:
    """Return images (count, 1, 28, 28) of digits; image i shows the digit i modulo 10.

    An image depends on its index and the seed alone, not on how many there are. A count below 1, or
    a negative seed, is a ValueError.
    """
    count = whole(count, 1, "{} digits cannot be drawn; ask for 1 or more")
    draw_digit(0, seed)  # refuses a seed below 0
    return Glyphs(count, seed)


class Glyphs(Dataset):
    """Digits that are drawn when they are first looked at: one takes a millisecond."""

    def __init__(self, count: int, seed: int) -> None:
        labels = np.arange(count, dtype=np.int64) % 10
        self.__dict__.update(name="glyphs", labels=labels, classes=10, seed=seed)

    @cached_property
    def images(self) -> Array:
        """(n, 1, 28, 28), all of them."""
        return self._chosen(np.arange(len(self)))

    def _chosen(self, indices: Array) -> Array:
        drawn = [draw_digit(int(index), self.__dict__["seed"]) for index in indices]
        return np.stack(drawn)[:, np.newaxis]


def draw_digit(index: int, seed: int = 0) -> Array:
    """Return image `index`, (28, 28) float64 in [0, 1], white on black; it shows `index % 10`."""
    if index < 0 or seed < 0:
        raise ValueError(f"index {index} and seed {seed} of a digit must not be negative")
    return _greys(index, seed) / 255.0


@lru_cache(maxsize=100_000)  # 80 MB at most: training looks at the same digits again and again
def _greys(index: int, seed: int) -> Array:
    """Return image `index`, (28, 28) uint8."""
    rng = np.random.default_rng([seed, index])
    shapes = SHAPES[index % 10]
    outline = _outline(*shapes[rng.integers(len(shapes))])
    return _fill(outline, _place(_bend(_ink(outline, rng), rng), outline, rng))


class Outline(NamedTuple):
    """The closed curves around a shape: its outside and its holes, as one list of points.

    Outside and holes run in opposite senses, so that the signed areas of all curves add up to the
    area of the shape.
    """

    points: Array  # (P, 2), in pixels, y downwards, centred, evenly spaced along each curve
    after: Array  # (P,) index of the next point on the same curve
    normals: Array  # (P, 2) unit vectors that point out of the shape
    ends: list[int]  # where each curve but the last ends in the list; the outside comes first
    stroke_width: float  # mean width of the printed stroke, in pixels


@cache
def _outline(font: str, character: str) -> Outline:
    """Read a character's outline and scale its longer side to `DIGIT_SIZE`."""
    import matplotlib
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / font
    text = TextPath((0, 0), character, size=100, prop=FontProperties(fname=file))
    # The first corner comes again at the end; fonts measure y upwards, images downwards.
    polygons = [np.asarray(polygon)[:-1] * (1, -1) for polygon in text.to_polygons()]
    polygons.sort(key=lambda polygon: abs(_doubled_area(polygon)), reverse=True)
    corners = np.concatenate(polygons)
    middle, extent = (corners.max(0) + corners.min(0)) / 2, np.ptp(corners, axis=0).max()
    curves = [_resample((polygon - middle) * (DIGIT_SIZE / extent)) for polygon in polygons]
    if _doubled_area(curves[0]) < 0:
        curves = [curve[::-1] for curve in curves]

    starts = np.cumsum([0, *map(len, curves)])
    after = np.concatenate(
        [
            start + np.roll(np.arange(len(curve)), -1)
            for start, curve in zip(starts[:-1], curves, strict=True)
        ]
    )
    points, before = np.concatenate(curves), np.argsort(after)
    along = points[after] - points[before]
    normals = np.stack([along[:, 1], -along[:, 0]], axis=1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    # A long stroke of width w and length l has area w l and perimeter 2 l.
    area = _cross(points, points[after]).sum() / 2
    perimeter = np.linalg.norm(points[after] - points, axis=1).sum()
    return Outline(points, after, normals, starts[1:-1].tolist(), float(2 * area / perimeter))


def _cross(points: Array, following: Array) -> Array:
    """Return the cross product of each point with the next: twice a triangle's signed area."""
    return points[:, 0] * following[:, 1] - following[:, 0] * points[:, 1]


def _doubled_area(polygon: Array) -> float:
    """Return twice a closed polygon's area, positive in one sense of rotation."""
    return float(_cross(polygon, np.roll(polygon, -1, axis=0)).sum())


def _resample(corners: Array) -> Array:
    """Return points every `POINT_SPACING` pixels along a closed polygon, so that sides can bend."""
    closed = np.concatenate([corners, corners[:1]])
    distance = np.cumsum([0.0, *np.linalg.norm(np.diff(closed, axis=0), axis=1)])
    positions = np.linspace(0, distance[-1], max(8, int(distance[-1] / POINT_SPACING)), False)
    return np.stack([np.interp(positions, distance, side) for side in closed.T], axis=1)


def _ink(outline: Outline, rng: np.random.Generator) -> Array:
    """Move the outline to the width of a pen that is pressed a little unevenly."""
    pen_width = rng.uniform(2.0, 3.2)
    growth = np.clip((pen_width - outline.stroke_width) / 2, -0.5, 0.9)
    pressure = 0.2 * np.sin(
        outline.points @ rng.uniform(-0.25, 0.25, size=2) + rng.uniform(0, 2 * np.pi)
    )
    return outline.points + outline.normals * (growth + pressure)[:, np.newaxis]


def _bend(points: Array, rng: np.random.Generator) -> Array:
    """Deform the plane as a hand would: waves, a larger head or foot, a curved stem, a slant."""
    for _ in range(3):
        direction = rng.normal(size=2)
        direction /= np.linalg.norm(direction)
        wavelength = rng.uniform(14, 30)
        phase = points @ direction * (2 * np.pi / wavelength) + rng.uniform(0, 2 * np.pi)
        points = points + np.sin(phase)[:, np.newaxis] * rng.uniform(-0.8, 0.8, size=2)
    x, y = points.T
    x = x * (1 + rng.uniform(-0.025, 0.025) * y) + rng.uniform(-0.016, 0.016) * y**2
    x = x * rng.uniform(0.8, 1.15)
    y = y + rng.uniform(-0.014, 0.014) * x**2
    x = x - rng.uniform(-0.2, 0.45) * y
    angle = rng.uniform(-0.17, 0.17)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=1)


def _place(points: Array, outline: Outline, rng: np.random.Generator) -> Array:
    """Scale the digit, and lay its centre of mass near the middle of the image."""
    extent = np.ptp(points, axis=0).max()
    points = points * (DIGIT_SIZE * rng.uniform(0.88, 1.04) / extent)
    following = points[outline.after]
    cross = _cross(points, following)[:, np.newaxis]
    centre_of_mass = ((points + following) * cross).sum(0) / (3 * cross.sum())
    points = points - centre_of_mass + SIZE / 2 + rng.uniform(-0.8, 0.8, size=2)
    above = np.maximum(0, MARGIN - points.min(0))
    below = np.maximum(0, points.max(0) - (SIZE - MARGIN))
    return points + above - below


def _fill(outline: Outline, points: Array) -> Array:
    """Return the antialiased image, (28, 28) uint8, of the shape that the curves enclose."""
    from PIL import Image, ImageDraw, ImageFilter

    canvas = Image.new("L", (SIZE * SUPERSAMPLING, SIZE * SUPERSAMPLING))
    draw = ImageDraw.Draw(canvas)
    # Whole cells: rounding here keeps the image the same where sines differ in their last bit.
    cells = np.rint(points * SUPERSAMPLING - 0.5)
    outside, *holes = np.split(cells, outline.ends)
    draw.polygon(outside.ravel().tolist(), fill=255)
    for hole in holes:
        draw.polygon(hole.ravel().tolist(), fill=0)
    blurred = canvas.filter(ImageFilter.GaussianBlur(BLUR_RADIUS * SUPERSAMPLING))
    sharp = blurred.point(CONTRAST_TABLE)
    return np.asarray(sharp.reduce(SUPERSAMPLING))
