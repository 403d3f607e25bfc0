"""Image files: any that Pillow can read, cropped and resized to what a network takes."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak.backend import Array
from tinyleak.data.dataset import Dataset
from tinyleak.data.files import CHUNK_BYTES

GREY_16_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
PORTRAIT_SHAPE = (3, 32, 32)
PORTRAIT_CLASSES = 10

FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA"),
    *("TIFF", "WEBP"),
)
"""What is read: Pillow would also run other programs, or open images inside of images."""

MOST_PIXELS = {"JPEG": 2**26, "MPO": 2**26, "WEBP": 3 * 2**22, "AVIF": 2**23, "JPEG2000": 2**21}
"""How many pixels a file of that format may have, 2²⁴ of any other: so that none takes more than
300 MB, or about a second. A JPEG is reduced while it is decoded; the last two are slow."""

FULL_SIZE = 2**22  # images of more pixels are first averaged down to `MARGIN` times what is needed

MARGIN = 4

MOST_SCANS = 64  # how many passes over a progressive JPEG there may be; usual are 10


def load_image(path: str | Path, shape: tuple[int, int, int]) -> Array:
    """Return an image file as (C, H, W) float64 with pixels in [0, 1].

    The picture is turned as its EXIF orientation says, laid on white where it is transparent,
    cropped around its centre to the aspect H:W, and resized with a Lanczos filter.

    Args:
        path: the file; of an animation, the first frame is taken.
        shape: (C, H, W) of the result; C is 1 for grey and 3 for RGB.

    Raises:
        ValueError: an invalid shape; a file that is not an image, is damaged or truncated, has
            more pixels than `MOST_PIXELS`, or a kind of pixel without a known range.
        FileNotFoundError: there is no such file.
    """
    from PIL import Image, ImageOps

    channels, height, width = shape if len(shape) == 3 else (0, 0, 0)
    if channels not in (1, 3) or height < 1 or width < 1:
        raise ValueError(
            f"an image of shape {shape} cannot be made; "
            "(C, H, W) needs 1 or 3 channels and positive sizes"
        )
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"image file {str(path)!r} is not there; give the path of a file")
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            # Pillow warns of a picture it finds suspiciously large, and refuses one twice that.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            Image.init()  # which knows what this Pillow was built with
            formats = [name for name in FORMATS if name in Image.OPEN]
            with Image.open(file, formats=formats) as opened:
                require_bounded(opened, path)
                image = _decoded(opened, MARGIN * max(height, width), path)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_large(path, int(Image.MAX_IMAGE_PIXELS or 0)) from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(
            f"{str(path)!r} is not an image file that Pillow can read; give a PNG or JPEG, say"
        ) from error
    except (PermissionError, UnfitImageError):
        raise
    except Exception as error:  # Each format's decoder has its own ways to stumble over bad bytes.
        raise ValueError(
            f"image file {str(path)!r} is truncated or damaged ({error}); get it again"
        ) from error
    if image.mode != "F" and channels == 1:
        image = image.convert("L")
    fitted = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(fitted, dtype=np.float64).reshape(height, width, -1)
    if fitted.mode != "F":
        pixels = pixels / 255.0
    # The Lanczos filter overshoots at edges: a float image may leave the range a little.
    planes = np.clip(pixels, 0.0, 1.0).transpose(2, 0, 1)
    return np.ascontiguousarray(np.broadcast_to(planes, shape))


class UnfitImageError(ValueError):
    """A file that is whole, and is not taken all the same."""


def _too_large(path: Path, most: int) -> UnfitImageError:
    return UnfitImageError(
        f"image file {str(path)!r} has more than {most:,} pixels, which may be a decompression "
        "bomb; save it smaller"
    )


def require_bounded(opened: Any, path: Path) -> None:
    """Refuse by its header what would take too much to decode, or whose range is not known."""
    most = MOST_PIXELS.get(opened.format, 2**24)
    if "progressive" in opened.info:  # all of its numbers are kept until the last pass
        most = 2**24
    tags = getattr(opened, "tag_v2", {})
    tile = int(tags.get(TILE_WIDTH, 0)) * int(tags.get(TILE_LENGTH, 0))
    if max(opened.width * opened.height, tile) > most:
        raise _too_large(path, most)
    if opened.format in ("JPEG", "MPO") and _scans(path) > MOST_SCANS:
        raise UnfitImageError(
            f"image file {str(path)!r} is a JPEG of more than {MOST_SCANS} passes, which would "
            "take long; save it again"
        )
    # Mode I is how Pillow gives some 16-bit greys, but also 32-bit ones of any range.
    if opened.mode == "F" or (opened.mode == "I" and _largest(opened) is None):
        raise UnfitImageError(
            f"image file {str(path)!r} holds pixels of Pillow's mode {opened.mode}, "
            "whose range is not known; save it with 8 or 16 bits"
        )


TILE_WIDTH, TILE_LENGTH, LARGEST, BITS, ORIENTATION = 322, 323, 281, 258, 274
"""A TIFF's tags: the size of a tile, MaxSampleValue, BitsPerSample, Orientation (TIFF 6.0)."""


