"""Objects of the user's own: what is written restores into the same objects in eager TF2."""

import numpy as np
import pytest
import tensorflow as tf
from graph_jobs import FORMATS, latest, run_job
from saver_sessions import eager_values, make_saver, restore, save, variable

from estimator_ckpt import checkpoint_scaffold, dual_scaffold
from estimator_ckpt.errors import MismatchError

v1 = tf.compat.v1

OBJECT_FORMATS = ["checkpoint", "both"]
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"

needs_keras_2 = pytest.mark.skipif(
    int(tf.__version__.split(".")[1]) >= 16, reason="TensorFlow 2.16 and later have Keras 3"
)


class Layer(tf.Module):
    def __init__(self, value, name):
        super().__init__(name)
        with self.name_scope:
            self.kernel = tf.Variable([value, value + 1], name="kernel")


class Net(tf.Module):
    """Layers in a list, in a dict, and one of them a second time."""

    def __init__(self, value=0.0):
        super().__init__("net")
        with self.name_scope:
            self.layers = [Layer(value + 10, "first"), Layer(value + 20, "second")]
            self.heads = {"a/b.c": Layer(value + 30, "head")}
            self.again = self.layers[1]

    def values(self):
        """The variables, each once."""
        return [self.layers[0].kernel, self.layers[1].kernel, self.heads["a/b.c"].kernel]

    def loss(self):
        return tf.add_n([tf.reduce_sum(v**2) for v in self.values()])


def assert_values(net, expected):
    for variable_, value in zip(net.values(), expected):
        np.testing.assert_array_equal(variable_, value)


VALUES = [[11.0, 12.0], [21.0, 22.0], [31.0, 32.0]]
COUNT = np.arange(24, dtype=np.float32).reshape(12, 2)
NAMES = ["net/first/kernel", "net/second/kernel", "net/head/kernel"]


def as_checkpoint(net, step):
    return tf.train.Checkpoint(net=net, step=step)


def as_dict(net, step):
    return {"net": net, "step": step}


def as_callable(net, step):
    return lambda: {"net": net, "step": step}


# --- modules ---


@pytest.mark.parametrize("checkpoint_format", OBJECT_FORMATS)
@pytest.mark.parametrize("given", [as_checkpoint, as_dict, as_callable])
def test_modules_restore_straight_into_the_same_objects(tmp_path, given, checkpoint_format):
    with tf.Graph().as_default():
        net, step = Net(1.0), v1.train.get_or_create_global_step()
        prefix = save(make_saver(checkpoint_format, given(net, step)), tmp_path, step.assign(7))
    net, step = Net(), tf.Variable(0, dtype=tf.int64)
    tf.train.Checkpoint(net=net, step=step).restore(prefix).assert_consumed()
    assert_values(net, VALUES)
    assert step.numpy() == 7


@pytest.mark.parametrize("checkpoint_format", OBJECT_FORMATS)
def test_the_complete_var_list_stands_beside_the_objects(tmp_path, checkpoint_format):
    with tf.Graph().as_default():
        net = Net(1.0)
        variable("outside", 5.0)
        prefix = save(make_saver(checkpoint_format, {"net": net}), tmp_path)
    net = Net()
    tf.train.Checkpoint(net=net).restore(prefix).assert_existing_objects_matched()
    assert_values(net, VALUES)
    flat = {name: tf.Variable([0.0, 0.0]) for name in NAMES} | {"outside": tf.Variable(0.0)}
    tf.train.Checkpoint(var_list=flat).restore(prefix).assert_consumed()
    for name, value in zip([*NAMES, "outside"], [*VALUES, 5.0]):
        np.testing.assert_array_equal(flat[name], value)


@pytest.mark.parametrize("checkpoint_format", OBJECT_FORMATS)
def test_the_keys_are_those_of_tensorflow(tmp_path, checkpoint_format):
    with tf.Graph().as_default():
        prefix = save(make_saver(checkpoint_format, {"net": Net()}), tmp_path)
    stock = tf.train.Checkpoint(net=Net()).save(tmp_path / "stock")
    names = set(NAMES) if checkpoint_format == "both" else set()
    assert eager_values(prefix).keys() == eager_values(stock).keys() | names


