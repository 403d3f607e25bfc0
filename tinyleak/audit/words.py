"""An audit in words: what was audited, its lines, its table, and what it takes for granted."""

from collections import Counter

from tinyleak.audit.measured import HIDDEN, Forecast, Measured
from tinyleak.audit.structure import Saturation
from tinyleak.client import RECOVERED_MSE
from tinyleak.nn.models.as_trained import network_of
from tinyleak.report.canvas import number

FEW = 0.05
"""Where every layer has a smaller share of saturated units, one phrase says so: a convention."""

SOME_ZEROS = 0.005  # a share of zeros is reported from here on: it is 1 % when rounded

SCOPE = {
    "One step": (
        "The gradient of one step on one batch. After several local steps the difference of the "
        "weights is shared, a mixture of gradients at weights that are not known in between: less "
        "is determined than said here, though for few steps not much less."
    ),
    "Known network and weights": (
        "The attacker is the server, or sees what it sees. Without the weights at that step this "
        "attack has nothing to start from."
    ),
    "No secure aggregation": (
        "The gradient of this client alone. If only the sum over many clients is seen, count all "
        "their images as one batch: give their number as the batch."
    ),
    "Labels known": (
        "The labels count as known, since the last layer's gradient tells them, for one image "
        "always and for a batch mostly."
    ),
    "The best attacker": (
        "The forecast is what is left to somebody who solves the problem perfectly and knows of "
        "pixels only how much they vary, and, of one image without noise, that black and white "
        "ones cannot be more so, and which errors float32 makes. A real attack may do worse: it "
        "can get stuck, the more easily the larger the batch; a rehearsal shows it. It can do "
        "better as well, if it knows what images look like."
    ),
    "Near typical images": (
        "The network is taken to be linear around the image, at images of the given kind. Where "
        "noise is so strong that a guess is far off, and where saturated units make the network "
        "far from linear, the forecast is rough."
    ),
}
"""What the audit takes for granted, and what each of it changes."""


def describe(audit: Measured, weights: str = "") -> str:
    """Return the line on what was audited; `weights` says where the network's weights come from."""
    model, batch = audit.model, audit.counting.batch
    activation = getattr(model, "activation", None)
    network = getattr(network_of(model), "name", type(network_of(model)).__name__.lower())
    network += f" with {activation}" if activation else ""
    shape = "x".join(map(str, model.image_shape))
    images = "1 image" if batch == 1 else f"{batch} images"
    return (
        f"{network}{', ' * bool(weights)}{weights}; gradients of {images} of {shape}, "
        f"{model.classes} classes; typical images: {audit.source}"
    )


def headline(audit: Measured) -> str:
    """Return the one sentence that matters most."""
    kind = "the image" if audit.counting.batch == 1 else "the images"
    them = "it" if audit.counting.batch == 1 else "them"
    if audit.shared is not None and audit.verdict == "shown":
        return (
            "the gradient of the first layer's weight, divided by that of its bias, is the image, "
            f"to a mean squared error of {number(audit.shared.shown_mse or 0.0)}: no search is "
            "needed"
        )
    if audit.contradiction is not None:
        return (
            f"the gradient is not of the kind that is forecast here, for {audit.contradiction.text}"
            f"; what it shows of {kind} cannot be told before that is known"
        )
    bare = audit.rounded
    if audit.noise is not None:
        return _headline_of_noise(audit, audit.at(audit.noise), kind, bare.verdict)
    below, above = audit.recovered_below, audit.hidden_above
    if bare.verdict == "recovered":
        return (
            f"as shared, without a defence, the gradient determines {kind}; noise of variance "
            f"{number(below)} blurs {them}, and of {number(above)} hides {them}"
        )
    if bare.verdict == "recognisable":
        return (
            f"as shared, without a defence, the gradient shows {kind} in part, with a mean squared "
            f"error of {number(bare.mse)}; noise of variance {number(above)} hides {them}"
        )
    return (
        f"the gradient does not determine {kind}, not even without a defence: the best guess is "
        f"left with a mean squared error of {number(bare.mse)}, of {number(audit.prior)}"
    )


def _headline_of_noise(audit: Measured, given: Forecast, kind: str, without: str) -> str:
    """Return the sentence for a client whose gradient has noise on it."""
    said = {
        "recovered": f"determines {kind} all the same",
        "recognisable": f"shows {kind} in part, with a mean squared error of {number(given.mse)}",
        "hidden": f"hides {kind}",
    }[given.verdict]
    sentence = f"the given gradient, with noise of variance {number(given.variance)}, {said}"
    if given.verdict == without == "recovered":
        return sentence
    they = "it" if audit.counting.batch == 1 else "they"
    return f"{sentence}; without the noise {they} would be {without}"


def lines(audit: Measured) -> dict[str, str]:
    """Return the findings as sentences, by topic; the headline is "expect"."""
    return {
        "expect": headline(audit),
        "counting": _counting(audit),
        **{finding.about: finding.text for finding in audit.findings},
        "saturation": _saturation(audit.saturations),
        "rank": _rank(audit),
        **_rehearsed(audit),
        **_shared(audit),
    }


