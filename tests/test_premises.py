"""What a gradient's structure tells of how it came about, of clients that PyTorch made.

What is read off is never wrong in any of them; what cannot be told is not claimed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from premise_cases import (
    ACTIVATIONS,
    COMMON,
    GLYPHS,
    ONE_IMAGE,
    PIXELS,
    Expected,
    Net,
    Situation,
    Stub,
    drawn,
    make,
    named,
    wrong_claims,
)

from tinyleak import ops, share
from tinyleak.analytic import read_premises
from tinyleak.analytic.changes import clipping
from tinyleak.analytic.normalisation import (
    USUAL,
    far_outside_unit_range,
    nearest_normalisation,
)
from tinyleak.analytic.one_image import OneImage, fits_of
from tinyleak.analytic.residuals import softmax
from tinyleak.client import Client, simulate
from tinyleak.data import load_glyphs
from tinyleak.gradient import grad
from tinyleak.nn import MLP, LeNet, ResNet
from tinyleak.nn.models.as_trained import as_trained
from tinyleak.tensor import Tensor

EVERY = COMMON | ONE_IMAGE | PIXELS
NETWORKS = [
    ("lenet", "sigmoid", "default"),
    ("mlp", "tanh", "uniform"),
    ("mlp1", "relu", "default"),
]


@pytest.mark.parametrize("kind", ["lenet", "mlp"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_clean_gradient_tells_all_and_has_no_cause(kind, activation) -> None:
    for init in ("default", "uniform"):
        s = Situation(kind, activation, init, seed=3)
        found = make(s).read()
        assert (found.loss, found.loss_source, found.factor) == ("cross-entropy", "read off", 1.0)
        assert (found.decay, found.pruned, found.rank, found.causes) == (0.0, 0.0, 1, ())
        assert found.written == "float32"
        assert found.targets is not None and set(found.targets.ravel()) == {0.0, 1.0}
        # Two branches of a LeNet's GELU or SiLU are open where inputs are large.
        assert activation in found.activations
        if kind == "mlp" or activation not in ("gelu", "silu"):
            assert found.activations[0] == activation
            assert len(found.activations) == 1


@pytest.mark.parametrize("batch", [2, 8, 16])
def test_a_clean_batch_has_no_cause(batch) -> None:
    for kind, activation, init in NETWORKS:
        s = Situation(kind, activation, init, batch=batch, seed=4)
        made = make(s)
        found = made.read()
        assert not found.causes
        assert wrong_claims(found, made, s, Expected()) == []
        assert found.activations[0] == activation or init == "uniform"


@pytest.mark.parametrize("name", EVERY)
def test_each_situation_is_named_and_nothing_false_is_claimed(name) -> None:
    changes, expected = EVERY[name]
    for kind, activation, init in NETWORKS:
        usual = Situation(kind, activation, init, seed=5)
        s = replace(usual, **changes)
        made = make(s)
        found = made.read()
        assert wrong_claims(found, made, s, expected) == []
        # A uniform network's prediction may be so certain that hardly a gradient is left.
        assert named(found, expected) or init == "uniform"


def test_random_situations_are_never_claimed_falsely(rng) -> None:
    results = []
    for _ in range(20):
        _, s, expected = drawn(rng)
        made = make(s)
        found = made.read()
        assert wrong_claims(found, made, s, expected) == [], s
        results.append(named(found, expected))
    assert np.mean(results) >= 0.85


@pytest.mark.slow
def test_hundreds_of_random_situations_are_never_claimed_falsely() -> None:
    rng, results = np.random.default_rng(2026), []
    for _ in range(600):
        _, s, expected = drawn(rng)
        made = make(s)
        found = made.read()
        assert wrong_claims(found, made, s, expected) == [], s
        results.append(named(found, expected))
    assert np.mean(results) >= 0.9


def test_decay_is_taken_off_to_three_digits_and_more() -> None:
    for decay in (5e-4, 1e-2):
        made = make(Situation("lenet", decay=decay, seed=6))
        found, clean = made.read(), make(Situation("lenet", seed=6))
        assert found.decay == pytest.approx(decay, rel=1e-3)
        left = found.without_decay(made.params, made.gradients)
        for name, gradient in clean.gradients.items():
            np.testing.assert_allclose(left[name], gradient, atol=1e-3 * np.abs(gradient).max())


def test_decay_without_biases_is_told() -> None:
    made = make(Situation("mlp", seed=7))
    for name, array in made.params.items():
        made.gradients[name] = made.gradients[name] + 1e-2 * array * (array.ndim > 1)
    found = made.read()
    assert found.decay == pytest.approx(1e-2, rel=1e-3)
    assert all(name.endswith("weight") for name in found.decayed)


@pytest.mark.parametrize(("labels", "top"), [("smoothed", 0.91), ("mixed", 0.7)])
def test_soft_labels_are_exact(labels, top) -> None:
    made = make(Situation("mlp", "gelu", labels=labels, seed=8))
    found = made.read()
    assert found.targets is not None
    np.testing.assert_allclose(found.targets, made.targets, atol=1e-5)
    assert f"{top:.3g}" in found.causes[0].text


@pytest.mark.parametrize("kind", ["gaussian", "laplacian"])
def test_the_advice_on_noise_gives_its_kind_and_variance(kind) -> None:
    found = make(Situation("mlp", defenses=(f"{kind}:1e-4",), seed=9)).read()
    assert found.noise == pytest.approx(1e-4, rel=0.05)
    assert found.causes[0].advice.startswith(f"--defense {kind}:")


@pytest.mark.parametrize("loss", ["cross-entropy", "mse"])
def test_noise_in_proportion_to_each_gradient_is_not_taken_for_another_loss(loss, rng) -> None:
    model, images = MLP((1, 8, 8), 10, "tanh", (60,)), rng.random((4, 1, 8, 8))
    params = model.init(rng, "default")
    client, _ = share(as_trained(model, loss, None), params, images, [0, 1, 1, 2])
    noisy = {
        name: g + 1e-4 * np.sqrt(np.mean(g**2)) * rng.standard_normal(g.shape)
        for name, g in client.gradients.items()
    }
    assert Client.of(model, params, noisy, batch=4).loss.kind == loss


@pytest.mark.parametrize("seed", range(3))
def test_without_a_last_bias_the_layer_below_tells_the_factor(seed) -> None:
    model = MLP((1, 28, 28), 10, "sigmoid", (64,), unbiased=("2",))
    params = {n: w.astype("float32") for n, w in model.init(np.random.default_rng(seed)).items()}
    digit = GLYPHS.images[seed : seed + 1], GLYPHS.labels[seed : seed + 1]
    client, truth = share(model, params, *digit, dtype="float32")
    gradients = {n: np.float32(0.3) * g.astype("float32") for n, g in client.gradients.items()}
    found = read_premises(model, params, gradients, 1, dtype="float32")
    assert found.factor == pytest.approx(0.3, rel=1e-4)
    assert found.targets is not None and found.targets.argmax() == truth.labels[0]


@pytest.mark.parametrize("activation", ["sigmoid", "relu", "tanh"])
def test_two_last_layers_without_bias_still_tell_loss_and_label(activation) -> None:
    model = MLP((1, 8, 8), 10, activation, (48, 32, 24), unbiased=("4", "6"))
    params = {n: w.astype("float32") for n, w in model.init(np.random.default_rng(1)).items()}
    image = np.random.default_rng(2).random((1, 1, 8, 8))
    client, _ = share(model, params, image, [3], dtype="float32")
    found = read_premises(model, params, client.gradients, 1, dtype="float32")
    assert (found.loss, found.factor, found.causes) == ("cross-entropy", 1.0, ())
    assert found.targets is not None and found.targets.argmax() == 3


def test_random_numbers_are_noise_and_tell_nothing_else(rng) -> None:
    made = make(Situation("lenet"))
    numbers = {name: rng.standard_normal(g.shape) for name, g in made.gradients.items()}
    found = read_premises(made.model, made.params, numbers, 1)
    assert found.noise == pytest.approx(1.0, rel=0.1)
    assert found.loss_source == "assumed"
    assert [cause.name for cause in found.causes] == ["noise"]


def test_a_loss_that_was_said_is_not_questioned_without_a_reason() -> None:
    found = make(Situation(loss="mse", seed=10)).read(loss="mse")
    assert (found.loss, found.loss_source, found.factor, found.causes) == ("mse", "said", 1.0, ())
    (cause,) = make(Situation(loss="mse", seed=10)).read(loss="bce").causes
    assert (cause.name, cause.sure) == ("loss", True)


def test_normalised_pixels_are_told_and_how() -> None:
    for batch in (1, 4):
        s = Situation("mlp", pixels=(0.1307, 0.3081), batch=batch, seed=11)
        found = make(s).read()
        assert found.normalisation == ((0.1307,), (0.3081,))
        assert found.causes[0].advice == "--normalize 0.1307,0.3081"
    unusual = make(Situation("mlp", pixels=(0.2, 0.3), seed=11)).read()
    assert unusual.normalisation is None
    assert unusual.causes[0].name == "normalisation"


def test_the_error_of_two_likely_classes_is_not_taken_for_a_factor() -> None:
    """A hard label's own entry of δ is known a hundred times as exactly as theirs."""
    logits = np.array([12.34, -26.76, 9.28, -1.33, 8.05, -14.87, -2.56, 11.3, -0.36, -44.52])
    delta = softmax(logits) - np.eye(10)[8]
    errors = np.full(10, 1.9e-5)
    moved = logits + 4e-5 * np.eye(10)[7]
    image = OneImage(np.ones(1), delta, moved, np.zeros(1), 6e-8 * abs(delta), errors, 6e-8)
    best = fits_of(image)[0]
    assert best.holds
    assert (best.loss, best.kind, best.targets.argmax()) == ("cross-entropy", "hard", 8)
    assert abs(best.factor - 1.0) < 1e-6


