"""TensorFlow's first checkpoint format: names, shapes and values in one table, or in several.

What TensorFlow wrote before 0.12, and what `Saver(write_version=V1)` still writes. Sources:
tensorflow/core/util/saved_tensor_slice.proto, tensor_slice_writer.cc, tensor_slice_reader.cc and
saved_tensor_slice_util.h; tensorflow/core/framework/tensor.proto.

    file  = a table (table.py): "" -> SavedTensorSlices with meta, slice key -> one with data
    meta  = 1: (1: name, 2: shape, 3: dtype, 4: slice*)*, 2: version
    data  = 1: name, 2: slice, 3: TensorProto

The key of a slice is in ordered code (slices.py); a variable that is whole is one slice, a scalar's
of rank 0. Of a TensorProto only the field with the values is written: packed floats, doubles and
parts of complex numbers as they lie in memory, packed varints for integers, bool and half, or one
bytes field for each string. Where there are several files, their names end in `-00000-of-00002`,
the checkpoint is called `-?????-of-00002`, and each has the slices that its meta names.

There is no checksum of a tensor: that of its block covers it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from google.protobuf.message import DecodeError

from estimator_ckpt import files
from estimator_ckpt.bundle import protos
from estimator_ckpt.bundle.dtypes import STRING, dtype_size
from estimator_ckpt.bundle.entries import Entry, decode_extents, decode_shape
from estimator_ckpt.bundle.index import (
    Index,
    V1Files,
    Version,
    check_slices,
    decode_version,
)
from estimator_ckpt.bundle.slices import Extents, key_text, slice_key, slice_shape
from estimator_ckpt.bundle.table import FOOTER_SIZE, is_table
from estimator_ckpt.bundle.tensors import TensorReader
from estimator_ckpt.bundle.v1_values import V1Reader, open_table
from estimator_ckpt.errors import (
    CheckpointError,
    CorruptCheckpointError,
    NotACheckpointError,
)

_META_KEY = b""
_PATTERN = re.compile(r"-\?{5}-of-(\d{5})$")
_SHARD = re.compile(r"-\d{5}-of-(\d{5})$")
_OTHER = re.compile(r"\.index$|\.meta$|\.data-\d{5}-of-\d{5}$|\.tempstate\d+$")
_LIKE_A_CHECKPOINT = re.compile(r"ckpt|-\d+$")


# --- the files ---


def v1_prefix(path: str) -> str | None:
    """The name of the V1 checkpoint that ``path`` is a file of, or the name or its start of.

    Args:
      path: a single file; a pattern `-?????-of-00002`; one of its files; what stands before it.

    Returns:
      None if there is none.

    Raises:
      NotACheckpointError: a file cannot be read.
    """
    if _PATTERN.search(path):
        return path if any(map(is_v1_file, _paths(path))) else None
    if not is_v1_file(path):
        directory, name = os.path.split(path)
        if not name or files.exists(path) or not files.is_dir(directory or "."):
            return None
        names = [n for n in files.list_dir(directory or ".") if _SHARD.sub("", n) == name]
        shards = [os.path.join(directory, n) for n in names if n != name]
        if not shards or not is_v1_file(shards[0]):
            return None
        path = shards[0]
    return _SHARD.sub(r"-?????-of-\1", path)


def is_v1_file(path: str) -> bool:
    """Whether a path is a file in the V1 format; not whether it is whole.

    Raises:
      NotACheckpointError: it cannot be read.
    """
    if not files.exists(path) or files.is_dir(path):
        return False
    end = max(files.size(path) - FOOTER_SIZE, 0)
    if not is_table(memoryview(files.read_range(path, end, FOOTER_SIZE))):
        return False
    try:
        meta = open_table(path).find(_META_KEY)
    except CheckpointError:
        return not path.endswith(".index")  # a broken one; its reader says how
    # A bundle's header begins with another field, and no other table has this key.
    return meta is not None and bytes(meta[:1]) == b"\x0a"


def v1_prefixes(directory: str, names: Iterable[str]) -> list[str]:
    """The complete V1 checkpoints among the files of a directory; not those with an index beside.

    Only the bytes of a file tell that it is one. Of remote files those are looked at that are
    called like a checkpoint.
    """
    names = set(names)
    shards: dict[str, int] = {}
    found = []
    for name in sorted(names):
        path = os.path.join(directory, name)
        is_other = name == "checkpoint" or _OTHER.search(name) or f"{name}.index" in names
        if is_other or (files.is_remote(path) and not _LIKE_A_CHECKPOINT.search(name)):
            continue
        try:
            is_v1 = is_v1_file(path)
        except CheckpointError:  # a pipe, or a job has just removed it
            is_v1 = False
        if not is_v1:
            continue
        prefix = _SHARD.sub(r"-?????-of-\1", path)
        shards[prefix] = shards.get(prefix, 0) + 1
        if shards[prefix] == len(_paths(prefix)):
            found.append(prefix)
    return found


def first_v1_file(prefix: str) -> str:
    """The first of the files of a V1 checkpoint."""
    return _paths(prefix)[0]


def _paths(prefix: str) -> list[str]:
    found = _PATTERN.search(prefix)
    if found is None:
        return [prefix]
    count = found.group(1)
    start = prefix[: found.start()]
    return [f"{start}-{number:05d}-of-{count}" for number in range(int(count))]


# --- the meta data ---


def read_v1(prefix: str) -> Index:
    """The names, shapes and slices of a V1 checkpoint, as entries of an index.

    Args:
      prefix: as v1_prefix() returns it.

    Raises:
      NotACheckpointError: a file cannot be read.
      CorruptCheckpointError: a file is missing or broken, or they do not fit together.
      UnsupportedCheckpointError: one needs a newer reader.
    """
    paths = _paths(prefix)
    missing = [path for path in paths if not files.exists(path)]
    if missing:
        raise CorruptCheckpointError(
            f"{len(missing)} of {len(paths)} files are missing: {missing[0]}", path=prefix
        )
    tensors: dict[bytes, tuple[int, bytes, dict[Extents, int]]] = {}
    messages: dict[bytes, Any] = {}
    version = Version()
    for number, path in enumerate(paths):
        meta = _read_meta(path)
        version = decode_version(meta.versions, path)
        for tensor in meta.tensor:
            name = tensor.name
            kind = tensor.type, tensor.shape.SerializeToString()
            known = tensors.setdefault(name, (*kind, {}))
            messages.setdefault(name, tensor.shape)
            if name[:1] in (b"", b"\0") or known[:2] != kind:
                raise CorruptCheckpointError(
                    "a variable's name is empty, or begins with a NUL character, or it has another "
                    "shape or dtype in another file",
                    path=path,
                    key=key_text(name),
                )
            for message in tensor.slice:
                if known[2].setdefault(decode_extents(message), number) != number:
                    raise CorruptCheckpointError(
                        "a slice is in two files", path=path, key=key_text(name)
                    )
    return _index(prefix, paths, tensors, messages, version)


def _read_meta(path: str) -> Any:
    data = open_table(path).find(_META_KEY)
    if data is None:
        raise NotACheckpointError("a table, but not one of a checkpoint", path=path)
    try:
        return protos.SavedTensorSlices.FromString(bytes(data)).meta
    except DecodeError as error:
        raise CorruptCheckpointError(f"no SavedTensorSlices message: {error}", path=path) from error


def _index(
    prefix: str,
    paths: list[str],
    tensors: dict[bytes, tuple[int, bytes, dict[Extents, int]]],
    messages: dict[bytes, Any],
    version: Version,
) -> Index:
    """The entries of the tensors, and where their slices are."""
    keys: list[list[bytes]] = [[] for _ in paths]
    for name, (_, _, slices) in tensors.items():
        for extents, number in slices.items():
            keys[number].append(slice_key(key_text(name), extents))
    for found in keys:
        found.sort()  # as they stand in the file
    offsets = [{key: offset for offset, key in enumerate(found)} for found in keys]
    entries: dict[bytes, Entry] = {}
    name = b""
    try:
        for name, (dtype, _, slices) in tensors.items():
            text = key_text(name)
            shape = decode_shape(dtype, messages[name])[0]
            width = dtype_size(dtype) or 0
            if not slices:
                raise CorruptCheckpointError("a variable without a slice")
            parts = {extents: slice_shape(shape, extents) for extents in slices}
            is_whole = len(slices) == 1 and shape in parts.values()
            if not is_whole:
                entries[name] = Entry(dtype, shape, 0, 0, 0, 0, tuple(slices))
            for extents, number in slices.items():
                key = slice_key(text, extents)
                size = math.prod(parts[extents]) * width
                entry = Entry(dtype, parts[extents], number, offsets[number][key], size, 0)
                entries[name if is_whole else key] = entry
        entries = dict(sorted(entries.items()))
        check_slices(entries, prefix)
    except CorruptCheckpointError as error:
        raise CorruptCheckpointError(
            error.message, path=prefix, key=error.key or key_text(name)
        ) from None
    index = Index(len(paths), entries, version, V1Files(tuple(paths), tuple(map(tuple, keys))))
    return _with_string_sizes(prefix, index)


def _with_string_sizes(prefix: str, index: Index) -> Index:
    """The index with the sizes of strings, which their values alone tell; they are few."""
    entries = dict(index.entries)
    with V1Reader(prefix, index) as reader:
        for key, entry in index.entries.items():
            if entry.dtype == STRING and not entry.slices:
                with suppress(CorruptCheckpointError):  # whoever reads it hears of it
                    entries[key] = entry._replace(size=len(reader.raw(entry)))
    return index._replace(entries=entries)


# --- either format ---


def open_reader(prefix: str, index: Index) -> TensorReader:
    """A reader of the values, for what read_v1() or read_index() returned."""
    return V1Reader(prefix, index) if index.v1 else TensorReader(prefix, index)


def plain_prefix(prefix: str) -> str:
    """What a copy in the V2 format is called: a V1 pattern without what stands for its files."""
    return _PATTERN.sub("", prefix)
