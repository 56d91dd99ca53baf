"""The crc32c of blocks and tensors, masked as checkpoints store it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar, Union

import google_crc32c

from estimator_ckpt.bundle.coding import mask
from estimator_ckpt.errors import CorruptCheckpointError

Bytes = Union[bytes, memoryview]
_T = TypeVar("_T", bytes, memoryview)

_MOST_COPIED = 1 << 18


def extend_crc32c(crc: int, data: Bytes) -> int:
    """The crc32c of some bytes with the crc32c ``crc``, followed by ``data``."""
    # The extension takes bytes, and arrays that share them, but no memoryview.
    if isinstance(data, memoryview):
        if len(data) <= _MOST_COPIED:  # a listing, of blocks alone, does without numpy
            data = bytes(data)
        else:
            import numpy as np

            data = np.frombuffer(data, np.uint8)  # type: ignore[assignment]
    return google_crc32c.extend(crc, data)  # type: ignore[no-any-return]


def masked_crc32c(data: Bytes) -> int:
    """The crc32c of ``data`` in the masked form in which checkpoints store it."""
    return mask(extend_crc32c(0, data))


class Checksum:
    """Of bytes that come one after the other.

    Attributes:
      size: how many there were.
    """

    def __init__(self) -> None:
        self._crc = 0
        self.size = 0

    def add(self, data: Bytes) -> None:
        self._crc = extend_crc32c(self._crc, data)
        self.size += len(data)

    @property
    def masked(self) -> int:
        """As an entry stores it."""
        return mask(self._crc)


def checked(chunks: Iterable[_T], crc32c: int) -> Iterator[_T]:
    """Hands the chunks on; at their end raises CorruptCheckpointError if they have another sum.

    Args:
      chunks: all bytes of a tensor.
      crc32c: theirs, masked, as it is stored.
    """
    found = Checksum()
    for chunk in chunks:
        found.add(chunk)
        yield chunk
    if found.masked != crc32c:
        raise wrong_checksum(crc32c, found.masked)


def wrong_checksum(stored: int, computed: int) -> CorruptCheckpointError:
    """The error that says so."""
    return CorruptCheckpointError(f"checksum: stored {stored:08x}, computed {computed:08x}")
