"""The audit: spectra with known answers, forecasts that hold, and what it finds in networks."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyleak.analytic.jacobian import Jacobian
from tinyleak.analytic.jacobian_spectrum import Spectrum, estimate, measure, noise_for, of_gram
from tinyleak.attacks.problem import length
from tinyleak.audit import Audit, audit, typical
from tinyleak.audit.figures import best_guesses
from tinyleak.audit.structure import count, find, saturation
from tinyleak.audit.typical_images import pixel_variance
from tinyleak.audit.words import headline, lines
from tinyleak.client import Client, LocalSteps, share, simulate
from tinyleak.data import Dataset
from tinyleak.defenses import parse
from tinyleak.nn import MLP, LeNet, linear, one_hot
from tinyleak.nn.layers import flatten

PRIOR = 0.07
SMALL = LeNet((1, 8, 8), 5, hidden=4)


@dataclass(frozen=True)
class OneLayer:
    """Logits W x: with W = 0, p is uniform, and the gradient (p − y) xᵀ is linear in the image."""

    image_shape: tuple[int, int, int] = (1, 3, 4)
    classes: int = 5

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": (self.classes, 12)}

    def __call__(self, params: Any, x: Any) -> Any:
        return linear(flatten(x), params["weight"])


@dataclass(frozen=True)
class Pooled:
    """A linear layer to four numbers, of which the last is left out: no layer of K rows is last."""

    image_shape: tuple[int, int, int] = (1, 4, 4)
    classes: int = 3

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": (4, 16), "bias": (4,)}

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {name: rng.standard_normal(shape) for name, shape in self.shapes.items()}

    def __call__(self, params: Any, x: Any) -> Any:
        return linear(flatten(x), params["weight"], params["bias"])[..., :3]


def linear_case(labels: list[int], rng: np.random.Generator) -> Jacobian:
    model = OneLayer()
    images = rng.random((len(labels), *model.image_shape))
    return Jacobian(model, {"weight": np.zeros((5, 12))}, images, one_hot(np.array(labels), 5))


def digits(count: int, rng: np.random.Generator, shape: tuple[int, ...] = (1, 8, 8)) -> Any:
    return rng.random((count, *shape)), rng.integers(5, size=count)


def audited(rng: np.random.Generator, **options: Any) -> Audit:
    images, labels = digits(6, rng)
    return audit(SMALL, SMALL.init(rng), images, labels, **options)


# Spectra


@pytest.mark.parametrize("find_spectrum", [measure, estimate])
def test_one_images_spectrum_in_the_linear_case(find_spectrum, rng: np.random.Generator) -> None:
    # J = (p − y) ⊗ I, so every singular value is ‖p − y‖ = √(1 − 1/K).
    spectrum = find_spectrum(linear_case([2], rng))
    heavy = spectrum.values[spectrum.shares > 1e-6]
    np.testing.assert_allclose(heavy, np.sqrt(0.8), rtol=1e-12)
    assert spectrum.shares.sum() == pytest.approx(1)
    assert spectrum.rank == spectrum.unknowns == 12
    assert spectrum.forecast(0.1, PRIOR) == pytest.approx(1 / (0.8 / 0.1 + 1 / PRIOR))


@pytest.mark.parametrize("find_spectrum", [measure, estimate])
def test_two_images_of_different_labels_in_the_linear_case(
    find_spectrum, rng: np.random.Generator
) -> None:
    # (p − y)·(p − y′) = −1/K: half of the singular values are √(1 − 2/K)/2, half 1/2.
    spectrum = find_spectrum(linear_case([0, 3], rng))
    assert spectrum.rank == 24
    expected = (1 / (0.15 / 0.1 + 1 / PRIOR) + 1 / (0.25 / 0.1 + 1 / PRIOR)) / 2
    # The estimate is one of random vectors.
    allowed = 1e-12 if spectrum.complete else 0.05
    assert spectrum.forecast(0.1, PRIOR) == pytest.approx(expected, rel=allowed)


def test_two_images_of_one_label_mix_in_the_linear_case(rng: np.random.Generator) -> None:
    spectrum = measure(linear_case([1, 1], rng))
    # Only their sum is seen: half of the directions keep the prior's variance without any noise.
    assert spectrum.rank == 12
    assert spectrum.forecast(0.0, PRIOR) == pytest.approx(PRIOR / 2)


@pytest.mark.parametrize("batch", [1, 2])
def test_the_spectrum_is_that_of_the_matrix(batch: int, rng: np.random.Generator) -> None:
    images, labels = digits(batch, rng)
    jacobian = Jacobian(SMALL, SMALL.init(rng), images, one_hot(labels, 5))
    expected = np.linalg.svd(jacobian.dense(), compute_uv=False)
    np.testing.assert_allclose(
        measure(jacobian).values, expected, rtol=1e-6, atol=1e-7 * expected[0]
    )


def test_an_estimate_forecasts_as_the_whole_spectrum_does(rng: np.random.Generator) -> None:
    images, labels = digits(3, rng)
    jacobian = Jacobian(SMALL, SMALL.init(rng), images, one_hot(labels, 5))
    whole, guess = measure(jacobian), estimate(jacobian, steps=60)
    assert whole.complete
    assert not guess.complete
    for variance in 10.0 ** np.arange(-8, 3):
        expected = whole.forecast(variance, PRIOR)
        assert guess.forecast(variance, PRIOR) == pytest.approx(expected, rel=0.2)


# Forecasts


def test_a_forecast_rises_with_the_noise_from_nothing_to_the_prior(
    rng: np.random.Generator,
) -> None:
    for spectrum in audited(rng, examples=3).spectra:
        errors = [spectrum.forecast(v, PRIOR) for v in (0.0, *10.0 ** np.arange(-12, 8))]
        assert errors[0] == pytest.approx(0, abs=1e-12)
        assert all(low < high for low, high in itertools.pairwise(errors))
        assert errors[-1] == pytest.approx(PRIOR, rel=1e-3)
        seen = [spectrum.seen(v, PRIOR) for v in (0.0, *10.0 ** np.arange(-12, 8))]
        assert seen == sorted(seen, reverse=True)
        assert (seen[0], seen[-1]) == (64, 0)


def test_stronger_directions_and_narrower_priors_leave_less() -> None:
    weak, strong = (Spectrum(np.array([s]), np.ones(1), 1) for s in (0.1, 0.2))
    assert strong.forecast(1e-2, PRIOR) < weak.forecast(1e-2, PRIOR)
    assert weak.forecast(1e-2, PRIOR / 2) < weak.forecast(1e-2, PRIOR)


def test_more_images_in_a_batch_leave_more(rng: np.random.Generator) -> None:
    images, labels = digits(4, rng)
    params = SMALL.init(rng)
    errors = [
        audit(SMALL, params, images, labels, batch=batch, examples=1).at(1e-6).mse
        for batch in (1, 2, 4)
    ]
    assert errors == sorted(errors)
    assert errors[0] < errors[-1] / 2


def test_a_direction_drowns_where_half_of_it_is_hidden() -> None:
    spectrum = of_gram(np.diag([4.0, 1.0]))
    np.testing.assert_allclose(spectrum.drowning(PRIOR), [4 * PRIOR, PRIOR])
    alone = of_gram(np.diag([4.0]))
    assert alone.forecast(4 * PRIOR, PRIOR) == pytest.approx(PRIOR / 2)
    assert [spectrum.seen(v * PRIOR, PRIOR) for v in (0.5, 2, 5)] == [2, 1, 0]


@pytest.mark.parametrize(("variance", "prior"), [(-1e-3, 0.1), (1e-3, 0.0), (np.nan, 0.1)])
def test_a_forecast_of_what_cannot_be_is_refused(variance: float, prior: float) -> None:
    with pytest.raises(ValueError, match="give 0 or more"):
        of_gram(np.eye(2)).forecast(variance, prior)


def test_the_noise_for_an_error_is_the_forecasts_inverse(rng: np.random.Generator) -> None:
    spectra = audited(rng).spectra
    variance = noise_for(0.01, spectra, PRIOR)
    assert np.mean([s.forecast(variance, PRIOR) for s in spectra]) == pytest.approx(0.01)
    assert noise_for(PRIOR, spectra, PRIOR) == np.inf
    assert noise_for(PRIOR / 4, [measure(linear_case([1, 1], rng))], PRIOR) == 0.0


def test_the_forecast_is_what_the_best_guess_achieves(rng: np.random.Generator) -> None:
    """Where the network is nearly linear around the image, guesses from its true gradient."""
    images, labels = digits(40, rng)
    params = SMALL.init(rng)
    found = audit(SMALL, params, images, labels, examples=40)
    variances = (1e-5, 1e-3, 1e-1)
    errors = []
    for index, jacobian in enumerate(found.jacobians):
        one = replace(found, jacobians=[jacobian], spectra=[measure(jacobian)])
        guesses = best_guesses(one, variances, seed=index) or []
        errors.append([np.mean((guess - jacobian.images[0]) ** 2) for guess in guesses])
    forecasts = [found.at(variance).mse for variance in variances]
    np.testing.assert_allclose(np.mean(errors, axis=0), forecasts, rtol=0.15)


def test_the_spectrum_of_a_batch_is_computed_once(monkeypatch, tmp_path) -> None:
    """For the forecast, for what rounding leaves of bounded pixels, and for the page's guesses."""
    calls, eigh = [], np.linalg.eigh
    monkeypatch.setattr(Jacobian, "gram", counting(calls, "gram", Jacobian.gram))
    monkeypatch.setattr(np.linalg, "eigh", counting(calls, "eigh", eigh))
    params = SMALL.init(np.random.default_rng(0))
    found = audit(SMALL, params, examples=1)
    assert found.errors[0] < found.spectra[0].forecast(found.rounding, found.prior)
    found.save(tmp_path / "audit.html")
    # Beside that of the whole gradient there is one of the attack by features.
    assert sorted(calls) == ["eigh", "eigh", "gram"]


