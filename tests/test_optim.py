"""L-BFGS: its history against the two-loop recursion, its paths against PyTorch's, its promises."""

from __future__ import annotations

from math import inf, isfinite, nan

import numpy as np
import pytest
import strict_cupy
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinyleak.optim import Iterate, State, lbfgs, lbfgs_many
from tinyleak.optim.line_search import Evaluation, Point, Search, cubic_minimum, strong_wolfe
from tinyleak.optim.quasi_newton import InverseHessian

# ---------------------------------------------------------------------------------- the problems


def rosenbrock(x, rows=None, steepness=100):
    a, b = x[:, :-1], x[:, 1:]
    off = b - a * a
    gradient = np.zeros_like(x)
    gradient[:, :-1] = -4 * steepness * a * off - 2 * (1 - a)
    gradient[:, 1:] += 2 * steepness * off
    return (steepness * off**2 + (1 - a) ** 2).sum(axis=1), gradient


def rosenbrock_start(n):
    return np.where(np.arange(n) % 2, 1.0, -1.2)[None]


def quadratic(n, condition, rng, dtype=np.float64, floor=0.0):
    """½ (x − c)ᵀ H (x − c) + floor, with the eigenvalues of H spread from 1 to `condition`."""
    basis, _ = np.linalg.qr(rng.standard_normal((n, n)))
    hessian = ((basis * np.geomspace(1, condition, n)) @ basis.T).astype(dtype)
    centre = rng.standard_normal(n).astype(dtype)

    def objective(x, rows=None):
        gradient = (x - centre) @ hessian
        return (0.5 * (x - centre) * gradient).sum(axis=1) + dtype(floor), gradient

    return objective, centre


def least_squares(n, rng):
    """Residuals of a mildly curved fit with badly scaled columns: slow, but not chaotic."""
    columns = rng.standard_normal((2 * n, n)) * np.geomspace(1, 1e-2, n)
    truth = columns @ rng.standard_normal(n)

    def objective(x, rows=None):
        z = x @ columns.T
        residuals = z + 0.1 * np.sin(z) - truth - 0.1 * np.sin(truth)
        gradient = 2 * (residuals * (1 + 0.1 * np.cos(z))) @ columns
        return (residuals**2).mean(axis=1), gradient / (2 * n)

    return objective


def minimise(objective, start, **settings) -> State:
    *_, state = lbfgs_many(objective, start, **settings)
    return state


class Recorder:
    """An objective that remembers where it was asked, of which problems, and what it said."""

    def __init__(self, objective):
        self.objective = objective
        self.points, self.values, self.rows = [], [], []

    def __call__(self, x, rows):
        values, gradients = self.objective(x, rows)
        self.points.append(x.copy())
        self.values.append(values.copy())
        self.rows.append(rows.copy())
        return values, gradients


def torch_closures(objective, start, outer_steps, **settings):
    """Return every point at which `torch.optim.LBFGS` evaluates its closure, and the values."""
    x = torch.tensor(start[0], requires_grad=True)
    optimizer = torch.optim.LBFGS([x], history_size=100, **settings)
    recorder = Recorder(objective)

    def closure():
        values, gradients = recorder(x.detach().numpy()[None], np.zeros(1, np.int64))
        x.grad = torch.tensor(gradients[0])
        return torch.tensor(values[0])

    for _ in range(outer_steps):
        optimizer.step(closure)
    return np.concatenate(recorder.points), np.concatenate(recorder.values)


# ----------------------------------------------------------------------------------- the history


def two_loop(pairs, gradient, scale):
    """The textbook's recursion for −H·g (Nocedal and Wright, algorithm 7.4)."""
    q, alphas = gradient.copy(), []
    for s, y in reversed(pairs):
        alphas.append(s @ q / (s @ y))
        q -= alphas[-1] * y
    if pairs:
        s, y = pairs[-1]
        scale = s @ y / (y @ y)
    r = scale * q
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        r += s * (alpha - y @ r / (s @ y))
    return -r


def curved_pair(rng, n):
    s = rng.standard_normal(n)
    return s, s * rng.uniform(0.2, 5, n)


@pytest.mark.parametrize("limit", [1, 2, 5, 30])
def test_the_products_equal_the_two_loop_recursion_while_pairs_come_and_go(limit, rng):
    n = 40
    inverse_hessian = InverseHessian(np.zeros(n), limit)
    g = rng.standard_normal(n)
    np.testing.assert_array_equal(inverse_hessian.direction(g), -g)
    for scale in (1.0, 0.3):
        pairs = []
        for _ in range(2 * limit + 2):
            s, y = curved_pair(rng, n)
            pairs = [*pairs, (s, y)][-limit:]
            inverse_hessian.learn(s, y, float(s @ y))
            g = rng.standard_normal(n)
            expected = two_loop(pairs, g, scale)
            np.testing.assert_allclose(
                inverse_hessian.direction(g), expected, rtol=1e-9, atol=1e-10
            )
            # The secant equation: H explains the newest pair.
            np.testing.assert_allclose(inverse_hessian.direction(y), -s, rtol=1e-9, atol=1e-10)
        inverse_hessian.forget(0.3)
        np.testing.assert_allclose(inverse_hessian.direction(g), -0.3 * g, rtol=1e-15)


def test_each_problem_has_its_own_pairs_and_forgets_alone(rng):
    problems, n, limit = 4, 15, 3
    inverse_hessian = InverseHessian(np.zeros((problems, n)), limit)
    pairs, scales = [[] for _ in range(problems)], [1.0] * problems
    for round_ in range(12):
        s, y = np.stack([curved_pair(rng, n) for _ in range(problems)], axis=1)
        g = rng.standard_normal((problems, n))
        adding = np.flatnonzero(rng.random(problems) < 0.6)
        curvature = (s * y).sum(1, keepdims=True)
        inverse_hessian.learn(s, y, curvature, (adding,))
        for row in adding:
            pairs[row] = [*pairs[row], (s[row], y[row])][-limit:]
        directions = inverse_hessian.direction(g)
        for row in range(problems):
            expected = two_loop(pairs[row], g[row], scales[row])
            np.testing.assert_allclose(directions[row], expected, rtol=1e-9, atol=1e-11)
        if round_ == 6:
            inverse_hessian.forget(0.3, (np.array([2]),))
            pairs[2], scales[2] = [], 0.3


