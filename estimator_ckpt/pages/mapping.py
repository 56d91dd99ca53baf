"""The view of a mapping: which tensor of a checkpoint goes where, and what goes nowhere."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from estimator_ckpt import files
from estimator_ckpt.check import Fit
from estimator_ckpt.conversion.plan import ConversionRow
from estimator_ckpt.errors import CorruptCheckpointError, printable
from estimator_ckpt.text.rows import Row, fold_groups, totals

_WARM_START = "warm_start.json"
_LARGEST_REPORT = 256 << 20  # bytes; some 200 are a variable

# The ways to a tensor, by what reports and plans say of it; the first that is found counts.
_WAYS = {
    "rule": re.compile(r"^(?:assignment_map|var_name_to_prev_var_name|rename)\b"),
    "structure": re.compile(r"\bobject path\b"),
    "name": re.compile(r"\bnames?\b"),
}
# What has no partner, as none was looked for; all else without one is to be seen at once.
_UNASKED = ("added", "not selected")
_LEFT = "\0"  # no name of a variable
_SHOWN_FIRST = ("initialized", "unused", "warm-started", "not selected")


def mapping_view(
    title: str,
    rows: Iterable[Row],
    *,
    left: str,
    right: str,
    bad: Iterable[str] = (),
    hint: str = "",
) -> dict[str, Any]:
    """The view "mapping".

    A row of it is the status, left, right, the note, how many variables it stands for, the way by
    which the two were found to belong together, and "bad", "alone" or "" for what is wrong with it.

    Args:
      title: what was matched with what.
      rows: `name` is what stands on the right, `found` what on the left; "" or "-" is nothing;
        `note` is the rule or the reason.
      left: what the left side is: a checkpoint.
      right: what the right side is: a model, a result.
      bad: the statuses that are wrong, and shown so.
      hint: a line below the title.
    """
    listed, wrong = list(rows), set(bad)
    # Folding goes by the name, so what stands on the left alone has it there.
    by_name = [row if row.name else replace(row, name=row.found, found=_LEFT) for row in listed]
    drawn = [(_on_its_side(row), len(members)) for row, members in fold_groups(by_name)]
    return {
        "view": "mapping",
        "title": printable(title),
        "left": left,
        "right": right,
        "bad": sorted(wrong),
        "hint": printable(hint),
        "totals": totals(listed),
        "rows": [
            [
                row.status,
                printable(row.found),
                printable(row.name),
                printable(_note(row)),
                count,
                _way(row),
                _trouble(row, wrong),
            ]
            for row, count in drawn
        ],
    }


def _on_its_side(row: Row) -> Row:
    if row.found == _LEFT:
        return replace(row, name="", found=row.name)
    return replace(row, found="") if row.found == "-" else row


def _way(row: Row) -> str:
    if not (row.name and row.found):
        return ""
    return next((way for way, said in _WAYS.items() if said.search(row.note)), row.status)


def _note(row: Row) -> str:
    """Without a path that one of the ends says already."""
    is_said = row.note in (f"object path {row.name}", f"object path {row.found}")
    return "object path" if is_said else row.note


def _trouble(row: Row, wrong: set[str]) -> str:
    if row.status in wrong:
        return "bad"
    is_alone = not (row.name and row.found) and row.status not in _UNASKED
    return "alone" if is_alone else ""


def fit_view(fit: Fit, model: str) -> dict[str, Any]:
    """The view "mapping" of what check_checkpoint() found for a model of that name."""
    rows = [
        replace(row, name="", found=row.name)
        if row.status == "unused"
        else replace(
            row,
            found=fit.sources.get(row.name, ""),
            note=row.note or fit.ways.get(row.name, ""),
        )
        for row in fit.sorted_rows()
    ]
    return mapping_view(
        f"{model} from {fit.checkpoint}",
        rows,
        left="checkpoint",
        right="model",
        bad=fit.misfits,
        hint=fit.hint,
    )


def plan_view(title: str, rows: Iterable[ConversionRow]) -> dict[str, Any]:
    """The view "mapping" of a conversion's plan: each tensor and its keys in the result."""
    drawn = [
        Row(row.action, target, "", row.source, row.why)
        for row in rows
        for target in row.targets or ("",)
    ]
    return mapping_view(title, drawn, left="source", right="result")


def warm_start_view(directory: str) -> dict[str, Any] | None:
    """The view "mapping" of the `warm_start.json` that a job leaves beside its first checkpoint.

    Returns:
      None where there is none.

    Raises:
      CorruptCheckpointError: the file is no report of a warm start.
    """
    path = os.path.join(directory, _WARM_START)
    if not files.exists(path):
        return None
    size = files.size(path)
    if size > _LARGEST_REPORT:
        raise CorruptCheckpointError(
            f"no report of a warm start: {size} bytes; expected {_LARGEST_REPORT} at most",
            path=path,
        )
    data = files.read_bytes(path)
    try:
        report = json.loads(data)
        rows = _warm_start_rows(report)
        source = _text(report["checkpoint"])
        notes = [f"not started: {_text(one)}" for one in report.get("refused", ())]
        notes += [_text(one) for one in report.get("notes", ())]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptCheckpointError(f"no report of a warm start: {error!r}", path=path) from error
    title = f"warm start from {source}"
    return mapping_view(title, rows, left="checkpoint", right="model", hint="; ".join(notes))


def _warm_start_rows(report: Mapping[str, Any]) -> list[Row]:
    rows = [
        Row(
            printable(_text(one["status"])),
            _text(one["variable"]),
            "",
            _text(one["source"] or ("computed" if one["status"] == "warm-started" else "")),
            _text(one["rule"] or ""),
        )
        for one in report["variables"]
    ]
    rows += [Row("unused", "", "", _text(name)) for name in report["unexpected"]]
    ranks = {status: rank for rank, status in enumerate(_SHOWN_FIRST)}
    return sorted(rows, key=lambda row: ranks.get(row.status, -1))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, found {repr(value)[:80]}")
    return value
