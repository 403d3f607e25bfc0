"""One HTML page that needs nothing else."""

import html

from tinyleak.data.files import PathLike, write_atomically

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
{style}
</head>
<body>
{body}
</body>
</html>
"""


def write_page(path: PathLike, title: str, style: str, body: str) -> None:
    """Write a page that appears under its name once it is whole; `style` is a `<style>` element."""
    page = PAGE.format(title=html.escape(title), style=style, body=body)
    write_atomically(path, lambda file: file.write(page.encode()))
