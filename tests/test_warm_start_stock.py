"""A WarmStart as settings of tf.estimator: stock TensorFlow starts what this package would."""

import os

import numpy as np
import pytest
import tensorflow as tf
from estimator_jobs import estimator, input_fn, linear_spec, run_config, train
from graph_jobs import FORMATS, latest, v1

from estimator_ckpt import WarmStart
from estimator_ckpt.errors import SettingsError

pytestmark = pytest.mark.estimator

W, B = "linear/w", "b"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Trained jobs, of each format: the directory and the values at the end."""
    parent = tmp_path_factory.mktemp("sources")
    return {
        checkpoint_format: (
            str(parent / checkpoint_format),
            train(estimator(parent / checkpoint_format, checkpoint_format), steps=2)[1],
        )
        for checkpoint_format in FORMATS
    }


def moved_model_fn(features, labels, mode):
    """The same model with its variables in a scope, and partitioned."""
    with v1.variable_scope("new"):
        return linear_spec(features, labels, mode, partitions=2)


def stock_start(tmp_path, settings, model_fn=None):
    """What a stock Estimator starts from."""
    job = tf.estimator.Estimator(
        model_fn or (lambda features, labels, mode: linear_spec(features, labels, mode)),
        config=run_config(tmp_path / "target"),
        warm_start_from=settings,
    )
    return train(job, input_fn=input_fn)[0]


@pytest.mark.parametrize("source_format", FORMATS)
def test_a_plain_start(tmp_path, sources, source_format):
    source, end = sources[source_format]
    start = stock_start(tmp_path, WarmStart(source).to_settings())
    np.testing.assert_array_equal(start[W], end[W])
    np.testing.assert_array_equal(start[B], end[B])
    assert start["global_step"] == 0


@pytest.mark.parametrize("source_format", FORMATS)
def test_previous_names_beside_names_that_stay(tmp_path, sources, source_format):
    source, end = sources[source_format]
    settings = WarmStart(source, var_name_to_prev_var_name={B: f"{B}/Adam"}).to_settings()
    start = stock_start(tmp_path, settings)
    np.testing.assert_array_equal(start[W], end[W])
    np.testing.assert_array_equal(start[B], end[f"{B}/Adam"])


@pytest.mark.parametrize("source_format", FORMATS)
@pytest.mark.parametrize(
    "rules",
    [
        {"assignment_map": [("/", "new/")]},
        {"assignment_map": [(W, f"new/{W}"), (B, f"new/{B}")]},
        {"rename": [("(.*)", r"new/\1")]},
    ],
)
def test_rules_that_move_names(tmp_path, sources, source_format, rules):
    source, end = sources[source_format]
    settings = WarmStart(source, **rules).to_settings(str(tmp_path / "view"))
    start = stock_start(tmp_path, settings, moved_model_fn)
    np.testing.assert_array_equal(start[f"new/{W}"], end[W])
    np.testing.assert_array_equal(start[f"new/{B}"], end[B])
    slots = [value for name, value in start.items() if "/Adam" in name]
    assert slots
    assert not any(np.any(value) for value in slots)


@pytest.mark.parametrize("source_format", FORMATS)
def test_the_root_scope_leaves_the_state_of_the_training_alone(tmp_path, sources, source_format):
    source, end = sources[source_format]
    settings = WarmStart(source, assignment_map=[("/", "/")]).to_settings(str(tmp_path / "view"))
    start = stock_start(tmp_path, settings)
    np.testing.assert_array_equal(start[W], end[W])
    assert (start["global_step"], start["beta1_power"]) == (0, np.float32(0.9))
    assert not np.any(start[f"{W}/Adam"])


def test_exclusions(tmp_path, sources):
    source, end = sources["checkpoint"]
    start = stock_start(tmp_path, WarmStart(source, exclude=["lin.*"]).to_settings())
    assert np.all(start[W] == 1)
    np.testing.assert_array_equal(start[B], end[B])


def test_a_variable_that_the_checkpoint_lacks_is_still_an_error(tmp_path, sources):
    source, _ = sources["checkpoint"]
    settings = WarmStart(source, assignment_map=[("linear/", "new/linear/")]).to_settings()

    def with_more(features, labels, mode):
        v1.get_variable("new/linear/more", [])
        return moved_model_fn(features, labels, mode)

    with pytest.raises(ValueError, match="new/linear/more"):
        stock_start(tmp_path, settings, with_more)


def test_the_view_shares_the_data_files(tmp_path, sources):
    source, _ = sources["checkpoint"]
    settings = WarmStart(source).to_settings(str(tmp_path / "view"))
    data = f"{settings.ckpt_to_initialize_from}.data-00000-of-00001"
    assert os.path.samefile(data, f"{latest(source)}.data-00000-of-00001")


def test_a_job_that_starts_again_finds_its_view(tmp_path, sources):
    settings = WarmStart(sources["checkpoint"][0])
    first = settings.to_settings(str(tmp_path / "view"))
    os.remove(f"{first.ckpt_to_initialize_from}.index")  # as if it had been stopped in between
    assert settings.to_settings(str(tmp_path / "view")) == first
    assert settings.to_settings(str(tmp_path / "view")) == first
    assert len(os.listdir(tmp_path / "view")) == 2


def test_a_name_based_source_needs_no_view(sources):
    source, _ = sources["saver"]
    assert WarmStart(source).to_settings().ckpt_to_initialize_from == latest(source)


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"on_missing": "init"}, "on_missing"),
        ({"on_missing": {"a": "error", "b": "warn"}}, "on_missing"),
        ({"on_shape_mismatch": "warn"}, "on_shape_mismatch"),
        ({"on_unexpected": "error"}, "on_unexpected"),
        ({"assignment_map": [(W, "x")], "vars_to_warm_start": ".*"}, "vars_to_warm_start"),
        ({"exclude": ["x"], "vars_to_warm_start": None}, "exclude"),
        ({"assignment_map": [("nowhere/", "x/")]}, "assignment_map[0]"),
        ({"match_by": "path"}, "match_by"),
        ({"root": "model"}, "root"),
    ],
)
def test_what_tensorflow_cannot_be_told_is_refused(sources, fields, key):
    with pytest.raises(SettingsError) as caught:
        WarmStart(sources["saver"][0], **fields).to_settings()
    assert caught.value.key == key
