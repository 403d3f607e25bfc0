"""Temporary."""

from typing import Any

import numpy as np

from tinyleak.analytic import activation, labels, scale


def _parts(layer: Any) -> Any:
    from tinyleak.analytic.layer_gradient import last_layer_names

    m = layer.model
    w, b = last_layer_names(m)
    g = {n: np.zeros(s) for n, s in m.shapes.items()}
    g[w] = layer.weight_gradient
    if b:
        g[b] = layer.bias_gradient
    return m, dict(layer.params), g


def infer_labels(layer: Any) -> Any:
    return labels.infer_labels(*_parts(layer), layer.records or 1)


def infer_loss_scale(layer: Any) -> Any:
    found = scale.infer_loss_scale(*_parts(layer), layer.records or 1)
    if found is not None:
        object.__setattr__(found, "error", 0.1)
    return found


def infer_activation(layer: Any) -> Any:
    m, _, g = _parts(layer)
    return activation.infer_activation(m, g)
