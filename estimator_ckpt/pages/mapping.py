"""The view of a mapping: which tensor of a checkpoint goes where, and what goes nowhere."""

from __future__ import annotations

import json
import os
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

    Args:
      title: what was matched with what.
      rows: `name` is what stands on the right, `found` what on the left; "" or "-" is nothing;
        `note` is the rule or the reason.
      left: what the left side is: a checkpoint.
      right: what the right side is: a model, a result.
      bad: the statuses that are wrong, and shown so.
      hint: a line below the title.
    """
    listed = list(rows)
    return {
        "view": "mapping",
        "title": printable(title),
        "left": left,
        "right": right,
        "bad": sorted(bad),
        "hint": printable(hint),
        "totals": totals(listed),
        "rows": [
            [
                row.status,
                "" if row.found == "-" else printable(row.found),
                printable(row.name),
                printable(row.note),
                len(members),
            ]
            for row, members in fold_groups(listed)
        ],
    }


def fit_view(fit: Fit, model: str) -> dict[str, Any]:
    """The view "mapping" of what check_checkpoint() found for a model of that name."""
    rows = [
        replace(row, name="", found=row.name)
        if row.status == "unused"
        else replace(row, found=fit.sources.get(row.name, ""))
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
    started = [
        Row(
            printable(_text(one["status"])),
            _text(one["variable"]),
            "",
            _text(one["source"] or ""),
            _text(one["rule"] or ""),
        )
        for one in report["variables"]
    ]
    return started + [Row("unused", "", "", _text(name)) for name in report["unexpected"]]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, found {repr(value)[:80]}")
    return value