def counting(calls: list[str], name: str, function):
    def counted(*args, **known):
        calls.append(name)
        return function(*args, **known)

    return counted


def test_rounding_is_that_of_computing_in_float32(rng: np.random.Generator) -> None:
    images, labels = digits(3, rng)
    doubtful = SMALL.init(rng)
    # Sure of every label, so that the gradient is the small difference of numbers near one.
    sure = doubtful | {"fc.0.bias": doubtful["fc.0.bias"] + 14.0 * one_hot(labels[:1], 5)[0]}
    shares = []
    for params in (doubtful, sure):
        found = audit(SMALL, params, images[:1], labels[:1])
        norm = length(share(SMALL, params, images[:1], labels[:1])[0].gradients)
        shares.append(np.sqrt(found.rounding * found.counting.parameters) / norm)
    assert 1e-9 < shares[0] < 1e-5
    assert shares[1] > 30 * shares[0]


# Structure


def test_counting() -> None:
    numbers = count(LeNet(), 4)
    assert (numbers.parameters, numbers.pixels, numbers.unknowns) == (13_426, 784, 3136)
    # One of the last layer's ten rows, (588,) and a bias, follows from the others.
    assert numbers.independent == 13_426 - 589
    assert numbers.most_images == 16


@pytest.mark.parametrize(
    ("model", "batch", "about", "leaks", "words"),
    [
        (LeNet(), 1, "activation", True, "smooth"),
        (LeNet(activation="relu"), 1, "activation", False, "not smooth"),
        (LeNet(), 1, "last layer", True, "has a bias"),
        (LeNet(), 4, "last layer", True, "how many images"),
        (OneLayer(), 1, "last layer", True, "opposes"),
        (OneLayer(), 1, "first layer", True, "multiple of the image"),
        (MLP(), 1, "first layer", True, "exactly, without any search"),
        (MLP(activation="relu"), 3, "first layer", True, "one image alone"),
    ],
)
def test_findings(model: Any, batch: int, about: str, leaks: bool, words: str) -> None:
    (found,) = [one for one in find(model, batch) if one.about == about]
    assert found.leaks is leaks
    assert words in found.text


