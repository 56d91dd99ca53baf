"""What an Estimator exports: from checkpoints of every format, always name-based."""

import os

import numpy as np
import pytest
import tensorflow as tf
from estimator_jobs import (
    FEATURES,
    LABELS,
    estimator,
    input_fn,
    model_fn,
    partitioned_model_fn,
    predict_input_fn,
    train,
)
from graph_jobs import FORMATS, assert_same, latest

from estimator_ckpt import wrap_model_fn
from estimator_ckpt.errors import MismatchError

v1 = tf.compat.v1

pytestmark = pytest.mark.estimator


def serving_receiver():
    x = {"x": v1.placeholder(tf.float32, [None, 1], name="x")}
    return tf.estimator.export.ServingInputReceiver(x, x)


def supervised_receiver():
    x = {"x": v1.placeholder(tf.float32, [None, 1], name="x")}
    labels = v1.placeholder(tf.float32, [None, 1], name="labels")
    return tf.estimator.experimental.build_raw_supervised_input_receiver_fn(x, labels)()


RECEIVERS = {"infer": serving_receiver, "eval": supervised_receiver, "train": supervised_receiver}

# The tags of each mode's graph in a SavedModel.
TAGS = {"infer": ["serve"], "eval": ["eval"], "train": ["train"]}


def export(job, directory, modes):
    receivers = {mode: RECEIVERS[mode] for mode in modes}
    return os.fsdecode(job.experimental_export_all_saved_models(str(directory), receivers))


def exported_values(path):
    """By key, as they stand in the SavedModel's variables."""
    reader = tf.train.load_checkpoint(os.path.join(path, "variables", "variables"))
    return {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}


def loaded_by_v1(path, tags):
    with tf.Graph().as_default(), v1.Session() as session:
        v1.saved_model.load(session, tags, path)
        return {variable.op.name: session.run(variable) for variable in v1.global_variables()}


def started_by_init_from_checkpoint(path):
    with tf.Graph().as_default(), v1.Session() as session:
        w = v1.get_variable("mine/w", [4, 1])
        v1.train.init_from_checkpoint(
            os.path.join(path, "variables", "variables"), {"linear/": "mine/"}
        )
        session.run(v1.global_variables_initializer())
        return session.run(w)


@pytest.mark.parametrize(
    ("fn", "checkpoint_format"),
    [
        (model_fn, "stock"),
        (model_fn, "saver"),
        (model_fn, "checkpoint"),
        (partitioned_model_fn, "stock"),
        (partitioned_model_fn, "checkpoint"),
        (partitioned_model_fn, "both"),
    ],
)
def test_a_serving_model_is_name_based_and_every_loader_reads_it(tmp_path, fn, checkpoint_format):
    wrapped_format = None if checkpoint_format == "stock" else checkpoint_format
    job = estimator(tmp_path / "model", wrapped_format, fn)
    _, end = train(job, 2)
    path = os.fsdecode(job.export_saved_model(str(tmp_path / "export"), serving_receiver))

    expected = {name: end[name] for name in ("linear/w", "b", "global_step")}
    assert_same(exported_values(path), expected)
    np.testing.assert_array_equal(started_by_init_from_checkpoint(path), end["linear/w"])
    predicted = [found["y"] for found in job.predict(predict_input_fn)]
    loaded = tf.saved_model.load(path)
    found = loaded.signatures["serving_default"](x=tf.constant(FEATURES))
    np.testing.assert_array_equal(found["y"], predicted)
    if fn is model_fn:
        assert_same(loaded_by_v1(path, ["serve"]), expected)


