"""What an attack leaves in its output directory: result files, figures and a player.

Everything here takes plain NumPy arrays and plain dicts. The same input gives the same bytes, and
a file appears under its name only when it is whole.
"""

from __future__ import annotations

from tinyleak.data.files import write_atomically
from tinyleak.report.figures import loss_figure, progress_figure
from tinyleak.report.files import prepare_directory, write_arrays, write_json
from tinyleak.report.frames import Frame, choose_frames
from tinyleak.report.player_page import player
from tinyleak.report.sentences import Stage, sentence_figure, sentence_table, write_sentence_table
from tinyleak.report.strengths import defence_grid, strength_curves

__all__ = [
    "Frame",
    "Stage",
    "choose_frames",
    "defence_grid",
    "loss_figure",
    "player",
    "prepare_directory",
    "progress_figure",
    "sentence_figure",
    "sentence_table",
    "strength_curves",
    "write_arrays",
    "write_atomically",
    "write_json",
    "write_sentence_table",
]
