"""Whether what an attack found explains the shared gradient: the only test without a truth.

The images and labels found make a gradient of their own. How far that may be from the shared one is
bounded beforehand, by the shared gradient alone: by the rounding it was written with, and by the
noise that its structure shows. What is left over, and only that, is what the search did not reach.

That the gradients agree does not say that the images do: a gradient may hardly depend on them. The
Jacobian at what was found says how far the images may be off (see `analytic.jacobian_spectrum`).
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tinyleak.analytic.jacobian import Jacobian, without_ties
from tinyleak.analytic.jacobian_spectrum import RESOLUTION, Spectrum, seen_from
from tinyleak.backend import Array
from tinyleak.client.certificates import certify_images
from tinyleak.client.local import shared_gradients
from tinyleak.client.outcome import RECOVERED_MSE, Found, Outcome, Verdict
from tinyleak.metrics import mse
from tinyleak.tensor import Tensor

MARGIN = 10.0
"""How many times the expected rounding a gradient may be off: of `relative_roundoff` it was up to
4.3 times, and the client's additions may have been in another order."""

NOISE_MARGIN = 1.5
"""How many times the noise, as a squared distance, is allowed. Of the 589 numbers that a LeNet's
last layer shows, the estimate of its variance is right to 6 %; a small last layer's to 20 %."""

LEAST = 1e-16  # a relative squared distance that always counts as rounding: eight digits

MOST_ROUNDING = 1e-4
"""Beyond 1 % of the gradient's length rounding is no explanation: a network so sure of its image
shares a gradient that has no digits left, and that says nothing."""

MOST = 0.5  # no larger distance explains anything: a gradient of zeros has the distance 1

COARSE = 1e-6
"""Where float32's own rounding ends an attack that computes in it: 24 of one image stalled at 1e-14
to 3e-7."""

PIXEL_VARIANCE = 0.1
"""The variance of a pixel before anything is known of it: that of digits is 0.1, of photographs
0.06."""

RESIDUAL_MARGIN = 10.0
"""How many times the noise that the residual shows is taken to be there: what of it looks like
another image has been fitted, and does not show."""

SCATTER = 2.0
"""How many times the forecast of noise's error is expected of one image: the forecast is a mean,
and rounding is uneven. Of five LeNets in float16 the error was 1.3 to 2.5 times the forecast."""

STEPS = 160
"""Products with JᵀJ by which its spectrum is estimated. With as many, what remained to be done of
six attacks on trained LeNets that had not ended was told to 0.6 to 1.0 times of what it was; with
60 to a tenth."""


@np.errstate(all="ignore")  # a lost attack's numbers may be anything
def explain(
    client: Any, found: Found, precision: Mapping[str, Array] | None, dtype: str
) -> Outcome:
    """Compare the gradient that was found with the one that was shared; see `Client.explain`."""
    shared = _row(client.gradients)
    weight = np.ones_like(shared) if precision is None else _row(precision)
    length = float(np.sum(weight * shared**2))
    images, labels = found.images.astype(float), found.soft_labels.astype(float)
    made, factor = _gradient(client, images, labels), client.loss.factor
    if not client.loss.exact and made.any():
        stretch = float(np.sum(weight * made * shared)) / float(np.sum(weight * made**2))
        made, factor = made * stretch, factor * stretch

    def apart(made: Array) -> float:
        return float(np.sum(weight * (made - shared) ** 2)) / length

    distance = apart(made)
    certified = certify_images(client, found.images, found.soft_labels).verdicts

    saved = 0.0 if client.rounding is None else float(np.sum(weight * _row(client.rounding)))
    rounding = client.roundoff**2 + saved / length
    noise = (client.noise or 0.0) * float(np.sum(weight)) / length
    exact = min(max(LEAST, MARGIN**2 * rounding), MOST_ROUNDING)
    reached = COARSE if dtype == "float32" else 0.0
    consistent = min(max(exact, reached, NOISE_MARGIN * noise), MOST)

    expected = None
    verdict: Verdict = "not explained"
    if distance <= consistent:
        # The residual of so many more numbers than pixels shows how large the rounding really is.
        shown = RESIDUAL_MARGIN * distance * shared.size / max(1, shared.size - found.images.size)
        variance = max(noise, min(rounding, shown)) * length / shared.size
        each = _once(found) if all(certified) else found
        # Its gradient is the mean over fewer images, and as many times larger.
        larger = len(found.images) / len(each.images)
        left = larger * (shared - made)
        expected = expected_mse(client, each, larger**2 * variance, left, precision)
        one = None if all(certified) else _as_one(images, labels)
        if one is not None:
            again = factor / client.loss.factor * _gradient(client, one, labels)
            as_near = max(exact, NOISE_MARGIN * noise, MARGIN * distance)
            if apart(again) <= as_near:
                expected = min(max(expected, float(mse(one, images).max())), PIXEL_VARIANCE)
        sure = distance <= exact and expected < RECOVERED_MSE
        verdict = "exact" if sure else "consistent"
    return Outcome(
        succeeded=verdict == "exact" or (expected is not None and expected < RECOVERED_MSE),
        verdict=verdict,
        sentence=_sentence(verdict, expected),
        images=found.images,
        labels=found.labels,
        soft_labels=found.soft_labels,
        order=np.arange(len(found.images)),
        distance=distance,
        tolerance=consistent,
        noisy=NOISE_MARGIN * noise > max(exact, reached),
        factor=factor,
        expected_mse=expected,
        certified=certified,
    )


