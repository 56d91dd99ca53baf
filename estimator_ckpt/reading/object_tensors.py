"""The tensors of an object graph: their keys, and what a person and a Saver call them."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property, partial
from itertools import compress, repeat
from operator import attrgetter, eq, not_
from typing import Any, NamedTuple

from estimator_ckpt.bundle.index import Entry, Index, same_tensor
from estimator_ckpt.bundle.slices import decode_keys, encode_keys, key_bytes
from estimator_ckpt.columns import AT_ONCE
from estimator_ckpt.formats import GLOBAL_STEP
from estimator_ckpt.objects.object_graph import (
    OBJECT_CONFIG,
    OBJECT_GRAPH_KEY,
    OPTIMIZER_SLOT,
    SAVE_COUNTER,
    STEP,
    VAR_LIST,
    VARIABLE_VALUE,
    ObjectGraph,
    escape,
    object_key,
    parse_path,
)
from estimator_ckpt.roles.dialects import LIST_NAMES
from estimator_ckpt.roles.newer_keras import ALL_VARIABLES, is_newer
from estimator_ckpt.roles.slots import flat_names, newer_keras_slot


class Entries:
    """The entries of an index that are tensors: not the slices, nor what tells of objects alone.

    Attributes:
      configs: the keys of what objects are (OBJECT_CONFIG), which are no variables.
    """

    def __init__(self, index: Index) -> None:
        self._by_bytes = index.entries
        self._others = set(decode_keys([key for key in index.entries if key[:1] == b"\0"]))
        if key_bytes(OBJECT_GRAPH_KEY) in index.entries:
            self._others.add(OBJECT_GRAPH_KEY)
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


class Named(NamedTuple):
    """Variables by columns, in any order: there may be a million.

    Attributes:
      names: each once.
      keys: of the objects; where no object has it the name.
      is_key: whether the name is a key, too, of the same tensor: then it is the one that counts.
      places: the object paths; None where no object has it.
      nodes: the objects; -1 where none has it.
      entries: those of the keys that count.
    """

    names: list[str]
    keys: list[str]
    is_key: list[bool]
    places: list[str | None]
    nodes: list[int]
    entries: list[Entry]

    @classmethod
    def empty(cls) -> Named:
        return cls([], [], [], [], [], [])

    def add(
        self, name: str, key: str, is_key: bool, place: str | None, node: int, entry: Entry
    ) -> None:
        self.names.append(name)
        self.keys.append(key)
        self.is_key.append(is_key)
        self.places.append(place)
        self.nodes.append(node)
        self.entries.append(entry)


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
    for number in range(len(nodes)) if objects is None else objects:
        start = nodes.keys[number]
        if start in keys:
            found.setdefault(start, _make_tensor((start, number, "", nodes.full_names[number])))
            continue
        attributes = nodes[number].attributes
        for attribute, full_name, start in attributes:
            own = ""
            if attribute != VARIABLE_VALUE and len(attributes) > 1:
                own = f"/{escape(attribute)}"
            if start in keys:
                found.setdefault(start, GraphTensor(start, number, own, full_name))
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


def _name_at(place: str) -> str:
    """A place as a variable name: what it has of escaped names, as keys of a dictionary, is plain.

    What TensorFlow's guide keeps in `vars` is called `vars/scope/x`, and not `vars/scope.Sx`.
    """
    if "." not in place or OPTIMIZER_SLOT in place:
        return place
    return "/".join(parse_path(place))


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
    index: Index, graph: ObjectGraph, entries: Entries
) -> tuple[Named, dict[str, tuple[str, str]], bool, dict[str, tuple[str, ...]]]:
    """Names the tensors of a checkpoint with objects.

    Returns:
      The variables; by name the slots that the graph refers to, each with its variable's name and
      its own; whether all tensors of the graph have a variable name for a key as well, and more
      than the global step, which has one in every format; and by name further keys.
    """
    places = graph.places()
    named, rest, full_names = _usual_variables(graph, places, entries)
    plain_keys: set[str] = set()
    if len(entries) > len(named.names) + len(rest):
        _add_twins(named, entries)
    if len(entries) > len(named.names) + sum(named.is_key) + len(rest):
        plain_names = compress(named.names, named.is_key)
        plain_keys = set(entries.by_key).difference(named.keys, plain_names, rest)
        if not _add_equal(index, graph, named, plain_keys):
            named, rest = Named.empty(), graph_tensors(graph, entries.by_key)
            plain_keys = set(entries.by_key).difference(rest)

    usual = set(named.names) if rest else set()
    in_var_list = names_in_var_list(graph) if rest else {}
    listed = {name + t.suffix for t in rest.values() for name in in_var_list.get(t.node, ())}
    chosen: set[str] = set()

    def choose(tensor: GraphTensor) -> tuple[str, bool]:
        """The name that is a key of the same bytes, else the first that means nothing else."""
        key, node, suffix, full_name = tensor
        names = [name + suffix for name in in_var_list.get(node, ())]
        full_name += suffix
        others = [full_name] if full_name != suffix and full_names[full_name] == 1 else []
        place = places[node]
        others += [] if place is None else [_name_at(place) + suffix, place + suffix]
        names += [name for name in others if name not in listed]
        free = [name for name in names if name not in chosen and name not in usual]
        for name in free:
            if name in plain_keys and same_tensor(index, name, key):
                return name, True
        return next((name for name in free if name not in entries.by_key), key), False

    for tensor in sorted(rest.values(), key=attrgetter("node")):
        name, has_plain = choose(tensor)
        chosen.add(name)
        entry = entries.by_key[name if has_plain else tensor.key]
        named.add(name, tensor.key, has_plain, places[tensor.node], tensor.node, entry)
    save_counter = graph.nodes[0].children.get(SAVE_COUNTER)
    have_both = (both for both, node in zip(named.is_key, named.nodes) if node != save_counter)
    with_both = compress(named.names, named.is_key)
    is_both = all(have_both) and any(name != GLOBAL_STEP for name in with_both)
    slots = _slots_by_reference(graph, zip(named.names, named.nodes))
    slots.update(_slots_in_lists(graph, named))
    plain_keys = plain_keys.difference(named.names)
    further = {}
    if GLOBAL_STEP in plain_keys:
        further = _step_by_another_name(index, graph, named)
    for key in plain_keys.difference(*further.values()):
        named.add(key, key, False, None, -1, entries.by_key[key])
    return named, slots, is_both, further


def _step_by_another_name(
    index: Index, graph: ObjectGraph, named: Named
) -> dict[str, tuple[str, ...]]:
    """The root's `step` with the key `global_step`, if that stands for the same bytes."""
    step = graph.nodes[0].children.get(STEP)
    for name, key, node in zip(named.names, named.keys, named.nodes):
        if node == step and same_tensor(index, GLOBAL_STEP, key):
            return {name: (GLOBAL_STEP,)}
    return {}


