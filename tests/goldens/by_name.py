"""Name-based goldens: graphs saved by `tf.compat.v1.train.Saver`. Each function is a kind."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from expected import Expected, byte_strings, numbers

v1 = tf.compat.v1


def create(name: str, value: np.ndarray, **options: Any) -> Any:
    """A variable of the value's shape and dtype; `save_graph` gives it the value itself."""
    dtype = tf.string if value.dtype == object else tf.as_dtype(value.dtype)
    zero = {tf.string: "", tf.bool: False}.get(dtype, 0)
    initializer = v1.constant_initializer(zero)
    return v1.get_variable(name, value.shape, dtype, initializer=initializer, **options)


def global_step(value: int = 7) -> dict[str, np.ndarray]:
    v1.train.create_global_step()
    return {"global_step": np.array(value, np.int64)}


def assignments(values: dict[str, np.ndarray]) -> tuple[list[Any], dict[str, int]]:
    """Ops that give every variable of the graph its value, and how many slices each one has."""
    ops, slices = [], {}
    for variable in v1.global_variables():
        info = variable._save_slice_info
        if info is None:
            ops.append(v1.assign(variable, values[variable.op.name]))
            continue
        part = tuple(slice(o, o + n) for o, n in zip(info.var_offset, info.var_shape))
        ops.append(v1.assign(variable, values[info.full_name][part]))
        slices[info.full_name] = slices.get(info.full_name, 0) + 1
    # A single slice that covers its variable is written like a whole variable.
    return ops, {name: count for name, count in slices.items() if count > 1}


def save_graph(
    directory: str,
    values: dict[str, np.ndarray],
    *,
    init: Sequence[Any] = (),
    beside: Sequence[tuple[str, Any]] = (),
    saver_options: dict[str, Any] | None = None,
    devices: int = 1,
    checkpoint_format: str = "saver",
) -> None:
    """Gives the graph's variables their values and saves them.

    Args:
      values: {variable name: value}; of a partitioned variable the whole.
      init: more ops to run before the save.
      beside: (key, tensor) of what the Saver saves apart from the variables.
      saver_options: for the Saver.
      devices: the number of virtual CPUs.
      checkpoint_format: what expected.json calls it.
    """
    expected = Expected(directory)
    ops, slices = assignments(values)
    for name, value in values.items():
        expected.add(name, value, name=name, slices=slices.get(name, 0))
    saver = v1.train.Saver(save_relative_paths=True, **(saver_options or {}))
    with v1.Session(config=v1.ConfigProto(device_count={"CPU": devices})) as session:
        session.run([*ops, *init])
        for key, tensor in beside:
            expected.add(key, session.run(tensor), name=key, slices=0)
        prefix = saver.save(
            session,
            os.path.join(directory, "model.ckpt"),
            global_step=v1.train.get_global_step(),
            write_meta_graph=False,
        )
    expected.write(prefix, checkpoint_format, int(values["global_step"]))


def name_based(directory: str) -> None:
    values = {
        "dense/kernel": numbers(10, 2, 3),
        "dense/bias": numbers(20, 3),
        "odd.name-with_chars.S/x": numbers(30, 2),
        "deep/er/scope/scale": np.array(0.5, np.float32),
        "counter": np.array(40, np.int64),
    }
    for number, (name, value) in enumerate(values.items()):
        create(name, value, use_resource=number % 2 == 0)
    save_graph(directory, {**values, **global_step()})


def partitioned(directory: str) -> None:
    values = {
        "rows/embedding": numbers(100, 7, 2),
        "columns/kernel": numbers(200, 2, 7),
        "reference/embedding": numbers(300, 7, 2),
        "one_slice": numbers(400, 3, 2),
        "whole": numbers(500, 4),
    }

    def partitions(name: str, number: int, axis: int = 0, **options: Any) -> None:
        partitioner = v1.fixed_size_partitioner(number, axis)
        create(name, values[name], partitioner=partitioner, **options)

    partitions("rows/embedding", 3)
    partitions("columns/kernel", 3, axis=1)
    partitions("reference/embedding", 3, use_resource=False)
    partitions("one_slice", 1)
    create("whole", values["whole"])
    save_graph(directory, {**values, **global_step()})


def slots_tf1(directory: str) -> None:
    values = {
        "dense/kernel": numbers(10, 2, 3),
        "dense/bias": numbers(20, 3),
        "embedding": numbers(30, 5, 2),
        "beta1_power": np.array(0.5, np.float32),
        "beta2_power": np.array(0.25, np.float32),
        **global_step(),
    }
    weights = [create(name, values[name]) for name in ("dense/kernel", "dense/bias")]
    two = v1.fixed_size_partitioner(2)
    weights += list(create("embedding", values["embedding"], partitioner=two))
    loss = tf.add_n([tf.reduce_sum(weight) for weight in weights])
    v1.train.AdamOptimizer().minimize(loss, global_step=v1.train.get_global_step())
    for first, name in ((100, "dense/kernel"), (200, "dense/bias"), (300, "embedding")):
        values[name + "/Adam"] = values[name] + first
        values[name + "/Adam_1"] = values[name] + first + 50
    save_graph(directory, values)


def table_tf1(directory: str) -> None:
    new_table = tf.lookup.experimental.MutableHashTable
    words = new_table(tf.string, tf.int64, -1, name="words")
    vectors = new_table(tf.int64, tf.float32, [0.0, 0.0], name="vectors")
    init = [
        words.insert(tf.constant(["b", "a", ""]), tf.constant([2, 1, 0], tf.int64)),
        vectors.insert(tf.constant([7, 9], tf.int64), tf.constant([[1.0, 2.0], [3.0, 4.5]])),
    ]
    beside = [
        (table.name + end, tensor)
        for table in (words, vectors)
        for end, tensor in zip(("-keys", "-values"), table.export())
    ]
    values = {"weight": numbers(10, 2)}
    create("weight", values["weight"])
    save_graph(directory, {**values, **global_step()}, init=init, beside=beside)


