"""Object graphs: keys as TensorFlow makes them, its own message, its own matching."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tensorflow_party import tf

from estimator_ckpt.errors import ConflictError, CorruptCheckpointError, UnsupportedCheckpointError
from estimator_ckpt.objects.message import VARIABLE_VALUE
from estimator_ckpt.objects.nodes import Attribute, Node, Nodes, SlotReference
from estimator_ckpt.objects.object_graph import (
    OBJECT_GRAPH_KEY,
    ObjectGraph,
    escape,
    flat_graph,
    flat_key,
    is_object_key,
    match,
    object_key,
    parse_path,
    path_string,
    slot_path,
    unescape,
)

LOCAL_NAMES = st.text(st.sampled_from("ab./S-é"), max_size=6)
PATHS = st.lists(LOCAL_NAMES, max_size=4).map(tuple)


def value(name: str, key: str) -> Attribute:
    return Attribute(VARIABLE_VALUE, name, key)


def saved_graph(prefix: str) -> tuple[ObjectGraph, Any]:
    """The object graph of a checkpoint on disk, as we read it and as TensorFlow does."""
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    data = tf.train.load_checkpoint(prefix).get_tensor(OBJECT_GRAPH_KEY)
    message = TrackableObjectGraph()
    message.ParseFromString(data)
    return ObjectGraph.parse(data), message


def stock_objects(directory: Path) -> str:
    """A checkpoint with shared objects, a cycle, a list, names with / and ., a table and slots."""
    w, b = tf.Variable([1.0, 2.0], name="w"), tf.Variable(3.0, name="b")
    optimizer = tf.compat.v1.train.AdamOptimizer()
    optimizer.apply_gradients([(tf.ones(2), w), (tf.ones(()), b)])
    table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
    table.insert(tf.constant(["a"]), tf.constant([1], tf.int64))
    inner = tf.train.Checkpoint(w=w, all=[b, w], names={"dense/kernel": w, "a.b": b})
    root = tf.train.Checkpoint(inner=inner, optimizer=optimizer, table=table)
    inner.up = root
    return root.save(str(directory / "objects"))


# --- names, paths, keys ---


@given(LOCAL_NAMES)
def test_a_local_name_comes_back_from_its_key(name: str) -> None:
    from tensorflow.python.trackable import trackable_utils

    assert escape(name) == trackable_utils.escape_local_name(name)
    assert "/" not in escape(name)
    assert unescape(escape(name)) == name


@given(PATHS.filter(lambda path: path != ("",)))
def test_a_path_comes_back_from_its_string(path: tuple[str, ...]) -> None:
    assert parse_path(path_string(path)) == path


@given(PATHS, LOCAL_NAMES)
def test_keys_are_those_of_tensorflow(path: tuple[str, ...], attribute: str) -> None:
    from tensorflow.python.trackable import trackable_utils

    key = object_key(path_string(path), attribute)
    assert key == trackable_utils.checkpoint_key(path_string(path), attribute)
    assert is_object_key(key)


@given(PATHS, PATHS, LOCAL_NAMES)
def test_slot_paths_are_those_of_tensorflow(
    variable: tuple[str, ...], optimizer: tuple[str, ...], slot: str
) -> None:
    from tensorflow.python.trackable import trackable_utils

    paths = path_string(variable), path_string(optimizer)
    assert slot_path(*paths, slot) == trackable_utils.slot_variable_key(*paths, slot)


@pytest.mark.parametrize(
    ("part", "name"),
    [("dense.Skernel", "dense/kernel"), ("a..b", "a.b"), ("..S", ".S"), (".", "."), (".x", ".x")],
)
def test_unescape(part: str, name: str) -> None:
    assert unescape(part) == name


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("var_list/dense.Skernel/.ATTRIBUTES/VARIABLE_VALUE", True),
        ("/.ATTRIBUTES/x", True),
        (".ATTRIBUTES/x", True),
        ("table/.ATTRIBUTES/table-keys", True),
        ("dense/kernel", False),
        ("ATTRIBUTES/x", False),
        ("dense.ATTRIBUTES/x", False),
    ],
)
def test_object_keys_are_told_from_variable_names(key: str, expected: bool) -> None:
    assert is_object_key(key) is expected


def test_the_key_of_the_default_structure() -> None:
    assert flat_key("dense/kernel") == "var_list/dense.Skernel/.ATTRIBUTES/VARIABLE_VALUE"


# --- the message ---


def nodes(count: int, *, only_children_and_values: bool = False) -> st.SearchStrategy[Node]:
    ids = st.integers(0, count - 1)
    names = LOCAL_NAMES | st.sampled_from(["", "k" * 127, "k" * 128, "k" * 16384])
    attributes = st.builds(Attribute, st.just(VARIABLE_VALUE) | LOCAL_NAMES, names, names)
    slots = st.builds(SlotReference, LOCAL_NAMES, ids, ids)
    savers = st.none() | st.tuples(LOCAL_NAMES, LOCAL_NAMES)
    return st.builds(
        Node,
        children=st.dictionaries(LOCAL_NAMES, ids, max_size=3),
        attributes=st.lists(attributes, max_size=2).map(tuple),
        slots=st.just(()) if only_children_and_values else st.lists(slots, max_size=2).map(tuple),
        registered_saver=st.none() if only_children_and_values else savers,
    )


@st.composite
def graphs(draw: st.DrawFn) -> ObjectGraph:
    count = draw(st.integers(1, 6))
    objects = nodes(count, only_children_and_values=draw(st.booleans()))
    return ObjectGraph(draw(st.lists(objects, min_size=count, max_size=count)))


@given(st.lists(nodes(9)), st.lists(st.tuples(st.integers(0, 99), nodes(9))))
def test_nodes_are_as_good_as_a_list(first: list[Node], changes: list[tuple[int, Node]]) -> None:
    expected, found = list(first), Nodes(first)
    for number, node in changes:
        if number < len(expected):
            expected[number] = found[number] = node
        else:
            expected.append(node)
            found.append(node)
    copy = Nodes(found)
    assert list(copy) == [copy[number] for number in range(len(copy))] == expected


@given(graphs())
@example(ObjectGraph([Node(attributes=(Attribute("a", "", "k"), Attribute("", "", "")))]))
def test_a_graph_comes_back_from_its_message(graph: ObjectGraph) -> None:
    assert ObjectGraph.parse(graph.serialize()).nodes == graph.nodes


@given(graphs())
def test_tensorflow_reads_the_same_message(graph: ObjectGraph) -> None:
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    message = TrackableObjectGraph()
    message.ParseFromString(graph.serialize())
    assert len(message.nodes) == len(graph.nodes)
    assert [as_node(theirs) for theirs in message.nodes] == graph.nodes
    assert message.SerializeToString(deterministic=True) == graph.serialize()


def as_node(theirs: Any) -> Node:
    """An object of TensorFlow's message as one of ours."""
    saver = theirs.registered_saver
    return Node(
        {c.local_name: c.node_id for c in theirs.children},
        tuple(Attribute(a.name, a.full_name, a.checkpoint_key) for a in theirs.attributes),
        tuple(
            SlotReference(s.slot_name, s.original_variable_node_id, s.slot_variable_node_id)
            for s in theirs.slot_variables
        ),
        (saver.name, saver.object_name) if theirs.HasField("registered_saver") else None,
    )


