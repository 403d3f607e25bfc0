"""Attacks on text: the sentences of a client, out of the gradient of a language model.

    tokenizer = load_tokenizer()
    model = Bert(len(tokenizer))
    rng = numpy.random.default_rng(0)
    sentence = tokenizer.encode("The old man closed the door.")
    client = share_text(model, model.init(rng), [sentence], tokenizer.special, rng=rng)
    result = attack(client, method="span")
    print(tokenizer.decode(result.tokens_recovered[0]))

This room stands in the attack's, and below its floor: its client has defences, and its results are
judged.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

from tinyleak.text.client import (
    SharedText,
    TextClient,
    choose_hidden,
    masked_count,
    masked_gradients,
    share_text,
)
from tinyleak.text.dummy_vectors import match
from tinyleak.text.embedding_rows import rows
from tinyleak.text.result import Found, OnReading, Reading, TextResult, judge
from tinyleak.text.row_space import candidates, first_space, membership, span
from tinyleak.text.space import RowSpace
from tinyleak.text.training import train
from tinyleak.text.within_span import span_match

__all__ = [
    "DEFAULT",
    "INTERRUPTED",
    "METHODS",
    "Found",
    "Reading",
    "RowSpace",
    "SharedText",
    "TextClient",
    "TextResult",
    "attack",
    "candidates",
    "choose_hidden",
    "first_space",
    "judge",
    "masked_count",
    "masked_gradients",
    "membership",
    "match",
    "rows",
    "share_text",
    "span",
    "span_match",
    "train",
]


class Method(Protocol):
    """An attack on text. It sees what is shared, and no truth."""

    def __call__(
        self,
        shared: SharedText,
        *,
        seed: int = 0,
        on_reading: OnReading | None = None,
        **options: Any,
    ) -> Found:
        """Find the sentences; `seed` decides all that is drawn at random."""


METHODS: dict[str, Method] = {
    "rows": rows,
    "match": match,
    "span": span,
    "span+match": span_match,
}
"""Every attack by its name."""

DEFAULT = "span+match"
"""The attack that is tried if none is named."""

INTERRUPTED = "interrupted"
"""The reason that is given where somebody stopped an attack."""


def attack(
    client: TextClient,
    method: str = DEFAULT,
    *,
    seed: int = 0,
    on_reading: OnReading | None = None,
    **options: Any,
) -> TextResult:
    """Attack what a client shares, and judge what was found by what it had.

    Args:
        client: the client, as `share_text` makes it.
        method: one of `METHODS`.
        seed: 0 or more; decides all that the attack draws at random.
        on_reading: called with each reading as soon as it is there.
        options: the method's own.

    An attack that is interrupted (Ctrl-C) gives back its last reading, if it had one.

    Raises:
        ValueError: an unknown method, or as the method does.
    """
    if method not in METHODS:
        raise ValueError(f"attack {method!r} is unknown; choose from {', '.join(METHODS)}")
    began = time.perf_counter()
    seen: list[Reading] = []

    def take(reading: Reading) -> None:
        seen.append(reading)
        if on_reading is not None:
            on_reading(reading)

    try:
        found = METHODS[method](client.shared, seed=seed, on_reading=take, **options)
    except KeyboardInterrupt:
        if not seen:
            raise
        found = Found(seen[-1].tokens, seen, INTERRUPTED)
    return judge(client, found, method, time.perf_counter() - began)