def _usual_variables(
    graph: ObjectGraph, places: Sequence[str | None], entries: Entries
) -> tuple[Named, dict[str, GraphTensor], Counter[str]]:
    """The objects with one value, under the key that their place gives, and not two names for it.

    Nearly all are such, and their names are found all at once: the one in `var_list`, else the full
    name if no other has it, else the place.

    Returns:
      These; the tensors of the other objects, or of all if any name or key is disputed; and how
      often each full name is there, among the tensors that `var_list` does not have.
    """
    var_list = _var_list(graph)
    usual, others = _with_usual_keys(graph, var_list, places, entries)
    rest = graph_tensors(graph, entries.by_key, sorted(others)) if others else {}
    full_names = _count_full_names(graph, rest)
    numbers = [number for number, name in enumerate(usual.names) if name is None]
    values = [graph.nodes.full_names[usual.nodes[number]] for number in numbers]
    full_names.update(values)

    def is_usual(name: str) -> bool:
        number = var_list.get(name)
        return number is not None and number not in others and graph.nodes.keys[number] != ""

    in_var_list = names_in_var_list(graph) if rest else {}
    listed = {name + t.suffix for t in rest.values() for name in in_var_list.get(t.node, ())}
    filled = []
    for number, full_name in zip(numbers, values):
        taken = is_usual(full_name) or full_name in listed or full_names[full_name] > 1
        place = usual.places[number] or ""
        usual.names[number] = full_name if full_name and not taken else _name_at(place)
        filled.append(usual.names[number])
    reserved = listed.union(rest)  # what the other tensors are or may be called
    for tensor in rest.values():
        reserved.add(tensor.full_name + tensor.suffix)
        reserved.add(f"{places[tensor.node]}{tensor.suffix}")
        reserved.add(f"{_name_at(places[tensor.node] or '')}{tensor.suffix}")
    slot_keys = []
    if any(graph.slot_references()):
        slot_keys = [key for key in usual.keys if OPTIMIZER_SLOT in key]
    disputed = (
        len(set(filled)) < len(filled)
        or not var_list.keys().isdisjoint(filled)
        or not reserved.isdisjoint(filled)
        or any(map(is_usual, reserved))
        or not rest.keys().isdisjoint(usual.keys)
        or len(set(slot_keys)) < len(slot_keys)
        or object_key("") in "\n".join(usual.names)  # a name that looks like a key
    )
    if disputed:
        rest = graph_tensors(graph, entries.by_key)
        return Named.empty(), rest, _count_full_names(graph, rest)
    return usual, rest, full_names


