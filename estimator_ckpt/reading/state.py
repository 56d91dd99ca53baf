"""The ``checkpoint`` file of a model directory: which checkpoints there are, and the newest.

Source: tensorflow/python/checkpoint/checkpoint_management.py.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from google.protobuf import text_format

from estimator_ckpt import files
from estimator_ckpt.bundle import protos
from estimator_ckpt.errors import CorruptCheckpointError

_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_MAX_SIZE = 64 << 20  # hundreds of thousands of checkpoints
_MOST_FILLED = 64 << 10  # bytes; some 500 checkpoints


class CheckpointState(NamedTuple):
    """What a state file says; the paths are prefixes.

    Attributes:
      model_checkpoint_path: the newest checkpoint.
      all_model_checkpoint_paths: all that are kept, from the oldest to the newest.
      all_model_checkpoint_timestamps: when each was written, in seconds since 1970; may be empty.
      last_preserved_timestamp: when the last one was written that is kept for ever, in seconds
        since 1970; None if the file does not say.
    """

    model_checkpoint_path: str
    all_model_checkpoint_paths: tuple[str, ...] = ()
    all_model_checkpoint_timestamps: tuple[float, ...] = ()
    last_preserved_timestamp: float | None = None


def read_state(model_dir: str, name: str = "checkpoint") -> CheckpointState | None:
    """The state file of a directory, its relative paths joined to ``model_dir``.

    Paths are taken as they stand, as `tf.train.get_checkpoint_state` does: nothing is looked up.
    But an absolute one of Windows has slashes on other systems, where it is another machine's.

    Returns:
      None if there is no such file.

    Raises:
      CorruptCheckpointError: the file is no CheckpointState message, or names no checkpoint.
      NotACheckpointError: the file cannot be read.
    """
    path = os.path.join(model_dir, name)
    if not files.exists(path) or files.is_dir(path):
        return None
    if files.size(path) > _MAX_SIZE:
        raise CorruptCheckpointError(
            f"a CheckpointState text of {files.size(path)} bytes; expected {_MAX_SIZE} at most",
            path=path,
        )
    message = protos.CheckpointState()
    try:
        text_format.Parse(files.read_bytes(path).decode("utf-8"), message, allow_unknown_field=True)
    except (text_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptCheckpointError(f"no CheckpointState text: {error}", path=path) from error
    if not message.model_checkpoint_path:
        raise CorruptCheckpointError("expected a model_checkpoint_path, found none", path=path)

    def absolute(prefix: str) -> str:
        if os.sep == "/" and _WINDOWS.match(prefix):
            return prefix.replace("\\", "/")
        return prefix if _is_absolute(prefix) else os.path.join(model_dir, prefix)

    return CheckpointState(
        absolute(message.model_checkpoint_path),
        tuple(map(absolute, message.all_model_checkpoint_paths)),
        tuple(message.all_model_checkpoint_timestamps),
        # The field has no presence: 0 is what a file without it says.
        message.last_preserved_timestamp or None,
    )


def write_state(
    model_dir: str,
    state: CheckpointState,
    name: str = "checkpoint",
    *,
    temporary: str | None = None,
) -> None:
    """Writes the state file in one step.

    Checkpoints under ``model_dir`` are named relative to it, so that the directory can be moved;
    others by their absolute paths. ``temporary`` is as for `files.write_atomic`.

    The file never gets shorter: TensorFlow's reader opens it, asks by its name how long it is, and
    reads so much. One that is replaced meanwhile by a shorter one would be cut off, and
    `tf.train.latest_checkpoint` would find none. So blanks stand at the end.

    Raises:
      WriteError: the file cannot be written.
    """

    def stored(prefix: str) -> str:
        if files.is_remote(prefix):
            start = model_dir.rstrip("/") + "/"
            return prefix[len(start) :] if prefix.startswith(start) else prefix
        if files.is_remote(model_dir):
            return os.path.abspath(prefix)
        for spelled, directory in (
            (prefix, model_dir),
            (real_prefix(prefix), os.path.realpath(model_dir)),
        ):
            relative = os.path.relpath(spelled, directory)
            if relative.split(os.sep)[0] != os.pardir:
                return relative
        return os.path.abspath(prefix)

    message = protos.CheckpointState(
        model_checkpoint_path=stored(state.model_checkpoint_path),
        all_model_checkpoint_paths=map(stored, state.all_model_checkpoint_paths),
        all_model_checkpoint_timestamps=state.all_model_checkpoint_timestamps,
        last_preserved_timestamp=state.last_preserved_timestamp or 0.0,
    )
    path = os.path.join(model_dir, name)
    data = text_format.MessageToString(message, as_utf8=True).encode("utf-8")
    short = min(_size_before(path), _MOST_FILLED) - len(data)
    if short > 0:
        data += b" " * (short - 1) + b"\n"
    files.write_atomic(path, data, temporary=temporary)


def _size_before(path: str) -> int:
    try:
        return 0 if files.is_remote(path) else os.stat(path).st_size
    except (OSError, ValueError):  # there is none; what else is wrong shows when it is written
        return 0


def _is_absolute(prefix: str) -> bool:
    return os.path.isabs(prefix) or files.is_remote(prefix)


def real_prefix(prefix: str) -> str:
    """The same for every way to write a checkpoint's path: relative, absolute, by a link."""
    if files.is_remote(prefix):
        return prefix
    directory, name = os.path.split(prefix)
    return os.path.join(os.path.realpath(directory), name)
