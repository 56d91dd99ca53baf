"""Each way in which tf.estimator runs a job, wrapped, beside the same job unwrapped."""

import os

import numpy as np
import pytest
import tensorflow as tf
from estimator_jobs import (
    FEATURES,
    LABELS,
    Values,
    estimator,
    file_format,
    input_fn,
    latest_step,
    linear_spec,
    model_fn,
    partitioned_model_fn,
    predict_input_fn,
    read_values,
    steps_in_state,
    steps_on_disk,
    train,
)
from graph_jobs import FORMATS, assert_same, latest

from estimator_ckpt import open_checkpoint, wrap_model_fn

v1 = tf.compat.v1

pytestmark = pytest.mark.estimator

EVERY_STEP = {"save_checkpoints_steps": 1}


def stock_and(formats=FORMATS):
    return pytest.mark.parametrize("checkpoint_format", [None, *formats], ids=str)


def loss_of(values):
    y = np.sum(values["linear/w"]) * FEATURES + values["b"]
    return np.mean((y - LABELS) ** 2)


# Train, evaluate, predict.


def test_a_job_that_changes_its_format_ends_as_one_that_never_did(tmp_path):
    formats = (None, "checkpoint", "both", "saver", "both", "checkpoint")
    stock = estimator(tmp_path / "stock", None, partitioned_model_fn)
    _, expected = train(stock, len(formats))
    for checkpoint_format in formats:
        job = estimator(tmp_path / "ours", checkpoint_format, partitioned_model_fn)
        _, found = train(job, 1)
    assert_same(found, expected)
    assert latest_step(tmp_path / "ours") == len(formats)


@stock_and()
@pytest.mark.parametrize("fn", [model_fn, partitioned_model_fn])
def test_evaluate_and_predict_read_every_format(tmp_path, fn, checkpoint_format):
    writer = estimator(tmp_path, checkpoint_format, fn)
    _, older = train(writer)
    older_path = latest(tmp_path)
    _, newest = train(writer)
    written = steps_on_disk(tmp_path)

    job = estimator(tmp_path, "checkpoint", fn)
    for options, values in [({}, newest), ({"checkpoint_path": older_path}, older)]:
        found = job.evaluate(input_fn, steps=1, **options)
        np.testing.assert_allclose(found["loss"], loss_of(values), rtol=1e-6)
        assert found["global_step"] == values["global_step"]
        predicted = [row["y"] for row in job.predict(predict_input_fn, **options)]
        expected = np.sum(values["linear/w"]) * FEATURES + values["b"]
        np.testing.assert_allclose(predicted, expected, rtol=1e-6)
    assert steps_on_disk(tmp_path) == written  # reading writes nothing


@stock_and()
def test_train_stops_at_max_steps_and_a_finished_job_does_not_go_on(tmp_path, checkpoint_format):
    """Estimator reads the global step from the checkpoint by its name."""
    job = estimator(tmp_path, checkpoint_format)
    for _ in range(2):
        job.train(input_fn, max_steps=3)
        assert latest_step(tmp_path) == 3
    job.train(input_fn, max_steps=5)
    assert latest_step(tmp_path) == 5
    job.train(input_fn, steps=2)
    assert latest_step(tmp_path) == 7


@pytest.mark.parametrize("checkpoint_format", ["saver", "both"])
def test_an_estimators_variables_are_known_by_name(tmp_path, checkpoint_format):
    job = estimator(tmp_path, checkpoint_format)
    _, end = train(job)
    assert set(end) <= set(job.get_variable_names())
    for name, value in end.items():
        np.testing.assert_array_equal(job.get_variable_value(name), value)


def test_an_evaluation_may_have_a_local_init_op_of_its_own(tmp_path):
    """Estimator then copies the Scaffold."""

    def fn(features, labels, mode):
        spec = linear_spec(features, labels, mode)
        local = v1.get_local_variable("local", [], initializer=v1.zeros_initializer())
        with tf.control_dependencies([v1.local_variables_initializer()]):
            scaffold = v1.train.Scaffold(local_init_op=local.assign(7.0).op)
        return spec._replace(scaffold=scaffold, eval_metric_ops={"local": (local, tf.no_op())})

    job = estimator(tmp_path, "checkpoint", fn)
    _, end = train(job, 2)
    found = job.evaluate(input_fn, steps=1)
    assert found["local"] == 7.0
    np.testing.assert_allclose(found["loss"], loss_of(end), rtol=1e-6)


# train_and_evaluate.


def exporters():
    def receiver():
        x = {"x": v1.placeholder(tf.float32, [None, 1])}
        return tf.estimator.export.ServingInputReceiver(x, x)

    return [
        tf.estimator.FinalExporter("final", receiver),
        tf.estimator.LatestExporter("latest", receiver, exports_to_keep=2),
        tf.estimator.BestExporter("best", receiver, exports_to_keep=2),
    ]


