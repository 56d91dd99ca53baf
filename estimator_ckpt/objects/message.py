"""The bytes of an object graph: objects to and from a TrackableObjectGraph message.

Source: tensorflow/core/protobuf/trackable_object_graph.proto.

    graph     = (0x0a, length, object)*
    variable  = 0x12, length, attribute, 0x2a 0x02 0x08 0x01
    attribute = 0x0a 0x0e "VARIABLE_VALUE", 0x12, length, full name, 0x1a, length, checkpoint key

Lengths are varints; a full name that is empty is left out with its tag and length. Nearly all
objects of a large graph are a variable and nothing else. They are written as it stands above, the
others by protobuf one by one. All are read many at once, but for those with slots or a saver.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress, islice, repeat
from typing import Any

from estimator_ckpt.bundle.coding import encode_size
from estimator_ckpt.errors import CorruptCheckpointError
from estimator_ckpt.objects.nodes import NO_VALUE, Attribute, Node, Nodes, SlotReference

VARIABLE_VALUE = "VARIABLE_VALUE"

_WITH_ATTRIBUTE = b"\x12"  # how an object begins that has an attribute and no children
_VALUE = b"\x0a\x0e" + VARIABLE_VALUE.encode()
_HAS_VALUES = b"\x2a\x02\x08\x01"
_AT_ONCE = 4096


def decode_graph(data: bytes) -> Nodes:
    """The objects of a serialized graph.

    Raises:
      CorruptCheckpointError: not such a message, or one that names nodes it does not have or has
        two children of one name.
    """
    from google.protobuf.message import DecodeError

    from estimator_ckpt.bundle.protos import TrackableObjectGraph

    nodes = Nodes()
    try:
        objects = TrackableObjectGraph.FromString(data).nodes
        if not objects:
            raise CorruptCheckpointError("an object graph without a root")
        for start in range(0, len(objects), _AT_ONCE):
            messages = objects[start : start + _AT_ONCE]
            is_value = [message[:1] == _WITH_ATTRIBUTE for message in messages]
            values = _decode_values(list(compress(messages, is_value)))
            if len(values) == len(messages):
                nodes.extend_values(values.names, values.full_names, values.keys)
                continue
            if not len(values):
                is_value = [False] * len(messages)
            rows = zip(values.names, values.full_names, values.keys)
            nodes.extend_values(*zip(*(next(rows) if one else NO_VALUE for one in is_value)))
            numbers = [number for number, one in enumerate(is_value, start) if not one]
            others = [messages[number - start] for number in numbers]
            decoded = _decode_objects(others, len(objects))
            for number, message, node in zip(numbers, others, decoded):
                nodes[number] = node or _decode_object(message, number, len(objects))
    except DecodeError as error:
        raise CorruptCheckpointError(f"not a TrackableObjectGraph message: {error}") from None
    return nodes


def _decode_values(messages: Sequence[bytes]) -> Nodes:
    """Objects that are one value and nothing else; none where one of them is more, or unsound.

    Messages one behind the other are one message to a protobuf parser, in which what should be
    there once is merged: of all the attributes it makes one that has all their names, in order. A
    million take 1.9 s so, and 4.5 s one by one.
    """
    from google.protobuf.message import DecodeError

    from estimator_ckpt.bundle.protos import MergedObjects, ObjectParts

    nodes = Nodes()
    data = b"".join(messages)
    try:
        parts = ObjectParts.FromString(data)
        merged = MergedObjects.FromString(data).attributes
    except DecodeError:
        return nodes
    names, keys = merged.name[:], merged.checkpoint_key[:]
    full_names = merged.full_name[:] or [""] * len(messages)
    lengths = {len(column) for column in (parts.attributes, names, full_names, keys)}
    more = parts.children or parts.slot_variables or parts.registered_saver
    if not more and lengths == {len(messages)}:
        kinds = dict(zip(names, names))  # few are different, and one of each is enough
        nodes.extend_values(map(kinds.__getitem__, names), full_names, keys)
    return nodes


def _decode_objects(messages: Sequence[bytes], count: int) -> Iterable[Node | None]:
    """Objects out of `count`; None for those with slots or a saver, for all if one is unsound."""
    from estimator_ckpt.bundle.protos import MergedObjects, ObjectParts

    is_plain, child_counts, value_counts = [], [], []
    for parts in map(ObjectParts.FromString, messages):
        is_plain.append(not (parts.slot_variables or parts.registered_saver))
        if is_plain[-1]:
            child_counts.append(len(parts.children))
            value_counts.append(len(parts.attributes))
    merged = MergedObjects.FromString(b"".join(compress(messages, is_plain)))
    local_names, ids = merged.children.local_name[:], merged.children.node_id[:]
    values = merged.attributes
    names, full_names, keys = values.name[:], values.full_name[:], values.checkpoint_key[:]
    full_names = full_names or [""] * len(names)
    edges, attributes = zip(local_names, ids), map(Attribute, names, full_names, keys)
    children = [dict(islice(edges, number)) for number in child_counts]
    if (
        {len(local_names), len(ids)} != {sum(child_counts)}
        or {len(names), len(full_names), len(keys)} != {sum(value_counts)}
        or not 0 <= min(ids, default=0) <= max(ids, default=0) < count
        or list(map(len, children)) != child_counts
    ):
        return repeat(None)
    plain = map(Node, children, (tuple(islice(attributes, number)) for number in value_counts))
    return (next(plain) if one else None for one in is_plain)


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


def encode_graph(nodes: Nodes) -> bytes:
    """The serialized graph of these objects, with has_checkpoint_values filled in."""
    with_values = nodes_with_values(nodes)
    others = nodes.others
    data = bytearray()  # one piece of memory, where a list of objects would be a million
    for number, (name, full_name, key) in enumerate(zip(nodes.names, nodes.full_names, nodes.keys)):
        if name == VARIABLE_VALUE and full_name and key and number not in others:
            full, start = full_name.encode(), key.encode()
            sizes = encode_size(len(full)), encode_size(len(start))
            attribute = b"%b\x12%b%b\x1a%b%b" % (_VALUE, sizes[0], full, sizes[1], start)
            size = encode_size(len(attribute))
            length = encode_size(1 + len(size) + len(attribute) + len(_HAS_VALUES))
            data += b"\x0a%b\x12%b%b%b" % (length, size, attribute, _HAS_VALUES)
        else:
            node = nodes[number]
            message = _encode_object(node, number in with_values or node.has_value)
            data += b"\x0a%b%b" % (encode_size(len(message)), message)
    return bytes(data)


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


def nodes_with_values(nodes: Nodes) -> set[int]:
    """The objects with children from which edges lead to a value."""
    parents: dict[int, list[int]] = {}
    waiting = []
    for number, node in nodes.others.items():
        if not node.children:
            continue
        children = list(map(nodes.others.get, node.children.values()))
        for child_number, child in zip(node.children.values(), children):
            if child is not None and child.children:
                parents.setdefault(child_number, []).append(number)
        if node.has_value or any(child is None or child.has_value for child in children):
            waiting.append(number)
    found = set(waiting)
    while waiting:
        for parent in parents.get(waiting.pop(), ()):
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return found