def test_stale_weights_are_not_taken_for_soft_labels() -> None:
    for kind, activation, init in NETWORKS:
        found = make(Situation(kind, activation, init, stale=0.05, seed=12)).read()
        assert [cause.name for cause in found.causes][:1] == ["stale weights"]
        assert found.loss_source == "assumed"


def test_batch_norm_in_training_mode_is_told(rng) -> None:
    import torch

    torch.manual_seed(0)
    layer, norm, last = torch.nn.Conv2d(1, 8, 3, bias=False), torch.nn.BatchNorm2d(8), None
    last = torch.nn.Linear(8, 10)
    names = ("conv.weight", "norm.weight", "norm.bias", "fc.weight", "fc.bias")
    parameters = [layer.weight, norm.weight, norm.bias, last.weight, last.bias]

    class Shapes:
        image_shape, classes = (1, 12, 12), 10
        shapes = {n: tuple(p.shape) for n, p in zip(names, parameters, strict=True)}

    x, y = torch.rand(3, 1, 12, 12), torch.tensor([1, 2, 3])
    for training in (True, False):
        norm.train(training)
        logits = last(torch.sigmoid(norm(layer(x))).mean((2, 3)))
        gradients = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, y), parameters)
        arrays = {n: g.numpy() for n, g in zip(names, gradients, strict=True)}
        params = {n: p.detach().numpy() for n, p in zip(names, parameters, strict=True)}
        some = {"conv.weight": arrays["conv.weight"]}  # of one image only
        found = read_premises(Stub(Shapes.image_shape, 10, Shapes.shapes), params, some, 3)
        assert ("batch norm" in [cause.name for cause in found.causes]) is training


