"""Why an attack may have failed, and what to try next: of this client, by this attacker."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tinyleak.analytic.cause import Cause
from tinyleak.analytic.certificate import why_not
from tinyleak.analytic.normalisation import (
    as_option,
    far_outside_unit_range,
    nearest_normalisation,
)
from tinyleak.attacks.features_first import shown_of
from tinyleak.attacks.first_layer import first_layer
from tinyleak.attacks.method import one_label_each
from tinyleak.attacks.problem import Problem
from tinyleak.attacks.result import Reconstruction
from tinyleak.client import Client
from tinyleak.client.facts import listed
from tinyleak.client.outcome import Outcome
from tinyleak.nn.models.as_trained import are_images
from tinyleak.nn.models.exported import Exported

KINKED = ("relu", "leaky_relu", "relu6", "hardswish", "hardtanh")
"""Activations with kinks, at which a search that goes downhill seldom arrives: where a LeNet with
relu stops L-BFGS from eight starts, features first bring its digit back."""

MANY = 8
"""Starts to try where one was not enough: what one in three finds, eight find 24 times in 25."""

LITTLE = 0.5
"""Labels of 0.9 and 0.1 among ten leave 0.89 of what labels of 1 make, a teacher's about 0.6."""

NEARLY = 0.1
"""Below this relative distance what was found is mostly the client's."""


def likely_causes(problem: Problem, found: Reconstruction, outcome: Outcome) -> list[Cause]:
    """Return why an attack may not have explained the gradient, likeliest first.

    What contradicts the assumptions comes first, then what may have stopped the search, unless the
    gradient is explained exactly; and last what the attack has taken into account already.

    Args:
        problem: who attacked whom.
        found: where the search ended.
        outcome: what the shared gradient says of it.
    """
    client = problem.client
    taken = [cause for cause in client.premises.causes if _accounted(client, cause)]
    causes = [cause for cause in client.premises.causes if cause not in taken]
    if outcome.verdict == "exact":
        return [*causes, *taken]
    near = outcome.distance is not None and outcome.distance < NEARLY and not client.frozen
    ended = found.reason not in ("out of iterations", "interrupted")
    if near and ended and client.noise is None and client.batch == client.steps == 1:
        text = (
            f"what is left, {outcome.distance:.1g} of the gradient, may be noise on it: no layer "
            "has room to show that"
        )
        causes.insert(sum(cause.sure for cause in causes), Cause("noise", text))
    elif client.premises.loss is None and client.premises.targets is not None:
        text = "no loss at all explains the gradient with these weights, which may be others"
        causes.insert(1, Cause("stale weights", text))
    sure = sum(cause.sure for cause in causes)
    # After Ctrl-C nobody waits for what may take half a minute.
    if not sure and found.reason != "interrupted" and one_label_each(client) is False:
        text = "no images with one label each were found to make the last layer's gradient"
        soft = Cause("soft labels", f"{text}: labels may be soft", "--labels optimise")
        other = Cause("loss", f"{text}: the loss may be another")
        # Soft labels make a gradient a little smaller, and other losses make it of any size.
        factor = client.premises.factor or 1.0
        causes = (
            [soft, other, *causes] if LITTLE < factor < 1.0 / LITTLE else [other, *causes, soft]
        )
        sure = 2
    known = {cause.name for cause in causes}
    search = [cause for cause in _of_search(problem, found, outcome) if cause.name not in known]
    # What the last layer shows of one image does not depend on the activation, and of several steps
    # little is shown at all.
    place = len(causes) + (client.steps > 1)
    if client.batch > 1 and client.steps == 1 and sure < 2:
        place = min(1, sure) + sum(cause.name == "stale weights" for cause in causes[sure:])
    causes += search
    causes[place:place] = _activation(client)
    mixed = any(cause.name == "batch size" for cause in causes)
    if near and not mixed and (beyond := _beyond_unit_range(client, found)):
        causes.insert(sum(cause.sure for cause in causes), beyond)
    if client.rounding is not None:
        causes.insert(sum(cause.sure for cause in causes), _of_steps(client))
    if found.reason == "interrupted":
        # What is not sure says nothing yet: nothing else is to be tried, but to let it end.
        causes = [cause if cause.sure else replace(cause, advice="") for cause in causes]
        cause = Cause("iterations", "the search had not ended when it was interrupted")
        causes.insert(sum(cause.sure for cause in causes), cause)
    return [*causes, *(replace(cause, advice="") for cause in taken)]


def _beyond_unit_range(client: Client, found: Reconstruction) -> Cause | None:
    """Return the cause if what nearly explains the gradient has other pixels than images have."""
    if found.reason == "interrupted" or not are_images(client.model):
        return None
    pixels, known = found.images, client.facts.get("normalisation")
    if known is not None or not far_outside_unit_range(pixels):
        return None
    text = (
        f"what nearly explains the gradient has pixels from {pixels.min():.2g} to "
        f"{pixels.max():.2g}, as of normalised images"
    )
    if client.rounding is not None:  # several steps, taken for one, show such pixels as well
        return Cause("normalisation", text)
    return Cause("normalisation", text, as_option(nearest_normalisation(pixels[0])))


def _of_steps(client: Client) -> Cause:
    """Return that there may have been other steps between the weights than was taken for granted.

    Neither the rank tells, since of one image it may be 1 for all steps, and of mini-batches it is
    that of all images, nor what the search found.
    """
    said = "one of plain SGD, with the whole batch" if client.local is None else client.local.said
    text = f"the steps between the weights were taken to be {said}: --local-steps and --local-batch"
    return Cause("local steps", f"{text} say others")


