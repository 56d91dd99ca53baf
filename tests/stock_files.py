"""Checkpoints written by TensorFlow's own ops, and ways to damage their files.

Without TensorFlow our own writer makes the same ones, so that tests of files have them then, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from own_files import save as save_own
from own_files import save_in_shards as save_own_shards
from tensorflow_party import WITH_TENSORFLOW, tf

from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, read_index, write_index
from estimator_ckpt.objects.message import VARIABLE_VALUE
from estimator_ckpt.objects.nodes import Attribute
from estimator_ckpt.objects.object_graph import OBJECT_GRAPH_KEY, ObjectGraph


def _with_tensorflows_dtype(value: Any) -> Any:
    """TensorFlow 2.12 has a bfloat16 of its own for NumPy, and refuses that of ml_dtypes."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "V":
        return value.view(tf.as_dtype(value.dtype.name).as_numpy_dtype)
    return value


def save(
    prefix: Path,
    tensors: Mapping[str, Any],
    graph: ObjectGraph | None = None,
    slices: Mapping[str, int] | None = None,
) -> str:
    """Saves tensors by key; those in `slices` cut into so many along their first axis."""
    if not WITH_TENSORFLOW:
        return save_own(prefix, tensors, graph, slices)
    keys, specs, values = [], [], []
    for key, tensor in tensors.items():
        array = tensor if isinstance(tensor, bytes) else np.asarray(tensor)
        count = (slices or {}).get(key, 0)
        if not count:
            keys.append(key)
            specs.append("")
            values.append(array)
            continue
        shape = array.shape
        step = shape[0] // count
        for start in range(0, shape[0], step):
            rest = "".join(f":0,{size}" for size in shape[1:])
            keys.append(key)
            specs.append(f"{' '.join(map(str, shape))} {start},{step}{rest}")
            values.append(array[start : start + step])
    if graph is not None:
        keys.append(OBJECT_GRAPH_KEY)
        specs.append("")
        values.append(graph.serialize())
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=keys,
        shape_and_slices=specs,
        tensors=[tf.constant(_with_tensorflows_dtype(value)) for value in values],
    )
    return str(prefix)


def save_slots_of_parts(prefix: Path) -> str:
    """A variable in two parts, and for each part a slot of its own: TF1's Adam in a scope."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        with v1.variable_scope("dnn", partitioner=v1.fixed_size_partitioner(2)):
            w = v1.get_variable("w", [4])
            v1.train.AdamOptimizer(0.1).minimize(tf.reduce_sum(tf.convert_to_tensor(w)))
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(prefix), write_meta_graph=False, write_state=False)
    return str(prefix)


def save_in_shards(prefix: Path, *shards: Mapping[str, Any]) -> str:
    """Saves tensors by key, each mapping in a data file of its own."""
    if not WITH_TENSORFLOW:
        return save_own_shards(prefix, *shards)
    parts = [save(Path(f"{prefix}_part{n}"), shard) for n, shard in enumerate(shards)]
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=str(prefix))
    return str(prefix)


def value(full_name: str, key: str) -> Attribute:
    """A variable's value in an object graph."""
    return Attribute(VARIABLE_VALUE, full_name, key)


def edit_index(prefix: str, change: Callable[[dict[bytes, Entry]], None]) -> str:
    """Writes the index anew with changed entries; its checksums are right again."""
    index = read_index(prefix)
    change(index.entries)
    write_index(prefix, Index(index.num_shards, index.entries))
    return prefix


def flip(path: str, offset: int, bits: int = 0xFF) -> None:
    """Changes one byte of a file."""
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes((byte ^ bits,)))


def data_file(prefix: str, shard: int = 0, shards: int = 1) -> str:
    return f"{prefix}.data-{shard:05d}-of-{shards:05d}"


def rename(old: str, new: str) -> None:
    """Renames a checkpoint of one data file."""
    os.rename(f"{old}.index", f"{new}.index")
    os.rename(data_file(old), data_file(new))
