"""What is taken for granted of a client's gradient, tested by its structure before any attack.

An attack assumes the cross-entropy, hard labels, one activation, pixels in [0, 1], no weight decay,
no noise, the right weights and the right number of images. The last layer's gradient, and that of
the layer below, contradict most of these if they are wrong, and often say what is right instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tinyleak.analytic.activation import (
    ActivationReading,
    activation_of_batch,
    activation_of_one,
)
from tinyleak.analytic.cause import Cause
from tinyleak.analytic.changes import clipping, pruning, written_coarsely
from tinyleak.analytic.loss_kind import loss_of_batch, loss_of_one
from tinyleak.analytic.normalisation import (
    Normalisation,
    outside_unit_range,
    same_in_all,
    usual_normalisation,
)
from tinyleak.analytic.one_image import fits_of, look_at_one_image
from tinyleak.analytic.probes import logits_of, smooth_noise
from tinyleak.analytic.shared import ALLOWED, Layer, Shared
from tinyleak.analytic.spectrum import Spectrum, read_spectrum
from tinyleak.analytic.update import adaptive_step
from tinyleak.analytic.weight_decay import Decay, read_weight_decay, refined
from tinyleak.backend import Array
from tinyleak.nn.model import Model


@dataclass(frozen=True, eq=False)
class Premises:
    """What a gradient's structure says of how it came about.

    Attributes:
        decay: λ, the weight decay within the gradient, to be taken off: g − λθ; 0 if none.
        decayed: the names of the parameters that have it.
        loss: "cross-entropy", "bce" or "mse"; None where none of them fits.
        loss_source: "said", "read off" or "assumed".
        factor: how many times as large as that loss's mean it is; None where that is not told.
        factor_exact: whether that is known exactly.
        factor_error: how far off it may be, as a share of it.
        targets: (1, K), those of one image, where they are read off.
        activations: those that the gradient allows, likeliest first; a single one is told.
        normalisation: mean and standard deviation of the pixels, by channel, where they are told.
        noise: the variance of each entry's error, rounding included; None where it cannot be
            measured.
        rank: how many images the last layer shows; None where it cannot.
        pruned: the share of entries that pruning made zero.
        written: the coarsest format whose numbers these are: "float64", "float32", "bfloat16",
            "float16" or "int8".
        causes: what contradicts what is taken for granted, likeliest first.
    """

    decay: float = 0.0
    decayed: tuple[str, ...] = ()
    loss: str | None = "cross-entropy"
    loss_source: str = "assumed"
    factor: float | None = None
    factor_exact: bool = False
    factor_error: float = 0.0
    targets: Array | None = None
    activations: tuple[str, ...] = ()
    normalisation: Normalisation | None = None
    noise: float | None = None
    rank: int | None = None
    pruned: float = 0.0
    written: str = "float64"
    causes: tuple[Cause, ...] = ()

    def without_decay(
        self, params: Mapping[str, Array], gradients: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Return the gradient with the weight decay taken off, by name."""
        return {
            name: gradient - self.decay * params[name] if name in self.decayed else gradient
            for name, gradient in gradients.items()
        }


GROWTH = 1.15
"""Steps of plain SGD on one image make its gradient shorter, so their mean is no larger than the
first; momentum of 0.9 makes two steps 1.45 times as large."""


def read_premises(
    model: Model,
    params: Mapping[str, Array],
    gradients: Mapping[str, Array],
    batch: int,
    *,
    loss: str | None = None,
    steps: int = 1,
    update: bool = False,
    dtype: str = "float64",
    rounding: Mapping[str, Array] | None = None,
) -> Premises:
    """Read what a shared gradient's structure tells about how it came about.

    Args:
        model: the client's network; its activation is not looked at.
        params: its weights, by name.
        gradients: what it shared, by name, not multiplied with anything: the gradient, or the
            change of the weights over the learning rate. Parameters may be missing.
        batch: N, how many images it was said to be of.
        loss: the loss's name, if it was said.
        steps: how many local steps the change is the sum of.
        update: whether it is a change of weights, so that optimisers are looked for.
        dtype: the coarsest in which it was written, as far as that is known.
        rounding: the variance, by name, that rounding left on it; by default what its numbers say.
    """
    shared = Shared.of(model, params, gradients, batch, dtype, rounding)
    adaptive = adaptive_step(shared.params, shared.gradients)
    if adaptive is not None:
        return Premises(written=shared.written, causes=(adaptive,))
    pruned, cause = pruning(shared.gradients, shared.deviation, shared.written)
    causes = [cause, clipping(shared.gradients), written_coarsely(shared.written, shared.gradients)]
    found = Premises(pruned=pruned, written=shared.written, loss=loss or "cross-entropy")
    mean = shared.over(steps)
    if mean.last is not None and not pruned:
        found, more = _look_at_layers(mean, mean.last, found, loss, steps)
        causes += more
    return replace(found, causes=tuple(cause for cause in causes if cause is not None))


