"""usage: estimator-ckpt verify [flags] PATH...

Reads every byte of the checkpoints and checks all checksums, offsets, slices and object keys;
goes on after a fault. PATH is a prefix, PREFIX.index, a SavedModel's directory, or a directory with
checkpoints at any depth: all of them are verified, and their `checkpoint` files, with what is left
of broken saves.

Examples:
  estimator-ckpt verify run/model.ckpt-1000
  estimator-ckpt verify run
  estimator-ckpt verify --quiet --newest run another_run
"""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import asdict
from typing import Any

from absl import flags

from estimator_ckpt import files
from estimator_ckpt.checking.audit import AuditReport, verify_directory
from estimator_ckpt.cli import EXIT_ERROR, EXIT_NO, EXIT_OK, UsageError
from estimator_ckpt.commands.beam_flags import beam_arguments, define_beam, interruptible
from estimator_ckpt.commands.html_flag import check_html, define_html, write_html
from estimator_ckpt.errors import CheckpointError, printable
from estimator_ckpt.reading.locate import is_saved_model
from estimator_ckpt.text.progress import counting_bar, progress_bar
from estimator_ckpt.text.quantities import counted, size_text
from estimator_ckpt.text.tables import print_table
from estimator_ckpt.verify import Fault, VerifyReport, verify_checkpoint

EXIT_CODES = {
    0: "all are whole",
    1: "there are faults",
    2: "an error: a wrong flag, or a path that cannot be read; the others are verified",
}

GROUPS = {"Common": "newest quiet json json_lines html", "Many machines": "beam log"}


def define(flag_values: flags.FlagValues) -> None:
    """The flags of the verb."""

    def boolean(name: str, text: str) -> None:
        flags.DEFINE_boolean(name, False, text, flag_values=flag_values)

    boolean("newest", "Of a directory, verify the newest checkpoint alone.")
    define_beam(flag_values)
    flags.DEFINE_string(
        "log",
        None,
        "With --beam: a file; beside it stands what the workers have found. What it says is whole"
        " is not read again.",
        flag_values=flag_values,
    )
    boolean("quiet", "Print faults and totals alone.")
    boolean("json", "Print a JSON list with a report of each PATH.")
    boolean("json_lines", "Print a line of JSON for each checkpoint as soon as it is verified.")
    define_html(flag_values)


def run(arguments: list[str], flag_values: flags.FlagValues) -> int:
    """Verifies each path; 1 if one of them has a fault, 2 if one cannot be read."""
    if not arguments:
        raise UsageError("verify: expected one path or more, found none")
    if flag_values.json and flag_values.json_lines:
        raise UsageError("verify: --json or --json_lines, not both")
    if (flag_values.beam is None) != (flag_values.log is None):
        raise UsageError("verify: --beam and --log belong together")
    if flag_values.beam is not None and (flag_values.newest or flag_values.json_lines):
        raise UsageError("verify: --beam neither goes with --newest nor with --json_lines")
    check_html(flag_values)
    show = _Show(flag_values)
    code = EXIT_OK
    for path in arguments:
        try:
            is_directory = files.is_dir(path) and not is_saved_model(path)
            if flag_values.beam is not None:
                ok = _verify_on_beam(path, flag_values, show)
            elif is_directory and not flag_values.newest:
                ok = _verify_directory(path, show)
            else:
                with progress_bar(f"verifying {path}") as progress:
                    report = verify_checkpoint(path, progress=progress)
                show.checkpoint(report)
                show.path(_json(report))
                ok = report.ok
            code = code if ok else max(code, EXIT_NO)
        except CheckpointError as error:  # the other paths are verified all the same
            code = EXIT_ERROR
            print(f"estimator-ckpt: {error}", file=sys.stderr)
            show.error(path, error)
    show.end()
    return code


def _verify_directory(path: str, show: _Show) -> bool:
    with counting_bar(f"verifying {path}") as count:

        def report(one: VerifyReport, number: int, total: int) -> None:
            show.checkpoint(one, among_many=count is not None)
            if count is not None:
                count(number, total)

        audit = verify_directory(path, report=report)
    show.audit(audit)
    return audit.ok


def _verify_on_beam(path: str, flag_values: flags.FlagValues, show: _Show) -> bool:
    arguments = beam_arguments("verify", flag_values.beam)
    from estimator_ckpt import beam  # which is slow to import, and an extra

    with interruptible():
        audit = beam.verify_directory(path, log=flag_values.log, arguments=arguments)
    for report in audit.checkpoints:
        show.checkpoint(report, among_many=True)
    show.audit(audit)
    return audit.ok


