"""Who attacks whom: what an attacker brings to a client, and the problem that follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from tinyleak.analytic.labels import LabelInference
from tinyleak.attacks.matching import Matching
from tinyleak.attacks.preferences import PreferentialMatching
from tinyleak.attacks.recursion import recursion
from tinyleak.attacks.settings import Method, Settings
from tinyleak.backend import Array, as_array
from tinyleak.client import Client
from tinyleak.defenses import Defense, knowledge
from tinyleak.nn.losses import one_hot
from tinyleak.nn.model import Model, require_fit
from tinyleak.nn.models import MLP, LeNet

Labels: TypeAlias = "Sequence[int] | Array | Literal['infer', 'trusted'] | None"


@dataclass(frozen=True, eq=False)
class Attacker:
    """What an attacker brings to a client: what it knows, where it starts, how it goes about it.

    Attributes:
        labels: the N labels if they are known; "infer" to read them off the last layer's gradient
            first, "trusted" to do so where nothing speaks against them; None to find them with the
            images.
        defenses: those that it knows the client applied: it then matches only what survived
            pruning, weighs entries by how exactly they are known, and matches the direction alone
            after clipping.
        precision: what the squared difference of each entry is multiplied with, by name: 0 where
            the shared gradient says nothing, 1 / variance where noise was added. It follows from
            `defenses`, unless it is given.
        seed: decides the noise that the attack starts from; 0 or more.
        start: what the first start is: "noise", as in the paper; "recursion", images read off the
            gradient layer by layer (see `tinyleak.attacks.recursion`), for which labels must be
            known; or such images, (N, C, H, W).
        restarts: how many starts to run; the one that ends nearest is returned.
        method: "lbfgs"; "levenberg-marquardt", which solves for all pixels at once, takes memory
            for their Jacobian with respect to the weights, and batches to the rounding error
            (restarts run one after the other, until one converges); or
            "lbfgs+levenberg-marquardt", the one to finish after the other.
        settings: how the search is run; by default what succeeds most.
        device: "cpu" or "cuda".

    Raises:
        ValueError: a number out of range, an unknown method or start, or what cannot be combined.
    """

    labels: Labels = None
    defenses: Sequence[Defense] = ()
    precision: Mapping[str, Array] | None = None
    seed: int = 0
    start: Literal["noise", "recursion"] | Array = "noise"
    restarts: int = 1
    method: Method = "lbfgs"
    settings: Settings = Settings()
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.settings is None:
            object.__setattr__(self, "settings", Settings())
        if isinstance(self.labels, str) and self.labels not in ("infer", "trusted"):
            raise ValueError(
                f'labels {self.labels!r} were given; give N whole numbers, "infer" or "trusted"'
            )
        if isinstance(self.start, str) and self.start not in ("noise", "recursion"):
            raise ValueError(
                f"start {self.start!r} is unknown; choose noise or recursion, or give images"
            )
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} was given; seeds are whole numbers from 0 on")
        if self.restarts < 1:
            raise ValueError(f"{self.restarts} restarts were asked for; give 1 or more")
        if self.method not in get_args(Method):
            raise ValueError(
                f"method {self.method!r} is unknown; choose one of {', '.join(get_args(Method))}"
            )
        if self.method != "lbfgs" and self.device != "cpu":
            raise ValueError(f"method {self.method} runs on the cpu alone, not on {self.device!r}")

    def __repr__(self) -> str:
        changed = [
            f"{field.name}={_short(getattr(self, field.name))}"
            for field in fields(self)
            if getattr(self, field.name) is not field.default
        ]
        return f"Attacker({', '.join(changed)})"


@dataclass(frozen=True, eq=False)
class Problem:
    """What an attacker makes of a client: what to minimise, and from where.

    Attributes:
        client: who is attacked.
        attacker: by whom.
        matching: the objective, in the dtype of the settings.
        starts: (restarts, n), dummies to start from, float64.
        settings: the attacker's, with what follows from the client.
        inference: where the labels come from, if they were read off the gradient.
    """

    client: Client
    attacker: Attacker
    matching: Matching
    starts: Array
    settings: Settings
    inference: LabelInference | None

    @property
    def is_plain(self) -> bool:
        """Whether it is the paper's: one start, L-BFGS, on the CPU."""
        attacker = self.attacker
        return len(self.starts) == 1 and attacker.method == "lbfgs" and attacker.device == "cpu"


