"""Many checkpoints at once: a model_dir, or a tree of them, converted one after the other.

It goes on after a failure, can be interrupted, and does nothing twice when it is run again: what is
converted already is found by its files, or by the log. Names do not tell: `model.ckpt-100` may be
another job's, or be of before a restart, or converted by other rules.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Optional

from estimator_ckpt import files
from estimator_ckpt.bulk import collector_paused
from estimator_ckpt.bundle.v1 import plain_prefix
from estimator_ckpt.checkpoint import open_checkpoint
from estimator_ckpt.conversion.already_converted import is_result
from estimator_ckpt.conversion.carry_out import carry_out, changes
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.destination import clear_in_place, is_unfinished, passing_name
from estimator_ckpt.conversion.plan import Conversion
from estimator_ckpt.conversion.prepare import make_plan
from estimator_ckpt.conversion.result_path import check_in_place, is_inside
from estimator_ckpt.errors import (
    CheckpointError,
    NotACheckpointError,
    SettingsError,
    WriteError,
)
from estimator_ckpt.files import Progress, claims
from estimator_ckpt.reading.locate import complete_prefixes, is_saved_model
from estimator_ckpt.reading.state import CheckpointState, read_state, write_state

_STATE_FILE = "checkpoint"
_MOST_WAITED = 10.0  # seconds, for another conversion that writes a state file


@dataclass(frozen=True)
class Outcome:
    """What became of one checkpoint, or of one state file.

    Attributes:
      status: "converted"; "planned" in a dry run; "already", where there was nothing to do;
        "failed".
      source: its prefix, or the path of the state file.
      destination: the prefix or the path of the result.
      message: why it failed, or what is to be said.
      seconds: how long it took.
      conversion: the rows and files, if it was converted or planned.
    """

    status: str
    source: str
    destination: str
    message: str = ""
    seconds: float = 0.0
    conversion: Conversion | None = None


# Called with each outcome, its number from 1 on, and how many there will be.
Report = Optional[Callable[[Outcome, int, int], None]]


class _Task(NamedTuple):
    """One directory: where from, where to, its checkpoints from the oldest on, its state file."""

    source: str
    destination: str
    prefixes: list[str]
    has_state: bool


def convert_directory(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str] | None,
    options: ConvertOptions,
    *,
    dry_run: bool = False,
    log: str | os.PathLike[str] | None = None,
    report: Report = None,
    progress: Progress = None,
) -> list[Outcome]:
    """Converts all checkpoints in a directory and in those below it.

    Each keeps its name and its place relative to the directory. The `checkpoint` state files are
    carried over with their order, times and relative paths, once all checkpoints of a directory
    are converted. SavedModels are left out, and so is everything that is no checkpoint.

    Args:
      source: a model_dir, or a directory with model_dirs at any depth.
      destination: where the same tree of results is to be; None for a conversion in place.
      options: how each is converted.
      dry_run: only say what would be done.
      log: a file to which a line of JSON is added for each outcome. What it says is converted, by
        the same rules and from what is still the source, is not converted again, even where the
        rules would match nothing any more.
      report: called with each outcome.
      progress: called with the bytes done and those in all while data is copied or written.

    Returns:
      An outcome for each checkpoint, and for each state file that is written or cannot be.

    Raises:
      NotACheckpointError: there is no checkpoint in it.
      SettingsError: the destination does not fit `options.in_place`.
      WriteError: the destination is inside the source, or the log cannot be written.
    """
    source = files.path_text(source, "source")
    if options.in_place != (destination is None):
        raise SettingsError(
            "expected a destination, or in_place, and not both", path=source, key="destination"
        )
    check_in_place(source, options)
    target = source if destination is None else files.path_text(destination, "destination")
    log = None if log is None else files.path_text(log, "log")
    if not options.in_place and is_inside(target, source):
        raise WriteError(f"the destination is inside the source, {source}", path=target)
    tasks = list(_tasks(source, target))
    if not tasks:
        raise NotACheckpointError("no checkpoint is in it, nor below", path=source)
    total = sum(len(task.prefixes) for task in tasks)
    done_before = _read_log(log)
    outcomes: list[Outcome] = []

    def add(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if log is not None and not dry_run:
            _append(log, outcome, options)
        if report is not None:
            report(outcome, min(len(outcomes), total), total)

    for task in tasks:
        results = {}
        for prefix in task.prefixes:
            start = time.monotonic()
            result = os.path.join(task.destination, _name(prefix))
            outcome = _convert_one(prefix, result, options, dry_run, done_before, progress)
            results[_name(prefix)] = outcome
            add(replace(outcome, seconds=round(time.monotonic() - start, 3)))
        if task.has_state and not options.in_place and not dry_run:
            failed = _carry_state(task, results)
            if failed is not None:
                add(failed)
    return outcomes


@collector_paused()
def _convert_one(
    prefix: str,
    result: str,
    options: ConvertOptions,
    dry_run: bool,
    done_before: dict[str, _Done],
    progress: Progress,
) -> Outcome:
    try:
        before = done_before.get(os.path.realpath(result))
        if before is not None and before == _done(prefix, result, options):
            return Outcome("already", prefix, result, "the log has it")
        with open_checkpoint(prefix) as checkpoint:
            conversion, tensors = make_plan(checkpoint, result, options)
            if options.in_place and not changes(checkpoint, tensors):
                if not dry_run:
                    clear_in_place(prefix)
                return Outcome("already", prefix, result, f"{checkpoint.format} as it is")
            there = not options.in_place and files.exists(f"{result}.index")
            if there and not is_unfinished(result):
                if is_result(checkpoint, tensors, result):
                    return Outcome("already", prefix, result, "it is there")
                raise WriteError("another checkpoint is there; name another place", path=result)
            if dry_run:
                return Outcome("planned", prefix, result, conversion=conversion)
            done = carry_out(checkpoint, conversion, tensors, options, progress)
            return Outcome("converted", prefix, result, done.warning, conversion=done)
    except CheckpointError as error:
        return Outcome("failed", prefix, result, str(error))


def _name(prefix: str) -> str:
    """What a checkpoint is called in its directory, and its result, too."""
    return os.path.basename(plain_prefix(prefix))


# --- what there is ---


def _tasks(source: str, destination: str) -> Iterator[_Task]:
    """The directories with checkpoints, the upper ones first."""
    if is_saved_model(source):
        return
    names = files.list_dir(source)
    found = complete_prefixes(source)
    by_name = {_name(prefix): prefix for prefix in found}
    try:
        state = read_state(source)
    except CheckpointError:
        state = None  # said when the state is carried over
    for path in state.all_model_checkpoint_paths if state is not None else ():
        # One in the V1 format, or without its data files: opening it says what is wrong.
        name = os.path.basename(path)
        if name in names or f"{name}.index" in names:
            by_name.setdefault(name, os.path.join(source, name))
    if by_name:
        yield _Task(source, destination, list(by_name.values()), _STATE_FILE in names)
    for name in names:
        path = os.path.join(source, name)
        if not os.path.islink(path) and files.is_dir(path):
            yield from _tasks(path, os.path.join(destination, name))


# --- state files ---


def _carry_state(task: _Task, results: dict[str, Outcome]) -> Outcome | None:
    """Writes the directory's state file; returns an outcome if there is something to say."""
    source = os.path.join(task.source, _STATE_FILE)
    destination = os.path.join(task.destination, _STATE_FILE)
    try:
        state = read_state(task.source)
        assert state is not None
        there = read_state(task.destination)
        if (
            there is not None
            and not {
                _name(path)
                for path in (there.model_checkpoint_path, *there.all_model_checkpoint_paths)
            }
            <= results.keys()
        ):
            message = "left as it is: it names checkpoints that were not converted"
            return Outcome("already", source, destination, message)
        new = _translated(state, task.destination, results)
        if new is None:
            message = "none of the checkpoints that it names was converted"
            return Outcome("failed", source, destination, message)
        mark = passing_name(destination)
        if new != there or files.exists(mark):
            with claims.acquire(mark, "a conversion", wait=_MOST_WAITED):
                write_state(task.destination, new, temporary=f"{mark}.new")
    except CheckpointError as error:
        return Outcome("failed", source, destination, str(error))
    return None


