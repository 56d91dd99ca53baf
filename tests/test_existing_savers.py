"""A model_fn that brings a saver of its own: what becomes of it."""

import numpy as np
import pytest
import tensorflow as tf
from estimator_jobs import (
    FEATURES,
    LABELS,
    estimator,
    file_format,
    input_fn,
    linear_spec,
    predict_input_fn,
    read_values,
    steps_on_disk,
    train,
)
from graph_jobs import FORMATS, assert_same, latest

from estimator_ckpt import open_checkpoint, wrap_estimator

v1 = tf.compat.v1

pytestmark = pytest.mark.estimator

EVERY_STEP = {"save_checkpoints_steps": 1}


def named_variables():
    return {variable.op.name: variable for variable in v1.global_variables()}


def guide_model_fn(features, labels, mode):
    """As TensorFlow's guide to migrating checkpoints has it."""
    spec = linear_spec(features, labels, mode)
    checkpoint = tf.train.Checkpoint(
        var_list=named_variables(), step=v1.train.get_or_create_global_step()
    )
    return spec._replace(scaffold=v1.train.Scaffold(saver=checkpoint))


def objects_model_fn(features, labels, mode):
    """As TensorFlow's guide to checkpoints has it: a model, its optimizer and the step."""
    net = tf.keras.layers.Dense(1, kernel_initializer="ones", name="dense")
    optimizer = tf.keras.optimizers.legacy.Adam(0.1)
    optimizer.iterations = v1.train.get_or_create_global_step()
    y = net(features["x"])
    checkpoint = tf.train.Checkpoint(step=optimizer.iterations, optimizer=optimizer, net=net)
    scaffold = v1.train.Scaffold(saver=checkpoint)
    if mode == "infer":
        return tf.estimator.EstimatorSpec(mode, {"y": y}, scaffold=scaffold)
    loss = tf.reduce_mean((y - labels) ** 2)
    train_op = optimizer.get_updates(loss, net.trainable_variables)[0]
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train_op, scaffold=scaffold)


@pytest.mark.parametrize("checkpoint_format", FORMATS)
@pytest.mark.parametrize("fn", [guide_model_fn, objects_model_fn])
def test_a_job_of_the_guides_goes_on(tmp_path, fn, checkpoint_format):
    _, end = train(estimator(tmp_path, None, fn, EVERY_STEP), 2)
    start, end_of_ours = train(estimator(tmp_path, checkpoint_format, fn, EVERY_STEP), 2)
    assert_same(start, end)
    assert start["global_step"] == 2
    assert file_format(latest(tmp_path)) == checkpoint_format
    # The guide's way ignores RunConfig's limits and keeps 5; here they count, for all of these.
    assert steps_on_disk(tmp_path) == [0, 1, 2, 3, 4][-5:]
    if checkpoint_format != "saver":
        start, _ = train(estimator(tmp_path, None, fn))
        assert_same(start, end_of_ours)


def test_the_guides_reader_gets_what_the_wrapped_job_wrote(tmp_path):
    _, end = train(estimator(tmp_path, "checkpoint", guide_model_fn), 2)
    variables = {name: tf.Variable(tf.zeros_like(value)) for name, value in end.items()}
    step = tf.Variable(0, dtype=tf.int64)
    variables["global_step"] = step
    reader = tf.train.Checkpoint(var_list=variables, step=step)
    reader.restore(latest(tmp_path)).assert_consumed()
    assert step.numpy() == 2
    assert_same({name: variable.numpy() for name, variable in variables.items()}, end)


def test_the_same_objects_in_eager_mode_get_what_the_wrapped_job_wrote(tmp_path):
    job = estimator(tmp_path, "checkpoint", objects_model_fn)
    _, end = train(job, 2)
    predicted = [found["y"] for found in job.predict(predict_input_fn)]

    net = tf.keras.layers.Dense(1)
    optimizer = tf.keras.optimizers.legacy.Adam(0.1)
    optimizer.iterations = step = tf.Variable(0, dtype=tf.int64)
    net(FEATURES)
    optimizer.apply_gradients([(tf.zeros_like(weight), weight) for weight in net.weights])
    reader = tf.train.Checkpoint(step=step, optimizer=optimizer, net=net)
    reader.restore(latest(tmp_path)).assert_consumed()
    np.testing.assert_array_equal(net(FEATURES), predicted)
    assert step.numpy() == 2
    for slot in ("m", "v"):
        expected = next(v for name, v in end.items() if name.endswith(f"dense/kernel/{slot}"))
        np.testing.assert_array_equal(optimizer.get_slot(net.kernel, slot), expected)


