"""What an attacker was given: the threat model, as data."""

from typing import Any

from tinyleak.client.client import Client
from tinyleak.client.facts import Fact


def knows(client: Client, labels: Fact, defenses: Fact | None = None) -> dict[str, Fact]:
    """Return what is known of a client by whoever attacks it, by topic.

    Args:
        client: who is attacked.
        labels: what is known of its labels.
        defenses: what is known of its defences; None if nothing.
    """
    network = type(client.network).__name__.lower()
    gradient = "one gradient" if client.steps == 1 else f"{client.steps} local steps together"
    return {
        "weights": Fact("all", "said"),
        "architecture": Fact(network, client.facts.get("network", _SAID).source),
        "activation": client.facts.get(
            "activation", Fact(getattr(client.model, "activation", None), "said")
        ),
        "batch size": Fact(client.batch, client.facts.get("batch", _SAID).source),
        "labels": labels,
        "loss": client.loss.fact,
        "steps": client.facts.get("steps", Fact(gradient, "said")),
        "pixels": client.facts.get("normalisation", Fact("in [0, 1], as they are", "assumed")),
        "defences": defenses or Fact("none", "assumed"),
        **{topic: client.facts[topic] for topic in ("weight decay",) if topic in client.facts},
    }


_SAID = Fact("", "said")


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
