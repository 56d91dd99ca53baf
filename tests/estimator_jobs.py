"""Tiny jobs of tf.estimator, and what stock TensorFlow finds in their model directories."""

import os
import re

import numpy as np
import tensorflow as tf
from graph_jobs import global_values, latest

from estimator_ckpt import wrap_model_fn

v1 = tf.compat.v1

OBJECT_KEY = re.compile(r"var_list/(.+)/\.ATTRIBUTES/VARIABLE_VALUE")
GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"

FEATURES = np.float32([[1], [3]])
LABELS = np.float32([[2], [4]])


def input_fn():
    return tf.data.Dataset.from_tensors(({"x": FEATURES}, LABELS)).repeat()


def predict_input_fn():
    return tf.data.Dataset.from_tensors({"x": FEATURES})


def linear_spec(features, labels, mode, *, partitions=1, **pieces):
    """The spec of y = x w + b by Adam; `pieces` are further arguments of an EstimatorSpec."""
    partitioner = v1.fixed_size_partitioner(partitions) if partitions > 1 else None
    w = v1.get_variable(
        "linear/w", [4, 1], initializer=v1.ones_initializer(), partitioner=partitioner
    )
    b = v1.get_variable("b", [], initializer=v1.zeros_initializer())
    y = tf.reduce_sum(tf.convert_to_tensor(w)) * features["x"] + b
    if mode == "infer":
        exported = tf.estimator.export.PredictOutput({"y": y})
        outputs = {"serving_default": exported}
        return tf.estimator.EstimatorSpec(mode, {"y": y}, export_outputs=outputs, **pieces)
    loss = tf.reduce_mean((y - labels) ** 2)
    step = v1.train.get_global_step()
    return tf.estimator.EstimatorSpec(
        mode,
        predictions={"y": y},
        loss=loss,
        train_op=v1.train.AdamOptimizer(0.1).minimize(loss, step) if mode == "train" else None,
        eval_metric_ops={"mean_y": v1.metrics.mean(y)},
        **pieces,
    )


def model_fn(features, labels, mode):
    return linear_spec(features, labels, mode)


def partitioned_model_fn(features, labels, mode):
    return linear_spec(features, labels, mode, partitions=2)


def run_config(model_dir, **options):
    options = {"save_checkpoints_steps": 1000, "save_summary_steps": None, **options}
    return tf.estimator.RunConfig(str(model_dir), log_step_count_steps=None, **options)


def estimator(model_dir, checkpoint_format=None, model_fn=model_fn, config=None, **options):
    """An Estimator of the wrapped `model_fn`; without a format the stock one, unwrapped."""
    if checkpoint_format is not None:
        model_fn = wrap_model_fn(model_fn, checkpoint_format, **options)
    return tf.estimator.Estimator(model_fn, config=run_config(model_dir, **(config or {})))


class Values(v1.train.SessionRunHook):
    """The value of each global variable: what a session started from, and what it ended with."""

    def after_create_session(self, session, coord):
        self.started = global_values(session)

    def end(self, session):
        self.ended = global_values(session)


def train(job, steps=1, **options):
    """Trains so many steps; returns the values at the start and at the end."""
    values = Values()
    job.train(options.pop("input_fn", input_fn), steps=steps, hooks=[values], **options)
    return values.started, values.ended


def file_format(path):
    """What the keys of a checkpoint make it, as far as `linear/w` or `linear_model` tells."""
    keys = {key for key, _ in tf.train.list_variables(str(path))}
    names = {key for key in keys if ".ATTRIBUTES" not in key} - {"global_step", GRAPH_KEY}
    if GRAPH_KEY not in keys:
        return "saver"
    return "both" if names else "checkpoint"


def read_values(path):
    """The values of a checkpoint of any format by variable name, read by stock TensorFlow."""
    reader = tf.train.load_checkpoint(str(path))
    values = {}
    for key in reader.get_variable_to_shape_map():
        found = OBJECT_KEY.fullmatch(key)
        if found:
            values[found[1].replace(".S", "/")] = reader.get_tensor(key)
        elif ".ATTRIBUTES" not in key and key != GRAPH_KEY:
            values[key] = reader.get_tensor(key)
    return values


def steps_on_disk(model_dir):
    """The global steps whose checkpoints are there, whole."""
    found = {}
    for name in os.listdir(model_dir):
        step, part = re.fullmatch(r"model\.ckpt-(\d+)\.(.*)|.*", name).groups()
        if step:
            found.setdefault(int(step), set()).add(part.partition("-")[0])
    assert all(parts == {"index", "data", "meta"} for parts in found.values()), found
    return sorted(found)


def steps_in_state(model_dir):
    """The global steps that the state file lists."""
    paths = tf.train.get_checkpoint_state(str(model_dir)).all_model_checkpoint_paths
    return [int(path.rpartition("-")[2]) for path in paths]


def tree(model_dir):
    """Every file of a directory with its bytes, but for events."""
    found = {}
    for parent, _, names in os.walk(model_dir):
        for name in names:
            if "tfevents" not in name:
                path = os.path.join(parent, name)
                with open(path, "rb") as file:
                    found[path] = file.read()
    return found


def latest_step(model_dir):
    return int(latest(model_dir).rpartition("-")[2])
