"""A model_dir that was moved, whose state file has the paths of the old place."""

import os
import shutil

import pytest
import tensorflow as tf
from estimator_jobs import estimator, input_fn, predict_input_fn, steps_on_disk, train
from graph_jobs import FORMATS, assert_same, latest, run_job

from estimator_ckpt import make_scaffold, wrap_estimator
from estimator_ckpt.errors import MismatchError, NotACheckpointError
from estimator_ckpt.reading.moved import in_directory, moved_here
from estimator_ckpt.reading.state import read_state

v1 = tf.compat.v1


def contents(directory):
    """The files of a directory, but for what TensorFlow writes for TensorBoard."""
    return {
        path.name: path.read_bytes()
        for path in directory.iterdir()
        if path.is_file() and not path.name.startswith("events.out")
    }


def with_absolute_paths(directory):
    """Writes its state file as savers do that do not save relative paths."""
    found = tf.train.get_checkpoint_state(str(directory))
    found.model_checkpoint_path = os.path.abspath(found.model_checkpoint_path)
    (directory / "checkpoint").write_text(str(found))
    assert str(directory) in (directory / "checkpoint").read_text()


def move(tmp_path, by=shutil.move):
    with_absolute_paths(tmp_path / "before")
    by(tmp_path / "before", tmp_path / "after")
    return tmp_path / "after"


@pytest.mark.parametrize("by", [shutil.move, shutil.copytree])
@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_a_session_resumes_in_it_and_its_older_checkpoints_count(tmp_path, checkpoint_format, by):
    saves = {"save_checkpoint_steps": 1}
    _, end = run_job(tmp_path / "before", steps=3, **saves)
    model_dir = move(tmp_path, by)
    there = contents(tmp_path / "before") if by is shutil.copytree else None

    def scaffold():
        return make_scaffold(checkpoint_format, keep_checkpoint_max=2)

    start, _ = run_job(model_dir, scaffold, steps=2, **saves)
    assert_same(start, end)
    assert sorted(path.stem for path in model_dir.glob("*.index")) == [
        "model.ckpt-4",
        "model.ckpt-5",
    ]
    assert "before" not in (model_dir / "checkpoint").read_text()
    assert latest(model_dir) == str(model_dir / "model.ckpt-5")
    if there is not None:
        assert contents(tmp_path / "before") == there


def test_a_session_resumes_from_a_v1_checkpoint_in_it(tmp_path):
    """A V1 checkpoint is a single file, without an index."""

    def v1_scaffold():
        return v1.train.Scaffold(saver=v1.train.Saver(write_version=1))

    _, end = run_job(tmp_path / "before", v1_scaffold)
    shutil.move(tmp_path / "before", tmp_path / "after")
    assert str(tmp_path / "before") in (tmp_path / "after" / "checkpoint").read_text()
    newest = os.path.basename(read_state(str(tmp_path / "after")).model_checkpoint_path)
    assert moved_here(str(tmp_path / "after")) == str(tmp_path / "after" / newest)
    start, _ = run_job(tmp_path / "after", lambda: make_scaffold("both"), steps=1)
    assert_same(start, end)
    assert (tmp_path / "after" / newest).exists()
    assert "before" not in (tmp_path / "after" / "checkpoint").read_text()


def test_a_start_that_is_refused_changes_nothing(tmp_path):
    run_job(tmp_path / "before")
    model_dir = move(tmp_path)
    there = contents(model_dir)

    def other_model():
        v1.get_variable("other", initializer=1.0)
        return v1.assign_add(v1.train.get_or_create_global_step(), 1)

    with pytest.raises(MismatchError, match="other"):
        run_job(model_dir, lambda: make_scaffold("both"), build=other_model)
    assert contents(model_dir) == there


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("/old/model-1", "{here}/model-1"),
        ("/old/model-2", "/old/model-2"),
        ("{here}/model-1", "{here}/model-1"),
        ("{here}/below/model-1", "{here}/below/model-1"),
        ("{link}/model-1", "{link}/model-1"),
    ],
)
def test_what_a_path_means_in_a_directory(tmp_path, named, expected):
    here, link = tmp_path / "here", tmp_path / "link"
    here.mkdir()
    link.symlink_to(here)
    (here / "model-1.index").touch()
    places = {"here": here, "link": link}
    assert in_directory(named.format(**places), str(here)) == expected.format(**places)


