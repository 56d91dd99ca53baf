"""The values of a V1 checkpoint, slice by slice; the format is in v1.py."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from estimator_ckpt import files
from estimator_ckpt.bundle.checksum import masked_crc32c
from estimator_ckpt.bundle.coding import MAX_VARINT_BYTES, corrupt, decode_varint
from estimator_ckpt.bundle.dtypes import STRING, dtype_name
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, data_path
from estimator_ckpt.bundle.slices import readable_key
from estimator_ckpt.bundle.table import Table
from estimator_ckpt.bundle.tensors import TensorReader, encode_strings, numpy_dtype
from estimator_ckpt.errors import (
    CorruptCheckpointError,
    NotACheckpointError,
    UnsupportedCheckpointError,
)

if TYPE_CHECKING:
    import numpy as np

_MOST_OPEN = 64  # files at a time
_MOST_VARINTS = 1 << 16  # bytes of them that are decoded at a time: a cache holds what is made

# dtype -> the field of TensorProto with its values
_FIXED_SIZE = {1: 5, 2: 6, 8: 9, 18: 12}
_VARINTS = {3: 7, 4: 7, 5: 7, 6: 7, 9: 10, 10: 11, 11: 7, 12: 7, 13: 7, 15: 7, 16: 7, 17: 7, 19: 13}
_FIELDS = {**_FIXED_SIZE, **_VARINTS, STRING: 8}
_HALF = 19
_SLICE = 2  # the field of SavedTensorSlices with a slice
_TENSOR = 3  # the field of that with its values
_FIXED_WIDTHS = {1: 8, 5: 4}  # wire type -> bytes


def open_table(path: str) -> Table:
    """A file of a V1 checkpoint, of which little is read yet.

    Raises:
      NotACheckpointError, CorruptCheckpointError, UnsupportedCheckpointError: as Table does.
    """
    if files.is_remote(path):
        return Table(
            lambda offset, size: files.read_range(path, offset, size), files.size(path), path
        )
    data = files.map_bytes(path)
    return Table(lambda offset, size: data[offset : offset + size], len(data), path)


class V1Reader(TensorReader):
    """Reads the tensors of a V1 checkpoint, each as a data file would have it.

    The block of a slice is read, and no other; its checksum is always verified.
    """

    def __init__(self, prefix: str, index: Index) -> None:
        super().__init__(prefix, index)
        self._tables: dict[int, Table] = {}

    def close(self) -> None:
        """Lets go of the files. Arrays that were read stay valid."""
        self._tables.clear()

    def raw(self, entry: Entry) -> memoryview:
        """The values of an entry as a data file would have them; read-only.

        Floats are a view of the file.

        Raises:
          CorruptCheckpointError: the file is missing, or its bytes are wrong.
          UnsupportedCheckpointError: the V1 format has no values of the dtype.
        """
        if entry.dtype == STRING:
            return memoryview(encode_strings(self.strings(entry))[0])
        chunks = self._chunks(entry)
        data = chunks[0] if len(chunks) == 1 else memoryview(b"".join(chunks))
        if entry.dtype in _VARINTS:
            data = self._integers(entry, data)
        if len(data) != entry.size:
            raise self._corrupt(entry, f"values of {len(data)} bytes, expected {entry.size}")
        return data.toreadonly()

    def chunks(self, entry: Entry) -> Iterator[memoryview]:
        """What raw() has, 2 MiB at a time; it is read as a whole.

        Raises:
          CorruptCheckpointError: as raw() does.
          UnsupportedCheckpointError: as raw() does.
        """
        data = self.raw(entry)
        for part in files.parts_of("", 0, len(data)):
            yield data[part.offset : part.end]

    def expect(self, entries: Iterable[Entry]) -> None:
        """Nothing is read ahead: where a block ends is known when it is read."""

    def check(self, entry: Entry) -> None:
        """Verifies the checksum of the block with an entry, and that its values are all there.

        Raises:
          CorruptCheckpointError: as raw() does.
          UnsupportedCheckpointError: as raw() does.
        """
        if not entry.slices:
            self.raw(entry)

    def crc32c(self, entry: Entry) -> int:
        """The masked checksum that an entry would have in an index."""
        if entry.dtype == STRING:
            return encode_strings(self.strings(entry))[1]
        return masked_crc32c(self.raw(entry))

    def strings(self, entry: Entry, *, check: bool = True) -> list[bytes]:
        """The values of a string entry, row by row.

        Raises:
          CorruptCheckpointError: the file is missing, or its bytes are wrong.
        """
        values = list(map(bytes, self._chunks(entry)))
        if len(values) != math.prod(entry.shape):
            raise self._corrupt(entry, f"{len(values)} strings")
        return values

    def _read_entry(self, entry: Entry, check: bool) -> np.ndarray[Any, Any]:
        # Where there is a checksum, raw() verifies it.
        return super()._read_entry(entry, False)

    def _cut(self, entry: Entry, sizes: Iterable[int]) -> Iterator[memoryview]:
        # The block of a slice has its values as one message, which is read as a whole.
        data = self.raw(entry)
        for size in sizes:
            part, data = data[:size], data[size:] or memoryview(b"")  # which lets go of the block
            yield part

    def _chunks(self, entry: Entry) -> list[memoryview]:
        """What the field with the values of an entry holds, part by part."""
        assert self._index.v1 is not None
        if entry.dtype not in _FIELDS:
            raise UnsupportedCheckpointError(
                f"values of dtype {dtype_name(entry.dtype)}, which the V1 format does not have"
            )
        path = self._index.v1.paths[entry.shard]
        try:
            if entry.shard not in self._tables:
                while len(self._tables) >= _MOST_OPEN:
                    del self._tables[next(iter(self._tables))]
                self._tables[entry.shard] = open_table(path)
            value = self._tables[entry.shard].find(self._key(entry))
        except NotACheckpointError as error:
            raise CorruptCheckpointError(f"a file: {error.message}", path=path) from error
        if value is None:
            raise self._corrupt(entry, "the file does not have it")
        data = [memoryview(value)]
        try:
            for number in (_SLICE, _TENSOR, _FIELDS[entry.dtype]):
                if len(data) != 1:
                    corrupt(f"{len(data)} messages, expected one", 0, path)
                data = _fields(data[0], number)
        except CorruptCheckpointError as error:
            raise self._corrupt(entry, error.message) from None
        return data

    def _key(self, entry: Entry) -> bytes:
        assert self._index.v1 is not None
        return self._index.v1.keys[entry.shard][entry.offset]

    def _corrupt(self, entry: Entry, message: str) -> CorruptCheckpointError:
        return CorruptCheckpointError(
            message,
            path=data_path("", self._index, entry.shard),
            key=readable_key(self._key(entry)),
        )

    def _integers(self, entry: Entry, data: memoryview) -> memoryview:
        """Varints as the little-endian values of the dtype."""
        import numpy as np

        dtype = np.dtype(np.uint16) if entry.dtype == _HALF else numpy_dtype(entry.dtype)
        count = math.prod(entry.shape)
        codes = np.frombuffer(data, np.uint8)
        # Before memory is asked for: there are as many as bytes without the bit that goes on.
        if np.count_nonzero(codes < 0x80) != count or (count and codes[-1] >= 0x80):
            raise self._corrupt(entry, f"other than {count} varints")
        found = np.empty(count, dtype)
        done = start = 0
        while start < len(codes):
            part = codes[start : start + _MOST_VARINTS]
            ends = np.flatnonzero(part < 0x80)
            if not len(ends):
                raise self._corrupt(entry, "a varint without an end")
            values = _decode_varints(part, ends)
            if values is None:
                raise self._corrupt(entry, "a varint of more than 10 bytes")
            found[done : done + len(ends)] = values.astype(dtype)
            done += len(ends)
            start += int(ends[-1]) + 1
        return found.view(np.uint8).data


def _decode_varints(
    codes: np.ndarray[Any, Any], ends: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any] | None:
    """The numbers whose last bytes are at `ends`; None if one is too long."""
    import numpy as np

    if len(ends) == len(codes):  # as small numbers are
        return codes
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    longest = int(lengths.max())
    if longest > MAX_VARINT_BYTES:
        return None
    found: np.ndarray[Any, Any]
    if lengths.min() == longest:  # as negative numbers are; twice as fast
        rows = codes[: ends[-1] + 1].reshape(-1, longest) & 0x7F
        found = rows[:, 0].astype(np.uint64)
        for index in range(1, longest):
            found |= rows[:, index].astype(np.uint64) << np.uint64(7 * index)
        return found
    indexes = np.arange(ends[-1] + 1) - np.repeat(starts, lengths)  # of each byte in its number
    bits = (codes[: len(indexes)] & 0x7F).astype(np.uint64) << (7 * indexes).astype(np.uint64)
    found = np.bitwise_or.reduceat(bits, starts)
    return found


def _fields(message: memoryview, number: int) -> list[memoryview]:
    """What the fields of a number hold, in their order; numbers that are not packed as they are."""
    found = []
    position = 0
    while position < len(message):
        tag, position = decode_varint(message, position)
        kind = tag & 7
        if kind == 0:
            _, end = decode_varint(message, position)
        elif kind == 2:
            size, position = decode_varint(message, position)
            end = position + size
        else:
            end = position + _FIXED_WIDTHS.get(kind, len(message))
        if end > len(message):
            corrupt(f"a field of type {kind} that goes beyond its message", position, None)
        if tag >> 3 == number:
            found.append(message[position:end])
        position = end
    return found
