"""An audit as one HTML page that needs nothing else, and as JSON."""

from __future__ import annotations

import base64
import html
from typing import Any

from tinyleak.audit.figures import forecast_figure, preview_figure, spectrum_figure
from tinyleak.audit.forecasting import Audit, Forecast
from tinyleak.audit.text import TEXT_SCOPE, TextAudit, text_lines
from tinyleak.audit.words import SCOPE, headline, lines, meaning, rows
from tinyleak.data.files import PathLike, write_atomically
from tinyleak.report.canvas import number

TITLE = "What leaks from this gradient"

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ margin: 1.5rem auto; padding: 0 1rem; max-width: 820px;
       font: 1rem/1.5 system-ui, sans-serif; color: #222; background: #fff; }}
h1 {{ margin: 0; font-size: 1.6rem; }}
h2 {{ margin: 1.8rem 0 0.3rem; font-size: 1.2rem; }}
.expect {{ font-size: 1.1rem; border-left: 4px solid #D55E00; padding-left: 0.8rem; }}
.quiet {{ color: #555; font-size: 0.92rem; }}
dl {{ display: grid; grid-template-columns: 7.5rem 1fr; gap: 0.3rem 0.8rem; margin: 0.5rem 0; }}
dt {{ font-weight: 600; }}
dd {{ margin: 0; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; padding: 0.25rem 0.5rem; border-bottom: 1px solid #ddd; }}
td.recovered {{ color: #b33c00; font-weight: 600; }}
td.hidden {{ color: #00609a; }}
img {{ max-width: 100%; }}
</style>
</head>
<body>
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
</body>
</html>
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
drowns in noise of the variance drawn here: then noise hides more of it than the gradient shows. A
line for each typical batch.</p>
{spectrum}
"""


def write_page(path: PathLike, audit: Audit, *, title: str = TITLE, subject: str = "") -> None:
    """Write an audit as one HTML page, with its figures inside.

    Args:
        path: the page to write.
        audit: what there is to say.
        title: the page's heading.
        subject: a line under it: which network, whose images.

    Raises:
        OSError: the file cannot be written.
    """

    forecast = FORECAST.format(
        table=_table(rows(audit)),
        meaning=html.escape(meaning(audit)),
        curve=_inline(forecast_figure(audit), "The forecast's curve"),
        preview=_preview(audit),
        spectrum=_inline(spectrum_figure(audit), "At what noise each direction drowns"),
    )
    _write(path, title, subject, lines(audit), forecast, dict(SCOPE))


def write_text_page(path: PathLike, audit: TextAudit, *, subject: str = "") -> None:
    """Write the audit of a language model as one HTML page.

    Args:
        path: the page to write.
        audit: what there is to say.
        subject: a line under the heading: which network.

    Raises:
        OSError: the file cannot be written.
    """
    _write(path, TITLE, subject, text_lines(audit), "", dict(TEXT_SCOPE))


def _write(
    path: PathLike,
    title: str,
    subject: str,
    said: dict[str, str],
    forecast: str,
    scope: dict[str, str],
) -> None:
    from tinyleak import __version__

    expect = said.pop("expect")
    page = PAGE.format(
        title=html.escape(title),
        subject=html.escape(subject),
        expect=html.escape(expect[0].upper() + expect[1:]),
        forecast=forecast,
        findings=_definitions(said),
        scope=_definitions(scope),
        version=__version__,
    )
    write_atomically(path, lambda file: file.write(page.encode()))


def _preview(audit: Audit) -> str:
    picture = preview_figure(audit, [one for name, one in rows(audit) if not name])
    if picture is None:
        return ""
    return (
        "<p>One typical image, and the best guess of it at each variance of the noise.</p>\n"
        + _inline(picture, "Best guesses of a typical image")
    )


def _table(forecasts: list[tuple[str, Forecast]]) -> str:
    heads = ("noise of variance", "MSE", "lowest", "highest", "directions left", "the image is")
    body = []
    for name, one in forecasts:
        strength = number(one.variance) + (f" ({name})" if name else "")
        cells = [strength, *map(number, (one.mse, one.lowest, one.highest)), f"{one.seen:.0%}"]
        body.append(
            "<tr>"
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
            + f'<td class="{one.verdict}">{one.verdict}</td></tr>'
        )
    head = "".join(f"<th>{head}</th>" for head in heads)
    return "\n".join(["<table>", f"<tr>{head}</tr>", *body, "</table>"])


def _definitions(said: dict[str, str]) -> str:
    return "\n".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in said.items()
    )


def _inline(picture: bytes, words: str) -> str:
    data = base64.b64encode(picture).decode()
    return f'<img alt="{html.escape(words)}" src="data:image/png;base64,{data}">'


def as_dict(audit: Audit) -> dict[str, Any]:
    """Return what audit.json says of it.

    - `expect`: the sentence that matters most.
    - `counting`: how many numbers the gradient has (`parameters`), and how many pixels are unknown.
    - `structure`, `saturation`: the findings, and which share of each activation's units is flat.
    - `identifiability`: for each typical batch its rank and its singular values, descending;
      `complete` says that they are all of them, else `shares` says which part of the directions
      each one stands for.
    - `prior_variance`: τ², of a pixel of which nothing is known.
    - `recovered_below`, `hidden_above`: variances of the noise, where the mean forecast is so.
    - `forecast`: for each variance of the noise on a number of the gradient the mean squared error
      of a pixel, its mean, `lowest` and `highest` over the batches; `noise` says whose it is:
      "float32 rounding", "the given gradient", or "asked for".
    - `gradient`: what a shared gradient says of itself, or null: norms, the part of its numbers
      that is zero, the noise on it, the labels it tells and why they may be wrong, and for each
      how wrong the network is of the image, ‖p − y‖, as `doubts`. If there is one, the spectra and
      forecasts are for its images.
    - `scope`: what is taken for granted.
    """
    numbers, shared = audit.counting, audit.shared
    return {
        "expect": headline(audit),
        "counting": {
            "parameters": numbers.parameters,
            "pixels": numbers.pixels,
            "batch": numbers.batch,
            "unknowns": numbers.unknowns,
            "most_images": numbers.most_images,
        },
        "structure": [
            {"about": one.name, "leaks": one.leaks, "text": one.text} for one in audit.findings
        ],
        "saturation": [
            {"activation": one.activation, "units": one.units, "share": one.share}
            for one in audit.saturations
        ],
        "identifiability": {
            "ranks": audit.ranks,
            "complete": [one.complete for one in audit.spectra],
            "singular_values": [one.values for one in audit.spectra],
            "shares": [None if one.complete else one.shares for one in audit.spectra],
        },
        "prior_variance": audit.prior,
        "recovered_below": audit.recovered_below,
        "hidden_above": audit.hidden_above,
        "forecast": [
            {
                "noise": name or "asked for",
                "variance": one.variance,
                "mse": one.mse,
                "lowest": one.lowest,
                "highest": one.highest,
                "directions_left": one.seen,
                "verdict": one.verdict,
            }
            for name, one in rows(audit)
        ],
        "gradient": None
        if shared is None
        else {
            "norm": shared.norm,
            "typical_norm": shared.typical_norm,
            "zeros": shared.zeros,
            "noise_variance": shared.noise,
            "exact": shared.exact,
            "labels": shared.labels,
            "doubt": shared.label_warning,
            "doubts": shared.error_norms,
        },
        "scope": dict(SCOPE),
    }
