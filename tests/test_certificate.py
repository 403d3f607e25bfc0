"""Certificates: every record is accepted, and nothing that only resembles one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares

from tinyleak import Tensor, data, nn, ops
from tinyleak.analytic import LayerGradient
from tinyleak.analytic.certificate import Certificates, certify
from tinyleak.analytic.deltas import Deltas
from tinyleak.client import Client, LocalSteps, share, simulate
from tinyleak.client.certificates import certify_images
from tinyleak.gradient import grad
from tinyleak.nn.losses import softmax
from tinyleak.nn.model import parameter_gradients
from tinyleak.nn.split import split

GLYPHS = data.load("glyphs")
BATCH, WRONG = 16, 10_000
CLIENTS = [
    (act, dtype)
    for act in ("sigmoid", "tanh", "softplus", "relu")
    for dtype in ("float64", "float32")
]


def draw(rng: np.random.Generator, count: int):
    images, labels = GLYPHS.batch(rng.choice(len(GLYPHS.labels), count, replace=False).tolist())
    return images, np.asarray(labels)


def layer_of(client: Client, name: str = "0") -> LayerGradient:
    weight, bias = client.gradients[f"{name}.weight"], client.gradients[f"{name}.bias"]
    return LayerGradient(weight, bias, client.batch, float(np.finfo(client.dtype).eps))


def ask(client: Client, images: np.ndarray, labels: np.ndarray, **known) -> Certificates:
    cut = split(client.model, client.params, "0.weight")
    return certify(layer_of(client), cut, images.reshape(len(images), -1), labels, **known)


def wrong_candidates(images: np.ndarray, labels: np.ndarray, others: np.ndarray, rng):
    """Mixtures of two and of all, other images, wrong labels, noise, near duplicates."""
    count = WRONG // 6 + 1
    i = rng.integers(0, len(images), count)
    j = (i + rng.integers(1, len(images), count)) % len(images)
    other = others[rng.integers(0, len(others), count)]
    few = 10.0 ** rng.uniform(-3.0, -0.31, (count, 1, 1, 1))
    shares = rng.dirichlet(np.ones(len(images)), count)
    kinds = [
        ((1 - few) * images[i] + few * images[j], labels[i]),
        (np.tensordot(shares, images, 1), labels[i]),
        (other, rng.integers(0, 10, count)),
        (images[i], (labels[i] + rng.integers(1, 10, count)) % 10),
        (images[i] + 1e-3 * rng.standard_normal(other.shape), labels[i]),
        ((1 - few) * images[i] + few * other, labels[i]),
    ]
    return (np.concatenate(part) for part in zip(*kinds, strict=True))


@pytest.mark.parametrize(("act", "dtype"), CLIENTS)
def test_none_of_ten_thousand_wrong_candidates_is_accepted_and_no_record_refused(
    act: str, dtype: str, rng: np.random.Generator
) -> None:
    images, labels = draw(rng, 400)
    client, truth = simulate(
        nn.MLP((1, 28, 28), 10, act, (100,)),
        images[:BATCH],
        labels[:BATCH],
        seed=7,
        dtype=dtype,
        init="default",
    )
    found = ask(client, truth.images, truth.labels)
    assert found.verdicts == (True,) * BATCH
    assert (found.copies == 1).all()
    wrong, guesses = wrong_candidates(truth.images, truth.labels, images[BATCH:], rng)
    assert len(wrong) >= WRONG
    assert True not in ask(client, wrong, guesses).verdicts


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_record_whose_loss_is_next_to_nothing_is_left_open_rather_than_refused(
    dtype: str, rng: np.random.Generator
) -> None:
    counts = {True: 0, False: 0, None: 0}
    for seed in range(10):
        images, labels = draw(rng, 16)
        client, _ = simulate(
            nn.MLP((1, 28, 28), 10, "relu", (100,)), images, labels, seed=seed, dtype=dtype
        )
        for verdict in ask(client, images, labels).verdicts:
            counts[verdict] += 1
    assert counts[False] == 0
    assert counts[True] >= 120


@pytest.mark.parametrize(("act", "seed"), [("gelu", 61), ("elu", 28), ("mish", 102)])
def test_a_records_share_that_is_lost_in_a_long_rows_rounding_refuses_none(
    act: str, seed: int
) -> None:
    """The first row's rounding is larger than what some record adds, and is no record itself."""
    images, labels = draw(np.random.default_rng(seed), 4)
    client, _ = simulate(nn.LeNet(activation=act), images, labels, seed=seed, dtype="float32")
    assert False not in certify_images(client, images, labels).verdicts


