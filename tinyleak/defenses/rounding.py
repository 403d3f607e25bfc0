"""Rounding: half precision, and eight bits."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tinyleak.backend import Array
from tinyleak.defenses.defense import Defense, Gradients


@dataclass(frozen=True)
class Float16(Defense):
    """Round to IEEE half precision: 11 significant bits; beyond 65,504 it is infinite."""

    name: ClassVar[str] = "float16"
    bits: ClassVar[int] = 11

    def __call__(self, gradients: Gradients, rng: np.random.Generator) -> dict[str, Array]:
        """Round to nearest, to even where two are as near."""
        with np.errstate(over="ignore"):
            return {k: g.astype(np.float16).astype(g.dtype) for k, g in gradients.items()}

    def variance(self, shared: Gradients, batch: int) -> dict[str, Array]:
        """Return that of a number rounded to an entry: its last place squared, over 12."""
        variances = {}
        for name, gradient in shared.items():
            last_place = np.ldexp(1.0, np.frexp(gradient)[1] - self.bits)
            variances[name] = np.where(gradient == 0, 0.0, last_place**2 / 12)
        return variances


@dataclass(frozen=True)
class BFloat16(Float16):
    """Round to bfloat16: float32 without its lower 16 bits, 8 significant bits."""

    name: ClassVar[str] = "bfloat16"
    bits: ClassVar[int] = 8

    def __call__(self, gradients: Gradients, rng: np.random.Generator) -> dict[str, Array]:
        """Round to nearest, to even where two are as near."""
        return {k: round_to_bfloat16(g).astype(g.dtype) for k, g in gradients.items()}


@dataclass(frozen=True)
class Int8(Defense):
    """Round each tensor to whole multiples, −127 to 127, of its largest magnitude / 127.

    That is symmetric quantisation, with one scale a tensor.
    """

    name: ClassVar[str] = "int8"

    def __call__(self, gradients: Gradients, rng: np.random.Generator) -> dict[str, Array]:
        """Quantise and return what the integers stand for."""
        shared = {}
        for name, gradient in gradients.items():
            lowest, step = self._range(gradient)
            whole = np.clip(np.rint(gradient / step), lowest, lowest + 255) if step else gradient
            shared[name] = (whole * step).astype(gradient.dtype)
        return shared

    def variance(self, shared: Gradients, batch: int) -> dict[str, Array]:
        """Return that of a number anywhere within half a step; the range shows the step."""
        return {name: np.full(g.shape, self._range(g)[1] ** 2 / 12) for name, g in shared.items()}

    def _range(self, gradient: Array) -> tuple[float, float]:
        """Return the lowest of 256 multiples of a step, and the step."""
        return -127.0, float(np.abs(gradient).max(initial=0.0)) / 127


@dataclass(frozen=True)
class Int8Affine(Int8):
    """Round each tensor to the 256 multiples of a step that span its range, zero among them."""

    name: ClassVar[str] = "int8-affine"

    def _range(self, gradient: Array) -> tuple[float, float]:
        low = float(gradient.min(initial=0.0))
        step = (float(gradient.max(initial=0.0)) - low) / 255
        return float(np.rint(low / step)) if step else 0.0, step


def round_to_bfloat16(array: Array) -> Array:
    """Round to the nearest bfloat16, as float32: to even where two are as near.

    Half of the last place kept is added to the bits of a float32, a little less if the bit kept is
    even, and the lower 16 bits are cut off. A carry moves on into the exponent, as it should.
    """
    single = np.asarray(array, dtype=np.float32)
    bits = single.view(np.uint32)
    even = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = (bits + (np.uint32(0x7FFF) + even)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(single), single, rounded.view(np.float32))
