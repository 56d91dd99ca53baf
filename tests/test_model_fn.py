"""A wrapped model_fn: called as Estimator would have called it, its Scaffold kept, its errors."""

import functools

import pytest
import tensorflow as tf
from estimator_jobs import (
    FEATURES,
    LABELS,
    estimator,
    file_format,
    input_fn,
    linear_spec,
    run_config,
    steps_on_disk,
    train,
)
from jobs import FORMATS, assert_same

from estimator_ckpt import wrap_model_fn

v1 = tf.compat.v1

pytestmark = pytest.mark.estimator

PARAMS = {"rate": 0.5}


# Signatures. Each case makes a model_fn that hands what it is given to `got`.


def spec_of(features, labels=None, mode="train"):
    return linear_spec(features, LABELS if labels is None else labels, mode)


def features_labels_mode(got):
    def fn(features, labels, mode):
        got(labels=labels, mode=mode)
        return spec_of(features, labels, mode)

    return fn


def another_order(got):
    def fn(mode, labels, features):
        got(labels=labels, mode=mode)
        return spec_of(features, labels, mode)

    return fn


def without_labels(got):
    def fn(features, mode):
        got(mode=mode)
        return spec_of(features, mode=mode)

    return fn


def without_mode(got):
    def fn(features, labels):
        got(labels=labels)
        return spec_of(features, labels)

    return fn


def only_features(got):
    def fn(features):
        got()
        return spec_of(features)

    return fn


def with_params(got):
    def fn(features, labels, mode, params):
        got(labels=labels, mode=mode, params=params)
        return spec_of(features, labels, mode)

    return fn


def with_params_by_default(got):
    def fn(features, labels, mode, params=None):
        got(labels=labels, mode=mode, params=params)
        return spec_of(features, labels, mode)

    return fn


def with_config(got):
    def fn(features, labels, mode, config):
        got(labels=labels, mode=mode, config=config)
        return spec_of(features, labels, mode)

    return fn


def with_everything(got):
    def fn(features, labels, mode, params, config):
        got(labels=labels, mode=mode, params=params, config=config)
        return spec_of(features, labels, mode)

    return fn


def with_keyword_only_default(got):
    def fn(features, labels, mode, *, rate=3):
        got(labels=labels, mode=mode, rate=rate)
        return spec_of(features, labels, mode)

    return fn


def with_open_keywords(got):
    def fn(features, labels, mode, **others):
        got(labels=labels, mode=mode, **others)
        return spec_of(features, labels, mode)

    return fn


def partial_by_keyword(got):
    def fn(features, labels, mode, params, rate):
        got(labels=labels, mode=mode, params=params, rate=rate)
        return spec_of(features, labels, mode)

    return functools.partial(fn, rate=3)


def partial_by_position(got):
    def fn(rate, features, labels, mode, config):
        got(labels=labels, mode=mode, config=config, rate=rate)
        return spec_of(features, labels, mode)

    return functools.partial(fn, 3)


def partial_of_a_partial(got):
    def fn(rate, scale, features, labels, mode):
        got(labels=labels, mode=mode, rate=rate, scale=scale)
        return spec_of(features, labels, mode)

    return functools.partial(functools.partial(fn, 3), scale=4)


class Model:
    def __init__(self, got):
        self.got = got

    def __call__(self, features, labels, mode, params):
        self.got(labels=labels, mode=mode, params=params)
        return spec_of(features, labels, mode)

    def method(self, features, labels, mode, config):
        self.got(labels=labels, mode=mode, config=config)
        return spec_of(features, labels, mode)


def callable_object(got):
    return Model(got)


def bound_method(got):
    return Model(got).method


def partial_of_a_method(got):
    return functools.partial(Model(got).method)


def decorated(got):
    def fn(features, labels, mode, params):
        got(labels=labels, mode=mode, params=params)
        return spec_of(features, labels, mode)

    # As TensorFlow's own decorators do it.
    return tf.__internal__.decorator.make_decorator(fn, lambda *args, **kwargs: fn(*args, **kwargs))


def decorated_to_another_signature(got):
    def inner(features, labels, mode, rate):
        got(labels=labels, mode=mode, rate=rate)
        return spec_of(features, labels, mode)

    @functools.wraps(inner)
    def fn(features, labels, mode):
        return inner(features, labels, mode, 3)

    return fn