def exported(model_dir):
    """By exporter and position: the variables of each SavedModel."""
    found = {}
    for exporter in sorted(os.listdir(model_dir / "export")):
        for place, name in enumerate(sorted(os.listdir(model_dir / "export" / exporter))):
            path = model_dir / "export" / exporter / name / "variables" / "variables"
            if os.path.exists(f"{path}.index"):
                values = read_values(path)
                found.update({f"{exporter}/{place}/{key}": v for key, v in values.items()})
    return found


def run_train_and_evaluate(model_dir, checkpoint_format, max_steps):
    job = estimator(model_dir, checkpoint_format, config={"save_checkpoints_steps": 2})
    values = Values()
    train_spec = tf.estimator.TrainSpec(input_fn, max_steps=max_steps, hooks=[values])
    eval_spec = tf.estimator.EvalSpec(
        input_fn, steps=1, exporters=exporters(), start_delay_secs=0, throttle_secs=0
    )
    evaluated, _ = tf.estimator.train_and_evaluate(job, train_spec, eval_spec)
    return evaluated, values.ended, exported(model_dir)


def test_train_and_evaluate_with_all_exporters(tmp_path):
    stock, stock_end, stock_exports = run_train_and_evaluate(tmp_path / "stock", None, 4)
    assert {name.partition("/")[0] for name in stock_exports} == {"final", "latest", "best"}
    for checkpoint_format in ("checkpoint", "both"):
        model_dir = tmp_path / checkpoint_format
        evaluated, end, exports = run_train_and_evaluate(model_dir, checkpoint_format, 4)
        assert evaluated == stock
        assert_same(end, stock_end)
        assert_same(exports, stock_exports)
        assert file_format(model_dir) == checkpoint_format


def test_train_and_evaluate_goes_on_in_another_format(tmp_path):
    run_train_and_evaluate(tmp_path / "ours", None, 2)
    evaluated, end, exports = run_train_and_evaluate(tmp_path / "ours", "checkpoint", 4)
    stock, stock_end, _ = run_train_and_evaluate(tmp_path / "stock", None, 4)
    assert evaluated == stock
    assert_same(end, stock_end)
    assert any(name.startswith("final/") for name in exports)


# Hooks and listeners.


@stock_and(["checkpoint"])
def test_in_memory_evaluator_hook(tmp_path, checkpoint_format):
    job = estimator(tmp_path, checkpoint_format)
    hook = tf.estimator.experimental.InMemoryEvaluatorHook(job, input_fn, steps=1, every_n_iter=1)
    values = Values()
    for _ in range(2):  # a fresh start, then a resumed one
        job.train(input_fn, steps=2, hooks=[hook, values])
    losses = {
        event.step: value.simple_value
        for path in sorted((tmp_path / "eval").iterdir())
        for event in v1.train.summary_iterator(str(path))
        for value in event.summary.value
        if value.tag == "loss"
    }
    assert sorted(losses) == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(losses[4], loss_of(values.ended), rtol=1e-6)


class Listener(v1.train.CheckpointSaverListener):
    """What the files and the state file say around each save."""

    def __init__(self, model_dir):
        self.model_dir = model_dir
        self.seen = []

    def _look(self, event, step):
        newest = latest(self.model_dir) and latest_step(self.model_dir)
        self.seen.append(
            (event, int(step), newest, steps_in_state(self.model_dir) if newest is not None else [])
        )

    def begin(self):
        self.seen.append("begin")

    def before_save(self, session, global_step_value):
        self._look("before", global_step_value)

    def after_save(self, session, global_step_value):
        self._look("after", global_step_value)
        with open_checkpoint(latest(self.model_dir)) as checkpoint:
            assert checkpoint.global_step == global_step_value
            self.format = checkpoint.format

    def end(self, session, global_step_value):
        self._look("end", global_step_value)


def test_a_listener_sees_every_save_complete_and_named(tmp_path):
    stock = Listener(tmp_path / "stock")
    config = {**EVERY_STEP, "keep_checkpoint_max": 2}
    estimator(stock.model_dir, None, config=config).train(
        input_fn, steps=3, saving_listeners=[stock]
    )
    assert stock.seen[:3] == ["begin", ("before", 0, None, []), ("after", 0, 0, [0])]
    for checkpoint_format in FORMATS:
        ours = Listener(tmp_path / checkpoint_format)
        estimator(ours.model_dir, checkpoint_format, config=config).train(
            input_fn, steps=3, saving_listeners=[ours]
        )
        assert ours.seen == stock.seen
        assert ours.format == checkpoint_format


@stock_and(["checkpoint"])
def test_a_listener_can_stop_the_training(tmp_path, checkpoint_format):
    class Stop(v1.train.CheckpointSaverListener):
        def after_save(self, session, global_step_value):
            return global_step_value >= 2

    job = estimator(tmp_path, checkpoint_format, config=EVERY_STEP)
    job.train(input_fn, steps=9, saving_listeners=[Stop()])
    assert latest_step(tmp_path) == 2


