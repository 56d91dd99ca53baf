"""A job on a cluster, chief, worker and parameter server, moves to checkpoints of both kinds.

1. A stock Estimator trains on this machine: name-based (TF1) checkpoints.
2. A cluster of three processes goes on in the same model_dir; one variable is partitioned. Each
   process runs this script, and TF_CONFIG says which part it has.
3. A program without Estimator reads the newest checkpoint, by names and by objects.

    python -m estimator_ckpt.examples.cluster

The exit code says whether step, format and values are as they must be. What all processes of a
cluster need is the one line in `make_estimator`; on many machines model_dir is on shared storage.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import numpy as np
import tensorflow as tf

from estimator_ckpt import open_checkpoint, wrap_model_fn

tf1: Any = tf.compat.v1

_ALONE, _END = 10, 60  # steps
_TIMEOUT = 300  # seconds, for the whole cluster


def model_fn(features: Any, labels: Any, mode: str) -> Any:
    parts = tf1.fixed_size_partitioner(2)
    table = tf1.get_variable("embedding/table", [6, 2], partitioner=parts)
    kernel = tf1.get_variable("outputs/kernel", [2, 1])
    outputs = tf.gather(tf.convert_to_tensor(table), features) @ kernel
    loss = tf.reduce_mean((outputs - labels) ** 2)
    optimizer = tf1.train.AdagradOptimizer(0.1)
    train_op = optimizer.minimize(loss, tf1.train.get_global_step())
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train_op)


def input_fn() -> Any:
    return tf.data.Dataset.from_tensors((range(6), [[float(n)] for n in range(6)])).repeat()


def make_estimator(model_dir: str, checkpoint_format: str | None) -> Any:
    config = tf.estimator.RunConfig(
        model_dir, tf_random_seed=1, save_checkpoints_steps=20, experimental_max_worker_delay_secs=0
    )
    function = model_fn
    if checkpoint_format:
        function = wrap_model_fn(model_fn, "both")  # <- the one-line change, in each process
    return tf.estimator.Estimator(function, config=config)


class _Together(tf1.train.SessionRunHook):  # type: ignore[misc]
    """Has chief and worker train at the same time: so few steps are done before another starts."""

    def __init__(self, directory: str, task: str) -> None:
        self._directory, self._task = directory, task

    def begin(self) -> None:
        if self._task == "worker":  # one that finds no model yet looks again after 30 seconds
            self._wait_for("chief")

    def after_create_session(self, session: Any, coord: Any) -> None:
        with open(os.path.join(self._directory, self._task), "w"):
            pass
        self._wait_for("worker")

    def _wait_for(self, task: str) -> None:
        deadline = time.monotonic() + _TIMEOUT
        while not os.path.exists(os.path.join(self._directory, task)):
            if time.monotonic() > deadline:
                raise SystemExit(f"{self._task}: no {task}")
            time.sleep(0.05)


def run_task(model_dir: str, directory: str) -> None:
    """What each process of the cluster does; a parameter server never ends by itself."""
    task = json.loads(os.environ["TF_CONFIG"])["task"]["type"]
    tf.estimator.train_and_evaluate(
        make_estimator(model_dir, "both"),
        tf.estimator.TrainSpec(input_fn, max_steps=_END, hooks=[_Together(directory, task)]),
        tf.estimator.EvalSpec(input_fn),  # for an evaluator, which this cluster has not
    )


def run_cluster(model_dir: str, directory: str) -> None:
    """Starts the processes on free ports of this machine, and waits for chief and worker."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    cluster = {task: [address] for task, address in zip(("chief", "worker", "ps"), addresses)}
    processes = {}
    try:
        for task in cluster:
            config = {"cluster": cluster, "task": {"type": task, "index": 0}}
            processes[task] = subprocess.Popen(
                [sys.executable, "-m", "estimator_ckpt.examples.cluster", model_dir, directory],
                env={**os.environ, "TF_CONFIG": json.dumps(config)},
            )
        for task in ("chief", "worker"):
            if code := processes[task].wait(_TIMEOUT):
                raise SystemExit(f"The {task} ended with exit code {code}.")
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def read_by_objects(model_dir: str) -> Any:
    """The product of both variables, by their objects. A table in parts is one variable there."""
    with open_checkpoint(model_dir) as checkpoint:
        table = checkpoint["var_list/embedding.Stable/.ATTRIBUTES/VARIABLE_VALUE"]
        return table @ checkpoint["var_list/outputs.Skernel/.ATTRIBUTES/VARIABLE_VALUE"]


def read_by_names(model_dir: str) -> Any:
    """The same by a stock Saver, in a graph that has the table in one piece."""
    with tf.Graph().as_default(), tf1.Session() as session:
        product = tf1.get_variable("embedding/table", [6, 2]) @ tf1.get_variable(
            "outputs/kernel", [2, 1]
        )
        tf1.train.Saver().restore(session, tf.train.latest_checkpoint(model_dir))
        return session.run(product)


def main() -> None:
    tf.get_logger().setLevel("ERROR")
    if not hasattr(tf, "estimator"):
        raise SystemExit(f"TensorFlow {tf.__version__} has no Estimator.")
    if len(sys.argv) == 3:
        run_task(*sys.argv[1:])
        return
    with tempfile.TemporaryDirectory() as model_dir, tempfile.TemporaryDirectory() as directory:
        make_estimator(model_dir, None).train(input_fn, max_steps=_ALONE)
        print(f"alone: {open_checkpoint(model_dir).format}, step {_ALONE}", flush=True)
        run_cluster(model_dir, directory)
        with open_checkpoint(model_dir) as checkpoint:
            step = checkpoint.global_step or 0
            print(f"cluster: {checkpoint.format}, step {step}")
            if checkpoint.format != "both" or step < _END:
                raise SystemExit(f"The cluster has not come to step {_END} in format both.")
        outputs = read_by_objects(model_dir)
        if not np.array_equal(outputs, read_by_names(model_dir)):
            raise SystemExit("Names and objects lead to different values.")
        error = float(np.mean((outputs[:, 0] - np.arange(6)) ** 2))
        print(f"read by names and by objects: the mean squared error is {error:.3f}")


if __name__ == "__main__":
    main()
