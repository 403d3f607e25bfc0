"""A graph is a program: trace a function once, simplify what it did, replay it on new numbers.

The attack evaluates one fixed graph hundreds of times. Eagerly, each time builds the graph anew;
a program has it ready, simplified, with a buffer for every value and nothing left but the array
library's own calls.
"""

from tinyleak.program.cuda import CapturedProgram, capture
from tinyleak.program.loading import load_program
from tinyleak.program.program import Program, trace
from tinyleak.program.tracing import TraceError

__all__ = ["CapturedProgram", "Program", "TraceError", "capture", "load_program", "trace"]
