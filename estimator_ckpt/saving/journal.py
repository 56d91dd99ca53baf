"""The journal beside a state file: what a saver knows of its checkpoints that the latter lacks.

    checkpoint.journal = JSON {"tokens": [TOKEN], "synced": {NAME: FINGERPRINT}, "deleting": [NAME],
                               "unused": [FILE], "policy": {OPTION: VALUE},
                               "positions": [NAME], "seconds": {NAME: NUMBER}}

Names and files are those of its directory. A journal that is missing, torn or of another kind says
nothing, and then nothing is removed, and nothing taken for synced.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from estimator_ckpt import files
from estimator_ckpt.errors import CheckpointError
from estimator_ckpt.reading.state import real_prefix

_MAX_SIZE = 64 << 20
_LONGEST = 1e7  # seconds; a save of four months is none


class Journal(NamedTuple):
    """What a journal says.

    Attributes:
      tokens: of the processes that may have left something: `PREFIX.saving-TOKEN` directories and
        temporary files whose names end with it are theirs.
      synced: the names of checkpoints whose data were synced to the disk, with the fingerprints of
        their indexes at that time.
      deleting: the names of checkpoints that were being deleted.
      unused: data files that were replaced, and go at the next save.
      policy: the options by which the last save kept checkpoints, by their names.
      positions: the names of checkpoints that were saved with the position of the input.
      seconds: how long it took to write each checkpoint, by its name.
    """

    tokens: tuple[str, ...] = ()
    synced: Mapping[str, str] = {}
    deleting: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    policy: Mapping[str, Any] = {}
    positions: tuple[str, ...] = ()
    seconds: Mapping[str, float] = {}


def journal_path(directory: str, state_name: str) -> str:
    """Where the journal is of the list of checkpoints that a state file has."""
    return os.path.join(directory, f"{state_name}.journal")


def read_journal(directory: str, state_name: str) -> Journal:
    """The journal beside a state file; an empty one where none can be read."""
    path = journal_path(directory, state_name)
    try:
        if not files.exists(path) or files.size(path) > _MAX_SIZE:
            return Journal()
        said = json.loads(files.read_bytes(path))
    except (CheckpointError, ValueError, RecursionError):
        return Journal()
    if not isinstance(said, dict):
        return Journal()
    synced = said.get("synced")
    if not isinstance(synced, dict):
        synced = {}
    policy = said.get("policy")
    return Journal(
        _names(said.get("tokens")),
        {name: mark for name, mark in synced.items() if isinstance(mark, str)},
        _names(said.get("deleting")),
        _names(said.get("unused")),
        policy if isinstance(policy, dict) else {},
        _names(said.get("positions")),
        _seconds(said.get("seconds")),
    )


def _names(said: Any) -> tuple[str, ...]:
    """The names in a list that lead nowhere else."""
    if not isinstance(said, list):
        return ()
    return tuple(n for n in said if isinstance(n, str) and n and os.path.basename(n) == n)


def _seconds(said: Any) -> dict[str, float]:
    """Those that are numbers a save can take."""
    if not isinstance(said, dict):
        return {}
    return {
        name: float(value)
        for name, value in said.items()
        if type(value) in (int, float) and 0 <= value < _LONGEST
    }


def encode_journal(journal: Journal) -> bytes:
    """The file that says this; JSON does not tell lists from tuples."""
    return json.dumps(journal._asdict(), indent=1).encode()


def write_journal(directory: str, state_name: str, journal: Journal, token: str) -> None:
    """Writes the journal in one step.

    Args:
      directory: of the state file.
      state_name: its name.
      journal: what to say.
      token: of this process, for the name of the file until it is whole.

    Raises:
      WriteError: it cannot be written.
    """
    path = journal_path(directory, state_name)
    files.write_atomic(path, encode_journal(journal), temporary=temporary_name(path, token))


def temporary_name(path: str, token: str) -> str:
    """What a file is called until it is whole, so that a later process knows it for ours."""
    return f"{path}.tempstate-{token}"


def fingerprint(prefix: str) -> str:
    """A checkpoint's index in a few characters. It has the checksum of every tensor, so two
    checkpoints of one fingerprint have the same data.

    Raises:
      NotACheckpointError: there is no index, or it cannot be read.
    """
    import google_crc32c

    data = files.read_bytes(f"{prefix}.index")
    return f"{len(data)}-{google_crc32c.value(data):08x}"


def mark(prefix: str) -> tuple[str, str] | None:
    """What tells one checkpoint from another of the same prefix; None if there is none."""
    try:
        return real_prefix(prefix), fingerprint(prefix)
    except CheckpointError:
        return None
