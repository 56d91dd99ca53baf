"""The bytes of an object graph: objects to and from a TrackableObjectGraph message.

Source: tensorflow/core/protobuf/trackable_object_graph.proto.

    graph     = (0x0a, length, object)*
    variable  = 0x12, length, attribute, 0x2a 0x02 0x08 0x01
    attribute = 0x0a 0x0e "VARIABLE_VALUE", 0x12, length, full name, 0x1a, length, checkpoint key

Lengths are varints; a full name that is empty is left out with its tag and length. An object that
is a variable and nothing else, as nearly all of a large graph are, is written and read as it stands
above, several times as fast as by protobuf, which does all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from estimator_ckpt.bundle.coding import encode_varint
from estimator_ckpt.errors import CorruptCheckpointError

VARIABLE_VALUE = "VARIABLE_VALUE"

_ATTRIBUTE, _FULL_NAME, _KEY = 0x12, 0x12, 0x1A  # tags of fields with a length
_VALUE = b"\x0a\x0e" + VARIABLE_VALUE.encode()
_HAS_VALUES = b"\x2a\x02\x08\x01"


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


@dataclass
class Node:
    """One object: its children by local name, its values, its slots if it is an optimizer."""

    children: dict[str, int] = field(default_factory=dict)
    attributes: list[Attribute] = field(default_factory=list)
    slots: list[SlotReference] = field(default_factory=list)
    registered_saver: tuple[str, str] | None = None


def decode_graph(data: bytes) -> Iterator[Node]:
    """The objects of a serialized graph.

    Raises:
      CorruptCheckpointError: not such a message, or one that names nodes it does not have or has
        two children of one name.
    """
    from google.protobuf.message import DecodeError

    from estimator_ckpt.bundle.protos import TrackableObjectGraph

    try:
        objects = TrackableObjectGraph.FromString(data).nodes
        if not objects:
            raise CorruptCheckpointError("an object graph without a root")
        count = len(objects)
        for number, message in enumerate(objects):
            variable = _decode_variable(message)
            yield Node({}, [variable]) if variable else _decode_object(message, number, count)
    except DecodeError as error:
        raise CorruptCheckpointError(f"not a TrackableObjectGraph message: {error}") from None


def _decode_variable(data: bytes) -> Attribute | None:
    """The value of an object that is a variable and nothing else, written as above; else None."""
    end = len(data) - len(_HAS_VALUES)
    if end < 2 or data[0] != _ATTRIBUTE or not data.endswith(_HAS_VALUES):
        return None
    length, position = _length(data, 1)
    if position + length != end or not data.startswith(_VALUE, position):
        return None
    position += len(_VALUE)
    full_name = b""
    if data[position] == _FULL_NAME:
        length, position = _length(data, position + 1)
        full_name = data[position : position + length]
        position += length
    if position >= end or data[position] != _KEY:
        return None
    length, position = _length(data, position + 1)
    if position + length != end:
        return None
    try:
        return Attribute(VARIABLE_VALUE, full_name.decode(), data[position:end].decode())
    except UnicodeDecodeError:
        return None


def _length(data: bytes, position: int) -> tuple[int, int]:
    """A varint of one byte or two, and where it ends; of a longer one no length that fits."""
    low = data[position]
    if low < 0x80:
        return low, position + 1
    high = data[position + 1]
    return (low & 0x7F | high << 7, position + 2) if high < 0x80 else (len(data), position)


def _decode_object(data: bytes, number: int, count: int) -> Node:
    from estimator_ckpt.bundle.protos import TrackableObject

    message = TrackableObject.FromString(data)
    children: dict[str, int] = {}
    for child in message.children[:]:  # protobuf's own iterator takes several times as long to end
        name, node_id = child.local_name, child.node_id
        if not 0 <= node_id < count:
            raise CorruptCheckpointError(
                f"node {number} has a child {name!r} that is node {node_id}, of {count}"
            )
        if children.setdefault(name, node_id) != node_id:
            raise CorruptCheckpointError(f"node {number} has two children named {name!r}")
    slots = [
        SlotReference(s.slot_name, s.original_variable_node_id, s.slot_variable_node_id)
        for s in message.slot_variables[:]
    ]
    for s in slots:
        if not (0 <= s.original < count and 0 <= s.slot < count):
            raise CorruptCheckpointError(
                f"node {number} has a slot {s.slot_name!r} of node {s.original} in node {s.slot}, "
                f"of {count}"
            )
    attributes = [Attribute(a.name, a.full_name, a.checkpoint_key) for a in message.attributes[:]]
    saver = None
    if message.HasField("registered_saver"):
        saver = (message.registered_saver.name, message.registered_saver.object_name)
    return Node(children, attributes, slots, saver)


def encode_graph(nodes: Sequence[Node]) -> bytes:
    """The serialized graph of these objects, with has_checkpoint_values filled in."""
    from estimator_ckpt.bundle.protos import TrackableObjectGraph

    with_values = _with_values(nodes)
    objects = []
    for number, node in enumerate(nodes):
        attributes = node.attributes
        if len(attributes) == 1 and not (node.children or node.slots or node.registered_saver):
            name, full_name, key = attributes[0]
            if name == VARIABLE_VALUE and full_name and key:
                objects.append(_encode_variable(full_name.encode(), key.encode()))
                continue
        objects.append(_encode_object(node, number in with_values))
    data: bytes = TrackableObjectGraph(nodes=objects).SerializeToString()
    return data


def _encode_variable(full_name: bytes, key: bytes) -> bytes:
    fields = (_VALUE, b"\x12", encode_varint(len(full_name)), full_name)
    value = b"".join((*fields, b"\x1a", encode_varint(len(key)), key))
    return b"".join((b"\x12", encode_varint(len(value)), value, _HAS_VALUES))


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


def _with_values(nodes: Sequence[Node]) -> set[int]:
    """The objects from which edges lead to a value."""
    parents: dict[int, list[int]] = {}
    for number, node in enumerate(nodes):
        for child in node.children.values():
            parents.setdefault(child, []).append(number)
    waiting = [
        number
        for number, node in enumerate(nodes)
        if node.attributes or node.slots or node.registered_saver
    ]
    found = set(waiting)
    while waiting:
        for parent in parents.get(waiting.pop(), ()):
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return found