def _translated(
    state: CheckpointState, directory: str, results: dict[str, Outcome]
) -> CheckpointState | None:
    """The state with the results' paths, without what was not converted."""
    converted = {name for name, outcome in results.items() if outcome.status != "failed"}
    paths = state.all_model_checkpoint_paths or (state.model_checkpoint_path,)
    times: tuple[float | None, ...] = state.all_model_checkpoint_timestamps
    if len(times) != len(paths):
        times = (None,) * len(paths)
    kept = [
        (os.path.join(directory, _name(path)), stamp)
        for path, stamp in zip(paths, times)
        if _name(path) in converted
    ]
    if not kept:
        return None
    newest = os.path.join(directory, _name(state.model_checkpoint_path))
    if _name(newest) not in converted:
        newest = kept[-1][0]
    return CheckpointState(
        newest,
        tuple(path for path, _ in kept),
        tuple(stamp for _, stamp in kept if stamp is not None),
        state.last_preserved_timestamp,
    )


# --- the log ---


# The options that say how a result is written, and not what it is.
_SAME_RESULT = frozenset(["copy", "compact", "in_place", "verify"])


class _Done(NamedTuple):
    """What the log tells of a conversion: it is done as long as all of it is so still."""

    source: str
    source_stamp: int | None
    settings: Any
    result_stamp: int | None


