"""Where a checkpoint is written until it is whole, and how it then gets its name.

    PREFIX.saving-TOKEN/NAME.index, NAME.data-00000-of-00001     while it is written
    PREFIX.index, PREFIX.data-00000-of-00002                     once it has its name

A prefix that is taken keeps its old data files while the new ones are put beside them, under a
count that no file there has; one rename of the index then replaces the checkpoint. To make up the
count, a small tensor gets a data file of its own: MergeV2Checkpoints counts the files that entries
name, not those of the header (tensorflow/core/util/tensor_bundle/tensor_bundle.cc).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

from estimator_ckpt import files
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, encode_index, read_index, shard_path
from estimator_ckpt.errors import CheckpointError, WriteError

SAVING = re.compile(r"(.+)\.saving-([0-9a-f]+)")
_DATA = re.compile(r"\.data-\d{5}-of-(\d{5})")


@contextlib.contextmanager
def staging(prefix: str, token: str) -> Iterator[str]:
    """A directory to write a checkpoint in, which goes in the end.

    Args:
      prefix: of the checkpoint.
      token: of this process.

    Yields:
      The prefix to write to.

    Raises:
      ValueError: there is no directory to save in; as the stock Saver says it.
      WriteError: nothing can be written there.
    """
    parent, name = os.path.split(prefix)
    directory = f"{prefix}.saving-{token}"
    if not files.is_dir(parent or "."):
        raise ValueError(f"Parent directory of {prefix} doesn't exist, can't save.")
    remove_tree(directory)
    files.make_dirs(directory)
    try:
        yield os.path.join(directory, name)
    finally:
        try:
            remove_tree(directory)
        except WriteError as error:
            if files.is_dir(parent or "."):
                logging.warning("%s", error)


def remove_tree(directory: str) -> None:
    """Removes a directory with all that is in it, if there is one.

    Raises:
      WriteError: it cannot be removed.
    """
    try:
        if tf.io.gfile.exists(directory):
            tf.io.gfile.rmtree(directory)
    except tf.errors.OpError as error:
        raise WriteError(f"cannot remove the directory: {error.message}", path=directory) from error


def data_files(prefix: str) -> dict[int, list[str]]:
    """The data files on the disk that have a checkpoint's name: their paths by their count."""
    directory, name = os.path.split(prefix)
    found: dict[int, list[str]] = {}
    for other in files.list_dir(directory or "."):
        if other.startswith(f"{name}.data-"):
            match = _DATA.fullmatch(other, len(name))
            if match:
                found.setdefault(int(match[1]), []).append(os.path.join(directory, other))
    return found


def is_same(index: Index, prefix: str) -> bool:
    """Whether the checkpoint on the disk has the keys of `index`, each with the same value, and
    all its data files in their length."""
    try:
        live = read_index(prefix)
        shards = [shard_path(prefix, n, live.num_shards) for n in range(live.num_shards)]
        sizes = [files.size(path) for path in shards]
    except CheckpointError:
        return False

    return (
        {key: _value(entry) for key, entry in index.entries.items()}
        == {key: _value(entry) for key, entry in live.entries.items()}
    ) and all(e.slices or e.offset + e.size <= sizes[e.shard] for e in live.entries.values())


def _value(entry: Entry) -> tuple[object, ...]:
    """What an entry says of its tensor, wherever that is stored."""
    return entry.dtype, entry.shape, entry.size, entry.crc32c, entry.slices


def put_in_place(staged: str, index: Index, prefix: str) -> None:
    """Gives a checkpoint that is written its name; what had the name before is replaced at once.

    Args:
      staged: the prefix that it was written to; what else is there moves, too, the graph first.
      index: what its index is to be.
      prefix: its own.

    Raises:
      WriteError: a file cannot be written or renamed; what had the name before still has it.
    """
    on_disk = data_files(prefix)
    count = index.num_shards
    while count in on_disk:
        count += 1
    placed = [shard_path(prefix, shard, count) for shard in range(count)]
    entries = dict(index.entries)
    try:
        for shard in range(index.num_shards, count):
            _move_smallest(staged, index.num_shards, entries, shard, placed[shard])
        for shard in range(index.num_shards):
            files.rename(shard_path(staged, shard, index.num_shards), placed[shard])
        move_beside(staged, prefix)
        data = encode_index(index._replace(num_shards=count, entries=entries))
        files.write_atomic(f"{prefix}.index", data, temporary=f"{staged}.new")
    except BaseException:
        if not _has_count(prefix, count):
            for path in placed:
                with contextlib.suppress(CheckpointError):
                    files.remove(path)
        raise


def _move_smallest(
    staged: str, num_shards: int, entries: dict[bytes, Entry], shard: int, path: str
) -> None:
    """Gives the smallest tensor, of a data file that has others too, a new data file.

    Args:
      staged: the checkpoint's prefix.
      num_shards: its count of data files.
      entries: its index; the entries of the tensor are changed.
      shard: the number of the new data file.
      path: its name. It is empty if no data file has two tensors.
    """
    ranges = {(e.size, e.offset, e.shard) for e in entries.values() if not e.slices}
    left = Counter(shard for _, _, shard in ranges)
    movable = [one for one in ranges if left[one[2]] > 1 and one[2] < num_shards]
    with files.open_write(path) as file:
        if movable:
            size, offset, old = min(movable)
            file.write(files.read_range(shard_path(staged, old, num_shards), offset, size))
            for key, entry in entries.items():
                place = (entry.size, entry.offset, entry.shard)
                if place == (size, offset, old) and not entry.slices:
                    entries[key] = entry._replace(shard=shard, offset=0)


def move_beside(staged: str, prefix: str) -> None:
    """Moves the graph, and what goes with it, from where it was written to beside the checkpoint.

    Raises:
      WriteError: it cannot be renamed.
    """
    directory = os.path.dirname(prefix)
    staging_directory, name = os.path.split(staged)
    for other in files.list_dir(staging_directory):
        path = os.path.join(staging_directory, other)
        is_bundle = other == f"{name}.index" or other.startswith(f"{name}.data-")
        if not is_bundle and not files.is_dir(path):
            files.rename(path, os.path.join(directory, other))


def _has_count(prefix: str, count: int) -> bool:
    """Whether a checkpoint's index speaks of so many data files; True if that cannot be told."""
    if not files.exists(f"{prefix}.index"):
        return False
    try:
        return read_index(prefix).num_shards == count
    except CheckpointError:
        return True