def _count_full_names(graph: ObjectGraph, tensors: Mapping[str, GraphTensor]) -> Counter[str]:
    """How often each full name is there, among the tensors that `var_list` does not have."""
    in_var_list = set(_var_list(graph).values()) if tensors else set()
    return Counter(
        tensor.full_name + tensor.suffix
        for tensor in tensors.values()
        if tensor.node not in in_var_list
    )


def _with_usual_keys(
    graph: ObjectGraph,
    var_list: Mapping[str, int],
    places: Sequence[str | None],
    entries: Entries,
) -> tuple[Named, set[int]]:
    """The objects of _usual_variables(), with None for the names that `var_list` does not have.

    Returns:
      These; and the node ids of the other objects with values.
    """
    nodes = graph.nodes
    listed: list[Any] = [None] * len(nodes)
    for name, number in var_list.items():
        listed[number] = name
    shared: set[int] = set()
    if listed.count(None) + len(var_list) > len(listed):
        times = Counter(var_list.values())
        shared = {number for number, count in times.items() if count > 1}
    end = object_key("")
    usual = Named.empty()
    others: set[int] = set()
    for start in range(0, len(nodes), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        keys, here, numbers = nodes.keys[part], places[part], range(len(nodes))[part]
        found = entries.find(keys)
        fits = [
            entry is not None and bool(place) and key == f"{place}{end}" and number not in shared
            for entry, place, key, number in zip(found, here, keys, numbers)
        ]
        others.update(n for n in compress(numbers, map(not_, fits)) if nodes[n].attributes)
        columns: Any = zip(usual, (listed[part], keys, repeat(False), here, numbers, found))
        for column, values in columns:
            column.extend(compress(values, fits))
    return usual, others


def _add_twins(named: Named, entries: Entries) -> None:
    """Puts the names before the keys where they are keys, too, of the very same bytes."""
    same = map(eq, entries.find(named.names), named.entries)
    for number in compress(range(len(named.names)), same):
        # Equal entries of partitioned variables say nothing about their slices.
        if not named.entries[number].slices:
            named.is_key[number] = True


def _add_equal(
    index: Index, graph: ObjectGraph, named: Named, plain_keys: AbstractSet[str]
) -> bool:
    """Puts the names before the keys where they are keys, too, of equal bytes somewhere else.

    Returns:
      Whether no other plain key is what a variable may be called.
    """
    for number, (name, key, is_key, place, node, _) in enumerate(zip(*named)):
        full_name = graph.nodes.full_names[node]
        if is_key or plain_keys.isdisjoint((name, full_name, place, _name_at(place or ""))):
            continue
        if name not in plain_keys or not same_tensor(index, name, key):
            return False
        named.is_key[number] = True
        named.entries[number] = index.entries[key_bytes(name)]
    return True


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


def _slots_in_lists(graph: ObjectGraph, named: Named) -> dict[str, tuple[str, str]]:
    """The slots of Keras' newer optimizers: without references, in a list with other variables.

    Their full names tell what they are (keras/src/optimizers/optimizer.py, base_optimizer.py).
    """
    listed: set[int] = set()
    for node in graph.nodes.others.values():
        if is_newer(node):
            for name, child in node.children.items():
                if name == ALL_VARIABLES or name in LIST_NAMES:
                    listed.update(graph.nodes.children(child).values())
    if not listed:
        return {}
    shapes = {name: entry.shape for name, entry in zip(named.names, named.entries)}
    flat = flat_names(named.names)
    found = {}
    for name, number in zip(named.names, named.nodes):
        if number in listed:
            full_name = graph.nodes.full_names[number] or name
            slot = newer_keras_slot(full_name, shapes[name], shapes.get, flat)
            if slot is not None:
                found[name] = slot
    return found
