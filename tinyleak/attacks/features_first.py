"""An image by its features: what one linear layer was given, and then what image has that.

For one image the gradient of a linear layer z = W h + b is G = δ (h, 1)ᵀ, so that its input is
known exactly: h = g_bᵀ g_W / (g_b · g_b) (Phong et al. 2018, section 3). So is the gradient with
respect to it, Wᵀ g_b. The network above the layer then no longer matters, nor does the label: what
is left is to find the image whose features are h, ‖f(x) − h‖² = 0. That has no second derivatives
in it, and kinks such as ReLU's do not stop it as they stop gradient matching. Where they do all the
same, `smoothed` goes on from there.

A layer with fewer features than the image has pixels leaves the image open. Two things close it:
pixels lie in [0, 1], and the gradients of all parameters below the layer, which are those of the
known function ⟨Wᵀ g_b, f(x)⟩.

A parameter that is added to values of one image, as a transformer's position embedding is, shows
the loss's gradient with respect to those values instead: it is its own. Below it the same holds.

Lesson: lessons/10b_your_own_network.py
"""

import math

import numpy as np

from tinyleak.analytic.normalisation import far_outside_unit_range
from tinyleak.attacks.by_halves import by_halves
from tinyleak.attacks.distances import (
    ITERATIONS,
    End,
    Objective,
    StoppedError,
    keeping_the_best,
    objective_of,
    rounded_objective_of,
    search_in_range,
)
from tinyleak.attacks.further_down import shown_further_down
from tinyleak.attacks.kinks import Kinks
from tinyleak.attacks.shown import Shown, most_shown, takes_pixels
from tinyleak.attacks.smoothed import CLOSE, CYCLES, past_kinks
from tinyleak.backend import Array
from tinyleak.client import Client
from tinyleak.gradient import grad
from tinyleak.nn.criteria import loss_of
from tinyleak.nn.model import Model
from tinyleak.nn.models.as_trained import are_images, heads_of
from tinyleak.optim import lbfgs
from tinyleak.tensor import Tensor

GREY, CONTRAST = 0.5, 0.1
"""Mean and standard deviation of the pixels that the search starts from: nearer than N(0, 1)."""

UNIT, UNBOUNDED = (0.0, 1.0), (-math.inf, math.inf)

GOALS = {"float64": 1e-26, "float32": 1e-13, "float16": 1e-6}
"""The squared relative distance at which features agree, by the dtype of what was shared: its
rounding, squared, and some ten times that."""

FAR = 1e-5
"""Where a search by halves ends nearer than this, all that is wrong is a few kinks among thousands,
and a search past all of them, from noise, ended no nearer."""

EVALUATIONS = 3000
"""No further start is made after so many. Where kinks stop a search another start often passes
them: of small networks with max pooling one in two searches arrives."""

POLISHING, OUTSIDE = 300, 0.01
"""How many iterations bring what was found to where rounding ends, by features and then by all;
and how far outside [0, 1] pixels lie at most that are then kept inside."""


def features_first(client: Client, seed: int = 0, *, enough: bool = False) -> Array | None:
    """Return the image whose features a layer shows, (1, C, H, W); None if no layer does.

    Whether it is found is not said: it is where gradient matching starts.

    Args:
        client: of one image and one step; of others nothing is shown.
        seed: decides the noise that the search starts from.
        enough: whether to search only where a layer has as many features as the image has pixels,
            or kinks would stop gradient matching, and pixels have bounds.

    Raises:
        StoppedError: Ctrl-C; it has the best so far.
    """
    model, shown = client.model, shown_of(client)
    if shown is None:
        return None
    shape = (1, *model.image_shape)
    pixels = math.prod(shape)
    if shown.features is None:
        rng = np.random.default_rng(seed)
        start = GREY + CONTRAST * rng.standard_normal(pixels)
        best = search(objective_of(shape, shown, client.gradients), start, GOALS[client.dtype])
        return _polished(client, shown, best)
    if enough and shown.count < pixels:
        kinked = Kinks(shown.below).any(Tensor(np.zeros(shape)))
        if not (kinked and are_images(model)):
            return None
    if takes_pixels(shown.below, model.image_shape):
        return shown.features.reshape(shape)
    best = _best_of_searches(client, shown, np.random.default_rng(seed))
    return _polished(client, shown, best)


def shown_of(client: Client) -> Shown | None:
    """Return what a client's gradient shows to search by; None of several images or steps."""
    if client.batch != 1 or client.local is not None:
        return None
    return most_shown(client.model, client.params, client.sent)


