"""A network cut in two at a linear layer: the halves together are the network."""

from __future__ import annotations

import numpy as np
import pytest

from tinyleak import nn, ops
from tinyleak.gradient import grad
from tinyleak.nn.split import split
from tinyleak.tensor import Tensor

MLP = nn.MLP((1, 4, 4), 3, widths=(8, 5))


class Attending:
    """Ends in a softmax of its own, whose shift no derivative passes through."""

    image_shape, classes, shapes = (1, 2, 2), 3, {"in.weight": (5, 4), "out.weight": (3, 5)}

    def __call__(self, params, x):
        return nn.softmax(nn.linear(nn.flatten(x), params["in.weight"]) * 9.0) @ ops.transpose(
            params["out.weight"], (1, 0)
        )


@pytest.mark.parametrize(
    ("model", "layer"),
    [(MLP, "0.weight"), (MLP, "2.weight"), (nn.LeNet((1, 8, 8), 4), "fc.0.weight")]
    + [(Attending(), "in.weight")],
)
def test_the_halves_are_the_network(model, layer: str, rng: np.random.Generator) -> None:
    params = {name: Tensor(rng.standard_normal(shape)) for name, shape in model.shapes.items()}
    x = Tensor(rng.random((3, *model.image_shape)))
    below, above = split(model, params, layer, 3)
    outputs = nn.linear(below(x), params[layer], params.get(layer.replace("weight", "bias")))
    logits = model(params, x)
    np.testing.assert_array_equal(above(outputs).numpy(), logits.numpy())

    free = Tensor(outputs.numpy())
    slopes = grad(ops.sum(above(free) * above(free)), free)
    whole = grad(ops.sum(logits * logits), params[layer])
    np.testing.assert_allclose((slopes.numpy().T @ below(x).numpy()), whole.numpy(), rtol=1e-12)


def test_what_cannot_be_cut(rng: np.random.Generator) -> None:
    lenet = nn.LeNet((1, 8, 8), 4)
    params = {name: Tensor(rng.standard_normal(shape)) for name, shape in lenet.shapes.items()}
    with pytest.raises(ValueError, match="'body.0.weight' is the weight of 0 linear layers"):
        split(lenet, params, "body.0.weight", 1)
