"""A reset on resume: initialized once although the checkpoint has it, and recorded in it."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import input_jobs
import numpy as np
import pytest
import tensorflow as tf
from graph_jobs import FORMATS, minimize, run_job

from estimator_ckpt import convert_checkpoint, make_scaffold, open_checkpoint, verify_checkpoint
from estimator_ckpt.errors import (
    CheckpointError,
    CorruptCheckpointError,
    MismatchError,
    SettingsError,
)
from estimator_ckpt.formats import RESETS_KEY
from estimator_ckpt.saving.resets import Request, read_resets

v1 = tf.compat.v1


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def build(head=1):
    """A body, a head, a statistic, their averages and Adam; returns the train op."""
    body = v1.get_variable("body/w", initializer=np.float32([1, 2]))
    top = v1.get_variable("head/w", initializer=np.float32([3] * head))
    mean = v1.get_variable("norm/mean", initializer=np.float32(0), trainable=False)
    train = minimize(tf.reduce_sum(body**2) + tf.reduce_sum(top**2))
    with tf.control_dependencies([train]):
        average = tf.train.ExponentialMovingAverage(0.5).apply([body, top])
        return tf.group(average, v1.assign_add(mean, 1.0))


INITIAL = {"body/w": [1, 2], "head/w": [3], "norm/mean": 0}
SLOTS = [f"{name}/Adam{end}" for name in ("body/w", "head/w") for end in ("", "_1")]
POWERS = ["beta1_power", "beta2_power"]
AVERAGES = [f"{name}/ExponentialMovingAverage" for name in ("body/w", "head/w")]


def train(reset=None, steps=2, checkpoint_format="both", build=build, **options):
    options = {"reset": reset, "keep_checkpoint_max": 0, **options}
    return run_job(
        "run", lambda: make_scaffold(checkpoint_format, **options), build=build, steps=steps
    )


def changed(end, start):
    """Which variables a start has not taken from the end of the run before."""
    return {name for name in start if not np.array_equal(start[name], end[name])}


def resets(path="run"):
    """What a stock reader finds."""
    prefix = v1.train.latest_checkpoint(path) if os.path.isdir(path) else path
    reader = v1.train.load_checkpoint(prefix)
    if not reader.has_tensor(RESETS_KEY):
        return []
    return [one["reset"] for one in json.loads(reader.get_tensor(RESETS_KEY))]


@pytest.mark.parametrize(
    ("reset", "expected"),
    [
        (["optimizer"], {*SLOTS, *POWERS}),
        (["averages"], set(AVERAGES)),
        (["statistics"], {"norm/mean"}),
        (["head/.*"], {"head/w", *(name for name in (*SLOTS, *AVERAGES) if "head" in name)}),
        (["head/w"], {"head/w", "head/w/Adam", "head/w/Adam_1"}),  # slots go along
    ],
)
def test_what_is_asked_for_begins_anew_and_nothing_else(reset, expected):
    _, end = train()
    start, _ = train(reset)
    assert changed(end, start) == expected
    for name, value in INITIAL.items():
        if name in expected:
            np.testing.assert_array_equal(start[name], value)
    if "optimizer" in reset:
        np.testing.assert_allclose(start["beta1_power"], 0.9)
        assert not any(start[name].any() for name in SLOTS)
    if "averages" in reset:  # they begin with the values of their variables, as at a first start
        for name in AVERAGES:
            np.testing.assert_array_equal(start[name], end[name.rpartition("/")[0]])


def test_each_optimizer_counts_on_or_begins_anew_with_its_slots():
    """And a scalar's slots are slots, no numbers."""

    def two(sparse=False):
        body = v1.get_variable("body/w", initializer=np.float32([1, 2]))
        scale = v1.get_variable("head/scale", initializer=np.float32(3))
        rows = tf.gather(body, [1]) if sparse else body
        train = minimize(tf.reduce_sum(rows**2))
        adam = v1.train.AdamOptimizer(0.1, name="Head")
        return tf.group(train, adam.minimize(scale**2, var_list=[scale]))

    _, end = train(build=two)
    start, _ = train(["head/.*"], build=two)
    of_the_head = {"head/scale", "head/scale/Head", "head/scale/Head_1"}
    assert changed(end, start) == {*of_the_head, "beta1_power_1", "beta2_power_1"}
    shutil.rmtree("run")
    _, end = train(build=lambda: two(sparse=True))  # there no op tells whose the counts are
    start, _ = train(["head/.*"], build=lambda: two(sparse=True))
    assert changed(end, start) == of_the_head


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_it_is_done_once_and_every_later_checkpoint_says_so(checkpoint_format):
    train(checkpoint_format=checkpoint_format)
    assert resets() == []
    start, _ = train(["optimizer"], checkpoint_format=checkpoint_format)
    assert not start["body/w/Adam"].any()
    for reset in (["optimizer", "optimizer"], None):
        start, _ = train(reset, steps=1, checkpoint_format=checkpoint_format)
        assert start["body/w/Adam"].any()
        assert resets() == [["optimizer"]]
    start, _ = train(["optimizer"], reset_once="again", checkpoint_format=checkpoint_format)
    assert not start["body/w/Adam"].any()
    assert resets() == [["optimizer"], ["optimizer"]]
    with open_checkpoint("run") as checkpoint:
        assert checkpoint.format == checkpoint_format
        assert RESETS_KEY not in checkpoint.variables  # it is no variable
    if checkpoint_format != "saver":
        variables = {name: tf.Variable(tf.zeros_like(value)) for name, value in start.items()}
        reader = tf.train.Checkpoint(var_list=variables, step=variables["global_step"])
        reader.restore(v1.train.latest_checkpoint("run")).assert_consumed()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_checkpoint_from_before_is_pinned_and_the_first_save_has_its_step(asynchronous):
    _, end = train()
    train(["optimizer"], steps=0, async_checkpoint=asynchronous)
    assert resets() == [["optimizer"]]
    assert os.path.basename(v1.train.latest_checkpoint("run")) == "model.ckpt-2"
    (name,) = os.listdir("run/pinned")
    assert re.fullmatch(r"before-reset-[0-9a-f]{8}", name)
    with open_checkpoint(f"run@{name}") as before, open_checkpoint("run") as after:
        np.testing.assert_array_equal(before["body/w/Adam"], end["body/w/Adam"])
        assert not after["body/w/Adam"].any()
        assert before.global_step == after.global_step == 2


