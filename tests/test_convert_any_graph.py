"""Object graphs of any kind: converted to a whole checkpoint, or refused with a CheckpointError."""

from __future__ import annotations

import contextlib
import os
import tempfile
from unittest import mock

import numpy as np
from conversion_files import write_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from estimator_ckpt import convert_checkpoint, open_checkpoint, verify_checkpoint
from estimator_ckpt.bundle.index import read_index, shard_path, write_index
from estimator_ckpt.conversion.plan import string_content
from estimator_ckpt.errors import CheckpointError, ConflictError
from estimator_ckpt.objects.nodes import Attribute, Node, SlotReference
from estimator_ckpt.objects.object_graph import OBJECT_GRAPH_KEY, ObjectGraph
from estimator_ckpt.reading import object_names

CHILDREN = [
    "a",
    "b",
    "x/y",
    "k.S",
    "",
    "0",
    "words",
    "var_list",
    "step",
    "save_counter",
    "optimizer",
] + ["iter", "decay", "beta_1", "beta1_power", "_variables", "_iterations", "Adam", "m"]
USUAL_VARIABLES = object_names._usual_variables
PARTS = ["a", "b", "var_list", "Adam", "words", ".OPTIMIZER_SLOT", "optimizer", "m"]
ATTRIBUTES = ["VARIABLE_VALUE", "VARIABLE_VALUE", "table", "OTHER"]
NAMES = [
    "a",
    "b",
    "a/Adam",
    "a/Adam_1",
    "a/Momentum",
    "global_step",
    "beta1_power",
    "save_counter",
] + ["words-keys", "words-values", "Adam/a/m", "Adam/iter"]
VALUES = [
    np.float32(1),
    np.zeros(2, np.float32),
    np.array(3, np.int64),
    np.array([b"x", b"y"], object),
    np.zeros(0, np.float32),
]


def object_key(choose):
    path = "/".join(choose.choices(PARTS, k=choose.randint(1, 4)))
    return f"{path}/.ATTRIBUTES/{choose.choice([*ATTRIBUTES, 'table-keys', 'table-values'])}"


def write_any(choose, prefix):
    """A checkpoint of some tensors, most often with objects, most of whose keys exist."""
    keys = [
        object_key(choose) if choose.random() < 0.7 else choose.choice(NAMES)
        for _ in range(choose.randint(1, 6))
    ]
    tensors = {key: choose.choice(VALUES) for key in keys}
    write_bundle(prefix, tensors, shards=choose.randint(1, 2))
    if choose.random() < 0.8:
        add_graph(prefix, any_graph(choose, keys))


def any_graph(choose, keys):
    count = choose.randint(1, 6)
    nodes = []
    for _ in range(count):
        node = Node({})
        for _ in range(choose.randint(0, 3)):
            node.children[choose.choice(CHILDREN)] = choose.randrange(count)
        if choose.random() < 0.6:
            key = choose.choice(keys) if choose.random() < 0.8 else object_key(choose)
            name = choose.choice(["", "a", "b", "a/Adam", "dense"])
            node = node._replace(attributes=(Attribute(choose.choice(ATTRIBUTES), name, key),))
        if choose.random() < 0.3:
            slot_name = choose.choice(["m", "v", "momentum", "accum"])
            slot = SlotReference(slot_name, choose.randrange(count), choose.randrange(count))
            node = node._replace(slots=(slot,))
        nodes.append(node)
    # Every object is reached, so that more of the graphs are read.
    for number in range(1, count):
        nodes[choose.randrange(number)].children.setdefault(choose.choice(CHILDREN), number)
    return ObjectGraph(nodes)


def add_graph(prefix, graph):
    index = read_index(prefix)
    content = string_content(graph.serialize())
    shard = index.num_shards - 1
    path = shard_path(prefix, shard, index.num_shards)
    entry = next(iter(index.entries.values()))._replace(
        dtype=content.dtype,
        shape=(),
        shard=shard,
        offset=os.path.getsize(path),
        size=content.nbytes,
        crc32c=content.crc32c,
    )
    with open(path, "ab") as file:
        file.write(content.value)
    index.entries[OBJECT_GRAPH_KEY.encode()] = entry
    write_index(prefix, index)


