"""The `ema` option: averages are read in place of the variables, and never in silence these."""

import os

import numpy as np
import pytest
import tensorflow as tf
from estimator_jobs import (
    FEATURES,
    estimator,
    input_fn,
    linear_spec,
    predict_input_fn,
    train,
)
from graph_jobs import FORMATS
from saver_sessions import (
    COUNT,
    make_saver,
    partitioned,
    refused,
    restore,
    restored,
    rows_of,
    save,
    variable,
    whole,
    written,
)

from estimator_ckpt.errors import MismatchError, SettingsError

v1 = tf.compat.v1


def build_with_averages(shadows):
    """A variable that is averaged and one that is not; with their averages if `shadows`."""
    a, b = variable("a", [1.0]), variable("b", [2.0])
    average = tf.train.ExponentialMovingAverage(0.5)
    if not shadows:
        return a, b, average
    apply = average.apply([a])
    with tf.control_dependencies([a.assign([5.0])]):
        changed = tf.identity(a)
    return changed, apply, average


@pytest.mark.parametrize("by", ["name", "object"])
@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_averages_are_read_where_the_checkpoint_has_them(tmp_path, checkpoint_format, by):
    with tf.Graph().as_default():
        change, apply, _ = build_with_averages(shadows=True)
        prefix = save(make_saver(checkpoint_format), tmp_path, change, apply)
    with tf.Graph().as_default():
        a, b, average = build_with_averages(shadows=False)
        ema = average if by == "object" else "ExponentialMovingAverage"
        assert [v.tolist() for v in restore(make_saver(ema=ema), prefix, a, b)] == [[3.0], [2.0]]
    with tf.Graph().as_default():
        a, _, _ = build_with_averages(shadows=False)
        assert restore(make_saver(), prefix, a).tolist() == [5.0]


def test_averages_of_partitioned_variables(tmp_path):
    with tf.Graph().as_default():
        w = partitioned("w", 3)
        average = tf.train.ExponentialMovingAverage(0.5)
        apply = average.apply(list(w))
        doubled = tf.group(*[part.assign(part * 3) for part in w])
        prefix = save(make_saver(), tmp_path, doubled, apply)
    with tf.Graph().as_default():
        w = partitioned("w", 2)
        found = restore(make_saver(ema="ExponentialMovingAverage"), prefix, whole(w))
        np.testing.assert_array_equal(found, 2 * COUNT)


def averaged_in_a_scope(tmp_path, checkpoint_format="both"):
    """A checkpoint of averages that ema.apply() has put into a scope."""
    with tf.Graph().as_default():
        a = variable("a", [1.0])
        with v1.variable_scope("ema_scope"):
            apply = tf.train.ExponentialMovingAverage(0.5).apply([a])
        return save(make_saver(checkpoint_format), tmp_path, a.assign([5.0]), apply)


def without_averages(tmp_path, checkpoint_format="both"):
    """A checkpoint from before the averages."""
    return written(tmp_path, lambda: variable("a", [1.0]), checkpoint_format)


def with_averages(tmp_path, checkpoint_format="both"):
    with tf.Graph().as_default():
        change, apply, _ = build_with_averages(shadows=True)
        return save(make_saver(checkpoint_format), tmp_path, change, apply)


NO_AVERAGE = [
    (without_averages, "ExponentialMovingAverage", ""),
    (averaged_in_a_scope, "ExponentialMovingAverage", "ema_scope/a/ExponentialMovingAverage"),
    (with_averages, "ExponentialMovingAverag", "a/ExponentialMovingAverage"),
    (with_averages, "ema", "a/ExponentialMovingAverage"),
]


@pytest.mark.parametrize("checkpoint_format", FORMATS)
@pytest.mark.parametrize(("write", "ema", "near"), NO_AVERAGE)
def test_a_checkpoint_without_the_averages_is_an_error(
    tmp_path, write, ema, near, checkpoint_format
):
    prefix = write(tmp_path, checkpoint_format)
    error = refused(prefix, lambda: ([variable("a", [0.0])], None), ema=ema)
    (row,) = rows_of(error)
    hint = f" did you mean {near}?" if near else ""
    assert row == f"no average a/{ema} float32[1]{hint}"
    assert "reads the variables themselves" in str(error)


