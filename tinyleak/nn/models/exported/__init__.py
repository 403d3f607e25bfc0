"""Networks exported from PyTorch: `tinyleak.load_network` reads one from a file."""

from tinyleak.nn.models.exported.dropout import with_masks
from tinyleak.nn.models.exported.graph import Graph, parse_graph
from tinyleak.nn.models.exported.mixing import refuse_mixing
from tinyleak.nn.models.exported.model import OPERATIONS, Exported
from tinyleak.nn.models.exported.outputs import (
    ending,
    ends_in,
    in_loss,
    last_layers,
    with_outputs_for,
    without_ending,
)

__all__ = [
    "OPERATIONS",
    "Exported",
    "Graph",
    "ending",
    "ends_in",
    "in_loss",
    "last_layers",
    "parse_graph",
    "refuse_mixing",
    "with_masks",
    "with_outputs_for",
    "without_ending",
]
