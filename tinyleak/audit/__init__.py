"""What to expect of a network's gradient: counting, structure, the measured spectrum, a forecast.

Nothing here attacks a client. Of a client whose files are here, in a notebook:

    from tinyleak.audit import audit
    from tinyleak.client import Client

    audit(Client.from_files("weights.safetensors", "gradients.safetensors"))

shows a page, and its `save` writes it. `tinyleak audit` is the same on the command line.
"""

from tinyleak.analytic.jacobian_spectrum import Spectrum, estimate, measure, noise_for, of_gram
from tinyleak.audit.forecasting import VARIANCES, Audit, audit
from tinyleak.audit.measured import Forecast
from tinyleak.audit.rehearsal import Rehearsal, rehearse
from tinyleak.audit.shared import Shared
from tinyleak.audit.structure import Counting, Finding, Saturation, count, find, saturation
from tinyleak.audit.text import audit_text
from tinyleak.audit.text_findings import TextAudit
from tinyleak.audit.typical_images import pixel_variance, typical

__all__ = [
    "VARIANCES",
    "Audit",
    "Counting",
    "Finding",
    "Forecast",
    "Saturation",
    "Rehearsal",
    "Shared",
    "Spectrum",
    "TextAudit",
    "audit",
    "audit_text",
    "count",
    "estimate",
    "find",
    "measure",
    "noise_for",
    "of_gram",
    "pixel_variance",
    "rehearse",
    "saturation",
    "typical",
]
