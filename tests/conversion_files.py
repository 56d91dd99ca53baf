"""What the tests of conversion share: small checkpoints, and all that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow_party import tf
from tensorflow_party import v1 as v1

from estimator_ckpt.bundle.checksum import masked_crc32c
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, read_index, shard_path, write_index
from estimator_ckpt.bundle.slices import key_text
from estimator_ckpt.bundle.tensors import TensorReader, encode_strings
from estimator_ckpt.objects.object_graph import OBJECT_GRAPH_KEY

DTYPES = {"float32": 1, "float64": 2, "int32": 3, "object": 7, "int64": 9, "complex128": 18}


def write_bundle(prefix: Any, tensors: Mapping[str, Any], *, shards: int = 1) -> str:
    """A name-based checkpoint, its tensors distributed over data files one after the other."""
    prefix = str(prefix)
    Path(prefix).parent.mkdir(parents=True, exist_ok=True)
    data = [b""] * shards
    entries = {}
    for number, (key, value) in enumerate(tensors.items()):
        array = np.asarray(value)
        if array.dtype.kind in "OS":
            raw, crc = encode_strings([bytes(one) for one in array.ravel()])
        else:
            raw = array.tobytes()
            crc = masked_crc32c(raw)
        dtype = DTYPES["object" if array.dtype.kind in "OS" else array.dtype.name]
        shard = number % shards
        entries[key.encode()] = Entry(dtype, array.shape, shard, len(data[shard]), len(raw), crc)
        data[shard] += raw
    for shard, content in enumerate(data):
        Path(shard_path(prefix, shard, shards)).write_bytes(content)
    write_index(prefix, Index(shards, entries))
    return prefix


def contents(prefix: Any) -> dict[str, tuple[Any, ...]]:
    """Every tensor by key, but the object graph: dtype, shape, slices, checksum, bytes."""
    index = read_index(str(prefix))
    with TensorReader(str(prefix), index) as reader:
        return {
            key_text(key): (
                entry.dtype,
                entry.shape,
                entry.slices,
                entry.crc32c,
                bytes(reader.raw(entry)),
            )
            for key, entry in index.entries.items()
            if key != OBJECT_GRAPH_KEY.encode()
        }


def stock_values(prefix: Any) -> dict[str, Any]:
    """Every tensor that TensorFlow's own reader finds, but the object graph, as lists."""
    reader = tf.train.load_checkpoint(str(prefix))
    return {
        key: np.asarray(reader.get_tensor(key)).tolist()
        for key in reader.get_variable_to_shape_map()
        if key != OBJECT_GRAPH_KEY
    }


def variables_like(values: Mapping[str, Any]) -> dict[str, tf.Variable]:
    """A variable for each value, of its shape and dtype, without the value."""
    found = {}
    for name, value in values.items():
        array = np.asarray(value)
        dtype = tf.string if array.dtype.kind in "OS" else tf.as_dtype(array.dtype)
        empty = "" if dtype == tf.string else 0
        found[name] = tf.Variable(tf.fill(array.shape, tf.cast(empty, dtype)))
    return found


def names_in(directory: Any) -> list[str]:
    return sorted(path.name for path in Path(directory).iterdir())
