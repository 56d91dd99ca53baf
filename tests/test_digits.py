"""The digits job: three acts that must agree, and what it says where they do not."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

ROOT = Path(__file__).resolve().parents[1]
MODULE = "estimator_ckpt.examples.digits"
WITHOUT_ESTIMATOR = "import sys\nsys.modules['tensorflow_estimator'] = None\napp.run(digits.main)"


def run_python(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )


def run_job(*job_flags):
    return run_python("-m", MODULE, "--flagfile=configs/digits.flags", *job_flags)


def run_script(script, *job_flags):
    """Runs lines of Python with the module as `digits`, flags parsed and in `FLAGS`."""
    start = f"from absl import app, flags\nimport {MODULE} as digits\nFLAGS = flags.FLAGS\n"
    return run_python("-c", start + script, *job_flags)


def rows(stdout):
    """The table's rows as lists of cells."""
    lines = stdout.partition("\n\n")[2].splitlines()
    return [re.split(r"\s{2,}", line) for line in lines]


@pytest.fixture(scope="module")
def digits():
    """The module, with its flags kept apart from those that other modules define."""
    spec = importlib.util.find_spec(MODULE)
    spec.name = spec.loader.name = "digits_with_flags_of_its_own"
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        for kind in ("string", "integer", "float", "bool", "enum"):
            define = getattr(flags, f"DEFINE_{kind}")
            apart = functools.partial(define, flag_values=flags.FlagValues())
            patch.setattr(flags, f"DEFINE_{kind}", apart)
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of 20 + 30 steps."""
    model_dir = str(tmp_path_factory.mktemp("digits"))
    process = run_job(f"--model_dir={model_dir}", "--tf1_steps=20", "--tf2_steps=30")
    return SimpleNamespace(process=process, model_dir=model_dir)


# The job.


@pytest.mark.estimator
def test_three_acts_agree_and_the_exit_code_is_zero(finished):
    assert (finished.process.returncode, finished.process.stderr) == (0, "")


@pytest.mark.estimator
def test_the_table_has_a_row_for_each_act(finished):
    header, first, second, third = rows(finished.process.stdout)
    assert header == ["act", "program", "step", "format", "accuracy"]
    trained, goes_on = first[-1], second[-1].split(" -> ")
    assert first == ["1", "stock Estimator", "0 -> 20", "saver", trained]
    assert second[:-1] == ["2", "the same, wrapped", "20 -> 50", "checkpoint"]
    assert goes_on[0] == trained
    assert third == ["3", "eager TF2", "50", "checkpoint", goes_on[1]]
    assert 0.1 < float(trained) < float(goes_on[1])


@pytest.mark.estimator
def test_progress_is_a_line_for_each_act(finished):
    progress = finished.process.stdout.splitlines()[:3]
    assert [line[:10] for line in progress] == [f"Act {number} of 3" for number in (1, 2, 3)]


@pytest.mark.estimator
def test_the_eager_program_runs_by_itself_without_estimator(finished):
    process = run_script(WITHOUT_ESTIMATOR, "--act=predict", f"--model_dir={finished.model_dir}")
    step, accuracy = json.loads(process.stdout)
    assert (step, f"{accuracy:.4f}") == (50, rows(finished.process.stdout)[3][-1])


@pytest.mark.estimator
def test_a_reader_with_all_variables_leaves_nothing_in_the_last_checkpoint(finished):
    path = tf.train.latest_checkpoint(finished.model_dir)
    keys = re.compile(r"var_list/(.*)/\.ATTRIBUTES/VARIABLE_VALUE")
    found = [(keys.fullmatch(key), shape) for key, shape in tf.train.list_variables(path)]
    shapes = {match[1].replace(".S", "/"): shape for match, shape in found if match}
    model = {"conv/kernel", "dense/kernel", "logits/kernel", "logits/bias"}
    model |= {f"{scope}/norm/{name}" for scope in ("conv", "dense") for name in ("gamma", "beta")}
    assert {name for name in shapes if f"{name}/Adam" in shapes} == model

    step = tf.Variable(0, dtype=tf.int64)
    var_list = {
        name: tf.Variable(tf.zeros(shape, tf.int64 if name == "global_step" else tf.float32))
        for name, shape in shapes.items()
    }
    var_list["global_step"] = step
    tf.train.Checkpoint(var_list=var_list, step=step).restore(path).assert_consumed()
    assert step.numpy() == 50
    assert var_list["beta1_power"].numpy() == pytest.approx(0.9**51, rel=1e-4)


@pytest.mark.estimator
def test_a_finished_model_dir_is_refused(finished):
    process = run_job(f"--model_dir={finished.model_dir}")
    assert (process.returncode, process.stdout) == (1, "")
    assert f"{finished.model_dir} holds TF2 checkpoints of an earlier run" in process.stderr
    assert "Give a new or an empty --model_dir." in process.stderr


@pytest.mark.estimator
def test_an_interrupted_act_1_is_resumed(tmp_path):
    script = """
