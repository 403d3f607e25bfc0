"""The client: what it shares, what a seed decides, what is known of it, and how it is judged."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from tinyleak import lbfgs, ops, trace
from tinyleak.analytic.jacobian import Jacobian
from tinyleak.attacks import Attacker, Progress, Reconstruction, Settings, attack, problem_of
from tinyleak.attacks.stacked import Evaluator
from tinyleak.client import RECOVERED_MSE, Client, LocalSteps, Truth, share, simulate
from tinyleak.nn import MLP, LeNet, one_hot
from tinyleak.nn.losses import cross_entropy
from tinyleak.optim import lbfgs_many
from tinyleak.tensor import Tensor

MODEL = LeNet((1, 8, 8), classes=4, hidden=3)


def client(
    images: int = 3, dtype: str = "float64", model: LeNet | MLP = MODEL
) -> tuple[Client, Truth]:
    pixels = np.random.default_rng(5).uniform(size=(images, *model.image_shape))
    return simulate(model, pixels, np.arange(images), seed=1, dtype=dtype)


def found(images: np.ndarray, labels: list[int]) -> Reconstruction:
    """A reconstruction that holds these images and labels."""
    soft = np.eye(MODEL.classes)[labels]
    return Reconstruction(images, np.array(labels), soft, 0.0, [0.0], [], 0, 1, 0.0, "converged")


def test_a_client_shares_the_gradient_of_its_mean_loss():
    victim, truth = client(model=MLP((1, 2, 2), classes=4, widths=(3,)))
    name, place, step = "2.bias", 1, 1e-6
    targets = Tensor(np.eye(4)[truth.labels])

    def loss(change: float) -> float:
        moved = {key: value.copy() for key, value in victim.params.items()}
        moved[name][place] += change
        params = {key: Tensor(value) for key, value in moved.items()}
        model = MLP((1, 2, 2), classes=4, widths=(3,))
        return float(cross_entropy(model(params, Tensor(truth.images)), targets).numpy())

    slope = (loss(step) - loss(-step)) / (2 * step)
    assert victim.gradients[name][place] == pytest.approx(slope, rel=1e-6)
    assert {key: value.shape for key, value in victim.gradients.items()} == {
        key: value.shape for key, value in victim.params.items()
    }


@pytest.mark.parametrize("squash", ["sigmoid", "tanh"])
@pytest.mark.parametrize("labels", [[3], [1, 0, 1, 9]], ids=str)
def test_what_a_client_shares_is_pytorchs(labels: list[int], squash: str):
    model = LeNet(activation=squash)
    rng = np.random.default_rng(3)
    images = rng.uniform(size=(len(labels), 1, 28, 28))
    victim, _ = share(model, model.init(rng), images, labels)

    layers: list[torch.nn.Module] = []
    for channels, stride in [(1, 2), (12, 2), (12, 1)]:
        layers.append(torch.nn.Conv2d(channels, 12, 5, padding=2, stride=stride))
        layers.append({"sigmoid": torch.nn.Sigmoid, "tanh": torch.nn.Tanh}[squash]())
    reference = torch.nn.ModuleDict(
        {
            "body": torch.nn.Sequential(*layers),
            "fc": torch.nn.Sequential(torch.nn.Linear(588, 10)),
        }
    ).double()
    reference.load_state_dict({name: torch.tensor(w) for name, w in victim.params.items()})
    logits = reference["fc"](reference["body"](torch.tensor(images)).flatten(1))
    torch.nn.functional.cross_entropy(logits, torch.tensor(labels)).backward()
    for name, weight in reference.named_parameters():
        expected = weight.grad.numpy()
        tolerance = 1e-10 * np.abs(expected).max()
        np.testing.assert_allclose(victim.gradients[name], expected, rtol=0, atol=tolerance)


def test_a_client_does_not_change_when_the_caller_s_arrays_do():
    images = np.random.default_rng(5).uniform(size=(1, 1, 8, 8))
    params, labels = MODEL.init(np.random.default_rng(1)), np.array([2])
    before = {name: weight.copy() for name, weight in params.items()}
    victim, truth = share(MODEL, params, images, labels)
    shared = {name: gradient.copy() for name, gradient in victim.gradients.items()}
    pixels = images.copy()
    for name in params:  # a step of training, in place
        params[name] -= 0.5 * victim.gradients[name]
    images += 1
    labels += 1
    for name, weight in before.items():
        np.testing.assert_array_equal(victim.params[name], weight)
        np.testing.assert_array_equal(victim.gradients[name], shared[name])
    np.testing.assert_array_equal(truth.images, pixels)
    assert truth.labels.tolist() == [2]

    own = Client.of(MODEL, before, shared)
    before["fc.0.bias"] += 1
    shared["fc.0.bias"] += 1
    np.testing.assert_array_equal(own.params["fc.0.bias"], victim.params["fc.0.bias"])
    np.testing.assert_allclose(own.gradients["fc.0.bias"], victim.gradients["fc.0.bias"])


@pytest.mark.parametrize("kind", ["torch", "lists", "tensors of torch that require a gradient"])
def test_arrays_of_any_library_are_taken(kind):
    victim, truth = client(images=1)
    give = {
        "torch": torch.tensor,
        "lists": lambda array: array.tolist(),
        "tensors of torch that require a gradient": lambda a: torch.tensor(a, requires_grad=True),
    }[kind]
    params = {name: give(array) for name, array in victim.params.items()}
    gradients = {name: give(array) for name, array in victim.gradients.items()}
    if "require" in kind:
        with pytest.raises(TypeError, match="detach"):
            Client.of(MODEL, params, gradients)
        return
    own = Client.of(MODEL, params, gradients)
    for name in victim.params:
        np.testing.assert_allclose(own.gradients[name], victim.gradients[name], rtol=1e-9)
    again, _ = share(MODEL, params, give(truth.images), give(truth.labels))
    np.testing.assert_array_equal(again.gradients["fc.0.bias"], victim.gradients["fc.0.bias"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as NumPy's of a copy that PyTorch does not promise
        found = attack(again, labels=give(truth.labels), settings=Settings(1))
        truth.judge(found)
        found.plot(give(truth.images))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_client_computes_in_its_dtype(dtype):
    victim, _ = client(dtype=dtype)
    for arrays in (victim.params, victim.gradients):
        assert {str(array.dtype) for array in arrays.values()} == {dtype}


def test_a_seed_decides_the_weights_whatever_the_images():
    images = np.zeros((1, 1, 8, 8))
    one, _ = simulate(MODEL, images, [0], seed=1)
    other, _ = simulate(MODEL, images + 1, [2], seed=1)
    expected = MODEL.init(np.random.default_rng([1, 0]))
    for name, weights in expected.items():
        np.testing.assert_array_equal(one.params[name], weights)
        np.testing.assert_array_equal(other.params[name], weights)
    another, _ = simulate(MODEL, images, [0], seed=2)
    assert not np.array_equal(another.params["fc.0.weight"], expected["fc.0.weight"])


def test_a_client_s_weights_are_drawn_as_asked():
    victim, _ = simulate(MODEL, np.zeros((1, 1, 8, 8)), [0], seed=1, init="default")
    expected = MODEL.init(np.random.default_rng([1, 0]), "default")
    np.testing.assert_array_equal(victim.params["body.2.weight"], expected["body.2.weight"])


def test_an_unknown_initialisation_is_refused():
    with pytest.raises(ValueError, match="initialisation 'zeros' is unknown; choose from uniform"):
        simulate(MODEL, np.zeros((1, 1, 8, 8)), [0], init="zeros")


def test_images_that_do_not_fit_the_network_are_refused():
    message = r"images of shape \(2, 1, 9, 9\) and 2 labels; .* needs \(N, \*\(1, 8, 8\)\)"
    with pytest.raises(ValueError, match=message):
        simulate(MODEL, np.zeros((2, 1, 9, 9)), [0, 1])
    with pytest.raises(ValueError, match=r"images of shape \(2, 1, 8, 8\) and 1 labels"):
        share(MODEL, client()[0].params, np.zeros((2, 1, 8, 8)), [0])


def test_a_client_without_images_or_with_a_bare_label_is_refused():
    params = client()[0].params
    with pytest.raises(ValueError, match=r"shape \(0, 1, 8, 8\) and 0 labels; .* N at least 1"):
        share(MODEL, params, np.zeros((0, 1, 8, 8)), [])
    with pytest.raises(ValueError, match="needs .* and N labels"):
        share(MODEL, params, np.zeros((1, 1, 8, 8)), np.array(2))
    with pytest.raises(ValueError, match=r"images of shape \(1, 8, 8\)"):
        share(MODEL, params, np.zeros((1, 8, 8)), [2])


def test_weights_that_are_not_the_model_s_are_refused():
    params, images = client()[0].params, np.zeros((1, 1, 8, 8))
    fewer = {name: weight for name, weight in params.items() if name != "fc.0.bias"}
    with pytest.raises(ValueError, match=r"weights do not fit LeNet.*missing \['fc.0.bias'\]"):
        share(MODEL, fewer, images, [0])
    with pytest.raises(ValueError, match=r"fc.0.bias has shape \(5,\), the model's is \(4,\)"):
        share(MODEL, {**params, "fc.0.bias": np.zeros(5)}, images, [0])
    with pytest.raises(ValueError, match="weights hold NaN or infinity in fc.0.bias"):
        share(MODEL, {**params, "fc.0.bias": np.full(4, np.nan)}, images, [0])


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="dtype 'float16' is unknown; choose float64 or float32"):
        share(MODEL, client()[0].params, np.zeros((1, 1, 8, 8)), [0], dtype="float16")


def test_a_label_that_is_no_whole_number_is_refused():
    with pytest.raises(ValueError, match="labels of dtype float64 were given; whole numbers"):
        share(MODEL, client()[0].params, np.zeros((1, 1, 8, 8)), [1.5])


def test_a_label_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"label 4 was given; with 4 classes labels are in \[0, 4"):
        simulate(MODEL, np.zeros((1, 1, 8, 8)), [4])


def test_images_are_judged_beside_the_ones_they_came_from():
    _, truth = client()
    order = [2, 0, 1]
    shuffled = found(truth.images[order] + 0.01, [int(truth.labels[i]) for i in order])
    outcome = truth.judge(shuffled)
    assert outcome.order.tolist() == [1, 2, 0]
    np.testing.assert_array_equal(outcome.images, truth.images + 0.01)
    np.testing.assert_array_equal(outcome.labels, truth.labels)
    np.testing.assert_array_equal(outcome.soft_labels, np.eye(4)[truth.labels])
    np.testing.assert_allclose(outcome.mse, 1e-4)
    np.testing.assert_allclose(outcome.psnr, 40)
    assert outcome.succeeded


def test_success_takes_every_image_and_every_label():
    _, truth = client()
    labels = truth.labels.tolist()
    assert truth.judge(found(truth.images, labels)).succeeded

    poor = truth.images.copy()
    poor[1] += np.sqrt(RECOVERED_MSE) * 1.01
    outcome = truth.judge(found(poor, labels))
    assert outcome.recovered.tolist() == [True, False, True]
    assert not outcome.succeeded

    outcome = truth.judge(found(truth.images, [*labels[:2], 3]))
    assert outcome.recovered.tolist() == [True, True, False]
    assert not outcome.succeeded


def test_an_image_that_is_not_finite_is_not_recovered():
    _, truth = client(images=1)
    outcome = truth.judge(found(np.full_like(truth.images, np.nan), [0]))
    assert np.isnan(outcome.mse).all()
    assert not outcome.succeeded


def test_another_number_of_images_is_refused():
    _, truth = client()
    two = found(truth.images[:2], [0, 1])
    with pytest.raises(ValueError, match="two arrays of one shape"):
        truth.judge(two)
    with pytest.raises(ValueError, match="two arrays of one shape"):
        truth.judge(replace(two, images=truth.images[:1]))


# What is known of a client


def test_a_result_is_short_to_print_and_equal_to_itself_alone():
    victim, truth = client(images=2)
    seen: list[Progress] = []
    result = attack(victim, settings=Settings(2), on_progress=seen.append)
    problem = problem_of(victim, Attacker())
    walked = list(lbfgs(lambda z: (float(z @ z), 2 * z), np.arange(700.0)))
    together = next(lbfgs_many(lambda z, _: ((z * z).sum(1), 2 * z), np.ones((40, 700))))
    program = trace(lambda x: ops.sum(x * x), np.ones(700))
    for one in (
        *(victim, truth, result, result.snapshots[0], *seen[:1]),
        *(truth.judge(result), victim.explain(result)),
        *(problem, problem.matching, Evaluator(problem.matching), walked[-1], together, program),
        Jacobian(MODEL, victim.params, truth.images, one_hot(truth.labels, MODEL.classes)),
    ):
        assert len(repr(one)) <= 300
        assert one == one  # noqa: PLR0124
        assert hash(one) == hash(one)
    again = attack(victim, settings=Settings(2))
    assert again != result


@pytest.mark.parametrize("factor", [0.1, 2.0, 1e-170, -0.5, 1e150])
def test_a_factor_on_the_loss_is_read_off_and_removed(factor: float):
    victim, truth = client(images=1)
    own = Client.of(MODEL, victim.params, {k: factor * g for k, g in victim.gradients.items()})
    assert own.loss.exact
    assert own.loss.factor == pytest.approx(factor)
    assert own.loss.fact.source == "read off"
    for name, gradient in victim.gradients.items():
        np.testing.assert_allclose(own.gradients[name], gradient, rtol=1e-6, atol=1e-12)
    result = attack(MODEL, victim.params, {k: factor * g for k, g in victim.gradients.items()})
    assert truth.judge(result).succeeded
    assert result.reason == "converged"


def test_what_was_said_of_the_loss_goes_before_what_could_be_read_off():
    victim, _ = client(images=2)
    doubled = {name: 2 * gradient for name, gradient in victim.gradients.items()}
    own = Client.of(MODEL, victim.params, doubled, batch=2, reduction="sum")
    assert (own.loss.factor, own.loss.fact.source) == (2.0, "said")
    np.testing.assert_allclose(own.gradients["fc.0.bias"], victim.gradients["fc.0.bias"])
    with pytest.raises(ValueError, match="reduction 'total' was given; choose mean or sum"):
        Client.of(MODEL, victim.params, doubled, batch=2, reduction="total")


def test_a_client_that_shared_nothing_is_refused():
    victim, _ = client(images=1)
    nothing = {name: 0 * gradient for name, gradient in victim.gradients.items()}
    with pytest.raises(ValueError, match="every shared gradient is zero.*backward pass was run"):
        Client.of(MODEL, victim.params, nothing)
    with pytest.raises(ValueError, match="a batch of 0 was given; give 1 or more"):
        Client(MODEL, victim.params, victim.gradients, 0)


def test_the_noise_of_a_sum_over_steps_is_that_of_the_sum():
    rng = np.random.default_rng(0)
    images, local = rng.random((1, 1, 8, 8)), LocalSteps(3, 1e-3)
    victim, _ = share(MODEL, MODEL.init(rng), images, [1], local=local)
    noisy = {k: g + 1e-3 * rng.standard_normal(g.shape) for k, g in victim.gradients.items()}
    own = Client(MODEL, victim.params, noisy, local=local)
    assert own.noise == pytest.approx(1e-6, rel=0.5)


def test_a_network_that_does_not_end_in_a_linear_layer_tells_no_labels():
    class Bilinear:
        image_shape, classes = (1, 2, 2), 2
        shapes = {"a": (2, 2, 4)}  # noqa: RUF012

        def __call__(self, params, x):
            raise NotImplementedError

    own = Client(Bilinear(), {"a": np.ones((2, 2, 4))}, {"a": np.ones((2, 2, 4))})
    assert own.last_layer is None
    assert own.noise is None
    with pytest.raises(ValueError, match="labels can be inferred where the last layer is linear"):
        _ = own.labels


def test_what_was_found_is_explained_or_not():
    victim, truth = client(images=1)
    right = found(truth.images, truth.labels.tolist())
    outcome = victim.explain(right)
    assert outcome.succeeded
    assert outcome.mse is None
    assert outcome.distance < 1e-25
    wrong = victim.explain(found(truth.images + 0.1, truth.labels.tolist()))
    assert not wrong.succeeded
    assert (wrong.verdict, wrong.expected_mse) == ("not explained", None)


def test_an_image_that_float32_finds_explains_the_gradient():
    victim, truth = client(images=1, dtype="float32")
    reconstruction = attack(victim, settings=Settings(dtype="float32"))
    assert reconstruction.reason == "converged"
    assert truth.judge(reconstruction).succeeded
    assert victim.explain(reconstruction, dtype="float32").succeeded
    assert victim.explain(reconstruction).succeeded, "what was found tells how it was computed"
    told = attack(victim, labels=truth.labels, settings=Settings(dtype="float32"))
    assert victim.explain(told).succeeded
    lost = found(np.zeros((1, *MODEL.image_shape)), [0])
    assert not victim.explain(lost, dtype="float32").succeeded


def test_what_a_client_shares_can_be_written_by_any_library():
    victim, _ = client(dtype="float32")
    assert all(array.flags.c_contiguous for array in victim.gradients.values())


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_gradient_of_such_arrays_is_taken_for_that(dtype):
    model = LeNet((1, 8, 8), 10, hidden=2)
    params = {k: v.astype(np.float32) for k, v in model.init(np.random.default_rng(0)).items()}
    client, _ = share(model, params, np.full((1, 1, 8, 8), 0.4), [3], dtype="float32")
    gradients = {name: array.astype(dtype) for name, array in client.gradients.items()}
    assert Client.of(model, params, gradients).dtype == dtype
    assert Client.of(model, params, {k: v.astype(float) for k, v in gradients.items()}).dtype == (
        "float64"
    )