def test_what_is_missing_or_extreme_is_no_obstacle() -> None:
    model, digits = LeNet(), load_glyphs(4)
    client, _ = simulate(model, *digits.batch([3]), init="default")
    some = {k: g for k, g in client.gradients.items() if not k.startswith("body.0")}
    assert read_premises(model, client.params, some, 1).activations == ("sigmoid",)
    first = {"body.0.weight": client.gradients["body.0.weight"]}
    assert read_premises(model, client.params, first, 1).loss_source == "assumed"
    zeros = {k: 0.0 * g for k, g in client.gradients.items()}
    assert read_premises(model, client.params, zeros, 1).causes == ()
    for factor in (1e-170, 3.0, 1e170):
        scaled = {k: factor * g for k, g in client.gradients.items()}
        found = read_premises(model, client.params, scaled, 1)
        assert found.factor == pytest.approx(factor, rel=1e-6)


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_few_classes_are_enough(classes) -> None:
    model, digits = MLP(classes=classes, widths=(30,)), load_glyphs(4)
    client, _ = simulate(model, digits.images[:1], [0], init="default")
    found = read_premises(model, client.params, client.gradients, 1)
    assert not any(cause.sure for cause in found.causes)
    if classes > 1:
        assert (found.loss, found.factor) == ("cross-entropy", 1.0)


