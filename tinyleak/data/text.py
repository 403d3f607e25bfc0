"""Sentences, and the tokens that a language model reads them as.

The text is tinyleak's own: `corpus.txt`, a sentence a line. Its WordPiece vocabulary,
`vocabulary.txt`, was trained on it by the library `tokenizers`, as tests/test_text.py does again.
Any vocabulary of BERT's form does as well.

A word that the vocabulary has is one token; any other is several, `bridge` perhaps `bri` `##dge`.
A sentence begins with the token [CLS] and ends with [SEP] (Devlin et al. 2019, section 3).
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyleak.backend import Array
from tinyleak.data.files import PathLike, read_bounded

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Padding, a word that cannot be read, a sentence's start and end, and a word to be guessed."""

MAX_BYTES, MAX_TOKENS = 2**23, 2**19
"""The largest vocabulary file that is read: twice and more what the largest in use have."""


class Special(NamedTuple):
    """The numbers of the tokens that are not words."""

    pad: int
    unknown: int
    start: int
    end: int
    mask: int


UNKNOWN = Special(-1, -1, -1, -1, -1)  # of a vocabulary that has none of them, as GPT-2's

PUBLISHED = {30522: Special(0, 100, 101, 102, 103), 28996: Special(0, 100, 101, 102, 103)}
"""Those of BERT's published vocabularies, uncased and cased, by how many tokens these have."""


