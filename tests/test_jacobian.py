"""The Jacobian of the shared gradient: PyTorch's, by its two products and as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from tinyleak.analytic.jacobian import Jacobian
from tinyleak.nn import MLP, LeNet, one_hot
from tinyleak.nn.model import Model
from tinyleak.tensor import Tensor

SHAPE = (1, 6, 6)
MODELS = {
    "lenet sigmoid": LeNet(SHAPE, 4, "sigmoid", hidden=3),
    "lenet tanh": LeNet((2, 5, 6), 4, "tanh", hidden=2),
    "lenet relu": LeNet(SHAPE, 4, "relu", hidden=3),
    "mlp softplus": MLP(SHAPE, 4, "softplus", (5, 4)),
}


def at(model: Model, batch: int, rng: np.random.Generator) -> Jacobian:
    images = rng.random((batch, *model.image_shape))
    targets = one_hot(rng.integers(model.classes, size=batch), model.classes)
    return Jacobian(model, model.init(rng), images, targets)


def pytorchs(jacobian: Jacobian) -> np.ndarray:
    """∂g/∂x (P, n), by torch.func, of the same network written in PyTorch."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    model = jacobian.model
    squash = {"softplus": functional.softplus}.get(
        model.activation, getattr(torch, model.activation, None)
    )
    targets = torch.from_numpy(jacobian.targets)

    def logits(params, x):
        if isinstance(model, MLP):
            x = x.flatten(1)
            for layer in range(len(model.widths) + 1):
                x = x if layer == 0 else squash(x)
                x = functional.linear(x, params[f"{2 * layer}.weight"], params[f"{2 * layer}.bias"])
            return x
        for layer, stride in enumerate((2, 2, 1)):
            weight, bias = params[f"body.{2 * layer}.weight"], params[f"body.{2 * layer}.bias"]
            x = squash(functional.conv2d(x, weight, bias, stride=stride, padding=2))
        return functional.linear(x.flatten(1), params["fc.0.weight"], params["fc.0.bias"])

    def loss(params, x):
        return functional.cross_entropy(logits(params, x), targets)

    params = {name: torch.from_numpy(array) for name, array in jacobian.params.items()}
    found = torch.func.jacrev(torch.func.grad(loss), argnums=1)(
        params, torch.from_numpy(jacobian.images)
    )
    rows = [found[name].reshape(params[name].numel(), -1) for name in model.shapes]
    return torch.cat(rows).numpy()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch", [1, 3])
def test_it_is_pytorchs(name: str, batch: int, rng: np.random.Generator) -> None:
    jacobian = at(MODELS[name], batch, rng)
    expected = pytorchs(jacobian)
    assert np.abs(expected).max() > 1e-4
    allowed = 1e-12 * np.abs(expected).max()
    np.testing.assert_allclose(jacobian.dense(), expected, rtol=0, atol=allowed)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_products_are_those_of_the_matrix(batch: int, rng: np.random.Generator) -> None:
    model = MODELS["lenet sigmoid"]
    jacobian = at(model, batch, rng)
    matrix = jacobian.dense()
    directions = rng.standard_normal((2, jacobian.size))
    moved = jacobian.times(Tensor(directions))
    flat = np.concatenate([moved[name].data.reshape(2, -1) for name in model.shapes], axis=1)
    np.testing.assert_allclose(flat, directions @ matrix.T, atol=1e-12)
    covectors = {name: rng.standard_normal((2, *shape)) for name, shape in model.shapes.items()}
    back = jacobian.transposed_times({name: Tensor(u) for name, u in covectors.items()})
    flat = np.concatenate([u.reshape(2, -1) for u in covectors.values()], axis=1)
    np.testing.assert_allclose(back.data, flat @ matrix, atol=1e-12)
    np.testing.assert_allclose(jacobian.gram(), matrix.T @ matrix, atol=1e-12)


def test_a_batchs_jacobian_is_each_images_own_side_by_side(rng: np.random.Generator) -> None:
    model = MODELS["lenet tanh"]
    together = at(model, 2, rng)
    alone = [
        Jacobian(model, together.params, together.images[i : i + 1], together.targets[i : i + 1])
        for i in range(2)
    ]
    expected = np.concatenate([one.dense() / 2 for one in alone], axis=1)
    np.testing.assert_allclose(together.dense(), expected, atol=1e-14)
