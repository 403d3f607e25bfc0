"""Attacks on text: the sentences of a client, out of the gradient of a language model.

client, truth = simulate_text("The old man closed the door.")
found = attack(client, method="span")
print(found.sentences, truth.judge(found).succeeded)

client = TextClient.from_files("weights.safetensors", "gradients.safetensors", "vocab.txt")
print(attack(client).sentences)
"""

from tinyleak.text.client import (
    TextClient,
    known_client,
    masked_count,
    read_language_model,
)
from tinyleak.text.methods import DEFAULT, INTERRUPTED, METHODS, attack, keywords_of
from tinyleak.text.result import FoundText, OnProgress, Snapshot, TextOutcome, TextTruth
from tinyleak.text.row_space import membership
from tinyleak.text.simulated import choose_hidden, share_text, simulate_text
from tinyleak.text.training import train

__all__ = [
    "DEFAULT",
    "INTERRUPTED",
    "METHODS",
    "FoundText",
    "OnProgress",
    "Snapshot",
    "TextClient",
    "TextOutcome",
    "TextTruth",
    "attack",
    "choose_hidden",
    "keywords_of",
    "known_client",
    "masked_count",
    "membership",
    "read_language_model",
    "share_text",
    "simulate_text",
    "train",
]
