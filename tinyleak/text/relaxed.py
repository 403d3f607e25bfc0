"""Sentences made continuous, so that L-BFGS can move them.

Deep Leakage from Gradients (Zhu, Liu, Han 2019), section 4.2: where the images' attack moves
pixels, this one moves the vectors of the words, and then reads at each position the word whose
vector is nearest. The hidden words are continuous too: each has a distribution over the positions
where it may have stood, and to the extent that it stands at one, the model reads [MASK] there.
"""

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
from tinyleak.text.client import TextClient
from tinyleak.text.distance import Distance, Guess
from tinyleak.text.hidden import exact_params
from tinyleak.text.row_space import BEFORE_FIRST_LAYER, first_inputs

SPREAD = 0.1  # how far apart the starts are, in standard deviations of the embedding table
NEARBY = 0.5  # the same for starts near a guess

LEANING = 2.0
"""At the start a hidden word is at each position in proportion to that power of its gradient."""

FAVOUR = 3.0  # the logit by which starts near a guess favour its words and hidden positions
FORBIDDEN = -1e3  # the logit of what is not allowed


class Relaxation:
    """The distance as a function of z, (R, n), for R starts at once.

    A row of z is the words at the F positions that are open, then for each of the M hidden words,
    the `answers`, the logits of its position among these. A word is its free embedding, d numbers;
    or, `mixed`, the logits of a mixture of the words that are `allowed`, (N, T, V), at that
    position.
    """

    def __init__(
        self, distance: Distance, answers: Sequence[int], allowed: Array, mixed: bool = False
    ) -> None:
        client = self._client = distance.client
        self.distance, self.answers, self.mixed = distance, list(answers), mixed
        self.table = distance.params[WORDS]
        self.open = np.flatnonzero(client.words)
        self.known = client.known_tokens
        self._before = exact_params(client, *BEFORE_FIRST_LAYER)
        self._position = self.open % client.shape[1]
        self._seen = first_inputs(client, self._before, self.table)[self._position]
        self._may = allowed[client.words]
        self._may_hide = self._may[:, client.special.mask].copy()
        self._may[:, client.special.mask] = False
        # Where only [MASK] is allowed no word is read, but a mixture needs at least one.
        self._may[~self._may.any(axis=1)] = True
        self._put = np.zeros((client.words.size, len(self.open)))
        self._put[self.open, np.arange(len(self.open))] = 1.0
        known = self.table[self.known.ravel()] * ~client.words.ravel()[:, np.newaxis]
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
        """How many numbers of a row of z belong to one word."""
        return self.table.shape[0 if self.mixed else 1]

    @property
    def _size(self) -> int:
        """How many numbers of a row of z belong to words."""
        return len(self.open) * self._columns

    def start(self, rng: np.random.Generator, starts: int, near: Guess | None = None) -> Array:
        """Draw R starts, (R, n): words near the mean of those allowed, or near those of a guess."""
        count, columns = len(self.open), self._columns
        words = rng.standard_normal((starts, count, columns))
        positions = SPREAD * rng.standard_normal((starts, len(self.answers), count))
        if not self.mixed:
            spread = (SPREAD if near is None else NEARBY) * self.table.std()
            middle = self._may / self._may.sum(axis=1, keepdims=True) @ self.table
            words = spread * words + (middle if near is None else 0.0)
        if near is None or (near.answers < 0).all():
            positions += LEANING * self._leaning()
        if near is not None:
            inputs, answers = (part.ravel()[self.open] for part in near)
            chosen = np.eye(len(self.table))[inputs]
            words += FAVOUR * chosen if self.mixed else chosen @ self.table
            left: list[int | None] = [*self.answers]
            for position in np.flatnonzero(answers >= 0):
                if (answer := int(answers[position])) in left:  # another is named nowhere
                    which = left.index(answer)
                    left[which] = None
                    positions[:, which, position] += FAVOUR
        return np.concatenate([words.reshape(starts, -1), positions.reshape(starts, -1)], axis=1)

    def _leaning(self) -> Array:
        """Return the logarithm of each open position's gradient, relative to the largest: (F,)."""
        by_position = np.linalg.norm(self._client.gradients[POSITIONS].astype(float), axis=1)
        sizes = np.maximum(by_position[self._position], np.finfo(float).tiny)
        return np.asarray(np.log(sizes / sizes.max()))

    def parts(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings (R, N, T, d) and targets (R, N, T, V) that z stands for."""
        put, known, one_hot, word_logits, hidden_logits = self._constants
        starts, shape = z.shape[0], (z.shape[0], *self._client.shape, -1)
        words = reshape(z[:, : self._size], (starts, len(self.open), self._columns))
        logits = reshape(z[:, self._size :], (starts, len(self.answers), len(self.open)))
        if self.mixed:
            words = softmax(words + word_logits) @ Tensor(self.table)
        positions = softmax(logits + hidden_logits)
        hidden = reshape(sum(positions, -2), (starts, len(self.open), 1))
        mask = Tensor(self.table[self._client.special.mask])
        words = words * (1.0 - hidden) + hidden * mask
        targets = put @ (swap_last_axes(positions) @ one_hot)
        return reshape(put @ words + known, shape), reshape(targets, shape)

    def value_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distances (R,) and their gradients with respect to the rows of z, (R, n)."""
        distances = self.distance.of(*self.parts(z))
        return distances, grad(sum(distances), [z])[0]

    def __call__(self, z: Array, rows: npt.NDArray[np.int64]) -> tuple[Array, Array]:
        """Evaluate at z, (R, n), the objective that L-BFGS minimises."""
        if len(rows) not in self._programs:
            self._programs[len(rows)] = trace(self.value_and_gradient, z, check=False)
        self.evaluations += len(rows)
        with np.errstate(all="ignore"):  # L-BFGS draws back where a wild step overflows
            values, gradients = self._programs[len(rows)](z)
        return values, gradients

    def read(self, row: Array) -> tuple[Guess, Array]:
        """Return the sentences that are nearest to a row of z, (n,).

        Beside them, (F, V), how near each word is at each open position, −∞ if not allowed.
        """
        from scipy.optimize import linear_sum_assignment

        words = row[: self._size].reshape(len(self.open), -1)
        nearness = words
        if not self.mixed:
            # Nearest as inputs of the first layer: the gradient depends on a word in no other way.
            seen = first_inputs(self._client, self._before, words)
            seen = seen[self._position, np.arange(len(words))]
            nearness = -np.square(self._seen - seen[:, np.newaxis]).sum(axis=-1)
        nearness = np.where(self._may, nearness, -np.inf)
        positions = row[self._size :].reshape(len(self.answers), len(self.open))
        which, where = linear_sum_assignment(
            np.where(self._may_hide, positions, FORBIDDEN), maximize=True
        )
        inputs, answers = self.known.copy(), np.full(self.known.shape, -1)
        inputs.flat[self.open] = np.argmax(nearness, axis=1)
        inputs.flat[self.open[where]] = self._client.special.mask
        answers.flat[self.open[where]] = np.array(self.answers)[which]
        return Guess(inputs, answers), nearness


def any_word(client: TextClient) -> Array:
    """Return (N, T, V), true for each token that may stand where nothing is known.

    All may, [MASK] included, but for starts, ends and padding.
    """
    special = client.special
    allowed = np.ones((*client.shape, client.model.vocabulary), bool)
    allowed[..., [special.pad, special.start, special.end]] = False
    return allowed
