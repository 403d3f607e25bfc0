"""The attacks of a sweep: every combination of what was asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product

from tinyleak.attacks import Settings
from tinyleak.data import Dataset
from tinyleak.defenses import Defense, parse
from tinyleak.nn.models import Network
from tinyleak.sweep.request import UNDEFENDED, Request


def parse_strengths(text: str) -> list[tuple[Defense, ...]]:
    """Return the defences that a text stands for, each a tuple of steps that follow one another.

    `gaussian:1e-4/1e-3` is one defence at two strengths, `prune:0.2+gaussian:1e-3` is one of two
    steps, and `none` is one without any. Strengths of several steps make every combination.

    Raises:
        ValueError: a step that is no defence.
    """
    if text == UNDEFENDED:
        return [()]
    choices = []
    # A plus before a letter: the one in 1e+3 joins nothing.
    for step in re.split(r"\+(?=[a-z])", text):
        name, colon, strengths = step.partition(":")
        choices.append([parse(f"{name}{colon}{strength}") for strength in strengths.split("/")])
    return list(product(*choices))


def grid(
    dataset: Dataset,
    models: Sequence[Network],
    *,
    defenses: Sequence[tuple[Defense, ...]] = ((),),
    attackers: Sequence[str] = ("naive",),
    images: Sequence[int] = (0,),
    batches: Sequence[int] = (1,),
    schemes: Sequence[str] = ("uniform",),
    label_modes: Sequence[str] = ("optimise",),
    seeds: Sequence[int] = (0,),
    restarts: int = 1,
    settings: Settings | None = None,
    device: str = "cpu",
    keep_images: bool = False,
) -> list[Request]:
    """Return an attack for every combination, each of them once.

    Without a defence an aware attacker knows no more than a naive one, and is left out.

    Args:
        dataset: where the images come from.
        models: networks that fit its images and classes.
        defenses: as `Request.defenses`; see `parse_strengths`.
        attackers: as `Request.attacker`.
        images: the index of the first image of each batch.
        batches: how many images, from there on.
        schemes: as `Request.scheme`.
        label_modes: as `Request.label_mode`.
        seeds: as `Request.seed`.
        restarts: as `Request.restarts`.
        settings: of all attacks.
        device: of all attacks.
        keep_images: whether the results bring the reconstructions along.

    Raises:
        ValueError: an image that the data does not hold, or what `Request` refuses.
    """
    sizes = list(product(images, batches))
    for image, batch in sizes:
        if image + batch > len(dataset):
            raise ValueError(
                f"image {image} with a batch of {batch} asks for image {image + batch - 1}, but "
                f"data {dataset.name!r} holds images 0 to {len(dataset) - 1}; lower one of them"
            )
    # The same arrays serve all requests for them.
    batched = {(image, batch): dataset.batch(range(image, image + batch)) for image, batch in sizes}
    requests = [
        Request(
            dataset.name,
            image,
            *batched[image, batch],
            model,
            scheme,
            seed,
            restarts,
            label_mode,
            steps,
            attacker,
            settings or Settings(),
            device,
            keep_images,
        )
        for steps, attacker, model, scheme, label_mode, batch, image, seed in product(
            defenses, attackers, models, schemes, label_modes, batches, images, seeds
        )
        if steps or attacker == "naive" or "naive" not in attackers
    ]
    return list({request.id: request for request in requests}.values())
