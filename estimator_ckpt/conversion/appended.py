"""What conversions in place have appended to a data file, and can be used again."""

from __future__ import annotations

import functools

from estimator_ckpt import files
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, shard_path
from estimator_ckpt.bundle.slices import key_bytes
from estimator_ckpt.bundle.tensors import TensorReader
from estimator_ckpt.conversion.plan import Content
from estimator_ckpt.objects.object_graph import OBJECT_GRAPH_KEY

_MOST_TAIL = 64 << 20


class Appended:
    """Finds the bytes of new tensors in the data files of a checkpoint.

    Args:
      prefix: of the checkpoint.
      index: of it.
    """

    def __init__(self, prefix: str, index: Index) -> None:
        self._prefix = prefix
        self._index = index

    def find(self, content: Content) -> Entry | None:
        """The entry for a new tensor: where the object graph is, or behind what the index names."""
        if not content.value:
            return None
        before = self._index.entries.get(key_bytes(OBJECT_GRAPH_KEY))
        if before and (before.dtype, before.shape) == (content.dtype, content.shape):
            with TensorReader(self._prefix, self._index) as reader:
                if bytes(reader.raw(before)) == content.value:
                    return before._replace(crc32c=content.crc32c)
        start, tail = self._tail
        found = tail.find(content.value)
        if found < 0:
            return None
        last = self._index.num_shards - 1
        return Entry(
            content.dtype, content.shape, last, start + found, content.nbytes, content.crc32c
        )

    @functools.cached_property
    def _tail(self) -> tuple[int, bytes]:
        """Where the end of the last data file begins that no entry names, and that end."""
        last = self._index.num_shards - 1
        path = shard_path(self._prefix, last, self._index.num_shards)
        entries = self._index.entries.values()
        start = max((one.offset + one.size for one in entries if one.shard == last), default=0)
        size = files.size(path)
        start = max(start, size - _MOST_TAIL)
        return start, files.read_range(path, start, max(size - start, 0))