def test_early_stopping(tmp_path):
    """Its hook adds a variable when the session begins; it is saved and restored, too."""

    def other_labels():
        return tf.data.Dataset.from_tensors(({"x": FEATURES}, LABELS + 100)).repeat()

    def run(model_dir, checkpoint_format):
        job = estimator(model_dir, checkpoint_format, config=EVERY_STEP)
        stop = tf.estimator.experimental.stop_if_no_decrease_hook(
            job, "loss", max_steps_without_decrease=2, run_every_secs=None, run_every_steps=1
        )
        tf.estimator.train_and_evaluate(
            job,
            tf.estimator.TrainSpec(input_fn, max_steps=20, hooks=[stop]),
            tf.estimator.EvalSpec(other_labels, steps=1, start_delay_secs=0, throttle_secs=0),
        )
        values = Values()
        job.train(input_fn, steps=1, hooks=[stop, values])
        return values.started

    # At which step the hook finds the last evaluation's results is a matter of time.
    stock, ours = run(tmp_path / "stock", None), run(tmp_path / "ours", "checkpoint")
    stop = "signal_early_stopping/STOP"
    np.testing.assert_array_equal(ours.pop(stop), stock[stop])
    steps = int(ours["global_step"])
    assert 0 < steps < 20
    job, values = estimator(tmp_path / "plain", None), Values()
    job.train(input_fn, steps=steps)
    job.train(input_fn, steps=1, hooks=[values])
    assert_same(ours, values.started)


@stock_and(["checkpoint", "both"])
def test_checkpoints_iterator_yields_each_new_one(tmp_path, checkpoint_format):
    job = estimator(tmp_path, checkpoint_format)
    job.train(input_fn, steps=1)
    iterator = tf.train.checkpoints_iterator(str(tmp_path), timeout=0)
    assert next(iterator) == str(tmp_path / "model.ckpt-1")
    job.train(input_fn, steps=1)
    assert list(iterator) == [str(tmp_path / "model.ckpt-2")]


# Frameworks built on Estimator.


@pytest.mark.parametrize("checkpoint_format", ["checkpoint", "both"])
def test_tpu_estimator_on_a_cpu(tmp_path, checkpoint_format):
    tpu = v1.estimator.tpu
    seen = []

    def fn(features, labels, mode, params):
        assert params["batch_size"] == 2
        spec = linear_spec(features, labels, mode)
        if mode == "infer":
            return tpu.TPUEstimatorSpec(mode, predictions=spec.predictions)

        def scaffold_fn():
            seen.append(mode)
            return v1.train.Scaffold(init_fn=lambda scaffold, session: seen.append("init_fn"))

        return tpu.TPUEstimatorSpec(
            mode, loss=spec.loss, train_op=spec.train_op, scaffold_fn=scaffold_fn
        )

    def data(params):
        return input_fn()

    def job(fn):
        config = tpu.RunConfig(
            model_dir=str(tmp_path), keep_checkpoint_max=1, save_checkpoints_steps=1
        )
        return tpu.TPUEstimator(
            fn,
            config=config,
            use_tpu=False,
            train_batch_size=2,
            eval_batch_size=2,
            predict_batch_size=2,
        )

    _, end = train(job(fn), 1, input_fn=data)
    assert seen == ["train", "init_fn"]
    ours = job(wrap_model_fn(fn, checkpoint_format))
    start, end_of_ours = train(ours, 2, input_fn=data)
    assert_same(start, end)
    assert file_format(tmp_path) == checkpoint_format
    assert steps_on_disk(tmp_path) == [3]
    found = ours.evaluate(data, steps=1)
    np.testing.assert_allclose(found["loss"], loss_of(end_of_ours), rtol=1e-6)
    assert len(list(ours.predict(lambda params: predict_input_fn()))) == 2
    assert seen == ["train", "init_fn", "train", "eval"]


def test_mirrored_strategy(tmp_path):
    def job(model_dir, checkpoint_format):
        with tf.Graph().as_default():  # of two processors only the jobs' sessions know
            strategy = tf.distribute.MirroredStrategy(
                ["/cpu:0", "/cpu:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
            )
        config = {
            "train_distribute": strategy,
            "eval_distribute": strategy,
            "session_config": v1.ConfigProto(device_count={"CPU": 2}),
            "keep_checkpoint_max": 1,
        }
        return estimator(model_dir, checkpoint_format, config=config)

    stock = job(tmp_path / "stock", None)
    stock.train(input_fn, steps=4)
    expected = read_values(tmp_path / "stock")
    for checkpoint_format in (None, "checkpoint", "both", "saver"):
        ours = job(tmp_path / "ours", checkpoint_format)
        ours.train(input_fn, steps=1)
        # Each variable once, however many replicas have a copy of it.
        assert set(read_values(tmp_path / "ours")) == set(expected)
        assert file_format(tmp_path / "ours") == (checkpoint_format or "saver")
    assert_same(read_values(tmp_path / "ours"), expected)
    assert steps_on_disk(tmp_path / "ours") == [4]
    assert job(tmp_path / "ours", "checkpoint").evaluate(input_fn, steps=1) == stock.evaluate(
        input_fn, steps=1
    )
