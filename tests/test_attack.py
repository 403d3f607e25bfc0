"""The attack: its objective and path beside PyTorch's, what it recovers, and what it reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pytest
import strict_cupy
import torch
from torch.nn import functional

from tinyleak import ops
from tinyleak.attacks import (
    Attacker,
    Matching,
    Progress,
    Reconstruction,
    Settings,
    attack,
    attack_many,
    dlg,
    many,
    problem,
    recorder,
    starting_point,
)
from tinyleak.attacks import stacked as stacking
from tinyleak.attacks.recorder import Snapshots
from tinyleak.attacks.stacked import Evaluator
from tinyleak.client import Client, LocalSteps, Truth, share, simulate
from tinyleak.data import load_glyphs
from tinyleak.defenses import Prune
from tinyleak.metrics import match_batch, mse
from tinyleak.nn import MLP, LeNet, linear, one_hot
from tinyleak.nn.model import parameter_gradients
from tinyleak.optim import State, lbfgs_many
from tinyleak.optim.quasi_newton import lbfgs
from tinyleak.tensor import Tensor

LENET = LeNet()
SMALL = LeNet((1, 8, 8), classes=4, hidden=6)
"""Recovered in a tenth of the time."""


def digits(*indices: int) -> tuple[np.ndarray, np.ndarray]:
    return load_glyphs(10).batch(indices)


def client(
    images: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    *,
    model: Any = LENET,
    seed: int = 0,
    scheme: str = "uniform",
    scale: float = 1.0,
) -> tuple[Client, Truth]:
    params = model.init(np.random.default_rng(seed), scheme)
    weights = {name: scale * array for name, array in params.items()}
    return share(model, weights, images, labels)


def small_client(batch: int = 1, seed: int = 0, **changes: Any) -> tuple[Client, Truth]:
    rng = np.random.default_rng(100 + seed)
    images, labels = rng.random((batch, 1, 8, 8)), rng.permutation(4)[:batch]
    return client(images, labels, model=SMALL, seed=seed, **changes)


def assert_close(found: Any, expected: Any, tolerance: float) -> None:
    """Equal up to `tolerance` of the largest number expected."""
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


def assert_same_attack(one: Reconstruction, other: Reconstruction) -> None:
    """Equal in everything but the time it took, to the last bit."""
    for part in fields(Reconstruction):
        mine, theirs = getattr(one, part.name), getattr(other, part.name)
        if part.name == "snapshots":
            for a, b in zip(mine, theirs, strict=True):
                assert (a.iteration, a.distance) == (b.iteration, b.distance)
                np.testing.assert_array_equal(a.images, b.images)
        elif part.name != "seconds":
            np.testing.assert_array_equal(mine, theirs, err_msg=part.name)


@dataclass
class Record:
    """What the optimiser was asked for, what it evaluated, and where it was.

    `waits` tells how often the host had waited for the stand-in's device before an evaluation.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    rows: list[np.ndarray] = field(default_factory=list)
    waits: list[int] = field(default_factory=list)
    states: list[State] = field(default_factory=list)

    def path(self, problem: int, length: int = 21) -> tuple[list[float], list[np.ndarray]]:
        """The first values and iterates of one problem, the start included."""
        values: list[float] = []
        iterates: list[np.ndarray] = []
        for state in self.states:
            if state.iterations[problem] == len(values) < length:
                values.append(float(state.values[problem]))
                iterates.append(state.x[problem])
        return values, iterates


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Record:
    record = Record()

    def count(rows: np.ndarray) -> None:
        record.rows.append(rows.copy())
        record.waits.append(strict_cupy.traffic["to_host"] + strict_cupy.traffic["synchronize"])

    def watch_many(objective: Any, starts: np.ndarray, **settings: Any) -> Iterator[State]:
        def counted(x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            count(rows)
            return objective(x, rows)

        record.settings = settings
        for state in lbfgs_many(counted, starts, **settings):
            record.states.append(state)
            yield state

    def watch_one(objective: Any, start: np.ndarray, **settings: Any) -> Iterator[Any]:
        def counted(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            count(np.zeros(1, int))
            return objective(x)

        record.settings = settings
        for iterate in lbfgs(counted, start, **settings):
            record.states.append(as_state(iterate))
            yield iterate

    monkeypatch.setattr(dlg, "lbfgs", watch_one)
    monkeypatch.setattr(many, "lbfgs_many", watch_many)
    return record


def as_state(iterate: Any) -> State:
    """One problem's iterate as the state of a batch of one."""
    return State(
        x=iterate.x[None],
        values=np.array([iterate.value]),
        gradient_norms=np.array([iterate.gradient_norm]),
        iterations=np.array([iterate.iterations]),
        evaluations=np.array([iterate.evaluations]),
        finished=np.array([iterate.reason is not None]),
        reasons=(iterate.reason,),
    )


# The objective and the path, beside PyTorch's.


class TorchObjective:
    """The distance between gradients, in PyTorch and in float64, with double backward."""

    def __init__(
        self, squash: str, params: Mapping[str, np.ndarray], shared: Mapping[str, np.ndarray]
    ) -> None:
        self.squash = getattr(torch, squash)
        self.params = {k: torch.tensor(v, requires_grad=True) for k, v in params.items()}
        self.shared = {k: torch.tensor(v) for k, v in shared.items()}

    def parameter_gradients(
        self, images: torch.Tensor, targets: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        p, x = self.params, images
        for layer, stride in enumerate((2, 2, 1)):
            weight, bias = p[f"body.{2 * layer}.weight"], p[f"body.{2 * layer}.bias"]
            x = self.squash(functional.conv2d(x, weight, bias, stride=stride, padding=2))
        logits = functional.linear(x.flatten(1), p["fc.0.weight"], p["fc.0.bias"])
        loss = -(targets * functional.log_softmax(logits, -1)).sum(-1).mean()
        found = torch.autograd.grad(loss, list(p.values()), create_graph=True)
        return dict(zip(p, found, strict=True))

    def distance(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        found = self.parameter_gradients(images, targets)
        return sum(((found[k] - self.shared[k]) ** 2).sum() for k in self.shared)


def one_attack(
    squash: str, batch: int, *, known: bool = False
) -> tuple[Matching, TorchObjective, np.ndarray]:
    """The objective of an attack on as many digits, PyTorch's, and dummies (n,)."""
    model = LeNet(activation=squash)
    images, labels = digits(*range(batch))
    victim, truth = client(images, labels, model=model, seed=batch)
    targets = one_hot(labels, 10) if known else None
    matching = Matching(
        model, victim.params, victim.gradients, batch, np.array(1.0), targets=targets
    )
    (z,) = starting_point(model, batch, seed=1, with_labels=not known)
    return matching, TorchObjective(squash, victim.params, victim.gradients), z


@pytest.mark.parametrize("known", [False, True], ids=["free labels", "known labels"])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("squash", ["sigmoid", "tanh"])
def test_the_objective_and_its_gradients_are_pytorchs(squash: str, batch: int, known: bool) -> None:
    matching, reference, z = one_attack(squash, batch, known=known)
    pixels = batch * 784
    images = torch.tensor(z[:pixels].reshape(batch, 1, 28, 28), requires_grad=True)
    logits = torch.tensor(z[pixels:].reshape(-1, 10), requires_grad=True)
    targets = torch.tensor(matching.targets) if known else torch.softmax(logits, -1)
    expected = reference.distance(images, targets)
    expected.backward()

    for compiled in (True, False):
        value, gradient = dlg.objective(matching, compiled=compiled)(z)
        assert_close(value, expected.item(), 1e-9)
        assert_close(gradient[:pixels], images.grad.numpy().ravel(), 1e-9)
        if not known:
            assert_close(gradient[pixels:], logits.grad.numpy().ravel(), 1e-9)
    values, gradients = Evaluator(matching)(z[None], np.arange(1))
    assert_close(values[0], value, 1e-12)
    assert_close(gradients[0], gradient, 1e-12)

    dummies = Tensor(z)
    params = {name: Tensor(array) for name, array in matching.params.items()}
    ours = parameter_gradients(
        matching.model, params, matching.images(dummies), matching.labels(dummies)
    )
    theirs = reference.parameter_gradients(images, targets)
    assert list(ours) == list(theirs)
    for name, slope in ours.items():
        assert_close(slope.numpy(), theirs[name].detach().numpy(), 1e-9)


def test_the_scale_is_that_of_its_own_attack() -> None:
    matching, _, z = one_attack("sigmoid", 1)
    plain = matching.distances(Tensor(z)).numpy()
    scale = np.array([1.0, 0.5])
    shared = {
        name: np.stack([factor * gradient for factor in scale])
        for name, gradient in matching.shared.items()
    }
    scaled = replace(matching, scale=scale, shared=shared)
    both = scaled.distances(Tensor(np.stack([z, z]))).numpy()
    np.testing.assert_allclose(both, [plain, 0.25 * plain])


def test_two_iterations_of_twenty_are_pytorchs(record: Record) -> None:
    images, labels = digits(3)
    victim, truth = client(images, labels, seed=1)
    settings = Settings(
        iterations=2, line_search="none", scale_free=False, dtype="float64", goal=-np.inf
    )
    found = attack(victim, seed=5, settings=settings)
    ours, iterates = record.path(0)

    reference = TorchObjective("sigmoid", victim.params, victim.gradients)
    z = torch.tensor(starting_point(LENET, 1, seed=5)[0], requires_grad=True)
    optimiser = torch.optim.LBFGS([z])
    path: list[tuple[float, np.ndarray]] = []

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        image, logits = z[:784].reshape(1, 1, 28, 28), z[784:].reshape(1, 10)
        distance = reference.distance(image, torch.softmax(logits, -1))
        distance.backward()
        path.append((distance.item(), z.detach().numpy().copy()))
        return distance

    # An outer step is 20 iterations; it evaluates its first point, and never its last.
    optimiser.step(closure)
    assert len(path) == 20
    optimiser.step(closure)
    assert len(ours) == 21
    for value, x, (distance, point) in zip(ours, iterates, path[:21], strict=True):
        assert value == pytest.approx(distance, rel=1e-6)
        assert_close(x, point, 1e-6)
    assert found.distances[:21] == ours
    np.testing.assert_array_equal(found.snapshots[20].images.ravel(), iterates[20][:784])
    assert found.iterations == 40


# What it recovers.


def assert_recovered(found: Reconstruction, truth: Truth, tolerance: float = 1e-6) -> None:
    order = match_batch(found.images, truth.images)
    assert mse(found.images[order], truth.images).max() < tolerance
    assert found.labels[order].tolist() == truth.labels.tolist()


@pytest.mark.parametrize("scheme", ["uniform", "default"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_digit_comes_back(seed: int, scheme: str) -> None:
    victim, truth = client(*digits(2 + 3 * seed), seed=seed, scheme=scheme)
    found = attack(victim, seed=seed)
    assert_recovered(found, truth)
    assert found.reason == "converged"
    assert found.distance <= Settings().near_enough
    assert found.distances[-1] == found.distance
    assert len(found.distances) == found.iterations + 1
    assert found.soft_labels.shape == (1, 10)
    assert found.soft_labels.sum() == pytest.approx(1)
    assert found.soft_labels[0, truth.labels[0]] > 0.99
    assert found.seconds > 0


def test_two_different_digits_come_back_in_either_order() -> None:
    victim, truth = client(*digits(3, 7), scheme="default")
    found = attack(victim, seed=1)
    assert_recovered(found, truth)


def test_known_labels_are_kept() -> None:
    victim, truth = client(*digits(4), scheme="default")
    known = attack(victim, labels=[4])
    assert_recovered(known, truth)
    np.testing.assert_array_equal(known.soft_labels, one_hot(np.array([4]), 10))
    # With the wrong label there is nothing to be found.
    wrong = attack(victim, labels=[5], settings=Settings(100))
    assert wrong.labels.tolist() == [5]
    assert mse(wrong.images, truth.images)[0] > 1e-2
    assert wrong.distance > 1e-2


def test_known_labels_stand_in_the_order_of_the_images() -> None:
    victim, truth = small_client(batch=2)
    found = attack(victim, labels=truth.labels)
    np.testing.assert_array_equal(found.labels, truth.labels)
    assert mse(found.images, truth.images).max() < 1e-6


@pytest.mark.parametrize("squash", ["tanh", "softplus"])
def test_other_smooth_activations_leak_too(squash: str) -> None:
    model = LeNet((1, 8, 8), classes=4, hidden=6, activation=squash)
    images = np.random.default_rng(1).random((1, 1, 8, 8))
    victim, truth = client(images, [2], model=model, scheme="default")
    assert_recovered(attack(victim), truth)


def test_an_mlp_leaks_too() -> None:
    model = MLP((1, 8, 8), classes=4, widths=(16,))
    images = np.random.default_rng(1).random((1, 1, 8, 8))
    victim, truth = client(images, [3], model=model)
    assert_recovered(attack(victim), truth)


@dataclass(frozen=True)
class OwnModel:
    """A model of the reader's own: all that the attack needs of one."""

    image_shape: tuple[int, int, int] = (1, 4, 4)
    classes: int = 3

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"in": (8, 16), "shift": (8,), "out": (3, 8)}

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        rows = ops.reshape(x, (*x.shape[:-3], 16))
        hidden = ops.sigmoid(linear(rows, params["in"], params["shift"]))
        return linear(hidden, params["out"])


def test_a_model_of_ones_own_can_be_attacked() -> None:
    model, rng = OwnModel(), np.random.default_rng(2)
    params = {name: rng.uniform(-0.5, 0.5, shape) for name, shape in model.shapes.items()}
    victim, truth = share(model, params, rng.random((1, 1, 4, 4)), [1])
    assert_recovered(attack(model, params, victim.gradients), truth)


def test_gradients_of_another_precision_and_order_are_taken() -> None:
    victim, truth = small_client()
    shared = {k: victim.gradients[k].astype("float32") for k in reversed(victim.gradients)}
    found = attack(SMALL, victim.params, shared)
    assert_recovered(found, truth)


# One seed, one attack.


def test_one_seed_is_one_attack() -> None:
    victim, truth = small_client()
    settings = Settings(30)
    one, again, other = (attack(victim, seed=seed, settings=settings) for seed in (3, 3, 4))
    assert_same_attack(one, again)
    assert not np.array_equal(one.images, other.images)


def test_the_start_is_standard_normal_noise(record: Record) -> None:
    rows = starting_point(LENET, 8, seed=2, restarts=3)
    assert rows.shape == (3, 8 * 794)
    assert abs(rows.mean()) < 0.03
    assert rows.std() == pytest.approx(1, abs=0.03)
    assert starting_point(LENET, 8, seed=2, with_labels=False).shape == (1, 8 * 784)

    victim, truth = small_client()
    attack(victim, seed=2, settings=Settings(0))
    np.testing.assert_array_equal(record.states[0].x, starting_point(SMALL, 1, seed=2))


def test_a_seed_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="seed -1 was given; seeds are whole numbers from 0 on"):
        starting_point(SMALL, 1, seed=-1)


def test_the_engine_run_eagerly_walks_the_same_path(record: Record) -> None:
    victim, truth = small_client(batch=2)
    paths = []
    for compiled in (True, False):
        record.states.clear()
        settings = Settings(20, compiled=compiled)
        attack(victim, settings=settings)
        paths.append(record.path(0))
    (values, iterates), (eager_values, eager_iterates) = paths
    assert len(values) == 21
    np.testing.assert_allclose(values, eager_values, rtol=1e-9)
    for mine, theirs in zip(iterates, eager_iterates, strict=True):
        assert_close(mine, theirs, 1e-9)


# Restarts.


def start_alone(monkeypatch: pytest.MonkeyPatch, rows: np.ndarray) -> None:
    """Let an attack start at these rows, whatever its seed."""
    monkeypatch.setattr(problem, "starting_point", lambda *args, **kwargs: rows)


def test_the_first_restart_is_the_single_run() -> None:
    for known in (False, True):
        single = starting_point(SMALL, 2, seed=7, with_labels=not known)
        several = starting_point(SMALL, 2, seed=7, restarts=3, with_labels=not known)
        np.testing.assert_array_equal(several[:1], single)
        assert len({row.tobytes() for row in several}) == 3


def test_restarts_run_as_each_would_alone(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    victim, truth = small_client(batch=2, seed=3)
    together = attack(victim, seed=6, restarts=3)
    paths = [record.path(restart) for restart in range(3)]
    ends = record.states[-1].values

    # The nearest is returned, and what it cost is what all of them cost.
    assert together.distance == ends.min()
    assert together.evaluations == record.states[-1].evaluations.sum()
    assert_recovered(together, truth)

    rows = starting_point(SMALL, 2, seed=6, restarts=3)
    for restart in range(3):
        record.states.clear()
        start_alone(monkeypatch, rows[restart : restart + 1])
        alone = attack(victim)
        values, iterates = record.path(0)
        np.testing.assert_allclose(paths[restart][0], values, rtol=1e-9)
        for mine, theirs in zip(paths[restart][1], iterates, strict=True):
            assert_close(mine, theirs, 1e-9)
        assert alone.reason == "converged"
        assert ends[restart] <= Settings().near_enough


def test_a_start_that_is_not_finite_does_not_win(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = starting_point(SMALL, 1, seed=0, restarts=3)
    rows[0] = np.nan
    start_alone(monkeypatch, rows)
    victim, truth = small_client()
    seen: list[float] = []
    found = attack(
        victim,
        restarts=3,
        on_progress=lambda progress: seen.append(progress.distance),
    )
    assert_recovered(found, truth)
    assert found.reason == "converged"
    assert np.isfinite(seen).all()


# Many clients at once.


def test_many_clients_are_attacked_as_each_would_be_alone(record: Record) -> None:
    pairs = [client(*digits(k), seed=k, scheme="default") for k in range(3)]
    together = attack_many([client for client, _ in pairs], seeds=[5, 6, 7])
    paths = [record.path(problem) for problem in range(3)]
    for k, ((victim, truth), found) in enumerate(zip(pairs, together, strict=True)):
        assert_recovered(found, truth)
        assert found.reason == "converged"
        assert found.snapshots == []
        record.states.clear()
        settings = Settings(20)
        attack(victim, seed=5 + k, settings=settings)
        values, iterates = record.path(0)
        np.testing.assert_allclose(paths[k][0], values, rtol=1e-9)
        assert found.distances[:21] == paths[k][0]
        for mine, theirs in zip(paths[k][1], iterates, strict=True):
            assert_close(mine, theirs, 1e-9)


def test_restarts_of_many_clients_belong_to_them(record: Record) -> None:
    pairs = [small_client(seed=k) for k in range(3)]
    clients, labels = [client for client, _ in pairs], [truth.labels for _, truth in pairs]
    for known in (None, labels):
        together = attack_many(clients, restarts=2, labels=known)
        ends = record.states[-1]
        assert ends.values.shape == (6,)
        for k, ((_, truth), found) in enumerate(zip(pairs, together, strict=True)):
            assert_recovered(found, truth)
            assert found.distance == ends.values[2 * k : 2 * k + 2].min()
            assert found.evaluations == ends.evaluations[2 * k : 2 * k + 2].sum()
            expected = starting_point(SMALL, 1, seed=k, restarts=2, with_labels=known is None)
            np.testing.assert_array_equal(record.states[0].x[2 * k : 2 * k + 2], expected)
        record.states.clear()


def test_finished_clients_leave_the_batch(record: Record) -> None:
    found = attack_many([small_client(seed=k)[0] for k in range(6)])
    counts = [len(rows) for rows in record.rows]
    assert counts[0] == 6
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] <= 3
    assert sum(counts) < 6 * len(counts)
    # What is evaluated at the end is what ends last.
    slowest = int(np.argmax([one.evaluations for one in found]))
    assert slowest in record.rows[-1]
    assert len(counts) == found[slowest].evaluations


@pytest.mark.parametrize("cache_bytes", [1, 40_000, 10**9])
@pytest.mark.parametrize("stacked", [False, True], ids=["common weights", "stacked weights"])
def test_slices_that_fit_the_cache_give_the_same(
    stacked: bool, cache_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    victims = [small_client(seed=k)[0] for k in range(5)]

    def stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(arrays) if stacked else arrays[0]

    evaluator = Evaluator(
        Matching(
            SMALL,
            {name: stack([v.params[name] for v in victims]) for name in SMALL.shapes},
            {name: stack([v.gradients[name] for v in victims]) for name in SMALL.shapes},
            1,
            stack([np.array(0.5 + k) for k in range(5)]),
        )
    )
    sizes: list[int] = []
    trace = stacking.trace

    def watched(function: Any, z: np.ndarray, **settings: Any) -> Any:
        sizes.append(len(z))
        return trace(function, z, **settings)

    monkeypatch.setattr(stacking, "trace", watched)
    monkeypatch.setattr(stacking, "CACHE_BYTES", cache_bytes)
    rows = np.array([4, 0, 2, 3, 1])
    for seed in range(2):
        z = starting_point(SMALL, 1, seed, restarts=5)
        values, gradients = evaluator(z, rows)
        matching = evaluator.pick(rows)
        expected, slopes = matching.value_and_gradient(Tensor(z))
        np.testing.assert_allclose(values, expected.numpy(), rtol=1e-12)
        assert_close(gradients, slopes.numpy(), 1e-12)
    program = sizes[1:]  # the first is traced to see how much memory one attack takes
    assert max(program) == {1: 1, 40_000: max(program), 10**9: 5}[cache_bytes]
    # Each program is traced once; with common weights one serves all slices of its size.
    assert sum(program) == 5 if stacked else len(program) == len(set(program))


# How it ends.


def test_it_stops_after_the_iterations_it_was_given() -> None:
    victim, truth = small_client()
    found = attack(victim, settings=Settings(3))
    assert found.reason == "out of iterations"
    assert found.iterations == 3
    assert len(found.distances) == 4
    assert found.distances == sorted(found.distances, reverse=True)


def test_no_iterations_give_the_start_back() -> None:
    victim, truth = small_client()
    for settings in (Settings(0), Settings.paper(iterations=0)):
        found = attack(victim, seed=8, settings=settings)
        start = starting_point(SMALL, 1, seed=8)[0, :64].reshape(1, 1, 8, 8)
        np.testing.assert_array_equal(found.images, start.astype(settings.dtype))
        assert (found.iterations, found.evaluations) == (0, 1)
        assert found.reason == "out of iterations"
        assert [frame.iteration for frame in found.snapshots] == [0]


def test_float32_goes_as_far_as_it_can() -> None:
    victim, truth = small_client()
    settings = Settings(dtype="float32")
    found = attack(victim, settings=settings)
    assert found.reason == "converged"
    assert found.distance > Settings().near_enough
    assert_recovered(found, truth)
    assert found.images.dtype == np.float64


def test_weights_that_overflow_end_it_as_non_finite() -> None:
    victim, truth = small_client(scale=1e38)
    found = attack(victim, settings=Settings.paper())
    assert found.reason == "non-finite"
    assert (found.iterations, found.evaluations) == (0, 1)
    assert np.isfinite(found.images).all()


def test_an_image_that_ran_away_is_diverged() -> None:
    victim, truth = small_client(scale=4)
    found = attack(victim, settings=Settings.paper())
    assert found.reason == "diverged"
    assert np.median(np.abs(found.images)) > recorder.DIVERGED_PIXEL


def test_an_interrupt_comes_before_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "DIVERGED_PIXEL", 0.0)
    victim, truth = small_client()

    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    found = attack(victim, on_progress=interrupt)
    assert found.reason == "interrupted"


@pytest.mark.parametrize("restarts", [1, 3])
def test_an_interrupt_keeps_the_best_so_far(restarts: int) -> None:
    victim, truth = small_client()
    seen: list[Progress] = []

    def interrupt(progress: Progress) -> None:
        seen.append(progress)
        if progress.iteration == 5:
            raise KeyboardInterrupt

    found = attack(victim, restarts=restarts, on_progress=interrupt)
    assert found.reason == "interrupted"
    assert found.iterations == 5
    assert found.distance == seen[-1].distance == min(progress.distance for progress in seen)
    np.testing.assert_array_equal(found.images, seen[-1].images())
    assert found.snapshots[-1].iteration == 5


def test_an_interrupt_before_there_is_anything_to_keep_is_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Matching, "value_and_gradient", interrupt)
    victim, truth = small_client()
    with pytest.raises(KeyboardInterrupt):
        attack(victim)


def test_clients_that_had_finished_are_not_interrupted(record: Record) -> None:
    pairs = [small_client(seed=k) for k in range(2)]

    def interrupt(progress: Progress) -> None:
        if record.states[-1].finished.any():
            raise KeyboardInterrupt

    found = attack_many([client for client, _ in pairs], on_progress=interrupt)
    first = int(np.argmax(record.states[-1].finished))
    assert found[first].reason == "converged"
    assert_recovered(found[first], pairs[first][1])
    assert found[1 - first].reason == "interrupted"


# The paper's recipe.


def test_the_papers_recipe() -> None:
    recipe = Settings.paper()
    assert recipe.iterations == 300
    assert recipe.line_search == "none"
    assert recipe.dtype == "float32"
    assert not recipe.scale_free
    assert recipe.history == 100
    assert Settings.paper(iterations=7) == replace(recipe, iterations=7)


def test_the_papers_recipe_is_run_as_it_says(record: Record) -> None:
    victim, truth = small_client()
    found = attack(victim, seed=1, settings=Settings.paper())
    assert record.settings["line_search"] == "none"
    assert record.settings["max_iterations"] == 300 * 20
    assert record.settings["inner_iterations"] == 20
    assert record.settings["history"] == 100
    assert record.settings["goal"] == -np.inf
    assert record.states[0].x.dtype == np.float32
    # The distance is the raw one.
    matching = Matching(SMALL, victim.params, victim.gradients, 1, np.array(1.0))
    start = Tensor(starting_point(SMALL, 1, seed=1)[0])
    assert found.distances[0] == pytest.approx(matching.distances(start).numpy(), rel=1e-4)
    assert_recovered(found, truth, 1e-3)


def test_the_default_distance_is_free_of_scale() -> None:
    victim, truth = small_client()
    found = attack(victim, settings=Settings(0))
    norm = sum(float((g**2).sum()) for g in victim.gradients.values())
    raw = attack(victim, settings=Settings(0, scale_free=False)).distance
    assert found.distance == pytest.approx(raw / norm)


# Progress and frames.


def test_progress_tells_of_every_iteration() -> None:
    victim, truth = small_client()
    seen: list[Progress] = []
    found = attack(victim, settings=Settings(12), on_progress=seen.append)
    assert [progress.iteration for progress in seen] == list(range(13))
    assert [progress.distance for progress in seen] == found.distances
    for progress, frame in zip(seen, found.snapshots, strict=True):
        assert progress.images().shape == (1, 1, 8, 8)
        np.testing.assert_array_equal(progress.images(), frame.images)


@pytest.mark.parametrize("iterations", [*range(12), 19, 20, 21, 22, 40, 41, 42, 83])
def test_frames_are_few_and_hold_the_first_and_the_last(
    iterations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "MAX_SNAPSHOTS", 10)
    victim, truth = small_client()
    settings = Settings(iterations)
    found = attack(victim, settings=settings)
    shown = [frame.iteration for frame in found.snapshots]
    assert found.iterations == iterations
    assert shown[0] == 0
    assert shown[-1] == iterations
    assert shown == sorted(set(shown))
    assert len(shown) <= 11
    assert len(shown) > min(iterations, 5)
    # Evenly spaced, but for the last.
    assert len(set(np.diff(shown[:-1]))) <= 1
    for frame in found.snapshots:
        assert frame.distance == found.distances[frame.iteration]
    np.testing.assert_array_equal(found.snapshots[-1].images, found.images)


def test_frames_of_restarts_end_with_what_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MAX_SNAPSHOTS", 10)
    victim, truth = small_client(batch=2, seed=1)
    for iterations in (0, 3, 17, 60):
        found = attack(
            victim,
            restarts=4,
            settings=Settings(iterations),
        )
        shown = [frame.iteration for frame in found.snapshots]
        assert shown[0] == 0
        assert shown == sorted(set(shown))
        assert shown[-1] == found.iterations
        assert found.snapshots[-1].distance == found.distance
        np.testing.assert_array_equal(found.snapshots[-1].images, found.images)


def test_a_restart_that_overtakes_with_fewer_iterations_replaces_the_later_ones() -> None:
    snapshots = Snapshots()
    for iteration in range(6):
        snapshots.add(np.array([1.0, iteration]), 1.0 / (1 + iteration), iteration)
    snapshots.add(np.array([2.0, 4.0]), 0.01, 4)
    kept = snapshots.of_shape((2,))
    assert [one.iteration for one in kept] == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(kept[-1].images, [2.0, 4.0])
    assert kept[-1].distance == 0.01


# What is refused.


def changed(arrays: Mapping[str, np.ndarray], name: str, array: Any) -> dict[str, np.ndarray]:
    return {**arrays, name: array}


def spoilt(arrays: Mapping[str, np.ndarray], name: str, number: float) -> dict[str, np.ndarray]:
    array = arrays[name].copy()
    array.flat[-1] = number
    return {**arrays, name: array}


GOOD, _ = small_client()
BIAS = "body.2.bias"
BAD_REQUESTS: dict[str, tuple[Callable[[], object], list[str]]] = {
    "NaN in the weights": (
        lambda: attack(SMALL, spoilt(GOOD.params, BIAS, np.nan), GOOD.gradients),
        ["weights hold NaN or infinity in body.2.bias", "finite"],
    ),
    "infinite weights": (
        lambda: attack(SMALL, spoilt(GOOD.params, BIAS, -np.inf), GOOD.gradients),
        ["weights hold NaN or infinity in body.2.bias"],
    ),
    "NaN in the gradients": (
        lambda: attack(SMALL, GOOD.params, spoilt(GOOD.gradients, "fc.0.weight", np.nan)),
        ["gradients hold NaN or infinity in fc.0.weight"],
    ),
    "a missing gradient": (
        lambda: attack(SMALL, GOOD.params, {k: v for k, v in GOOD.gradients.items() if k != BIAS}),
        ["gradients do not fit LeNet", "missing ['body.2.bias']", "not known none"],
    ),
    "a gradient too many": (
        lambda: attack(SMALL, GOOD.params, changed(GOOD.gradients, "extra", np.zeros(1))),
        ["missing none", "not known ['extra']"],
    ),
    "weights of another shape": (
        lambda: attack(SMALL, changed(GOOD.params, BIAS, np.zeros(7)), GOOD.gradients),
        ["weights do not fit LeNet", "body.2.bias has shape (7,)", "the model's is (6,)"],
    ),
    "gradients of another model": (
        lambda: attack(LENET, client(*digits(1))[0].params, GOOD.gradients),
        ["gradients do not fit LeNet"],
    ),
    "zero gradients": (
        lambda: attack(SMALL, GOOD.params, {k: 0 * v for k, v in GOOD.gradients.items()}),
        ["every shared gradient is zero"],
    ),
    "a batch of 0": (
        lambda: attack(SMALL, GOOD.params, GOOD.gradients, batch=0),
        ["batch of 0", "give 1 or more"],
    ),
    "no restarts": (
        lambda: attack(SMALL, GOOD.params, GOOD.gradients, restarts=0),
        ["0 restarts", "give 1 or more"],
    ),
    "an unknown dtype": (
        lambda: Settings(dtype="float16"),
        ["'float16'", "choose float64 or float32"],
    ),
    "negative iterations": (
        lambda: Settings(iterations=-1),
        ["-1 iterations", "0 or more"],
    ),
    "an unknown line search": (
        lambda: attack(
            SMALL,
            GOOD.params,
            GOOD.gradients,
            settings=Settings(line_search="armijo"),  # type: ignore[arg-type]
        ),
        ["'armijo'", "strong-wolfe", "none"],
    ),
    "no history": (
        lambda: attack(SMALL, GOOD.params, GOOD.gradients, settings=Settings(history=0)),
        ["history of 0", "1 or more"],
    ),
    "labels that are too many": (
        lambda: attack(SMALL, GOOD.params, GOOD.gradients, labels=[1, 2]),
        ["2 labels", "batch of 1"],
    ),
    "a label out of range": (
        lambda: attack(SMALL, GOOD.params, GOOD.gradients, labels=[4]),
        ["label 4", "[0, 4)"],
    ),
    "a label that is no whole number": (
        lambda: attack(SMALL, GOOD.params, GOOD.gradients, labels=[0.5]),  # type: ignore[list-item]
        ["float64", "whole numbers"],
    ),
    "an unknown device": (
        lambda: attack(SMALL, GOOD.params, GOOD.gradients, device="tpu"),
        ["'tpu'", '"cpu" or "cuda"'],
    ),
    "a negative seed": (
        lambda: attack(SMALL, GOOD.params, GOOD.gradients, seed=-1),
        ["seed -1"],
    ),
    "fewer seeds": (lambda: attack_many([GOOD] * 2, seeds=[1]), ["2 clients", "1 seeds"]),
    "fewer labels": (lambda: attack_many([GOOD] * 2, labels=[[1]]), ["1 lists of labels"]),
    "no clients": (lambda: attack_many([]), ["0 clients", "every client"]),
    "clients that cannot be stacked": (
        lambda: attack_many([GOOD, small_client(batch=2)[0]]),
        ["one network, batch size", "one by one"],
    ),
    "an unknown way to the labels": (lambda: attack(GOOD, labels="guess"), ["'guess'", '"infer"']),
    "an unknown start": (
        lambda: attack(GOOD, start="zeros"),
        ["'zeros'", "noise, features, recursion"],
    ),
    "an unknown method": (lambda: attack(GOOD, method="adam"), ["'adam'", "lbfgs"]),
    "least squares of a direction": (
        lambda: attack(GOOD, method="levenberg-marquardt", settings=Settings(direction=True)),
        ["minimises the distance", "choose method lbfgs"],
    ),
    "a goal that is not a number": (lambda: Settings(goal=float("nan")), ["goal of nan"]),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_a_bad_request_is_answered_with_one_clear_sentence(case: str) -> None:
    request, words = BAD_REQUESTS[case]
    with pytest.raises(ValueError) as caught:
        request()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


A, D = Attacker(), [Prune(0.2)]
PARTS = (SMALL, GOOD.params, GOOD.gradients)
WRONG_TYPES: dict[str, tuple[Callable[[], object], str]] = {
    "weights without names": (lambda: attack(SMALL, [1.0], GOOD.gradients), "as a list"),
    "a batch that is a text": (
        lambda: attack(*PARTS, batch="2"),
        "batch of '2'",
    ),
    "half a batch": (
        lambda: attack(*PARTS, batch=1.5),
        "whole number is needed",
    ),
    "a truth as a batch": (
        lambda: attack(*PARTS, batch=True),
        "batch of True",
    ),
    "half a seed": (lambda: attack(GOOD, seed=1.5), "seed 1.5 was given"),
    "no seed": (lambda: simulate(SMALL, np.zeros((1, 1, 8, 8)), [0], seed=None), "seed None"),
    "restarts as a text": (lambda: attack(GOOD, restarts="2"), "'2' restarts"),
    "settings as a dictionary": (lambda: attack(GOOD, settings={}), "give tinyleak.Settings"),
    "defences as a text": (lambda: attack(GOOD, defenses="clip:1"), "give a list of objects"),
    "a list of texts": (lambda: attack(GOOD, defenses=["clip:1"]), "give a list of objects"),
    "a single defence": (lambda: attack(GOOD, defenses=D[0]), "give a list of objects"),
    "precisions without names": (lambda: attack(GOOD, precision=[1.0]), "precisions were given as"),
    "a text as attacker": (lambda: attack(GOOD, attacker="lbfgs"), "a str was given as attacker"),
    "a single client": (lambda: attack_many(GOOD), "give a list of them"),
    "networks as clients": (lambda: attack_many([SMALL]), "a LeNet was given as client"),
    "attackers and a word": (
        lambda: attack_many([GOOD], attacker=[A], sed=1),
        "'sed' is not known",
    ),
    "attackers and a seed": (lambda: attack_many([GOOD], attacker=[A], seed=1), "in one place"),
    "local steps as a number": (
        lambda: Client.of(SMALL, GOOD.params, GOOD.gradients, local=3),
        "3",
    ),
    "half a local step": (lambda: LocalSteps(2.5, 0.1), "2.5 local steps"),
}


@pytest.mark.parametrize("case", WRONG_TYPES)
def test_a_wrong_type_is_answered_with_one_clear_sentence(case: str) -> None:
    request, words = WRONG_TYPES[case]
    with pytest.raises(TypeError) as caught:
        request()
    assert words in str(caught.value)


def test_an_attacker_does_not_change_when_the_caller_s_arrays_do() -> None:
    start, labels = np.zeros((1, *SMALL.image_shape)), np.array([1])
    precision = {name: np.ones(shape) for name, shape in SMALL.shapes.items()}
    defenses = [Prune(0.2)]
    attacker = Attacker(labels, defenses, precision, start=start)
    start += 1
    labels += 1
    precision[BIAS] += 1
    defenses.append(Prune(0.5))
    assert np.all(attacker.start == 0) and attacker.labels.tolist() == [1]
    assert attacker.precision[BIAS].max() == 1 and attacker.defenses == (Prune(0.2),)


def test_precisions_may_be_lists() -> None:
    precision = {name: np.ones(shape).tolist() for name, shape in SMALL.shapes.items()}
    settings = Settings(iterations=2)
    found = attack(GOOD, precision=precision, settings=settings)
    assert found.distance == pytest.approx(attack(GOOD, settings=settings).distance)


def test_least_squares_says_what_is_missing_where_the_loss_is_known_by_a_factor() -> None:
    loss = replace(GOOD.loss, exact=False)
    with pytest.raises(ValueError, match="say its reduction"):
        attack(replace(GOOD, loss=loss), method="levenberg-marquardt", labels="infer")


# On a GPU, or what stands for one.

on_the_stand_in = pytest.mark.filterwarnings("ignore:the program was not captured")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "device_module", lambda device: strict_cupy)


@on_the_stand_in
@pytest.mark.parametrize("settings", [Settings(15), Settings.paper(iterations=1)], ids=str)
def test_on_a_device_it_is_the_same_attack(
    settings: Settings, stand_in: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, truth = small_client(batch=2)
    looked: list[np.ndarray] = []
    there = attack(
        victim,
        restarts=2,
        settings=settings,
        device="cuda",
        on_progress=lambda progress: looked.append(progress.images()),
    )
    monkeypatch.undo()
    here = attack(victim, restarts=2, settings=settings)
    tolerance = 1e-9 if settings.dtype == "float64" else 1e-3
    np.testing.assert_allclose(there.distances, here.distances, rtol=tolerance)
    assert_close(there.images, here.images, tolerance)
    assert_close(there.soft_labels, here.soft_labels, tolerance)
    assert type(there.images) is np.ndarray
    assert there.reason == here.reason
    for mine, theirs in zip(there.snapshots, here.snapshots, strict=True):
        assert mine.iteration == theirs.iteration
        assert_close(mine.images, theirs.images, tolerance)
    np.testing.assert_array_equal(looked[-1], there.images)


@on_the_stand_in
def test_on_a_device_many_clients_are_attacked(stand_in: None) -> None:
    pairs = [small_client(seed=k) for k in range(3)]
    clients, labels = [client for client, _ in pairs], [truth.labels for _, truth in pairs]
    found = attack_many(clients, labels=labels, device="cuda")
    for one, (_, truth) in zip(found, pairs, strict=True):
        assert_recovered(one, truth)


@on_the_stand_in
@pytest.mark.parametrize("restarts", [1, 3])
def test_a_device_is_read_once_an_evaluation(restarts: int, stand_in: None, record: Record) -> None:
    victim, truth = small_client()
    attack(
        victim,
        restarts=restarts,
        settings=Settings(40),
        device="cuda",
        on_progress=lambda progress: None,
    )
    counts = [len(rows) for rows in record.rows]
    waits = np.diff(record.waits)
    # The first evaluation with another number of rows traces a program for them.
    steady = [wait for k, wait in enumerate(waits) if k > 0 and counts[k] == counts[k - 1]]
    assert len(steady) > 30
    assert set(steady) == {1}
