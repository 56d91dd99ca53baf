"""Whether the files of a checkpoint are whole: every checksum, offset, slice and object key."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from operator import add, le

from estimator_ckpt import files
from estimator_ckpt.bulk import collector_paused, columns_of
from estimator_ckpt.bundle.checksum import checked
from estimator_ckpt.bundle.dtypes import STRING, VARIANT, dtype_name
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, data_path, shard_path
from estimator_ckpt.bundle.slices import key_bytes, readable_key
from estimator_ckpt.bundle.v1 import open_reader
from estimator_ckpt.checkpoint import read_object_graph
from estimator_ckpt.errors import (
    CheckpointError,
    CorruptCheckpointError,
    UnsupportedCheckpointError,
)
from estimator_ckpt.files import Progress
from estimator_ckpt.objects.object_graph import OBJECT_GRAPH_KEY, ObjectGraph
from estimator_ckpt.reading.index_keys import graph_faults, graph_notes, slice_faults
from estimator_ckpt.reading.input_files import (
    had_position,
    input_directory,
    position_size,
    positions,
)
from estimator_ckpt.reading.locate import find_prefix, read_any_index
from estimator_ckpt.text.html import html_table

_SMALL = 1 << 20  # bytes
_DATA = re.compile(r"\.data-(\d{5,})-of-(\d{5,})")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
      kind: "index", "data file" (missing), "range", "overlap", "checksum", "slices" or
        "object graph".
      file: the file it is in.
      key: the key it is about, if one; the first of several that share the bytes.
      offset: the byte in the file where it is or begins, where one is known.
      message: what was expected and what was found.
    """

    kind: str
    file: str
    message: str
    key: str | None = None
    offset: int | None = None


@dataclass(frozen=True)
class VerifyReport:
    """What verify_checkpoint() found.

    Attributes:
      path: as it was given.
      prefix: of the checkpoint.
      faults: everything that is wrong; empty for a checkpoint that is whole.
      notes: what is unusual but does no harm.
      keys: how many keys the index has.
      checked_bytes: of the data files, the bytes whose checksums were computed.
      unused_bytes: of the data files, the bytes that no key names.
      input_bytes: of the files of the input's position beside it, which were checked as well; 0
        where there are none.
    """

    path: str
    prefix: str
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]
    keys: int = 0
    checked_bytes: int = 0
    unused_bytes: int = 0
    input_bytes: int = 0

    def _repr_html_(self) -> str:
        rows = (
            (one.kind, one.key or "", "" if one.offset is None else str(one.offset), one.message)
            for one in self.faults
        )
        total = f"{len(self.faults)} faults" if self.faults else "whole"
        return html_table(self.prefix, ["fault", "key", "byte", "what"], rows, total)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


def verify_checkpoint(path: str | os.PathLike[str], *, progress: Progress = None) -> VerifyReport:
    """Reads all of a checkpoint and checks all of it; goes on after a fault.

    Checked are the index, the presence and length of every data file, the checksum of every
    tensor, that no two tensors overlap (two keys for the same bytes are meant), that the slices of
    a partitioned variable cover it, and that the object graph and the keys belong together. So are
    the files of the input's position, where a job has saved it with the checkpoint (`save_input`).

    2 MiB are in memory at a time, of a remote checkpoint 24 MiB; strings as a whole.

    Args:
      path: whatever open_checkpoint() takes.
      progress: called with the bytes checked so far and the bytes in all.

    Raises:
      SettingsError: no path.
      NotACheckpointError: there is no checkpoint.
      UnsupportedCheckpointError: one that cannot be read: big-endian, of a newer format.
    """
    report = verify_tensors(path, progress=progress)
    faults, notes, checked = list(report.faults), list(report.notes), report.checked_bytes
    there = positions(report.prefix)
    for position in there.values():
        if not files.exists(f"{position}.index"):
            message = "missing, though other files of the input's position are there"
            faults.append(Fault("index", f"{position}.index", message))
            continue
        found = verify_tensors(position)
        faults += found.faults
        notes += found.notes
        checked += found.checked_bytes
    if not there and had_position(report.prefix):
        notes.append(f"{input_directory(report.prefix)}, with the input's position, was removed")
    return replace(
        report,
        faults=tuple(faults),
        notes=tuple(notes),
        checked_bytes=checked,
        input_bytes=position_size(report.prefix),
    )