def _best_of_searches(
    client: Client, shown: Shown, rng: np.random.Generator, further: bool = True
) -> End:
    """Search for the image that has the features that are shown, fewer than its pixels or not."""
    model, goal = client.model, GOALS[client.dtype]
    close = max(CLOSE, goal)  # as float16's rounding is
    shape = (1, *model.image_shape)
    pixels = math.prod(shape)
    few = shown.count < pixels
    alone, images = objective_of(shape, shown, None), are_images(model)
    bounds = UNIT if images else UNBOUNDED
    start = GREY * images + CONTRAST * rng.standard_normal(pixels)
    distance, ends = alone, [End(math.inf, start, 0)]
    noisy = any(cause.name == "noise" for cause in client.premises.causes)  # no search arrives
    cycles = 1 if noisy else CYCLES
    try:
        while math.fsum(end.evaluations for end in ends) < EVALUATIONS:
            if images or not few:
                free = search(alone, start, goal)
                bounds = range_at(model, free.x) if bounds == UNIT else bounds
                ends += [free] * (not few or bounds != UNIT)
            if bounds == UNIT and ends[-1].value > goal:
                # The bounds say as much as too few features, or a flat valley, leave open.
                start = ends[-1].x if ends[-1].value <= close else start
                ends.append(search_in_range(alone, start, goal))
            best = min(ends, key=_value)
            if best.value <= close or len(ends) == 1:
                break
            start = GREY * images + CONTRAST * rng.standard_normal(pixels)
        if few or best.value > close:
            distance = objective_of(shape, shown, client.gradients)
        if few and images:
            best = search_in_range(distance, best.x, goal, *bounds)
            ends.append(best)
            further = further and not noisy and best.value > close
            at = start.reshape(shape), goal, int(rng.integers(2**31))
            lower = shown_further_down(shown, client.gradients, *at) if further else None
            if lower is not None:
                # What is shown farther down tells more of the image than the distance of all.
                x, cycles = _best_of_searches(client, lower, rng, further=False).x, 1
                best = End(distance(x)[0], x, 0)
                ends.append(best)
        if not few and further and not noisy and best.value > close:
            there = by_halves(shown, client.gradients, best.x.reshape(shape), *bounds, goal)
            if there is not None:
                halves = End(distance(there)[0], there, 0)
                best, close = min(best, halves, key=_value), max(close, FAR)
        if best.value > close:
            within = start.reshape(shape), *bounds, goal
            found = past_kinks(shown, client.gradients, *within, cycles=cycles)
            if found is not None and not found.value > distance(best.x)[0]:
                best = End(found.value, found.x, 0)
    except KeyboardInterrupt as stopped:  # not all are a search's, and have its best
        xs = [getattr(stopped, "x", start), *[end.x for end in ends]]
        raise StoppedError(min(xs, key=lambda x: distance(x)[0])) from None
    return best


def _value(end: End) -> float:
    return end.value


def _polished(client: Client, shown: Shown, end: End) -> Array | None:
    """Return the image of a search, if it arrived as near as rounding lets it come; or None.

    By features first, whose distance has fewer kinks than that of the gradients below.
    """
    if not np.isfinite(end.value):
        return None
    shape, x = (1, *client.model.image_shape), end.x
    within = are_images(client.model) and np.abs(x - np.clip(x, 0.0, 1.0)).max() < OUTSIDE
    bounds = UNIT if within else UNBOUNDED
    objectives = []
    try:
        if end.value <= CLOSE and shown.count >= x.size:
            objectives.append(objective_of(shape, shown, None))
        if end.value <= CLOSE:
            rounding = float(np.finfo(client.dtype).eps)
            objectives.append(rounded_objective_of(shape, shown, client.gradients, rounding))
        for objective in objectives:
            x = search_in_range(objective, x, -math.inf, *bounds, POLISHING).x
    except KeyboardInterrupt as stopped:
        raise StoppedError(getattr(stopped, "x", x)) from None
    return x.reshape(shape)


def known_label(client: Client, image: Array) -> Array | None:
    """Return the soft label of a known image, (1, K); None where the last layers do not tell.

    Every loss's gradient is linear in the label y, beside a part without it: at a last bias b,
    ∂L/∂b = c + Σₖ yₖ Aₖ. The cross-entropy's is zero for y = p, so that one number is missing:
    labels add up to 1, shared by all heads alike.
    """
    model, heads = client.model, heads_of(client.model)
    sent = [name for name in model.shapes if name not in client.frozen]
    biases = [name for name in sent if model.shapes[name] in [(k,) for k in heads]]
    if not biases:
        return None
    params = {name: Tensor(np.asarray(a, dtype=float)) for name, a in client.params.items()}
    logits, loss = model(params, Tensor(image)), loss_of(model)

    def slope(label: Array) -> Array:
        found = grad(loss(logits, Tensor(label[np.newaxis])), [params[b] for b in biases])
        return np.concatenate([g.numpy() for g in found])

    alone = slope(np.zeros(model.classes))
    slopes = np.stack([slope(y) - alone for y in np.eye(model.classes)], axis=1)
    wanted = np.concatenate([client.gradients[name] for name in biases]) - alone
    if client.loss.kind == "cross-entropy":
        of_head = np.repeat(np.arange(len(heads)), heads if len(heads) > 1 else model.classes)
        slopes = np.vstack([slopes, np.equal.outer(np.arange(len(heads)), of_head)])
        wanted = np.concatenate([wanted, np.full(len(heads), 1 / len(heads))])
    found, _, rank, _ = np.linalg.lstsq(slopes, wanted, rcond=None)
    return np.asarray(found)[np.newaxis] if rank == model.classes else None


def range_at(model: Model, free: Array) -> tuple[float, float]:
    """Return what is between which numbers: pixels, unless what was found without bounds is not.

    It does where a client normalised its images, though nobody said so.
    """
    return UNIT if are_images(model) and not far_outside_unit_range(free) else UNBOUNDED


def search(objective: Objective, start: Array, goal: float) -> End:
    """Minimise without bounds."""
    with keeping_the_best(objective, start) as watched:
        *_, end = lbfgs(watched, start, goal=goal, max_iterations=ITERATIONS)
    return End(end.value, end.x, end.evaluations)
