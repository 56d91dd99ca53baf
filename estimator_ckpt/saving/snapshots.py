"""Snapshots: what a saver saves, as it was at one step, held by TensorFlow while training goes on.
For those that images.py does not take: of a cluster's variables, of iterators.

    in a run of its own, between two steps    variable -> (copy ->) MapStage
    beside training                           MapUnstage -> SaveV2

A resource variable is held by its value, which shares the memory of the variable: an op that is
about to write there sees that somebody else holds it, and moves the variable to new memory first
(tensorflow/core/kernels/training_op_helpers.h, resource_variable_ops.cc). Ops on reference
variables write in place, whoever holds the value: those are copied, and so is any other tensor.

A snapshot has a random key, under which it is taken out once. So whatever an earlier save or
another session has left in the staging area, a save writes its own snapshot or none.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import tensorflow as tf
from absl import logging

# What tests/test_async_saves.py has seen to be held right.
_DTYPES = frozenset(
    (
        *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("bool", "string"),
    )
)

# Makes a new tensor at every run (tensorflow/core/kernels/data/iterator_ops.cc). The export of a
# lookup table does not: a dense one gives its own memory (lookup_table_op.cc).
_NEW_AT_EVERY_RUN = "SerializeIterator"

_HoldBy = Callable[[tf.Tensor], tf.Tensor]


def _by_value(tensor: tf.Tensor) -> tf.Tensor:
    return tensor


def _by_copy(tensor: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.DeepCopy(x=tensor)


def _hold_by(tensor: tf.Tensor) -> _HoldBy | None:
    """How the value of a tensor is held; None where no way is known to be right."""
    origin = tensor
    while origin.op.type == "Identity" and origin.dtype == origin.dtype.base_dtype:
        origin = origin.op.inputs[0]  # the same memory
    if origin.op.type == _NEW_AT_EVERY_RUN:
        return _by_value
    if tensor.dtype.base_dtype.name not in _DTYPES:
        return None
    return _by_value if origin.op.type == "ReadVariableOp" else _by_copy


def _is_on_cpu(device: str) -> bool | None:
    """Whether a device is a CPU; None where it is left to the session."""
    kind = tf.DeviceSpec.from_string(device).device_type
    return None if kind is None else bool(kind == "CPU")


@dataclass
class SnapshotOps:
    """Builds the ops that hold and give back what a saver saves.

    Attributes:
      key: of a snapshot; it is fed.
      stages: take a snapshot, one op for each device.
      clears: empty the staging areas.
    """

    key: tf.Tensor
    stages: list[tf.Operation] = field(default_factory=list)
    clears: list[tf.Operation] = field(default_factory=list)

    def through(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Adds the ops for the tensors of one device, which is the current one.

        Returns:
          The same tensors, as they were when the snapshot was taken; for the one run of SaveV2.
        """
        held = [index for index, tensor in enumerate(tensors) if tensor.op.type != "Const"]
        given = list(tensors)
        if not held:
            return given
        dtypes = [tensors[index].dtype.base_dtype for index in held]
        name = tf.compat.v1.get_default_graph().unique_name("snapshot", mark_as_used=False)
        area: dict[str, Any] = {"dtypes": dtypes, "shared_name": name}
        clear = tf.raw_ops.MapClear(**area, name="snapshot")
        values = []
        for index in held:
            hold_by = _hold_by(tensors[index])
            assert hold_by is not None, "unproven() has not been asked"
            values.append(hold_by(tensors[index]))
        # MapStage waits for ever where an area is full; so it is emptied instead of bounded.
        with tf.control_dependencies([clear]):
            stage = tf.raw_ops.MapStage(
                key=self.key, indices=list(range(len(held))), values=values, **area
            )
        self.clears.append(clear)
        self.stages.append(stage)
        taken = tf.raw_ops.MapUnstage(key=self.key, indices=list(range(len(held))), **area)
        for index, tensor in zip(held, taken):
            given[index] = tensor
        return given


