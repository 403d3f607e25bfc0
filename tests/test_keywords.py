"""One vocabulary: the same word for the same thing in every call, and no word that is not known."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from tinyleak import audit, nn, text
from tinyleak.attacks import Attacker, Settings, attack, attack_many
from tinyleak.client import Client, LocalSteps, share, simulate
from tinyleak.nn import LeNet

MODEL = LeNet((1, 8, 8), classes=4, hidden=2)
IMAGES = np.full((1, 1, 8, 8), 0.5)
CLIENT, TRUTH = simulate(MODEL, IMAGES, [2], seed=0)
TEXT_CLIENT, TEXT_TRUTH = text.simulate_text("We ate it.")

CALLS: dict[str, Callable[..., Any]] = {
    "attack": lambda **k: attack(CLIENT, **k),
    "attack in parts": lambda **k: attack(MODEL, CLIENT.params, CLIENT.gradients, **k),
    "attack_many": lambda **k: attack_many([CLIENT], **k),
    "Attacker": Attacker,
    "Settings": Settings,
    "Settings.paper": Settings.paper,
    "LocalSteps": LocalSteps,
    "simulate": lambda **k: simulate(MODEL, IMAGES, [2], **k),
    "share": lambda **k: share(MODEL, CLIENT.params, IMAGES, [2], **k),
    "Client.of": lambda **k: Client.of(MODEL, CLIENT.params, CLIENT.gradients, **k),
    "Client.from_files": lambda **k: Client.from_files("w.npz", "g.npz", **k),
    "audit": lambda **k: audit.audit(CLIENT, **k),
    "audit_text": lambda **k: audit.audit_text(TEXT_CLIENT, **k),
    "train": lambda **k: nn.train(MODEL, IMAGES, [2], **k),
    "simulate_text": lambda **k: text.simulate_text("We ate it.", **k),
    "TextClient.from_files": lambda **k: text.TextClient.from_files("w.npz", "g.npz", **k),
    **{f"text.attack {m}": lambda m=m, **k: text.attack(TEXT_CLIENT, m, **k) for m in text.METHODS},
}


@pytest.mark.parametrize("word", ["iteration", "callback", "init_scheme", "n_restarts"])
@pytest.mark.parametrize("name", CALLS)
def test_a_word_that_is_not_known_is_refused(name: str, word: str) -> None:
    with pytest.raises(TypeError, match=rf"{word}\b.*(choose|takes)|unexpected .*'{word}'"):
        CALLS[name](**{word: 3})


OTHER_WORDS = {
    **{"label": "labels", "callback": "on_progress", "on_step": "on_progress", "scheme": "init"},
    **{"starts": "restarts", "n_restarts": "restarts", "max_iterations": "iterations"},
    **{"optimizer": "optimiser", "batch_size": "batch", "rate": "learning_rate"},
    **{"steps_local": "local", "local_steps": "local", "defences": "defenses", "random": "seed"},
    **{"inits": "init", "weights": "params", "parameters": "params", "grads": "gradients"},
}
"""What a word is called instead, wherever there is such a thing."""


@pytest.mark.parametrize(
    "call",
    [
        *(attack, attack_many, simulate, share, Client.of, audit.audit, nn.train),
        *(text.attack, text.simulate_text, text.share_text, *text.METHODS.values()),
    ],
    ids=lambda call: call.__qualname__,
)
def test_one_thing_has_one_name(call: Callable[..., Any]) -> None:
    for name in inspect.signature(call).parameters:
        assert name not in OTHER_WORDS, f"say {OTHER_WORDS.get(name)}"


def test_what_an_attack_knows_is_called_as_its_client_has_it() -> None:
    named = {field.name for kind in (Attacker, Settings) for field in fields(kind)}
    assert not named & set(OTHER_WORDS)
    shared = inspect.signature(share).parameters
    assert {"dtype", "defenses", "local"} <= set(shared)
    assert {"dtype", "defenses", "local", "seed", "init"} <= set(
        inspect.signature(simulate).parameters
    )
    assert {"seed", "start", "on_progress"} <= set(inspect.signature(text.attack).parameters)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attack(CLIENT, attacker=Attacker(), seed=3), "say all of it in one place"),
        (lambda: attack_many([CLIENT], seed=3, seeds=[1]), "give seeds alone"),
        (lambda: attack(CLIENT, seed=1.5), "seeds are whole numbers from 0 on"),
        (lambda: attack(CLIENT, seed="3"), "seeds are whole numbers from 0 on"),
        (lambda: text.attack(TEXT_CLIENT, seed="3"), "seeds are whole numbers from 0 on"),
        (lambda: attack(CLIENT, settings={"iterations": 3}), r"give tinyleak.Settings\("),
        (lambda: attack(CLIENT, defenses=["prune:0.2"]), "was given as defences; give a list"),
        (lambda: simulate(MODEL, IMAGES, [2], defenses="float16"), "was given as defences"),
        (lambda: text.attack(CLIENT), "text.attack was given a Client; give a TextClient"),
        (lambda: attack(TEXT_CLIENT), "attack was given a TextClient alone; give a Client"),
        (lambda: audit.audit(TEXT_CLIENT), "a TextClient was given without weights.*audit_text"),
        (lambda: audit.audit_text(CLIENT), "audit_text was given a Client; give a TextClient"),
        (lambda: TRUTH.judge(3), "an int was given to be judged; give what attack returned"),
        (lambda: CLIENT.explain(TEXT_TRUTH), "a TextTruth was given to be judged"),
        (lambda: TEXT_TRUTH.judge(CLIENT), "a Client was given to be judged; give what text.att"),
        (lambda: text.explain(CLIENT), "a Client was given to be judged; give what text.attack"),
    ],
)
def test_what_is_given_in_the_wrong_place_is_refused_in_a_sentence(
    call: Callable[[], object], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        call()


def test_labels_are_a_list_for_each_client() -> None:
    with pytest.raises(ValueError, match=r"labels of shape \(\) were given for a batch of 1"):
        attack_many([CLIENT], labels=[2])
