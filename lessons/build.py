"""Build the notebooks, the thumbnails and the contents page from the lessons' scripts.

    python lessons/build.py          every lesson, and the live page
    python lessons/build.py 03 08    lessons 3 and 8
    python lessons/build.py page     the live page, leak.html

The scripts are the only files to edit by hand. A notebook is its script's cells, executed, with
all that varies from one run to the next taken out: building twice gives the same bytes. Needs the
extra `lessons` (`pip install '.[lessons]'`).
"""

from __future__ import annotations

import ast
import base64
import html
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jupytext
import nbformat
from PIL import Image

LESSONS = Path(__file__).resolve().parent
COMMAND = "python lessons/build.py"
CONTENTS = LESSONS / "README.md"
BEGIN, END = "<!-- contents: written by build.py -->\n", "<!-- end of contents -->\n"
PAGE = LESSONS / "leak.html"
THUMBNAIL = "thumbnail"
THUMBNAIL_SIZE = (360, 240)
"""Twice as large as it is shown, for screens with twice as many dots."""
STRICT = "TINYLEAK_LESSONS_STRICT"
"""Tells `checks.expect` that a claim which does not hold is an error."""
LARGEST_NOTEBOOK = 400_000
COLOURS = 128
"""Of a figure; enough for greys and lines, and half the bytes of all of them."""


class Lesson(NamedTuple):
    """A script, as the contents page presents it."""

    path: Path
    number: str
    """Two digits, and a letter where a lesson was divided: 06b."""
    title: str
    question: str

    @property
    def name(self) -> str:
        """Its number as it is read: 6b."""
        return self.number.lstrip("0")

    @property
    def notebook(self) -> Path:
        """Where its notebook is."""
        return self.path.with_suffix(".ipynb")

    @property
    def thumbnail(self) -> Path:
        """Where the small picture for the contents page is."""
        return self.path.parent / "thumbnails" / f"{self.number}.png"


def find_lessons(directory: Path = LESSONS) -> list[Lesson]:
    """Return the lessons in order.

    Raises:
        ValueError: a script does not begin with its title and its question.
    """
    return [read_lesson(path) for path in sorted(directory.glob("[0-9][0-9]*_*.py"))]


def read_lesson(path: Path) -> Lesson:
    """Read a script's title and question off its first cell, `# N. Title` and `*Question?*`."""
    number = path.name.split("_")[0]
    first = read_cells(path)[0]
    found = re.match(r"# (\d+[a-z]?)\. (.+)\n\n\*([^*]+\?)\*", first.source)
    if first.cell_type != "markdown" or found is None or found[1] != number.lstrip("0"):
        raise ValueError(
            f"{path.name} begins with {first.source[:60]!r}; its first cell must be markdown: "
            f"'# {number.lstrip('0')}. Title', an empty line, and the question it answers between "
            "stars"
        )
    return Lesson(path, number, found[2], " ".join(found[3].split()))


def read_cells(path: Path) -> list[Any]:
    """Return the cells of a script in percent format."""
    return jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent").cells


def build(lesson: Lesson) -> bytes:
    """Execute a lesson and write its notebook and its thumbnail; return the notebook's bytes.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
        ValueError: a cell wrote to stderr, no cell made the thumbnail, or the notebook is large.
    """
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(cells=read_cells(lesson.path))
    # What a kernel inherits: one thread, so that sums are added up in one order, and no backend
    # of the shell's but the notebook's own.
    os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", STRICT: "1"})
    os.environ.pop("MPLBACKEND", None)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=300,
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=40"],
        resources={"metadata": {"path": str(lesson.path.parent)}},
    )
    client.execute()
    normalise(notebook, lesson.path.name)
    write_thumbnail(notebook, lesson)
    content = (nbformat.writes(notebook, version=4) + "\n").encode()
    if len(content) > LARGEST_NOTEBOOK:
        raise ValueError(
            f"{lesson.notebook.name} would have {len(content)} bytes, of {LARGEST_NOTEBOOK} "
            "allowed; draw fewer or smaller figures"
        )
    lesson.notebook.write_bytes(content)
    return content


