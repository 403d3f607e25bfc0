"""An audit in words: its lines, its table, and what it does not speak of."""

from __future__ import annotations

from tinyleak.audit.forecasting import HIDDEN, Audit, Forecast
from tinyleak.audit.structure import Saturation
from tinyleak.client.simulated import RECOVERED_MSE
from tinyleak.report.canvas import number

SCOPE = (
    (
        "One step",
        "The gradient of one step on one batch. After several local steps the difference of the "
        "weights is shared, a mixture of gradients at weights that are not known in between: less "
        "is determined than said here, though for few steps not much less.",
    ),
    (
        "Known network and weights",
        "The attacker is the server, or sees what it sees. Without the weights at that step this "
        "attack has nothing to start from.",
    ),
    (
        "No secure aggregation",
        "The gradient of this client alone. If only the sum over many clients is seen, count all "
        "their images as one batch: give their number as --batch.",
    ),
    (
        "Labels known",
        "The labels count as known, since the last layer's gradient tells them, for one image "
        "always and for a batch mostly.",
    ),
    (
        "The best attacker",
        "The forecast is what is left to somebody who solves the problem perfectly and knows of "
        "pixels only how much they vary. A real attack may do worse: it can get stuck, the more "
        "easily the larger the batch. It can also do better, if it knows what images look like.",
    ),
    (
        "Near typical images",
        "The network is taken to be linear around the image, at images of the given kind. Where "
        "noise is so strong that a guess is far off, and where saturated units make the network "
        "very crooked, the forecast is rough.",
    ),
)
"""What the audit takes for granted, and what each of it changes."""


def headline(audit: Audit) -> str:
    """Return the one sentence that matters most."""
    kind = "the image" if audit.counting.batch == 1 else "the images"
    bare = audit.at(audit.rounding)
    if audit.shared is not None and audit.shared.noise and not audit.shared.exact:
        return _headline_of_noise(audit, audit.at(audit.shared.noise), kind, bare.verdict)
    below, above = audit.recovered_below, audit.hidden_above
    if bare.verdict == "recovered":
        return (
            f"as shared, without a defence, the gradient determines {kind}; noise of variance "
            f"{number(below)} blurs {_it(audit)}, and of {number(above)} hides {_it(audit)}"
        )
    if bare.verdict == "recognisable":
        return (
            f"as shared, without a defence, the gradient shows {kind} in part, with a mean squared "
            f"error of {number(bare.mse)}; noise of variance {number(above)} hides {_it(audit)}"
        )
    return (
        f"the gradient does not determine {kind}, not even without a defence: the best guess is "
        f"left with a mean squared error of {number(bare.mse)}, of {number(audit.prior)}"
    )


def _headline_of_noise(audit: Audit, given: Forecast, kind: str, without: str) -> str:
    """Return the sentence where a gradient was given that has noise on it."""
    said = {
        "recovered": f"determines {kind} all the same",
        "recognisable": f"shows {kind} in part, with a mean squared error of {number(given.mse)}",
        "hidden": f"hides {kind}",
    }[given.verdict]
    sentence = f"the given gradient, with noise of variance {number(given.variance)}, {said}"
    if (given.verdict, without) == ("recovered", "recovered"):
        return sentence
    they = "it" if audit.counting.batch == 1 else "they"
    return f"{sentence}; without the noise {they} would be {without}"


def _it(audit: Audit) -> str:
    return "it" if audit.counting.batch == 1 else "them"


def lines(audit: Audit) -> dict[str, str]:
    """Return what there is to say, by topic."""
    return {
        "expect": headline(audit),
        "counting": _counting(audit),
        **_structure(audit),
        "saturation": _saturation(audit.saturations),
        "rank": _rank(audit),
        **_shared(audit),
    }


def rows(audit: Audit) -> list[tuple[str, Forecast]]:
    """Return the forecasts of the table: without a defence, then by strength of the noise."""
    found = [("float32 rounding", audit.at(audit.rounding))]
    if audit.shared is not None and audit.shared.noise and not audit.shared.exact:
        found.append(("the given gradient", audit.at(audit.shared.noise)))
    return found + [("", audit.at(variance)) for variance in audit.variances]


