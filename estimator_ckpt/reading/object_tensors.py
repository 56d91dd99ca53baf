"""The tensors of an object graph, by their keys in the index."""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property, partial
from typing import NamedTuple

from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index
from estimator_ckpt.bundle.slices import decode_keys, encode_keys, key_bytes
from estimator_ckpt.formats import RESETS_KEY
from estimator_ckpt.objects.message import VARIABLE_VALUE
from estimator_ckpt.objects.object_graph import (
    OBJECT_CONFIG,
    OBJECT_GRAPH_KEY,
    VAR_LIST,
    ObjectGraph,
    escape,
    object_key,
)

# Keys of an index that no variable can have.
NO_VARIABLES = (OBJECT_GRAPH_KEY, RESETS_KEY)


class Entries:
    """The entries of an index that are tensors: not the slices, nor what tells of objects alone.

    Attributes:
      configs: the keys of what objects are (OBJECT_CONFIG), which are no variables.
    """

    def __init__(self, index: Index) -> None:
        self._by_bytes = index.entries
        self._others = set(decode_keys([key for key in index.entries if key[:1] == b"\0"]))
        self._others.update(key for key in NO_VARIABLES if key_bytes(key) in index.entries)
        end = key_bytes(object_key("", OBJECT_CONFIG))
        self.configs = list(decode_keys([key for key in index.entries if key.endswith(end)]))
        self._others.update(self.configs)

    def __len__(self) -> int:
        return len(self._by_bytes) - len(self._others)

    @cached_property
    def by_key(self) -> dict[str, Entry]:
        """The entries by the texts of their keys; of most object graphs a listing does without."""
        found = dict(zip(decode_keys(self._by_bytes), self._by_bytes.values()))
        for key in self._others:
            del found[key]
        return found

    def find(self, keys: Collection[str]) -> list[Entry | None]:
        """The entry of each key, as far as there is one."""
        found = list(map(self._by_bytes.get, encode_keys(keys)))
        if not self._others.isdisjoint(keys):
            found = [None if key in self._others else entry for key, entry in zip(keys, found)]
        return found


class GraphTensor(NamedTuple):
    """A tensor that the object graph names.

    Attributes:
      key: in the index.
      node: its object.
      suffix: what tells it from the object's other tensors: "", `-keys`, `/ATTRIBUTE`.
      full_name: the name in the graph that it was saved from, or "".
    """

    key: str
    node: int
    suffix: str
    full_name: str


_make_tensor = partial(tuple.__new__, GraphTensor)


def graph_tensors(
    graph: ObjectGraph, keys: Collection[str], objects: Iterable[int] | None = None
) -> dict[str, GraphTensor]:
    """The tensors of objects by their keys, as far as these are among `keys`.

    An attribute's checkpoint_key is a key, or the start of several: `...table` stands for
    `...table-keys` and `...table-values`.

    Args:
      graph: of the objects.
      keys: of the index.
      objects: the node ids, or None for all objects. Of two with one key the first has it.
    """
    found: dict[str, GraphTensor] = {}
    ordered: list[str] = []
    nodes = graph.nodes
    for node in range(len(nodes)) if objects is None else objects:
        start = nodes.keys[node]
        if start in keys:
            found.setdefault(start, _make_tensor((start, node, "", nodes.full_names[node])))
            continue
        attributes = nodes[node].attributes
        for attribute, full_name, start in attributes:
            own = ""
            if attribute != VARIABLE_VALUE and len(attributes) > 1:
                own = f"/{escape(attribute)}"
            if start in keys:
                found.setdefault(start, GraphTensor(start, node, own, full_name))
                continue
            ordered = ordered or sorted(keys)
            for suffix in _suffixes(start, ordered):
                key = start + suffix
                if key not in found:
                    found[key] = GraphTensor(key, node, own + suffix, full_name)
    return found


def _suffixes(start: str, ordered: list[str]) -> list[str]:
    """What the keys that begin with `start` go on with: `-keys`, `_STATE`, but not `2`."""
    found = []
    for index in range(bisect.bisect_left(ordered, start), len(ordered)):
        if not ordered[index].startswith(start):
            break
        suffix = ordered[index][len(start) :]
        if start.endswith("/") or suffix[0] in "-_":
            found.append(suffix)
    return found


def var_list_of(graph: ObjectGraph) -> Mapping[str, int]:
    """The children of `var_list` at the root: variable name -> object."""
    node = graph.child_at((VAR_LIST,))
    return {} if node is None else graph.nodes[node].children


def names_in_var_list(graph: ObjectGraph) -> dict[int, tuple[str, ...]]:
    """The variable names by the object that they stand for."""
    children = var_list_of(graph)
    names: dict[int, tuple[str, ...]] = dict(zip(children.values(), zip(children)))
    if len(names) < len(children):
        names = {}
        for name, node in children.items():
            names[node] = (*names.get(node, ()), name)
    return names