# ------------------------------------------------------------------------------- the line search


def search(function, slope, value_0=None, slope_0=None, noise=0.0):
    """Run the line search on φ; return whether it found a step, the last, and all it tried."""
    value_0 = function(0.0) if value_0 is None else value_0
    slope_0 = slope(0.0) if slope_0 is None else slope_0
    steps = [1.0]

    def evaluate():
        f, d = function(steps[-1]), slope(steps[-1])
        return Evaluation(*map(np.float64, (steps[-1], d, d - slope_0, slope_0, f, abs(d), 0, 1)))

    where, over = Search(), False
    while not over:
        last = evaluate()
        with np.errstate(all="ignore"):
            where, over, found, step = strong_wolfe(
                where, point(0.0, value_0, slope_0), last, noise, np.float64(value_0)
            )
        if not over:
            steps.append(step)
    return found, last, steps


def point(step, value, slope):
    return Point(*map(np.float64, (step, value, slope)))


@pytest.mark.parametrize("minimum", [1e-7, 0.003, 0.4, 1.0, 7.0, 1e5])
def test_a_step_satisfies_both_wolfe_conditions(minimum):
    def function(t):
        return (t - minimum) ** 2 / minimum**2 + 0.1 * np.cos(5 * t / minimum)

    def slope(t):
        return 2 * (t - minimum) / minimum**2 - 0.5 / minimum * np.sin(5 * t / minimum)

    found, last, steps = search(function, slope)
    assert found
    assert last.step == steps[-1]
    assert last.value <= function(0) + 1e-4 * last.step * slope(0)
    assert abs(last.slope) <= -0.9 * slope(0)


def test_a_step_out_of_the_domain_is_drawn_back():
    def function(t):
        return -t - np.log(0.01 - t) if t < 0.01 else nan

    def slope(t):
        return -1 + 1 / (0.01 - t) - 200 if t < 0.01 else nan

    found, last, steps = search(lambda t: function(t) - 200 * t, slope)
    assert found
    assert 0 < last.step < 0.01
    assert isfinite(last.value)
    assert last.value < function(0)
    assert steps[0] == 1.0


@pytest.mark.parametrize("slope_0", [0.0, 1.0, nan, inf])
def test_a_direction_that_does_not_descend_is_refused_without_a_search(slope_0):
    found, _, steps = search(lambda t: t, lambda t: 1.0, slope_0=slope_0)
    assert not found
    assert steps == [1.0]


def test_without_a_lower_point_no_step_is_found():
    found, last, steps = search(lambda t: float(t > 0), lambda t: -1.0)
    assert not found
    assert len(steps) == 12
    assert last.is_finite()


def test_values_equal_but_for_rounding_leave_the_decision_to_the_slopes():
    ripple = iter([2e-16, -1e-16, 1e-16, 0.0] * 5)

    def function(t):
        return 1 + next(ripple) if t > 0 else 1.0

    found, last, _ = search(function, lambda t: 1e-12 * (t - 0.3), noise=1e-15)
    assert found
    assert 0 < last.step < 0.6
    assert abs(last.slope) <= 0.9 * 0.3e-12


def test_searches_side_by_side_go_where_each_goes_alone(rng):
    """Twenty functions along a line, with walls and plateaus, searched as arrays and one by one."""
    places, walls = 10 ** rng.uniform(-4, 3, 20), 10 ** rng.uniform(-3, 4, 20)
    ripples = rng.uniform(0, 2, 20) * (rng.random(20) < 0.7)
    ripples[:2] = 40.0  # more than the slope: no step lowers these, or hardly any

    def at(t, k=slice(None)):
        place, wall, ripple = places[k], walls[k], ripples[k]
        u = t / place
        value = u * u / 2 - u + ripple * np.sin(u) ** 2 + (ripple > 30) * (t > 0)
        slope = (u - 1 + 2 * ripple * np.sin(u) * np.cos(u)) / place
        return np.where(t < wall, value, nan)[()], np.where(t < wall, slope, nan)[()]

    alone = []
    for k in range(20):
        found, last, steps = search(lambda t, k=k: at(t, k)[0], lambda t, k=k: at(t, k)[1])
        alone.append((bool(found), last.step, len(steps)))
    (value_0, slope_0), where, step = at(np.zeros(20)), Search(), np.ones(20)
    running, ends = np.ones(20, bool), [None] * 20
    for trials in range(1, 14):
        with np.errstate(all="ignore"):
            value, slope = at(step)
            last = Evaluation(step, slope, slope - slope_0, slope_0, value, abs(slope), 0, 1)
            start = Point(0.0, value_0, slope_0)
            where, over, found, step = strong_wolfe(where, start, last, 0.0, value_0)
        for k in np.flatnonzero(running & over):
            ends[k] = (bool(found[k]), last.step[k], trials)
        running &= ~over
    assert ends == alone
    assert len({found for found, _, _ in alone}) == 2
    assert len({trials for _, _, trials in alone}) > 4


def test_the_cubic_finds_a_cubics_minimum_from_either_side():
    def on_the_cubic(t):
        return point(t, t**3 - 3 * t, 3 * t**2 - 3)

    for a, b in ((0.2, 1.7), (1.7, 0.2), (0.5, 0.8)):
        share = cubic_minimum(on_the_cubic(a), on_the_cubic(b))
        assert a + share * (b - a) == pytest.approx(1.0, abs=1e-12)
    assert np.isnan(cubic_minimum(point(0, 0, -1), point(1, -2 / 3, -1)))
    assert np.isnan(cubic_minimum(point(0, 0, -1), point(1, inf, nan)))


# ---------------------------------------------------------------- no line search: PyTorch's path


def agreement(ours, theirs):
    """Return the largest difference of each pair of points, relative to the point's size."""
    count = min(len(ours), len(theirs))
    return np.abs(ours[:count] - theirs[:count]).max(axis=1) / np.abs(theirs[:count]).max(axis=1)


def without_repeats(points):
    """Drop the second evaluation of a point with which PyTorch begins an outer step."""
    return points[np.r_[True, (points[1:] != points[:-1]).any(axis=1)]]


