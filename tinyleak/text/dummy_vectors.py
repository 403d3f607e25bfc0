"""`match`: words as free vectors, moved until their gradient is the one that was shared.

Deep Leakage from Gradients (Zhu, Liu, Han 2019), section 4.2, with the embedding table's gradient
hidden. The attacker knows the network and its weights, all other parameters' gradients, how many
tokens each sentence has, with its start and end, and how many are hidden. It does not know which
are hidden; the hidden words, but not their positions, it reads off the output bias's gradient.

L-BFGS moves the vectors of all words and the positions of the hidden ones together. Every few
iterations they are rounded to words, and these are judged by their own gradient: the right sentence
has a distance of zero, so it is known when it is found. Where rounding leaves some words wrong,
others are tried in their stead, one or two at a time, and L-BFGS starts again from the result.
"""

from collections.abc import Sequence

import numpy as np

from tinyleak.backend import Array
from tinyleak.interop import whole
from tinyleak.optim import lbfgs_many
from tinyleak.text.client import TextClient
from tinyleak.text.distance import EXACT, Distance, Guess, require_bert, stacked
from tinyleak.text.hidden import named_answers
from tinyleak.text.improvement import Improved, local_search
from tinyleak.text.relaxed import Relaxation, any_word
from tinyleak.text.result import FoundText, OnProgress, Snapshot

EVERY = 10  # after how many iterations the sentences are read each time

DEVIATIONS = 3.0
"""How many standard deviations the noise may be stronger than it is estimated to be: estimated by
K numbers, a variance is off by √(2 / K) of itself."""

EXPONENTS = (1.0, 0.25)
"""The weighting exponents, round by round: networks differ in which of them succeeds."""

NOISY_EXPONENTS = (0.5, 0.25)  # the same under noise, which dominates small tensors

LIKELIHOOD = 0.0
"""The weighting exponent by which whole words are judged under noise: for noise that is the same
everywhere, plain squares are the negative logarithm of the likelihood."""


def match(
    client: TextClient,
    *,
    seed: int = 0,
    start: Array | None = None,
    on_progress: OnProgress | None = None,
    iterations: int = 300,
    rounds: int = 6,
    restarts: int = 4,
) -> FoundText:
    """Find the sentences by matching the gradient.

    Args:
        client: the client, of a BERT.
        seed: decides the starts.
        start: (N, T) tokens to start near; near the mean of the words, if None.
        on_progress: called with a snapshot, every 10 iterations.
        iterations: of L-BFGS in a round, at most.
        rounds: how often to begin again, at most.
        restarts: how many starts a round has, as one batch.

    Raises:
        ValueError: a gradient of zeros, a network that is not a BERT, a start of another shape or
            with tokens that the vocabulary does not have, or a count below 1.
    """
    require_bert(client)
    require_counts(iterations, rounds, restarts)
    search = Search(client, any_word(client), seed, on_progress, start=start)
    return search.rounds(rounds, iterations, restarts)


