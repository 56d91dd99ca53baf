"""Jobs for `estimator-ckpt train` and the flags, as users have them in modules of their own.

The batches do not depend on the position in the stream: Estimator starts its input anew when a job
resumes.
"""

import select
import sys

import tensorflow as tf
from absl import flags

v1 = tf.compat.v1

_LABEL_SCALE = flags.DEFINE_float("train_jobs_label_scale", 1.0, "A flag of the module's own.")

FEATURES = [[1.0, 2.0], [3.0, -1.0], [0.5, 0.25]]
LABELS = [[1.0], [-2.0], [0.5]]


def input_fn():
    return tf.data.Dataset.from_tensors((FEATURES, LABELS)).repeat()


def eval_input_fn():
    return tf.data.Dataset.from_tensors((FEATURES, LABELS))


def scaled_input_fn(params):
    labels = [[_LABEL_SCALE.value * params["label"]] for _ in LABELS]
    return tf.data.Dataset.from_tensors((FEATURES, labels)).repeat()


def ids_input_fn():
    return tf.data.Dataset.from_tensors(([0, 1, 2], LABELS)).repeat()


def input_fn_of_a_path(path):
    raise AssertionError(path)


def failing_input_fn():
    raise ZeroDivisionError("the user's own")


class Losses(v1.train.SessionRunHook):
    """Prints each step's loss, bit for bit; at `hold_at` it waits for a line from the test."""

    def __init__(self, loss, hold_at=None):
        self._loss = loss
        self._hold_at = hold_at

    def after_create_session(self, session, coord):
        self._step = int(session.run(v1.train.get_global_step()))

    def before_run(self, run_context):
        return v1.train.SessionRunArgs(self._loss)

    def after_run(self, run_context, run_values):
        self._step += 1
        print(f"loss {self._step} {float(run_values.results).hex()}", flush=True)
        if self._step == self._hold_at:
            # A signal that came just before a read would wait for the line, too.
            while not select.select([sys.stdin], [], [], 0.1)[0]:
                pass
            sys.stdin.readline()


def model_fn(features, labels, mode, params):
    """Two dense layers by Adam, with a moving average: what must not be lost between two steps."""
    params = {"learning_rate": 0.01, "scope": "dense", "units": 1, "hold_at": None, **params}
    with v1.variable_scope(params["scope"]):
        kernel = v1.get_variable("kernel", initializer=[[0.5, -0.25, 1.0], [0.125, 1.0, -1.0]])
        average = v1.get_variable("average", [], initializer=v1.ones_initializer(), trainable=False)
    with v1.variable_scope("head"):
        weights = v1.get_variable(f"w{params['units']}", [3, params["units"]])
    hidden = tf.nn.tanh(tf.matmul(features, kernel))
    outputs = tf.reduce_sum(tf.matmul(hidden, weights), axis=1, keepdims=True) + average
    if mode == tf.estimator.ModeKeys.PREDICT:
        return tf.estimator.EstimatorSpec(mode, predictions={"outputs": outputs})
    loss = tf.reduce_mean((outputs - labels) ** 2)
    if mode == tf.estimator.ModeKeys.EVAL:
        metrics = {"mean": v1.metrics.mean(outputs)}
        return tf.estimator.EstimatorSpec(mode, loss=loss, eval_metric_ops=metrics)
    step = v1.train.get_global_step()
    moved = 0.9 * average + 0.1 * tf.reduce_mean(hidden)
    with tf.control_dependencies([loss, moved]):  # they read what is assigned below
        minimize = v1.train.AdamOptimizer(params["learning_rate"]).minimize(loss, step)
    with tf.control_dependencies([minimize]):
        train_op = v1.assign(average, moved)
    hooks = [Losses(loss, params["hold_at"])]
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train_op, training_hooks=hooks)


def minimized(mode, loss):
    step = v1.train.get_global_step()
    train_op = v1.train.GradientDescentOptimizer(0.1).minimize(loss, step)
    return tf.estimator.EstimatorSpec(
        mode, loss=loss, train_op=train_op, training_hooks=[Losses(loss)]
    )


def towers_model_fn(features, labels, mode):
    """Two towers of one shape, and a step size."""
    outputs = v1.get_variable("optimizer/step_size", [])
    for tower in ("tower_a", "tower_b"):
        kernel = v1.get_variable(f"{tower}/encoder/layer_0/kernel", [2, 3])
        outputs = outputs + tf.reduce_sum(tf.matmul(features, kernel), axis=1, keepdims=True)
    return minimized(mode, tf.reduce_mean((outputs - labels) ** 2))


def embedding_model_fn(features, labels, mode):
    """A row for each of four words."""
    table = v1.get_variable("embedding/table", [4, 2])
    kernel = v1.get_variable("dense/kernel", [2, 1])
    outputs = tf.matmul(tf.gather(table, features), kernel)
    return minimized(mode, tf.reduce_mean((outputs - labels) ** 2))


def model_fn_without_params(features, labels, mode):
    return model_fn(features, labels, mode, {})


def failing_model_fn(features, labels, mode):
    raise ZeroDivisionError("the user's own")


def model_fn_of_wrong_arguments(x, y):
    raise AssertionError((x, y))


def make_estimator(config, params):
    return tf.estimator.Estimator(model_fn, config=config, params=params)


def make_canned(model_dir):
    column = tf.feature_column.numeric_column("x", shape=[2])
    return tf.estimator.LinearRegressor([column], model_dir=model_dir)


def make_nothing(config):
    return None


class Model:
    """A model_fn that is a method of a class."""

    @staticmethod
    def model_fn(features, labels, mode):
        return model_fn(features, labels, mode, {})


not_a_function = 3


def serving_input_receiver_fn():
    features = v1.placeholder(tf.float32, [None, 2])
    return tf.estimator.export.TensorServingInputReceiver(features, {"features": features})


class Weights(getattr(getattr(tf, "estimator", None), "Exporter", object)):
    """An exporter of the job's own."""

    name = "weights"

    def export(self, estimator, export_path, checkpoint_path, eval_result, is_the_final_export):
        print(f"weights of step {eval_result['global_step']}", flush=True)


def make_exporters(params):
    return [
        tf.estimator.BestExporter("best", serving_input_receiver_fn, exports_to_keep=1),
        tf.estimator.FinalExporter("final", serving_input_receiver_fn),
        Weights(),
    ]


def make_run_config(model_dir):
    return tf.estimator.RunConfig(
        model_dir=model_dir, tf_random_seed=7, save_checkpoints_steps=2, keep_checkpoint_max=2
    )


def make_hooks(params, config):
    return v1.train.StopAtStepHook(last_step=params["stops_at"])


def make_three():
    return [make_nothing(None), 3]