def our_closures(objective, start, outer_steps, **settings):
    recorder = Recorder(objective)
    state = minimise(
        recorder, start, line_search="none", max_iterations=20 * outer_steps, **settings
    )
    return np.concatenate(recorder.points), state


def pytorchs_spread(objective, start, theirs, outer_steps, tidy=lambda points: points):
    """Return how far, up to each point, PyTorch strays from itself when its gradients are shaken.

    Of four runs with each number of each gradient moved by some 20 units in the last place, the one
    that strays farthest. How a sum is rounded depends on the processor, so two programs can be held
    together no closer than to a multiple of this.
    """
    rng = np.random.default_rng(0)

    def shaken(x, rows=None):
        values, gradients = objective(x)
        return values, gradients * (1 + rng.choice([-4e-15, 4e-15], gradients.shape))

    spread = np.zeros(len(theirs))
    for _ in range(4):
        off = agreement(tidy(torch_closures(shaken, start, outer_steps)[0]), theirs)
        spread[: len(off)] = np.maximum(spread[: len(off)], off)
    return np.maximum.accumulate(spread)


def assert_as_close_as_pytorch_to_itself(
    ours, theirs, objective, start, outer_steps, least=1e-6, **tidy
):
    """Every point is within `least` of PyTorch's, or within 100 times PyTorch's own spread."""
    spread = pytorchs_spread(objective, start, theirs, outer_steps, **tidy)
    assert (agreement(ours, theirs) < np.maximum(least, 100 * spread)).all()


@pytest.mark.parametrize("n", [100, 200])
def test_least_squares_agrees_with_pytorch_for_100_closures(n, rng):
    objective = least_squares(n, rng)
    start = rng.standard_normal((1, n))
    ours, _ = our_closures(objective, start, 5)
    theirs, _ = torch_closures(objective, start, 5)
    assert len(theirs) == 100
    assert_as_close_as_pytorch_to_itself(ours, theirs, objective, start, 5)
    assert agreement(ours, theirs)[:40].max() < 1e-10


@pytest.mark.parametrize(("n", "steepness"), [(2, 100), (50, 1), (50, 5)])
def test_rosenbrock_agrees_with_pytorch_to_its_end(n, steepness):
    """Through the outer steps that a tolerance cuts short, until no step is left to be taken."""

    def objective(x, rows=None):
        return rosenbrock(x, steepness=steepness)

    start = rosenbrock_start(n)
    ours, state = our_closures(objective, start, 30)
    theirs = without_repeats(torch_closures(objective, start, 30)[0])
    assert state.reasons == ("stalled",)
    # PyTorch knows before the last evaluation that the slope is too small for another step.
    assert len(ours) == len(theirs) + 1
    assert_as_close_as_pytorch_to_itself(ours, theirs, objective, start, 30, tidy=without_repeats)
    np.testing.assert_allclose(state.x[0], theirs[-1], rtol=1e-7)


@pytest.mark.parametrize("n", [10, 100])
def test_chaotic_rosenbrock_stays_as_close_to_pytorch_as_pytorch_to_itself(n):
    """Without a line search the steps overshoot, and rounding grows without bound."""
    start = rosenbrock_start(n)
    theirs, _ = torch_closures(rosenbrock, start, 5)
    ours, _ = our_closures(rosenbrock, start, 5)
    assert_as_close_as_pytorch_to_itself(ours, theirs, rosenbrock, start, 5, least=1e-13)
    assert agreement(ours, theirs)[:20].max() < 1e-8


@pytest.mark.parametrize(
    "settings",
    [
        {"tolerance_change": 1e-3},
        {"tolerance_grad": 1e-2},
        {"max_iter": 7},
        {"history_size": 3},
        {"max_iter": 1},
    ],
)
def test_other_settings_mean_what_they_mean_in_pytorch(settings, rng):
    objective = least_squares(30, rng)
    start = rng.standard_normal((1, 30))
    inner = settings.get("max_iter", 20)
    outer_steps = 4
    x = torch.tensor(start[0], requires_grad=True)
    optimizer = torch.optim.LBFGS([x], **{"history_size": 100, **settings})
    recorder = Recorder(objective)

    def closure():
        values, gradients = recorder(x.detach().numpy()[None], np.zeros(1, np.int64))
        x.grad = torch.tensor(gradients[0])
        return torch.tensor(values[0])

    for _ in range(outer_steps):
        optimizer.step(closure)
    ours = Recorder(objective)
    state = minimise(
        ours,
        start,
        line_search="none",
        max_iterations=outer_steps * inner,
        inner_iterations=inner,
        history=settings.get("history_size", 100),
        tolerance_gradient=settings.get("tolerance_grad", 1e-7),
        tolerance_change=settings.get("tolerance_change", 1e-9),
    )
    np.testing.assert_allclose(state.x[0], x.detach().numpy(), rtol=1e-5, atol=1e-7)
    theirs = without_repeats(np.concatenate(recorder.points))
    np.testing.assert_allclose(
        np.concatenate(ours.points)[: len(theirs)], theirs, rtol=1e-5, atol=1e-7
    )


def test_a_first_step_without_curvature_is_followed_by_a_full_gradient_step():
    """PyTorch shortens its very first step only, whether or not that gave it a pair."""

    def objective(x, rows=None):
        return -np.cos(x).sum(axis=1), np.sin(x)

    start = np.full((1, 30), 3.0)
    assert abs(objective(start)[1]).sum() > 2
    ours, _ = our_closures(objective, start, 1)
    theirs, _ = torch_closures(objective, start, 1)
    assert agreement(ours, theirs)[:3].max() < 1e-14
    assert_as_close_as_pytorch_to_itself(ours, theirs, objective, start, 1)


