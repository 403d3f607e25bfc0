"""Records, one by one out of one layer's gradient: all of them, exactly, and no others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from tinyleak import attack, data, nn
from tinyleak.analytic import LayerGradient, known
from tinyleak.analytic.deltas import Deltas
from tinyleak.analytic.extreme_rays import extreme_rays
from tinyleak.analytic.lock import lock
from tinyleak.analytic.records import find_records
from tinyleak.analytic.search import Search
from tinyleak.analytic.subspace import without
from tinyleak.analytic.together import Together
from tinyleak.client import Client, share, simulate
from tinyleak.nn.activations import relu
from tinyleak.nn.losses import softmax
from tinyleak.nn.split import split
from tinyleak.tensor import Tensor

GLYPHS = data.load("glyphs")
MNIST = (1, 28, 28)


@dataclass(frozen=True)
class Convolutional:
    """A convolution, ReLU, max pooling and two linear layers, on parts of digits."""

    image_shape = (1, 14, 14)
    classes = 10
    shapes = {  # noqa: RUF012
        "conv.weight": (16, 1, 5, 5),
        "conv.bias": (16,),
        "0.weight": (50, 784),
        "0.bias": (50,),
        "1.weight": (10, 50),
        "1.bias": (10,),
    }

    def init(self, rng, scheme="uniform", dtype="float64"):
        return nn.init.draw(self.shapes, rng, scheme, dtype=dtype)

    def __call__(self, params, x):
        x = relu(nn.conv2d(x, params["conv.weight"], params["conv.bias"], padding=(2, 2)))
        x = nn.flatten(nn.max_pool2d(x, (2, 2)))
        x = relu(nn.linear(x, params["0.weight"], params["0.bias"]))
        return nn.linear(x, params["1.weight"], params["1.bias"])


def batch(rng: np.random.Generator, count: int):
    images, labels = GLYPHS.batch(rng.choice(len(GLYPHS.labels), count, replace=False).tolist())
    return images, np.asarray(labels)


def search(client: Client, name: str = "0", **settings):
    params = {name: array.astype(float) for name, array in client.params.items()}
    layer = LayerGradient(
        client.gradients[f"{name}.weight"],
        client.gradients.get(f"{name}.bias"),
        client.batch,
        float(np.finfo(client.dtype).eps),
    )
    return find_records(layer, split(client.model, params, f"{name}.weight"), **settings)


def errors(records, images: np.ndarray) -> np.ndarray:
    """The mean squared error of each record to the image that it is nearest to."""
    rows = images.reshape(len(images), -1)
    return np.array([np.square(rows - h).mean(axis=1).min() for h in records.inputs])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "act", ["sigmoid", "tanh", "softplus", "gelu", "elu", "relu", "leaky_relu"]
)
def test_all_records_of_a_batch_are_found(act: str, dtype: str, rng: np.random.Generator) -> None:
    images, labels = batch(rng, 12)
    model = nn.MLP(MNIST, 10, act, (100,))
    client, _ = simulate(model, images, labels, seed=3, dtype=dtype, init="default")
    found = search(client, bounds=(0.0, 1.0))
    assert found.missing == 0
    assert errors(found, images).max() < (1e-8 if dtype == "float64" else 1e-6)
    assert sorted(found.labels) == sorted(labels)
    assert repr(found).startswith("Records(12 of 12, ")


def test_records_come_apart_where_the_losss_factor_is_not_known(rng: np.random.Generator) -> None:
    images, labels = batch(rng, 6)
    client, _ = simulate(nn.MLP(MNIST, 10, "tanh", (60,)), images, labels, init="default")
    scaled = {name: 0.75 * gradient for name, gradient in client.gradients.items()}
    client = Client.of(client.model, client.params, scaled, batch=6)
    assert search(client).copies.sum() == 0, "three quarters of a record are none"
    found = search(client, factor_known=False)
    assert errors(found, images).max() < 1e-8
    assert found.copies.tolist() == [1] * 6


@pytest.mark.parametrize("act", ["tanh", "relu"])
def test_of_two_classes_the_sign_tells_the_label_without_the_factor(act: str, rng) -> None:
    images, labels = batch(rng, 6)
    client, _ = simulate(nn.MLP(MNIST, 2, act, (80,)), images, labels % 2, init="default")
    found = search(client, factor_known=False)
    near = [int(np.square(images.reshape(6, -1) - h).sum(axis=1).argmin()) for h in found.inputs]
    assert found.missing == 0
    assert found.labels.tolist() == (labels[near] % 2).tolist()


def test_without_the_factor_a_record_that_stands_alone_is_not_taken() -> None:
    """Of few classes much has the δ of a record under a ReLU, and only its length tells."""
    rng = np.random.default_rng(326846)
    images, labels = batch(rng, 8)
    images[1] = np.clip(images[0] + 1e-4 * rng.standard_normal(MNIST), 0.0, 1.0)
    images[3] = (1.0 - 1e-4) * images[2]
    model = nn.MLP(MNIST, 3, "leaky_relu", (120,))
    params = nn.init.draw(model.shapes, np.random.default_rng([326846, 1]), "default")
    client, _ = share(model, params, images, labels % 3, dtype="float32")
    found = search(client, bounds=(0.0, 1.0), factor_known=False, rng=np.random.default_rng(326846))
    assert all(errors(found, images) < 1e-6)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_delta_that_rounds_to_zero_does_not_end_the_search(rng: np.random.Generator) -> None:
    images, labels = batch(rng, 16)
    model = nn.MLP(MNIST, 10, "softplus", (40,))
    params = nn.init.draw(model.shapes, np.random.default_rng([3, 1]), "default")
    params["2.weight"] *= 1000.0
    client, _ = share(model, params, images, labels, dtype="float32")
    found = search(client, bounds=(0.0, 1.0))
    assert len(found.inputs) >= 12
    assert errors(found, images).max() < 1e-6


@pytest.mark.parametrize("size", [0.0, 1e-310, math.nan])
def test_where_nothing_shows_an_input_it_is_not_known(size: float) -> None:
    space = SimpleNamespace(U=np.eye(4, 2), S=np.ones(2))
    search = SimpleNamespace(space=space, evaluate=lambda *_, **__: (1.0, size * np.eye(2), None))
    with np.errstate(all="raise"):
        assert Search._spread(search, None, 0, np.zeros(2)) == math.inf


def test_a_network_that_is_sure_of_most_images_gives_them_all(rng) -> None:
    images, labels = batch(rng, 12)
    model = nn.MLP(MNIST, 10, "relu", (300,))
    params = nn.init.draw(model.shapes, np.random.default_rng([1, 0]), "default")
    params["2.weight"] *= 60.0
    # The client's labels are what the network says, but for two.
    h = split(model, params, "2.weight")
    logits = h.outputs(h.below(Tensor(images))).data
    labels = np.append(logits.argmax(axis=1)[:-2], logits.argmin(axis=1)[-2:])
    client, _ = share(model, params, images, labels, dtype="float32")
    sizes = np.abs(np.eye(10)[labels] - softmax(Tensor(logits)).data).max(axis=1)
    assert sizes.min() < 1e-2 * sizes.max()
    found = search(client, bounds=(0.0, 1.0))
    assert found.missing == 0
    assert errors(found, images).max() < 1e-6


def test_repeated_images_and_one_label_are_no_obstacle(rng: np.random.Generator) -> None:
    images, _ = batch(rng, 6)
    order = [0, 1, 2, 2, 3, 3, 3, 4, 5]
    client, _ = simulate(nn.MLP(MNIST, 10, "tanh", (60,)), images[order], [7] * 9, init="default")
    found = search(client)
    assert sorted(found.copies) == [1, 1, 1, 1, 2, 3]
    assert set(found.labels) == {7}
    assert errors(found, images).max() < 1e-8


@pytest.mark.parametrize("act", ["sigmoid", "relu"])
def test_a_hidden_layer_gives_its_features(act: str, rng: np.random.Generator) -> None:
    images, labels = batch(rng, 8)
    model = nn.MLP(MNIST, 10, act, (90, 80))
    client, _ = simulate(model, images, labels, seed=1, init="default")
    found = search(client, "2")
    params = {name: array.astype(float) for name, array in client.params.items()}
    features = split(model, params, "2.weight").below(Tensor(images)).data
    assert found.missing == 0
    assert errors(found, features).max() < 1e-8


@pytest.mark.parametrize("act", ["sigmoid", "relu"])
def test_a_layer_without_bias_gives_them_too(act: str, rng: np.random.Generator) -> None:
    images, labels = batch(rng, 6)
    model = nn.MLP(MNIST, 10, act, (100,), unbiased=("0",))
    client, _ = simulate(model, images, labels, init="default")
    found = search(client, bounds=(0.0, 1.0))
    assert found.missing == 0
    assert errors(found, images).max() < 1e-8


@pytest.mark.parametrize(
    ("act", "widths", "seed"),
    [("relu", (100, 60), 0), ("relu", (60, 8), 2), ("leaky_relu", (100, 60), 0)],
)
def test_two_layers_of_relus_are_seen_through(act, widths, seed, rng) -> None:
    """With few units in the second all may be on for two points, as if there were none."""
    images, labels = batch(rng, 8)
    client, _ = simulate(
        nn.MLP(MNIST, 10, act, widths), images, labels, seed=seed, init="default", dtype="float32"
    )
    found = search(client, bounds=(0.0, 1.0))
    assert found.missing == 0
    assert errors(found, images).max() < 1e-6


def test_leaky_relus_above_leaky_ones_all_lock() -> None:
    """Searches for some records always end where an upper one is wrong, until slopes are sharp."""
    images, labels = batch(np.random.default_rng(1), 30)
    model = nn.MLP(MNIST, 10, "leaky_relu", (128, 200))
    client, _ = simulate(model, images, labels, seed=1, init="default", dtype="float32")
    found = search(client, bounds=(0.0, 1.0))
    assert found.missing == 0
    assert errors(found, images).max() < 1e-6


def test_under_noise_nothing_false_is_claimed(rng: np.random.Generator) -> None:
    images, labels = batch(rng, 6)
    client, _ = simulate(nn.MLP(MNIST, 10, "sigmoid", (60,)), images, labels, init="default")
    for deviation in (1e-8, 1e-6, 1e-4):
        noisy = {
            name: g + deviation * rng.standard_normal(g.shape)
            for name, g in client.gradients.items()
        }
        found = search(Client(client.model, client.params, noisy, 6), bounds=(0.0, 1.0), seconds=2)
        assert (errors(found, images) < 1e-4).all()


def test_what_cannot_be_is_said_beforehand(rng: np.random.Generator) -> None:
    images, labels = batch(rng, 10)
    client, _ = simulate(nn.MLP(MNIST, 10, "tanh", (12,)), images, labels)
    with pytest.raises(ValueError, match="12 outputs tell 6 records apart at most, and it shows"):
        search(client)
    client, _ = simulate(nn.MLP(MNIST, 10, "tanh", (60,)), images, labels)
    fewer = Client(client.model, client.params, client.gradients, 7)
    with pytest.raises(ValueError, match="shows 10 records or more, but .* said to have 7; give"):
        search(fewer)


def test_a_search_out_of_time_keeps_what_it_has(rng: np.random.Generator) -> None:
    images, labels = batch(rng, 12)
    client, _ = simulate(nn.MLP(MNIST, 10, "tanh", (60,)), images, labels, init="default")
    found = search(client, seconds=0.0)
    assert found.missing == 12
    assert found.inputs.shape == (0, 784)


@pytest.mark.parametrize("act", ["sigmoid", "tanh", "softplus", "relu"])
@pytest.mark.parametrize("widths", [(30,), (30, 20)])
def test_derivatives_of_delta_are_those_of_differences(act, widths, rng) -> None:
    model = nn.MLP((1, 4, 4), 5, act, widths)
    deltas = Deltas(split(model, model.init(rng), "0.weight"))
    z, target, directions = rng.standard_normal(30), np.eye(5)[2], rng.standard_normal((3, 30))
    delta, changes = deltas.along(z, target, directions)
    np.testing.assert_allclose(delta, deltas.of(z[None], target[None])[0], atol=1e-14)
    for direction, change in zip(directions, changes, strict=True):
        ends = np.stack([z + 1e-6 * direction, z - 1e-6 * direction])
        above, below = deltas.of(ends, np.stack([target, target]))
        np.testing.assert_allclose(change, (above - below) / 2e-6, atol=1e-8)
    assert deltas.has_kinks is (act == "relu")
    soft, soft_changes = deltas.along(z, target, directions, 0.3)
    assert np.allclose(soft, delta, atol=1e-14) is (act != "relu")
    assert np.isfinite(soft_changes).all()


def test_derivatives_are_found_through_any_network(rng) -> None:
    @dataclass(frozen=True)
    class Normalised:
        image_shape: tuple = (1, 2, 3)
        classes: int = 3

        @property
        def shapes(self):
            return {"a": (5, 6), "g": (5,), "s": (5,), "b": (3, 5)}

        def __call__(self, params, x):
            hidden = nn.linear(nn.flatten(x), params["a"])
            return nn.linear(nn.layer_norm(hidden, params["g"], params["s"]), params["b"])

    model = Normalised()
    params = {name: rng.standard_normal(shape) for name, shape in model.shapes.items()}
    deltas = Deltas(split(model, params, "a"))
    z, target, direction = rng.standard_normal(5), np.eye(3)[1], rng.standard_normal(5)
    _, changes = deltas.along(z, target, direction[None])
    ends = np.stack([z + 1e-6 * direction, z - 1e-6 * direction])
    above, below = deltas.of(ends, np.stack([target, target]))
    np.testing.assert_allclose(changes[0], (above - below) / 2e-6, atol=1e-7)


def test_a_delta_is_locked_with_some_wrong_signs_and_not_with_all(rng) -> None:
    above, signs = rng.standard_normal((300, 5)), rng.random((300, 9)) < 0.5
    errors_of_logits = rng.standard_normal((5, 9))
    errors_of_logits -= errors_of_logits.mean(axis=0)
    U = np.linalg.qr(signs * (above @ errors_of_logits))[0]
    slopes = signs[:, 4].astype(float)
    slopes[:20] = 1.0 - slopes[:20]
    ((v, e),), _ = lock(U, slopes, above, np.ones(300), np.full(9, 1e-12))
    assert e is not None
    cosine = e @ errors_of_logits[:, 4] / np.linalg.norm(e) / np.linalg.norm(errors_of_logits[:, 4])
    assert abs(cosine) == pytest.approx(1.0, abs=1e-9)
    delta = signs[:, 4] * (above @ errors_of_logits[:, 4])
    assert abs(v @ (U.T @ delta)) == pytest.approx(np.linalg.norm(delta), rel=1e-9)
    wrong = (rng.random(300) < 0.5).astype(float)
    assert lock(U, wrong, above, np.ones(300), np.full(9, 1e-12))[0] == []


def test_units_that_are_off_in_all_records_lock_nothing(rng) -> None:
    on = np.arange(300) < 40
    U = np.linalg.qr(on[:, None] * rng.standard_normal((300, 9)))[0] * on[:, None]
    slopes, above = on.astype(float), rng.standard_normal((300, 10))
    assert lock(U, slopes, above, np.ones(300), np.full(9, 1e-12))[0] == []


def test_twins_under_a_relu_are_told_apart_by_the_few_signs_in_which_they_differ(rng) -> None:
    above, signs = rng.standard_normal((300, 5)), rng.random((300, 9)) < 0.5
    signs[:, 5:7] = signs[:, [4]] ^ (rng.random((300, 2)) < 0.04)
    errors_of_logits = rng.standard_normal((5, 9))
    errors_of_logits -= errors_of_logits.mean(axis=0)
    delta = signs * (above @ errors_of_logits)
    U = np.linalg.qr(delta)[0]
    differ = np.ptp(signs[:, 4:7].astype(int), axis=1) > 0
    slopes = np.where(differ, rng.random(300) < 0.5, signs[:, 4]).astype(float)
    found, _ = lock(U, slopes, above, np.ones(300), np.full(9, 1e-12))
    cosines = np.stack([v for v, _ in found]) @ (U.T @ delta / np.linalg.norm(delta, axis=0))
    np.testing.assert_allclose(np.abs(cosines).max(axis=1), 1.0, atol=1e-9)
    assert set(np.abs(cosines).argmax(axis=1)) == {4, 5, 6}


def test_many_alike_under_a_relu_are_known_as_a_span_of_just_them(rng) -> None:
    above, signs = rng.standard_normal((400, 5)), rng.random((400, 24)) < 0.5
    signs[:, 1:16] = signs[:, [0]] ^ (rng.random((400, 15)) < 0.02)
    errors_of_logits = rng.standard_normal((5, 24))
    errors_of_logits -= errors_of_logits.mean(axis=0)
    delta = signs * (above @ errors_of_logits)
    U = np.linalg.qr(delta)[0]
    differ = np.ptp(signs[:, :16].astype(int), axis=1) > 0
    slopes = np.where(differ, rng.random(400) < 0.5, signs[:, 0]).astype(float)
    _, span = lock(U, slopes, above, np.ones(400), np.full(24, 1e-12))
    known = U.T @ delta / np.linalg.norm(delta, axis=0)
    inside = np.linalg.norm(known - span.T @ span @ known, axis=0) < 1e-6
    assert 10 < len(span) == inside[:16].sum() == inside.sum()


def test_images_that_are_alike_are_refined_together_and_then_certified() -> None:
    rng = np.random.default_rng(1)
    images, labels = batch(rng, 12)
    model = nn.MLP(MNIST, 10, "softplus", (300,))
    params = nn.init.draw(model.shapes, np.random.default_rng([1, 1]), "default")
    client, _ = share(model, params, 0.27 + 0.1 * images, labels, dtype="float32")
    found = search(client, bounds=(0.0, 1.0))
    assert found.missing == 0, "one by one six are found"
    assert errors(found, 0.27 + 0.1 * images).max() < 1e-6


@pytest.mark.parametrize(("spread", "certified"), [(4e-3, 6), (6e-3, 0)])
def test_what_is_known_to_a_sixth_of_a_pixels_exactness_is_certified(
    spread: float, certified: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 784 pixels from 0 to 1 a thousandth each is a distance of 0.028."""
    images, labels = batch(rng, 6)
    model = nn.MLP(MNIST, 10, "tanh", (80,))
    client, _ = simulate(model, images, labels, dtype="float32", init="default")
    layer = LayerGradient(client.gradients["0.weight"], client.gradients["0.bias"], 6, 1.2e-7)
    deltas = Deltas(split(model, client.params, "0.weight"))
    one = Search(layer, deltas, (0.0, 1.0), rng, 60.0, True)
    one.guesses = [*zip(images.reshape(6, -1), labels.tolist(), strict=True)]

    def as_they_are(space, deltas, c, targets, counts, noise, rng) -> Together:
        return Together(c, np.full(len(c), spread), np.zeros((len(c), len(c))))

    monkeypatch.setattr(known, "refine", as_they_are)
    assert one._refine()
    assert len(one.inputs) == certified
    assert len(one.guesses) == 6 - certified