@pytest.mark.parametrize(("margin", "seed"), [(101.0, 0), (101.0, 1), (102.0, 2)])
def test_a_record_whose_gradient_underflows_is_not_refused(margin: float, seed: int) -> None:
    """The network is surer of it than float32 can say: below 1e-38 digits are lost."""
    images, labels = draw(np.random.default_rng(seed), 1)
    model = nn.MLP((1, 28, 28), 10, "sigmoid", (100,))
    params = model.init(np.random.default_rng(seed), "default")
    params["2.bias"][labels[0]] += margin
    client, _ = share(model, params, images, labels, dtype="float32")
    assert 0.0 < np.abs(client.gradients["2.bias"]).max() < 1e-42
    assert False not in certify_images(client, images, labels).verdicts


def test_where_the_loss_is_not_known_no_image_is_refused(rng: np.random.Generator) -> None:
    images, labels = draw(rng, 1)
    model = nn.LeNet()
    params = {name: Tensor(array) for name, array in model.init(rng).items()}
    loss = model(params, Tensor(images)) * Tensor(rng.standard_normal((1, 10)))
    shared = dict(zip(params, grad(loss.sum(), list(params.values())), strict=True))
    client = Client.of(model, params, shared, batch=1)
    assert client.premises.loss is None
    assert certify_images(client, images, labels).verdicts == (None,)


def test_where_the_loss_is_only_assumed_no_image_is_refused(rng: np.random.Generator) -> None:
    """Of a loss that weighs classes δ is the cross-entropy's, but for its length."""
    images, labels = draw(rng, 3)
    model, weights = nn.MLP(widths=(60,)), np.linspace(0.5, 2.0, 10)[labels]
    params = {name: Tensor(one) for name, one in model.init(rng, "default").items()}
    logs = ops.log(softmax(model(params, Tensor(images))))
    loss = -ops.sum(logs * Tensor(nn.one_hot(labels, 10) * weights[:, None])) / weights.sum()
    gradients = dict(zip(params, grad(loss, list(params.values())), strict=True))
    client = Client.of(model, params, gradients, batch=3)
    assert client.loss.fact.source == "assumed"
    assert False not in certify_images(client, images, labels).verdicts


def test_copies_are_counted_and_make_the_batch_complete(rng: np.random.Generator) -> None:
    images, labels = draw(rng, 7)
    order = [0, 1, 2, 2, 3, 3, 3, 4]
    client, _ = simulate(nn.MLP(widths=(60,)), images[order], labels[order], init="default")
    found = ask(client, images, labels)
    assert found.copies.tolist() == [1, 1, 2, 3, 1, 0, 0]
    assert found.verdicts == (*(True,) * 5, False, False)
    # Until all are found, those missing may be any.
    assert ask(client, images[3:], labels[3:]).verdicts == (True, True, None, None)


def test_noise_is_never_an_excuse_to_accept(rng: np.random.Generator) -> None:
    images, labels = draw(rng, 8)
    client, _ = simulate(nn.MLP(widths=(60,)), images, labels, init="default")
    for deviation in (1e-9, 1e-7, 1e-5):
        noisy = {
            n: g + deviation * rng.standard_normal(g.shape) for n, g in client.gradients.items()
        }
        client = Client(client.model, client.params, noisy, 8)
        wrong = np.concatenate(
            [images * 0.999, 0.999 * images + 0.001 * images[::-1], images[::-1]]
        )
        verdicts = ask(client, np.concatenate([images, wrong]), np.tile(labels, 4)).verdicts
        assert False not in verdicts[:8]
        assert True not in verdicts[8:24]


def test_an_unknown_factor_leaves_the_spaces_to_decide(rng: np.random.Generator) -> None:
    images, labels = draw(rng, 4)
    client, _ = simulate(nn.MLP(widths=(60,)), images, labels, init="default")
    tripled = {name: 3.0 * gradient for name, gradient in client.gradients.items()}
    client = Client(client.model, client.params, tripled, 4)
    assert True not in ask(client, images, labels).verdicts
    assert ask(client, images, labels, factor_known=False).verdicts == (True,) * 4
    assert True not in ask(client, images[::-1] * 0.99, labels, factor_known=False).verdicts