def any_settings(choose):
    found = {"checkpoint_format": choose.choice(["saver", "checkpoint", "both"])}
    names_only = found["checkpoint_format"] == "saver"
    if not names_only and choose.random() < 0.4:
        found["layout"] = choose.choice(["var_list", "scopes"])
    if choose.random() < 0.2:
        found["drop_slots"] = True
    elif choose.random() < 0.3:
        found["optimizer"] = "tf1" if names_only else choose.choice(["keras", "tf1"])
        found["hyperparameters"] = choose.choice([{}, {"learning_rate": 0.1}, {"iter": 3}])
    if choose.random() < 0.1:
        found["rename"] = {"a(.*)": r"b\1"}
    if choose.random() < 0.3:
        found[choose.choice(["compact", "copy", "in_place"])] = True
    elif choose.random() < 0.2:
        found["dtype"] = "float64"
    return found


@settings(max_examples=150, deadline=None)
@given(st.randoms())
def test_any_graph_is_converted_to_a_whole_checkpoint_or_refused(choose):
    with tempfile.TemporaryDirectory() as directory:
        source = f"{directory}/source"
        write_any(choose, source)
        was_whole = verify_checkpoint(source).ok
        chosen = any_settings(choose)
        destination = None if chosen.get("in_place") else f"{directory}/out"
        try:
            result = convert_checkpoint(source, destination, **chosen)
        except CheckpointError:
            return
        assert was_whole
        assert verify_checkpoint(result.destination).faults == ()


@settings(max_examples=200, deadline=None)
@given(st.randoms())
def test_names_found_all_at_once_are_those_found_one_by_one(choose):
    with tempfile.TemporaryDirectory() as directory:
        write_usual(choose, f"{directory}/m")
        at_once = read_names(f"{directory}/m")
        with mock.patch.object(object_names, "_usual_variables", no_usual_variables):
            assert read_names(f"{directory}/m") == at_once


def write_usual(choose, prefix):
    """A checkpoint of variables, most of which have the key that their place gives."""
    graph = ObjectGraph()
    parents = [0, graph.add(0, "var_list"), graph.add(0, "a")]
    names = ["a", "b", "a/b", "a/Adam", "var_list/a", "step"]
    for _ in range(choose.randint(1, 7)):
        value = Attribute("VARIABLE_VALUE", choose.choice(["", *names]), "")
        with contextlib.suppress(ConflictError):
            graph.add(choose.choice(parents), choose.choice(names), value)
        if choose.random() < 0.4:
            with contextlib.suppress(ConflictError):
                graph.link(parents[1], choose.choice(names), len(graph.nodes) - 1)
    for number, place in enumerate(graph.object_paths()):
        node = graph.nodes[number]
        if node.attributes:
            key = f"{place}/.ATTRIBUTES/VARIABLE_VALUE"
            if choose.random() < 0.1:
                key = object_key(choose)
            value = node.attributes[0]._replace(checkpoint_key=key)
            graph.nodes[number] = node._replace(attributes=(value,))
    values = {
        node.attributes[0].checkpoint_key: choose.choice(VALUES)
        for node in graph.nodes
        if node.attributes and choose.random() < 0.95
    }
    plain = [name for name in names if choose.random() < choose.choice([0, 0.5])]
    values.update((name, choose.choice([*values.values(), *VALUES])) for name in plain)
    write_bundle(prefix, {"other": VALUES[0], **values})
    add_graph(prefix, graph)


def no_usual_variables(graph, places, entries):
    *_, full_names = USUAL_VARIABLES(graph, places, entries)
    tensors = object_names.graph_tensors(graph, entries.by_key)
    return object_names.Named.empty(), tensors, full_names


def read_names(prefix):
    try:
        found = open_checkpoint(prefix)
        return found.format, found.variables
    except CheckpointError as error:
        return str(error)
