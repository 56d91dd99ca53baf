"""Warm starts of variables in an eager program."""

import os

import numpy as np
import pytest
import tensorflow as tf
from graph_jobs import FORMATS, latest, run_job, v1

from estimator_ckpt import WarmStart, make_scaffold, open_checkpoint
from estimator_ckpt.bundle.tensors import TensorReader
from estimator_ckpt.errors import (
    CheckpointError,
    CorruptCheckpointError,
    MismatchError,
    SettingsError,
)
from estimator_ckpt.warm_starting import eager

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


def test_bfloat16_starts_in_whatever_dtype_numpy_has_for_it(tmp_path):
    start = tf.Variable(tf.cast(KERNEL, tf.bfloat16), name="dense/kernel")
    prefix = tf.train.Checkpoint(kernel=start).write(str(tmp_path / "model"))

    def make():
        return tf.Variable(tf.zeros([2, 2], tf.bfloat16), name="dense/kernel")

    applied = make()
    WarmStart(prefix).apply([applied])
    with WarmStart(prefix).deferred():
        deferred = make()
    for variable in (applied, deferred):
        np.testing.assert_array_equal(variable.numpy().astype(np.float32), KERNEL)


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


@pytest.mark.parametrize("large", [0, 1 << 20])
def test_one_value_is_in_memory_at_a_time(tmp_path, monkeypatch, large):
    """Nor is a large one there twice: TensorFlow reads it itself."""
    monkeypatch.setattr(eager, "_LARGE", large)
    values = {name: np.float32([number] * 4) for number, name in enumerate("abc")}
    made = {name: tf.Variable(value) for name, value in values.items()}
    prefix = tf.train.Checkpoint(**made).write(str(tmp_path / "model"))
    started = {name: tf.Variable(tf.zeros(4), name=name) for name in values}
    reads = []
    for owner, name in ((TensorReader, "read"), (eager._Values, "_tensor")):
        stock = getattr(owner, name)

        def counted(*given, stock=stock, name=name, **options):
            reads.append((name, [int(one.numpy().max()) for one in started.values()]))
            return stock(*given, **options)

        monkeypatch.setattr(owner, name, counted)
    WarmStart(prefix, assignment_map=[(name, name) for name in values]).apply(started)
    for name, variable in started.items():
        np.testing.assert_array_equal(variable, values[name])
    how = "read" if large else "_tensor"
    assert reads[-3:] == [(how, [0, 0, 0]), (how, [0, 0, 0]), (how, [0, 1, 0])]


def test_a_checkpoint_that_is_deleted_while_variables_start(tmp_path, monkeypatch):
    """As by a job that goes on in its directory."""
    monkeypatch.setattr(eager, "_LARGE", 0)
    made = {name: tf.Variable([1.0]) for name in "ab"}
    prefix = tf.train.Checkpoint(**made).write(str(tmp_path / "model"))
    assign = eager.assign

    def assign_and_delete(*given):
        assign(*given)
        os.remove(f"{prefix}.data-00000-of-00001")

    monkeypatch.setattr(eager, "assign", assign_and_delete)
    settings = WarmStart(prefix, assignment_map=[(name, name) for name in made])
    with pytest.raises(CorruptCheckpointError, match=r"key 'b/.*deleted or replaced .* some have"):
        settings.apply({name: tf.Variable([0.0]) for name in made})


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
        assert_started(module.kernel, module.bias)
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
    """It makes counters without names, slots, and metrics of one name; and it may train on."""
    with WarmStart(source["checkpoint"]).deferred() as start:
        model = keras_model()
        model.compile(tf.keras.optimizers.Adam(0.0), "mse", metrics=["mae", "mse"])
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
    before = Dense()
    before.kernel.assign(tf.ones([2, 2]))
    made = []

    def fail():
        with WarmStart(source["checkpoint"]).deferred(before):
            assert_started(before.kernel, before.bias)
            made.append(Dense())
            assert_started(made[0].kernel, made[0].bias)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not np.any(made[0].kernel)
    assert np.all(before.kernel.numpy() == 1)


