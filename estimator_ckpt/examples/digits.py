"""A real Estimator job, handwritten digits, moves from TF1 to TF2 checkpoints in three acts.

1. It trains as it always did: a stock `tf.estimator.Estimator`, name-based (TF1) checkpoints.
2. The same model_fn goes on in the same model_dir, wrapped: object-based (TF2) checkpoints.
3. A new process, eager TF2 without Estimator, loads the newest one and predicts.

Each act must start with the step, the values and the accuracy that the one before it ended with.
The exit code says whether it did. The change that a job needs is one line, in `act_2`.

    python -m estimator_ckpt.examples.digits --flagfile=configs/digits.flags
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import numpy as np
import tensorflow as tf
from absl import app, flags, logging

from estimator_ckpt import wrap_model_fn
from estimator_ckpt.configs import find_flagfiles

tf1: Any = tf.compat.v1

_MODEL_DIR = flags.DEFINE_string("model_dir", None, "Where checkpoints go; temporary unless given.")
_TF1_STEPS = flags.DEFINE_integer("tf1_steps", 100, "Act 1 trains up to this step.", lower_bound=1)
_TF2_STEPS = flags.DEFINE_integer("tf2_steps", 200, "Act 2 adds as many steps.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Digits per training step.", lower_bound=1)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 1e-3, "Adam's step size.", lower_bound=0.0)
_VERBOSE = flags.DEFINE_bool("verbose", False, "Show what TensorFlow logs, too.")
_ACT = flags.DEFINE_enum(
    "act", "all", ["all", "predict"], "predict: only the eager program of act 3, on --model_dir."
)

_SEED = 1
_EPSILON = 1e-3
_HELD_OUT = 360  # the last fifth of the 1797 digits
_INSTALL = "pip install 'estimator-ckpt[estimator,examples]'"


# The data: small enough to be a part of scikit-learn.


def digits(part: str) -> tuple[Any, Any]:
    """Returns the "train" or "held_out" images, float32 [n, 8, 8, 1], 0..1, and labels, int [n]."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise SystemExit(f"The digits come with scikit-learn: {_INSTALL}") from error
    data = load_digits()
    rows = slice(-_HELD_OUT) if part == "train" else slice(-_HELD_OUT, None)
    return np.float32(data.images[rows, :, :, np.newaxis] / 16), data.target[rows]


def train_input_fn() -> Any:
    dataset = tf.data.Dataset.from_tensor_slices(digits("train"))
    return dataset.shuffle(2000, seed=_SEED).repeat().batch(_BATCH_SIZE.value)


def held_out_input_fn() -> Any:
    return tf.data.Dataset.from_tensor_slices(digits("held_out")).batch(_HELD_OUT)


# The model, as it was written for TF1. Nothing in it is about checkpoints.


def batch_norm(net: Any, training: bool) -> Any:
    width, ones, zeros = [net.shape[-1]], tf1.ones_initializer(), tf1.zeros_initializer()
    with tf1.variable_scope("norm"):
        gamma = tf1.get_variable("gamma", width, initializer=ones)
        beta = tf1.get_variable("beta", width, initializer=zeros)
        mean = tf1.get_variable("moving_mean", width, initializer=zeros, trainable=False)
        variance = tf1.get_variable("moving_variance", width, initializer=ones, trainable=False)
    if training:
        batch_moments = tf.nn.moments(net, axes=list(range(len(net.shape) - 1)))
        for moving, batch in zip((mean, variance), batch_moments):
            update = tf1.assign_sub(moving, 0.1 * (moving - batch))
            tf1.add_to_collection(tf1.GraphKeys.UPDATE_OPS, update)
        mean, variance = batch_moments
    return tf.nn.batch_normalization(net, mean, variance, beta, gamma, _EPSILON)


def model_fn(features: Any, labels: Any, mode: str, params: dict[str, Any]) -> Any:
    training = mode == tf.estimator.ModeKeys.TRAIN
    with tf1.variable_scope("conv"):
        net = tf.nn.conv2d(features, tf1.get_variable("kernel", [3, 3, 1, 16]), 1, "SAME")
        net = tf.nn.relu(batch_norm(net, training))
    with tf1.variable_scope("dense"):
        net = tf.matmul(tf.reshape(net, [-1, 1024]), tf1.get_variable("kernel", [1024, 32]))
        net = tf.nn.relu(batch_norm(net, training))
    with tf1.variable_scope("logits"):
        bias = tf1.get_variable("bias", [10], initializer=tf1.zeros_initializer())
        logits = tf.matmul(net, tf1.get_variable("kernel", [32, 10])) + bias

    predicted = tf.argmax(logits, axis=1)
    if mode == tf.estimator.ModeKeys.PREDICT:
        return tf.estimator.EstimatorSpec(mode, predictions={"digit": predicted})
    loss = tf1.losses.sparse_softmax_cross_entropy(labels, logits)
    if mode == tf.estimator.ModeKeys.EVAL:
        metrics = {"accuracy": tf1.metrics.accuracy(labels, predicted)}
        return tf.estimator.EstimatorSpec(mode, loss=loss, eval_metric_ops=metrics)
    optimizer = tf1.train.AdamOptimizer(params["learning_rate"])
    with tf.control_dependencies(tf1.get_collection(tf1.GraphKeys.UPDATE_OPS)):
        train_op = optimizer.minimize(loss, global_step=tf1.train.get_global_step())
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train_op)