def meet(
    client: Any,
    params: Mapping[str, Any] | None,
    gradients: Mapping[str, Any] | None,
    batch: int,
    attacker: Attacker | None,
    keywords: Mapping[str, Any],
) -> Problem:
    """Return the problem that `tinyleak.attack` was called with; see there.

    Raises:
        TypeError: neither a client nor its parts; an unknown keyword, or keywords beside an
            attacker.
        ValueError: as `attack`.
    """
    if isinstance(client, Problem) and params is None and attacker is None and not keywords:
        return client
    attacker = make_attacker(attacker, keywords)
    if not isinstance(client, Client):
        if params is None or gradients is None:
            raise TypeError(
                f"attack was given a {type(client).__name__} alone; give a Client, or a network "
                "with its weights and gradient"
            )
        client = Client.of(client, params, gradients, batch=batch)
    elif params is not None or gradients is not None or batch != 1:
        raise TypeError(
            "attack was given a Client, and weights, a gradient or a batch besides; the client "
            "has its own: leave them out"
        )
    return problem_of(client, attacker)


def make_attacker(attacker: Attacker | None, keywords: Mapping[str, Any]) -> Attacker:
    """Return the attacker, or the one that keywords describe.

    Raises:
        TypeError: an unknown keyword, or both.
    """
    known = [field.name for field in fields(Attacker)]
    for name in keywords:
        if name not in known:
            raise TypeError(f"{name!r} is not known of an attack; choose from {', '.join(known)}")
    if attacker is not None and keywords:
        raise TypeError(
            f"an attacker was given, and {', '.join(keywords)} besides; say all of it in one place"
        )
    return attacker or Attacker(**keywords)


def problem_of(client: Client, attacker: Attacker) -> Problem:
    """Work out what an attacker is to minimise, from where.

    Raises:
        ValueError: labels or images that do not fit the client; a gradient of zeros; what cannot
            be combined.
    """
    settings, precision = apply_knowledge(client, attacker)
    labels, inference = _labels(client, attacker.labels)
    squares = attacker.method != "lbfgs"
    if squares and (settings.direction or settings.smoothness or client.local):
        raise ValueError(
            f"method {attacker.method} minimises the distance between two gradients alone; to "
            "match a direction (as after clipping), to prefer smooth images or to go through local "
            "steps, choose method lbfgs"
        )
    matching = _matching(client, labels, precision, settings)
    starts = starting_point(
        client.model, client.batch, attacker.seed, attacker.restarts, with_labels=labels is None
    )
    if squares and attacker.method == "levenberg-marquardt":
        # Within the range that pixels have: the same noise, on a grey.
        pixels = slice(0, matching.image_size)
        starts[:, pixels] = GREY + CONTRAST * starts[:, pixels]
    images = _first_images(client, attacker.start, labels, precision)
    if images is not None:
        starts[0, : images.size] = images.ravel()
    return Problem(client, attacker, matching, starts, settings, inference)


GREY, CONTRAST = 0.5, 0.1
"""Mean and standard deviation of the pixels that least squares starts from."""


def apply_knowledge(
    client: Client, attacker: Attacker
) -> tuple[Settings, Mapping[str, Array] | None]:
    """Return how closely which part of the client's gradient is to be matched."""
    settings = attacker.settings
    precision: Mapping[str, Array] | None = attacker.precision
    direction = settings.direction or not client.loss.exact
    if attacker.defenses:
        known = knowledge(attacker.defenses, client.gradients, client.batch)
        direction = direction or known.direction
        precision = known.precision if precision is None else precision
    if precision is not None:
        require_fit(client.model, precision, "precisions")
        if any(bool((array < 0).any()) for array in precision.values()):
            raise ValueError(
                "a precision is negative; give 0 or more for each entry of the gradient"
            )
    return replace(settings, direction=direction), precision


def starting_point(
    model: Model, batch: int, seed: int, restarts: int = 1, *, with_labels: bool = True
) -> Array:
    """Draw dummy images and dummy label logits from N(0, 1): (restarts, n), float64, by NumPy.

    The first start is the same however many follow, and the same on every device.

    Raises:
        ValueError: a seed below 0.
    """
    if seed < 0:
        raise ValueError(f"seed {seed} was given; seeds are whole numbers from 0 on")
    size = batch * (math.prod(model.image_shape) + (model.classes if with_labels else 0))
    return np.random.default_rng(seed).standard_normal((restarts, size))