def test_twins_that_noise_hides_are_not_claimed_as_copies_of_their_mean(rng) -> None:
    images, labels = batch(rng, 6)
    aside = rng.standard_normal(images[0].shape)
    images[1] = images[0] + 0.01 * np.linalg.norm(images[0]) / np.linalg.norm(aside) * aside
    labels[1] = labels[0]
    client, _ = simulate(nn.MLP(MNIST, 10, "tanh", (80,)), images, labels, init="default")
    found = search(noisy(client, 1e-5, rng), bounds=(0.0, 1.0))
    assert found.copies.tolist() == [1] * 4
    images[1] = images[0]
    client, _ = simulate(nn.MLP(MNIST, 10, "tanh", (80,)), images, labels, init="default")
    assert search(client, bounds=(0.0, 1.0)).copies.sum() == 6, "which are copies of it without"


def noisy(client: Client, noise: float, rng: np.random.Generator, factor: float = 1.0) -> Client:
    shared = {
        n: factor * g + (noise * g.std() * rng.standard_normal(g.shape)).astype(g.dtype)
        for n, g in client.gradients.items()
    }
    kind = client.dtype
    return Client.of(client.model, client.params, shared, batch=client.batch, dtype=kind)


def test_means_of_more_twins_than_the_rank_hides_are_not_copies() -> None:
    rng = np.random.default_rng(3)
    images, labels = batch(rng, 16)
    for k in range(0, 8, 2):
        aside = np.linalg.norm(images[k]) * rng.standard_normal(MNIST) / 28.0
        images[k + 1] = (images[k] + 10 ** rng.uniform(-2.5, -1.5) * aside).clip(0.0, 1.0)
        labels[k + 1] = labels[k]
    model = nn.MLP(MNIST, 10, "softplus", (80,))
    params = model.init(rng)
    params["2.weight"] *= 30.0
    client, _ = share(model, params, images, labels, dtype="float32")
    found = search(noisy(client, 2e-6, rng), bounds=(0.0, 1.0))
    assert len(found.inputs) >= 8
    assert errors(found, images).max() < 1e-6


