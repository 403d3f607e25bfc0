"""BERT against Hugging Face's, with random weights: logits, gradients, the attack's gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from huggingface import TIED, theirs

from tinyleak import ops
from tinyleak.check import check_gradients
from tinyleak.gradient import grad
from tinyleak.nn.activations import gelu, gelu_tanh
from tinyleak.nn.models.bert import WORDS, Bert, masked_loss
from tinyleak.nn.models.transformer import ACTIVATIONS
from tinyleak.nn.normalisation import layer_norm
from tinyleak.program import trace
from tinyleak.tensor import Tensor

SMALL = Bert(vocabulary=37, layers=2, width=12, heads=3, intermediate=20, positions=9)

# Two sentences; the second is shorter, and both have places that are masked (token 3).
TOKENS = np.array([[1, 3, 20, 8, 8, 36, 2], [1, 5, 3, 19, 2, 0, 0]])
MASK = np.array([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0]], dtype=bool)
LABELS = np.full(TOKENS.shape, -100)
LABELS[0, 1], LABELS[1, 2] = 30, 20


def random_params(model: Bert, seed: int = 0) -> dict[str, np.ndarray]:
    """Parameters of which none is zero or one, so that every one of them matters."""
    rng = np.random.default_rng(seed)
    drawn = model.init(rng, std=0.3)
    return {name: a + 0.1 * rng.standard_normal(a.shape) for name, a in drawn.items()}


def as_tensors(params: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: Tensor(array) for name, array in params.items()}


def targets() -> Tensor:
    rows = np.zeros((*LABELS.shape, SMALL.vocabulary))
    for place in zip(*np.nonzero(LABELS >= 0), strict=True):
        rows[(*place, LABELS[place])] = 1
    return Tensor(rows)


def loss(params: dict[str, Tensor], words: Tensor | None = None) -> Tensor:
    words = SMALL.embed(params, TOKENS) if words is None else words
    return masked_loss(SMALL(params, words, MASK), targets(), 2)


def torch_inputs() -> dict[str, torch.Tensor]:
    return {"attention_mask": torch.tensor(MASK.astype(int))}


def test_the_parameters_are_those_of_hugging_face() -> None:
    state = theirs(SMALL, random_params(SMALL)).state_dict()
    assert {name: tuple(array.shape) for name, array in state.items() if name not in TIED} == (
        SMALL.shapes
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_logits(activation: str) -> None:
    model = Bert(37, 2, 12, 3, 20, 9, activation=activation)
    params = random_params(model)
    tensors = as_tensors(params)
    ours = model(tensors, model.embed(tensors, TOKENS), MASK)
    with torch.no_grad():
        expected = theirs(model, params)(input_ids=torch.tensor(TOKENS), **torch_inputs()).logits
    np.testing.assert_allclose(ours.numpy()[MASK], expected.numpy()[MASK], rtol=0, atol=1e-10)


def test_logits_of_one_plain_sentence() -> None:
    params = random_params(SMALL)
    tensors = as_tensors(params)
    ours = SMALL(tensors, SMALL.embed(tensors, TOKENS[:1]))
    with torch.no_grad():
        expected = theirs(SMALL, params)(input_ids=torch.tensor(TOKENS[:1])).logits
    np.testing.assert_allclose(ours.numpy(), expected.numpy(), rtol=0, atol=1e-10)


def test_loss_and_gradients_of_every_parameter() -> None:
    params = random_params(SMALL)
    model = theirs(SMALL, params)
    labels = torch.tensor(LABELS)
    expected = model(input_ids=torch.tensor(TOKENS), labels=labels, **torch_inputs()).loss
    expected.backward()
    tensors = as_tensors(params)
    ours = loss(tensors)
    assert abs(float(ours) - expected.item()) < 1e-12
    slopes = dict(model.named_parameters())
    assert set(slopes) == set(SMALL.shapes)
    for name, slope in zip(params, grad(ours, list(tensors.values())), strict=True):
        found, right = slope.numpy(), slopes[name].grad.numpy()
        # A key bias raises all scores of a row alike, which softmax does not see.
        assert np.abs(right).max() > 1e-4 or name.endswith("key.bias"), name
        np.testing.assert_allclose(found, right, rtol=0, atol=1e-9, err_msg=name)


def test_the_attack_s_gradient_of_second_order() -> None:
    params = random_params(SMALL)
    rng = np.random.default_rng(5)
    shared = {name: 0.01 * rng.standard_normal(shape) for name, shape in SMALL.shapes.items()}
    dummy = rng.standard_normal((*TOKENS.shape, SMALL.width))

    model = theirs(SMALL, params)
    embeddings = torch.tensor(dummy, requires_grad=True)
    named = dict(model.named_parameters())
    value = model(inputs_embeds=embeddings, labels=torch.tensor(LABELS), **torch_inputs()).loss
    slopes = torch.autograd.grad(value, list(named.values()), create_graph=True)
    distance = sum(
        ((slope - torch.tensor(shared[name])) ** 2).sum()
        for name, slope in zip(named, slopes, strict=True)
    )
    (expected,) = torch.autograd.grad(distance, [embeddings])

    def attack(words: Tensor) -> tuple[Tensor, Tensor]:
        tensors = as_tensors(params)
        found = grad(loss(tensors, words), list(tensors.values()))
        total = ops.sum(found[0] * 0.0)
        for name, slope in zip(tensors, found, strict=True):
            total = total + ops.sum((slope - Tensor(shared[name])) ** 2)
        return total, grad(total, [words])[0]

    ours, slope = attack(Tensor(dummy))
    assert abs(float(ours) / distance.item() - 1) < 1e-12
    size = expected.abs().max().item()
    np.testing.assert_allclose(slope.numpy() / size, expected.numpy() / size, rtol=0, atol=1e-8)
    replayed = trace(attack, dummy)(dummy)
    np.testing.assert_allclose(replayed[1] / size, expected.numpy() / size, rtol=0, atol=1e-8)


def test_leading_axes_are_as_many_networks() -> None:
    several = [random_params(SMALL, seed) for seed in range(3)]
    stacked = {name: Tensor(np.stack([p[name] for p in several])) for name in SMALL.shapes}
    words = SMALL.embed(stacked, TOKENS)
    together = SMALL(stacked, words, MASK)
    slopes = grad(
        ops.sum(masked_loss(together, ops.broadcast_to(targets(), shape=together.shape), 2)),
        list(stacked.values()),
    )
    for row, params in enumerate(several):
        tensors = as_tensors(params)
        alone = SMALL(tensors, SMALL.embed(tensors, TOKENS), MASK)
        np.testing.assert_allclose(together.numpy()[row], alone.numpy(), rtol=0, atol=1e-12)
        for ours, own in zip(slopes, grad(loss(tensors), list(tensors.values())), strict=True):
            np.testing.assert_allclose(ours.numpy()[row], own.numpy(), rtol=0, atol=1e-13)


def test_finite_differences_agree_to_second_order() -> None:
    model = Bert(5, 1, 4, 2, 3, 3)
    params = random_params(model)
    rows = np.zeros((1, 3, 5))
    rows[0, 1] = [0.5, 0, 0.25, 0.25, 0]

    def function(words: Tensor, *values: Tensor) -> Tensor:
        return masked_loss(model(dict(zip(params, values, strict=True)), words), Tensor(rows), 1)

    words = Tensor(np.random.default_rng(1).standard_normal((1, 3, 4)))
    check_gradients(function, [words, *as_tensors(params).values()], order=2)


def test_float32_stays_float32() -> None:
    params = SMALL.init(np.random.default_rng(0), dtype="float32")
    tensors = as_tensors(params)
    value = masked_loss(
        SMALL(tensors, SMALL.embed(tensors, TOKENS), MASK),
        Tensor(targets().numpy().astype("f4")),
        2,
    )
    assert value.dtype == np.float32
    assert {slope.dtype for slope in grad(value, list(tensors.values()))} == {np.dtype("f4")}


def test_weights_are_drawn_as_bert_draws_them() -> None:
    model = Bert(500)
    params = model.init(np.random.default_rng(0))
    assert {name: array.shape for name, array in params.items()} == model.shapes
    assert abs(params[WORDS].std() / 0.02 - 1) < 0.02
    assert set(np.unique(params["bert.embeddings.LayerNorm.weight"])) == {1.0}
    assert set(np.unique(params["bert.encoder.layer.1.attention.self.key.bias"])) == {0.0}
    again = model.init(np.random.default_rng(0))
    assert all(np.array_equal(params[name], again[name]) for name in params)


@pytest.mark.parametrize(
    ("ours", "approximate"), [(gelu, "none"), (gelu_tanh, "tanh")], ids=["exact", "tanh"]
)
def test_gelu(ours: Any, approximate: str) -> None:
    x = np.linspace(-40, 40, 401)
    expected = torch.nn.functional.gelu(torch.tensor(x), approximate=approximate)
    np.testing.assert_allclose(ours(Tensor(x)).numpy(), expected.numpy(), rtol=1e-12, atol=1e-14)


def test_layer_norm() -> None:
    rng = np.random.default_rng(0)
    x, weight, bias = rng.standard_normal((3, 5, 8)), *rng.standard_normal((2, 8))
    ours = layer_norm(Tensor(x), Tensor(weight), Tensor(bias), 1e-3)
    expected = torch.nn.functional.layer_norm(
        torch.tensor(x), (8,), torch.tensor(weight), torch.tensor(bias), 1e-3
    )
    np.testing.assert_allclose(ours.numpy(), expected.numpy(), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Bert(10, width=10, heads=3), ["width=10", "multiple of the heads"]),
        (lambda: Bert(0), ["vocabulary=0", "at least 1"]),
        (lambda: Bert(10, activation="swish"), ["'swish' is unknown", "gelu_new"]),
        (
            lambda: SMALL(as_tensors(random_params(SMALL)), Tensor(np.zeros((1, 10, 12)))),
            ["sentence of 10 tokens", "9 positions", "shorten it"],
        ),
        (
            lambda: SMALL.embed(as_tensors(random_params(SMALL)), np.array([[37]])),
            ["indices from 37 to 37", "[0, 37)"],
        ),
    ],
    ids=["heads", "vocabulary", "activation", "too long", "unknown token"],
)
def test_what_does_not_fit_is_refused(call: Any, words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    for part in words:
        assert part in str(caught.value)
