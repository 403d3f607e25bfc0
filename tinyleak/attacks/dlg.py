"""Deep Leakage from Gradients: the attack.

Zhu, Liu and Han (NeurIPS 2019), algorithm 1: start from noise, and minimise the distance between
the gradient that the dummy makes and the gradient that was shared. What comes out is the data.

Lesson: lessons/08_deep_leakage.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from tinyleak.attacks.many import Run
from tinyleak.attacks.result import Progress, Reconstruction
from tinyleak.attacks.settings import Method, Settings
from tinyleak.backend import Array
from tinyleak.client.local import LocalSteps
from tinyleak.nn.model import Model


def attack(
    model: Model,
    params: Mapping[str, Array],
    shared: Mapping[str, Array],
    *,
    batch: int = 1,
    labels: Sequence[int] | Literal["infer"] | None = None,
    precision: Mapping[str, Array] | None = None,
    seed: int = 0,
    start: Array | None = None,
    restarts: int = 1,
    method: Method = "lbfgs",
    settings: Settings | None = None,
    device: str = "cpu",
    local: LocalSteps | None = None,
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
        start: (N, C, H, W), images that the first start has in place of noise, such as
            `tinyleak.attacks.recursion` reads off the gradient.
        restarts: how many starts to run, as one batch; the one that ends nearest is returned.
        method: "lbfgs"; "levenberg-marquardt", which solves for all pixels at once, takes memory
            for their Jacobian by the weights, and batches to the rounding error (restarts run one
            after the other, until one converges); or "lbfgs+levenberg-marquardt", the one to finish
            after the other.
        settings: how to run it; by default what succeeds most.
        device: "cpu" or "cuda".
        local: the steps of SGD that the client took, if it shared their outcome: then `shared` is
            (weights before − weights after) / learning rate.
        on_progress: called after each iteration.

    Returns:
        What was found. An interrupt (Ctrl-C) ends the attack early and keeps what it has.

    Raises:
        ValueError: params or shared do not fit the model or are not finite; a label out of range;
            a batch or number of restarts below 1; an unknown setting, method or
            device; images to start from of another shape; or Levenberg–Marquardt with local
            steps, or with a direction or smoothness in the settings.
    """
    run = Run(
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
        method,
        local,
        start,
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
    method: Method = "lbfgs",
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
        method: as for `attack`.
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
    run = Run(
        model,
        params,
        shared,
        batch,
        labels,
        precision,
        seeds,
        restarts,
        settings,
        device,
        method,
    )
    return run.reconstruct(on_progress)