def test_another_network_is_read_as_far_as_it_goes() -> None:
    model = ResNet((3, 8, 8), blocks=1)
    rng = np.random.default_rng(0)
    client, _ = simulate(model, rng.random((1, 3, 8, 8)), [4], init="default")
    found = read_premises(model, client.params, client.gradients, 1)
    assert (found.loss, found.loss_source, found.causes) == ("cross-entropy", "read off", ())
    assert len(found.activations) != 1


@pytest.mark.parametrize("factor", [1e-200, 1e200])
def test_what_cannot_be_squared_is_told_all_the_same(factor: float) -> None:
    model = MLP((1, 8, 8), 10, "tanh", (64, 32))
    made, _ = simulate(model, np.random.default_rng(0).random((1, 1, 8, 8)), [3])
    shared = {name: factor * gradient for name, gradient in made.gradients.items()}
    client = Client.of(model, made.params, shared)
    assert client.loss.factor == pytest.approx(factor)
    assert client.noise is None
    shared = {name: g + factor * 1e-2 * made.params[name] for name, g in shared.items()}
    assert Client.of(model, made.params, shared).premises.decay == pytest.approx(1e-2 * factor)


def test_a_network_of_one_output_is_read_like_any_other() -> None:
    model = MLP((1, 8, 8), 1, "tanh", (64, 32))
    images = np.random.default_rng(0).random((1, 1, 8, 8))
    made, _ = simulate(as_trained(model, "bce"), images, [0])
    client = Client.of(model, made.params, made.gradients)
    assert (client.loss.kind, client.loss.factor) == ("bce", 1.0)


def test_without_a_last_bias_the_layer_below_gives_the_features(rng) -> None:
    """Of features known but for their length, and z of the layer below, only one length fits."""
    s = Situation("mlp1", labels="mixed")
    net = Net(s.kind, s.activation)
    torch.nn.init.zeros_(net.fc.bias)
    pixels, labels = GLYPHS.batch([3])
    soft = 0.7 * np.eye(10)[labels] + 0.3 * np.eye(10)[(labels + 2) % 10]
    torch.nn.functional.cross_entropy(
        net(torch.tensor(pixels).float()), torch.tensor(soft).float()
    ).backward()
    names = {"0.weight": net.body[0].weight, "0.bias": net.body[0].bias, "2.weight": net.fc.weight}
    params = {name: p.detach().double().numpy() for name, p in names.items()}
    gradients = {name: p.grad.double().numpy() for name, p in names.items()}
    model = Stub((1, 28, 28), 10, {name: p.shape for name, p in params.items()})
    found = read_premises(model, params, gradients, 1, dtype="float32")
    assert found.activations == ("sigmoid",)
    np.testing.assert_allclose(found.targets, soft, atol=1e-4)
    assert [cause.name for cause in found.causes if cause.sure] == ["soft labels"]