class Tokenizer:
    """Turns sentences into tokens and back.

    Args:
        vocabulary: the tokens; each one's index is its number. They are lower case unless one of
            them has a capital letter.

    Raises:
        ValueError: a token of `SPECIAL` is missing, or a token is there twice; or the library
            `tokenizers` is not installed.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        numbers = {token: number for number, token in enumerate(vocabulary)}
        missing = [token for token in SPECIAL if token not in numbers]
        if missing:
            raise ValueError(
                f"a vocabulary of {len(vocabulary)} tokens lacks {', '.join(missing)}; "
                "BERT's begin with them, one token a line"
            )
        if len(numbers) < len(vocabulary):
            twice = next(t for n, t in enumerate(vocabulary) if numbers[t] != n)
            raise ValueError(f"token {twice!r} is in the vocabulary twice; take one of them out")
        self.vocabulary = tuple(vocabulary)
        self.special = Special(*(numbers[token] for token in SPECIAL))
        self._library = _library_tokenizer(numbers)

    def __len__(self) -> int:
        return len(self.vocabulary)

    def encode(self, sentence: str, longest: int | None = None) -> Array:
        """Return the tokens (T,) of a sentence, whole numbers, with its start and end.

        A ValueError if the sentence is empty, is no text, holds a word with no token, or has more
        than `longest` tokens.
        """
        if any("\ud800" <= letter <= "\udfff" for letter in sentence):
            raise ValueError(f"{sentence!r} holds half a letter; give text read as UTF-8")
        found = self._library.encode(sentence, add_special_tokens=False)
        if not found.ids:
            raise ValueError("the sentence is empty; give one with at least one word")
        for token, (start, stop) in zip(found.ids, found.offsets, strict=True):
            if token == self.special.unknown:
                raise ValueError(
                    f"{sentence[start:stop]!r} cannot be written in the vocabulary's "
                    f"{len(self)} tokens; use another word, or another --vocabulary"
                )
        tokens = np.array([self.special.start, *found.ids, self.special.end])
        if longest is not None and len(tokens) > longest:
            raise ValueError(
                f"the sentence has {len(tokens)} tokens, with its start and end, and the model "
                f"takes {longest} at most; shorten it"
            )
        return tokens

    def words(self, tokens: Array) -> list[str]:
        """Return each token of (T,) as it is written in the vocabulary."""
        return [self.vocabulary[token] for token in tokens]

    def decode(self, tokens: Array) -> str:
        """Return tokens (T,) as a text, without its start, end and padding."""
        left_out = (self.special.pad, self.special.start, self.special.end)
        kept = self.words(np.array([token for token in tokens if token not in left_out], int))
        return " ".join(kept).replace(" ##", "")

    @cached_property
    def sentences(self) -> list[str]:
        """The sentences of `corpus.txt` that can be written in this vocabulary."""
        unknown = self.special.unknown
        return [s for s in read_corpus() if unknown not in self._library.encode(s).ids]


class BytePairs(Tokenizer):
    """Turns the tokens of GPT-2 back into text; to encode a text it would need the merges too.

    `numbers` has the number of each token, as GPT-2's vocab.json: others than 0 to V − 1 are a
    ValueError.
    """

    def __init__(self, numbers: Mapping[str, int]) -> None:
        self.vocabulary = tuple(sorted(numbers, key=lambda token: numbers[token]))
        if [numbers[token] for token in self.vocabulary] != list(range(len(numbers))):
            raise ValueError(f"its {len(numbers)} tokens are not numbered from 0 on, each once")
        self.special = UNKNOWN
        # Its tokens write each byte as a letter: a space is \u0120, for example.
        self._bytes = _library().decoders.ByteLevel()

    def encode(self, sentence: str, longest: int | None = None) -> Array:
        """Refuse: the vocabulary does not say how a text is split."""
        raise ValueError("GPT-2's vocab.json does not say how to split a text; give BERT's")

    def decode(self, tokens: Array) -> str:
        """Return tokens (T,) as a text."""
        return str(self._bytes.decode(self.words(tokens)))

    @property
    def sentences(self) -> list[str]:
        """None: see `encode`."""
        return []


def load_tokenizer(path: PathLike | None = None) -> Tokenizer:
    """Return the tokenizer of a vocabulary file; by default tinyleak's own.

    The file is BERT's vocab.txt, one token a line, or GPT-2's vocab.json, tokens with numbers.

    Raises:
        ValueError: the file is not UTF-8 text, is too large, or not a vocabulary; or the library
            `tokenizers` is not installed.
        OSError: it cannot be read.
    """
    if path is None:
        return Tokenizer(_shipped("vocabulary.txt").splitlines())
    try:
        with Path(path).open("rb") as file:
            content = read_bounded(file, MAX_BYTES).decode("utf-8")
        if Path(path).suffix == ".json":
            return BytePairs(_numbers(content))
        # Not splitlines: a vocabulary may hold other line separators as tokens.
        _require_few(content.count("\n"))
        lines = content.replace("\r\n", "\n").split("\n")
        return Tokenizer(lines[:-1] if lines[-1] == "" else lines)
    except ValueError as error:
        raise ValueError(f"vocabulary {str(path)!r} cannot be used: {error}") from error
    except OSError as error:
        raise type(error)(
            f"vocabulary {str(path)!r} cannot be read ({error.strerror or error}); give the path "
            "of a text file with one token a line"
        ) from error


def _numbers(content: str) -> dict[str, int]:
    """Return the tokens of a vocab.json with their numbers."""
    _require_few(max(content.count(":"), content.count(",")))
    try:
        numbers = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(numbers, dict) or not all(type(n) is int for n in numbers.values()):
        raise ValueError("it is not a JSON object of tokens and whole numbers")
    return numbers


def _require_few(tokens: int) -> None:
    if tokens > MAX_TOKENS:
        raise ValueError(f"it has about {tokens:,} tokens, and {MAX_TOKENS:,} are read at most")


def read_corpus() -> list[str]:
    """Return tinyleak's own sentences."""
    return _shipped("corpus.txt").splitlines()


def _shipped(name: str) -> str:
    return resources.files("tinyleak.data").joinpath(name).read_text(encoding="utf-8")


def _library() -> Any:
    """Return the module `tokenizers`; a ValueError if it is not installed."""
    try:
        import tokenizers
    except ImportError as error:
        raise ValueError(
            "sentences need the library tokenizers, which is not installed; "
            "install tinyleak with its text extra (tinyleak[text])"
        ) from error
    return tokenizers


def _library_tokenizer(numbers: dict[str, int]) -> Any:
    """Return the library's own tokenizer, as BERT splits text."""
    tokenizers = _library()
    capitals = any(t != t.lower() for t in numbers if not t.startswith("["))
    model = tokenizers.models.WordPiece(numbers, unk_token="[UNK]")
    made = tokenizers.Tokenizer(model)
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=not capitals)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.decoder = tokenizers.decoders.WordPiece()
    return made
