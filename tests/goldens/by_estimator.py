"""Goldens of a real Estimator, with the model_dir it leaves. Each function is a kind."""

from __future__ import annotations

import glob
import os
import shutil
from typing import Any

import tensorflow as tf
from by_object import variable_key
from expected import Expected, numbers

v1 = tf.compat.v1


class Watch(v1.train.SessionRunHook):  # type: ignore[misc]
    """Notes the value of every variable when training ends."""

    def begin(self) -> None:
        self.variables = {variable.op.name: variable for variable in v1.global_variables()}

    def end(self, session: Any) -> None:
        self.values = session.run(self.variables)


def model_fn(features: Any, labels: Any, mode: str, params: Any) -> Any:
    """A linear model whose every value stays exact: the gradients are constant."""
    with v1.variable_scope("dense"):
        kernel = v1.get_variable("kernel", initializer=numbers(10, 2, 3))
        bias = v1.get_variable("bias", initializer=numbers(20, 3))
    step = v1.train.get_global_step()
    loss = tf.reduce_sum(features @ kernel + bias)
    train_op = v1.train.MomentumOptimizer(0.5, 0.5).minimize(loss, step)
    scaffold = None
    if params["guide"]:
        var_list = {variable.op.name: variable for variable in v1.global_variables()}
        checkpoint = tf.train.Checkpoint(var_list=var_list, step=step)
        scaffold = v1.train.Scaffold(saver=checkpoint)
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train_op, scaffold=scaffold)


def train(directory: str, guide: bool) -> tuple[str, dict[str, Any]]:
    """Three steps, with a checkpoint after each. Returns the last one and its values."""
    config = tf.estimator.RunConfig(
        tf_random_seed=1, save_checkpoints_steps=1, save_summary_steps=None, keep_checkpoint_max=2
    )
    estimator = tf.estimator.Estimator(model_fn, directory, config, {"guide": guide})
    watch = Watch()
    features = numbers(1, 4, 2)
    estimator.train(
        lambda: tf.data.Dataset.from_tensors(features).repeat(), hooks=[watch], max_steps=3
    )
    for pattern in ("events.*", "*.meta", "graph.pbtxt"):
        for path in glob.glob(os.path.join(directory, pattern)):
            os.remove(path)
    shutil.rmtree(os.path.join(directory, "eval"), ignore_errors=True)
    return os.path.join(directory, "model.ckpt-3"), watch.values


def estimator(directory: str) -> None:
    prefix, values = train(directory, guide=False)
    expected = Expected(directory)
    for name, value in values.items():
        expected.add(name, value, name=name, slices=0)
    expected.write(prefix, "saver", 3)


def estimator_guide(directory: str) -> None:
    """The same with `Scaffold(saver=tf.train.Checkpoint(...))`, the way of the migration guide."""
    prefix, values = train(directory, guide=True)
    # This way keeps all checkpoints whatever RunConfig says, and writes the paths of this machine
    # into the state file. Two checkpoints and relative paths are enough here.
    for step in (0, 1):
        for path in glob.glob(os.path.join(directory, f"model.ckpt-{step}.*")):
            os.remove(path)
    kept = ["model.ckpt-2", "model.ckpt-3"]
    v1.train.update_checkpoint_state(directory, kept[-1], kept)
    expected = Expected(directory)
    for name, value in values.items():
        path = ["step"] if name == "global_step" else ["var_list", name]
        expected.add(variable_key(path), value, name=name, path=path, slices=0)
    expected.write(prefix, "checkpoint", 3)


KINDS = {"estimator": estimator, "estimator_guide": estimator_guide}
