"""The files of an input's position, which stand in a directory beside their checkpoint.

    model.ckpt-100.index, model.ckpt-100.data-00000-of-00001       the checkpoint
    model.ckpt-100.input/position-100.index, position-100.data-*   where its input stood

A directory, as many scripts take every `*.index` of a model_dir for a checkpoint and read a step
from its name. The step is that of the checkpoint: where one is replaced by another of the same
prefix, each has its own position until the new one is whole.
"""

from __future__ import annotations

import json
import os
import re

from estimator_ckpt import files
from estimator_ckpt.errors import CheckpointError

_POSITION = re.compile(r"position-(\d+)\.(?:index|data-\d{5}-of-\d{5})")
SUFFIX = ".input"


def input_directory(prefix: str) -> str:
    """Where the position of a checkpoint's input is, if it has one."""
    return f"{prefix}{SUFFIX}"


def position_prefix(prefix: str, step: int) -> str:
    """The prefix of the tensor bundle with the position of the input at a step."""
    return os.path.join(input_directory(prefix), f"position-{step}")


def positions(prefix: str) -> dict[int, str]:
    """The positions beside a checkpoint of which any file is there: prefixes by step."""
    directory = input_directory(prefix)
    if not files.is_dir(directory):
        return {}
    found = map(_POSITION.fullmatch, files.list_dir(directory))
    steps = sorted({int(match[1]) for match in found if match})
    return {step: position_prefix(prefix, step) for step in steps}


def position_size(prefix: str) -> int:
    """The bytes of the files of the positions beside a checkpoint; 0 where it has none."""
    directory = input_directory(prefix)
    if not positions(prefix):
        return 0
    return sum(files.size(os.path.join(directory, name)) for name in files.list_dir(directory))


def had_position(prefix: str) -> bool:
    """Whether the journal of its directory says that a checkpoint was saved with a position."""
    directory, name = os.path.split(prefix)
    path = os.path.join(directory, "checkpoint.journal")  # of saving/journal.py
    try:
        said = json.loads(files.read_bytes(path)) if files.exists(path) else {}
        return isinstance(said, dict) and name in said.get("positions", ())
    except (CheckpointError, ValueError, TypeError, RecursionError):
        return False  # one that is torn says nothing


def is_input_directory(path: str) -> bool:
    """Whether a directory is that of a position, with nothing else in it."""
    if not path.endswith(SUFFIX):
        return False
    return all(map(_POSITION.fullmatch, files.list_dir(path)))
