"""Deep Leakage from Gradients: the attack.

Zhu, Liu and Han (NeurIPS 2019), algorithm 1: start from noise, and minimise the distance between
the gradient that the dummy makes and the gradient that was shared. What comes out is the data.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from tinyleak.attack.evaluate import Evaluator
from tinyleak.attack.labels import infer_labels
from tinyleak.attack.matching import Model, require_fit
from tinyleak.attack.result import Frame, Progress, Reconstruction, Stages
from tinyleak.backend import Array, device_module, to_device, to_numpy
from tinyleak.nn.losses import one_hot
from tinyleak.optim import LineSearch, State, lbfgs
from tinyleak.tensor import Tensor

OUTER_STEP = 20
"""How many iterations an outer step of L-BFGS has without a line search, as in PyTorch."""

SATURATED_PIXEL = 20.0
"""Dummy pixels beyond this size (data has them in [0, 1]) have left what the network can tell."""


@dataclass(frozen=True)
class Settings:
    """How the attack is run.

    Attributes:
        iterations: L-BFGS iterations at most; without a line search, outer steps of 20.
        line_search: "strong-wolfe" or "none".
        history: how many steps L-BFGS remembers.
        dtype: "float64" or "float32".
        scale_free: divide the distance by the squared norm of the shared gradient, so that
            neither the network's nor the loss's scale decides when the attack stops.
        goal: the distance at which the attack is satisfied.
        compiled: replay a traced program instead of running the engine eagerly.
        direction: match the direction of the shared gradient, whatever its length: the client may
            have scaled it.
        smoothness: β, how strongly smooth images are preferred, as by a prior exp(−β · total
            variation) beside noise of variance 1 / precision; 0 is not at all.
    """

    iterations: int = 2000
    line_search: LineSearch = "strong-wolfe"
    history: int = 100
    dtype: str = "float64"
    scale_free: bool = True
    goal: float = 1e-20
    compiled: bool = True
    direction: bool = False
    smoothness: float = 0.0

    def __post_init__(self) -> None:
        if self.dtype not in ("float64", "float32"):
            raise ValueError(f"dtype {self.dtype!r} is unknown; choose float64 or float32")
        if self.iterations < 0:
            raise ValueError(f"{self.iterations} iterations were asked for; give 0 or more")
        if not 0 <= self.smoothness < math.inf:
            raise ValueError(f"a smoothness of {self.smoothness} was asked for; give 0 or more")

    @classmethod
    def paper(cls, **changes: Any) -> Settings:
        """Return the paper's recipe: raw distance, float32, no line search, 300 outer steps."""
        recipe = cls(300, "none", dtype="float32", scale_free=False, goal=-np.inf)
        return replace(recipe, **changes)


def attack(
    model: Model,
    params: Mapping[str, Array],
    shared: Mapping[str, Array],
    *,
    batch: int = 1,
    labels: Sequence[int] | Literal["infer"] | None = None,
    precision: Mapping[str, Array] | None = None,
    seed: int = 0,
    restarts: int = 1,
    settings: Settings | None = None,
    device: str = "cpu",
    on_progress: Callable[[Progress], None] | None = None,
) -> Reconstruction:
    """Reconstruct a client's batch from the gradient it shared.

    Args:
        model: the network that the client trained.
        params: its weights, by name.
        shared: the gradient of the mean cross-entropy over the batch, by name.
        batch: N, how many images it was computed from.
        labels: the N labels if they are known, or "infer" to read them off the last layer's
            gradient first (see `infer_labels`); otherwise they are found with the images.
        precision: what the squared difference of each entry is multiplied with, by name: 0 where
            the shared gradient says nothing, 1 / variance where noise was added.
        seed: decides the noise that the attack starts from.
        restarts: how many starts to run, as one batch; the one that ends nearest is returned.
        settings: how to run it; by default what succeeds most.
        device: "cpu" or "cuda".
        on_progress: called after each iteration.

    Returns:
        What was found. An interrupt (Ctrl-C) ends the attack early and keeps what it has.

    Raises:
        ValueError: params or shared do not fit the model or are not finite; a label out of range;
            a batch or number of restarts below 1; an unknown setting or device.
    """
    run = _Run(
        model,
        [params],
        [shared],
        batch,
        labels if labels is None or isinstance(labels, str) else [labels],
        None if precision is None else [precision],
        [seed],
        restarts,
        settings or Settings(),
        device,
    )
    return run.reconstruct(on_progress)[0]