@pytest.mark.parametrize(
    "on_missing", ["warn", "init", {".*/ExponentialMovingAverage": "warn"}, {"a/.*": "init"}]
)
def test_a_checkpoint_from_before_the_averages_serves_the_variables_if_allowed(
    tmp_path, on_missing
):
    prefix = without_averages(tmp_path)
    options = {"ema": "ExponentialMovingAverage", "on_missing": on_missing}
    assert restored(prefix, lambda: ([variable("a", [0.0])], None), **options) == [[1.0]]


def test_a_variable_itself_is_not_the_average_that_may_be_missing(tmp_path):
    prefix = without_averages(tmp_path)
    options = {"ema": "ExponentialMovingAverage", "on_missing": {"a": "init"}}
    (row,) = rows_of(refused(prefix, lambda: ([variable("a", [0.0])], None), **options))
    assert row.startswith("no average a/ExponentialMovingAverage")


def test_one_average_in_a_scope_beside_others_is_an_error(tmp_path):
    with tf.Graph().as_default():
        a, b = variable("a", [1.0]), variable("b", [2.0])
        average = tf.train.ExponentialMovingAverage(0.5)
        with v1.variable_scope("ema_scope"):
            average.apply([a])
        average.apply([b])
        prefix = save(make_saver(), tmp_path)

    def build():
        return [variable("a", [0.0]), variable("b", [0.0])], None

    (row,) = rows_of(refused(prefix, build, ema="ExponentialMovingAverage"))
    assert row.startswith("no average a/ExponentialMovingAverage")
    assert row.endswith("did you mean ema_scope/a/ExponentialMovingAverage?")


def test_a_graph_that_averages_by_itself_knows_the_names_and_the_subset(tmp_path):
    prefix = averaged_in_a_scope(tmp_path)

    def build(averaged):
        average = tf.train.ExponentialMovingAverage(0.5)
        variables = [variable("a", [0.0]), variable("b", [0.0])]
        with v1.variable_scope("ema_scope"):
            average.apply(variables[:averaged])
        return variables, average

    with tf.Graph().as_default():
        (a, _), average = build(averaged=1)
        saver = make_saver(ema=average, on_missing={"b": "init"})
        assert restore(saver, prefix, a).tolist() == [3.0]
    with tf.Graph().as_default():
        (a, b), average = build(averaged=2)
        saver = make_saver(ema=average, on_missing={"b|.*/b/.*": "init"})
        assert [v.tolist() for v in restore(saver, prefix, a, b)] == [[3.0], [0.0]]


def test_a_variable_whose_average_the_graph_has_needs_it(tmp_path):
    prefix = written(tmp_path, lambda: [variable(name, [1.0]) for name in "ab"])
    with tf.Graph().as_default():
        average = tf.train.ExponentialMovingAverage(0.5)
        average.apply([variable("a", [0.0])])
        variable("b", [0.0])
        names = {v.op.name: v for v in v1.global_variables() if "/" not in v.op.name}
        saver = make_saver(var_list=names, ema=average)
        with v1.Session() as session, pytest.raises(MismatchError) as caught:
            saver.restore(session, prefix)
    (row,) = rows_of(caught.value)
    assert row.startswith("no average a/ExponentialMovingAverage")


def test_integers_have_no_averages(tmp_path):
    prefix = written(tmp_path, lambda: variable("step", 7, tf.int64))

    def build():
        return [variable("step", 0, tf.int64)], None

    assert restored(prefix, build, ema="ExponentialMovingAverage") == [7]


def test_a_saver_that_reads_averages_writes_none(tmp_path):
    """A training that resumed with them would go on from the averages, and save these."""
    with tf.Graph().as_default():
        variable("a", [1.0])
        saver = make_saver(ema="ExponentialMovingAverage")
        with pytest.raises(SettingsError, match="give `ema` to evaluation and prediction alone"):
            save(saver, tmp_path)
    assert not list(tmp_path.iterdir())


def test_averages_are_read_by_name_where_the_objects_lead_to_the_variable_itself(tmp_path):
    with tf.Graph().as_default():
        change, apply, _ = build_with_averages(shadows=True)
        (a,) = (v for v in v1.global_variables() if v.op.name == "a")
        prefix = save(make_saver("checkpoint", {"net": a}), tmp_path, change, apply)
    with tf.Graph().as_default():
        a, _, _ = build_with_averages(shadows=False)
        saver = make_saver("checkpoint", {"net": a}, ema="ExponentialMovingAverage")
        assert restore(saver, prefix, a).tolist() == [3.0]


