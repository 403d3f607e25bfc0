"""What is taken for granted of a client's gradient, tested by its structure before any attack.

An attack assumes the cross-entropy, hard labels, one activation, pixels in [0, 1], no weight decay,
no noise, the right weights and the right number of images. The last layer's gradient, and that of
the layer below, contradict most of these if they are wrong, and often say what is right instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tinyleak.analytic.batch_norm import batch_norm_in_training
from tinyleak.analytic.cause import Cause
from tinyleak.analytic.changes import clipping, pruning, written_coarsely
from tinyleak.analytic.few_zeros import few_pruned
from tinyleak.analytic.last_layer import layer_names
from tinyleak.analytic.loss_and_activation import readings_of_one, readings_of_several
from tinyleak.analytic.loss_kind import LossReading
from tinyleak.analytic.noise import measure_noise
from tinyleak.analytic.normalisation import Normalisation, read_normalisation
from tinyleak.analytic.number_format import COMPUTED
from tinyleak.analytic.shared import Layer, Shared
from tinyleak.analytic.update import adaptive_step, adaptive_steps, several_steps
from tinyleak.analytic.weight_decay import read_weight_decay, refined
from tinyleak.backend import Array
from tinyleak.nn.model import Model

MILD = ("rounding", "factor")
"""Causes that an attack takes into account by itself: named after others that are as sure."""

USUAL_SIZES = (1e-30, 1e30)
"""Between these the squares of numbers can be computed."""

STALE = (
    "what lies on a change of weights may be training in between: the weights before are then not "
    "those that the client started from"
)


@dataclass(frozen=True, eq=False)
class Premises(LossReading):
    """What a gradient's structure says of how it came about.

    Attributes:
        decay: λ, the weight decay within the gradient, to be taken off: g − λθ; 0 if none.
        decayed: the names of the parameters that have it.
        loss: "cross-entropy", "bce" or "mse"; None where none of them fits.
        loss_source: "said", "read off" or "assumed".
        factor: how many times as large as that loss's mean it is; None where that is not told.
        factor_exact: whether that is known exactly.
        factor_error: how far off it may be, as a share of it.
        targets: (1, K), those of one image, where they are read off; of a loss that is None those
            with which a squared error has the same gradient.
        activations: those that the gradient allows, likeliest first; a single one is told.
        normalisation: mean and standard deviation of the pixels, by channel, where they are told.
        noise: the variance of each entry's error, rounding included; None where it cannot be
            measured, or is no number of a usual size.
        rank: how many images the last layer shows; None where it cannot.
        pruned: the share of entries that pruning made zero.
        written: the coarsest format whose numbers these are: "float64", "float32", "bfloat16",
            "float16" or "int8".
        causes: what contradicts what is taken for granted, likeliest first.
    """

    decay: float = 0.0
    decayed: tuple[str, ...] = ()
    activations: tuple[str, ...] = ()
    normalisation: Normalisation | None = None
    noise: float | None = None
    rank: int | None = None
    pruned: float = 0.0
    written: str = "float64"

    def without_decay(
        self, params: Mapping[str, Array], gradients: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Return the gradient with the weight decay taken off, by name."""
        return {
            name: gradient - self.decay * params[name] if name in self.decayed else gradient
            for name, gradient in gradients.items()
        }


