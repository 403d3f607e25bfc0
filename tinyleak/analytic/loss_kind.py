"""Which loss a client had, by how much it was multiplied, and what its targets were.

For one image the last layer tells exactly (see `one_image`). For a batch the features are mixed, so
probes stand in for its images (see `scale`); with weights as they are before much training that
tells which losses make such a gradient with a mean or a sum over the batch.
"""

from dataclasses import dataclass, replace

import numpy as np

from tinyleak.analytic.cause import Cause
from tinyleak.analytic.noise import Noise
from tinyleak.analytic.one_image import OPERATIONS, Fit, OneImage, fits_of
from tinyleak.analytic.residuals import RESIDUALS, sigmoid, softmax
from tinyleak.analytic.scale import MOST_ERROR, SURE_COUNT, LossScale, factor_of_batch
from tinyleak.analytic.shared import ALLOWED
from tinyleak.backend import Array

EXACTLY_USUAL = 1e-5
"""A factor so near the mean's or the sum's is that: float32 rounds what it is made of to 1e-7, and
some of it are small differences of larger numbers."""

TELLING = 0.1
"""With an error of δ above this share of it nothing is read off: then losses are alike."""

UNSATURATED = 0.1
"""Of a certain prediction that is right, δ is small, and another loss than cross-entropy may make
it of the other sign; above this share of 1 a factor below 0 is believed, such as −lr."""

GUESSED = 0.5
"""The least error, as a share, of a factor for which each image was taken to have one class, where
it may have none or several."""

SOFT, LEAST_SOFT = ("smoothed", "mixed", "soft"), 1e-3
"""The kinds of labels that are soft, and by how much at least: nobody smooths by less."""

SURE = 1e-3  # by how much targets that are probabilities may seem to be beyond 0 and 1
FREE = 4  # numbers that a smoothed or mixed label leaves open: two labels, a share and a factor
SMALL = 1e-3  # the size of δ below which it is made 1: float32 knows z − y to 1e-7

ROUGHLY = 1000.0
"""A loss with its usual factor that explains δ to so many times the error, three digits fewer, is
not ruled out in favour of one with a factor that only fits."""


@dataclass(frozen=True, eq=False)
class LossReading:
    """What is known of a loss; the attributes are those of `Premises`."""

    loss: str | None = "cross-entropy"
    loss_source: str = "assumed"
    factor: float | None = None
    factor_exact: bool = False
    factor_error: float = 0.0
    targets: Array | None = None
    causes: tuple[Cause, ...] = ()


def loss_of_one(
    image: OneImage, zero_sum: bool | None, right: bool | None, said: str | None
) -> LossReading:
    """Return the loss of one image.

    Args:
        image: what its last layer shows.
        zero_sum: whether the last layer's rows add up to zero.
        right: whether the layer below shows that the weights are the client's; None if nothing.
        said: the loss's name, if it was said.
    """
    every = [fit for fit in fits_of(image) if said in (None, fit.loss)]
    error = float(np.linalg.norm(image.delta_error) / np.linalg.norm(image.delta))
    every = [fit for fit in every if fit.kind not in SOFT or fit.targets.max() < 1.0 - LEAST_SOFT]
    fits = [fit for fit in every if fit.holds]
    # δ of two entries, as a certain prediction leaves, is that of many losses and many labels.
    sizes = np.abs(image.delta)
    hidden = image.delta_error + OPERATIONS * image.computed * float(sizes.max())
    seen = int(np.sum(sizes > ALLOWED * hidden))
    if right is not True:
        # Nearly any weights have some soft label; of a kind with fewer numbers than δ shows, few.
        kinds = ("hard", "several", *(("smoothed", "mixed") if seen > FREE else ()))
        fits = [fit for fit in fits if fit.kind in kinds]
    if not fits:
        return _none_fits(image, zero_sum, right, said, [fit for fit in every if fit.holds])
    # A loss with its usual factor is likelier than another with a strange one, and a hard label
    # than a soft one, which nearly every δ has.
    best = min(fits, key=_strangeness)
    rivals = {fit.loss for fit in fits if _strangeness(fit)[:2] <= _strangeness(best)[:2]}
    if not is_usual(best) or best.kind == "soft":
        rivals |= {fit.loss for fit in every if is_usual(fit) and fit.misfit < ROUGHLY}
    told = (seen > 2 and best.factor > 0) or is_usual(best) or len(image.delta) == 2
    told = told or (seen > 2 and abs(best.factor) * UNSATURATED < float(sizes.max()))
    told = told and len(rivals) == 1 and max(error, best.error / ALLOWED) < TELLING
    if not told:
        # Where δ is hidden by p's error any label near p fits.
        any_fits = best.kind == "soft" and best.error >= ALLOWED
        loss = said or ("cross-entropy" if "cross-entropy" in rivals and not any_fits else None)
        if loss is None:
            return any_loss(image)
        return LossReading(loss, "said" if said else "assumed")
    factor = 1.0 if is_usual(best) else best.factor
    if best.loss not in RESIDUALS:
        cause = Cause("loss", f"the loss is a {best.loss}, times {factor:.4g}", sure=True)
        return replace(any_loss(image), loss_source="read off", causes=(cause,))
    return LossReading(
        best.loss,
        "said" if said else "read off",
        factor,
        True,
        best.error,
        best.targets[np.newaxis],
        _causes(best, factor, said),
    )