def test_a_graph_that_has_the_averages_too_reads_them_twice(tmp_path):
    with tf.Graph().as_default():
        change, apply, _ = build_with_averages(shadows=True)
        prefix = save(make_saver(), tmp_path, change, apply)
    with tf.Graph().as_default():
        build_with_averages(shadows=True)
        values = {v.op.name: v for v in v1.global_variables()}
        found = restore(make_saver(ema="ExponentialMovingAverage"), prefix, values)
        assert found["a"].tolist() == found["a/ExponentialMovingAverage"].tolist() == [3.0]


def averaging_model_fn(features, labels, mode):
    spec = linear_spec(features, labels, mode)
    if mode == "train":
        average = tf.train.ExponentialMovingAverage(0.5, name="average")
        with tf.control_dependencies([spec.train_op]):
            spec = spec._replace(train_op=average.apply(v1.trainable_variables()))
    return spec


@pytest.mark.estimator
@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_an_estimator_evaluates_predicts_and_exports_the_averages(tmp_path, checkpoint_format):
    job = estimator(tmp_path / "run", checkpoint_format, averaging_model_fn, ema="average")
    train(job, steps=3)
    _, end = train(job, steps=3)  # resumes with the variables themselves
    averages = {name: end[f"{name}/average"] for name in ("linear/w", "b")}
    assert all(np.all(end[name] != value) for name, value in averages.items())
    y = np.sum(averages["linear/w"]) * FEATURES[:, 0] + averages["b"]
    predicted = [float(one["y"][0]) for one in job.predict(predict_input_fn)]
    np.testing.assert_allclose(predicted, y, rtol=1e-6)
    np.testing.assert_allclose(job.evaluate(input_fn, steps=1)["mean_y"], np.mean(y), rtol=1e-6)
    path = os.fsdecode(job.export_saved_model(str(tmp_path / "export"), serving_input_fn))
    for name, value in averages.items():
        found = tf.train.load_variable(f"{path}/variables/variables", name)
        np.testing.assert_array_equal(found, value)


@pytest.mark.estimator
def test_an_estimator_with_a_mistyped_average_does_not_evaluate(tmp_path):
    job = estimator(tmp_path, "checkpoint", averaging_model_fn, ema="avearge")
    train(job, steps=1)
    for run in (lambda: job.evaluate(input_fn, steps=1), lambda: next(job.predict(input_fn))):
        with pytest.raises(MismatchError, match="did you mean linear/w/average"):
            run()


def serving_input_fn():
    x = v1.placeholder(tf.float32, [None, 1])
    return tf.estimator.export.ServingInputReceiver({"x": x}, {"x": x})


@pytest.mark.estimator
@pytest.mark.parametrize("match_by", [None, "path"])
@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_an_evaluation_reads_what_its_own_saver_names_whatever_the_objects_say(
    tmp_path, checkpoint_format, match_by
):
    net = tf.Module()

    def model_fn(features, labels, mode):
        net.w = v1.get_variable("w", [1], initializer=v1.ones_initializer())
        average = v1.train.ExponentialMovingAverage(0.5)
        step = v1.train.get_or_create_global_step()
        train_op = scaffold = None
        if mode == "train":
            with tf.control_dependencies([net.w.assign_add([1.0]), step.assign_add(1)]):
                train_op = average.apply([net.w])
        else:
            scaffold = v1.train.Scaffold(saver=v1.train.Saver(average.variables_to_restore()))
        loss = tf.reduce_sum(net.w)
        return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train_op, scaffold=scaffold)

    job = estimator(
        tmp_path,
        checkpoint_format,
        model_fn,
        checkpoint=lambda: {"net": net},
        match_by=match_by,
    )
    _, end = train(job, steps=3)
    (average,) = end["w/ExponentialMovingAverage"]
    assert average != end["w"]
    assert job.evaluate(input_fn, steps=1)["loss"] == average


@pytest.mark.estimator
def test_averages_that_a_saver_of_another_kind_would_not_read_are_refused(tmp_path):
    class OwnSaver(v1.train.Saver):
        pass

    def model_fn(features, labels, mode):
        spec = averaging_model_fn(features, labels, mode)
        return spec._replace(scaffold=v1.train.Scaffold(saver=OwnSaver()))

    job = estimator(tmp_path, "saver", model_fn, ema="average")
    train(job, steps=1)
    with pytest.raises(SettingsError, match="OwnSaver of the model_fn stays as it is") as caught:
        job.evaluate(input_fn, steps=1)
    assert caught.value.key == "ema"
