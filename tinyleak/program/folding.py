"""The kernel of `fold`: each pixel gathers its places in the windows, and adds them up.

The forward adds one slice for each place in a window, 25 for LeNet. Here each image is one gather,
by a table made once, and one product with ones.
"""

from functools import lru_cache, partial
from typing import Any

import numpy as np

from tinyleak.backend import Array
from tinyleak.ops.window import Pair
from tinyleak.program.library import Call, Scratch, call_into, shares_memory, take_into

SCRATCH_BYTES = 2**19
"""How much scratch memory a call may work in on the CPU: half of a usual second-level cache."""


def fold_into(
    xp: Any, x: Array, *, out: Array, size: Pair, stride: Pair, padding: Pair, scratch: Scratch
) -> list[Call]:
    """Return the calls that add the windows of `x` up into the images `out`."""
    rows, columns, high, wide, channels = x.shape[-5:]
    images = out if out.flags.c_contiguous else xp.empty(out.shape, dtype=out.dtype)
    last = [] if images is out else [partial(xp.copyto, out, images)]
    places = _places(xp, (rows, columns), (high, wide), size, stride, padding)
    entries = rows * columns * high * wide
    count = x.size // max(1, entries * channels)
    windows = x.reshape((count, *x.shape[-5:]))
    flat_images = images.reshape((count, 1, size[0] * size[1] * channels))
    calls: list[Call] = []
    if not shares_memory(xp, windows, x):
        calls.append(partial(xp.copyto, windows.reshape(x.shape), x))
    each = (entries + places.size) * channels * x.dtype.itemsize
    together = _fitting_count(xp, count, each)
    # One more entry, of zeros, stands for the places that a pixel near the border lacks.
    flat = scratch.empty((together, entries + 1, channels), x.dtype)
    found = scratch.empty((together, places.size, channels), x.dtype)
    here_windows = flat[:, :-1].reshape((together, *x.shape[-5:]))
    covers = found.reshape((together, -1, flat_images.shape[-1]))
    ones = xp.ones((1, covers.shape[1]), dtype=x.dtype)
    calls.append(partial(flat[:, -1].fill, 0))
    for start in range(0, count, together):
        part = slice(start, min(start + together, count))
        here = slice(0, part.stop - start)
        calls += [
            partial(xp.copyto, here_windows[here], windows[part]),
            take_into(xp, flat[here], places, 1, found[here]),
            call_into(xp, "matmul", ones, covers[here], out=flat_images[part]),
        ]
    return [*calls, *last]


def _fitting_count(module: Any, count: int, each: int) -> int:
    """Return how many of `count` equal pieces of work to do at once, at least 1.

    Each takes so many bytes of scratch memory, which are to stay in the processor's cache. A GPU
    takes all at once: there many pieces are better than few.
    """
    return max(1, min(count, SCRATCH_BYTES // each) if module is np else count)


@lru_cache(maxsize=256)
def _places(xp: Any, counts: Pair, kernel: Pair, size: Pair, stride: Pair, padding: Pair) -> Array:
    """The places of each pixel among the flattened windows, (P·H·W,): P ways to be covered.

    A place that does not exist is given the number of the entry after the last.
    """
    down, row_fits = _places_along(counts[0], kernel[0], size[0], stride[0], padding[0])
    across, column_fits = _places_along(counts[1], kernel[1], size[1], stride[1], padding[1])
    window = (down[0][:, None, :, None] * counts[1]) + across[0][None, :, None, :]
    within = (down[1][:, None, :, None] * kernel[1]) + across[1][None, :, None, :]
    fits = row_fits[:, None, :, None] & column_fits[None, :, None, :]
    per_window = kernel[0] * kernel[1]
    places = np.where(fits, window * per_window + within, counts[0] * counts[1] * per_window)
    return xp.asarray(places.reshape(-1))


def _places_along(
    count: int, kernel: int, size: int, stride: int, padding: int
) -> tuple[tuple[Array, Array], Array]:
    """Along one axis: for each pixel the windows that cover it and the offset within each.

    Both are (⌈k/s⌉, size); beside them, whether such a window exists.
    """
    pixel = np.arange(size)[None, :] + padding
    offset = pixel % stride + stride * np.arange(-(-kernel // stride))[:, None]
    window = (pixel - offset) // stride
    return (window, offset), (offset < kernel) & (window >= 0) & (window < count)
