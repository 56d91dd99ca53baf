"""Checkpoints written by our own writer, as TensorFlow's SaveV2 writes them.

For tests that need files and no TensorFlow; test_own_files.py shows that they are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from estimator_ckpt.bundle.aliases import with_keys
from estimator_ckpt.bundle.checksum import masked_crc32c
from estimator_ckpt.bundle.dtypes import dtype_name
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, read_index, shard_path, write_index
from estimator_ckpt.bundle.slices import key_bytes, slice_key
from estimator_ckpt.bundle.tensors import encode_strings
from estimator_ckpt.objects.object_graph import OBJECT_GRAPH_KEY, ObjectGraph

_NUMBERS = {dtype_name(number): number for number in range(1, 34)}


def save(
    prefix: Path,
    tensors: Mapping[str, Any],
    graph: ObjectGraph | None = None,
    slices: Mapping[str, int] | None = None,
) -> str:
    """What stock_files.save() does."""
    if graph is not None:
        tensors = {**tensors, OBJECT_GRAPH_KEY: graph.serialize()}
    _write(prefix, [tensors], slices or {})
    return str(prefix)


def add_keys(prefix: str, names: Mapping[str, str]) -> None:
    """Gives tensors of a checkpoint further keys: existing key -> new key."""
    write_index(prefix, with_keys(read_index(prefix), names))


def save_in_shards(prefix: Path, *shards: Mapping[str, Any]) -> str:
    """What stock_files.save_in_shards() does."""
    _write(prefix, shards, {})
    return str(prefix)


def _write(prefix: Path, shards: Any, slices: Mapping[str, int]) -> None:
    entries: dict[bytes, Entry] = {}
    for shard, tensors in enumerate(shards):
        data = bytearray()
        for key, value in tensors.items():
            array = _array(value)
            dtype = _NUMBERS["string" if array.dtype.kind == "O" else array.dtype.name]
            count = slices.get(key, 0)
            extents = _extents(array.shape, count) if count else [()]
            for place in extents:
                start, length = place[0] if place else (0, None)
                part = array[start : start + length] if place else array
                raw, crc = _encoded(part)
                entry = Entry(dtype, part.shape, shard, len(data), len(raw), crc)
                entries[slice_key(key, place) if place else key_bytes(key)] = entry
                data += raw
            if count:
                entries[key_bytes(key)] = Entry(dtype, array.shape, 0, 0, 0, 0, tuple(extents))
        Path(shard_path(str(prefix), shard, len(shards))).write_bytes(data)
    write_index(str(prefix), Index(len(shards), entries))


def _array(value: Any) -> np.ndarray:
    array = np.array(value, object) if isinstance(value, bytes) else np.asarray(value)
    if array.dtype.kind in "SUO":
        flat = [one.encode() if isinstance(one, str) else bytes(one) for one in array.ravel()]
        array = np.array([*flat, None], object)[:-1].reshape(array.shape)
    return array


def _encoded(array: np.ndarray) -> tuple[bytes, int]:
    if array.dtype.kind == "O":
        return encode_strings(list(array.ravel()))
    return array.tobytes(), masked_crc32c(array.tobytes())


def _extents(shape: tuple[int, ...], count: int) -> list[tuple[tuple[int, int], ...]]:
    step = shape[0] // count
    rest = [(0, size) for size in shape[1:]]
    return [((start, step), *rest) for start in range(0, shape[0], step)]


def save_boxes(prefix: Path, key: str, value: np.ndarray, boxes: list[tuple[int, ...]]) -> str:
    """A partitioned variable of two dimensions; each box is start, length, start, length."""
    data = bytearray()
    entries: dict[bytes, Entry] = {}
    extents = [((a, b), (c, d)) for a, b, c, d in boxes]
    number = _NUMBERS[value.dtype.name]
    for one in extents:
        (a, b), (c, d) = one
        raw, crc = _encoded(np.ascontiguousarray(value[a : a + b, c : c + d]))
        entries[slice_key(key, one)] = Entry(number, (b, d), 0, len(data), len(raw), crc)
        data += raw
    entries[key_bytes(key)] = Entry(number, value.shape, 0, 0, 0, 0, tuple(extents))
    Path(shard_path(str(prefix), 0, 1)).write_bytes(data)
    write_index(str(prefix), Index(1, entries))
    return str(prefix)
