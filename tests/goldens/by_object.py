"""Object-based goldens: what `tf.train.Checkpoint` and its kin save. Each function is a kind."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import tensorflow as tf
from expected import Expected, numbers
from tensorflow.python.distribute.sharded_variable import ShardedVariable

v1 = tf.compat.v1


def path_key(path: list[str]) -> str:
    return "/".join(name.replace(".", "..").replace("/", ".S") for name in path)


def variable_key(path: list[str]) -> str:
    return path_key(path) + "/.ATTRIBUTES/VARIABLE_VALUE"


def name_of(variable: Any) -> str:
    return variable.name.split(":")[0]


class Objects:
    """The objects of one checkpoint: rows by object path, values as they are in memory."""

    def __init__(self, directory: str) -> None:
        self.expected = Expected(directory)
        self.prefix = os.path.join(directory, "ckpt")

    def variable(self, path: list[str], variable: Any, slices: int = 0) -> None:
        self.expected.add(
            variable_key(path),
            variable.numpy(),
            name=name_of(variable),
            path=path,
            dtype=variable.dtype,
            slices=slices,
        )

    def slot(self, slot: Any, slot_name: str, of: list[str], optimizer: list[str]) -> None:
        """A slot variable: no edge leads to it, and its key tells whose it is."""
        self.expected.add(
            f"{path_key(of)}/.OPTIMIZER_SLOT/{variable_key([*optimizer, slot_name])}",
            slot.numpy(),
            name=name_of(slot),
            slices=0,
            slot_of=variable_key(of),
            slot_name=slot_name,
        )

    def save(self, children: dict[str, Any], global_step: int | None = None) -> None:
        """Saves a `tf.train.Checkpoint` of the children, and the rows for it."""
        checkpoint = tf.train.Checkpoint(**children)
        prefix = checkpoint.save(self.prefix)
        self.variable(["save_counter"], checkpoint.save_counter)
        self.expected.write(prefix, "checkpoint", global_step)


class Layer(tf.Module):
    """Two weights, named as a layer's are."""

    def __init__(self, first: int, name: str) -> None:
        super().__init__(name=name)
        with self.name_scope:
            self.kernel = tf.Variable(numbers(first, 2, 3), name="kernel")
            self.bias = tf.Variable(numbers(first + 6, 3), name="bias")

    def train(self, optimizer: Any) -> None:
        """One step, after which the optimizer has its variables; the weights stay."""
        weights = [self.kernel, self.bias]
        before = [weight.numpy() for weight in weights]
        optimizer.apply_gradients([(tf.ones_like(weight), weight) for weight in weights])
        for weight, value in zip(weights, before):
            weight.assign(value)


class Words(tf.train.experimental.PythonState):
    """Python state: a string in the checkpoint, under an attribute of another name."""

    def serialize(self) -> str:
        return '{"seen": 3}'

    def deserialize(self, string_value: str) -> None:
        raise NotImplementedError


def object_based(directory: str) -> None:
    objects = Objects(directory)
    model = tf.Module(name="model")
    model.layers = [Layer(10, "first"), Layer(30, "second")]
    model.nested = {"a": {"b": [tf.Variable(numbers(50, 2))]}}
    model.again = model.layers[1]  # A second, shorter path to the same variables.
    model.itself = model  # A cycle.
    odd = {
        "with/slash": tf.Variable(numbers(60, 2), name="with/slash"),
        "with.dot": tf.Variable(numbers(70, 2), name="with.dot"),
        ".S": tf.Variable(numbers(80, 2)),  # As another, this one is named just "Variable".
        "a/.ATTRIBUTES/b": tf.Variable(numbers(90, 2), name="attributes"),
        "naïve 字": tf.Variable(numbers(100, 2), name="unicode"),
    }
    words = Words()
    objects.variable(["model", "layers", "0", "kernel"], model.layers[0].kernel)
    objects.variable(["model", "layers", "0", "bias"], model.layers[0].bias)
    objects.variable(["model", "again", "kernel"], model.again.kernel)
    objects.variable(["model", "again", "bias"], model.again.bias)
    objects.variable(["model", "nested", "a", "b", "0"], model.nested["a"]["b"][0])
    for key, variable in odd.items():
        objects.variable(["odd", key], variable)
    state = np.array(words.serialize().encode(), dtype=object)
    objects.expected.add("words/.ATTRIBUTES/py_state", state, path=["words"], slices=0)
    objects.save({"model": model, "odd": odd, "words": words})


