"""A sentence as it emerges from a gradient: as a table of text, and as a picture."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyleak.report.canvas import DISTANCE_COLOUR, MSE_COLOUR, QUIET_COLOUR, drawing

RIGHT_COLOUR, WRONG_COLOUR = DISTANCE_COLOUR, MSE_COLOUR

MOST_SHOWN = 12  # snapshots that the picture shows, at most
LETTER, GAP, LINE = 0.085, 0.16, 0.28  # inches: of a letter, between two words, and of a line


class SentenceSnapshot(NamedTuple):
    """Sentences after an iteration, each a list of its words."""

    iteration: int
    sentences: list[list[str]]


def choose_snapshots(
    snapshots: Sequence[SentenceSnapshot], most: int = MOST_SHOWN
) -> list[SentenceSnapshot]:
    """Return at most so many snapshots, the first and the last among them, evenly spaced."""
    if not snapshots:
        raise ValueError("there is no snapshot to show; give at least one")
    last = len(snapshots) - 1
    count = min(most, len(snapshots))
    return [snapshots[round(at)] for at in np.linspace(0, last, count)]


def sentence_table(
    snapshots: Sequence[SentenceSnapshot], truth: Sequence[Sequence[str]] | None
) -> str:
    """Return the sentences at every snapshot as text; words that are wrong stand in <angles>.

    Where the truth, the words of each sentence, is not known, no word is marked.
    """
    blocks = []
    for number in range(len(snapshots[-1].sentences if truth is None else truth)):
        lines = [] if truth is None else [f"{'truth':>14}  {' '.join(truth[number])}"]
        for snapshot in snapshots:
            right = snapshot.sentences[number] if truth is None else truth[number]
            words = snapshot.sentences[number]
            pairs = zip(words, right, strict=True)
            words_marked = " ".join(word if word == true else f"<{word}>" for word, true in pairs)
            lines.append(f"iteration {snapshot.iteration:>4}  {words_marked}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def sentence_figure(
    snapshots: Sequence[SentenceSnapshot], truth: Sequence[Sequence[str]] | None = None
) -> Any:
    """Draw the sentences at each snapshot below the truth, wrong words in another colour.

    Where no truth is known, the last snapshot takes its place, under the name "found". Of many
    snapshots `choose_snapshots` chooses some; of none it is a ValueError. Return a matplotlib
    `Figure`.
    """
    shown = choose_snapshots(snapshots)
    heading = "truth" if truth is not None else "found"
    truth = shown[-1].sentences if truth is None else truth
    left = LETTER * len("iteration 1000") + GAP
    columns = [
        _columns([right, *(snapshot.sentences[number] for snapshot in shown)])
        for number, right in enumerate(truth)
    ]
    width = left + max(max(ends) for ends in columns) + GAP
    lines = len(truth) * (len(shown) + 2)
    with drawing(width, (lines + 0.5) * LINE) as figure:
        figure.set_layout_engine("none")  # everything is placed by hand, in inches
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(lines + 0.25, -0.75))
        axes.axis("off")
        for number, (right, starts) in enumerate(zip(truth, columns, strict=True)):
            top = number * (len(shown) + 2)
            rows = [
                (heading, list(right)),
                *((f"iteration {s.iteration}", s.sentences[number]) for s in shown),
            ]
            for down, (title, words) in enumerate(rows):
                axes.text(left - GAP, top + down, title, ha="right", color=QUIET_COLOUR, size=9)
                for start, word, true in zip(starts, words, right, strict=False):
                    colour = (
                        "black" if down == 0 else RIGHT_COLOUR if word == true else WRONG_COLOUR
                    )
                    axes.text(
                        left + start, top + down, word.replace("$", r"\$"), color=colour, size=9
                    )
    return figure


def _columns(rows: Sequence[Sequence[str]]) -> list[float]:
    """Return where each word of a sentence starts, in inches, and where the last one ends."""
    widths = [LETTER * max(map(len, column)) + GAP for column in zip(*rows, strict=True)]
    return [0.0, *itertools.accumulate(widths)]
