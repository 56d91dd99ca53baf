"""An index file as entries: read and checked whole, or written as TensorFlow writes it.

Source: tensorflow/core/util/tensor_bundle/tensor_bundle.cc and
tensorflow/core/util/saved_tensor_slice_util.cc.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from estimator_ckpt import files
from estimator_ckpt.bundle import protos, table
from estimator_ckpt.bundle.coding import encode_varint
from estimator_ckpt.bundle.dtypes import STRING, VARIANT, dtype_name, dtype_size
from estimator_ckpt.bundle.slices import (
    Extents,
    decode_slice_key,
    key_text,
    overlap,
    slice_key,
    slice_shape,
)
from estimator_ckpt.collector import collector_paused
from estimator_ckpt.errors import (
    CheckpointError,
    CorruptCheckpointError,
    NotACheckpointError,
    UnsupportedCheckpointError,
)

__all__ = [
    "Entry",
    "Index",
    "Version",
    "decode_slice_key",
    "encode_index",
    "read_index",
    "shard_path",
    "slice_key",
    "write_index",
]

_HEADER_KEY = b""
_FORMAT_VERSION = 1  # kTensorBundleVersion
_MAX_SHARDS = 99_999  # as many as five digits of a file name can count
_MAX_RANK = 254  # TensorShape::MaxDimensions
_INT64_MAX = (1 << 63) - 1
_SLICES_TAG = 0x3A
_V1_PATTERN = re.compile(r"\?{5}(?=-of-\d{5}$)")


class Entry(NamedTuple):
    """Where a tensor is: one line of the index.

    Attributes:
      dtype: its number in TensorFlow's DataType enum.
      shape: the full shape.
      shard: which data file, from 0.
      offset: where its bytes start in that file.
      size: the count of its bytes.
      crc32c: their checksum, masked, as stored.
      slices: for a partitioned variable the slices that have its values, each a (start, length)
        per dimension, length -1 for the whole dimension; shard, offset, size and crc32c are 0 then,
        and each slice has an entry of its own under its `slice_key`.
    """

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc32c: int
    slices: tuple[Extents, ...] = ()


class Version(NamedTuple):
    """The format version that wrote an index, and those that must not read it."""

    producer: int = _FORMAT_VERSION
    min_consumer: int = 0
    bad_consumers: tuple[int, ...] = ()


class Index(NamedTuple):
    """A whole index file.

    Attributes:
      num_shards: the count of data files, which is in all their names.
      entries: by key; in the order of the keys when read. The header is none of them.
      version: of the format.
    """

    num_shards: int
    entries: dict[bytes, Entry]
    version: Version = Version()


def shard_path(prefix: str, shard: int, num_shards: int) -> str:
    """The name of a data file."""
    return f"{prefix}.data-{shard:05d}-of-{num_shards:05d}"


# --- reading ---


def read_index(prefix: str) -> Index:
    """Reads ``PREFIX.index`` and checks all of it before any entry is handed out.

    Raises:
      NotACheckpointError: there is no such file, or it is no table.
      CorruptCheckpointError: with the file and the byte offset or the key.
      UnsupportedCheckpointError: big-endian, compressed, of a newer format, or the old V1 format.
    """
    path = f"{prefix}.index"
    if not files.exists(path):
        raise _no_index(prefix, path)
    data = files.map_bytes(path)
    try:
        with collector_paused():
            return _decode_index(data, path)
    except DecodeError as error:
        raise CorruptCheckpointError(f"no protobuf message: {error}", path=path) from error
    finally:
        data.release()


def _no_index(prefix: str, path: str) -> CheckpointError:
    # A sharded V1 checkpoint is named by a pattern for all its files.
    first = _V1_PATTERN.sub("00000", prefix)
    if files.exists(first) and not files.is_dir(first):
        end = max(files.size(first) - table.FOOTER_SIZE, 0)
        if table.is_table(memoryview(files.read_range(first, end, table.FOOTER_SIZE))):
            return UnsupportedCheckpointError(
                "a checkpoint in TensorFlow's old V1 format (one file, without .index). Restore it "
                "with tf.compat.v1.train.Saver and save it again, which writes the V2 format.",
                path=first,
            )
    return NotACheckpointError("there is no such file; expected a checkpoint's index", path=path)


def _decode_index(data: memoryview, path: str) -> Index:
    if not table.is_table(data):
        end = bytes(data[-len(table.MAGIC) :]).hex() or "nothing"
        expected = f"expected a table's magic number {table.MAGIC.hex()} at its end, found {end}"
        if _begins_as_an_index(bytes(data[:4])):
            raise CorruptCheckpointError(f"the index is cut off: {expected}", path=path)
        raise NotACheckpointError(f"no checkpoint's index: {expected}", path=path)
    blocks = table.read_table(data, path)
    keys, values = next(blocks, ([], []))
    if not keys or keys[0] != _HEADER_KEY:
        raise CorruptCheckpointError("the header, under the empty key, is missing", path=path)
    num_shards, version = _decode_header(values[0], path)
    entries: dict[bytes, Entry] = {}
    shapes: _Shapes = {}
    _decode_entries(keys[1:], values[1:], num_shards, shapes, entries, path)
    for keys, values in blocks:
        _decode_entries(keys, values, num_shards, shapes, entries, path)
    _check_slices(entries, path)
    return Index(num_shards, entries, version)


def _begins_as_an_index(start: bytes) -> bool:
    # The first entry has the empty key (shared 0, non-shared 0), and the header's first field is
    # num_shards; of an index that was never filled nothing is left at all.
    return not start or (start[:2] == b"\0\0" and start[3:] == b"\x08")


def _decode_header(value: bytes, path: str) -> tuple[int, Version]:
    header = protos.BundleHeader.FromString(value)
    if header.endianness == 1:
        raise UnsupportedCheckpointError(
            "a big-endian checkpoint; only little-endian ones can be read. Load it with TensorFlow "
            "on a little-endian machine and save it again.",
            path=path,
        )
    if header.endianness:
        raise CorruptCheckpointError(f"header: endianness {header.endianness}", path=path)
    version = Version(
        header.version.producer, header.version.min_consumer, tuple(header.version.bad_consumers)
    )
    if version.producer < 0 or version.min_consumer < 0:
        raise CorruptCheckpointError(f"header: {version}", path=path)
    if version.min_consumer > _FORMAT_VERSION or _FORMAT_VERSION in version.bad_consumers:
        raise UnsupportedCheckpointError(
            f"header: the checkpoint asks for a reader of format version {version.min_consumer} or "
            f"higher, not in {version.bad_consumers}; this one is of version {_FORMAT_VERSION}",
            path=path,
        )
    if not 1 <= header.num_shards <= _MAX_SHARDS:
        raise CorruptCheckpointError(f"header: {header.num_shards} data files", path=path)
    return header.num_shards, version


# (dtype, serialized shape) -> shape, lowest and highest count of bytes
_Shapes = dict[tuple[int, bytes], tuple[tuple[int, ...], int, int]]


def _decode_entries(
    keys: list[bytes],
    values: list[bytes],
    num_shards: int,
    shapes: _Shapes,
    entries: dict[bytes, Entry],
    path: str,
) -> None:
    """Adds the entries of one block to ``entries``.

    A checkpoint has few different shapes, so each is decoded once, into ``shapes``. protobuf's
    parser is as fast here as one by hand in Python, and takes every valid encoding.
    """
    parse = protos.BundleEntry.FromString
    key = b""
    try:
        for key, value in zip(keys, values):
            message = parse(value)
            dtype = message.dtype
            shape_key = (dtype, message.shape.SerializeToString())
            known = shapes.get(shape_key)
            if known is None:
                known = shapes[shape_key] = _decode_shape(dtype, message.shape)
            shape, least, most = known
            shard = message.shard_id
            offset = message.offset
            size = message.size
            slices: tuple[Extents, ...] = ()
            if _SLICES_TAG in value and message.slices:  # to ask the bytes first is faster
                slices = tuple(map(_decode_slice, message.slices))
                if shard or offset or size:
                    raise CorruptCheckpointError("a partitioned variable with bytes of its own")
            elif not (least <= size <= most and 0 <= shard < num_shards and offset >= 0):
                raise CorruptCheckpointError(
                    f"{dtype_name(dtype)}{list(shape)} of {size} bytes at byte {offset} of data "
                    f"file {shard} of {num_shards}; expected {least} bytes"
                    + (" or more" if most > least else "")
                )
            entries[key] = Entry(dtype, shape, shard, offset, size, message.crc32c, slices)
    except DecodeError as error:
        raise _at_key(CorruptCheckpointError(f"no entry message: {error}"), path, key) from error
    except CorruptCheckpointError as error:
        raise _at_key(error, path, key) from None


def _at_key(error: CorruptCheckpointError, path: str, key: bytes) -> CorruptCheckpointError:
    return CorruptCheckpointError(error.message, path=path, key=key_text(key))


def _decode_shape(dtype: int, message: Any) -> tuple[tuple[int, ...], int, int]:
    """The shape, and the lowest and highest count of bytes that its elements can take."""
    if message.unknown_rank or len(message.dim) > _MAX_RANK:
        raise CorruptCheckpointError(f"a tensor of unknown rank, or above {_MAX_RANK}")
    shape = tuple([dim.size for dim in message.dim])
    if dtype <= 0 or min(shape, default=0) < 0:
        raise CorruptCheckpointError(f"dtype {dtype} and shape {list(shape)}")
    width = dtype_size(dtype)
    # Zeros do not count: TensorFlow and NumPy both want the strides of an empty tensor in range.
    if math.prod(size or 1 for size in shape) * (width or 1) > _INT64_MAX:
        raise CorruptCheckpointError(f"shape {list(shape)}, which is beyond all memory")
    count = math.prod(shape)
    if width is not None:
        return shape, count * width, count * width
    if dtype == STRING:  # a varint each, and 4 bytes of checksum; TensorFlow also reads nothing
        return shape, count + 4 if count else 0, _INT64_MAX
    return shape, 5 * count if dtype == VARIANT else 0, _INT64_MAX


def _decode_slice(message: Any) -> Extents:
    return tuple([(e.start, e.length if e.HasField("length") else -1) for e in message.extent])


def _check_slices(entries: dict[bytes, Entry], path: str) -> None:
    """Checks that every slice has its entry, lies within its variable and is apart from others."""
    key = b""
    try:
        for key in [key for key in entries if key[0] == 0]:
            decode_slice_key(key)
            if entries[key].slices:
                raise CorruptCheckpointError("a slice that is sliced itself")
        for key, entry in [item for item in entries.items() if item[1].slices]:
            name = key_text(key)
            for extents in entry.slices:
                shape = slice_shape(entry.shape, extents)
                part = entries.get(slice_key(name, extents))
                if part is None:
                    raise CorruptCheckpointError(f"its slice {extents} is missing")
                if (part.dtype, part.shape) != (entry.dtype, shape):
                    raise CorruptCheckpointError(
                        f"its slice {extents} is {_describe(part)}, the whole {_describe(entry)}"
                    )
            if overlap(entry.shape, entry.slices):
                raise CorruptCheckpointError("its slices overlap, or no straight cuts divide them")
    except CorruptCheckpointError as error:
        raise _at_key(error, path, key) from None


def _describe(entry: Entry) -> str:
    return f"{dtype_name(entry.dtype)}{list(entry.shape)}"


# --- writing ---


def encode_index(index: Index) -> bytes:
    """The index file of these entries, the same bytes that TensorFlow writes for them.

    Raises:
      CorruptCheckpointError: the slices of a partitioned variable do not fit together.
    """
    _check_slices(index.entries, "the index to write")
    return table.encode_table(_items(index))


def write_index(prefix: str, index: Index) -> None:
    """Writes ``PREFIX.index`` in one step: a reader finds the old file or the new one, whole.

    Raises:
      CorruptCheckpointError: the slices of a partitioned variable do not fit together.
      WriteError: the file cannot be written.
    """
    files.write_atomic(f"{prefix}.index", encode_index(index))


def _items(index: Index) -> Iterator[tuple[bytes, bytes]]:
    header = protos.BundleHeader(num_shards=index.num_shards)
    header.version.producer = index.version.producer
    header.version.min_consumer = index.version.min_consumer
    header.version.bad_consumers.extend(index.version.bad_consumers)
    yield _HEADER_KEY, header.SerializeToString()
    # Few tensors differ in dtype, shape and size, so these are encoded once each.
    known: dict[tuple[int, tuple[int, ...], int], tuple[bytes, bytes]] = {}
    for key in sorted(index.entries):
        dtype, shape, shard, offset, size, crc, slices = index.entries[key]
        fields = known.get((dtype, shape, size))
        if fields is None:
            fields = (_encode_head(dtype, shape), b"\x28" + encode_varint(size) if size else b"")
            known[dtype, shape, size] = fields
        # Protobuf's fields in their order, zeros left out: shard_id, offset, size, crc32c, slices.
        value, size_field = fields
        if shard:
            value += b"\x18" + encode_varint(shard)
        if offset:
            value += b"\x20" + encode_varint(offset)
        value += size_field
        if crc:
            value += b"\x35" + crc.to_bytes(4, "little")
        if slices:
            value += _encode_slices(slices)
        yield key, value


def _encode_head(dtype: int, shape: tuple[int, ...]) -> bytes:
    """The fields dtype and shape; a scalar's shape is there, but empty."""
    message = protos.BundleEntry(dtype=dtype)
    message.shape.SetInParent()
    for size in shape:
        message.shape.dim.add(size=size)
    return message.SerializeToString()  # type: ignore[no-any-return]


def _encode_slices(slices: tuple[Extents, ...]) -> bytes:
    """The field slices; a whole dimension is an empty message."""
    message = protos.BundleEntry()
    for extents in slices:
        field = message.slices.add()
        for start, length in extents:
            extent = field.extent.add()
            if length != -1:
                extent.start = start
                extent.length = length
    return message.SerializeToString()  # type: ignore[no-any-return]
