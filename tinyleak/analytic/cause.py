"""Why a gradient may not be what it is taken for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """One thing that contradicts what is taken for granted of a gradient."""

    name: str  # a stable key, such as "weight decay" or "noise"
    text: str  # one clause for a person: what its sign is, with its number
    advice: str = ""  # options to try next, as on the command line; "" where there are none
    sure: bool = False  # whether a test shows it; otherwise it is only likely
