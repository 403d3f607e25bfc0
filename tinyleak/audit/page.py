"""An audit as one HTML page that needs nothing else, as a part of a notebook, and as JSON."""

import base64
import html
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tinyleak.audit.figures import directions, forecast, panels, preview_figure
from tinyleak.audit.measured import Measured
from tinyleak.audit.words import SCOPE, describe, headline, lines, meaning, strength
from tinyleak.data.files import PathLike
from tinyleak.report.canvas import as_png, number
from tinyleak.report.files import write_page

TITLE = "What leaks from this gradient"

DOTS_PER_INCH = 110  # the page's figures are then as wide as its text

STYLE = """<style>
.audit { max-width: 820px; font: 1rem/1.5 system-ui, sans-serif; color: #222; background: #fff; }
.audit h1 { margin: 0; font-size: 1.6rem; }
.audit h2 { margin: 1.8rem 0 0.3rem; font-size: 1.2rem; }
.audit .expect { font-size: 1.1rem; border-left: 4px solid #D55E00; padding-left: 0.8rem; }
.audit .quiet { color: #555; font-size: 0.92rem; }
.audit dl { display: grid; grid-template-columns: 7.5rem 1fr; gap: 0.3rem 0.8rem; margin: 0.5rem 0;
            text-align: left; }
.audit dt { font-weight: 600; }
.audit dd { margin: 0; }
.audit table { border-collapse: collapse; width: 100%; }
.audit th, .audit td { text-align: left; padding: 0.25rem 0.5rem; border-bottom: 1px solid #ddd; }
.audit td.recovered { color: #b33c00; font-weight: 600; }
.audit td.hidden { color: #00609a; }
.audit img { max-width: 100%; }
</style>
"""
"""Everything is below one class, so that it leaves the rest of a notebook alone."""

CONTENT = """<div class="audit" style="margin: 1.5rem auto; padding: 0 1rem">
<h1>{title}</h1>
<p class="quiet">{subject}</p>
<p class="expect">{expect}.</p>
{forecast}<h2>What was found</h2>
<dl>
{findings}
</dl>
<h2>What this speaks of, and what would change it</h2>
<dl>
{scope}
</dl>
<p class="quiet">Written by tinyleak {version}.</p>
</div>
"""

FORECAST = """<h2>The forecast</h2>
<p>What somebody who solves the problem perfectly is left with, if each number of the gradient has
noise of this variance.</p>
{table}
<p class="quiet">{meaning}.</p>
{curve}
{preview}
<h2>How much the gradient determines</h2>
<p>Each direction in which the images could differ changes the gradient by its singular value. It
drowns in noise of the variance drawn here: then noise hides more of it than the gradient shows.
There is a line for each typical batch.</p>
{spectrum}
"""


def write(path: PathLike, content: str) -> None:
    """Write a page around its content."""
    write_page(path, TITLE, STYLE, content)


def content_of(audit: Measured, subject: str | None = None) -> str:
    """Return the body of an audit's page, with its figures inside, as HTML.

    `subject` is the line under the heading; by default the network, and whose images.
    """
    expected = FORECAST.format(
        table=_table(audit),
        meaning=html.escape(meaning(audit)),
        curve=_inline(panels(audit, forecast), "The forecast's curve"),
        preview=_preview(audit),
        spectrum=_inline(panels(audit, directions), "At what noise each direction drowns"),
    )
    subject = describe(audit) if subject is None else subject
    return fill(subject, lines(audit), SCOPE, expected)


def fill(
    subject: str, said: Mapping[str, str], scope: Mapping[str, str], forecast: str = ""
) -> str:
    """Return the body of a page, as HTML, with that of a `forecast` in the middle.

    `said` are the findings as sentences, by topic, of which "expect" stands above all others;
    `scope` is what is taken for granted.
    """
    from tinyleak import __version__

    expect = said["expect"]
    return CONTENT.format(
        title=TITLE,
        subject=html.escape(subject),
        expect=html.escape(expect[0].upper() + expect[1:]),
        forecast=forecast,
        findings=_definitions({topic: said[topic] for topic in said if topic != "expect"}),
        scope=_definitions(scope),
        version=__version__,
    )


def _preview(audit: Measured) -> str:
    figure = preview_figure(audit)
    text = "<p>One typical image, and the best guess of it at each variance of the noise.</p>\n"
    return "" if figure is None else text + _inline(figure, "Best guesses of a typical image")


def _table(audit: Measured) -> str:
    heads = ("noise of variance", "MSE", "lowest", "highest", "directions left", "the image is")
    body = []
    for whose, one in audit.forecasts:
        errors = map(number, (one.mse, one.lowest, one.highest))
        cells = [strength(whose, one), *errors, f"{one.directions_left:.0%}"]
        row = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        body.append(f'<tr>{row}<td class="{one.verdict}">{one.verdict}</td></tr>')
    head = "".join(f"<th>{head}</th>" for head in heads)
    return "\n".join(["<table>", f"<tr>{head}</tr>", *body, "</table>"])


def _definitions(said: Mapping[str, str]) -> str:
    return "\n".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in said.items()
    )


def _inline(figure: Any, words: str) -> str:
    """Return a figure as an image that is part of the page."""
    data = base64.b64encode(as_png(figure, DOTS_PER_INCH)).decode()
    return f'<img alt="{html.escape(words)}" src="data:image/png;base64,{data}">'


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
