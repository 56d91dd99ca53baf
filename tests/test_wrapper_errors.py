"""What a wrapped job refuses: wrong settings, and checkpoints that do not fit or are damaged."""

import functools
import os
import re

import numpy as np
import pytest
import tensorflow as tf
from estimator_jobs import (
    estimator,
    input_fn,
    linear_spec,
    model_fn,
    predict_input_fn,
    run_config,
    steps_on_disk,
    tree,
)

from estimator_ckpt import checkpoint_scaffold, wrap_estimator, wrap_model_fn
from estimator_ckpt.errors import (
    CorruptCheckpointError,
    MismatchError,
    NotACheckpointError,
    SettingsError,
)

v1 = tf.compat.v1

pytestmark = pytest.mark.estimator


@pytest.mark.parametrize(
    ("wrap", "key", "message"),
    [
        (lambda: wrap_model_fn(model_fn, "chekpoint"), "checkpoint_format", "'saver'.*'chekpoint'"),
        (lambda: wrap_model_fn(model_fn, None), "checkpoint_format", "'saver'.*None"),
        (lambda: wrap_model_fn(model_fn, keep_checkpoint_max=-1), "keep_checkpoint_max", "-1"),
        (
            lambda: wrap_model_fn(model_fn, keep_checkpoints=3),
            "keep_checkpoints",
            "'keep_checkpoint_max'",
        ),
        (lambda: wrap_model_fn(model_fn, colour=3), "colour", "no such option; expected "),
        (lambda: wrap_model_fn(3), "model_fn", "expected a callable, found 3"),
        (lambda: wrap_model_fn(None), "model_fn", "expected a callable, found None"),
        (lambda: wrap_estimator(model_fn), "estimator", "expected a tf.estimator.Estimator"),
    ],
)
def test_a_wrong_setting_is_refused_when_wrapping(wrap, key, message):
    with pytest.raises(SettingsError, match=message) as raised:
        wrap()
    assert raised.value.key == key


@pytest.mark.parametrize("wrap", [wrap_model_fn, functools.partial], ids=["bare", "in a partial"])
@pytest.mark.parametrize(
    ("outer", "key"), [("checkpoint", "model_fn"), ("saver", "checkpoint_format")]
)
def test_a_model_fn_is_wrapped_once(wrap, outer, key):
    inner = wrap_model_fn(model_fn)
    inner = functools.partial(inner) if wrap is functools.partial else inner
    with pytest.raises(SettingsError, match="wrapped already, to save as 'checkpoint'") as raised:
        wrap_model_fn(inner, outer)
    assert raised.value.key == key


def test_an_estimator_is_wrapped_once(tmp_path):
    job = wrap_estimator(tf.estimator.Estimator(model_fn, config=run_config(tmp_path)), "both")
    with pytest.raises(SettingsError, match="wrapped already, to save as 'both'"):
        wrap_estimator(job, "both")


def test_a_scaffold_of_ours_in_the_model_fn_decides(tmp_path):
    def fn(features, labels, mode):
        scaffold = checkpoint_scaffold(keep_checkpoint_max=1)
        return linear_spec(features, labels, mode, scaffold=scaffold)

    job = estimator(tmp_path, "checkpoint", fn, {"save_checkpoints_steps": 1})
    job.train(input_fn, steps=3)
    assert np.isfinite(job.evaluate(input_fn, steps=1)["loss"])
    assert steps_on_disk(tmp_path) == [3]
    with pytest.raises(SettingsError, match="'checkpoint', but 'both'"):
        estimator(tmp_path, "both", fn).train(input_fn, steps=1)


@pytest.mark.parametrize(
    ("written_as", "run"),
    [
        ("saver", "train"),
        ("both", "train"),
        ("checkpoint", "train"),
        ("checkpoint", "evaluate"),
        ("checkpoint", "predict"),
    ],
)
def test_a_checkpoint_that_lacks_variables_stops_the_job(tmp_path, written_as, run):
    def with_more(features, labels, mode):
        for name in ("linear/v", "other", "third"):
            v1.get_variable(name, [2, 3])
        return linear_spec(features, labels, mode)

    estimator(tmp_path, written_as).train(input_fn, steps=2)
    before = tree(tmp_path)
    with pytest.raises(MismatchError) as raised:
        use(estimator(tmp_path, "checkpoint", with_more), run)
    message = str(raised.value)
    assert str(tmp_path / "model.ckpt-2") in message
    for name in ("linear/v", "other", "third"):
        assert re.search(rf"missing +{name} +float32\[2,3\]", message), message
    assert tree(tmp_path) == before


def use(job, run):
    options = (
        {"input_fn": predict_input_fn} if run == "predict" else {"input_fn": input_fn, "steps": 1}
    )
    return list(getattr(job, run)(**options) or ())


def cut(path):
    path.write_bytes(path.read_bytes()[:-8])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("run", ["train", "evaluate"])
@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (cut, "index"),
        (flip, "index"),
        (cut, "data-00000-of-00001"),
        (os.remove, "data-00000-of-00001"),
    ],
)
def test_a_corrupt_checkpoint_stops_the_job(tmp_path, damage, part, run):
    estimator(tmp_path, "checkpoint").train(input_fn, steps=2)
    damage(tmp_path / f"model.ckpt-2.{part}")
    before = tree(tmp_path)
    with pytest.raises(CorruptCheckpointError, match=r"model\.ckpt-2"):
        use(estimator(tmp_path, "checkpoint"), run)
    assert tree(tmp_path) == before


def test_a_flipped_bit_in_the_data_stops_the_job(tmp_path):
    estimator(tmp_path, "saver").train(input_fn, steps=2)
    flip(tmp_path / "model.ckpt-2.data-00000-of-00001")
    # TensorFlow's own RestoreV2 finds it.
    with pytest.raises(CorruptCheckpointError, match="Checksum does not match"):
        estimator(tmp_path, "checkpoint").train(input_fn, steps=1)


def test_a_state_file_that_names_no_checkpoint_stops_the_job(tmp_path):
    estimator(tmp_path, "checkpoint").train(input_fn, steps=2)
    for path in tmp_path.glob("model.ckpt-2.*"):
        path.unlink()
    with pytest.raises(NotACheckpointError, match=r"model\.ckpt-2"):
        estimator(tmp_path, "checkpoint").train(input_fn, steps=1)