class Snapshots:
    """Takes snapshots of what a saver saves."""

    def __init__(
        self, ops: SnapshotOps, save: tf.Tensor, filename: tf.Tensor, tensors: Iterable[Saved]
    ) -> None:
        """Nothing is held yet.

        Args:
          ops: that take snapshots.
          save: writes one, and takes it out of where it is held.
          filename: the prefix to write to; it is fed.
          tensors: what it is that is saved.
        """
        self.ops = ops
        self.save = save
        self.filename = filename
        # Devices whose kind the session chooses, each with the name of a tensor.
        self._open = {
            one.device: one.name
            for one in tensors
            if one.tensor.op.type != "Const" and _is_on_cpu(one.device) is None
        }
        self._has_told = False

    def take(self, session: tf.compat.v1.Session) -> Snapshot | None:
        """Takes a snapshot, in place of any other; None in a session that has devices of which it
        is not known whether that is right. The log says so, once."""
        if not is_plain(session):
            return None
        reason = self._unproven_in(session) if self._open else ""
        if reason:
            if not self._has_told:
                tell_that_training_waits(reason)
            self._has_told = True
            return None
        key = secrets.randbits(62)
        session.run(self.ops.stages, {self.ops.key: key})
        return Snapshot(self, session, key)

    def _unproven_in(self, session: tf.compat.v1.Session) -> str:
        others = [d.name for d in session.list_devices() if d.device_type != "CPU"]
        for device, name in self._open.items():
            for other in others:
                if may_be(device, other):
                    return f"{name} may be on {other}"
        return ""


class Snapshot(NamedTuple):
    """What a saver saves, as it was at one step.

    Attributes:
      of: what has taken it.
      session: in which it is held.
      key: under which it is held.
    """

    of: Snapshots
    session: tf.compat.v1.Session
    key: int

    def write(self, prefix: str) -> None:
        """Writes it, and lets go of it. In the thread that calls: the session's own threads stay
        free for training. With only one of them, no step would be made meanwhile."""
        feeds = {self.of.filename: prefix, self.of.ops.key: self.key}
        options = tf.compat.v1.RunOptions(inter_op_thread_pool=-1)
        # Not session.run(), which the runs of the training are watched by.
        type(self.session).run(self.session, self.of.save, feeds, options=options)

    def let_go(self) -> None:
        """Frees its memory where it has not been written."""
        with contextlib.suppress(tf.errors.OpError, RuntimeError):  # as the session is closed
            type(self.session).run(self.session, self.of.ops.clears)


class Saved(NamedTuple):
    """One tensor that a saver saves: its name, and the device of what it is of."""

    name: str
    tensor: tf.Tensor
    device: str


def unproven(tensors: Iterable[Saved]) -> str:
    """What of some tensors no snapshot may hold; "" where nothing is in the way."""
    for name, tensor, device in tensors:
        if tensor.op.type == "Const":
            continue
        if _is_on_cpu(device) is False:
            return f"{name} is on {device}"
        if _hold_by(tensor) is None:
            return f"{name} is of the dtype {tensor.dtype.base_dtype.name}"
    return ""


def is_plain(session: object) -> bool:
    """Whether a session is TensorFlow's own, no wrapper, of which nothing is known."""
    return isinstance(session, (tf.compat.v1.Session, tf.compat.v1.InteractiveSession))


def may_be(device: str, other: str) -> bool:
    """Whether what is placed on `device`, which names no kind, may come to be on another one."""
    asked, found = map(tf.DeviceSpec.from_string, (device, other))
    return asked.job in (None, found.job) and asked.task in (None, found.task)


def tell_that_training_waits(reason: str) -> None:
    """Says that a saver saves synchronously after all."""
    logging.warning(
        "async_checkpoint: training waits for each save, as it is not known how to hold a "
        "snapshot: %s",
        reason,
    )
