"""The values of a checkpoint: to read one variable touches its bytes alone.

Source: tensorflow/core/util/tensor_bundle/tensor_bundle.cc.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import google_crc32c

from estimator_ckpt.bundle.checksum import Checksum, extend_crc32c, wrong_checksum
from estimator_ckpt.bundle.coding import MAX_VARINT_BYTES, decode_varint, encode_varint, mask
from estimator_ckpt.bundle.data_files import DataFiles
from estimator_ckpt.bundle.dtypes import STRING, VARIANT, dtype_name, dtype_size
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, data_path, shard_path
from estimator_ckpt.bundle.slices import key_text, slice_key, slice_shape
from estimator_ckpt.errors import (
    CorruptCheckpointError,
    MissingTensorError,
    UnsupportedCheckpointError,
)

if TYPE_CHECKING:
    # NumPy takes longer to import than a listing takes in all, and strings do without it.
    import numpy as np

    _Box = tuple[slice, ...]  # where a slice is in the whole

__all__ = [
    "TensorReader",
    "encode_strings",
    "numpy_dtype",
]

_UINT32_MAX = (1 << 32) - 1
_CHUNK = 16 << 20


@functools.cache
def numpy_dtype(dtype: int) -> np.dtype[Any]:
    """NumPy's dtype for the values of a TensorFlow dtype, given by its number.

    Strings are objects (of bytes); quantized integers are the integers; bfloat16, float8 and int4
    are those of `ml_dtypes`.

    Raises:
      UnsupportedCheckpointError: NumPy has no such values: resource, variant, unknown dtypes.
    """
    import numpy as np

    name = dtype_name(dtype)
    if dtype == STRING:
        return np.dtype(object)
    if dtype_size(dtype) is not None:
        if name.startswith(("qint", "quint")):
            name = name[1:]
        if hasattr(np, name if name != "bool" else "bool_"):
            return np.dtype(name)
        import ml_dtypes

        # np.dtype("bfloat16") is the type of who gave NumPy the name last, as TensorFlow 2.12 does.
        if hasattr(ml_dtypes, name):
            return np.dtype(getattr(ml_dtypes, name))
        raise UnsupportedCheckpointError(
            f"values of dtype {name} need a version of ml_dtypes that has it"
        )
    raise UnsupportedCheckpointError(f"values of dtype {name} cannot be shown as a NumPy array")


class TensorReader:
    """Reads the tensors of one checkpoint.

    Args:
      prefix: of the checkpoint.
      index: what `read_index` returned for it.
    """

    def __init__(self, prefix: str, index: Index) -> None:
        self._prefix = prefix
        self._index = index
        self._files = DataFiles(prefix, index)

    def __enter__(self) -> TensorReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the data files. Arrays that were read stay valid."""
        self._files.close()

    def expect(self, entries: Iterable[Entry]) -> None:
        """Has the bytes of these read before they are asked for.

        They are asked for in this order from now on, by one thread, and nothing else; some may be
        passed over. What is asked for out of turn is read all the same, but not ahead.

        Args:
          entries: taken as far as is read ahead.
        """
        self._files.expect(entries)

    def read(self, key: bytes, *, check: bool = True) -> np.ndarray[Any, Any]:
        """The value under ``key``; of a partitioned variable all of it, put together.

        Arrays of a fixed-size dtype that is not partitioned are read-only; large ones of a local
        file are views of it.

        Args:
          key: in the index.
          check: whether to verify the checksum, as TensorFlow always does.

        Raises:
          MissingTensorError: there is no such key.
          CorruptCheckpointError: a data file is missing or too short, or its bytes are wrong.
          UnsupportedCheckpointError: NumPy cannot hold the values, or the slices of a partitioned
            variable do not cover it.
        """
        entry = self._index.entries.get(key)
        if entry is None:
            raise MissingTensorError(
                "the checkpoint has no such key", path=self._prefix, key=key_text(key)
            )
        try:
            if entry.slices:
                return self._read_sliced(key, entry, check)
            return self._read_entry(entry, check)
        except UnsupportedCheckpointError as error:
            raise type(error)(error.message, path=self._prefix, key=key_text(key)) from None
        except CorruptCheckpointError as error:
            raise type(error)(error.message, path=error.path, key=key_text(key)) from None
        except (MemoryError, ValueError) as error:
            raise UnsupportedCheckpointError(
                f"{dtype_name(entry.dtype)}{list(entry.shape)} cannot be a NumPy array: {error}",
                path=self._prefix,
                key=key_text(key),
            ) from error

    def raw(self, entry: Entry) -> memoryview:
        """The bytes of an entry as they are stored, unchecked; read-only.

        Raises:
          CorruptCheckpointError: the data file is missing, or ends before the entry's bytes do.
        """
        return self._files.whole(entry)

    def chunks(self, entry: Entry) -> Iterator[memoryview]:
        """What raw() has, 2 MiB at a time; strings and variants come as a whole.

        Raises:
          CorruptCheckpointError: as raw() does.
        """
        return self._files.chunks(entry)

    def crc32c(self, entry: Entry) -> int:
        """The masked checksum of an entry's bytes, as it is stored."""
        return entry.crc32c

    def check(self, entry: Entry) -> None:
        """Verifies the checksum of an entry's bytes.

        The entry of a partitioned variable has no bytes; those of its slices have.

        Raises:
          CorruptCheckpointError: they are wrong, or missing.
        """
        if entry.slices:
            return
        if entry.dtype == STRING:
            self.strings(entry)
        elif entry.dtype == VARIANT:
            self._check_crc(entry, self._variants_crc(entry))
        else:
            crc = 0
            for chunk in self.chunks(entry):
                crc = extend_crc32c(crc, chunk)
            self._check_crc(entry, crc)

    def _read_entry(self, entry: Entry, check: bool) -> np.ndarray[Any, Any]:
        import numpy as np

        dtype = numpy_dtype(entry.dtype)
        if entry.dtype == STRING:
            values = self.strings(entry, check=check)
            array = np.empty(len(values), dtype)
            array[:] = values
            return array.reshape(entry.shape)
        if check and not self._files.is_remote:  # part by part, which a disk is faster with
            self.check(entry)
        data = self.raw(entry)
        if check and self._files.is_remote:
            self._check_crc(entry, extend_crc32c(0, data))
        return np.ndarray(entry.shape, dtype, data)

    def rows(self, key: bytes) -> Iterator[np.ndarray[Any, Any]]:
        """The value of a partitioned variable, some rows of its first dimension at a time.

        In memory are 16 MiB, or a row. Each slice is read once, from its start to its end, as its
        rows come; its checksum is verified with the last of them.

        Raises:
          CorruptCheckpointError, UnsupportedCheckpointError: as read() does.
        """
        entry = self._index.entries[key]
        if not entry.shape:
            yield self.read(key)
            return
        try:
            yield from self._rows(key, entry)
        except UnsupportedCheckpointError as error:
            raise type(error)(error.message, path=self._prefix, key=key_text(key)) from None
        except CorruptCheckpointError as error:
            raise type(error)(error.message, path=error.path, key=key_text(key)) from None

    def _rows(self, key: bytes, entry: Entry) -> Iterator[np.ndarray[Any, Any]]:
        import numpy as np

        dtype = numpy_dtype(entry.dtype)
        step = max(1, _CHUNK // max(1, math.prod(entry.shape[1:]) * dtype.itemsize))
        slices = self._slices(key, entry)
        cut = [self._cut(part, _block_sizes(box[0], step, part.size)) for box, part in slices]
        for start in range(0, entry.shape[0], step):
            stop = min(start + step, entry.shape[0])
            found: list[tuple[_Box, np.ndarray[Any, Any]]] = []
            for (box, part), chunks in zip(slices, cut):
                first, last = max(box[0].start, start), min(box[0].stop, stop)
                if first < last:
                    shape = (last - first, *part.shape[1:])
                    here = (slice(first - start, last - start), *box[1:])
                    found.append((here, np.ndarray(shape, dtype, next(chunks))))
            # The bytes are there: a claimed shape asks for no memory that they do not fill.
            rows = np.empty((stop - start, *entry.shape[1:]), dtype)
            for here, values in found:
                rows[here] = values
            yield rows

    def _cut(self, entry: Entry, sizes: Iterable[int]) -> Iterator[memoryview]:
        """The bytes of an entry in parts of these sizes; checked before the last is handed out."""
        checksum = Checksum()
        for size in sizes:
            part = self.raw(entry._replace(offset=entry.offset + checksum.size, size=size))
            checksum.add(part)
            if checksum.size == entry.size and checksum.masked != entry.crc32c:
                message = wrong_checksum(entry.crc32c, checksum.masked).message
                raise self._corrupt(entry, message)
            yield part

    def _read_sliced(self, key: bytes, entry: Entry, check: bool) -> np.ndarray[Any, Any]:
        import numpy as np

        # All of them before memory is asked for.
        parts = [(box, self._read_entry(part, check)) for box, part in self._slices(key, entry)]
        whole = np.empty(entry.shape, numpy_dtype(entry.dtype))
        for box, part in parts:
            whole[box] = part
        return whole

    def _slices(self, key: bytes, entry: Entry) -> list[tuple[_Box, Entry]]:
        """The slices of a partitioned variable, with where they are."""
        name = key_text(key)
        found = []
        for extents in entry.slices:
            starts = (start for start, _ in extents)
            lengths = slice_shape(entry.shape, extents)
            box = tuple(slice(s, s + n) for s, n in zip(starts, lengths))
            found.append((box, self._index.entries[slice_key(name, extents)]))
        count = sum(math.prod(part.shape) for _, part in found)
        if count != math.prod(entry.shape):  # they do not overlap: read_index saw to that
            raise UnsupportedCheckpointError(
                f"its slices have {count} of the {math.prod(entry.shape)} values, so it cannot be "
                "read as a whole"
            )
        return found

    def _check_crc(self, entry: Entry, crc: int) -> None:
        if mask(crc) != entry.crc32c:
            raise self._corrupt(entry, wrong_checksum(entry.crc32c, mask(crc)).message)

    def _corrupt(self, entry: Entry, message: str) -> CorruptCheckpointError:
        return CorruptCheckpointError(
            f"the {entry.size} bytes at byte {entry.offset}: {message}",
            path=data_path(self._prefix, self._index, entry.shard),
        )

    def strings(self, entry: Entry, *, check: bool = True) -> list[bytes]:
        """The values of a string entry, row by row.

        Raises:
          CorruptCheckpointError: the data file is missing or too short, or its bytes are wrong.
        """
        data = self.raw(entry)
        count = math.prod(entry.shape)
        if not data and not count:
            return []
        path = shard_path(self._prefix, entry.shard, self._index.num_shards)
        head = bytes(data[: MAX_VARINT_BYTES * count])
        lengths = []
        position = 0
        for _ in range(count):  # the index check made sure that the size is count + 4 or more
            length, position = decode_varint(head, position, path=path, base=entry.offset)
            lengths.append(length)
        if position + 4 + sum(lengths) != len(data):
            raise self._corrupt(entry, f"{count} strings with {sum(lengths)} bytes in all")
        crc = _lengths_crc(lengths)
        stored = data[position : position + 4]
        if check:
            if mask(crc) != int.from_bytes(stored, "little"):
                raise self._corrupt(entry, "the checksum of the string lengths is wrong")
            self._check_crc(entry, extend_crc32c(crc, data[position:]))
        position += 4
        values = []
        for length in lengths:
            values.append(bytes(data[position : position + length]))
            position += length
        return values

    def _variants_crc(self, entry: Entry) -> int:
        # Per element a varint length, the serialized VariantTensorDataProto, and the masked
        # checksum so far. The lengths are checksummed as uint64.
        data = bytes(self.raw(entry))
        path = shard_path(self._prefix, entry.shard, self._index.num_shards)
        crc = position = 0
        for _ in range(math.prod(entry.shape)):
            length, position = decode_varint(data, position, path=path, base=entry.offset)
            crc = google_crc32c.extend(crc, struct.pack("<Q", length))
            end = position + length
            if end + 4 > len(data):
                raise self._corrupt(entry, f"a variant of {length} bytes")
            crc = google_crc32c.extend(crc, data[position:end])
            if mask(crc) != int.from_bytes(data[end : end + 4], "little"):
                raise self._corrupt(entry, "the checksum of a variant is wrong")
            crc = google_crc32c.extend(crc, data[end : end + 4])
            position = end + 4
        if position != len(data):
            raise self._corrupt(entry, f"its variants take {position} bytes")
        return crc


def _block_sizes(rows: slice, step: int, nbytes: int) -> Iterator[int]:
    """How many bytes of a slice with these rows are in each block of `step` rows of the whole."""
    count = rows.stop - rows.start
    position = rows.start
    while position < rows.stop:
        end = min(position // step * step + step, rows.stop)
        yield nbytes // count * (end - position)
        position = end


# A string tensor: the lengths (varint64 each), their masked checksum (fixed32), the strings.
#
# The checksum of the lengths is that of their uint32 values (uint64 where one does not fit), not of
# the varints. The entry's checksum goes on from it over the masked checksum and the strings. (The
# comment in tensor_bundle.cc says uint64 for all of them; its code does as it is done here.)


def encode_strings(values: Sequence[bytes]) -> tuple[bytes, int]:
    """A string tensor as it is stored, and the masked checksum for its entry."""
    lengths = list(map(len, values))
    crc = _lengths_crc(lengths)
    tail = struct.pack("<I", mask(crc)) + b"".join(values)
    are_bytes = max(lengths, default=0) < 0x80  # millions of words, say, and quicker
    varints = bytes(lengths) if are_bytes else b"".join(map(encode_varint, lengths))
    return varints + tail, mask(google_crc32c.extend(crc, tail))


def _lengths_crc(lengths: Sequence[int]) -> int:
    if max(lengths, default=0) <= _UINT32_MAX:
        data = struct.pack(f"<{len(lengths)}I", *lengths)
    else:
        data = b"".join(struct.pack("<I" if n <= _UINT32_MAX else "<Q", n) for n in lengths)
    return google_crc32c.value(data)  # type: ignore[no-any-return]
