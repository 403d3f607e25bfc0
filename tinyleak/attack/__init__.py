"""Attacks: what a gradient says about the data it was computed from."""

from tinyleak.attack.activation import infer_activation
from tinyleak.attack.analytic import Separated, first_layer_input, separate_inputs
from tinyleak.attack.dlg import attack, attack_many
from tinyleak.attack.jacobian import Jacobian
from tinyleak.attack.labels import LabelInference, infer_labels
from tinyleak.attack.local import LocalSteps
from tinyleak.attack.matching import (
    Matching,
    Model,
    parameter_gradients,
    squared_distance,
    total_variation,
)
from tinyleak.attack.result import Frame, Progress, Reconstruction
from tinyleak.attack.run import starting_point
from tinyleak.attack.scale import LossScale, infer_loss_scale
from tinyleak.attack.settings import Method, Settings

__all__ = [
    "Frame",
    "Jacobian",
    "LabelInference",
    "LocalSteps",
    "LossScale",
    "Matching",
    "Method",
    "Model",
    "Progress",
    "Reconstruction",
    "Separated",
    "Settings",
    "attack",
    "attack_many",
    "first_layer_input",
    "infer_activation",
    "infer_labels",
    "infer_loss_scale",
    "parameter_gradients",
    "separate_inputs",
    "squared_distance",
    "starting_point",
    "total_variation",
]
