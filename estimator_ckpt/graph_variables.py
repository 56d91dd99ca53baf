"""The tensors of an object graph: their keys, and what a person and a Saver call them."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

from estimator_ckpt.bundle.index import Entry, Index, same_tensor
from estimator_ckpt.object_graph import (
    SAVE_COUNTER,
    VAR_LIST,
    VARIABLE_VALUE,
    ObjectGraph,
    escape,
    object_key,
)


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


class Named(NamedTuple):
    """Variables by columns, in any order: there may be a million.

    Attributes:
      names: each once.
      keys: all that a variable has, the one that counts first.
      places: the object paths; None where no object has it.
    """

    names: list[str]
    keys: list[tuple[str, ...]]
    places: list[str | None]

    def add(self, name: str, keys: tuple[str, ...], place: str | None) -> None:
        self.names.append(name)
        self.keys.append(keys)
        self.places.append(place)


def graph_tensors(
    graph: ObjectGraph, keys: Collection[str], *, but: Collection[int] = ()
) -> dict[str, GraphTensor]:
    """The tensors of all objects by their keys, as far as these are among `keys`.

    An attribute's checkpoint_key is a key, or the start of several: `...table` stands for
    `...table-keys` and `...table-values`.

    Args:
      graph: the objects.
      keys: of the index.
      but: objects to pass over.
    """
    found: dict[str, GraphTensor] = {}
    ordered: list[str] = []
    for number, node in enumerate(graph.nodes):
        if not node.attributes or number in but:
            continue
        for attribute, full_name, start in node.attributes:
            own = ""
            if attribute != VARIABLE_VALUE and len(node.attributes) > 1:
                own = f"/{escape(attribute)}"
            if start in keys:
                if start not in found:
                    found[start] = GraphTensor(start, number, own, full_name)
                continue
            ordered = ordered or sorted(keys)
            for suffix in _suffixes(start, ordered):
                key = start + suffix
                if key not in found:
                    found[key] = GraphTensor(key, number, own + suffix, full_name)
    return found


def _suffixes(start: str, ordered: list[str]) -> list[str]:
    """What the keys that begin with `start` go on with: `-keys`, `_STATE`, but not `2`."""
    found = []
    for place in range(bisect.bisect_left(ordered, start), len(ordered)):
        if not ordered[place].startswith(start):
            break
        suffix = ordered[place][len(start) :]
        if start.endswith("/") or suffix[0] in "-_":
            found.append(suffix)
    return found


def _var_list(graph: ObjectGraph) -> Mapping[str, int]:
    number = graph.child_at((VAR_LIST,))
    return {} if number is None else graph.nodes[number].children


def names_in_var_list(graph: ObjectGraph) -> dict[int, tuple[str, ...]]:
    """The variable names by the object that they stand for."""
    children = _var_list(graph)
    names: dict[int, tuple[str, ...]] = dict(zip(children.values(), zip(children)))
    if len(names) < len(children):
        names = {}
        for name, node in children.items():
            names[node] = (*names.get(node, ()), name)
    return names


def named_by_graph(
    index: Index, graph: ObjectGraph, entries: Mapping[str, Entry]
) -> tuple[Named, dict[str, tuple[str, str]], bool]:
    """Names the tensors of a checkpoint with objects.

    Returns:
      The variables; by name the slots that the graph refers to, each with its variable's name and
      its own; and whether all tensors of the graph have a variable name for a key as well.
    """
    nodes, places, var_list = graph.nodes, graph.places(), _var_list(graph)
    usual = _usual_variables(graph, var_list, places, entries)
    keys = [nodes[number].attributes[0].checkpoint_key for number in usual.values()]
    rest = graph_tensors(graph, entries, but=set(usual.values()))
    if not rest.keys().isdisjoint(chain(keys, var_list)):
        usual, keys, rest = {}, [], graph_tensors(graph, entries)
    named = Named(list(usual), list(zip(keys)), list(map(places.__getitem__, usual.values())))
    plain_keys: set[str] = set()
    if len(entries) > len(keys) + len(rest):
        plain_keys = entries.keys() - set(keys) - rest.keys()
        named = Named([], [], [])
        for (name, number), key in zip(list(usual.items()), keys):
            full_name, place = nodes[number].attributes[0].full_name, places[number]
            if name in plain_keys and same_tensor(index, name, key):
                named.add(name, (name, key), place)
            elif plain_keys.isdisjoint((name, full_name, place)):
                named.add(name, (key,), place)
            else:
                del usual[name]
                rest[key] = GraphTensor(key, number, "", full_name)

    in_var_list = names_in_var_list(graph) if len(usual) < len(var_list) else {}
    full_names = Counter(t.full_name + t.suffix for t in rest.values() if t.node not in in_var_list)
    listed = {name + t.suffix for t in rest.values() for name in in_var_list.get(t.node, ())}
    chosen: dict[str, int] = {}

    def choose(tensor: GraphTensor) -> tuple[str, bool]:
        """The name that is a key of the same bytes, else the first that means nothing else."""
        key, node, suffix, full_name = tensor
        names = [name + suffix for name in in_var_list.get(node, ())]
        full_name += suffix
        others = [full_name] if full_name != suffix and full_names[full_name] == 1 else []
        place = places[node]
        others += [] if place is None else [place + suffix]
        names += [name for name in others if name not in listed]
        free = [name for name in names if name not in chosen and name not in usual]
        for name in free:
            if name in plain_keys and same_tensor(index, name, key):
                return name, True
        return next((name for name in free if name not in entries), key), False

    for tensor in sorted(rest.values(), key=attrgetter("node")):
        name, has_plain = choose(tensor)
        chosen[name] = tensor.node
        named.add(name, (name, tensor.key) if has_plain else (tensor.key,), places[tensor.node])
    save_counter = nodes[0].children.get(SAVE_COUNTER)
    of_nodes = zip(named.keys, chain(usual.values(), chosen.values()))
    counted = [len(its_keys) > 1 for its_keys, node in of_nodes if node != save_counter]
    slots = _slots_by_reference(graph, chain(usual.items(), chosen.items()))
    for key in plain_keys.difference(named.names):
        named.add(key, (key,), None)
    return named, slots, bool(counted) and all(counted)


def _usual_variables(
    graph: ObjectGraph,
    var_list: Mapping[str, int],
    places: Sequence[str | None],
    entries: Collection[str],
) -> dict[str, int]:
    """The objects that `var_list` has once, with one value under the key that their place gives.

    Nearly all are such, and what they are called is no question.
    """
    end = object_key("")
    if end in "\n".join(var_list):
        return {}  # a name that looks like a key
    numbers = list(var_list.values())
    counts = Counter(numbers)
    attributes = [graph.nodes[number].attributes for number in numbers]
    keys = [one[0].checkpoint_key if len(one) == 1 else "" for one in attributes]
    usual = dict(var_list)
    for name, number, key, there in zip(var_list, numbers, keys, map(entries.__contains__, keys)):
        if not (there and number and key == f"{places[number]}{end}" and counts[number] == 1):
            del usual[name]
    return usual


def _slots_by_reference(
    graph: ObjectGraph, names: Iterable[tuple[str, int]]
) -> dict[str, tuple[str, str]]:
    references = [slot for _, slot in graph.slot_references()]
    if not references:
        return {}
    name_of: dict[int, str] = {}
    for name, number in names:
        name_of.setdefault(number, name)
    return {
        name_of[slot.slot]: (name_of[slot.original], slot.slot_name)
        for slot in references
        if slot.slot in name_of and slot.original in name_of
    }
