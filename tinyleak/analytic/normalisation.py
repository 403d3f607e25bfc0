"""How pixels were normalised, where the first linear layer shows the image.

Pixels of eight bits are k / 255. Normalised to (pixel − mean) / std they are still evenly spaced,
and black is −mean / std. The usual constants are tried; others cannot be told from pixels alone.
"""

import numpy as np

from tinyleak.analytic.cause import Cause
from tinyleak.analytic.one_image import look_at_one_image
from tinyleak.analytic.shared import ALLOWED, Shared
from tinyleak.backend import Array
from tinyleak.nn.models.as_trained import are_images

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]

USUAL: tuple[Normalisation, ...] = (
    ((0.0,), (1 / 255,)),
    ((0.5,), (0.5,)),
    ((0.1307,), (0.3081,)),
    ((0.13,), (0.31,)),
    ((0.286,), (0.353,)),
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.201)),
    ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
)
"""Mean and standard deviation by channel as code of PyTorch has them: pixels up to 255 (0 and
1 / 255), halves, MNIST (two ways to write it), Fashion-MNIST, halves in colour, CIFAR-10 (two
ways), CIFAR-100, ImageNet."""

SLACK = 1e-3  # a quarter of a level: whoever normalises moves black much farther

BLACK = 0.02
"""The share of black pixels from which on black is taken to be there, and not met by accident."""

BEYOND, MANY = 0.25, 0.2
"""By how much pixels exceed [0, 1], and what share of them, to be those of another range, though
they are rough: where kinks stopped a search for twelve digits, of those normalised as MNIST's 35 to
63 % of the pixels did so, of the others 9 % at most."""

ALIKE = 0.02  # two ways to write MNIST's are 0.01 apart: the first is taken

FAR = 20.0
"""A mean over a batch weighs images by δ, which has either sign, so it may be a few times as large
as any of them; this much only where pixels go up to 255."""


def outside_unit_range(pixels: Array, error: Array) -> bool:
    """Return whether an image is not one of pixels in [0, 1], whatever the error."""
    allowed = error + SLACK
    return bool((pixels < -allowed).any() or (pixels > 1.0 + allowed).any())


def far_outside_unit_range(pixels: Array) -> bool:
    """Return whether roughly found pixels are not of an image in [0, 1]."""
    return bool(np.mean((pixels < -BEYOND) | (pixels > 1.0 + BEYOND)) > MANY)


def nearest_normalisation(pixels: Array) -> Normalisation:
    """Return the usual one whose black and white are nearest the darkest and brightest pixels.

    Args:
        pixels: (C, H, W), normalised, and roughly known.
    """
    ends = np.quantile(pixels, (0.01, 0.99), axis=(1, 2))

    def off(usual: Normalisation) -> float:
        mean, std = map(np.array, usual)
        black_and_white = np.stack([-mean / std, (1.0 - mean) / std])
        return float(np.abs(ends - black_and_white).mean())

    found = {usual: off(usual) for usual in USUAL if len(usual[0]) in (1, len(pixels))}
    return next(usual for usual in found if found[usual] <= min(found.values()) + ALIKE)


def usual_normalisation(pixels: Array, error: Array) -> Normalisation | None:
    """Return the mean and standard deviation, by channel, that an image was normalised with.

    Args:
        pixels: (C, H, W), normalised.
        error: (C, H, W), how far each may be off.

    Returns:
        The only usual one for which every pixel is one of 256 levels, else the only one for which
        all lie between black and white and some are black, else None.
    """
    levels, black = [], []
    for usual in USUAL:
        if len(usual[0]) not in (1, len(pixels)):
            continue
        mean, std = (np.reshape(part, (-1, 1, 1)) for part in usual)
        seen = np.isfinite(pixels)
        level = np.where(seen, (pixels * std + mean) * 255.0, 0.0)
        allowed = np.where(seen, error * std * 255.0, 0.0) + 1e-3
        if (level < -allowed).any() or (level > 255.0 + allowed).any():
            continue
        if (np.abs(level - np.rint(level)) <= allowed).all() and allowed.max() < 0.1:
            levels.append(usual)
        if (np.abs(level) <= allowed)[seen].mean() > BLACK:
            black.append(usual)
    for found in (levels, black):
        if len(found) == 1:
            return found[0]
    return None


def as_option(usual: Normalisation) -> str:
    """Return how a normalisation is said on the command line."""
    return "--normalize " + ",".join(f"{number:.6g}" for part in usual for number in part)


def same_in_all(
    weight_gradient: Array, bias_gradient: Array, noise: float, rounding: float
) -> Array:
    """Return the value of each pixel that every image of a batch has alike, NaN for others: (F,).

    Where x is the same for all images, a column of the weight's gradient is x times the bias's.

    Args:
        weight_gradient: (O, F), of the first layer.
        bias_gradient: (O,).
        noise: the standard deviation of the error of each entry.
        rounding: half of the last place in which it was computed, relative to a number.
    """
    value = (bias_gradient @ weight_gradient) / float(bias_gradient @ bias_gradient)
    off = np.linalg.norm(weight_gradient - np.outer(bias_gradient, value), axis=0)
    # A sum over the batch is rounded in proportion to its terms, which may cancel in some rows.
    allowed = noise * np.sqrt(len(bias_gradient)) * np.hypot(1.0, value)
    allowed = allowed + ALLOWED * rounding * np.linalg.norm(weight_gradient, axis=0)
    return np.where(off <= ALLOWED * allowed, value, np.nan)


def read_normalisation(
    shared: Shared, images: int, noise: float
) -> tuple[Normalisation | None, Cause | None]:
    """Return how pixels were normalised, if the first layer is fully connected and shows them."""
    shape = shared.model.image_shape
    first = shared.of_pixels
    if first is None or len(shared.layers) < 2 or not are_images(shared.model):
        return None, None
    by_bias = first.bias_gradient
    if by_bias is None or not by_bias.any():
        return None, None
    if images == 1:
        image = look_at_one_image(first, noise, shared.computed)
        pixels, error = image.features, ALLOWED * image.features_error
    else:
        deviation = float(np.sqrt(noise + np.mean(np.square(first.deviation))))
        pixels = same_in_all(first.gradient, by_bias, deviation, shared.computed)
        length = float(np.linalg.norm(by_bias))
        error = ALLOWED * np.hypot(1.0, pixels) * (deviation / length + 4.0 * shared.computed)
    seen = np.isfinite(pixels)
    if not seen.any() or not outside_unit_range(pixels[seen], error[seen]):
        return None, _of_means(first.gradient, by_bias) if images > 1 else None
    usual = usual_normalisation(pixels.reshape(shape), error.reshape(shape))
    low, high = float(pixels[seen].min()), float(pixels[seen].max())
    text = f"the first layer shows pixels from {low:.4g} to {high:.4g}, and not in [0, 1]"
    advice = ""
    if usual is not None:
        advice = as_option(usual)
    return usual, Cause("normalisation", text, advice, sure=True)


def _of_means(weight_gradient: Array, bias_gradient: Array) -> Cause | None:
    """Return the cause if the means of pixels that each row shows are far from [0, 1]."""
    rows = bias_gradient != 0
    means = np.abs(weight_gradient[rows]).max(axis=1) / np.abs(bias_gradient[rows])
    typical = float(np.median(means))
    if typical < FAR:
        return None
    text = f"the first layer shows means of pixels that reach {typical:.3g}, and not 1"
    return Cause("normalisation", text, "--normalize 0,0.00392157")