def test_a_convolution_gives_nothing_away_by_division() -> None:
    assert "first layer" not in [one.about for one in find(LeNet(), 1)]


@pytest.mark.parametrize(
    ("activation", "scale", "bias", "share"),
    [
        ("sigmoid", 0.0, 0.0, 0.0),
        ("sigmoid", 0.0, 9.0, 1.0),
        ("tanh", 0.0, -5.0, 1.0),
        ("softplus", 0.0, -9.0, 1.0),
        ("softplus", 0.0, 9.0, 0.0),
        ("relu", 0.0, -1.0, 1.0),
        ("relu", 0.0, 1.0, 0.0),
    ],
)
def test_saturation(activation: str, scale: float, bias: float, share: float) -> None:
    model = MLP((1, 2, 2), 3, activation, (6, 5))
    params = {
        name: np.full(shape, bias if len(shape) == 1 else scale)
        for name, shape in model.shapes.items()
    }
    found = saturation(model, params, np.zeros((2, 1, 2, 2)))
    assert [(one.activation, one.units) for one in found] == [(activation, 6), (activation, 5)]
    assert [one.share for one in found] == [share, share]


# A gradient that was shared


def shared(rng: np.random.Generator, *defenses: str, dtype: str = "float64") -> Client:
    model = LeNet((1, 14, 14))
    images, labels = rng.random((1, 1, 14, 14)), [7]
    known = [parse(text) for text in defenses]
    return share(model, model.init(rng), images, labels, dtype=dtype, defenses=known, rng=rng)[0]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_without_noise_there_is_none(dtype: str, rng: np.random.Generator) -> None:
    client = shared(rng, dtype=dtype)
    images, labels = rng.random((2, 1, 14, 14)), [1, 2]
    whole = audit(client, images=images, labels=labels, examples=1)
    found = whole.shared
    assert found is not None
    assert found.exact
    assert whole.noise is None
    assert found.labels == [7]
    assert found.label_warning is None
    assert found.norm == pytest.approx(found.typical_norm, rel=0.5)


