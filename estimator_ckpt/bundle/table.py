"""The sorted table that an index file is: LevelDB's table format, without compression.

Sources: doc/table_format.md of LevelDB; TensorFlow's table_builder.cc, block_builder.cc and
format.cc (tensorflow/core/lib/io, later in tsl), whose output `encode_table` repeats byte for byte.

    file    = data block*, metaindex block, index block, footer
    block   = entry*, restart offset (fixed32)*, count of restart offsets (fixed32)
    trailer = type (1 byte, 0: not compressed), masked crc32c of block and type (fixed32);
              it stands behind every block
    entry   = shared, non-shared and value length (varint32 each), the last "non-shared" bytes of
              the key, the value; the key's first "shared" bytes are those of the key before it
    handle  = offset, size (varint64 each) of a block, its trailer not counted
    footer  = metaindex handle, index handle, zeros up to 40 bytes, magic (fixed64)

Restart offsets say where an entry stands whose shared length is 0. The index block has one entry
for each data block: a key not below the block's last and below the next block's first; and the
handle. The metaindex block is empty. All numbers are little-endian.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterable, Iterator

import google_crc32c

from estimator_ckpt.bundle.coding import corrupt, decode_varint, encode_size, encode_varint, mask
from estimator_ckpt.errors import UnsupportedCheckpointError

MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
FOOTER_SIZE = 48
_HANDLES_SIZE = FOOTER_SIZE - len(MAGIC)
_TRAILER_SIZE = 5
_BLOCK_SIZE = 262144
_RESTART_INTERVAL = 16
_COMPRESSIONS = {1: "Snappy", 2: "Zstandard"}
_CHUNK = 1 << 18
# Shared key bytes per byte of a block: below 16, with a restart every 16 entries. Without a bound
# a small block could claim many gigabytes of keys.
_MAX_EXPANSION = 64


def masked_crc32c(data: bytes | memoryview) -> int:
    """The crc32c of ``data`` in the masked form in which checkpoints store it."""
    return mask(extend_crc32c(0, data))


def extend_crc32c(crc: int, data: bytes | memoryview) -> int:
    """The crc32c of some bytes with the crc32c ``crc``, followed by ``data``."""
    if isinstance(data, bytes):
        return google_crc32c.extend(crc, data)  # type: ignore[no-any-return]
    # The extension takes bytes alone. Chunks, so that a large view is never copied whole.
    for start in range(0, len(data), _CHUNK):
        crc = google_crc32c.extend(crc, bytes(data[start : start + _CHUNK]))
    return crc


# --- writing ---


def _encode_block(
    items: Iterable[tuple[bytes, bytes]], restart_interval: int, limit: float = math.inf
) -> tuple[bytes, bytes, tuple[bytes, bytes] | None]:
    """A block, with its trailer, of the items up to the one with which it has `limit` bytes.

    Returns:
      The block; the key of its last item; the item behind it, if that was taken and is too large.
    """
    buffer = bytearray()
    restarts = []
    count = restart_interval  # of the items since the last restart
    last_key = b""
    left = None
    limit -= 4  # for the count of restarts; each takes 4 bytes, too
    for key, value in items:
        key_size, value_size = len(key), len(value)
        if key <= last_key and buffer:
            raise ValueError(f"keys must be strictly increasing: {last_key!r}, {key!r}")
        if key_size + value_size >= 2 * _BLOCK_SIZE and buffer:
            left = key, value
            break
        if count < restart_interval:
            shared = _common_prefix(last_key, key)
            count += 1
        else:
            shared = 0
            restarts.append(len(buffer))
            limit -= 4
            count = 1
        last_key = key
        added = key_size - shared
        if shared | added | value_size < 0x80:
            buffer += b"%c%c%c%b%b" % (shared, added, value_size, key[shared:], value)
        else:
            lengths = map(encode_size, (shared, added, value_size))
            buffer += b"".join((*lengths, key[shared:], value))
        if len(buffer) >= limit:
            break
    restarts = restarts or [0]
    block = bytes(buffer) + struct.pack(f"<{len(restarts)}II", *restarts, len(restarts)) + b"\x00"
    return block + struct.pack("<I", masked_crc32c(block)), last_key, left


def _common_prefix(a: bytes, b: bytes) -> int:
    """The count of leading bytes that two keys share."""
    # The lowest bit in which two numbers differ is in the first byte in which their bytes do; those
    # that differ in zeros at the end alone are one number.
    different = int.from_bytes(a, "little") ^ int.from_bytes(b, "little")
    shared = (different & -different).bit_length() - 1 >> 3
    most = min(len(a), len(b))
    return shared if 0 <= shared < most else most


def _separator(key: bytes, following: bytes) -> bytes:
    """A short key k with key <= k < following, as LevelDB's FindShortestSeparator makes it."""
    at = _common_prefix(key, following)
    if at < min(len(key), len(following)) and key[at] < 0xFF and key[at] + 1 < following[at]:
        return key[:at] + bytes((key[at] + 1,))
    return key