def test_entries_clipped_within_one_layer_are_told(rng) -> None:
    weight = np.clip(rng.standard_normal((10, 50)), -1.0, 1.0)
    one_row = np.where(np.arange(10)[:, None] == 3, 1.0, 0.1 * weight)
    for array, told in ((weight, True), (one_row, False)):
        cause = clipping({"fc.weight": array}, update=False)
        assert (cause is not None and cause.sure) == told


@pytest.mark.parametrize("decay", [0.0, 1e-2])
@pytest.mark.parametrize("loss", ["cross-entropy", "bce", "mse"])
def test_a_few_zeros_that_pruning_left_are_not_counted_as_images(loss, decay) -> None:
    """Each gives the last layer's gradient one more singular value."""
    s = Situation("lenet", "tanh", batch=4, seed=1, loss=loss, decay=decay)
    s = replace(s, defenses=("prune:0.001",))
    made = make(s)
    assert 1 <= int((made.gradients["fc.0.weight"] == 0.0).sum()) < 10
    expected = Expected("pruning", ("weight decay", "loss"), loss)
    assert not wrong_claims(made.read(), made, s, expected)


@pytest.mark.parametrize("images", [2, 3, 4])
def test_zeros_of_more_sparse_inputs_than_were_said_are_no_pruning(images: int) -> None:
    """Under ReLU what one row alone has is zero wherever its units are closed."""
    rng = np.random.default_rng([0, images])
    rows = rng.random((images, 1, 1, 30)) * (rng.random((images, 1, 1, 30)) < 0.08)
    model = MLP((1, 1, 30), 6, "relu", (24,))
    client, _ = simulate(model, rows, rng.integers(0, 6, images), init="default", dtype="float32")
    read = Client.of(model, client.params, client.gradients, batch=1).premises
    assert "pruning" not in [cause.name for cause in read.causes]
    assert "batch size" in [cause.name for cause in read.causes]


@pytest.mark.parametrize("seed", [7, 21])
def test_images_judged_wrongly_with_certainty_are_not_pruned(seed: int) -> None:
    # Probabilities are 0 or 1 in float32, so that δ has zeros of its own, and may cancel.
    rng, model = np.random.default_rng(seed), MLP((1, 12, 12), 10, widths=(64,), activation="relu")
    drawn = model.init(rng, "uniform", dtype="float32")
    params = {name: 4.0 * weight for name, weight in drawn.items()}
    images, labels = rng.random((2, 1, 12, 12)), rng.integers(0, 10, 2)
    client, _ = share(model, params, images, labels, dtype="float32")
    assert (client.gradients["2.bias"] == 0).any()
    assert "pruning" not in [cause.name for cause in client.premises.causes]


@pytest.mark.parametrize("usual", USUAL)
def test_the_usual_normalisation_nearest_to_rough_pixels_is_told(usual) -> None:
    rng = np.random.default_rng(0)
    mean, std = (np.reshape(part, (-1, 1, 1)) for part in usual)
    pixels = (rng.choice([0.0, 0.5, 1.0], (len(mean), 12, 12)) - mean) / std
    rough = pixels + 0.005 * pixels.std() * rng.standard_normal(pixels.shape)
    found = nearest_normalisation(rough)
    assert np.allclose(found, usual, atol=0.01)  # MNIST's is written in two ways
    assert far_outside_unit_range(rough)
    assert not far_outside_unit_range(pixels * std + mean)


