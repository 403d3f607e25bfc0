"""Many attacks: a grid of them, an executor that runs them, and a table that keeps every result."""

from tinyleak.sweep.combinations import grid, parse_numbers, parse_strengths
from tinyleak.sweep.executors import LocalProcesses, dask_executor
from tinyleak.sweep.request import Request, run_attack
from tinyleak.sweep.runner import complete, run_sweep
from tinyleak.sweep.table import Table, files_of_table, summary

__all__ = [
    "LocalProcesses",
    "Request",
    "Table",
    "complete",
    "dask_executor",
    "files_of_table",
    "grid",
    "parse_numbers",
    "parse_strengths",
    "run_attack",
    "run_sweep",
    "summary",
]