def read_premises(
    model: Model,
    params: Mapping[str, Array],
    gradients: Mapping[str, Array],
    batch: int,
    *,
    loss: str | None = None,
    steps: float = 1,
    update: bool = False,
    dtype: str = "float64",
    rounding: Mapping[str, Array] | None = None,
    activation: str | None = None,
) -> Premises:
    """Read what a shared gradient's structure tells about how it came about.

    Args:
        model: the client's network; its activation is not looked at.
        params: its weights, by name.
        gradients: what it shared, by name, not multiplied with anything: the gradient, or the
            change of the weights over the learning rate. Parameters may be missing.
        batch: N, how many images it was said to be of.
        loss: the loss's name, if it was said.
        steps: how many steps' worth the change is, if the client took several.
        update: whether it is a change of weights, so that optimisers are looked for.
        dtype: the coarsest in which it was written, as far as that is known.
        rounding: the variance, by name, that rounding left on it; by default what its numbers say.
        activation: the network's, if it is beyond doubt: then it is not read.
    """
    shared = Shared.of(model, params, gradients, batch, dtype, rounding)
    largest = max((float(np.abs(g).max(initial=0.0)) for g in shared.gradients.values()), default=0)
    plain = Premises(loss=loss or "cross-entropy", written=shared.written)
    plain = replace(plain, loss_source="said" if loss else "assumed")
    plain = replace(plain, activations=(activation,) if activation else ())
    if largest == 0.0:
        return plain
    if not USUAL_SIZES[0] < largest < USUAL_SIZES[1]:
        shared = shared.over(largest)
    if (cause := adaptive_step(shared.params, shared.gradients, update=update)) is not None:
        return replace(plain, causes=(cause,))
    pruned, cause = pruning(shared.gradients, shared.deviation, shared.written, layer_names(model))
    if not pruned and steps == 1:
        pruned, cause = few_pruned(shared)
    causes = [
        cause,
        adaptive_steps(shared.gradients) if update and steps > 1 else None,
        clipping(shared.gradients, update=update),
        written_coarsely(shared.written, shared.gradients),
    ]
    found, more = replace(plain, pruned=pruned), [batch_norm_in_training(shared)]
    lost = pruned or any(c and c.sure and not c.advice for c in causes)
    mean = shared.over(steps)
    if mean.last is not None and not lost:
        found, several = _look_at_layers(mean, mean.last, found, loss, steps, update=update)
        names = {cause.name for cause in several if cause}
        if update and not found.decay and ("noise" in names or ("loss" in names and steps > 1)):
            more.append(Cause("stale weights", STALE))
        more += several
    if not USUAL_SIZES[0] < largest < USUAL_SIZES[1]:
        factor = None if found.factor is None else found.factor * largest
        found = replace(found, factor=factor, decay=found.decay * largest, noise=None)
    told = [c for c in (*causes, *more) if c is not None]
    if any(c.name == "clipping" for c in told):
        told = [c for c in told if c.name != "factor"]
    told.sort(key=lambda c: (not c.sure, c.name in MILD))
    return replace(found, causes=tuple(told))


def _look_at_layers(
    shared: Shared,
    last: Layer,
    found: Premises,
    said: str | None,
    steps: float,
    *,
    update: bool,
) -> tuple[Premises, list[Cause | None]]:
    """Take off what is on the gradient beside its images, and then look at these."""
    decay = read_weight_decay(shared, last)
    if decay.rate:
        decay = refined(shared, decay)
        shared = shared.without_decay(decay.rate, decay.error, biases=decay.biases)
        last = shared.last or last
        names = [k for k in shared.gradients if decay.biases or shared.params[k].ndim > 1]
        found = replace(found, decay=decay.rate, decayed=tuple(names))
    noise = measure_noise(shared, last, zero_sum=decay.zero_sum)
    # The rounding of a few levels has a rank of its own.
    rank = noise.rank if shared.written in COMPUTED else None
    found = replace(found, noise=noise.variance, rank=rank)
    if steps > 1:
        # Each step has weights of its own, so that only sums over classes are what they were.
        found = replace(found, rank=None)
        return found, [decay.cause, *several_steps(shared, last, decay, steps, said)]
    rank, clean = noise.rank, bool(noise.clean)
    exact = clean and shared.written in COMPUTED
    alone = rank in (1, None) if shared.batch == 1 else exact and rank == 1
    images = 1 if alone else max(shared.batch, rank or 1, 2)
    causes = [decay.cause, noise.cause, _batch_cause(shared, rank, exact, update=update)]
    if exact or alone:
        variance = 0.0 if clean else noise.variance or 0.0
        normalisation, cause = read_normalisation(shared, images, variance)
        found = replace(found, normalisation=normalisation)
        causes.append(cause)
    reading, activation, more = (
        readings_of_one(shared, last, noise, said, found.activations)
        if alone
        else readings_of_several(shared, last, noise, images, said)
    )
    if reading is not None:
        found = replace(found, **{**vars(reading), "causes": ()})
    return replace(found, activations=activation.names), [*causes, *more]


def _batch_cause(shared: Shared, rank: int | None, clean: bool, *, update: bool) -> Cause | None:
    """Return the cause if the rank is not that of the batch.

    More is a proof, unless weights changed, in one step or in several. Less may also be several
    images of one label, which a network that is not trained hardly tells apart; unless there is
    only one.
    """
    more = rank is not None and rank > shared.batch
    if rank is None or not (more or (clean and rank == 1 < shared.batch)):
        return None
    least = "at least " if more else ""
    text = f"the layers' gradients have the rank of {least}{rank} images; {shared.batch} were said"
    if more and update:
        return Cause("batch size", f"{text}, but one image has as many in several steps")
    return Cause("batch size", text, f"--batch {rank}", sure=clean and more)
