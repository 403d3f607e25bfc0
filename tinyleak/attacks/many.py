"""One call of the attack: problems in, stacked for the device; reconstructions out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from tinyleak.analytic import LayerGradient, infer_labels
from tinyleak.attacks.evaluate import Evaluator
from tinyleak.attacks.least_squares.solver import MOST_ITERATIONS, refine_all, start_alone
from tinyleak.attacks.result import Frame, Progress, Reconstruction, Stages
from tinyleak.attacks.settings import OUTER_STEP, Method, Settings
from tinyleak.backend import Array, device_module, to_device, to_numpy
from tinyleak.client.local import LocalSteps
from tinyleak.nn.losses import one_hot
from tinyleak.nn.model import Model, require_fit
from tinyleak.optim import State, lbfgs
from tinyleak.tensor import Tensor

SATURATED_PIXEL = 20.0
"""Dummy pixels beyond this size (data has them in [0, 1]) have left what the network can tell."""


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


class Run:
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
        method: Method,
        local: LocalSteps | None = None,
        images: Array | None = None,
    ) -> None:
        self.began = time.perf_counter()
        if batch < 1 or restarts < 1:
            raise ValueError(
                f"a batch of {batch} and {restarts} restarts were asked for; give 1 or more"
            )
        if method not in get_args(Method):
            raise ValueError(
                f"method {method!r} is unknown; choose one of {', '.join(get_args(Method))}"
            )
        if method != "lbfgs" and device != "cpu":
            raise ValueError(f"method {method} runs on the cpu alone, not on {device!r}")
        self.method = method
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
            local,
        )
        free = labels is None
        self.start = np.concatenate(
            [starting_point(model, batch, seed, restarts, with_labels=free) for seed in seeds]
        )
        self.images = None if images is None else _first(images, (batch, *model.image_shape))

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
        histories: list[list[float]] = [[] for _ in self.start]
        stages = Stages()
        state = None
        interrupted = False
        try:
            for state in self._states():
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

    def _states(self) -> Iterator[State]:
        """Yield where all attacks are, as the method moves them."""
        settings = self.settings
        if self.method == "levenberg-marquardt":
            state = start_alone(self.evaluator, self.start)
            if self.images is not None:
                state.x[0, : self.images.size] = self.images
        else:
            if self.images is not None:
                self.start[0, : self.images.size] = self.images
            searches = settings.line_search == "strong-wolfe"
            for state in lbfgs(
                self.evaluator,
                to_device(self.start.astype(settings.dtype), self.module),
                line_search=settings.line_search,
                history=settings.history,
                max_iterations=settings.iterations * (1 if searches else OUTER_STEP),
                inner_iterations=OUTER_STEP,
                goal=settings.goal,
            ):
                yield state
        if self.method != "lbfgs":
            most = min(settings.iterations, MOST_ITERATIONS)
            yield from refine_all(
                self.evaluator, state, self.restarts, max_iterations=most, goal=settings.goal
            )

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


def _first(images: Any, shape: tuple[int, ...]) -> Array:
    """Return images to start from as one row of numbers, after a check."""
    found = np.asarray(to_numpy(images), dtype=float)
    if found.shape != shape or not np.isfinite(found).all():
        what = f"of shape {found.shape}" if found.shape != shape else "that are not all finite"
        raise ValueError(
            f"images {what} were given to start from; the attack needs finite ones, {shape}"
        )
    return found.ravel()


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
    layers = [LayerGradient.last(model, one, g, batch) for one, g in pairs]
    return [infer_labels(layer).labels.tolist() for layer in layers]


def _require_weights(model: Model, precision: Mapping[str, Array]) -> None:
    require_fit(model, precision, "precisions")
    if any(bool((array < 0).any()) for array in precision.values()):
        raise ValueError("a precision is negative; give 0 or more for each entry of the gradient")


def _targets(model: Model, batch: int, labels: Sequence[int]) -> Array:
    if len(labels) != batch:
        raise ValueError(f"{len(labels)} labels were given for a batch of {batch}; give one each")
    return one_hot(np.asarray(labels), model.classes)
