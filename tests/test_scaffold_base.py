"""The factories without an Estimator: what of a base Scaffold is kept, sessions, hooks."""

import os

import numpy as np
import pytest
import tensorflow as tf
from graph_jobs import (
    FORMATS,
    assert_same,
    build_model,
    build_plain_model,
    global_values,
    latest,
    minimize,
    read_with_checkpoint,
    read_with_stock_saver,
    run_job,
)

from estimator_ckpt import (
    Retention,
    checkpoint_scaffold,
    dual_scaffold,
    make_scaffold,
    open_checkpoint,
    saver_scaffold,
)
from estimator_ckpt.errors import MismatchError, SettingsError

v1 = tf.compat.v1

PIECES = [
    "init_op",
    "init_feed_dict",
    "ready_op",
    "ready_for_local_init_op",
    "local_init_op",
    "local_init_feed_dict",
    "summary_op",
]


def base_with_everything(seen):
    """A Scaffold each piece of which leaves a trace; needs a model in the graph."""
    fed = v1.placeholder(tf.float32, [], name="fed")
    start = v1.get_variable("start", [], initializer=v1.zeros_initializer())
    local = v1.get_local_variable("local", [], initializer=v1.zeros_initializer())
    with tf.control_dependencies([v1.global_variables_initializer()]):
        init_op = start.assign(fed).op
    with tf.control_dependencies([v1.local_variables_initializer()]):
        local_init_op = local.assign(fed).op
    return v1.train.Scaffold(
        init_op=init_op,
        init_feed_dict={fed: 5.0},
        init_fn=lambda scaffold, session: seen.append((scaffold, session.run(start))),
        ready_op=v1.report_uninitialized_variables(),
        ready_for_local_init_op=v1.report_uninitialized_variables(v1.global_variables()),
        local_init_op=local_init_op,
        local_init_feed_dict={fed: 6.0},
        summary_op=v1.summary.scalar("of_the_base", tf.identity(local, name="local_value")),
    )


def plain_scaffold(checkpoint_format, **options):
    """By the factory that is named after the format."""
    factories = {
        "saver": saver_scaffold,
        "checkpoint": checkpoint_scaffold,
        "both": dual_scaffold,
    }
    return factories[checkpoint_format](**options)


def steps_on_disk(model_dir):
    names = (name for name in os.listdir(model_dir) if name.endswith(".index"))
    return sorted(int(name[len("model.ckpt-") : -len(".index")]) for name in names)


# The pieces.


@pytest.mark.parametrize("factory", [plain_scaffold, make_scaffold])
@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_the_other_pieces_of_the_base_are_kept(tmp_path, checkpoint_format, factory):
    seen = []

    def run():
        with tf.Graph().as_default() as graph:
            train = build_plain_model()
            base = base_with_everything(seen)
            pieces = {name: getattr(base, name) for name in PIECES}
            scaffold = factory(checkpoint_format, base=base)
            with v1.train.MonitoredTrainingSession(
                checkpoint_dir=str(tmp_path),
                scaffold=scaffold,
                save_summaries_steps=1,
                log_step_count_steps=None,
            ) as session:
                for name, piece in pieces.items():
                    assert getattr(scaffold, name) is piece, name
                session.run(train)
                value = session._tf_sess().run(graph.get_tensor_by_name("local_value:0"))
            return scaffold, value

    scaffold, local = run()
    assert local == 6.0
    # init_fn is called with the Scaffold that runs, when init_op has run.
    assert seen == [(scaffold, 5.0)]
    run()
    assert len(seen) == 1  # there was a checkpoint


# A saver in the base.


def under_other_names():
    return {f"kept/{variable.op.name}": variable for variable in v1.global_variables()}


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_a_plain_saver_hands_over_its_names_and_its_retention(tmp_path, checkpoint_format):
    def scaffold():
        saver = v1.train.Saver(under_other_names(), max_to_keep=2)
        base = v1.train.Scaffold(saver=saver)
        return make_scaffold(checkpoint_format, base=base) if wrapped else base

    options = {"build": build_plain_model, "save_checkpoint_steps": 1}
    wrapped = False
    _, end = run_job(tmp_path, scaffold, **options)
    wrapped = True
    start, end_of_ours = run_job(tmp_path, scaffold, **options)
    assert_same(start, end)
    assert steps_on_disk(tmp_path) == [3, 4]
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.format == checkpoint_format
        found = {name: checkpoint.get_tensor(name) for name in checkpoint.variables}
    found = {name[len("kept/") :]: value for name, value in found.items() if "kept/" in name}
    assert_same(found, end_of_ours)


