"""Rows of a report: folded, as an aligned table, as JSON; and names near to a name.

The shape is that of the loading report of Hugging Face transformers: one row per kind of trouble
and group of variables, `layer_{0…11}` instead of twelve rows, and a line of totals.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TextIO, Union

from estimator_ckpt.bulk import AT_ONCE
from estimator_ckpt.errors import printable
from estimator_ckpt.text.terminal import cut_to_fit

_INTEGER = re.compile(r"(?<!\d)(?:0|[1-9][0-9]*)(?!\d)")  # 07 is text: folding would lose the 0
_MOST_PIECES = 8
_SCREENFUL = 200
_EDGES = 2  # characters that rich draws beside a table

_FEW = 3
_CANDIDATES = 100
_ALIKE = 0.6
_SYNONYMS = {"weights": "kernel", "weight": "kernel", "biases": "bias"}
_UNIQUE_SUFFIX = re.compile(r"_\d+$")

# A text whose integers are taken out: the pieces between them, or plain text that stays.
_Template = Union[str, tuple[str, ...]]


@dataclass(frozen=True)
class Row:
    """One line of a report.

    Attributes:
      status: the kind of finding, one word or two: `missing`, `shape`, `changed`.
      name: the variable, key or file it is about.
      expected: what the one side has, or what was wanted.
      found: what the other side has.
      note: the rest: a reason, near names, a number.
    """

    status: str
    name: str
    expected: str = ""
    found: str = ""
    note: str = ""


def fold(rows: Iterable[Row]) -> list[Row]:
    """Rows that differ in integers of their names only become one row, `layer_{0…11}/kernel`.

    A folded row stands for exactly the names that its braces spell out, and for rows that are
    equal in all else. Names elsewhere in a row that carry the same integers (a source beside its
    target) fold with it. The order is that of the first row of each group.
    """
    return [row for row, _ in fold_groups(rows)]


def fold_groups(rows: Iterable[Row]) -> list[tuple[Row, list[Row]]]:
    """What fold() makes of the rows, each with the rows that it stands for."""
    groups: dict[tuple[Any, ...], dict[tuple[int, ...], Row]] = {}
    for row in rows:
        numbers = _INTEGER.findall(row.name)
        key = (
            row.status,
            tuple(_INTEGER.split(row.name)),
            _linked(row.expected, numbers),
            _linked(row.found, numbers),
            _linked(row.note, numbers),
        )
        groups.setdefault(key, {})[tuple(map(int, numbers))] = row
    folded = []
    for (status, name, *others), members in groups.items():
        for sets in _products(list(members)):
            texts = [_set_text(numbers) for numbers in sets]
            filled = (" ".join(_fill(word, texts) for word in words) for words in others)
            row = Row(status, _fill(name, texts), *filled)
            folded.append((row, [members[one] for one in itertools.product(*map(sorted, sets))]))
    return folded


def _linked(text: str, numbers: list[str]) -> tuple[_Template, ...]:
    """The words of `text`; those that look like a name and hold the same integers, as pieces."""
    if not numbers:
        return (text,)

    def template(word: str) -> _Template:
        alike = ("/" in word or "_" in word) and _INTEGER.findall(word) == numbers
        return tuple(_INTEGER.split(word)) if alike else word

    return tuple(map(template, text.split(" ")))


def _fill(template: _Template, texts: Sequence[str]) -> str:
    if isinstance(template, str):
        return template
    return "".join(a + b for a, b in zip(template, [*texts, ""]))


def _products(members: list[tuple[int, ...]]) -> list[tuple[frozenset[int], ...]]:
    """Products of sets that together hold exactly `members`, few of them rather than many."""
    found = [tuple(frozenset((number,)) for number in member) for member in members]
    for place in reversed(range(len(members[0]))):
        merged: dict[tuple[frozenset[int], ...], set[int]] = {}
        for sets in found:
            merged.setdefault(sets[:place] + sets[place + 1 :], set()).update(sets[place])
        found = [
            (*rest[:place], frozenset(numbers), *rest[place:]) for rest, numbers in merged.items()
        ]
    return found


def _set_text(numbers: Collection[int]) -> str:
    """`7`, `{0…11}`, `{0,2,5…9}`; a set of many pieces is cut, with its size."""
    if len(numbers) == 1:
        return str(*numbers)
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    pieces: list[str] = []
    for first, last in runs:
        if last - first > 1:
            pieces.append(f"{first}…{last}")
        else:
            pieces += map(str, range(first, last + 1))
    if len(pieces) > _MOST_PIECES:
        pieces[_MOST_PIECES - 1 :] = [f"… {len(numbers)} in all"]
    return "{" + ",".join(pieces) + "}"


def totals(rows: Iterable[Row]) -> dict[str, int]:
    """How many rows each status has, in the order in which the statuses first appear."""
    return dict(Counter(row.status for row in rows))


def total_line(rows: Iterable[Row]) -> str:
    """`298 matched, 1 missing`, of rows that are not folded; `nothing` where there are none."""
    return ", ".join(f"{count:,} {status}" for status, count in totals(rows).items()) or "nothing"


def report(
    rows: Iterable[Row],
    *,
    expected: str = "expected",
    found: str = "found",
    meanings: Mapping[str, str] | None = None,
) -> str:
    """A whole report as text: the folded rows, the totals, what each status means.

    Args:
      rows: not folded.
      expected: the header of the column; a column that is empty in all rows is left out.
      found: likewise.
      meanings: status -> a sentence, printed for the statuses that occur.
    """
    rows = list(rows)
    lines = [text_table(*columns(fold(rows), expected=expected, found=found), total_line(rows))]
    for status in totals(rows):
        if meanings and status in meanings:
            lines.append(f"{status}: {meanings[status]}\n")
    return "".join(lines)


def columns(
    rows: Iterable[Row], *, expected: str = "expected", found: str = "found"
) -> tuple[list[str], list[list[str]]]:
    """Headers and cells of rows for text_table(), without the columns that are empty."""
    cells = [[row.name, row.status, row.expected, row.found, row.note] for row in rows]
    headers = ["name", "status", expected, found, "note"]
    kept = [n for n in range(len(headers)) if n < 2 or any(line[n] for line in cells)]
    return [headers[n] for n in kept], [[line[n] for n in kept] for line in cells]


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
    columns, widths = [], []
    for header, column in cells.items():
        shown, width = _printable_cells(column)
        columns.append(shown)
        widths.append(max(len(header), width))
    form = "  ".join(
        f"%{'' if header in right else '-'}{width}s" for header, width in zip(cells, widths)
    )
    rule = "  ".join("-" * width for width in widths)
    head = [(form % tuple(cells)).rstrip(), rule]
    rows = map(str.rstrip, map(form.__mod__, zip(*columns)))
    end = [rule, total] if any(columns) else [total]
    return itertools.chain(head, rows, end if total else [])


def _cells(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> dict[str, Sequence[str]]:
    columns = list(zip(*rows))
    return dict(zip(headers, columns or [()] * len(headers)))


def _printable_cells(cells: Sequence[str]) -> tuple[Sequence[str], int]:
    """The cells, and the length of the longest."""
    width = 0
    for start in range(0, len(cells), AT_ONCE):
        part = cells[start : start + AT_ONCE]
        if not "".join(part).isprintable():
            return _printable_cells(list(map(printable, cells)))
        width = max(width, *map(len, part))
    return cells, width


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
    file: TextIO | None = None,
) -> None:
    """Writes a table: drawn by rich where a person reads it whole, else plain lines, streamed.

    On a terminal long cells are cut in the middle, so that rows fit; elsewhere they are whole.

    Args:
      cells, total, right: as table_lines() takes them.
      file: sys.stdout if it is None.
    """
    file = sys.stdout if file is None else file
    if file.isatty():
        cells = {header: _printable_cells(column)[0] for header, column in cells.items()}
        cells = cut_to_fit(cells, right, shutil.get_terminal_size().columns - _EDGES)
    if max(map(len, cells.values()), default=0) <= _SCREENFUL and file.isatty():
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
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console(file=file, highlight=False)
    console.print(table)
    if total:
        console.print(Text(total))


def to_json(rows: Iterable[Row], **fields: Any) -> str:
    """A report as JSON: `fields`, then the totals by status, then every row, not folded."""
    rows = list(rows)
    return json.dumps(
        {**fields, "totals": totals(rows), "rows": [asdict(row) for row in rows]}, indent=2
    )


def counted(count: int, noun: str) -> str:
    """`1 variable`, `1,024 variables`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def size_text(nbytes: int) -> str:
    """`0 B`, `340 B`, `1.2 kB`, `31.5 GB`: powers of 1000, as disks and `ls --si` count."""
    if nbytes < 1000:
        return f"{nbytes} B"
    units = iter(("kB", "MB", "GB", "TB"))
    value, unit = nbytes / 1000, next(units)
    while value >= 999.95 and unit != "TB":
        value, unit = value / 1000, next(units)
    return f"{value:.1f} {unit}"