@given(st.data())
def test_a_broken_message_is_refused_or_read_as_tensorflow_reads_it(data: st.DataObject) -> None:
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    graph = flat_graph({"a": VARIABLE_VALUE, "b/" + "c" * 200: VARIABLE_VALUE, "d": "table"})
    broken = bytearray(graph.serialize())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(broken) - 1))
        broken[place] = data.draw(st.integers(0, 255))
    try:
        found = ObjectGraph.parse(bytes(broken)).nodes
    except CorruptCheckpointError:
        return
    assert found == [
        as_node(theirs) for theirs in TrackableObjectGraph.FromString(bytes(broken)).nodes
    ]


def test_a_message_of_tensorflow_comes_back_unchanged(tmp_path: Path) -> None:
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    graph, message = saved_graph(stock_objects(tmp_path))
    again = TrackableObjectGraph()
    again.ParseFromString(graph.serialize())
    assert again == message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "without a root"),
        ("nodes { children { node_id: 1 local_name: 'a' } }", "child 'a' that is node 1, of 1"),
        ("nodes { children { node_id: -1 local_name: 'a' } }", "child 'a' that is node -1, of 1"),
        (
            "nodes { children { node_id: 1 local_name: 'a' } children { node_id: 0 local_name: "
            "'a' } } nodes {}",
            "two children named 'a'",
        ),
        (
            "nodes { slot_variables { slot_name: 'm' slot_variable_node_id: 5 } }",
            "slot 'm' of node 0 in node 5, of 1",
        ),
        (
            "nodes { slot_variables { slot_name: 'm' original_variable_node_id: 7 } }",
            "slot 'm' of node 7 in node 0, of 1",
        ),
    ],
)
def test_a_contradictory_message_is_refused(text: str, reason: str) -> None:
    from google.protobuf import text_format
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    data = text_format.Parse(text, TrackableObjectGraph()).SerializeToString()
    with pytest.raises(CorruptCheckpointError, match=reason) as caught:
        ObjectGraph.parse(data, path="model.ckpt")
    assert caught.value.path == "model.ckpt"
    assert caught.value.key == OBJECT_GRAPH_KEY