class Search:
    """Rounds of L-BFGS and of local search, until the sentences' gradient is the shared one.

    Args:
        client: the client.
        allowed: (N, T, V) which words may stand at which position.
        seed: decides the starts.
        on_progress: called with each snapshot.
        likely: (T, V) each, how likely words are at each position beforehand, in one way or
            another.
        start: (N, T) tokens to start near.
        mixed: whether to move mixtures of the allowed words, and not free vectors.
    """

    def __init__(
        self,
        client: TextClient,
        allowed: Array,
        seed: int,
        on_progress: OnProgress | None = None,
        likely: Sequence[Array] = (),
        start: Array | None = None,
        mixed: bool = False,
    ) -> None:
        self.likely, self.start = likely, None if start is None else _as_guess(client, start)
        self.client, self.allowed, self.mixed = client, allowed, mixed
        self.rng, self.on_progress = np.random.default_rng(seed), on_progress
        self.answers, self.noise = named_answers(client), client.noise
        noisy = self.noise > 0.0
        self._schedule = NOISY_EXPONENTS if noisy else EXPONENTS
        self.judge = Distance(client, LIKELIHOOD if noisy else EXPONENTS[0])
        self.enough = EXACT
        if noisy:
            margin = 1.0 + DEVIATIONS * np.sqrt(2.0 / client.tables.unused.size)
            self.enough = margin * self.judge.of_noise(self.noise)
        self.best: Improved | None = None
        self.history: list[Snapshot] = []
        self._finished = self._under_way = self._iteration = 0

    def consider(self, guesses: list[Guess]) -> None:
        """Judge sentences that came from elsewhere, and improve the best of them."""
        values = self.judge.of_guesses(stacked(guesses))
        guess = guesses[int(np.argmin(values))]
        self._report(guess, float(values.min()))
        self._take(self._improve(guess))

    def rounds(self, count: int, iterations: int, starts: int) -> FoundText:
        """Go through rounds until the gradient is matched, and return the best sentences of all."""
        for number in range(count):
            if self.best is not None and self.best.sure:
                break
            self.round(iterations, starts, self._schedule[number % len(self._schedule)])
        return self.found()

    def round(self, iterations: int, starts: int, exponent: float) -> None:
        """Minimise from some starts, half of them near the best sentences so far; then improve."""
        distance = Distance(self.client, exponent)
        relaxation = Relaxation(distance, self.answers, self.allowed, self.mixed)
        z = relaxation.start(self.rng, starts, self.start)
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
            self._under_way = relaxation.evaluations
            read = [relaxation.read(row) for row in state.x]
            distances = self.judge.of_guesses(stacked([guess for guess, _ in read]))
            which = int(np.argmin(distances))
            if nearest is None or distances[which] < nearest[0]:
                nearest = (float(distances[which]), *read[which])
            self._report(read[which][0], float(distances[which]))
            if nearest[0] <= self.enough:
                break
        assert nearest is not None
        self._take(self._improve(*nearest[1:]))
        self._finished, self._under_way = self._finished + relaxation.evaluations, 0

    def _take(self, improved: Improved) -> None:
        if self.best is None or improved.value < self.best.value:
            self.best = improved

    def _improve(self, guess: Guess, nearness: Array | None = None) -> Improved:
        """Search among the allowed words: those first that are nearest, or likely beforehand."""
        rankings = [] if nearness is None else [nearness]
        words = self.client.words
        for likely in self.likely:
            ranking = np.where(self.allowed, likely, -np.inf)[words]
            ranking[:, self.client.special.mask] = -np.inf
            rankings.append(ranking)
        positions = np.flatnonzero(words)
        improved = local_search(self.judge, guess, positions, rankings, self.enough, self.noise)
        self._report(improved.guess, improved.value)
        return improved

    def found(self) -> FoundText:
        """Return the best sentences of all rounds."""
        assert self.best is not None
        guess, value, sure, alone = self.best
        self._report(guess, value)
        reason = "out of rounds"
        if value <= self.enough:
            noisy = self.noise > 0.0
            reason = "as near as the noise allows" if noisy else "the gradient is matched"
        elif sure:
            reason = "no other word comes near"
        if not (guess.answers >= 0).any(axis=-1).all():
            # It adds nothing to the loss, so its words have no part in the gradient.
            alone, reason = False, "any words would do where a sentence hides none"
        return FoundText(self.client, guess.tokens, self.history, reason, alone, self.evaluations)

    @property
    def evaluations(self) -> int:
        """How often an objective was evaluated: by the rounds, and to judge sentences."""
        return self._finished + self._under_way + self.judge.evaluations

    def _report(self, guess: Guess, value: float) -> None:
        snapshot = Snapshot(self._iteration, guess.tokens, value, self.evaluations)
        self.history.append(snapshot)
        if self.on_progress is not None:
            self.on_progress(snapshot)


def require_counts(iterations: int, rounds: int, restarts: int) -> None:
    """Refuse what is not a whole number, with TypeError, and a count below 1, with ValueError."""
    asked = {"iterations": iterations, "rounds": rounds, "restarts": restarts}
    for name, count in asked.items():
        whole(count, 1, f"{{}} {name} were asked for; give a whole number of at least 1")


def _as_guess(client: TextClient, start: Array) -> Guess:
    """Return a guess of these sentences, (N, T), with no word marked as hidden."""
    tokens = np.array(start)
    fits = tokens.shape == client.shape and np.issubdtype(tokens.dtype, np.integer)
    if not fits or tokens.min() < 0 or tokens.max() >= client.model.vocabulary:
        raise ValueError(
            f"a start of shape {tokens.shape} was given; give tokens of shape {client.shape}, "
            f"whole numbers in [0, {client.model.vocabulary})"
        )
    return Guess(tokens, np.full(tokens.shape, -1))