def test_noise_is_that_of_the_client(rng: np.random.Generator) -> None:
    client = shared(rng, "gaussian:1e-4")
    found = audit(client, images=rng.random((1, 1, 14, 14)), labels=[1])
    assert found.noise == client.noise == pytest.approx(1e-4, rel=0.2)
    assert found.at(found.noise) in [one for _, one in found.forecasts]


def test_pruning_shows(rng: np.random.Generator) -> None:
    client = shared(rng, "prune:0.4")
    found = audit(client, images=rng.random((1, 1, 14, 14)), labels=[1]).shared
    assert found is not None
    assert found.zeros == pytest.approx(0.4, abs=0.02)
    assert not found.exact


def test_a_network_that_does_not_end_in_a_linear_layer(rng: np.random.Generator) -> None:
    model = Pooled()
    client, _ = share(model, model.init(rng), rng.random((1, 1, 4, 4)), [1])
    found = audit(client, images=rng.random((3, 1, 4, 4)), labels=[0, 1, 2])
    assert found.shared is not None
    assert found.shared.noise is None
    assert found.shared.labels is None
    assert found.counting.independent == found.counting.parameters


def test_several_local_steps_count_as_their_mean(rng: np.random.Generator) -> None:
    params, image = SMALL.init(rng), rng.random((1, 1, 8, 8))
    clients = [
        share(SMALL, params, image, [2], local=LocalSteps(count, 1e-6))[0] for count in (1, 3)
    ]
    images, labels = digits(4, rng)
    one, three = (audit(client, images=images, labels=labels) for client in clients)
    assert (one.shared.steps, three.shared.steps) == (1, 3)
    assert three.shared.labels == [2]
    np.testing.assert_allclose(three.spectra[0].values, one.spectra[0].values, rtol=1e-3)
    assert "3 local steps" in lines(three)["steps"]


@pytest.mark.parametrize("labels", [[0], [4], [2, 3]])
def test_the_forecast_given_a_gradient_is_for_its_images(
    labels: list[int], rng: np.random.Generator
) -> None:
    """Of a network that is sure of some labels, so that gradients differ by decades."""
    params = SMALL.init(rng)
    params["fc.0.bias"] = np.array([9.0, 0.0, 8.0, 2.0, 0.0])
    images, _ = digits(10, rng)
    typical_labels = np.arange(10) % 5
    client, kept = share(SMALL, params, rng.random((len(labels), 1, 8, 8)), labels)
    found = audit(client, images=images, labels=typical_labels)
    truth = measure(Jacobian(SMALL, params, kept.images, one_hot(kept.labels, 5)))
    for variance in (1e-14, 1e-10, 1e-6):
        expected = truth.forecast(variance, found.prior)
        assert found.at(variance).mse == pytest.approx(expected, rel=0.5)
    assert found.shared is not None
    assert found.shared.error_norms is not None
    assert all(jacobian.targets.argmax(axis=1).tolist() == labels for jacobian in found.jacobians)