@pytest.mark.parametrize("by", ["function", "predict", "fit"])
def test_what_a_function_of_tensorflow_makes_starts_before_it_computes(source, by):
    model, x = keras_model(), np.float32([[1, 1]])
    expected = x @ KERNEL + BIAS
    with WarmStart(source["saver"]).deferred(model):
        if by == "function":
            np.testing.assert_allclose(tf.function(model)(x), expected)
        elif by == "predict":
            np.testing.assert_allclose(model.predict(x, verbose=0), expected)
        else:
            model.compile(tf.keras.optimizers.SGD(0.5), "mse")
            loss = model.fit(x, expected - 2.0, verbose=0).history["loss"]
            np.testing.assert_allclose(loss, [4])
    if by == "fit":  # and what it has been trained to stays
        np.testing.assert_allclose(model.layers[0].bias, np.subtract(BIAS, 1.0))


def test_what_is_there_before_the_block_starts_when_it_begins(source):
    """As a Sequential with an Embedding, which Keras 2 builds at once."""
    model, x = keras_model(), np.float32([[1, 1]])
    before = model(x)

    def fail():
        with WarmStart(source["both"]).deferred(model):
            np.testing.assert_array_equal(model(x), x @ KERNEL + BIAS)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    np.testing.assert_array_equal(model(x), before)
    with WarmStart(source["both"]).deferred(model):
        model.layers[0].bias.assign_add([1.0, 1.0])
    np.testing.assert_array_equal(model(x), x @ KERNEL + BIAS + 1)  # as training would


@pytest.mark.parametrize("is_late", [True, False])
def test_a_value_that_a_function_computes_for_itself_is_told(source, caplog, is_late):
    made = []

    def value():
        return tf.random.uniform([2, 2])

    @tf.function
    def call():
        if not made:
            made.append(tf.Variable(value() if is_late else value, name="dense/kernel"))
            made.append(tf.Variable([0.0, 0.0], name="dense/bias"))
        return made[0] + made[1]

    with WarmStart(source["saver"]).deferred():
        output = call()
    assert_started(*made)
    if not is_late:
        np.testing.assert_array_equal(output, np.add(KERNEL, BIAS))
    told = "initial value of dense/kernel, and its first call" in caplog.text
    assert told == is_late


def test_a_block_that_makes_other_variables_is_an_error(source):
    settings = WarmStart(source["checkpoint"])
    with pytest.raises(MismatchError, match="other"), settings.deferred():
        tf.Variable([0.0], name="other")


# --- objects ---

LAYERS = tf.keras.layers


def net(names, **options):
    """A Keras model of Dense layers, and of a batch norm whose statistics a training moves."""
    layers = [LAYERS.Dense(3, name=name) for name in names]
    model = tf.keras.Sequential([*layers, LAYERS.BatchNormalization()], name="net")
    model.build((None, 3))
    model.set_weights([np.random.rand(*value.shape) for value in model.get_weights()])
    if options:
        model.compile(tf.keras.optimizers.Adam(0.1, **options), "mse")
        model.fit(np.random.rand(8, 3), np.random.rand(8, 3), verbose=0)
    return model


def assert_equal(model, other):
    for one, another in zip(model.get_weights(), other.get_weights()):
        np.testing.assert_array_equal(one, another)


def write(directory, *root, **objects):
    return tf.train.Checkpoint(*root, **objects).write(str(directory / "ckpt"))


class Pair(tf.Module):
    """Two variables that nobody has named, and one in a list."""

    def __init__(self, value):
        super().__init__()
        self.first, self.second = tf.Variable(value), tf.Variable(value + 1)
        self.more = [tf.Variable(value + 2)]

    def values(self):
        return [float(self.first), float(self.second), float(self.more[0])]


GIVEN = {
    "a model of the root": (lambda m: {"root": m}, lambda m: m),
    "a model wherever it stands": (lambda m: {"a": {"b": m}}, lambda m: m),
    "a tf.train.Checkpoint": (lambda m: {"model": m}, lambda m: tf.train.Checkpoint(model=m)),
    "a tf.train.Checkpoint with a root": (lambda m: {"root": m}, lambda m: tf.train.Checkpoint(m)),
    "a mapping of objects": (lambda m: {"model": m}, lambda m: {"model": m}),
}


