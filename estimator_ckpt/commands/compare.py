"""usage: estimator-ckpt compare [flags] A B

Compares the values of two checkpoints of any formats. Variables are matched by name, and what is
left by object path. A and B are prefixes, PREFIX.index files, directories with checkpoints (the
newest counts) or directories of SavedModels.

Examples:
  estimator-ckpt compare run/model.ckpt-1000 run/model.ckpt-2000
  estimator-ckpt compare --rtol=1e-6 run another_run
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from absl import flags

from estimator_ckpt.checkpoint import open_checkpoint
from estimator_ckpt.cli import EXIT_NO, EXIT_OK, UsageError
from estimator_ckpt.commands.html_flag import check_html, define_html, write_html
from estimator_ckpt.compare import Compared, Comparison, compare_checkpoints
from estimator_ckpt.errors import printable
from estimator_ckpt.text.progress import progress_bar
from estimator_ckpt.text.rows import columns, total_line
from estimator_ckpt.text.tables import print_table

EXIT_CODES = {
    0: "equal, bit for bit or within the tolerances",
    1: "they differ",
    2: "an error: a wrong flag, a path that cannot be read",
}


def define(flag_values: flags.FlagValues) -> None:
    """The flags of the verb."""
    flags.DEFINE_float(
        "rtol",
        0.0,
        "Values x in A and y in B count as close if |x - y| <= atol + rtol * |y|.",
        lower_bound=0.0,
        flag_values=flag_values,
    )
    flags.DEFINE_float("atol", 0.0, "See --rtol.", lower_bound=0.0, flag_values=flag_values)
    flags.DEFINE_boolean(
        "all", False, "List every variable in a row of its own.", flag_values=flag_values
    )
    flags.DEFINE_boolean("json", False, "Print JSON.", flag_values=flag_values)
    define_html(flag_values)


def run(arguments: list[str], flag_values: flags.FlagValues) -> int:
    """Compares two paths; 1 if they differ."""
    if len(arguments) != 2:
        raise UsageError(f"compare: expected two paths, found {len(arguments)}")
    for flag, value in (("rtol", flag_values.rtol), ("atol", flag_values.atol)):
        if not math.isfinite(value):
            raise UsageError(f"--{flag}: expected a number, found {value}")
    check_html(flag_values)
    # Opened once: a job that runs may have another newest one when the page is made.
    with open_checkpoint(arguments[0]) as a, open_checkpoint(arguments[1]) as b:
        with progress_bar("comparing") as progress:
            comparison = compare_checkpoints(
                a, b, rtol=flag_values.rtol, atol=flag_values.atol, progress=progress
            )
        if flag_values.html:
            from estimator_ckpt.pages.values import changes_view

            with progress_bar("reading what differs") as progress:
                view = changes_view(a, b, comparison, progress)
                write_html(flag_values, "compare", [view])
    if flag_values.json:
        print(json.dumps(_json(comparison), indent=2))
    else:
        _print(comparison, all_rows=flag_values.all)
    return EXIT_OK if comparison.equal else EXIT_NO


def _print(comparison: Comparison, *, all_rows: bool) -> None:
    print(f"A: {printable(comparison.a)}\nB: {printable(comparison.b)}\n")
    rows = comparison.rows()
    shown = rows if all_rows else comparison.folded_rows()
    if shown:
        print_table(*columns(shown, expected="A", found="B"), total_line(rows))
    else:
        print(total_line(rows))
    for note in comparison.notes:
        print(f"note: {printable(note)}")


def _json(comparison: Comparison) -> dict[str, Any]:
    return {
        "a": comparison.a,
        "b": comparison.b,
        "equal": comparison.equal,
        "notes": comparison.notes,
        "variables": [_variable_json(one) for one in comparison.variables],
    }


def _variable_json(one: Compared) -> dict[str, Any]:
    found: dict[str, Any] = {"status": one.status, "name": one.name}
    for side, variable in (("a", one.a), ("b", one.b)):
        found[side] = variable and {
            "name": variable.name,
            "key": variable.key,
            "shape": variable.shape,
            "dtype": variable.dtype,
        }
    found["difference"] = one.difference and asdict(one.difference)
    return found
