"""The Scaffold of a wrapped model_fn's spec: it stays the same one, with our saver in it."""

import pytest
import tensorflow as tf
from estimator_jobs import estimator, file_format, input_fn, linear_spec, steps_on_disk
from graph_jobs import FORMATS

v1 = tf.compat.v1

pytestmark = pytest.mark.estimator


def test_the_other_pieces_of_the_scaffold_are_kept(tmp_path):
    seen = []

    def fn(features, labels, mode):
        fed = v1.placeholder(tf.float32, [])
        start = v1.get_variable("start", [], initializer=v1.zeros_initializer())
        local = v1.get_local_variable("local", [], initializer=v1.zeros_initializer())
        tf.identity(local, name="value_of_local")
        spec = linear_spec(features, labels, mode)
        with tf.control_dependencies([v1.global_variables_initializer()]):
            init_op = start.assign(fed).op
        with tf.control_dependencies([v1.local_variables_initializer()]):
            local_init_op = local.assign(fed).op
        scaffold = v1.train.Scaffold(
            init_op=init_op,
            init_feed_dict={fed: 5.0},
            init_fn=lambda scaffold, session: seen.append(session.run(start)),
            ready_op=v1.report_uninitialized_variables(),
            ready_for_local_init_op=v1.report_uninitialized_variables(v1.global_variables()),
            local_init_op=local_init_op,
            local_init_feed_dict={fed: 6.0},
            summary_op=v1.summary.scalar("of_the_model_fn", local),
        )
        pieces.update(scaffold=scaffold, **{name: getattr(scaffold, name) for name in PIECES})
        return spec._replace(scaffold=scaffold)

    class Local(v1.train.SessionRunHook):
        def after_create_session(self, session, coord):
            seen.append(session.run("value_of_local:0"))

    pieces = {}
    job = estimator(tmp_path, "checkpoint", fn, {"save_summary_steps": 1})
    job.train(input_fn, steps=2, hooks=[Local()])
    assert seen == [5.0, 6.0]
    for name in PIECES:
        assert getattr(pieces["scaffold"], name) is pieces[name], name
    assert "of_the_model_fn" in summaries(tmp_path)
    job.train(input_fn, steps=1, hooks=[Local()])
    assert seen == [5.0, 6.0, 6.0]  # init_fn runs where there is no checkpoint


PIECES = [
    "init_op",
    "init_feed_dict",
    "init_fn",
    "ready_op",
    "ready_for_local_init_op",
    "local_init_op",
    "local_init_feed_dict",
    "summary_op",
]


def summaries(model_dir):
    """The tags of all summaries that were written."""
    return {
        value.tag
        for path in model_dir.glob("events*")
        for event in v1.train.summary_iterator(str(path))
        for value in event.summary.value
    }


def test_a_scaffold_of_the_users_own_class_stays_one(tmp_path):
    finalized = []

    class Own(v1.train.Scaffold):
        def finalize(self):
            finalized.append(type(self.saver).__module__)
            return super().finalize()

    def fn(features, labels, mode):
        return linear_spec(features, labels, mode, scaffold=Own())

    job = estimator(tmp_path, "checkpoint", fn)
    job.train(input_fn, steps=1)
    job.evaluate(input_fn, steps=1)
    assert finalized == ["estimator_ckpt.saving.saver", "builtins"]  # None in an evaluation
    assert file_format(tmp_path) == "checkpoint"


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_a_saver_hook_that_holds_the_scaffold_saves_in_the_format(tmp_path, checkpoint_format):
    def fn(features, labels, mode):
        scaffold = v1.train.Scaffold()
        hook = v1.train.CheckpointSaverHook(str(tmp_path), save_steps=1, scaffold=scaffold)
        return linear_spec(features, labels, mode, scaffold=scaffold, training_chief_hooks=[hook])

    estimator(tmp_path, checkpoint_format, fn).train(input_fn, steps=2)
    assert steps_on_disk(tmp_path) == [0, 1, 2]
    assert file_format(tmp_path) == checkpoint_format


def test_a_saver_hook_in_the_evaluation_may_hold_the_scaffold(tmp_path):
    def fn(features, labels, mode):
        scaffold = v1.train.Scaffold()
        v1.summary.scalar("seen_in_evaluation", tf.constant(1.0))
        hook = v1.train.SummarySaverHook(1, output_dir=str(tmp_path), scaffold=scaffold)
        return linear_spec(features, labels, mode, scaffold=scaffold, evaluation_hooks=[hook])

    job = estimator(tmp_path, "checkpoint", fn)
    job.train(input_fn, steps=1)
    job.evaluate(input_fn, steps=1)
    assert "seen_in_evaluation" in summaries(tmp_path)