@pytest.mark.parametrize("labels_show", [True, False])
def test_where_error_norms_cannot_be_told_the_gradients_length_counts(
    labels_show: bool, rng: np.random.Generator
) -> None:
    """All of J is as long as the gradient: of one layer without a bias, or of no last layer."""
    model: Any = OneLayer() if labels_show else Pooled()
    params = {"weight": 0.1 * rng.standard_normal((5, 12))} if labels_show else model.init(rng)
    images, labels = rng.random((6, *model.image_shape)), np.arange(6) % model.classes
    client, _ = share(model, params, rng.random((1, *model.image_shape)), [1])
    halved = {name: gradient / 2 for name, gradient in client.gradients.items()}
    whole, half = (
        audit(model, params, images, labels, gradients=one) for one in (client.gradients, halved)
    )
    assert whole.shared is not None
    assert whole.shared.error_norms is None
    assert (whole.shared.labels is not None) == labels_show
    np.testing.assert_allclose(half.spectra[0].values, whole.spectra[0].values / 2)


def test_a_batch_that_is_too_large_to_be_true_is_doubted(rng: np.random.Generator) -> None:
    params = SMALL.init(rng)
    client, _ = share(SMALL, params, rng.random((1, 1, 8, 8)), [1])
    images, labels = digits(6, rng)
    found = audit(SMALL, params, images, labels, gradients=client.gradients, batch=3).shared
    assert found is not None
    (cause,) = found.causes
    assert (cause.name, cause.advice) == ("batch size", "--batch 1")


# What cannot be audited


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 9}, "6 typical images were given for a batch of 9"),
        ({"batch": 0}, "give 1 or more"),
        ({"batch": 1.5}, "a batch of 1.5 .* whole number"),
        ({"examples": 0}, "give 1 or more"),
        ({"variances": [1e-3, -1.0]}, "give finite ones, 0 or more"),
        ({"variances": [np.nan]}, "give finite ones, 0 or more"),
        ({"prior": 0.0}, "leave nothing to find"),
        ({"gradients": {}}, "gradients do not fit"),
        (
            {"gradients": {k: np.zeros(s) for k, s in SMALL.shapes.items()}},
            "every shared gradient is zero",
        ),
    ],
)
def test_what_cannot_be_audited(options: Any, message: str, rng: np.random.Generator) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        audited(rng, **options)


def test_a_client_whose_gradient_is_zero_is_refused(rng: np.random.Generator) -> None:
    zero = {name: np.zeros(shape) for name, shape in SMALL.shapes.items()}
    with pytest.raises(ValueError, match="zero everywhere"):
        audit(Client(SMALL, SMALL.init(rng), zero), images=digits(2, rng)[0])


@pytest.mark.parametrize("given", ["params", "gradients", "batch"])
def test_what_a_client_has_itself_is_not_to_be_given(given: str, rng: np.random.Generator) -> None:
    params = SMALL.init(rng)
    client, _ = share(SMALL, params, *digits(1, rng))
    parts = {"params": params, "gradients": client.gradients, "batch": 1}
    with pytest.raises(TypeError, match=f"{given} were given, but a client has its own"):
        audit(client, **{given: parts[given]})


def test_unknown_keywords_and_a_network_without_weights_are_refused() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'iteration'"):
        audit(SMALL, {}, iteration=3)
    with pytest.raises(TypeError, match="without weights"):
        audit(SMALL)


def test_weights_that_are_not_finite_are_refused(rng: np.random.Generator) -> None:
    params = SMALL.init(rng)
    params["fc.0.bias"][0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        audit(SMALL, params, *digits(1, rng))


def test_images_that_are_all_alike_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="leave nothing to find"):
        audit(SMALL, SMALL.init(rng), np.ones((3, 1, 8, 8)), [0, 1, 2])


# Typical images


def test_pixels_vary_around_the_mean_image() -> None:
    images = np.array([[0.0, 1.0], [0.0, 0.0]]).reshape(2, 1, 1, 2)
    assert pixel_variance(images) == pytest.approx(0.25)
    assert pixel_variance(images[:1]) == pytest.approx(0.25)


