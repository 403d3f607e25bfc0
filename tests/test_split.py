"""A network cut at a linear layer: what comes in, what is above, and what cannot be cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from tinyleak import Tensor, nn, ops
from tinyleak.nn.split import linear_layers, split
from tinyleak.program import trace

MLPS = nn.MLP((1, 4, 4), 3, "tanh", (9, 7))
MODELS = [MLPS, nn.LeNet((1, 8, 8), 4, hidden=3), nn.ResNet((1, 8, 8), 5)]


@dataclass(frozen=True)
class Other:
    """Networks that have, in one respect or another, no linear layer to cut at."""

    kind: str
    image_shape: tuple = (1, 2, 2)
    classes: int = 4

    @property
    def shapes(self):
        return {"w": (4, 4), "v": (4, 4)}

    def __call__(self, params, x):
        rows, w, v = nn.flatten(x), params["w"], params["v"]
        hidden = nn.linear(rows, w)
        if self.kind == "skipped":
            return nn.linear(ops.tanh(hidden), v) + rows
        if self.kind == "twice":
            return nn.linear(ops.tanh(hidden), w)
        if self.kind == "pixels":
            return ops.reshape(nn.linear(x, ops.reshape(w[:2, :2], (2, 2))), (-1, 4))
        return ops.tanh(rows * w[0])


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_both_parts_make_the_network(model, rng: np.random.Generator) -> None:
    params, images = model.init(rng), Tensor(rng.random((3, *model.image_shape)))
    logits = model({name: Tensor(array) for name, array in params.items()}, images).data
    cuts = linear_layers(model, params)
    assert cuts
    for cut in cuts:
        h = cut.below(images).data
        z = h @ params[cut.weight].T + params[cut.bias]
        np.testing.assert_allclose(cut.above(Tensor(z)).data, logits, atol=1e-12)
        program = trace(cut.above, z)
        np.testing.assert_allclose(program(z)[0], logits, atol=1e-12)


def test_every_layer_of_an_mlp_is_found_and_only_the_last_of_a_lenet(
    rng: np.random.Generator,
) -> None:
    names = [[cut.weight for cut in linear_layers(m, m.init(rng))] for m in MODELS[:2]]
    assert names == [["0.weight", "2.weight", "4.weight"], ["fc.0.weight"]]


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("skipped", "the logits depend on the image without it as well"),
        ("twice", "not the weight of one linear layer"),
        ("pixels", "not one row for each image"),
        ("product", "not the weight of one linear layer"),
    ],
)
def test_what_cannot_be_cut_is_refused(kind: str, why: str, rng: np.random.Generator) -> None:
    model = Other(kind)
    params = {name: rng.random(shape) for name, shape in model.shapes.items()}
    with pytest.raises(ValueError, match=f"{why}; choose another layer"):
        split(model, params, "w")
