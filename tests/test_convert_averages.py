"""Averages as weights: the shadows of an ExponentialMovingAverage in the variables' places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import command_runner
from conversion_files import v1, write_bundle
from tensorflow_party import tf

from estimator_ckpt import convert_checkpoint, open_checkpoint
from estimator_ckpt.errors import CheckpointError, ConflictError, MismatchError, SettingsError

AVERAGE = "ExponentialMovingAverage"
RAW, SHADOW = np.float32([1, 2]), np.float32([7, 8])


def trained(checkpoint_format: str, model_dir: Path, *, slices: int | None) -> str:
    """The newest checkpoint of a job with averages, Momentum and an unaveraged statistic."""
    with tf.Graph().as_default():
        partitioner = tf.compat.v1.fixed_size_partitioner(slices) if slices else None
        w = v1.get_variable("net/w", initializer=tf.ones([4]), partitioner=partitioner)
        v1.get_variable("net/moving_mean", initializer=[5.0], trainable=False)
        step = v1.train.get_or_create_global_step()
        train = v1.train.MomentumOptimizer(0.1, 0.9).minimize(tf.nn.l2_loss(w), step)
        with tf.control_dependencies([train]):
            train = tf.train.ExponentialMovingAverage(0.5).apply(v1.trainable_variables())
        from estimator_ckpt import make_scaffold

        scaffold = make_scaffold(checkpoint_format)
        with v1.train.MonitoredTrainingSession(
            checkpoint_dir=str(model_dir), scaffold=scaffold, save_checkpoint_steps=3
        ) as session:
            for _ in range(3):
                session.run(train)
    return tf.train.latest_checkpoint(str(model_dir))


@pytest.mark.parametrize("slices", [None, 2])
@pytest.mark.parametrize("source_format", ["saver", "checkpoint", "both"])
@pytest.mark.parametrize("result_format", ["saver", "checkpoint", "both"])
def test_a_trained_average_takes_its_variables_place_for_stock_readers(
    source_format, result_format, slices, tmp_path
):
    source = trained(source_format, tmp_path / "run", slices=slices)
    before = open_checkpoint(source)
    shadow, raw = before.get_tensor(f"net/w/{AVERAGE}"), before.get_tensor("net/w")
    assert not np.array_equal(shadow, raw)
    result = str(tmp_path / "result")
    convert_checkpoint(source, result, result_format, use_averages=True)

    found = open_checkpoint(result)
    names = {name for name in found.variables if name != "save_counter"}
    assert names == {"net/w", "net/moving_mean", "global_step"}
    np.testing.assert_array_equal(found.get_tensor("net/w"), shadow)
    if result_format != "checkpoint":
        np.testing.assert_array_equal(tf.train.load_checkpoint(result).get_tensor("net/w"), shadow)
    if result_format != "saver" and slices is None:
        w, mean = tf.Variable(tf.zeros([4])), tf.Variable([0.0])
        step = tf.Variable(0, dtype=tf.int64)
        variables = {"net/w": w, "net/moving_mean": mean, "global_step": step}
        reader = tf.train.Checkpoint(var_list=variables, step=step)
        reader.restore(result).assert_consumed()
        np.testing.assert_array_equal(w, shadow)
        assert (mean.numpy().tolist(), int(step)) == ([5.0], 3)


def test_an_average_in_a_scope_of_its_own_is_that_of_its_variable(tmp_path):
    values = {"net/w": RAW, f"ema_scope/net/w/{AVERAGE}": SHADOW}
    source = write_bundle(tmp_path / "m", values)
    convert_checkpoint(source, tmp_path / "out", "saver", use_averages=True)
    found = open_checkpoint(tmp_path / "out")
    assert list(found.variables) == ["net/w"]
    np.testing.assert_array_equal(found.get_tensor("net/w"), SHADOW)


def test_the_plan_says_why_raw_values_slots_and_helpers_of_averages_are_left_out(tmp_path):
    values = {
        "w": RAW,
        "w/ema": SHADOW,
        "w/ema/biased": SHADOW,
        "w/Momentum": RAW,
        "b": RAW,
    }
    source = write_bundle(tmp_path / "m", values)
    plan = convert_checkpoint(source, tmp_path / "out", "saver", use_averages="ema", dry_run=True)
    assert {row.source: (row.targets, row.why) for row in plan.rows} == {
        "w": ((), "w/ema takes its place"),
        "w/ema": (("w",), "the average w/ema"),
        "w/ema/biased": ((), "of an average"),
        "w/Momentum": ((), "of the optimizer Momentum, for the raw values"),
        "b": (("b",), ""),
    }


def test_raw_values_are_kept_under_the_name_that_is_given(tmp_path):
    source = write_bundle(tmp_path / "m", {"w": RAW, f"w/{AVERAGE}": SHADOW})
    convert_checkpoint(source, tmp_path / "out", "both", use_averages=True, keep_raw="raw")
    found = open_checkpoint(tmp_path / "out")
    np.testing.assert_array_equal(found.get_tensor("w"), SHADOW)
    np.testing.assert_array_equal(found.get_tensor("w/raw"), RAW)


def test_rules_apply_to_the_averages_under_their_variables_names(tmp_path):
    source = write_bundle(tmp_path / "m", {"old/w": RAW, f"old/w/{AVERAGE}": SHADOW})
    convert_checkpoint(
        source, tmp_path / "out", "saver", use_averages=True, assignment_map=[("old/", "new/")]
    )
    found = open_checkpoint(tmp_path / "out")
    assert list(found.variables) == ["new/w"]
    np.testing.assert_array_equal(found.get_tensor("new/w"), SHADOW)


@pytest.mark.parametrize(
    ("values", "options", "error", "message"),
    [
        ({"w": RAW, "w/ema": SHADOW}, {}, SettingsError, "found none.*there are ema; give"),
        ({"w": RAW}, {"use_averages": "ema"}, SettingsError, "called VARIABLE/ema, found none"),
        (
            {"w": RAW, f"w/{AVERAGE}": np.float32([1])},
            {},
            MismatchError,
            r"average like its variable 'w', float32\[2\], found float32\[1\]",
        ),
        (
            {"w": RAW, f"w/{AVERAGE}": SHADOW, f"a/w/{AVERAGE}": SHADOW},
            {},
            ConflictError,
            "both averages of 'w'",
        ),
        (
            {"w": RAW, f"w/{AVERAGE}": SHADOW, "w/raw": RAW},
            {"keep_raw": "raw"},
            ConflictError,
            "a variable of this name is there already",
        ),
        ({"w": RAW}, {"use_averages": False, "keep_raw": "raw"}, SettingsError, "keep_raw"),
        ({"w": RAW}, {"use_averages": 3}, SettingsError, "the name of the averages, found 3"),
        ({"w": RAW}, {"optimizer": "tf1"}, SettingsError, "there is no optimizer left"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_written(
    values, options, error, message, tmp_path
):
    source = write_bundle(tmp_path / "m", values)
    with pytest.raises(error, match=message):
        convert_checkpoint(source, tmp_path / "out", "saver", **{"use_averages": True, **options})
    assert issubclass(error, CheckpointError)
    assert not (tmp_path / "out.index").exists()


@pytest.mark.parametrize("flag", ["--use_averages", f"--use_averages={AVERAGE}"])
def test_the_flag_is_given_alone_or_with_a_name(flag, tmp_path, capsys):
    source = write_bundle(tmp_path / "m", {"w": RAW, f"w/{AVERAGE}": SHADOW})
    result = str(tmp_path / "out")
    run = command_runner(capsys)
    assert run("convert", source, result, "--checkpoint_format=saver", flag).code == 0
    np.testing.assert_array_equal(open_checkpoint(result).get_tensor("w"), SHADOW)
