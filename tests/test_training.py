"""The training loop, beside PyTorch's optimisers, and what a network learns by it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from tinyleak import ops
from tinyleak.data import load_glyphs
from tinyleak.nn import MLP, LeNet, Trained, accuracy, descend, train
from tinyleak.tensor import Tensor

MODEL = MLP((1, 3, 3), classes=4, widths=(5,))
IMAGES = np.random.default_rng(1).random((40, 1, 3, 3))
LABELS = np.random.default_rng(2).integers(4, size=40)
START = MODEL.init(np.random.default_rng(3))


def torch_training(make: Callable[..., torch.optim.Optimizer], steps: int) -> dict[str, np.ndarray]:
    """The parameters after so many of PyTorch's steps on the batches that seed 0 draws."""
    params = {n: torch.tensor(a, requires_grad=True) for n, a in START.items()}
    optimiser, rng = make(list(params.values())), np.random.default_rng(0)
    for _ in range(steps):
        chosen = rng.integers(40, size=6)
        x = torch.tensor(IMAGES[chosen]).flatten(1)
        hidden = functional.linear(x, params["0.weight"], params["0.bias"]).sigmoid()
        logits = functional.linear(hidden, params["2.weight"], params["2.bias"])
        optimiser.zero_grad()
        functional.cross_entropy(logits, torch.tensor(LABELS[chosen])).backward()
        optimiser.step()
    return {name: value.detach().numpy() for name, value in params.items()}


def trained(steps: Any = 12, **options: Any) -> Trained:
    chosen = {"params": START, "batch": 6, "dtype": "float64", **options}
    return train(MODEL, IMAGES, LABELS, steps=steps, **chosen)


@pytest.mark.parametrize(
    ("options", "make"),
    [
        ({"learning_rate": 0.3, "momentum": 0.0}, lambda p: torch.optim.SGD(p, lr=0.3)),
        ({"learning_rate": 0.3}, lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.9)),
        ({"optimiser": "adam", "learning_rate": 0.02}, lambda p: torch.optim.Adam(p, lr=0.02)),
        (
            {"optimiser": "adam", "learning_rate": 0.02, "momentum": 0.5},
            lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.5, 0.999)),
        ),
    ],
    ids=["sgd", "momentum", "adam", "adam with momentum 0.5"],
)
def test_the_steps_are_pytorchs(
    options: dict[str, Any], make: Callable[..., torch.optim.Optimizer]
) -> None:
    ours, theirs = trained(**options).params, torch_training(make, 12)
    assert list(ours) == list(MODEL.shapes)
    for name, expected in theirs.items():
        np.testing.assert_allclose(ours[name], expected, rtol=1e-9, atol=1e-12)


def test_the_rate_may_depend_on_the_step() -> None:
    asked: list[int] = []

    def rate(step: int) -> float:
        asked.append(step)
        return 0.1 if step < 2 else 1e-300

    ended = trained(5, learning_rate=rate, momentum=0.0).params
    after_two = trained(2, learning_rate=0.1, momentum=0.0).params
    assert asked == [0, 1, 2, 3, 4]
    for name in START:
        np.testing.assert_array_equal(ended[name], after_two[name])


