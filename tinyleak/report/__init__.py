"""What an attack leaves behind: figures, a player, and files that are either whole or not there.

Everything here takes plain NumPy arrays and plain dicts, and any object with `iteration`, `images`
and `distance` for a moment of an attack. Figures are matplotlib's: `save` and `as_png` write the
same bytes for the same input.
"""

from tinyleak.data.files import write_atomically
from tinyleak.report.canvas import as_png, png_of, save
from tinyleak.report.figures import curves, emergence, side_by_side
from tinyleak.report.files import prepare_directory, printable, write_arrays, write_json
from tinyleak.report.player_page import player
from tinyleak.report.sentences import SentenceSnapshot, sentence_figure, sentence_table
from tinyleak.report.snapshots import SnapshotLike, pixel_range

__all__ = [
    "SnapshotLike",
    "SentenceSnapshot",
    "as_png",
    "curves",
    "emergence",
    "pixel_range",
    "player",
    "png_of",
    "prepare_directory",
    "printable",
    "save",
    "sentence_figure",
    "sentence_table",
    "side_by_side",
    "write_arrays",
    "write_atomically",
    "write_json",
]
