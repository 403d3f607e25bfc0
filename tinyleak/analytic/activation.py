"""The activation of a network, read off its gradient.

For one image the last layer shows the features and the gradient with respect to them exactly, so an
activation is right if it turns that into the gradient of the layer below, or, between two fully
connected layers, the one's output into the other's input. For a batch only means of features are
seen: they lie where features can, and say which activations are likely.
"""

import math
from dataclasses import dataclass

import numpy as np

from tinyleak.analytic.activation_tests import ActivationFit, by_range, by_slopes, by_values
from tinyleak.analytic.last_layer import layer_names
from tinyleak.analytic.number_format import COMPUTED
from tinyleak.analytic.one_image import OneImage, look_at_one_image
from tinyleak.analytic.shared import ALLOWED, Layer, Shared
from tinyleak.analytic.slopes import range_of
from tinyleak.analytic.without_bias import Direction, direction_of
from tinyleak.nn import ACTIVATIONS, MLP, LeNet

LOW = 2.0
"""Where no mean of a feature is higher, hardly any input is below −5.6, where GELU ends in
float32."""

FEWEST_SIGNS = 20
"""So many features of one sign are no accident: a coin does that twice in a million times."""


@dataclass(frozen=True)
class ActivationReading:
    """Which activations a gradient allows."""

    names: tuple[str, ...] = ()  # likeliest first; a single one is told
    held: bool = False  # whether the first one explains all that is seen exactly
    refuted: bool = False  # whether a test that is exact refutes all of the library
    dropped: float = 0.0  # the share of features that dropout left out; 0 where it was off
    # The share of features that are zero in a batch, where the activation may have none such.
    maybe_dropped: float = 0.0
    # The factor from the features' direction, as `Direction` has it, to the features, if that was
    # told; None if not.
    length: float | None = None


def activation_of_one(shared: Shared, image: OneImage | None, noise: float) -> ActivationReading:
    """Return the activations that the gradient of one image allows.

    Args:
        shared: what was shared.
        image: what the last layer shows of it, if it does.
        noise: the variance of what is on each number beside rounding.
    """
    tests = [] if image is None else [_by_slopes(shared, image)]
    to_the_end = False
    for layer, following in zip(shared.layers, shared.layers[1:], strict=False):
        if len(layer.weight) != following.weight.shape[1] or not _has_bias(layer):
            continue
        if _has_bias(following):
            after: OneImage | Direction = look_at_one_image(following, noise, shared.computed)
        elif following.gradient.any():
            after = direction_of(following, noise)
        else:
            continue
        tests.append(by_values(look_at_one_image(layer, noise, shared.computed), after))
        to_the_end = bool(tests[-1]) and following is shared.layers[-1]
    tests = [test for test in tests if test]
    last = shared.last
    if not tests and image is None and last is not None and last.gradient.any():
        return ActivationReading(_by_signs(direction_of(last, noise)))
    if not tests and image is not None:
        in_range = list(by_range(image.features[np.newaxis], image.features_error, 0))
        if not image.features.all():
            in_range.sort(key=lambda name: not name.startswith("relu"))
        return ActivationReading(tuple(in_range) if len(in_range) > 1 else ())
    if not tests:
        return ActivationReading()
    holding = [{fit.name: fit for fit in test if fit.holds} for test in tests]
    possible = [{fit.name for fit in test if fit.possible or fit.holds} for test in tests]
    held = [
        name
        for name in ACTIVATIONS
        if any(name in test for test in holding) and all(name in test for test in possible)
    ]
    if held:
        # Below 6 there is no difference.
        names = tuple(name for name in held if name != "relu6" or "relu" not in held)
        of_it = [test[held[0]] for test in holding if held[0] in test]
        dropped = max(fit.dropped for fit in of_it)
        tells = image is None and to_the_end and held[0] in holding[-1]
        length = of_it[-1].scale if tells else None
        return ActivationReading(names, held=True, dropped=dropped, length=length)
    # Of these nothing but an activation is known to lie between the layers.
    plain = isinstance(shared.model, LeNet | MLP)
    exact = plain and noise == 0.0 and shared.written in COMPUTED
    refuted = any(test[0].precise and not any(f.possible for f in test) for test in tests)
    return ActivationReading(_by_distance(tests), refuted=refuted and exact)


