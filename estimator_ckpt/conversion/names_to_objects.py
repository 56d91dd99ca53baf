"""Names to objects: the object graph for the tensors of a checkpoint, and their keys in it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import compress
from operator import attrgetter
from typing import NamedTuple

from estimator_ckpt.conversion.objects_to_names import lookup_tables
from estimator_ckpt.conversion.plan import INT64, Item, number_content
from estimator_ckpt.errors import ConflictError, UnsupportedCheckpointError
from estimator_ckpt.objects.message import VARIABLE_VALUE, nodes_with_values
from estimator_ckpt.objects.nodes import Attribute, Node, Nodes, SlotReference
from estimator_ckpt.objects.object_graph import (
    OBJECT_CONFIG,
    SAVE_COUNTER,
    STEP,
    VAR_LIST,
    ObjectGraph,
    ObjectPath,
    object_key,
    path_string,
    slot_path,
)
from estimator_ckpt.reading.object_tensors import names_in_var_list

LAYOUTS = ("var_list", "scopes")
TABLE = "table"
_ATTRIBUTES = ".ATTRIBUTES"
# What nearly all items of `var_list` are: variables, with keys that their names say.
_fields = attrgetter("in_objects", "slot", "place", "attribute", "suffix", "tail")
_PLAIN = (True, None, None, VARIABLE_VALUE, "", "")


class Structure(NamedTuple):
    """Items with their objects.

    Attributes:
      items: those that were given, and what the structure itself needs.
      keys: the object key of each; None for those without an object.
      graph: the object graph; None for the source's, unchanged.
      notes: what is to be said of it.
    """

    items: list[Item]
    keys: list[str | None]
    graph: ObjectGraph | None
    notes: Sequence[str] = ()


def save_counter_item() -> Item:
    """What `tf.train.Checkpoint.restore` wants to find, and no name-based checkpoint has."""
    why = "wanted by tf.train.Checkpoint"
    content = number_content(0, INT64)
    return Item(content, SAVE_COUNTER, why, place=(SAVE_COUNTER,), in_names=False)


def new_structure(items: list[Item], layout: str, step: int | None) -> Structure:
    """The objects of a layout: "var_list", one child for each name; or "scopes", a tree of them.

    The root has a second edge `step` to the global step, and a `save_counter`.

    Args:
      items: named; those with a place or a slot go there.
      layout: one of LAYOUTS.
      step: which item is the global step.

    Raises:
      ConflictError: two values would be the same value of one object.
      UnsupportedCheckpointError: a name that is no UTF-8, which an object graph cannot hold.
    """
    _check_text(items)
    path_of: Callable[[str], ObjectPath] = _in_var_list if layout == VAR_LIST else _in_scopes
    if (SAVE_COUNTER,) not in map(attrgetter("place"), items):
        items = [*items, save_counter_item()]
    tables = lookup_tables([item for item in items if item.node < 0])
    builder = _Builder()
    keys: list[str | None] = [None] * len(items)
    slots: list[int] = []
    if layout == VAR_LIST:
        # Nearly all are in there, by names of their own, and nothing else.
        plain = {
            item.name: number
            for number, item in compress(enumerate(items), map(_PLAIN.__eq__, map(_fields, items)))
            if _ATTRIBUTES not in item.name and item.name not in tables
        }
        var_list = builder.node((VAR_LIST,))
        for number, key in zip(
            plain.values(), builder.graph.add_variables(var_list, VAR_LIST, list(plain))
        ):
            keys[number] = key
    for number in [number for number, key in enumerate(keys) if key is None]:
        item = items[number]
        if not item.in_objects:
            continue
        if item.slot is not None:
            slots.append(number)
            continue
        owner, suffix, attribute = item.owner, item.suffix, item.attribute
        if tables and item.name in tables:
            owner, suffix = tables[item.name]
            attribute = TABLE
        keys[number] = builder.put(item.place or path_of(owner), attribute, owner) + suffix
    if slots:
        paths = {item.name: item.place or path_of(item.owner) for item in items}
        for number in slots:
            keys[number] = builder.put_slot(items[number], paths)
        builder.put_references()
    root = builder.graph.nodes[0]
    if step is not None and STEP not in root.children and keys[step] is not None:
        owner = items[step].owner
        builder.graph.link(0, STEP, builder.node(items[step].place or path_of(owner)))
    return Structure(items, keys, builder.graph)


def _in_var_list(name: str) -> ObjectPath:
    return (VAR_LIST, name)


def _in_scopes(name: str) -> ObjectPath:
    path = tuple(name.split("/"))
    if len(path) > 1 and path[0] == VAR_LIST:
        raise ConflictError(
            "a scope of this name would be read as a list of variables by their names; rename it, "
            "or take the layout 'var_list'",
            key=name,
        )
    return path


def _check_text(items: list[Item]) -> None:
    try:
        "".join(map(attrgetter("name"), items)).encode()
    except UnicodeEncodeError as error:
        wrong = next(item.name for item in items if error.object[error.start] in item.name)
        raise UnsupportedCheckpointError(
            "a name that is no UTF-8 cannot stand in an object graph; rename it or leave it out",
            key=wrong,
        ) from None


class _Builder:
    """An object graph that grows by object paths."""

    def __init__(self) -> None:
        self.graph = ObjectGraph()
        self._slots: dict[int, list[SlotReference]] = {}

    def node(self, path: ObjectPath) -> int:
        """The object at a path, made if it is not there."""
        found = 0
        for name in path:
            child = self.graph.nodes[found].children.get(name)
            found = self.graph.add(found, name) if child is None else child
        return found

    def put(self, path: ObjectPath, attribute: str, full_name: str) -> str:
        """Gives an object a value; returns its key, or the start of its keys."""
        number = self.node(path)
        node = self.graph.nodes[number]
        for there in node.attributes:
            if there.name == attribute:
                if attribute == TABLE and there.full_name == full_name:
                    return there.checkpoint_key
                raise ConflictError(
                    f"{there.full_name!r} and {full_name!r} would both be the value of one object",
                    key=path_string(path),
                )
        key = _prefix(path) + _key_end(attribute)
        added = Attribute(attribute, full_name, key)
        self.graph.nodes[number] = node._replace(attributes=(*node.attributes, added))
        return key

    def put_slot(self, item: Item, paths: Mapping[str, ObjectPath]) -> str:
        """Adds an optimizer's slot; no edge leads to it, as none does in TensorFlow's own."""
        slot = item.slot
        assert slot is not None
        variable = paths[slot.of]
        slots = self._slots.setdefault(self.node(slot.optimizer), [])
        place = slot_path(_prefix(variable), path_string(slot.optimizer), slot.name)
        key = object_key(place)
        original = self.node(variable)
        self.graph.nodes.append(Node({}, (Attribute(item.attribute, item.name, key),)))
        slots.append(SlotReference(slot.name, original, len(self.graph.nodes) - 1))
        return key

    def put_references(self) -> None:
        """Makes the slots that were added those of their optimizers."""
        for number, slots in self._slots.items():
            self.graph.nodes[number] = self.graph.nodes[number]._replace(slots=tuple(slots))


@functools.lru_cache(maxsize=100)
def _key_end(attribute: str) -> str:
    return object_key("", attribute)


def _prefix(path: ObjectPath) -> str:
    """What an object's keys begin with: its path, or any other text that is the object's alone.

    TensorFlow cuts a key at its first `.ATTRIBUTES/`, so that may not be in there before. `.T` is
    no escape, so no other path has it.
    """
    text = path_string(path)
    if "..ATTRIBUTES" in text and "..ATTRIBUTES/" in f"{text}/":
        return text.replace("..ATTRIBUTES", "...TATTRIBUTES")
    return text


def kept_structure(
    items: list[Item], graph: ObjectGraph, *, drop_configs: bool = False
) -> Structure:
    """The source's own objects, without what was left out, with the names that rules changed.

    Args:
      items: of the result.
      graph: of the source.
      drop_configs: leave out what tells the objects' classes (OBJECT_CONFIG), too.

    Raises:
      ConflictError: one tensor under two names: it has but one object; or a new name for one that
        is in `var_list`.
    """
    keys: list[str | None] = []
    names: dict[tuple[int, str], str] = {}
    seen: dict[str, str] = {}
    in_var_list = names_in_var_list(graph)
    for item in items:
        if (
            item.renamed
            and item.in_objects
            and item.owner not in in_var_list.get(item.node, [item.owner])
        ):
            raise ConflictError(
                f"a rule calls it {item.owner!r}, but the objects that are kept have it in "
                "var_list under its old name, by which readers would go on finding it; ask for "
                "the layout 'var_list', which is made anew",
                key=item.content.source,
            )
        key = item.own_key if item.in_objects else None
        if item.node < 0 and item.renamed:
            key = item.name  # no object has it: its name is its key
        if key is not None:
            if seen.setdefault(key, item.name) != item.name:
                raise ConflictError(
                    f"it would be both {seen[key]!r} and {item.name!r}, but has one object; ask "
                    "for another layout",
                    key=key,
                )
            if item.node >= 0:
                names[item.node, item.attribute] = item.owner if item.renamed else ""
        keys.append(key)
    given = {name for name in names.values() if name}
    for item in items if given else ():
        place = (item.node, item.attribute)
        # Of two with one full name readers by names take the last.
        if names.get(place) == "" and any(
            a.full_name in given for a in graph.nodes[item.node].attributes
        ):
            names[place] = item.owner
    if not drop_configs:
        names.update(
            ((number, OBJECT_CONFIG), "")
            for number, node in graph.nodes.others.items()
            if any(a.name == OBJECT_CONFIG for a in node.attributes)
        )
        names.update(
            ((number, OBJECT_CONFIG), "")
            for number, name in enumerate(graph.nodes.names)
            if name == OBJECT_CONFIG
        )
    kept = pruned(graph, names)
    return Structure(items, keys, None if kept.nodes == graph.nodes else kept)


def pruned(graph: ObjectGraph, names: Mapping[tuple[int, str], str]) -> ObjectGraph:
    """The same objects with some of their values.

    No edge leads to an object that has lost all of its values: a reader's variable that finds an
    object there counts as restored, whether that has a value or not.

    Args:
      graph: is not changed.
      names: by object and attribute the values that stay, each with a new full name, or "".

    Raises:
      ConflictError: an object that has lost its values has others below that keep theirs, and they
        can be reached only through it.
    """
    nodes = Nodes(
        Node(
            node.children,
            tuple(
                Attribute(a.name, names[number, a.name] or a.full_name, a.checkpoint_key)
                for a in node.attributes
                if (number, a.name) in names
            ),
            node.slots,
            node.registered_saver,
        )
        for number, node in enumerate(graph.nodes)
    )
    lost = {
        number
        for number, (before, after) in enumerate(zip(graph.nodes, nodes))
        if len(_values(before)) and not _values(after)
    }
    if not lost:
        return ObjectGraph(nodes)
    for number, node in enumerate(nodes):
        if node.slots:
            slots = tuple(slot for slot in node.slots if nodes[slot.slot].attributes)
            nodes[number] = node._replace(slots=slots)
    with_values = nodes_with_values(nodes)
    for number in lost:
        if number not in with_values and not nodes[number].slots:
            continue
        raise _below_what_is_left_out(path_string(graph.paths().get(number, ())))
    for number, node in enumerate(nodes):
        if not lost.isdisjoint(node.children.values()):
            children = {name: one for name, one in node.children.items() if one not in lost}
            nodes[number] = node._replace(children=children)
    return ObjectGraph(nodes)


def _values(node: Node) -> list[Attribute]:
    return [a for a in node.attributes if a.name != OBJECT_CONFIG]


def check_scopes(left_out: Iterable[str], graph: ObjectGraph) -> None:
    """Raises ConflictError where what is left out is a scope of what stays.

    The scope is an object, which a reader's variable would find in its place.
    """
    for name in left_out:
        number = graph.child_at(name.split("/"))
        if number and not graph.nodes[number].attributes:
            raise _below_what_is_left_out(name)


def _below_what_is_left_out(place: str) -> ConflictError:
    return ConflictError(
        "it is left out, but others below it stay, so that a reader's variable would find an "
        "object here without a value, and count as restored; leave them out, too, or ask for the "
        "layout 'var_list'",
        key=place,
    )