@pytest.mark.parametrize("case", GIVEN)
def test_names_that_a_counter_made_do_not_count(tmp_path, case):
    """`dense_1` is the second layer here and the first one there: structure decides."""
    saved, given = GIVEN[case]
    source = net(["dense", "dense_1"])
    model = net(["dense_1", "dense_2"])
    report = WarmStart(write(tmp_path, **saved(source))).apply(given(model))
    assert_equal(model, source)
    assert len(report.values) == len(model.weights)
    rules = [value.rule for value in report.values if "dense" in value.target]
    assert all("by position only" in rule for rule in rules)


LISTS = {
    "a list": lambda variables: variables,
    "a tuple": tuple,
    "a mapping with the variables' own names": lambda v: {one.name.split(":")[0]: one for one in v},
    "a list in a tf.train.Checkpoint": lambda variables: tf.train.Checkpoint(v=variables),
}


class Named(tf.Module):
    """A variable for each name; a Keras layer or one of the user's may have made it."""

    def __init__(self, *names):
        super().__init__("named")
        self.layers = [tf.Variable([float(n)], name=name) for n, name in enumerate(names, 1)]


@pytest.mark.parametrize("case", LISTS)
def test_a_list_shows_no_layers_so_that_counted_names_are_refused(tmp_path, case):
    """`dense_1` of the file is its second layer, and of the program, perhaps, its first."""
    assert LAYERS.Dense  # a class that calls its objects so
    prefix = write(tmp_path, model=Named("dense/kernel", "dense_1/kernel", "dense_2/kernel"))
    variables = Named("dense_1/kernel", "dense_2/kernel").layers[:]
    for variable in variables:
        variable.assign([-1.0])
    given = LISTS[case](variables)
    with pytest.raises(MismatchError, match="a counter may have made this name") as caught:
        WarmStart(prefix, on_missing="init").apply(given)
    assert "match_by='name'" in str(caught.value)
    assert [float(v[0]) for v in variables] == [-1.0, -1.0]
    WarmStart(prefix, match_by="name").apply(given)
    assert [float(v[0]) for v in variables] == [2.0, 3.0]


@pytest.mark.parametrize("names", [["dense/kernel"], ["one/kernel", "two/kernel"]])
def test_names_in_a_list_that_no_count_can_mix_up_are_found(tmp_path, names):
    prefix = write(tmp_path, model=Named(*names))
    variables = Named(*names).layers[:]
    for variable in variables:
        variable.assign([-1.0])
    WarmStart(prefix).apply(variables)
    assert [float(v[0]) for v in variables] == [1.0, 2.0][: len(names)]


def test_a_mapping_gives_names_on_purpose(tmp_path):
    prefix = write(tmp_path, model=Named("dense/kernel", "dense_1/kernel"))
    (variable,) = Named("dense_7/kernel").layers
    WarmStart(prefix).apply({"dense_1/kernel": variable})
    assert float(variable[0]) == 2.0


def test_a_layer_more_or_less_is_refused_unless_match_by_decides(tmp_path):
    source = net(["dense", "dense_1", "dense_2"])
    prefix = write(tmp_path, model=source)
    layers = [LAYERS.Dense(3, name=name) for name in ("dense_1", "dense_2")]
    model = tf.keras.Sequential(layers, name="net")
    model.build((None, 3))
    before = model.get_weights()
    with pytest.raises(MismatchError, match=r"(?s)2 alike there in the model, 3 in the checkpoint"):
        WarmStart(prefix).apply(tf.train.Checkpoint(model=model))
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
    WarmStart(prefix, match_by="path").apply(tf.train.Checkpoint(model=model))
    np.testing.assert_array_equal(model.get_weights()[0], source.get_weights()[0])


