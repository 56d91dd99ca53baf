"""Verifying on many machines: each checkpoint, and what stands beside them in each directory."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from typing import Any

import apache_beam as beam

from estimator_ckpt.beam.running import (
    Act,
    Logged,
    Step,
    absolute,
    check_complete,
    open_log,
    parts,
    read_logged,
    run,
    to_shards,
)
from estimator_ckpt.checking.audit import (
    AuditReport,
    Directory,
    by_step,
    look,
    nothing_found,
    verify_found,
)
from estimator_ckpt.conversion.request import index_stamp
from estimator_ckpt.errors import CheckpointError
from estimator_ckpt.files.log import Line, Shards, no_line, read_lines
from estimator_ckpt.reading.locate import walk
from estimator_ckpt.verify import Fault, VerifyReport

_BESIDE = "beside"


class VerifyDirectory(beam.PTransform):  # type: ignore[misc]
    """Verifies all checkpoints in a directory and in those below it, and what stands beside them.

    Applied to a pipeline it gives a PCollection of a `VerifyReport` for each checkpoint, and of an
    `AuditReport` without checkpoints for each directory. What the log says is whole, and has the
    same index still, is not read again: for another look at the data name another log.

    Args:
      path: a model_dir, or a directory with model_dirs at any depth.
      log: where to log, and what earlier runs have verified; None for neither.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        log: str | os.PathLike[str] | Shards | None = None,
    ) -> None:
        super().__init__()
        self.path = absolute(path, "path")
        self.shards = to_shards(log)

    def expand(self, pipeline: Any) -> Any:
        walked = (
            pipeline
            | beam.Create([self.path])
            | "Walk" >> self._act(_walk).with_outputs(_BESIDE, main="directories")
        )
        looked = (
            walked.directories
            | beam.Reshuffle()
            | "Look" >> self._act(_look).with_outputs(_BESIDE, main="prefixes")
        )
        logged = read_logged(pipeline, self.shards, _read_whole)
        reports = (
            {"found": looked.prefixes, "logged": logged}
            | beam.CoGroupByKey()
            | "Verify" >> self._act(_verify)
        )
        return (walked[_BESIDE], looked[_BESIDE], reports) | beam.Flatten()

    def _act(self, act: Act) -> Any:
        return beam.ParDo(Logged(act, self.shards))


def _walk(path: str) -> Iterator[Step]:
    try:
        found = list(walk(path))
    except CheckpointError as error:
        fault = Fault("unreadable", error.path or path, error.message, error.key)
        yield _beside(Directory(path, (), (fault,), ()))
        return
    yield None, {"kind": "tree", "path": path, "directories": len(found)}
    for directory, names, _ in found:
        yield (directory, names), None


def _look(element: tuple[str, list[str]]) -> Iterator[Step]:
    found = look(*element)
    yield _beside(found)
    for prefix in found.prefixes:
        yield (prefix, None), None


def _verify(element: tuple[str, dict[str, Any]]) -> Iterator[Step]:
    prefix, group = element
    if not group["found"]:
        return  # it is in the log alone
    stamp = index_stamp(prefix)
    for logged, report in group["logged"]:
        if logged == stamp:
            yield report, {**_report_line(report, stamp), "by_log": True}
            return
    verified = verify_found(prefix)
    if isinstance(verified, str):
        report = AuditReport(os.path.dirname(prefix), (), (), (verified,))
        yield report, {"kind": "deleted", "ok": True, "path": prefix, "notes": [verified]}
    else:
        yield verified, _report_line(verified, stamp)


def _beside(found: Directory) -> Step:
    report = AuditReport(found.path, (), found.faults, found.notes)
    texts = [asdict(fault) for fault in found.faults]
    line = {"kind": "directory", "ok": report.ok, "path": found.path, "faults": texts}
    line.update(notes=found.notes, checkpoints=len(found.prefixes))
    return beam.TaggedOutput(_BESIDE, report), line


def _report_line(report: VerifyReport, stamp: int | None) -> Line:
    return {"kind": "checkpoint", "ok": report.ok, **asdict(report), "stamp": stamp}


def _report(line: Line) -> VerifyReport:
    # A log of an earlier version lacks what is new.
    values = {one.name: line[one.name] for one in fields(VerifyReport) if one.name in line}
    return VerifyReport(**{**values, "faults": _faults(line), "notes": tuple(line["notes"])})


def _faults(line: Line) -> tuple[Fault, ...]:
    return tuple(Fault(**fault) for fault in line["faults"])


def _read_whole(log: str) -> Iterator[tuple[str, tuple[int, VerifyReport]]]:
    """The checkpoints that earlier runs have found whole: prefix, stamp of the index, report."""
    for path, number, line in read_lines(log):
        try:
            if line["kind"] == "checkpoint" and line["ok"] and line["stamp"] is not None:
                yield line["path"], (line["stamp"], _report(line))
        except (TypeError, KeyError):
            raise no_line(path, number) from None


def verify_directory(
    path: str | os.PathLike[str],
    *,
    log: str | os.PathLike[str],
    arguments: Sequence[str] = (),
) -> AuditReport:
    """Runs VerifyDirectory, and waits for its end.

    Args:
      path: as for VerifyDirectory.
      log: the same, where this machine reaches it, too.
      arguments: flags of Beam.

    Raises:
      NotACheckpointError: there is no checkpoint in it, nor a part of one.
      SettingsError, WriteError: the log cannot be used.
      RunError: the run broke off; to run it again goes on from there.
    """
    shards = open_log(log, _read_whole)
    transform = VerifyDirectory(path, log=shards)
    run(transform, arguments)
    of_kind: dict[str, dict[str, Line]] = defaultdict(dict)
    for line in shards.read():
        lines = of_kind[line["kind"]]
        if line["path"] not in lines or not line.get("ok"):  # of two reports, the worse counts
            lines[line["path"]] = line
    directories = sorted(of_kind["directory"].values(), key=lambda line: parts(line["path"]))
    reports = map(_report, of_kind["checkpoint"].values())
    gone = of_kind["deleted"].keys() - of_kind["checkpoint"].keys()
    check_complete(
        shards,
        len(directories),
        [line["directories"] for line in of_kind["tree"].values()],
    )
    check_complete(
        shards,
        len(of_kind["checkpoint"]) + len(gone),
        [line["checkpoints"] for line in directories],
    )
    faults = [fault for line in directories for fault in _faults(line)]
    notes = [note for line in directories for note in line["notes"]]
    notes += [note for one in sorted(gone) for note in of_kind["deleted"][one]["notes"]]
    by_log = sum(line.get("by_log", False) for line in of_kind["checkpoint"].values())
    if by_log:
        notes.append(f"the log has {by_log:,} checkpoints as whole; they were not read again")
    if not of_kind["checkpoint"] and not faults:
        raise nothing_found(transform.path)
    return AuditReport(
        transform.path, tuple(sorted(reports, key=_order)), tuple(faults), tuple(notes)
    )


def _order(one: VerifyReport) -> tuple[Any, ...]:
    return parts(os.path.dirname(one.path)), by_step(one.path)
