"""Tables with Snappy blocks, which open-source TensorFlow reads and never writes."""

from __future__ import annotations

import struct

import cramjam

from estimator_ckpt.bundle import table
from estimator_ckpt.bundle.coding import decode_varint, encode_varint

_TRAILER = 5


def stored(block, kind=1):
    """A block with its trailer."""
    data = block + bytes((kind,))
    return data + struct.pack("<I", table.masked_crc32c(data))


def compress(data):
    """Snappy of some bytes."""
    return bytes(cramjam.snappy.compress_raw(data))


def compressed_table(items, squeeze=compress):
    """The table of items, each of its blocks in Snappy.

    Args:
      items: pairs of keys and values; there may be so many as one data block has.
      squeeze: makes the bytes of a block; other functions make tables that are wrong.
    """
    plain = table.encode_table(items)
    footer = plain[-table.FOOTER_SIZE :]
    metaindex_at, at = decode_varint(footer, 0)
    metaindex_size, at = decode_varint(footer, at)
    index_at, at = decode_varint(footer, at)
    metaindex = plain[metaindex_at : metaindex_at + metaindex_size]
    data = plain[: metaindex_at - _TRAILER]
    separator = plain[index_at + 3 : index_at + 3 + plain[index_at + 1]]  # of the one entry
    block = squeeze(data)
    handle = encode_varint(0) + encode_varint(len(block))
    entry = bytes((0, len(separator), len(handle))) + separator + handle
    index = entry + struct.pack("<II", 0, 1)
    file, handles = stored(block), b""
    for content in (metaindex, index):
        small = compress(content)
        handles += encode_varint(len(file)) + encode_varint(len(small))
        file += stored(small)
    return file + handles.ljust(40, b"\0") + table.MAGIC