def attack_many(
    model: Model,
    params: Sequence[Mapping[str, Array]],
    shared: Sequence[Mapping[str, Array]],
    *,
    batch: int = 1,
    labels: Sequence[Sequence[int]] | Literal["infer"] | None = None,
    precision: Sequence[Mapping[str, Array]] | None = None,
    seeds: Sequence[int] | None = None,
    restarts: int = 1,
    settings: Settings | None = None,
    device: str = "cpu",
    on_progress: Callable[[Progress], None] | None = None,
) -> list[Reconstruction]:
    """Attack many clients at once, as one program; each stops by itself.

    Args:
        model: the network that all of them trained.
        params: each client's weights.
        shared: the gradient that each shared.
        batch: N, how many images each was computed from.
        labels: each client's N labels, if they are known, or "infer".
        precision: for each client, as for `attack`.
        seeds: one for each client; by default 0, 1, 2, …
        restarts: how many starts to run for each.
        settings: as for `attack`.
        device: as for `attack`.
        on_progress: called after each step of the whole batch, with the nearest attack's progress.

    Returns:
        What was found of each client, as `attack` returns it, but without frames.

    Raises:
        ValueError: as `attack`; or the sequences differ in length.
    """
    count = len(params)
    seeds = range(count) if seeds is None else seeds
    given = {"weights": count, "gradients": len(shared), "seeds": len(seeds)}
    if labels is not None and not isinstance(labels, str):
        given["lists of labels"] = len(labels)
    if precision is not None:
        given["precisions"] = len(precision)
    if set(given.values()) != {count} or count == 0:
        counts = ", ".join(f"{length} {what}" for what, length in given.items())
        raise ValueError(f"attack_many was given {counts}; give one of each for every client")
    settings = settings or Settings()
    run = _Run(model, params, shared, batch, labels, precision, seeds, restarts, settings, device)
    return run.reconstruct(on_progress)


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


