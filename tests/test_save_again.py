"""A step that is saved again, as a session does with the one it resumes from: it is replaced by one
rename of the index, or not at all."""

import os

import numpy as np
import pytest
import tensorflow as tf
from graph_jobs import (
    FORMATS,
    assert_same,
    build_model,
    latest,
    read_with_checkpoint,
    read_with_stock_saver,
    run_job,
)
from saver_sessions import eager_values, make_saver, save, variable

from estimator_ckpt import make_scaffold, verify_checkpoint
from estimator_ckpt.errors import WriteError

v1 = tf.compat.v1


def scaffold_of(checkpoint_format, **options):
    return lambda: make_scaffold(checkpoint_format, **options)


def data_files(directory):
    return sorted(name for name in os.listdir(directory) if ".data-" in name)


def snapshot(prefix):
    """What a rewritten file would show: its inode, its time, its bytes."""
    directory = os.path.dirname(prefix)
    found = {}
    for name in os.listdir(directory):
        if name.startswith(os.path.basename(prefix)) and not name.endswith(".meta"):
            status = os.stat(os.path.join(directory, name))
            found[name] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found


@pytest.mark.parametrize("checkpoint_format", FORMATS)
@pytest.mark.parametrize("written_by", ["stock", *FORMATS])
def test_the_checkpoint_gets_the_format_asked_for(tmp_path, written_by, checkpoint_format):
    _, end = run_job(tmp_path, None if written_by == "stock" else scaffold_of(written_by))
    prefix = latest(tmp_path)
    keys = {name for name, _ in tf.train.list_variables(prefix)}
    before = snapshot(prefix)
    opened = tf.train.load_checkpoint(prefix)
    run_job(tmp_path, scaffold_of(checkpoint_format), steps=0)
    assert latest(tmp_path) == prefix
    assert verify_checkpoint(prefix).ok
    if checkpoint_format != "checkpoint":
        assert_same(read_with_stock_saver(prefix), end)
    if checkpoint_format != "saver":
        assert_same(read_with_checkpoint(prefix, end), end)
    same = {name for name, _ in tf.train.list_variables(prefix)} == keys
    assert (snapshot(prefix) == before) == same
    for key, value in ((key, opened.get_tensor(key)) for key in keys):  # it has the old index open
        if key in end:
            np.testing.assert_array_equal(value, end[key])
    assert not list(tmp_path.glob("*saving*"))


def test_the_data_files_that_were_replaced_go_at_the_next_save(tmp_path):
    run_job(tmp_path, scaffold_of("saver"))
    assert data_files(tmp_path) == [
        "model.ckpt-0.data-00000-of-00001",
        "model.ckpt-2.data-00000-of-00001",
    ]
    run_job(tmp_path, scaffold_of("both"), steps=0)
    again = [f"model.ckpt-2.data-0000{n}-of-0000{of}" for n, of in ((0, 1), (0, 2), (1, 2))]
    assert data_files(tmp_path) == ["model.ckpt-0.data-00000-of-00001", *again]
    assert os.path.getsize(tmp_path / again[2]) == 4  # the smallest tensor's
    run_job(tmp_path, scaffold_of("both"), steps=1)
    assert data_files(tmp_path) == [
        "model.ckpt-0.data-00000-of-00001",
        *again[1:],
        "model.ckpt-3.data-00000-of-00001",
    ]


def test_stock_tensorflow_reads_merges_and_deletes_what_was_replaced(tmp_path):
    _, end = run_job(tmp_path, scaffold_of("saver"))
    run_job(tmp_path, scaffold_of("both"), steps=0)
    prefix = latest(tmp_path)
    with tf.Graph().as_default():
        w = v1.get_variable("w", [2, 3])
        v1.train.init_from_checkpoint(prefix, {"scope/w": w})
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            np.testing.assert_array_equal(session.run(w), end["scope/w"])
    merged = str(tmp_path / "merged")
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[prefix], destination_prefix=merged, delete_old_dirs=False
    )
    assert_same(read_with_checkpoint(merged, end), end)
    assert verify_checkpoint(merged).ok
    v1.train.remove_checkpoint(merged)
    assert not list(tmp_path.glob("merged*"))


