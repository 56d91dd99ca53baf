"""Which checkpoint a job resumes from: the newest, or one before it where that one is damaged."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from typing import TypeVar, cast

from absl import logging

from estimator_ckpt import files
from estimator_ckpt.errors import (
    CheckpointError,
    CorruptCheckpointError,
    NotACheckpointError,
    UnsupportedCheckpointError,
)
from estimator_ckpt.reading.locate import complete_prefixes, newest_of_each_name
from estimator_ckpt.saving.journal import fingerprint, mark, read_journal
from estimator_ckpt.verify import verify_tensors

_Result = TypeVar("_Result")
_TRIES = 5
_STEP = re.compile(r"(.*?)(?:-(\d+))?")
# Faults that no reader gets by. Of others, what is read decides.
_KINDS = ("index", "data file", "range", "checksum")


def whole_in_place_of(prefix: str, has_all: Callable[[str], bool]) -> str:
    """The checkpoint to resume from where the newest, `prefix`, lacks variables.

    Args:
      prefix: of the newest checkpoint, which another saver may have written.
      has_all: whether a checkpoint lacks nothing.

    Returns:
      The newest one that lacks nothing; `prefix` if there is none.
    """
    for other in newest_of_each_name(os.path.dirname(prefix) or "."):
        if has_all(other):
            logging.warning(
                "The newest checkpoint in the state file, %s, lacks variables: another saver "
                "wrote it. Resuming from %s, which has them all",
                prefix,
                other,
            )
            return other
    return prefix


def resume(
    restore: Callable[[str], None],
    prefix: str,
    *,
    state_name: str = "checkpoint",
    on_corrupt: str,
    check_data: bool,
) -> str:
    """Restores the newest checkpoint, or the newest sound one.

    A checkpoint of which no journal says that its data were synced may be empty after a power cut:
    it is read through before it is used, and if it is damaged, the one before it is used, loudly.

    Args:
      restore: restores from a prefix.
      prefix: of the newest checkpoint.
      state_name: of the state file that names it.
      on_corrupt: what to do if one that was synced is damaged: "error" or "fall_back".
      check_data: whether to read through also what was synced.

    Returns:
      The prefix that was restored from.

    Raises:
      CorruptCheckpointError, NotACheckpointError: it is damaged or not there, and none before it is
        sound or `on_corrupt` forbids to use that.
      Whatever `restore` raises.
    """
    was_synced, is_current = _synced(prefix, state_name)
    try:
        if check_data or not is_current:
            steadily(lambda: check(prefix), prefix)
        restore(prefix)
        return prefix
    except (CorruptCheckpointError, NotACheckpointError) as error:
        older = _sound_before(prefix)
        sound = next(older, None)
        if sound is None:
            raise
        if was_synced and on_corrupt == "error":
            raise type(error)(
                f"{error.message}. The newest sound checkpoint before it is {sound}; "
                "on_corrupt='fall_back' resumes from that one",
                path=error.path,
                key=error.key,
            ) from error
        damage: CheckpointError = error
    for candidate in itertools.chain([sound], older):
        logging.error(
            "The newest checkpoint is damaged. Resuming from %s INSTEAD OF %s: %s",
            candidate,
            prefix,
            damage,
        )
        try:
            restore(candidate)
            return candidate
        except (CorruptCheckpointError, NotACheckpointError) as error:
            damage = error  # of the position of its input, say
    raise damage


def steadily(read: Callable[[], _Result], prefix: str) -> _Result:
    """Reads a checkpoint; once more if it was replaced meanwhile, by a save or a conversion.

    What is read then may be of both, or an error that tells of neither.

    Args:
      read: reads it; may be called again.
      prefix: of the checkpoint.

    Returns:
      What `read` does.

    Raises:
      Whatever `read` raises.
      NotACheckpointError: it is replaced again and again.
    """
    for _ in range(_TRIES):
        before = mark(prefix)
        error = result = None
        try:
            result = read()
        except CheckpointError as caught:
            error = caught
        if before is None or mark(prefix) in (before, None):
            if error is not None:
                raise error
            return cast("_Result", result)
        logging.info("%s was replaced while it was read: once more", prefix)
    raise NotACheckpointError("it was replaced again and again while it was read", path=prefix)


def _synced(prefix: str, state_name: str) -> tuple[bool, bool]:
    """Whether the journal says that a checkpoint of this name was synced, and whether this one."""
    if files.is_remote(prefix):
        return True, True  # a file that is closed is stored
    directory, name = os.path.split(prefix)
    synced = read_journal(directory, state_name).synced.get(name)
    try:
        return synced is not None, synced == fingerprint(prefix)
    except CheckpointError:
        return synced is not None, False


def check(prefix: str) -> None:
    """Reads a checkpoint through.

    Raises:
      CorruptCheckpointError: a checksum is wrong, or a data file missing or too short.
      NotACheckpointError: there is none.
    """
    logging.info("Reading all of %s, to see whether it is whole", prefix)
    try:
        faults = verify_tensors(prefix).faults
    except UnsupportedCheckpointError:
        return  # TensorFlow's first file format has no checksums
    for fault in faults:
        if fault.kind in _KINDS:
            raise CorruptCheckpointError(fault.message, path=fault.file, key=fault.key)


def _sound_before(prefix: str) -> Iterator[str]:
    """The sound checkpoints of the same name with a lower step, the newest first."""
    directory, name = os.path.split(prefix)
    base, step = _split(name)
    if step is None or not files.is_dir(directory or "."):
        return
    older = []
    for other in complete_prefixes(directory or "."):
        others_base, others_step = _split(os.path.basename(other))
        if others_base == base and others_step is not None and others_step < step:
            older.append((others_step, os.path.basename(other)))
    for _, other in sorted(older, reverse=True):
        candidate = os.path.join(directory, other)
        try:
            check(candidate)
        except CheckpointError as error:
            logging.error("Nor is this checkpoint whole: %s", error)
        else:
            yield candidate


def _split(name: str) -> tuple[str, int | None]:
    """A checkpoint's name without its step, and the step."""
    match = _STEP.fullmatch(name)
    if match is None or match[2] is None:
        return name, None
    return match[1], int(match[2])
