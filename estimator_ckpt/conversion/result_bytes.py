"""The bytes of a conversion's result: the source's, as they are or computed, and new ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from estimator_ckpt.bundle.checksum import Bytes, Checksum, checked
from estimator_ckpt.bundle.dtypes import STRING, VARIANT
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, data_path, shard_path
from estimator_ckpt.bundle.slices import key_bytes, slice_key
from estimator_ckpt.bundle.tensors import TensorReader
from estimator_ckpt.bundle.v1 import open_reader
from estimator_ckpt.conversion.casting import cast_chunk
from estimator_ckpt.conversion.pieces import Piece
from estimator_ckpt.conversion.plan import Content
from estimator_ckpt.errors import CorruptCheckpointError, MismatchError


class ResultBytes:
    """Reads the source of a conversion, and computes from it what the result has.

    Args:
      source: the prefix to convert.
      index: of the source.

    Attributes:
      underflows: how many values casts have made 0 so far, by the keys in the source.
    """

    def __init__(self, source: str, index: Index) -> None:
        self._source = source
        self._index = index
        self._reader = open_reader(source, index)
        self.underflows: dict[str, int] = {}

    def pieces(self, content: Content) -> Iterator[Piece]:
        """The tensor, or its slices."""
        if not content.source:
            yield Piece(None, content)
            return
        entry = self._index.entries[key_bytes(content.source)]
        for extents in entry.slices:
            yield Piece(self._index.entries[slice_key(content.source, extents)], content)
        if not entry.slices:
            yield Piece(entry, content)

    def close(self) -> None:
        """Lets go of what was read ahead."""
        self._reader.close()

    def expect(self, pieces: Iterable[Piece]) -> None:
        """Reads ahead: chunks() is asked for these in this order."""
        self._reader.expect(piece.entry for piece in pieces if piece.entry is not None)

    def chunks(self, piece: Piece, *, count: bool = True) -> Iterator[bytes]:
        """The bytes of a piece as they are in the result, a few megabytes at a time.

        Args:
          piece: which.
          count: whether to count its underflows, as the first that reads it does.

        Raises:
          CorruptCheckpointError: those of the source have another checksum than its index says.
          MismatchError: as cast_chunk() does.
        """
        if piece.entry is None:
            yield piece.content.value
            return
        for chunk in self._source_chunks(piece.entry, piece.content.source):
            yield self._computed(chunk, piece.entry.dtype, piece.content, count=count)

    def _source_chunks(self, entry: Entry, key: str) -> Iterator[memoryview]:
        """The bytes of an entry of the source, checked."""
        if entry.dtype in (STRING, VARIANT):
            self._reader.check(entry)
            yield self._reader.raw(entry)
        elif self._index.v1:  # whose file has no checksums
            yield from self._reader.chunks(entry)
        else:
            try:
                yield from checked(self._reader.chunks(entry), entry.crc32c)
            except CorruptCheckpointError as error:
                if error.path is not None:
                    raise
                raise CorruptCheckpointError(
                    f"the {entry.size} bytes at byte {entry.offset}: {error.message}",
                    path=data_path(self._source, self._index, entry.shard),
                    key=key,
                ) from None

    def _computed(self, chunk: Bytes, dtype: int, content: Content, *, count: bool) -> bytes:
        """Bytes of the source, of values of `dtype`, as the result has them."""
        if not content.computed:
            return bytes(chunk)
        try:
            found, zeros = cast_chunk(
                chunk, dtype, content.dtype, content.scale, content.source, content.strict
            )
        except MismatchError as error:
            error.path = self._source
            raise
        if zeros and count:
            self.underflows[content.source] = self.underflows.get(content.source, 0) + zeros
        return found

    def expect_values(self, contents: Iterable[Content]) -> None:
        """Reads ahead: values() is asked for these in this order."""
        pieces = (list(self.pieces(content)) for content in contents)
        self.expect(several[0] for several in pieces if len(several) == 1)

    def values(self, content: Content) -> Iterator[bytes]:
        """The bytes of a whole tensor of the result, a few megabytes at a time.

        Those of a partitioned variable are put together from its slices, some rows at a time.

        Raises:
          CorruptCheckpointError, MismatchError: as chunks() does.
        """
        first = next(self.pieces(content))
        if first.entry is None or not self._index.entries[key_bytes(content.source)].slices:
            yield from self.chunks(first)
            return
        with open_reader(self._source, self._index) as reader:
            for rows in reader.rows(key_bytes(content.source)):
                yield self._computed(rows.tobytes(), first.entry.dtype, content, count=True)

    def compare(self, tensors: Mapping[str, Content], destination: str, index: Index) -> int:
        """Reads source and result again; returns how many tensors were compared.

        Args:
          tensors: what the result has under each key.
          destination: the prefix of the result.
          index: of the result.

        Raises:
          CorruptCheckpointError: they differ, or a checksum is wrong.
        """
        seen: set[tuple[object, ...]] = set()
        pairs: list[tuple[str, Piece, Entry]] = []
        for key, content in tensors.items():
            written = index.entries[key_bytes(key)]
            targets = [index.entries[slice_key(key, e)] for e in written.slices] or [written]
            for piece, target in zip(self.pieces(content), targets):
                if (piece.identity, target.location) not in seen:
                    seen.add((piece.identity, target.location))
                    pairs.append((key, piece, target))
        self.expect(piece for _, piece, _ in pairs)
        with TensorReader(destination, index) as reader:
            reader.expect(target for _, _, target in pairs)
            for key, piece, target in pairs:
                if target.dtype in (STRING, VARIANT):
                    reader.check(target)
                if not _are_written(self.chunks(piece, count=False), reader.chunks(target), target):
                    path = shard_path(destination, target.shard, index.num_shards)
                    raise CorruptCheckpointError(
                        "what was written is not what was read", path=path, key=key
                    )
        return len(tensors)


def _are_written(chunks: Iterable[bytes], found: Iterator[memoryview], target: Entry) -> bool:
    """Whether a data file has these bytes for an entry, and the entry their checksum."""
    checksum = Checksum()
    left = memoryview(b"")
    for chunk in chunks:
        checksum.add(chunk)
        start = 0
        while start < len(chunk):
            left = left or next(found, left)
            size = min(len(chunk) - start, len(left))
            # Copies, as views are compared byte by byte.
            if not size or bytes(left[:size]) != bytes(chunk[start : start + size]):
                return False
            start, left = start + size, left[size:]
    in_another_way = target.dtype in (STRING, VARIANT)  # is its checksum computed
    return checksum.size == target.size and (in_another_way or checksum.masked == target.crc32c)