def table(audit: Measured) -> str:
    """Return the forecasts as a table of plain text."""
    cells = [("noise of variance", "MSE of the best attacker", "directions left", "the image is")]
    for whose, one in audit.forecasts:
        error = number(one.mse)
        if len(audit.spectra) > 1:
            error += f" ({number(one.lowest)} to {number(one.highest)})"
        cells.append((strength(whose, one), error, f"{one.directions_left:.0%}", one.verdict))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def strength(whose: str, forecast: Forecast) -> str:
    """Return how strong the noise of a forecast is, and whose it is unless it was asked for."""
    named = "" if whose == "asked for" else f" ({whose})"
    return number(forecast.variance) + named


def meaning(audit: Measured) -> str:
    """Return what the words of the table mean."""
    return (
        f"recovered: MSE below {number(RECOVERED_MSE)}, of pixels in [0, 1]; hidden: more than "
        f"{HIDDEN:.0%} of {number(audit.prior)}, the MSE of a guess without any gradient; "
        "recognisable: between"
    )


def _counting(audit: Measured) -> str:
    count = audit.counting
    images = "1 image" if count.batch == 1 else f"{count.batch} images"
    free = count.independent
    of_them = "" if free == count.parameters else f", {free:,} of them independent"
    text = (
        f"{count.parameters:,} numbers are shared{of_them}, {count.unknowns:,} pixels of {images} "
        f"are unknown, {free / count.unknowns:.2g} to one"
    )
    if count.most_images < count.batch:
        return f"{text}: too few, so the images are not determined"
    return f"{text}: enough for {count.most_images} such images at most"


def _saturation(found: list[Saturation]) -> str:
    if not found:
        return "no activation is known to saturate"
    said = Counter(f"{one.share:.0%} of {one.units:,} {one.activation}" for one in found)
    # A recurrent layer has the same units at every time.
    shares = ", ".join(
        f"{of} ({n} times)" if n > 2 else ", ".join([of] * n) for of, n in said.items()
    )
    if max(one.share for one in found) < FEW:
        return f"hardly any unit is flat at typical images ({shares})"
    return f"flat at typical images, layer by layer: {shares}; what only those see is lost"


def _rank(audit: Measured) -> str:
    ranks, batches = audit.ranks, len(audit.spectra)
    spread = str(ranks[0]) if min(ranks) == max(ranks) else f"{min(ranks)} to {max(ranks)}"
    about = "" if all(one.complete for one in audit.spectra) else "about "
    strongest = max(float(one.values.max()) for one in audit.spectra)
    weakest = min(float(one.values.min()) for one in audit.spectra)
    singular, plural = ("image", "images") if audit.counting.batch == 1 else ("batch", "batches")
    return (
        f"{about}{spread} of {audit.counting.unknowns} directions are determined by a gradient in "
        f"float32; singular values from {number(strongest)} down to {number(weakest)}, at "
        f"{batches} typical {singular if batches == 1 else plural}"
    )


def _rehearsed(audit: Measured) -> dict[str, str]:
    if not audit.rehearsals:
        return {}
    errors, seconds = (sorted(column) for column in zip(*audit.rehearsals, strict=True))
    many = len(errors)
    clients = "a simulated client" if many == 1 else f"{many} simulated clients"
    spread = number(errors[0]) + (f" to {number(errors[-1])}" if many > 1 else "")
    return {
        "rehearsal": f"attacked, {clients} with typical images gave them away to a mean squared "
        f"error of {spread}, in at most {seconds[-1]:.2g} s each"
    }


def _shared(audit: Measured) -> dict[str, str]:
    shared = audit.shared
    if shared is None:
        return {}
    text = f"norm {number(shared.norm)}, of typical images {number(shared.typical_norm)}"
    if shared.zeros >= SOME_ZEROS:
        text += f"; {shared.zeros:.0%} of its numbers are zero"
    found = {"gradient": text}
    if shared.causes:
        found["contradicts"] = "; ".join(cause.text for cause in shared.causes)
    if shared.steps > 1:
        found["steps"] = f"{shared.steps} local steps were shared; their mean is taken for one step"
    if shared.noise is None:
        found["noise"] = "cannot be told by the last layer"
    elif audit.noise is None:
        found["noise"] = "none beyond rounding shows in the gradient's structure"
    else:
        one = audit.at(audit.noise)
        found["noise"] = (
            f"of variance about {number(audit.noise)}, as the gradient's structure "
            f"shows; at that the best attacker is left with {number(one.mse)}: "
            f"{one.verdict}"
        )
    if shared.labels is not None:
        why = shared.label_warning or "read off the last layer"
        found["labels"] = f"{' '.join(map(str, shared.labels))} ({why})"
    if shared.error_norms is not None:
        many = "the image" if len(shared.error_norms) == 1 else "the images"
        norms = ", ".join(map(number, shared.error_norms))
        found["doubt"] = (
            f"the network is unsure of {many} by {norms}, of at most 1.4 (read off the last "
            "layer); the forecast is for such images"
        )
    return found
