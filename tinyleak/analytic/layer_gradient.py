"""The gradient of one linear layer, Σᵢ δᵢ xᵢᵀ, and what follows from its being such a sum.

A linear layer maps each input xᵢ of a batch to W xᵢ + b. With δᵢ = ∂L/∂(W xᵢ + b), its gradient is

    ∂L/∂W = Σᵢ δᵢ xᵢᵀ, (O, F),   and   ∂L/∂b = Σᵢ δᵢ, (O,);   side by side   G = Σᵢ δᵢ (xᵢ, 1)ᵀ.

So the rank of G is at most N, the number of inputs; its rows are mixtures of the inputs, and its
columns are mixtures of the δᵢ. While N is smaller than both dimensions, G's row space is spanned by
the inputs and by nothing else (DAGER: Petrov et al., NeurIPS 2024), so the distance of a vector
from that space tells whether it is an input. Labels, the loss's factor, the activation, the inputs
themselves: all that is inferred here from a gradient is a question to a `LayerGradient`.

Lessons: lessons/10_labels.py, lessons/13_text.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tinyleak.analytic.last_layer import last_layer_names
from tinyleak.analytic.probes import probe_logits
from tinyleak.analytic.spectrum import EDGE, rounded_sizes, tail
from tinyleak.analytic.subspace import Subspace
from tinyleak.backend import Array, to_numpy
from tinyleak.interop import as_array, whole
from tinyleak.nn.fitting import require_fit
from tinyleak.nn.model import Model

ROUNDING = 10.0
"""Beside the rank of an exact product, rounding leaves singular values whose root sum of squares is
about so many roundings of the largest: measured at 1 for 10 x 769 numbers, at 20 for 768 x 768."""

MOST_ROUNDED = 100.0
"""How many roundings of a typical entry a client's gradient may err by: 1 to 25 were measured."""

UNEVEN_EDGE = 4.0
"""`EDGE` where rounding is all the noise: an entry's is in proportion to it, and so not even. Of
84 float32 BERTs, rounding stood out 1.03 to 1.75 times as far, and what tokens add 32 times or
more (lengths 8, 16, 30 and batches of 4)."""

SPACING = 2.0**-149
"""What lies between float32's smallest numbers, below 1e-38: they err by a share of that each."""

LEAST_ROW = 1e-30
"""Rows that are shorter than this share of the longest say nothing: float32 loses the digits of
what is below 1e-38, and then the number."""


