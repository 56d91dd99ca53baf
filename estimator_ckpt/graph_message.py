"""The bytes of an object graph: objects to and from a TrackableObjectGraph message.

Source: tensorflow/core/protobuf/trackable_object_graph.proto.

    graph     = (0x0a, length, object)*
    variable  = 0x12, length, attribute, 0x2a 0x02 0x08 0x01
    attribute = 0x0a 0x0e "VARIABLE_VALUE", 0x12, length, full name, 0x1a, length, checkpoint key

Lengths are varints; a full name that is empty is left out with its tag and length. Nearly all
objects of a large graph are a variable and nothing else. They are read many at once and written as
it stands above, several times as fast as by protobuf one by one, which does all others.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from estimator_ckpt.bundle.coding import encode_varint
from estimator_ckpt.errors import CorruptCheckpointError

VARIABLE_VALUE = "VARIABLE_VALUE"

_WITH_ATTRIBUTE = b"\x12"  # how an object begins that has an attribute and no children
_VALUE = b"\x0a\x0e" + VARIABLE_VALUE.encode()
_HAS_VALUES = b"\x2a\x02\x08\x01"
_AT_ONCE = 4096


class Attribute(NamedTuple):
    """One saved value of an object.

    Attributes:
      name: VARIABLE_VALUE for a variable, `table` for a lookup table, ...
      full_name: the variable's name in its graph; empty where there is none.
      checkpoint_key: its key in the index, or the common start of its keys (`...table` stands
        for `...table-keys` and `...table-values`).
    """

    name: str
    full_name: str
    checkpoint_key: str


class SlotReference(NamedTuple):
    """An optimizer's slot: the slot variable `slot` that belongs to the variable `original`."""

    slot_name: str
    original: int
    slot: int


class Node(NamedTuple):
    """One object: its children by local name, its values, its slots if it is an optimizer."""

    children: Mapping[str, int] = MappingProxyType({})
    attributes: tuple[Attribute, ...] = ()
    slots: tuple[SlotReference, ...] = ()
    registered_saver: tuple[str, str] | None = None


# The tuples that these are, without the calls of Python's that check them: there may be millions.
_make_attribute = functools.partial(tuple.__new__, Attribute)
_make_node = functools.partial(tuple.__new__, Node)


def value_nodes(
    names: Iterable[str], full_names: Iterable[str], keys: Iterable[str]
) -> Iterator[Node]:
    """Objects with one value each and nothing else, given by the fields of their attributes."""
    attributes = map(_make_attribute, zip(names, full_names, keys))
    empty = Node()
    rest = map(itertools.repeat, (empty.slots, empty.registered_saver))
    return map(_make_node, zip(itertools.repeat(empty.children), zip(attributes), *rest))


def decode_graph(data: bytes) -> list[Node]:
    """The objects of a serialized graph.

    Raises:
      CorruptCheckpointError: not such a message, or one that names nodes it does not have or has
        two children of one name.
    """
    from google.protobuf.message import DecodeError

    from estimator_ckpt.bundle.protos import TrackableObjectGraph

    nodes: list[Node] = []
    try:
        objects = TrackableObjectGraph.FromString(data).nodes
        if not objects:
            raise CorruptCheckpointError("an object graph without a root")
        for start in range(0, len(objects), _AT_ONCE):
            messages = objects[start : start + _AT_ONCE]
            alone = [message for message in messages if message[:1] == _WITH_ATTRIBUTE]
            variables = _decode_variables(alone)
            if len(alone) == len(messages):
                nodes.extend(variables)
            for number, message in enumerate(messages[len(nodes) - start :], len(nodes)):
                node = next(variables, None) if message[:1] == _WITH_ATTRIBUTE else None
                nodes.append(node or _decode_object(message, number, len(objects)))
    except DecodeError as error:
        raise CorruptCheckpointError(f"not a TrackableObjectGraph message: {error}") from None
    return nodes


def _decode_variables(messages: Sequence[bytes]) -> Iterator[Node]:
    """Objects that are a variable and nothing else; none where one of them is more, or unsound.

    Messages one behind the other are one message to a protobuf parser, in which what should be
    there once is merged: of all the attributes it makes one that has all their names, in order.
    """
    from google.protobuf.message import DecodeError

    from estimator_ckpt.bundle.protos import MergedObjects, TrackableObject

    data = b"".join(messages)
    try:
        counts = TrackableObject.FromString(data)
        merged = MergedObjects.FromString(data).attributes
    except DecodeError:
        return iter(())
    names, keys = merged.name, merged.checkpoint_key[:]
    full_names = merged.full_name[:] or [""] * len(messages)
    lengths = {len(column) for column in (counts.attributes, names, full_names, keys)}
    more = counts.children or counts.slot_variables or counts.HasField("registered_saver")
    if more or lengths != {len(messages)}:
        return iter(())
    kinds = {name: name for name in names}  # few are different, and one of each is enough
    return value_nodes(map(kinds.__getitem__, names), full_names, keys)