@given(st.binary(max_size=40))
def test_any_bytes_are_a_graph_or_refused(data: bytes) -> None:
    try:
        graph = ObjectGraph.parse(data)
    except CorruptCheckpointError:
        return
    assert graph.nodes


def test_paths_that_would_fill_the_memory_are_refused() -> None:
    chain = ObjectGraph([Node(children={"next": n + 1}) for n in range(20_000)] + [Node()])
    read = ObjectGraph.parse(chain.serialize(), path="model.ckpt")
    for ask in (read.paths, read.object_paths):
        with pytest.raises(UnsupportedCheckpointError, match=r"model\.ckpt, key .*so deep"):
            ask()


# --- paths and names ---


def test_places_are_the_starts_of_tensorflows_keys(tmp_path: Path) -> None:
    graph, _ = saved_graph(stock_objects(tmp_path))
    places = graph.object_paths()
    found = {
        a.checkpoint_key: object_key(places[number], a.name)
        for number, node in enumerate(graph.nodes)
        for a in node.attributes
    }
    assert len(found) == 2 + 4 + 2 + 1 + 1  # variables, slots, beta powers, table, save_counter
    assert found == {key: key for key in found}


@given(graphs())
def test_places_are_the_strings_of_paths(graph: ObjectGraph) -> None:
    places = graph.object_paths()
    paths = graph.paths()
    assert [places[number] for number in paths] == [path_string(path) for path in paths.values()]


def test_a_cycle_has_finite_paths() -> None:
    graph = ObjectGraph([Node(children={"a": 1}), Node(children={"b": 0, "c": 1, "d": 2}), Node()])
    assert graph.paths() == {0: (), 1: ("a",), 2: ("a", "d")}


def test_the_child_at_a_path() -> None:
    graph = ObjectGraph([Node(children={"a": 1}), Node(children={"b": 0})])
    assert graph.child_at(("a", "b", "a")) == 1
    assert graph.child_at(()) == 0
    assert graph.child_at(("a", "x", "a")) is None


def test_two_objects_for_one_place_are_refused() -> None:
    graph = ObjectGraph()
    first = graph.add(0, "a")
    graph.link(0, "a", first)
    with pytest.raises(ConflictError, match="two objects would stand at 'a'"):
        graph.add(0, "a")