def test_given_names_that_contradict_their_positions_are_refused(tmp_path):
    prefix = write(tmp_path, model=net(["one", "two"]))
    with pytest.raises(MismatchError, match="ambiguous"):
        WarmStart(prefix).apply(tf.train.Checkpoint(model=net(["two", "one"])))


def test_variables_without_names_start_by_structure_alone(tmp_path):
    prefix = write(tmp_path, pair=Pair(5.0))
    pair = Pair(0.0)
    WarmStart(prefix).apply(pair)
    assert pair.values() == [5.0, 6.0, 7.0]
    other = tf.Variable(0.5)
    for given in (tf.train.Checkpoint(other=other), [other]):
        with pytest.raises(MismatchError):
            WarmStart(prefix).apply(given)
    assert float(other) == 0.5


def test_root_says_which_of_two_objects_is_meant(tmp_path):
    prefix = write(tmp_path, student=Pair(1.0), teacher=Pair(5.0))
    pair = Pair(0.0)
    with pytest.raises(MismatchError, match="fits at 'student' and 'teacher'"):
        WarmStart(prefix).apply(pair)
    WarmStart(prefix, root="teacher").apply(pair)
    assert pair.values() == [5.0, 6.0, 7.0]


def test_a_model_of_which_nothing_is_there_is_refused_whatever_may_be_missing(tmp_path):
    prefix = write(tmp_path, model=net(["dense"]))
    with pytest.raises(MismatchError, match="Nothing of the model is there"):
        WarmStart(prefix, on_missing="init").apply(Pair(0.0))


def state_of(optimizer):
    variables = optimizer.variables
    return [np.array(one) for one in (variables() if callable(variables) else variables)]


def test_an_optimizers_state_starts_all_with_the_step(tmp_path):
    source = net(["a", "b"], name="adam")
    objects = {"model": source, "optimizer": source.optimizer}
    prefix = write(tmp_path, step=tf.Variable(7), **objects)
    model, step = net(["a", "b"], name="adam"), tf.Variable(0)
    given = tf.train.Checkpoint(model=model, optimizer=model.optimizer, step=step)
    report = WarmStart(prefix).apply(given)
    assert_equal(model, source)
    assert int(step) == 7
    for one, another in zip(state_of(model.optimizer), state_of(source.optimizer)):
        np.testing.assert_array_equal(one, another)
    assert all(value.source is not None for value in report.values)


def test_an_optimizers_state_starts_all_or_not_at_all(tmp_path):
    """The new optimizer has one slot more."""
    source = net(["a", "b"], name="adam")
    prefix = write(tmp_path, model=source, optimizer=source.optimizer, step=tf.Variable(7))
    model, step = net(["a", "b"], name="adam", amsgrad=True), tf.Variable(0)
    before = state_of(model.optimizer)
    given = tf.train.Checkpoint(model=model, optimizer=model.optimizer, step=step)
    report = WarmStart(prefix).apply(given)
    assert_equal(model, source)
    assert int(step) == 0
    for one, another in zip(state_of(model.optimizer), before):
        np.testing.assert_array_equal(one, another)
    rules = {value.rule.partition(":")[0] for value in report.values if value.source is None}
    assert rules == {
        "an optimizer's state starts all or not at all",
        "the step goes together with the optimizer's state",
    }


def test_the_first_call_computes_with_restored_values(tmp_path):
    """Names have shifted: given the model, variables start by structure as its layers are built."""

    def make():
        return tf.keras.Sequential([LAYERS.Dense(3), LAYERS.Dense(3)], name="net")

    inputs, source = tf.ones([1, 3]), make()
    expected = source(inputs).numpy()
    prefix = write(tmp_path, model=source)
    model = make()
    with WarmStart(prefix).deferred(model) as start:
        np.testing.assert_array_equal(model(inputs), expected)
    assert_equal(model, source)
    assert [value.source is not None for value in start.report.values] == [True] * 4


