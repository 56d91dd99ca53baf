"""Goldens of a job of this package, in each format that it writes. Each function is a kind."""

from __future__ import annotations

import glob
import os
import sys

import numpy as np
import tensorflow as tf
from by_name import assignments, create
from by_object import variable_key
from expected import Expected, byte_strings, numbers

v1 = tf.compat.v1


def job(directory: str, checkpoint_format: str) -> None:
    """One step of a job with an optimizer, a partitioned variable, and one of each other sort."""
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", ".."))
    from estimator_ckpt import make_scaffold

    values = {
        "dense/kernel": numbers(10, 2, 3),
        "odd.name-with_chars.S/bias": numbers(20, 3),
        "embedding": numbers(100, 7, 2),
        "half": numbers(200, 2, dtype=np.float16),
        "words": byte_strings([b"a", b"", b"\xff\0"]),
        "counter": np.array(300, np.int64),
        "global_step": np.array(1, np.int64),
    }
    step = v1.train.create_global_step()
    kernel = create("dense/kernel", values["dense/kernel"])
    create("odd.name-with_chars.S/bias", values["odd.name-with_chars.S/bias"], use_resource=False)
    create("embedding", values["embedding"], partitioner=v1.fixed_size_partitioner(3))
    for name in ("half", "words", "counter"):
        create(name, values[name])
    train_op = v1.train.MomentumOptimizer(0.5, 0.5).minimize(tf.reduce_sum(kernel), step)
    values["dense/kernel/Momentum"] = numbers(400, 2, 3)
    with tf.control_dependencies([train_op]):
        last_ops, slices = assignments(values)
    with v1.train.MonitoredTrainingSession(
        checkpoint_dir=directory,
        scaffold=make_scaffold(checkpoint_format, keep_checkpoint_max=1),
        save_checkpoint_steps=1,
        save_summaries_steps=None,
        save_summaries_secs=None,
        log_step_count_steps=None,
    ) as session:
        session.run(last_ops)
    for pattern in ("events.*", "*.meta", "graph.pbtxt", "checkpoint.journal"):
        for path in glob.glob(os.path.join(directory, pattern)):
            os.remove(path)
    expected = Expected(directory)
    for name, value in values.items():
        key = variable_key(["var_list", name])
        # The step has two edges, and one key.
        path = ["step"] if name == "global_step" else ["var_list", name]
        keys = {"saver": [name], "checkpoint": [key], "both": [key, name]}[checkpoint_format]
        if checkpoint_format == "checkpoint" and name == "global_step":
            keys.append(name)  # Estimator reads it by this name.
        row = {"name": name, "path": None if checkpoint_format == "saver" else path}
        expected.add(keys[0], value, also=keys[1:], slices=slices.get(name, 0), **row)
    if checkpoint_format != "saver":
        key, zero = variable_key(["save_counter"]), np.array(0, np.int64)
        expected.add(key, zero, name="save_counter", path=["save_counter"], slices=0)
    expected.write(os.path.join(directory, "model.ckpt-1"), checkpoint_format, 1)


def own_saver(directory: str) -> None:
    job(directory, "saver")


def own_checkpoint(directory: str) -> None:
    job(directory, "checkpoint")


def own_both(directory: str) -> None:
    job(directory, "both")


KINDS = {kind.__name__: kind for kind in (own_saver, own_checkpoint, own_both)}
