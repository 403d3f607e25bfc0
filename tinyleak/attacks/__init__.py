"""Attacks: the data out of the gradient that was computed from it."""

from tinyleak.attacks.attacker import Attacker, Method
from tinyleak.attacks.dlg import attack
from tinyleak.attacks.extended import ExtendedMatching, total_variation
from tinyleak.attacks.many import attack_many
from tinyleak.attacks.matching import Matching
from tinyleak.attacks.problem import Problem, problem_of
from tinyleak.attacks.result import Progress, Reconstruction, Snapshot
from tinyleak.attacks.settings import Settings
from tinyleak.attacks.starts import starting_point

__all__ = [
    "Attacker",
    "Matching",
    "Method",
    "ExtendedMatching",
    "Problem",
    "Progress",
    "Reconstruction",
    "Settings",
    "Snapshot",
    "attack",
    "attack_many",
    "problem_of",
    "starting_point",
    "total_variation",
]