def guide(directory: str) -> None:
    """The layout of TensorFlow's migration guide: every variable by its name, and the step."""
    objects = Objects(directory)
    values = {
        "dense/kernel": numbers(10, 2, 3),
        "dense/bias": numbers(20, 3),
        "odd.name.S/x": numbers(30, 2),
        "dense/kernel/Adam": numbers(40, 2, 3),
        "dense/kernel/Adam_1": numbers(50, 2, 3),
        "global_step": np.array(7, np.int64),
    }
    var_list = {name: tf.Variable(value, name=name) for name, value in values.items()}
    step = var_list["global_step"]
    for name, variable in var_list.items():
        # The shorter of two paths makes the key.
        objects.variable(["step"] if variable is step else ["var_list", name], variable)
    objects.save({"var_list": var_list, "step": step}, global_step=7)


def partitioned_object(directory: str) -> None:
    """A parameter server's variable: one object, three slices."""
    objects = Objects(directory)
    parts = [
        tf.Variable(numbers(first, rows, 2), name=f"embedding/part_{number}")
        for number, (first, rows) in enumerate([(10, 3), (16, 2), (20, 2)])
    ]
    whole = numbers(10, 7, 2)
    embedding = ShardedVariable(parts, name="embedding")
    objects.expected.add(
        variable_key(["embedding"]), whole, name="embedding", path=["embedding"], slices=3
    )
    objects.save({"embedding": embedding})


def slots_object(directory: str) -> None:
    """`tf.compat.v1.train.AdamOptimizer` as an object."""
    layer, optimizer = Layer(10, "dense"), v1.train.AdamOptimizer()
    layer.train(optimizer)
    accumulators = optimizer._get_beta_accumulators()
    hyper = dict(zip(["beta1_power", "beta2_power"], accumulators))
    save_with_slots(directory, layer, optimizer, hyper)


def slots_keras_legacy(directory: str) -> None:
    """`tf.keras.optimizers.legacy.Adam`, the last Keras optimizer with slot references."""
    layer, optimizer = Layer(10, "dense"), tf.keras.optimizers.legacy.Adam()
    layer.train(optimizer)
    names = ["learning_rate", "decay", "beta_1", "beta_2"]
    hyper = {"iter": optimizer.iterations, **{name: optimizer._hyper[name] for name in names}}
    save_with_slots(directory, layer, optimizer, hyper)


def save_with_slots(
    directory: str, layer: Layer, optimizer: Any, hyper: dict[str, tf.Variable]
) -> None:
    objects = Objects(directory)
    for number, (name, variable) in enumerate(hyper.items()):
        variable.assign(tf.cast(number * 2 + 3, variable.dtype))
        objects.variable(["optimizer", name], variable)
    for first, name in ((100, "kernel"), (200, "bias")):
        weight = getattr(layer, name)
        objects.variable(["model", name], weight)
        for slot_first, slot_name in ((first, "m"), (first + 50, "v")):
            slot = optimizer.get_slot(weight, slot_name)
            slot.assign(numbers(slot_first, *weight.shape))
            objects.slot(slot, slot_name, of=["model", name], optimizer=["optimizer"])
    objects.save({"model": layer, "optimizer": optimizer})


def optimizer_keras(directory: str) -> None:
    """`tf.keras.optimizers.Adam` since Keras 2.11: a list of variables, no slot references."""
    layer, optimizer = Layer(10, "dense"), tf.keras.optimizers.Adam()
    layer.train(optimizer)
    objects = Objects(directory)
    objects.variable(["model", "kernel"], layer.kernel)
    objects.variable(["model", "bias"], layer.bias)
    named = {id(getattr(optimizer, name)): name for name in ("_iterations", "_learning_rate")}
    variables = {id(variable): variable for variable in optimizer._variables}
    variables.setdefault(id(optimizer._learning_rate), optimizer._learning_rate)
    for number, variable in enumerate(variables.values()):
        name = named.get(id(variable))
        path = ["optimizer", *([name] if name else ["_variables", str(number)])]
        # In Keras 3 the variable of TensorFlow is inside another.
        inner = variable if isinstance(variable, tf.Variable) else variable.value
        first = 7 if name == "_iterations" else 100 + 10 * number
        inner.assign(numbers(first, *inner.shape, dtype=inner.dtype.as_numpy_dtype))
        objects.variable(path, inner)
    objects.save({"model": layer, "optimizer": optimizer})