def normalise(notebook: Any, name: str) -> None:
    """Take out of an executed notebook what differs between two runs of the same script."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index:02}"
        cell.metadata = {"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {}
        for output in cell.get("outputs", ()):
            if output.get("name") == "stderr":
                raise ValueError(f"{name}, cell {index} wrote to stderr: {output.text}")
            data = output.get("data", {})
            if "image/png" in data:
                output.data = {"image/png": _without_metadata(data["image/png"])}
            if "text/html" in data:
                output.data = {"text/html": data["text/html"]}
            if "metadata" in output:  # the size at which a figure is shown, and what it shows
                said = output.metadata.get("image/png", {})
                output.metadata = {"image/png": dict(sorted(said.items()))} if said else {}


def _without_metadata(png: str) -> str:
    """Write a base64 PNG again: a palette, and nothing said about who drew it."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    return base64.b64encode(_png(image)).decode()


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    few = image.quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(file, format="png", optimize=True)
    return file.getvalue()


def write_thumbnail(notebook: Any, lesson: Lesson) -> None:
    """Write the figure of the cell tagged "thumbnail" small.

    Raises:
        ValueError: no cell has the tag, or it drew nothing.
    """
    for cell in notebook.cells:
        if THUMBNAIL not in cell.metadata.get("tags", ()):
            continue
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                image = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
                image = image.convert("RGB")
                image.thumbnail(THUMBNAIL_SIZE, Image.Resampling.LANCZOS)
                lesson.thumbnail.parent.mkdir(exist_ok=True)
                lesson.thumbnail.write_bytes(_png(image))
                return
    raise ValueError(
        f"{lesson.path.name} has no thumbnail; mark the cell of its telling figure with "
        f'# %% tags=["{THUMBNAIL}"]'
    )


def described(lesson: Lesson) -> str:
    """Return the description of the figure that a lesson's thumbnail is made of."""
    for cell in read_cells(lesson.path):
        if THUMBNAIL in cell.metadata.get("tags", ()):
            for call in ast.walk(ast.parse(cell.source)):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "show":
                    return str(ast.literal_eval(call.args[0]))
    return ""


def contents(lessons: Sequence[Lesson]) -> str:
    """Return the table of the contents page."""
    lines = ["| | lesson | read | run |", "| --- | --- | --- | --- |"]
    for lesson in lessons:
        picture = (
            f'<img src="thumbnails/{lesson.number}.png" width="180" '
            f'alt="{html.escape(described(lesson), quote=True)}">'
        )
        title = f"**{lesson.name}. {lesson.title}**<br>{lesson.question}"
        read = f"[notebook]({lesson.notebook.name})"
        run = f"[script]({lesson.path.name})"
        lines.append(f"| {picture} | {title} | {read} | {run} |")
    return "\n".join(lines) + "\n"


def with_contents(page: str, lessons: Sequence[Lesson]) -> str:
    """Return the contents page with its table made anew."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{contents(lessons)}\n{END}{after}"


def main(numbers: Sequence[str]) -> int:
    """Build the lessons of these numbers, or all, with the live page, and the contents page."""
    lessons = find_lessons()
    wanted = {n.zfill(2 + n[-1:].isalpha()) for n in numbers if n != "page"}
    if not wanted <= {lesson.number for lesson in lessons}:
        print(f"{' '.join(numbers)}: give the numbers of lessons, as in {COMMAND} 03 08, or page")
        return 2
    if not numbers or "page" in numbers:
        from tinyleak import LeNet
        from tinyleak.page import write_page

        write_page(PAGE, LeNet())
        print(f"{PAGE.name}: {PAGE.stat().st_size // 1000} kB")
    for lesson in lessons:
        if not numbers or lesson.number in wanted:
            size = len(build(lesson))
            print(f"{lesson.notebook.name}: {size // 1000} kB")
    page = CONTENTS.read_text(encoding="utf-8")
    CONTENTS.write_text(with_contents(page, lessons), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