def test_what_turns_out_to_be_unclear_when_the_block_ends_keeps_no_value(tmp_path):
    def make(count):
        return tf.keras.Sequential([LAYERS.Dense(3) for _ in range(count)], name="net")

    inputs, source = tf.ones([1, 3]), make(3)
    source(inputs)
    prefix = write(tmp_path, source)
    model = make(2)
    given = tf.train.Checkpoint(model)
    with pytest.raises(MismatchError, match="alike"), WarmStart(prefix).deferred(given):
        model(inputs)
    kernels = [value for value in source.get_weights() if value.ndim == 2]
    assert not any(np.array_equal(w, k) for w in model.get_weights() for k in kernels)


# --- lookup tables ---


class Vocabulary(tf.Module):
    """A lookup table beside a variable."""

    def __init__(self, words=(), numbers=tf.int64):
        super().__init__()
        self.table = tf.lookup.experimental.MutableHashTable(tf.string, numbers, -1)
        self.weight = tf.Variable(float(len(words)), name="weight")
        if words:
            self.table.insert(list(words), tf.range(len(words), dtype=numbers))

    def rows(self):
        keys, values = self.table.export()
        return dict(zip(keys.numpy(), values.numpy()))


TABLES = {
    "an object": lambda one: one,
    "a tf.train.Checkpoint": lambda one: tf.train.Checkpoint(model=one),
    "a mapping": lambda one: {"model": one},
}


@pytest.mark.parametrize("case", TABLES)
def test_a_table_starts_with_its_object_and_loses_what_it_had(tmp_path, case):
    prefix = write(tmp_path, model=Vocabulary(["a", "b"]))
    model = Vocabulary(["x"])
    report = WarmStart(prefix).apply(TABLES[case](model))
    assert model.rows() == {b"a": 0, b"b": 1}
    assert float(model.weight) == 2.0
    assert len(report.values) == 3
    assert all(value.source is not None for value in report.values)


def test_a_table_alone_starts(tmp_path):
    prefix = write(tmp_path, model=Vocabulary(["a", "b"]))
    model = Vocabulary(["x"])
    WarmStart(prefix, root="model/table").apply(model.table)
    assert model.rows() == {b"a": 0, b"b": 1}


def test_a_table_starts_when_its_block_ends(tmp_path):
    prefix = write(tmp_path, model=Vocabulary(["a", "b"]))
    model = tf.Module()
    with WarmStart(prefix).deferred(tf.train.Checkpoint(model=model)):
        made = Vocabulary(["x"])
        model.table, model.weight = made.table, made.weight
    assert made.rows() == {b"a": 0, b"b": 1}


def test_a_table_that_is_not_there_is_missing(tmp_path):
    prefix = write(tmp_path, model=tf.train.Checkpoint(weight=tf.Variable(5.0, name="weight")))
    model = Vocabulary(["x"])
    with pytest.raises(MismatchError, match=r"missing +model/table-"):
        WarmStart(prefix).apply(tf.train.Checkpoint(model=model))
    assert (model.rows(), float(model.weight)) == ({b"x": 0}, 1.0)
    report = WarmStart(prefix, on_missing="init").apply(tf.train.Checkpoint(model=model))
    assert (model.rows(), float(model.weight)) == ({b"x": 0}, 5.0)
    assert len(report.values) == 3


def test_a_table_of_other_values_is_refused(tmp_path):
    prefix = write(tmp_path, model=Vocabulary(["a"]))
    model = Vocabulary(["x"], numbers=tf.float32)
    with pytest.raises(MismatchError, match=r"dtype +model/table-values"):
        WarmStart(prefix).apply(tf.train.Checkpoint(model=model))
    assert model.rows() == {b"x": 0.0}


def test_a_table_of_which_a_part_is_left_out_stays_as_it_was(tmp_path):
    prefix = write(tmp_path, model=Vocabulary(["a"]))
    model = Vocabulary(["x"])
    settings = WarmStart(prefix, exclude=["model/table-keys"])
    report = settings.apply(tf.train.Checkpoint(model=model))
    assert model.rows() == {b"x": 0}
    started = [value.target for value in report.values if value.source is not None]
    assert started == ["weight"]


