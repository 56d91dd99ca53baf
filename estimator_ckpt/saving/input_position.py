"""The position of a job's input: saved with each checkpoint, and restored before the first step.

It is saved and restored in runs of its own, so that a model's variables never depend on whether
that comes off.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
from absl import logging

from estimator_ckpt import files
from estimator_ckpt.checkpoint import open_checkpoint
from estimator_ckpt.errors import (
    CheckpointError,
    CorruptCheckpointError,
    MismatchError,
    SettingsError,
)
from estimator_ckpt.options import SaverOptions
from estimator_ckpt.reading.input_files import input_directory, position_prefix, positions
from estimator_ckpt.reading.state import real_prefix
from estimator_ckpt.saving import tf_data_internals
from estimator_ckpt.saving.input_ops import InputIterator, InputOps, end_message, input_iterators
from estimator_ckpt.saving.on_disk import open_any
from estimator_ckpt.saving.op_errors import reason_of
from estimator_ckpt.saving.snapshots import Snapshot
from estimator_ckpt.saving.staging import remove_tree
from estimator_ckpt.verify import verify_tensors

_COPIED = (
    "another Scaffold than the factory's begins the session, a copy of it, which does not restore "
    "the position; give what the copy has to the factory instead: base=Scaffold(...)"
)


class _Found(NamedTuple):
    """A position that is to be restored: of the checkpoint of this prefix, at this step."""

    prefix: str
    step: int
    position: str


class InputPosition:
    """Saves and restores the positions of a graph's tf.data iterators for a Saver.

    A Scaffold's local_init_op restores them where serve() is called, start() otherwise.
    """

    def __init__(self, options: SaverOptions) -> None:
        self._options = options
        self._scaffold: tf.compat.v1.train.Scaffold | None = None
        self._count: int | None = None
        self._ops: InputOps | None = None
        self._restored: Any = None  # what start() runs
        self._feeds: dict[Any, Any] = {}
        self._found: _Found | None = None
        self._is_live = False  # whether the iterators are initialized, and where they should be
        self._is_tried = False
        self._is_off = False
        self._told_bytes = 0

    def serve(self, scaffold: tf.compat.v1.train.Scaffold) -> None:
        """Has a Scaffold restore the position: of iterators that its local_init_op initializes."""
        self._scaffold, self._is_live = scaffold, True

    def by_hook(self, count: int) -> None:
        """Has a hook restore the position, by start().

        Args:
          count: how many iterators there were before the model_fn was called.
        """
        self._scaffold, self._is_live, self._count = None, False, count

    def check(self, workers: int = 1) -> None:
        """Before there is a session.

        Args:
          workers: how many processes read data.

        Raises:
          SettingsError: there is no position to save, or it could not be restored.
        """
        if workers > 1:
            self._refuse(f"{workers} processes read data, and one of them saves")
        else:
            self._iterators()

    def build(self) -> None:
        """Adds the ops to the default graph.

        Raises:
          SettingsError: as check(), for a Scaffold alone.
        """
        if self._scaffold is not None:
            iterators = self._iterators()
            if iterators:
                self._ops = InputOps(iterators)
                self._feeds = self._ops.restore_in(self._scaffold)
            return
        try:
            self._ops = InputOps(input_iterators(self._count))
        except SettingsError:  # check() has said so, or this is an export, which has no input
            return
        self._restored = self._ops.restored()

    def _iterators(self) -> list[InputIterator]:
        ranks = _ranks()
        if ranks > 1:
            self._refuse(f"{ranks} processes read data, under Horovod, and one of them saves")
            return []
        local_init_op = None
        if self._scaffold is not None:
            local_init_op = self._scaffold.local_init_op
            if local_init_op is None:
                raise SettingsError(_COPIED, key="save_input")
            local_init_op = tf.group(local_init_op)
        try:
            return input_iterators(self._count, local_init_op)
        except SettingsError as error:
            self._refuse(error.message)
            return []

    def _refuse(self, why: str) -> None:
        """Gives up saving positions: an error, unless the user has said that it is none.

        Raises:
          SettingsError: `why`.
        """
        if self._options.on_unsavable_input == "error":
            raise SettingsError(
                f"{why}. on_unsavable_input='warn' trains without", key="save_input"
            )
        logging.warning("The input's position is not saved: %s", why)
        self._is_off = True

    # --- restoring ---

    def find(self, prefix: str) -> None:
        """Looks for the position of a checkpoint that the job resumes from.

        Raises:
          CorruptCheckpointError: it is damaged.
          MismatchError: the pipeline is another one.
        """
        self._is_live = self._scaffold is not None
        self._found = None
        if self._scaffold is not None and self._ops is not None:
            self._feeds[self._ops.path] = ""
        if self._is_off or self._ops is None:
            return
        found = self._in_files(prefix, self._ops)
        if found is None:
            return
        self._found = found
        if self._scaffold is not None:
            self._feeds[self._ops.path] = found.position
            if tf_data_internals.resuming_local_init_op() is not self._ops.local_init_op:
                raise SettingsError(_COPIED, key="save_input")

    def _in_files(self, prefix: str, ops: InputOps) -> _Found | None:
        with open_any(prefix) as checkpoint:
            prefix, step = checkpoint.prefix, checkpoint.global_step
        there = positions(prefix)
        if not there:
            tell = logging.warning if step else logging.info
            tell("The input begins at its start: %s has no input position beside it", prefix)
            return None
        directory = input_directory(prefix)
        if step is None or step not in there:
            steps = ", ".join(map(str, there))
            self._changed(f"the position is of step {steps}, but the checkpoint of {step}", prefix)
            return None
        position = there[step]
        self._check_files(position, directory)
        saved = _pipelines(position)
        now = {one.key: one.pipeline for one in ops.iterators}
        if saved != now:
            self._changed(_difference(saved, now), position)
            return None
        return _Found(prefix, step, position)

    def _check_files(self, position: str, directory: str) -> None:
        try:
            faults = verify_tensors(position).faults
        except CheckpointError as error:
            raise CorruptCheckpointError(
                f"the position of the input is not there: {error.message}. Remove {directory} to "
                "begin the input anew",
                path=error.path or position,
            ) from error
        for fault in faults:
            raise CorruptCheckpointError(
                f"the position of the input is damaged: {fault.message}. Remove {directory} to "
                "begin the input anew",
                path=fault.file,
                key=fault.key,
            )

    def _changed(self, what: str, path: str) -> None:
        """Raises MismatchError, unless the user has said that another input begins anew."""
        if self._options.on_input_change == "error":
            raise MismatchError(
                f"{what}\non_input_change='restart' begins the input anew",
                path=path,
                key="save_input",
            )
        logging.warning("The input begins anew, as it has changed: %s: %s", path, what)

    def start(self, session: tf.compat.v1.Session) -> None:
        """Restores what find() has found, when all iterators are initialized; by a hook.

        Raises:
          MismatchError: TensorFlow does not take the position.
          SettingsError: the position could not be saved.
        """
        self._is_live = True
        if self._is_off or self._ops is None:
            return
        if self._found is None:
            self._try(session, self._ops)
            return
        try:
            follows = session.run(self._restored, {self._ops.path: self._found.position})
        except tf.errors.OpError as error:
            directory = os.path.dirname(self._found.position)
            raise MismatchError(
                f"TensorFlow {tf.__version__} does not restore this position of the input: "
                f"{reason_of(error)}\nRemove {directory} to begin it anew",
                path=self._found.position,
                key="save_input",
            ) from error
        if not all(follows):
            logging.warning("%s %s", *end_message(self._found.position))
        self._tell_of_random_ops()

    def _try(self, session: tf.compat.v1.Session, ops: InputOps) -> None:
        """Finds out whether positions can be saved, once for a session."""
        self._is_tried = True
        tasks = {device.name.partition("/device:")[0] for device in session.list_devices()}
        others = sorted(task for task in tasks if "/job:ps/" not in task)
        if len(others) > 1:
            self._refuse(f"{len(others)} processes read data, and one of them saves")
            return
        why = ops.unsavable(session)
        if why:
            self._refuse(why)
        else:
            self._tell_of_random_ops()

    def _tell_of_random_ops(self) -> None:
        if self._ops is not None and self._ops.random:
            logging.info(
                "A resumed job goes on with the next batch, but its losses will not be the same to "
                "the bit: the model has random ops (%s), which begin anew in each session",
                ", ".join(self._ops.random),
            )

    # --- saving ---

    def take(self, session: tf.compat.v1.Session, prefix: str) -> Callable[[str], bool]:
        """Holds the position of this moment, for a checkpoint that is about to be written.

        Args:
          session: whose iterators.
          prefix: what the checkpoint will have.

        Returns:
          What writes the position beside a checkpoint that is staged under a prefix, and tells
          whether the one that is beside `prefix` already is right, and stays.

        Raises:
          SettingsError: it could not be saved; at the first try.
        """
        if self._is_off or self._ops is None:
            return lambda staged: False
        step, found = int(session.run(self._ops.step)), self._found
        if found is not None and found.step == step:
            if real_prefix(found.prefix) == real_prefix(prefix):
                return lambda staged: True
            return lambda staged: _copy(found.position, position_prefix(staged, step))
        if not self._is_live:
            return lambda staged: False  # a first save, before the iterators are initialized
        if not self._is_tried and found is None:
            self._try(session, self._ops)
            if self._is_off:
                return lambda staged: False
        began = time.monotonic()
        try:
            snapshot = self._ops.snapshots.take(session)
        except tf.errors.OpError as error:
            logging.error("%s has no input position beside it: %s", prefix, reason_of(error))
            snapshot = None
        if snapshot is None:
            return lambda staged: False
        taken = time.monotonic() - began
        return lambda staged: self._write(snapshot, position_prefix(staged, step), prefix, taken)

    def _write(self, snapshot: Snapshot, position: str, prefix: str, secs: float) -> bool:
        directory, name = os.path.split(position)
        files.make_dirs(directory)
        began = time.monotonic()
        try:
            snapshot.write(position)
        except tf.errors.OpError as error:
            remove_tree(directory)
            logging.error("%s has no input position beside it: %s", prefix, reason_of(error))
            return False
        names = [one for one in files.list_dir(directory) if one.startswith(name)]
        size = sum(files.size(os.path.join(directory, one)) for one in names)
        limit = self._options.save_input_max_bytes
        if limit is not None and size > limit:
            remove_tree(directory)
            why = f"it takes {size:,} bytes, and save_input_max_bytes is {limit:,}"
            if not self._told_bytes:
                self._refuse(why)
            logging.error("%s has no input position beside it: %s", prefix, why)
            return False
        if size > 2 * self._told_bytes:
            self._told_bytes = size
            logging.info(
                "The input's position takes %s bytes beside each checkpoint, written in %.2f s",
                f"{size:,}",
                secs + time.monotonic() - began,
            )
        return False


def _ranks() -> int:
    """How many processes train together under Horovod, of which TensorFlow knows nothing."""
    horovod = sys.modules.get("horovod.tensorflow")
    return horovod.size() if horovod is not None and horovod.is_initialized() else 1


def _pipelines(position: str) -> dict[str, str]:
    """The pipelines of the iterators whose positions were saved, by key."""
    suffix = "/pipeline"
    with open_checkpoint(position) as checkpoint:
        keys = [key.decode() for key in checkpoint.index.entries if key.endswith(suffix.encode())]
        return {key[: -len(suffix)]: checkpoint.get_tensor(key).item().decode() for key in keys}


def _difference(saved: dict[str, str], now: dict[str, str]) -> str:
    """What tells two inputs from each other: each iterator that differs."""
    lines = ["the input is another than the one whose position was saved"]
    for key in sorted({*saved, *now}):
        if saved.get(key) != now.get(key):
            lines.append(f"  {key}, saved: {saved.get(key, 'none')}")
            lines.append(f"  {key}, now:   {now.get(key, 'none')}")
    return "\n".join(lines)


def _copy(position: str, staged: str) -> bool:
    """Copies the position of the checkpoint that was restored; False, as none stays."""
    (directory, name), (target, new) = os.path.split(position), os.path.split(staged)
    files.make_dirs(target)
    for one in files.list_dir(directory):
        if one.startswith(f"{name}."):
            files.link_or_copy(
                os.path.join(directory, one), os.path.join(target, new + one[len(name) :])
            )
    return False
