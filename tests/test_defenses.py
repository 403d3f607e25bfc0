"""Defences: what each does to a gradient, how it is written, and what an attacker can know."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinyleak.attacks import (
    ExtendedMatching,
    Matching,
    Settings,
    attack,
    total_variation,
)
from tinyleak.check import check_gradients
from tinyleak.client import Client, Truth, share, simulate
from tinyleak.data import load_glyphs
from tinyleak.defenses import (
    DEFENSES,
    DPSGD,
    FORMS,
    BFloat16,
    Clip,
    Defense,
    Float16,
    Gaussian,
    Int8,
    Int8Affine,
    Laplacian,
    Prune,
    PruneGlobal,
    knowledge,
    need_examples,
    parse,
    protect,
)
from tinyleak.gradient import grad
from tinyleak.nn import LeNet, one_hot
from tinyleak.tensor import Tensor

GLYPHS = load_glyphs(20)
SMALL = LeNet((1, 8, 8), classes=4, hidden=6)
"""Recovered in a tenth of the time."""

EXAMPLES = [
    *(Gaussian(1e-3), Laplacian(0.25), Float16(), BFloat16(), Int8(), Int8Affine()),
    *(Prune(0.2), PruneGlobal(0.5), Clip(1.0), DPSGD(1.0, 0.5)),
]


@pytest.fixture
def gradients(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "a.weight": rng.normal(size=(6, 5, 2)),
        "a.bias": 10 * rng.normal(size=6),
        "b.weight": 0.01 * rng.normal(size=(3, 7)),
    }


def flat(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([array.ravel() for array in arrays.values()])


def small_client(seed: int = 0, init: str = "uniform", **options) -> tuple[Client, Truth]:
    images = np.random.default_rng([seed, 9]).uniform(size=(1, 8, 8))[None]
    return simulate(SMALL, images, [seed % 4], seed=seed, init=init, **options)


# What each does.


@pytest.mark.parametrize("defense", EXAMPLES, ids=str)
def test_names_shapes_and_dtypes_stay_and_nothing_is_changed_in_place(defense, gradients, rng):
    for dtype in ("float64", "float32"):
        given_ = {name: g.astype(dtype) for name, g in gradients.items()}
        if defense.per_example:
            given_ = {name: np.stack([g, 2 * g]) for name, g in given_.items()}
        before = {name: g.copy() for name, g in given_.items()}
        shared = defense(given_, rng)
        assert list(shared) == list(gradients)
        for name, g in gradients.items():
            assert shared[name].shape == g.shape
            assert shared[name].dtype == dtype
            np.testing.assert_array_equal(given_[name], before[name])


@pytest.mark.parametrize("variance", [1e-4, 0.5])
@pytest.mark.parametrize(("kind", "kurtosis"), [(Gaussian, 3.0), (Laplacian, 6.0)])
def test_noise_has_the_variance_and_the_shape_of_its_kind(kind, kurtosis, variance):
    zeros = {"a": np.zeros((300, 400)), "b": np.zeros(120_000)}
    noise = kind(variance)(zeros, np.random.default_rng(1))
    for array in noise.values():
        assert np.mean(array) == pytest.approx(0, abs=0.02 * math.sqrt(variance))
        assert np.var(array) == pytest.approx(variance, rel=0.03)
        assert np.mean(array**4) / np.var(array) ** 2 == pytest.approx(kurtosis, rel=0.1)
    assert abs(np.corrcoef(noise["a"].ravel(), noise["b"])[0, 1]) < 0.02
    again = kind(variance)(zeros, np.random.default_rng(1))
    np.testing.assert_array_equal(again["a"], noise["a"])


AWKWARD = [
    *(0.0, -0.0, 1.0, -1.0, 1.00390625, 1.01171875, 1.005, 65504.0, 65519.9, 65520.0, 1e38),
    *(3.3895e38, 3.4e38, 1e-7, 6e-8, 2.9e-8, 1e-38, 1e-40, 1e-45, math.inf, -math.inf, math.nan),
]


@pytest.mark.parametrize(
    ("defense", "kind"), [(Float16(), torch.float16), (BFloat16(), torch.bfloat16)], ids=str
)
def test_half_precision_is_pytorchs(defense, kind, rng):
    bits = rng.integers(0, 2**32, 200_000, dtype=np.uint64).astype(np.uint32)
    # Numbers halfway between two: only then does "to even" matter.
    halves = (bits & np.uint32(0xFFFF0000)) | np.uint32(0x8000)
    with np.errstate(over="ignore"):
        awkward = np.array(AWKWARD, dtype=np.float32)
    numbers = np.concatenate([awkward, bits.view(np.float32), halves.view(np.float32)])
    shared = defense({"a": numbers}, rng)["a"]
    expected = torch.tensor(numbers).to(kind).to(torch.float32).numpy()
    np.testing.assert_array_equal(shared, expected)
    np.testing.assert_array_equal(np.signbit(shared[:2]), [False, True])


def test_int8_is_whole_multiples_of_a_127th_of_the_largest(gradients, rng):
    for name, shared in Int8()(gradients, rng).items():
        step = np.abs(gradients[name]).max() / 127
        whole = shared / step
        np.testing.assert_allclose(whole, np.rint(whole), atol=1e-9)
        assert np.abs(whole).max() == pytest.approx(127)
        assert np.abs(shared - gradients[name]).max() <= step / 2 * (1 + 1e-12)
    zero = {"a": np.zeros(3)}
    for defense in (Int8(), Int8Affine()):
        np.testing.assert_array_equal(defense(zero, rng)["a"], zero["a"])


def test_affine_int8_spends_its_256_levels_on_the_range_and_keeps_zero(rng):
    skewed = {"a": np.append(rng.uniform(-0.1, 3.0, 5000), 0.0)}
    shared = Int8Affine()(skewed, rng)["a"]
    step = (skewed["a"].max() - skewed["a"].min()) / 255
    assert shared[-1] == 0.0
    assert len(np.unique(shared)) <= 256
    assert np.abs(shared - skewed["a"]).max() <= step * (1 + 1e-9)
    assert np.abs(shared - skewed["a"]).mean() < 0.3 * step
    symmetric = Int8()(skewed, rng)["a"]
    assert np.var(shared - skewed["a"]) < 0.4 * np.var(symmetric - skewed["a"])
    positive = Int8Affine()({"a": np.array([1.0, 2.0])}, rng)["a"]
    np.testing.assert_allclose(positive, [1.0, 2.0], atol=2 / 255)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.29, 0.7, 1.0])
def test_pruning_drops_the_smallest_of_each_tensor(fraction, rng):
    gradients = {"a": rng.normal(size=(10, 10)), "b": 100 * rng.normal(size=50)}
    for name, shared in Prune(fraction)(gradients, rng).items():
        dropped = shared == 0
        assert dropped.sum() == round(fraction * shared.size)
        np.testing.assert_array_equal(shared[~dropped], gradients[name][~dropped])
        if 0 < fraction < 1:
            sizes = np.abs(gradients[name])
            assert sizes[dropped].max() <= sizes[~dropped].min()


def test_global_pruning_drops_the_smallest_of_all(rng):
    gradients = {"a": rng.normal(size=(10, 10)), "b": 100 * rng.normal(size=100)}
    shared = PruneGlobal(0.5)(gradients, rng)
    assert (flat(shared) == 0).sum() == 100
    assert (shared["a"] == 0).sum() > 90
    sizes, dropped = np.abs(flat(gradients)), flat(shared) == 0
    assert sizes[dropped].max() <= sizes[~dropped].min()


def test_clipping_bounds_the_norm_of_all_tensors_and_keeps_the_direction(gradients, rng):
    shared = Clip(1.5)(gradients, rng)
    assert np.linalg.norm(flat(shared)) == pytest.approx(1.5)
    np.testing.assert_allclose(
        flat(shared) / 1.5, flat(gradients) / np.linalg.norm(flat(gradients)), rtol=1e-12
    )
    for untouched in (gradients, {"a": np.zeros(3)}):
        shared = Clip(1e6)(untouched, rng)
        np.testing.assert_array_equal(flat(shared), flat(untouched))


def test_dp_sgd_clips_each_example_before_it_averages(rng):
    examples = {"a": rng.normal(size=(4, 3)), "b": rng.normal(size=(4, 2, 2))}
    examples["a"][0] *= 100
    shared = DPSGD(1.0, 0.0)(examples, rng)
    clipped = []
    for index in range(4):
        row = np.concatenate([examples["a"][index], examples["b"][index].ravel()])
        clipped.append(row * min(1.0, 1.0 / np.linalg.norm(row)))
    np.testing.assert_allclose(flat(shared), np.mean(clipped, axis=0), rtol=1e-12)
    late = Clip(1.0)({name: g.mean(axis=0) for name, g in examples.items()}, rng)
    assert np.abs(flat(shared) - flat(late)).max() > 0.01


def test_dp_sgd_adds_noise_in_proportion_to_its_norm_and_to_the_sum(rng):
    examples = {"a": np.zeros((8, 100_000))}
    shared = DPSGD(3.0, 0.5)(examples, rng)["a"]
    assert np.std(shared) == pytest.approx(0.5 * 3.0 / 8, rel=0.02)


def test_a_client_clips_its_examples_and_not_their_mean():
    model = LeNet((1, 8, 8), classes=4, hidden=3)
    rng = np.random.default_rng(0)
    params, images = model.init(rng), rng.uniform(size=(3, 1, 8, 8))
    labels = [0, 3, 1]
    alone = [share(model, params, images[i : i + 1], labels[i : i + 1])[0] for i in range(3)]
    stacked = {
        name: np.stack([one.gradients[name] for one in alone]) for name in alone[0].gradients
    }
    for norm in (0.5, 1e6):
        defense = DPSGD(norm, 0.0)
        client, _ = share(model, params, images, labels, defenses=[defense], rng=rng)
        np.testing.assert_allclose(flat(client.gradients), flat(defense(stacked, rng)), atol=1e-12)
    plain, _ = share(model, params, images, labels)
    np.testing.assert_allclose(flat(client.gradients), flat(plain.gradients), atol=1e-12)


def test_a_seed_decides_a_clients_noise_and_not_its_weights():
    defenses = [Gaussian(1e-4)]
    first, again, other = (small_client(seed, defenses=defenses)[0] for seed in (1, 1, 2))
    plain, _ = small_client(1)
    np.testing.assert_array_equal(flat(first.gradients), flat(again.gradients))
    np.testing.assert_array_equal(flat(first.params), flat(plain.params))
    noise = flat(first.gradients) - flat(plain.gradients)
    others = flat(other.gradients) - flat(small_client(2)[0].gradients)
    assert np.var(noise) == pytest.approx(1e-4, rel=0.1)
    assert abs(np.corrcoef(noise, others)[0, 1]) < 0.1
    assert abs(np.corrcoef(noise, flat(plain.params))[0, 1]) < 0.1


def test_a_client_with_defences_and_no_source_of_noise_is_refused():
    client, truth = small_client()
    with pytest.raises(ValueError, match="no rng was given; give one to share"):
        share(SMALL, client.params, truth.images, truth.labels, defenses=[Int8()])


# One after the other.


def test_defences_are_applied_in_order(gradients):
    def shared(*defenses: Defense) -> np.ndarray:
        return flat(protect(defenses, gradients, np.random.default_rng(0)))

    pruned_first = shared(Prune(0.5), Gaussian(1e-4))
    noisy_first = shared(Gaussian(1e-4), Prune(0.5))
    assert (pruned_first == 0).sum() == 0
    assert (noisy_first == 0).sum() == sum(g.size // 2 for g in gradients.values())
    np.testing.assert_array_equal(shared(), flat(gradients))


def test_per_example_defences_come_first(gradients, rng):
    assert need_examples([DPSGD(1.0, 0.5), Prune(0.1)])
    assert not need_examples([Prune(0.1)])
    assert not need_examples([])
    for call in (need_examples, lambda ds: protect(ds, gradients, rng)):
        with pytest.raises(ValueError, match=r"defence 'dpsgd:1.0,0.5' clips each .* come first"):
            call([Prune(0.1), DPSGD(1.0, 0.5)])


# How they are written.


def test_every_defence_has_a_form_and_every_form_a_defence():
    assert [form.partition(":")[0] for form in FORMS] == list(DEFENSES)
    for form, kind in zip(FORMS, DEFENSES.values(), strict=True):
        strengths = form.partition(":")[2]
        assert len(strengths.split(",") if strengths else []) == len(fields(kind))
    assert {type(example) for example in EXAMPLES} == set(DEFENSES.values())


@pytest.mark.parametrize(
    ("text", "defense"),
    [
        ("prune:0.2", Prune(0.2)),
        ("prune-global:0.2", PruneGlobal(0.2)),
        ("gaussian:1e-3", Gaussian(1e-3)),
        ("laplacian:1e-2", Laplacian(1e-2)),
        ("int8", Int8()),
        ("int8-affine", Int8Affine()),
        (" float16 ", Float16()),
        ("bfloat16", BFloat16()),
        ("clip:1.0", Clip(1.0)),
        ("dpsgd:1.0,0.5", DPSGD(1.0, 0.5)),
    ],
)
def test_defences_are_read_from_text(text, defense):
    assert parse(text) == defense
    assert parse(str(defense)) == defense


@given(st.floats(1e-300, 1e300), st.floats(0, 1e300), st.floats(0, 1))
def test_what_is_written_reads_the_same(positive, multiplier, fraction):
    for defense in (
        *(Gaussian(positive), Laplacian(positive), Clip(positive), DPSGD(positive, multiplier)),
        *(Prune(fraction), PruneGlobal(fraction)),
    ):
        assert parse(str(defense)) == defense
        assert type(parse(str(defense))) is type(defense)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fog:1", "defence 'fog:1' is unknown; choose from gaussian:VARIANCE, "),
        ("", "defence '' is unknown"),
        ("Int8", "is unknown"),
        ("prune", "defence 'prune' cannot be read; write it as prune:FRACTION"),
        ("prune:", "write it as prune:FRACTION"),
        ("prune:a", "write it as prune:FRACTION"),
        ("prune:0.1,0.2", "write it as prune:FRACTION"),
        ("int8:4", "defence 'int8:4' cannot be read; write it as int8$"),
        ("dpsgd:1.0", "write it as dpsgd:NORM,NOISE"),
        ("prune:1.5", r"defence 'prune:1.5' is out of range: the fraction must lie in \[0, 1\]"),
        ("prune-global:nan", "the fraction must lie"),
        ("gaussian:0", "the variance must be positive and finite, not 0.0"),
        ("laplacian:-1", "the variance must be positive"),
        ("clip:inf", "the norm must be positive and finite"),
        ("dpsgd:1,-1", "the noise multiplier must be finite and not negative, not -1.0"),
        ("dpsgd:0,1", "the norm must be positive"),
    ],
)
def test_text_that_is_no_defence_gets_one_clear_sentence(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


# What can be known.


def known(*defenses: Defense, shared: dict[str, np.ndarray], batch: int = 1):
    return knowledge(defenses, shared, batch)


def test_pruned_entries_have_no_precision_and_the_rest_full(gradients, rng):
    shared = Prune(0.4)(gradients, rng)
    precision = known(Prune(0.4), shared=shared).precision
    for name, g in shared.items():
        np.testing.assert_array_equal(precision[name], (g != 0).astype(float))


def test_precision_is_one_over_the_variance(gradients):
    for defense, variance in (
        (Gaussian(0.01), 0.01),
        (Laplacian(0.02), 0.02),
        (DPSGD(2.0, 0.5), (2.0 * 0.5 / 4) ** 2),
    ):
        precision = known(defense, shared=gradients, batch=4).precision
        for name, g in gradients.items():
            np.testing.assert_allclose(precision[name], np.full(g.shape, 1 / variance))


def test_variances_of_several_defences_add_up(gradients, rng):
    shared = protect([Gaussian(0.01), Prune(0.4)], gradients, rng)
    found = known(Gaussian(0.01), Gaussian(0.03), Prune(0.4), shared=shared)
    for name, g in shared.items():
        np.testing.assert_allclose(found.precision[name], np.where(g == 0, 0.0, 1 / 0.04))


@pytest.mark.parametrize("defense", [Float16(), BFloat16(), Int8(), Int8Affine()], ids=str)
def test_the_variance_of_rounding_is_what_an_attacker_expects(defense):
    rng = np.random.default_rng(4)
    true = {"big": 50 * rng.normal(size=40_000), "small": 1e-2 * rng.normal(size=40_000)}
    shared = defense(true, rng)
    expected = defense.variance(shared, 1)
    for name, numbers in true.items():
        measured = np.mean((shared[name] - numbers) ** 2)
        assert np.mean(expected[name]) == pytest.approx(measured, rel=0.1)
        # Entry by entry: no error is larger than half a step, √3 standard deviations.
        kept = shared[name] != 0
        errors = np.abs(shared[name] - numbers)[kept]
        assert (errors <= 1.001 * np.sqrt(3 * expected[name][kept])).mean() > 0.99


def test_precision_spans_a_bounded_range_within_a_rounded_tensor(rng):
    shared = BFloat16()({"a": np.array([1.0, 1e-20, 0.0, 0.5])}, rng)
    precision = known(BFloat16(), shared=shared).precision["a"]
    assert np.isfinite(precision).all()
    assert precision.max() / precision.min() < 100


def test_a_tensor_without_any_noise_is_as_precise_as_the_best_of_the_others(rng):
    shared = Int8()({"a": np.array([1.0, 0.3]), "b": np.zeros(2), "c": np.array([5.0])}, rng)
    precision = known(Int8(), shared=shared).precision
    assert np.isfinite(precision["b"]).all()
    assert precision["b"].min() >= precision["a"].max() > precision["c"].max()


def test_only_clipping_hides_the_scale(gradients):
    for defense in EXAMPLES:
        found = known(defense, shared=gradients)
        assert found.direction == isinstance(defense, Clip | DPSGD)
    assert known(Prune(0.1), Clip(1.0), shared=gradients).direction
    for defenses in ([], [Clip(1.0)]):
        found = knowledge(defenses, gradients)
        assert (found.precision, found.direction) == (None, bool(defenses))


# What the objective makes of it.


def objective(client: Client, truth: Truth, shared, **options) -> Matching:
    kind = ExtendedMatching if {"direction", "smoothness"} & set(options) else Matching
    targets = one_hot(truth.labels, SMALL.classes)
    return kind(SMALL, client.params, shared, 1, np.array(1.0), targets, **options)


def test_precision_weighs_the_entries_of_the_distance(rng):
    client, truth = small_client()
    precision = {name: rng.uniform(0, 2, g.shape) for name, g in client.gradients.items()}
    other, others = share(SMALL, client.params, rng.uniform(size=(1, 1, 8, 8)), truth.labels)
    matching = objective(client, truth, client.gradients, precision=precision)
    found = float(matching.distances(Tensor(others.images.ravel())))
    difference = flat(other.gradients) - flat(client.gradients)
    assert found == pytest.approx(np.sum(flat(precision) * difference**2), rel=1e-10)


def test_a_direction_is_matched_whatever_the_length(rng):
    client, truth = small_client()
    precision = {name: rng.uniform(0.1, 2, g.shape) for name, g in client.gradients.items()}
    shorter = {name: 0.01 * g for name, g in client.gradients.items()}
    z = Tensor(rng.uniform(size=64))
    for options in ({}, {"precision": precision}):
        short, full = (
            objective(client, truth, g, direction=True, **options)
            for g in (shorter, client.gradients)
        )
        assert float(short.distances(Tensor(truth.images.ravel()))) < 1e-25
        near, far = float(short.distances(z)), float(full.distances(z))
        assert far == pytest.approx(1e4 * near, rel=1e-9)


def test_total_variation_is_the_sum_of_the_slopes(rng):
    images = rng.uniform(size=(3, 2, 1, 5, 4))
    down = images[..., 1:, :-1] - images[..., :-1, :-1]
    across = images[..., :-1, 1:] - images[..., :-1, :-1]
    expected = np.hypot(down, across).sum(axis=(1, 2, 3, 4))
    np.testing.assert_allclose(total_variation(Tensor(images)).numpy(), expected, rtol=1e-4)
    flat_image = total_variation(Tensor(np.full((1, 1, 3, 3), 0.5)))
    assert float(flat_image) == pytest.approx(4e-3, rel=1e-6)


@pytest.mark.parametrize(
    "options", [{"smoothness": 0.3}, {"direction": True}, {"direction": True, "smoothness": 0.3}]
)
def test_every_form_of_the_objective_has_the_right_gradient(options, rng):
    client, truth = small_client()
    precision = {name: rng.uniform(0, 2, g.shape) for name, g in client.gradients.items()}
    matching = objective(client, truth, client.gradients, precision=precision, **options)
    z = Tensor(rng.uniform(size=(2, 64)))
    check_gradients(matching.distances, [z], order=1)
    # What the attack descends along is worked out from cotangents of its own.
    distances, slopes = matching.value_and_gradient(z)
    (expected,) = grad(matching.distances(z), [z], Tensor(np.ones(2)))
    np.testing.assert_allclose(distances.data, matching.distances(z).data, rtol=1e-12)
    np.testing.assert_allclose(slopes.data, expected.data, rtol=1e-9, atol=1e-12)


def test_smoothness_is_added_with_the_weight_of_the_distance(rng):
    client, truth = small_client()
    z = Tensor(rng.uniform(size=64))
    plain = objective(client, truth, client.gradients)
    smooth = objective(client, truth, client.gradients, smoothness=0.3)
    rough = float(total_variation(smooth.images(z)))
    expected = float(plain.distances(z)) + 0.6 * rough
    assert float(smooth.distances(z)) == pytest.approx(expected, rel=1e-12)


# What the attack makes of it.


def error(client: Client, truth: Truth, **knowledge) -> float:
    """Return the attack's mean squared error, with the labels known so that it is quick."""
    settings = knowledge.pop("settings", Settings(iterations=500))
    found = attack(client, labels=truth.labels.tolist(), settings=settings, **knowledge)
    return float(truth.judge(found).mse[0])