def test_one_seed_is_one_training_and_what_was_given_stays() -> None:
    before = {name: array.copy() for name, array in START.items()}
    first, again, other = (trained(seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.losses, again.losses)
    assert not np.array_equal(first.losses, other.losses)
    for name, array in START.items():
        np.testing.assert_array_equal(array, before[name])


def test_the_start_is_drawn_if_none_is_given() -> None:
    drawn = train(MODEL, IMAGES, LABELS, steps=1, learning_rate=1e-300, seed=3)
    for name, array in START.items():
        assert drawn.params[name].dtype == np.float32
        np.testing.assert_array_equal(drawn.params[name], array.astype(np.float32))


def test_a_hook_has_every_gradient() -> None:
    def nothing(gradients: dict[str, np.ndarray], rng: np.random.Generator) -> Any:
        return {name: 0.0 * gradient for name, gradient in gradients.items()}

    for name, array in trained(protect=nothing).params.items():
        np.testing.assert_array_equal(array, START[name])


def test_the_mean_of_the_examples_gradients_is_the_batchs() -> None:
    def average(gradients: dict[str, np.ndarray], rng: np.random.Generator) -> Any:
        assert all(gradients[name].shape == (6, *shape) for name, shape in MODEL.shapes.items())
        return {name: gradient.mean(axis=0) for name, gradient in gradients.items()}

    apart, together = trained(protect=average, per_example=True), trained()
    np.testing.assert_allclose(apart.losses, together.losses, rtol=1e-12)
    for name, array in together.params.items():
        np.testing.assert_allclose(apart.params[name], array, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("compiled", [True, False])
def test_batches_of_many_shapes(compiled: bool) -> None:
    sizes = [3, 1, 3, 2]
    rng, left = np.random.default_rng(5), iter(sizes)

    def draw() -> tuple[np.ndarray]:
        return (rng.standard_normal((next(left), 2)),)

    def loss(weights: Any, batch: Any) -> Tensor:
        (x,) = batch
        x = x if isinstance(x, Tensor) else Tensor(x)
        return ops.mean((x @ weights["w"] - 1.0) ** 2)

    options = {"steps": 4, "momentum": 0.0, "compiled": compiled}
    found = descend(loss, {"w": np.zeros((2, 1))}, draw, **options).params["w"]

    expected, rng = np.zeros((2, 1)), np.random.default_rng(5)
    for size in sizes:
        x = rng.standard_normal((size, 2))
        expected = expected - 0.1 * 2 * x.T @ (x @ expected - 1.0) / size
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_notebook_trains_a_lenet_on_glyphs() -> None:
    digits, model = load_glyphs(700), LeNet()
    result = train(model, digits.images[:500], digits.labels[:500], steps=300)
    assert accuracy(model, result.params, digits.images[500:], digits.labels[500:]) > 0.8
    assert np.mean(result.losses[-20:]) < 0.5 * result.losses[0]
    assert repr(result).startswith("Trained(300 steps, loss ")
    assert len(repr(result)) < 100
    assert hash(result) != hash(Trained(result.params, result.losses))


def test_accuracy_counts_across_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    params = {name: Tensor(array) for name, array in START.items()}
    said = MODEL(params, Tensor(IMAGES)).numpy().argmax(axis=1)
    said[:10] = (said[:10] + 1) % 4
    monkeypatch.setattr("tinyleak.nn.training.AT_ONCE", 7)
    assert accuracy(MODEL, START, IMAGES, said) == 0.75


def test_arrays_of_other_libraries_are_taken() -> None:
    params = {name: torch.tensor(array) for name, array in START.items()}
    found = train(
        MODEL,
        torch.tensor(IMAGES),
        LABELS.tolist(),
        **{"params": params, "batch": 6, "dtype": "float64", "steps": 12},
    )
    np.testing.assert_array_equal(found.losses, trained().losses)
    right = accuracy(MODEL, params, IMAGES.tolist(), torch.tensor(LABELS))
    assert right == accuracy(MODEL, START, IMAGES, LABELS)


def test_the_parameters_have_names() -> None:
    for given in (trained(1), list(START.values())):
        with pytest.raises(TypeError, match="the weights were given as a .*; give a dict"):
            accuracy(MODEL, given, IMAGES, LABELS)  # type: ignore[arg-type]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "progress", "shown"),
    [
        (Terminal, None, True),
        (Terminal, False, False),
        (io.StringIO, None, False),
        (io.StringIO, True, True),
    ],
)
def test_the_bar_is_for_terminals_and_whoever_asks(
    stream: type[io.StringIO], progress: bool | None, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = stream()
    monkeypatch.setattr(sys, "stderr", error)
    trained(progress=progress)
    assert ("/12 [" in error.getvalue()) == shown
    assert bool(error.getvalue()) == shown


BAD_REQUESTS: list[tuple[Callable[[], object], str]] = [
    (lambda: trained(0), "0 steps .* at least 1 step"),
    (lambda: trained(2.5), "2.5 steps .* whole number"),
    (lambda: trained("3"), "'3' steps .* whole number"),
    (lambda: trained(batch=2.5), "a batch of 2.5 .* whole number"),
    (lambda: trained(batch=None), "a batch of None"),
    (lambda: trained(learning_rate=None), "must be positive and finite, not None"),
    (lambda: trained(learning_rate="0.1"), "must be positive and finite, not '0.1'"),
    (lambda: train(MODEL, IMAGES * np.nan, LABELS), "images hold NaN or infinity"),
    (lambda: trained(momentum=1.0), r"momentum 1.0 .* \[0, 1\)"),
    (lambda: trained(optimiser="rprop"), "'rprop' .* one of sgd, adam"),
    (lambda: trained(learning_rate=0.0), "learning rate must be positive and finite, not 0.0"),
    (lambda: trained(learning_rate=float("nan")), "not nan"),
    (lambda: trained(batch=0), "a batch of 0"),
    (lambda: trained(dtype="float16"), "'float16' is unknown; choose float32 or float64"),
    (lambda: trained(per_example=True), "give protect"),
    (lambda: trained(params={"w": np.zeros(3)}), "the weights do not fit MLP"),
    (lambda: train(MODEL, IMAGES[:0], LABELS[:0]), "M at least 1"),
    (lambda: train(MODEL, IMAGES[:, 0], LABELS), r"\(40, 3, 3\) .* needs \(M, 1, 3, 3\)"),
    (lambda: train(MODEL, IMAGES, LABELS[1:]), r"labels of shape \(39,\)"),
    (lambda: train(MODEL, IMAGES, LABELS + 4), "with 4 classes labels are"),
    (lambda: train(MODEL, IMAGES, LABELS / 2), "whole numbers"),
    (lambda: accuracy(MODEL, START, IMAGES, LABELS[1:]), "40 images and 39 labels"),
    (lambda: accuracy(MODEL, START, IMAGES[:0], LABELS[:0]), "at least 1"),
]


@pytest.mark.parametrize(("request_", "message"), BAD_REQUESTS)
def test_what_is_refused(request_: Callable[[], object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        request_()
    assert "\n" not in str(caught.value)
