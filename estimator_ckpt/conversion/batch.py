"""Many checkpoints at once: a model_dir, or a tree of them.

What is done is in functions of their own: find_tasks(), then convert_one() for each checkpoint, and
carry_state() for each directory whose checkpoints are through. convert_directory() calls them one
after the other; estimator_ckpt.beam has many machines call them.

It goes on after a failure, can be interrupted, and does nothing twice when it is run again: what is
converted already is found by its files, or by the log. Names do not tell: `model.ckpt-100` may be
another job's, or be of before a restart, or converted by other rules.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import Optional

from estimator_ckpt import files
from estimator_ckpt.bulk import collector_paused
from estimator_ckpt.bundle.v1 import plain_prefix, v1_prefix
from estimator_ckpt.checkpoint import Checkpoint, open_checkpoint
from estimator_ckpt.conversion.already_converted import is_result
from estimator_ckpt.conversion.carry_out import carry_out, changes
from estimator_ckpt.conversion.companions import carry_best
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.destination import (
    clear_in_place,
    is_unfinished,
    passing_name,
    refuse_name,
)
from estimator_ckpt.conversion.outcomes import (
    Done,
    Outcome,
    done_by,
    log_line,
    read_done,
)
from estimator_ckpt.conversion.plan import Content
from estimator_ckpt.conversion.prepare import make_plan
from estimator_ckpt.conversion.request import is_done_in_place
from estimator_ckpt.conversion.result_path import check_v1_in_place
from estimator_ckpt.conversion.trees import STATE_FILE, Directory, checkpoint_name, find_tasks
from estimator_ckpt.errors import (
    BusyError,
    CheckpointError,
    ConflictError,
    NotACheckpointError,
    SettingsError,
    WriteError,
)
from estimator_ckpt.files import Progress, claims
from estimator_ckpt.files.log import append_line
from estimator_ckpt.reading.state import CheckpointState, read_state, real_prefix, write_state

_MOST_WAITED = 10.0  # seconds, for another conversion that writes a state file
_POLL = 0.05  # seconds

# Called with each outcome, how many checkpoints are through, and how many there are.
Report = Optional[Callable[[Outcome, int, int], None]]


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
    are converted. SavedModels are left out, and so is everything that is no checkpoint:
    find_left() of trees.py tells what.

    Args:
      source: a model_dir, or a directory with model_dirs at any depth.
      destination: where the same tree of results is to be; None for a conversion in place.
      options: how each is converted.
      dry_run: only say what would be done.
      log: a file to which a line of JSON is added for each outcome. What it says is converted, by
        the same rules and from what is still the source, is not converted again, even where the
        rules would match nothing any more. Its shards, LOG-*.jsonl, are read as well.
      report: called with each outcome.
      progress: called with the bytes done and those in all while data is copied or written.

    Returns:
      An outcome for each checkpoint, and for each state file of which there is something to say.

    Raises:
      NotACheckpointError: there is no checkpoint in it.
      SettingsError: the destination does not fit `options.in_place`, or the log is none.
      WriteError: the destination is inside the source, or the log cannot be written.
    """
    source = files.path_text(source, "source")
    if options.in_place != (destination is None):
        raise SettingsError(
            "expected a destination, or in_place, and not both", path=source, key="destination"
        )
    target = source if destination is None else files.path_text(destination, "destination")
    if destination is not None:
        refuse_name(target)
    log = None if log is None else files.path_text(log, "log")
    tasks = find_tasks(source, target, options)
    logged: dict[str, list[Done]] = defaultdict(list)
    for result, done in read_done(log) if log is not None else ():
        logged[result].append(done)
    outcomes: list[Outcome] = []
    through = 0

    def add(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if log is not None and not dry_run:
            append_line(log, log_line(outcome, options))
        if report is not None:
            report(outcome, through, len(tasks))

    for directory, group in groupby(tasks, key=attrgetter("directory")):
        statuses = []
        for task in group:
            outcome = convert_one(
                task.source,
                task.destination,
                options,
                dry_run=dry_run,
                logged=logged.get(real_prefix(task.destination), ()),
                progress=progress,
            )
            statuses.append((checkpoint_name(task.source), outcome.status))
            through += 1
            add(outcome)
        if not options.in_place and not dry_run:
            of_state = carry_state(directory, statuses)
            if of_state is not None:
                add(of_state)
    return outcomes


# --- one checkpoint ---


@collector_paused()
def convert_one(
    source: str,
    destination: str,
    options: ConvertOptions,
    *,
    dry_run: bool = False,
    logged: Collection[Done] = (),
    wait: float = 0.0,
    progress: Progress = None,
) -> Outcome:
    """Converts one checkpoint of many; to do so twice, or two at once, is to do so once.

    In place the index tells what was done.

    Args:
      source: its prefix.
      destination: the prefix of the result; the same in place.
      options: how.
      dry_run: only say what would be done.
      logged: what the log tells of conversions to this place.
      wait: how long to wait for another conversion to this place, in seconds.
      progress: as for convert_directory().

    Returns:
      The outcome: a failure is one, too.
    """
    start = time.monotonic()
    try:
        outcome = _convert(
            source,
            destination,
            options,
            dry_run=dry_run,
            logged=logged,
            wait=wait,
            progress=progress,
        )
    except CheckpointError as error:
        outcome = Outcome("failed", source, destination, str(error))
    return replace(outcome, seconds=round(time.monotonic() - start, 3))


def _convert(
    source: str,
    result: str,
    options: ConvertOptions,
    *,
    dry_run: bool,
    logged: Collection[Done],
    wait: float,
    progress: Progress,
) -> Outcome:
    plain = plain_prefix(source)
    if plain != source and (files.exists(f"{plain}.index") or v1_prefix(plain) == plain):
        raise ConflictError(
            f"its result would be called as that of {plain}; convert it by itself, elsewhere",
            path=source,
        )
    if logged and done_by(source, result, options) in logged:
        return Outcome("already", source, result, "the log has it")
    with open_checkpoint(source) as checkpoint:
        check_v1_in_place(checkpoint, options)
        by_these = Outcome("already", source, result, "converted by the same options")
        if is_done_in_place(checkpoint, options):
            if not dry_run:
                clear_in_place(source)
            return by_these
        conversion, tensors = make_plan(checkpoint, result, options)
        if options.in_place and not changes(checkpoint, tensors):
            if not dry_run:
                clear_in_place(source)
            return Outcome("already", source, result, f"{checkpoint.format} as it is")
        is_there = Outcome("already", source, result, "it is there")
        if not options.in_place and not is_unfinished(result):
            if _has_result(checkpoint, tensors, result):
                return is_there
            if files.exists(f"{result}.index"):
                raise WriteError("another checkpoint is there; name another place", path=result)
        if dry_run:
            return Outcome("planned", source, result, conversion=conversion)
        try:
            done = carry_out(checkpoint, conversion, tensors, options, progress, wait=wait)
        except WriteError as error:  # perhaps because another process has just done the same
            until = time.monotonic() + wait
            is_left = not isinstance(error, BusyError) and is_unfinished(result)
            while is_left and time.monotonic() < until:  # a third may be looking at it
                time.sleep(_POLL)
                is_left = is_unfinished(result)
            if options.in_place or is_left or not _has_result(checkpoint, tensors, result):
                raise
            return is_there
        if done.already:
            return by_these
        return Outcome("converted", source, result, done.warning, conversion=done)


def _has_result(checkpoint: Checkpoint, tensors: Mapping[str, Content], result: str) -> bool:
    return files.exists(f"{result}.index") and is_result(checkpoint, tensors, result)


# --- state files ---


def carry_state(directory: Directory, outcomes: Iterable[tuple[str, str]]) -> Outcome | None:
    """Writes the state file of a directory of which all checkpoints are through.

    Args:
      directory: the directory.
      outcomes: of each of its checkpoints the name and the outcome's status. Of two with one name
        that which was converted counts.

    Returns:
      An outcome if there is something to say. That none of the checkpoints which it names was
      converted is said of these already, where they have failed.
    """
    if not directory.has_state:
        return None
    statuses: dict[str, str] = {}
    for name, status in outcomes:
        if statuses.get(name, "failed") == "failed":
            statuses[name] = status
    source = os.path.join(directory.source, STATE_FILE)
    destination = os.path.join(directory.destination, STATE_FILE)

    def outcome(status: str, message: str) -> Outcome:
        return Outcome(status, source, destination, message, is_state=True)

    try:
        state = read_state(directory.source)
        there = read_state(directory.destination)
        if state is None:  # a job has just removed it
            return None
        if there is not None and not _named(there) <= statuses.keys():
            return outcome("already", "left as it is: it names checkpoints that were not converted")
        new = _translated(state, directory.destination, statuses)
        if new is None:
            if "failed" in map(statuses.get, _named(state)):
                return None
            raise NotACheckpointError(
                "none of the checkpoints that it names was converted", path=source
            )
        newest = checkpoint_name(state.model_checkpoint_path)
        saved_since = files.exists(os.path.join(directory.source, f"{newest}.index"))
        if newest not in statuses and not saved_since:  # what it names next may be much older
            raise NotACheckpointError(
                f"the newest checkpoint that it names, {state.model_checkpoint_path}, is not in "
                "the directory",
                path=source,
            )
        mark = passing_name(destination)
        if new != there or files.exists(mark):
            with claims.acquire(mark, "a conversion", wait=_MOST_WAITED):
                write_state(directory.destination, new, temporary=f"{mark}.new")
        carry_best(directory.source, directory.destination)
    except CheckpointError as error:
        return outcome("failed", str(error))
    return None


def _named(state: CheckpointState) -> set[str]:
    return set(
        map(checkpoint_name, (state.model_checkpoint_path, *state.all_model_checkpoint_paths))
    )


def _translated(
    state: CheckpointState, directory: str, statuses: Mapping[str, str]
) -> CheckpointState | None:
    """The state with the results' paths, without what was not converted."""
    converted = {name for name, status in statuses.items() if status != "failed"}
    paths = state.all_model_checkpoint_paths or (state.model_checkpoint_path,)
    times: tuple[float | None, ...] = state.all_model_checkpoint_timestamps
    if len(times) != len(paths):
        times = (None,) * len(paths)
    kept = [
        (os.path.join(directory, checkpoint_name(path)), stamp)
        for path, stamp in zip(paths, times)
        if checkpoint_name(path) in converted
    ]
    if not kept:
        return None
    newest = os.path.join(directory, checkpoint_name(state.model_checkpoint_path))
    if checkpoint_name(newest) not in converted:
        newest = kept[-1][0]
    return CheckpointState(
        newest,
        tuple(path for path, _ in kept),
        tuple(stamp for _, stamp in kept if stamp is not None),
        state.last_preserved_timestamp,
    )
