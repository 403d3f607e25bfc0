"""Deep Leakage from Gradients: the attack.

Zhu, Liu and Han (NeurIPS 2019), algorithm 1: start from noise, and minimise the distance between
the gradient that the dummy makes and the gradient that was shared. What comes out is the data.

Lesson: lessons/08_deep_leakage.py
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tinyleak.attacks.matching import Matching
from tinyleak.attacks.result import Progress, Reconstruction
from tinyleak.attacks.settings import OUTER_STEP
from tinyleak.backend import Array
from tinyleak.optim.quasi_newton import lbfgs
from tinyleak.tensor import Tensor


def attack(
    client: Any,
    params: Mapping[str, Array] | None = None,
    gradients: Mapping[str, Array] | None = None,
    *,
    batch: int = 1,
    attacker: Any = None,
    on_progress: Callable[[Progress], None] | None = None,
    **knowledge: Any,
) -> Reconstruction:
    """Reconstruct a client's batch from the gradient it shared.

        found = attack(client)                                # a tinyleak.Client
        found = attack(model, params, gradients, batch=2)     # the same, in its parts

    Args:
        client: the client; or its network, followed by
        params: its weights, by name,
        gradients: the gradient of the cross-entropy over the batch, by name (a constant factor on
            the loss is read off it where the last layer tells), and
        batch: N, how many images the gradient was computed from.
        attacker: what the attacker brings, as one `tinyleak.Attacker`; or its fields as keywords:
            labels, seed, start, restarts, method, settings, defenses, precision, device.
        on_progress: called after each iteration.

    Returns:
        What was found. An interrupt (Ctrl-C) ends the attack early and keeps what it has.

    Raises:
        ValueError: weights or gradients that do not fit the network or are not finite; a number
            out of range; what cannot be combined.
        TypeError: an unknown keyword, or something else where an array is needed.
    """
    # Who the client is, what the attacker knows, and what is noted on the way, stand beside the
    # path that leads from here to `grad`.
    from tinyleak.attacks.many import run
    from tinyleak.attacks.problem import meet
    from tinyleak.attacks.recorder import Recorder

    problem = meet(client, params, gradients, batch, attacker, knowledge)
    if not problem.is_plain:  # restarts, a GPU, or least squares
        return run([problem], on_progress)[0]
    settings, recorder = problem.settings, Recorder(problem, on_progress)
    here, interrupted = None, None
    try:
        for here in lbfgs(
            objective(problem.matching, compiled=settings.compiled),
            problem.starts[0].astype(settings.dtype),
            line_search=settings.line_search,
            history=settings.history,
            max_iterations=settings.most_iterations,
            inner_iterations=OUTER_STEP,
            goal=settings.near_enough,
        ):
            recorder.note(here.x, here.value, here.iterations)
    except KeyboardInterrupt:
        if here is None:
            raise
        interrupted = "interrupted"
    assert here is not None, "the start is an iterate"
    reason = here.reason or interrupted
    return recorder.conclude(here.x, here.iterations, here.evaluations, reason)


def objective(
    matching: Matching, *, compiled: bool = True
) -> Callable[[Array], tuple[Array, Array]]:
    """Return the distance and its gradient as a function of arrays, z: (n,) → (), (n,).

    A graph is a program: the first evaluation traces it, and all others replay what was traced.
    This is the one place where the path from the attack to `grad` is made fast.
    """
    program: Any = None

    def evaluate(z: Array) -> tuple[Array, Array]:
        nonlocal program
        with np.errstate(all="ignore"):  # far from a solution overflow is expected, and handled
            if not compiled:
                value, gradient = matching.value_and_gradient(Tensor(z))
                return value.data, gradient.data
            if program is None:
                from tinyleak.program import trace

                program = trace(matching.value_and_gradient, z, check=False)
            value, gradient = program(z)
            return value, gradient

    return evaluate
