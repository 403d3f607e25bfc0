"""What float32 leaves to the attack by features: held against the attack itself."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from test_smoothed import TwoHeads

from tinyleak import nn, one_hot
from tinyleak.analytic.jacobian import Jacobian
from tinyleak.attacks.features_first import features_first
from tinyleak.audit import audit
from tinyleak.audit.by_features import error_by_features, in_float32
from tinyleak.data import load
from tinyleak.nn import MLP, init
from tinyleak.nn.model import Model
from tinyleak.ops import sigmoid
from tinyleak.tensor import Tensor

GLYPHS = load("glyphs")
MODEL = MLP(GLYPHS.images.shape[1:], 10, "tanh", (64,))
PRIOR = 0.1


def jacobian_of(model: Model, images: np.ndarray, seed: int) -> Jacobian:
    params = init.draw(model.shapes, np.random.default_rng(seed), "default")
    return Jacobian(model, params, images, one_hot(np.zeros(len(images), int), model.classes))


def test_the_forecast_is_where_the_attack_ends() -> None:
    ratios, errors = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        image = np.where(rng.random((1, 1, 8, 8)) < 0.4, rng.random((1, 1, 8, 8)), 0.0)
        client, truth = in_float32(jacobian_of(TwoHeads(), image, seed))
        forecast, found = error_by_features(client, truth, PRIOR), features_first(client)
        assert forecast is not None and found is not None
        errors.append(np.mean((found - truth.images) ** 2))
        ratios.append(forecast / errors[-1])
    assert np.median(errors) < 1e-10
    assert 0.3 < np.median(ratios) < 3.0


def test_of_a_first_layer_it_is_what_is_read_off_and_what_an_audit_says() -> None:
    jacobian = jacobian_of(MODEL, GLYPHS.images[:1], 0)
    client, truth = in_float32(jacobian)
    forecast, found = error_by_features(client, truth, PRIOR), features_first(client)
    assert found is not None
    assert forecast == np.mean((found - truth.images.astype(float)) ** 2) < 1e-12
    said = audit(MODEL, jacobian.params, GLYPHS, examples=1, prior=PRIOR)
    assert np.array_equal(said.images, jacobian.images)
    assert said.rounded.mse == forecast


def test_of_several_images_and_where_nothing_is_shown_it_is_not_told() -> None:
    assert error_by_features(*in_float32(jacobian_of(MODEL, GLYPHS.images[:2], 0)), PRIOR) is None
    client, truth = in_float32(jacobian_of(MODEL, GLYPHS.images[:1], 0))
    nothing = {name: np.zeros_like(array) for name, array in client.gradients.items()}
    assert error_by_features(replace(client, gradients=nothing), truth, PRIOR) is None


def test_what_features_leave_open_is_not_forecast_by_them() -> None:
    """Sixteen means of pixels, of 64: the gradient says no more than these."""

    @dataclass(frozen=True)
    class Means:
        classes: int = 3
        image_shape: tuple[int, int, int] = (1, 8, 8)

        @property
        def shapes(self) -> dict[str, tuple[int, ...]]:
            return {"one.weight": (8, 16), "one.bias": (8,), "two.weight": (3, 8), "two.bias": (3,)}

        def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
            h = nn.flatten(nn.avg_pool2d(x, (2, 2)))
            h = sigmoid(nn.linear(h, params["one.weight"], params["one.bias"]))
            return nn.linear(h, params["two.weight"], params["two.bias"])

    model, image = Means(), np.random.default_rng(0).random((1, 1, 8, 8))
    jacobian = jacobian_of(model, image, 0)
    assert error_by_features(*in_float32(jacobian), PRIOR) is None
    images = np.random.default_rng(1).random((4, 1, 8, 8))
    assert audit(model, jacobian.params, images, examples=1).verdict == "recognisable"


def test_a_network_whose_units_are_all_dead_is_audited() -> None:
    model = MLP((1, 8, 8), 4, "relu", (20, 12))
    params = model.init(np.random.default_rng(0))
    params["0.bias"] = params["0.bias"] - 100.0
    found = audit(model, params, examples=1)
    assert found.rounded.mse > 0.2 * found.prior
