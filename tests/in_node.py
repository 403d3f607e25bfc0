"""Run the page's scripts in Node, without a browser."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest

from tinyleak.page.build import ENGINE, HERE, script

NODE = shutil.which("node")

needs_node = pytest.mark.skipif(NODE is None, reason="Node is not installed: apt install nodejs")

BEGIN = """
const data = JSON.parse(require("fs").readFileSync(0, "utf8"));
const numbers = (text) => Float64Array.from(new Float64Array(decoded(text)));
const text = (x) => Buffer.from(Float64Array.from(x).buffer).toString("base64");
"""


def in_node(body: str, data: Any) -> Any:
    """Return what a body of JavaScript, which sees `data` and the engine, puts into `answer`."""
    source = "\n".join(script(HERE / f"{name}.js") for name in ENGINE)
    code = (
        f'"use strict";\n{source}\n{BEGIN}\n{body}\nprocess.stdout.write(JSON.stringify(answer));'
    )
    done = subprocess.run(
        [NODE or "node", "--disallow-code-generation-from-strings", "-e", code],
        input=json.dumps(data, default=as_text),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def as_text(array: np.ndarray) -> str:
    """Numbers as the body's `numbers` reads them."""
    return base64.b64encode(np.ascontiguousarray(array, "<f8").tobytes()).decode()


def as_array(text: str) -> np.ndarray:
    """Numbers that the body's `text` wrote."""
    return np.frombuffer(base64.b64decode(text), "<f8")
