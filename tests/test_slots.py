"""Which variables are slots of optimizers: by their names, and in checkpoints of all kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stock_files import save, value
from tensorflow_party import tf

from estimator_ckpt import open_checkpoint
from estimator_ckpt.objects.nodes import Node, SlotReference
from estimator_ckpt.objects.object_graph import ObjectGraph
from estimator_ckpt.roles.slots import slot_by_name, slots_by_name

SLOTS_OF_K = (
    "Adadelta Adadelta_1 Adagrad Adam Adam_1 Adam_2 Adam_3 Adam_x Ftrl Ftrl_1 Momentum RMSProp "
    "RMSProp_1 adam_m adam_v m other G_Adam G_Adam_1 my_RMSProp_1 WAdamOptimizer"
)
OTHERS = "k c c/RMSProp c/RMSProp_1 c/RMSProp_2 training/Adam/k/m Adam/k/v training/My/k/m m"
SHAPES = dict.fromkeys([f"k/{slot}" for slot in SLOTS_OF_K.split(" ")], (2, 3))
SHAPES.update(dict.fromkeys([*OTHERS.split(" "), "lonely/Adam"], (2, 3)))
SHAPES.update(dict.fromkeys(["k:0", "k/Adam_1:0", "k/adam_m:0"], (2, 3)))
SHAPES["k/AdamW"] = (3,)
IN_SCOPES = """scope/k/Adam a/b/k/Ftrl_1 dnn/w dnn/w/t_0/Adagrad dnn/w/t_11/Adam_1 linear/w
    linear/w/part_2/Ftrl a/long/w a/long/w/w/part_0/Adam m/w m/w/0/Adam dnn/w/s_0/Adam
    dnn/w/t_x/Adam scope/k/m"""
SHAPES.update(dict.fromkeys(IN_SCOPES.split(), (2, 3)))


SLOT_LIKE_NAMES = st.lists(
    st.sampled_from(["", "k", "m", "Adam", "Adam_1", "RMSProp", "RMSProp_1", "RMSProp_2", "t_0"]),
    min_size=1,
    max_size=3,
).map("/".join)


@pytest.mark.parametrize(
    ("name", "slot"),
    [
        ("k/Adam", ("k", "m")),
        ("k/Adam_1", ("k", "v")),
        ("k/Adam_2", ("k", "m")),
        ("k/Adam_3", ("k", "v")),
        ("k/Momentum", ("k", "momentum")),
        ("k/RMSProp", ("k", "rms")),
        ("k/RMSProp_1", ("k", "momentum")),
        ("c/RMSProp", ("c", "rms")),
        ("c/RMSProp_1", ("c", "mg")),
        ("c/RMSProp_2", ("c", "momentum")),
        ("k/Adagrad", ("k", "accumulator")),
        ("k/Adadelta", ("k", "accum")),
        ("k/Adadelta_1", ("k", "accum_update")),
        ("k/Ftrl", ("k", "accum")),
        ("k/Ftrl_1", ("k", "linear")),
        ("k/G_Adam", ("k", "m")),
        ("k/G_Adam_1", ("k", "v")),
        ("k/my_RMSProp_1", ("k", "momentum")),
        ("k/WAdamOptimizer", None),
        ("k:0", None),
        ("k/Adam_1:0", ("k:0", "v")),
        ("k/adam_m:0", ("k:0", "m")),
        ("k/adam_m", ("k", "m")),
        ("k/adam_v", ("k", "v")),
        ("k/m", ("k", "m")),
        ("training/Adam/k/m", ("k", "m")),
        ("Adam/k/v", ("k", "v")),
        ("scope/k/Adam", ("k", "m")),
        ("a/b/k/Ftrl_1", ("k", "linear")),
        ("dnn/w/t_0/Adagrad", ("dnn/w", "accumulator")),
        ("dnn/w/t_11/Adam_1", ("dnn/w", "v")),
        ("linear/w/part_2/Ftrl", ("linear/w", "accum")),
        ("a/long/w/w/part_0/Adam", ("a/long/w", "m")),
        ("m/w/0/Adam", ("m/w", "m")),
        ("dnn/w/s_0/Adam", None),  # no end of `dnn/w/part_0`
        ("dnn/w/t_x/Adam", None),
        ("scope/k/m", None),
        ("k", None),
        ("m", None),
        ("k/other", None),
        ("k/Adam_x", None),
        ("k/AdamW", None),  # another shape
        ("lonely/Adam", None),  # there is no variable `lonely`
        ("training/My/k/m", None),
    ],
)
def test_slots_by_name(name: str, slot: tuple[str, str] | None) -> None:
    assert slot_by_name(name, SHAPES.get) == slot


@given(st.dictionaries(SLOT_LIKE_NAMES, st.sampled_from([(), (2,)]), max_size=8))
def test_slots_of_many_variables_are_those_of_each(shapes: dict[str, tuple[int, ...]]) -> None:
    names = list(shapes)
    order = sorted(range(len(names)), key=names.__getitem__)
    found = slots_by_name(names, list(shapes.values()), order)
    assert list(zip(*found)) == [slot_by_name(name, shapes.get) or (None, None) for name in names]


OPTIMIZERS = {
    "Adadelta": ["accum", "accum_update"],
    "Adagrad": ["accumulator"],
    "Adam": ["m", "v"],
    "Ftrl": ["accum", "linear"],
    "Momentum": ["momentum"],
    "RMSProp": ["momentum", "rms"],
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_slots_of_tensorflows_optimizers(optimizer: str, tmp_path: Path) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        kernel = tf.compat.v1.get_variable("dense/kernel", [2, 3])
        arguments = {"momentum": 0.9} if optimizer in ("Momentum", "RMSProp") else {}
        found = getattr(tf.compat.v1.train, f"{optimizer}Optimizer")(0.1, **arguments)
        found.minimize(tf.reduce_sum(kernel))
        session.run(tf.compat.v1.global_variables_initializer())
        by_slot = {name: found.get_slot(kernel, name).op.name for name in found.get_slot_names()}
        prefix = tf.compat.v1.train.Saver().save(session, str(tmp_path / "m"))
    slots = [one for one in open_checkpoint(prefix).variables.values() if one.slot_of]
    assert {one.slot_name: one.name for one in slots} == by_slot
    assert sorted(by_slot) == OPTIMIZERS[optimizer]
    assert {one.slot_of for one in slots} == {"dense/kernel"}


@pytest.mark.parametrize(
    ("optimizer", "count"),
    [
        ("Adadelta", 2),
        ("Adagrad", 1),
        ("Adam", 2),
        ("AdamW", 2),
        ("Adamax", 2),
        ("Ftrl", 2),
        ("Nadam", 2),
        ("RMSprop", 3),
        ("SGD", 1),
    ],
)
def test_slots_of_keras_newer_optimizers(optimizer: str, count: int, tmp_path: Path) -> None:
    layer = tf.keras.layers.Dense(3, name="dense")
    layer(tf.zeros((1, 2)))
    arguments = {"momentum": 0.9} if optimizer in ("RMSprop", "SGD") else {}
    arguments |= {"centered": True} if optimizer == "RMSprop" else {}
    found = getattr(tf.keras.optimizers, optimizer)(**arguments)
    found.build(layer.trainable_variables)
    prefix = tf.train.Checkpoint(model=layer, optimizer=found).save(str(tmp_path / "m"))
    variables = open_checkpoint(prefix).variables.values()
    slots = [one for one in variables if one.slot_of]
    for variable, shape in (("dense/bias", (3,)), ("dense/kernel", (2, 3))):
        of_optimizer = [one for one in variables if one.shape == shape and one.name != variable]
        assert [one for one in slots if one.slot_of == variable] == of_optimizer
        assert len(of_optimizer) == len({one.slot_name for one in of_optimizer}) == count
    assert len(slots) == 2 * count


def test_slots_of_two_optimizers_of_one_class(tmp_path: Path) -> None:
    kernel = tf.Variable(tf.zeros((2, 3)), name="kernel")
    both = {name: tf.keras.optimizers.SGD(momentum=0.9) for name in ("a", "b")}
    for one in both.values():
        one.build([kernel])
    prefix = tf.train.Checkpoint(kernel=kernel, **both).save(str(tmp_path / "m"))
    slots = [one for one in open_checkpoint(prefix).variables.values() if one.slot_of]
    assert [one.slot_of for one in slots] == ["kernel", "kernel"]
    assert sorted(str(one.object_path).partition("/")[0] for one in slots) == ["a", "b"]


def test_what_is_called_as_a_slot_is_none_outside_an_optimizer(tmp_path: Path) -> None:
    names = ["Adam/m/dense/kernel", "dense/kernel"]
    variables = {str(n): tf.Variable([1.0], name=name) for n, name in enumerate(names)}
    prefix = tf.train.Checkpoint(**variables).save(str(tmp_path / "m"))
    found = open_checkpoint(prefix).variables
    assert [found[name].slot_of for name in names] == [None, None]


def test_slots_by_the_references_of_an_optimizer(tmp_path: Path) -> None:
    graph = ObjectGraph()
    kernel = graph.add(0, "w", value("kernel", "w/.ATTRIBUTES/V"))
    optimizer = graph.add(0, "opt")
    key = "w/.OPTIMIZER_SLOT/opt/m/.ATTRIBUTES/V"
    graph.nodes.append(Node(attributes=(value("strange/name", key),)))
    slots = (SlotReference("m", kernel, len(graph.nodes) - 1),)
    graph.nodes[optimizer] = graph.nodes[optimizer]._replace(slots=slots)
    prefix = save(tmp_path / "m", {"w/.ATTRIBUTES/V": np.float32(1), key: np.float32(2)}, graph)
    found = open_checkpoint(prefix).variables["strange/name"]
    assert (found.slot_of, found.slot_name) == ("kernel", "m")
    assert found.object_path == "w/.OPTIMIZER_SLOT/opt/m"