def test_under_a_relu_records_hold_each_other_and_one_alone_may_slide() -> None:
    """Of 12 records and 5 classes one slides 3.5 % away, with δ and the count as they should be."""
    images, labels = GLYPHS.batch(
        np.random.default_rng(0).choice(len(GLYPHS.labels), 12, replace=False).tolist()
    )
    labels = np.asarray(labels) % 5
    model = nn.MLP((1, 28, 28), 5, "relu", (100,))
    client, _ = simulate(model, images, labels, seed=3, init="default")
    layer, cut = layer_of(client), split(client.model, client.params, "0.weight")
    U, S, V = layer.decomposition
    U, S, V = U[:, :12], S[:12], V[:12]
    deltas, label = Deltas(cut), np.eye(5)[labels[[2]]]
    start = V @ np.append(images[2].ravel(), 1.0)
    inside = np.linalg.svd(V[:, -1:].T)[2][1:]  # where the last coordinate stays 1

    def input_at(t: np.ndarray) -> np.ndarray:
        return ((start + inside.T @ t) @ V)[:-1]

    def misfit(t: np.ndarray) -> np.ndarray:
        z = client.params["0.weight"] @ input_at(t) + client.params["0.bias"]
        delta = deltas.of(z[None], label)[0]
        count = 12 / ((start + inside.T @ t) / S @ (U.T @ delta))
        return np.append((delta - U @ (U.T @ delta)) / np.linalg.norm(delta), count - 1.0)

    step = np.random.default_rng(0).standard_normal(11)
    step *= 0.03 * np.linalg.norm(images[2]) / np.linalg.norm(inside.T @ step @ V)
    slid = input_at(least_squares(misfit, step, method="lm", xtol=1e-15, ftol=1e-15).x)
    assert np.linalg.norm(slid - images[2].ravel()) > 0.01 * np.linalg.norm(slid)
    assert certify(layer, cut, slid[None], labels[[2]]).verdicts == (True,)
    assert certify(layer, cut, slid[None], labels[[2]], together=True).verdicts == (None,)
    assert certify_images(client, slid.reshape(1, 1, 28, 28), labels[[2]]).verdicts == (None,)
    mixed = np.concatenate([slid[None], np.delete(images.reshape(12, -1), 2, axis=0)])
    others = np.append(labels[2], np.delete(labels, 2))
    assert True not in certify(layer, cut, mixed, others, together=True).verdicts[:1]
    assert certify_images(client, images, labels).verdicts == (True,) * 12


@pytest.mark.parametrize(
    ("towards_another", "apart", "copies_beside", "factor"),
    [(True, 0.01, False, 1.0), (False, 0.03, True, 1.0), (False, 0.02, False, 0.75)],
)
def test_the_mean_of_near_twins_is_no_record(
    towards_another: bool, apart: float, copies_beside: bool, factor: float
) -> None:
    """Twins that the rank hides, or shows beside copies of another, or whose factor is unknown."""
    rng = np.random.default_rng(3)
    images, labels = draw(rng, 8)
    aside = rng.standard_normal(images[0].shape)
    if towards_another:
        aside = images[2] - images[0]
    images[1] = images[0] + apart * np.linalg.norm(images[0]) / np.linalg.norm(aside) * aside
    labels[1] = labels[0]
    if copies_beside:
        images[7], labels[7] = images[6], labels[6]
    model = nn.MLP((1, 28, 28), 10, "sigmoid", (100,))
    client, _ = simulate(model, images, labels, dtype="float32", init="default")
    shared = {n: factor * g for n, g in client.gradients.items()}
    client = Client.of(model, client.params, shared, batch=8, dtype="float32")
    asked = np.concatenate([[images[:2].mean(axis=0)], images])
    known = {"factor_known": factor == 1.0, "together": True}
    found = ask(client, asked, np.append(labels[0], labels), **known)
    assert not found.certified[0]
    assert found.certified[3:].all()


@pytest.mark.parametrize(("act", "count", "classes"), [("softplus", 8, 1), ("relu", 40, 10)])
def test_copies_are_certified_where_noise_hides_their_count(
    act: str, count: int, classes: int, rng: np.random.Generator
) -> None:
    """The δ of one label are alike under softplus; of many images each adds little."""
    images, labels = draw(rng, count)
    labels %= classes
    twice = np.repeat(images, 2, axis=0), np.repeat(labels, 2)
    model = nn.MLP((1, 28, 28), 10, act, (200,))
    client, _ = simulate(model, *twice, dtype="float32", init="default")
    assert ask(client, images, labels).copies.tolist() == [2] * count


