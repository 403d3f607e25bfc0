"""Why an attack may have failed, and what to try next: of this client, by this attacker."""

from __future__ import annotations

from collections.abc import Sequence

from tinyleak.analytic.cause import Cause
from tinyleak.attacks.problem import Problem
from tinyleak.attacks.result import Reconstruction
from tinyleak.client.facts import listed

KINKED = ("relu", "leaky_relu", "relu6", "hardswish", "hardtanh")
"""Activations with kinks, at which a search that goes downhill seldom arrives."""

MANY = 8
"""Starts to try where one was not enough: what one in three finds, eight find 24 times in 25."""


def likely_causes(problem: Problem, found: Reconstruction) -> list[Cause]:
    """Return why an attack may not have explained the gradient, likeliest first.

    What contradicts the assumptions comes first, then what may have stopped the search.

    Args:
        problem: who attacked whom.
        found: where the search ended.
    """
    return [*problem.client.premises.causes, *_of_search(problem, found)]


def _of_search(problem: Problem, found: Reconstruction) -> Sequence[Cause]:
    client, attacker, settings = problem.client, problem.attacker, problem.settings
    causes = []
    if client.frozen:
        text = f"{listed(client.frozen)} sent no gradient, and the rest may not tell the image"
        causes.append(Cause("frozen", text, sure=False))
    if found.reason in ("out of iterations", "interrupted"):
        text = f"the search had not ended after {found.iterations} iterations"
        more = f"--iterations {max(2000, 4 * settings.iterations)}"
        causes.append(Cause("iterations", text, more, sure=False))
    if getattr(client.model, "activation", None) in KINKED:
        text = "its activation has kinks, at which a search seldom arrives"
        causes.append(Cause("kinks", text, f"--restarts {MANY}", sure=False))
    plain = not (client.local or settings.direction or settings.smoothness)
    if client.batch > 1 and attacker.method == "lbfgs" and plain and attacker.device == "cpu":
        text = f"L-BFGS alone seldom separates {client.batch} images"
        advice = "--labels infer --method lbfgs+levenberg-marquardt"
        causes.append(Cause("batch", text, advice, sure=False))
    elif attacker.restarts < MANY:
        text = "one start is not always enough"
        causes.append(Cause("start", text, f"--restarts {MANY}", sure=False))
    return causes