def test_a_start_that_is_refused_pins_nothing_and_one_that_falls_back_pins_what_it_read():
    train()
    train()
    with open_checkpoint("run") as checkpoint:
        offset = checkpoint.variables["body/w"].entry.offset
    path = Path("run/model.ckpt-4.data-00000-of-00001")
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptCheckpointError, match="fall_back"):
        train(["optimizer"])
    assert not os.path.exists("run/pinned")
    start, _ = train(["optimizer"], on_corrupt="fall_back")
    assert start["global_step"] == 2
    (name,) = os.listdir("run/pinned")
    assert os.path.exists(f"run/pinned/{name}/model.ckpt-2.index")


def test_a_start_that_is_refused_for_its_input_pins_nothing():
    input_jobs.run("run", steps=2)
    with pytest.raises(MismatchError, match="the input is another"):
        input_jobs.run("run", 2, lambda: input_jobs.numbers(batch=8), reset=["optimizer"])
    assert not os.path.exists("run/pinned")


def test_after_a_reset_checkpoints_of_another_saver_stay():
    """They lack what was reset; they do not count for that."""
    train(keep_checkpoint_max=1)
    with tf.Graph().as_default():
        build()
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            weights = v1.train.Saver([*v1.trainable_variables(), v1.train.get_global_step()])
            weights.recover_last_checkpoints(["run/model.ckpt-2"])
            weights.save(session, "run/weights.ckpt")
    train(["optimizer", "averages", "statistics"], keep_checkpoint_max=1)
    found = sorted(path.stem for path in Path("run").glob("*.index"))
    assert found == ["model.ckpt-4", "weights.ckpt"]


def test_a_kill_before_the_first_save_resets_at_the_next_start():
    _, end = train()

    class KilledError(Exception):
        pass

    def scaffold():
        made = make_scaffold("both", reset=["optimizer"])
        made.saver.save = lambda *arguments, **options: (_ for _ in ()).throw(KilledError)
        return made

    with pytest.raises(KilledError):
        run_job("run", scaffold, build=build, steps=1)
    assert resets() == []
    start, _ = train(["optimizer"])
    assert changed(end, start) == {*SLOTS, *POWERS}
    assert len(os.listdir("run/pinned")) == 1


def test_a_rollback_to_before_the_reset_resets_again():
    train()
    shutil.copytree("run", "before")
    train(["optimizer"])
    shutil.rmtree("run")
    shutil.copytree("before", "run")
    start, _ = train(["optimizer"])
    assert not start["body/w/Adam"].any()


def test_a_job_that_starts_anew_has_met_its_request():
    """It would else be reset at its first restart, by the flags that it was started with."""
    train(["optimizer"])
    start, _ = train(["optimizer"])
    assert start["body/w/Adam"].any()


def test_a_job_whose_init_fn_restores_has_met_its_request():
    """As one that warm-starts; else it would reset in the midst of training, when it restarts."""
    train()
    os.rename("run", "before")

    def restore(scaffold, session):
        del scaffold
        (saver,) = v1.get_collection(v1.GraphKeys.SAVERS)
        saver.restore(session, "before/model.ckpt-2")

    def scaffold():
        base = v1.train.Scaffold(init_fn=restore)
        return make_scaffold("both", base=base, reset=["optimizer"])

    _, end = run_job("run", scaffold, build=build)
    start, _ = run_job("run", scaffold, build=build)
    assert changed(end, start) == set()
    assert resets() == [["optimizer"]]


def test_a_head_of_another_shape_begins_anew():
    train()
    start, _ = train(["head/.*"], build=lambda: build(head=4))
    np.testing.assert_array_equal(start["head/w"], [3, 3, 3, 3])
    assert start["global_step"] == 2
    with pytest.raises(CheckpointError, match="head/w"):
        train(build=lambda: build(head=5))


