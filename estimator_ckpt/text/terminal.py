"""Tables on a terminal: cells that are too long are cut in the middle."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

_NARROWEST = 20  # characters of a column that is cut
_BETWEEN = 3  # spaces from one column to the next, as rich draws them


def cut_to_fit(
    cells: Mapping[str, Sequence[str]], right: Collection[str], width: int
) -> Mapping[str, Sequence[str]]:
    """The cells, those of the widest columns cut until a row fits.

    Args:
      cells: the columns by their headers, printable.
      right: the headers of columns of numbers, which stay whole.
      width: of the terminal, in characters.
    """
    widths = {header: max(map(len, (header, *column))) for header, column in cells.items()}
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
        header: [cut_text(cell, widths[header]) for cell in column] if header in cut else column
        for header, column in cells.items()
    }


def cut_text(text: str, width: int) -> str:
    """A text of at most `width` characters, which begins and ends as it did."""
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"
