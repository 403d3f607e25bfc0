"""Attacks: the data out of the gradient that was computed from it."""

from tinyleak.attacks.dlg import attack, attack_many
from tinyleak.attacks.many import starting_point
from tinyleak.attacks.matching import Matching, squared_distance, total_variation
from tinyleak.attacks.result import Frame, Progress, Reconstruction
from tinyleak.attacks.settings import Method, Settings

__all__ = [
    "Frame",
    "Matching",
    "Method",
    "Progress",
    "Reconstruction",
    "Settings",
    "attack",
    "attack_many",
    "squared_distance",
    "starting_point",
    "total_variation",
]