@dataclass(frozen=True, eq=False, repr=False)
class LayerGradient:
    """The gradient of one linear layer, in float64 on the host; decomposed once, when first asked.

    Raises:
        ValueError: shapes that do not belong together, numbers that are not finite, or fewer than
            1 record.
        TypeError: gradients that are not arrays of numbers.
    """

    weight_gradient: Array  # (O, F), ∂L/∂W
    # (O,), ∂L/∂b; None if the layer has no bias, or it is not used.
    bias_gradient: Array | None = None
    # N, how many inputs (images, or tokens) it adds up; None if that is not known.
    records: int | None = None
    # Of the floating point that the client computed in, relative to an entry, if noise of that size
    # is to be taken for rounding; else 0.
    roundoff: float = 0.0

    def __post_init__(self) -> None:
        weight = _float64(self.weight_gradient)
        bias = None if self.bias_gradient is None else _float64(self.bias_gradient)
        if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
            raise ValueError(
                f"gradients of shapes {weight.shape} and {None if bias is None else bias.shape} "
                "were given; a linear layer's are (O, F) for the weight and (O,) for the bias"
            )
        if self.records is not None:
            whole(self.records, 1, "a gradient was given for a batch of {}; give 1 or more")
        if not (np.isfinite(weight).all() and (bias is None or np.isfinite(bias).all())):
            raise ValueError("the gradients hold NaN or infinity; give finite numbers")
        object.__setattr__(self, "weight_gradient", weight)
        object.__setattr__(self, "bias_gradient", bias)

    def __repr__(self) -> str:
        outputs, inputs = self.weight_gradient.shape
        bias = "no bias" if self.bias_gradient is None else "bias"
        return f"{type(self).__name__}({outputs} x {inputs}, {bias}, records={self.records})"

    @staticmethod
    def last(
        model: Model,
        params: Mapping[str, Array],
        gradients: Mapping[str, Array],
        batch: int = 1,
        roundoff: float = 0.0,
    ) -> LastLayerGradient:
        """Return the gradient of a network's last layer.

        Args:
            model: the network; its last layer is linear, (K, F), with or without a bias.
            params: its weights, by name.
            gradients: the gradient of the mean cross-entropy over the batch, by name.
            batch: N, how many images it was computed from.
            roundoff: of the floating point that the client computed in.

        Raises:
            ValueError: params or gradients do not fit the model; its last layer is not linear; a
                batch below 1.
        """
        require_fit(model, params, "weights")
        require_fit(model, gradients, "gradients")
        name, bias = last_layer_names(model)
        return LastLayerGradient(
            gradients[name],
            None if bias is None else gradients[bias],
            batch,
            roundoff,
            model=model,
            params=params,
            weight=_float64(params[name]),
            bias=None if bias is None else _float64(params[bias]),
        )

    @staticmethod
    def stacked(gradients: Sequence[Array], records: int) -> LayerGradient:
        """Return several layers that have the same inputs as one: their rows below each other.

        Each is divided by its own length, since its rounding is in proportion to that; its noise
        is then in the same units.

        Args:
            gradients: (O, F) each, of the layers' weights.
            records: how many inputs there are.

        Raises:
            ValueError: all gradients are zero.
        """
        arrays = [_float64(gradient) for gradient in gradients]
        largest = max(float(np.abs(array).max(initial=0.0)) for array in arrays) or 1.0
        arrays = [array / largest for array in arrays]  # so that no square underflows
        lengths = [float(np.linalg.norm(array)) for array in arrays]
        if max(lengths) == 0.0:
            raise ValueError(
                "the first layer's gradient is zero, so it has no row space; a defence may have "
                "pruned it away"
            )
        scaled = [array / n for array, n in zip(arrays, lengths, strict=True) if n > 0]
        roundoff = float(np.finfo(gradients[0].dtype).eps)
        return LayerGradient(np.concatenate(scaled), None, records, roundoff)

    @cached_property
    def matrix(self) -> Array:
        """G: the weight's gradient, with the bias's as its last column if there is one."""
        if self.bias_gradient is None:
            return self.weight_gradient
        return np.column_stack([self.weight_gradient, self.bias_gradient])

    @cached_property
    def decomposition(self) -> tuple[Array, Array, Array]:
        """The singular value decomposition of G: its columns U, values and rows V, descending."""
        u, sizes, v = np.linalg.svd(self.matrix, full_matrices=False)
        return u, sizes, v

    @property
    def sizes(self) -> Array:
        """The singular values of G, descending."""
        return self.decomposition[1]

    @cached_property
    def noise(self) -> float | None:
        """The variance of the error of each entry: rounding, and noise that a defence added.

        It is measured where there would be zeros without it. N inputs give G the rank N, so its
        further singular values are noise alone. Inputs may be equal, so singular values before the
        N-th that do not stand out from that noise are counted as noise as well.

        None where it cannot be measured: N is not known, or as large as a dimension of G.
        """
        rows, columns = self.matrix.shape
        if self.records is None or self.records >= min(rows, columns):
            return None
        kept, before = self.records, columns
        while kept < before:
            noise, _ = tail(self.sizes, kept, rows, columns)
            kept, before = self.standing_out(noise, kept), kept
        return noise

    @property
    def rounding(self) -> float:
        """The variance of each entry's error however small it is: the decomposition's rounding, and
        that of numbers too small for float32.
        """
        deviation = ROUNDING * float(np.finfo(float).eps) * float(self.sizes[0])
        small = SPACING if self.roundoff >= np.finfo(np.float32).eps else 0.0
        return deviation**2 / self.matrix.size + small**2 / 12.0

    @property
    def variance(self) -> float:
        """The variance that each entry errs by: the noise, where it is measured, or rounding."""
        return max(self.noise or 0.0, self.rounding)

    @property
    def is_only_rounded(self) -> bool:
        """Whether the gradient is as exact as its dtype, without a defence's noise."""
        typical = float(np.sqrt(np.mean(np.square(self.matrix))))
        return float(np.sqrt(self.noise or 0.0)) <= ROUNDING * self.roundoff * typical

    @cached_property
    def balanced(self) -> LayerGradient:
        """The same gradient with all rows of one length, where rounding is all its noise.

        The inputs span the same row space, and rounding, which is in proportion to each entry, no
        longer hides what short rows alone show: where probabilities are near 0 and 1, a row may be
        a thousandth of another.
        """
        if not self.is_only_rounded:
            return self
        lengths = np.linalg.norm(self.matrix, axis=1, keepdims=True)
        G = self.matrix / np.where(lengths > LEAST_ROW * lengths.max(), lengths, lengths.max())
        return LayerGradient(G, None, self.records, self.roundoff)

    def standing_out(self, noise: float, most: int | None = None) -> int:
        """Return how many singular values stand out from noise of a variance, of the `most` first.

        Rounding in the decomposition is the least that is taken for noise.
        """
        rows, columns = self.matrix.shape
        deviation = np.sqrt(max(noise, self.rounding))
        typical = np.linalg.norm(self.sizes) / np.sqrt(self.matrix.size)
        uneven = deviation <= ROUNDING * self.roundoff * typical
        edge = (UNEVEN_EDGE if uneven else EDGE) * deviation * (np.sqrt(rows) + np.sqrt(columns))
        rounded = rounded_sizes(self.matrix, self.decomposition, self.roundoff)
        stands_out = self.sizes > np.maximum(edge, UNEVEN_EDGE * rounded)
        return int(np.cumprod(stands_out[:most]).sum())

    @cached_property
    def rank(self) -> int:
        """How many singular values stand out from noise and rounding: N, for N different inputs."""
        return self.standing_out(self.noise or 0.0, self.records)

    @property
    def shown(self) -> int:
        """How many inputs the gradient shows at least, whatever `records` says.

        Singular values that stand out from rounding in the dtype that it was written in; where a
        defence added noise, that is all of them, and it shows none.
        """
        typical = float(np.linalg.norm(self.sizes)) / np.sqrt(self.matrix.size)
        count = self.standing_out((MOST_ROUNDED * self.roundoff * typical) ** 2)
        return 0 if count >= min(self.matrix.shape) else count

    @cached_property
    def row_space(self) -> Subspace:
        """What the inputs span: of (xᵢ, 1) if there is a bias, else of xᵢ.

        Raises:
            ValueError: as many records as an input has numbers, or more, or an unknown number.
        """
        directions = self.decomposition[2]
        width = directions.shape[1]
        if self.records is None or self.records >= width:
            raise ValueError(
                f"{self.records} inputs were said to make a layer's gradient, and they span all "
                f"{width} numbers of a vector unless there are fewer; give a smaller batch, or "
                "shorter sentences, or a wider layer"
            )
        noise = self.variance
        return Subspace(directions[: self.rank], self.sizes[: self.rank], noise)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LastLayerGradient(LayerGradient):
    """The gradient of a network's last layer, whose inputs are called features.

    Of the softmax cross-entropy δᵢ = (pᵢ − yᵢ) / N, with the probabilities pᵢ that the network
    gives image i, and its label yᵢ as a row of zeros with a one.
    """

    model: Model  # the network
    params: Mapping[str, Array]  # its weights, by name
    weight: Array  # (K, F), the last layer's own
    bias: Array | None  # (K,), or None

    @property
    def batch(self) -> int:
        """N, how many images the client had: `records`, which a last layer's gradient knows."""
        assert self.records is not None, "LayerGradient.last sets it"
        return self.records

    @cached_property
    def noise(self) -> float | None:
        """The variance of the error of each entry, measured by the sum of the rows.

        The rows add up to zero, since the softmax cross-entropy does not change if all logits rise
        together; what they do add up to is the sum of K entries' errors. None for a single class.
        Noise that only other layers have does not show here.
        """
        if self.model.classes < 2:
            return None
        return float(np.mean(self.matrix.sum(axis=0) ** 2)) / self.model.classes

    @cached_property
    def probe_logits(self) -> Array:
        """The network's logits for smooth noise in place of the client's images: (M, K)."""
        return probe_logits(self.model, self.params)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TableGradient(LayerGradient):
    """The gradient of a table of vectors, (R, d), whose rows are looked up.

    That is a linear layer of inputs that are zeros with a one. A row that is not looked up has a
    gradient of zero.
    """

    looked_up: Array  # (R,), true for each row that may have been looked up

    @property
    def unused(self) -> Array:
        """The entries, (K,), that are zero but for what a defence has added."""
        return self.matrix[~self.looked_up].ravel()

    @cached_property
    def noise(self) -> float | None:
        """The variance of what a defence has added to each entry; exactly 0 if nothing.

        It is the mean square of the unused entries, which rounding leaves at zero. None if there
        are none.
        """
        return float(np.mean(self.unused**2)) if self.unused.size else None


def _float64(array: Array) -> Array:
    return np.array(to_numpy(as_array(array)), dtype=float)
