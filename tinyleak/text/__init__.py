"""Attacks on text: the sentences of a client, out of the gradient of a language model.

    client, truth = simulate_text("The old man closed the door.")
    found = attack(client, method="span")
    print(found.sentences, truth.judge(found).succeeded)

A client that is known by its files has no truth; then the gradient judges what was found:

    client = TextClient.from_files("weights.safetensors", "gradients.safetensors", "vocab.txt")
    print(explain(attack(client)).succeeded)
"""

from tinyleak.text.client import TextClient, known_client, masked_count
from tinyleak.text.files import read_language_model
from tinyleak.text.methods import DEFAULT, INTERRUPTED, METHODS, attack, keywords_of
from tinyleak.text.result import FoundText, OnProgress, Snapshot, TextOutcome, TextTruth, explain
from tinyleak.text.simulated import masked_gradients, share_text, simulate_text
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
    "explain",
    "keywords_of",
    "known_client",
    "masked_count",
    "masked_gradients",
    "read_language_model",
    "share_text",
    "simulate_text",
    "train",
]