def _successor(key: bytes) -> bytes:
    """A short key >= ``key``, as LevelDB's FindShortSuccessor makes it."""
    for at, byte in enumerate(key):
        if byte != 0xFF:
            return key[:at] + bytes((byte + 1,))
    return key


def _encode_handle(offset: int, size: int) -> bytes:
    return encode_varint(offset) + encode_varint(size)


def encode_table(items: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The table file of ``items``, whose keys must be strictly increasing.

    Raises:
      ValueError: the keys are not strictly increasing (a mistake of the caller's).
    """
    file = bytearray()
    index: list[tuple[bytes, bytes]] = []

    def append(block: bytes) -> bytes:
        offset = len(file)
        file.extend(block)
        return _encode_handle(offset, len(block) - _TRAILER_SIZE)

    rest = iter(items)
    first = next(rest, None)
    while first is not None:
        block, last_key, left = _encode_block(
            itertools.chain((first,), rest), _RESTART_INTERVAL, _BLOCK_SIZE
        )
        handle = append(block)
        first = left or next(rest, None)
        if first is None:
            index.append((_successor(last_key), handle))
        elif last_key < first[0]:
            index.append((_separator(last_key, first[0]), handle))
        else:
            raise ValueError(f"keys must be strictly increasing: {last_key!r}, {first[0]!r}")
    metaindex, _, _ = _encode_block((), _RESTART_INTERVAL)
    handles = append(metaindex)
    handles += append(_encode_block(index, restart_interval=1)[0])
    return bytes(file) + handles.ljust(_HANDLES_SIZE, b"\x00") + MAGIC


# --- reading ---


def is_table(data: memoryview) -> bool:
    """Whether ``data``, a whole file, ends as a table does."""
    return len(data) >= FOOTER_SIZE and data[-len(MAGIC) :] == MAGIC


def read_table(data: memoryview, path: str) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """The keys and values of one data block after the other.

    Each block is checked before it is handed out: checksum, lengths, restart offsets, strictly
    increasing keys (over all blocks), the key in the index block. The blocks must fill the file
    without a gap, so that no byte of it goes unchecked.

    Args:
      data: the whole file.
      path: the file's name, for messages.

    Raises:
      CorruptCheckpointError: with the file and the byte offset.
      UnsupportedCheckpointError: a block is compressed.
    """
    if not is_table(data):
        found = bytes(data[-len(MAGIC) :]).hex() or "nothing"
        corrupt(f"expected a table's end {MAGIC.hex()}, found {found}", len(data), path)
    footer_at = len(data) - FOOTER_SIZE
    footer = bytes(data[footer_at : footer_at + _HANDLES_SIZE])
    metaindex_at, metaindex_size, at = _decode_handle(footer, 0, footer_at, path)
    index_at, index_size, at = _decode_handle(footer, at, footer_at, path)
    expected = _encode_handle(metaindex_at, metaindex_size) + _encode_handle(index_at, index_size)
    if footer != expected.ljust(_HANDLES_SIZE, b"\x00"):  # the footer has no checksum
        corrupt("the footer is not as it is written", footer_at, path)
    # The rest of the file bounds every block from here on, whatever the handles claim.
    if index_at + index_size + _TRAILER_SIZE != footer_at:
        corrupt("the index block does not reach to the footer", footer_at, path)
    if metaindex_at + metaindex_size + _TRAILER_SIZE != index_at:
        corrupt("the metaindex block does not reach to the index block", footer_at, path)
    index_keys, handles = _read_block(data, index_at, index_size, path)
    if _read_block(data, metaindex_at, metaindex_size, path)[0]:
        corrupt("the metaindex block is not empty", metaindex_at, path)

    position = 0
    last_key: bytes | None = None
    for separator, handle in zip(index_keys, handles):
        offset, size, at = _decode_handle(handle, 0, index_at, path)
        if at != len(handle) or offset != position or offset + size + _TRAILER_SIZE > metaindex_at:
            corrupt(
                f"a data block at {offset} with {size} bytes, key {separator!r}", index_at, path
            )
        keys, values = _read_block(data, offset, size, path)
        if not keys or (last_key is not None and keys[0] <= last_key) or keys[-1] > separator:
            corrupt(f"the block's keys do not fit to index key {separator!r}", offset, path)
        yield keys, values
        position = offset + size + _TRAILER_SIZE
        last_key = separator
    if position != metaindex_at:
        corrupt("bytes that belong to no block", position, path)


def _decode_handle(data: bytes, position: int, base: int, path: str) -> tuple[int, int, int]:
    offset, position = decode_varint(data, position, path=path, base=base)
    size, position = decode_varint(data, position, path=path, base=base)
    return offset, size, position


def _read_block(
    data: memoryview, offset: int, size: int, path: str
) -> tuple[list[bytes], list[bytes]]:
    """The keys and values of the block; ``offset`` and ``size`` lie within ``data``."""
    if size < 8:
        corrupt(f"a block of {size} bytes, too short for its restart offsets", offset, path)
    block = bytes(data[offset : offset + size])
    kind, stored = struct.unpack("<BI", data[offset + size : offset + size + _TRAILER_SIZE])
    crc = mask(google_crc32c.extend(google_crc32c.value(block), bytes((kind,))))
    if crc != stored:
        corrupt(f"block checksum: stored {stored:08x}, computed {crc:08x}", offset, path)
    if kind:
        name = _COMPRESSIONS.get(kind, f"type {kind}")
        raise UnsupportedCheckpointError(
            f"byte {offset}: a compressed block ({name}); only uncompressed ones, the only kind "
            f"TensorFlow writes, can be read. Save the checkpoint again with TensorFlow.",
            path=path,
        )
    (restart_count,) = struct.unpack_from("<I", block, size - 4)
    end = size - 4 - 4 * restart_count
    if restart_count < 1 or end < 0:
        corrupt(f"{restart_count} restart offsets in a block of {size} bytes", offset, path)
    restarts = struct.unpack_from(f"<{restart_count}I", block, end)

    keys: list[bytes] = []
    values: list[bytes] = []
    key = b""
    borrowed = 0
    position = 0
    next_restart = iter(restarts)
    restart = next(next_restart)
    while position < end:
        start = position
        # The three lengths; nearly always one byte each. At least 8 bytes follow `end`.
        shared, added, value_size = block[position], block[position + 1], block[position + 2]
        if (shared | added | value_size) < 0x80:
            position += 3
        else:
            shared, position = decode_varint(block, position, bits=32, path=path, base=offset)
            added, position = decode_varint(block, position, bits=32, path=path, base=offset)
            value_size, position = decode_varint(block, position, bits=32, path=path, base=offset)
            borrowed += shared
            if borrowed > _MAX_EXPANSION * size:
                corrupt("the keys repeat each other beyond measure", offset + start, path)
        if start == restart:
            if shared:
                corrupt("a restart offset at an entry without its whole key", offset + start, path)
            restart = next(next_restart, -1)
        key_end = position + added
        value_end = key_end + value_size
        if shared > len(key) or value_end > end:
            corrupt("an entry longer than its block", offset + start, path)
        previous = key
        key = key[:shared] + block[position:key_end]
        if key <= previous and keys:
            corrupt(f"key {key!r} after key {previous!r}", offset + start, path)
        keys.append(key)
        values.append(block[key_end:value_end])
        position = value_end
    if restart != -1 and (keys or restarts != (0,)):
        corrupt(f"restart offset {restart} is at no entry", offset, path)
    return keys, values
