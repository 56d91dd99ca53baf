"""An eager training loop whose checkpoints programs of both kinds read, while it trains.

1. An eager loop with a tf.train.CheckpointManager trains, is interrupted, and goes on.
2. After each save a TF1 program (a session with its Saver) and a TF2 program (objects) read the
   newest checkpoint, and must find the values that the loop has.

    python -m estimator_ckpt.examples.eager_both

The exit code says whether they did. The change that a loop needs is one call, in `Trainer`.
TensorFlow 2.15 or later.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import numpy as np
import tensorflow as tf

from estimator_ckpt import save_both

tf1: Any = tf.compat.v1


class Linear(tf.Module):  # type: ignore[misc]
    """y = x w + b, with variables called as the TF1 programs know them."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(tf.zeros([3, 1]), name="linear/kernel")
        self.bias = tf.Variable(tf.zeros([1]), name="linear/bias")

    def __call__(self, inputs: Any) -> Any:
        return inputs @ self.kernel + self.bias


class Trainer:
    """The eager loop."""

    def __init__(self, directory: str) -> None:
        self.model = Linear()
        self.step = tf.Variable(0, dtype=tf.int64, name="global_step")  # as TF1 calls it
        checkpoint = tf.train.Checkpoint(model=self.model, step=self.step)
        manager = tf.train.CheckpointManager(checkpoint, directory, max_to_keep=2)

        self.manager = save_both(manager)  # <- the one-line change

        self.manager.restore_or_initialize()

    def train(self, steps: int) -> str:
        """Trains and saves; returns the checkpoint's path."""
        for _ in range(steps):
            inputs = np.random.default_rng(int(self.step)).normal(size=[16, 3]).astype(np.float32)
            labels = inputs @ np.array([[1], [2], [3]], np.float32) + 4
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self.model(inputs) - labels) ** 2)
            variables = self.model.trainable_variables
            for variable, gradient in zip(variables, tape.gradient(loss, variables)):
                variable.assign_sub(0.1 * gradient)
            self.step.assign_add(1)
        return str(self.manager.save())

    def values(self) -> tuple[Any, Any, int]:
        return self.model.kernel.numpy(), self.model.bias.numpy(), int(self.step)


def read_by_names(directory: str) -> tuple[Any, Any, int]:
    """What a TF1 program finds in the newest checkpoint: its graph is final, and asks for names."""
    with tf.Graph().as_default():
        kernel = tf1.get_variable("linear/kernel", [3, 1])
        bias = tf1.get_variable("linear/bias", [1])
        step = tf1.train.get_or_create_global_step()
        with tf1.train.SingularMonitoredSession(checkpoint_dir=directory) as session:
            kernel, bias, step = session.run([kernel, bias, step])
    return kernel, bias, int(step)


def read_by_objects(directory: str) -> tuple[Any, Any, int]:
    """What a TF2 program finds in it, which misses nothing."""
    model, step = Linear(), tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(model=model, step=step)
    checkpoint.restore(tf.train.latest_checkpoint(directory)).assert_consumed()
    return model.kernel.numpy(), model.bias.numpy(), int(step)


def main() -> None:
    tf.get_logger().setLevel("ERROR")
    with tempfile.TemporaryDirectory() as directory:
        for steps in (5, 20):  # the second trainer goes on where the first one ended
            trainer = Trainer(directory)
            start = int(trainer.step)
            path = trainer.train(steps)
            for read in read_by_names, read_by_objects:
                if not all(map(np.array_equal, read(directory), trainer.values())):
                    raise SystemExit(f"{read.__name__} found other values than the loop has.")
            name, end = os.path.basename(path), int(trainer.step)
            print(f"steps {start} to {end}: {name} read by names and by objects")
        if end != 25:
            raise SystemExit(f"The loop ended at step {end}, expected 25.")


if __name__ == "__main__":
    main()
