"""The steps of a save. Whatever ends the process between any two lines, the newest checkpoint that
the state file names is there, whole, and what is left over is cleared away by the next save.

stage    The data and the graph are written to a directory beside the checkpoint, by TensorFlow;
         the input's position, too, in a run of its own.
names    The index gets the keys of the format.
swap     The position and the data files get their names, and then the index, which makes it a
         checkpoint.
beside   Files that belong to a first checkpoint are written.
state    The state file names it, and goes on naming what is about to be deleted.
expire   When its data are on the disk, beside training: older ones are deleted.
"""

from __future__ import annotations

import json
import numbers
import os
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from estimator_ckpt import files
from estimator_ckpt.bundle.aliases import with_keys
from estimator_ckpt.bundle.index import Index, read_index, shard_path
from estimator_ckpt.errors import WriteError
from estimator_ckpt.reading.input_files import input_directory, position_prefix, positions
from estimator_ckpt.saving.journal import temporary_name
from estimator_ckpt.saving.keeping import Keeper, keeper_of, sync_checkpoint, sync_files
from estimator_ckpt.saving.resets import with_record
from estimator_ckpt.saving.retention import CheckpointList
from estimator_ckpt.saving.staging import (
    data_files,
    is_same,
    move_beside,
    put_in_place,
    remove_tree,
    staging,
)