def activation_of_batch(shared: Shared, last: Layer, batch: int, noise: float) -> ActivationReading:
    """Return the activations that the gradient of a batch allows, by means of its features.

    Args:
        shared: what was shared.
        last: its last layer.
        batch: how many images there are.
        noise: the variance of the error of each number.
    """
    by_bias = last.bias_gradient
    if by_bias is None or not by_bias.any():
        return ActivationReading()
    rows = np.flatnonzero(np.abs(by_bias) > 1e-9 * np.abs(by_bias).max())
    means = last.gradient[rows] / by_bias[rows, np.newaxis]
    error = np.sqrt(noise) / np.abs(by_bias[rows, np.newaxis]) * np.hypot(1.0, means)
    allowed = list(by_range(means, error, batch))
    # Most labels are absent, and their signs agree; a factor on the loss may turn all of them.
    likely = int(np.argmax(by_bias[rows] * (np.sign(np.median(by_bias)) or 1.0)))
    zeros = np.zeros_like(means[likely])
    image = OneImage(means[likely], by_bias, by_bias, zeros, 0 * by_bias, by_bias, shared.computed)
    order = _by_distance([_by_slopes(shared, image)])
    names = [name for name in order if name in allowed]
    names += [name for name in allowed if name not in names]
    # A unit that no image switches on has no gradient. Dropout of at most half of the features
    # leaves out one in 2ᴺ of them for all images.
    dead, by_chance = float(np.mean(~last.gradient.any(axis=0))), 0.5**batch
    limit = by_chance + 5.0 * math.sqrt(by_chance / last.gradient.shape[1])
    # GELU is exactly 0, too, but only of numbers so low that others are high.
    positive = bool((means >= -ALLOWED * error - 1e-6).all()) or float(means.max()) < LOW
    if shared.written in COMPUTED and dead > limit and positive and "relu" in names:
        return ActivationReading(("relu",))
    # Means of images with soft labels, or of another loss, may lie anywhere: one is never told.
    others = [name for name in (*order, *ACTIVATIONS) if name not in names]
    names += others[: max(0, 2 - len(names))]
    if dead and "relu" in allowed:
        names.sort(key=lambda name: name != "relu")
    # Those that go below 0 as ELU does, or less, may end in zeros where others are high.
    zeros = "relu" in allowed or ("elu" in allowed and float(means.max()) >= LOW)
    return ActivationReading(tuple(names), maybe_dropped=0.0 if zeros else dead)


def _by_signs(seen: Direction) -> tuple[str, ...]:
    """Return the activations whose features may have these signs, all of them turned or none."""
    sure = np.abs(seen.features) > ALLOWED * seen.features_error
    signs = np.sign(seen.features[sure])
    if len(np.unique(signs)) > 1:
        return tuple(name for name in ACTIVATIONS if range_of(name)[0] < 0.0)
    if len(signs) < FEWEST_SIGNS:
        return ()
    names = [name for name in ACTIVATIONS if range_of(name)[0] >= 0.0]
    return tuple(sorted(names, key=lambda name: name.startswith("relu") == bool(sure.all())))


def _has_bias(layer: Layer) -> bool:
    return layer.bias_gradient is not None and bool(layer.bias_gradient.any())


def _by_slopes(shared: Shared, image: OneImage) -> list[ActivationFit]:
    last, layers = shared.last, layer_names(shared.model)
    if last is None or len(layers) < 2 or layers[-2][0] not in shared.gradients:
        return []
    weight, bias = layers[-2]
    scaled = bias is None
    if bias is None and shared.gradients[weight].ndim == 2:
        # Of one image this is δ xᵀ, whose singular vector has the direction of δ.
        u, sizes, _ = np.linalg.svd(shared.gradients[weight], full_matrices=False)
        below = u[:, 0] * sizes[0]
        rounding = shared.computed * np.full(below.shape, sizes[0])
    elif bias is not None and bias in shared.gradients:
        below, rounding = shared.gradients[bias], shared.deviation[bias]
    else:
        return []
    if len(image.features) % len(below):
        return []
    by_noise = np.sqrt(np.square(last.weight).T @ np.square(image.delta_error))
    by_rounding = shared.computed * np.abs(last.weight).T @ np.abs(image.delta)
    noise = np.sqrt(np.mean(np.square(image.delta_error)))
    errors = np.hypot(by_noise, by_rounding), np.hypot(rounding, noise)
    return by_slopes(image, last.weight.T @ image.delta, errors[0], below, errors[1], scaled=scaled)


def _by_distance(tests: list[list[ActivationFit]]) -> tuple[str, ...]:
    """Return the activations that no test rules out by more than another, the nearest first."""
    nearest: dict[str, tuple[bool, float]] = {}
    for name in ACTIVATIONS:
        of_it = [
            min(((not f.possible, f.distance) for f in test if f.name == name), default=None)
            for test in tests
        ]
        if None not in of_it:
            nearest[name] = max(pair for pair in of_it if pair is not None)
    return tuple(sorted(nearest, key=lambda name: nearest[name]))