def test_mixtures_that_agree_on_another_factor_are_not_taken() -> None:
    rng = np.random.default_rng(0)
    images, labels = batch(rng, 12)
    for k in (0, 3, 6):  # each a third image's half: its δ is as good as that of both
        images[k + 2] = 0.5 * (images[k] + images[k + 1])
        labels[k : k + 3] = labels[k]
    model = nn.MLP(MNIST, 10, "sigmoid", (120, 40))
    client, _ = simulate(model, images, labels, seed=0, dtype="float32", init="default")
    found = search(noisy(client, 1e-5, rng, 0.75), bounds=(0.0, 1.0), factor_known=False)
    assert (errors(found, images) < 1e-6).all()


def test_a_basis_loses_one_direction_and_stays_orthonormal(rng) -> None:
    basis = np.linalg.qr(rng.standard_normal((7, 4)))[0].T
    given = rng.standard_normal(4)
    left = without(basis, given)
    np.testing.assert_allclose(left @ left.T, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(left @ (given @ basis), 0.0, atol=1e-13)


def test_features_after_a_relu_are_extreme_rays(rng: np.random.Generator) -> None:
    features = np.maximum(rng.standard_normal((5, 400)), 0.0)
    mixed = np.linalg.qr(np.column_stack([features, np.ones(5)]).T)[0].T
    found, spread = extreme_rays(mixed, 1e-6 * np.eye(5))
    rays = (found @ mixed)[:, :-1]
    order = np.abs(rays[:, None] - features).max(axis=2).argmin(axis=1)
    assert sorted(order) == list(range(5))
    np.testing.assert_allclose(rays, features[order], atol=1e-12)
    off = []
    for _ in range(100):
        noisy = mixed + 1e-6 * rng.standard_normal(mixed.shape)
        again = extreme_rays(noisy, 1e-6 * np.eye(5))[0]
        nearest = np.linalg.norm(again[:, None] - found, axis=2).argmin(axis=0)
        off.append(np.linalg.norm(again[nearest] - found, axis=1))
    measured = np.sqrt(np.mean(np.square(off), axis=0))
    assert (measured < 2.0 * spread).all() and (measured > 0.2 * spread).all()
    assert extreme_rays(np.linalg.qr(rng.standard_normal((41, 5)))[0].T, np.eye(5)) is None


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_batch_of_a_convolutional_network_comes_apart(dtype: str, rng) -> None:
    images, labels = batch(rng, 4)
    images = images[:, :, 7:21, 7:21]
    client, truth = simulate(Convolutional(), images, labels, seed=2, dtype=dtype, init="default")
    found = attack(client, method="auto")
    assert found.reason == "converged"
    outcome = truth.judge(found)
    assert max(outcome.mse) < (1e-10 if dtype == "float64" else 1e-6)
    assert sorted(found.labels) == sorted(labels)
