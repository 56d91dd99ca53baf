"""Tables for notebooks: what `_repr_html_` methods return."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from itertools import islice

_MOST_ROWS = 200


def html_table(
    title: str, headers: Sequence[str], rows: Iterable[Sequence[str]], total: str = ""
) -> str:
    """A table of text below a title, `total` below it; of very many rows the first 200."""
    shown = list(islice(iterator := iter(rows), _MOST_ROWS))
    more = sum(1 for _ in iterator)
    lines = [f"<p><b>{html.escape(title)}</b></p>", "<table>", _line("th", headers)]
    lines += [_line("td", row) for row in shown]
    lines.append("</table>")
    if more:
        lines.append(f"<p>… and {more:,} more</p>")
    if total:
        lines.append(f"<p>{html.escape(total)}</p>")
    return "\n".join(lines)


def _line(tag: str, cells: Iterable[str]) -> str:
    style = ' style="text-align: left"'
    return (
        "<tr>" + "".join(f"<{tag}{style}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
    )