@pytest.mark.parametrize("written", FORMATS)
@pytest.mark.parametrize("read", FORMATS)
def test_objects_restore_in_a_graph_from_every_format(tmp_path, written, read):
    with tf.Graph().as_default():
        prefix = save(make_saver(written, {"net": Net(1.0)}), tmp_path)
    with tf.Graph().as_default():
        net = Net()
        found = restore(make_saver(read, {"net": net}), prefix, net.values())
        np.testing.assert_array_equal(found, VALUES)
    with tf.Graph().as_default():
        net = Net()
        np.testing.assert_array_equal(restore(make_saver(read), prefix, net.values()), VALUES)


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_an_eager_checkpoint_restores_by_its_structure(tmp_path, checkpoint_format):
    net = Net(1.0)
    for layer in (*net.layers, net.heads["a/b.c"]):
        layer.kernel = tf.Variable(layer.kernel)  # Without a name that the graph has.
    prefix = tf.train.Checkpoint(net=net).save(tmp_path / "eager")
    with tf.Graph().as_default():
        other = Net()
        found = restore(make_saver(checkpoint_format, {"net": other}), prefix, other.values())
        np.testing.assert_array_equal(found, VALUES)


# --- shared objects ---


@pytest.mark.parametrize("left", ["encoder", "decoder"])
def test_a_shared_variable_restores_through_either_path(tmp_path, left):
    def shared(name, value):
        layer = tf.Module()
        layer.kernel = variable(name, value)
        return layer

    with tf.Graph().as_default():
        layer = shared("embedding", 3.0)
        prefix = save(make_saver("both", {"encoder": layer, "decoder": layer}), tmp_path)
    with tf.Graph().as_default():
        layer = shared("renamed", 0.0)  # So that the path is the only way to it.
        assert restore(make_saver("both", {left: layer}), prefix, layer.kernel) == 3.0
    layer = tf.Module()
    layer.kernel = tf.Variable(0.0)
    tf.train.Checkpoint(**{left: layer}).restore(prefix).assert_consumed()
    assert layer.kernel.numpy() == 3.0


def test_a_variable_that_is_no_longer_shared_serves_both(tmp_path):
    with tf.Graph().as_default():
        one = variable("one", 3.0)
        prefix = save(make_saver("checkpoint", {"a": [one], "b": [one]}), tmp_path)
    with tf.Graph().as_default():
        one, two = variable("one", 0.0), variable("two", 0.0)
        assert restore(make_saver("both", {"a": [one], "b": [two]}), prefix, one, two) == [3.0, 3.0]


# --- optimizers ---


def train(net, optimizer):
    return optimizer.apply_gradients(
        [(gradient, v) for gradient, v in zip(tf.gradients(net.loss(), net.values()), net.values())]
    )


def slots_of(optimizer, net):
    return [optimizer.get_slot(v, name) for v in net.values() for name in ("m", "v")]


def test_tf1_adam_restores_with_its_slots(tmp_path):
    with tf.Graph().as_default():
        net, optimizer = Net(1.0), v1.train.AdamOptimizer(0.1)
        step = train(net, optimizer)
        saver = make_saver("both", {"net": net, "optimizer": optimizer})
        prefix = save(saver, tmp_path, step)
        expected = restore(saver, prefix, [*net.values(), *slots_of(optimizer, net)])
    assert {
        f"net/layers/0/kernel/.OPTIMIZER_SLOT/optimizer/m{VALUE}",
        f"net/layers/0/kernel/.OPTIMIZER_SLOT/optimizer/v{VALUE}",
        f"optimizer/beta1_power{VALUE}",
    } <= eager_values(prefix).keys()

    net, optimizer = Net(), v1.train.AdamOptimizer(0.1)
    optimizer.apply_gradients([(tf.zeros([2]), v) for v in net.values()])
    tf.train.Checkpoint(net=net, optimizer=optimizer).restore(prefix).assert_consumed()
    for found, value in zip([*net.values(), *slots_of(optimizer, net)], expected):
        np.testing.assert_array_equal(found, value)


def test_slots_stand_in_the_flat_var_list_too(tmp_path):
    with tf.Graph().as_default():
        net, optimizer = Net(1.0), v1.train.AdamOptimizer(0.1)
        step = train(net, optimizer)
        saver = make_saver("checkpoint", {"net": net, "optimizer": optimizer})
        prefix = save(saver, tmp_path, step)
        names = [v.op.name for v in v1.global_variables()]
        expected = restore(saver, prefix, v1.global_variables())
    assert "net/first/kernel/Adam_1" in names
    flat = {name: tf.Variable(tf.zeros_like(value)) for name, value in zip(names, expected)}
    reader = tf.train.Checkpoint(var_list=flat)
    reader.restore(prefix).assert_existing_objects_matched()
    for name, value in zip(names, expected):
        np.testing.assert_array_equal(flat[name], value)


