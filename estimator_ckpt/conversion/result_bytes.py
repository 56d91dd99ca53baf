"""The bytes of a conversion's result: the source's, as they are or computed, and new ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from estimator_ckpt import files
from estimator_ckpt.bundle.checksum import Checksum, checked
from estimator_ckpt.bundle.dtypes import STRING, VARIANT
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, data_path, shard_path
from estimator_ckpt.bundle.slices import key_bytes, slice_key
from estimator_ckpt.bundle.tensors import TensorReader
from estimator_ckpt.bundle.v1 import open_reader
from estimator_ckpt.conversion.casting import cast_chunk
from estimator_ckpt.conversion.pieces import Piece, read_chunks, split_chunks
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

    def _source_chunks(self, entry: Entry, key: str) -> Iterator[bytes]:
        """The bytes of an entry of the source, checked."""
        if self._index.v1 or entry.dtype in (STRING, VARIANT):
            with open_reader(self._source, self._index) as reader:
                if entry.dtype in (STRING, VARIANT):
                    reader.check(entry)
                    yield bytes(reader.raw(entry))
                else:  # a V1 file has no checksums
                    yield from split_chunks(reader.raw(entry), entry)
            return
        path = data_path(self._source, self._index, entry.shard)
        try:
            yield from checked(read_chunks(path, entry), entry.crc32c)
        except CorruptCheckpointError as error:
            if error.path is None:  # the checksum is wrong
                message = f"the {entry.size} bytes at byte {entry.offset}: {error.message}"
                raise CorruptCheckpointError(message, path=path, key=key) from None
            raise

    def _computed(self, chunk: bytes, dtype: int, content: Content, *, count: bool) -> bytes:
        """Bytes of the source, of values of `dtype`, as the result has them."""
        if not content.computed:
            return chunk
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
        with TensorReader(destination, index) as reader:
            for key, content in tensors.items():
                written = index.entries[key_bytes(key)]
                targets = [index.entries[slice_key(key, e)] for e in written.slices] or [written]
                for piece, target in zip(self.pieces(content), targets):
                    if (piece.identity, target.location) in seen:
                        continue
                    seen.add((piece.identity, target.location))
                    path = shard_path(destination, target.shard, index.num_shards)
                    chunks = self.chunks(piece, count=False)
                    if target.dtype in (STRING, VARIANT):
                        reader.check(target)
                        equal = b"".join(chunks) == bytes(reader.raw(target))
                    else:
                        equal = _are_written(chunks, path, target)
                    if not equal:
                        raise CorruptCheckpointError(
                            "what was written is not what was read", path=path, key=key
                        )
        return len(tensors)


def _are_written(chunks: Iterable[bytes], path: str, target: Entry) -> bool:
    """Whether a data file has these bytes for an entry, and the entry their checksum."""
    checksum = Checksum()
    with files.open_read(path) as file:
        file.seek(target.offset)
        for chunk in chunks:
            if file.read(len(chunk)) != chunk:
                return False
            checksum.add(chunk)
    return (checksum.size, checksum.masked) == (target.size, target.crc32c)
