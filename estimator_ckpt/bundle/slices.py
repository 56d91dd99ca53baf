"""The parts of a partitioned variable: their extents, their keys, whether they fit together.

Sources: tensorflow/core/util/saved_tensor_slice_util.cc, tensorflow/core/framework/tensor_slice.cc.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat

from estimator_ckpt.bundle.coding import (
    corrupt,
    decode_ordered_signed,
    decode_ordered_string,
    decode_ordered_unsigned,
    encode_ordered_signed,
    encode_ordered_string,
    encode_ordered_unsigned,
)
from estimator_ckpt.errors import CorruptCheckpointError

# Per dimension (start, length); length -1, with start 0, is the whole dimension.
Extents = tuple[tuple[int, int], ...]

# The key of a slice, in ordered code: the number 0, the variable's key, the rank, then the start
# and the length of each dimension as signed numbers.


def slice_key(name: str, extents: Sequence[tuple[int, int]]) -> bytes:
    """The key under which one slice of the variable with the key ``name`` stands."""
    code = [encode_ordered_unsigned(0), encode_ordered_string(key_bytes(name))]
    code.append(encode_ordered_unsigned(len(extents)))
    for extent in extents:
        code += map(encode_ordered_signed, extent)
    return b"".join(code)


def decode_slice_key(key: bytes) -> tuple[str, Extents]:
    """The variable's key and the extents of the slice with this key.

    Raises:
      CorruptCheckpointError: ``key`` is no slice key.
    """
    zero, position = decode_ordered_unsigned(key, 0)
    if zero:
        corrupt(f"not a slice key: {key!r}", 0, None)
    name, position = decode_ordered_string(key, position)
    rank, position = decode_ordered_unsigned(key, position)
    extents: list[tuple[int, int]] = []
    while position < len(key) and len(extents) < rank:
        start, position = decode_ordered_signed(key, position)
        length, position = decode_ordered_signed(key, position)
        extents.append((start, length))
    if position != len(key) or len(extents) != rank:
        corrupt(f"{len(extents)} extents in a slice key of rank {rank}: {key!r}", position, None)
    return key_text(name), tuple(extents)


def parse_slice_spec(text: str) -> tuple[tuple[int, ...], Extents]:
    """The shape of the whole and the extents of a slice, as SaveV2 and RestoreV2 take them.

    Args:
      text: such as "10 4 0,5:-" for rows 0 to 4 of shape [10, 4]; "-" is the whole dimension.
    """
    *shape, spec = text.split()
    extents = []
    for extent in spec.split(":"):
        start, _, length = extent.partition(",")
        extents.append((0, -1) if extent == "-" else (int(start), int(length)))
    return tuple(map(int, shape)), tuple(extents)


def key_bytes(key: str) -> bytes:
    """A key as it stands in the index."""
    return key.encode("utf-8", "surrogateescape")


def encode_keys(keys: Iterable[str]) -> Iterator[bytes]:
    """key_bytes() of each."""
    return map(str.encode, keys, repeat("utf-8"), repeat("surrogateescape"))


def decode_keys(keys: Iterable[bytes]) -> Iterator[str]:
    """key_text() of each."""
    return map(bytes.decode, keys, repeat("utf-8"), repeat("surrogateescape"))


def key_text(key: bytes) -> str:
    """A key of the index as text; bytes that are no UTF-8 become lone surrogates, and back."""
    return key.decode("utf-8", "surrogateescape")


def readable_key(key: bytes) -> str:
    """A key for people: of a slice the variable's, with the slice behind it."""
    if key[:1] != b"\0":
        return key_text(key)
    name, extents = decode_slice_key(key)
    parts = (":" if length < 0 else f"{start}:{start + length}" for start, length in extents)
    return f"{name}[{','.join(parts)}]"


def slice_shape(shape: Sequence[int], extents: Extents) -> tuple[int, ...]:
    """The shape of a slice of a tensor of that ``shape``.

    Raises:
      CorruptCheckpointError: the slice does not lie within the shape.
    """
    if len(extents) != len(shape):
        raise CorruptCheckpointError(f"slice {extents} of a tensor of shape {tuple(shape)}")
    lengths = []
    for size, (start, length) in zip(shape, extents):
        if length == -1 and start == 0:
            length = size
        if start < 0 or length < 0 or start + length > size:
            raise CorruptCheckpointError(f"slice {extents} of a tensor of shape {tuple(shape)}")
        lengths.append(length)
    return tuple(lengths)


_Box = tuple[tuple[int, int], ...]  # per dimension: the first, and the one behind the last
_MOST_PAIRED = 500
_MOST_CUTS = 100


def overlap(shape: Sequence[int], slices: Sequence[Extents]) -> bool:
    """Whether some element is in two of the ``slices``, each of which lies within ``shape``.

    Cuts the slices apart along one dimension after the other, which takes little more than sorting
    for every grid. What cannot be cut apart is compared pair by pair, if it is not too much for
    that: hundreds of slices in a pattern that no straight cut divides count as overlapping.
    """
    boxes = []
    for extents in slices:
        box = tuple(
            (start, start + (size if length == -1 else length))
            for size, (start, length) in zip(shape, extents)
        )
        if all(start < end for start, end in box):
            boxes.append(box)
    budget = _MOST_CUTS * len(boxes)
    groups = [boxes]
    while groups:
        group = groups.pop()
        if len(group) < 2:
            continue
        budget -= len(group)
        parts = _cut(group)
        if len(parts) > 1 and budget > 0:
            groups += parts
        elif len(group) > _MOST_PAIRED or any(
            _meet(box, other) for index, box in enumerate(group) for other in group[:index]
        ):
            return True
    return False


def _cut(boxes: list[_Box]) -> list[list[_Box]]:
    """``boxes`` in groups that planes across one dimension keep apart; one group if none does."""
    for axis in range(len(boxes[0])):
        boxes.sort(key=lambda box: box[axis])
        groups: list[list[_Box]] = []
        end = -1
        for box in boxes:
            if box[axis][0] >= end:
                groups.append([])
            groups[-1].append(box)
            end = max(end, box[axis][1])
        if len(groups) > 1:
            return groups
    return [boxes]


def _meet(box: _Box, other: _Box) -> bool:
    return all(a[0] < b[1] and b[0] < a[1] for a, b in zip(box, other))