def _done(source: str, result: str, options: ConvertOptions) -> _Done | None:
    """What a conversion that was carried out is known by; None if by nothing."""
    if hasattr(options.like, "write"):
        return None  # objects in Python, of which a log can tell nothing
    if not (options.in_place or files.exists(f"{source}.index")):
        return None  # a V1 file; to know it again it would have to be read
    settings = {name: value for name, value in vars(options).items() if name not in _SAME_RESULT}
    settings["like"] = options.like
    rules = options.rules()
    settings.update(rename=rules.rename, assignment_map=rules.assignment_map, exclude=rules.exclude)
    return _Done(
        os.path.realpath(source),
        None if options.in_place else _stamp(source),
        json.loads(json.dumps(settings)),
        _stamp(result),
    )


def _append(path: str, outcome: Outcome, options: ConvertOptions) -> None:
    line: dict[str, Any] = {
        "status": outcome.status,
        "source": outcome.source,
        "destination": outcome.destination,
        "checkpoint_format": options.checkpoint_format,
        "message": outcome.message,
        "seconds": outcome.seconds,
        "time": time.time(),
    }
    conversion = outcome.conversion
    if conversion is not None:
        line["tensors"] = sum(bool(row.targets) for row in conversion.rows)
        line["data_files"] = conversion.data_files
        line["verified"] = conversion.verified
        line["result"] = os.path.realpath(outcome.destination)
        done = _done(outcome.source, outcome.destination, options)
        line["done"] = None if done is None else done._asdict()
    there = files.exists(path)
    size = files.size(path) if there else 0
    torn = size and files.read_range(path, size - 1, 1) != b"\n"  # a run was killed as it wrote
    with files.open_write(path, append=there) as file:
        file.write(b"\n" * bool(torn) + json.dumps(line).encode() + b"\n")


def _read_log(path: str | None) -> dict[str, _Done]:
    """What earlier runs have converted, by the result's path."""
    found: dict[str, _Done] = {}
    if path is None or not files.exists(path):
        return found
    for number, line in enumerate(files.read_bytes(path).splitlines(), start=1):
        try:
            entry = json.loads(line)
            if entry["status"] == "converted" and entry.get("done") is not None:
                found[entry["result"]] = _Done(**entry["done"])
        except (ValueError, TypeError, KeyError):
            if not line.endswith(b"}"):
                continue  # torn: a run was killed as it wrote this line
            raise SettingsError(
                f"line {number} is none of a conversion's log; name another file",
                path=path,
                key="log",
            ) from None
    return found


def _stamp(prefix: str) -> int | None:
    """A checksum of an index, which changes when a job saves again under the same name."""
    from estimator_ckpt.bundle.tensors import masked_crc32c

    path = f"{prefix}.index"
    return masked_crc32c(files.read_bytes(path)) if files.exists(path) else None