class _Run:
    """One call of the attack: its problems, stacked victim by victim, restart by restart."""

    def __init__(
        self,
        model: Model,
        params: Sequence[Mapping[str, Array]],
        shared: Sequence[Mapping[str, Array]],
        batch: int,
        labels: Sequence[Sequence[int]] | Literal["infer"] | None,
        precision: Sequence[Mapping[str, Array]] | None,
        seeds: Sequence[int],
        restarts: int,
        settings: Settings,
        device: str,
    ) -> None:
        self.began = time.perf_counter()
        if batch < 1 or restarts < 1:
            raise ValueError(
                f"a batch of {batch} and {restarts} restarts were asked for; give 1 or more"
            )
        self.module = device_module(device)
        self.model, self.settings = model, settings
        self.restarts, self.victims = restarts, len(params)
        for one in params:
            require_fit(model, one, "weights")
        for one in shared:
            require_fit(model, one, "gradients")
        for one in precision or ():
            _require_weights(model, one)
        weights = [
            self._weight(one, None if precision is None else precision[victim])
            for victim, one in enumerate(shared)
        ]
        if isinstance(labels, str):
            labels = _infer(model, params, shared, batch, labels)
        targets = None if labels is None else [_targets(model, batch, one) for one in labels]
        self.evaluator = Evaluator(
            model,
            self._stack_all(params),
            self._stack_all(shared),
            batch,
            self._stack(weights),
            None if targets is None else self._stack(targets),
            settings.compiled,
            None if precision is None else self._stack_all(precision),
            settings.direction,
            settings.smoothness,
        )
        free = labels is None
        self.start = np.concatenate(
            [starting_point(model, batch, seed, restarts, with_labels=free) for seed in seeds]
        )

    def _stack(self, arrays: Sequence[Any]) -> Array:
        """Put one client's array on the device as it is, and many clients' with a leading axis."""
        kept = [np.asarray(array, dtype=self.settings.dtype) for array in arrays]
        stacked = kept[0] if len(kept) == 1 else np.repeat(np.stack(kept), self.restarts, axis=0)
        return to_device(stacked, self.module)

    def _stack_all(self, clients: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
        names = self.model.shapes
        return {name: self._stack([to_numpy(one[name]) for one in clients]) for name in names}

    def _weight(self, shared: Mapping[str, Array], precision: Mapping[str, Array] | None) -> float:
        if not self.settings.scale_free:
            return 1.0
        squared = 0.0
        for name, gradient in shared.items():
            squares = np.square(to_numpy(gradient), dtype=float)
            squared += float(np.sum(squares if precision is None else squares * precision[name]))
        if squared == 0.0:
            raise ValueError(
                "every shared gradient is zero, or has no precision, so nothing can be read from "
                "it; check that the client's backward pass was run"
            )
        return 1.0 / squared

    def reconstruct(self, on_progress: Callable[[Progress], None] | None) -> list[Reconstruction]:
        """Minimise, keep stages on the way, and return what the best restart of each found."""
        settings = self.settings
        histories: list[list[float]] = [[] for _ in self.start]
        stages = Stages()
        state = None
        interrupted = False
        searches = settings.line_search == "strong-wolfe"
        try:
            for state in lbfgs(
                self.evaluator,
                to_device(self.start.astype(settings.dtype), self.module),
                line_search=settings.line_search,
                history=settings.history,
                max_iterations=settings.iterations * (1 if searches else OUTER_STEP),
                inner_iterations=OUTER_STEP,
                goal=settings.goal,
            ):
                for history, value, iteration in zip(
                    histories, state.values, state.iterations, strict=True
                ):
                    if len(history) <= iteration:
                        history.append(float(value))
                best = _nearest(state.values)
                if self.victims == 1:
                    distance = float(state.values[best])
                    stages.add(int(state.iterations[best]), state.x[best], distance)
                if on_progress is not None:
                    on_progress(self._progress(state, best))
        except KeyboardInterrupt:
            if state is None:
                raise
            interrupted = True
        assert state is not None
        return [
            self._result(state, victim, histories, stages, interrupted)
            for victim in range(self.victims)
        ]

    def _progress(self, state: State, best: int) -> Progress:
        x = state.x
        return Progress(
            int(state.iterations[best]),
            float(state.values[best]),
            lambda: self._images(to_numpy(x[best])),
        )

    def _images(self, row: Array) -> Array:
        shape = (self.evaluator.batch, *self.evaluator.model.image_shape)
        return row[: math.prod(shape)].reshape(shape).astype(float)

    def _result(
        self,
        state: State,
        victim: int,
        histories: list[list[float]],
        stages: Stages,
        interrupted: bool,
    ) -> Reconstruction:
        mine = slice(victim * self.restarts, (victim + 1) * self.restarts)
        best = mine.start + _nearest(state.values[mine])
        row = state.x[best : best + 1]
        images = self._images(to_numpy(row[0]))
        matching = self.evaluator.matching(np.array([best]))
        soft_labels = matching.labels(Tensor(row)).numpy()[0]
        reason = state.reasons[best] or ("interrupted" if interrupted else "out of iterations")
        if reason != "interrupted" and np.median(np.abs(images)) > SATURATED_PIXEL:
            reason = "saturated"
        return Reconstruction(
            images=images,
            labels=np.argmax(soft_labels, axis=-1),
            soft_labels=soft_labels,
            distance=float(state.values[best]),
            distances=histories[best],
            frames=[Frame(i, self._images(x), v) for i, x, v in stages.kept],
            iterations=int(state.iterations[best]),
            evaluations=int(state.evaluations[mine].sum()),
            seconds=time.perf_counter() - self.began,
            reason=reason,
        )


def _nearest(distances: Array) -> int:
    """Return the place of the smallest distance; what is not a number is farthest."""
    return int(np.argmin(np.where(np.isfinite(distances), distances, np.inf)))


def _infer(
    model: Model,
    params: Sequence[Mapping[str, Array]],
    shared: Sequence[Mapping[str, Array]],
    batch: int,
    word: str,
) -> list[list[int]]:
    if word != "infer":
        raise ValueError(f'labels {word!r} were given; give N whole numbers, or "infer"')
    pairs = zip(params, shared, strict=True)
    return [infer_labels(model, one, g, batch).labels.tolist() for one, g in pairs]


def _require_weights(model: Model, precision: Mapping[str, Array]) -> None:
    require_fit(model, precision, "precisions")
    if any(bool((array < 0).any()) for array in precision.values()):
        raise ValueError("a precision is negative; give 0 or more for each entry of the gradient")


def _targets(model: Model, batch: int, labels: Sequence[int]) -> Array:
    if len(labels) != batch:
        raise ValueError(f"{len(labels)} labels were given for a batch of {batch}; give one each")
    return one_hot(np.asarray(labels), model.classes)
