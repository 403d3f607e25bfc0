"""Attacks: what a gradient says about the data it was computed from."""

from tinyleak.attack.dlg import Settings, attack, attack_many, starting_point
from tinyleak.attack.matching import Matching, Model, parameter_gradients, squared_distance
from tinyleak.attack.result import Frame, Progress, Reconstruction

__all__ = [
    "Frame",
    "Matching",
    "Model",
    "Progress",
    "Reconstruction",
    "Settings",
    "attack",
    "attack_many",
    "parameter_gradients",
    "squared_distance",
    "starting_point",
]
