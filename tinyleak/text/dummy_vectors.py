"""`match`: words as free vectors, moved until their gradient is the one that was shared.

Deep Leakage from Gradients (Zhu, Liu, Han 2019), section 4.2, with the embedding table's gradient
hidden. The attacker knows the network and its weights, all other parameters' gradients, how many
tokens each sentence has, with its start and end, and how many are hidden. It does not know which
are hidden; the hidden words, but not their places, it reads off the output bias's gradient.

L-BFGS moves the vectors of all words and the places of the hidden ones together. Every few
iterations they are rounded to words, and these judged by their own gradient: the right sentence
has a distance of zero, so it is known when it is found. Where rounding leaves some words wrong,
others are tried in their places, one or two at a time, and L-BFGS starts again from the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyleak.backend import Array
from tinyleak.optim import lbfgs_many
from tinyleak.text.client import SharedText
from tinyleak.text.distance import (
    EXACT,
    Distance,
    Guess,
    named_answers,
    noise_variance,
    stacked,
    unused_entries,
)
from tinyleak.text.local_search import Polished, polish
from tinyleak.text.relaxed import Relaxation, any_word
from tinyleak.text.result import Found, OnReading, Reading

EVERY = 10
"""After how many iterations the sentences are read."""

DEVIATIONS = 3.0
"""How many standard deviations the noise may be stronger than it is estimated to be: estimated by
K numbers, a variance is off by √(2 / K) of itself."""

EVENNESS = (1.0, 0.25)
"""How evenly tensors are weighted, round by round: networks differ in which of them succeeds."""

NOISY_EVENNESS = (0.5, 0.25)
"""The same under noise, which is most of what small tensors hold."""

LIKELIHOOD = 0.0
"""The evenness by which whole words are judged under noise: of noise that is the same everywhere,
plain squares are the likelihood."""


def match(
    shared: SharedText,
    *,
    seed: int = 0,
    on_reading: OnReading | None = None,
    iterations: int = 300,
    rounds: int = 6,
    starts: int = 4,
    **options: Any,
) -> Found:
    """Find the sentences by matching the gradient.

    Args:
        shared: what the client shared.
        seed: decides the starts.
        on_reading: called with each reading, every 10 iterations.
        iterations: of L-BFGS in a round, at most.
        rounds: how often to begin again, at most.
        starts: how many starts a round has, as one batch.
        options: ignored: other methods' own.

    Raises:
        ValueError: a gradient of zeros.
    """
    search = Search(shared, any_word(shared), seed, on_reading)
    return search.rounds(rounds, iterations, starts)


class Search:
    """Rounds of L-BFGS and of polishing, until sentences are found whose gradient is the shared.

    Args:
        shared: what the client shared.
        allowed: (N, T, V) which words may stand at which place.
        seed: decides the starts.
        on_reading: called with each reading.
        mixed: move mixtures of the allowed words in place of free vectors.
        likely: (T, V) each, how likely words are at each place beforehand, in one way or another.
    """

    def __init__(
        self,
        shared: SharedText,
        allowed: Array,
        seed: int,
        on_reading: OnReading | None = None,
        mixed: bool = False,
        likely: Sequence[Array] = (),
    ) -> None:
        self.likely = likely
        self.shared, self.allowed, self.mixed = shared, allowed, mixed
        self.rng = np.random.default_rng(seed)
        self.on_reading = on_reading
        self.answers = named_answers(shared)
        self.noise = noise_variance(shared)
        noisy = self.noise > 0.0
        self._schedule = NOISY_EVENNESS if noisy else EVENNESS
        self.judge = Distance(shared, LIKELIHOOD if noisy else EVENNESS[0])
        self.enough = EXACT
        if noisy:
            margin = 1.0 + DEVIATIONS * np.sqrt(2.0 / unused_entries(shared).size)
            self.enough = margin * self.judge.of_noise(self.noise)
        self.best: Polished | None = None
        self.history: list[Reading] = []
        self.evaluations = 0
        self._iteration = 0

    def consider(self, guesses: list[Guess]) -> None:
        """Judge sentences that came from elsewhere, and polish the best of them."""
        values = self.judge.of_guesses(stacked(guesses))
        guess = guesses[int(np.argmin(values))]
        self._report(guess, float(values.min()))
        self._take(self._polish(guess))

    def rounds(self, count: int, iterations: int, starts: int) -> Found:
        """Go through rounds until the gradient is matched, and return the best sentences of all."""
        for number in range(count):
            if self.best is not None and self.best.sure:
                break
            self.round(iterations, starts, self._schedule[number % len(self._schedule)])
        return self.found()

    def round(self, iterations: int, starts: int, evenness: float) -> None:
        """Minimise from some starts, half of them near the best sentences so far; then polish."""
        relaxation = Relaxation(
            Distance(self.shared, evenness), self.answers, self.allowed, self.mixed
        )
        z = relaxation.start(self.rng, starts)
        if self.best is not None:
            half = (starts + 1) // 2
            z[:half] = relaxation.start(self.rng, half, self.best.guess)
        nearest: tuple[float, Guess, Array] | None = None
        before, last = self._iteration, -EVERY
        for state in lbfgs_many(relaxation, z, max_iterations=iterations):
            now = int(state.iterations.max())
            if now < last + EVERY and not state.finished.all():
                continue
            last, self._iteration = now, before + now
            readings = [relaxation.read(row) for row in state.x]
            distances = self.judge.of_guesses(stacked([guess for guess, _ in readings]))
            which = int(np.argmin(distances))
            if nearest is None or distances[which] < nearest[0]:
                nearest = (float(distances[which]), *readings[which])
            self._report(readings[which][0], float(distances[which]))
            if nearest[0] <= self.enough:
                break
        assert nearest is not None
        self._take(self._polish(*nearest[1:]))
        self.evaluations += relaxation.evaluations

    def _take(self, polished: Polished) -> None:
        if self.best is None or polished.value < self.best.value:
            self.best = polished

    def _polish(self, guess: Guess, nearness: Array | None = None) -> Polished:
        """Polish among the allowed words: those first that are nearest, or likely beforehand."""
        rankings = [] if nearness is None else [nearness]
        words = self.shared.words
        for likely in self.likely:
            ranking = np.where(self.allowed, likely, -np.inf)[words]
            ranking[:, self.shared.special.mask] = -np.inf
            rankings.append(ranking)
        places = np.flatnonzero(words)
        polished = polish(self.judge, guess, places, rankings, self.enough, self.noise)
        self._report(polished.guess, polished.value)
        return polished

    def found(self) -> Found:
        """Return the best sentences of all rounds."""
        assert self.best is not None
        guess, value, sure = self.best
        self._report(guess, value)
        reason = "out of rounds"
        if value <= self.enough:
            reason = (
                "as near as the noise allows" if self.noise > 0.0 else "the gradient is matched"
            )
        elif sure:
            reason = "no other word comes near"
        evaluations = self.evaluations + self.judge.evaluations
        return Found(guess.tokens, self.history, reason, evaluations)

    def _report(self, guess: Guess, value: float) -> None:
        reading = Reading(self._iteration, guess.tokens, value)
        self.history.append(reading)
        if self.on_reading is not None:
            self.on_reading(reading)