def _matching(
    client: Client,
    labels: Array | None,
    precision: Mapping[str, Array] | None,
    settings: Settings,
) -> Matching:
    model = client.model
    scale = 1.0
    if settings.scale_free:
        length = _length(client.gradients, precision)
        if length == 0.0:
            raise ValueError(
                "every shared gradient is zero, or has no precision, so nothing can be read from "
                "it; check that the client's backward pass was run"
            )
        scale = 1.0 / length

    def numbers(array: Any) -> Array:
        return np.asarray(array, dtype=settings.dtype)

    common = {
        "model": model,
        "params": {name: numbers(array) for name, array in client.params.items()},
        "shared": {name: numbers(scale * g) for name, g in client.gradients.items()},
        "batch": client.batch,
        "scale": numbers(scale),
        "targets": None if labels is None else numbers(one_hot(labels, model.classes)),
        "precision": None
        if precision is None
        else {name: numbers(precision[name]) for name in model.shapes},
        "local": client.local,
    }
    if settings.direction or settings.smoothness:
        return PreferentialMatching(
            **common, direction=settings.direction, smoothness=settings.smoothness
        )
    return Matching(**common)


def _length(gradients: Mapping[str, Array], precision: Mapping[str, Array] | None) -> float:
    """Return √Σ precision · gradient², without squaring what is too small or large for it."""
    largest = max(float(np.abs(g).max(initial=0.0)) for g in gradients.values()) or 1.0
    total = 0.0
    for name, gradient in gradients.items():
        squares = np.square(np.asarray(gradient, float) / largest)
        total += float(np.sum(squares if precision is None else squares * precision[name]))
    return largest * math.sqrt(total)


def _labels(client: Client, labels: Labels) -> tuple[Array | None, LabelInference | None]:
    """Return the labels to go by, and where they are from; None to find them with the images."""
    if labels is None:
        return None, None
    if isinstance(labels, str):
        inference = client.labels
        guess = labels == "trusted" and not inference.trusted
        return (None if guess else inference.labels), inference
    given = np.asarray(labels)
    if given.shape != (client.batch,):
        raise ValueError(
            f"{given.size} labels were given for a batch of {client.batch}; give one each"
        )
    one_hot(given, client.model.classes)  # refuses what is not a class
    return given, None


def _first_images(
    client: Client,
    start: str | Array,
    labels: Array | None,
    precision: Mapping[str, Array] | None,
) -> Array | None:
    """Return the images that the first start has in place of noise, (N, C, H, W), or None."""
    shape = (client.batch, *client.model.image_shape)
    if not isinstance(start, str):
        images = as_array(start, copy=True)
        if images.shape != shape or not np.isfinite(images).all():
            what = f"of shape {images.shape}" if images.shape != shape else "that are not finite"
            raise ValueError(
                f"images {what} were given to start from; the attack needs finite ones, {shape}"
            )
        return images
    if start == "noise":
        return None
    if client.local is not None:
        raise ValueError(
            "--start recursion reads the gradient of one step, but several local steps have "
            "only their sum; leave one of the two out"
        )
    if labels is None:
        raise ValueError(
            "--start recursion reads images off the gradient, for which labels must be known "
            "first; give --labels infer"
        )
    if not isinstance(client.model, LeNet | MLP):
        raise ValueError(
            "--start recursion goes backwards through a LeNet or an MLP, not through a "
            f"{type(client.model).__name__}; leave it out"
        )
    assert client.last_layer is not None, "both of them end in a linear layer"
    return recursion(client.last_layer, client.gradients, labels, variance=_variance(precision))


def _variance(precision: Mapping[str, Array] | None) -> float:
    """Return the mean variance of the noise that a precision stands for."""
    kept = [one[one > 0] for one in (precision or {}).values()]
    # A precision of 1 is that of an entry without noise, beside others that were pruned.
    exact = all(bool((one == 1).all()) for one in kept)
    return 0.0 if exact else float(np.mean(1 / np.concatenate(kept)))


def _short(value: Any) -> str:
    if isinstance(value, Settings):
        usual = asdict(Settings())
        said = {k: v for k, v in asdict(value).items() if v != usual[k]}
        return f"Settings({', '.join(f'{k}={v!r}' for k, v in said.items())})"
    text = repr(value)
    return text if len(text) <= 40 else f"<{type(value).__name__}>"
