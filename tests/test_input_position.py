"""save_input in a MonitoredSession: a job that is stopped goes on with the next batch."""

import json
import os
import re
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf
from graph_jobs import build_plain_model, latest
from input_jobs import numbers, run
from tensorflow_party import v1

from estimator_ckpt import cli, convert_checkpoint, errors, make_scaffold, verify_checkpoint
from estimator_ckpt.checking.audit import verify_directory
from estimator_ckpt.reading.input_files import positions
from estimator_ckpt.saving.input_ops import InputOps, input_iterators
from estimator_ckpt.saving.pipelines import Pipelines


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    """The batches and losses of the steps of a job, by the kind of its iterator."""
    return {
        kind: run(tmp_path_factory.mktemp(kind), 12, kind=kind)
        for kind in ("one_shot", "local_init")
    }


@pytest.mark.parametrize("kind", ["one_shot", "local_init"])
def test_a_stopped_job_goes_on_with_the_next_batch_to_the_bit(never_stopped, tmp_path, kind):
    got = run(tmp_path, 3, kind=kind)
    # How parallel it runs does not count, nor the format that is written.
    got += run(tmp_path, 4, lambda: numbers(parallel=1, ahead=7), kind=kind)
    got += run(tmp_path, 5, kind=kind, checkpoint_format="saver")
    assert got == never_stopped[kind]


def test_an_input_at_its_end_begins_anew(tmp_path, capfd):
    counts = [len(run(tmp_path, 100, lambda: numbers(6, repeat=1))) for _ in range(3)]
    assert counts == [3, 3, 3]  # 12 numbers in batches of 4
    assert capfd.readouterr().err.count("The input begins anew: its position is at the end") == 2


def test_another_pipeline_is_an_error_that_names_both(tmp_path, caplog):
    run(tmp_path, 2)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(errors.MismatchError, match="on_input_change='restart'") as caught:
        run(tmp_path, 1, lambda: numbers(batch=5))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{tmp_path}/model.ckpt-2.input/position-2, key 'save_input'")
    assert re.fullmatch(r"  input/0, saved: range.* -> batch\(batch_size=4, .*", lines[1])
    assert re.fullmatch(r"  input/0, now:   range.* -> batch\(batch_size=5, .*", lines[2])
    left = {name for name in os.listdir(tmp_path) if "tfevents" not in name}
    assert left == {name for name in before if "tfevents" not in name}
    fresh = run(tmp_path / "fresh", 1, lambda: numbers(batch=5))
    assert (
        run(tmp_path, 1, lambda: numbers(batch=5), on_input_change="restart")[0][0] == fresh[0][0]
    )


def test_each_of_several_iterators_has_its_position(tmp_path):
    def small():
        return numbers(20, 2)

    whole = run(tmp_path / "whole", 6, others=[small])
    got = run(tmp_path / "parts", 4, others=[small]) + run(tmp_path / "parts", 2, others=[small])
    assert got == whole
    with pytest.raises(
        errors.MismatchError, match=r"input/1, saved: range.*\n.*input/1, now:   none"
    ):
        run(tmp_path / "parts", 1)


def through_python():
    return tf.data.Dataset.range(9).map(lambda x: v1.py_func(np.float32, [x], tf.float32)).batch(2)


@pytest.mark.parametrize(
    ("dataset", "why"),
    [
        (through_python, "a part of its state is outside of tf.data, in 1 kind of ops: PyFunc"),
        (
            lambda: tf.data.Dataset.range(9).map(lambda x: tf.random.uniform([])).batch(2),
            "outside of tf.data, in 1 kind of ops: RandomUniform",
        ),
        (
            lambda: tf.data.Dataset.from_generator(lambda: range(9), tf.float32).batch(2),
            "a part of its state is outside of tf.data, in . kinds of ops: .*GeneratorDataset",
        ),
    ],
)
def test_what_cannot_be_saved_is_named_before_the_first_step(tmp_path, dataset, why, caplog):
    with pytest.raises(errors.SettingsError, match=why):
        run(tmp_path, 1, dataset)
    assert latest(tmp_path) is None
    assert len(run(tmp_path, 1, dataset, on_unsavable_input="warn")) == 1
    assert re.search(why, caplog.text)
    assert positions(latest(tmp_path)) == {}


