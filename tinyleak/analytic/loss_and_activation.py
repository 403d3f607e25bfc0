"""The loss and the activation of a client, read off the gradients of its last layers."""

from dataclasses import replace

from tinyleak.analytic.activation import ActivationReading, activation_of_batch, activation_of_one
from tinyleak.analytic.cause import Cause
from tinyleak.analytic.loss_kind import EXACTLY_USUAL, LossReading, loss_of_batch, loss_of_one
from tinyleak.analytic.noise import Noise
from tinyleak.analytic.one_image import OneImage, look_at_one_image
from tinyleak.analytic.probes import probe_logits
from tinyleak.analytic.shared import Layer, Shared
from tinyleak.analytic.without_bias import direction_of, image_of_length, look_without_bias
from tinyleak.backend import Array

Readings = tuple[LossReading | None, ActivationReading, list[Cause]]


def readings_of_one(
    shared: Shared, last: Layer, noise: Noise, said: str | None, known: tuple[str, ...]
) -> Readings:
    """Read the loss and the activation of one image."""
    variance = 0.0 if noise.clean else noise.variance or 0.0
    image: OneImage | None = None
    if last.bias is not None and last.bias_gradient is not None and last.bias_gradient.any():
        image = look_at_one_image(last, variance, shared.computed)
    told = ActivationReading(known, held=True)
    activation = told if known else activation_of_one(shared, image, variance)
    if image is None and activation.length is not None:
        image = image_of_length(last, activation.length, variance, shared.computed)
    elif last.bias_gradient is None:
        image = look_without_bias(last, variance, shared.computed)
        if image is not None and not known:
            activation = activation_of_one(shared, image, variance)
    if image is None:
        return None, activation, _unexplained(last, noise)
    right = True if activation.held else False if activation.refuted else None
    reading = loss_of_one(image, noise.zero_sum, right, said)
    if last.bias_gradient is None and activation.length is None:
        reading = _with_usual_factor(reading)
    if shared.batch > 1:
        reading = _beside_others(reading, shared.batch)
    causes = list(reading.causes)
    if activation.refuted and reading.factor is not None:
        text = "no activation of the library turns one layer's gradient into that of the next"
        causes.append(Cause("activation", text))
    if activation.dropped:
        text = f"{activation.dropped:.0%} of the features were dropped, the others scaled up"
        causes.append(Cause("dropout", text, sure=True))
    return reading, activation, causes


def _unexplained(last: Layer, noise: Noise) -> list[Cause]:
    """Return why no length of the features may explain a last layer whose bias sent nothing."""
    if last.bias_gradient is not None or not last.gradient.any():
        return []
    if direction_of(last, noise.variance or 0.0).is_hinge:
        text = "the last layer's δ is one number for every class but the label, as the hinge loss's"
        return [Cause("loss", text, sure=True)]
    text = "no features make the last layer's gradient by a usual loss and one label"
    return [Cause("loss", text), Cause("soft labels", text)] if noise.clean else []


def _with_usual_factor(reading: LossReading) -> LossReading:
    """Return the reading with the factor 1 that it was found with, h being searched for."""
    causes = tuple(cause for cause in reading.causes if cause.name != "factor")
    return replace(reading, factor=reading.factor and 1.0, causes=causes)


def _beside_others(reading: LossReading, batch: int) -> LossReading:
    """Return the reading of a batch of which one image shows, as where the others are certain.

    Then the mean's factor is seen as 1 / N and the others' labels are not seen; no factor is sure.
    """
    seen = (reading.factor or 0.0) * batch
    if abs(seen - 1.0) <= EXACTLY_USUAL + reading.factor_error:
        return replace(_with_usual_factor(reading), targets=None)
    causes = [replace(c, sure=c.sure and c.name != "factor") for c in reading.causes]
    return replace(reading, causes=tuple(causes))


def readings_of_several(
    shared: Shared, last: Layer, noise: Noise, images: int, said: str | None
) -> Readings:
    """Read the loss and the activation of a batch, as far as means and probes tell."""
    by_bias = last.bias_gradient
    if by_bias is None or not by_bias.any():
        return None, ActivationReading(), []
    variance = 0.0 if noise.clean else noise.variance or 0.0
    activation = activation_of_batch(shared, last, images, variance)
    logits = _probe_logits(shared, activation)
    reading = loss_of_batch(by_bias, logits, images, noise, said)
    causes = list(reading.causes)
    if activation.maybe_dropped:
        text = f"{activation.maybe_dropped:.0%} of the features are zero in every image"
        causes.append(Cause("dropout", text))
    return reading, activation, causes


def _probe_logits(shared: Shared, activation: ActivationReading) -> Array:
    """Return the logits of probes, of the network with the likeliest activation."""
    model = shared.model
    if activation.names and "activation" in getattr(model, "__dataclass_fields__", {}):
        (likeliest, *_), own = activation.names, vars(model)["activation"]
        model = model if likeliest == own else replace(model, activation=likeliest)  # type: ignore[type-var]
    return probe_logits(model, shared.params)