def test_pairs_of_little_curvature_are_refused_as_in_pytorch():
    """In a flat valley sᵀy falls below 1e-10 on the way: from then on the history is what it is."""

    def objective(x, rows=None):
        return 1e-4 * (x**4).sum(axis=1), 4e-4 * x**3

    start = np.linspace(0.5, 1.5, 8)[None]
    settings = {"tolerance_change": 0.0}
    ours, _ = our_closures(objective, start, 3, tolerance_gradient=0.0, **settings)
    theirs, _ = torch_closures(objective, start, 3, tolerance_grad=0.0, **settings)
    steps = np.diff(theirs, axis=0)
    changes = np.diff(objective(theirs)[1], axis=0)
    curvatures = (steps * changes).sum(axis=1)
    assert ((curvatures > 0) & (curvatures <= 1e-10)).sum() > 5
    assert (curvatures > 1e-10).sum() > 5
    assert agreement(ours, theirs).max() < 1e-8


def test_a_tiny_step_ends_an_outer_step_as_in_pytorch():
    """Where the function is steep, x may hardly move though the value changes much."""

    def objective(x, rows=None):
        values, gradients = rosenbrock(x)
        return 1e6 * values, 1e6 * gradients

    start = rosenbrock_start(4)
    settings = {"tolerance_change": 0.03, "max_iterations": 100, "tolerance_gradient": 1e-7}
    state = minimise(objective, start, line_search="none", **settings)
    theirs, values = torch_closures(objective, start, 5, tolerance_change=0.03)
    points = without_repeats(theirs)
    assert len(points) < len(theirs)  # outer steps were cut short
    assert (abs(np.diff(values))[np.diff(theirs, axis=0).any(axis=1)] > 0.03).all()
    assert 0 <= state.evaluations[0] - len(points) <= 1


def test_300_outer_steps_of_20_are_6000_iterations():
    state = minimise(
        lambda x, rows: (x.sum(axis=1), np.ones_like(x)),
        np.zeros((1, 2)),
        line_search="none",
        max_iterations=6000,
    )
    assert state.reasons == ("out of iterations",)
    assert state.iterations == 6000
    assert state.evaluations == 6001


# ---------------------------------------------------------------------- strong Wolfe: its results


@pytest.mark.parametrize("n", [2, 10, 100])
def test_rosenbrock_takes_no_more_evaluations_than_pytorch(n):
    start = rosenbrock_start(n)
    recorder = Recorder(rosenbrock)
    state = minimise(recorder, start)
    _, theirs = torch_closures(
        rosenbrock,
        start,
        60,
        line_search_fn="strong_wolfe",
        tolerance_grad=0,
        tolerance_change=0,
    )

    def evaluations_to(values, enough):
        return int(np.argmax(np.asarray(values) <= enough)) + 1

    assert state.reasons == ("stationary",)
    np.testing.assert_allclose(state.x, 1, atol=1e-11)
    ours = np.concatenate(recorder.values)
    for enough in (1e-5, 1e-10):
        assert evaluations_to(ours, enough) <= 1.1 * evaluations_to(theirs, enough) + 2


@pytest.mark.parametrize(("condition", "evaluations"), [(1e2, 150), (1e6, 800)])
def test_a_quadratic_is_minimised_to_the_last_digits(condition, evaluations, rng):
    objective, centre = quadratic(50, condition, rng)
    state = minimise(objective, rng.standard_normal((1, 50)))
    assert state.reasons == ("stationary",)
    assert state.evaluations < evaluations
    np.testing.assert_allclose(state.x[0], centre, atol=1e-14 * condition)


def test_the_scale_of_the_problem_does_not_matter(rng):
    objective, centre = quadratic(20, 100, rng)
    start = rng.standard_normal((1, 20))
    for scale in (1e-25, 1e-8, 1e12):

        def scaled(x, rows, scale=scale):
            values, gradients = objective(x)
            return scale * values, scale * gradients

        state = minimise(scaled, start)
        assert state.reasons[0] in ("stationary", "stalled")
        np.testing.assert_allclose(state.x[0], centre, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_progress_goes_on_where_values_can_no_longer_tell_points_apart(dtype, rng):
    """Near a minimum of height 1 values differ by 1 only from √ε on; slopes do so down to ε."""
    objective, centre = quadratic(30, 100, rng, dtype, floor=1.0)
    state = minimise(objective, rng.standard_normal((1, 30)).astype(dtype))
    epsilon = np.finfo(dtype).eps
    assert state.x.dtype == dtype
    assert np.abs(state.x - centre).max() < 100 * epsilon < np.sqrt(epsilon) / 10
    assert state.reasons[0] in ("stationary", "stalled")
    assert state.evaluations < 400


def test_the_start_may_be_the_minimum():
    state = minimise(rosenbrock, np.ones((1, 5)))
    assert state.reasons == ("stationary",)
    assert state.iterations == 0
    assert state.evaluations == 1


# --------------------------------------------------------------- strong Wolfe: what can go wrong


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 6),
    hole=st.sampled_from([nan, inf, -inf, 1e300]),
    lying=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_never_worse_than_the_start(seed, n, hole, lying, dtype):
    """Bumpy functions with holes of nonsense in them, and gradients that may be wrong."""
    rng = np.random.default_rng(seed)
    waves = rng.standard_normal((5, n)) * 10 ** rng.uniform(-2, 2)
    phases, heights = rng.uniform(0, 6, 5), rng.standard_normal(5)
    holes = rng.standard_normal((2, 4, n))
    radius = rng.uniform(0.1, 1.0)

    def objective(x, rows):
        angles = x @ waves.T + phases
        values = np.sin(angles) @ heights + 0.01 * (x**2).sum(axis=1)
        gradients = (np.cos(angles) * heights) @ waves + 0.02 * x
        if lying:
            gradients = gradients + rng.standard_normal(gradients.shape)
        inside = (np.linalg.norm(x[:, None] - holes[rows], axis=2) < radius).any(axis=1)
        values = np.where(inside, hole, values)
        with np.errstate(over="ignore"):
            return values.astype(dtype), gradients.astype(dtype)

    start = rng.standard_normal((2, n)).astype(dtype)
    states = list(lbfgs_many(objective, start, max_iterations=60, max_evaluations=200))
    first, last = states[0], states[-1]
    for before, after in zip(states, states[1:], strict=False):
        assert not (after.values > first.values).any()
        assert (after.evaluations >= before.evaluations).all()
    for row in range(2):
        if not isfinite(first.values[row]):
            assert last.reasons[row] == "non-finite"
            np.testing.assert_array_equal(last.x[row], start[row])
        else:
            assert isfinite(last.values[row])
    assert last.finished.all()
    assert None not in last.reasons