def expected_mse(
    client: Any,
    found: Found,
    variance: float,
    left: Array,
    precision: Mapping[str, Array] | None = None,
) -> float:
    """Return the expected squared error of a pixel: what noise does, and what is left to do.

    Noise of a variance leaves what `Spectrum.forecast` says. Beside it, one more step of
    Gauss–Newton, d = (JᵀJ)⁻¹ Jᵀe, would move what was found by ‖d‖² / n: a search that stopped
    early is as far away.

    Args:
        client: whose gradient it is, a `tinyleak.Client`.
        found: images and labels, near which the network is taken to be linear.
        variance: v, of the noise on each number of the gradient.
        left: e, (P,), what of the gradient was not reached.
        precision: what each entry's squared difference is multiplied with, by name, or None.

    Returns:
        From 0 to `PIXEL_VARIANCE`, τ², which is what a guess is off by.
    """
    if not (np.isfinite(found.images).all() and np.isfinite(variance)):
        return PIXEL_VARIANCE
    images = without_ties(found.images)
    jacobian = Jacobian(client.model, client.params, images, found.soft_labels, precision=precision)
    # Several steps share about as many times one step's gradient.
    variance, left = variance / client.multiple**2, left / client.multiple
    covectors, start = {}, 0
    for name, shape in client.model.shapes.items():
        size = math.prod(shape)
        part = left[start : start + size].reshape(1, *shape)
        covectors[name] = Tensor(part if precision is None else part * precision[name])
        start += size
    pull = jacobian.transposed_times(covectors).data
    signs = np.random.default_rng(0).choice([-1.0, 1.0], pull.shape)
    (values, shares), *rest = seen_from(
        jacobian, np.concatenate([signs, pull][: 1 + pull.any()]), STEPS
    )
    noisy = Spectrum(values, shares, jacobian.size, complete=False).forecast(
        variance, PIXEL_VARIANCE
    )
    step = 0.0
    for values, shares in rest:
        damped = values**2 + (RESOLUTION * values.max()) ** 2
        step = float(np.sum(shares / damped**2)) * float(np.sum(pull**2)) / jacobian.size
    return min(SCATTER * noisy + step, PIXEL_VARIANCE)


def _sentence(verdict: Verdict, expected: float | None) -> str:
    if verdict == "not explained":
        return "not explained: what was found does not make the shared gradient"
    if verdict == "exact":
        return "exact: what was found makes the shared gradient, to its rounding"
    return (
        "consistent: what was found makes the shared gradient as nearly as that is known, which "
        f"leaves each pixel a mean squared error of about {expected:.1e}"
    )


def _once(found: Found) -> Found:
    """Return what was found with each image once: what certifies them tells copies apart.

    To first order the gradient does not: it depends on the sum of two that are alike.
    """
    flat = np.concatenate([found.images.reshape(len(found.images), -1), found.soft_labels], axis=1)
    kept = np.sort(np.unique(flat, axis=0, return_index=True)[1])
    return Distinct(found.images[kept], found.labels[kept], found.soft_labels[kept])


class Distinct(NamedTuple):
    """Some of the images that were found, with their labels."""

    images: Array
    labels: Array
    soft_labels: Array


def _as_one(images: Array, labels: Array) -> Array | None:
    """Return images with their mean in place of the two of one label that are nearest, if any are.

    To first order a gradient depends on the sum of two images that are near one another, so that
    two copies of one may come back as two on either side of it.
    """
    alike = np.equal.outer(labels.argmax(1), labels.argmax(1)) & ~np.eye(len(images), dtype=bool)
    if not alike.any():
        return None
    apart = np.stack([mse(images, np.broadcast_to(one, images.shape)) for one in images])
    pair = np.unravel_index(np.where(alike, apart, np.inf).argmin(), apart.shape)
    joined = images.copy()
    joined[[*pair]] = images[[*pair]].mean(axis=0)
    return joined


def _gradient(client: Any, images: Array, labels: Array) -> Array:
    """Return what the client would have shared with these images: (P,)."""
    params = {name: array.astype(float) for name, array in client.params.items()}
    return _row(shared_gradients(client.model, params, images, labels, client.local))


def _row(arrays: Mapping[str, Array]) -> Array:
    return np.concatenate([np.asarray(arrays[name], dtype=float).ravel() for name in arrays])
