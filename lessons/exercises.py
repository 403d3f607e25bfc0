"""The exercises: what is right, the cases an answer is tried on, and the usual mistakes.

Try yours before you read on. `checks.check` compares an answer with the right one, case by case; if
it differs, with each mistake, and says the sentence of the first that gives what the answer gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyleak import Tensor, grad, ops
from tinyleak.gradient import topological_order


class Exercise(NamedTuple):
    """What is asked, what is right, and what usually goes wrong."""

    cases: Sequence[tuple]
    right: Any
    mistakes: Sequence[tuple[Any, str]]
    praise: str
    use: Callable[..., Any] = lambda answer, *case: answer(*case)
    tolerance: float = 1e-6


# Lesson 1: how many different objects


class Counted:
    """An object with inputs, which counts how often it is asked for them."""

    asked = 0

    def __init__(self, *inputs: Counted) -> None:
        self._inputs, self.data, self.made_by = inputs, np.zeros(()), "add" if inputs else None

    @property
    def inputs(self) -> tuple[Counted, ...]:
        Counted.asked += 1
        return self._inputs


def doubled(times: int) -> Counted:
    last = Counted()
    for _ in range(times):
        last = Counted(last, last)
    return last


def tree() -> Counted:
    return Counted(Counted(Counted(), Counted()), Counted())


def count(y: Any) -> int:
    seen, stack = set(), [y]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(node.inputs)
    return len(seen)


def count_paths(y: Any) -> int:
    return 1 + sum(count_paths(x) for x in y.inputs)


def count_and_watch(answer: Callable, make: Callable, *arguments: int) -> tuple | None:
    y = make(*arguments)
    Counted.asked = 0
    found = answer(y)
    return None if found is None else (found, Counted.asked <= 5 * count(y) + 5)


def every_path(y: Any) -> int:
    seen, stack = set(), [y]
    while stack:
        node = stack.pop()
        seen.add(node)
        stack.extend(node.inputs)
    return len(seen)


# Lessons 2 to 5: rules, adjoints, second derivatives, convolutions

RULES = {
    "subtract": lambda g, out, a, b: (g, -g),
    "divide": lambda g, out, a, b: (g / b, -g * out / b),
}


def rule_of(rules: dict, name: str, g: float, a: float, b: float) -> Any:
    return rules[name](g, a - b if name == "subtract" else a / b, a, b)


def spread(g: np.ndarray) -> np.ndarray:
    x = np.zeros(7)
    x[::2] = g
    return x


def hessian_times(f: Callable, x: Tensor, v: np.ndarray) -> np.ndarray:
    return grad(ops.sum(grad(f(x), x) * v), x).data


def bowl(x: Tensor) -> Tensor:
    return ops.sum(ops.tanh(x) * x) ** 2 + x[0] * x[1]


def convolve(x: np.ndarray, kernel: np.ndarray, stride: int, padding: int) -> np.ndarray:
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", windows[:, :, ::stride, ::stride], kernel)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def body(x: np.ndarray, kernels: Sequence, each: Any = sigmoid, strides: tuple = (2, 2, 1)) -> Any:
    for kernel, stride in zip(kernels, strides, strict=True):
        x = each(convolve(x, kernel, stride, 2))
    return x.reshape(len(x), -1)


# Lessons 6 to 9: a network, ways down, and how often


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(logits.argmax(axis=1) == labels))


def descend(rate: float, one_after_the_other: bool = False, sign: int = 1) -> int | float:
    x, y, steps = -1.2, 1.0, 0
    while (1 - x) ** 2 + 100 * (y - x**2) ** 2 >= 1e-6:
        by_x, by_y = -2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)
        x = x - sign * rate * by_x
        y = y - sign * rate * (200 * (y - x**2) if one_after_the_other else by_y)
        steps += 1
        if not abs(x) + abs(y) < 1e6:
            return np.inf
    return steps


def descend_blindly(rate: float) -> int:
    p, steps = np.array([-1.2, 1.0]), 0
    with np.errstate(over="ignore", invalid="ignore"):
        while (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2 > 1e-6:
            x, y = p
            slope = [-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)]
            p, steps = p - rate * np.array(slope), steps + 1
    return steps


def chain(x: np.ndarray, first: bool = True, second: bool = True) -> tuple[float, np.ndarray]:
    wall, slope = x[1:] - x[:-1] ** 2, np.zeros_like(x)
    if first:
        slope[:-1] += -2 * (1 - x[:-1]) - 400 * x[:-1] * wall
    if second:
        slope[1:] += 200 * wall
    return float(((1 - x[:-1]) ** 2 + 100 * wall**2).sum()), slope


def attacks_needed(p: float, width: float, z: float = 1.959964) -> int:
    n = 1
    while 2 * z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n) > width:
        n += 1
    return n


def starts_needed(p: float, wanted: float) -> int:
    n = 1
    while (1 - p) ** n > 1 - wanted + 1e-12:
        n += 1
    return n


# Lessons 10 to 15: what a gradient says


def most_images(shapes: dict, pixels: int) -> int:
    return sum(int(np.prod(shape)) for shape in shapes.values()) // pixels


def singular_values(J: np.ndarray) -> np.ndarray:
    return np.linalg.svd(J, compute_uv=False)


def words_read(gradient: np.ndarray) -> list[int]:
    return np.flatnonzero(np.abs(gradient).sum(axis=1)).tolist()


def norm(gradients: dict) -> float:
    return float(np.sqrt(sum(np.square(g).sum() for g in gradients.values())))


def clip(gradients: dict, bound: float) -> dict:
    factor = min(1.0, bound / norm(gradients))
    return {name: factor * g for name, g in gradients.items()}


def clip_each(gradients: dict, bound: float) -> dict:
    return {name: clip({name: g}, bound)[name] for name, g in gradients.items()}


def typical(g: np.ndarray) -> float:
    return float(np.sqrt(np.square(g).mean()))


def noisy(gradients: list, share: float, rng: np.random.Generator) -> list:
    return [g + rng.normal(0, share * typical(g), g.shape) for g in gradients]


def noise_found(answer: Callable, share: float) -> list[float] | None:
    rng = np.random.default_rng(13)
    some = np.arange(70) < 40  # the others are zero, and the mean of all is not
    gradients = [size * some * (1 + rng.standard_normal((60, 70))) for size in (1e-3, 5.0)]
    found = answer(gradients, share, rng)
    if found is None:
        return None
    noise = [(new - g) / typical(g) for g, new in zip(gradients, found, strict=True)]
    return [part.std() for n in noise for part in (n[:, some], n[:, ~some])]


def a_tape() -> tuple[list[Tensor], Tensor]:
    x, weight = Tensor([1.0, 2.0]), Tensor([3.0, 4.0])
    turned = weight * 2.0
    result = ops.tanh(x * turned) + turned * weight
    return [t for t in topological_order(ops.sum(result)) if t.primitive], x


def varying(steps: list[Tensor], argument: Tensor) -> list[Tensor]:
    depends = {argument}
    for tensor in steps:
        if not depends.isdisjoint(tensor.inputs):
            depends.add(tensor)
    return [tensor for tensor in steps if tensor in depends]


def steps_kept(answer: Callable) -> list[bool] | None:
    steps, argument = a_tape()
    found = answer(steps, argument)
    return None if found is None else [any(t is kept for kept in found) for t in steps]


def factor(mine: dict, shared: dict) -> float:
    ours, theirs = (np.concatenate([g.ravel() for g in named.values()]) for named in (mine, shared))
    best = (ours @ theirs) / (ours @ ours)
    return best if np.allclose(theirs, best * ours, rtol=1e-6, atol=0) else np.nan


def mean_ratio(mine: dict, shared: dict) -> float:
    return float(np.mean(np.concatenate([(shared[n] / mine[n]).ravel() for n in mine])))


def nan_is(number: float, answer: Callable, *case: Any) -> Any:
    found = answer(*case)  # a NaN never equals itself, so it is given another value
    return None if found is None else number if np.isnan(found) else found


def shows(shapes: dict, pixels: int) -> list[int]:
    return [
        at
        for at, (name, shape) in enumerate(shapes.items())
        if len(shape) == 2 and shape[1] >= pixels and name.replace("weight", "bias") in shapes
    ]


OWN = {"a.weight": (4, 1, 5, 5), "a.bias": (4,), "b.weight": (32, 784), "b.bias": (32,)}
RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((2, 1, 28, 28))
KERNELS = [RNG.standard_normal((12, channels, 5, 5)) / 5 for channels in (1, 12, 12)]
LOGITS = RNG.standard_normal((12, 12))
POINT = RNG.standard_normal(6)
MATRIX = RNG.standard_normal((8, 3)) * [5.0, 1.0, 0.2]
SHAPES = {"0.weight": (12, 1, 5, 5), "0.bias": (12,), "1.weight": (10, 588), "1.bias": (10,)}
WORDS = np.zeros((6, 2))
WORDS[[1, 4, 5]] = [[1.0, -1.0], [0.0, 2.0], [-3.0, 0.5]]
GRADIENTS = {"weight": RNG.standard_normal((3, 4)), "bias": 0.1 * RNG.standard_normal(3)}

EXERCISES = {
    "1": Exercise(
        [(tree,), (doubled, 3), (doubled, 12)],
        count,
        [
            (
                count_paths,
                "right for a tree, wrong where an object is used twice: remember in a "
                "set what you have met.",
            ),
            (lambda y: count(y) - 1, "one too few: `y` depends on itself, too."),
            (
                every_path,
                "the number is right, but you walk along every path: do not put the "
                "inputs of an object on the list a second time.",
            ),
        ],
        "Each object is visited once, however often it is used.",
        count_and_watch,
    ),
    "2": Exercise(
        [("subtract", 1.0, 3.0, 2.0), ("divide", 1.0, 3.0, 2.0), ("divide", 0.5, -1.0, 0.3)],
        RULES,
        [
            (
                RULES | {"subtract": lambda g, out, a, b: (g, g)},
                "subtract: when b grows, a - b falls, so its gradient has a minus.",
            ),
            (
                RULES | {"divide": lambda g, out, a, b: (g / b, g * out / b)},
                "divide: when b grows, a / b falls, so its gradient has a minus.",
            ),
            (
                RULES | {"divide": lambda g, out, a, b: (g / b, -g * a / b)},
                "divide: the derivative "
                "of 1 / b is -1 / b², so b is squared in the denominator; `out / b` has both.",
            ),
            (
                RULES | {"divide": lambda g, out, a, b: (1 / b, -out / b)},
                "divide: that is right where g is 1. A rule passes on g times it.",
            ),
        ],
        "Both pass on what arrives, times their own derivative.",
        rule_of,
    ),
    "3": Exercise(
        [(np.array([1.0, 2.0, 3.0, 4.0]),)],
        spread,
        [
            (
                lambda g: np.repeat(g, 2)[:7],
                "the elements between were never read, so nothing "
                "comes back to them: zeros, not copies.",
            ),
            (
                lambda g: np.append(spread(g), 0.0),
                "it has 8 elements, and x has 7: a gradient has the shape of what it is for.",
            ),
            (
                lambda g: np.append(0.0, spread(g)[:6]),
                "one place too far: x[::2] begins with x[0].",
            ),
        ],
        "What was read gets its gradient; what was left out gets 0.",
    ),
    "4": Exercise(
        [(bowl, Tensor(POINT), POINT[::-1]), (bowl, Tensor(POINT), np.eye(6)[2])],
        hessian_times,
        [
            (
                lambda f, x, v: grad(f(x), x).data * v,
                "that is the gradient times v, of first "
                "order: add it up, and differentiate once more.",
            ),
            (
                lambda f, x, v: grad(ops.sum(grad(f(x), x)), x).data * v,
                "weight the gradient with "
                "v *before* you differentiate again: here each row of H was added up whole.",
            ),
            (
                lambda f, x, v: (grad(f(x), x).data * v).sum(),
                "that is ⟨∇f, v⟩, a number. Its "
                "gradient is H v; keep it a Tensor, so that it can be differentiated.",
            ),
        ],
        "H v costs two walks, and H itself is never built.",
    ),
    "5": Exercise(
        [(IMAGES, KERNELS)],
        body,
        [
            (
                lambda x, k: body(x, k, lambda a: a),
                "the sigmoids are missing: without them three convolutions are one.",
            ),
            (
                lambda x, k: sigmoid(body(x, k, lambda a: a)),
                "a sigmoid after *each* convolution, not one at the end.",
            ),
            (
                lambda x, k: body(x, k, strides=(1, 2, 2)),
                "the strides are 2, 2 and 1, in this "
                "order; any order of them leaves 7 × 7, but not the same numbers.",
            ),
            (lambda x, k: body(x, k, strides=(2, 2, 2)), "the last stride is 1, so 7 × 7 stays."),
        ],
        "588 numbers a picture: 28 × 28 becomes 14 × 14, 7 × 7, 7 × 7, of 12 channels.",
    ),
    "6": Exercise(
        [(LOGITS, np.append(LOGITS.argmax(axis=1)[:9], -np.ones(3)))],
        accuracy,
        [
            (
                lambda z, y: float((z.argmax(axis=1) == y).sum()),
                "that is how many are right; divide by how many there are.",
            ),
            (
                lambda z, y: float((z.argmax(axis=0) == y).mean()),
                "each *row* of the logits is a "
                "picture: the largest of a row is the guess, `axis=1`.",
            ),
            (
                lambda z, y: float((z.argmax(axis=1) != y).mean()),
                "that is the share that is wrong.",
            ),
        ],
        "The share of pictures whose largest logit is the label's.",
    ),
    "6b": Exercise(
        [(0.001,), (0.01,)],
        descend,
        [
            (
                lambda rate: descend(rate, one_after_the_other=True),
                "you moved x before you asked "
                "for the slope of y: take both derivatives at the same point.",
            ),
            (lambda rate: descend(rate, sign=-1), "it goes up: step *against* the gradient."),
            (lambda rate: descend(rate) - 1, "one too few: count the last step, too."),
            (
                descend_blindly,
                "right at 0.001. At 0.01 the numbers overflow, f becomes NaN, and comparing with "
                "NaN is false, so the loop ends: look at their size after each step.",
            ),
        ],
        "15,068 steps at 0.001, and at 0.01 it flies away.",
    ),
    "7": Exercise(
        [(np.array([-1.2, 1.0]),), (POINT,)],
        chain,
        [
            (
                lambda x: chain(x, second=False),
                "the height is right, the slope is not: x_i stands "
                "in two terms of the sum, once as x_{i+1}. Both move it.",
            ),
            (
                lambda x: chain(x, first=False),
                "the height is right, the slope is not: it has only what comes from x_{i+1}.",
            ),
            (
                lambda x: (chain(x)[0], -chain(x)[1]),
                "the slope has the wrong sign: `lbfgs` wants "
                "the gradient, and turns it around itself.",
            ),
        ],
        "Height and gradient fit together.",
    ),
    "8": Exercise(
        [(np.array([-2.0, 3.0, 0.5]),)],
        np.zeros_like,
        [
            (
                lambda x: np.where(x > 0, 1.0, 0.0),
                "that is the first derivative, a step. "
                "Differentiate it once more: a step is level on both sides.",
            ),
            (lambda x: np.maximum(x, 0), "that is relu itself: differentiate it twice."),
        ],
        "0 on both sides, so second derivatives say nothing of a relu.",
    ),
    "9": Exercise(
        [(0.9, 0.999), (0.5, 0.9), (0.27, 0.999)],
        starts_needed,
        [
            (
                lambda p, wanted: starts_needed(1 - p, wanted),
                "all starts must *fail* for the attack to fail: raise 1 - p to the power, not p.",
            ),
            (
                lambda p, wanted: int(np.log(1 - wanted) / np.log(1 - p)),
                "rounded down, it is not enough: round up.",
            ),
        ],
        "(1 − p)ⁿ is the chance that all n fail.",
    ),
    "9b": Exercise(
        [(0.9, 0.2), (0.9, 0.1), (0.5, 0.05)],
        attacks_needed,
        [
            (
                lambda p, width: attacks_needed(p, 2 * width),
                "the width is from the lower end to the upper one, not from the middle.",
            ),
            (
                lambda p, width: attacks_needed(0.5, width),
                "you took the widest case, a half: use the share p that is given.",
            ),
            (
                lambda p, width: attacks_needed(p, width) - 1,
                "one too few: at that number the range is still wider.",
            ),
        ],
        "Half the width takes four times the attacks.",
    ),
    "10": Exercise(
        [({"w": (10, 10)}, 30), (SHAPES, 784), (SHAPES, 6200)],
        most_images,
        [
            (
                lambda shapes, pixels: -(-sum(map(np.prod, shapes.values())) // pixels),
                "round down: a part of an image's equations does not determine it.",
            ),
            (
                lambda shapes, pixels: sum(map(np.prod, shapes.values())) / pixels,
                "whole images: round down.",
            ),
            (
                lambda shapes, pixels: sum(s[0] for s in shapes.values()) // pixels,
                "an array of shape (10, 588) has 10 · 588 numbers, not 10.",
            ),
            (
                lambda shapes, pixels: (
                    sum(np.prod(s) for s in shapes.values() if len(s) > 1) // pixels
                ),
                "the biases have a gradient, too.",
            ),
        ],
        "It is a limit: more images cannot be determined, fewer need not be.",
    ),
    "10b": Exercise(
        [(OWN, 196), (OWN | {"c.weight": (500, 20)}, 196), (OWN | {"c.weight": (9, 300)}, 196)],
        shows,
        [
            (
                lambda s, n: [i for i, a in enumerate(s.values()) if len(a) == 2 and a[0] >= n],
                "a weight has the shape (outputs, inputs): the inputs are what is given away.",
            ),
            (
                lambda s, n: shows({k: a[-2:] for k, a in s.items()}, 5),
                "a convolution's weight has four axes. It is no fully connected layer.",
            ),
            (
                lambda s, n: [i for i, a in enumerate(s.values()) if len(a) == 2 and a[1] >= n],
                "without a bias beside the weight there is nothing to divide by.",
            ),
        ],
        "Each of these gives away at least as many numbers as there are pixels.",
    ),
    "11": Exercise(
        [(MATRIX, 1.0), (MATRIX, 6e-8)],
        lambda J, error: error / singular_values(J)[-1],
        [
            (
                lambda J, error: error / singular_values(J)[0],
                "that is the strongest direction; the smallest singular value is the last.",
            ),
            (
                lambda J, error: error / singular_values(J)[-1] ** 2,
                "that is an eigenvalue of JᵀJ, the square of a singular value.",
            ),
            (
                lambda J, error: error * singular_values(J)[-1],
                "the picture must move *far* for the gradient to move a little: divide.",
            ),
        ],
        "The weaker the direction, the farther the error carries.",
    ),
    "11b": Exercise(
        [(200, 300), (7, 300), (200, 50)],
        lambda outputs, inputs: min(outputs // 2, inputs),
        [
            (
                min,
                "that many δ are independent, but then there is no dimension "
                "outside of the column space, and so no equation.",
            ),
            (
                lambda m, d: m // 2,
                "right by the outputs; but more pictures than inputs span the whole row space.",
            ),
            (
                lambda m, d: min((m + 1) // 2, d),
                "as many equations as unknowns are not enough: there must be more.",
            ),
        ],
        "m − N equations for N − 1 unknowns.",
    ),
    "12": Exercise(
        [(GRADIENTS, 0.5), (GRADIENTS, 100.0)],
        clip,
        [
            (
                clip_each,
                "each array was clipped on its own: the norm is that of all of them "
                "together, and one factor serves all.",
            ),
            (
                lambda g, bound: {n: np.clip(a, -bound, bound) for n, a in g.items()},
                "that cuts entries, which changes the direction: multiply all by one factor.",
            ),
            (
                lambda g, bound: {n: a * bound / norm(g) for n, a in g.items()},
                "right if the gradient is too long; a shorter one must stay as it is.",
            ),
        ],
        "The direction stays, and nobody's gradient is longer than the bound.",
    ),
    "12b": Exercise(
        [(WORDS,)],
        words_read,
        [
            (
                lambda g: np.flatnonzero(g.sum(axis=1)).tolist(),
                "a row that adds up to 0 need not be zero: look at the size of its entries.",
            ),
            (
                lambda g: np.flatnonzero(g.all(axis=1)).tolist(),
                "one entry that is not zero is enough: `any`, not `all`.",
            ),
            (
                lambda g: np.flatnonzero(np.abs(g).sum(axis=1) == 0).tolist(),
                "these are the words that were *not* looked up.",
            ),
        ],
        "Which words there were, though not in which order.",
    ),
    "13": Exercise(
        [(1e-2,), (0.5,)],
        noisy,
        [
            (
                lambda gs, share, rng: noisy(gs, share**0.5, rng),
                "the noise is too large: `normal` takes a standard deviation, not a variance.",
            ),
            (
                lambda gs, share, rng: noisy(gs, share**2, rng),
                "the noise is too small: `normal` takes a standard deviation, not a variance.",
            ),
            (
                lambda gs, share, rng: [g + rng.normal(0, share, g.shape) for g in gs],
                "the share is "
                "of the typical entry of *each* array; these have very different sizes.",
            ),
            (
                lambda gs, share, rng: [g + g * rng.normal(0, share, g.shape) for g in gs],
                "the noise is of one size in the whole array; yours leaves zeros as they are.",
            ),
            (
                lambda gs, share, rng: [g + rng.normal(0, share * g.std(), g.shape) for g in gs],
                "`std` takes the mean off first; the typical entry is the root of the mean square.",
            ),
        ],
        "Every array has noise in proportion to its entries.",
        noise_found,
        0.1,
    ),
    "14": Exercise(
        [()],
        varying,
        [
            (
                lambda steps, x: [t for t in steps if any(i is x for i in t.inputs)],
                "these read the argument themselves; whoever reads *them* depends on it as well.",
            ),
            (
                lambda steps, x: [t for t in steps if not any(t is v for v in varying(steps, x))],
                "these are the steps that do not depend on it.",
            ),
            (lambda steps, x: steps, "some of them read constants alone."),
        ],
        "One walk is enough, since each step comes after its inputs.",
        steps_kept,
    ),
    "15": Exercise(
        [
            (GRADIENTS, {n: 0.5 * g for n, g in GRADIENTS.items()}),
            (GRADIENTS, {n: g + 0.1 for n, g in GRADIENTS.items()}),
        ],
        factor,
        [
            (
                mean_ratio,
                "right where there is one factor; where the ratios differ there is none, "
                "so return NaN.",
            ),
            (
                lambda mine, shared: factor(shared, mine),
                "upside down: how many times *mine* is what was shared?",
            ),
        ],
        "One ratio everywhere is a factor; different ratios are a different mistake.",
        lambda answer, *case: nan_is(-1.0, answer, *case),
    ),
}
