"""Savers that user code holds: one that was replaced is ours for all, others stay as they are."""

import os

import numpy as np
import pytest
import tensorflow as tf

from estimator_ckpt import make_scaffold, open_checkpoint
from estimator_ckpt.errors import MismatchError, SettingsError, UnsupportedCheckpointError
from estimator_ckpt.saving import tf_internals

v1 = tf.compat.v1

SAVES = {"save_checkpoint_steps": 2, "save_checkpoint_secs": None, "log_step_count_steps": None}


class SavesAt(v1.train.SessionRunHook):
    """Saves after some steps, as a hook that keeps the best does."""

    def __init__(self, saver, prefix, steps, **options):
        self.saver, self.prefix, self.steps, self.options = saver, str(prefix), steps, options

    def after_run(self, run_context, run_values):
        session = run_context.session
        step = v1.train.global_step(session, v1.train.get_global_step())
        if step in self.steps:
            self.saver.save(session, self.prefix, step, **self.options)


def build():
    """Two variables and a step; returns the op that trains them by 1."""
    w = v1.get_variable("w", initializer=1.0)
    embeddings = v1.get_variable("embeddings", initializer=[1.0, 2.0])
    step = v1.train.get_or_create_global_step()
    return tf.group(
        v1.assign_add(step, 1), v1.assign_add(w, 1.0), v1.assign_add(embeddings, [1, 1])
    )


def embeddings():
    return [v for v in v1.global_variables() if v.op.name == "embeddings"]


def run(model_dir, scaffold, hooks=(), steps=9, **options):
    """Trains in the default graph; returns the step, w and the embeddings at the start."""
    train_op = v1.get_collection("train_op")[0] if v1.get_collection("train_op") else build()
    with v1.train.MonitoredTrainingSession(
        checkpoint_dir=str(model_dir), scaffold=scaffold, hooks=hooks, **{**SAVES, **options}
    ) as session:
        raw = session._tf_sess()
        started = raw.run([v1.train.get_global_step(), *v1.trainable_variables()])
        for _ in range(steps):
            session.run(train_op)
    return started


def built():
    """The model, in the default graph, before anyone makes a saver of it."""
    v1.add_to_collection("train_op", build())


def names(directory):
    return sorted(name[: -len(".index")] for name in os.listdir(directory) if ".index" in name)


def listed(directory):
    paths = tf.train.get_checkpoint_state(str(directory)).all_model_checkpoint_paths
    return sorted(map(os.path.basename, paths))


def formats(directory):
    return {open_checkpoint(directory / name).format for name in names(directory)}


def in_the_scaffold(saver):
    return v1.train.Scaffold(saver=saver)


def in_the_collection(saver):
    v1.add_to_collection(v1.GraphKeys.SAVERS, saver)


def in_both(saver):
    in_the_collection(saver)
    return in_the_scaffold(saver)


def beside_one_that_saves_the_same(saver):
    in_the_collection(saver)
    return in_the_scaffold(v1.train.Saver(max_to_keep=2))


PLACES = [in_the_scaffold, in_the_collection, in_both, beside_one_that_saves_the_same]


@pytest.mark.parametrize("place", PLACES)
def test_who_holds_the_replaced_saver_saves_the_same_format_into_one_list(tmp_path, graph, place):
    built()
    mine = v1.train.Saver(max_to_keep=2)
    scaffold = make_scaffold("checkpoint", base=place(mine))
    run(tmp_path, scaffold, [SavesAt(mine, tmp_path / "model.ckpt", {3, 7})])
    assert names(tmp_path) == listed(tmp_path) == ["model.ckpt-8", "model.ckpt-9"]
    assert formats(tmp_path) == {"checkpoint"}
    assert mine.last_checkpoints == [str(tmp_path / f"model.ckpt-{step}") for step in (8, 9)]


def test_a_saver_that_also_saves_elsewhere_has_a_list_for_each_directory(tmp_path, graph):
    built()
    best = tmp_path / "best"
    best.mkdir()
    mine = v1.train.Saver(max_to_keep=2)
    scaffold = make_scaffold("both", base=in_the_scaffold(mine))
    run(tmp_path, scaffold, [SavesAt(mine, best / "best", {1, 3, 5})])
    assert names(best) == listed(best) == ["best-3", "best-5"]
    assert names(tmp_path) == listed(tmp_path) == ["model.ckpt-8", "model.ckpt-9"]
    assert formats(best) == formats(tmp_path) == {"both"}


def test_two_state_files_of_one_directory_are_two_lists(tmp_path, graph):
    built()
    mine = v1.train.Saver(max_to_keep=2)
    scaffold = make_scaffold("both", base=in_the_scaffold(mine))
    best = SavesAt(mine, tmp_path / "best", {1, 3, 5}, latest_filename="best_state")
    run(tmp_path, scaffold, [best])
    assert names(tmp_path) == ["best-3", "best-5", "model.ckpt-8", "model.ckpt-9"]
    assert listed(tmp_path) == ["model.ckpt-8", "model.ckpt-9"]