SIGNATURES = [
    features_labels_mode,
    another_order,
    without_labels,
    without_mode,
    only_features,
    with_params,
    with_params_by_default,
    with_config,
    with_everything,
    with_keyword_only_default,
    with_open_keywords,
    partial_by_keyword,
    partial_by_position,
    partial_of_a_partial,
    callable_object,
    bound_method,
    partial_of_a_method,
    decorated,
    decorated_to_another_signature,
]


@pytest.mark.parametrize("signature", SIGNATURES, ids=lambda case: case.__name__)
def test_a_model_fn_gets_what_estimator_passes_and_trains(tmp_path, signature):
    takes_labels = signature not in (without_labels, only_features)
    takes_params = signature in (
        with_params,
        with_params_by_default,
        with_everything,
        partial_by_keyword,
        callable_object,
        decorated,
    )

    def features_or_both():
        data = ({"x": FEATURES}, LABELS) if takes_labels else {"x": FEATURES}
        return tf.data.Dataset.from_tensors(data).repeat()

    def run(wrap, model_dir):
        calls = []
        job = tf.estimator.Estimator(
            wrap(signature(lambda **arguments: calls.append(arguments))),
            params=PARAMS if takes_params else None,
            config=run_config(model_dir, keep_checkpoint_max=1, save_checkpoints_steps=1),
        )
        _, end = train(job, input_fn=features_or_both)
        (arguments,) = calls
        if "config" in arguments:
            assert arguments.pop("config").model_dir == str(model_dir)
        if "labels" in arguments:
            arguments["labels"] = arguments["labels"].name
        return arguments, end

    found, end = run(wrap_model_fn, tmp_path / "ours")
    expected, stock_end = run(lambda fn: fn, tmp_path / "stock")
    assert found == expected
    assert_same(end, stock_end)
    assert file_format(tmp_path / "ours") == "checkpoint"
    # From RunConfig, whether the model_fn has a `config` argument or not.
    assert steps_on_disk(tmp_path / "ours") == [1]


def test_a_wrapped_model_fn_is_called_by_position_too(graph, tmp_path):
    got = []

    def fn(features, labels, mode, params):
        got.append((features, labels, mode, params))
        return linear_spec(features, labels, mode)

    v1.train.create_global_step()
    features, labels = {"x": tf.constant(FEATURES)}, tf.constant(LABELS)
    wrapped = wrap_model_fn(fn)
    config = run_config(tmp_path, keep_checkpoint_max=7)
    spec = wrapped(features, labels, "train", PARAMS, config)
    assert [tuple(map(id, call)) for call in got] == [
        (id(features), id(labels), id("train"), id(PARAMS))
    ]
    assert spec.scaffold.saver.options.keep_checkpoint_max == 7


def test_the_wrapper_has_the_name_and_the_docstring_of_the_model_fn():
    def fn(features):
        "Says what it does."

    assert (wrap_model_fn(fn).__name__, wrap_model_fn(fn).__doc__) == ("fn", "Says what it does.")


@pytest.mark.parametrize("wrap", [lambda fn: fn, wrap_model_fn], ids=["stock", "ours"])
@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda features, labels, mode, rate: None, "not expected args"),
        (lambda labels, mode: None, "must include features"),
    ],
)
def test_estimator_still_refuses_a_signature(tmp_path, wrap, fn, message):
    with pytest.raises(ValueError, match=message):
        tf.estimator.Estimator(wrap(fn), config=run_config(tmp_path))


@pytest.mark.parametrize("wrap", [lambda fn: fn, wrap_model_fn], ids=["stock", "ours"])
def test_estimator_still_refuses_what_is_no_spec(tmp_path, wrap):
    fn = wrap(lambda features, labels, mode: 3)
    job = tf.estimator.Estimator(fn, config=run_config(tmp_path))
    with pytest.raises(ValueError, match="should return an EstimatorSpec"):
        job.train(input_fn, steps=1)


# The Scaffold of the spec.


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
    assert finalized == ["estimator_ckpt.saver", "builtins"]  # None in an evaluation
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