def compare(text: str, init: str) -> tuple[float, float]:
    defenses = [parse(text)]
    client, truth = small_client(1, init, defenses=defenses)
    return error(client, truth), error(client, truth, defenses=defenses)


@pytest.mark.parametrize("init", ["uniform", "default"])
@pytest.mark.parametrize("text", ["prune:0.6", "prune-global:0.6"])
def test_pruning_stops_only_an_attacker_who_does_not_know_of_it(text, init):
    naive, aware = compare(text, init)
    assert naive > 0.02
    assert aware < 1e-4


def test_clipping_stops_only_an_attacker_who_does_not_know_of_it():
    for init in ("uniform", "default"):
        naive, aware = compare("clip:0.3", init)
        assert naive > 0.02
        assert aware < 1e-6


def test_int8_hardly_hurts_an_attacker_who_weighs_tensors_by_their_steps():
    naive, aware = compare("int8", "default")
    assert aware < naive / 10
    assert aware < 3e-3


def test_bfloat16_hardly_hurts_an_attacker_who_weighs_entries_by_their_places():
    naive, aware = compare("bfloat16", "default")
    assert aware < naive / 10
    assert aware < 1e-3


def test_smoothness_reads_a_digit_through_noise_that_stops_the_plain_attack():
    defenses = [parse("gaussian:1e-2")]
    client, truth = simulate(LeNet(), *GLYPHS.batch([3]), defenses=defenses)
    plain, smooth = (
        error(client, truth, defenses=defenses, settings=Settings(iterations=200, smoothness=beta))
        for beta in (0.0, 3.0)
    )
    assert plain > 0.5
    assert smooth < 0.05