# The three acts.


@dataclasses.dataclass(frozen=True)
class Act:
    """What one act started from and ended with.

    Attributes:
      program: what ran.
      start_step, step: the global step before and after it.
      start_accuracy, accuracy: share of the held-out digits it got right, before and after; None
        where nothing was evaluated before.
      checkpoint_format: of its last checkpoint: "saver" (TF1), "checkpoint" (TF2) or "both".
      altered: names of the variables whose value it did not take over from the act before.
    """

    program: str
    start_step: int
    step: int
    start_accuracy: float | None
    accuracy: float
    checkpoint_format: str
    altered: tuple[str, ...] = ()


class _ValuesAtStart(tf1.train.SessionRunHook):  # type: ignore[misc]
    """Keeps the variables as training finds them: restored, before the first step."""

    def after_create_session(self, session: Any, coord: Any) -> None:
        self.values = session.run({each.op.name: each for each in tf1.global_variables()})


def make_estimator(model_fn: Any, model_dir: str) -> Any:
    config = tf.estimator.RunConfig(model_dir, tf_random_seed=_SEED)
    params = {"learning_rate": _LEARNING_RATE.value}
    return tf.estimator.Estimator(model_fn, config=config, params=params)


def evaluate(estimator: Any) -> tuple[int, float]:
    """Returns the global step and the accuracy."""
    result = estimator.evaluate(held_out_input_fn)
    return int(result["global_step"]), float(result["accuracy"])


def newest_format(model_dir: str) -> str:
    """Tells the newest checkpoint's format by its keys, with TensorFlow's own reader."""
    reader = tf.train.load_checkpoint(model_dir)
    if not reader.has_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"):
        return "saver"
    return "both" if reader.has_tensor("logits/kernel") else "checkpoint"


def act_1(model_dir: str) -> Act:
    """Trains as always; after an interruption it resumes, as Estimators do."""
    start_step = 0
    if tf.train.latest_checkpoint(model_dir):
        if newest_format(model_dir) != "saver":
            raise SystemExit(
                f"{model_dir} holds TF2 checkpoints of an earlier run already: the stock Estimator "
                "of act 1 cannot go on from those. Give a new or an empty --model_dir."
            )
        start_step = int(tf.train.load_variable(model_dir, "global_step"))
    estimator = make_estimator(model_fn, model_dir)
    estimator.train(train_input_fn, max_steps=_TF1_STEPS.value)
    step, accuracy = evaluate(estimator)
    return Act("stock Estimator", start_step, step, None, accuracy, newest_format(model_dir))


def act_2(model_dir: str) -> Act:
    """Goes on where act 1 ended."""
    names = dict(tf.train.list_variables(model_dir))
    before: Any = {name: tf.train.load_variable(model_dir, name) for name in names}

    estimator = make_estimator(wrap_model_fn(model_fn), model_dir)  # <- the one-line change

    start_step, start_accuracy = evaluate(estimator)
    start = _ValuesAtStart()
    estimator.train(train_input_fn, max_steps=start_step + _TF2_STEPS.value, hooks=[start])
    step, accuracy = evaluate(estimator)
    same = {name: np.array_equal(before.get(name), start.values[name]) for name in start.values}
    altered = tuple(name for name in same if not same[name])
    program, checkpoint_format = "the same, wrapped", newest_format(model_dir)
    return Act(program, start_step, step, start_accuracy, accuracy, checkpoint_format, altered)


def act_3(model_dir: str) -> Act:
    """Runs `predict` in a process of its own."""
    command = [sys.executable, "-m", "estimator_ckpt.examples.digits"]
    command += ["--act=predict", f"--model_dir={model_dir}"]
    process = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True)
    if process.returncode:
        raise SystemExit(f"Act 3, eager TF2, failed with exit code {process.returncode}.")
    step, accuracy = json.loads(process.stdout)
    return Act("eager TF2", step, step, accuracy, accuracy, newest_format(model_dir))


