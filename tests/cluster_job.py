"""One process of a training cluster, as a user would start it; test_cluster.py starts them all.

TF_CONFIG says which process it is. It and the test talk through files in --signals: those that the
process writes, and `go`, which the test writes, and for which it waits where --hold_after says so.
"""

import argparse
import json
import os
import signal
import time

import numpy as np
import tensorflow as tf
from graph_jobs import global_values, minimize

from estimator_ckpt import wrap_model_fn

v1 = tf.compat.v1

IDS = np.array([0, 3, 4, 9])
LABELS = np.array([1.0, -1.0, 2.0, 0.5], np.float32)

# Whatever becomes of the test, no process outlives this. A parameter server never ends by itself.
LIFETIME_SECS = 600


def build_loss(ids, labels):
    """The predictions and the loss of a model with a partitioned variable."""
    table = v1.get_variable(
        "embedding/table",
        shape=[10, 2],
        initializer=v1.random_uniform_initializer(-1.0, 1.0, seed=1),
        partitioner=v1.fixed_size_partitioner(3),
    )
    weight = v1.get_variable("dense/kernel", initializer=np.ones([2, 1], np.float32))
    bias = v1.get_variable("dense/bias", initializer=np.zeros([1], np.float32))
    rows = tf.gather(tf.convert_to_tensor(table), ids)
    predictions = tf.squeeze(tf.matmul(rows, weight) + bias, -1)
    return predictions, tf.reduce_mean((predictions - labels) ** 2)


def build_model():
    """The graph in which a stock Saver finds all variables of the job."""
    return minimize(build_loss(IDS, LABELS)[1])


def expected_metrics(values):
    """What an evaluation of these variables, by name, must come to."""
    predictions = (values["embedding/table"][IDS] @ values["dense/kernel"])[:, 0]
    predictions = predictions + values["dense/bias"]
    return {"loss": np.mean((predictions - LABELS) ** 2), "mean": np.mean(predictions)}


def model_fn(features, labels, mode):
    """A model_fn that knows nothing of checkpoint formats."""
    predictions, loss = build_loss(features, labels)
    return tf.estimator.EstimatorSpec(
        mode,
        loss=loss,
        train_op=minimize(loss) if mode == tf.estimator.ModeKeys.TRAIN else None,
        eval_metric_ops={"mean": v1.metrics.mean(predictions)},
    )


def wait_for(condition, what, *, seconds=180.0):
    """The first result of `condition()` that is true; raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.02)
    raise TimeoutError(f"after {seconds:.0f} seconds: {what}")


class Signals(v1.train.SessionRunHook):
    """Records where the sessions of this process start and how far its steps come.

    NAME being the task's type, its index and the process id, it writes NAME.start-0.npz (start-1
    after a recovery, and so on), the variables by name; NAME.steps, a line with the global step
    after each of its own; and NAME.holds, when it waits for `go`.
    """

    def __init__(self, directory, task, hold_after):
        self._directory = directory
        self._name = f"{task['type']}-{task['index']}-{os.getpid()}"
        self._is_chief = task["type"] == "chief"
        self._hold_after = hold_after
        self._sessions = 0
        self._steps = 0

    def begin(self):
        self._global_step = v1.train.get_global_step()
        if self._hold_after == 0:
            self._hold()

    def after_create_session(self, session, coord):
        if self._is_chief:
            path = self._path(f"start-{self._sessions}.npz")
            np.savez(path + ".temporary.npz", **global_values(session))
            os.replace(path + ".temporary.npz", path)
        self._sessions += 1

    def after_run(self, run_context, run_values):
        step = run_context.session.run(self._global_step)
        with open(self._path("steps"), "a") as file:
            file.write(f"{step}\n")
        self._steps += 1
        if self._steps == self._hold_after:
            self._hold()

    def _hold(self):
        with open(self._path("holds"), "w"):
            pass
        go = os.path.join(self._directory, "go")
        wait_for(lambda: os.path.exists(go), f"no {go}")

    def _path(self, suffix):
        return os.path.join(self._directory, f"{self._name}.{suffix}")


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--signals", required=True, help="the directory of the files")
    parser.add_argument("--checkpoint_format", required=True)
    parser.add_argument("--max_steps", required=True, type=int)
    parser.add_argument("--keep_checkpoint_max", type=int, default=5)
    parser.add_argument("--deletion_grace_secs", type=float, default=0.0)
    parser.add_argument(
        "--hold_after",
        type=int,
        help="steps of its own after which a process waits for `go`; 0: before a session starts",
    )
    return parser.parse_args()


def input_fn():
    return tf.data.Dataset.from_tensors((IDS, LABELS))


def main():
    signal.alarm(LIFETIME_SECS)
    given = arguments()
    task = json.loads(os.environ["TF_CONFIG"])["task"]
    signals = Signals(given.signals, task, given.hold_after)
    if task["type"] == "worker":
        # One that finds the model not yet initialized looks again after 30 seconds, not before.
        wait_for(
            lambda: any(name.endswith("start-0.npz") for name in os.listdir(given.signals)),
            "the chief has not started",
        )
    config = tf.estimator.RunConfig(
        model_dir=given.model_dir,
        save_checkpoints_steps=10,
        keep_checkpoint_max=given.keep_checkpoint_max,
        experimental_max_worker_delay_secs=0,
        session_creation_timeout_secs=180,
    )
    wrapped = wrap_model_fn(
        model_fn, given.checkpoint_format, deletion_grace_secs=given.deletion_grace_secs
    )
    tf.estimator.train_and_evaluate(
        tf.estimator.Estimator(wrapped, config=config),
        tf.estimator.TrainSpec(
            lambda: input_fn().repeat(), max_steps=given.max_steps, hooks=[signals]
        ),
        tf.estimator.EvalSpec(
            input_fn,
            steps=None,
            start_delay_secs=0,
            throttle_secs=1,
            hooks=[signals] if given.hold_after == 0 else None,
        ),
    )


if __name__ == "__main__":
    main()