def _look_at_layers(
    shared: Shared, last: Layer, found: Premises, said: str | None, steps: int
) -> tuple[Premises, list[Cause]]:
    causes: list[Cause] = []
    decay = read_weight_decay(shared, last)
    if decay.rate:
        causes += [decay.cause] if decay.cause else []
        decay = refined(shared, decay)
        shared = shared.without_decay(decay.rate, decay.error, biases=decay.biases)
        assert shared.last is not None, "it was there before"
        last = shared.last
        names = [k for k in shared.gradients if decay.biases or shared.params[k].ndim > 1]
        found = replace(found, decay=decay.rate, decayed=tuple(names))
    spectra = [
        _spectrum(shared, layer, decay.zero_sum and layer is last) for layer in shared.layers
    ]
    noise, rank, clean = _together(spectra)
    found = replace(found, noise=noise, rank=rank)
    if steps > 1:
        # Each step has weights of its own, so that only sums over classes are what they were.
        return found, [*causes, *_several_steps(shared, last, decay, steps)]
    if not clean and noise is not None:
        causes.append(_noise_cause(shared, noise))
    single = shared.batch == 1 if not clean else rank == 1
    images = 1 if single and (rank or 1) == 1 else max(shared.batch, rank or 1, 2)
    causes += _batch_cause(shared, rank, clean)
    extra = 0.0 if clean else noise or 0.0
    normalisation, cause = _normalisation(shared, images, extra)
    causes += [cause] if cause else []
    found = replace(found, normalisation=normalisation)
    by_bias = last.bias_gradient
    if by_bias is None or not by_bias.any():
        return found, causes
    if images == 1:
        image = look_at_one_image(last, extra, shared.computed)
        activation = activation_of_one(shared, image, extra)
        reading = loss_of_one(image, decay.zero_sum, said)
    else:
        activation = activation_of_batch(shared, last, images, noise or 0.0)
        reading = loss_of_batch(
            by_bias,
            _probe_logits(shared, activation),
            images,
            noise=noise or 0.0,
            zero_sum=decay.zero_sum if clean or decay.zero_sum else None,
            said=said,
        )
    causes += reading.causes
    if activation.dropped:
        text = f"{activation.dropped:.0%} of the features were dropped, the others scaled up"
        causes.append(Cause("dropout", text, sure=True))
    return replace(
        found,
        loss=reading.loss,
        loss_source=reading.source,
        factor=reading.factor,
        factor_exact=reading.exact,
        factor_error=reading.error,
        targets=reading.targets,
        activations=activation.names,
    ), causes


def _several_steps(shared: Shared, last: Layer, decay: Decay, steps: int) -> list[Cause]:
    """Return what the mean over several steps still tells."""
    causes = []
    if not decay.zero_sum and not decay.rate:
        text = "the last layer's rows do not add up to zero, as those of cross-entropy's steps do"
        causes.append(Cause("loss", text, "--loss bce"))
    if shared.batch == 1 and last.bias_gradient is not None and last.bias_gradient.any():
        image = look_at_one_image(last, 0.0, shared.computed)
        factor = min(fits_of(image), key=lambda fit: (fit.kind != "hard", fit.misfit)).factor
        if factor > GROWTH:
            text = f"the change is {factor:.2f} times what {steps} steps of plain SGD make of it"
            causes.append(Cause("momentum", text))
    return causes


def _normalisation(
    shared: Shared, images: int, noise: float
) -> tuple[Normalisation | None, Cause | None]:
    """Return how pixels were normalised, if the first layer is fully connected and shows them."""
    shape = shared.model.image_shape
    first = shared.layers[0]
    if first.weight.shape[1] != int(np.prod(shape)) or len(shared.layers) < 2:
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
        error = ALLOWED * shared.computed * (1.0 + np.abs(pixels)) * 4.0
    seen = np.isfinite(pixels)
    if not seen.any() or not outside_unit_range(pixels[seen], error[seen]):
        return None, None
    usual = usual_normalisation(pixels.reshape(shape), error.reshape(shape))
    low, high = float(pixels[seen].min()), float(pixels[seen].max())
    text = f"the first layer shows pixels from {low:.4g} to {high:.4g}, and not in [0, 1]"
    advice = ""
    if usual is not None:
        advice = "--normalize " + ",".join(f"{number:.6g}" for part in usual for number in part)
    return usual, Cause("normalisation", text, advice, sure=True)


def _spectrum(shared: Shared, layer: Layer, zero_sum: bool) -> Spectrum:
    rounding = shared.rounding_of(layer.matrix, layer.deviations)
    return read_spectrum(layer.matrix, rounding, shared.batch, zero_sum=zero_sum)


def _together(spectra: list[Spectrum]) -> tuple[float | None, int | None, bool]:
    """Return the noise of all layers, the largest rank, and whether rounding explains all."""
    measured = [s for s in spectra if s.noise is not None]
    free = sum(s.free for s in measured)
    noise = sum((s.noise or 0.0) * s.free for s in measured) / free if free else None
    ranks = [s.rank for s in spectra if s.rank is not None]
    return noise, max(ranks, default=None), all(s.clean for s in spectra)


def _noise_cause(shared: Shared, noise: float) -> Cause:
    size = float(np.mean(np.concatenate([g.ravel() ** 2 for g in shared.gradients.values()])))
    text = (
        f"noise of variance {noise:.2g} on each entry, whose mean square is {size:.2g}, shows "
        "beside the rank of the layers' gradients"
    )
    return Cause("noise", text, f"--defense gaussian:{noise:.2g} --aware", sure=True)


def _batch_cause(shared: Shared, rank: int | None, clean: bool) -> list[Cause]:
    """Return a cause if the rank is not that of the batch.

    More is a proof. Less may also be several images of one label, which a network that is not
    trained hardly tells apart; unless there is only one.
    """
    more = rank is not None and rank > shared.batch
    if rank is None or not (more or (clean and rank == 1 < shared.batch)):
        return []
    text = f"the layers' gradients have the rank of {rank} images, and {shared.batch} were said"
    return [Cause("batch size", text, f"--batch {rank}", sure=clean and rank > shared.batch)]


def _probe_logits(shared: Shared, activation: ActivationReading) -> Array:
    """Return the logits of probes, of the network with the likeliest activation."""
    model = shared.model
    if activation.names and "activation" in getattr(model, "__dataclass_fields__", {}):
        model = replace(model, activation=activation.names[0])  # type: ignore[type-var]
    return logits_of(model, shared.params, smooth_noise(model.image_shape))
