"""A checkpoint under a second name, whole, which stays when the first one is deleted.

One process at a time changes what is kept of a model_dir, under a claim. What a kill has left is
cleared away by the next one. The trainer takes no part in it: it deletes its own names alone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator

from estimator_ckpt import files
from estimator_ckpt.bundle.index import read_index, shard_path
from estimator_ckpt.bundle.v1 import v1_prefix
from estimator_ckpt.checkpoint import open_checkpoint
from estimator_ckpt.errors import (
    CheckpointError,
    NotACheckpointError,
    UnsupportedCheckpointError,
    WriteError,
)
from estimator_ckpt.files import claims
from estimator_ckpt.reading.input_files import input_directory, is_input_directory
from estimator_ckpt.reading.named import BEST, LINKING, PINNED

_CLAIM = "checkpoint.keeping"
_WAIT = 60.0  # seconds; on remote paths another process may be copying
_TRIES = 3


@contextlib.contextmanager
def keeping(run: str) -> Iterator[None]:
    """The right to change what is kept of a model_dir; waits a minute for another to end.

    Raises:
      BusyError: another process has it still.
      WriteError: nothing can be written there.
    """
    with claims.acquire(os.path.join(run, _CLAIM), "keeping checkpoints", wait=_WAIT):
        for room in (PINNED, BEST):
            directory = os.path.join(run, room)
            for name in files.list_dir(directory) if files.is_dir(directory) else ():
                if LINKING in name:
                    let_go(os.path.join(directory, name))
        yield


def link_checkpoint(prefix: str, directory: str, *, with_input: bool = False) -> str:
    """Links a checkpoint into a directory of its own, which appears whole; copies where needed.

    Args:
      prefix: of the checkpoint. A trainer may delete or replace it meanwhile.
      directory: is not there yet.
      with_input: whether the position of the job's input goes along, which has training records.

    Returns:
      Its prefix in the directory.

    Raises:
      NotACheckpointError: it is not there, or was deleted meanwhile.
      CorruptCheckpointError: a data file is missing or cut off.
      UnsupportedCheckpointError: it is in TensorFlow's first format (V1).
      WriteError: the directory is there, or cannot be written. Nothing of it is left behind.
    """
    name = os.path.basename(prefix)
    is_remote = files.is_remote(directory)
    # A remote directory cannot be renamed in one step; there the index comes last.
    if is_remote and _is_unfinished(directory, name):
        let_go(directory)
    if files.exists(directory):
        raise WriteError("the directory exists", path=directory)
    staged = directory if is_remote else f"{directory}{LINKING}{secrets.token_hex(4)}"
    room = os.path.dirname(directory)
    is_first = not files.exists(room)
    for left in range(_TRIES - 1, -1, -1):
        try:
            files.make_dirs(staged)
            if with_input:
                _link_input(prefix, os.path.join(staged, name))
            _link(prefix, os.path.join(staged, name))
            if not is_remote:
                files.rename(staged, directory)
            return os.path.join(directory, name)
        except BaseException as error:
            with contextlib.suppress(CheckpointError):
                let_go(staged)
                if is_first and not is_remote:
                    files.remove_dir(room)
            if isinstance(error, CheckpointError) and (error.path or "").startswith(staged):
                error.path = os.path.dirname(prefix) + (error.path or "")[len(staged) :]
            # Where the index is still there, the trainer has just written the checkpoint anew.
            is_gone = isinstance(error, NotACheckpointError)
            if not is_gone or not left or not files.exists(f"{prefix}.index"):
                raise
    raise AssertionError  # the last try raises


def _is_unfinished(directory: str, name: str) -> bool:
    """Whether a kill has left the files of a checkpoint here, but for its index."""
    if not files.is_dir(directory):
        return False
    parts = (f"{name}.data-", f"{name}.meta", input_directory(name))
    return all(one.startswith(parts) for one in files.list_dir(directory))


def _link(prefix: str, target: str) -> None:
    if not files.exists(f"{prefix}.index"):
        if v1_prefix(prefix) is not None:
            raise UnsupportedCheckpointError(
                "a checkpoint in TensorFlow's first format (V1) cannot be kept by links; convert "
                "it first: estimator-ckpt convert",
                path=prefix,
            )
        raise NotACheckpointError("there is no such checkpoint, or it was deleted", path=prefix)
    index = files.read_bytes(f"{prefix}.index")
    count = read_index(prefix).num_shards
    for shard in range(count):
        files.link_or_copy(shard_path(prefix, shard, count), shard_path(target, shard, count))
    if files.exists(f"{prefix}.meta"):
        with contextlib.suppress(NotACheckpointError):  # just deleted
            files.link_or_copy(f"{prefix}.meta", f"{target}.meta")
    files.link_or_copy(f"{prefix}.index", f"{target}.index")
    # Data files of the same names may be another checkpoint's by now, which has their index.
    if files.read_bytes(f"{target}.index") != index:
        raise NotACheckpointError("it was replaced while it was being linked", path=prefix)
    with open_checkpoint(target):  # all data files are there, in their lengths
        pass


def _link_input(prefix: str, target: str) -> None:
    source, directory = input_directory(prefix), input_directory(target)
    if not files.is_dir(source):
        return
    files.make_dirs(directory)
    for name in files.list_dir(source):
        files.link_or_copy(os.path.join(source, name), os.path.join(directory, name))


def let_go(directory: str) -> None:
    """Removes a directory that link_checkpoint() has made, or a part of one; the index first.

    Raises:
      WriteError: it cannot be removed.
    """
    if not files.is_dir(directory):
        return
    names = files.list_dir(directory)
    for name in sorted(names, key=lambda name: not name.endswith(".index")):
        path = os.path.join(directory, name)
        if files.is_dir(path) and is_input_directory(path):
            let_go(path)
        else:
            files.remove(path)
    files.remove_dir(directory)
