"""Warm starts in Estimators, under a strategy, after a recovery, and from every kind of source."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from estimator_jobs import (
    estimator,
    input_fn,
    latest_step,
    linear_spec,
    predict_input_fn,
    train,
)
from graph_jobs import FORMATS, global_values, latest, run_job, v1

from estimator_ckpt import WarmStart, checkpoint_scaffold, make_scaffold, wrap_estimator
from estimator_ckpt.errors import MismatchError

TRAINABLE = ("linear/w", "b")


def assert_starts_from(start, end):
    """The trainable variables of a session began as those of another ended; the rest did not."""
    for name in TRAINABLE:
        np.testing.assert_array_equal(start[name], end[name])
    assert start["global_step"] == 0
    assert end["global_step"] > 0
    assert not np.any(start["linear/w/Adam"])
    assert np.any(end["linear/w/Adam"])


@pytest.mark.estimator
@pytest.mark.parametrize("source_format", [None, *FORMATS])
def test_an_estimator_starts_from_another_ones_model_dir(tmp_path, source_format):
    _, end = train(estimator(tmp_path / "a", source_format), steps=2)
    job = estimator(tmp_path / "b", "checkpoint", warm_start=str(tmp_path / "a"))
    start, _ = train(job, steps=2)
    assert_starts_from(start, end)
    assert (tmp_path / "b" / "warm_start.json").exists()


@pytest.mark.estimator
def test_a_wrapped_estimator_starts_from_another(tmp_path):
    _, end = train(estimator(tmp_path / "a"), steps=2)
    stock = estimator(tmp_path / "b")
    start, _ = train(wrap_estimator(stock, "both", warm_start=str(tmp_path / "a")))
    assert_starts_from(start, end)


@pytest.mark.estimator
def test_settings_of_tf_estimator_are_taken(tmp_path):
    _, end = train(estimator(tmp_path / "a"), steps=2)
    settings = tf.estimator.WarmStartSettings(str(tmp_path / "a"), vars_to_warm_start="linear")
    start, _ = train(estimator(tmp_path / "b", "both", warm_start=settings))
    np.testing.assert_array_equal(start["linear/w"], end["linear/w"])
    assert start["b"] == 0


@pytest.mark.estimator
def test_an_estimator_that_goes_on_is_not_warm_started_again(tmp_path):
    train(estimator(tmp_path / "a"), steps=2)
    job = estimator(tmp_path / "b", "checkpoint", warm_start=str(tmp_path / "a"))
    _, end = train(job, steps=2)
    start, _ = train(job, steps=1)
    for name, value in end.items():
        np.testing.assert_array_equal(start[name], value)


@pytest.mark.estimator
def test_evaluation_and_prediction_read_the_jobs_own_checkpoint(tmp_path):
    train(estimator(tmp_path / "a"), steps=5)
    job = estimator(tmp_path / "b", "checkpoint", warm_start=str(tmp_path / "a"))
    _, end = train(job, steps=1)
    for path in (tmp_path / "a").glob("*.*"):
        path.unlink()
    y = np.sum(end["linear/w"]) * np.float32([1, 3]) + end["b"]
    predicted = [float(one["y"][0]) for one in job.predict(predict_input_fn)]
    np.testing.assert_allclose(predicted, y, rtol=1e-6)
    found = job.evaluate(input_fn, steps=1)
    np.testing.assert_allclose(found["mean_y"], np.mean(y), rtol=1e-6)
    assert found["global_step"] == 1


@pytest.mark.estimator
def test_an_evaluator_in_memory_sees_the_training_job(tmp_path):
    train(estimator(tmp_path / "a"), steps=5)
    job = estimator(tmp_path / "b", "checkpoint", warm_start=str(tmp_path / "a"))
    hook = tf.estimator.experimental.InMemoryEvaluatorHook(job, input_fn, steps=1, every_n_iter=1)
    job.train(input_fn, steps=2, hooks=[hook])
    assert latest_step(tmp_path / "b") == 2


def replicas(source, model_dir, **fields):
    """What the replicas of each variable start from, under a strategy with two of them."""
    # In a process of its own: devices are configured before TensorFlow does anything else.
    job = Path(__file__).parent / "replicas_job.py"
    command = [sys.executable, str(job), str(source), str(model_dir), json.dumps(fields)]
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert all(len(values) == 2 for values in found.values())
    return found


@pytest.mark.estimator
@pytest.mark.parametrize("source_format", ["saver", "checkpoint"])
def test_every_replica_of_a_strategy_starts_from_the_checkpoint(tmp_path, source_format):
    _, end = train(estimator(tmp_path / "a", source_format), steps=2)
    found = replicas(tmp_path / "a", tmp_path / "b")
    for name in TRAINABLE:
        for value in found[name]:
            np.testing.assert_allclose(value, end[name], rtol=1e-6)
    assert found["global_step"] == [0, 0]


@pytest.mark.estimator
def test_every_replica_of_a_strategy_starts_with_the_remapped_vocabulary(tmp_path):
    def counted(features, labels, mode):
        spec = linear_spec(features, labels, mode)
        (w,) = (v for v in v1.global_variables() if v.op.name == "linear/w")
        with tf.control_dependencies([spec.train_op]):
            counted = w.assign([[1.0], [2.0], [3.0], [4.0]])
        return spec._replace(train_op=tf.group(counted))

    train(estimator(tmp_path / "a", "checkpoint", counted), steps=1)
    (tmp_path / "old.txt").write_text("a\nb\nc\nd\n")
    (tmp_path / "new.txt").write_text("d\na\ne\nc\n")
    info = {
        "new_vocab": str(tmp_path / "new.txt"),
        "new_vocab_size": 4,
        "num_oov_buckets": 0,
        "old_vocab": str(tmp_path / "old.txt"),
    }
    found = replicas(tmp_path / "a", tmp_path / "b", var_name_to_vocab_info={"linear/w": info})
    assert found["linear/w"] == [[[4.0], [1.0], [0.0], [3.0]]] * 2


def counting():
    """A variable that grows by two with each step."""
    variable = v1.get_variable("dense/kernel", initializer=[0.0, 1.0])
    step = v1.train.get_or_create_global_step()
    return tf.group(v1.assign_add(variable, [2.0, 2.0]), v1.assign_add(step, 1))


def test_a_session_that_recovers_is_not_warm_started_again(tmp_path):
    run_job(tmp_path / "a", build=counting, steps=3)
    with tf.Graph().as_default():
        train_op = counting()
        values = []

        class Interrupts(v1.train.SessionRunHook):
            def after_create_session(self, session, coord):
                values.append(global_values(session))

            def after_run(self, run_context, run_values):
                if len(values) == 1 and run_context.session.run(step) == 2:
                    raise tf.errors.AbortedError(None, None, "a worker was lost")

        step = v1.train.get_global_step()
        with v1.train.MonitoredTrainingSession(
            checkpoint_dir=str(tmp_path / "b"),
            scaffold=checkpoint_scaffold(warm_start=str(tmp_path / "a")),
            hooks=[Interrupts()],
            save_checkpoint_steps=1,
            save_checkpoint_secs=None,
            log_step_count_steps=None,
        ) as session:
            for _ in range(4):
                session.run(train_op)
    assert len(values) == 2
    np.testing.assert_array_equal(values[0]["dense/kernel"], [6, 7])
    assert values[1]["global_step"] > 0
    np.testing.assert_array_equal(
        values[1]["dense/kernel"], np.add([6, 7], 2 * values[1]["global_step"])
    )


def prefix_of(directory):
    return latest(directory)


def without_state_file(directory):
    os.remove(os.path.join(directory, "checkpoint"))
    return str(directory)


PATHS = {
    "prefix": prefix_of,
    "model_dir": str,
    "model_dir without a state file": without_state_file,
    "index": lambda directory: f"{latest(directory)}.index",
    "state file": lambda directory: os.path.join(directory, "checkpoint"),
}


@pytest.mark.parametrize("checkpoint_format", FORMATS)
@pytest.mark.parametrize("kind", PATHS)
def test_the_source_is_any_path_of_a_checkpoint(tmp_path, kind, checkpoint_format):
    run_job(tmp_path / "a", lambda: make_scaffold(checkpoint_format), build=counting, steps=3)
    path = PATHS[kind](tmp_path / "a")
    start, _ = run_job(tmp_path / "b", lambda: checkpoint_scaffold(warm_start=path), build=counting)
    np.testing.assert_array_equal(start["dense/kernel"], [6, 7])
    assert start["global_step"] == 0


def test_the_source_is_a_saved_model(tmp_path):
    module = tf.Module()
    module.kernel = tf.Variable([6.0, 7.0], name="dense/kernel")
    tf.saved_model.save(module, str(tmp_path / "a"))
    start, _ = run_job(
        tmp_path / "b",
        lambda: checkpoint_scaffold(warm_start=str(tmp_path / "a")),
        build=counting,
    )
    np.testing.assert_array_equal(start["dense/kernel"], [6, 7])


def test_the_source_is_an_exported_saved_model_of_tf1(tmp_path):
    with tf.Graph().as_default(), v1.Session() as session:
        counting()
        session.run(v1.global_variables_initializer())
        kernel = v1.trainable_variables()[0]
        session.run(kernel.assign([6.0, 7.0]))
        v1.saved_model.simple_save(
            session, str(tmp_path / "a"), {"x": tf.constant(1)}, {"y": kernel.read_value()}
        )
    start, _ = run_job(
        tmp_path / "b",
        lambda: checkpoint_scaffold(warm_start=str(tmp_path / "a")),
        build=counting,
    )
    np.testing.assert_array_equal(start["dense/kernel"], [6, 7])


@pytest.mark.estimator  # Keras 3 does not write checkpoints
def test_the_source_is_what_keras_saves(tmp_path):
    model = tf.keras.Sequential([tf.keras.layers.Dense(1, use_bias=False, name="dense")])
    model.build([None, 2])
    model.set_weights([np.float32([[6], [7]])])
    model.save_weights(str(tmp_path / "a" / "weights"))

    def build():
        v1.get_variable("dense/kernel", [2, 1])
        return v1.assign_add(v1.train.get_or_create_global_step(), 1)

    start, _ = run_job(
        tmp_path / "b",
        lambda: checkpoint_scaffold(warm_start=str(tmp_path / "a" / "weights")),
        build=build,
    )
    np.testing.assert_array_equal(start["dense/kernel"], [[6], [7]])


@pytest.mark.parametrize(
    "pair",
    [
        ("model/layers/0/kernel", "dense/kernel"),
        ("model/layers_too/again/kernel", "dense/kernel"),
        ("model/layers_too/again/", "dense/"),
        ("model/layers/0/kernel/.ATTRIBUTES/VARIABLE_VALUE", "dense/kernel"),
        ("model/layers/0/", "dense/"),
        ("other/kernel", "dense/kernel"),
    ],
)
def test_an_object_is_found_by_its_path_and_by_its_name(tmp_path, pair):
    model, layer = tf.Module(), tf.Module()
    model.layers = [layer]
    model.layers_too = tf.Module()
    model.layers_too.again = layer
    layer.kernel = tf.Variable([6.0, 7.0], name="other/kernel")
    prefix = tf.train.Checkpoint(model=model).save(str(tmp_path / "a" / "ckpt"))
    settings = WarmStart(prefix, assignment_map=[pair])
    start, _ = run_job(
        tmp_path / "b", lambda: checkpoint_scaffold(warm_start=settings), build=counting
    )
    np.testing.assert_array_equal(start["dense/kernel"], [6, 7])


def test_a_name_that_several_objects_share_is_told_with_their_paths(tmp_path):
    pair = [tf.Variable([6.0, last], name="dense/kernel") for last in (7.0, 8.0)]
    prefix = tf.train.Checkpoint(first=pair[0], second=pair[1]).save(str(tmp_path / "ckpt"))
    with pytest.raises(MismatchError, match=r"first/.* and second/.* one name for several"):
        run_job(tmp_path / "b", lambda: checkpoint_scaffold(warm_start=prefix), build=counting)


@pytest.mark.estimator
def test_a_scaffold_of_the_model_fns_own_is_warm_started(tmp_path):
    _, end = train(estimator(tmp_path / "a"), steps=2)

    def with_scaffold(features, labels, mode):
        return linear_spec(
            features, labels, mode, scaffold=v1.train.Scaffold(saver=v1.train.Saver())
        )

    job = estimator(
        tmp_path / "b", "checkpoint", model_fn=with_scaffold, warm_start=str(tmp_path / "a")
    )
    start, _ = train(job)
    assert_starts_from(start, end)
