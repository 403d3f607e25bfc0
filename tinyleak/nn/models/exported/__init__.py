"""Networks exported from PyTorch: `tinyleak.load_network` reads one from a file."""

from tinyleak.nn.models.exported.dropout import with_masks
from tinyleak.nn.models.exported.graph import Graph, parse_graph
from tinyleak.nn.models.exported.model import OPERATIONS, Exported

__all__ = ["OPERATIONS", "Exported", "Graph", "parse_graph", "with_masks"]
