"""What a person and a Saver call the tensors of an object graph.

Nearly all objects of a large graph are variables with one value, under the key that their object
path gives; these are named all at once, by columns, the others one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import compress, repeat
from operator import attrgetter, eq, not_
from typing import Any, NamedTuple

from estimator_ckpt.bulk import AT_ONCE
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, same_tensor
from estimator_ckpt.bundle.slices import key_bytes
from estimator_ckpt.formats import GLOBAL_STEP
from estimator_ckpt.objects.object_graph import (
    OPTIMIZER_SLOT,
    SAVE_COUNTER,
    STEP,
    ObjectGraph,
    object_key,
    parse_path,
)
from estimator_ckpt.reading.object_slots import slots_of_graph
from estimator_ckpt.reading.object_tensors import (
    Entries,
    GraphTensor,
    graph_tensors,
    names_in_var_list,
    var_list_of,
)


class Named(NamedTuple):
    """Variables by columns, in any order: there may be a million.

    Attributes:
      names: each once.
      keys: of the objects; where no object has it the name.
      is_key: whether the name is a key, too, of the same tensor: then it is the one that counts.
      paths: of the objects; None where no object has it.
      nodes: the objects; -1 where none has it.
      entries: those of the keys that count.
    """

    names: list[str]
    keys: list[str]
    is_key: list[bool]
    paths: list[str | None]
    nodes: list[int]
    entries: list[Entry]

    @classmethod
    def empty(cls) -> Named:
        return cls([], [], [], [], [], [])

    def add(
        self, name: str, key: str, is_key: bool, path: str | None, node: int, entry: Entry
    ) -> None:
        self.names.append(name)
        self.keys.append(key)
        self.is_key.append(is_key)
        self.paths.append(path)
        self.nodes.append(node)
        self.entries.append(entry)


def _name_at(path: str) -> str:
    """An object path as a variable name: names escaped in it, as keys of a dictionary, are plain.

    What TensorFlow's guide keeps in `vars` is called `vars/scope/x`, and not `vars/scope.Sx`.
    """
    if "." not in path or OPTIMIZER_SLOT in path:
        return path
    return "/".join(parse_path(path))


class NamedTensors(NamedTuple):
    """What named_by_graph() finds.

    Attributes:
      named: the variables.
      slots: by name the slots that the graph tells of, each with its variable's name and its own.
      is_both: whether all tensors of the graph have a variable name for a key as well, and more
        than the global step, which has one in every format.
      further_keys: by name.
    """

    named: Named
    slots: dict[str, tuple[str, str]]
    is_both: bool
    further_keys: dict[str, tuple[str, ...]]


def named_by_graph(index: Index, graph: ObjectGraph, entries: Entries) -> NamedTensors:
    """Names the tensors of a checkpoint with objects."""
    paths = graph.object_paths()
    named, rest, full_names = _usual_variables(graph, paths, entries)
    plain_keys: set[str] = set()
    if len(entries) > len(named.names) + len(rest):
        _add_twins(named, entries)
    if len(entries) > len(named.names) + sum(named.is_key) + len(rest):
        plain_names = compress(named.names, named.is_key)
        plain_keys = set(entries.by_key).difference(named.keys, plain_names, rest)
        if not _add_equal(index, graph, named, plain_keys):
            named, rest = Named.empty(), graph_tensors(graph, entries.by_key)
            plain_keys = set(entries.by_key).difference(rest)

    others = _OtherNames(graph, paths, rest, set(named.names) if rest else set(), full_names)
    for tensor in sorted(rest.values(), key=attrgetter("node")):
        name, has_plain = others.choose(tensor, index, plain_keys, entries)
        entry = entries.by_key[name if has_plain else tensor.key]
        named.add(name, tensor.key, has_plain, paths[tensor.node], tensor.node, entry)

    is_both = _all_have_names(graph, named)
    slots = slots_of_graph(graph, named.names, named.nodes, named.entries)
    plain_keys = plain_keys.difference(named.names)
    further = {}
    if GLOBAL_STEP in plain_keys:
        further = _step_by_another_name(index, graph, named)
    for key in sorted(plain_keys.difference(*further.values())):
        named.add(key, key, False, None, -1, entries.by_key[key])
    return NamedTensors(named, slots, is_both, further)


class _OtherNames:
    """Names for the tensors that _usual_variables() leaves, one after the other.

    Args:
      graph: of the objects.
      paths: the object path of each node.
      rest: those tensors, by their keys.
      usual: the names of the usual variables.
      full_names: how often each is there, among the tensors that `var_list` does not have.
    """

    def __init__(
        self,
        graph: ObjectGraph,
        paths: Sequence[str | None],
        rest: Mapping[str, GraphTensor],
        usual: AbstractSet[str],
        full_names: Counter[str],
    ) -> None:
        self._paths = paths
        self._taken = set(usual)
        self._full_names = full_names
        self._in_var_list = names_in_var_list(graph) if rest else {}
        self._listed = _names_listed(rest, self._in_var_list)

    def choose(
        self, tensor: GraphTensor, index: Index, plain_keys: AbstractSet[str], entries: Entries
    ) -> tuple[str, bool]:
        """The name that is a key of the same bytes, else the first that means nothing else.

        Returns:
          The name; and whether it is such a key, of `plain_keys`.
        """
        free = [name for name in self._candidates(tensor) if name not in self._taken]
        for name in free:
            if name in plain_keys and same_tensor(index, name, tensor.key):
                self._taken.add(name)
                return name, True
        chosen = next((name for name in free if name not in entries.by_key), tensor.key)
        self._taken.add(chosen)
        return chosen, False

    def _candidates(self, tensor: GraphTensor) -> list[str]:
        """The names in `var_list`; a full name that no other has; the object path."""
        suffix, path = tensor.suffix, self._paths[tensor.node]
        names = [name + suffix for name in self._in_var_list.get(tensor.node, ())]
        others = []
        full_name = tensor.full_name + suffix
        if tensor.full_name and self._full_names[full_name] == 1:
            others.append(full_name)
        if path is not None:
            others += [_name_at(path) + suffix, path + suffix]
        return names + [name for name in others if name not in self._listed]


def _all_have_names(graph: ObjectGraph, named: Named) -> bool:
    """See NamedTensors.is_both."""
    save_counter = graph.nodes[0].children.get(SAVE_COUNTER)
    have_both = (both for both, node in zip(named.is_key, named.nodes) if node != save_counter)
    with_both = compress(named.names, named.is_key)
    return all(have_both) and any(name != GLOBAL_STEP for name in with_both)


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
    graph: ObjectGraph, paths: Sequence[str | None], entries: Entries
) -> tuple[Named, dict[str, GraphTensor], Counter[str]]:
    """The objects with one value, under the key that their path gives, and not two names for it.

    Nearly all are such, and their names are found all at once: the one in `var_list`, else the full
    name if no other has it, else the path. A million take 1.7 s so, and 17 s one by one.

    Returns:
      These; the tensors of the other objects, or of all if any name or key is disputed; and how
      often each full name is there, among the tensors that `var_list` does not have.
    """
    var_list = var_list_of(graph)
    usual, others = _with_usual_keys(graph, var_list, paths, entries)
    rest = graph_tensors(graph, entries.by_key, sorted(others)) if others else {}
    listed = _names_listed(rest, names_in_var_list(graph) if rest else {})

    def is_usual(name: str) -> bool:
        """Whether it is the name in `var_list` of one of the usual variables."""
        node = var_list.get(name)
        return node is not None and node not in others and graph.nodes.keys[node] != ""

    unlisted = [position for position, name in enumerate(usual.names) if name is None]
    values = [graph.nodes.full_names[usual.nodes[position]] for position in unlisted]
    full_names = _count_full_names(graph, rest)
    full_names.update(values)
    filled = []
    for position, full_name in zip(unlisted, values):
        taken = is_usual(full_name) or full_name in listed or full_names[full_name] > 1
        path = usual.paths[position] or ""
        usual.names[position] = full_name if full_name and not taken else _name_at(path)
        filled.append(usual.names[position])

    reserved = listed | _possible_names(rest, paths)
    if (
        _is_disputed(usual, filled, rest, var_list, reserved)
        or any(map(is_usual, reserved))
        or _has_slots_twice(graph, usual)
    ):
        rest = graph_tensors(graph, entries.by_key)
        return Named.empty(), rest, _count_full_names(graph, rest)
    return usual, rest, full_names


def _is_disputed(
    usual: Named,
    filled: Sequence[str],
    rest: Mapping[str, GraphTensor],
    var_list: Mapping[str, int],
    reserved: AbstractSet[str],
) -> bool:
    """Whether a name or a key of the usual variables may mean something else.

    Args:
      usual: those variables.
      filled: the names of theirs that are not from `var_list`.
      rest: the tensors of the other objects, by their keys.
      var_list: its children.
      reserved: the names that `rest` has or may get.
    """
    one_name_twice = len(set(filled)) < len(filled)
    name_in_var_list = not var_list.keys().isdisjoint(filled)
    name_of_others = not reserved.isdisjoint(filled)
    key_of_others = not rest.keys().isdisjoint(usual.keys)
    # In one text: a million times `in` would take longer than all else here.
    name_like_a_key = object_key("") in "\n".join(usual.names)
    return one_name_twice or name_in_var_list or name_of_others or key_of_others or name_like_a_key


def _has_slots_twice(graph: ObjectGraph, usual: Named) -> bool:
    """Whether two slots that the graph refers to have one key."""
    if not any(graph.slot_references()):
        return False
    keys = [key for key in usual.keys if OPTIMIZER_SLOT in key]
    return len(set(keys)) < len(keys)


def _possible_names(rest: Mapping[str, GraphTensor], paths: Sequence[str | None]) -> set[str]:
    """What the other tensors are called or may be called, besides their names in `var_list`."""
    found = set(rest)
    for tensor in rest.values():
        path = paths[tensor.node]
        for name in (tensor.full_name, str(path), _name_at(path or "")):
            found.add(name + tensor.suffix)
    return found


def _names_listed(
    tensors: Mapping[str, GraphTensor], in_var_list: Mapping[int, Sequence[str]]
) -> set[str]:
    """The names that `var_list` gives these tensors."""
    return {
        name + tensor.suffix
        for tensor in tensors.values()
        for name in in_var_list.get(tensor.node, ())
    }


def _with_usual_keys(
    graph: ObjectGraph,
    var_list: Mapping[str, int],
    paths: Sequence[str | None],
    entries: Entries,
) -> tuple[Named, set[int]]:
    """The objects of _usual_variables(), with None for the names that `var_list` does not have.

    Returns:
      These; and the node ids of the other objects with values.
    """
    nodes = graph.nodes
    listed: list[Any] = [None] * len(nodes)
    for name, node in var_list.items():
        listed[node] = name
    shared: set[int] = set()
    if listed.count(None) + len(var_list) > len(listed):
        times = Counter(var_list.values())
        shared = {node for node, count in times.items() if count > 1}
    end = object_key("")
    usual = Named.empty()
    others: set[int] = set()
    for start in range(0, len(nodes), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        keys, own_paths, node_ids = nodes.keys[part], paths[part], range(len(nodes))[part]
        found = entries.find(keys)
        fits = [
            entry is not None and bool(path) and key == f"{path}{end}" and node not in shared
            for entry, path, key, node in zip(found, own_paths, keys, node_ids)
        ]
        others.update(n for n in compress(node_ids, map(not_, fits)) if nodes[n].attributes)
        columns: Any = zip(usual, (listed[part], keys, repeat(False), own_paths, node_ids, found))
        for column, values in columns:
            column.extend(compress(values, fits))
    return usual, others


def _add_twins(named: Named, entries: Entries) -> None:
    """Puts the names before the keys where they are keys, too, of the very same bytes."""
    same = map(eq, entries.find(named.names), named.entries)
    for position in compress(range(len(named.names)), same):
        # Equal entries of partitioned variables say nothing about their slices.
        if not named.entries[position].slices:
            named.is_key[position] = True


def _add_equal(
    index: Index, graph: ObjectGraph, named: Named, plain_keys: AbstractSet[str]
) -> bool:
    """Puts the names before the keys where they are keys, too, of equal bytes somewhere else.

    Returns:
      Whether no other plain key is what a variable may be called.
    """
    for position, (name, key, is_key, path, node, _) in enumerate(zip(*named)):
        full_name = graph.nodes.full_names[node]
        if is_key or plain_keys.isdisjoint((name, full_name, path, _name_at(path or ""))):
            continue
        if name not in plain_keys or not same_tensor(index, name, key):
            return False
        named.is_key[position] = True
        named.entries[position] = index.entries[key_bytes(name)]
    return True


def _count_full_names(graph: ObjectGraph, tensors: Mapping[str, GraphTensor]) -> Counter[str]:
    """How often each full name is there, among the tensors that `var_list` does not have."""
    in_var_list = set(var_list_of(graph).values()) if tensors else set()
    return Counter(
        tensor.full_name + tensor.suffix
        for tensor in tensors.values()
        if tensor.node not in in_var_list
    )
