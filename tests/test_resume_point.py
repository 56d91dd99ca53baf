"""Where a job will resume: what resume_point() says is where a session then begins."""

import os
import shutil

import pytest
import tensorflow as tf
from graph_jobs import FORMATS, build_plain_model, latest
from tensorflow_party import v1

from estimator_ckpt import errors, make_scaffold, resume_point


def begins_at(model_dir, **options):
    """The step at which a session begins; it saves once, as every start does."""
    with tf.Graph().as_default():
        build_plain_model()
        with v1.train.MonitoredTrainingSession(
            checkpoint_dir=str(model_dir), scaffold=make_scaffold("both", **options)
        ) as session:
            return int(session.run(v1.train.get_global_step()))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model_dir with steps 0 to 4, for each format."""
    found = {}
    for checkpoint_format in FORMATS:
        found[checkpoint_format] = tmp_path_factory.mktemp(checkpoint_format)
        with tf.Graph().as_default():
            op = build_plain_model()
            with v1.train.MonitoredTrainingSession(
                checkpoint_dir=str(found[checkpoint_format]),
                scaffold=make_scaffold(checkpoint_format),
                save_checkpoint_steps=1,
            ) as session:
                for _ in range(4):
                    session.run(op)
    return found


@pytest.fixture
def run(trained, tmp_path):
    """A copy of one of them, at another place."""
    return shutil.copytree(trained["both"], tmp_path / "run", symlinks=True)


def damage(prefix):
    with open(f"{prefix}.data-00000-of-00001", "r+b") as file:
        file.write(b"\xff" * 8)


@pytest.mark.parametrize("checkpoint_format", FORMATS)
@pytest.mark.parametrize(
    ("max_steps", "finished"), [(None, False), (5, False), (4, True), (3, True)]
)
def test_it_tells_path_step_and_whether_the_job_is_finished(
    trained, checkpoint_format, max_steps, finished
):
    run = trained[checkpoint_format]
    before = sorted((path.name, path.stat().st_mtime_ns) for path in run.iterdir())
    point = resume_point(run, max_steps)
    assert (point.path, point.step, point.finished) == (latest(run), 4, finished)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in run.iterdir()) == before
    assert begins_at(run) == 4


@pytest.mark.parametrize("exists", [True, False])
def test_a_job_without_checkpoints_starts_anew(tmp_path, exists):
    run = tmp_path if exists else tmp_path / "none"
    point = resume_point(run, max_steps=3)
    assert (point.path, point.step, point.finished) == (None, 0, False)


def test_a_model_dir_that_was_moved_is_looked_up_where_it_is(run):
    (run / "checkpoint").write_text('model_checkpoint_path: "/gone/model.ckpt-4"\n')
    assert resume_point(run).path == str(run / "model.ckpt-4")
    assert begins_at(run) == 4


def test_a_newest_checkpoint_that_is_gone_is_an_error(run):
    for path in run.glob("model.ckpt-4.*"):
        path.unlink()
    with pytest.raises(errors.NotACheckpointError, match="it is not there"):
        resume_point(run)


def test_a_damaged_one_counts_as_it_does_for_the_job(run):
    damage(run / "model.ckpt-4")
    with pytest.raises(errors.CorruptCheckpointError):
        resume_point(run, check_data=True)
    assert resume_point(run, 4).finished  # its data are not read, nor is the job's start so far
    point = resume_point(run, 4, on_corrupt="fall_back")
    assert (point.path, point.step, point.finished) == (str(run / "model.ckpt-3"), 3, False)
    assert begins_at(run, on_corrupt="fall_back") == 3


def test_one_that_no_journal_knows_is_read_through(run):
    """After a power cut its data may be missing."""
    for name in os.listdir(run):
        if name.startswith((".", "checkpoint")) and name != "checkpoint":
            os.remove(run / name) if (run / name).is_file() else shutil.rmtree(run / name)
    damage(run / "model.ckpt-4")
    assert resume_point(run).step == 3
    assert begins_at(run) == 3


def test_other_words_for_on_corrupt_are_refused(run):
    with pytest.raises(errors.SettingsError, match="fall_back"):
        resume_point(run, on_corrupt="ignore")