def table(audit: Audit) -> str:
    """Return the forecasts as a table of plain text."""
    cells = [("noise of variance", "MSE of the best attacker", "directions left", "the image is")]
    for name, one in rows(audit):
        strength = number(one.variance) + (f" ({name})" if name else "")
        error = number(one.mse)
        if len(audit.spectra) > 1:
            error += f" ({number(one.lowest)} to {number(one.highest)})"
        cells.append((strength, error, f"{one.seen:.0%}", one.verdict))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def meaning(audit: Audit) -> str:
    """Return what the words of the table stand for."""
    return (
        f"recovered: MSE below {number(RECOVERED_MSE)}, of pixels in [0, 1]; hidden: more than "
        f"{HIDDEN:.0%} of {number(audit.prior)}, the MSE of a guess without any gradient; "
        "recognisable: between"
    )


def _counting(audit: Audit) -> str:
    numbers = audit.counting
    images = "1 image" if numbers.batch == 1 else f"{numbers.batch} images"
    text = (
        f"{numbers.parameters:,} numbers are shared, {numbers.unknowns:,} pixels of {images} are "
        f"unknown, {numbers.parameters / numbers.unknowns:.2g} to one"
    )
    if numbers.most_images < numbers.batch:
        return f"{text}: too few, so the images are not determined"
    return f"{text}: enough for {numbers.most_images} such images at most"


def _structure(audit: Audit) -> dict[str, str]:
    return {finding.name: finding.text for finding in audit.findings}


def _saturation(found: list[Saturation]) -> str:
    if not found:
        return "no activation is known to saturate"
    shares = ", ".join(f"{one.share:.0%} of {one.units:,} {one.activation}" for one in found)
    worst = max(one.share for one in found)
    if worst < 0.05:
        return f"hardly any unit is flat at typical images ({shares})"
    return f"flat at typical images, layer by layer: {shares}; what only those see is lost"


def _rank(audit: Audit) -> str:
    ranks, unknowns = audit.ranks, audit.counting.unknowns
    spread = str(ranks[0]) if min(ranks) == max(ranks) else f"{min(ranks)} to {max(ranks)}"
    about = "" if all(one.complete for one in audit.spectra) else "about "
    strongest = max(float(one.values.max()) for one in audit.spectra)
    weakest = min(float(one.values.min()) for one in audit.spectra)
    batches = len(audit.spectra)
    return (
        f"{about}{spread} of {unknowns} directions are determined by a gradient in float32; "
        f"singular values from {number(strongest)} down to {number(weakest)}, at {batches} typical "
        + ("image" if audit.counting.batch == 1 else "batch")
        + ("" if batches == 1 else "s" if audit.counting.batch == 1 else "es")
    )


def _shared(audit: Audit) -> dict[str, str]:
    shared = audit.shared
    if shared is None:
        return {}
    text = f"norm {number(shared.norm)}, of typical images {number(shared.typical_norm)}"
    if shared.zeros >= 0.005:
        text += f"; {shared.zeros:.0%} of its numbers are zero"
    found = {"gradient": text}
    if shared.noise is None:
        found["noise"] = "cannot be told, since the last layer is not linear"
    elif shared.exact:
        found["noise"] = "none beyond rounding: over the classes the last layer adds up to zero"
    else:
        one = audit.at(shared.noise)
        found["noise"] = (
            f"of variance about {number(shared.noise)}, since over the classes the last layer does "
            f"not add up to zero; at that the best attacker is left with {number(one.mse)}: "
            f"{one.verdict}"
        )
    if shared.labels is not None:
        found["labels"] = " ".join(map(str, shared.labels)) + (
            f" ({shared.label_warning})" if shared.label_warning else " (read off the last layer)"
        )
    if shared.error_norms is not None:
        many = "the image" if len(shared.error_norms) == 1 else "the images"
        norms = ", ".join(map(number, shared.error_norms))
        found["doubt"] = (
            f"the network is unsure of {many} by {norms}, of at "
            "most 1.4 (read off the last layer); the forecast is for such images"
        )
    return found