def strings(directory: str) -> None:
    values = {
        "scalar": byte_strings(b"one"),
        "scalar_empty": byte_strings(b""),
        "vector": byte_strings([b"a", b"bc", b"", b"def"]),
        "matrix": byte_strings([[b"1", b"2", b"3"], [b"4", b"5", b"6"]]),
        "all_empty": byte_strings([b"", b""]),
        "no_strings": byte_strings([]),
        "unicode": byte_strings(["naïve Ω 字 \U0001f600".encode(), "é".encode("latin-1")]),
        "nul_bytes": byte_strings([b"\0", b"a\0b\0", bytes(range(256))]),
        # Their lengths take one and two bytes as varints.
        "long": byte_strings([b"x" * 127, b"y" * 128]),
    }
    for name, value in values.items():
        create(name, value)
    save_graph(directory, {**values, **global_step()})


def multi_shard(directory: str) -> None:
    """Variables on three devices, so three shards; one variable has a slice in each."""
    values = {f"on_{n}/weight": numbers(10 * n + 10, n + 1, 2) for n in range(3)}
    values["spread"] = numbers(100, 5, 2)
    for number in range(3):
        with tf.device(f"/cpu:{number}"):
            create(f"on_{number}/weight", values[f"on_{number}/weight"])
    numbered = iter(range(3))

    def next_device(op: Any) -> str:
        return f"/cpu:{next(numbered)}" if op.type == "VarHandleOp" else ""

    with v1.device(next_device):
        create("spread", values["spread"], partitioner=v1.fixed_size_partitioner(3))
    with tf.device("/cpu:0"):
        values.update(global_step())
    save_graph(directory, values, saver_options={"sharded": True}, devices=3)


def v1_format(directory: str) -> None:
    """The single-file format of before TensorFlow 1.0, which is still written when asked for."""
    values = {"weight": numbers(10, 2, 3)}
    create("weight", values["weight"])
    options = {"write_version": v1.train.SaverDef.V1}
    save_graph(
        directory, {**values, **global_step()}, saver_options=options, checkpoint_format="v1"
    )


def v1_sharded(directory: str) -> None:
    """The first format in two files, with slices in both and every kind of values that it has."""
    values = {
        "double": numbers(10, 2, 3, dtype=np.float64),
        "half": numbers(20, 3, dtype=np.float16),
        "int32": np.array([0, -1, 127, 128, 2**31 - 1, -(2**31)], np.int32),
        "int64": np.array([[2**62, -(2**63)], [300, -300]], np.int64),
        "uint8": np.array([0, 127, 128, 255], np.uint8),
        "bool": np.array([True, False, True]),
        "complex": np.array([1 + 2j, -3.5j], np.complex64),
        "words": byte_strings([b"a", b"", b"\xff\x00" * 100]),
        "embedding": numbers(100, 5, 2),
        "scalar": np.array(0.5, np.float32),
    }
    numbered = iter(range(2))
    for number, name in enumerate(values):
        if name == "embedding":
            continue
        with tf.device(f"/cpu:{number % 2}"):
            create(name, values[name])

    def next_device(op: Any) -> str:
        return f"/cpu:{next(numbered)}" if op.type == "VarHandleOp" else ""

    with v1.device(next_device):
        create("embedding", values["embedding"], partitioner=v1.fixed_size_partitioner(2))
    with tf.device("/cpu:0"):
        values.update(global_step())
    options = {"write_version": v1.train.SaverDef.V1, "sharded": True}
    save_graph(directory, values, saver_options=options, devices=2, checkpoint_format="v1")


def snappy(directory: str) -> None:
    """An index with Snappy blocks, as Google's own builds wrote them.

    Open-source TensorFlow reads these and writes none: its index is written anew, with the same
    keys and values.
    """
    values = {f"layer_{n}/kernel": numbers(10 * n + 10, 2, 2) for n in range(6)}
    for name, value in values.items():
        create(name, value)
    save_graph(directory, {**values, **global_step()})
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
    from snappy_tables import compressed_table

    from estimator_ckpt.bundle.table import read_table

    path = os.path.join(directory, "model.ckpt-7.index")
    with open(path, "rb") as file:
        blocks = read_table(memoryview(file.read()), path)
    items = [item for keys, values in blocks for item in zip(keys, values)]
    with open(path, "wb") as file:
        file.write(compressed_table(items))


def saved_model_tf1(directory: str) -> None:
    values = {"dense/kernel": numbers(10, 2, 3), "dense/bias": numbers(20, 3)}
    expected = Expected(directory)
    for name, value in values.items():
        create(name, value)
        expected.add(name, value, name=name, slices=0)
    os.rmdir(directory)  # The builder wants to make it.
    builder = v1.saved_model.Builder(directory)
    with v1.Session() as session:
        session.run(assignments(values)[0])
        builder.add_meta_graph_and_variables(session, ["serve"], strip_default_attrs=True)
    builder.save()
    expected.write(os.path.join(directory, "variables", "variables"), "saver")


KINDS = {
    kind.__name__: kind
    for kind in (
        name_based,
        partitioned,
        slots_tf1,
        table_tf1,
        strings,
        multi_shard,
        v1_format,
        v1_sharded,
        snappy,
        saved_model_tf1,
    )
}