@pytest.mark.parametrize(("act", "seed"), [("sigmoid", 1), ("softplus", 4)])
def test_the_mean_of_three_that_are_partly_others_is_no_record(act: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images, labels = draw(rng, 8)
    for k in (1, 2):
        images[k] = images[0] + 0.007 * (images[k + 2] - images[0])
        labels[k] = labels[0]
    model = nn.MLP((1, 28, 28), 10, act, (100,))
    client, _ = simulate(model, images, labels, seed=seed, dtype="float32", init="default")
    mean = images[:3].mean(axis=0)
    assert np.square(images - mean).mean(axis=(1, 2, 3)).min() > 2e-6
    assert not ask(client, mean[None], labels[:1]).certified.any()


def test_what_agrees_on_a_factor_may_all_be_means() -> None:
    rng = np.random.default_rng(4)
    images, labels = draw(rng, 8)
    images[4:] = images[:4] + 2e-3 * rng.standard_normal(images[4:].shape)
    labels[4:] = labels[:4]
    client, _ = simulate(nn.MLP(widths=(100,)), images, labels, dtype="float32", init="default")
    means = 0.5 * (images[:4] + images[4:])
    for known in (True, False):
        assert not ask(client, means, labels[:4], factor_known=known, together=True).certified.any()


def test_soft_labels_are_taken_as_they_are(rng: np.random.Generator) -> None:
    images, labels = draw(rng, 3)
    soft = 0.9 * nn.one_hot(labels, 10) + 0.01
    model = nn.MLP(widths=(60,))
    params = model.init(rng, "default")
    tensors = {name: Tensor(array) for name, array in params.items()}
    shared = parameter_gradients(model, tensors, Tensor(images), Tensor(soft))
    client = Client(model, params, {name: g.data for name, g in shared.items()}, 3)
    assert ask(client, images, soft).verdicts == (True,) * 3
    assert ask(client, images, labels).verdicts == (False,) * 3


@pytest.mark.parametrize(
    ("model", "batch", "why"),
    [
        (nn.LeNet(), 6, "its 10 outputs tell 5 records apart at most, and it shows 6"),
        (nn.LeNet((1, 28, 28), 10), 12, "its 10 outputs tell 5 records apart at most"),
        (nn.MLP((1, 28, 28), 10, "tanh", (12,)), 8, "12 outputs tell 6 records apart at most"),
    ],
)
def test_what_a_layer_cannot_tell_is_said(model, batch: int, why: str, rng) -> None:
    images, labels = draw(rng, batch)
    client, _ = simulate(model, images, labels)
    found = certify_images(client, images, labels)
    assert found.verdicts == (None,) * batch
    assert found.why is not None
    assert why in found.why


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_images_of_a_lenet_are_certified_by_their_features(dtype: str, rng) -> None:
    images, labels = draw(rng, 30)
    client, _ = simulate(nn.LeNet(activation="tanh"), images[:4], labels[:4], dtype=dtype)
    found = certify_images(client, images, labels)
    assert found.verdicts == (*(True,) * 4, *(False,) * 26)
    assert repr(found) == "ImageCertificates(4 certified, 26 refused, 0 unknown)"
    assert repr(found.layers["fc.0.weight"]) == "Certificates(4 of 30 certified, 26 refused)"


def test_a_network_that_hardly_sees_its_image_certifies_none(rng) -> None:
    images, labels = draw(rng, 1)
    client, _ = simulate(nn.LeNet(), images, labels, dtype="float32", init="default", seed=3)
    assert client.batch == 1
    darker = images * (1.0 - 1e-3)
    assert True not in certify_images(client, darker, labels).verdicts


def test_several_local_steps_are_no_gradient(rng) -> None:
    images, labels = draw(rng, 2)
    client, _ = simulate(nn.MLP(), images, labels, local=LocalSteps(2, 0.1))
    found = certify_images(client, images, labels)
    assert found.verdicts == (None, None)
    assert found.why == "what several local steps changed is no gradient of one batch"


def test_bad_input_is_refused(rng) -> None:
    images, labels = draw(rng, 2)
    client, _ = share(nn.MLP(), nn.MLP().init(rng), images, labels)
    cut = split(client.model, client.params, "0.weight")
    with pytest.raises(ValueError, match=r"images of shape \(2, 784\) were given; .* needs \(M, 1"):
        certify_images(client, images.reshape(2, -1), labels)
    with pytest.raises(ValueError, match=r"inputs of shape \(2, 784\) and labels of shape \(1,\)"):
        ask(client, images, labels[:1])
    unknown = LayerGradient(client.gradients["0.weight"], client.gradients["0.bias"])
    with pytest.raises(ValueError, match="it must be known how many it has"):
        certify(unknown, cut, images.reshape(2, -1), labels)


@pytest.mark.parametrize(("widths", "shade"), [((40,), 0.0), ((1, 20), 0.5)])
def test_copies_that_leave_no_measure_of_themselves_are_not_claimed(widths, shade) -> None:
    """Black images, of which no share is small, and a layer whose only unit leaves no noise."""
    images = np.full((3, 1, 4, 4), shade)
    images[2] += 0.3 * (len(widths) == 1)
    client, _ = simulate(nn.MLP((1, 4, 4), 10, "sigmoid", widths), images, [3, 3, 3])
    verdicts = ask(client, images, np.array([3, 3, 3])).verdicts
    assert verdicts[:2] == (None, None)
