"""How close a reconstruction came to the truth.

Lesson: lessons/09_why_it_fails.py
"""

from collections import Counter
from typing import Any

import numpy as np

from tinyleak.backend import Array, to_numpy
from tinyleak.interop import as_array

LOST_MSE = 1e6
"""Pixels are in [0, 1], so an image this far off is as lost as any that is farther off."""


def mse(a: Array, b: Array) -> Array:
    """Return the mean squared error of each image, (N,), for a and b of shape (N, ...).

    An image with NaN or infinity in it gets NaN or infinity. Shapes that differ, or arrays without
    images or pixels, are a ValueError.
    """
    return _row_mse(*_image_rows(a, b))


def psnr(a: Array, b: Array) -> Array:
    """Return the peak signal-to-noise ratio of each image, (N,), in dB; arguments as for `mse`.

    It is −10 log₁₀ MSE, since pixels are in [0, 1] and their peak is 1; infinity for equal images.
    """
    with np.errstate(divide="ignore"):
        return -10.0 * np.log10(mse(a, b))


def match_batch(found: Array, truth: Array) -> Array:
    """Return the order, (N,) int64, in which the found images fit the true ones best.

    A gradient is a mean over its batch, so an attack finds the images in any order. Of all
    permutations this one minimises the total MSE: `found[match_batch(found, truth)]` lies beside
    `truth`. An image with NaN, infinity or an MSE above a million counts as a million.

    Args:
        found: (N, ...) pixels.
        truth: (N, ...) pixels in [0, 1].

    Raises:
        ValueError: as `mse` does.
    """
    found, truth = _image_rows(found, truth)
    cost = np.stack([_row_mse(found, image) for image in truth])
    cost = np.nan_to_num(cost, nan=LOST_MSE, posinf=LOST_MSE).clip(max=LOST_MSE)
    return _assign(cost)


def matched_mse(found: Array, truth: Array) -> Array:
    """Return the `mse` of each image, (N,), in the order that fits best."""
    return mse(found[match_batch(found, truth)], truth)


def match_sentences(found: Array, truth: Array, words: Array) -> Array:
    """Return the order, (N,) int64, in which the found sentences fit the true ones best.

    That is with most tokens in place: `found[match_sentences(found, truth, words)]` lies beside
    `truth`. Arguments and errors as `token_accuracy`, but that `found` is in any order.
    """
    found, truth, words = _token_rows(found, truth, words)
    agreeing = (found[np.newaxis] == truth[:, np.newaxis]) & words[:, np.newaxis]
    return _assign(-agreeing.sum(axis=-1))


def token_accuracy(found: Array, truth: Array, words: Array) -> float:
    """Return the share of tokens, each (N, T) int, that are right in their positions.

    Args:
        found: (N, T), in the order of the true sentences; see `match_sentences`.
        truth: (N, T).
        words: (N, T), true at the positions that count: not at a sentence's start and end, which
            every sentence has.

    Raises:
        ValueError: shapes that differ, or no place that counts.
    """
    found, truth, words = _token_rows(found, truth, words)
    return float(np.mean(found[words] == truth[words]))


def bag_accuracy(found: Array, truth: Array, words: Array) -> float:
    """Return the share of all sentences' tokens that were found, in whatever place.

    A token that is there twice has to be found twice. Arguments and errors as `token_accuracy`.
    """
    found, truth, words = _token_rows(found, truth, words)
    common = Counter(found[words].tolist()) & Counter(truth[words].tolist())
    return common.total() / int(words.sum())


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the ends, in [0, 1], of Wilson's score interval for a probability of success.

    Unlike the normal approximation it holds for few trials and for all or none successful (Wilson,
    "Probable inference, the law of succession, and statistical inference", 1927). No trials,
    successes not in [0, trials], or a confidence not in (0, 1) are a ValueError.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(
            f"{successes} successes of {trials} trials make no proportion; "
            "give 1 or more trials, and 0 to as many successes"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1; 0.95 is usual")
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def _assign(cost: Array) -> Array:
    """Return the column that each row of (N, N) costs gets, (N,), at the least total cost."""
    if len(cost) == 1:
        # An order of one needs no search, and so not the library that searches.
        return np.zeros(1, np.int64)
    from scipy.optimize import linear_sum_assignment

    return np.asarray(linear_sum_assignment(cost)[1], dtype=np.int64)


def _on_host(*arrays: Any) -> tuple[Array, ...]:
    """Return arrays of any library, or lists, in the computer's main memory."""
    return tuple(to_numpy(as_array(array)) for array in arrays)


def _image_rows(a: Array, b: Array) -> tuple[Array, Array]:
    """Return both as (N, pixels) float64 in the computer's main memory."""
    a, b = _on_host(a, b)
    if a.shape != b.shape or a.ndim < 2 or a.size == 0:
        raise ValueError(
            "images are compared in two arrays of one shape (N, ...) with pixels in them, "
            f"not in {a.shape} and {b.shape}"
        )
    first, second = (array.reshape(len(array), -1).astype(np.float64) for array in (a, b))
    return first, second


def _token_rows(found: Array, truth: Array, words: Array) -> tuple[Array, Array, Array]:
    """Return all three in the computer's main memory, if they fit each other."""
    found, truth, words = _on_host(found, truth, words)
    if not found.shape == truth.shape == words.shape or found.ndim != 2 or not words.any():
        raise ValueError(
            "tokens are compared in arrays of one shape (N, T) with positions that count, not in "
            f"{found.shape} found, {truth.shape} true and {words.shape} positions"
        )
    return found, truth, words


def _row_mse(a: Array, b: Array) -> Array:
    # Where an attack diverged, the squares overflow: infinity is the right answer.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.mean((a - b) ** 2, axis=1)
