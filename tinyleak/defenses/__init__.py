"""What a client may do to its gradient before sharing it, and what an attacker who knows can use.

A defence is a function of named gradients. It is written as text, `prune:0.2` or `dpsgd:1.0,0.5`,
and several are applied one after the other:

    defenses = [parse("prune:0.2"), parse("gaussian:1e-3")]
    shared = protect(defenses, gradients, numpy.random.default_rng(0))
    known = knowledge(defenses, shared)  # what an `Attacker(defenses=defenses)` uses

Deep Leakage from Gradients (Zhu, Liu, Han 2019), section 5, tries noise, half precision, int8 and
pruning; clipping with noise is that of DP-SGD (Abadi et al. 2016, algorithm 1).

Lesson: lessons/12_defences.py
"""

import math
from dataclasses import fields

from tinyleak.defenses.aware import Knowledge, knowledge
from tinyleak.defenses.clipping import DPSGD, Clip
from tinyleak.defenses.defense import Defense, Gradients, as_defenses, need_examples, protect
from tinyleak.defenses.noise import Gaussian, Laplacian
from tinyleak.defenses.pruning import Prune, PruneGlobal
from tinyleak.defenses.rounding import BFloat16, Float16, Int8, Int8Affine

__all__ = [
    "DEFENSES",
    "DPSGD",
    "FORMS",
    "BFloat16",
    "Clip",
    "Defense",
    "Float16",
    "Gaussian",
    "Gradients",
    "Int8",
    "Int8Affine",
    "Knowledge",
    "Laplacian",
    "Prune",
    "PruneGlobal",
    "as_defenses",
    "knowledge",
    "need_examples",
    "parse",
    "protect",
]

FORMS = (
    *("gaussian:VARIANCE", "laplacian:VARIANCE", "float16", "bfloat16", "int8", "int8-affine"),
    *("prune:FRACTION", "prune-global:FRACTION", "clip:NORM", "dpsgd:NORM,NOISE"),
)
"""How defences are written, for help and messages."""

DEFENSES: dict[str, type[Defense]] = {
    defense.name: defense
    for defense in (
        *(Gaussian, Laplacian, Float16, BFloat16, Int8, Int8Affine),
        *(Prune, PruneGlobal, Clip, DPSGD),
    )
}
"""Every defence by its name."""


def parse(text: str) -> Defense:
    """Return the defence that is written as `name` or `name:strength`, such as `prune:0.2`.

    An unknown name is a ValueError, and so is a strength missing, superfluous or out of range.
    """
    name, _, strength = text.strip().partition(":")
    if name not in DEFENSES:
        raise ValueError(f"defence {text!r} is unknown; choose from {', '.join(FORMS)}")
    wanted = len(fields(DEFENSES[name]))
    try:
        numbers = [float(part) for part in strength.split(",")] if strength else []
    except ValueError:
        numbers = [math.nan] * (wanted + 1)
    form = next(form for form in FORMS if form.partition(":")[0] == name)
    if len(numbers) != wanted:
        raise ValueError(f"defence {text!r} cannot be read; write it as {form}")
    try:
        return DEFENSES[name](*numbers)
    except ValueError as error:
        raise ValueError(f"defence {text!r} is out of range: {error}") from None
