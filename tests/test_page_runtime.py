"""The page's runtime, search and defences in Node against NumPy and the package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from in_node import as_array, in_node, needs_node
from primitive_cases import CASES, Case, on_device, second_order

from tinyleak import ops
from tinyleak.attacks import Attacker
from tinyleak.attacks.problem import problem_of
from tinyleak.client import simulate
from tinyleak.data import load_glyphs
from tinyleak.defenses import knowledge, parse, protect
from tinyleak.nn import MLP, LeNet
from tinyleak.nn.criteria import one_hot
from tinyleak.optim import lbfgs
from tinyleak.page.build import client_program, objective_program
from tinyleak.program import Program, trace
from tinyleak.tensor import PRIMITIVES, Tensor

pytestmark = needs_node

# Others are made by tests.
PACKAGES = {
    name for name, one in PRIMITIVES.items() if one.forward.__module__.startswith("tinyleak.")
}

REPLAY = """
const answer = data.map(([said, inputs]) => program(said).call(...inputs.map(numbers)).map(text));
"""


def assert_replayed(jobs: Sequence[tuple[Program, Sequence[np.ndarray]]], names: Any) -> None:
    """Run programs in Node, all in one go, and compare with what NumPy makes of them."""
    answers = in_node(REPLAY, [(program.export(), list(inputs)) for program, inputs in jobs])
    for name, (program, inputs), answer in zip(names, jobs, answers, strict=True):
        with np.errstate(all="ignore"):
            expected = program(*inputs)
        for mine, theirs in zip(answer, expected, strict=True):
            scale = max(1.0, float(np.abs(theirs).max(initial=0)))
            found = as_array(mine).reshape(theirs.shape)
            np.testing.assert_allclose(found, theirs, rtol=0, atol=1e-12 * scale, err_msg=str(name))


def oddly(case: Case) -> Callable[..., Tensor]:
    """The case on views: every other element of arrays whose axes lie in reverse order."""

    def function(*wide: Tensor) -> Tensor:
        xs = [ops.transpose(x[(slice(1, None, 2),) * x.ndim], range(x.ndim)[::-1]) for x in wide]
        return case.ours(*xs, *on_device(case.constants))

    return function


def test_every_primitive_on_plain_arrays_on_odd_strides_and_in_its_gradients() -> None:
    jobs, names, seen = [], [], set()
    for case in CASES:
        constants = on_device(case.constants)
        arrays = case.arrays()
        wide = [np.resize(np.repeat(x.T, 2), [2 * n for n in x.shape[::-1]]) for x in arrays]
        for function, inputs in (
            (lambda *xs, c=case, k=constants: c.ours(*xs, *k), arrays),
            (oddly(case), wide),
            (lambda *xs, c=case, k=constants: tuple(second_order(c, xs, k)), arrays),
        ):
            jobs.append((trace(function, *inputs, check=False), inputs))
            names.append(case)
            seen |= {line.name for line in jobs[-1][0].instructions}
    assert_replayed(jobs, names)
    views = {"broadcast_to", "crop_to", "stop_gradient", "transpose"}
    assert seen | views >= PACKAGES, "each has been an instruction, but views"


def test_there_is_a_loop_for_every_primitive() -> None:
    loops = set(in_node("const answer = Object.keys(PRIMITIVES);", None))
    assert loops >= PACKAGES, "write its loop in tinyleak/page/primitives.js"


def test_masks_infinities_and_whole_numbers() -> None:
    x = np.array([[1.0, np.nan, -np.inf], [3.0, 3.0, -2.0]])

    def function(x: Tensor) -> tuple[Tensor, ...]:
        return (
            ops.relu(x),
            ops.max(x, 1),
            ops.take(x, np.array([1, 1, 0])),
            ops.floating(x > 0.0, dtype="float64"),
        )

    assert_replayed([(trace(function, x, check=False), [x])], ["once"])


MODELS = [LeNet(), LeNet(activation="tanh"), LeNet(activation="relu"), MLP(activation="softplus")]


@pytest.mark.parametrize(
    "model", MODELS, ids=lambda model: f"{type(model).__name__} {model.activation}"
)
def test_the_clients_and_the_objectives_programs(model: LeNet | MLP) -> None:
    rng = np.random.default_rng(4)
    weights = [*model.init(rng).values()]
    jobs = []
    for batch in (1, 2):
        images, labels = load_glyphs().batch([5, 2][:batch])
        targets = one_hot(labels, 10)
        client = client_program(model, batch)
        jobs.append((client, [images, targets, *weights]))
        shared = [0.1 * g for g in client(images, targets, *weights)]
        precision = [rng.uniform(0, 2, g.shape) for g in shared]
        z = rng.standard_normal(batch * 794)
        arguments = [z, np.array(0.1), *weights, *shared, *precision]
        for direction in (False, True):
            jobs.append((objective_program(model, batch, direction=direction), arguments))
    assert_replayed(jobs, [model] * len(jobs))


def the_problem() -> tuple[Program, list[np.ndarray]]:
    client, _ = simulate(LeNet(), *load_glyphs().batch([7]))
    problem = problem_of(client, Attacker())
    parts = (problem.matching.params, problem.matching.shared)
    arrays = [array for part in parts for array in part.values()]
    ones = [np.ones_like(g) for g in problem.matching.shared.values()]
    scale = np.asarray(problem.matching.scale)
    return objective_program(LeNet(), 1, direction=False), [
        problem.starts[0],
        scale,
        *arrays,
        *ones,
    ]


def test_the_objective_is_the_packages_and_the_search_goes_the_same_way() -> None:
    program, (start, *arguments) = the_problem()
    client, _ = simulate(LeNet(), *load_glyphs().batch([7]))
    value, gradient = problem_of(client, Attacker()).matching.value_and_gradient(Tensor(start))
    np.testing.assert_allclose(program(start, *arguments)[0], value.data, rtol=1e-13)
    np.testing.assert_allclose(program(start, *arguments)[1], gradient.data, atol=1e-15)
    body = """
    const ready = program(data.program);
    data.arguments.forEach((x, k) => ready.set(k + 1, numbers(x)));
    const f = (z) => { ready.set(0, z); ready.run(); return [ready.get(0)[0], ready.get(1)]; };
    const answer = [];
    for (const at of lbfgs(f, numbers(data.start), { most: 50 }))
      answer.push([text(at.x), at.value, at.iterations, at.evaluations, at.reason]);
    """
    said = {"program": program.export(), "arguments": arguments, "start": start}
    found = in_node(body, said)
    expected = list(lbfgs(lambda z: program(z, *arguments), start, max_iterations=50, goal=1e-20))
    assert len(found) == len(expected) == 51
    for (x, distance, *rest), step in zip(found, expected, strict=True):
        assert rest == [step.iterations, step.evaluations, step.reason]
        np.testing.assert_allclose(distance, step.value, rtol=1e-8)
        np.testing.assert_allclose(as_array(x), step.x, rtol=0, atol=1e-8)


def test_the_search_ends_as_the_packages_does() -> None:
    """A valley, a bowl of which rounding is the bottom, a slope without end, a start of NaN."""
    functions: dict[str, Callable[[np.ndarray], tuple[Any, np.ndarray]]] = {
        "valley": lambda x: (
            100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2,
            np.array([-400 * x[0] * (x[1] - x[0] ** 2) - 2 * (1 - x[0]), 200 * (x[1] - x[0] ** 2)]),
        ),
        "bowl": lambda x: (1.0 + x @ x, 2 * x),
        "slope": lambda x: (x.sum(), np.ones_like(x)),
        "nothing": lambda x: (np.nan * x[0], x),
    }
    body = """
    const functions = {
      valley: ([a, b]) => [100 * (b - a ** 2) ** 2 + (1 - a) ** 2,
        Float64Array.of(-400 * a * (b - a ** 2) - 2 * (1 - a), 200 * (b - a ** 2))],
      bowl: (x) => [1 + dot(x, x), x.map((one) => 2 * one)],
      slope: (x) => [x[0] + x[1], Float64Array.of(1, 1)],
      nothing: (x) => [NaN, x],
    };
    const answer = Object.fromEntries(Object.entries(functions).map(([name, f]) => {
      const last = [...lbfgs(f, Float64Array.of(-1.2, 1), { most: 60 })].at(-1);
      return [name, [last.reason, last.iterations]];
    }));
    """
    found = in_node(body, None)
    for name, function in functions.items():
        *_, last = lbfgs(function, np.array([-1.2, 1.0]), max_iterations=60, goal=1e-20)
        assert found[name] == [last.reason, last.iterations], name


def shared_with(**defence: Any) -> Any:
    body = """
    const gradients = data.gradients.map(numbers);
    const shared = protect(gradients, data.defence, 3);
    const { precision, direction } = knowledge(shared, data.defence);
    const answer = { shared: shared.map(text), precision: precision.map(text), direction };
    """
    return in_node(body, {"gradients": GRADIENTS, "defence": defence})


GRADIENTS = [
    np.random.default_rng(k).standard_normal(n) * 10.0**-k for k, n in enumerate((40, 7, 300, 10))
]


@pytest.mark.parametrize(
    ("texts", "defence"),
    [
        (["prune:0.29"], {"prune": 0.29}),
        (["float16"], {"round": "float16"}),
        (["bfloat16"], {"round": "bfloat16"}),
        (["int8"], {"round": "int8"}),
        (["clip:0.5"], {"clip": 0.5}),
        (["clip:0.5", "prune:0.9", "int8"], {"clip": 0.5, "prune": 0.9, "round": "int8"}),
        (["prune:0.5", "bfloat16"], {"prune": 0.5, "round": "bfloat16"}),
    ],
)
def test_defences_are_the_packages(texts: list[str], defence: dict[str, Any]) -> None:
    defenses = [parse(text) for text in texts]
    given = {str(k): g for k, g in enumerate(GRADIENTS)}
    expected = protect(defenses, given, np.random.default_rng(0))
    known = knowledge(defenses, expected)
    found = shared_with(**defence)
    for mine, theirs in zip(found["shared"], expected.values(), strict=True):
        np.testing.assert_allclose(as_array(mine), theirs, rtol=1e-14, atol=0)
    assert found["direction"] == known.direction
    precision = known.precision or {name: np.ones_like(g) for name, g in given.items()}
    for mine, theirs in zip(found["precision"], precision.values(), strict=True):
        np.testing.assert_allclose(as_array(mine), theirs, rtol=1e-12)


def test_the_noise_is_normal_and_of_its_variance() -> None:
    found = shared_with(noise=1e-2)
    noise = np.concatenate(
        [as_array(x) - g for x, g in zip(found["shared"], GRADIENTS, strict=True)]
    )
    assert abs(noise.mean()) < 0.02
    assert 0.08 < noise.std() < 0.12
    assert shared_with(noise=1e-2) == found
    draws = as_array(in_node("const answer = text(new Random(7).normals(20000));", None))
    assert abs(draws.mean()) < 0.03
    assert abs(draws.std() - 1) < 0.03
    assert abs((np.abs(draws) < 1).mean() - 0.683) < 0.02


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"format": "tinyleak.program", "version": 2}, "no program of version 1"),
        ({"instructions": [["eval", 0, [0], {}]]}, "no loop for the primitive eval"),
        ({"instructions": [["constructor", 0, [0], {}]]}, "no loop for the primitive constructor"),
    ],
)
def test_another_text_is_refused(said: dict[str, Any], sentence: str) -> None:
    whole = {
        "format": "tinyleak.program",
        "version": 1,
        "buffers": [{"bytes": 8}],
        "arrays": [["float64", 0, 0, [1], [1]]],
        "instructions": [],
        "inputs": [0],
        "outputs": [0],
    }
    body = "let answer = null; try { program(data); } catch (error) { answer = error.message; }"
    assert sentence in in_node(body, {**whole, **said})
