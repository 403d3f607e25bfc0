"""One image by the features that a linear layer shows: ReLU and max pooling do not hide it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from tinyleak import Attacker, attack, nn, ops, share
from tinyleak.attacks.features_first import features_first, known_label
from tinyleak.attacks.shown import shown_addition, shown_layer
from tinyleak.client import Client
from tinyleak.nn import init
from tinyleak.nn.models.as_trained import heads_of
from tinyleak.tensor import Tensor


@dataclass(frozen=True)
class Pooled:
    """A convolution, an activation, max or average pooling, and two linear layers."""

    channels: int = 48
    activation: str = "relu"
    largest: bool = True
    image_shape: tuple[int, int, int] = (1, 8, 8)
    classes: int = 4

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        features = self.channels * 16
        return {
            **{"conv.weight": (self.channels, 1, 3, 3), "conv.bias": (self.channels,)},
            **{"hidden.weight": (20, features), "hidden.bias": (20,)},
            **{"out.weight": (4, 20), "out.bias": (4,)},
        }

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        squash = nn.activation(self.activation)
        x = squash(nn.conv2d(x, params["conv.weight"], params["conv.bias"], padding=(1, 1)))
        x = nn.max_pool2d(x, (2, 2)) if self.largest else nn.avg_pool2d(x, (2, 2))
        hidden = squash(nn.linear(nn.flatten(x), params["hidden.weight"], params["hidden.bias"]))
        return nn.linear(hidden, params["out.weight"], params["out.bias"])


@dataclass(frozen=True)
class TwoHeads:
    """Two answers, each with a loss of its own: the labels stand side by side."""

    image_shape: tuple[int, int, int] = (1, 8, 8)
    classes: int = 7
    heads: tuple[int, int] = (4, 3)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        layers = {"hidden": (80, 64), "first": (4, 80), "second": (3, 80)}
        return {
            f"{layer}.{kind}": shape if kind == "weight" else shape[:1]
            for layer, shape in layers.items()
            for kind in ("weight", "bias")
        }

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        hidden = ops.tanh(nn.linear(nn.flatten(x), params["hidden.weight"], params["hidden.bias"]))
        ends = [
            nn.log_softmax(nn.linear(hidden, params[f"{end}.weight"], params[f"{end}.bias"]))
            for end in ("first", "second")
        ]
        return ops.concatenate(ends, -1)


def client_of(model: Pooled, seed: int = 0, batch: int = 1) -> tuple[Client, np.ndarray]:
    """A client whose files are in float32, and its images: dark ones, with a bright stroke."""
    rng = np.random.default_rng(seed)
    images = np.where(rng.random((batch, 1, 8, 8)) < 0.4, rng.random((batch, 1, 8, 8)), 0.0)
    params = init.draw(model.shapes, rng, "default", dtype="float32")
    client, _ = share(model, params, images, rng.integers(0, 4, batch), dtype="float32")
    return client, images


def error(found: np.ndarray | None, images: np.ndarray) -> float:
    assert found is not None
    return float(np.mean((found - images) ** 2))


@pytest.mark.parametrize("seed", range(3))
def test_relu_and_max_pooling_do_not_hide_an_image(seed: int) -> None:
    client, images = client_of(Pooled(), seed)
    assert error(features_first(client), images) < 1e-15  # where float32's rounding ends
    outcome = attack(client)
    assert error(outcome.images, images) < 1e-15


def test_the_label_follows_from_the_image() -> None:
    client, images = client_of(Pooled())
    soft = known_label(client, images)
    assert soft is not None
    label = attack(client, start=images).labels
    np.testing.assert_allclose(soft, nn.one_hot(label, 4), atol=1e-5)


def test_several_heads_have_a_label_each(rng: np.random.Generator) -> None:
    model, image = TwoHeads(), rng.random((1, 1, 8, 8))
    weights = init.draw(model.shapes, rng, "default")
    params = {name: Tensor(weight) for name, weight in weights.items()}
    labels = np.array([[0.0, 0.0, 1.0, 0.0, 0.25, 0.75, 0.0]])
    slopes = nn.model.parameter_gradients(model, params, Tensor(image), Tensor(labels))
    shared = {name: slope.data for name, slope in slopes.items()}
    client = Client.of(model, weights, shared, reduction="mean")
    assert "summed over 2 heads" in client.loss.fact.value
    soft = known_label(client, image)
    assert soft is not None
    np.testing.assert_allclose(2 * soft, labels, atol=1e-12)
    found = attack(client)
    assert error(found.images, image) < 1e-20
    assert client.explain(found).verdict == "exact"


def test_a_number_of_heads_is_of_attention_and_not_of_answers(rng: np.random.Generator) -> None:
    model = nn.MLP((1, 4, 4), 3, widths=(16,))
    client, truth = share(model, model.init(rng), rng.random((1, 1, 4, 4)), [1])
    named = SimpleNamespace(heads=4, classes=3)
    assert heads_of(named) == heads_of(model) == (3,)
    frozen = dataclasses.replace(client, frozen=("2.bias",))
    assert known_label(frozen, truth.images) is None


def test_a_frozen_layer_is_no_layer_whose_gradient_is_zero() -> None:
    model = Pooled(3, "tanh", largest=False)  # 48 features of 64 pixels
    client, images = client_of(model)
    some = {name: g for name, g in client.gradients.items() if name != "conv.bias"}
    frozen = Client.of(model, client.params, {**some, "conv.bias": None}, reduction="mean")
    assert frozen.frozen == ("conv.bias",)
    assert error(features_first(frozen), images) < 1e-8


def test_fewer_features_than_pixels_leave_one_image_within_the_range_of_pixels() -> None:
    model = Pooled(3, "tanh", largest=False)  # 48 features of 64 pixels
    client, images = client_of(model)
    assert features_first(client, enough=True) is None
    assert error(features_first(client), images) < 1e-8
    assert error(attack(client, start="features").images, images) < 1e-8


def test_where_kinks_would_stop_gradient_matching_fewer_features_are_searched_by_as_well() -> None:
    client, images = client_of(Pooled(3, "relu", largest=False))
    assert error(features_first(client, seed=1, enough=True), images) < 1e-8  # the soonest of three


@dataclass(frozen=True)
class OfASeries(Pooled):
    """The same of a series, whose numbers have no bounds."""

    input_shape: tuple[int, int, int] = (1, 1, 64)

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return super().__call__(params, ops.reshape(x, (*x.shape[:-3], 1, 8, 8)))


def test_fewer_features_than_a_series_has_numbers_are_no_default_start() -> None:
    model = OfASeries(3, largest=False, image_shape=(1, 1, 64))
    client, _ = client_of(Pooled(3, largest=False))
    assert features_first(dataclasses.replace(client, model=model), enough=True) is None


def test_the_lowest_of_the_layers_that_show_most_is_used(rng: np.random.Generator) -> None:
    model = nn.MLP((1, 4, 4), 3, widths=(16, 5))
    params = model.init(rng)
    client, truth = share(model, params, rng.random((1, 1, 4, 4)), [1])
    shown = shown_layer(model, client.params, client.gradients)
    assert shown is not None and shown.layer == "0.weight"
    np.testing.assert_allclose(shown.features[0], truth.images.ravel(), rtol=1e-12)
    assert error(attack(client, attacker=Attacker()).images, truth.images) < 1e-20


def test_a_layer_that_shows_the_pixels_is_used_before_one_of_more_features() -> None:
    model, rng = nn.MLP((1, 3, 3), 4, widths=(24,), activation="relu"), np.random.default_rng(0)
    params = init.draw(model.shapes, rng, "default", dtype="float32")
    client, truth = share(model, params, rng.random((1, 1, 3, 3)), [1], dtype="float32")
    shown = shown_layer(model, client.params, client.gradients)
    assert shown is not None and shown.layer == "0.weight"
    assert error(features_first(client), truth.images) < 1e-13


def test_several_images_show_no_features() -> None:
    client, _ = client_of(Pooled(), batch=2)
    assert features_first(client) is None
    with pytest.raises(ValueError, match="--start features reads what one image gave"):
        attack(client, start="features")


@dataclass(frozen=True)
class Placed:
    """Patches, a parameter added to tell their places, and attention between them."""

    image_shape: tuple[int, int, int] = (1, 8, 8)
    classes: int = 4

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            **{"patch.weight": (20, 16), "patch.bias": (20,), "position": (4, 20)},
            **{"out.weight": (4, 20), "out.bias": (4,)},
        }

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        lead = x.shape[:-3]
        patches = ops.transpose(ops.reshape(x, (*lead, 2, 4, 2, 4)), (0, 2, 1, 3))
        rows = ops.reshape(patches, (*lead[:-1], 4 * lead[-1], 16))
        rows = nn.linear(rows, params["patch.weight"], params["patch.bias"])
        tokens = ops.reshape(rows, (*lead, 4, 20)) + params["position"]
        mixed = nn.attention(tokens, tokens, tokens)
        return nn.linear(ops.mean(mixed, -2), params["out.weight"], params["out.bias"])


def test_a_position_embedding_shows_the_slopes_of_all_patches(rng: np.random.Generator) -> None:
    model, image = Placed(), rng.random((1, 1, 8, 8))
    params = init.draw(model.shapes, rng, "default", dtype="float32")
    client, _ = share(model, params, image, [2], dtype="float32")
    shown = shown_addition(model, client.params, client.gradients)
    assert shown is not None and (shown.layer, [*shown.lower]) == (
        "position",
        ["patch.weight", "patch.bias"],
    )
    assert error(features_first(client, enough=True), image) < 1e-9


def test_images_that_were_normalised_without_a_word_are_not_kept_in_the_range_of_pixels() -> None:
    rng, model = np.random.default_rng(4), Pooled(16)
    params = init.draw(model.shapes, rng, "default", dtype="float32")
    images = (np.where(rng.random((1, 1, 8, 8)) < 0.2, 0.9, 0.0) - 0.1307) / 0.3081
    client, _ = share(model, params, images, [1], dtype="float32")
    assert error(features_first(client), images) < 1e-13


def test_a_layer_of_as_many_features_as_pixels_shows_no_pixels() -> None:
    model = Pooled(4)
    client, _ = client_of(model)
    large = {k: 9 * v if k.startswith("conv") else v for k, v in client.params.items()}
    client, _ = share(model, large, np.full((1, 1, 8, 8), 0.5), [1], dtype="float32")
    assert client.gradients["hidden.weight"].shape[1] == 64
    assert (client.premises.normalisation, client.premises.causes) == (None, ())


def test_layers_that_show_nothing_of_an_image_are_not_said_to_be_missing() -> None:
    model = Pooled(2)
    client, images = client_of(model)
    dark = {k: v - 9.0 * (k == "hidden.bias") for k, v in client.params.items()}
    client, _ = share(model, dark, images, [1], dtype="float32")
    with pytest.raises(ValueError, match="show nothing of its image: of each the gradient is zero"):
        attack(client, start="features")