def test_names_come_from_var_list_then_from_full_names() -> None:
    graph = ObjectGraph()
    var_list = graph.add(0, "var_list")
    kernel = graph.add(var_list, "dense/kernel", value("old/kernel", "k"))
    other = graph.add(0, "other", value("dense/kernel", "o"))
    twins = [graph.add(0, f"twin{n}", value("twin", f"t{n}")) for n in range(2)]
    nameless = graph.add(0, "nameless", value("", "n"))
    names = {name: [number for number, _ in found] for name, found in graph.names().items()}
    assert names == {"dense/kernel": [kernel], "old/kernel": [kernel], "twin": twins}
    assert nameless not in itertools.chain(*names.values())
    assert other not in itertools.chain(*names.values())


# --- the default structure ---


def save(prefix: Path, graph: ObjectGraph, tensors: dict[str, Any]) -> str:
    """Writes a checkpoint of `tensors` by key, and the graph, with TensorFlow."""
    tensors = {**tensors, OBJECT_GRAPH_KEY: graph.serialize()}
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=[tf.constant(tensor) for tensor in tensors.values()],
    )
    return str(prefix)


def test_tensorflow_consumes_the_default_structure(tmp_path: Path) -> None:
    graph = flat_graph({"dense/kernel": VARIABLE_VALUE, "step.1": VARIABLE_VALUE}, step="step.1")
    prefix = save(
        tmp_path / "flat",
        graph,
        {
            flat_key("dense/kernel"): np.float32([1, 2]),
            flat_key("step.1"): np.int64(7),
            object_key("save_counter"): np.int64(0),
        },
    )
    kernel, step = tf.Variable([0.0, 0.0]), tf.Variable(0, dtype=tf.int64)
    root = tf.train.Checkpoint(var_list={"dense/kernel": kernel, "step.1": step}, step=step)
    root.restore(prefix).assert_consumed()
    np.testing.assert_array_equal(kernel, [1, 2])
    assert step.numpy() == 7
    assert root.save_counter.numpy() == 0


def test_the_default_structure_is_added_to_a_graph_of_the_users_own() -> None:
    graph = ObjectGraph()
    model = graph.add(0, "model")
    kernel = graph.add(model, "kernel", value("dense/kernel", object_key("model/kernel")))
    flat_graph({"dense/kernel": kernel, "bias": VARIABLE_VALUE}, base=graph)
    var_list = graph.nodes[0].children["var_list"]
    assert graph.nodes[var_list].children["dense/kernel"] == kernel
    assert graph.nodes[kernel].attributes == (
        value("dense/kernel", "model/kernel/.ATTRIBUTES/VARIABLE_VALUE"),
    )
    assert graph.object_paths()[graph.nodes[var_list].children["bias"]] == "var_list/bias"


def test_another_object_where_a_variable_belongs_is_refused() -> None:
    graph = ObjectGraph()
    graph.add(graph.add(0, "var_list"), "bias")
    with pytest.raises(ConflictError, match="'var_list/bias'"):
        flat_graph({"bias": VARIABLE_VALUE}, base=graph)


# --- matching ---

EDGES = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.integers(0, 6)),
    unique_by=lambda edge: edge[:2],
    max_size=10,
)


def objects(edges: list[tuple[int, str, int]], first: float) -> tuple[Any, list[tf.Variable]]:
    """Four containers, the first the root, and three variables, with edges between them."""
    variables = [tf.Variable(first + number) for number in range(3)]
    containers = [tf.train.Checkpoint() for _ in range(4)]
    everything = [*containers, *variables]
    for parent, name, child in edges:
        setattr(containers[parent], name, everything[child])
    return containers[0], variables


