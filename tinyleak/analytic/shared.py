"""A shared gradient with what is known of its rounding: what every test of a premise looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from tinyleak.analytic.last_layer import ends_linear, layer_names
from tinyleak.analytic.number_format import COMPUTED, number_format, rounding_deviation
from tinyleak.analytic.spectrum import Spectrum, read_spectrum
from tinyleak.backend import Array
from tinyleak.nn.model import Model
from tinyleak.nn.split import given_one_row

OPERATIONS = 8.0
"""How many times a loss and a sum over its classes round: an exponential, a quotient, a difference,
and the additions."""

ALLOWED = 6.0
"""How many standard deviations an error may be: normal noise reaches that once in 10⁹ entries."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A fully connected layer.

    Attributes:
        gradient: (O, F), that of the weight.
        bias_gradient: (O,), or None where it has no bias or none was sent.
        weight: (O, F).
        bias: (O,), or None where it has none.
        deviation: (O, F), the standard deviation of the gradient's rounding.
        bias_deviation: (O,).
    """

    gradient: Array
    bias_gradient: Array | None
    weight: Array
    bias: Array | None
    deviation: Array
    bias_deviation: Array | None

    @property
    def matrix(self) -> Array:
        """G: the weight's gradient, with the bias's as its last column if there is one."""
        return _beside(self.gradient, self.bias_gradient)

    @property
    def own(self) -> Array:
        """Θ: the weight, with the bias as its last column if G has that."""
        return _beside(self.weight, None if self.bias_gradient is None else self.bias)

    @property
    def deviations(self) -> Array:
        """The standard deviation of the rounding of each entry of G."""
        return _beside(self.deviation, self.bias_deviation)

    def of_columns(self, some: Array) -> Layer:
        """Return the layer of some columns of G, (F + 1,) booleans."""
        inputs, biased = some[: self.gradient.shape[1]], bool(some[-1])
        return Layer(
            self.gradient[:, inputs],
            self.bias_gradient if biased else None,
            self.weight[:, inputs],
            self.bias,
            self.deviation[:, inputs],
            self.bias_deviation if biased else None,
        )


@dataclass(frozen=True, eq=False)
class Shared:
    """What a client shared.

    Attributes:
        model: its network.
        params: the weights, by name.
        gradients: what it shared, by name; parameters may be missing.
        deviation: the standard deviation of the rounding of each entry, by name.
        batch: how many images it is said to be of.
        written: the coarsest format whose numbers the gradient's are.
        computed: half of the last place in which the client computed, relative to a number.
    """

    model: Model
    params: Mapping[str, Array]
    gradients: Mapping[str, Array]
    deviation: Mapping[str, Array]
    batch: int
    written: str
    computed: float

    @staticmethod
    def of(
        model: Model,
        params: Mapping[str, Array],
        gradients: Mapping[str, Array],
        batch: int,
        dtype: str,
        rounding: Mapping[str, Array] | None,
    ) -> Shared:
        """Return what was shared; its rounding, where it is not given, is its numbers' own."""
        weights = {name: np.asarray(params[name], dtype=float) for name in model.shapes}
        own = {
            name: np.asarray(gradients[name], dtype=float)
            for name in model.shapes
            if name in gradients
        }
        written = dtype if rounding is not None else number_format(own, dtype)
        deviation = {
            name: rounding_deviation(array, written)
            if rounding is None
            else np.sqrt(np.asarray(rounding[name], dtype=float))
            for name, array in own.items()
        }
        double = written == dtype == "float64"
        computed = COMPUTED["float64" if double else "float32"]
        return Shared(model, weights, own, deviation, batch, written, computed)

    def over(self, steps: float) -> Shared:
        """Return the mean of several steps in place of their sum."""
        gradients = {name: array / steps for name, array in self.gradients.items()}
        deviation = {name: array / steps for name, array in self.deviation.items()}
        return replace(self, gradients=gradients, deviation=deviation)

    def without_decay(self, rate: float, error: float, *, biases: bool) -> Shared:
        """Return what was shared with λθ taken off, and the error of that as rounding."""
        gradients, deviation = dict(self.gradients), dict(self.deviation)
        for name, weights in self.params.items():
            if name in gradients and (biases or weights.ndim > 1):
                gradients[name] = gradients[name] - rate * weights
                deviation[name] = np.hypot(deviation[name], error * weights)
        return replace(self, gradients=gradients, deviation=deviation)

    @property
    def layers(self) -> list[Layer]:
        """The fully connected layers whose gradient was shared, in order.

        Each is given one row for each image, so that as many images are the rank of its gradient.
        """
        return list(self._by_weight.values())

    @property
    def of_pixels(self) -> Layer | None:
        """The first of these, if it is given the pixels themselves."""
        image = np.random.default_rng(0).random(self.model.image_shape)
        given = given_one_row(self.model, self.params, image)
        first = next(iter(self._by_weight))
        return self._by_weight[first] if np.array_equal(given[first], image.ravel()) else None

    @property
    def last(self) -> Layer | None:
        """The last layer, if it is fully connected and its gradient was shared."""
        weight = layer_names(self.model)[-1][0]
        return self._by_weight.get(weight) if ends_linear(self.model) else None

    def with_layers(self, layers: Sequence[Layer]) -> Shared:
        """Return the same with other `layers` in place of these, in order."""
        again = copy(self)
        vars(again)["_by_weight"] = dict(zip(self._by_weight, layers, strict=True))
        return again

    def layer(self, weight: str, bias: str | None) -> Layer | None:
        """A fully connected layer of these parameters, as in `layers`; None if it is not there."""
        rows = given_one_row(self.model, self.params)
        fits = weight in rows and weight in self.gradients
        return self._layer(weight, bias) if fits else None

    @cached_property
    def _by_weight(self) -> dict[str, Layer]:
        given = given_one_row(self.model, self.params)
        return {
            weight: self._layer(weight, bias)
            for weight, bias in layer_names(self.model)
            if weight in given and weight in self.gradients
        }

    def _layer(self, weight: str, bias: str | None) -> Layer:
        return Layer(
            self.gradients[weight],
            None if bias is None else self.gradients.get(bias),
            self.params[weight],
            None if bias is None else self.params[bias],
            self.deviation[weight],
            None if bias is None else self.deviation.get(bias),
        )

    def rounding_of(self, matrix: Array, deviations: Array) -> Array:
        """Return the standard deviation that rounding gives each entry of a layer's gradient.

        Beside that of the numbers as they are written it is that of their computation, a sum of
        products, in proportion to the sum's own size, and to that of the typical one where it is
        smaller: terms may cancel.
        """
        size = np.hypot(matrix, np.sqrt(np.mean(np.square(matrix))))
        return np.asarray(np.hypot(deviations, self.computed * size))

    def spectrum(self, matrix: Array, deviations: Array, *, zero_sum: bool = False) -> Spectrum:
        """Return what a layer's gradient is made of, beside the rounding of its entries."""
        rounding = self.rounding_of(matrix, deviations)
        return read_spectrum(matrix, rounding, self.batch, zero_sum=zero_sum)

    def zero_sum_error(self, matrix: Array, deviations: Array) -> float:
        """Return by how much the sum of a matrix's rows may differ from zero, as a length.

        δ = p − y errs by rounding in proportion to p and y, whose sizes are 1 over the batch, even
        where the difference is small; taken for known down to a thousandth of those. The errors of
        all images add up as their root does.
        """
        columns = np.abs(matrix).max(axis=0)
        largest = float(columns[-1]) or 1.0
        near_one = min(1.0 / np.sqrt(self.batch), 1e3 * largest)
        growth = max(1.0, near_one / largest)
        by_loss = OPERATIONS * self.computed * growth * float(np.linalg.norm(columns))
        return ALLOWED * float(np.linalg.norm(deviations)) + by_loss


def _beside(matrix: Array, column: Array | None) -> Array:
    return matrix if column is None else np.column_stack([matrix, column])
