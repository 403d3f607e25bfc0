"""Image files: any that Pillow can read, cropped and resized to what a network takes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak.backend import Array
from tinyleak.data.dataset import Dataset

GREY_16_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
PORTRAIT_SHAPE = (3, 32, 32)
PORTRAIT_CLASSES = 10


def load_image(path: str | Path, shape: tuple[int, int, int]) -> Array:
    """Return an image file as (C, H, W) float64 with pixels in [0, 1].

    The picture is turned as its EXIF orientation says, laid on white where it is transparent,
    cropped around its centre to the aspect H:W, and resized with a Lanczos filter.

    Args:
        path: the file; of an animation, the first frame is taken.
        shape: (C, H, W) of the result; C is 1 for grey and 3 for RGB.

    Raises:
        ValueError: an invalid shape; a file that is not an image, is damaged or truncated, has
            more pixels than Pillow holds for safe, or a kind of pixel without a known range.
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
            with Image.open(file) as opened:
                opened.load()
                image = ImageOps.exif_transpose(opened)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(
            f"image file {str(path)!r} has more than {Image.MAX_IMAGE_PIXELS:,} pixels, "
            "which may be a decompression bomb; save it smaller"
        ) from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(
            f"{str(path)!r} is not an image file that Pillow can read; give a PNG or JPEG, say"
        ) from error
    except PermissionError:
        raise
    except Exception as error:  # Each format's decoder has its own ways to stumble over bad bytes.
        raise ValueError(
            f"image file {str(path)!r} is truncated or damaged ({error}); get it again"
        ) from error
    fitted = ImageOps.fit(
        _in_known_range(image, channels, path), (width, height), Image.Resampling.LANCZOS
    )
    pixels = np.asarray(fitted, dtype=np.float64).reshape(height, width, -1)
    if fitted.mode != "F":
        pixels = pixels / 255.0
    # The Lanczos filter overshoots at edges: a float image may leave the range a little.
    planes = np.clip(pixels, 0.0, 1.0).transpose(2, 0, 1)
    return np.ascontiguousarray(np.broadcast_to(planes, shape))


def _in_known_range(image: Any, channels: int, path: Path) -> Any:
    """Return the Pillow image opaque: 8-bit L or RGB, or, of a 16-bit grey, F in [0, 1]."""
    from PIL import Image

    if image.mode in GREY_16_BIT or image.mode == "I":
        grey = np.asarray(image).astype(np.float32)
        # Mode I is how Pillow gives some 16-bit greys, but also 32-bit ones of any range.
        if grey.min() >= 0 and grey.max() <= 65535:
            return Image.fromarray(grey / np.float32(65535))
    if image.mode in (*GREY_16_BIT, "I", "F"):
        raise ValueError(
            f"image file {str(path)!r} holds pixels of Pillow's mode {image.mode}, "
            "whose range is not known; save it with 8 or 16 bits"
        )
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        image = Image.alpha_composite(white, layer)
    # Every mode converts to RGB, but not every one straight to grey.
    colour = image.convert("RGB")
    return colour if channels == 3 else colour.convert("L")


def load_portrait() -> Dataset:
    """Return one image, (1, 3, 32, 32): Grace Hopper's portrait from matplotlib's sample data.

    It belongs to no classification, so its label is 0 among 10 classes.

    Raises:
        FileNotFoundError: this installation of matplotlib has no sample data.
    """
    from matplotlib.cbook import get_sample_data

    image = load_image(get_sample_data("grace_hopper.jpg", asfileobj=False), PORTRAIT_SHAPE)
    return Dataset("portrait", image[np.newaxis], np.zeros(1, np.int64), PORTRAIT_CLASSES)
