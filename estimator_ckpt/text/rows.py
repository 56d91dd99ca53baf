"""Rows of a report: folded, counted, as the cells of a table, as JSON.

The shape is that of the loading report of Hugging Face transformers: one row per kind of trouble
and group of variables, `layer_{0…11}` instead of twelve rows, and a line of totals.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Union

# 07 is text, as folding would lose the 0, and so is what is longer than any index of a layer: int()
# refuses thousands of digits.
_INTEGER = re.compile(r"(?<!\d)(?:0|[1-9][0-9]{0,17})(?!\d)")
_MOST_PIECES = 8

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
    for index in reversed(range(len(members[0]))):
        merged: dict[tuple[frozenset[int], ...], set[int]] = {}
        for sets in found:
            merged.setdefault(sets[:index] + sets[index + 1 :], set()).update(sets[index])
        found = [
            (*rest[:index], frozenset(numbers), *rest[index:]) for rest, numbers in merged.items()
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


def columns(
    rows: Iterable[Row], *, expected: str = "expected", found: str = "found"
) -> tuple[list[str], list[list[str]]]:
    """Headers and cells of rows for text_table(), without the columns that are empty."""
    cells = [[row.name, row.status, row.expected, row.found, row.note] for row in rows]
    headers = ["name", "status", expected, found, "note"]
    kept = [n for n in range(len(headers)) if n < 2 or any(line[n] for line in cells)]
    return [headers[n] for n in kept], [[line[n] for n in kept] for line in cells]


def to_json(rows: Iterable[Row], **fields: Any) -> str:
    """A report as JSON: `fields`, then the totals by status, then every row, not folded."""
    rows = list(rows)
    return json.dumps(
        {**fields, "totals": totals(rows), "rows": [asdict(row) for row in rows]}, indent=2
    )
