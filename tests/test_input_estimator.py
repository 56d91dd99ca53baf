"""save_input in an Estimator, whose hooks initialize the iterators."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from estimator_jobs import latest_step, run_config, v1
from input_jobs import minimize, numbers

from estimator_ckpt import errors, make_scaffold, wrap_estimator, wrap_model_fn
from estimator_ckpt.flags import define_flags

pytestmark = pytest.mark.estimator


class Recorder(v1.train.SessionRunHook):
    """Each step's batch and loss."""

    def __init__(self):
        self.steps = []

    def begin(self):
        graph = v1.get_default_graph()
        self._tensors = [graph.get_tensor_by_name(name) for name in ("batch:0", "loss:0")]

    def before_run(self, context):
        return v1.train.SessionRunArgs(self._tensors)

    def after_run(self, context, values):
        batch, loss = values.results
        self.steps.append((batch.tolist(), float(loss)))


class Kill(v1.train.SessionRunHook):
    """Kills the process when the session has saved the step that it resumes from."""

    def after_create_session(self, session, coord):
        os.kill(os.getpid(), signal.SIGKILL)


def model_fn(features, labels, mode):
    loss, train = minimize(tf.identity(features, "batch"))
    return tf.estimator.EstimatorSpec(mode, loss=tf.identity(loss, "loss"), train_op=train)


def job(model_dir, checkpoint_format="both", fn=model_fn, **options):
    config = run_config(model_dir, tf_random_seed=3, **options.pop("config", {}))
    wrapped = wrap_model_fn(fn, checkpoint_format, **{"save_input": True, **options})
    return tf.estimator.Estimator(wrapped, config=config)


def train(estimator, steps=None, input_fn=numbers, hooks=(), **limits):
    recorder = Recorder()
    estimator.train(input_fn, steps=steps, hooks=[recorder, *hooks], **limits)
    return recorder.steps


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    """What a job reads in 40 steps, to the end of its data."""
    return train(job(tmp_path_factory.mktemp("whole")))


def test_a_stopped_job_goes_on_with_the_next_batch_to_the_bit(never_stopped, tmp_path):
    got = train(job(tmp_path), 3)
    got += train(job(tmp_path, "checkpoint"), 1, lambda: numbers(parallel=1, ahead=7))
    got += train(job(tmp_path, "saver"), max_steps=9)
    assert got == never_stopped[:9]


def test_train_and_evaluate_goes_on_where_it_stood(never_stopped, tmp_path):
    recorder = Recorder()
    for last in (2, 5):
        tf.estimator.train_and_evaluate(
            job(tmp_path),
            tf.estimator.TrainSpec(numbers, max_steps=last, hooks=[recorder]),
            tf.estimator.EvalSpec(numbers, steps=1, throttle_secs=0, start_delay_secs=0),
        )
    assert recorder.steps == never_stopped[:5]


def test_training_by_epochs_begins_each_with_all_the_data(tmp_path, caplog):
    epochs = [train(job(tmp_path), None, lambda: numbers(6, repeat=1)) for _ in range(3)]
    assert [len(steps) for steps in epochs] == [3, 3, 3]
    assert [np.sort(np.concatenate([b for b, _ in e])).tolist() for e in epochs] == [
        np.repeat(np.arange(6) / 8, 2).tolist()
    ] * 3
    assert caplog.text.count("The input begins anew: its position is at the end of the data") == 2


def test_what_cannot_be_saved_is_named_before_the_first_step(tmp_path, caplog):
    def through_python():
        data = tf.data.Dataset.range(9)
        return data.map(lambda x: v1.py_func(np.float32, [x], tf.float32)).batch(2)

    recorder = Recorder()
    with pytest.raises(
        errors.SettingsError, match=r"outside of tf\.data, in 1 kind of ops: PyFunc"
    ):
        job(tmp_path).train(through_python, steps=1, hooks=[recorder])
    assert recorder.steps == []
    assert len(train(job(tmp_path, on_unsavable_input="warn"), 1, through_python)) == 1
    assert "The input's position is not saved: the position of input/0" in caplog.text


def of_a_scaffold(features, labels, mode):
    spec = model_fn(features, labels, mode)
    return spec._replace(scaffold=make_scaffold("both", save_input=True))


def test_a_scaffold_alone_cannot_serve_the_iterator_of_an_input_fn(never_stopped, tmp_path):
    stock = tf.estimator.Estimator(of_a_scaffold, config=run_config(tmp_path, tf_random_seed=3))
    with pytest.raises(errors.SettingsError, match="in an Estimator use wrap_model_fn"):
        train(stock, 1)
    assert tf.train.latest_checkpoint(str(tmp_path)) is None
    got = train(wrap_estimator(stock, "both"), 2) + train(wrap_estimator(stock, "both"), 1)
    assert got == never_stopped[:3]


@pytest.mark.parametrize(
    ("config", "cluster", "why"),
    [
        (
            {"train_distribute": tf.distribute.OneDeviceStrategy("/cpu:0")},
            {},
            "MultiDeviceIterator",
        ),
        ({}, {"chief": ["a:1"], "worker": ["b:1"], "ps": ["c:1"]}, "2 processes read data"),
    ],
)
def test_several_readers_are_refused(tmp_path, config, cluster, why, monkeypatch):
    task = {"cluster": cluster, "task": {"type": "chief", "index": 0}} if cluster else {}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    with pytest.raises(errors.SettingsError, match=why):
        job(tmp_path, config=config).train(lambda: numbers().repeat(), steps=1)
    assert tf.train.latest_checkpoint(str(tmp_path)) is None


def test_a_checkpoint_of_another_name_gets_a_copy_before_the_first_step(never_stopped, tmp_path):
    """A chief's hook saves before the input is where it was."""
    train(job(tmp_path), 2)
    hook = v1.train.CheckpointSaverHook(
        str(tmp_path), save_steps=100, checkpoint_basename="other.ckpt"
    )
    with pytest.raises(KeyboardInterrupt):
        train(job(tmp_path), 1, hooks=[hook, Interrupt()])
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "other.ckpt-2")
    assert train(job(tmp_path), 2) == never_stopped[2:4]


class Interrupt(v1.train.SessionRunHook):
    def after_create_session(self, session, coord):
        raise KeyboardInterrupt


@pytest.mark.faults
def test_a_kill_between_the_save_at_resume_and_the_first_step_loses_nothing(
    never_stopped, tmp_path
):
    got = train(job(tmp_path), 3)
    code = """
import sys, test_input_estimator as t
t.train(t.job(sys.argv[1], "saver"), 1, hooks=[t.Kill()])
"""
    killed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parent, timeout=300
    )
    assert killed.returncode == -signal.SIGKILL
    # It was saved anew, in the other format.
    assert "w" in dict(tf.train.list_variables(str(tmp_path)))
    assert got + train(job(tmp_path), 4) == never_stopped[:7]


@pytest.mark.faults
def test_a_job_that_is_stopped_at_random_steps_is_one_that_never_was(never_stopped, tmp_path):
    stops = sorted(random.Random(7).sample(range(1, 40), 20))
    got = []
    for last in (*stops, 40):
        got += train(job(tmp_path), max_steps=last)
    assert latest_step(tmp_path) == 40
    assert got == never_stopped[:40]


def test_by_flags():
    values = flags.FlagValues()
    made = define_flags(flag_values=values)
    values(["job", "--save_input", "--on_input_change=restart", "--save_input_max_bytes=9999"])
    options = made.saver_options()
    assert (options.save_input, options.on_input_change) == (True, "restart")
    assert (options.on_unsavable_input, options.save_input_max_bytes) == ("error", 9999)
