"""The bytes of a checkpoint's data files: of one tensor, or of many, read ahead."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from mmap import mmap
from typing import NamedTuple

from estimator_ckpt import files
from estimator_ckpt.bundle.dtypes import STRING, VARIANT
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, shard_path
from estimator_ckpt.errors import CorruptCheckpointError, NotACheckpointError

# Of a local file so much is mapped at a time: a limit of memory may not allow all of it.
_WINDOW = 8 << 20
_AHEAD = 64 << 20  # what the kernel is told of at a time
_CHUNK = 2 << 20
_MOST_MAPPED = 256  # windows at a time, as each of them holds a file descriptor
# Those of all readers: the limit of file descriptors is the process's.
_mapped: weakref.WeakSet[mmap] = weakref.WeakSet()


class _Window(NamedTuple):
    """A part of a local data file that is mapped."""

    shard: int
    start: int
    end: int
    data: memoryview
    announced: int  # to where the kernel knows that we go on


_NONE = _Window(-1, 0, 0, memoryview(b""), 0)


class DataFiles:
    """Reads the data files of one checkpoint.

    Args:
      prefix: of the checkpoint.
      index: what `read_index` returned for it.

    Attributes:
      is_remote: whether they are.
    """

    def __init__(self, prefix: str, index: Index) -> None:
        self._prefix = prefix
        self._index = index
        self.is_remote = files.is_remote(prefix)
        self._ahead: files.ReadAhead | None = None
        self._window = _NONE

    def close(self) -> None:
        """Lets go of what was read."""
        self._window = _NONE
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def expect(self, entries: Iterable[Entry]) -> None:
        """Reads ahead from now on: see TensorReader.expect()."""
        if self.is_remote:
            self.close()
            self._ahead = files.ReadAhead(
                part for entry in entries if entry.size for part in self._parts(entry)
            )

    def whole(self, entry: Entry) -> memoryview:
        """The bytes of an entry as they are stored, unchecked; read-only.

        Of a local file they are mapped, not in memory.

        Raises:
          CorruptCheckpointError: the data file is missing, or ends before the entry's bytes do.
        """
        if not self.is_remote:
            return self._local(entry.shard, entry.offset, entry.size)
        if not entry.size:
            return memoryview(b"")
        if _is_one_part(entry):
            (part,) = self._parts(entry)
            return self._read(part, self._ahead.take if self._ahead else _read_range)
        data = bytearray()  # grows with what is there: a claimed size asks for no memory
        for chunk in self.chunks(entry):
            data += chunk
        return memoryview(data).toreadonly()

    def chunks(self, entry: Entry) -> Iterator[memoryview]:
        """The bytes of an entry as they are stored, unchecked, 2 MiB at a time.

        Strings and variants come as a whole.

        Raises:
          CorruptCheckpointError: as whole() does.
        """
        if _is_one_part(entry):
            if entry.size:
                yield self.whole(entry)
        elif self.is_remote:
            ahead = self._ahead or files.ReadAhead(self._parts(entry))
            try:
                for part in self._parts(entry):
                    yield self._read(part, ahead.take)
            finally:
                if ahead is not self._ahead:
                    ahead.close()
        else:
            for part in self._parts(entry):
                yield self._local(entry.shard, part.offset, part.size)

    def _parts(self, entry: Entry) -> Iterator[files.Part]:
        """What is read of an entry in one go, each time."""
        whole = files.Part(self._path(entry.shard), entry.offset, entry.size)
        return iter([whole]) if _is_one_part(entry) else files.parts_of(*whole, _CHUNK)

    def _path(self, shard: int) -> str:
        return shard_path(self._prefix, shard, self._index.num_shards)

    def _local(self, shard: int, offset: int, size: int) -> memoryview:
        if not size:
            return memoryview(b"")
        window = self._window
        if shard != window.shard or offset < window.start or offset + size > window.end:
            window = self._map(shard, offset, size, window)
        start = offset - window.start
        return window.data[start : start + size]

    def _map(self, shard: int, offset: int, size: int, last: _Window) -> _Window:
        """Maps what begins there; what comes after it, too, where one is read after the other."""
        path = self._path(shard)
        announced = offset + min(size, _AHEAD)
        start = offset
        if shard == last.shard and last.start <= offset <= last.end:
            announced = max(offset + _AHEAD, last.announced)
            start = max(offset, last.announced)
        if start + _WINDOW <= announced:
            files.read_soon(path, start, announced - start)

        def mapped(part: files.Part) -> memoryview:
            if len(_mapped) >= _MOST_MAPPED:
                return _read_range(part)
            return files.map_range(path, offset, max(size, _WINDOW))

        self._window = _NONE  # which is not to take memory beside the new one
        data = self._read(files.Part(path, offset, size), mapped)
        if isinstance(data.obj, mmap):
            _mapped.add(data.obj)
        window = self._window = _Window(shard, offset, offset + len(data), data, announced)
        return window

    def _read(self, part: files.Part, read: Callable[[files.Part], memoryview]) -> memoryview:
        try:
            data = read(part)
        except NotACheckpointError as error:
            raise CorruptCheckpointError(f"a data file: {error.message}", path=part.path) from error
        if len(data) < part.size:
            raise CorruptCheckpointError(
                files.oddity(part.path)
                or f"byte {part.offset}: expected {part.size} bytes of a tensor, found "
                f"{len(data)} before the file's end",
                path=part.path,
            )
        return data


def _is_one_part(entry: Entry) -> bool:
    """Whether its bytes are read in one go."""
    return entry.size <= _CHUNK or entry.dtype in (STRING, VARIANT)


def _read_range(part: files.Part) -> memoryview:
    return memoryview(files.read_range(*part))
