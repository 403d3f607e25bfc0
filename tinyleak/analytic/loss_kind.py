"""Which loss a client had, by how much it was multiplied, and what its targets were.

For one image the last layer tells exactly (see `one_image`). For a batch the features are mixed, so
probes stand in for its images (see `scale`); with weights as they are before much training that
tells which losses make such a gradient with a mean or a sum over the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyleak.analytic.cause import Cause
from tinyleak.analytic.one_image import Fit, OneImage, fits_of
from tinyleak.analytic.residuals import RESIDUALS, sigmoid, softmax
from tinyleak.analytic.scale import factor_of_batch
from tinyleak.analytic.shared import ALLOWED
from tinyleak.backend import Array

EXACTLY_USUAL = 1e-5
"""A factor so near the mean's or the sum's is that: float32 rounds what it is made of to 1e-7,
some of it small differences of larger numbers."""

TELLING = 0.1
"""With an error of δ above this share of it nothing is read off: then losses are alike."""


@dataclass(frozen=True, eq=False)
class LossReading:
    """What is known of a loss; the attributes are those of `Premises`."""

    loss: str | None = "cross-entropy"
    source: str = "assumed"
    factor: float | None = None
    exact: bool = False
    error: float = 0.0
    targets: Array | None = None
    causes: tuple[Cause, ...] = ()


def loss_of_one(image: OneImage, zero_sum: bool, said: str | None) -> LossReading:
    """Return the loss of one image.

    Args:
        image: what its last layer shows.
        zero_sum: whether the last layer's rows add up to zero.
        said: the loss's name, if it was said.
    """
    fits = [fit for fit in fits_of(image) if fit.holds and said in (None, fit.loss)]
    error = float(np.linalg.norm(image.delta_error) / np.linalg.norm(image.delta))
    if not fits:
        return _none_fits(image, zero_sum, said)
    # A loss with its usual factor is likelier than another with a strange one, and a hard label
    # than a soft one, which nearly every δ has.
    best = min(fits, key=_strangeness)
    rivals = {fit.loss for fit in fits if _strangeness(fit)[:2] <= _strangeness(best)[:2]}
    told = len(rivals) == 1 and max(error, best.error / ALLOWED) < TELLING
    if not told:
        loss = said or ("cross-entropy" if "cross-entropy" in rivals else None)
        return LossReading(loss, "said" if said else "assumed")
    factor = 1.0 if _usual(best) else best.factor
    if best.loss not in RESIDUALS:
        cause = Cause("loss", f"the loss is a {best.loss}, times {factor:.4g}", sure=True)
        return LossReading(None, "read off", causes=(cause,))
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
    return fit.kind == "soft", not _usual(fit), fit.loss not in RESIDUALS


def _usual(fit: Fit) -> bool:
    return abs(fit.factor - 1.0) <= EXACTLY_USUAL + fit.error * abs(fit.factor)


def _causes(fit: Fit, factor: float, said: str | None) -> tuple[Cause, ...]:
    causes = []
    if fit.loss != "cross-entropy" and said is None:
        text = f"the last layer's δ is that of {fit.loss} of its logits, and not cross-entropy's"
        causes.append(Cause("loss", text, f"--loss {fit.loss}", sure=True))
    if fit.kind in ("smoothed", "mixed", "soft"):
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


def _none_fits(image: OneImage, zero_sum: bool, said: str | None) -> LossReading:
    if said is not None:
        text = f"no label makes the last layer's δ with {said}"
        return LossReading(said, "said", causes=(Cause("loss", text, sure=True),))
    if not zero_sum:
        text = "the last layer's rows do not add up to zero, and no label explains them"
        advice = "--loss mse"
        return LossReading(None, "assumed", causes=(Cause("loss", text, advice, sure=True),))
    targets = np.exp(image.logits - image.logits.max())
    targets = targets / targets.sum() - image.delta
    text = (
        f"the targets that cross-entropy would need, softmax(Wh + b) − δ, go down to "
        f"{targets.min():.2g}: these are not the weights that the gradient was computed with"
    )
    return LossReading(causes=(Cause("stale weights", text),))


def loss_of_batch(
    by_bias: Array,
    logits: Array,
    batch: int,
    *,
    noise: float,
    zero_sum: bool | None,
    said: str | None,
) -> LossReading:
    """Return the loss of a batch, as far as probes tell.

    Args:
        by_bias: (K,), the gradient with respect to the last layer's bias.
        logits: (M, K), the network's of probes.
        batch: N.
        noise: the variance of the error of each entry.
        zero_sum: whether the last layer's rows add up to zero; None where noise hides it.
        said: the loss's name, if it was said.
    """
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
        scale = factor_of_batch(by_bias * times, shown, batch, np.sqrt(noise) * times, usual)
        if scale is not None:
            scales[name] = scale
    exact = [name for name, scale in scales.items() if scale.exact]
    loss = exact[0] if len(exact) == 1 else (names[0] if len(names) == 1 else None)
    if loss is None and "cross-entropy" in names:
        loss = "cross-entropy"
    told = len(exact) == 1 and zero_sum is not None
    source = "said" if said else ("read off" if told else "assumed")
    causes = []
    if loss != "cross-entropy" and said is None:
        text = "the last layer's rows do not add up to zero, as cross-entropy's do"
        sure = zero_sum is False
        advice = f"--loss {loss or 'bce'}"
        causes.append(Cause("loss", text, advice, sure))
    found = scales.get(loss or "")
    if found is None:
        return LossReading(loss, source, causes=tuple(causes))
    return LossReading(loss, source, found.factor, found.exact, found.error, None, tuple(causes))
