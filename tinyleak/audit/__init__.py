"""What to expect of a network's gradient: counting, structure, the measured spectrum, a forecast.

Nothing here attacks a client. Of a client whose files are here, in a notebook:

    from tinyleak.audit import audit
    from tinyleak.client import Client

    audit(Client.from_files("weights.safetensors", "gradients.safetensors"))

shows a page, and its `save` writes it. `tinyleak audit` is the same on the command line.
"""

from tinyleak.audit.forecasting import VARIANCES, Audit, audit
from tinyleak.audit.rehearsal import rehearse
from tinyleak.audit.text import audit_text
from tinyleak.audit.text_findings import TextAudit
from tinyleak.audit.typical_images import typical

__all__ = ["VARIANCES", "Audit", "TextAudit", "audit", "audit_text", "rehearse", "typical"]