@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_slots_of_an_eager_tf1_optimizer_restore_by_structure(tmp_path, checkpoint_format):
    net, optimizer = Net(1.0), v1.train.AdamOptimizer(0.1)
    optimizer.apply_gradients([(tf.fill([2], 2.0 + n), v) for n, v in enumerate(net.values())])
    expected = [v.numpy() for v in slots_of(optimizer, net)]
    prefix = tf.train.Checkpoint(net=net, optimizer=optimizer).save(tmp_path / "eager")
    with tf.Graph().as_default():
        net, optimizer = Net(), v1.train.AdamOptimizer(0.1)
        train(net, optimizer)
        saver = make_saver(checkpoint_format, {"net": net, "optimizer": optimizer})
        found = restore(saver, prefix, slots_of(optimizer, net))
    np.testing.assert_array_equal(found, expected)


@needs_keras_2
@pytest.mark.parametrize("checkpoint_format", OBJECT_FORMATS)
def test_keras_layers_and_a_legacy_optimizer(tmp_path, checkpoint_format):
    def build():
        first = tf.keras.layers.Dense(3, kernel_initializer="ones")
        second = tf.keras.layers.Dense(2, kernel_initializer="ones")
        return tf.keras.Sequential([tf.keras.Input([4]), first, second])

    with tf.Graph().as_default():
        model, optimizer = build(), tf.keras.optimizers.legacy.Adam(0.1)
        loss = tf.reduce_sum(model(tf.ones([5, 4])) ** 2)
        weights = model.trainable_weights
        step = optimizer.apply_gradients(zip(tf.gradients(loss, weights), weights))
        saver = make_saver(checkpoint_format, {"model": model, "optimizer": optimizer})
        prefix = save(saver, tmp_path, step)
        slots = [optimizer.get_slot(w, "m") for w in weights]
        expected = restore(saver, prefix, [*weights, *slots, optimizer.iterations])

    model, optimizer = build(), tf.keras.optimizers.legacy.Adam(0.5)
    weights = model.trainable_weights
    optimizer.apply_gradients([(tf.zeros_like(w), w) for w in weights])
    tf.train.Checkpoint(model=model, optimizer=optimizer).restore(prefix).assert_consumed()
    slots = [optimizer.get_slot(w, "m") for w in weights]
    for found, value in zip([*weights, *slots, optimizer.iterations], expected):
        np.testing.assert_array_equal(found, value)
    assert optimizer.learning_rate.numpy() == np.float32(0.1)


@needs_keras_2
def test_slots_of_keras_are_none_of_tf1s_by_the_same_name(tmp_path):
    net, optimizer = Net(1.0), tf.keras.optimizers.legacy.SGD(0.1, 0.9)
    optimizer.apply_gradients([(tf.ones([2]), v) for v in net.values()])
    prefix = tf.train.Checkpoint(net=net, optimizer=optimizer).save(tmp_path / "keras")
    for options in ({}, {"on_missing": "init"}):
        with tf.Graph().as_default():
            net, optimizer = Net(), v1.train.MomentumOptimizer(0.1, 0.9)
            train(net, optimizer)
            slots = [optimizer.get_slot(v, "momentum") for v in net.values()]
            saver = make_saver("both", {"net": net, "optimizer": optimizer}, **options)
            if options:
                np.testing.assert_array_equal(restore(saver, prefix, slots), np.zeros([3, 2]))
            else:
                with pytest.raises(MismatchError, match="another kind of optimizer has it"):
                    restore(saver, prefix, slots)


# --- through a whole job ---


@pytest.mark.parametrize("scaffold", [checkpoint_scaffold, dual_scaffold])
def test_a_job_saves_and_resumes_its_objects(tmp_path, scaffold):
    made = []

    def build():
        net, optimizer = Net(1.0), v1.train.AdamOptimizer(0.1)
        step = v1.train.get_or_create_global_step()
        made[:] = [{"net": net, "optimizer": optimizer, "step": step}]
        return optimizer.minimize(net.loss(), global_step=step)

    _, end = run_job(tmp_path, lambda: scaffold(lambda: made[0]), build=build)
    start, _ = run_job(tmp_path, lambda: scaffold(lambda: made[0]), build=build)
    assert start["global_step"] == 2
    for name, value in end.items():
        np.testing.assert_array_equal(start[name], value)
    net, optimizer, step = Net(), v1.train.AdamOptimizer(0.1), tf.Variable(0, dtype=tf.int64)
    optimizer.apply_gradients([(tf.zeros([2]), v) for v in net.values()])
    reader = tf.train.Checkpoint(net=net, optimizer=optimizer, step=step)
    reader.restore(latest(tmp_path)).assert_consumed()
    assert step.numpy() == 4
