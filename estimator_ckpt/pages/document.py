"""The page: one HTML file with its data, style and script in it, which loads nothing else."""

from __future__ import annotations

import functools
import html
import json
import os
from collections.abc import Sequence
from typing import Any

from estimator_ckpt.errors import printable

_STATIC = os.path.join(os.path.dirname(__file__), "static")


def document(title: str, views: Sequence[dict[str, Any]]) -> str:
    """The page that shows the views, in their order.

    Args:
      title: what the browser calls it.
      views: as the other modules of this room make them.
    """
    data = json.dumps(views, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    data = data.replace("<", "\\u003c")  # no text of a checkpoint ends the element that holds it
    return _PAGE.format(
        title=html.escape(printable(title)),
        style=static_text("page.css"),
        data=data,
        script=module_text(),
    )


@functools.cache
def module_text() -> str:
    """The module that draws views, and the library that it needs, as one ES module."""
    return static_text("d3-hierarchy.min.js") + "\n" + static_text("page.js")


def tab_module() -> str:
    """The same with what TensorBoard calls, `render()`, which asks the plugin for the views."""
    style = json.dumps(static_text("page.css"))
    return f"{module_text()}\nconst STYLE = {style};\n{static_text('tab.js')}"


def static_text(name: str) -> str:
    """A file of the page that is part of the package."""
    with open(os.path.join(_STATIC, name), encoding="utf-8") as file:
        return file.read()


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline';
 script-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main id="page"><noscript>This page is drawn by its own script, which is switched off.</noscript>
</main>
<script type="application/json" id="views">{data}</script>
<script type="module">
{script}
const views = JSON.parse(document.getElementById("views").textContent);
drawViews(document.getElementById("page"), views);
</script>
</body>
</html>
"""
