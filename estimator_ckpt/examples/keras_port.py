"""An Estimator becomes a Keras model in the middle of its training: weights, batch norm, optimizer.

1. A stock Estimator trains for 20 steps: name-based (TF1) checkpoints.
2. A Keras model starts from its checkpoint: same weights, same statistics of the batch norm, same
   state of Adam. Both go on for 10 steps, with the same batches.
3. They must end with the same variables.

    python -m estimator_ckpt.examples.keras_port

The exit code says whether they did. What a port needs is in `port`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import numpy as np
import tensorflow as tf

from estimator_ckpt import WarmStart, open_checkpoint

tf1: Any = tf.compat.v1

_PORTED_AT, _END = 20, 30  # steps
_LEARNING_RATE, _EPSILON = 0.01, 1e-8
_TOLERANCE = 1e-5  # of the largest value of a variable: the two sum up in another order


def batches(start: int, count: int) -> Any:
    """The batches of some steps, the same for both programs: float32 [8, 4] and [8, 1]."""
    for step in range(start, start + count):
        features = np.random.default_rng(step).normal(size=[8, 4]).astype(np.float32)
        yield features, features[:, :1] * 2 - features[:, 1:2] + 1


# The old program.


def model_fn(features: Any, labels: Any, mode: str) -> Any:
    training = mode == tf.estimator.ModeKeys.TRAIN
    net = tf1.layers.dense(features, 16, activation=tf.nn.relu, name="hidden")
    net = tf1.layers.batch_normalization(net, training=training, name="norm")
    loss = tf.reduce_mean((tf1.layers.dense(net, 1, name="outputs") - labels) ** 2)
    optimizer = tf1.train.AdamOptimizer(_LEARNING_RATE, epsilon=_EPSILON)
    with tf.control_dependencies(tf1.get_collection(tf1.GraphKeys.UPDATE_OPS)):
        train_op = optimizer.minimize(loss, tf1.train.get_global_step())
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train_op)


def train_estimator(model_dir: str, start: int, end: int) -> None:
    def input_fn() -> Any:
        shapes = (tf.TensorSpec([8, 4]), tf.TensorSpec([8, 1]))
        make = lambda: batches(start, end - start)  # noqa: E731
        return tf.data.Dataset.from_generator(make, output_signature=shapes)

    config = tf.estimator.RunConfig(tf_random_seed=1)
    tf.estimator.Estimator(model_fn, model_dir, config).train(input_fn, max_steps=end)


# The new program.


def build_model() -> Any:
    """The same layers, called as the scopes of the old program were."""
    layers = tf.keras.layers
    inputs = tf.keras.Input([4])
    net = layers.Dense(16, activation="relu", name="hidden")(inputs)
    net = layers.BatchNormalization(name="norm")(net)
    return tf.keras.Model(inputs, layers.Dense(1, name="outputs")(net))


def port(model_dir: str) -> Any:
    """A compiled Keras model that goes on where the newest checkpoint of the Estimator ended."""
    model = build_model()
    model.compile(tf.keras.optimizers.Adam(_LEARNING_RATE, epsilon=_EPSILON), "mse")
    report = WarmStart(model_dir).apply(model)  # of every variable, Adam's as well
    if report.refused:
        raise SystemExit(f"The state of Adam did not go along: {report.refused}")
    return model


# What both must come to.


def main() -> None:
    tf.get_logger().setLevel("ERROR")
    warnings.simplefilter("ignore", UserWarning)  # tf.compat.v1.layers is old, as it says
    if not hasattr(tf, "estimator"):
        raise SystemExit(f"TensorFlow {tf.__version__} has no Estimator to train the old model.")
    with tempfile.TemporaryDirectory() as directory:
        old, goes_on = os.path.join(directory, "old"), os.path.join(directory, "goes_on")
        train_estimator(old, 0, _PORTED_AT)
        shutil.copytree(old, goes_on)
        train_estimator(goes_on, _PORTED_AT, _END)

        model = port(old)
        if model.optimizer.iterations != _PORTED_AT:
            raise SystemExit(f"Adam counts {int(model.optimizer.iterations)} steps.")
        for features, labels in batches(_PORTED_AT, _END - _PORTED_AT):
            model.train_on_batch(features, labels)

        print(f"{'variable':<24}difference after {_END - _PORTED_AT} more steps")
        found = []
        with open_checkpoint(goes_on) as expected:
            for variable in model.variables:
                name, value = variable.name.partition(":")[0], variable.numpy()
                difference = np.max(np.abs(value - expected[name])) / np.max(np.abs(value))
                print(f"{name:<24}{difference:.1e}")
                if not difference < _TOLERANCE:
                    found.append(name)
    if found:
        raise SystemExit(f"Keras did not go on as the Estimator did: {', '.join(found)}")
    print("Keras goes on as the Estimator does.")


if __name__ == "__main__":
    main()