def test_an_iterator_that_is_not_initialized_is_told_from_one_with_state_elsewhere(graph):
    """TensorFlow has one exception for both. And random ops count, but for those that begin."""
    v1.train.get_or_create_global_step()
    v1.get_variable("w", [2], initializer=v1.truncated_normal_initializer())
    tf.nn.dropout(tf.ones([2]), rate=0.5)
    iterator = v1.data.make_initializable_iterator(numbers())
    ops = InputOps(input_iterators(None))
    assert ops.random == ["RandomUniform"]
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        assert ops.unsavable(session).endswith(
            "its iterator, 'IteratorV2', was not initialized when the session began"
        )
        session.run(iterator.initializer)
        assert ops.unsavable(session) == ""


class Initializes(v1.train.SessionRunHook):
    """A hook that initializes the iterators of a graph."""

    def __init__(self, graph):
        self.ops = [op for op in graph.get_operations() if op.type == "MakeIterator"]

    def after_create_session(self, session, coord):
        session.run(self.ops)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"kind": "by_hook", "hooks": [Initializes]}, "'IteratorV2' is not initialized by the Sc"),
        ({"save_input_max_bytes": 100}, r"it takes [\d,]+ bytes, and save_input_max_bytes is 100"),
        ({"save_input_max_bytes": 0}, "expected a positive number of bytes, found 0"),
        ({"on_input_change": "warn"}, "expected 'error' or 'restart', found 'warn'"),
        ({"on_unsavable_input": "skip"}, "expected 'error' or 'warn', found 'skip'"),
        ({"save_input": 1}, "expected True or False, found 1"),
    ],
)
def test_what_a_scaffold_cannot_serve_is_refused(tmp_path, options, why):
    with pytest.raises(errors.SettingsError, match=why):
        run(tmp_path, 1, **options)
    assert latest(tmp_path) is None


class Horovod:
    """What there is of horovod.tensorflow in each of two processes."""

    is_initialized, size = staticmethod(lambda: True), staticmethod(lambda: 2)


def test_ranks_of_horovod_are_refused_as_only_the_first_of_them_saves(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "horovod.tensorflow", Horovod)
    with pytest.raises(errors.SettingsError, match="2 processes read data, under Horovod"):
        run(tmp_path, 1)
    run(tmp_path, 1, on_unsavable_input="warn")
    assert positions(latest(tmp_path)) == {}


def test_a_copy_of_the_scaffold_would_restore_nothing(tmp_path):
    def copied(scaffold):
        return v1.train.Scaffold(copy_from_scaffold=scaffold)

    with pytest.raises(errors.SettingsError, match="another Scaffold than the factory's begins"):
        run(tmp_path, 1, copied=copied)


def test_a_remote_model_dir_has_positions_as_a_local_one(never_stopped, tmp_path):
    remote = f"ram://{tmp_path.name}/run"
    got = run(remote, 3, every=2, keep_checkpoint_max=2, kind="one_shot")
    got += run(remote, 4, every=2, keep_checkpoint_max=2, kind="one_shot")
    assert got == never_stopped["one_shot"][:7]
    names = [name.rstrip("/") for name in tf.io.gfile.listdir(remote)]
    assert sorted(n for n in names if n.endswith(".input")) == [
        "model.ckpt-5.input",
        "model.ckpt-7.input",
    ]
    assert verify_checkpoint(remote).input_bytes > 1000


def test_a_graph_without_an_iterator_is_refused(graph):
    build_plain_model()
    with pytest.raises(errors.SettingsError, match=r"the graph has no iterator of tf\.data"):
        make_scaffold("both", save_input=True).finalize()


def test_positions_are_kept_and_deleted_with_their_checkpoints(tmp_path, caplog):
    caplog.set_level("INFO")
    run(tmp_path, 7, every=2, keep_checkpoint_max=2)
    names = os.listdir(tmp_path)
    assert {n[: -len(".input")] for n in names if n.endswith(".input")} == {
        n[: -len(".index")] for n in names if n.endswith(".index")
    }
    assert positions(str(tmp_path / "model.ckpt-7")) == {
        7: str(tmp_path / "model.ckpt-7.input" / "position-7")
    }
    told = r"The input's position takes [\d,]+ bytes beside each checkpoint, written in [\d.]+ s"
    assert re.search(told, caplog.text)