def test_the_values_of_a_state_are_those_at_its_points(rng):
    for state in lbfgs_many(rosenbrock, rng.standard_normal((3, 4))):
        np.testing.assert_array_equal(state.values, rosenbrock(state.x)[0])
        np.testing.assert_array_equal(state.gradient_norms, abs(rosenbrock(state.x)[1]).max(axis=1))


def test_a_wrong_direction_is_answered_by_a_fresh_start_down_the_gradient(monkeypatch):
    right = InverseHessian.direction
    calls = []

    def wrong_at_times(self, g):
        answer = right(self, g)
        calls.append(g)
        if len(calls) in (5, 9):
            return -answer
        return answer * nan if len(calls) == 12 else answer

    monkeypatch.setattr(InverseHessian, "direction", wrong_at_times)
    state = minimise(rosenbrock, rosenbrock_start(4))
    assert len(calls) > 12
    assert state.reasons == ("stationary",)
    np.testing.assert_allclose(state.x, 1, atol=1e-10)


def test_a_function_without_a_bottom_ends_with_a_finite_point():
    def objective(x, rows):
        with np.errstate(over="ignore"):
            return -np.exp(x).sum(axis=1), -np.exp(x)

    state = minimise(objective, np.zeros((1, 2)))
    assert state.reasons[0] in ("stalled", "non-finite")
    assert isfinite(state.values[0])
    assert state.values[0] < -1e100


@pytest.mark.parametrize("line_search", ["strong-wolfe", "none"])
@pytest.mark.parametrize("bad", [nan, inf, -inf])
def test_non_finite_values_end_a_problem_where_it_last_made_sense(line_search, bad):
    def objective(x, rows):
        inside = np.abs(x - 1).max(axis=1) < 1e-14
        sane = np.where(rows == 0, False, inside)
        return np.where(sane, 5.0, bad), np.where(sane[:, None], 1.0, nan) * np.ones_like(x)

    state = minimise(objective, np.ones((2, 3)), line_search=line_search)
    assert state.reasons == ("non-finite", "non-finite")
    np.testing.assert_array_equal(state.x, np.ones((2, 3)))
    assert state.values[1] == 5.0
    assert state.iterations.tolist() == [0, 0]


def test_a_kink_is_searched_for_as_long_as_there_is_something_lower():
    def objective(x, rows):
        return np.abs(x).sum(axis=1) + 1, np.sign(x) + (x == 0)

    state = minimise(objective, np.array([[0.3, -0.7]]))
    assert state.reasons == ("stalled",)
    assert state.evaluations < 1000
    assert state.values[0] < 1 + 1e-12


# ---------------------------------------------------------------------- many problems, one batch


@pytest.mark.parametrize("line_search", ["strong-wolfe", "none"])
def test_problems_together_go_where_each_goes_alone(line_search, rng):
    targets = rng.standard_normal((7, 12))
    # Without a search the steepest would leap about, and the rounding grow a hundredfold in four.
    scales = np.geomspace(0.1, 30 if line_search == "strong-wolfe" else 3, 7)

    def together(x, rows):
        off = (x - targets[rows]) * scales[rows, None]
        return np.log1p(off**2).sum(axis=1), 2 * off * scales[rows, None] / (1 + off**2)

    starts = targets + 0.1 * rng.standard_normal((7, 12))
    settings = {"line_search": line_search, "max_iterations": 40, "history": 5}
    batch = minimise(together, starts, **settings)
    for row in range(7):

        def alone(x, rows, row=row):
            return together(x, np.array([row]))

        single = minimise(alone, starts[row : row + 1], **settings)
        np.testing.assert_allclose(batch.x[row], single.x[0], atol=1e-6)
        assert batch.reasons[row] == single.reasons[0]
        assert abs(batch.iterations[row] - single.iterations[0]) <= 2


def test_finished_problems_leave_the_batch():
    recorder = Recorder(rosenbrock)
    starts = np.ones((16, 6)) + np.geomspace(1e-14, 3, 16)[:, None] * np.array([1, -1] * 3)
    states = list(lbfgs_many(recorder, starts))
    sizes = [len(rows) for rows in recorder.rows]
    assert sizes[0] == 16
    assert all(b == a or b <= a / 2 for a, b in zip(sizes, sizes[1:], strict=False))
    assert len(set(sizes)) >= 3
    assert all(len(x) == len(rows) for x, rows in zip(recorder.points, recorder.rows, strict=True))
    np.testing.assert_allclose(states[-1].x, 1, atol=1e-10)
    np.testing.assert_array_equal(states[-1].values, rosenbrock(states[-1].x)[0])
    evaluated = np.bincount(np.concatenate(recorder.rows), minlength=16)
    assert (states[-1].evaluations <= evaluated).all()
    assert states[-1].evaluations.max() == len(sizes)
    for before, after in zip(states, states[1:], strict=False):
        done = before.finished
        np.testing.assert_array_equal(after.x[done], before.x[done])
        np.testing.assert_array_equal(after.evaluations[done], before.evaluations[done])


def test_a_finished_problem_is_not_evaluated_elsewhere(monkeypatch):
    """While it waits to leave the batch it stays put, whatever its direction would be."""
    right = InverseHessian.direction
    recorder = Recorder(rosenbrock)

    def wild(self, g):
        answer = right(self, g)
        if min(values[0] for values in recorder.values) <= 1.0:
            answer[0] = nan
        return answer

    monkeypatch.setattr(InverseHessian, "direction", wild)
    state = minimise(recorder, np.repeat(rosenbrock_start(5), 3, axis=0), goal=[1.0, -inf, -inf])
    assert len(recorder.points[-1]) == 3
    assert state.evaluations[0] < state.evaluations[1]
    np.testing.assert_array_equal(recorder.points[-1][0], state.x[0])


def test_no_problem_waits_for_another():
    """One evaluation of the batch serves a problem in its line search and another between two."""
    starts = np.concatenate([np.ones((1, 4)) * 1.1, rosenbrock_start(4), np.full((1, 4), 30.0)])
    alone = [minimise(rosenbrock, start[None]).evaluations[0] for start in starts]
    recorder = Recorder(rosenbrock)
    minimise(recorder, starts)
    assert len(recorder.rows) <= max(alone) + 3 < sum(alone)