def test_without_write_state_a_checkpoint_is_written_and_nothing_else_changes(tmp_path, graph):
    built()
    mine = v1.train.Saver(max_to_keep=2)
    scaffold = make_scaffold("checkpoint", base=in_the_scaffold(mine))
    run(tmp_path, scaffold, [SavesAt(mine, tmp_path / "extra", {1, 3, 9}, write_state=False)])
    assert listed(tmp_path) == ["model.ckpt-8", "model.ckpt-9"]
    assert names(tmp_path) == ["extra-1", "extra-3", "extra-9", "model.ckpt-8", "model.ckpt-9"]
    assert formats(tmp_path) == {"checkpoint"}


def test_the_meta_graph_has_the_saver_that_wrote_the_checkpoint(tmp_path, graph):
    built()
    mine = v1.train.Saver()
    scaffold = make_scaffold("checkpoint", base=in_both(mine))
    run(tmp_path, scaffold, [SavesAt(mine, tmp_path / "mine", {3})])
    meta = v1.MetaGraphDef.FromString((tmp_path / "mine-3.meta").read_bytes())
    assert meta.saver_def == mine.to_proto() == scaffold.saver.as_saver_def()
    collected = meta.collection_def[v1.GraphKeys.SAVERS].bytes_list.value
    assert list(collected) == [mine.to_proto().SerializeToString()]
    with tf.Graph().as_default(), v1.Session() as session:
        imported = v1.train.import_meta_graph(str(tmp_path / "mine-3.meta"))
        imported.restore(session, str(tmp_path / "mine-3"))
        assert (
            session.run("w:0" if "w:0" in graph_tensors(session) else "w/Read/ReadVariableOp:0")
            == 4
        )


def graph_tensors(session):
    return {
        output.name
        for op in session.graph.get_operations()
        if op.type == "VariableV2"
        for output in op.outputs
    }


def test_one_base_makes_one_saver(graph):
    built()
    base = in_the_scaffold(v1.train.Saver(max_to_keep=3))
    mine = base.saver
    first = make_scaffold("both", base=base)
    second = make_scaffold("both", base=base)
    assert first.saver is second.saver is base.saver is mine
    with pytest.raises(SettingsError, match="decide it in one place"):
        make_scaffold("checkpoint", base=base)


def test_a_graph_without_a_saver_gets_ours_in_the_collection(graph):
    built()
    scaffold = make_scaffold("checkpoint")
    assert v1.get_collection(v1.GraphKeys.SAVERS) == [scaffold.saver]


# Savers that stay.


class OwnSaver(v1.train.Saver):
    pass


@pytest.mark.parametrize("kind", [v1.train.Saver, OwnSaver])
def test_another_savers_checkpoints_stay_and_are_never_resumed_from(tmp_path, kind, caplog):
    with tf.Graph().as_default():
        built()
        own = kind(embeddings(), max_to_keep=None)
        hook = SavesAt(own, tmp_path / "emb", {1, 3, 5, 9})
        run(tmp_path, make_scaffold("checkpoint", keep_checkpoint_max=2), [hook])
        assert type(own) is kind
    written = [f"emb-{step}" for step in (1, 3, 5, 9)]
    assert names(tmp_path) == [*written, "model.ckpt-8", "model.ckpt-9"]
    assert listed(tmp_path) == names(tmp_path)
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "model.ckpt-9")
    assert caplog.text.count("SavesAt has one") == 1

    # A run that ends when the other saver has written last.
    with tf.Graph().as_default():
        built()
        own = kind(embeddings(), max_to_keep=None)
        with v1.Session() as session:
            own.restore(session, str(tmp_path / "emb-9"))
            own.save(session, str(tmp_path / "emb"), 11)
    assert listed(tmp_path) == ["emb-11"]
    with tf.Graph().as_default():
        built()
        scaffold = make_scaffold("both", keep_checkpoint_max=2)
        step, w, _ = run(tmp_path, scaffold, steps=3)
    assert (step, w) == (9, 10)
    assert "lacks variables" in caplog.text
    kept = [name for name in names(tmp_path) if "emb" in name]
    assert kept == sorted([*written, "emb-11"])
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "model.ckpt-12")
    assert "emb-11" in listed(tmp_path)