# A tf.compat.v1.train.Saver, in each place where a model_fn may put one.


def plain_saver(**options):
    return v1.train.Saver(**{"max_to_keep": 2, "var_list": under_other_names(), **options})


def under_other_names():
    return {f"kept/{name}": variable for name, variable in named_variables().items()}


def in_the_scaffold(spec, saver):
    return spec._replace(scaffold=v1.train.Scaffold(saver=saver))


def in_the_collection(spec, saver):
    v1.add_to_collection(v1.GraphKeys.SAVERS, saver)
    return spec


def in_both(spec, saver):
    return in_the_scaffold(in_the_collection(spec, saver), saver)


def in_the_scaffold_among_others(spec, saver):
    for _ in range(2):
        v1.add_to_collection(v1.GraphKeys.SAVERS, v1.train.Saver())
    return in_the_scaffold(spec, saver)


def in_a_hook_too(spec, saver):
    # One that Estimator finds, instead of making its own.
    if spec.mode == "train":
        directory = v1.train.get_global_step().graph.model_dir
        hook = v1.train.CheckpointSaverHook(directory, save_steps=1, saver=saver)
        spec = spec._replace(training_chief_hooks=[hook])
    return in_the_scaffold(spec, saver)


PLACES = [
    in_the_scaffold,
    in_the_collection,
    in_both,
    in_the_scaffold_among_others,
    in_a_hook_too,
]


@pytest.mark.parametrize(
    ("place", "checkpoint_format"),
    [(in_the_scaffold, "saver"), (in_the_scaffold, "both"), *((p, "checkpoint") for p in PLACES)],
)
def test_a_plain_saver_hands_over_its_names_and_its_retention(tmp_path, place, checkpoint_format):
    def fn(features, labels, mode):
        tf.compat.v1.get_default_graph().model_dir = str(tmp_path)
        return place(linear_spec(features, labels, mode), plain_saver())

    _, end = train(estimator(tmp_path, None, fn, EVERY_STEP), 2)
    job = estimator(tmp_path, checkpoint_format, fn, {**EVERY_STEP, "keep_checkpoint_max": 4})
    start, end_of_ours = train(job, 3)
    assert_same(start, end)
    assert file_format(latest(tmp_path)) == checkpoint_format
    assert steps_on_disk(tmp_path) == [4, 5]
    renamed = {f"kept/{name}": value for name, value in end_of_ours.items()}
    if checkpoint_format != "saver":  # Estimator looks for the step by this name
        renamed["global_step"] = end_of_ours["global_step"]
    assert_same(read_values(latest(tmp_path)), renamed)
    assert job.evaluate(input_fn, steps=1)["global_step"] == 5
    assert len(list(job.predict(predict_input_fn))) == 2
    if checkpoint_format != "checkpoint":
        start, _ = train(estimator(tmp_path, None, fn))
        assert_same(start, end_of_ours)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"defer_build": True, "var_list": None}, ["model.ckpt-1", "model.ckpt-2"]),
        ({"pad_step_number": True}, ["model.ckpt-00000001", "model.ckpt-00000002"]),
        ({"max_to_keep": 1}, ["model.ckpt-2"]),
        ({"max_to_keep": 0}, ["model.ckpt-0", "model.ckpt-1", "model.ckpt-2"]),
        ({"max_to_keep": None}, ["model.ckpt-0", "model.ckpt-1", "model.ckpt-2"]),
        ({"keep_checkpoint_every_n_hours": 1e-9}, ["model.ckpt-0", "model.ckpt-1", "model.ckpt-2"]),
    ],
    ids=str,
)
def test_the_options_of_a_plain_saver_are_kept(tmp_path, options, names):
    def fn(features, labels, mode):
        return in_the_scaffold(linear_spec(features, labels, mode), plain_saver(**options))

    for wrapped_format in (None, "saver"):
        model_dir = tmp_path / str(wrapped_format)
        estimator(model_dir, wrapped_format, fn, EVERY_STEP).train(input_fn, steps=2)
        found = sorted(path.name[: -len(".index")] for path in model_dir.glob("*.index"))
        assert found == names, wrapped_format


