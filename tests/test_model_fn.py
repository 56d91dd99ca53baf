"""A wrapped model_fn is called exactly as Estimator would have called it."""

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
from graph_jobs import assert_same

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


# What Estimator passes to each beside the features, and what was bound before.
SIGNATURES = [
    (features_labels_mode, "labels mode"),
    (another_order, "labels mode"),
    (without_labels, "mode"),
    (without_mode, "labels"),
    (only_features, ""),
    (with_params, "labels mode params"),
    (with_params_by_default, "labels mode params"),
    (with_config, "labels mode config"),
    (with_everything, "labels mode params config"),
    (with_keyword_only_default, "labels mode rate"),
    (with_open_keywords, "labels mode"),
    (partial_by_keyword, "labels mode params rate"),
    (partial_by_position, "labels mode config rate"),
    (partial_of_a_partial, "labels mode rate scale"),
    (callable_object, "labels mode params"),
    (bound_method, "labels mode config"),
    (partial_of_a_method, "labels mode config"),
    (decorated, "labels mode params"),
    (decorated_to_another_signature, "labels mode rate"),
]


@pytest.fixture(scope="module")
def stock_end(tmp_path_factory):
    """The values after one step, which are the same with each signature."""
    job = estimator(tmp_path_factory.mktemp("stock"), None, features_labels_mode(lambda **_: None))
    return train(job)[1]


@pytest.mark.parametrize(
    ("signature", "names"), SIGNATURES, ids=[case.__name__ for case, _ in SIGNATURES]
)
def test_a_model_fn_gets_what_estimator_passes_and_trains(tmp_path, stock_end, signature, names):
    def features_or_both():
        data = ({"x": FEATURES}, LABELS) if "labels" in names else {"x": FEATURES}
        return tf.data.Dataset.from_tensors(data).repeat()

    def got(**arguments):
        if "labels" in arguments:
            assert arguments["labels"].op.type == "IteratorGetNext"
        if "config" in arguments:
            assert arguments["config"].model_dir == str(tmp_path)
        calls.append(arguments)

    calls = []
    fn = wrap_model_fn(signature(got))
    config = run_config(tmp_path, keep_checkpoint_max=1, save_checkpoints_steps=1)
    params = PARAMS if "params" in names else None
    _, end = train(
        tf.estimator.Estimator(fn, params=params, config=config), 1, input_fn=features_or_both
    )
    (arguments,) = calls
    assert sorted(arguments) == sorted(names.split())
    fixed = {"mode": "train", "params": PARAMS, "rate": 3, "scale": 4}
    for name in arguments.keys() & fixed.keys():
        assert arguments[name] == fixed[name]
    assert_same(end, stock_end)
    assert file_format(tmp_path) == "checkpoint"
    # From RunConfig, whether the model_fn has a `config` argument or not.
    assert steps_on_disk(tmp_path) == [1]


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
