"""The command line: one file a command, each with NAME, SUMMARY, `add_arguments` and `run`."""

import argparse
import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from tinyleak import __version__
from tinyleak.cli import attack, audit, info, page, sweep, text, victim
from tinyleak.cli.interrupts import interruptible, undisturbed
from tinyleak.cli.output import OutputError, say

FAILED, BAD_REQUEST = 1, 2

DESCRIPTION = "Deep Leakage from Gradients: recover training data from the gradients it made."

EXIT_CODES = """\
exit codes:
  0  the attack succeeded, or the command did what it was asked for
  1  the attack ended without success, or was interrupted
  2  the request was bad; one line on the standard error says why
"""

COMMANDS = (attack, text, victim, audit, sweep, page, info)
"""A new command is a new file beside this one, and an entry here. Its `add_arguments` declares its
options; its `run` does it, and returns the exit code: errors are raised, as everywhere."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line's arguments, by default `sys.argv[1:]`, and return the exit code.

    Where they do not parse, or only --help or --version was asked for, SystemExit is raised.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A path may hold what a terminal's encoding lacks; that is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with interruptible():
            try:
                return _run(build_parser().parse_args(argv))
            finally:
                # What is buffered is written now, while a failure can be dealt with.
                with undisturbed():
                    say("", end="")
    except OutputError as error:
        # What could not be written is tried again when Python exits, and must not fail then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:  # a reader who has left knows
            say(f"tinyleak: the output could not be printed ({error.strerror})", error=True)
        return FAILED
    except KeyboardInterrupt:
        say("tinyleak: interrupted before it was done", error=True)
        return FAILED


def _run(args: argparse.Namespace) -> int:
    """Run the command that was asked for; answer an error with one line."""
    try:
        return int(args.run(args))
    except OutputError:
        raise
    except Exception as error:
        if args.debug:
            say(traceback.format_exc(), error=True)
        # One line says it; a note below it is a table, where the line speaks of its columns.
        said = [f"tinyleak: {_one_line(error)}", *getattr(error, "__notes__", ())]
        say("\n".join(said), error=True)
        return BAD_REQUEST


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    common: dict[str, Any] = {
        "epilog": EXIT_CODES,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        "allow_abbrev": False,
    }
    parser = _Parser(prog="tinyleak", description=DESCRIPTION, **common)
    parser.add_argument("--version", action="version", version=f"tinyleak {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        text = f"{command.SUMMARY[0].upper()}{command.SUMMARY[1:]}."
        subparser = commands.add_parser(
            command.NAME, help=command.SUMMARY, description=text, **common
        )
        command.add_arguments(subparser)
        text = "show where an error comes from"
        subparser.add_argument("--debug", action="store_true", help=text)
        subparser.set_defaults(run=command.run)
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser that answers a bad request with one line, as the rest of tinyleak does."""

    def error(self, message: str) -> NoReturn:
        say(f"tinyleak: {' '.join(message.split())}; see {self.prog} --help", error=True)
        self.exit(BAD_REQUEST)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if text and isinstance(error, ValueError | TypeError | OSError | MemoryError):
        return text
    return f"{type(error).__name__}: {text or 'no more is known'}; --debug shows where"
