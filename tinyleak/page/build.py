"""The page: one HTML file that holds programs, weights, digits, and all that shows them."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak.attacks.extended import ExtendedMatching
from tinyleak.backend import Array
from tinyleak.data import load_glyphs
from tinyleak.data.files import PathLike, write_atomically
from tinyleak.nn import train
from tinyleak.nn.fitting import own_parameters
from tinyleak.nn.init import Parameters
from tinyleak.nn.model import Model, parameter_gradients
from tinyleak.program import Program, trace
from tinyleak.tensor import Tensor

HERE, REPORT = Path(__file__).parent, Path(__file__).parents[1] / "report"

ENGINE = (
    *("arrays", "products", "windows", "primitives", "runtime"),
    *("lbfgs", "defences", "engine"),
)
"""Scripts that run in a worker, in this order: a program's, then the attack's."""

FRONT = ("field", "state", "panels", "app")  # scripts that run in the page alone, after the engine
BATCHES = (1, 2, 4)  # how many pictures a batch may have: with more, L-BFGS takes minutes
READY = 10  # ready digits: one of each

TRAINING: dict[str, Any] = {"steps": 400, "optimiser": "adam", "learning_rate": 0.003}
"""LeNet then reads nine of ten glyphs, from the start that leaks most, in three seconds."""

POLICY = (
    "default-src 'none'; img-src data:; worker-src blob:; script-src blob: {scripts}; "
    "style-src {styles}"
)
"""What a browser is to allow: what stands in the page itself, and nothing from elsewhere."""


def write_page(
    path: PathLike,
    model: Any,
    *,
    params: Mapping[str, Any] | None = None,
    init: str = "uniform",
    batch: int = 2,
    seed: int = 0,
) -> None:
    """Write the page in which a drawing is shared as a gradient, and attacked.

    Args:
        path: the file.
        model: a network for images (1, 28, 28) and ten classes or more, whose last parameter is the
            bias of its last layer.
        params: its weights, by name. Without them it is shown untrained and trained on digits, and
            must have an `init`.
        init: how its untrained weights are drawn, one of `tinyleak.nn.init.SCHEMES`; it is trained
            from the uniform ones.
        batch: how many pictures a batch may have: 1, 2 or 4.
        seed: decides the weights.

    Raises:
        ValueError: a network for other images or fewer classes, or without that bias; weights that
            do not fit it; another batch; an unknown initialisation.
        OSError: the file cannot be written.
    """
    if tuple(model.image_shape) != (1, 28, 28) or model.classes < READY:
        raise ValueError(
            f"the page draws images (1, 28, 28) of ten classes, but the network is for "
            f"{model.image_shape} and {model.classes}; give one that reads digits"
        )
    last, shape = list(model.shapes.items())[-1]
    if tuple(shape) != (model.classes,):
        raise ValueError(
            f"the page reads the label off the last layer's bias, but the last parameter, {last}, "
            f"has the shape {tuple(shape)}; give a network that ends in a layer with a bias"
        )
    if batch not in BATCHES:
        raise ValueError(f"a batch of {batch} was asked for; the page takes 1, 2 or 4 pictures")
    glyphs = load_glyphs()
    if params is not None:
        weights = {"given": own_parameters(model, params, "weights")}
    else:
        untrained = model.init(np.random.default_rng([seed, 0]), init)
        trained = train(
            model, glyphs.images, glyphs.labels, seed=seed, progress=False, **TRAINING
        ).params
        weights = {"untrained": untrained, "trained": trained}
    name = getattr(model, "name", type(model).__name__)
    activation = getattr(model, "activation", None)
    called = f"{name} with {activation}" if activation else str(name)
    content = assembled(data_of(model, weights, glyphs.images[:READY], batch), called)
    write_atomically(path, lambda file: file.write(content.encode()))


def data_of(
    model: Model, weights: Mapping[str, Parameters], digits: Array, batch: int
) -> dict[str, Any]:
    """Return what the page's scripts work with, as JSON has it.

    `weights` are the network's, by the name of the set, as "trained"; `digits`, (M, 1, 28, 28), are
    ready to be taken; `batch` is the largest.
    """
    batches = [count for count in BATCHES if count <= batch]
    return {
        "layers": [[name, list(shape)] for name, shape in model.shapes.items()],
        "pixels": int(np.prod(model.image_shape)),
        "classes": model.classes,
        "batches": batches,
        "programs": {count: _programs(model, count) for count in batches},
        # In float32: all that is to be known of them is what the page itself computes with.
        "weights": {
            name: _text(np.concatenate([array.ravel() for array in params.values()]), "<f4")
            for name, params in weights.items()
        },
        "digits": [_text(np.rint(255 * digit), "u1") for digit in digits],
    }


def _programs(model: Model, batch: int) -> dict[str, Any]:
    programs = {
        "client": client_program(model, batch),
        "objective": objective_program(model, batch, direction=False),
        "direction": objective_program(model, batch, direction=True),
    }
    return {name: json.loads(program.export()) for name, program in programs.items()}


def _text(numbers: Array, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(numbers, dtype).tobytes()).decode()


def assembled(data: Mapping[str, Any], network: str) -> str:
    """Return the page: HTML in which style, scripts and data stand."""
    parts = {
        "style": (HERE / "style.css").read_text(encoding="utf-8"),
        "engine": "\n".join(script(HERE / f"{name}.js") for name in ENGINE),
        "app": "\n".join(
            script(path)
            for path in (REPORT / "drawing.js", *(HERE / f"{name}.js" for name in FRONT))
        ),
    }
    policy = {"scripts": (parts["engine"], parts["app"]), "styles": (parts["style"],)}
    parts["policy"] = POLICY.format(**{kind: _hashes(texts) for kind, texts in policy.items()})
    parts["network"] = html.escape(network)
    # What is between script tags ends at the first that looks like one.
    parts["data"] = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    page = (HERE / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{(\w+)\}", lambda found: parts[found[1]], page)


def script(path: Path) -> str:
    """Return a script as it stands in a page."""
    return path.read_text(encoding="utf-8").replace('"use strict";\n', "", 1)


def _hashes(texts: tuple[str, ...]) -> str:
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


def client_program(model: Model, batch: int) -> Program:
    """Return what a client computes, as a program for every set of weights.

    Its arguments are the images (N, C, H, W), the labels (N, K) as probabilities, and the weights
    in the model's order; it answers with the gradients in that order.
    """
    names = list(model.shapes)

    def gradients(images: Tensor, targets: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        params = dict(zip(names, weights, strict=True))
        return tuple(parameter_gradients(model, params, images, targets).values())

    images, targets = np.zeros((batch, *model.image_shape)), np.zeros((batch, model.classes))
    return trace(gradients, images, targets, *_of_shapes(model), check=False)


def objective_program(model: Model, batch: int, *, direction: bool) -> Program:
    """Return the distance that the attack minimises, and its gradient, as in `Matching`.

    Its arguments are the dummies z, (n,), the scale, (); then, each in the model's order, the
    weights, the shared gradients multiplied by the scale, and the precision of their entries. With
    `direction`, that of the shared gradient alone is matched.
    """
    count = len(model.shapes)

    def evaluate(z: Tensor, scale: Tensor, *arrays: Tensor) -> tuple[Tensor, Tensor]:
        parts = [arrays[start : start + count] for start in range(0, 3 * count, count)]
        params, shared, precision = (dict(zip(model.shapes, part, strict=True)) for part in parts)
        known: dict[str, Any] = {"params": params, "shared": shared, "scale": scale}
        known["precision"] = precision
        matching = ExtendedMatching(model, batch=batch, direction=direction, **known)
        return matching.value_and_gradient(z)

    size = batch * (int(np.prod(model.image_shape)) + model.classes)
    shapes = _of_shapes(model)
    with np.errstate(all="ignore"):  # of a made-up example, only the shapes count
        return trace(evaluate, np.zeros(size), np.ones(()), *shapes, *shapes, *shapes, check=False)


def _of_shapes(model: Model) -> list[np.ndarray]:
    return [np.ones(shape) for shape in model.shapes.values()]
