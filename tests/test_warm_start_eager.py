"""Warm starts of variables in an eager program."""

import numpy as np
import pytest
import tensorflow as tf
from jobs import FORMATS, latest, run_job, v1

from estimator_ckpt import WarmStart, make_scaffold, open_checkpoint
from estimator_ckpt.errors import CheckpointError, MismatchError, SettingsError

KERNEL, BIAS = [[1.0, 2.0], [3.0, 4.0]], [5.0, 6.0]


def source_job():
    v1.get_variable("dense/kernel", initializer=KERNEL)
    v1.get_variable("dense/bias", initializer=BIAS)
    return v1.assign_add(v1.train.get_or_create_global_step(), 1)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The prefixes of a trained job's checkpoints by format."""
    parent = tmp_path_factory.mktemp("source")
    found = {}
    for checkpoint_format in FORMATS:
        directory = parent / checkpoint_format
        run_job(directory, lambda f=checkpoint_format: make_scaffold(f), build=source_job)
        found[checkpoint_format] = latest(directory)
    return found


class Dense(tf.Module):
    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(tf.zeros([2, 2]), name="dense/kernel")
        self.bias = tf.Variable(tf.zeros([2]), name="dense/bias")


def keras_model():
    return tf.keras.Sequential([tf.keras.layers.Dense(2, name="dense")])


def assert_started(kernel, bias):
    np.testing.assert_array_equal(kernel, KERNEL)
    np.testing.assert_array_equal(bias, BIAS)


@pytest.mark.parametrize("source_format", FORMATS)
def test_a_module_starts(source, source_format):
    module = Dense()
    report = WarmStart(source[source_format]).apply(module)
    assert_started(module.kernel, module.bias)
    assert report.checkpoint == source[source_format]
    assert {(value.target, value.rule, value.nbytes) for value in report.values} == {
        ("dense/kernel", "same name", 16),
        ("dense/bias", "same name", 8),
    }
    assert list(report.unexpected) == ["global_step"]


@pytest.mark.parametrize("source_format", FORMATS)
def test_a_keras_model_starts(source, source_format):
    model = keras_model()
    model.build((None, 2))
    # Keras 3 puts the model's name before the layer's.
    model_scope = getattr(model.weights[0], "path", "dense/kernel").rpartition("dense/")[0]
    settings = WarmStart(source[source_format], assignment_map=[("dense/", f"{model_scope}dense/")])
    settings.apply(model)
    assert_started(*(weight.numpy() for weight in model.weights))


@pytest.mark.parametrize(
    "given",
    [
        lambda m: [m.kernel, m.bias],
        lambda m: {"dense/kernel": m.kernel, "dense/bias": m.bias},
        lambda m: tf.train.Checkpoint(model=m),
    ],
)
def test_lists_mappings_and_checkpoints_of_variables_start(source, given):
    module = Dense()
    WarmStart(source["checkpoint"]).apply(given(module))
    assert_started(module.kernel, module.bias)


def test_a_mapping_gives_variables_other_names(source):
    module = Dense()
    settings = WarmStart(source["saver"], assignment_map=[("dense/kernel", "a")])
    settings.apply({"a": module.kernel, "b": module.bias})
    assert_started(module.kernel, BIAS)
    np.testing.assert_array_equal(module.bias, [0, 0])


def test_a_variable_itself_is_meant_whatever_a_mapping_calls_it(source):
    """The mapping calls each of the two by the name that the other has of its own."""
    one, two = tf.Variable(tf.zeros([2]), name="one"), tf.Variable(tf.zeros([2]), name="two")
    variables = {"two": one, "one": two}
    WarmStart(source["saver"], assignment_map=[("dense/bias", one)]).apply(variables)
    np.testing.assert_array_equal(one, BIAS)
    np.testing.assert_array_equal(two, [0, 0])
    settings = WarmStart(
        source["saver"], vars_to_warm_start=[two], var_name_to_prev_var_name={"one": "dense/bias"}
    )
    one.assign([0, 0])
    settings.apply(variables)
    np.testing.assert_array_equal(one, [0, 0])
    np.testing.assert_array_equal(two, BIAS)
    with pytest.raises(SettingsError, match="none of the variables to start"):
        settings.apply({"one": one})


def test_nothing_is_assigned_where_one_does_not_fit(source):
    module = Dense()
    module.bias = tf.Variable(tf.zeros([3]), name="dense/bias")
    with pytest.raises(MismatchError, match="dense/bias"):
        WarmStart(source["both"]).apply(module)
    assert not np.any(module.kernel)


