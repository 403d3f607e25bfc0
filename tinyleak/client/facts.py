"""What is known of a client, and how: said, read off, or assumed. To an attacker: the threat model.

Nothing else may be claimed of a client. What was said can be wrong, what was read off follows from
the gradient's structure, and what is assumed is only the usual.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from tinyleak.analytic.premises import Premises
from tinyleak.interop import quoted
from tinyleak.nn.models.exported import Exported

SHOWN = 0.005  # probabilities below it are left out where soft labels are written down

Source: TypeAlias = Literal["said", "read off", "assumed"]


MOST_NAMES, MOST_TARGETS = 4, 10  # how many names of tensors a line shows, and how many targets


@dataclass(frozen=True)
class Fact:
    """One thing known of a client."""

    value: Any  # what it is
    source: Source  # how that is known
    # A clause that says more: by whom it was said, what it was read off, or why it could not be.
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.value}, {self.source}" + (f" ({self.detail})" if self.detail else "")


def activation_fact(name: str, allowed: Sequence[str], *, steps: int = 1) -> Fact:
    """Return what is known of a network's activation, of which a gradient allows some.

    The mean of several steps is no gradient, so that it only makes one likely.
    """
    if not allowed:
        return Fact(name, "assumed", "the gradient does not tell")
    if steps > 1:
        return Fact(name, "assumed", f"the likeliest; {steps} steps do not tell")
    if len(allowed) == 1:
        return Fact(name, "read off", "no other makes such features and gradients")
    return Fact(name, "assumed", f"one of {', '.join(allowed)}")


def facts_of_exported(model: Exported) -> dict[str, Fact]:
    """Return what an exported network itself says, as facts by topic."""
    facts = {"network": Fact(f"{model.name}, with its activations", "said", "by its file")}
    if model.masks and all((mask == 1.0).all() for mask in model.masks.values()):
        why = "no zeros in what linear layers were given"
        facts["dropout"] = Fact("off, though it was exported with it", "read off", why)
    elif model.masks:
        text = f"{len(model.masks)} masks of dropout"
        facts["dropout"] = Fact(text, "read off", "zeros in what linear layers were given")
    elif "dropout" in model.training:
        facts["dropout"] = Fact("off, though it was exported with it", "assumed", "no mask is told")
    if "batch norm" in model.training:
        facts["batch norm"] = Fact("by the batch's own statistics", "said", "by its file")
    return facts


def facts_of(read: Premises, normalize: Any) -> dict[str, Fact]:
    """Return what a gradient shows beyond the usual, as facts by topic.

    Args:
        read: what was read off it.
        normalize: what was said of the images' normalisation, or None.
    """
    facts = {}
    if read.decay:
        facts["weight decay"] = Fact(
            f"{read.decay:.3g} times the weights, taken off", "read off", "the last layer's rows"
        )
    told = normalize or read.normalisation
    if told is not None:
        mean, std = (" ".join(f"{number:.4g}" for number in numbers) for numbers in told)
        how: Source = "said" if normalize else "read off"
        where = "" if normalize else "the first layer's input"
        facts["normalisation"] = Fact(
            f"pixels normalised by mean {mean}, standard deviation {std}", how, where
        )
    targets = None if read.targets is None or read.loss is None else read.targets[0]
    if targets is not None and sorted(targets)[-2:] != [0.0, 1.0]:
        facts["targets"] = Fact(_listed(targets), "read off", "the last layer's gradient")
    return facts


def _listed(numbers: Any) -> str:
    """Return the larger of some probabilities, or other numbers, each after its label."""
    order = np.argsort(-np.abs(numbers), kind="stable")
    seen = [f"{k}: {numbers[k]:.3g}" for k in order if abs(numbers[k]) > SHOWN]
    rest = len(seen) - MOST_TARGETS
    return ", ".join(seen[:MOST_TARGETS]) + (f" and {rest} more" if rest > 0 else "")


def listed(names: Sequence[str]) -> str:
    """Return names of tensors as a list that fits a line: "'a', 'b' and 5 more"."""
    rest = len(names) - MOST_NAMES
    text = ", ".join(quoted(name)[1:-1] for name in names[:MOST_NAMES])
    return text if rest <= 0 else f"{text} and {rest} more"


def knows(client: Any, labels: Fact, defenses: Fact | None = None) -> dict[str, Fact]:
    """Return what is known of a client by whoever attacks it, by topic.

    Args:
        client: who is attacked, a `tinyleak.Client`.
        labels: what is known of its labels.
        defenses: what is known of its defences; None if nothing.
    """
    usual = Fact("", "said")
    network = type(client.network).__name__.lower()
    gradient = "one gradient" if client.steps == 1 else f"{client.steps} local steps together"
    return {
        "weights": Fact("all", "said"),
        "architecture": Fact(network, client.facts.get("network", usual).source),
        "activation": client.facts.get(
            "activation", Fact(getattr(client.model, "activation", None), "said")
        ),
        "batch size": Fact(client.batch, client.facts.get("batch", usual).source),
        "labels": labels,
        "loss": client.loss.fact,
        "steps": client.facts.get("steps", Fact(gradient, "said")),
        "pixels": client.facts.get("normalisation", Fact("in [0, 1], as they are", "assumed")),
        "defences": defenses or Fact("none", "assumed"),
        **{topic: client.facts[topic] for topic in ("weight decay",) if topic in client.facts},
    }


def as_data(known: dict[str, Fact]) -> dict[str, dict[str, Any]]:
    """Return facts as JSON has them."""
    return {
        topic.replace(" ", "_"): {"value": fact.value, "source": fact.source, "detail": fact.detail}
        for topic, fact in known.items()
    }


def in_one_line(known: dict[str, Fact]) -> str:
    """Return facts in one line, by how they are known."""
    parts = []
    for source in ("said", "read off", "assumed"):
        topics = [topic for topic, fact in known.items() if fact.source == source]
        if topics:
            parts.append(f"{source}: {', '.join(topics)}")
    return "; ".join(parts)
