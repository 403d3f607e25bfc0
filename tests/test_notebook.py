"""The README's cells, executed in a notebook: each alone, in a few lines, showing itself."""

from __future__ import annotations

import ast
import base64
import html
import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_readme import blocks, lines_of_code

from tinyleak import LeNet, Reconstruction, data, simulate
from tinyleak.data.tensors import write_tensors

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

TASKS = {
    "train(LeNet()": "text/plain",
    'method="levenberg-marquardt"': "image/png",
    "Client.from_files(": "image/png",
    "simulate_text(": "text/html",
    "audit(client)": "text/html",
}
"""A piece of each task's cell, and what its last expression shows itself as."""

CELLS = [next(block for block in blocks("python") if piece in block) for piece in TASKS]


@pytest.mark.parametrize("cell", CELLS)
def test_a_task_is_five_lines_and_two_imports(cell: str) -> None:
    assert lines_of_code(cell) <= 5
    imports = [node for node in ast.parse(cell).body if isinstance(node, ast.ImportFrom)]
    assert 1 <= len(imports) <= 2


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run all cells in one kernel, each with nothing defined; what each has shown, by its piece."""
    folder = tmp_path_factory.mktemp("notebook")
    client, _ = simulate(LeNet(), *data.load("glyphs").batch([3]), dtype="float32")
    for name, arrays in (("w", client.params), ("g", client.gradients)):
        rounded = {key: array.astype(np.float32) for key, array in arrays.items()}
        write_tensors(folder / f"{name}.safetensors", rounded)
    cells = [nbformat.v4.new_code_cell(f"%reset -f\n{cell}") for cell in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=120, resources=resources).execute()
    for cell in notebook.cells:
        assert not [one for one in cell.outputs if one.output_type in ("stream", "error")]
    results = [cell.outputs[-1].data if cell.outputs else {} for cell in notebook.cells]
    return dict(zip(TASKS, results, strict=True))


@pytest.mark.parametrize(("piece", "kind"), TASKS.items())
def test_a_cell_shows_what_came_of_it(piece: str, kind: str, shown: dict[str, Any]) -> None:
    assert kind in shown[piece]
    assert len(shown[piece]["text/plain"]) <= 300


def test_a_trained_network_tells_its_loss(shown: dict[str, Any]) -> None:
    assert shown["train(LeNet()"]["text/plain"].startswith("Trained(300 steps, loss ")


@pytest.mark.parametrize("piece", ['method="levenberg-marquardt"', "Client.from_files("])
def test_images_come_back_and_are_drawn(piece: str, shown: dict[str, Any]) -> None:
    assert re.match("<Outcome: (success|exact)", shown[piece]["text/plain"])
    with Image.open(io.BytesIO(base64.b64decode(shown[piece]["image/png"]))) as picture:
        grey = np.asarray(picture.convert("L"))
    assert grey.min() == 0
    assert grey.max() == 255


def test_a_sentence_comes_back(shown: dict[str, Any]) -> None:
    page = html.unescape(shown["simulate_text("]["text/html"])
    assert page.count("the old man closed the door .") == 2, "found and true"
    assert "success" in shown["simulate_text("]["text/plain"]


def test_an_audit_is_a_page_with_its_figures(shown: dict[str, Any]) -> None:
    page = shown["audit(client)"]["text/html"]
    assert page.count("data:image/png;base64,") == 3
    assert "determines the image" in page


# What has no picture


def test_what_cannot_be_drawn_shows_itself_as_text() -> None:
    images = np.zeros((1, 16))
    found = Reconstruction(
        images, np.array([3]), np.eye(5)[[3]], 0.0, [0.0], [], 0, 1, 0.0, "converged"
    )
    assert found._repr_png_() is None
    with pytest.raises(ValueError, match=r"cannot be drawn; give \(N, C, H, W\)"):
        found.plot()