@dataclass(frozen=True)
class Save:
    """What is to be saved, and how.

    Attributes:
      prefix: of the checkpoint.
      write: writes the data and an index to a prefix; False if there is nothing to save.
      write_graph: writes the graph; gets the prefix, too. None: no graph.
      stage_input: writes the input's position beside what is staged, and tells whether the one that
        is beside the checkpoint already stays. None: no position is saved.
      names: existing key -> the key, or the keys, that its tensor gets beside it.
      is_sound: whether the checkpoint that has this prefix now, if one has it, was restored from or
        written by this process, so that its data need no look.
      durable: whether the data are to be on the disk before the state file names them.
      grace_secs: how long data files that were replaced stay.
      meta_graph_suffix: of the graph's file.
      waits: whether run_with_state() ends when the checkpoint is on the disk, and what has expired
        is deleted.
      resets: what the checkpoint says of resets, see saving/resets.py.
    """

    prefix: str
    write: Callable[[str], bool]
    write_graph: Callable[[str], None] | None
    stage_input: Callable[[str], bool] | None
    names: Mapping[str, str | Sequence[str]]
    is_sound: bool
    durable: bool
    grace_secs: float
    meta_graph_suffix: str
    waits: bool = False
    resets: bytes = b""

    def run(self) -> bool:
        """Writes the checkpoint, and nothing else; False if there is nothing to save."""
        return self._write(secrets.token_hex(4), None, is_durable=self.durable)

    def run_with_state(
        self,
        session: object,
        list_of: Callable[[Collection[str]], CheckpointList],
        *,
        state_name: str,
        beside: Mapping[str, Any],
    ) -> bool:
        """Writes the checkpoint and has the state file name it.

        Args:
          session: that saves.
          list_of: gives the list of checkpoints in this directory; gets the names of those that
            the state file still has, but that wait for their deletion.
          state_name: of the state file.
          beside: the files, by name, that are to be beside the checkpoint, as JSON.
        """
        keeper = keeper_of(os.path.dirname(self.prefix), state_name)
        with keeper.saving:  # several savers may save beside training
            return self._run_with(keeper, session, list_of, beside)

    def _run_with(
        self,
        keeper: Keeper,
        session: object,
        list_of: Callable[[Collection[str]], CheckpointList],
        beside: Mapping[str, Any],
    ) -> bool:
        began = time.monotonic()
        keeper.begin(self.prefix, session)
        kept = list_of(keeper.leaving)
        is_durable = self.durable or not keeper.has_synced_beside(self.prefix)
        if not self._write(keeper.token, keeper, is_durable=is_durable):
            return False
        for name, content in beside.items():
            path = os.path.join(os.path.dirname(self.prefix), name)
            text = json.dumps(content, indent=1).encode()
            files.write_atomic(path, text, temporary=temporary_name(path, keeper.token))
        expired = kept.add(self.prefix)
        listed = kept.state()
        keeper.publish(listed, expired)
        keeper.settle(
            self.prefix,
            listed,
            grace_secs=self.grace_secs,
            meta_graph_suffix=self.meta_graph_suffix,
            is_synced=is_durable,
            policy=kept.policy,
            seconds=time.monotonic() - began,
        )
        if self.waits:
            keeper.join()
        return True

    def _write(self, token: str, keeper: Keeper | None, *, is_durable: bool) -> bool:
        with staging(self.prefix, token) as staged:
            index = self._stage(staged)
            if index is None:
                move_beside(staged, self.prefix)
                return False
            # What a job without positions has restored, or has written itself, keeps its own.
            stays = self.is_sound if self.stage_input is None else self.stage_input(staged)
            self._swap(staged, with_keys(index, self.names), keeper, input_stays=stays)
        if is_durable:
            sync_checkpoint(self.prefix)
        return True

    def _stage(self, staged: str) -> Index | None:
        is_written = self.write(staged)
        if self.write_graph is not None:
            self.write_graph(staged)
        return with_record(staged, read_index(staged), self.resets) if is_written else None

    def _swap(self, staged: str, index: Index, keeper: Keeper | None, *, input_stays: bool) -> None:
        if not files.exists(f"{self.prefix}.index"):
            self._place_input(staged, stays=input_stays)
            put_in_place(staged, index, self.prefix)
            return
        if self.is_sound and is_same(index, self.prefix):
            self._place_input(staged, stays=True)
            move_beside(staged, self.prefix)  # a session saves the step that it resumes from
            return
        placed = self._place_input(staged, stays=input_stays)
        # It may be the only checkpoint, so the new data must be on the disk before it goes.
        count = index.num_shards
        if not files.is_remote(staged):
            sync_files([shard_path(staged, shard, count) for shard in range(count)])
        if keeper is not None:
            keeper.replaces(self.prefix)
            put_in_place(staged, index, self.prefix)
            self._remove_positions_but(placed)
            return
        replaced = data_files(self.prefix)
        put_in_place(staged, index, self.prefix)
        self._remove_positions_but(placed)
        _remove_all(replaced)

    def _place_input(self, staged: str, *, stays: bool) -> set[int]:
        """Gives a staged position its name, before the checkpoint has its own; returns its step.

        What is there of another checkpoint goes: of one that was removed without its position, or
        that is replaced by one without a position.
        """
        found = positions(staged)
        if not found and not stays:
            remove_tree(input_directory(self.prefix))
        for step, position in found.items():
            files.make_dirs(input_directory(self.prefix))
            target = position_prefix(self.prefix, step)
            replaced = data_files(target)
            put_in_place(position, read_index(position), target)
            _remove_all(replaced)
        return set(found)

    def _remove_positions_but(self, placed: set[int]) -> None:
        """Removes the positions of the checkpoint that was replaced, if the new one has its own."""
        for step, position in positions(self.prefix).items() if placed else ():
            if step not in placed:
                files.remove(f"{position}.index")
                _remove_all(data_files(position))


def _remove_all(found: Mapping[int, Sequence[str]]) -> None:
    """Removes what data_files() has found."""
    for paths in found.values():
        for path in paths:
            files.remove(path)


def prefix_of(
    session: tf.compat.v1.Session, save_path: str, global_step: Any, *, is_padded: bool
) -> str:
    """The prefix of a checkpoint that is to be written, in a directory that is there.

    Args:
      session: in which `global_step` has its value.
      save_path: as tf.compat.v1.train.Saver.save() takes it.
      global_step: as well.
      is_padded: whether the step has eight digits at least.

    Raises:
      WriteError: there is no such directory.
    """
    prefix: str = tf.compat.as_str(save_path)
    if global_step is not None:
        if not isinstance(global_step, numbers.Integral):
            global_step = tf.compat.v1.train.global_step(session, global_step)
        prefix += f"-{global_step:0{8 if is_padded else 1}d}"
    directory = os.path.dirname(prefix) or "."
    if not files.is_dir(directory):
        raise WriteError(f"the directory {directory} doesn't exist", path=prefix)
    return prefix
