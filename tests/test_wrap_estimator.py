"""wrap_estimator(): canned Estimators, and what of an Estimator is kept."""

import numpy as np
import pytest
import tensorflow as tf
from estimator_jobs import (
    estimator,
    file_format,
    input_fn,
    linear_spec,
    model_fn,
    predict_input_fn,
    read_values,
    run_config,
    steps_on_disk,
    train,
)
from graph_jobs import FORMATS, assert_same, latest

from estimator_ckpt import open_checkpoint, wrap_estimator
from estimator_ckpt.errors import MissingTensorError, SettingsError

v1 = tf.compat.v1

pytestmark = pytest.mark.estimator


# Canned Estimators. Each is made anew, as in a fresh process.


def columns():
    number = tf.feature_column.numeric_column("x")
    word = tf.feature_column.categorical_column_with_hash_bucket("word", 6)
    return [number], [word], tf.feature_column.embedding_column(word, 2)


def canned_input_fn():
    features = {"x": np.float32([[1], [3]]), "word": np.array([["a"], ["b"]])}
    return tf.data.Dataset.from_tensors((features, np.array([[0], [1]]))).repeat()


def linear_classifier(config):
    numbers, words, _ = columns()
    return tf.estimator.LinearClassifier(numbers + words, config=config)


def linear_classifier_in_parts(config):
    numbers, words, _ = columns()
    return v1.estimator.LinearClassifier(
        numbers + words, config=config, partitioner=v1.fixed_size_partitioner(2)
    )


def dnn_classifier(config):
    numbers, _, embedding = columns()
    return tf.estimator.DNNClassifier(
        [4], [*numbers, embedding], config=config, batch_norm=True, optimizer="Adam"
    )


def dnn_classifier_in_parts(config, optimizer="Adagrad"):
    numbers, _, embedding = columns()
    return v1.estimator.DNNClassifier(
        [4],
        [*numbers, embedding],
        config=config,
        batch_norm=True,
        optimizer=optimizer,
        input_layer_partitioner=v1.fixed_size_partitioner(2),
    )


def combined_regressor_in_parts(config):
    numbers, words, embedding = columns()
    return v1.estimator.DNNLinearCombinedRegressor(
        linear_feature_columns=words,
        dnn_feature_columns=[*numbers, embedding],
        dnn_hidden_units=[3],
        batch_norm=True,
        input_layer_partitioner=v1.fixed_size_partitioner(2),
        config=config,
    )


def baseline_classifier(config):
    return tf.estimator.BaselineClassifier(config=config)


def with_metrics_added(config):
    def more(labels, predictions):
        return {"more": v1.metrics.mean(predictions["logistic"])}

    return tf.estimator.add_metrics(linear_classifier(config), more)


CANNED = [
    (linear_classifier, "checkpoint"),
    (linear_classifier_in_parts, "checkpoint"),
    (dnn_classifier, "checkpoint"),
    (combined_regressor_in_parts, "both"),
    (baseline_classifier, "both"),
    (with_metrics_added, "checkpoint"),
]


@pytest.mark.parametrize(
    ("make", "checkpoint_format"), CANNED, ids=[make.__name__ for make, _ in CANNED]
)
def test_a_canned_estimator_goes_on_in_another_format(tmp_path, make, checkpoint_format):
    stock = make(run_config(tmp_path))
    _, end = train(stock, 1, input_fn=canned_input_fn)
    evaluated = stock.evaluate(canned_input_fn, steps=1)

    ours = wrap_estimator(make(run_config(tmp_path)), checkpoint_format)
    assert ours.evaluate(canned_input_fn, steps=1) == evaluated
    start, _ = train(ours, 1, input_fn=canned_input_fn)
    assert_same(start, end)
    assert file_format(latest(tmp_path)) == checkpoint_format
    if checkpoint_format == "both":
        evaluated = stock.evaluate(canned_input_fn, steps=1)
        assert ours.evaluate(canned_input_fn, steps=1) == evaluated
        assert evaluated["global_step"] == 2


def test_canned_variables_reach_an_eager_checkpoint(tmp_path):
    # Adagrad would make its slots here as slices that no one ever completes; a stock Saver, too,
    # can only restore those under the same partitioning.
    job = wrap_estimator(dnn_classifier_in_parts(run_config(tmp_path), "SGD"), "checkpoint")
    _, end = train(job, 2, input_fn=canned_input_fn)
    variables = {name: tf.Variable(np.zeros_like(value)) for name, value in end.items()}
    reader = tf.train.Checkpoint(var_list=variables, step=variables["global_step"])
    reader.restore(latest(tmp_path)).assert_consumed()
    assert_same({name: variable.numpy() for name, variable in variables.items()}, end)
    with open_checkpoint(tmp_path) as checkpoint:
        assert any(variable.slices for variable in checkpoint.variables.values())


