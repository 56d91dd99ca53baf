"""usage: estimator-ckpt verify [flags] PATH...

Reads every byte of the checkpoints and checks all checksums, offsets, slices and object keys;
goes on after a fault. PATH is a prefix, PREFIX.index, a directory with checkpoints (the newest
counts) or a SavedModel's directory.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from absl import flags

from estimator_ckpt.cli import EXIT_ERROR, EXIT_NO, EXIT_OK, UsageError
from estimator_ckpt.commands.progress import progress_bar
from estimator_ckpt.errors import CheckpointError
from estimator_ckpt.report import print_table, size_text
from estimator_ckpt.verify import Fault, VerifyReport, verify_checkpoint


def define(flag_values: flags.FlagValues) -> None:
    """The flags of the verb."""
    flags.DEFINE_boolean("json", False, "Print a JSON list of reports.", flag_values=flag_values)


def run(arguments: list[str], flag_values: flags.FlagValues) -> int:
    """Verifies each path; 1 if one of them has a fault."""
    if not arguments:
        raise UsageError("verify: expected one path or more, found none")
    reports = []
    errors = []
    for path in arguments:
        try:
            with progress_bar(f"verifying {path}") as progress:
                reports.append(verify_checkpoint(path, progress=progress))
        except CheckpointError as error:  # the other paths are verified all the same
            errors.append(error)
            print(f"estimator-ckpt: {error}", file=sys.stderr)
            continue
        if not flag_values.json:
            _print(reports[-1])
    if flag_values.json:
        print(json.dumps([{"ok": one.ok, **asdict(one)} for one in reports], indent=2))
    if errors:
        return EXIT_ERROR
    return EXIT_OK if all(report.ok for report in reports) else EXIT_NO


def _print(report: VerifyReport) -> None:
    if report.faults:
        rows = [_cells(fault) for fault in report.faults]
        total = f"{report.prefix}: {len(rows):,} fault" + ("s" if len(rows) > 1 else "")
        print_table(["fault", "key", "byte", "file", "what"], rows, total, right=["byte"])
    else:
        checked = size_text(report.checked_bytes)
        print(f"{report.prefix}: whole; {report.keys:,} keys, {checked} in data files checked")
    for note in report.notes:
        print(f"note: {note}")


def _cells(fault: Fault) -> list[str]:
    offset = "" if fault.offset is None else str(fault.offset)
    return [fault.kind, fault.key or "", offset, fault.file, fault.message]