# Bad requests.


def test_a_negative_precision_or_smoothness_is_refused():
    client, _ = small_client()
    precision = {name: -np.ones(g.shape) for name, g in client.gradients.items()}
    with pytest.raises(ValueError, match="a precision is negative; give 0 or more"):
        attack(client, precision=precision)
    with pytest.raises(ValueError, match="the precisions do not fit"):
        attack(client, precision={})
    nothing = {name: np.zeros(g.shape) for name, g in client.gradients.items()}
    with pytest.raises(ValueError, match="or has no precision"):
        attack(client, precision=nothing)
    for smoothness in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="a smoothness of .* give 0 or more"):
            Settings(smoothness=smoothness)


@pytest.mark.parametrize(
    "text", ["gaussian:1e-3", "float16", "bfloat16", "int8", "prune:0.5", "clip:1"]
)
def test_pytorchs_gradients_can_be_protected(text: str) -> None:
    gradients = {"weight": np.arange(6.0).reshape(2, 3) / 3}
    tensors = {name: torch.tensor(gradient) for name, gradient in gradients.items()}
    defenses = [parse(text)]
    ours, theirs = (
        protect(defenses, one, np.random.default_rng(0)) for one in (gradients, tensors)
    )
    np.testing.assert_array_equal(ours["weight"], theirs["weight"])
    known = knowledge(defenses, {"weight": torch.tensor(theirs["weight"])})
    assert known.direction == (text == "clip:1")