# --- other objects than one model ---


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_objects_starts_as_one_object(tmp_path, kind):
    layers = [net(["a"]), net(["a"])]
    prefix = write(tmp_path, parts=layers)
    others = kind([net(["a"]), net(["a"])])
    report = WarmStart(prefix).apply(others)
    for one, other in zip(layers, others):
        assert_equal(one, other)
    assert len(report.values) == 12


def test_a_mapping_may_have_objects_and_variables(tmp_path):
    model = net(["a"])
    prefix = write(tmp_path, model=model, rate=tf.Variable(5.0))
    given = {"model": net(["a"]), "rate": tf.Variable(0.0)}
    WarmStart(prefix).apply(given)
    assert_equal(model, given["model"])
    assert float(given["rate"]) == 5.0


class Encoder(tf.keras.Model):
    """Its variables' names begin with its own, in every Keras."""

    def __init__(self):
        super().__init__(name="encoder")
        self.first = LAYERS.Dense(2, name="first")
        self.second = LAYERS.Dense(2, name="second")

    def call(self, inputs):
        return self.second(self.first(inputs))


def rows(report):
    return [(value.target, value.source, value.rule) for value in report.values]


def named_variables(scope=""):
    kernel, bias = np.float32(KERNEL), np.float32(BIAS)
    names = {"first/kernel": kernel, "first/bias": bias, "second/kernel": kernel.T}
    return {f"{scope}{name}": value for name, value in {**names, "second/bias": -bias}.items()}


@pytest.mark.parametrize("scope", ["", "encoder/"])
def test_a_models_own_name_may_be_missing_where_there_are_only_names(tmp_path, scope):
    values = named_variables(scope)
    prefix = write(tmp_path, var_list={name: tf.Variable(v) for name, v in values.items()})
    model, *held, deferred, deferred_held = (Encoder() for _ in range(6))
    for one in (model, *held):
        one(tf.zeros([1, 2]))
    report = WarmStart(prefix).apply(model)
    for given in (tf.train.Checkpoint(model=held[0]), {"model": held[1]}, [held[2]]):
        assert rows(WarmStart(prefix).apply(given)) == rows(report)
    with WarmStart(prefix).deferred(deferred):
        output = deferred(tf.ones([1, 2]))
    with WarmStart(prefix).deferred(tf.train.Checkpoint(model=deferred_held)):
        deferred_held(tf.ones([1, 2]))
    for one in (model, *held, deferred, deferred_held):
        np.testing.assert_array_equal(one.first.kernel, KERNEL)
        np.testing.assert_array_equal(one.second.bias, np.negative(BIAS))
    np.testing.assert_array_equal(output, model(tf.ones([1, 2])))
    rules = {value.rule for value in report.values}
    assert rules == ({"same name"} if scope else {f"name {name}" for name in values})


def test_names_with_and_without_the_models_own_are_not_mixed(tmp_path):
    values = {**named_variables("encoder/"), **named_variables()}
    del values["encoder/second/bias"]
    prefix = write(tmp_path, var_list={name: tf.Variable(v) for name, v in values.items()})
    model = Encoder()
    model(tf.zeros([1, 2]))
    with pytest.raises(MismatchError, match=r"missing +encoder/second/bias"):
        WarmStart(prefix).apply(model)


@pytest.mark.estimator  # get_variable in layers is of Keras 2
@pytest.mark.parametrize("has_root", [True, False])
def test_what_a_call_makes_in_the_style_of_tf1_starts_in_the_first_call(source, has_root):
    class Layer(LAYERS.Layer):
        @v1.keras.utils.track_tf1_style_variables
        def call(self, inputs):
            with v1.variable_scope("dense"):
                kernel = v1.get_variable("kernel", [2, 2])
                return inputs @ kernel + v1.get_variable("bias", [2])

    layer = Layer()
    with WarmStart(source["both"]).deferred(layer if has_root else None) as start:
        output = layer(tf.ones([1, 2]))
    np.testing.assert_array_equal(output, np.ones([1, 2]) @ KERNEL + BIAS)
    assert all(value.source is not None for value in start.report.values)
    assert len(start.report.values) == 2