def test_a_checkpoint_that_is_replaced_has_one_position(tmp_path):
    """Also where it was saved without one: what stays is never of another checkpoint."""
    with tf.Graph().as_default():
        x = v1.data.make_one_shot_iterator(numbers()).get_next()
        train = v1.assign_add(v1.train.get_or_create_global_step(), tf.cast(x[0] * 0 + 1, tf.int64))
        scaffold = make_scaffold("both", save_input=True)
        with v1.train.MonitoredSession(v1.train.ChiefSessionCreator(scaffold)) as session:
            prefix = str(tmp_path / "model")
            for _ in range(2):
                session.run(train)
                scaffold.saver.save(session._tf_sess(), prefix, write_meta_graph=False)
            assert list(positions(prefix)) == [2]
            scaffold.saver.input = None
            session.run(train)
            scaffold.saver.sound = None
            scaffold.saver.save(session._tf_sess(), prefix, write_meta_graph=False)
            assert positions(prefix) == {}


# --- damage ---


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model_dir with checkpoints of steps 0, 2 and 4, and what the steps have read."""
    model_dir = tmp_path_factory.mktemp("trained")
    return model_dir, run(model_dir, 4, every=2)


@pytest.mark.parametrize(
    ("name", "harm", "kind"),
    [
        ("position-4.data-00000-of-00001", damage, "checksum"),
        ("position-4.data-00000-of-00001", os.remove, "data file"),
        ("position-4.index", os.remove, "index"),
        ("position-4.index", damage, "index"),
    ],
)
def test_verify_names_a_damaged_position(trained, tmp_path, name, harm, kind):
    model_dir = shutil.copytree(trained[0], tmp_path / "run")
    path = model_dir / "model.ckpt-4.input" / name
    harm(path)
    (fault,) = verify_checkpoint(model_dir).faults
    assert (fault.kind, fault.file) == (kind, str(path))


def test_verify_notes_a_position_that_was_removed(trained, tmp_path):
    model_dir = shutil.copytree(trained[0], tmp_path / "run")
    # A position is no checkpoint of its own.
    checked = verify_directory(model_dir).checkpoints
    assert [(one.ok, one.notes) for one in checked] == [(True, ())] * 3
    shutil.rmtree(model_dir / "model.ckpt-4.input")
    (note,) = verify_checkpoint(model_dir).notes
    assert note == f"{model_dir}/model.ckpt-4.input, with the input's position, was removed"


def test_a_position_is_shown_with_its_size(trained, capsys):
    model_dir, _ = trained
    names = os.listdir(model_dir / "model.ckpt-4.input")
    size = sum(os.path.getsize(model_dir / "model.ckpt-4.input" / name) for name in names)
    assert cli.main(["inspect", str(model_dir), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["input_bytes"] == size
    assert cli.main(["inspect", str(model_dir)]) == 0
    first = capsys.readouterr().out.partition("\n")[0]
    assert f"the input's position beside it, {size / 1000:.1f} kB" in first
    assert cli.main(["verify", str(model_dir), "--newest"]) == 0
    assert f"; the input's position, {size / 1000:.1f} kB, too\n" in capsys.readouterr().out


def test_what_the_stock_saver_leaves_of_a_position_is_named_and_removed(trained, tmp_path):
    model_dir = shutil.copytree(trained[0], tmp_path / "run")
    other = shutil.copytree(model_dir / "model.ckpt-0.input", model_dir / "theirs.input")
    v1.train.remove_checkpoint(str(model_dir / "model.ckpt-0"))
    faults = [one for one in verify_directory(model_dir).faults if one.kind == "input"]
    assert [one.file for one in faults] == [f"{model_dir}/model.ckpt-0.input", str(other)]
    run(model_dir, 1, save_input=False)
    assert not (model_dir / "model.ckpt-0.input").exists()
    assert (model_dir / "model.ckpt-2.input").exists()
    assert other.exists()


def test_a_job_does_not_begin_anew_in_silence(trained, tmp_path, caplog):
    model_dir = shutil.copytree(trained[0], tmp_path / "run")
    damage(model_dir / "model.ckpt-4.input" / "position-4.data-00000-of-00001")
    with pytest.raises(
        errors.CorruptCheckpointError, match=r"Remove .*/model.ckpt-4.input to begin"
    ):
        run(model_dir, 1)
    # The checkpoint before it is whole, with its position.
    assert run(model_dir, 2, on_corrupt="fall_back") == trained[1][2:]
    shutil.rmtree(model_dir / "model.ckpt-4.input")
    run(model_dir, 1)
    assert "model.ckpt-4 has no input position beside it" in caplog.text


def test_a_fall_back_passes_over_a_checkpoint_whose_position_is_damaged(trained, tmp_path):
    model_dir = shutil.copytree(trained[0], tmp_path / "run")
    os.remove(model_dir / "model.ckpt-4.data-00000-of-00001")
    damage(model_dir / "model.ckpt-2.input" / "position-2.data-00000-of-00001")
    assert run(model_dir, 2, on_corrupt="fall_back") == trained[1][:2]


# --- what tells two pipelines from each other ---


def text(make, before=lambda: None):
    with tf.Graph().as_default() as graph:
        before()
        iterator = v1.data.make_initializable_iterator(make())
        return Pipelines(graph).text(iterator._iterator_resource.op.name)


def doubled(x):
    return x * 2


def range_(n=9):
    return tf.data.Dataset.range(n)


def count_up():
    """What moves the names of later ops and functions, and their seeds."""
    v1.set_random_seed(5)
    tf.constant(1) + 2
    range_().map(doubled)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda: range_().shuffle(4, seed=1).batch(2).prefetch(1),
            "range(start=0, stop=9, step=1) -> shuffle(buffer_size=4) -> "
            "batch(batch_size=2, drop_remainder=False) -> prefetch, gives int64[?]",
        ),
        (
            lambda: tf.data.Dataset.zip((range_(), range_(3))),
            "(range(start=0, stop=9, step=1) | range(start=0, stop=3, step=1)) -> zip, gives "
            "int64[], int64[]",
        ),
    ],
)
def test_a_pipeline_in_words(make, expected):
    assert text(make) == text(make, count_up) == expected


@pytest.mark.parametrize(
    "make",
    [
        lambda: range_().map(doubled),
        lambda: range_().map(lambda x: x * 2, num_parallel_calls=2),
        lambda: range_().interleave(lambda x: range_().shuffle(3).map(doubled), cycle_length=2),
        lambda: tf.data.Dataset.from_tensor_slices(np.arange(8.0)),
    ],
)
def test_names_and_seeds_do_not_count(make):
    assert {text(make), *(text(make, count_up) for _ in range(8))} == {text(make)}


@pytest.mark.parametrize(
    ("make", "other"),
    [
        (lambda: range_().map(doubled), lambda: range_().map(lambda x: x * 3)),
        (lambda: range_().map(doubled), lambda: range_().filter(lambda x: x > 2)),
        (
            lambda: tf.data.Dataset.from_tensor_slices(np.arange(8.0)),
            lambda: tf.data.Dataset.from_tensor_slices(np.arange(8.0) + 1),
        ),
        (
            lambda: tf.data.TFRecordDataset(["a", "b"]),
            lambda: tf.data.TFRecordDataset(["a", "c"]),
        ),
        (
            lambda: range_().interleave(lambda x: range_(4), cycle_length=2),
            lambda: range_().interleave(lambda x: range_(5), cycle_length=2),
        ),
    ],
)
def test_what_runs_in_a_pipeline_counts(make, other):
    assert text(make) != text(other)
    assert re.search(r"\b[0-9a-f]{8}\b", text(make))


# --- conversions ---


def test_conversions_leave_the_position_behind_unless_asked(trained, tmp_path, capsys):
    source = shutil.copytree(trained[0], tmp_path / "run")
    done = convert_checkpoint(source, tmp_path / "one" / "", "saver")
    meta, position = done.companions
    assert (meta.path, position.path) == (
        f"{source}/model.ckpt-4.meta",
        f"{source}/model.ckpt-4.input",
    )
    assert (position.how, position.why) == ("left out", "it goes along with with_input")
    assert positions(str(tmp_path / "one" / "model.ckpt-4")) == {}

    command = ["convert", str(source), str(tmp_path / "all"), "--checkpoint_format=saver"]
    assert cli.main([*command, "--with_input"]) == 0
    assert "positions of the input: 3 linked" in capsys.readouterr().out
    assert verify_checkpoint(tmp_path / "all").ok

    (_, position) = convert_checkpoint(
        source / "model.ckpt-4", None, "saver", in_place=True
    ).companions
    assert position.how == "same"
    assert run(source, 2) == run(tmp_path / "all", 2)
