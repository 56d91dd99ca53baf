"""A checkpoint in memory, its data files as they will be on the disk: what SaveV2 writes.

Source: tensorflow/core/util/tensor_bundle/tensor_bundle.cc.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from estimator_ckpt import files
from estimator_ckpt.bundle.checksum import Checksum
from estimator_ckpt.bundle.dtypes import STRING
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, encode_index, shard_path
from estimator_ckpt.bundle.slices import key_bytes, parse_slice_spec, slice_key
from estimator_ckpt.bundle.tensors import encode_strings

if TYPE_CHECKING:
    import numpy as np

    _Copy = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]

_LARGE = 1 << 20  # bytes that are worth a thread's while
_PIECE = 16 << 20
_MOST_THREADS = 8
_OWN = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # mmap shares by default


class Tensor(NamedTuple):
    """What stands under a key.

    Attributes:
      key: of it, or of the variable of which it is a slice.
      slice_spec: as SaveV2 takes it: "10 4 0,5:-" for rows 0 to 4 of shape [10, 4]; "" for a whole.
      dtype: its number in TensorFlow's DataType enum; no resource and no variant.
      values: in C order; of strings an array of bytes objects.
    """

    key: str
    slice_spec: str
    dtype: int
    values: np.ndarray[Any, Any]


class _Place(NamedTuple):
    """Where a tensor is in memory: its key and slice as Tensor has them, and an entry, whose
    checksum is known of strings, and else 0 yet."""

    key: str
    slice_spec: str
    entry: Entry


@dataclass
class _DataFile:
    """One data file in memory.

    Attributes:
      memory: holds it, from the start of a page on; is as large as the largest file was.
      size: of the file.
      places: of the tensors, in their order.
    """

    memory: mmap.mmap | None = None
    size: int = 0
    places: list[_Place] = field(default_factory=list)

    def fill(self, shard: int, tensors: Iterable[Tensor]) -> list[_Copy]:
        """Lays out some tensors, and copies small ones; what is left to copy: to where, what."""
        import numpy as np

        self.size, self.places = 0, []
        found: list[tuple[int, np.ndarray[Any, Any]]] = []
        for tensor in tensors:
            crc32c = 0
            if tensor.dtype == STRING:
                encoded, crc32c = encode_strings(tensor.values.reshape(-1).tolist())
                data = np.frombuffer(encoded, np.uint8)
            else:
                data = tensor.values.reshape(-1).view(np.uint8)
            shape = tensor.values.shape
            entry = Entry(tensor.dtype, shape, shard, self.size, len(data), crc32c)
            self.places.append(_Place(tensor.key, tensor.slice_spec, entry))
            found.append((self.size, data))
            self.size += len(data)
        if self.memory is None or len(self.memory) < self.size:
            self.memory = None  # first, so that there are never both
            self.memory = mmap.mmap(-1, max(1, self.size), flags=_OWN)
            # A process that is forked would keep it, and each of its pages be copied once more.
            if hasattr(mmap, "MADV_DONTFORK"):
                self.memory.madvise(mmap.MADV_DONTFORK)
        target = np.frombuffer(self.memory, np.uint8)
        large = []
        for start, data in found:
            if len(data) < _LARGE:
                target[start : start + len(data)] = data
            else:
                for at in range(0, len(data), _PIECE):
                    piece = data[at : at + _PIECE]
                    large.append((target[start + at : start + at + len(piece)], piece))
        return large

    def write(self, path: str) -> list[_Place]:
        """Writes the file; the places, with all checksums."""
        assert self.memory is not None, "it is filled first"
        with memoryview(self.memory) as memory, memory[: self.size] as data:
            files.write_uncached(path, data)
            return [place._replace(entry=_summed_up(place.entry, data)) for place in self.places]


def _summed_up(entry: Entry, data: memoryview) -> Entry:
    if entry.dtype == STRING:
        return entry
    checksum = Checksum()
    end = entry.offset + entry.size
    for start in range(entry.offset, end, _LARGE):  # a pause for other threads after each
        with data[start : min(start + _LARGE, end)] as chunk:
            checksum.add(chunk)
    return entry._replace(crc32c=checksum.masked)


class BundleImage:
    """Holds a checkpoint, in memory that it keeps for the next one.

    Args:
      num_shards: how many data files it has.
    """

    def __init__(self, num_shards: int) -> None:
        self._data_files = [_DataFile() for _ in range(num_shards)]

    def fill(self, shards: Sequence[Iterable[Tensor]]) -> None:
        """Copies the tensors of each data file, in place of what it holds.

        Raises:
          OSError: there is no memory for it.
        """
        copies: list[_Copy] = []
        try:
            for number, (data_file, tensors) in enumerate(zip(self._data_files, shards)):
                copies += data_file.fill(number, tensors)
            _copy(copies)
        except BaseException:
            # After a second Ctrl-C, threads may copy to there still, while it is filled anew.
            self._data_files = [_DataFile() for _ in self._data_files]
            raise

    def write(self, prefix: str) -> None:
        """Writes it as a new checkpoint to a local disk; its bytes need not outlast a power failure
        yet. The index is written last.

        Raises:
          WriteError: a file cannot be written, or is there already.
        """
        count = len(self._data_files)
        entries: dict[bytes, Entry] = {}
        for shard, data_file in enumerate(self._data_files):
            for place in data_file.write(shard_path(prefix, shard, count)):
                _add(entries, place)
        with files.open_write(f"{prefix}.index", sync=False) as index:
            index.write(encode_index(Index(count, entries)))


def _copy(copies: Sequence[_Copy]) -> None:
    """Copies with several threads at once."""
    import numpy as np

    if not copies:
        return
    count = min(len(copies), os.cpu_count() or 1, _MOST_THREADS)
    try:
        with ThreadPoolExecutor(count, "checkpoint_copy") as pool:
            for _ in pool.map(np.copyto, *zip(*copies)):
                pass
    except RuntimeError:  # no thread can be started: the process is ending, or has too many
        for to, source in copies:
            np.copyto(to, source)


def _add(entries: dict[bytes, Entry], place: _Place) -> None:
    key, entry = key_bytes(place.key), place.entry
    shape, extents = parse_slice_spec(place.slice_spec) if place.slice_spec else (entry.shape, ())
    if shape == entry.shape:  # the only part of a variable is no slice
        entries[key] = entry
        return
    whole = entries.get(key, Entry(entry.dtype, shape, entry.shard, 0, 0, 0))
    entries[key] = whole._replace(slices=(*whole.slices, extents))
    entries[slice_key(place.key, extents)] = entry
