"""An audit as what audit.json holds."""

from dataclasses import asdict
from typing import Any

from tinyleak.audit.measured import Measured
from tinyleak.audit.words import SCOPE, headline


def as_dict(audit: Measured) -> dict[str, Any]:
    """Return the content of audit.json.

    - `expect`: the sentence that matters most, and `verdict`, the word for it: "shown" by one
      layer, "unknown" where something contradicts the assumptions, or the forecast's.
    - `causes`: what contradicts the assumptions, and is not accounted for.
    - `counting`: how many numbers the gradient has (`parameters`), how many of them are
      `independent`, and how many pixels are unknown.
    - `structure`, `saturation`: the findings, and the share of each activation's units that is
      flat.
    - `identifiability`: for each typical batch its rank and its singular values, descending;
      where `complete`, all of them; otherwise an estimate, with the share of the directions that
      each one represents in `shares`.
    - `prior_variance`: τ², the variance of a pixel before anything is shared.
    - `recovered_below`, `hidden_above`: variances of the noise below and above which the mean
      forecast is so.
    - `forecast`: for each variance of the noise on a number of the gradient the mean squared error
      of a pixel, its mean, `lowest` and `highest` over the batches; `noise` is whose it is:
      "float32 rounding", "the given gradient", or "asked for".
    - `gradient`: what was read off a shared gradient, or null: norms, the share of its numbers
      that is zero, the noise on it, the labels and why they may be wrong (`doubt`), and for each
      image how wrong the network is about it, ‖p − y‖, as `doubts`. If there is a gradient, the
      spectra and forecasts are for its images.
    - `rehearsals`: of each attack on a simulated client with a typical batch the mean squared error
      of a pixel, and the seconds that it took.
    - `scope`: what is taken for granted.
    """
    count, shared = audit.counting, audit.shared
    return {
        "expect": headline(audit),
        "verdict": audit.verdict,
        "causes": [] if shared is None else [asdict(cause) for cause in shared.causes],
        "counting": asdict(count) | {"unknowns": count.unknowns, "most_images": count.most_images},
        "structure": [asdict(finding) for finding in audit.findings],
        "saturation": [asdict(layer) for layer in audit.saturations],
        "identifiability": {
            "ranks": audit.ranks,
            "complete": [one.complete for one in audit.spectra],
            "singular_values": [one.values for one in audit.spectra],
            "shares": [None if one.complete else one.shares for one in audit.spectra],
        },
        "prior_variance": audit.prior,
        "recovered_below": audit.recovered_below,
        "hidden_above": audit.hidden_above,
        "forecast": [{"noise": whose, **asdict(one)} for whose, one in audit.forecasts],
        "rehearsals": [one._asdict() for one in audit.rehearsals],
        "gradient": None
        if shared is None
        else {
            "norm": shared.norm,
            "typical_norm": shared.typical_norm,
            "zeros": shared.zeros,
            "noise_variance": shared.noise,
            "exact": shared.exact,
            "shown_mse": shared.shown_mse,
            "labels": shared.labels,
            "doubt": shared.label_warning,
            "doubts": shared.error_norms,
        },
        "scope": SCOPE,
    }