def verify_tensors(path: str | os.PathLike[str], *, progress: Progress = None) -> VerifyReport:
    """verify_checkpoint() without the position of the input."""
    path = files.path_text(path)
    prefix = find_prefix(path)
    try:
        index = read_any_index(prefix)
    except CorruptCheckpointError as error:
        note = "the data files were not checked: without its index nothing says what is in them"
        fault = Fault("index", error.path or f"{prefix}.index", error.message, error.key)
        return VerifyReport(path, prefix, (fault,), (note,))
    if index.v1:
        return _verify_v1(path, prefix, index, progress)
    sizes = _sizes(prefix, index)
    ranges = _Ranges(prefix, index, sizes)
    faults = [*_missing_files(prefix, index, sizes), *ranges.faults]
    data_faults = list(_checksum_faults(prefix, index, ranges.readable, progress))
    faults += data_faults
    faults += [Fault("slices", f"{prefix}.index", m, key) for key, m in slice_faults(index)]
    notes = [*ranges.notes(), *_notes_of_other_files(prefix, index.num_shards)]
    if not any(fault.key == OBJECT_GRAPH_KEY for fault in faults):
        try:
            graph = read_object_graph(prefix, index)
            found = graph_faults(graph, index)
            faults += [Fault("object graph", f"{prefix}.index", m, key) for key, m in found]
            notes += graph_notes(graph, index)
        except CheckpointError as error:
            entry = index.entries[key_bytes(OBJECT_GRAPH_KEY)]
            file = shard_path(prefix, entry.shard, index.num_shards)
            fault = Fault("object graph", file, error.message, error.key, entry.offset)
            faults.append(fault)
    return VerifyReport(
        path,
        prefix,
        tuple(faults),
        tuple(notes),
        keys=len(index.entries),
        checked_bytes=sum(entry.size for _, entry in ranges.readable),
        unused_bytes=sum(ranges.unused),
    )


def _verify_v1(path: str, prefix: str, index: Index, progress: Progress) -> VerifyReport:
    """The report of a checkpoint in the V1 format: its blocks have the checksums."""
    found = [(key, entry) for key, entry in index.entries.items() if not entry.slices]
    found.sort(key=lambda item: (item[1].shard, item[1].offset))  # as they stand in the files
    faults = list(_checksum_faults(prefix, index, found, progress))
    faults += [Fault("slices", prefix, message, key) for key, message in slice_faults(index)]
    checked = sum(entry.size for _, entry in found)
    return VerifyReport(
        path, prefix, tuple(faults), (), keys=len(index.entries), checked_bytes=checked
    )


def structure_faults(
    prefix: str, index: Index, object_graph: ObjectGraph | None
) -> Iterator[Fault]:
    """The faults that show without the data: of files, ranges, slices and object keys."""
    if not index.v1:  # of which all files were there to be read
        sizes = _sizes(prefix, index)
        yield from _missing_files(prefix, index, sizes)
        if not _are_apart(index, sizes):
            yield from _Ranges(prefix, index, sizes).faults
    for kind, found in (
        ("slices", slice_faults(index)),
        ("object graph", graph_faults(object_graph, index)),
    ):
        for key, message in found:
            yield Fault(kind, f"{prefix}.index", message, key)


def _are_apart(index: Index, sizes: list[int | None]) -> bool:
    """Whether a glance shows that no tensors overlap, and that none ends behind its file."""
    columns = columns_of(index.entries.values(), "shard", "offset", "size")
    shards, offsets, lengths = map(list, columns)
    # All data files are taken for one.
    firsts = [shard << 64 for shard in range(len(sizes))]
    limits = [first + (size or 0) for first, size in zip(firsts, sizes)]
    starts = list(map(add, map(firsts.__getitem__, shards), offsets))
    ends = list(map(add, starts, lengths))
    fit = all(map(le, ends, map(limits.__getitem__, shards)))
    # Where two overlap, the second has begun before as many have ended.
    return fit and all(map(le, sorted(ends), islice(sorted(starts), 1, None)))


def _sizes(prefix: str, index: Index) -> list[int | None]:
    """The size of each data file; None for what is none."""
    paths = [shard_path(prefix, shard, index.num_shards) for shard in range(index.num_shards)]
    return files.for_each(_size, paths)


def _size(path: str) -> int | None:
    return files.size(path) if files.exists(path) and not files.oddity(path) else None


def _missing_files(prefix: str, index: Index, sizes: list[int | None]) -> Iterator[Fault]:
    keys: dict[int, list[bytes]] = {shard: [] for shard, size in enumerate(sizes) if size is None}
    for key, entry in index.entries.items() if keys else ():
        if entry.shard in keys and not entry.slices:
            keys[entry.shard].append(key)
    for shard, lost in keys.items():
        path = shard_path(prefix, shard, index.num_shards)
        first = f", {readable_key(min(lost))!r} among them" if lost else ""
        odd = files.oddity(path)
        what = f"{odd} in its place" if odd else "missing"
        message = f"{what}, with {len(lost)} of the {len(index.entries)} keys{first}"
        yield Fault("data file", path, message)