# What is kept.


def with_params(features, labels, mode, params):
    spec = linear_spec(features, labels, mode)
    return spec if mode == "infer" else spec._replace(loss=spec.loss * params["scale"])


def test_config_params_and_class_are_kept_and_the_original_is_not_changed(tmp_path):
    class Own(tf.estimator.Estimator):
        pass

    config = run_config(tmp_path, keep_checkpoint_max=1, save_checkpoints_steps=1)
    stock = Own(with_params, params={"scale": 2.0}, config=config)
    ours = wrap_estimator(stock, "both")
    assert type(ours) is Own
    assert ours.config.keep_checkpoint_max == 1
    assert ours.model_dir == str(tmp_path)
    assert ours.params == stock.params == {"scale": 2.0}

    def input_fn_with_params(params, config, mode):
        seen.append((params, config.keep_checkpoint_max, mode))
        return input_fn()

    seen = []
    ours.train(input_fn_with_params, steps=2)
    assert seen == [({"scale": 2.0}, 1, "train")]
    assert file_format(tmp_path) == "both"
    assert steps_on_disk(tmp_path) == [2]
    assert ours.evaluate(input_fn, steps=1) == stock.evaluate(input_fn, steps=1)
    stock.train(input_fn, steps=1)
    assert file_format(tmp_path) == "saver"


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_variables_are_asked_for_by_their_names_in_every_format(tmp_path, checkpoint_format):
    stock = dnn_classifier_in_parts(run_config(tmp_path / "stock"), "SGD")
    stock.train(canned_input_fn, steps=2)
    made = dnn_classifier_in_parts(run_config(tmp_path / "ours"), "SGD")
    ours = wrap_estimator(made, checkpoint_format)
    with pytest.raises(ValueError, match="Could not find trained model"):
        ours.get_variable_names()
    _, end = train(ours, 2, input_fn=canned_input_fn)
    names = stock.get_variable_names()
    assert ours.get_variable_names() == names
    found = {name: ours.get_variable_value(name) for name in names}
    assert_same(found, end)
    assert all(type(v) is type(stock.get_variable_value(name)) for name, v in found.items())
    assert ours.get_variable_value("global_step:0") == 2
    with pytest.raises(MissingTensorError, match="no variable or key of that name"):
        ours.get_variable_value("global_stop")


def test_an_estimator_of_tf1_stays_one(tmp_path):
    stock = v1.estimator.Estimator(model_fn, config=run_config(tmp_path))
    ours = wrap_estimator(stock, "checkpoint")
    assert type(ours) is v1.estimator.Estimator
    _, end = train(ours)
    assert_same(read_values(tmp_path), end)


@pytest.mark.parametrize("source", ["stock", *FORMATS])
def test_warm_start_settings_are_kept(tmp_path, source):
    writer = estimator(tmp_path / "source", None if source == "stock" else source)
    _, end = train(writer, 3)
    stock = tf.estimator.Estimator(
        model_fn, config=run_config(tmp_path / "ours"), warm_start_from=str(tmp_path / "source")
    )
    ours = wrap_estimator(stock, "checkpoint")
    start, end_of_ours = train(ours, 2)
    assert start["global_step"] == 0
    for name in ("linear/w", "b"):
        np.testing.assert_array_equal(start[name], end[name])
    start, _ = train(ours)  # once only
    assert_same(start, end_of_ours)


def test_predictions_before_training_come_from_the_warm_start(tmp_path):
    _, end = train(estimator(tmp_path / "source", "both"), 3)
    stock = tf.estimator.Estimator(
        model_fn, config=run_config(tmp_path / "ours"), warm_start_from=str(tmp_path / "source")
    )
    expected = list(stock.predict(predict_input_fn))
    assert list(wrap_estimator(stock).predict(predict_input_fn)) == expected
    assert expected[0]["y"] == np.sum(end["linear/w"]) + end["b"]


def test_a_tpu_estimator_is_refused_with_the_way_out(tmp_path):
    tpu = v1.estimator.tpu
    job = tpu.TPUEstimator(
        lambda features, labels, mode, params: None,
        config=tpu.RunConfig(model_dir=str(tmp_path)),
        use_tpu=False,
        train_batch_size=2,
    )
    with pytest.raises(SettingsError, match=r"found TPUEstimator; use wrap_model_fn\(\)"):
        wrap_estimator(job)