def _strangeness(fit: Fit) -> tuple[bool, bool, bool]:
    return fit.kind == "soft", not is_usual(fit), fit.loss not in RESIDUALS


def is_usual(fit: Fit) -> bool:
    """Return whether a fit is that of the mean, no multiple of it."""
    return abs(fit.factor - 1.0) <= EXACTLY_USUAL + fit.error * abs(fit.factor)


def _causes(fit: Fit, factor: float, said: str | None) -> tuple[Cause, ...]:
    causes = []
    if fit.loss != "cross-entropy" and said is None:
        text = f"the last layer's δ is that of {fit.loss} of its logits, and not cross-entropy's"
        causes.append(Cause("loss", text, f"--loss {fit.loss}", sure=True))
    if fit.kind in SOFT:
        top = np.sort(fit.targets)[::-1]
        text = f"the label is soft: {top[0]:.3g}, {top[1]:.3g}, …, {abs(top[-1]):.2g}"
        causes.append(Cause("soft labels", text, sure=True))
    if fit.kind == "several":
        text = f"{int(fit.targets.sum())} of the labels are 1"
        causes.append(Cause("several labels", text, sure=True))
    if factor != 1.0:
        text = (
            f"the loss or the learning rate is {factor:.6g} times as large as was taken for granted"
        )
        causes.append(Cause("factor", text, sure=True))
    return tuple(causes)


def _none_fits(
    image: OneImage, zero_sum: bool | None, right: bool | None, said: str | None, soft: list[Fit]
) -> LossReading:
    """Say what no hard label explains; `soft` are the fits that only a soft one has."""
    free = free_targets(image, "mse" if said is None else said)
    if said == "mse" or (said == "bce" and bool(((free > -SURE) & (free < 1.0 + SURE)).all())):
        return LossReading(said, "said", targets=free)
    if said is not None:
        text = f"no label makes the last layer's δ with {said}"
        return LossReading(said, "said", causes=(Cause("loss", text, sure=True),))
    if zero_sum is False:
        text = "the last layer's rows do not add up to zero, and no label explains them"
        advice = "--loss mse"
        causes = (Cause("loss", text, advice, sure=True),)
        return replace(any_loss(image), causes=causes)
    if right:
        text = "the weights are the client's, and no label explains its gradient by cross-entropy"
        causes = (Cause("loss", text, sure=True),)
        return replace(any_loss(image), causes=causes)
    targets = softmax(image.logits) - image.delta
    text = (
        f"the targets that cross-entropy needs with these weights, softmax(Wh + b) − δ, go from "
        f"{targets.min():.2g} to {targets.max():.2g}"
    )
    stale = Cause("stale weights", f"{text}: it was computed with others")
    if not soft:
        return LossReading(causes=(stale,))
    return LossReading(causes=(Cause("soft labels", f"{text}, as of a soft label"), stale))


