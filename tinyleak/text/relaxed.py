"""Sentences made continuous, so that L-BFGS can move them.

Deep Leakage from Gradients (Zhu, Liu, Han 2019), section 4.2: where the images' attack moves
pixels, this one moves the vectors of the words, and then reads at each place the word whose vector
is nearest. What is to be guessed is continuous too: each hidden word has a distribution over the
places where it may have stood, and as far as it stands at a place, the model reads [MASK] there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from tinyleak.backend import Array
from tinyleak.gradient import grad
from tinyleak.nn.losses import softmax
from tinyleak.nn.models.bert import POSITIONS, WORDS
from tinyleak.ops import reshape, sum, swap_last_axes
from tinyleak.program import trace
from tinyleak.tensor import Tensor
from tinyleak.text.client import SharedText
from tinyleak.text.distance import Distance, Guess

SPREAD = 0.1
"""How far apart the starts are, in standard deviations of the embedding table."""

NEARBY = 0.5
"""The same for starts near a guess."""

LEANING = 2.0
"""With what power of a place's gradient a hidden word is there at the start."""

FAVOUR = 3.0
"""The logit by which starts near a guess favour what it says."""

FORBIDDEN = -1e3
"""The logit of what is not allowed."""


class Relaxation:
    """The distance as a function of z, (R, n), for R starts at once.

    A row of z is the words at the F places that are open, then for each of the M hidden words the
    logits of its place among these. A word is its free embedding, d numbers; or, `mixed`, the
    logits of a mixture of the words that are allowed at that place.

    Args:
        distance: from the shared gradient.
        answers: the M hidden words.
        allowed: (N, T, V) which words may stand at which place.
        mixed: whether the words are mixtures.
    """

    def __init__(
        self, distance: Distance, answers: Sequence[int], allowed: Array, mixed: bool = False
    ) -> None:
        shared = self._shared = distance.shared
        self.distance, self.answers, self.mixed = distance, list(answers), mixed
        self.table = distance.params[WORDS]
        self.open = np.flatnonzero(shared.words)
        self.known = known_tokens(shared)
        self._place = self.open % shared.shape[1]
        self._seen = first_inputs(distance, self.table)[self._place]
        self._may = allowed[shared.words]
        self._may_hide = self._may[:, shared.special.mask].copy()
        self._may[:, shared.special.mask] = False
        # Where only [MASK] is allowed no word is read, but for a mixture there must be one.
        self._may[~self._may.any(axis=1)] = True
        self._put = np.zeros((shared.words.size, len(self.open)))
        self._put[self.open, np.arange(len(self.open))] = 1.0
        known = self.table[self.known.ravel()] * ~shared.words.ravel()[:, np.newaxis]
        # Constants of the graph.
        self._constants = [
            Tensor(array)
            for array in (
                *(self._put, known, np.eye(len(self.table))[self.answers]),
                *(np.where(may, 0.0, FORBIDDEN) for may in (self._may, self._may_hide)),
            )
        ]
        self._programs: dict[int, Callable[..., tuple[Array, ...]]] = {}
        self.evaluations = 0

    @property
    def _columns(self) -> int:
        """How many numbers of a row of z are one word's."""
        return self.table.shape[0 if self.mixed else 1]

    @property
    def _size(self) -> int:
        """How many numbers of a row of z are the words'."""
        return len(self.open) * self._columns

    def start(self, rng: np.random.Generator, lanes: int, near: Guess | None = None) -> Array:
        """Draw R starts, (R, n): words near the mean of those allowed, or near those of a guess."""
        count, columns = len(self.open), self._columns
        words = rng.standard_normal((lanes, count, columns))
        places = SPREAD * rng.standard_normal((lanes, len(self.answers), count))
        if not self.mixed:
            spread = (SPREAD if near is None else NEARBY) * self.table.std()
            middle = self._may / self._may.sum(axis=1, keepdims=True) @ self.table
            words = spread * words + (middle if near is None else 0.0)
        if near is None:
            places += LEANING * self._leaning()
        else:
            inputs, answers = (part.ravel()[self.open] for part in near)
            chosen = np.eye(len(self.table))[inputs]
            words += FAVOUR * chosen if self.mixed else chosen @ self.table
            left: list[int | None] = [*self.answers]
            for place in np.flatnonzero(answers >= 0):
                which = left.index(int(answers[place]))
                left[which] = None
                places[:, which, place] += FAVOUR
        return np.concatenate([words.reshape(lanes, -1), places.reshape(lanes, -1)], axis=1)

    def _leaning(self) -> Array:
        """Return the logarithm of each open place's gradient, beside the largest: (F,)."""
        by_place = np.linalg.norm(self._shared.gradients[POSITIONS].astype(float), axis=1)
        sizes = np.maximum(by_place[self._place], np.finfo(float).tiny)
        return np.asarray(np.log(sizes / sizes.max()))

    def parts(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings (R, N, T, d) and targets (R, N, T, V) that z stands for."""
        put, known, one_hot, word_logits, hidden_logits = self._constants
        lanes, shape = z.shape[0], (z.shape[0], *self._shared.shape, -1)
        words = reshape(z[:, : self._size], (lanes, len(self.open), self._columns))
        logits = reshape(z[:, self._size :], (lanes, len(self.answers), len(self.open)))
        if self.mixed:
            words = softmax(words + word_logits) @ Tensor(self.table)
        places = softmax(logits + hidden_logits)
        hidden = reshape(sum(places, -2), (lanes, len(self.open), 1))
        mask = Tensor(self.table[self._shared.special.mask])
        words = words * (1.0 - hidden) + hidden * mask
        targets = put @ (swap_last_axes(places) @ one_hot)
        return reshape(put @ words + known, shape), reshape(targets, shape)

    def value_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distances (R,) and the gradient of each by its own row of z, (R, n)."""
        distances = self.distance.of(*self.parts(z))
        return distances, grad(sum(distances), [z])[0]

    def __call__(self, z: Array, rows: npt.NDArray[np.int64]) -> tuple[Array, Array]:
        """Evaluate as L-BFGS wants it."""
        if len(rows) not in self._programs:
            self._programs[len(rows)] = trace(self.value_and_gradient, z, check=False)
        self.evaluations += len(rows)
        with np.errstate(all="ignore"):  # L-BFGS draws back where a wild step overflows
            values, gradients = self._programs[len(rows)](z)
        return values, gradients

    def read(self, row: Array) -> tuple[Guess, Array]:
        """Return the sentences that are nearest to a row of z, (n,).

        Returns:
            The guess; and (F, V) how near each word is at each open place, −∞ if not allowed.
        """
        from scipy.optimize import linear_sum_assignment

        words = row[: self._size].reshape(len(self.open), -1)
        nearness = words
        if not self.mixed:
            # Nearest as the first layer sees it, which is all that the gradient tells of a word.
            seen = first_inputs(self.distance, words)[self._place, np.arange(len(words))]
            nearness = -np.square(self._seen - seen[:, np.newaxis]).sum(axis=-1)
        nearness = np.where(self._may, nearness, -np.inf)
        places = row[self._size :].reshape(len(self.answers), len(self.open))
        which, where = linear_sum_assignment(
            np.where(self._may_hide, places, FORBIDDEN), maximize=True
        )
        inputs, answers = self.known.copy(), np.full(self.known.shape, -1)
        inputs.flat[self.open] = np.argmax(nearness, axis=1)
        inputs.flat[self.open[where]] = self._shared.special.mask
        answers.flat[self.open[where]] = np.array(self.answers)[which]
        return Guess(inputs, answers), nearness


def known_tokens(shared: SharedText) -> Array:
    """Return (N, T) with what is known without any attack: starts, ends, and padding elsewhere."""
    special = shared.special
    tokens = np.full(shared.shape, special.pad)
    tokens[:, 0] = special.start
    tokens[np.arange(len(tokens)), np.array(shared.lengths) - 1] = special.end
    return tokens


def any_word(shared: SharedText) -> Array:
    """Return (N, T, V), true for each token that may stand where nothing is known: all but three.

    [MASK] may; a start, an end or padding may not.
    """
    special = shared.special
    allowed = np.ones((*shared.shape, shared.model.vocabulary), bool)
    allowed[..., [special.pad, special.start, special.end]] = False
    return allowed


def first_inputs(distance: Distance, words: Array) -> Array:
    """Return what the first layer sees of F word embeddings (F, d) at each place, (T, F, d)."""
    model, length = distance.shared.model, distance.shared.shape[1]
    params = {name: Tensor(array) for name, array in distance.params.items()}
    everywhere = np.repeat(words[:, np.newaxis], length, axis=1)
    return np.asarray(np.swapaxes(model.first_input(params, Tensor(everywhere)).data, 0, 1))
