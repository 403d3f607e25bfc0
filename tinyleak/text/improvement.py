"""Local search: whole words, changed one or two at a time while the gradient comes nearer.

Under noise a wrong word may come nearer by chance: along one change of the gradient, noise of
variance v shortens a squared distance by v on average, and along the luckiest of n changes by about
2 v ln n (the universal threshold of Donoho and Johnstone 1994). What comes no nearer than that is
left alone.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple, TypeAlias

import numpy as np

from tinyleak.backend import Array
from tinyleak.text.distance import Distance, Guess, stacked

Change: TypeAlias = dict[int, tuple[int, int]]
"""At some positions of a guess laid flat: what the model is to read there, and the answer or −1."""

NEAREST = 24
"""How many words are tried at a position at first, the nearest; if none helps, all others are."""

MOST_TRIED = 14_000
"""All others are tried if they are at most so many, at all positions together: of 8 tokens, and in
a BERT of width 64, that takes nine seconds."""

MUCH_FARTHER = 10.0
"""A guess stands out if all other words are so many times as far from the gradient. Where a client
has rounded its gradient, the right words do, though their distance cannot be predicted."""

SUCCESSORS = 3  # how many words are tried at a position that a hidden word leaves


class Improved(NamedTuple):
    """Whole words that no change of one or two improves, or that need none."""

    guess: Guess  # (N, T)
    value: float  # its distance
    sure: bool  # `alone`, or the gradient is the shared one but for rounding or noise
    alone: bool  # no other words come near; under strong noise, many may be sure


def local_search(
    distance: Distance,
    guess: Guess,
    open_positions: Array,
    rankings: Sequence[Array],
    enough: float,
    variance: float = 0.0,
) -> Improved:
    """Improve a guess by other words, by exchanges, and by other positions for the hidden words.

    It ends where no change helps, or where the guess stands out: where with the likeliest other
    word at any position, and after any exchange, the gradient would be much farther away.

    Args:
        distance: what is minimised.
        guess: (N, T).
        open_positions: (F,) the positions in question, in the guess laid flat.
        rankings: (F, V) each, how near a word is there, in one way or another; −∞ if not allowed.
        enough: the distance that rounding or noise alone explains.
        variance: of the noise on each entry of the gradient.
    """
    value = float(distance.of_guesses(stacked([guess]))[0])
    few: dict[int, list[int]] = {position: [] for position in open_positions.tolist()}
    rest: dict[int, list[int]] = {position: [] for position in few}
    for ranking in rankings:
        for position, nearness in zip(few, ranking, strict=True):
            ranked = [word for word in np.argsort(-nearness).tolist() if nearness[word] > -np.inf]
            few[position] = list(dict.fromkeys([*few[position], *ranked[:NEAREST]]))
            rest[position] = [word for word in ranked if word not in few[position]]
    if sum(map(len, rest.values())) > MOST_TRIED:
        rest = {}
    luck = distance.of_noise(variance) / distance.entries

    def needs_none() -> bool:
        if value <= enough and variance == 0.0:
            return True
        near = enough if value <= enough else MUCH_FARTHER * value
        return _stands_out(distance, guess, few, near)

    improved, done = True, needs_none()
    while improved and not done:
        for changes in (
            _other_words(guess, few),
            _exchanges(guess, few),
            _other_hiding(guess, few),
            _other_words(guess, rest),
        ):
            guess, lower = _best_of(distance, guess, value, changes, luck)
            improved, value = lower < value, lower
            if improved:
                break
        done = needs_none()
    return Improved(guess, value, done or value <= enough, done)


def _stands_out(distance: Distance, guess: Guess, words: dict[int, list[int]], near: float) -> bool:
    """Return whether no likeliest other word at a position, and no exchange, comes that near."""
    likeliest = {position: some[:2] for position, some in words.items()}
    for changes in (_other_words(guess, likeliest), _exchanges(guess, words)):
        others = [_changed(guess, change) for change in changes]
        if others and distance.of_guesses(stacked(others)).min() <= near:
            return False
    return True


def _best_of(
    distance: Distance, guess: Guess, value: float, changes: list[Change], luck: float
) -> tuple[Guess, float]:
    """Make the change that helps most, and then those of the others, elsewhere, that help too."""
    if not changes:
        return guess, value
    least = 2.0 * luck * np.log(len(changes))
    distances = distance.of_guesses(stacked([_changed(guess, change) for change in changes]))
    taken: set[int] = set()
    helpful = [which for which in np.argsort(distances) if distances[which] < value - least]
    for which in helpful:
        change = changes[which]
        if taken.isdisjoint(change):
            candidate = _changed(guess, change)
            lower = float(distance.of_guesses(stacked([candidate]))[0])
            if lower < value - least:
                guess, value = candidate, lower
                taken |= set(change)
    return guess, value


def _other_words(guess: Guess, words: dict[int, list[int]]) -> list[Change]:
    """Return each other word at each position that is not hidden."""
    inputs, answers = guess.inputs.ravel(), guess.answers.ravel()
    return [
        {position: (word, -1)}
        for position, others in words.items()
        for word in others
        if answers[position] < 0 and word != inputs[position]
    ]


def _exchanges(guess: Guess, words: dict[int, list[int]]) -> list[Change]:
    """Return the exchanges of what stands at two positions, where both may stand there."""
    inputs, answers = guess.inputs.ravel(), guess.answers.ravel()
    stands = {position: (int(inputs[position]), int(answers[position])) for position in words}
    return [
        {first: stands[second], second: stands[first]}
        for first, second in combinations(words, 2)
        if stands[first] != stands[second]
    ]


def _other_hiding(guess: Guess, words: dict[int, list[int]]) -> list[Change]:
    """Return each hidden word at each other position, with some word where it has left."""
    inputs, answers = guess.inputs.ravel(), guess.answers.ravel()
    hidden = [position for position in words if answers[position] >= 0]
    return [
        {position: (word, -1), other: (int(inputs[position]), int(answers[position]))}
        for position in hidden
        for other in words
        if answers[other] < 0
        for word in words[position][:SUCCESSORS]
    ]


def _changed(guess: Guess, change: Change) -> Guess:
    inputs, answers = guess.inputs.copy(), guess.answers.copy()
    for position, (word, answer) in change.items():
        inputs.flat[position], answers.flat[position] = word, answer
    return Guess(inputs, answers)
