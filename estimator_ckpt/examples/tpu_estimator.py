"""A TPUEstimator whose checkpoints are TF2 ones: what is given to it is a function, `scaffold_fn`.

1. A stock TPUEstimator trains: name-based (TF1) checkpoints.
2. The same model_fn goes on in the same model_dir, with a `scaffold_fn`: checkpoints of both kinds.
3. It evaluates, and an eager program reads the weights by their objects.

    python -m estimator_ckpt.examples.tpu_estimator

The exit code says whether step, format and values are as they must be. It runs on the CPU
(`use_tpu=False`); on a TPU the host calls the same function when it builds the graph.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import numpy as np
import tensorflow as tf

from estimator_ckpt import make_scaffold, open_checkpoint

tf1: Any = tf.compat.v1


def model_fn(features: Any, labels: Any, mode: str, params: dict[str, Any]) -> Any:
    tpu = tf1.estimator.tpu
    kernel = tf1.get_variable("linear/kernel", [2, 1], initializer=tf1.zeros_initializer())
    loss = tf.reduce_mean((features @ kernel - labels) ** 2)
    optimizer = tf1.train.GradientDescentOptimizer(0.1)
    if params["use_tpu"]:
        optimizer = tf1.tpu.CrossShardOptimizer(optimizer)
    return tpu.TPUEstimatorSpec(
        mode,
        loss=loss,
        train_op=optimizer.minimize(loss, tf1.train.get_global_step()),
        # A Scaffold is made on the host, after the variables: hence a function, and not a Scaffold.
        scaffold_fn=(lambda: make_scaffold(params["format"])) if params["format"] else None,
    )


def input_fn(params: dict[str, Any]) -> Any:
    features = np.array([[1, 0], [0, 1], [1, 1], [1, -1]], np.float32)
    labels = features @ np.array([[3], [-2]], np.float32)
    dataset = tf.data.Dataset.from_tensor_slices((features, labels)).repeat()
    return dataset.batch(params["batch_size"], drop_remainder=True)


def make_estimator(model_dir: str, checkpoint_format: str | None, use_tpu: bool = False) -> Any:
    tpu = tf1.estimator.tpu
    return tpu.TPUEstimator(
        model_fn,
        model_dir,
        tpu.RunConfig(model_dir=model_dir, tf_random_seed=1),
        params={"use_tpu": use_tpu, "format": checkpoint_format},
        use_tpu=use_tpu,
        train_batch_size=4,
        eval_batch_size=4,
    )


def check(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise SystemExit(f"{what}: {found}, expected {expected}")
    print(f"{what}: {found}")


def main() -> None:
    tf.get_logger().setLevel("ERROR")
    if not hasattr(tf, "estimator"):
        raise SystemExit(f"TensorFlow {tf.__version__} has no Estimator.")
    with tempfile.TemporaryDirectory() as model_dir:
        make_estimator(model_dir, None).train(input_fn, max_steps=10)
        with open_checkpoint(model_dir) as checkpoint:
            check("stock", (checkpoint.format, checkpoint.global_step), ("saver", 10))
        estimator = make_estimator(model_dir, "both")
        estimator.train(input_fn, max_steps=50)
        with open_checkpoint(model_dir) as checkpoint:
            check("with scaffold_fn", (checkpoint.format, checkpoint.global_step), ("both", 50))
        check("evaluated at step", estimator.evaluate(input_fn, steps=1)["global_step"], 50)

        kernel = tf.Variable(tf.zeros([2, 1]))
        reader = tf.train.Checkpoint(var_list={"linear/kernel": kernel})
        status = reader.restore(tf.train.latest_checkpoint(model_dir))
        status.expect_partial().assert_existing_objects_matched()
        check("an eager program reads", np.round(kernel.numpy().ravel(), 2).tolist(), [3.0, -2.0])


if __name__ == "__main__":
    main()