# ----------------------------------------------------------------------------- the caller's loop


def test_a_state_comes_at_the_start_and_after_every_move():
    recorder = Recorder(rosenbrock)
    states = list(lbfgs_many(recorder, rosenbrock_start(2)))
    np.testing.assert_array_equal(states[0].x, rosenbrock_start(2))
    assert [int(state.iterations[0]) for state in states] == list(range(len(states)))
    assert states[-1].evaluations == len(recorder.points)
    assert [state.reasons[0] for state in states[:-1]] == [None] * (len(states) - 1)
    assert states[-1].finished.tolist() == [True]


def test_a_kept_state_does_not_change():
    states, copies = [], []
    for state in lbfgs_many(rosenbrock, rosenbrock_start(3) * np.array([[1.0], [0.5], [0.1]])):
        states.append(state)
        copies.append((state.x.copy(), state.values.copy(), state.evaluations.copy()))
    for state, (x, values, evaluations) in zip(states, copies, strict=True):
        np.testing.assert_array_equal(state.x, x)
        np.testing.assert_array_equal(state.values, values)
        np.testing.assert_array_equal(state.evaluations, evaluations)


def test_the_start_is_not_written_to():
    start = rosenbrock_start(4)
    minimise(rosenbrock, start)
    np.testing.assert_array_equal(start, rosenbrock_start(4))


def test_an_interrupt_leaves_the_last_state():
    count = 0

    def objective(x, rows):
        nonlocal count
        count += 1
        if count == 25:
            raise KeyboardInterrupt
        return rosenbrock(x)

    last = None
    with pytest.raises(KeyboardInterrupt):
        for state in lbfgs_many(objective, rosenbrock_start(10)):
            last = state
    assert last.iterations[0] > 5
    np.testing.assert_array_equal(last.values, rosenbrock(last.x)[0])
    assert last.values[0] < rosenbrock(rosenbrock_start(10))[0]


def test_the_objective_may_reuse_its_arrays():
    values, gradients = np.empty(1), np.empty((1, 6))

    def reusing(x, rows):
        values[...], gradients[...] = rosenbrock(x)
        return values, gradients

    np.testing.assert_array_equal(
        minimise(reusing, rosenbrock_start(6)).x, minimise(rosenbrock, rosenbrock_start(6)).x
    )


def test_a_goal_ends_a_problem_and_only_that_one():
    starts = np.repeat(rosenbrock_start(5), 3, axis=0)
    state = minimise(rosenbrock, starts, goal=np.array([1e-3, -inf, 1.0]))
    assert state.reasons == ("converged", "stationary", "converged")
    assert 1e-10 < state.values[0] <= 1e-3
    assert state.values[1] < 1e-20
    assert 1e-3 < state.values[2] <= 1.0
    assert minimise(rosenbrock, starts, goal=1e9).iterations.tolist() == [0, 0, 0]


@pytest.mark.parametrize("line_search", ["strong-wolfe", "none"])
def test_limits_are_kept(line_search):
    start = rosenbrock_start(20)
    none = minimise(rosenbrock, start, line_search=line_search, max_iterations=0)
    assert (none.iterations[0], none.evaluations[0]) == (0, 1)
    some = minimise(rosenbrock, start, line_search=line_search, max_iterations=7)
    assert some.iterations[0] == 7
    for evaluations in (1, 2, 3, 11):
        recorder = Recorder(rosenbrock)
        few = minimise(recorder, start, line_search=line_search, max_evaluations=evaluations)
        assert few.evaluations[0] == evaluations == len(recorder.points)
        if line_search == "strong-wolfe":
            assert few.values[0] == min(np.concatenate(recorder.values))
    assert none.reasons == some.reasons == few.reasons == ("out of iterations",)


# --------------------------------------------------------------------------------- on the device


@pytest.mark.parametrize("problems", [1, 6])
@pytest.mark.parametrize("line_search", ["strong-wolfe", "none"])
def test_on_a_device_each_evaluation_is_read_once(problems, line_search, rng):
    """The stand-in refuses what CuPy has not; the path is NumPy's, with one read a step of it."""
    centres = rng.standard_normal((6, 9))
    device_centres = strict_cupy.asarray(centres)
    evaluations = 0

    def on_host(x, rows):
        off = x - centres[rows]
        return (off**2 + off**4).sum(axis=1), 2 * off + 4 * off**3

    def on_device(x, rows):
        nonlocal evaluations
        evaluations += 1
        assert isinstance(x, strict_cupy.ndarray)
        assert isinstance(rows, np.ndarray)
        assert rows.dtype == np.int64
        off = x - device_centres[strict_cupy.asarray(rows)]
        return (off**2 + off**4).sum(axis=1), 2 * off + 4 * off**3

    start = rng.standard_normal((problems, 9)) * np.geomspace(0.1, 3, problems)[:, None]
    expected = minimise(on_host, start, line_search=line_search, history=4)
    start = strict_cupy.asarray(start)
    strict_cupy.traffic.clear()
    state = minimise(on_device, start, line_search=line_search, history=4)
    assert strict_cupy.traffic["to_host"] == evaluations
    assert strict_cupy.traffic["synchronize"] == 0
    if problems == 1:
        assert strict_cupy.traffic["to_device"] <= evaluations + 5
    np.testing.assert_allclose(state.x.get(), expected.x, atol=1e-12)
    assert state.reasons == expected.reasons


# ----------------------------------------------------------------------------------- one problem


def one(objective):
    """The objective of one problem, made of that of many."""

    def alone(x):
        values, gradients = objective(x[None], np.zeros(1, np.int64))
        return values[0], gradients[0]

    return alone


def waves(x, rows=None):
    """Bumps of several sizes, to which a line search has to adapt."""
    frequencies = np.arange(1, x.shape[1] + 1)
    values = (1 - np.cos(frequencies * x) + 0.1 * x**2).sum(axis=1)
    return values, frequencies * np.sin(frequencies * x) + 0.2 * x