def _activation(client: Client) -> list[Cause]:
    """Return the cause if the activation may be another."""
    allowed, own = client.premises.activations, getattr(client.model, "activation", None)
    fact = client.facts.get("activation")
    if isinstance(client.network, Exported):  # its file says which
        return []
    if allowed and own not in allowed:
        text = f"the gradient is that of {allowed[0]}, and the network is said to have {own}"
        return [Cause("activation", text, f"--activation {allowed[0]}")]
    if fact is None or fact.source != "assumed":
        return []
    if not allowed:
        text = f"its activation was taken to be {own}, and the gradient does not tell"
        return [Cause("activation", text)]
    text = f"its activation was taken to be {own}, one of {len(allowed)} that the gradient allows"
    other = next((name for name in allowed if name != own), None)
    return [Cause("activation", text, f"--activation {other}")] if other else []


def _accounted(client: Client, cause: Cause) -> bool:
    """Return whether the client is attacked as being so, so that to say it does nothing."""
    if cause.name == "soft labels" and client.premises.targets is not None:
        return True
    if cause.name == "loss":
        return cause.advice == f"--loss {client.loss.kind}"
    if cause.name == "factor":
        read = client.premises.factor
        return (
            client.loss.exact and read is not None and abs(client.loss.factor - read) < 0.01 * read
        )
    if cause.name == "weight decay":
        # What is left once it is taken off may be decay as well, of other weights.
        left = any(other.name in ("noise", "batch size") for other in client.premises.causes)
        return client.steps == 1 and client.premises.decay != 0.0 and not left
    if cause.name != "normalisation" or not getattr(client.model, "normalises", False):
        return False
    model: Any = client.model
    return client.premises.normalisation in (None, (model.mean, model.std))


def _of_search(problem: Problem, found: Reconstruction, outcome: Outcome) -> Sequence[Cause]:
    client, attacker, causes = problem.client, problem.attacker, []
    different = len(np.unique(found.images.reshape(client.batch, -1), axis=0))
    if attacker.method == "levenberg-marquardt" and different < client.batch:
        text = "rounding hides what tells images of one label apart, which are left as their mean"
        causes.append(Cause("hidden images", text, sure=True))
    shows = first_layer(client) if client.batch > 1 and client.steps == 1 else None
    if shows is not None:
        layer, cut = shows
        count, most = layer.shown, len(layer.matrix) - cut.is_last
        if 0 < count < min(client.batch, most):
            text = (
                f"the first linear layer shows {count} different images; {client.batch} were said"
            )
            if client.loss.exact and any(outcome.certified or ()):
                # Each counts one part in so many as were said: the others are in the batch.
                causes.append(Cause("batch size", f"{text}, of which some are nearly alike"))
            else:
                causes.append(Cause("batch size", text, f"--batch {count}"))
        elif (why := why_not(layer, cut)) is not None:
            text = f"the first linear layer shows a batch of {client.batch} mixed: {why}"
            causes.append(Cause("batch size", text))
    fact = client.facts.get("dropout")
    if fact is not None and fact.source == "assumed":
        text = "dropout was taken to be off: masks are told by the gradient of one image alone"
        causes.append(Cause("dropout", text))
    if client.frozen:
        text = f"{listed(client.frozen)} sent no gradient, and the rest may not tell the image"
        causes.append(Cause("frozen", text, sure=False))
    if attacker.method == "levenberg-marquardt" and not getattr(client.model, "normalises", False):
        text = "least squares kept pixels in [0, 1], and the client's may have been normalised"
        causes.append(Cause("normalisation", text, "--method lbfgs"))
    if client.batch > 1 and not client.loss.exact and problem.matching.targets is not None:
        text = "the labels were taken to be one class each, and mixed or smoothed ones are not"
        causes.append(Cause("soft labels", text, "--labels optimise", sure=False))
    return (
        causes if found.reason == "interrupted" else [*causes, *_of_steps_downhill(problem, found)]
    )


def _of_steps_downhill(problem: Problem, found: Reconstruction) -> list[Cause]:
    """Return what may have stopped the search itself."""
    client, attacker, settings = problem.client, problem.attacker, problem.settings
    causes = []
    if found.reason == "out of iterations":
        text = f"the search had not ended after {found.iterations} iterations"
        causes.append(
            Cause("iterations", text, f"--iterations {max(2000, 4 * settings.iterations)}")
        )
    told = client.last_layer is not None or client.premises.targets is not None
    squares = "--labels infer --method" if told else "--method"
    plain = not (client.local or settings.direction or settings.smoothness)
    solvable = plain and attacker.method == "lbfgs" and attacker.device == "cpu"
    kinked = getattr(client.model, "activation", None) in KINKED
    start = attacker.start if isinstance(attacker.start, str) else "images"
    if kinked and start == "noise" and shown_of(client) is not None:
        text = "its activation has kinks, at which L-BFGS seldom arrives; features first may"
        causes.append(Cause("kinks", text, "--start features"))
    elif kinked and (start == "features" or attacker.method == "records"):
        text = "its activation has kinks, which another start may pass"
        causes.append(Cause("kinks", text, f"--seed {attacker.seed + 1}"))
    elif kinked and solvable:
        text = "its activation has kinks, at which L-BFGS seldom arrives; least squares may"
        causes.append(Cause("kinks", text, f"{squares} levenberg-marquardt"))
    elif solvable and client.batch > 1:
        text = f"L-BFGS alone seldom separates {client.batch} images"
        causes.append(Cause("batch", text, f"{squares} lbfgs+levenberg-marquardt"))
    if attacker.restarts < MANY and attacker.method != "records":
        text = "one start is not always enough"
        causes.append(Cause("start", text, f"--restarts {MANY}"))
    return causes
