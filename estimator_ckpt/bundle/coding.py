"""Integers and strings as they stand in table blocks, footers and slice keys.

Decoders take ``(data, position)`` and return ``(value, next position)``. They look at a length
before they slice by it, and raise `CorruptCheckpointError` with the byte offset and the file;
``path`` and ``base`` (where ``data`` starts in the file) are only for that message.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import NoReturn

from estimator_ckpt.bundle.protos import BundleEntryColumns
from estimator_ckpt.errors import CorruptCheckpointError

MAX_VARINT_BYTES = 10
_MASK_DELTA = 0xA282EAD8
_UINT32 = 0xFFFFFFFF
_VARINT = re.compile(rb"[\x80-\xff]*[\x00-\x7f]")
_BYTES = tuple(bytes((value,)) for value in range(256))
_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1


def corrupt(message: str, position: int, path: str | None) -> NoReturn:
    """Raises `CorruptCheckpointError` about one byte of a file."""
    raise CorruptCheckpointError(f"byte {position}: {message}", path=path)


# --- varints (tensorflow/core/lib/core/coding.cc) ---
#
# 7 bits a byte, the lowest first; the top bit says that more bytes follow.


def encode_varint(value: int) -> bytes:
    """``value`` (0 <= value < 2**64) as 1 to 10 bytes."""
    if value < 0x80:
        return _BYTES[value]
    if value < 0x4000:
        return _BYTES[value & 0x7F | 0x80] + _BYTES[value >> 7]
    head = _BYTES[value & 0x7F | 0x80] + _BYTES[value >> 7 & 0x7F | 0x80]
    return head + encode_varint(value >> 14)


# A checkpoint has few different sizes.
encode_size = functools.lru_cache(maxsize=1 << 14)(encode_varint)


def encode_varints(values: Iterable[int]) -> list[bytes]:
    """encode_varint() of each, below 2**63: protobuf packs all, and they are cut apart again."""
    field = BundleEntryColumns(offset=values).SerializeToString()
    return _VARINT.findall(field)[2:]  # behind the field's tag and its length


def decode_varint(
    data: bytes | memoryview,
    position: int,
    *,
    bits: int = 64,
    path: str | None = None,
    base: int = 0,
) -> tuple[int, int]:
    """The unsigned number at ``position``; it must fit into ``bits``."""
    value = shift = 0
    end = min(len(data), position + MAX_VARINT_BYTES)
    for index in range(position, end):
        byte = data[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> bits:
                corrupt(f"a varint of more than {bits} bits", base + position, path)
            return value, index + 1
        shift += 7
    corrupt("a varint without an end", base + position, path)


# --- masked crc32c (tensorflow/core/lib/hash/crc32c.h) ---
#
# Checksums are stored masked, as the checksum of data that holds its own checksum is a poor one.


def mask(crc: int) -> int:
    """The stored form of a crc32c: rotated right by 15 bits, plus a constant."""
    return ((crc >> 15 | crc << 17 & _UINT32) + _MASK_DELTA) & _UINT32


# --- ordered code: sorts as its values do (tensorflow/core/lib/strings/ordered_code.cc) ---
#
#   string    the bytes, with 00 as 00 ff and ff as ff 00; the end is 00 01
#   unsigned  the count of bytes that follow (0 to 8), then the value in them, highest byte first,
#             without leading zeros
#   signed    n bytes (1 to 10): n size bits, all 1, then the value in 7 n bits, highest first, the
#             first of which is 0. Below zero it is ~value, and in the end all bits are inverted.
#                 80..bf is 0..63, c040 is 64, dfff is 8191; 7f is -1, 40 is -64, 3fbf is -65


def encode_ordered_string(value: bytes) -> bytes:
    """``value`` escaped, with its end mark."""
    if b"\xff" in value or b"\x00" in value:
        # In two passes one would escape the zeros that the other has made.
        value = b"\xff\x00".join(p.replace(b"\x00", b"\x00\xff") for p in value.split(b"\xff"))
    return value + b"\x00\x01"


def decode_ordered_string(
    data: bytes, position: int, *, path: str | None = None
) -> tuple[bytes, int]:
    """The string at ``position``, up to and over its end mark."""
    parts = []
    start = position
    limit = len(data) - 1  # an escape takes two bytes
    while position < limit:
        byte = data[position]
        if byte not in (0x00, 0xFF):
            position += 1
            continue
        parts.append(data[start:position])
        escape = data[position : position + 2]
        position = start = position + 2
        if escape == b"\x00\x01":
            return b"".join(parts), position
        if escape not in (b"\x00\xff", b"\xff\x00"):
            corrupt(f"escape {escape.hex(' ')} in an ordered string", position - 2, path)
        parts.append(escape[:1])
    corrupt("an ordered string without an end", len(data), path)


def encode_ordered_unsigned(value: int) -> bytes:
    """``value`` (0 <= value < 2**64) as 1 to 9 bytes."""
    length = (value.bit_length() + 7) // 8
    return bytes((length,)) + value.to_bytes(length, "big")


def decode_ordered_unsigned(
    data: bytes, position: int, *, path: str | None = None
) -> tuple[int, int]:
    """The unsigned number at ``position``."""
    if position >= len(data):
        corrupt("a number is missing", position, path)
    end = position + 1 + data[position]
    if data[position] > 8 or end > len(data):
        corrupt(f"a number of {data[position]} bytes", position, path)
    if data[position] and not data[position + 1]:
        corrupt("a number with leading zeros", position, path)
    return int.from_bytes(data[position + 1 : end], "big"), end


def encode_ordered_signed(value: int) -> bytes:
    """``value`` (a 64-bit signed integer) as 1 to 10 bytes."""
    magnitude = ~value if value < 0 else value
    length = magnitude.bit_length() // 7 + 1  # 7 bits a byte, one of them the sign
    header = ((1 << length) - 1) << (
        7 * length
    )  # the size bits, above the 7 * length bits of the value
    code = header ^ magnitude
    if value < 0:
        code ^= (1 << 8 * length) - 1
    return code.to_bytes(length, "big")


def decode_ordered_signed(
    data: bytes, position: int, *, path: str | None = None
) -> tuple[int, int]:
    """The signed number at ``position``."""
    head = data[position : position + 2]
    if not head:
        corrupt("a number is missing", position, path)
    negative = head[0] < 0x80
    bits = int.from_bytes(head.ljust(2, b"\xff" if negative else b"\x00"), "big")
    if negative:
        bits ^= 0xFFFF
    length = 16 - (bits ^ 0xFFFF).bit_length()  # leading ones
    if length > MAX_VARINT_BYTES or position + length > len(data):
        corrupt(f"a number of {length} bytes", position, path)
    code = int.from_bytes(data[position : position + length], "big")
    if negative:
        code ^= (1 << 8 * length) - 1
    magnitude = code & (1 << 7 * length) - 1
    value = ~magnitude if negative else magnitude
    if not _INT64_MIN <= value <= _INT64_MAX or magnitude.bit_length() // 7 + 1 != length:
        corrupt(f"a number of {length} bytes that is out of range or not minimal", position, path)
    return value, position + length