def test_options_given_to_the_wrapper_win_over_the_savers(tmp_path):
    def fn(features, labels, mode):
        return in_the_scaffold(linear_spec(features, labels, mode), plain_saver())

    estimator(tmp_path, "saver", fn, EVERY_STEP, keep_checkpoint_max=3).train(input_fn, steps=4)
    assert steps_on_disk(tmp_path) == [2, 3, 4]


class OwnSaver(v1.train.Saver):
    """Cannot be taken over: nobody knows what it does."""


def test_a_saver_of_another_class_is_left_alone_with_a_warning(tmp_path, caplog):
    def fn(features, labels, mode):
        return in_the_scaffold(linear_spec(features, labels, mode), OwnSaver(max_to_keep=1))

    job = estimator(tmp_path, "checkpoint", fn, EVERY_STEP)
    _, end = train(job, 2)
    assert "cannot be taken over (OwnSaver)" in caplog.text
    assert file_format(tmp_path) == "saver"
    assert steps_on_disk(tmp_path) == [2]
    start, _ = train(job)
    assert_same(start, end)
    assert job.evaluate(input_fn, steps=1)["global_step"] == 3


def test_two_savers_in_the_collection_stop_a_stock_job_but_not_ours(tmp_path):
    def fn(features, labels, mode):
        spec = linear_spec(features, labels, mode)
        return in_the_collection(in_the_collection(spec, plain_saver()), plain_saver())

    with pytest.raises(RuntimeError, match="More than one item in collection"):
        estimator(tmp_path / "stock", None, fn).train(input_fn, steps=1)
    _, end = train(estimator(tmp_path / "ours", "checkpoint", fn))
    assert_same(read_values(tmp_path / "ours"), end)


def test_a_hook_that_saves_with_a_saver_of_its_own_goes_on_doing_so_with_a_warning(
    tmp_path, caplog
):
    def fn(features, labels, mode):
        spec = linear_spec(features, labels, mode)
        hook = v1.train.CheckpointSaverHook(str(tmp_path), save_steps=1, saver=v1.train.Saver())
        return spec._replace(training_chief_hooks=[hook])

    job = estimator(tmp_path, "checkpoint", fn)
    _, end = train(job, 2)
    assert "has a saver of its own" in caplog.text
    assert file_format(tmp_path) == "saver"
    caplog.clear()
    job.evaluate(input_fn, steps=1)
    assert "has a saver of its own" not in caplog.text
    start, _ = train(job)
    assert_same(start, end)


# tf.keras.estimator.model_to_estimator.


def keras_estimator(model_dir, keras_format):
    """Fresh layers each time, as in a fresh process."""
    tf.keras.backend.clear_session()
    model = tf.keras.Sequential(
        [tf.keras.layers.Dense(1, kernel_initializer="ones", input_shape=(1,), name="dense")]
    )
    model.compile(tf.keras.optimizers.legacy.Adam(0.1), "mse")
    return tf.keras.estimator.model_to_estimator(
        model, config=config_of(model_dir), checkpoint_format=keras_format
    )


def config_of(model_dir):
    return estimator(model_dir).config


def keras_input_fn():
    return tf.data.Dataset.from_tensors((FEATURES, LABELS)).repeat()


@pytest.mark.parametrize("checkpoint_format", FORMATS)
@pytest.mark.parametrize("keras_format", ["checkpoint", "saver"])
def test_a_keras_model_goes_on_in_its_old_model_dir(tmp_path, keras_format, checkpoint_format):
    stock = keras_estimator(tmp_path, keras_format)
    _, end = train(stock, 2, input_fn=keras_input_fn)
    loss = stock.evaluate(keras_input_fn, steps=1)["loss"]

    ours = wrap_estimator(keras_estimator(tmp_path, keras_format), checkpoint_format)
    assert ours.evaluate(keras_input_fn, steps=1)["loss"] == loss
    start, end_of_ours = train(ours, 2, input_fn=keras_input_fn)
    assert_same(start, end)
    with open_checkpoint(latest(tmp_path)) as found:
        assert found.format == checkpoint_format
        assert found.global_step == 4
    predictions = list(ours.predict(lambda: tf.data.Dataset.from_tensors(FEATURES)))
    assert len(predictions) == 2

    if checkpoint_format in (keras_format, "both"):
        start, _ = train(keras_estimator(tmp_path, keras_format), input_fn=keras_input_fn)
        assert_same(start, end_of_ours)