def _notes_of_other_files(prefix: str, num_shards: int) -> Iterator[str]:
    """A line for each data file of this name that the index does not count."""
    directory, name = os.path.split(prefix)
    directory = directory or "."
    for other in files.list_dir(directory) if num_shards else ():  # else a SavedModel without any
        match = other.startswith(name) and _DATA.fullmatch(other, len(name))
        if match and (int(match[2]) != num_shards or int(match[1]) >= num_shards):
            yield (
                f"{os.path.join(directory, other)} is not of this checkpoint, whose data files are "
                f"{num_shards}: one that was replaced and waits for its deletion, or left over"
            )


class _Ranges:
    """Which bytes of the data files belong to which key.

    Attributes:
      readable: a key and its entry for each different range within a file, in the files' order.
      unused: by data file, the bytes between and behind the ranges.
      faults: ranges beyond a file's end, and overlaps.
    """

    @collector_paused()
    def __init__(self, prefix: str, index: Index, sizes: list[int | None]) -> None:
        self._prefix = prefix
        self._index = index
        self.readable: list[tuple[bytes, Entry]] = []
        self.unused = [0] * len(sizes)
        self.faults: list[Fault] = []
        self._first_unused: dict[int, int] = {}
        ends = [0] * len(sizes)
        last: tuple[bytes, Entry] | None = None
        # By location; then those that stand for the same bytes are neighbours.
        for key, entry in sorted(
            (item for item in index.entries.items() if not item[1].slices),
            key=lambda item: item[1].location,
        ):
            shard, offset, length = entry.location
            size, end = sizes[shard], offset + length
            if size is None:
                continue
            if end > size:
                message = f"{length} bytes, but the file ends at byte {size}"
                self._fault("range", key, entry, message)
                continue
            if length and last is not None and last[1].location == entry.location:
                if last[1] != entry:
                    self._same_bytes(last, key, entry)
                continue
            if length and offset < ends[shard] and last is not None:
                message = f"its {length} bytes overlap those of {readable_key(last[0])!r}"
                self._fault("overlap", key, entry, message)
            self._count_unused(shard, ends[shard], offset)
            self.readable.append((key, entry))
            if end > ends[shard] or last is None:
                ends[shard] = end
                last = key, entry
        for shard, size in enumerate(sizes):
            if size is not None:
                self._count_unused(shard, ends[shard], size)

    def _fault(self, kind: str, key: bytes, entry: Entry, message: str) -> None:
        file = shard_path(self._prefix, entry.shard, self._index.num_shards)
        self.faults.append(Fault(kind, file, message, readable_key(key), entry.offset))

    def _same_bytes(self, last: tuple[bytes, Entry], key: bytes, entry: Entry) -> None:
        kept, other = (
            f"{dtype_name(e.dtype)}{list(e.shape)}, checksum {e.crc32c:08x}"
            for e in (last[1], entry)
        )
        message = f"the bytes of {readable_key(last[0])!r} ({kept}), but {other}"
        self._fault("overlap", key, entry, message)

    def _count_unused(self, shard: int, start: int, end: int) -> None:
        if end > start:
            self.unused[shard] += end - start
            self._first_unused.setdefault(shard, start)

    def notes(self) -> list[str]:
        """A line for each data file with unused bytes."""
        return [
            f"{shard_path(self._prefix, shard, self._index.num_shards)}: {count:,} bytes, the "
            f"first at byte {self._first_unused[shard]:,}, belong to no key"
            for shard, count in enumerate(self.unused)
            if count
        ]


def _checksum_faults(
    prefix: str, index: Index, ranges: Iterable[tuple[bytes, Entry]], progress: Progress
) -> Iterator[Fault]:
    ranges = list(ranges)
    total = sum(entry.size for _, entry in ranges)
    done = 0
    with open_reader(prefix, index) as reader:
        reader.expect(entry for _, entry in ranges)
        for key, entry in ranges:
            try:
                if index.v1 or entry.size <= _SMALL or entry.dtype in (STRING, VARIANT):
                    reader.check(entry)
                    done += entry.size
                    if progress:
                        progress(done, total)
                    continue
                for chunk in checked(reader.chunks(entry), entry.crc32c):
                    done += len(chunk)
                    if progress:
                        progress(done, total)
            except (CorruptCheckpointError, UnsupportedCheckpointError) as error:
                file = data_path(prefix, index, entry.shard)
                message = error.message.partition(f"at byte {entry.offset}: ")[2] or error.message
                offset = None if index.v1 else entry.offset
                yield Fault("checksum", file, message, readable_key(key), offset)