def nodes_of(graph: ObjectGraph, edges: list[tuple[int, str, int]]) -> dict[int, int]:
    """The node ids of the variables that edges reach: variable 0 to 2 -> node id."""
    numbers = {0: 0}
    waiting = [0]
    while waiting:
        parent = waiting.pop()
        for start, name, child in edges:
            if start == parent and child not in numbers:
                numbers[child] = graph.nodes[numbers[parent]].children[name]
                waiting += [child] if child < 4 else []
    return {child - 4: number for child, number in numbers.items() if child >= 4}


@settings(max_examples=25, deadline=None)
@given(saved_edges=EDGES, template_edges=EDGES)
def test_what_matches_is_what_tensorflow_restores(
    saved_edges: list[tuple[int, str, int]],
    template_edges: list[tuple[int, str, int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("match")
    root, saved_variables = objects(saved_edges, 10.0)
    prefix = root.write(str(directory / "saved"))
    root, variables = objects(template_edges, 20.0)
    template, _ = saved_graph(root.write(str(directory / "template")))
    saved, _ = saved_graph(prefix)
    root.read(prefix).expect_partial()

    found = match(template, saved)
    saved_values = {
        number: saved_variables[index].numpy()
        for index, number in nodes_of(saved, saved_edges).items()
    }
    partners = list(itertools.chain(*found.values()))
    for index, number in nodes_of(template, template_edges).items():
        candidates = [saved_values[n] for n in found.get(number, ()) if n in saved_values]
        after = variables[index].numpy()
        if not found.get(number):
            assert after == 20.0 + index
        elif len(found[number]) == 1 and partners.count(found[number][0]) == 1:
            assert [after] == (candidates or [20.0 + index])
        else:  # ambiguous: TensorFlow warns and takes the first, or none
            assert after in [*candidates, 20.0 + index]


def test_slots_match_through_their_variables_and_optimizers(tmp_path: Path) -> None:
    graph, _ = saved_graph(stock_objects(tmp_path))
    w, b = tf.Variable([0.0, 0.0]), tf.Variable(0.0)
    optimizer = tf.compat.v1.train.AdamOptimizer()
    optimizer.apply_gradients([(tf.ones(()), b), (tf.ones(2), w)])
    inner = tf.train.Checkpoint(names={"a.b": b, "dense/kernel": w})
    template, _ = saved_graph(
        tf.train.Checkpoint(inner=inner, optimizer=optimizer).write(str(tmp_path / "template"))
    )
    ours, theirs = template.object_paths(), graph.object_paths()
    found = {ours[a]: [theirs[n] for n in b] for a, b in match(template, graph).items()}
    slots = {place: others for place, others in found.items() if "OPTIMIZER_SLOT" in place}
    assert slots == {
        "inner/names/dense.Skernel/.OPTIMIZER_SLOT/optimizer/m": [
            "inner/w/.OPTIMIZER_SLOT/optimizer/m"
        ],
        "inner/names/dense.Skernel/.OPTIMIZER_SLOT/optimizer/v": [
            "inner/w/.OPTIMIZER_SLOT/optimizer/v"
        ],
        "inner/names/a..b/.OPTIMIZER_SLOT/optimizer/m": ["inner/all/0/.OPTIMIZER_SLOT/optimizer/m"],
        "inner/names/a..b/.OPTIMIZER_SLOT/optimizer/v": ["inner/all/0/.OPTIMIZER_SLOT/optimizer/v"],
    }


def test_an_object_that_stands_for_two_is_shown_with_both() -> None:
    template = ObjectGraph([Node(children={"a": 1, "b": 1}), Node()])
    saved = ObjectGraph([Node(children={"a": 1, "b": 2}), Node(), Node()])
    assert match(template, saved) == {0: [0], 1: [1, 2]}


def test_matching_ends_on_cycles() -> None:
    loop = ObjectGraph([Node(children={"a": 1}), Node(children={"a": 0})])
    longer = ObjectGraph(
        [Node(children={"a": 1}), Node(children={"a": 2}), Node(children={"a": 0})]
    )
    assert match(loop, longer) == {0: [0, 2, 1], 1: [1, 0, 2]}
