"""Features and labels of a batch at once, where neither counts nor records tell the labels."""

import time

import numpy as np
import pytest

from tinyleak.analytic import LayerGradient, free_labels, infer_labels
from tinyleak.analytic.free_labels import _Search, fits
from tinyleak.analytic.label_search import (
    ALTOGETHER,
    explanation,
    labels_by_records,
    search_labels,
)
from tinyleak.client import share
from tinyleak.nn import MLP
from tinyleak.nn.model import parameter_gradients
from tinyleak.nn.split import linear_layers
from tinyleak.tensor import Tensor

MODEL = MLP((1, 4, 4), 8, "tanh", (20,))
PARAMS = {name: 5.0 * array for name, array in MODEL.init(np.random.default_rng(1)).items()}


def layer_of(images, labels, dtype="float64"):
    """Return the last layer's gradient of a batch by weights that make its predictions certain."""
    layer = share(MODEL, PARAMS, images, labels, dtype=dtype)[0].last_layer
    assert layer is not None
    return layer


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_labels_and_features_are_found_at_once(dtype, rng):
    images, labels = rng.random((5, 1, 4, 4)), [1, 1, 3, 3, 5]
    layer = layer_of(images, labels, dtype)
    assert labels_by_records(layer) is None, "more than half as many as classes"
    assert infer_labels(layer).labels.tolist() != labels
    true = linear_layers(MODEL, PARAMS)[-1].below(Tensor(images)).data
    found, features = next(
        (found, features)
        for found, features in fits(layer, np.random.default_rng(0), 20.0)
        if explanation(layer, found, 1, features) is not None
    )
    assert np.sort(found).tolist() == labels
    apart = np.abs(features[:, None] - true).max(axis=2)
    assert apart.min(axis=0).max() < (1e-6 if dtype == "float64" else 1e-2)


def test_copies_count(rng):
    images = rng.random((3, 1, 4, 4))[[0, 0, 1, 2]]
    layer = layer_of(images, [2, 2, 4, 4])
    assert layer.balanced.rank == 3
    found, _ = next(fits(layer, np.random.default_rng(0), 20.0))
    assert np.sort(found).tolist() == [2, 2, 4, 4]
    two_labels = layer_of(images[[0, 0]], [2, 4])
    assert not list(fits(two_labels, np.random.default_rng(0), 20.0)), "one image under two labels"


def test_the_search_ends_where_labels_are_soft(rng):
    """No labels are claimed, and not all of its seconds are taken."""
    soft = 0.7 * np.eye(8)[[1, 3]] + 0.3 * np.eye(8)[[2, 6]]
    leaves = {name: Tensor(array) for name, array in PARAMS.items()}
    shared = parameter_gradients(MODEL, leaves, Tensor(rng.random((2, 1, 4, 4))), Tensor(soft))
    gradients = {name: gradient.data for name, gradient in shared.items()}
    began = time.process_time()
    assert search_labels(LayerGradient.last(MODEL, PARAMS, gradients, 2)) is None
    assert time.process_time() - began < 0.2 * ALTOGETHER


def test_steps_go_on_where_equations_do_not_tell_all_unknowns(rng, monkeypatch):
    """There λ, which falls with each step that leads down, is all that makes them solvable."""
    search = _Search(layer_of(rng.random((3, 1, 4, 4)), [1, 3, 3]))
    x = search.starts(rng)
    search.free[1] = search.free[0]
    monkeypatch.setattr(free_labels, "EASED", 1e-20)
    assert np.isfinite(search.descend(x, 20)).all()