def test_earlier_checkpoints_of_a_model_that_has_grown_count(tmp_path):
    with tf.Graph().as_default():
        run(tmp_path, make_scaffold("both"), steps=4)
    assert names(tmp_path) == ["model.ckpt-0", "model.ckpt-2", "model.ckpt-4"]
    with tf.Graph().as_default():
        built()
        v1.get_variable("new", initializer=1.0)
        scaffold = make_scaffold("both", on_missing="init", keep_checkpoint_max=2)
        step, *_ = run(tmp_path, scaffold, steps=2)
        assert step == 4
    assert names(tmp_path) == ["model.ckpt-4", "model.ckpt-6"]


def test_a_checkpoint_hook_with_a_saver_of_its_own_is_told_of_once(tmp_path, graph, caplog):
    built()
    hook = v1.train.CheckpointSaverHook(str(tmp_path), save_steps=1, saver=v1.train.Saver())
    run(tmp_path, make_scaffold("checkpoint"), [hook])
    assert caplog.text.count("CheckpointSaverHook") == 1
    assert caplog.text.count("not the format 'checkpoint'") == 1


def test_a_hook_that_saves_to_another_directory_is_its_own_affair(tmp_path, graph, caplog):
    built()
    own = v1.train.Saver(embeddings())
    hook = v1.train.CheckpointSaverHook(str(tmp_path / "other"), save_steps=1, saver=own)
    run(tmp_path / "run", make_scaffold("checkpoint"), [hook])
    assert formats(tmp_path / "run") == {"checkpoint"}
    assert formats(tmp_path / "other") == {"saver"}
    assert "saver of its own" not in caplog.text
    assert "Another saver" not in caplog.text


# Restoring with them.


@pytest.fixture
def pretrained(tmp_path):
    with tf.Graph().as_default():
        run(tmp_path / "pretrained", make_scaffold("checkpoint"), steps=3)
    return tf.train.latest_checkpoint(str(tmp_path / "pretrained"))


def test_a_replaced_saver_restores_in_an_init_fn(tmp_path, graph, pretrained):
    built()
    mine = v1.train.Saver()
    base = v1.train.Scaffold(
        saver=mine, init_fn=lambda _, session: mine.restore(session, pretrained)
    )
    step, w, found = run(tmp_path / "run", make_scaffold("both", base=base), steps=0)
    assert (step, w) == (3, 4)
    np.testing.assert_array_equal(found, [4, 5])


class Restores(v1.train.SessionRunHook):
    def __init__(self, saver, prefix):
        self.saver, self.prefix = saver, prefix

    def after_create_session(self, session, coord):
        self.saver.restore(session, self.prefix)


@pytest.mark.parametrize("is_in_a_hook", [False, True])
def test_a_stock_saver_that_cannot_restore_in_a_final_graph_says_what_can(
    tmp_path, graph, pretrained, is_in_a_hook
):
    built()
    own = v1.train.Saver(embeddings())
    base = hooks = None
    if is_in_a_hook:
        hooks = [Restores(own, pretrained)]
    else:
        base = v1.train.Scaffold(init_fn=lambda _, session: own.restore(session, pretrained))
    with pytest.raises(UnsupportedCheckpointError, match="object-based") as caught:
        run(tmp_path / "run", make_scaffold("both", base=base), hooks)
    assert caught.value.path == pretrained
    for word in ("the graph is final", "warm_start=WarmStart(...)", "estimator-ckpt convert"):
        assert word in str(caught.value)


def test_a_stock_saver_restores_by_names_in_a_final_graph_as_before(tmp_path, graph):
    with tf.Graph().as_default():
        run(tmp_path / "pretrained", make_scaffold("both"), steps=3)
    prefix = tf.train.latest_checkpoint(str(tmp_path / "pretrained"))
    built()
    own = v1.train.Saver(embeddings())
    base = v1.train.Scaffold(init_fn=lambda _, session: own.restore(session, prefix))
    step, w, found = run(tmp_path / "run", make_scaffold("checkpoint", base=base), steps=0)
    assert (step, w) == (0, 1)
    np.testing.assert_array_equal(found, [4, 5])


def test_a_checkpoint_that_lacks_variables_is_still_refused_where_there_is_no_other(
    tmp_path, graph
):
    built()
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        v1.train.Saver(embeddings()).save(session, str(tmp_path / "emb"), 1)
    with pytest.raises(MismatchError, match="global_step"):
        run(tmp_path, make_scaffold("both"))


def test_other_savers_are_searched_for_only_where_some_others_ops_restore(monkeypatch):
    searches = []

    def search(*kinds):
        searches.append(kinds)
        return objects_of(*kinds)

    objects_of = tf_internals.objects_of
    monkeypatch.setattr(tf_internals, "objects_of", search)
    for makes_another in (False, True):
        with tf.Graph().as_default():
            build()
            if makes_another:
                v1.train.Saver(embeddings())
            make_scaffold("both").finalize()
            assert bool(searches) == makes_another
