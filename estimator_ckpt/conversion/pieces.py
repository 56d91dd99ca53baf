"""What a conversion reads and writes in one go: a tensor, or a slice of one."""

from __future__ import annotations

from typing import NamedTuple

from estimator_ckpt.bundle.dtypes import dtype_size
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.conversion.plan import Content


class Piece(NamedTuple):
    """What is written in one go: a tensor, or a slice of one.

    Attributes:
      entry: of the source; None for what is new.
      content: of the whole tensor.
    """

    entry: Entry | None
    content: Content

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for pieces with the same bytes in the result."""
        content = self.content
        if self.entry is None:
            return content.value, content.dtype
        return self.entry.location, content.dtype, content.scale


def by_shard(pieces: list[Piece]) -> list[list[Piece]]:
    """Pieces as they were distributed over data files, in the order there; new ones in the last."""
    groups: dict[int, list[Piece]] = {}
    new = []
    for piece in pieces:
        if piece.entry is None:
            new.append(piece)
        else:
            groups.setdefault(piece.entry.shard, []).append(piece)
    found = [
        sorted(groups[shard], key=lambda piece: piece.entry.offset if piece.entry else 0)
        for shard in sorted(groups)
    ]
    if new and not found:
        found.append([])
    if new:
        found[-1] += new
    return found


def piece_size(piece: Piece) -> int:
    """How many bytes a piece takes in the result."""
    if piece.entry is None:
        return len(piece.content.value)
    before, after = dtype_size(piece.entry.dtype), dtype_size(piece.content.dtype)
    if before and after:
        return piece.entry.size // before * after
    return piece.entry.size
