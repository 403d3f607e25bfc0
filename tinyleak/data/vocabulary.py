"""How `vocabulary.txt` was made: `python -m tinyleak.data.vocabulary FILE` makes it again.

WordPiece starts from single letters and merges the pair that is most frequent in the text, again
and again, until there are as many tokens as were asked for.
"""

from __future__ import annotations

import string
import sys
from collections.abc import Sequence

from tinyleak.data.files import write_atomically
from tinyleak.data.text import SPECIAL, library, read_corpus

SIZE = 500
PUNCTUATION = "!\"'(),-.:;?"
LETTERS = string.ascii_lowercase + string.digits


def train_vocabulary(sentences: Sequence[str], size: int = SIZE) -> list[str]:
    """Return a WordPiece vocabulary of `size` tokens, trained on the sentences."""
    tokenizers = library()
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    # Letters are named beforehand: those that the library finds it numbers in a random order, and
    # equally frequent pairs are merged in the order of their numbers. So each run gives the same.
    first = [*SPECIAL, *PUNCTUATION, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=1, special_tokens=first, show_progress=False
    )
    tokenizer.train_from_iterator(sentences, trainer)
    numbers = tokenizer.get_vocab()
    return sorted(numbers, key=lambda token: int(numbers[token]))


if __name__ == "__main__":
    text = "".join(f"{token}\n" for token in train_vocabulary(read_corpus()))
    write_atomically(sys.argv[1], lambda file: file.write(text.encode()))
