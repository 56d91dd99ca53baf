"""Which checkpoints an Estimator's model_dir keeps, and what its state file says of them."""

import os

import pytest
from estimator_jobs import (
    estimator,
    input_fn,
    model_fn,
    steps_in_state,
    steps_on_disk,
    train,
)
from graph_jobs import FORMATS, assert_same, latest
from tensorflow_party import v1

pytestmark = pytest.mark.estimator

EVERY_STEP = {"save_checkpoints_steps": 1}


@pytest.mark.parametrize(
    ("config", "options", "kept", "listed"),
    [
        ({}, {}, [2, 3, 4, 5, 6], [2, 3, 4, 5, 6]),
        ({"keep_checkpoint_max": 2}, {}, [5, 6], [5, 6]),
        # All stay: the state file lists them, so that they count if there is a limit later. A stock
        # Saver's lists the newest alone.
        ({"keep_checkpoint_max": 0}, {}, range(7), range(7)),
        ({"keep_checkpoint_max": None}, {}, range(7), range(7)),
        (
            {"keep_checkpoint_max": 1, "keep_checkpoint_every_n_hours": 1e-9},
            {},
            [0, 1, 2, 3, 4, 5, 6],
            [6],
        ),
        ({"keep_checkpoint_max": 2}, {"keep_checkpoint_max": 3}, [4, 5, 6], [4, 5, 6]),
        ({"keep_checkpoint_max": 2}, {"keep_checkpoint_max": 0}, range(7), range(7)),
        ({"keep_checkpoint_max": 1}, {"deletion_grace_secs": 3600.0}, range(7), range(7)),
        (
            {"keep_checkpoint_max": 1},
            {"keep_checkpoint_every_n_hours": 1e-9},
            [0, 1, 2, 3, 4, 5, 6],
            [6],
        ),
        (
            {"keep_checkpoint_max": 1, "keep_checkpoint_every_n_hours": 1e-9},
            {"keep_checkpoint_every_n_hours": 1},
            [6],
            [6],
        ),
    ],
)
def test_retention_is_run_configs_unless_given(tmp_path, config, options, kept, listed):
    config = {**EVERY_STEP, **config}
    estimator(tmp_path, "checkpoint", config=config, **options).train(input_fn, steps=6)
    assert steps_on_disk(tmp_path) == list(kept)
    assert steps_in_state(tmp_path) == list(listed)
    if not options:
        stock_dir = tmp_path / "stock"
        estimator(stock_dir, config=config).train(input_fn, steps=6)
        assert steps_on_disk(stock_dir) == list(kept)
        assert steps_in_state(stock_dir) == (
            list(listed) if config.get("keep_checkpoint_max", 5) else [6]
        )


def test_a_model_fn_that_takes_the_config_itself_has_the_same_retention(tmp_path):
    def fn(features, labels, mode, config):
        assert config.keep_checkpoint_max == 2
        return model_fn(features, labels, mode)

    config = {**EVERY_STEP, "keep_checkpoint_max": 2}
    estimator(tmp_path, "checkpoint", fn, config).train(input_fn, steps=4)
    assert steps_on_disk(tmp_path) == [3, 4]


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_what_a_stock_run_has_left_is_adopted_and_pruned(tmp_path, checkpoint_format):
    estimator(tmp_path, None, config=EVERY_STEP).train(input_fn, steps=4)
    assert steps_on_disk(tmp_path) == [0, 1, 2, 3, 4]
    estimator(tmp_path, checkpoint_format, keep_checkpoint_max=3).train(input_fn, steps=1)
    assert steps_on_disk(tmp_path) == [3, 4, 5]
    assert steps_in_state(tmp_path) == [3, 4, 5]
    # And the other way round, one more at a time, as a stock Saver prunes.
    if checkpoint_format != "checkpoint":
        estimator(tmp_path, None, config={"keep_checkpoint_max": 3}).train(input_fn, steps=1)
        assert steps_on_disk(tmp_path) == steps_in_state(tmp_path) == [4, 5, 6]


def test_a_lower_limit_prunes_at_the_first_save(tmp_path):
    config = {**EVERY_STEP, "keep_checkpoint_max": 4}
    estimator(tmp_path, "both", config=config).train(input_fn, steps=6)
    assert steps_on_disk(tmp_path) == [3, 4, 5, 6]
    seen = []

    class Look(v1.train.CheckpointSaverListener):
        def after_save(self, session, global_step_value):
            seen.append(steps_on_disk(tmp_path))

    job = estimator(tmp_path, "both", config={"keep_checkpoint_max": 2})
    job.train(input_fn, steps=1, saving_listeners=[Look()])
    assert seen == [[5, 6], [6, 7]]


def test_what_the_state_file_does_not_list_is_never_deleted(tmp_path):
    estimator(tmp_path, None, config={**EVERY_STEP, "keep_checkpoint_max": 0}).train(
        input_fn, steps=2
    )
    job = estimator(tmp_path, "checkpoint", config={**EVERY_STEP, "keep_checkpoint_max": 1})
    job.train(input_fn, steps=2)
    assert steps_on_disk(tmp_path) == [0, 1, 4]


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_the_state_file_has_relative_paths_and_the_directory_can_move(tmp_path, checkpoint_format):
    here, there = tmp_path / "here", tmp_path / "there"
    _, end = train(estimator(here, checkpoint_format, config=EVERY_STEP), 2)
    assert str(here) not in (here / "checkpoint").read_text()
    os.rename(here, there)
    start, _ = train(estimator(there, checkpoint_format, config={"keep_checkpoint_max": 2}))
    assert_same(start, end)
    assert steps_on_disk(there) == steps_in_state(there) == [2, 3]
    assert latest(there) == str(there / "model.ckpt-3")
