"""The view of a run over time: which checkpoints a model_dir has, and which it has had."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from estimator_ckpt import files
from estimator_ckpt.bundle import protos
from estimator_ckpt.bundle.v1 import v1_prefixes
from estimator_ckpt.checkpoint import open_checkpoint
from estimator_ckpt.errors import CheckpointError, printable
from estimator_ckpt.files import Progress
from estimator_ckpt.reading.state import read_state
from estimator_ckpt.saving.journal import read_journal

_INDEX = re.compile(r"(.+)\.index", re.DOTALL)
_PART = re.compile(r"(?:\.index|\.meta|(?:\.data)?-\d{5}-of-\d{5})\Z")  # V1 has no ".data"
_V1_FILES = re.compile(r"-\?{5}-of-\d{5}$")
_EVENTS = ".tfevents."
_STATE = "checkpoint"
_STEP = re.compile(r"-([0-9]{1,18})$")  # an int64
_LAST_TIME = 253402300800.0  # the year 10000, in seconds since 1970
_LARGEST_EVENT = 4096  # bytes; a line of a session's log is shorter
_CHECKPOINT = 3  # SessionLog.SessionStatus.CHECKPOINT
_IS_CHECKPOINT = b"\x08\x03"  # so it is stored: field 1, 3; most events are other ones
_MOST_OPENED = 200  # checkpoints whose format is looked up, the newest ones


def checkpoint_names(model_dir: str) -> list[str]:
    """The checkpoints of a directory that have an index, or are complete ones in V1, by step."""
    return list(_files(model_dir))


def _files(model_dir: str) -> dict[str, list[str]]:
    """The files of each checkpoint that is there, by step."""
    names = [name for name in files.list_dir(model_dir) if _EVENTS not in name]
    found = {name.group(1) for name in map(_INDEX.fullmatch, names) if name}
    found.update(map(_name, v1_prefixes(model_dir, names)))
    files_of: dict[str, list[str]] = {name: [] for name in sorted(found, key=_by_step)}
    for name in names:
        files_of.get(_PART.sub("", name), []).append(name)
    return files_of


def history_view(
    model_dir: str, *, seconds: float = math.inf, progress: Progress = None
) -> dict[str, Any]:
    """The view "history": a line for each checkpoint, those that are gone as far as events tell.

    `there` says whether it has files, `kept` whether the state file names it. `saved` is in seconds
    since 1970, by the state file, or the events, or else by the file's own time; `seconds` is how
    long it took to write, where the savers of this package have noted it.

    Args:
      model_dir: the directory.
      seconds: how long to look up formats, and the sizes of remote files, the newest first; formats
        that were looked up before are remembered.
      progress: called with the bytes of indexes read so far, and the bytes in all.
    """
    try:
        state, problem = read_state(model_dir), ""
    except CheckpointError as error:
        state, problem = None, str(error)
    kept = {} if state is None else dict.fromkeys(map(_name, _listed(state)), 0.0)
    if state is not None:
        names = map(_name, state.all_model_checkpoint_paths)
        kept.update(zip(names, state.all_model_checkpoint_timestamps))
    kept.pop("", None)
    end = time.monotonic() + seconds
    files_of = _files(model_dir)
    sizes = _sizes(model_dir, files_of, end)
    formats = _formats(model_dir, files_of, end, progress)
    logged = dict(_logged(model_dir))
    took = read_journal(model_dir, _STATE).seconds
    newest = state and _name(state.model_checkpoint_path)
    rows = []
    for name in sorted(files_of.keys() | kept.keys() | logged.keys(), key=_by_step):
        prefix = os.path.join(model_dir, name)
        rows.append(
            {
                "name": printable(name),
                "step": _step(name),
                "saved": _time(kept.get(name), logged.get(name)) or _time(_file_time(prefix)),
                "seconds": took.get(name),
                "kept": name in kept,
                "newest": name == newest,
                "there": name in files_of,
                "bytes": sizes.get(name),
                **formats.get(name, {}),
            }
        )
    return {
        "view": "history",
        "model_dir": printable(model_dir),
        "rows": rows,
        "problem": problem,
    }


def _listed(state: Any) -> Iterator[str]:
    yield from state.all_model_checkpoint_paths
    yield state.model_checkpoint_path


def _name(prefix: str) -> str:
    """Of a checkpoint; one in V1 that has several files is said with a pattern for them."""
    return _V1_FILES.sub("", os.path.basename(prefix))


def _step(name: str) -> int:
    found = _STEP.search(name)
    return int(found.group(1)) if found else -1


def _by_step(name: str) -> tuple[int, str]:
    return _step(name), name


def _sizes(model_dir: str, files_of: Mapping[str, list[str]], end: float) -> dict[str, int]:
    """The bytes of all files of each checkpoint; a job that runs deletes some meanwhile."""
    found: dict[str, int] = {}
    for name in reversed(list(files_of)):
        if found and files.is_remote(model_dir) and time.monotonic() > end:
            break
        found[name] = 0
        for file in files_of[name]:
            with contextlib.suppress(CheckpointError):
                found[name] += files.size(os.path.join(model_dir, file))
    return found


def _formats(
    model_dir: str, files_of: Mapping[str, list[str]], end: float, progress: Progress
) -> dict[str, dict[str, str]]:
    """The format of each, or what is wrong with it, from the last one on as far as time allows."""
    found: dict[str, dict[str, str]] = {}
    names = list(files_of)[-_MOST_OPENED:]
    weights = {name: _index_size(model_dir, files_of[name]) for name in names if progress}
    for name in reversed(names):
        if found and time.monotonic() > end:
            break
        prefix = os.path.join(model_dir, name)
        index = f"{prefix}.index"
        try:
            if files.is_remote(index) or not files.exists(index):
                found[name] = {"format": _read_format(prefix)}
            else:
                found[name] = {"format": _known_format(prefix, files.stamp(index))}
        except CheckpointError as error:
            found[name] = {"problem": str(error)}
        if progress:
            progress(sum(map(weights.__getitem__, found)), sum(weights.values()))
    return found


def _index_size(model_dir: str, names: list[str]) -> int:
    """Of the files of a checkpoint, the bytes that are read for its format."""
    index = next((name for name in names if name.endswith(".index")), names[0])
    with contextlib.suppress(CheckpointError):
        return files.size(os.path.join(model_dir, index))
    return 0


@functools.lru_cache(maxsize=10_000)  # to read an index of 10,000 variables takes 40 ms
def _known_format(prefix: str, _stamp: tuple[int, ...]) -> str:
    return _read_format(prefix)


def _read_format(prefix: str) -> str:
    with open_checkpoint(prefix) as checkpoint:
        return checkpoint.format


def _time(*times: float | None) -> float | None:
    """The first that is a time, in seconds since 1970: files can say anything."""
    return next((one for one in times if one and 0 < one < _LAST_TIME), None)


def _file_time(prefix: str) -> float | None:
    for path in () if files.is_remote(prefix) else (f"{prefix}.index", prefix):
        with contextlib.suppress(OSError, ValueError):  # there is none
            return os.path.getmtime(path)
    return None


def _logged(model_dir: str) -> Iterator[tuple[str, float]]:
    """The checkpoints that event files tell of, with the time of each.

    CheckpointSaverHook writes a session log for each (basic_session_run_hooks.py); a record is its
    length, a checksum of that, an Event, and a checksum of it (core/lib/io/record_writer.cc).
    """
    if files.is_remote(model_dir):
        return
    for name in sorted(files.list_dir(model_dir)):
        if _EVENTS in name:
            with contextlib.suppress(CheckpointError, OSError):  # it is no file, or gone meanwhile
                with files.open_read(os.path.join(model_dir, name)) as events:
                    found = list(_checkpoints_in(events))
                yield from found


def _checkpoints_in(events: Any) -> Iterator[tuple[str, float]]:
    left = os.fstat(events.fileno()).st_size
    while len(head := events.read(12)) == 12:
        (length,) = struct.unpack_from("<Q", head)
        left -= 12 + length + 4
        if left < 0:
            return  # what is being written, or no event
        if length > _LARGEST_EVENT:
            events.seek(length + 4, os.SEEK_CUR)
            continue
        data = events.read(length)
        events.seek(4, os.SEEK_CUR)
        if _IS_CHECKPOINT not in data:
            continue
        try:
            event = protos.EventFacts.FromString(data)
        except DecodeError:
            continue
        if event.session_log.status == _CHECKPOINT and event.session_log.checkpoint_path:
            name = _name(event.session_log.checkpoint_path)
            if name:
                yield name, event.wall_time