def table(directory: str) -> None:
    """Two tables: each one object, one attribute, two tensors."""
    objects = Objects(directory)
    new_table = tf.lookup.experimental.MutableHashTable
    words = new_table(tf.string, tf.int64, -1, name="words")
    words.insert(tf.constant(["b", "a", ""]), tf.constant([2, 1, 0], tf.int64))
    vectors = new_table(tf.int64, tf.float32, [0.0, 0.0], name="vectors")
    vectors.insert(tf.constant([7, 9], tf.int64), tf.constant([[1.0, 2.0], [3.0, 4.5]]))
    for path, each in ((["words"], words), (["nested", "vectors"], vectors)):
        for end, tensor in zip(("-keys", "-values"), each.export()):
            key = f"{path_key(path)}/.ATTRIBUTES/table{end}"
            objects.expected.add(key, tensor.numpy(), path=path, slices=0)
    weight = tf.Variable(numbers(10, 2), name="weight")
    objects.variable(["weight"], weight)
    objects.save({"words": words, "nested": {"vectors": vectors}, "weight": weight})


def iterator(directory: str) -> None:
    """The state of a `tf.data` iterator: a variant, which only TensorFlow can decode."""
    objects = Objects(directory)
    numbered = iter(tf.data.Dataset.range(10))
    next(numbered)
    state = tf.raw_ops.SerializeIterator(resource_handle=numbered._iterator_resource)
    key = "numbered/.ATTRIBUTES/ITERATOR_STATE"
    more = {"shape": state.shape.as_list(), "values": None, "slices": 0}
    objects.expected.add(key, None, path=["numbered"], dtype=tf.variant, **more)
    weight = tf.Variable(numbers(10, 2), name="weight")
    objects.variable(["weight"], weight)
    objects.save({"numbered": numbered, "weight": weight})


def keras_weights(directory: str) -> None:
    objects = Objects(directory)
    dense, norm = tf.keras.layers.Dense(2), tf.keras.layers.BatchNormalization()
    model = tf.keras.Sequential([tf.keras.Input((3,)), dense, norm])
    number = 0
    for layer, names in (
        (dense, ["kernel", "bias"]),
        (norm, ["gamma", "beta", "moving_mean", "moving_variance"]),
    ):
        for name in names:
            number += 10
            variable = getattr(layer, name)
            variable.assign(numbers(number, *variable.shape))
            objects.variable([f"layer_with_weights-{int(layer is norm)}", name], variable)
    model.save_weights(objects.prefix, save_format="tf")
    objects.expected.write(objects.prefix, "checkpoint")


class Configured(Layer):
    """Saves its class and settings beside its variables, as Keras layers of TensorFlow 2.0 did."""

    def _serialize_to_tensors(self) -> dict[str, tf.Tensor]:
        return {"OBJECT_CONFIG_JSON": tf.constant('{"class_name": "Configured", "config": {}}')}

    def _restore_from_tensors(self, restored_tensors: dict[str, tf.Tensor]) -> Any:
        return tf.no_op()


def layer_configs(directory: str) -> None:
    objects = Objects(directory)
    model = Configured(10, "first")
    model.inner = Configured(30, "second")
    for path, layer in (([], model), (["inner"], model.inner)):
        objects.variable([*path, "kernel"], layer.kernel)
        objects.variable([*path, "bias"], layer.bias)
    tf.train.Checkpoint(model).write(objects.prefix)
    objects.expected.write(objects.prefix, "checkpoint")


def keras_tuner(directory: str) -> None:
    """Weights under the prefix `checkpoint`, as Keras Tuner saves them beside the state file."""
    objects = Objects(directory)
    dense = tf.keras.layers.Dense(2)
    model = tf.keras.Sequential([tf.keras.Input((3,)), dense])
    for number, name in enumerate(("kernel", "bias")):
        variable = getattr(dense, name)
        variable.assign(numbers(10 * number + 10, *variable.shape))
        objects.variable(["layer_with_weights-0", name], variable)
    prefix = os.path.join(directory, "checkpoint")
    model.save_weights(prefix, save_format="tf")
    objects.expected.write(prefix, "checkpoint")


def saved_model(directory: str) -> None:
    objects = Objects(directory)
    module = tf.Module()
    module.layers = [Layer(10, "first"), Layer(30, "second")]
    for number, layer in enumerate(module.layers):
        objects.variable(["layers", str(number), "kernel"], layer.kernel)
        objects.variable(["layers", str(number), "bias"], layer.bias)
    tf.saved_model.save(module, directory)
    objects.expected.write(os.path.join(directory, "variables", "variables"), "checkpoint")


KINDS = {
    kind.__name__: kind
    for kind in (
        object_based,
        guide,
        partitioned_object,
        slots_object,
        slots_keras_legacy,
        optimizer_keras,
        table,
        iterator,
        keras_weights,
        layer_configs,
        keras_tuner,
        saved_model,
    )
}
