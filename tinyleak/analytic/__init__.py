"""What a gradient reveals without any search: labels, scale, activation, inputs, features."""

from tinyleak.analytic.cause import Cause
from tinyleak.analytic.certificate import Certificates, certify
from tinyleak.analytic.first_layer import IsolatedInput, first_layer_input, separate_inputs
from tinyleak.analytic.label_search import search_labels
from tinyleak.analytic.labels import LabelInference, infer_labels
from tinyleak.analytic.layer_gradient import LastLayerGradient, LayerGradient
from tinyleak.analytic.mixture import Mixture, unmix
from tinyleak.analytic.premises import Premises, read_premises
from tinyleak.analytic.subspace import Subspace

__all__ = [
    "Certificates",
    "Cause",
    "IsolatedInput",
    "LabelInference",
    "LastLayerGradient",
    "LayerGradient",
    "Mixture",
    "Premises",
    "Subspace",
    "certify",
    "first_layer_input",
    "infer_labels",
    "read_premises",
    "search_labels",
    "separate_inputs",
    "unmix",
]
