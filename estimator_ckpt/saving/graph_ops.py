"""The ops of a graph that write a checkpoint and read one.

They are TensorFlow's own, SaveV2 and RestoreV2, sharded by device as a stock Saver has them, with
two differences. What is written stands under the keys of the chosen format, with the object graph
beside it. And what is read is decided when a checkpoint is at hand: the names are an input of
RestoreV2, which can be fed in a graph that is already finalized.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from estimator_ckpt.bulk import collector_paused
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.slices import key_bytes, parse_slice_spec
from estimator_ckpt.errors import CorruptCheckpointError, MismatchError, NotACheckpointError
from estimator_ckpt.objects.object_graph import OBJECT_GRAPH_KEY
from estimator_ckpt.saving import tf_internals
from estimator_ckpt.saving.contents import Contents, SavedTensor
from estimator_ckpt.saving.graph_contents import SAVE_COUNTER_KEY
from estimator_ckpt.saving.images import Image, Images, Shard
from estimator_ckpt.saving.op_errors import reason_of
from estimator_ckpt.saving.snapshots import (
    Saved,
    Snapshot,
    SnapshotOps,
    Snapshots,
    is_plain,
    tell_that_training_waits,
    unproven,
)
from estimator_ckpt.saving.tf_internals import BulkSaverBuilder, Saveable


@dataclass(frozen=True)
class _BulkRestore:
    """One RestoreV2: the tensors of one dtype on one device."""

    names: tf.Tensor
    slices: tf.Tensor
    tensors: Sequence[str]
    slice_specs: Sequence[str]
    outputs: Sequence[tf.Tensor]


@dataclass(frozen=True)
class _Assign:
    """The op that assigns to one saveable what RestoreV2 has read for it."""

    tensors: Sequence[str]
    op: tf.Operation


class SaverOps(BulkSaverBuilder):  # type: ignore[misc]
    """Builds the ops for tf.compat.v1.train.Saver, and knows how to run them in part."""

    def __init__(
        self, contents: Contents, *, object_keys: bool, with_snapshots: bool = False
    ) -> None:
        """Nothing is built yet.

        Args:
          contents: what to save.
          object_keys: write an object-based checkpoint, else a name-based one.
          with_snapshots: build what take_snapshot() needs, too, where that is possible.
        """
        super().__init__()
        self._with_snapshots = with_snapshots
        self._shards: list[Shard] = []
        self._held: Iterator[tuple[Shard, list[tf.Tensor]]] | None = None
        self.snapshots: Snapshots | None = None
        self._images: Images | None = None
        self._why_none = ""  # no snapshots; once the log has it
        self._contents = contents
        self._by_saveable = {id(record.saveable): record.tensors for record in contents.records}
        self._object_keys = object_keys
        self._keys = {
            saved.wanted.tensor: saved.key if object_keys else saved.wanted.tensor
            for saved in contents.all_tensors()
        }
        self._wrote_object_graph = False
        self._restores: list[_BulkRestore] = []
        self._assigns: list[_Assign] = []

    def _tensors(self, saveable: Saveable) -> Sequence[SavedTensor]:
        return self._by_saveable[id(saveable)]

    def save_op(self, filename_tensor: tf.Tensor, saveables: Sequence[Saveable]) -> Any:
        if self._held is None:
            shard = self._shard(saveables)
            self._shards.append(shard)
            tensors = shard.tensors
        else:
            shard, tensors = next(self._held)
        return tf.raw_ops.SaveV2(
            prefix=filename_tensor,
            tensor_names=shard.names,
            shape_and_slices=shard.slices,
            tensors=tensors,
        )

    def _shard(self, saveables: Sequence[Saveable]) -> Shard:
        names, slices, tensors, devices = [], [], [], []
        for saveable in saveables:
            for spec, saved in zip(saveable.specs, self._tensors(saveable)):
                names.append(self._keys[saved.wanted.tensor])
                slices.append(spec.slice_spec)
                tensors.append(spec.tensor)
                devices.append(saveable.device)
        if self._object_keys and not self._wrote_object_graph:
            # In the first shard, whichever that is: a device of their own would be one more shard.
            self._wrote_object_graph = True
            object_graph = self._contents.object_graph.serialize()
            names.append(OBJECT_GRAPH_KEY)
            tensors.append(tf.constant(object_graph, name="object_graph"))
            if SAVE_COUNTER_KEY not in self._keys.values():  # the user's own tf.train.Checkpoint
                names.append(SAVE_COUNTER_KEY)
                tensors.append(tf.constant(0, tf.int64, name="save_counter"))
            slices += [""] * (len(names) - len(slices))
        return Shard(names, slices, tensors, devices)

    def _AddShardedSaveOps(  # noqa: N802 (overrides BaseSaverBuilder's)
        self, filename_tensor: tf.Tensor, per_device: Sequence[tuple[str, Sequence[Saveable]]]
    ) -> tf.Tensor:
        saved = super()._AddShardedSaveOps(filename_tensor, per_device)
        if self._with_snapshots and self._shards:
            self._add_snapshots(filename_tensor, per_device)
        return saved

    def _add_snapshots(
        self, filename_tensor: tf.Tensor, per_device: Sequence[tuple[str, Sequence[Saveable]]]
    ) -> None:
        """A second set of ops that save, of snapshots. The first stays as it is: it is what others
        run who have the graph, from a .meta file, say."""
        tensors = [
            Saved(name, tensor, device)
            for shard in self._shards
            for name, tensor, device in zip(shard.names, shard.tensors, shard.devices)
        ]
        self._images = Images(self._shards)
        self._why_none = unproven(tensors)
        if self._why_none:
            return
        with tf.device("cpu:0"):
            key = tf.compat.v1.placeholder(tf.int64, [], name="snapshot_key")
        ops = SnapshotOps(key)
        # Their ops are made as save_op() asks for them, on the device of that shard.
        self._held = ((shard, ops.through(shard.tensors)) for shard in self._shards)
        saved = super()._AddShardedSaveOps(filename_tensor, per_device)
        self.snapshots = Snapshots(ops, saved, filename_tensor, tensors)

    def take_snapshot(self, session: tf.compat.v1.Session, prefix: str) -> Image | Snapshot | None:
        """Takes a snapshot of what is saved, in place of any other; None where no way is known to
        do that right, and the log says so, once.

        Args:
          session: to take it in.
          prefix: of the checkpoint that it will be.

        Raises:
          WriteError: there is no memory for it.
        """
        if self._images is None or not is_plain(session):
            return None
        if self._images.can_take(session, prefix):
            return self._images.take(session, prefix)
        if self.snapshots is not None:
            return self.snapshots.take(session)
        reason, self._why_none = self._why_none, ""
        if reason:
            tell_that_training_waits(reason)
        return None

    def bulk_restore(
        self,
        filename_tensor: tf.Tensor,
        saveables: Sequence[Saveable],
        preferred_shard: int,
        restore_sequentially: bool,
    ) -> list[tf.Tensor]:
        # One op for each dtype, not one for all: see feeds().
        by_dtype: dict[tf.DType, list[tuple[int, str, str]]] = {}
        count = 0
        for saveable in saveables:
            for spec, saved in zip(saveable.specs, self._tensors(saveable)):
                by_dtype.setdefault(spec.dtype.base_dtype, []).append(
                    (count, saved.wanted.tensor, spec.slice_spec)
                )
                count += 1
        restored: list[tf.Tensor] = [None] * count
        with tf.device("cpu:0"):
            for dtype, group in by_dtype.items():
                positions, tensors, slice_specs = zip(*group)
                names = tf.constant([self._keys[t] for t in tensors], name="tensor_names")
                slices = tf.constant(slice_specs, name="shape_and_slices")
                outputs = tf.raw_ops.RestoreV2(
                    prefix=filename_tensor,
                    tensor_names=names,
                    shape_and_slices=slices,
                    dtypes=[dtype] * len(group),
                )
                self._restores.append(_BulkRestore(names, slices, tensors, slice_specs, outputs))
                for position, output in zip(positions, outputs):
                    restored[position] = output
        return restored

    @collector_paused()
    def _AddRestoreOps(  # noqa: N802 (overrides BaseSaverBuilder's)
        self,
        filename_tensor: tf.Tensor,
        saveables: Sequence[Saveable],
        restore_sequentially: bool,
        reshape: bool,
        preferred_shard: int = -1,
        name: str = "restore_all",
    ) -> tf.Operation:
        saveables = [s for s in saveables if not tf_internals.never_restored(s)]
        tensors = self.bulk_restore(
            filename_tensor, saveables, preferred_shard, restore_sequentially
        )
        ops = []
        for saveable in saveables:
            count = len(saveable.specs)
            op = self._assign(saveable, tensors[:count], reshape)
            tensors = tensors[count:]
            saved = self._tensors(saveable)
            self._assigns.append(_Assign([s.wanted.tensor for s in saved], op))
            ops.append(op)
        return tf.group(*ops, name=name)

    def _assign(self, saveable: Saveable, tensors: Sequence[tf.Tensor], reshape: bool) -> Any:
        """The op that assigns what was read; for an ordinary variable it is TensorFlow's, without
        an Identity before it: thousands of them take a twentieth of the time of a start."""
        if reshape or type(saveable) is not self.ResourceVariableSaveable:
            return saveable.restore(tensors, _shapes(saveable) if reshape else None)
        with tf.device(saveable.device):
            (value,) = tensors
            return tf.raw_ops.AssignVariableOp(resource=saveable.handle_op, value=value)

    def fetches(self, names: Collection[str]) -> list[tf.Operation] | None:
        """The ops that assign the tensors of these names and no others; None if these are all."""
        chosen = [a.op for a in self._assigns if all(t in names for t in a.tensors)]
        return None if len(chosen) == len(self._assigns) else chosen

    def assigning(
        self, values: Mapping[str, np.ndarray[Any, Any]]
    ) -> tuple[list[tf.Operation], dict[tf.Tensor, Any]]:
        """The ops that assign values in the place of what RestoreV2 reads, and what to feed them.

        Args:
          values: by tensors; of a variable in slices the whole.
        """
        fetches = [a.op for a in self._assigns if all(t in values for t in a.tensors)]
        fed = {
            output: values[tensor][_part(spec)]
            for restore in self._restores
            for tensor, spec, output in zip(restore.tensors, restore.slice_specs, restore.outputs)
            if tensor in values
        }
        return fetches, fed

    def feeds(
        self, keys: Mapping[str, str], entries: Mapping[bytes, Entry]
    ) -> dict[tf.Tensor, list[str]]:
        """What to feed so that each tensor is read under its key of the checkpoint at hand.

        A RestoreV2 reads all its names, also those whose tensors nobody fetches. So a tensor that
        is not in `keys` borrows the smallest of the others in its op, which all are of its dtype:
        it is read and thrown away.

        Args:
          keys: the key in the checkpoint for each tensor to read.
          entries: the checkpoint's index.
        """
        fed: dict[tf.Tensor, list[str]] = {}
        for restore in self._restores:
            wanted = [
                (keys[tensor], spec) if tensor in keys else None
                for tensor, spec in zip(restore.tensors, restore.slice_specs)
            ]
            found = [one for one in wanted if one is not None]
            if not found:
                continue
            stand_in = min(found, key=lambda one: _count(one[0], one[1], entries))
            read = [one or stand_in for one in wanted]
            fed[restore.names] = [key for key, _ in read]
            if len(found) < len(wanted):
                fed[restore.slices] = [spec for _, spec in read]
        return fed


def _part(slice_spec: str) -> Any:
    """Which part of a variable a slice is."""
    if not slice_spec:
        return ...
    _, extents = parse_slice_spec(slice_spec)
    return tuple(
        slice(None) if length == -1 else slice(start, start + length) for start, length in extents
    )


def _count(key: str, slice_spec: str, entries: Mapping[bytes, Entry]) -> int:
    """How many elements are read."""
    shape = entries[key_bytes(key)].shape
    if slice_spec:
        _, extents = parse_slice_spec(slice_spec)
        shape = tuple(size if length == -1 else length for size, (_, length) in zip(shape, extents))
    return math.prod(shape)


def _shapes(saveable: Saveable) -> list[Any]:
    """The shapes to which a stock Saver reshapes what it has read."""
    tensors = [spec.tensor for spec in saveable.specs]
    return [t.shape if t.shape.is_fully_defined() else tf.shape(t) for t in tensors]


def run_restore(
    session: tf.compat.v1.Session, fetches: Any, feeds: dict[Any, Any], prefix: str
) -> None:
    """Runs the ops that restore from a checkpoint.

    Raises:
      CorruptCheckpointError, NotACheckpointError, MismatchError: what the ops say of it.
    """
    try:
        session.run(fetches, feeds)
    except (tf.errors.DataLossError, tf.errors.OutOfRangeError) as error:
        raise CorruptCheckpointError(reason_of(error), path=prefix) from error
    except tf.errors.NotFoundError as error:
        raise NotACheckpointError(reason_of(error), path=prefix) from error
    except tf.errors.InvalidArgumentError as error:
        raise MismatchError(reason_of(error), path=prefix) from error
