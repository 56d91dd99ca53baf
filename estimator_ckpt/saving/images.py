"""Snapshots in the memory of this process, of what a session of its own has.

    between two steps    variables -> memory
    beside training      memory -> the disk

The memory is laid out as the data files will be, is kept from one save to the next, and the disk
takes it from there, see files/uncached.py. SaveV2, which writes through the page cache, takes a
core's time and much of the memory's, and that from the steps that are made meanwhile.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from estimator_ckpt import files
from estimator_ckpt.bundle.image import BundleImage, Tensor
from estimator_ckpt.errors import WriteError
from estimator_ckpt.saving import session_internals


class Shard(NamedTuple):
    """What one data file has: what is on one device.

    Attributes:
      names: the keys.
      slices: the slice of each, as SaveV2 takes it; "" for what is whole.
      tensors: what to save.
      devices: of those that are no constants.
    """

    names: Sequence[str]
    slices: Sequence[str]
    tensors: Sequence[tf.Tensor]
    devices: Sequence[str]


class Images:
    """Takes snapshots of what a saver saves."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        """Nothing is held yet.

        Args:
          shards: a data file each.
        """
        self._shards = shards
        dtypes = {tensor.dtype.base_dtype for shard in shards for tensor in shard.tensors}
        self._has_values = dtypes.isdisjoint((tf.variant, tf.resource))  # that leave a session
        self._held: weakref.WeakKeyDictionary[Any, _Held] = weakref.WeakKeyDictionary()

    def can_take(self, session: tf.compat.v1.Session, prefix: str) -> bool:
        """Whether it is this process that has the variables and writes the checkpoint."""
        return self._has_values and not session.sess_str and not files.is_remote(prefix)

    def take(self, session: tf.compat.v1.Session, prefix: str) -> Image:
        """Takes a snapshot, in place of any other of this session.

        Raises:
          WriteError: there is no memory for it.
        """
        held = self._held.get(session)
        if held is None:
            tensors = [tensor for shard in self._shards for tensor in shard.tensors]
            held = _Held(BundleImage(len(self._shards)), session_internals.reader(session, tensors))
            self._held[session] = held
        values = iter(held.read())
        try:
            held.image.fill([_tensors(shard, values) for shard in self._shards])
        except OSError as error:
            raise WriteError(f"no memory for a snapshot: {error.strerror}", path=prefix) from error
        return Image(session, held.image)


class _Held(NamedTuple):
    """What there is of a session.

    Attributes:
      image: in its memory is the last snapshot.
      read: gives the values of all tensors, all of one run.
    """

    image: BundleImage
    read: Callable[[], list[Any]]


def _tensors(shard: Shard, values: Iterator[Any]) -> Iterator[Tensor]:
    """What a data file has, given the values of this shard and of those behind it."""
    for name, slice_spec, tensor in zip(shard.names, shard.slices, shard.tensors):
        dtype = tensor.dtype.base_dtype
        kind = object if dtype == tf.string else None  # of a scalar, a run gives no array
        yield Tensor(name, slice_spec, dtype.as_datatype_enum, np.asarray(next(values), kind))


class Image(NamedTuple):
    """What a saver saves, as it was at one step.

    Attributes:
      session: that had it.
      image: of the checkpoint.
    """

    session: tf.compat.v1.Session
    image: BundleImage

    def write(self, prefix: str) -> None:
        """Writes it.

        Raises:
          WriteError: a file cannot be written.
        """
        self.image.write(prefix)

    def let_go(self) -> None:
        """Does nothing: the memory is the next snapshot's, and goes with the session."""