def test_nothing_is_assigned_where_one_is_damaged(tmp_path):
    module = Dense()
    values = {"dense/kernel": tf.Variable(KERNEL), "dense/bias": tf.Variable(BIAS)}
    prefix = tf.train.Checkpoint(var_list=values).save(str(tmp_path / "ckpt"))
    with open_checkpoint(prefix) as checkpoint:
        entry = checkpoint.variable("dense/kernel").entry
    path = f"{prefix}.data-00000-of-00001"
    with open(path, "r+b") as file:
        file.seek(entry.offset)
        file.write(b"\x7f")
    with pytest.raises(CheckpointError):
        WarmStart(prefix).apply({"dense/kernel": module.kernel, "dense/bias": module.bias})
    assert not np.any(module.bias)


def test_what_is_not_built_is_refused(source):
    for given in (keras_model(), tf.Module(), []):
        with pytest.raises(SettingsError, match=r"with settings.deferred\(\): model\(inputs\)"):
            WarmStart(source["saver"]).apply(given)


class Branching(tf.keras.Model):
    """A model of which a call builds one layer and leaves the other."""

    def __init__(self):
        super().__init__(name="model")
        self.dense = tf.keras.layers.Dense(2, name="dense")
        self.head = tf.keras.layers.Dense(2, name="head")

    def call(self, inputs):
        return self.dense(inputs)


def test_what_is_not_built_as_a_whole_is_refused(source):
    """Its other layers would keep their initial values, whenever they are built."""
    model, module = Branching(), tf.Module()
    model(tf.zeros([1, 2]))
    module.layers = [model]
    for given in (model, module, tf.train.Checkpoint(model=model)):
        with pytest.raises(SettingsError, match="without all of their variables: 'head'"):
            WarmStart(source["saver"]).apply(given)
    assert not np.any(model.dense.bias)
    names = {"dense/kernel": model.dense.kernel, "dense/bias": model.dense.bias}
    WarmStart(source["saver"]).apply(names)
    assert_started(model.dense.kernel, model.dense.bias)


@pytest.mark.parametrize("given", [3, object(), [3], {"a": 3}, None])
def test_what_has_no_variables_is_refused(source, given):
    with pytest.raises(SettingsError):
        WarmStart(source["saver"]).apply(given)


def test_two_variables_of_one_name_need_a_mapping(source):
    variables = [tf.Variable([1.0, 1.0], name="dense/bias") for _ in range(2)]
    with pytest.raises(MismatchError, match="a mapping from names"):
        WarmStart(source["saver"], on_missing="init").apply(variables)


def test_a_graph_is_left_to_its_scaffold(source):
    with tf.Graph().as_default(), pytest.raises(SettingsError, match="Scaffold"):
        WarmStart(source["saver"]).apply([v1.get_variable("x", [])])


def test_vocabularies_are_refused(source):
    info = {"new_vocab": "a", "new_vocab_size": 2, "num_oov_buckets": 0, "old_vocab": "b"}
    settings = WarmStart(source["saver"], var_name_to_vocab_info={"dense/kernel": info})
    with pytest.raises(SettingsError, match="graphs only"):
        settings.apply(Dense())


def test_variables_start_when_the_block_that_makes_them_ends(source):
    with WarmStart(source["checkpoint"]).deferred() as start:
        module = Dense()
        assert start.report is None
        assert not np.any(module.kernel)
    assert_started(module.kernel, module.bias)
    assert len(start.report.values) == 2


@pytest.mark.estimator  # Keras 3 gives its variables short names, of which a model has several
def test_a_keras_model_starts_when_its_first_call_ends(source):
    model = keras_model()
    with WarmStart(source["checkpoint"]).deferred():
        model(tf.zeros([1, 2]))
    assert_started(*model.weights)


@pytest.mark.estimator
def test_a_keras_model_starts_when_the_block_that_makes_and_trains_it_ends(source):
    """It makes counters without names, slots, and metrics of one name."""
    with WarmStart(source["checkpoint"]).deferred() as start:
        model = keras_model()
        model.compile("adam", "mse", metrics=["mae", "mse"])
        model.fit(np.ones([4, 2]), np.ones([4, 2]), verbose=0)
    assert_started(*model.weights[:2])
    started = {value.target for value in start.report.values if value.source is not None}
    assert started == {"dense/kernel", "dense/bias"}


def test_two_variables_of_one_name_are_no_error_where_they_start_from_nothing(source):
    module = Dense()
    others = [tf.Variable(1.0, name="total", trainable=False) for _ in range(2)]
    WarmStart(source["saver"]).apply([module.kernel, *others, module.bias])
    assert_started(module.kernel, module.bias)


def test_a_block_that_fails_starts_nothing(source):
    made = []

    def fail():
        with WarmStart(source["checkpoint"]).deferred():
            made.append(Dense())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not np.any(made[0].kernel)


def test_a_block_that_makes_other_variables_is_an_error(source):
    settings = WarmStart(source["checkpoint"])
    with pytest.raises(MismatchError, match="other"), settings.deferred():
        tf.Variable([0.0], name="other")
