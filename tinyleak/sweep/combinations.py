"""The attacks of a sweep: every combination of what was asked for."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import product
from typing import Any

from tinyleak.attacks import Attacker, Settings
from tinyleak.client import Truth
from tinyleak.data import Dataset
from tinyleak.defenses import Defense, parse
from tinyleak.nn.models import Network
from tinyleak.nn.models.exported import Exported
from tinyleak.sweep.request import UNDEFENDED, Request

ATTACKERS = ("naive", "aware")
LABELS = ("optimise", "infer", "known")


def parse_strengths(text: str) -> list[tuple[Defense, ...]]:
    """Return the defences that a text names, each a tuple of steps that follow one another.

    `gaussian:1e-4/1e-3` is one defence at two strengths, `prune:0.2+gaussian:1e-3` is one of two
    steps, and `none` is one without any. Strengths of several steps make every combination. A step
    that does not name a defence is a ValueError.
    """
    if text == UNDEFENDED:
        return [()]
    choices = []
    # A plus before a letter: the one in 1e+3 joins nothing.
    for step in re.split(r"\+(?=[a-z])", text):
        name, colon, strengths = step.partition(":")
        choices.append([parse(f"{name}{colon}{strength}") for strength in strengths.split("/")])
    return list(product(*choices))


def parse_numbers(least: int) -> Callable[[str], range]:
    """Return what parses a whole number of `least` or more, or a range of them such as 0-9."""

    def parse(text: str) -> range:
        first, dash, last = text.partition("-")
        with suppress(ValueError):
            numbers = range(int(first), int(last if dash else first) + 1)
            if numbers and numbers[0] >= least:
                return numbers
        raise ValueError(
            f"{text!r} was given; write a whole number of {least} or more, or a range of them "
            "such as 0-9"
        )

    return parse


def grid(
    dataset: Dataset,
    models: Sequence[Network | Exported],
    *,
    defenses: Sequence[tuple[Defense, ...]] = ((),),
    attackers: Sequence[str] = ("naive",),
    images: Sequence[int] = (0,),
    batches: Sequence[int] = (1,),
    inits: Sequence[str] = ("uniform",),
    labels: Sequence[str] = ("optimise",),
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
        defenses: each what a client does to its gradient, in order; see `parse_strengths`.
        attackers: "naive", or "aware" if it knows the defences and uses that.
        images: the index of the first image of each batch.
        batches: how many images, from there on.
        inits: how weights are drawn, each one of `tinyleak.nn.init.SCHEMES`.
        labels: how an attacker comes to the labels: "optimise" them with the images, "infer" them
            from the shared gradient, or "known" to it.
        seeds: each decides the weights, the defence's noise and the attack's start.
        restarts: how many starts of each attack are run side by side.
        settings: of all attacks.
        device: of all attacks.
        keep_images: whether the results bring the reconstructions along.

    Raises:
        ValueError: an image that the data does not hold, an unknown attacker or way to the labels,
            or defences out of order.
    """
    for what, names, known in (("labels", labels, LABELS), ("attacker", attackers, ATTACKERS)):
        for name in names:
            if name not in known:
                raise ValueError(f"{what} {name!r} is unknown; choose one of {', '.join(known)}")
    # The same arrays serve all requests for them.
    sizes = product(images, batches)
    truths = {size: Truth(*dataset.consecutive(*size)) for size in sizes}
    knowledge: dict[str, Any] = {"optimise": None, "infer": "infer"}
    requests = [
        Request(
            dataset.name,
            image,
            truths[image, batch],
            model,
            Attacker(
                labels=knowledge.get(way, truths[image, batch].labels),
                defenses=steps if attacker == "aware" else (),
                seed=seed,
                restarts=restarts,
                # As in the paper, unless the network is one's own, for which it seldom arrives.
                start="auto" if isinstance(model, Exported) else "noise",
                settings=settings or Settings(),
                device=device,
            ),
            init,
            steps,
            keep_images,
        )
        for steps, attacker, model, init, way, batch, image, seed in product(
            defenses, attackers, models, inits, labels, batches, images, seeds
        )
        if steps or attacker == "naive" or "naive" not in attackers
    ]
    return list({request.id: request for request in requests}.values())