def any_loss(image: OneImage) -> LossReading:
    """Return the squared error that stands for an unknown loss, δ made of the size of targets.

    A small δ would be lost in the error of z − y.
    """
    size = float(np.abs(image.delta).max())
    factor = size if size < SMALL else 1.0
    scaled = replace(image, delta=image.delta / factor)
    return LossReading(None, factor=factor, targets=free_targets(scaled, "mse"))


def free_targets(image: OneImage, loss: str) -> Array:
    """Return the targets, (1, K), by which a loss makes this δ, were they any numbers."""
    without, by_targets = RESIDUALS[loss](image.logits)
    return np.linalg.solve(by_targets, without - image.delta)[np.newaxis]


def loss_of_batch(
    by_bias: Array, logits: Array, batch: int, noise: Noise, said: str | None
) -> LossReading:
    """Return the loss of a batch, as far as probes tell.

    Args:
        by_bias: (K,), the gradient with respect to the last layer's bias.
        logits: (M, K), the network's of probes.
        batch: N.
        noise: what is on the gradient beside the batch.
        said: the loss's name, if it was said.
    """
    zero_sum, clean = noise.zero_sum, bool(noise.clean)
    deviation = np.sqrt(noise.variance or 0.0)
    candidates = {
        "cross-entropy": (np.array([softmax(z) for z in logits]), 1.0, (1.0, float(batch))),
        "bce": (sigmoid(logits), float(len(by_bias)), (1.0, float(batch * len(by_bias)))),
        "mse": (logits, 0.5 * len(by_bias), (1.0, float(batch * len(by_bias)))),
    }
    names = [said] if said in candidates else list(candidates)
    if said is None and zero_sum is not None:
        names = ["cross-entropy"] if zero_sum else ["bce", "mse"]
    scales = {}
    for name in names:
        shown, times, usual = candidates[name]
        scale = factor_of_batch(by_bias * times, shown, batch, deviation * times, usual)
        if scale is not None:
            # With one label for each image, what the labels take away is 1 for each.
            labels = float(shown.mean(axis=0).sum() - by_bias.sum() * times / scale.factor)
            whole = scale.exact and abs(labels - 1.0) < SURE_COUNT / batch
            # Of another loss an image may have no class or several, or numbers: a rough guess.
            error = scale.error if whole or name == "cross-entropy" else max(scale.error, GUESSED)
            scales[name] = replace(scale, exact=whole, error=error)
    exact = [name for name, scale in scales.items() if scale.exact]
    loss = exact[0] if len(exact) == 1 else (names[0] if len(names) == 1 else None)
    if loss is None and "cross-entropy" in names:
        loss = "cross-entropy"
    told = len(exact) == 1 and zero_sum is not None and clean
    source = "said" if said else ("read off" if told else "assumed")
    causes = []
    if loss != "cross-entropy" and said is None:
        text = "the last layer's rows do not add up to zero, as cross-entropy's do"
        sure = zero_sum is False and clean
        likely = loss or min(
            scales or names, key=lambda name: _oddness(scales.get(name), candidates[name][2])
        )
        others = [name for name in names if name not in (likely, "cross-entropy")]
        if loss is None and others:
            text = f"{text}: it may be {likely}, or {others[0]}"
        causes.append(Cause("loss", text, f"--loss {likely}", sure))
    found = scales.get(loss or "")
    if found is not None and not found.exact and found.error < MOST_ERROR:
        text = f"the loss, or the learning rate, is about {found.factor:.2f} times the usual one"
        off = min(abs(found.factor / c - 1.0) for c in candidates[loss or ""][2])
        causes += [Cause("factor", text)] if off > 3 * found.error else []
    if found is None:
        return LossReading(loss, source, causes=tuple(causes))
    return LossReading(loss, source, found.factor, found.exact, found.error, None, tuple(causes))


def _oddness(scale: LossScale | None, usual: tuple[float, ...]) -> float:
    """Return how far a factor is from the nearest usual one, as a logarithm."""
    if scale is None:
        return np.inf
    return float(min(abs(np.log(scale.factor / c)) for c in usual))