def _decode_object(data: bytes, number: int, count: int) -> Node:
    from estimator_ckpt.bundle.protos import TrackableObject

    message = TrackableObject.FromString(data)
    names, ids = _decode_children(data, message.children)
    if min(ids, default=0) < 0 or max(ids, default=0) >= count:
        place = next(n for n, node_id in enumerate(ids) if not 0 <= node_id < count)
        raise CorruptCheckpointError(
            f"node {number} has a child {names[place]!r} that is node {ids[place]}, of {count}"
        )
    children = dict(zip(names, ids))
    if len(children) < len(names):
        for name, node_id in zip(names, ids):
            if children[name] != node_id:
                raise CorruptCheckpointError(f"node {number} has two children named {name!r}")
    slots = tuple(
        SlotReference(s.slot_name, s.original_variable_node_id, s.slot_variable_node_id)
        for s in message.slot_variables[:]
    )
    for s in slots:
        if not (0 <= s.original < count and 0 <= s.slot < count):
            raise CorruptCheckpointError(
                f"node {number} has a slot {s.slot_name!r} of node {s.original} in node {s.slot}, "
                f"of {count}"
            )
    attributes = tuple(
        Attribute(a.name, a.full_name, a.checkpoint_key) for a in message.attributes[:]
    )
    saver = None
    if message.HasField("registered_saver"):
        saver = (message.registered_saver.name, message.registered_saver.object_name)
    return Node(children, attributes, slots, saver)


def _decode_children(data: bytes, children: Any) -> tuple[Sequence[str], Sequence[int]]:
    """The names and node ids of an object's children; `children` are their messages."""
    from estimator_ckpt.bundle.protos import MergedObjects

    merged = MergedObjects.FromString(data).children
    names, ids = merged.local_name[:], merged.node_id[:]
    if len(names) == len(ids) == len(children):
        return names, ids
    # An empty name and node 0 are not written, so these do not belong together.
    return [child.local_name for child in children], [child.node_id for child in children]


def encode_graph(nodes: Sequence[Node]) -> bytes:
    """The serialized graph of these objects, with has_checkpoint_values filled in."""
    from estimator_ckpt.bundle.protos import TrackableObjectGraph

    with_values = nodes_with_values(nodes)
    objects = []
    for number, node in enumerate(nodes):
        attributes = node.attributes
        if len(attributes) == 1 and not (node.children or node.slots or node.registered_saver):
            name, full_name, key = attributes[0]
            if name == VARIABLE_VALUE and full_name and key:
                objects.append(_encode_variable(full_name.encode(), key.encode()))
                continue
        objects.append(_encode_object(node, number in with_values or _has_value(node)))
    data: bytes = TrackableObjectGraph(nodes=objects).SerializeToString()
    return data


def _encode_variable(full_name: bytes, key: bytes) -> bytes:
    full_length, key_length = encode_varint(len(full_name)), encode_varint(len(key))
    value = b"%b\x12%b%b\x1a%b%b" % (_VALUE, full_length, full_name, key_length, key)
    return b"\x12%b%b%b" % (encode_varint(len(value)), value, _HAS_VALUES)


def _encode_object(node: Node, has_values: bool) -> bytes:
    from estimator_ckpt.bundle.protos import TrackableObject

    message = TrackableObject()
    for local_name, child in node.children.items():
        message.children.add(node_id=child, local_name=local_name)
    for a in node.attributes:
        message.attributes.add(name=a.name, full_name=a.full_name, checkpoint_key=a.checkpoint_key)
    for s in node.slots:
        message.slot_variables.add(
            slot_name=s.slot_name,
            original_variable_node_id=s.original,
            slot_variable_node_id=s.slot,
        )
    if node.registered_saver is not None:
        saver = message.registered_saver
        saver.name, saver.object_name = node.registered_saver
    message.has_checkpoint_values.value = has_values
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def nodes_with_values(nodes: Sequence[Node]) -> set[int]:
    """The objects with children from which edges lead to a value."""
    parents: dict[int, list[int]] = {}
    waiting = []
    for number, node in enumerate(nodes):
        if not node.children:
            continue
        children = [nodes[child] for child in node.children.values()]
        for child_number, child in zip(node.children.values(), children):
            if child.children:
                parents.setdefault(child_number, []).append(number)
        if any(map(_has_value, (node, *children))):
            waiting.append(number)
    found = set(waiting)
    while waiting:
        for parent in parents.get(waiting.pop(), ()):
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return found


def _has_value(node: Node) -> bool:
    return bool(node.attributes or node.slots or node.registered_saver)
