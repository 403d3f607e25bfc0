"""The pattern of a network's kinks as an unknown, beside the image.

A search that has come near ends where its pattern of active units, and of largest elements, is not
the client's: there the gradient of the layers below jumps. But with the element c that is chosen
now, the largest of a few is

    x_c + Σₛ mₛ (xₛ − x_c),   mₛ in [0, 1],

where all m are 0, or the right one is 1. With m as further unknowns the residual is smooth, and the
client's image with the client's pattern is a solution. Only those m are free that may be wrong:
where xₛ is nearer to x_c than the search is expected to be to the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np

from tinyleak.attacks.kinks import AtKink, Choices, Kinks
from tinyleak.backend import Array
from tinyleak.ops import add, reshape
from tinyleak.optim.truncated import Reached, Traced, truncated_gauss_newton
from tinyleak.tensor import Tensor

BAND = 4.0
"""How near an element must be to the one that is chosen, in units of the spread of what is compared
and of the relative distance that is left. 1 and 4 both bring back what 2 wrong units stopped."""

ROUNDS, PROGRESS, STEPS = 20, 0.9, 30
"""How often the pattern is set free, at most; to what share of itself the distance with a free one
must fall each time; and steps of Gauss and Newton. Images of 3,072 pixels take six to twelve."""


def solve_for_pattern(
    kinks: Kinks,
    apart: Callable[[Tensor, AtKink], Tensor],
    exact: Traced,
    image: Array,
    goal: float,
    lowest: float,
    highest: float,
    near: Reached,
    rounds: int = ROUNDS,
) -> Reached:
    """Return the best image that is found with its pattern as an unknown.

    Args:
        kinks: of the network below the layer that shows its features.
        apart: the residual of pixels, (n,), with something else at the kinks.
        exact: the residual of the network itself.
        image: (1, C, H, W), any.
        goal: a value that is small enough.
        lowest: what pixels are at least.
        highest: what they are at most.
        near: where another search ended.
        rounds: how often the pattern is set free, at most.
    """
    size, sizes = image.size, [len(each.elements) * each.many for each in kinks.at(Tensor(image))]
    ends, masks = np.cumsum(sizes, dtype=int), int(np.sum(sizes, dtype=int))

    def function(x: Tensor, chosen: Tensor, free: Tensor) -> Tensor:
        share = x[size:] * free

        def mixed(number: int, choices: Choices) -> Tensor:
            shape = (len(choices.elements), choices.many)
            own = slice(ends[number] - sizes[number], ends[number])
            now, new = (reshape(one[own], shape) for one in (chosen, share))
            return _mixed(choices.elements, now, new)

        return apart(x[:size], mixed)

    free_to_choose = Traced(function, size + masks, np.zeros(masks), np.zeros(masks))
    least = np.concatenate([np.full(size, lowest), np.zeros(masks)])
    most = np.concatenate([np.full(size, highest), np.ones(masks)])
    best, here, before = near, near, math.inf
    for _ in range(rounds):
        chosen, gaps = _pattern(kinks.at(Tensor(here.x.reshape(image.shape))))
        free_to_choose.held = chosen, 1.0 * (gaps < BAND * math.sqrt(here.value))
        start = np.concatenate([here.x, np.zeros(masks)])
        end = truncated_gauss_newton(
            free_to_choose, start, lowest=least, highest=most, steps=STEPS, goal=goal
        )
        here = Reached(end.x[:size], float(np.sum(exact.value(end.x[:size]) ** 2)))
        best = min(best, here, key=lambda reached: reached.value)
        if best.value <= goal or end.value > PROGRESS * before:
            break
        before = end.value
    return best


def _mixed(elements: Sequence[Tensor], chosen: Tensor, shares: Tensor) -> Tensor:
    """Return x_c + Σₛ mₛ (xₛ − x_c), (n,), with c and mₛ by element: (S, n)."""
    now = reduce(add, [x * chosen[s] for s, x in enumerate(elements)])
    return reduce(add, [(x - now) * shares[s] for s, x in enumerate(elements)], now)


def _pattern(kinks: Sequence[Choices]) -> tuple[Array, Array]:
    """Return which elements are chosen, 1 or 0, and how far those that are not are from it.

    One number for each element of each choice, in a row: the distance in units of what the kink
    compares, infinite for the one that is chosen, and for what lies outside an image.
    """
    chosen, gaps = [np.zeros(0)], [np.zeros(0)]
    for choices in kinks:
        there = np.stack(choices.inside) > 0
        values = np.where(there, np.stack([x.data for x in choices.elements]), -np.inf)
        largest = np.arange(len(values))[:, None] == np.argmax(values, axis=0)
        gap = (np.max(values, axis=0) - values) / choices.spread
        chosen.append(1.0 * largest.ravel())
        gaps.append(np.where(largest, np.inf, gap).ravel())
    return np.concatenate(chosen), np.concatenate(gaps)
