"""Convolution by tiles of six by six pixels, with a fraction of the multiplications.

A row of 7 − k results of a convolution with k weights is what a product of polynomials has for
coefficients; it takes k (7 − k) multiplications, or 6 where both are known by their values at six
points (Toom, Cook, Winograd): `A ((G weights) ∘ (B pixels))`, with constant matrices of small
numbers. In two dimensions a tile of 4 × 4 results takes 36 multiplications in place of 144 for
k = 3, and one of 2 × 2 takes 36 in place of 100 for k = 5 (Lavin and Gray, CVPR 2016, section 4).
Summed over channels they are 36 matrix products. All of it is linear and made of primitives, so
gradients of any order take as few.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from tinyleak.backend import Array, array_module
from tinyleak.nn.layers import as_row
from tinyleak.ops import crop, pad, reshape, transpose, unfold
from tinyleak.ops.window import Pair
from tinyleak.tensor import Tensor

TILE = 6
POINTS = (0.0, 1.0, -1.0, -0.5, 2.0)
"""Where polynomials are evaluated, besides at infinity: of several sets that were tried, the one
that loses least in digits, as in Barabasz et al. 2020. Results agree with plain ones to 2e-15."""

LEAST_CHANNELS, LEAST_PIXELS = 16, 96
"""Of a result, all images counted: from there on the way to the values and back costs less than it
saves. Both were found by trial, on the networks of `benchmarks/ordinary_networks.py`."""


def pays(x: Tensor, weight: Tensor, sides: Sequence[Pair]) -> bool:
    """Whether a plain convolution, of stride 1, is quicker by tiles."""
    outside, inside, high, wide = weight.shape[-4:]
    if not 3 <= high == wide <= 5 or min(inside, outside) < LEAST_CHANNELS:
        return False
    counts = _counts(x, high, sides)
    return min(counts) > 0 and math.prod((*x.shape[:-3], *counts)) >= LEAST_PIXELS


def convolve_tiles(x: Tensor, weight: Tensor, bias: Tensor | None, sides: Sequence[Pair]) -> Tensor:
    """Convolve images that have their channels last: (…, N, H, W, C) → (…, N, oH, oW, O).

    The weight is (…, O, C, k, k), k from 3 to 5, the bias (…, O); `sides` are zeros put above and
    below, left and right.
    """
    *free, outside, inside, size, _ = weight.shape
    step, counts, places = TILE - size + 1, _counts(x, size, sides), TILE * TILE
    margins = [(a, b + -count % step) for (a, b), count in zip(sides, counts, strict=True)]
    windows = unfold(pad(x, [*margins, (0, 0)]), (TILE, TILE), stride=(step, step))
    *leading, batch, rows, columns = windows.shape[:-3]
    tiles = batch * rows * columns
    module = array_module(x._array)
    back, by_weights, by_pixels = (
        Tensor(module.asarray(matrix, dtype=x.dtype)) for matrix in _matrices(size)
    )
    lines = transpose(reshape(windows, (*leading, tiles, places, inside)), (1, 0, 2))
    values = by_pixels @ reshape(lines, (*leading, places, tiles * inside))
    kernels = reshape(transpose(weight, (2, 3, 1, 0)), (*free, size * size, inside * outside))
    factors = reshape(by_weights @ kernels, (*free, places, inside, outside))
    products = reshape(values, (*leading, places, tiles, inside)) @ factors
    leading = [*products.shape[:-3]]
    out = back @ reshape(products, (*leading, places, tiles * outside))
    out = reshape(out, (*leading, step, step, batch, rows, columns, outside))
    whole = (*leading, batch, rows * step, columns * step, outside)
    out = reshape(transpose(out, (2, 3, 0, 4, 1, 5)), whole)
    out = crop(out, [(0, rows * step - counts[0]), (0, columns * step - counts[1]), (0, 0)])
    if bias is None:
        return out
    pixels = reshape(out, (*leading, batch * counts[0] * counts[1], outside)) + as_row(bias)
    return reshape(pixels, (*pixels.shape[:-2], *out.shape[-4:]))


def _counts(x: Tensor, size: int, sides: Sequence[Pair]) -> Pair:
    """How many results there are, down and across."""
    down, across = (n + sum(s) - size + 1 for n, s in zip(x.shape[-3:-1], sides, strict=True))
    return down, across


@lru_cache
def _matrices(size: int) -> tuple[Array, Array, Array]:
    """A, G and B for both axes at once: (m², 36), (36, k²) and (36, 36)."""
    points, step = np.array(POINTS), TILE - size + 1
    others = [np.delete(points, number) for number in range(len(points))]
    scale = np.array([np.prod(point - rest) for point, rest in zip(points, others, strict=True)])
    by_pixels = np.zeros((TILE, TILE))
    by_pixels[:-1, :-1] = [np.poly(rest)[::-1] for rest in others]  # 0 at the other points
    by_pixels[-1] = np.poly(points)[::-1]
    powers = np.vander(points, increasing=True)
    by_weights = np.vstack([powers[:, :size] / scale[:, None], np.eye(size)[-1:]])
    back = np.vstack([powers[:, :step], np.eye(step)[-1:]]).T
    return np.kron(back, back), np.kron(by_weights, by_weights), np.kron(by_pixels, by_pixels)