def test_var_list_wins_over_what_the_base_saves(tmp_path):
    def scaffold():
        base = v1.train.Scaffold(saver=v1.train.Saver(under_other_names()))
        mapping = {f"mine/{variable.op.name}": variable for variable in v1.global_variables()}
        return saver_scaffold(mapping, base=base)

    _, end = run_job(tmp_path, scaffold, build=build_plain_model)
    keys = {key for key, _ in tf.train.list_variables(str(tmp_path))}
    assert keys == {f"mine/{name}" for name in end}


@pytest.mark.parametrize("checkpoint_format", ["checkpoint", "both"])
def test_a_checkpoint_in_the_base_gives_the_structure(tmp_path, checkpoint_format):
    def scaffold():
        step = v1.train.get_global_step()
        (w,) = (v for v in v1.global_variables() if v.op.name == "scope/w")
        model = tf.Module()
        model.w = w
        base = v1.train.Scaffold(saver=tf.train.Checkpoint(model=model, step=step))
        return make_scaffold(checkpoint_format, base=base)

    _, end = run_job(tmp_path, scaffold, build=build_plain_model)
    model = tf.Module()
    model.w = tf.Variable(tf.zeros([2, 3]))
    reader = tf.train.Checkpoint(model=model, step=tf.Variable(0, dtype=tf.int64))
    reader.restore(latest(tmp_path)).assert_existing_objects_matched()
    np.testing.assert_array_equal(model.w.numpy(), end["scope/w"])
    assert reader.step.numpy() == 2
    assert_same(read_with_checkpoint(latest(tmp_path), end), end)  # var_list stands beside


@pytest.mark.parametrize(
    ("asked", "key"),
    [
        ({"checkpoint_format": "saver"}, "checkpoint_format"),
        ({"checkpoint_format": "both", "keep_checkpoint_max": 4}, "keep_checkpoint_max"),
        ({"checkpoint_format": "both", "on_missing": "warn"}, "on_missing"),
    ],
)
def test_a_saver_of_ours_in_the_base_must_agree(graph, asked, key):
    base = dual_scaffold(retention=Retention(newest=3, every_n_steps=5))
    assert make_scaffold("both", base=base).saver is base.saver
    assert make_scaffold("both", base=base, keep_checkpoint_max=3).saver is base.saver
    with pytest.raises(SettingsError, match="decide it in one place") as raised:
        make_scaffold(base=base, **asked)
    assert raised.value.key == key


class RunConfig:
    """What a factory asks of a tf.estimator.RunConfig."""

    keep_checkpoint_max = 2
    keep_checkpoint_every_n_hours = 10_000


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6][-5:]),
        ({"run_config": RunConfig()}, [5, 6]),
        ({"run_config": RunConfig(), "keep_checkpoint_max": 3}, [4, 5, 6]),
        ({"keep_checkpoint_max": 1}, [6]),
    ],
)
def test_retention_is_the_run_configs_unless_given(tmp_path, options, kept):
    run_job(
        tmp_path,
        lambda: checkpoint_scaffold(**options),
        build=build_plain_model,
        steps=6,
        save_checkpoint_steps=1,
    )
    assert steps_on_disk(tmp_path) == kept


# Sessions.


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_singular_monitored_session(tmp_path, checkpoint_format):
    def run(steps):
        with tf.Graph().as_default():
            train = build_model()
            scaffold = make_scaffold(checkpoint_format)
            hook = v1.train.CheckpointSaverHook(str(tmp_path), save_steps=1, scaffold=scaffold)
            with v1.train.SingularMonitoredSession(
                hooks=[hook], scaffold=scaffold, checkpoint_dir=str(tmp_path)
            ) as session:
                start = global_values(session.raw_session())
                for _ in range(steps):
                    session.run(train)
                return start, global_values(session.raw_session())

    _, end = run(2)
    start, _ = run(1)
    assert_same(start, end)
    assert latest(tmp_path) == str(tmp_path / "model.ckpt-3")


