"""Optimizer state in memory: a program's optimizer goes on where one of another kind ended."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from conversion_files import v1
from optimizer_jobs import (
    FAMILIES,
    KERAS,
    SHAPES,
    STEPS,
    TF1,
    KerasJob,
    Tf1Job,
    loss_of,
)
from tensorflow_party import tf

from estimator_ckpt import WarmStart, convert_checkpoint
from estimator_ckpt.errors import CheckpointError, SettingsError, UnsupportedCheckpointError

families = pytest.mark.parametrize("family", FAMILIES)
NEWEST = list(FAMILIES)[-1]
NEWER = FAMILIES[NEWEST]
REVERSED = tuple(reversed(SHAPES))
# Those of which no graph is needed for each dialect.
KINDS = ["Adam", "Momentum", "Adagrad", "RMSProp with momentum", "Ftrl", "Adadelta"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """By kind and dialect: a checkpoint after some steps, and the losses of the steps after it."""

    @functools.cache
    def run(kind, family="tf1", **options):
        directory = tmp_path_factory.mktemp("trained")
        if family == "tf1":
            job = Tf1Job(kind, **options)
        else:
            job = KerasJob(KERAS[kind](FAMILIES[family]))
        job.train()
        return job.save(directory / "ckpt"), job.train()

    return run


def rate_of(optimizer):
    return float(np.array(optimizer.learning_rate))


@families
@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_with_the_losses_of_tf1(kind, family, trained):
    """Built in another order, so that slots of one shape would be swapped by their positions."""
    prefix, expected = trained(kind)
    job = KerasJob(KERAS[kind](FAMILIES[family]), order=REVERSED)
    rate = rate_of(job.optimizer)
    report = WarmStart(prefix).apply(job.objects)
    assert int(job.optimizer.iterations) == STEPS
    assert rate_of(job.optimizer) == rate
    np.testing.assert_allclose(job.train(), expected, rtol=1e-5)
    assert report.refused == []


@pytest.mark.parametrize("source_format", ["checkpoint", "both"])
def test_a_source_of_every_format_has_the_same_state(source_format, trained, tmp_path):
    prefix, expected = trained("Adam", slices=2)  # of a partitioned variable, too
    convert_checkpoint(prefix, tmp_path / "source", source_format)
    job = KerasJob(KERAS["Adam"](NEWER), order=REVERSED)
    WarmStart(str(tmp_path / "source")).apply(job.objects)
    np.testing.assert_allclose(job.train(), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["Adam", "Momentum"])
@pytest.mark.parametrize(
    ("source", "target"), [(a, b) for a in FAMILIES for b in FAMILIES if b != "legacy"]
)
def test_training_goes_on_from_one_keras_to_another(kind, source, target, trained):
    prefix, expected = trained(kind, source)
    job = KerasJob(KERAS[kind](FAMILIES[target]), order=REVERSED)
    name = {"Adam": "Adam", "Momentum": "SGD"}[kind]
    WarmStart(prefix, from_optimizer=name).apply(job.objects)
    assert int(job.optimizer.iterations) == STEPS
    np.testing.assert_allclose(job.train(), expected, rtol=1e-5)


def test_every_variable_of_the_optimizer_is_in_the_report(trained):
    prefix, _ = trained("Momentum")
    job = KerasJob(KERAS["Momentum"](NEWER))
    report = WarmStart(prefix).apply(job.objects)
    slots = job.optimizer.momentums
    assert len(report.values) == len(SHAPES) + len(slots) + 2
    started = {value.target: value for value in report.values if value.starts}
    kept = [value for value in report.values if not value.starts]
    assert [value.rule for value in kept] == ["a number of the program's own, which stays"]
    scaled = [value for value in started.values() if value.content is not None]
    assert sorted(value.source for value in scaled) == sorted(f"{n}/Momentum" for n in SHAPES)
    assert {value.rule.rpartition(", ")[2] for value in scaled} == {"-0.05 times"}
    assert "note: Momentum: times -learning_rate, exact while that is constant" in str(report)
    assert report.as_json()["notes"] == list(report.notes)
    assert set(report.unexpected) == set()


# --- what is not built yet ---


class Net(tf.keras.Model if NEWEST != "legacy" else object):
    """The model of the jobs, as a Keras model with its own variables' names."""


def keras_net(keras, optimizer):
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Dense(3, use_bias=False, name="a"),
            layers.Dense(3, name="b"),
        ],
        name="net",
    )
    model.build((None, 3))
    model.compile(optimizer, "mse")
    return model
