"""WarmStart(use_averages=...): averages in the places of the weights that they are of."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from conversion_files import v1
from stock_files import save

from estimator_ckpt import WarmStart, convert_checkpoint, make_scaffold
from estimator_ckpt.errors import SettingsError

AVERAGE = "ExponentialMovingAverage"


def write_averages(directory, checkpoint_format, name=AVERAGE):
    """Weights with averages, a statistic without one, and slots; returns the prefix."""
    values = {
        "net/w": [1.0, 2.0],
        f"net/w/{name}": [7.0, 8.0],
        "net/w/Momentum": [0.1, 0.2],
        "net/moving_mean": [5.0],
    }
    prefix = save(directory / "names", {key: np.float32(value) for key, value in values.items()})
    if checkpoint_format == "saver":
        return prefix
    convert_checkpoint(prefix, directory / "other", checkpoint_format)
    return str(directory / "other")


@pytest.mark.parametrize("checkpoint_format", ["saver", "checkpoint", "both"])
@pytest.mark.parametrize("use_averages", [True, AVERAGE])
def test_a_model_starts_from_the_averages_in_place_of_the_weights(
    checkpoint_format, use_averages, tmp_path
):
    prefix = write_averages(tmp_path, checkpoint_format)
    w, mean = tf.Variable([0.0, 0.0], name="net/w"), tf.Variable([0.0], name="net/moving_mean")
    WarmStart(prefix, use_averages=use_averages).apply([w, mean])
    np.testing.assert_array_equal(w, [7.0, 8.0])
    np.testing.assert_array_equal(mean, [5.0])


def test_a_job_starts_from_the_averages_and_says_so(tmp_path):
    prefix = write_averages(tmp_path, "saver")
    with tf.Graph().as_default():
        w = v1.get_variable("net/w", [2], initializer=v1.zeros_initializer())
        scaffold = make_scaffold("both", warm_start=WarmStart(prefix, use_averages=True))
        v1.train.get_or_create_global_step()
        with v1.train.MonitoredTrainingSession(
            scaffold=scaffold, checkpoint_dir=str(tmp_path / "run")
        ) as session:
            np.testing.assert_array_equal(session.run(w), [7.0, 8.0])
    written = json.loads((tmp_path / "run" / "warm_start.json").read_text())
    sources = {line["variable"]: line["source"] for line in written["variables"]}
    assert sources["net/w"] == f"net/w/{AVERAGE}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_averages": "ema"}, "called VARIABLE/ema, found none; below variables there are"),
        ({"use_averages": 3}, "True or the name of the averages, found 3"),
        ({"use_averages": ""}, "True or the name of the averages, found ''"),
    ],
)
def test_averages_that_are_not_there_are_no_weights(options, message, tmp_path):
    w = tf.Variable([0.0, 0.0], name="net/w")
    with pytest.raises(SettingsError, match=message):
        WarmStart(write_averages(tmp_path, "saver"), **options).apply([w])
    np.testing.assert_array_equal(w, [0.0, 0.0])
