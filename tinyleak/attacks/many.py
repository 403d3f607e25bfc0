"""Many attacks at once: restarts of one client, or many clients, stacked as one program.

Everything maps over leading axes, so R problems are one `Matching` whose arrays have a leading axis
R, and the optimiser minimises R problems at once. Least squares goes from one to the next.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tinyleak.attacks.attacker import Attacker, make_attacker
from tinyleak.attacks.by_records import attack_by_records
from tinyleak.attacks.least_squares import MOST_ITERATIONS, refine_all, unstarted
from tinyleak.attacks.matching import Matching
from tinyleak.attacks.problem import Problem, problem_of
from tinyleak.attacks.recorder import Recorder
from tinyleak.attacks.result import Progress, Reconstruction
from tinyleak.attacks.settings import GOALS, OUTER_STEP
from tinyleak.attacks.stacked import Evaluator, with_arrays
from tinyleak.backend import Array, device_module, to_device
from tinyleak.client import Client
from tinyleak.optim import State, lbfgs_many


def attack_many(
    clients: Sequence[Client],
    *,
    attacker: Attacker | Sequence[Attacker] | None = None,
    labels: Any = None,
    seeds: Sequence[int] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    **knowledge: Any,
) -> list[Reconstruction]:
    """Attack many clients at once, as one program; each stops by itself.

    Args:
        clients: of one network and one batch size.
        attacker: one for all, or one for each, of the same method, settings and device; or its
            fields as keywords, as for `attack`.
        labels: for each client its N labels; or "infer", "trusted" or None for all.
        seeds: one for each client; by default the attacker's, and the numbers after it.
        on_progress: called after each step of the whole batch, with the nearest attack's progress.

    Returns:
        What was found of each client, as `attack` returns it, but without snapshots.

    Raises:
        ValueError: as `attack`; no clients, another number of labels or seeds than clients, or
            clients or attackers that cannot be stacked.
        TypeError: as `attack`; a single client; a seed and seeds.
    """
    if isinstance(clients, Client):
        raise TypeError("attack_many was given one client; give a list of them, or call attack")
    clients = list(clients)
    if attacker is None or isinstance(attacker, Attacker):
        if "seed" in knowledge and seeds is not None:
            raise TypeError("seed and seeds were given; give seeds alone, one for every client")
        one = make_attacker(attacker, knowledge)
        attackers = [replace(one, seed=one.seed + k) for k in range(len(clients))]
    else:
        attackers = [make_attacker(one, knowledge) for one in attacker]
    each = None if labels is None or isinstance(labels, str) else list(labels)
    given = {"clients": len(clients), "attackers": len(attackers)}
    given |= {} if seeds is None else {"seeds": len(seeds)}
    given |= {} if each is None else {"lists of labels": len(each)}
    if set(given.values()) != {len(clients)} or not clients:
        counts = ", ".join(f"{length} {what}" for what, length in given.items())
        raise ValueError(f"attack_many was given {counts}; give one of each for every client")
    if seeds is not None:
        attackers = [replace(a, seed=s) for a, s in zip(attackers, seeds, strict=True)]
    if labels is not None:
        told = [labels] * len(clients) if each is None else each
        attackers = [replace(a, labels=some) for a, some in zip(attackers, told, strict=True)]
    problems = []
    for each_client, each_attacker in zip(clients, attackers, strict=True):
        problems.append(problem_of(each_client, each_attacker))
        if problems[-1].interrupted and len(clients) > 1:
            raise KeyboardInterrupt
    return run(problems, on_progress)


def run(
    problems: Sequence[Problem], on_progress: Callable[[Progress], None] | None = None
) -> list[Reconstruction]:
    """Minimise all problems, each from all its starts, and return the best end of each.

    There is one for each client, with equally many starts; a ValueError if they cannot be stacked.
    """
    first, restarts = problems[0], len(problems[0].starts)
    if first.attacker.method == "records":
        found = [attack_by_records(problems[0], on_progress)]
        for problem in problems[1:]:
            if found[-1].reason == "interrupted":
                raise KeyboardInterrupt
            found.append(attack_by_records(problem, on_progress))
        return found
    _require_one_program(problems)
    module = device_module(first.attacker.device)
    evaluator = Evaluator(
        stacked([problem.matching for problem in problems], restarts, module),
        compiled=first.settings.compiled,
    )
    starts = np.concatenate([problem.starts for problem in problems])
    recorders = [Recorder(problem, on_progress) for problem in problems]
    histories: list[list[float]] = [[] for _ in starts]
    state = interrupted = None
    try:
        for state in _states(problems, evaluator, starts, module):
            for start, history in enumerate(histories):
                if len(history) <= state.iterations[start]:
                    history.append(float(state.values[start]))
            best = _nearest(state.values)
            iterate = state.x[best], float(state.values[best]), int(state.iterations[best])
            if len(problems) == 1:
                recorders[0].snapshots.add(*iterate)
            recorders[best // restarts].tell(*iterate)
    except KeyboardInterrupt:
        if state is None:
            raise
        interrupted = "interrupted"
    assert state is not None
    found = []
    for client, recorder in enumerate(recorders):
        mine = slice(client * restarts, (client + 1) * restarts)
        best = mine.start + _nearest(state.values[mine])
        recorder.distances = histories[best]
        spent = int(state.iterations[best]), int(state.evaluations[mine].sum())
        reason = state.reasons[best] or interrupted
        found.append(recorder.conclude(state.x[best], *spent, reason))
    return found


def stacked(matchings: Sequence[Matching], restarts: int, module: Any) -> Matching:
    """Return many clients' problems as one, on a device: a leading axis R over clients and starts.

    The arrays of a single client are common to all its starts, and have no such axis.
    """

    def stack(arrays: Sequence[Array], axes: int) -> Array:
        alone = len(arrays) == 1
        together = arrays[0] if alone else np.repeat(np.stack(arrays), restarts, axis=0)
        return to_device(together, module)

    return with_arrays(matchings, stack)


def _require_one_program(problems: Sequence[Problem]) -> None:
    """Refuse problems that are not one program."""
    first = problems[0]
    for problem in problems:
        same = (
            problem.client.model == first.client.model
            and problem.starts.shape == first.starts.shape
            and problem.settings == first.settings
            and problem.attacker.method == first.attacker.method
            and problem.attacker.device == first.attacker.device
            and (problem.matching.precision is None) == (first.matching.precision is None)
            and problem.client.local == first.client.local
        )
        if not same:
            raise ValueError(
                "clients are attacked at once if they have one network, batch size and number of "
                "local steps, and attackers who know as much and use the same method, settings "
                "and device; attack these one by one"
            )


def _states(
    problems: Sequence[Problem], evaluator: Evaluator, starts: Array, module: Any
) -> Iterator[State]:
    """Yield where all attacks are, as the method moves them."""
    settings, method = problems[0].settings, problems[0].attacker.method
    if method == "levenberg-marquardt":
        state = unstarted(starts)
    else:
        for state in lbfgs_many(
            evaluator,
            to_device(starts.astype(settings.dtype), module),
            line_search=settings.line_search,
            history=settings.history,
            max_iterations=settings.most_iterations,
            inner_iterations=OUTER_STEP,
            goal=settings.near_enough,
        ):
            yield state
    if method != "lbfgs":
        yield from refine_all(
            evaluator.matching_of,
            [problem.client.last_layer for problem in problems],
            state,
            max_iterations=min(settings.iterations, MOST_ITERATIONS),
            goal=_goal(problems[0]),
        )


def _goal(problem: Problem) -> float:
    """Return the distance at which least squares is satisfied: no less than rounding leaves."""
    goal = problem.settings.near_enough
    least = GOALS.get(problem.client.dtype, goal) if problem.settings.goal is None else goal
    return max(goal, least)


def _nearest(distances: Array) -> int:
    """Return the index of the smallest distance; NaN counts as infinite."""
    return int(np.argmin(np.where(np.isfinite(distances), distances, np.inf)))