def test_zeros_beside_few_different_numbers_are_no_pruning() -> None:
    """Of a constant image a convolution's gradient has the same number many times."""
    model = LeNet((1, 16, 16), 10, "relu", hidden=8)
    for seed in range(12):
        params = model.init(np.random.default_rng(seed), "default")
        params = {name: array.astype(np.float32) for name, array in params.items()}
        client, _ = share(model, params, np.full((1, 1, 16, 16), 0.5), [3], dtype="float32")
        assert client.premises.pruned == 0.0


def test_of_a_batch_one_image_may_be_all_that_sends_a_gradient() -> None:
    """The others, judged rightly with certainty, send zeros: no factor is sure, and no label."""
    model, rng = MLP((1, 4, 4), 4, "tanh", (8,)), np.random.default_rng(0)
    one, _ = share(model, model.init(rng, "default"), rng.random((1, 1, 4, 4)), [2])
    for scale, factor in ((0.3, 0.3), (0.5, 1.0)):
        gradients = {name: scale * array for name, array in one.gradients.items()}
        client = Client.of(model, one.params, gradients, batch=2)
        assert abs(client.loss.factor - factor) < 1e-9
        assert not any(cause.sure for cause in client.premises.causes)
    assert not client.labels.trusted


def test_zeros_of_a_gelu_are_not_taken_for_dropout() -> None:
    model, rng = MLP((1, 8, 8), 10, "gelu", (30,)), np.random.default_rng(0)
    params = {k: (40.0 if k < "2" else 1.0) * v for k, v in model.init(rng, "default").items()}
    client, _ = share(model, params, rng.random((2, 1, 8, 8)), [1, 2], dtype="float32")
    assert not client.gradients["2.weight"].any(axis=0).all()
    assert client.premises.causes == ()


def test_numbers_of_a_table_are_not_normalised_pixels() -> None:
    @dataclass(frozen=True)
    class OfATable(MLP):
        input_shape: tuple[int, int] = (1, 16)

    model, rng = OfATable((1, 1, 16), 4, "tanh", (12,)), np.random.default_rng(0)
    params, numbers = model.init(rng, "default"), 5.0 * rng.standard_normal((1, 1, 1, 16))
    client, _ = share(model, params, numbers, [2], dtype="float32")
    assert client.premises.causes == ()


def test_two_images_whose_hinges_cancel_are_not_pruned() -> None:
    """Then the last bias has zeros alone, as if it were frozen, and so have units open to both."""
    model, rng = MLP((1, 4, 4), 2, "relu", (8,)), np.random.default_rng(0)
    params = {name: Tensor(array) for name, array in model.init(rng, "default").items()}
    logits = model(params, Tensor(rng.random((2, 1, 4, 4))))
    delta = Tensor(np.array([[-0.5, 0.5], [0.5, -0.5]]))
    gradients = {name: g.data for name, g in grad(ops.sum(logits * delta), params).items()}
    assert not gradients["2.bias"].any() and not gradients["0.bias"].all()
    sent = {**gradients, "2.bias": None}
    client = Client.of(model, {k: p.data for k, p in params.items()}, sent, batch=2)
    assert client.premises.pruned == 0.0


def test_the_rounding_of_all_images_is_not_taken_for_another_loss(rng) -> None:
    """Where p is near 1 each image's δ sums up to some 2⁻²⁴, and those of a batch may agree."""
    model, count = MLP((1, 16, 32), 10, "relu", ()), 16
    params = model.init(rng, "default", dtype="float32")
    x, delta = rng.random((count, 512)), 0.05 * rng.standard_normal((count, 10))
    delta -= delta.mean(axis=1, keepdims=True)
    for rounded, kind in ((2.0**-24, "cross-entropy"), (1e-3, "mse")):
        delta[:, 0] += rounded
        pixels, ones = delta.T @ x / count, delta.mean(axis=0)
        gradients = dict(zip(params, map(np.float32, (pixels, ones)), strict=True))
        assert Client.of(model, params, gradients, batch=count).loss.kind == kind
