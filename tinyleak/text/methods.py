"""The attacks on text by their names, and the one call that makes them."""

import inspect
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tinyleak.backend import Array
from tinyleak.interop import called, whole
from tinyleak.text.client import TextClient
from tinyleak.text.dummy_vectors import match
from tinyleak.text.embedding_rows import rows
from tinyleak.text.result import FoundText, OnProgress, Snapshot
from tinyleak.text.row_space import span
from tinyleak.text.within_span import span_match

METHODS: dict[str, Callable[..., FoundText]] = {
    "rows": rows,
    "match": match,
    "span": span,
    "span+match": span_match,
}
"""Every attack by its name. It sees a client, and no truth."""

DEFAULT = "span+match"  # the attack that is tried if none is named
INTERRUPTED = "interrupted"  # the reason that is given where somebody stopped an attack


def attack(
    client: TextClient,
    method: str = DEFAULT,
    *,
    seed: int = 0,
    start: Array | None = None,
    on_progress: OnProgress | None = None,
    **options: Any,
) -> FoundText:
    """Attack what a client shares.

    Args:
        client: the client, as `TextClient.from_files`, `simulate_text` or `share_text` makes it.
        method: one of `METHODS`.
        seed: 0 or more; decides all that the attack draws at random.
        start: (N, T) tokens near which `match` and `span+match` start.
        on_progress: called with each `Snapshot` as soon as it is there.
        options: the method's own: `match` and `span+match` take `iterations`, `rounds` and
            `restarts`; see there.

    An attack that is interrupted (Ctrl-C) gives back its best snapshot, if it had one.

    Raises:
        ValueError: an unknown method, a seed below 0, or as the method does.
        TypeError: a keyword that the method does not take, or a client that shares no text.
    """
    if not isinstance(client, TextClient):
        raise TypeError(
            f"text.attack was given {called(client)}; give a TextClient, as "
            "TextClient.from_files or simulate_text makes it"
        )
    if method not in METHODS:
        raise ValueError(f"attack {method!r} is unknown; choose from {', '.join(METHODS)}")
    keywords = keywords_of(method)
    options |= {} if start is None else {"start": start}
    unknown = [name for name in options if name not in keywords]
    if unknown:
        raise TypeError(
            f"attack {method!r} does not take {', '.join(unknown)}; it takes {', '.join(keywords)}"
        )
    seed = whole(seed, 0, "seed {} was given; seeds are whole numbers from 0 on")
    began = time.perf_counter()
    seen: list[Snapshot] = []

    def take(snapshot: Snapshot) -> None:
        seen.append(snapshot)
        if on_progress is not None:
            on_progress(snapshot)

    try:
        found = METHODS[method](client, seed=seed, on_progress=take, **options)
    except KeyboardInterrupt:
        if not seen:
            raise
        best = min(seen, key=lambda snapshot: snapshot.distance)
        last = replace(seen[-1], tokens=best.tokens, distance=best.distance)
        if best.distance < seen[-1].distance:
            seen.append(last)
        found = FoundText(client, last.tokens, seen, INTERRUPTED, False, last.evaluations)
    return replace(found, method=method, seconds=time.perf_counter() - began)


def keywords_of(method: str) -> list[str]:
    """Return the keywords that a method takes."""
    parameters = inspect.signature(METHODS[method]).parameters.values()
    return [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
