"""One block of a table as it is read: its checksum, its compression, its entries.

Sources: format.cc and block.cc of TensorFlow (tensorflow/core/lib/io, later in tsl);
format_description.txt of Snappy. The layout is in table.py.

Type 1 is Snappy: the uncompressed size (varint32), then copies and literals. Open-source TensorFlow
writes type 0 alone and reads both; the indexes that Google's own builds wrote have type 1.
"""

from __future__ import annotations

import struct

from estimator_ckpt.bundle.checksum import Bytes, Checksum
from estimator_ckpt.bundle.coding import corrupt, decode_varint
from estimator_ckpt.errors import UnsupportedCheckpointError

TRAILER_SIZE = 5
_SNAPPY = 1
_COMPRESSIONS = {2: "Zstandard"}
# Snappy's densest element makes 64 bytes of 3.
_MAX_SNAPPY = 22
# Shared key bytes per byte of a block: below 16, with a restart every 16 entries. Without a bound
# a small block could claim many gigabytes of keys.
_MAX_EXPANSION = 64


def open_block(stored: Bytes, path: str, offset: int) -> Bytes:
    """The content of a block, its checksum verified.

    Args:
      stored: the block with its trailer.
      path: of the file; this and the offset in it are for messages.
      offset: where the block begins.

    Returns:
      A part of ``stored``, or new bytes if that is compressed.

    Raises:
      CorruptCheckpointError: the checksum is wrong, or what it is right for is no Snappy.
      UnsupportedCheckpointError: it is compressed in another way.
    """
    content, trailer = stored[:-TRAILER_SIZE], bytes(stored[-TRAILER_SIZE:])
    kind, expected = struct.unpack("<BI", trailer)
    checksum = Checksum()
    checksum.add(content)
    checksum.add(trailer[:1])
    if checksum.masked != expected:
        computed = checksum.masked
        corrupt(f"block checksum: stored {expected:08x}, computed {computed:08x}", offset, path)
    if kind == _SNAPPY:
        return _decompress(bytes(content), path, offset)
    if kind:
        name = _COMPRESSIONS.get(kind, f"type {kind}")
        raise UnsupportedCheckpointError(
            f"byte {offset}: a compressed block ({name}); only those that TensorFlow itself reads "
            "can be read: Snappy's, and uncompressed ones. Save the checkpoint again with "
            "TensorFlow.",
            path=path,
        )
    return content


def _decompress(data: bytes, path: str, offset: int) -> bytes:
    import cramjam

    claimed, _ = decode_varint(data, 0, bits=32, path=path, base=offset)
    if claimed > _MAX_SNAPPY * len(data):  # before memory is asked for
        corrupt(f"{len(data)} bytes of Snappy that claim to be {claimed}", offset, path)
    try:
        found = bytes(cramjam.snappy.decompress_raw(data))
    except cramjam.DecompressionError as error:
        corrupt(f"no Snappy data: {error}", offset, path)
    if len(found) != claimed:
        corrupt(f"Snappy data of {len(found)} bytes, expected {claimed}", offset, path)
    return found


def decode_block(block: Bytes, path: str, offset: int) -> tuple[list[bytes], list[Bytes]]:
    """The keys and values of a block's content.

    Args:
      block: the content; the values are parts of it, and views if it is one.
      path: of the file; this and the offset in it are for messages.
      offset: where the block begins.

    Raises:
      CorruptCheckpointError: lengths or restart offsets do not fit, or keys are not increasing.
    """
    size = len(block)
    if size < 8:
        corrupt(f"a block of {size} bytes, too short for its restart offsets", offset, path)
    (restart_count,) = struct.unpack_from("<I", block, size - 4)
    end = size - 4 - 4 * restart_count
    if restart_count < 1 or end < 0:
        corrupt(f"{restart_count} restart offsets in a block of {size} bytes", offset, path)
    restarts = struct.unpack_from(f"<{restart_count}I", block, end)

    keys: list[bytes] = []
    values: list[Bytes] = []
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
