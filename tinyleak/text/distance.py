"""How far the gradient of a guess is from the gradient that was shared.

An attacker who is not shown the embedding table's gradient has that of every other parameter. In a
sum of squared differences a few large tensors would drown all others, and with them the words that
are not hidden: the gradient of a hidden position is hundreds of times that of another. So each
tensor is divided by the typical size of its own entries, and the table of positions row by row.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tinyleak.backend import Array
from tinyleak.nn.models.bert import POSITIONS, SEGMENTS, WORDS, Bert
from tinyleak.ops import inner
from tinyleak.program import trace
from tinyleak.tensor import Tensor
from tinyleak.text.client import TextClient
from tinyleak.text.simulated import masked_gradients
from tinyleak.transforms import copies

EXACT = 1e-7
"""A distance that only the right sentences have: it is far above rounding, far below one word."""

AT_ONCE = 16  # how many guesses are evaluated at once: more no longer fit the processor's cache


class Guess(NamedTuple):
    """Sentences as the attacker supposes them: (N, T), or (B, N, T) for many suppositions."""

    inputs: Array  # what the model reads, [MASK] at hidden positions
    answers: Array  # the word to be guessed at hidden positions, −1 at all others

    @property
    def tokens(self) -> Array:
        """The sentences with their hidden words."""
        return np.where(self.answers >= 0, self.answers, self.inputs)


def stacked(guesses: Sequence[Guess]) -> Guess:
    """Return B guesses (N, T) as one (B, N, T)."""
    inputs, answers = zip(*guesses, strict=True)
    return Guess(np.stack(inputs), np.stack(answers))


class Distance:
    """The weighted squared distance from the shared gradient; that of no gradient at all is 1.

    The weight of an entry is its tensor's mean square to the power of −`weighting_exponent`: 1
    measures every tensor by its own typical entry, 0 all by the same. A network that is not a BERT,
    or a gradient with nothing to match, is a ValueError.
    """

    def __init__(self, client: TextClient, weighting_exponent: float = 1.0) -> None:
        self.client, self.model = client, require_bert(client)
        self.params = {name: array.astype(float) for name, array in client.params.items()}
        gradients = {name: array.astype(float) for name, array in client.gradients.items()}
        self._gradients = {name: Tensor(gradients[name]) for name in _telling(client)}
        weights = _weights(client, gradients, weighting_exponent)
        total = sum(float(np.sum(w * gradients[name] ** 2)) for name, w in weights.items())
        if not (0.0 < total < np.inf):
            raise ValueError(
                "the gradient beside the embedding table's is zero or not finite, or its squares "
                "are, so there is nothing to match; check what the client shares"
            )
        self._weights = {name: Tensor(weight / total) for name, weight in weights.items()}
        self._programs: dict[int, Callable[..., tuple[Array, ...]]] = {}
        vocabulary = client.model.vocabulary
        # Row −1, the last, is that of a position with nothing to guess.
        self._targets = np.vstack([np.eye(vocabulary), np.zeros(vocabulary)])
        self.evaluations = 0

    def of(self, words: Tensor, targets: Tensor) -> Tensor:
        """Return the distances (R,) of R guesses, which need not be whole words.

        `words`, (R, N, T, d), are the embeddings that the model reads; `targets`, (R, N, T, V),
        probabilities of the answers, zeros where there is none.
        """
        client, count = self.client, words.shape[0]
        # A copy of the weights for each guess: the gradients of the copies keep guesses apart.
        params = {
            name: copies(array, count) if name in self._weights else Tensor(array)
            for name, array in self.params.items()
        }
        masked, attention = client.masked, client.attention
        found = masked_gradients(self.model, params, words, targets, masked, attention)
        total = Tensor(np.zeros(count))
        for name, weight in self._weights.items():
            difference = found[name] - self._gradients[name]
            total = total + inner(difference * weight, difference, axes=weight.ndim)
        return total

    def of_noise(self, variance: float) -> float:
        """Return the distance expected of the right sentences under noise of this variance."""
        return variance * sum(float(weight.data.sum()) for weight in self._weights.values())

    @property
    def entries(self) -> int:
        """How many entries of the gradient are matched."""
        return sum(int(np.count_nonzero(weight.data)) for weight in self._weights.values())

    def of_guesses(self, guesses: Guess) -> Array:
        """Return the distances (B,) of guesses (B, N, T); infinite where arithmetic fails."""
        inputs, answers = guesses
        distances = np.empty(len(inputs))
        count = 1 if len(inputs) == 1 else AT_ONCE
        for start in range(0, len(inputs), count):
            # A program has a fixed number of guesses; the last guess fills those left over.
            rows = np.minimum(np.arange(start, start + count), len(inputs) - 1)
            distances[rows] = self._replay(self.params[WORDS][inputs[rows]], answers[rows])
        self.evaluations += len(inputs)
        return distances

    def _replay(self, words: Array, answers: Array) -> Array:
        targets, count = self._targets[answers], len(words)
        if count not in self._programs:
            self._programs[count] = trace(self.of, words, targets, check=False)
        with np.errstate(all="ignore"):
            found = self._programs[count](words, targets)[0]
        return np.where(np.isfinite(found), found, np.inf)


def require_bert(client: TextClient) -> Bert:
    """Return the client's network if its gradient can be matched: a BERT's, or ValueError."""
    if isinstance(client.model, Bert):
        return client.model
    raise ValueError("only a BERT's gradient is matched, not a GPT-2's; attack with span or rows")


def _telling(client: TextClient) -> list[str]:
    """Return the parameters whose gradients are matched.

    Not the embedding table's, which is hidden; nor the keys' biases': they add the same to all
    scores of a query, which the softmax does not notice, so their gradient is nothing but rounding.
    """
    return [name for name in client.model.shapes if name != WORDS and "key.bias" not in name]


def _weights(client: TextClient, gradients: dict[str, Array], exponent: float) -> dict[str, Array]:
    """Return what each squared difference is multiplied with, by name, in the gradients' shapes."""
    length = client.shape[1]
    weights = {}
    for name in _telling(client):
        squares = gradients[name] ** 2
        used = squares != 0.0  # a defence may have pruned an entry: then it carries no information
        if name in (POSITIONS, SEGMENTS):
            used[length if name == POSITIONS else 1 :] = False
            typical = np.mean(squares, axis=-1, keepdims=True)
        else:
            typical = np.mean(squares, keepdims=True)
        typical = np.where(typical > 0.0, typical, 1.0)
        weights[name] = np.where(used, typical**-exponent, 0.0)
    return weights