def main(argv):
    for FLAGS.tf1_steps in (3, 7):
        act = digits.act_1(FLAGS.model_dir)
        print(act.start_step, act.step, act.checkpoint_format)
app.run(main)"""
    process = run_script(script, f"--model_dir={tmp_path}")
    assert process.stdout.splitlines() == ["0 3 saver", "3 7 saver"]


@pytest.mark.estimator
def test_a_job_that_disagrees_stops_there_and_exits_non_zero(tmp_path):
    # Act 2 forgets to wrap, and one variable differs from what act 1 had.
    script = """
load = digits.tf.train.load_variable
digits.tf.train.load_variable = lambda path, name: load(path, name) + (name == "logits/bias")
digits.wrap_model_fn = lambda model_fn: model_fn
app.run(digits.main)"""
    process = run_script(script, f"--model_dir={tmp_path}", "--tf1_steps=2", "--tf2_steps=2")
    assert process.returncode == 1
    assert process.stderr.splitlines() == [
        "Act 2: format 'saver', expected 'checkpoint'.",
        "Act 2 did not take over: logits/bias.",
    ]
    assert rows(process.stdout)[-1][:-1] == ["2", "the same, wrapped", "2 -> 4", "saver"]


def test_a_tensorflow_without_estimator_names_the_extra():
    process = run_script(WITHOUT_ESTIMATOR)
    assert process.returncode == 1
    assert "has no Estimator: pip install 'estimator-ckpt[estimator,examples]'" in process.stderr


# The eager program, on checkpoints that stock TensorFlow writes.


def threes_checkpoint(digits, model_dir, without=()):
    """Writes a model that takes every digit for a 3, at step 12, less some variables."""
    shapes = {"conv/kernel": (3, 3, 1, 16), "dense/kernel": (1024, 32), "logits/kernel": (32, 10)}
    for scope, width in (("conv", 16), ("dense", 32)):
        for name in ("gamma", "beta", "moving_mean", "moving_variance"):
            shapes[f"{scope}/norm/{name}"] = (width,)
    var_list = {name: tf.Variable(tf.ones(shape)) for name, shape in shapes.items()}
    var_list["logits/bias"] = tf.Variable(tf.one_hot(3, 10))
    var_list = {name: value for name, value in var_list.items() if name not in without}
    step = tf.Variable(12, dtype=tf.int64)
    tf.train.Checkpoint(var_list=var_list, step=step).save(str(model_dir / "model.ckpt"))


def test_predict_returns_step_and_accuracy(digits, tmp_path):
    threes_checkpoint(digits, tmp_path)
    _, labels = digits.digits("held_out")
    assert digits.predict(str(tmp_path)) == (12, np.float32((labels == 3).sum() / len(labels)))


@pytest.mark.parametrize("name", ["logits/bias", "conv/norm/moving_mean"])
def test_predict_refuses_a_checkpoint_without_one_of_its_variables(digits, tmp_path, name):
    threes_checkpoint(digits, tmp_path, without=[name])
    with pytest.raises(AssertionError, match=name):
        digits.predict(str(tmp_path))


@pytest.mark.parametrize("has_tf1_checkpoint", [False, True])
def test_predict_without_a_tf2_checkpoint_says_what_to_do(digits, tmp_path, has_tf1_checkpoint):
    if has_tf1_checkpoint:
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            step = tf.compat.v1.train.get_or_create_global_step()
            session.run(step.initializer)
            tf.compat.v1.train.Saver().save(session, str(tmp_path / "model.ckpt"), step)
    with pytest.raises(SystemExit, match=f"No TF2 checkpoint in {tmp_path}: run all three acts"):
        digits.predict(str(tmp_path))


# The data.


def test_train_and_held_out_digits_are_apart(digits):
    (images, labels), (held_out, held_out_labels) = (
        digits.digits("train"),
        digits.digits("held_out"),
    )
    assert (images.shape, held_out.shape) == ((1437, 8, 8, 1), (360, 8, 8, 1))
    assert (len(labels), len(held_out_labels)) == (1437, 360)
    assert images.dtype == held_out.dtype == np.float32
    assert (images.min(), images.max()) == (0, 1)


def test_missing_scikit_learn_names_the_extra(digits, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(SystemExit, match=r"scikit-learn: pip install '.*\[estimator,examples\]'"):
        digits.digits("train")


# The verdict.


def acts(digits, number=1, **changes):
    """Three acts that agree, but for changes in act `number`."""
    agreeing = [
        digits.Act("stock Estimator", 0, 100, None, 0.75, "saver"),
        digits.Act("the same, wrapped", 100, 300, 0.75, 0.875, "checkpoint"),
        digits.Act("eager TF2", 300, 300, 0.875, 0.875, "checkpoint"),
    ]
    agreeing[number - 1] = dataclasses.replace(agreeing[number - 1], **changes)
    return agreeing


def test_acts_that_agree(digits):
    assert digits.disagreements(acts(digits)) == []


@pytest.mark.parametrize(
    ("number", "changes", "sentence"),
    [
        (1, {"checkpoint_format": "both"}, "Act 1: format 'both', expected 'saver'."),
        (2, {"checkpoint_format": "saver"}, "Act 2: format 'saver', expected 'checkpoint'."),
        (3, {"checkpoint_format": "saver"}, "Act 3: format 'saver', expected 'checkpoint'."),
        (
            2,
            {"start_step": 0},
            "Act 1 ended at step 100 with accuracy 0.75, "
            "but act 2 started at step 0 with accuracy 0.75.",
        ),
        (
            2,
            {"start_accuracy": 0.7500001},
            "Act 1 ended at step 100 with accuracy 0.75, "
            "but act 2 started at step 100 with accuracy 0.7500001.",
        ),
        (
            3,
            {"start_step": 100},
            "Act 2 ended at step 300 with accuracy 0.875, "
            "but act 3 started at step 100 with accuracy 0.875.",
        ),
        (
            3,
            {"start_accuracy": 0.1},
            "Act 2 ended at step 300 with accuracy 0.875, "
            "but act 3 started at step 300 with accuracy 0.1.",
        ),
        (
            2,
            {"altered": ("logits/bias", "logits/bias/Adam")},
            "Act 2 did not take over: logits/bias, logits/bias/Adam.",
        ),
    ],
)
def test_each_disagreement_is_a_sentence(digits, number, changes, sentence):
    assert digits.disagreements(acts(digits, number, **changes)) == [sentence]


def test_all_disagreements_are_listed(digits):
    changed = acts(digits, 2, checkpoint_format="saver", start_step=0, altered=("global_step",))
    assert [sentence[:5] for sentence in digits.disagreements(changed)] == [
        "Act 2",
        "Act 1",
        "Act 2",
    ]


def test_the_table(digits):
    assert digits.table(acts(digits)).splitlines() == [
        "act  program            step        format      accuracy",
        "1    stock Estimator    0 -> 100    saver       0.7500",
        "2    the same, wrapped  100 -> 300  checkpoint  0.7500 -> 0.8750",
        "3    eager TF2          300         checkpoint  0.8750",
    ]