@pytest.mark.parametrize(
    ("fn", "checkpoint_format"),
    [(partitioned_model_fn, "checkpoint"), (model_fn, "both"), (model_fn, "saver")],
)
@pytest.mark.parametrize("modes", [["eval"], ["train"], ["train", "eval", "infer"]], ids="+".join)
def test_all_modes_are_exported_name_based(tmp_path, caplog, fn, modes, checkpoint_format):
    job = estimator(tmp_path / "model", checkpoint_format, fn)
    _, end = train(job, 2)
    predicted = [found["y"] for found in job.predict(predict_input_fn)]
    path = export(job, tmp_path / "export", modes)

    slots = set(end) - {"linear/w", "b", "global_step"}
    if "train" not in modes:
        end = {name: value for name, value in end.items() if name not in slots}
    assert_same(exported_values(path), end)
    for mode in modes:
        caplog.clear()
        kept = loaded_by_v1(path, TAGS[mode])
        assert "Cannot identify data type" not in caplog.text
        if fn is model_fn:
            expected = set(end) - (set() if mode == "train" else slots)
            assert_same(kept, {name: end[name] for name in expected})
    if "infer" in modes:
        signature = tf.saved_model.load(path, tags=["serve"]).signatures["serving_default"]
        found = signature(x=tf.constant(FEATURES))["y"]
        np.testing.assert_array_equal(found, predicted)
    if "eval" in modes:
        evaluated = evaluated_by_v1(path)
        np.testing.assert_allclose(evaluated, np.mean((np.float32(predicted) - LABELS) ** 2))


def evaluated_by_v1(path):
    """The loss that the evaluation graph of a SavedModel computes."""
    with tf.Graph().as_default(), v1.Session() as session:
        signature = v1.saved_model.load(session, ["eval"], path).signature_def["eval"]
        feeds = {
            tensor.name: LABELS if "label" in name else FEATURES
            for name, tensor in signature.inputs.items()
        }
        return session.run(signature.outputs["loss"].name, feeds)


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_an_older_checkpoint_is_exported(tmp_path, checkpoint_format):
    job = estimator(tmp_path / "model", checkpoint_format)
    _, older = train(job, 1)
    path = latest(tmp_path / "model")
    job.train(input_fn, steps=1)
    exported = job.export_saved_model(
        str(tmp_path / "export"), serving_receiver, checkpoint_path=path
    )
    assert_same(
        exported_values(os.fsdecode(exported)),
        {name: older[name] for name in ("linear/w", "b", "global_step")},
    )


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_the_old_export_of_tf1_works(tmp_path, checkpoint_format):
    fn = wrap_model_fn(model_fn, checkpoint_format)
    job = v1.estimator.Estimator(fn, str(tmp_path / "model"))
    _, end = train(job)
    path = job.export_savedmodel(str(tmp_path / "export"), serving_receiver, as_text=True)
    assert os.path.exists(os.path.join(os.fsdecode(path), "saved_model.pbtxt"))
    np.testing.assert_array_equal(exported_values(os.fsdecode(path))["b"], end["b"])


def test_a_saved_model_warm_starts_a_wrapped_job(tmp_path):
    job = estimator(tmp_path / "model", "checkpoint")
    _, end = train(job, 2)
    path = os.fsdecode(job.export_saved_model(str(tmp_path / "export"), serving_receiver))
    settings = tf.estimator.WarmStartSettings(
        os.path.join(path, "variables", "variables"), vars_to_warm_start="linear/w"
    )
    second = tf.estimator.Estimator(
        job._model_fn, str(tmp_path / "second"), warm_start_from=settings
    )
    start, _ = train(second)
    np.testing.assert_array_equal(start["linear/w"], end["linear/w"])
    assert start["global_step"] == 0


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_a_serving_graph_of_another_shape_is_refused(tmp_path, checkpoint_format):
    def by_width(features, labels, mode):
        width = 2 if mode == "infer" else 1
        w = v1.get_variable("w", [width, 1], initializer=v1.ones_initializer())
        outputs = {"serving_default": tf.estimator.export.PredictOutput({"w": tf.identity(w)})}
        return tf.estimator.EstimatorSpec(
            mode,
            {"w": tf.identity(w)},
            loss=tf.reduce_sum(w),
            train_op=v1.train.get_global_step().assign_add(1),
            export_outputs=outputs,
        )

    job = estimator(tmp_path / "run", checkpoint_format, by_width)
    train(job)
    with pytest.raises(MismatchError, match=r"shape +w +float32\[2,1\] +float32\[1,1\]"):
        export(job, tmp_path / "export", ["infer"])
