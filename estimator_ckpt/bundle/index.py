"""An index file as entries: read and checked whole, or written as TensorFlow writes it.

Source: tensorflow/core/util/tensor_bundle/tensor_bundle.cc and
tensorflow/core/util/saved_tensor_slice_util.cc.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from estimator_ckpt import files
from estimator_ckpt.bulk import collector_paused
from estimator_ckpt.bundle import protos, table
from estimator_ckpt.bundle.dtypes import dtype_name
from estimator_ckpt.bundle.entries import Entry, Shapes, decode_entries, encode_entries
from estimator_ckpt.bundle.slices import (
    decode_slice_key,
    key_bytes,
    key_text,
    overlap,
    slice_key,
    slice_shape,
)
from estimator_ckpt.errors import (
    CorruptCheckpointError,
    NotACheckpointError,
    UnsupportedCheckpointError,
)

__all__ = [
    "Entry",
    "Index",
    "V1Files",
    "Version",
    "check_slices",
    "data_path",
    "decode_version",
    "encode_index",
    "read_index",
    "read_num_shards",
    "same_tensor",
    "shard_path",
    "write_index",
]

_HEADER_KEY = b""
_FORMAT_VERSION = 1  # kTensorBundleVersion
_MAX_SHARDS = 99_999  # as many as five digits of a file name can count


class Version(NamedTuple):
    """The format version that wrote an index, and those that must not read it."""

    producer: int = _FORMAT_VERSION
    min_consumer: int = 0
    bad_consumers: tuple[int, ...] = ()


class V1Files(NamedTuple):
    """The files of a checkpoint in TensorFlow's first format: see v1.py.

    Attributes:
      paths: of the files.
      keys: of the slices in each of them, in their order.
    """

    paths: tuple[str, ...]
    keys: tuple[tuple[bytes, ...], ...]


class Index(NamedTuple):
    """A whole index file.

    Attributes:
      num_shards: the count of data files, which is in all their names.
      entries: by key; in the order of the keys when read. The header is none of them.
      version: of the format.
      v1: the files of one in the V1 format, None of all others. An entry's shard and offset say
        which slice of which file it is, its size is what it would be in a data file, and its crc32c
        is not known and 0.
      mark: of a conversion in place that wrote it, see conversion/request.py; most have none.
    """

    num_shards: int
    entries: dict[bytes, Entry]
    version: Version = Version()
    v1: V1Files | None = None
    mark: bytes = b""


def shard_path(prefix: str, shard: int, num_shards: int) -> str:
    """The name of a data file."""
    return f"{prefix}.data-{shard:05d}-of-{num_shards:05d}"


def data_path(prefix: str, index: Index, shard: int) -> str:
    """The file that has the values of a shard; in the V1 format that is not a data file alone."""
    return index.v1.paths[shard] if index.v1 else shard_path(prefix, shard, index.num_shards)


# --- reading ---


def read_index(prefix: str) -> Index:
    """Reads ``PREFIX.index`` and checks all of it before any entry is handed out.

    Raises:
      NotACheckpointError: there is no such file, or it is no table.
      CorruptCheckpointError: with the file and the byte offset or the key.
      UnsupportedCheckpointError: big-endian, of a newer format, or compressed in a way that
        TensorFlow does not know.
    """
    with _mapped_index(prefix) as (data, path), collector_paused():
        return _decode_index(data, path)


def read_num_shards(prefix: str) -> int:
    """The count of data files, by the header of ``PREFIX.index``; no entry is looked at.

    Raises:
      CheckpointError: as read_index() does.
    """
    with _mapped_index(prefix) as (data, path):
        header, _ = _decode_start(data, path)
        return header[0]


@contextlib.contextmanager
def _mapped_index(prefix: str) -> Iterator[tuple[memoryview, str]]:
    """The bytes of an index and its path, of which an error in the block tells."""
    path = f"{prefix}.index"
    if not files.exists(path):
        raise NotACheckpointError("there is no such file; expected a checkpoint's index", path=path)
    data = files.map_bytes(path)
    try:
        yield data, path
    except DecodeError as error:
        raise CorruptCheckpointError(f"no protobuf message: {error}", path=path) from error
    finally:
        data.release()


def _decode_start(
    data: memoryview, path: str
) -> tuple[tuple[int, Version, bytes], Iterator[tuple[Sequence[bytes], Sequence[bytes]]]]:
    """The header, and the keys and values behind it, block by block."""
    if pointer := files.lfs_pointer(bytes(data[:32])):
        raise NotACheckpointError(f"expected an index, found {pointer}", path=path)
    if not table.is_table(data):
        end = bytes(data[-len(table.MAGIC) :]).hex() or "nothing"
        expected = f"expected a table's magic number {table.MAGIC.hex()} at its end, found {end}"
        if _begins_as_an_index(bytes(data[:4])):
            raise CorruptCheckpointError(f"the index is cut off: {expected}", path=path)
        raise NotACheckpointError(f"no checkpoint's index: {expected}", path=path)
    blocks = table.read_table(data, path)
    first_keys, first_values = next(blocks, ([], []))
    if not first_keys or first_keys[0] != _HEADER_KEY:
        raise CorruptCheckpointError("the header, under the empty key, is missing", path=path)
    header = _decode_header(first_values[0], path)
    return header, itertools.chain([(first_keys[1:], first_values[1:])], blocks)


def _decode_index(data: memoryview, path: str) -> Index:
    (num_shards, version, mark), blocks = _decode_start(data, path)
    entries: dict[bytes, Entry] = {}
    shapes: Shapes = {}
    for keys, values in blocks:
        before = len(entries)
        try:
            entries.update(zip(keys, decode_entries(values, num_shards, shapes)))
        except CorruptCheckpointError as error:
            raise _at_key(error, path, keys[len(entries) - before]) from None
    check_slices(entries, path)
    return Index(num_shards, entries, version, mark=mark)


def _begins_as_an_index(start: bytes) -> bool:
    # The first entry has the empty key (shared 0, non-shared 0), and the header's first field is
    # num_shards; of an index that was never filled nothing is left at all.
    return not start or (start[:2] == b"\0\0" and start[3:] == b"\x08")


def _decode_header(value: bytes, path: str) -> tuple[int, Version, bytes]:
    header = protos.BundleHeader.FromString(value)
    if header.endianness == 1:
        raise UnsupportedCheckpointError(
            "a big-endian checkpoint; only little-endian ones can be read. Load it with TensorFlow "
            "on a little-endian machine and save it again.",
            path=path,
        )
    if header.endianness:
        raise CorruptCheckpointError(f"header: endianness {header.endianness}", path=path)
    version = decode_version(header.version, path)
    if not 1 <= header.num_shards <= _MAX_SHARDS:
        raise CorruptCheckpointError(f"header: {header.num_shards} data files", path=path)
    return header.num_shards, version, header.mark


def decode_version(message: Any, path: str) -> Version:
    """The VersionDef of a header.

    Raises:
      CorruptCheckpointError: it makes no sense.
      UnsupportedCheckpointError: it asks for a newer reader.
    """
    version = Version(message.producer, message.min_consumer, tuple(message.bad_consumers))
    if version.producer < 0 or version.min_consumer < 0:
        raise CorruptCheckpointError(f"header: {version}", path=path)
    if version.min_consumer > _FORMAT_VERSION or _FORMAT_VERSION in version.bad_consumers:
        raise UnsupportedCheckpointError(
            f"header: the checkpoint asks for a reader of format version {version.min_consumer} or "
            f"higher, not in {version.bad_consumers}; this one is of version {_FORMAT_VERSION}",
            path=path,
        )
    return version


def _at_key(error: CorruptCheckpointError, path: str, key: bytes) -> CorruptCheckpointError:
    return CorruptCheckpointError(error.message, path=path, key=key_text(key))


def check_slices(entries: dict[bytes, Entry], path: str) -> None:
    """Checks that every slice has its entry, lies within its variable and is apart from others.

    Raises:
      CorruptCheckpointError: with the key.
    """
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


def same_tensor(index: Index, one: str, other: str, other_index: Index | None = None) -> bool:
    """Whether two keys have equal bytes, by place or by checksum; slice by slice if partitioned.

    The V1 format has no checksums of tensors: only a tensor itself is known to be the same there.

    Args:
      index: of the first.
      one: a key.
      other: another.
      other_index: of the second, if that is in another checkpoint.
    """
    there = index if other_index is None else other_index
    if index.v1 or there.v1:
        return index is there and one == other
    a, b = index.entries[key_bytes(one)], there.entries[key_bytes(other)]
    if a == b and not a.slices:
        return True
    if (a.dtype, a.shape, a.size, a.crc32c, a.slices) != (
        b.dtype,
        b.shape,
        b.size,
        b.crc32c,
        b.slices,
    ):
        return False
    return all(
        index.entries[slice_key(one, extents)].crc32c
        == there.entries[slice_key(other, extents)].crc32c
        for extents in a.slices
    )


# --- writing ---


def encode_index(index: Index) -> bytes:
    """The index file of these entries, the same bytes that TensorFlow writes for them.

    Raises:
      CorruptCheckpointError: the slices of a partitioned variable do not fit together.
    """
    check_slices(index.entries, "the index to write")
    return table.encode_table(_items(index))


def write_index(prefix: str, index: Index, *, temporary: str | None = None) -> None:
    """Writes ``PREFIX.index`` in one step: a reader finds the old file or the new one, whole.

    ``temporary`` is as for `files.write_atomic`.

    Raises:
      CorruptCheckpointError: the slices of a partitioned variable do not fit together.
      WriteError: the file cannot be written.
    """
    files.write_atomic(f"{prefix}.index", encode_index(index), temporary=temporary)


def _items(index: Index) -> Iterator[tuple[bytes, bytes]]:
    header = protos.BundleHeader(num_shards=index.num_shards, mark=index.mark)
    header.version.producer = index.version.producer
    header.version.min_consumer = index.version.min_consumer
    header.version.bad_consumers.extend(index.version.bad_consumers)
    yield _HEADER_KEY, header.SerializeToString()
    keys = sorted(index.entries)
    yield from zip(keys, encode_entries(list(map(index.entries.__getitem__, keys))))
