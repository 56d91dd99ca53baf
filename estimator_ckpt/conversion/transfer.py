"""Carrying out a plan: data files linked, copied or written, and the index last of all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from typing import IO, NamedTuple

from estimator_ckpt import files
from estimator_ckpt.bundle.checksum import Checksum
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, data_path, read_index, shard_path, write_index
from estimator_ckpt.bundle.slices import encode_keys, key_bytes, slice_key
from estimator_ckpt.bundle.v1 import open_reader
from estimator_ckpt.conversion.appended import Appended
from estimator_ckpt.conversion.destination import Site, claimed_in_place, passing_name
from estimator_ckpt.conversion.pieces import Piece, by_shard, piece_size
from estimator_ckpt.conversion.plan import Content
from estimator_ckpt.conversion.request import mark_of
from estimator_ckpt.conversion.result_bytes import ResultBytes
from estimator_ckpt.errors import NotACheckpointError, WriteError
from estimator_ckpt.files import Progress

Tensors = Mapping[str, Content]
Stamp = tuple[int, ...]


class Written(NamedTuple):
    """What was written.

    Attributes:
      data_files: path and how it came to be.
      compared: how many tensors were read again and compared; None if none were.
      underflows: how many values a cast has made 0, by the keys in the source.
    """

    data_files: list[tuple[str, str]]
    compared: int | None
    underflows: dict[str, int]


class Transfer:
    """One conversion's files.

    Where it is given a `prove`, True compares the result with the source before its index is
    written, and None does so if bytes of the source were copied or computed with.

    Args:
      source: the prefix to convert.
      index: of the source.
      tensors: what the result has under each key.
      progress: called with the bytes copied or written and those in all.
      stamp: of the index, when it was read; () where it is not known.
    """

    def __init__(
        self,
        source: str,
        index: Index,
        tensors: Tensors,
        progress: Progress = None,
        stamp: Stamp = (),
    ) -> None:
        self._source = source
        self._index = index
        self._read_as = stamp
        self._tensors = tensors
        sources = map(attrgetter("source"), tensors.values())
        found = map(index.entries.get, encode_keys(sources))
        # Nearly all: those in one piece, of which the bytes stay as they are.
        self._whole = {
            key: entry
            for (key, content), entry in zip(tensors.items(), found)
            if entry and entry.size and not entry.slices and not content.computed
        }
        self._others = [key for key in tensors if key not in self._whole]
        self._progress = progress
        self._done = 0
        self._total = 0
        self._bytes = ResultBytes(source, index)

    def close(self) -> None:
        """Lets go of what was read ahead."""
        self._bytes.close()

    # --- to a new place ---

    def write_new(self, site: Site, *, copy: bool, compact: bool, prove: bool | None) -> Written:
        """Writes a new checkpoint, the index last; the site's `undo` removes it again.

        Raises:
          WriteError: it cannot be written, or another has taken the site.
          CorruptCheckpointError: the bytes of the source are not what its index says.
          NotACheckpointError: the source was written again meanwhile, or is gone.
        """
        destination, undo = site.destination, site.undo
        linked = {} if compact else self._used_shards()
        new = list(self._rewritten(compact))
        groups = by_shard(new) if compact else ([new] if new else [])
        count = max(len(linked) + len(groups), 1)
        if not linked and not groups:
            groups = [[]]
        sizes = {shard: files.size(self._shard(shard)) for shard in linked}
        self._total = sum(sizes.values()) + sum(piece_size(piece) for piece in new)
        paths = [shard_path(destination, target, count) for target in linked.values()]
        for path in paths:
            undo.callback(files.remove, path)
        hows = files.link_or_copy_all(
            list(zip(map(self._shard, linked), paths)), copy=copy, progress=self._report
        )
        now = self._stamp()
        if linked and self._read_as and now not in ((), self._read_as):  # the data may be another's
            raise NotACheckpointError(
                "it was written again while it was being converted; convert it once more",
                path=self._source,
            )
        for shard, how in zip(linked, hows):
            if how == "copy":
                self._done += sizes[shard]
            else:
                self._total -= sizes[shard]
        written = list(zip(paths, hows))
        new_entries: dict[tuple[object, ...], Entry] = {}
        for target, group in enumerate(groups, start=len(linked)):
            path = shard_path(destination, target, count)
            undo.callback(files.remove, path)
            with files.open_write(path) as file:
                self._write_pieces(file, group, shard=target, offset=0, new_entries=new_entries)
            written.append((path, "write"))
        index = Index(count, self._entries(linked, new_entries, compact), self._index.version)
        if prove is None:
            prove = any(piece.entry for piece in new) or any(how != "link" for how in hows)
        compared = self._bytes.compare(self._tensors, destination, index) if prove else None
        path = f"{destination}.index"
        if not site.claim.holds() or files.exists(path):
            raise WriteError("another has written to this place meanwhile", path=destination)
        undo.callback(files.remove, path)
        write_index(destination, index, temporary=passing_name(path))
        return Written(written, compared, self._bytes.underflows)

    # --- in place ---

    def write_in_place(self, *, prove: bool | None, request: bytes) -> Written | None:
        """Rewrites the index; what is new is appended to the last data file before.

        Readers of the old index find all that it names until the new one stands in its place. If
        that data file is linked from elsewhere, as conversions and `cp -l` do, a copy takes its
        place first: what others have stays as it is. What an earlier conversion has appended, and
        no index names any more, is used again.

        Args:
          request: what the index is to tell was asked: see request.py.

        Returns:
          What was written; None if another process has just done what was asked.

        Raises:
          BusyError: a job saves to the directory, or another conversion is at work there.
          WriteError: the files cannot be written, or the checkpoint was replaced or removed
            meanwhile; it is what it was.
        """
        with claimed_in_place(self._source):
            stamp = self._stamp()
            there = read_index(self._source)
            if request and there.mark == mark_of(request, there.entries):
                return None
            if there != self._index:
                raise self._replaced()
            return self._rewrite(stamp, prove, request)

    def _rewrite(self, stamp: Stamp, prove: bool | None, request: bytes) -> Written:
        count = self._index.num_shards
        new_entries: dict[tuple[object, ...], Entry] = {}
        new = []
        appended = Appended(self._source, self._index)
        for piece in self._rewritten(False):
            entry = appended.find(piece.content) if piece.entry is None else None
            if entry is None:
                new.append(piece)
            else:
                new_entries[piece.identity] = entry
        written = [(self._shard(shard), "same") for shard in range(count)]
        with contextlib.ExitStack() as undo:
            if new:
                self._total = sum(piece_size(piece) for piece in new)
                path, how = written[-1][0], "append"
                if files.is_linked(path):
                    self._total += files.size(path)
                    check = prove is not False
                    own = passing_name(path)
                    how = files.detach(path, own, check=check, progress=self._report)
                    self._done += files.size(path)
                written[-1] = (path, how)
                end = files.size(path)
                undo.callback(self._cut_off, path, end, files.stamp(path), stamp)
                with files.open_write(path, append=True) as file:
                    self._write_pieces(
                        file, new, shard=count - 1, offset=end, new_entries=new_entries
                    )
            shards = {shard: shard for shard in range(count)}
            entries = self._entries(shards, new_entries, False)
            mark = mark_of(request, entries)
            index = Index(count, entries, self._index.version, mark=mark)
            if prove is None:
                prove = any(piece.entry for piece in new)
            compared = self._bytes.compare(self._tensors, self._source, index) if prove else None
            path = f"{self._source}.index"
            if self._stamp() != stamp:
                if new and how != "append" and not files.exists(path):
                    files.remove(written[-1][0])  # which the copy has brought back
                raise self._replaced()
            write_index(self._source, index, temporary=passing_name(path))
            undo.pop_all()
        return Written(written, compared, self._bytes.underflows)

    def _cut_off(
        self, path: str, end: int, before: tuple[int, ...], stamp: tuple[int, ...]
    ) -> None:
        """Takes back what was appended, while no index names it and the file is still that one."""
        if self._stamp() == stamp and files.stamp(path)[:2] == before[:2]:
            files.truncate(path, end)

    def _stamp(self) -> Stamp:
        """What changes when the index is written again."""
        return files.stamp_or_none(f"{self._source}.index")

    def _replaced(self) -> WriteError:
        return WriteError(
            "the checkpoint was written again or removed while it was to be converted in place; a "
            "job may be at work in the directory",
            path=self._source,
        )

    def _report(self, done: int, _: int = 0) -> None:
        if self._progress is not None:
            self._progress(self._done + done, self._total)

    def _shard(self, shard: int) -> str:
        return data_path(self._source, self._index, shard)

    # --- pieces ---

    def _rewritten(self, compact: bool) -> Iterator[Piece]:
        """What has to be written, each once: what is new or computed; if compact, everything."""
        seen: set[tuple[object, ...]] = set()
        for key in self._tensors if compact else self._others:
            content = self._tensors[key]
            if compact or not content.source or content.computed:
                for piece in self._bytes.pieces(content):
                    if piece.identity not in seen:
                        seen.add(piece.identity)
                        yield piece

    def _used_shards(self) -> dict[int, int]:
        """The data files with bytes that stay as they are -> their numbers in the result."""
        used = set(map(attrgetter("shard"), self._whole.values()))
        for content in map(self._tensors.__getitem__, self._others):
            if not content.computed:
                entries = [piece.entry for piece in self._bytes.pieces(content)]
                used |= {entry.shard for entry in entries if entry and entry.size}
        return {shard: target for target, shard in enumerate(sorted(used))}

    def _entries(
        self,
        shards: Mapping[int, int],
        new_entries: Mapping[tuple[object, ...], Entry],
        compact: bool,
    ) -> dict[bytes, Entry]:
        """The index of the result."""
        entries = self._index.entries
        found: dict[bytes, Entry] = {}
        keys: Iterable[str] = self._tensors
        if not compact and all(shard == target for shard, target in shards.items()):
            found.update(zip(encode_keys(self._whole), self._whole.values()))
            keys = self._others

        def moved(entry: Entry, content: Content) -> Entry:
            if compact or content.computed:
                return new_entries[Piece(entry, content).identity]._replace(shape=entry.shape)
            if entry.shard not in shards:  # it has no bytes, then
                return entry._replace(shard=0, offset=0)
            return entry._replace(shard=shards[entry.shard])

        for key in keys:
            content = self._tensors[key]
            if not content.source:
                found[key_bytes(key)] = new_entries[Piece(None, content).identity]
                continue
            entry = entries[key_bytes(content.source)]
            if entry.slices:
                found[key_bytes(key)] = entry._replace(dtype=content.dtype)
                for extents in entry.slices:
                    part = entries[slice_key(content.source, extents)]
                    found[slice_key(key, extents)] = moved(part, content)
            else:
                found[key_bytes(key)] = moved(entry, content)
        return found

    # --- bytes ---

    def _write_pieces(
        self,
        file: IO[bytes],
        pieces: Iterable[Piece],
        *,
        shard: int,
        offset: int,
        new_entries: dict[tuple[object, ...], Entry],
    ) -> None:
        """Appends pieces to a data file of the result, and adds their entries."""
        pieces = list(pieces)
        self._bytes.expect(pieces)
        for piece in pieces:
            content = piece.content
            checksum = Checksum()
            for chunk in self._bytes.chunks(piece):
                file.write(chunk)
                checksum.add(chunk)
                if piece.entry is not None:
                    self._report(len(chunk))
                self._done += len(chunk)
            stored = checksum.masked
            if piece.entry is None:
                stored = content.crc32c
            elif not content.computed:
                with open_reader(self._source, self._index) as reader:
                    stored = reader.crc32c(piece.entry)  # strings are summed up in another way
            shape = content.shape if piece.entry is None else piece.entry.shape
            new_entries[piece.identity] = Entry(
                content.dtype, shape, shard, offset, checksum.size, stored
            )
            offset += checksum.size