@pytest.mark.parametrize("written_as", FORMATS)
def test_a_session_starts_from_a_named_checkpoint(tmp_path, written_as):
    options = {"build": build_plain_model, "save_checkpoint_steps": 1}
    run_job(tmp_path, lambda: make_scaffold(written_as), **options)
    older = read_with_stock_saver(str(tmp_path / "model.ckpt-1"), build_plain_model)
    with tf.Graph().as_default():
        build_plain_model()
        creator = v1.train.ChiefSessionCreator(
            checkpoint_scaffold(), checkpoint_filename_with_path=str(tmp_path / "model.ckpt-1")
        )
        with v1.train.MonitoredSession(creator) as session:
            assert_same(global_values(session._tf_sess()), older)


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_a_hook_may_hold_the_saver_itself(tmp_path, checkpoint_format):
    with tf.Graph().as_default():
        train = build_plain_model()
        scaffold = make_scaffold(checkpoint_format)
        hook = v1.train.CheckpointSaverHook(str(tmp_path), save_steps=1, saver=scaffold.saver)
        with v1.train.MonitoredSession(
            v1.train.ChiefSessionCreator(scaffold), hooks=[hook]
        ) as session:
            session.run(train)
    with open_checkpoint(tmp_path) as checkpoint:
        assert (checkpoint.format, checkpoint.global_step) == (checkpoint_format, 1)


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_what_hooks_add_to_the_graph_is_saved_and_restored(tmp_path, checkpoint_format):
    class Counter(v1.train.SessionRunHook):
        def begin(self):
            self.count = v1.get_variable("hooks/count", [], tf.int32, v1.zeros_initializer())
            self.add = self.count.assign_add(1)

        def before_run(self, run_context):
            return v1.train.SessionRunArgs(self.add)

    options = {"build": build_plain_model, "hooks": [Counter()]}
    _, end = run_job(tmp_path, lambda: make_scaffold(checkpoint_format), **options)
    assert end["hooks/count"] == 2
    start, _ = run_job(tmp_path, lambda: make_scaffold(checkpoint_format), **options)
    assert_same(start, end)


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_a_session_that_recovers_restores_the_newest_checkpoint(tmp_path, checkpoint_format):
    class Preempt(v1.train.SessionRunHook):
        """As if a parameter server had gone, after the second step."""

        def __init__(self):
            self.sessions = 0

        def after_create_session(self, session, coord):
            self.sessions += 1

        def after_run(self, run_context, run_values):
            if self.sessions == 1 and run_context.session.run(v1.train.get_global_step()) == 3:
                raise tf.errors.AbortedError(None, None, "preempted")

    preempt = Preempt()
    options = {"build": build_plain_model, "save_checkpoint_steps": 2}
    _, undisturbed = run_job(tmp_path / "stock", steps=4, **options)
    with tf.Graph().as_default():
        train = build_plain_model()
        step = v1.train.get_global_step()
        with v1.train.MonitoredTrainingSession(
            checkpoint_dir=str(tmp_path / "ours"),
            scaffold=make_scaffold(checkpoint_format),
            save_checkpoint_steps=2,
            save_checkpoint_secs=None,
            log_step_count_steps=None,
            hooks=[preempt],
        ) as session:
            while session.run(step) < 4:
                session.run(train)
            end = global_values(session._tf_sess())
    assert preempt.sessions == 2
    assert_same(end, undisturbed)


# The saver by itself.


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_the_saver_in_a_session_of_ones_own(tmp_path, graph, checkpoint_format):
    train = build_plain_model()
    saver = make_scaffold(checkpoint_format, keep_checkpoint_max=2).saver
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        saver.build()
        paths = []
        for _ in range(3):
            session.run(train)
            step = v1.train.get_global_step()
            paths.append(saver.save(session, str(tmp_path / "own"), step, "own_state"))
        expected = global_values(session)
        assert paths == [str(tmp_path / f"own-{step}") for step in (1, 2, 3)]
        assert saver.last_checkpoints == paths[1:]
        assert tf.train.latest_checkpoint(str(tmp_path), "own_state") == paths[2]
        assert not os.path.exists(tmp_path / "checkpoint")
        assert not os.path.exists(f"{paths[0]}.index")
        assert saver.save(session, str(tmp_path / "extra"), write_state=False) == str(
            tmp_path / "extra"
        )
        assert tf.train.latest_checkpoint(str(tmp_path), "own_state") == paths[2]
        session.run(v1.global_variables_initializer())
        saver.restore(session, paths[2])
        assert_same(global_values(session), expected)
        with pytest.raises(ValueError, match="when it is None"):
            saver.restore(session, None)
        with pytest.raises(ValueError, match="nothing"):
            saver.restore(session, str(tmp_path / "nothing"))
        with pytest.raises(ValueError, match="doesn't exist"):
            saver.save(session, str(tmp_path / "no_such_directory" / "own"))


def test_a_restore_that_fails_changes_nothing(tmp_path):
    run_job(tmp_path, checkpoint_scaffold, build=build_plain_model)
    with tf.Graph().as_default(), v1.Session() as session:
        build_plain_model()
        v1.get_variable("more", [2], initializer=v1.ones_initializer())
        minimize(tf.constant(0.0) + v1.get_variable("yet_more", []))
        saver = saver_scaffold().saver
        session.run(v1.global_variables_initializer())
        before = global_values(session)
        with pytest.raises(MismatchError, match=r"(?s)more +float32\[2\].*yet_more +float32\[\]"):
            saver.restore(session, latest(tmp_path))
        assert_same(global_values(session), before)