def predict(model_dir: str) -> tuple[int, float]:
    """Returns the newest checkpoint's step and its accuracy, in TF2 alone."""
    path = tf.train.latest_checkpoint(model_dir)
    if path is None or newest_format(model_dir) == "saver":
        raise SystemExit(f"No TF2 checkpoint in {model_dir}: run all three acts on it first.")
    norm = ("moving_mean", "moving_variance", "beta", "gamma")
    shapes: dict[str, list[int]] = {"logits/kernel": [32, 10], "logits/bias": [10]}
    for scope, kernel in ("conv", [3, 3, 1, 16]), ("dense", [1024, 32]):
        shapes[f"{scope}/kernel"] = kernel
        shapes.update({f"{scope}/norm/{name}": kernel[-1:] for name in norm})
    model = {name: tf.Variable(tf.zeros(shape), name=name) for name, shape in shapes.items()}
    step = tf.Variable(0, dtype=tf.int64)
    status = tf.train.Checkpoint(var_list=model, step=step).restore(path)
    # All of ours must be in it. It holds more than a predictor has: what Adam remembers.
    status.expect_partial().assert_existing_objects_matched()

    def norm_relu(net: Any, scope: str) -> Any:
        mean, variance, beta, gamma = (model[f"{scope}/norm/{name}"] for name in norm)
        return tf.nn.relu(tf.nn.batch_normalization(net, mean, variance, beta, gamma, _EPSILON))

    images, labels = digits("held_out")
    net = norm_relu(tf.nn.conv2d(images, model["conv/kernel"], 1, "SAME"), "conv")
    net = norm_relu(tf.reshape(net, [-1, 1024]) @ model["dense/kernel"], "dense")
    predicted = tf.argmax(net @ model["logits/kernel"] + model["logits/bias"], axis=1)
    # float32, like the metric of `evaluate`: the two are compared for equality.
    return int(step), float(np.mean(predicted.numpy() == labels, dtype=np.float32))


def disagreements(acts: list[Act]) -> list[str]:
    """Returns what is wrong with the three acts, a sentence each; nothing if they agree."""
    found = []
    for number, (act, expected) in enumerate(zip(acts, ("saver", "checkpoint", "checkpoint")), 1):
        if act.checkpoint_format != expected:
            found.append(f"Act {number}: format {act.checkpoint_format!r}, expected {expected!r}.")
    for number, (before, act) in enumerate(zip(acts, acts[1:]), 1):
        if (act.start_step, act.start_accuracy) != (before.step, before.accuracy):
            ended = f"Act {number} ended at step {before.step} with accuracy {before.accuracy}"
            started = f"step {act.start_step} with accuracy {act.start_accuracy}"
            found.append(f"{ended}, but act {number + 1} started at {started}.")
        if act.altered:
            found.append(f"Act {number + 1} did not take over: {', '.join(act.altered)}.")
    return found


def table(acts: list[Act]) -> str:
    """Returns a line per act; "100 -> 300": from, to."""
    row = "{:<5}{:<19}{:<12}{:<12}{}"
    lines = [row.format("act", "program", "step", "format", "accuracy")]
    for number, act in enumerate(acts, 1):
        trained = act.step != act.start_step
        step = f"{act.start_step} -> {act.step}" if trained else act.step
        accuracy = f"{act.accuracy:.4f}"
        if trained and act.start_accuracy is not None:
            accuracy = f"{act.start_accuracy:.4f} -> {accuracy}"
        lines.append(row.format(number, act.program, step, act.checkpoint_format, accuracy))
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {' '.join(argv[1:])}")
    logging.set_verbosity("info" if _VERBOSE.value else "warning")
    tf.get_logger().handlers.clear()  # absl's root handler shows these lines, once is enough
    tf.get_logger().setLevel("INFO" if _VERBOSE.value else "ERROR")
    if _ACT.value == "predict":
        if _MODEL_DIR.value is None:
            raise app.UsageError("--act=predict needs --model_dir.")
        print(json.dumps(predict(_MODEL_DIR.value)))
        return
    try:
        tf.estimator.Estimator  # noqa: B018
    except (AttributeError, ImportError) as error:
        raise SystemExit(f"TensorFlow {tf.__version__} has no Estimator: {_INSTALL}") from error

    acts: list[Act] = []
    with tempfile.TemporaryDirectory() as temporary:
        for perform in act_1, act_2, act_3:
            acts.append(perform(_MODEL_DIR.value or temporary))
            print(f"Act {len(acts)} of 3, accuracy {acts[-1].accuracy:.4f}", flush=True)
            if found := disagreements(acts):
                break
    print(f"\n{table(acts)}")
    if found:
        raise SystemExit("\n".join(found))


if __name__ == "__main__":
    app.run(main, argv=find_flagfiles(sys.argv))
