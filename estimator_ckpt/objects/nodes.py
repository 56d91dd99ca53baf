"""The objects of an object graph, one by one and by columns.

Nearly all objects of a large graph are one value and nothing else. Nodes keeps these by columns and
makes a Node of one only where it is asked for: a million of them take a second to make.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from types import MappingProxyType
from typing import NamedTuple

from estimator_ckpt.bulk import from_columns


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

    @property
    def has_value(self) -> bool:
        """Whether something is saved of the object itself."""
        return bool(self.attributes or self.slots or self.registered_saver)


_EMPTY = Node()
NO_VALUE = ("", "", "")  # in the columns of Nodes, of an object that has none, or several


class Nodes:
    """Objects by node id: as good as a list of them, of which none is ever taken out.

    Attributes:
      names, full_names, keys: the fields of the attribute of each object that has just one; empty
        strings for the other objects.
      others: the objects that are more than one value, or less, by node id.
    """

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        self.names: list[str] = []
        self.full_names: list[str] = []
        self.keys: list[str] = []
        self.others: dict[int, Node] = {}
        if isinstance(nodes, Nodes):
            self.extend_values(nodes.names, nodes.full_names, nodes.keys)
            self.others.update(nodes.others)
        else:
            for node in nodes:
                self.append(node)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int) -> Node:
        node = self.others.get(number)
        if node is not None:
            return node
        value = Attribute(self.names[number], self.full_names[number], self.keys[number])
        return Node(attributes=(value,))

    def __iter__(self) -> Iterator[Node]:
        attributes = from_columns(Attribute, self.names, self.full_names, self.keys)
        made = from_columns(Node, repeat(_EMPTY.children), zip(attributes))
        return map(self.others.get, range(len(self)), made)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Nodes, list)) and list(self) == list(other)

    def __setitem__(self, number: int, node: Node) -> None:
        children, attributes, slots, registered_saver = node
        value = attributes[0] if len(attributes) == 1 else NO_VALUE
        self.names[number], self.full_names[number], self.keys[number] = value
        if value is NO_VALUE or children or slots or registered_saver:
            self.others[number] = node
        else:
            self.others.pop(number, None)

    def append(self, node: Node) -> None:
        """One object more."""
        for column in (self.names, self.full_names, self.keys):
            column.append("")
        self[len(self) - 1] = node

    def extend_values(
        self, names: Iterable[str], full_names: Iterable[str], keys: Iterable[str]
    ) -> None:
        """More objects with one value each and nothing else, given by equally long columns."""
        self.names.extend(names)
        self.full_names.extend(full_names)
        self.keys.extend(keys)

    def children(self, number: int) -> Mapping[str, int]:
        """The children of an object."""
        return self.others.get(number, _EMPTY).children
