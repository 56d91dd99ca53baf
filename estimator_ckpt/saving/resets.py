"""Which resets a job has made: a string tensor of its checkpoints, so that none is made twice.

    _ESTIMATOR_CKPT_RESETS = JSON [{"id": "4f1c9a0e", "step": 1200, "reset": ["optimizer"]}]

It is a key of the index and no variable: object graphs do not name it, and readers of TensorFlow
pass it over. Each save carries it on, so that it is right also after a rollback.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from estimator_ckpt import files
from estimator_ckpt.bundle.dtypes import STRING
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, shard_path
from estimator_ckpt.bundle.slices import key_bytes
from estimator_ckpt.bundle.tensors import encode_strings
from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.errors import CorruptCheckpointError, SettingsError
from estimator_ckpt.formats import RESETS_KEY
from estimator_ckpt.kept.links import keeping, link_checkpoint
from estimator_ckpt.reading.named import PINNED, pins, run_of

_STEP = re.compile(r"\d+$")


class Reset(NamedTuple):
    """A reset that a job has made.

    Attributes:
      id: of the request.
      step: the global step at which it was made; None where there is none.
      reset: what was asked for: roles, and patterns of names.
    """

    id: str
    step: int | None
    reset: tuple[str, ...]


def request_id(reset: Sequence[str], once: str | None) -> str:
    """What tells one request from another: the name that is given, or a hash of the list."""
    if once is not None:
        return f"once:{once}"
    return hashlib.sha256(json.dumps(sorted(set(reset))).encode()).hexdigest()[:8]


def read_resets(checkpoint: Checkpoint) -> tuple[Reset, ...]:
    """The resets that led to a checkpoint, the oldest first.

    Raises:
      CorruptCheckpointError: it says so in another form, or its bytes are wrong.
    """
    entry = checkpoint.index.entries.get(key_bytes(RESETS_KEY))
    if entry is None:
        return ()
    try:
        if entry.dtype != STRING or entry.shape != ():
            raise ValueError("it is no string scalar")
        (text,) = checkpoint.reader.strings(entry)
        return tuple(
            Reset(str(one["id"]), one["step"], tuple(map(str, one["reset"])))
            for one in json.loads(text)
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CorruptCheckpointError(
            f"expected a list of resets, found another: {error}",
            path=checkpoint.prefix,
            key=RESETS_KEY,
        ) from error


@dataclass(frozen=True)
class Request:
    """What is to be initialized at the resume, although the checkpoint has it.

    Attributes:
      id: tells it from other requests; it is met once.
      reset: as it was asked for: roles, and patterns of names.
      tensors: what it is, as the saver names it (Wanted.tensor).
      step: the name of the global step, if that is one of them.
    """

    id: str
    reset: tuple[str, ...]
    tensors: frozenset[str]
    step: str | None = None

    def is_met(self, resets: Sequence[Reset]) -> bool:
        return any(one.id == self.id for one in resets)

    def check(self, prefix: str) -> None:
        """Whether a job that resumes can meet it.

        Args:
          prefix: of the checkpoint that it resumes from.

        Raises:
          SettingsError: it asks for the global step.
        """
        if self.step is None:
            return
        run = run_of(prefix)
        before = os.path.join(run, "before")
        names = [shlex.quote(run) + "/checkpoint*", shlex.quote(_STEP.sub("", prefix)) + "*"]
        command = f", `mkdir {shlex.quote(before)} && mv {' '.join(names)} {shlex.quote(before)}`,"
        if files.is_remote(run):
            command = f" into {before}"
        raise SettingsError(
            f"{self.step} cannot begin anew beside {prefix}, as the names of checkpoints would be "
            f"taken again. Move them aside{command} and start from them with "
            f"warm_start={before!r}; or leave the step out by a pattern",
            key="reset",
        )

    def met_at_start(self, resets: tuple[Reset, ...] = ()) -> tuple[Reset, ...]:
        """What a job that starts says of resets: where there is nothing to resume from, a restart
        is to reset nothing.

        Args:
          resets: those of the checkpoint that its init_fn has restored from.
        """
        return resets if self.is_met(resets) else (*resets, Reset(self.id, 0, self.reset))


def keep_from_before(prefix: str, request: Request) -> None:
    """Pins the checkpoint that a reset starts from: the first save after it has the same step.

    Raises:
      CheckpointError: it cannot be pinned; nothing has been changed.
    """
    if not files.exists(f"{prefix}.index"):
        return  # in TensorFlow's first format (V1), whose files no save replaces
    run = run_of(prefix)
    base = f"before-reset-{re.sub('[^0-9A-Za-z_.+-]', '-', request.id)}"
    with keeping(run):
        name, number = base, 1
        while (there := pins(run).get(name)) is not None:
            if files.read_bytes(f"{there}.index") == files.read_bytes(f"{prefix}.index"):
                return
            number += 1
            name = f"{base}-{number}"
        link_checkpoint(prefix, os.path.join(run, PINNED, name), with_input=True)
    from absl import logging  # `inspect` reads resets, and does without

    logging.info("The checkpoint from before the reset stays as %s@%s", run, name)


def with_record(staged: str, index: Index, record: bytes) -> Index:
    """The index of a checkpoint that is being written, with its record of resets, whose bytes are
    put behind those of the last data file."""
    if not record:
        return index
    data, crc = encode_strings([record])
    shard = index.num_shards - 1
    path = shard_path(staged, shard, index.num_shards)
    entry = Entry(STRING, (), shard, files.size(path), len(data), crc)
    with files.open_write(path, append=True, sync=False) as file:
        file.write(data)
    return index._replace(entries={**index.entries, key_bytes(RESETS_KEY): entry})


def encode_resets(resets: Sequence[Reset]) -> bytes:
    """What a checkpoint is to say of resets; no bytes where there are none."""
    return json.dumps([one._asdict() for one in resets]).encode() if resets else b""