def tensor_text(dtype: str, shape: Iterable[int] | None) -> str:
    """`float32[3,4]`; `float32[?]` where the shape is not known."""
    return f"{dtype}[{'?' if shape is None else ','.join(map(str, shape))}]"


class NameIndex:
    """Names in which near ones are looked for, many times over."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(dict.fromkeys(names))
        self._by_last: dict[str, list[str]] = {}
        for name in self._names:
            self._by_last.setdefault(_plain_parts(name)[-1], []).append(name)

    def near(self, name: str, limit: int = 3) -> list[str]:
        """The names nearest to `name`, best first; a pass over the names that end alike.

        First those that differ by what renames usually change: scopes put before it or dropped
        (`model/`), `weights` for `kernel`, a suffix that made the name unique (`_1`). Then those
        that read alike.
        """
        import difflib
        import heapq

        parts = _plain_parts(name)
        alike = self._by_last.get(parts[-1]) or self._names
        if len(alike) > _CANDIDATES:
            wanted = set(parts)
            alike = heapq.nlargest(
                _CANDIDATES, alike, key=lambda other: len(wanted.intersection(_plain_parts(other)))
            )
        scored = []
        matcher = difflib.SequenceMatcher(b=name)
        for other in alike:
            matcher.set_seq1(other)
            theirs = _plain_parts(other)
            short, long = sorted((parts, theirs), key=len)
            shifted = long[-len(short) :] == short
            if shifted or (matcher.quick_ratio() >= _ALIKE and matcher.ratio() >= _ALIKE):
                scored.append((not shifted, -matcher.ratio(), other))
        return [other for *_, other in sorted(scored)[:limit] if other != name]


def _plain_parts(name: str) -> list[str]:
    """The scopes of a name, without what renames usually change."""
    parts = name.split(":")[0].split("/")
    return [_SYNONYMS.get(part, part) for part in (_UNIQUE_SUFFIX.sub("", p) for p in parts)]


def near_names(name: str, candidates: Iterable[str], limit: int = 3) -> list[str]:
    """The candidates that `name` may stand for; NameIndex(candidates).near(name) for one name."""
    return NameIndex(candidates).near(name, limit)


def first_names(names: Sequence[str]) -> str:
    """`a, b, c, ...`: three of them at most."""
    return ", ".join(names[:_FEW]) + (", ..." if len(names) > _FEW else "")


def did_you_mean(names: Sequence[str]) -> str:
    """`; did you mean 'a' or 'b'?`, to end a message with; empty where there are no names."""
    return f"; did you mean {' or '.join(map(repr, names))}?" if names else ""