class _Show:
    """How the reports are shown: as text, as one JSON list, or as lines of JSON."""

    def __init__(self, flag_values: flags.FlagValues) -> None:
        self._json = flag_values.json
        self._lines = flag_values.json_lines
        self._quiet = flag_values.quiet
        self._paths: list[dict[str, Any]] = []
        self._rows: list[list[str]] = []  # of the page
        self._write_page = functools.partial(write_html, flag_values, "verify")

    def checkpoint(self, report: VerifyReport, *, among_many: bool = False) -> None:
        """One that has been verified; of many on a terminal, where a bar counts, only faults."""
        if report.ok:
            self._rows.append(["whole", report.prefix, "", "", "; ".join(report.notes)])
        self._faults(report.prefix, report.faults)
        if self._lines:
            print(json.dumps(_json(report)), flush=True)
        elif not self._json and (report.faults or not (self._quiet or among_many)):
            _print(report)

    def audit(self, audit: AuditReport) -> None:
        """A directory, after its checkpoints."""
        self._faults(audit.path, audit.faults)
        beside = {"faults": [asdict(one) for one in audit.faults], "notes": list(audit.notes)}
        if self._lines:
            print(json.dumps({"ok": not audit.faults, "path": audit.path, **beside}), flush=True)
        elif self._json:
            checkpoints = [_json(one) for one in audit.checkpoints]
            self.path({"ok": audit.ok, "path": audit.path, "checkpoints": checkpoints, **beside})
        else:
            _print_audit(audit, quiet=self._quiet)

    def path(self, report: dict[str, Any]) -> None:
        """The report of a path, whole."""
        self._paths.append(report)

    def error(self, path: str, error: CheckpointError) -> None:
        """A path that cannot be read."""
        self._rows.append(["error", path, "", "", str(error)])
        report = {"ok": False, "path": path, "error": str(error)}
        if self._lines:
            print(json.dumps(report), flush=True)
        self.path(report)

    def end(self) -> None:
        """After all paths."""
        self._write_page([findings_view(self._rows)])
        if self._json:
            print(json.dumps(self._paths, indent=2))

    def _faults(self, where: str, faults: tuple[Fault, ...]) -> None:
        for fault in faults:
            key, offset, file, message = _cells(fault)[1:]
            self._rows.append([fault.kind, where, key, f"{file} {offset}".strip(), message])


def findings_view(rows: list[list[str]]) -> dict[str, Any]:
    """The view "table" of what was found: a line for each checkpoint and each fault."""
    whole = sum(row[0] == "whole" for row in rows)
    return {
        "view": "table",
        "title": f"{counted(whole, 'checkpoint')} whole",
        "headers": ["fault", "checkpoint", "key", "file and byte", "what"],
        "rows": [list(map(printable, row)) for row in rows],
        "bad": sorted({row[0] for row in rows} - {"whole"}),
    }


def _json(report: VerifyReport) -> dict[str, Any]:
    return {"ok": report.ok, **asdict(report)}


def _print(report: VerifyReport) -> None:
    if report.faults:
        _print_faults(report.faults, report.prefix)
    else:
        checked = size_text(report.checked_bytes)
        keys = counted(report.keys, "key")
        position = f"; the input's position, {size_text(report.input_bytes)}, too"
        print(
            f"{printable(report.prefix)}: whole; {keys}, {checked} in data files checked"
            f"{position * bool(report.input_bytes)}"
        )
    for note in report.notes:
        print(f"note: {printable(note)}")


def _print_audit(audit: AuditReport, *, quiet: bool) -> None:
    if audit.faults:
        _print_faults(audit.faults, f"beside the checkpoints of {audit.path}")
    for note in () if quiet else audit.notes:
        print(f"note: {printable(note)}")
    faulty = sum(not one.ok for one in audit.checkpoints)
    whole = len(audit.checkpoints) - faulty
    counts = [f"{whole:,} of {counted(len(audit.checkpoints), 'checkpoint')} whole"]
    if audit.faults:
        counts.append(f"{counted(len(audit.faults), 'fault')} beside them")
    print(f"{printable(audit.path)}: {', '.join(counts)}")


def _print_faults(faults: tuple[Fault, ...], where: str) -> None:
    rows = [_cells(fault) for fault in faults]
    total = f"{printable(where)}: {counted(len(rows), 'fault')}"
    print_table(["fault", "key", "byte", "file", "what"], rows, total, right=["byte"])


def _cells(fault: Fault) -> list[str]:
    offset = "" if fault.offset is None else str(fault.offset)
    return [fault.kind, fault.key or "", offset, fault.file, fault.message]