def _largest(opened: Any) -> float | None:
    """Return what white is in an image of whole numbers, or None where that is not known."""
    if opened.format != "TIFF" or opened.mode != "I":
        return 65535.0
    told = opened.tag_v2.get(LARGEST)
    told = told[0] if isinstance(told, tuple) else told
    if told is None and opened.tag_v2.get(BITS, (32,))[0] <= 16:
        return 65535.0
    return float(told) if told else None


def _scans(path: Path) -> int:
    """Return how many scans a JPEG has, or more; each begins with the bytes FF DA."""
    count, before = 0, b""
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            count += (before + piece).count(b"\xff\xda")
            before = piece[-1:]
    return count


def _decoded(opened: Any, side: int, path: Path) -> Any:
    """Return the opened image turned and opaque: 8-bit RGB, or, of a 16-bit grey, F in [0, 1].

    One that is large is averaged down, so that what is left is `side` pixels high and wide at
    least; and as early as its format allows.
    """
    from PIL import Image, ImageOps

    largest, wide = _largest(opened), any(":16" in str(t) or ";16" in str(t) for t in opened.tile)
    if opened.width * opened.height > FULL_SIZE:
        opened.draft(None, (side, side))
    opened.load()
    image, clear = opened, opened.info.get("transparency")
    if opened.mode in (*GREY_16_BIT, "I"):
        grey = np.asarray(opened).astype(np.float32)
        if largest is None or grey.min() < 0 or grey.max() > largest:
            raise UnfitImageError(
                f"image file {str(path)!r} holds pixels beyond its range; save it with 8 or 16 bits"
            )
        hidden = None if clear is None else grey == clear
        grey /= np.float32(largest)
        if hidden is not None:
            grey[hidden] = 1.0
        image = Image.fromarray(grey)
    elif opened.mode in ("RGBA", "RGBa", "LA", "La", "PA") or clear is not None:
        if wide and isinstance(clear, tuple):  # a colour of 16 bits, and its image is of 8 by now
            opened.info["transparency"] = tuple(part >> 8 for part in clear)
        layer = opened.convert("RGBA")
        factor = _factor(layer, side)
        if factor > 1:  # what is transparent counts by as much as it is not
            layer = layer.convert("RGBa").reduce(factor).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    if image.mode != "F":
        # Every mode converts to RGB, but not every one straight to grey.
        image = image.convert("RGB")
    image = image.reduce(factor) if (factor := _factor(image, side)) > 1 else image
    image.getexif()[ORIENTATION] = opened.getexif().get(ORIENTATION, 1)
    return ImageOps.exif_transpose(image)


def _factor(image: Any, side: int) -> int:
    """Return by how much an image is averaged down."""
    large = image.width * image.height > FULL_SIZE
    return max(1, min(image.size) // side) if large else 1


def load_portrait() -> Dataset:
    """Return one image, (1, 3, 32, 32): Grace Hopper's portrait from matplotlib's sample data.

    It belongs to no classification, so its label is 0 among 10 classes. An installation of
    matplotlib without sample data is a FileNotFoundError.
    """
    from matplotlib.cbook import get_sample_data

    image = load_image(get_sample_data("grace_hopper.jpg", asfileobj=False), PORTRAIT_SHAPE)
    return Dataset("portrait", image[np.newaxis], np.zeros(1, np.int64), PORTRAIT_CLASSES)