@pytest.mark.parametrize("line_search", ["strong-wolfe", "none"])
@pytest.mark.parametrize("history", [1, 3, 100])
@pytest.mark.parametrize("name", ["quadratic", "least squares", "rosenbrock", "waves"])
def test_one_problem_goes_where_it_goes_among_many(name, history, line_search, rng):
    objective, start = {
        "quadratic": (quadratic(12, 1e3, rng)[0], rng.standard_normal(12)),
        "least squares": (least_squares(20, rng), rng.standard_normal(20)),
        "rosenbrock": (lambda x, rows: rosenbrock(x, steepness=5), rosenbrock_start(4)[0]),
        "waves": (waves, np.linspace(0.2, 0.6, 5)),
    }[name]
    settings = {"history": history, "line_search": line_search, "max_iterations": 25}
    iterates = list(lbfgs(one(objective), start, **settings))
    others = start * np.array([[1.0], [0.3], [-0.8]])
    states = list(lbfgs_many(objective, others, **settings))
    moved = {(state.iterations[0], state.reasons[0]): state for state in reversed(states)}
    assert len(iterates) > 12
    for iterate in iterates[:15]:
        state = moved[iterate.iterations, iterate.reason]
        np.testing.assert_allclose(iterate.x, state.x[0], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(iterate.value, state.values[0], rtol=1e-6, atol=1e-12)
        assert iterate.iterations == state.iterations[0]
        assert iterate.evaluations == state.evaluations[0]
        assert iterate.reason == state.reasons[0]


@pytest.mark.parametrize("many", [False, True])
def test_the_path_is_the_one_it_has_always_been(many):
    """Evaluations and values after ten and twenty moves on Rosenbrock's function of ten numbers."""
    start = rosenbrock_start(10)
    found = {}
    if many:
        for state in lbfgs_many(rosenbrock, start * [[1.0], [0.5]]):
            moves, evaluations = int(state.iterations[0]), int(state.evaluations[0])
            found.setdefault(moves, (evaluations, state.values[0]))
    else:
        for iterate in lbfgs(one(rosenbrock), start[0]):
            found[iterate.iterations] = (iterate.evaluations, iterate.value)
    for moves, (evaluations, value) in RECORDED.items():
        assert found[moves][0] == evaluations
        assert found[moves][1] == pytest.approx(value, rel=1e-7)


RECORDED = {10: (11, 9.56955479407126), 20: (25, 8.648591816208901), 40: (51, 3.0178252785513444)}


def test_every_problem_ends_with_its_reason():
    def sphere(x):
        return x @ x, 2 * x

    def last(objective, start, **settings) -> Iterate:
        *_, iterate = lbfgs(objective, start, **settings)
        return iterate

    def kink(x):
        return abs(x).sum() + 1, np.sign(x) + (x == 0)

    assert last(one(rosenbrock), rosenbrock_start(2)[0]).reason == "stationary"
    assert last(sphere, [1.0, 2.0], goal=0.1).reason == "converged"
    assert last(kink, [0.3, -0.7]).reason == "stalled"
    assert last(lambda x: (nan, x), [1.0]).reason == "non-finite"
    limited = last(one(rosenbrock), rosenbrock_start(6)[0], max_iterations=3)
    assert (limited.reason, limited.iterations) == ("out of iterations", 3)
    limited = last(one(rosenbrock), rosenbrock_start(6)[0], max_evaluations=3)
    assert (limited.reason, limited.evaluations) == ("out of iterations", 3)


def test_float32_ends_early_where_it_can_tell_no_more(rng):
    """A goal that float32 cannot reach ends in "stalled", not after all iterations."""
    objective = one(quadratic(30, 1e4, rng, np.float32, floor=1.0)[0])
    *_, iterate = lbfgs(objective, rng.standard_normal(30).astype(np.float32), goal=1e-20)
    assert iterate.reason in ("stalled", "stationary")
    assert iterate.evaluations < 800
    assert iterate.x.dtype == np.float32


def test_a_goal_may_be_negative():
    *_, iterate = lbfgs(lambda x: (x @ x - 5, 2 * x), [1.0, 2.0], goal=-4.9)
    assert (iterate.reason, iterate.value <= -4.9) == ("converged", True)


def test_lists_and_whole_numbers_become_float64():
    for start in (
        [1, 2],
        [1.0, 2.0],
        torch.tensor([1.0, 2.0], dtype=torch.float64),
        np.array([1, 2], np.int16),
        np.array([1.0, 2.0], ">f8"),
    ):
        *_, iterate = lbfgs(lambda x: (x @ x, 2 * x), start)
        assert iterate.x.dtype == np.float64
        np.testing.assert_allclose(iterate.x, 0, atol=1e-12)


@pytest.mark.parametrize("line_search", ["strong-wolfe", "none"])
@pytest.mark.parametrize("many", [False, True])
def test_nothing_from_outside_changes_a_run(many, line_search):
    """Neither an objective that writes to its x, nor one that reuses its arrays, nor a caller who
    writes to the start or to what was handed out.
    """
    value, gradient = np.empty(()), np.empty(6)
    values, gradients = np.empty(1), np.empty((1, 6))

    def rude(x):
        value[...], gradient[...] = one(rosenbrock)(x)
        x[...] = nan
        return value, gradient

    def rude_to_many(x, rows):
        values[...], gradients[...] = rosenbrock(x)
        x[...] = nan
        return values, gradients

    settings = {"line_search": line_search, "max_iterations": 30}
    start = rosenbrock_start(6) if many else rosenbrock_start(6)[0]
    run, objective = (lbfgs_many, rude_to_many) if many else (lbfgs, rude)
    polite = rosenbrock if many else one(rosenbrock)
    expected = [where.x for where in run(polite, start.copy(), **settings)]
    points = []
    running = run(objective, start, **settings)
    start[...] = 7.0
    for where in running:
        points.append(where.x.copy())
        if many:
            np.testing.assert_array_equal(where.values, rosenbrock(where.x)[0])
        else:
            assert where.value == one(rosenbrock)(where.x)[0]
        where.x[...] = nan
    np.testing.assert_array_equal(points, expected)


def test_a_point_handed_out_does_not_change():
    iterates, copies = [], []
    for iterate in lbfgs(one(rosenbrock), rosenbrock_start(3)[0]):
        iterates.append(iterate)
        copies.append(iterate.x.copy())
    for iterate, x in zip(iterates, copies, strict=True):
        np.testing.assert_array_equal(iterate.x, x)


@pytest.mark.parametrize("line_search", ["strong-wolfe", "none"])
def test_one_problem_on_a_device_is_read_once_an_evaluation(line_search):
    centre = np.linspace(-1, 1, 9)
    device_centre = strict_cupy.asarray(centre)
    evaluations = 0

    def on_host(x):
        off = x - centre
        return (off**2 + off**4).sum(), 2 * off + 4 * off**3

    def on_device(x):
        nonlocal evaluations
        evaluations += 1
        assert isinstance(x, strict_cupy.ndarray)
        off = x - device_centre
        return (off**2 + off**4).sum(), 2 * off + 4 * off**3

    *_, expected = lbfgs(on_host, np.zeros(9), line_search=line_search, history=4)
    start = strict_cupy.asarray(np.zeros(9))
    strict_cupy.traffic.clear()
    *_, iterate = lbfgs(on_device, start, line_search=line_search, history=4)
    assert strict_cupy.traffic["to_host"] == evaluations
    assert strict_cupy.traffic["synchronize"] == 0
    assert strict_cupy.traffic["to_device"] <= 5
    np.testing.assert_allclose(iterate.x.get(), expected.x, atol=1e-12)
    assert iterate.reason == expected.reason


# -------------------------------------------------------------------------------- bad arguments


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"line_search": "armijo"}, 'line search .armijo. is unknown; choose "strong-wolfe" or'),
        ({"history": 0}, "history is 0; it must be at least 1"),
        ({"history": 0, "line_search": "none"}, "history is 0; it must be at"),
        ({"history": 2.5}, "history is 2.5; it must be at least 1"),
        ({"max_iterations": -1}, "max_iterations is -1; it must be at least 0"),
        ({"max_evaluations": 0}, "max_evaluations is 0; it must be at least 1"),
        ({"inner_iterations": 0}, "inner_iterations is 0; it must be at least 1"),
        ({"tolerance_gradient": -1e-3}, "tolerance_gradient is -0.001; it must be at least 0"),
        ({"tolerance_change": nan}, "tolerance_change is nan; it must be at least 0"),
        ({"goal": nan}, "goal is nan; give a number"),
    ],
)
def test_a_setting_out_of_range_is_refused_at_once(settings, message):
    with pytest.raises((ValueError, TypeError), match=message):
        lbfgs_many(rosenbrock, np.zeros((2, 3)), **settings)
    with pytest.raises((ValueError, TypeError), match=message):
        lbfgs(one(rosenbrock), np.zeros(3), **settings)