@pytest.mark.parametrize(
    ("reset", "message"),
    [
        (["global_step"], "global_step cannot begin anew beside run/model.ckpt-2, as the names"),
        ([".*"], "warm_start='run/before'; or leave the step out by a pattern"),
        (["heads/.*"], "no variable of the model is meant by 'heads/.*'"),
        (["optimiser"], "no variable of the model is meant by 'optimiser'; did you mean 'opt"),
        (["early_stopping"], "no variable of the model is meant by 'early_stopping'"),
    ],
)
def test_what_cannot_be_reset_is_an_error_and_changes_nothing(reset, message):
    train()
    before = sorted(os.listdir("run"))
    with pytest.raises(SettingsError) as caught:
        train(reset)
    assert message in str(caught.value)
    assert caught.value.key == "reset"
    assert sorted(os.listdir("run")) == before


def test_remote_checkpoints_are_not_moved_by_mv():
    request = Request("4f1c9a0e", ("global_step",), frozenset(), "global_step")
    with pytest.raises(SettingsError, match="Move them aside into gs://b/run/before and start"):
        request.check("gs://b/run/model.ckpt-7")


def test_the_step_begins_anew_where_the_checkpoints_are_moved_aside_by_the_command_it_says():
    _, end = train()
    with pytest.raises(SettingsError) as caught:
        train(["global_step"])
    subprocess.run(str(caught.value).split("`")[1], shell=True, check=True)
    start, later = train(["global_step"], warm_start="run/before")
    assert (start["global_step"], later["global_step"]) == (0, 2)
    np.testing.assert_array_equal(start["body/w"], end["body/w"])
    assert train(["global_step"])[0]["global_step"] == 2


@pytest.mark.parametrize(
    "options",
    [
        {"reset": "optimizer"},
        {"reset": []},
        {"reset": ["("]},
        {"reset": [3]},
        {"reset_once": "again"},
        {"reset": ["optimizer"], "reset_once": ""},
    ],
)
def test_a_wrong_option_is_an_error(options):
    with tf.Graph().as_default(), pytest.raises(SettingsError, match="reset"):
        make_scaffold("both", **options)


def test_a_saver_that_is_left_alone_is_an_error():
    class Own(v1.train.Saver):
        pass

    with tf.Graph().as_default():
        build()
        base = v1.train.Scaffold(saver=Own())
        with pytest.raises(SettingsError, match="keeps its own Own, which resets nothing"):
            make_scaffold("both", base=base, reset=["optimizer"])


def test_early_stopping_is_reset_by_its_role():
    def stopped():
        with v1.variable_scope("signal_early_stopping"):
            stop = v1.get_variable("STOP", initializer=False, trainable=False)
        return tf.group(build(), v1.assign(stop, True))

    _, end = train(build=stopped)
    assert end["signal_early_stopping/STOP"]
    start, _ = train(["early_stopping"], build=stopped)
    assert changed(end, start) == {"signal_early_stopping/STOP"}


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_a_conversion_carries_the_record(checkpoint_format):
    train()
    train(["optimizer"])
    convert_checkpoint("run", "to", checkpoint_format)
    assert verify_checkpoint("run").notes == ()
    assert verify_checkpoint("to").ok
    assert resets("to/model.ckpt-4") == [["optimizer"]]
    os.rename("to", "moved")
    shutil.rmtree("run")
    os.rename("moved", "run")
    convert_checkpoint("run", None, "both", in_place=True)
    with open("run/checkpoint", "w") as file:
        file.write('model_checkpoint_path: "model.ckpt-4"')
    start, _ = train(["optimizer"], checkpoint_format=checkpoint_format)
    assert start["body/w/Adam"].any()


@pytest.mark.estimator
def test_an_estimator_resets_where_it_trains_and_not_where_it_evaluates():
    from estimator_jobs import estimator, input_fn
    from estimator_jobs import train as train_estimator

    _, end = train_estimator(estimator("run", "checkpoint"), steps=2)
    job = estimator("run", "checkpoint", reset=["b", "optimizer"])
    assert job.evaluate(input_fn, steps=1)["global_step"] == 2
    with open_checkpoint("run") as checkpoint:
        np.testing.assert_array_equal(checkpoint["b"], end["b"])
    start, _ = train_estimator(job)
    assert {"b", "b/Adam", "linear/w/Adam", "beta1_power"} < changed(end, start)
    assert not {"linear/w", "global_step"} & changed(end, start)
    start, _ = train_estimator(job)
    assert start["b"] != 0
    assert resets() == [["b", "optimizer"]]


def test_a_record_that_is_none_is_an_error():
    class Entry:
        pass

    train()
    train(["optimizer"])
    with open_checkpoint("run") as checkpoint:
        for text in (b"{", b"3", b'[{"id": 1}]'):
            checkpoint.reader.strings = lambda entry, text=text: [text]
            with pytest.raises(CorruptCheckpointError, match="expected a list of resets"):
                read_resets(checkpoint)
