"""Aligned tables: drawn on a terminal, plain lines elsewhere."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TextIO

from estimator_ckpt.bulk import AT_ONCE
from estimator_ckpt.errors import printable
from estimator_ckpt.text.terminal import cut_to_fit, width_of, without_spare

_SCREENFUL = 200
_EDGES = 2  # characters that rich draws beside a table


def text_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    total: str = "",
    *,
    right: Collection[str] = (),
) -> str:
    """An aligned table of plain text, each line ended; see table_lines()."""
    return "".join(line + "\n" for line in table_lines(_cells(headers, rows), total, right=right))


def table_lines(
    cells: Mapping[str, Sequence[str]], total: str = "", *, right: Collection[str] = ()
) -> Iterator[str]:
    """The lines of an aligned table: headers, a rule, rows, and `total` below a rule.

    Args:
      cells: the columns by their headers, all equally long; unprintable characters are shown
        escaped.
      total: the last line.
      right: the headers of the columns that are aligned to the right.
    """
    # A million rows are checked by column and put together by zip and %: no loop of ours is as
    # fast.
    columns, widths, forms = [], [], []
    for header, column in cells.items():
        shown, width = _printable_cells(column)
        width = max(len(header), width)
        forms.append(f"%{'' if header in right else '-'}{width}s")
        if not all(map(str.isascii, shown)):  # % counts characters, not columns
            padded = _padded_right if header in right else _padded
            shown = [padded(cell, width) for cell in shown]
            forms[-1] = "%s"
        columns.append(shown)
        widths.append(width)
    form = "  ".join(forms)
    rule = "  ".join("-" * width for width in widths)
    headers = (
        header.rjust(width) if header in right else header.ljust(width)
        for header, width in zip(cells, widths)
    )
    head = ["  ".join(headers).rstrip(), rule]
    rows = map(str.rstrip, map(form.__mod__, zip(*columns)))
    end = [rule, total] if any(columns) else [total]
    return itertools.chain(head, rows, end if total else [])


def _cells(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> dict[str, Sequence[str]]:
    columns = list(zip(*rows))
    return dict(zip(headers, columns or [()] * len(headers)))


def _printable_cells(cells: Sequence[str]) -> tuple[Sequence[str], int]:
    """The cells, and the columns that the widest takes."""
    width = 0
    for start in range(0, len(cells), AT_ONCE):
        part = cells[start : start + AT_ONCE]
        text = "".join(part)
        if not text.isprintable():
            return _printable_cells(list(map(printable, cells)))
        width = max(width, *map(len if text.isascii() else width_of, part))
    return cells, width


def _padded(cell: str, width: int) -> str:
    return cell + " " * (width - width_of(cell))


def _padded_right(cell: str, width: int) -> str:
    return " " * (width - width_of(cell)) + cell


def print_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    total: str = "",
    *,
    right: Collection[str] = (),
    file: TextIO | None = None,
) -> None:
    """Writes a table; see print_columns()."""
    print_columns(_cells(headers, rows), total, right=right, file=file)


def print_columns(
    cells: Mapping[str, Sequence[str]],
    total: str = "",
    *,
    right: Collection[str] = (),
    spare: Sequence[str] = (),
    file: TextIO | None = None,
) -> None:
    """Writes a table: drawn by rich where a person reads it whole, else plain lines, streamed.

    On a terminal long cells are cut in the middle, and sentences wrapped, so that rows fit;
    elsewhere they are whole.

    Args:
      cells, total, right: as table_lines() takes them.
      spare: headers of columns that are left out where a terminal is too narrow, the first first.
      file: sys.stdout if it is None.
    """
    file = sys.stdout if file is None else file
    if file.isatty():
        cells = {header: _printable_cells(column)[0] for header, column in cells.items()}
        is_drawn = max(map(len, cells.values()), default=0) <= _SCREENFUL
        width = shutil.get_terminal_size().columns - _EDGES
        shown = without_spare(cells, right, width, spare)
        missing = [header for header in cells if header not in shown]
        if missing:
            total += f"\nno room for {', '.join(missing)}: make the terminal wider"
        cells = cut_to_fit(shown, right, width, wraps=is_drawn)
        if is_drawn:
            _draw(cells, total, right, file)
            return
    lines = table_lines(cells, total, right=right)
    while batch := list(itertools.islice(lines, AT_ONCE)):
        file.write("\n".join([*batch, ""]))


def _draw(
    cells: Mapping[str, Sequence[str]], total: str, right: Collection[str], file: TextIO
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for header in cells:
        table.add_column(header, justify="right" if header in right else "left", overflow="fold")
    for row in zip(*cells.values()):
        table.add_row(*map(Text, row))
    console = Console(file=file, highlight=False)
    console.print(table)
    if total:
        console.print(Text(total))