def test_goals_that_do_not_fit_the_problems_are_refused():
    with pytest.raises(ValueError, match=r"goal has shape \(3,\); give one number, or 2 of them"):
        lbfgs_many(rosenbrock, np.zeros((2, 3)), goal=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"goal is \[1.0, 2.0\]; give a number"):
        lbfgs(one(rosenbrock), np.zeros(3), goal=[1.0, 2.0])


@pytest.mark.parametrize(
    ("start", "error", "message"),
    [
        (np.zeros(3), ValueError, r"start has shape \(3,\); give an array \(R, n\), one row for"),
        (np.zeros((0, 3)), ValueError, r"start has shape \(0, 3\)"),
        (None, TypeError, "a NoneType of dtype object was given; pass floating"),
        (np.zeros((2, 3), np.float16), TypeError, "start is float16; give float32 or float64"),
        (np.zeros((2, 3), complex), TypeError, "an? ndarray of dtype complex128 was given"),
    ],
)
def test_an_invalid_start_of_many_is_refused_at_once(start, error, message):
    with pytest.raises(error, match=message):
        lbfgs_many(rosenbrock, start)


@pytest.mark.parametrize(
    ("start", "error", "message"),
    [
        (np.zeros((1, 3)), ValueError, r"start has shape \(1, 3\); give an array \(n,\)"),
        (1.0, ValueError, r"start has shape \(\); give an array \(n,\)"),
        ([], ValueError, r"start has shape \(0,\); give an array \(n,\)"),
        ([[1.0], [1.0, 2.0]], TypeError, "a list could not be read as numbers"),
        ("cat", TypeError, "a str of dtype <U3 was given"),
        ([True, False], TypeError, "start is bool; give float32 or float64"),
        (np.ma.zeros(3), TypeError, "without a mask"),
        (np.zeros(3, np.float16), TypeError, "start is float16; give float32 or float64"),
    ],
)
def test_an_invalid_start_of_one_is_refused_at_once(start, error, message):
    with pytest.raises(error, match=message):
        lbfgs(one(rosenbrock), start)


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (
            lambda x: (x[:1], x),
            ValueError,
            r"with a value \(1,\) and a gradient \(3,\); return one",
        ),
        (lambda x: (x[0], x[:2]), ValueError, r"gradient \(2,\); return one number and \(3,\)"),
        (
            lambda x: (x[0], x.astype(np.float32)),
            TypeError,
            "float64 x with a float64 value and a float32 gradient; return a number and float64",
        ),
        (lambda x: (1j, x), TypeError, "float64 x with a complex128 value"),
    ],
)
def test_an_answer_for_one_that_does_not_fit_is_refused(answer, error, message):
    with pytest.raises(error, match=message):
        next(iter(lbfgs(answer, np.zeros(3))))


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda x: (x.sum(), x), ValueError, r"values \(\) and gradients \(2, 3\); return values"),
        (lambda x: (x[:, 0], x[:, :2]), ValueError, r"return values \(2,\) and gradients \(2, 3\)"),
        (lambda x: (x[:1, 0], x[:1]), ValueError, r"values \(1,\) and gradients \(1, 3\)"),
        (
            lambda x: (x[:, 0], x.astype(np.float32)),
            TypeError,
            "answered float64 x with float64 values and float32 gradients; return both as float64",
        ),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(answer, error, message):
    with pytest.raises(error, match=message):
        next(iter(lbfgs_many(lambda x, rows: answer(x), np.zeros((2, 3)))))
