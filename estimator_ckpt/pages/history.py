"""The view of a run over time: which checkpoints a model_dir has, and which it has had."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import DecodeError

from estimator_ckpt import files
from estimator_ckpt.bundle import protos
from estimator_ckpt.checkpoint import open_checkpoint
from estimator_ckpt.errors import CheckpointError, printable
from estimator_ckpt.reading.state import read_state

_INDEX = re.compile(r"(.+)\.index")
_PART = re.compile(r"\.(?:index|meta|data-\d{5}-of-\d{5})$")
_STEP = re.compile(r"-(\d+)$")
_LARGEST_EVENT = 4096  # bytes; a line of a session's log is shorter
_CHECKPOINT = 3  # SessionLog.SessionStatus.CHECKPOINT
_MOST_OPENED = 200  # checkpoints whose format is looked up, the newest ones


def checkpoint_names(model_dir: str) -> list[str]:
    """The checkpoints of a directory that have an index, by step."""
    names = (name.group(1) for name in map(_INDEX.fullmatch, files.list_dir(model_dir)) if name)
    return sorted(names, key=_by_step)


def history_view(model_dir: str) -> dict[str, Any]:
    """The view "history": a line for each checkpoint, those that are gone as far as events tell.

    `kept` says whether the state file names it. `saved` is in seconds since 1970, by the state
    file, or the events, or else by the file's own time.
    """
    state = read_state(model_dir)
    kept = {} if state is None else dict.fromkeys(map(os.path.basename, _listed(state)), 0.0)
    if state is not None:
        kept.update(zip(kept, state.all_model_checkpoint_timestamps))
    sizes = _sizes(model_dir)
    logged = dict(_logged(model_dir))
    newest = state and os.path.basename(state.model_checkpoint_path)
    rows = []
    ordered = sorted(sizes.keys() | kept.keys() | logged.keys(), key=_by_step)
    opened = set(sorted(sizes, key=_by_step)[-_MOST_OPENED:])
    for name in ordered:
        prefix = os.path.join(model_dir, name)
        rows.append(
            {
                "name": printable(name),
                "step": _step(name),
                "saved": kept.get(name) or logged.get(name) or _time(prefix),
                "kept": name in kept,
                "newest": name == newest,
                "bytes": sizes.get(name),
                **(_format(prefix) if name in opened else {}),
            }
        )
    return {"view": "history", "model_dir": printable(model_dir), "rows": rows}


def _listed(state: Any) -> Iterator[str]:
    yield from state.all_model_checkpoint_paths
    yield state.model_checkpoint_path


def _step(name: str) -> int:
    found = _STEP.search(name)
    return int(found.group(1)) if found else -1


def _by_step(name: str) -> tuple[int, str]:
    return _step(name), name


def _sizes(model_dir: str) -> dict[str, int]:
    """The bytes of all files of each checkpoint that has an index."""
    names = files.list_dir(model_dir)
    found = {name.group(1): 0 for name in map(_INDEX.fullmatch, names) if name}
    for name in names:
        start = _PART.sub("", name)
        if start != name and start in found:
            found[start] += files.size(os.path.join(model_dir, name))
    return found


def _format(prefix: str) -> dict[str, Any]:
    try:
        with open_checkpoint(prefix) as checkpoint:
            return {"format": checkpoint.format}
    except CheckpointError as error:
        return {"problem": str(error)}


def _time(prefix: str) -> float | None:
    path = f"{prefix}.index"
    return None if files.is_remote(path) or not files.exists(path) else os.path.getmtime(path)


def _logged(model_dir: str) -> Iterator[tuple[str, float]]:
    """The checkpoints that event files tell of, with the time of each.

    CheckpointSaverHook writes a session log for each (basic_session_run_hooks.py); a record is its
    length, a checksum of that, an Event, and a checksum of it (core/lib/io/record_writer.cc).
    """
    if files.is_remote(model_dir):
        return
    for name in sorted(files.list_dir(model_dir)):
        if ".tfevents." in name:
            with open(os.path.join(model_dir, name), "rb") as events:
                yield from _checkpoints_in(events)


def _checkpoints_in(events: Any) -> Iterator[tuple[str, float]]:
    while len(head := events.read(12)) == 12:
        (length,) = struct.unpack_from("<Q", head)
        if length > _LARGEST_EVENT:
            events.seek(length + 4, os.SEEK_CUR)
            continue
        data = events.read(length)
        if len(events.read(4)) < 4:
            return  # what is being written
        try:
            event = protos.EventFacts.FromString(data)
        except DecodeError:
            return
        if event.session_log.status == _CHECKPOINT and event.session_log.checkpoint_path:
            yield os.path.basename(event.session_log.checkpoint_path), event.wall_time