def test_where_nothing_is_replaced_the_graph_the_state_file_and_listeners_still_get_theirs(
    tmp_path,
):
    run_job(tmp_path, scaffold_of("both"))
    prefix = latest(tmp_path)
    before = snapshot(prefix)
    os.remove(f"{prefix}.meta")
    os.remove(tmp_path / "checkpoint")
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{os.path.basename(prefix)}"\n')
    heard = []

    class Listener(v1.train.CheckpointSaverListener):
        def after_save(self, session, global_step_value):
            heard.append(global_step_value)

    with tf.Graph().as_default():
        build_model()
        scaffold = make_scaffold("both")
        hook = v1.train.CheckpointSaverHook(
            str(tmp_path), save_steps=100, listeners=[Listener()], scaffold=scaffold
        )
        creator = v1.train.ChiefSessionCreator(scaffold, checkpoint_dir=str(tmp_path))
        with v1.train.MonitoredSession(creator, [hook]):
            pass
    assert heard[:1] == [2]
    assert snapshot(prefix) == before
    assert os.path.exists(f"{prefix}.meta")
    assert "all_model_checkpoint_paths" in (tmp_path / "checkpoint").read_text()


def test_values_that_changed_replace_those_on_disk(tmp_path):
    with tf.Graph().as_default():
        a = variable("a", 1.0)
        saver = make_saver("both")
        for value in (1.0, 2.0, 3.0):
            prefix = save(saver, tmp_path, a.assign(value))
            assert eager_values(prefix)["a"] == value
            counts = {name.rpartition("-of-")[2] for name in data_files(tmp_path)}
            assert len(counts) <= 2


def test_a_checkpoint_that_is_equal_but_was_not_read_is_replaced(tmp_path):
    """Its index may be right and its data empty, after a power cut."""
    with tf.Graph().as_default():
        a = variable("a", 1.0)
        prefix = save(make_saver("both"), tmp_path)
    os.truncate(f"{prefix}.data-00000-of-00001", 0)
    with tf.Graph().as_default():
        a = variable("a", 1.0)
        assert save(make_saver("both"), tmp_path) == prefix
    assert verify_checkpoint(prefix).ok
    assert eager_values(prefix)[a.op.name] == 1.0


def test_without_a_state_file_nothing_old_stays(tmp_path):
    with tf.Graph().as_default():
        a = variable("a", 1.0)
        saver = make_saver("both")
        with v1.Session() as session:
            for value in (1.0, 2.0, 3.0):
                session.run(a.initializer)
                session.run(a.assign(value))
                prefix = saver.save(session, str(tmp_path / "best"), write_state=False)
                assert eager_values(prefix)["a"] == value
                assert len({name.rpartition("-of-")[2] for name in data_files(tmp_path)}) == 1
    assert set(os.listdir(tmp_path)) - set(data_files(tmp_path)) == {"best.index", "best.meta"}


@pytest.mark.parametrize("exists", [False, True])
def test_a_save_that_fails_leaves_what_was_there(tmp_path, monkeypatch, exists):
    with tf.Graph().as_default():
        a = variable("a", 1.0)
        saver = make_saver("both")
        prefix = str(tmp_path / "model")
        if exists:
            save(saver, tmp_path)
        before = set(os.listdir(tmp_path))
        real = os.replace

        def fail(source, destination):
            if destination == f"{prefix}.index":
                raise OSError(28, "No space left on device")
            real(source, destination)

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(WriteError, match=r"model\.index: .*No space left"):
            save(saver, tmp_path, a.assign(2.0))
        assert set(os.listdir(tmp_path)) - before <= {"checkpoint.journal", "checkpoint.lease"}
        monkeypatch.undo()
        if exists:
            assert eager_values(prefix)["a"] == 1.0
        save(saver, tmp_path, a.assign(3.0))
        assert eager_values(prefix)["a"] == 3.0