def test_what_is_in_its_place_was_not_moved(tmp_path):
    run_job(tmp_path / "before")
    assert moved_here(str(tmp_path / "before")) is None
    with_absolute_paths(tmp_path / "before")
    assert moved_here(str(tmp_path / "before")) is None
    assert moved_here(str(tmp_path)) is moved_here(None) is None


# Estimators, which look for the newest checkpoint before they call the model_fn.


@pytest.fixture
def moved(tmp_path):
    """A model_dir that was moved after step 2, what the job had then, and what it predicts."""
    job = estimator(tmp_path / "before", "both")
    _, end = train(job, 2)
    predicted = list(job.predict(predict_input_fn))
    return move(tmp_path), end, predicted


@pytest.mark.estimator
@pytest.mark.parametrize("is_wrapped_whole", [False, True])
def test_an_estimator_resumes_in_it(moved, is_wrapped_whole):
    model_dir, end, _ = moved
    start, _ = train(made(model_dir, is_wrapped_whole), 1)
    assert_same(start, end)
    assert latest(model_dir) == str(model_dir / "model.ckpt-3")


def made(model_dir, is_wrapped_whole):
    if is_wrapped_whole:
        return wrap_estimator(estimator(model_dir, None), "both")
    return estimator(model_dir, "both")


@pytest.mark.estimator
@pytest.mark.parametrize("is_wrapped_whole", [False, True])
def test_a_job_that_had_finished_trains_no_step(moved, is_wrapped_whole):
    model_dir, _, _ = moved
    made(model_dir, is_wrapped_whole).train(input_fn, max_steps=2)
    assert steps_on_disk(model_dir)[-1] == 2
    job = made(model_dir, is_wrapped_whole)
    job.train(input_fn, max_steps=3)
    assert job.get_variable_value("global_step") == 3


@pytest.mark.estimator
def test_a_wrapped_model_fn_never_evaluates_initial_values_in_it(moved):
    model_dir, _, predicted = moved
    there = contents(model_dir)
    job = estimator(model_dir, "both")
    with pytest.raises(NotACheckpointError, match=r"was moved and has .*model\.ckpt-2"):
        job.evaluate(input_fn, steps=1)
    with pytest.raises(NotACheckpointError, match=r"was moved and has .*model\.ckpt-2"):
        list(job.predict(predict_input_fn))
    named = str(model_dir / "model.ckpt-2")
    assert job.evaluate(input_fn, steps=1, checkpoint_path=named)["global_step"] == 2
    assert list(job.predict(predict_input_fn, checkpoint_path=named)) == predicted
    assert contents(model_dir) == there


@pytest.mark.estimator
def test_a_wrapped_estimator_finds_its_checkpoint_in_it(moved, tmp_path):
    model_dir, end, predicted = moved
    there = contents(model_dir)
    job = made(model_dir, is_wrapped_whole=True)
    assert job.latest_checkpoint() == str(model_dir / "model.ckpt-2")
    assert job.evaluate(input_fn, 1)["global_step"] == 2
    assert list(job.predict(predict_input_fn)) == predicted
    assert job.get_variable_value("b") == end["b"]

    def serving_input_fn():
        x = v1.placeholder(tf.float32, [None, 1])
        return tf.estimator.export.ServingInputReceiver({"x": x}, {"x": x})

    exported = job.export_saved_model(str(tmp_path / "export"), serving_input_fn).decode()
    variables = tf.train.load_checkpoint(os.path.join(exported, "variables", "variables"))
    assert variables.get_tensor("b") == end["b"]
    assert contents(model_dir) == there
