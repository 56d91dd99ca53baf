"""The room that text takes on a terminal; cells that are too long are cut in the middle."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence

_NARROWEST = 10  # characters of a column that is cut
_READABLE = 16  # those below which it is rather left out, if it may be
_PROSE = ("note", "why")  # headers of columns of sentences, which are wrapped and not cut
_BETWEEN = 3  # spaces from one column to the next, as rich draws them


def cut_to_fit(
    cells: Mapping[str, Sequence[str]], right: Collection[str], width: int, *, wraps: bool = True
) -> Mapping[str, Sequence[str]]:
    """The cells, those of the widest columns cut, or sentences wrapped, until a row fits.

    Args:
      cells: the columns by their headers, printable.
      right: the headers of columns of numbers, which stay whole.
      width: of the terminal, in characters.
      wraps: whether sentences get more lines where they are too long, or are cut as names are.
    """
    widths = {header: max(map(width_of, (header, *column))) for header, column in cells.items()}
    over = sum(widths.values()) + _BETWEEN * (len(widths) - 1) - width
    texts = [header for header in widths if header not in right]
    cut: set[str] = set()
    while over > 0 and texts:
        header = max(texts, key=widths.__getitem__)
        if widths[header] <= max(_NARROWEST, len(header)):
            break
        widths[header] -= 1
        over -= 1
        cut.add(header)
    return {
        header: [_fitted(cell, widths[header], wraps and header in _PROSE) for cell in column]
        if header in cut
        else column
        for header, column in cells.items()
    }


def without_spare(
    cells: Mapping[str, Sequence[str]], right: Collection[str], width: int, spare: Sequence[str]
) -> Mapping[str, Sequence[str]]:
    """The columns, but those of `spare`, one after the other, until a row fits that is cut a bit.

    Args:
      cells, right, width: as cut_to_fit() takes them.
      spare: headers of columns that may be left out, the first first.
    """
    needed = {
        header: width_of_column if header in right else min(width_of_column, _READABLE)
        for header, column in cells.items()
        for width_of_column in (max(map(width_of, (header, *column))),)
    }
    for header in spare:
        if sum(needed.values()) + _BETWEEN * (len(needed) - 1) > width:
            needed.pop(header, None)
    return {header: cells[header] for header in needed}


def _fitted(cell: str, width: int, wraps: bool) -> str:
    return "\n".join(textwrap.wrap(cell, width)) if wraps else cut_text(cell, width)


def width_of(text: str) -> int:
    """The columns that a text takes: two for 字 and most emoji, none for what combines."""
    if text.isascii() or text.replace("…", "").isascii():  # as folded names are
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def cut_text(text: str, width: int) -> str:
    """A text of at most `width` columns, which begins and ends as it did."""
    if width_of(text) <= width:
        return text
    end = (width - 1) // 2
    start = width - 1 - end
    if text.isascii():
        return f"{text[:start]}…{text[len(text) - end :]}"
    first, last = start, len(text) - end  # no character takes less, but what combines
    while width_of(text[:first]) > start:
        first -= 1
    while width_of(text[last:]) > end or width_of(text[last : last + 1]) == 0 < len(text) - last:
        last += 1
    return f"{text[:first]}…{text[last:]}"