def test_a_source_is_fitted_to_the_network(rng: np.random.Generator) -> None:
    model = LeNet((3, 8, 6), 4, hidden=2)
    params = model.init(rng)
    source = Dataset("grey", rng.random((3, 1, 9, 9)), np.array([0, 1, 2]), 4)
    fitted = typical(model, params, source)
    assert fitted.images.shape == (3, 3, 8, 6)
    assert 0 <= fitted.images.min() <= fitted.images.max() <= 1
    assert fitted.labels.tolist() == [0, 1, 2]
    assert fitted.name == "grey"
    # Labels that are not the network's own are those that it gives.
    answers = typical(model, params, source.images)
    assert set(answers.labels.tolist()) <= set(range(4))
    assert "labelled by the network" in answers.name
    other = Dataset("grey", source.images, np.array([0, 1, 6]), 7)
    np.testing.assert_array_equal(typical(model, params, other).labels, answers.labels)
    told = typical(model, params, source.images.tolist(), [3, 0, 0])
    assert told.labels.tolist() == [3, 0, 0]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (None, [1], "no array of images"),
        (np.full((2, 1, 8, 8), 255), None, "scale them to 0..1"),
        (np.full((2, 1, 8, 8), np.nan), None, "scale them to 0..1"),
        (np.zeros((0, 1, 8, 8)), None, "0 typical images"),
        (np.zeros((2, 8, 8)), None, "is expected"),
        (np.zeros((2, 1, 8, 8)), [1], "one label an image"),
        (np.zeros((2, 1, 8, 8)), [1, 5], "out of range"),
    ],
)
def test_images_that_are_not_typical_of_anything(
    images: Any, labels: Any, message: str, rng: np.random.Generator
) -> None:
    with pytest.raises(ValueError, match=message):
        audit(SMALL, SMALL.init(rng), images, labels)


# How it shows itself


def test_a_client_is_audited_and_shown_in_a_notebook(tmp_path: Path) -> None:
    model = LeNet((1, 8, 8), 4, hidden=3)
    client, _ = simulate(model, np.random.default_rng(3).random((1, 1, 8, 8)), [2])
    found = audit(client)
    assert found.source == "glyphs, labelled by the network itself"
    assert re.fullmatch(r"<Audit: as shared.{20,280}>", repr(found))
    assert all(len(repr(one)) <= 300 for one in (found.shared, *found.spectra))
    assert len({found, audit(client), found}) == 2
    shown = found._repr_html_()
    assert shown.count("<img") == 3
    assert "<body" not in shown
    assert len(found.plot().axes) == 2
    found.save(tmp_path / "audit.html")
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "lenet with sigmoid; gradients of 1 image of 1x8x8, 4 classes" in page
    assert shown.partition("<dl>")[2].partition("</dl>")[0] in page


def test_a_client_is_audited_by_its_files(tmp_path: Path, rng: np.random.Generator) -> None:
    client, _ = share(
        MLP((1, 4, 4), 5), MLP((1, 4, 4), 5).init(rng), rng.random((2, 1, 4, 4)), [1, 3]
    )
    np.savez(tmp_path / "weights.npz", **client.params)
    np.savez(tmp_path / "gradients.npz", **client.gradients)
    (tmp_path / "weights.json").write_text('{"model": "mlp", "shape": "1,4,4", "batch": 2}')
    found = audit(Client.from_files(tmp_path / "weights.npz", tmp_path / "gradients.npz"))
    assert found.counting.batch == 2
    assert found.shared is not None
    assert found.shared.labels == [1, 3]


def test_signs_and_pruned_entries_are_not_taken_for_the_gradient() -> None:
    """Signs of δ xᵀ have the rank 1, as the gradient of one image has, but show no image."""
    for model in (MLP((1, 8, 8), 10, "tanh", (64, 32)), LeNet((1, 8, 8), 10)):
        images = np.random.default_rng(0).random((1, 1, 8, 8))
        client, _ = simulate(model, images, [3], init="default")
        for change in (np.sign, lambda g: np.where(np.abs(g) > np.median(np.abs(g)), g, 0.0)):
            shared = {name: change(array) for name, array in client.gradients.items()}
            found = audit(Client.of(model, client.params, shared), examples=1)
            assert "without a defence" not in headline(found)
            if change is np.sign or isinstance(model, LeNet):
                assert found.verdict == "unknown"


def test_a_first_layer_that_sent_nothing_shows_nothing() -> None:
    model = MLP((1, 8, 8), 10, "tanh", (64, 32))
    client, _ = simulate(model, np.random.default_rng(0).random((1, 1, 8, 8)), [3])
    shared = {k: None if g.ndim > 1 else g for k, g in client.gradients.items()}
    assert audit(Client.of(model, client.params, shared), examples=1).verdict != "shown"
