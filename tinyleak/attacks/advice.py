"""Why an attack may have failed, and what to try next: of this client, by this attacker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tinyleak.analytic.cause import Cause
from tinyleak.attacks.problem import Problem
from tinyleak.attacks.result import Reconstruction
from tinyleak.client import Client
from tinyleak.client.facts import listed
from tinyleak.client.outcome import Outcome

KINKED = ("relu", "leaky_relu", "relu6", "hardswish", "hardtanh")
"""Activations with kinks, at which a search that goes downhill seldom arrives. Of a LeNet with relu
Levenberg–Marquardt brought back a digit that L-BFGS stalled before from eight starts."""

MANY = 8
"""Starts to try where one was not enough: what one in three finds, eight find 24 times in 25."""


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
    causes = list(client.premises.causes)
    if outcome.verdict == "exact":
        return causes
    taken = [replace(cause, advice="") for cause in causes if _accounted(client, cause)]
    causes = [cause for cause in causes if not _accounted(client, cause)]
    causes += [*_of_search(problem, found), *taken]
    allowed, own = client.premises.activations, getattr(client.model, "activation", None)
    if allowed and own not in allowed:
        text = f"the gradient is that of {allowed[0]}, and the network is said to have {own}"
        causes.insert(0, Cause("activation", text, f"--activation {allowed[0]}", sure=False))
    elif len(allowed) > 1 and "activation" in client.facts:
        text = (
            f"its activation was taken to be {own}, one of {len(allowed)} that the gradient allows"
        )
        other = next(name for name in allowed if name != own)
        place = min(1, sum(cause.sure for cause in causes))
        causes.insert(place, Cause("activation", text, f"--activation {other}"))
    return causes


def _accounted(client: Client, cause: Cause) -> bool:
    """Return whether the client is attacked as being so, so that to say it does nothing."""
    if cause.name == "loss":
        return cause.advice == f"--loss {client.loss.kind}"
    if cause.name == "weight decay":
        return client.steps == 1 and client.premises.decay != 0.0
    if cause.name != "normalisation" or not getattr(client.model, "normalises", False):
        return False
    model: Any = client.model
    return client.premises.normalisation in (None, (model.mean, model.std))


def _of_search(problem: Problem, found: Reconstruction) -> Sequence[Cause]:
    client, attacker, settings = problem.client, problem.attacker, problem.settings
    causes = []
    if client.frozen:
        text = f"{listed(client.frozen)} sent no gradient, and the rest may not tell the image"
        causes.append(Cause("frozen", text, sure=False))
    if client.rounding is not None:
        steps = "one of plain SGD" if client.local is None else client.local.said
        text = f"the steps between the weights were taken to be {steps}"
        causes.append(Cause("local steps", text, sure=False))
    if client.batch > 1 and not client.loss.exact and problem.matching.targets is not None:
        text = "the labels were taken to be one class each, and mixed or smoothed ones are not"
        causes.append(Cause("soft labels", text, "--labels optimise", sure=False))
    if found.reason in ("out of iterations", "interrupted"):
        text = f"the search had not ended after {found.iterations} iterations"
        more = f"--iterations {max(2000, 4 * settings.iterations)}"
        causes.append(Cause("iterations", text, more))
    told = client.last_layer is not None or client.premises.targets is not None
    squares = "--labels infer --method" if told else "--method"
    plain = not (client.local or settings.direction or settings.smoothness)
    solvable = plain and attacker.method == "lbfgs" and attacker.device == "cpu"
    if solvable and getattr(client.model, "activation", None) in KINKED:
        text = "its activation has kinks, at which L-BFGS seldom arrives; least squares may"
        causes.append(Cause("kinks", text, f"{squares} levenberg-marquardt"))
    elif solvable and client.batch > 1:
        text = f"L-BFGS alone seldom separates {client.batch} images"
        causes.append(Cause("batch", text, f"{squares} lbfgs+levenberg-marquardt"))
    if attacker.restarts < MANY:
        text = "one start is not always enough"
        causes.append(Cause("start", text, f"--restarts {MANY}"))
    return causes
