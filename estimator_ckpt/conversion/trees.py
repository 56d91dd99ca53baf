"""What a tree of model_dirs has: checkpoints to convert, and what does not go along with them."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from estimator_ckpt import files
from estimator_ckpt.bundle.v1 import plain_prefix
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.result_path import check_in_place, is_inside
from estimator_ckpt.errors import CheckpointError, NotACheckpointError, WriteError
from estimator_ckpt.reading.input_files import input_directory
from estimator_ckpt.reading.locate import (
    complete_prefixes,
    is_under_way,
    walk,
)
from estimator_ckpt.reading.state import read_state

STATE_FILE = "checkpoint"

_SUFFIX = re.compile(r"(?:\.index|\.meta|(?:\.data)?-\d{5}-of-\d{5})\Z")


class Directory(NamedTuple):
    """A directory with checkpoints: where it is, where its results go, if it has a state file."""

    source: str
    destination: str
    has_state: bool


class Task(NamedTuple):
    """A checkpoint to be converted: its prefix, that of the result, and its directory."""

    source: str
    destination: str
    directory: Directory


def find_tasks(source: str, destination: str, options: ConvertOptions) -> list[Task]:
    """What there is to convert in a tree: by directory, the upper ones first; the oldest first.

    Raises:
      NotACheckpointError: there is no checkpoint in it, or a directory cannot be read.
      SettingsError: in place, where that cannot be done.
      WriteError: the destination is inside the source.
    """
    check_in_place(source, options)
    if not options.in_place and is_inside(destination, source):
        raise WriteError(
            f"the destination is inside the source, {source}; name another place, or convert it "
            "in place (in_place)",
            path=destination,
        )
    tasks = list(_find(source, destination))
    if not tasks:
        raise NotACheckpointError("no checkpoint is in it, nor below", path=source)
    return tasks


def _find(source: str, destination: str) -> Iterator[Task]:
    for path, names, _ in walk(source):
        below = path[len(source) :].lstrip("/")
        target = os.path.join(destination, below) if below else destination
        directory = Directory(path, target, STATE_FILE in names)
        for prefix, name in _checkpoints(path, names).items():
            yield Task(prefix, os.path.join(target, name), directory)


def _checkpoints(directory: str, names: Collection[str]) -> dict[str, str]:
    """The names of a directory's checkpoints, broken ones too, by their prefixes."""
    found = {prefix: checkpoint_name(prefix) for prefix in complete_prefixes(directory)}
    for index in [os.path.join(directory, name) for name in names if name.endswith(".index")]:
        prefix = index[: -len(".index")]
        # One without all its data files: opening it says what is wrong.
        if prefix not in found and not is_under_way(index) and files.exists(index):
            found[prefix] = checkpoint_name(prefix)
    try:
        state = read_state(directory)
    except CheckpointError:
        state = None  # said when the state is carried over
    its_names = set(found.values())
    for path in state.all_model_checkpoint_paths if state is not None else ():
        # One in the V1 format of which a file is missing.
        name = os.path.basename(path)
        if (name in names or f"{name}.index" in names) and name not in its_names:
            found[os.path.join(directory, name)] = name
    return found


def checkpoint_name(prefix: str) -> str:
    """What a checkpoint is called in its directory, and its result, too."""
    return os.path.basename(plain_prefix(prefix))


# --- what is left where it is ---


def find_left(source: str) -> list[str]:
    """What a tree has beside checkpoints and state files, and a conversion does not take along.

    Event files, graph.pbtxt, warm_start.json, SavedModels of exporters, parts of checkpoints, those
    of a save that is under way, what is behind symbolic links. A directory without checkpoints at
    any depth is one, with a "/" at its end. A `.meta` file and the position of an input belong to
    their checkpoint, whose conversion says what becomes of them.

    Raises:
      NotACheckpointError: a directory cannot be read.
    """
    return _left(source)


def _left(source: str) -> list[str]:
    found: dict[str, list[str]] = {}  # of each directory with checkpoints at any depth
    for directory, names, below in reversed(list(walk(source))):  # the lowest first
        directories = set(below)
        checkpoints = _checkpoints(directory, names)
        its_names = set(checkpoints.values())
        inputs = set(map(input_directory, its_names))
        left = []
        has_checkpoints = bool(checkpoints)
        for name in names:
            path = os.path.join(directory, name)
            if name in directories:
                has_checkpoints |= path in found
                left += found.pop(path, [f"{path}/"])
            elif name not in (STATE_FILE, *inputs) and _SUFFIX.sub("", name) not in its_names:
                left.append(path)
        if has_checkpoints:
            found[directory] = left
    return found.get(source, [])
