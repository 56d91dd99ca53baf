"""The variables of a checkpoint: its keys, named as a person and a Saver name them."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from estimator_ckpt.bundle.dtypes import dtype_name
from estimator_ckpt.bundle.index import Entry, Index, slice_key
from estimator_ckpt.bundle.slices import key_bytes
from estimator_ckpt.collector import collector_paused
from estimator_ckpt.object_graph import (
    OBJECT_GRAPH_KEY,
    SAVE_COUNTER,
    VAR_LIST,
    VARIABLE_VALUE,
    ObjectGraph,
    escape,
)
from estimator_ckpt.slots import slot_by_name


class Variable(NamedTuple):
    """One tensor of a checkpoint, with all its names.

    Attributes:
      name: the variable name. Of a name-based checkpoint the key. Of an object the name in
        `var_list`, else the full name if no other has it, else the object path; with `-keys` and
        `-values` for the two tensors of a lookup table.
      key: the key that is the name, if there is one, else the object's key.
      keys: all keys of the tensor.
      object_path: the path from the root object, escaped as in keys, a slot's as in its key; None
        if no object has it.
      shape: of the whole variable, also if it is partitioned.
      dtype: TensorFlow's name of it.
      nbytes: its size in the data files.
      slices: how many slices it is saved in; 0 if it is not partitioned.
      slot_of: the name of the variable whose slot it is, if an optimizer's slot.
      slot_name: the slot's name, such as `m`.
      entry: its entry in the index.
    """

    name: str
    key: str
    keys: tuple[str, ...]
    object_path: str | None
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    slices: int
    slot_of: str | None
    slot_name: str | None
    entry: Entry

    def to_json(self) -> dict[str, Any]:
        """Its fields, the entry left out, as JSON has them."""
        fields = self._asdict()
        del fields["entry"]
        return fields


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


def graph_tensors(graph: ObjectGraph, keys: Collection[str]) -> list[GraphTensor]:
    """The tensors of all objects as far as they are among `keys`, each key once.

    An attribute's checkpoint_key is a key, or the start of several: `...table` stands for
    `...table-keys` and `...table-values`.
    """
    ordered: list[str] = []
    found: dict[str, GraphTensor] = {}
    make = GraphTensor._make  # twice as fast as GraphTensor(...)
    for number, node in enumerate(graph.nodes):
        for attribute, full_name, start in node.attributes:
            own = ""
            if attribute != VARIABLE_VALUE and len(node.attributes) > 1:
                own = f"/{escape(attribute)}"
            if start in keys:
                if start not in found:
                    found[start] = make((start, number, own, full_name))
                continue
            ordered = ordered or sorted(keys)
            for suffix in _suffixes(start, ordered):
                key = start + suffix
                if key not in found:
                    found[key] = make((key, number, own + suffix, full_name))
    return list(found.values())


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


def read_variables(index: Index, graph: ObjectGraph | None) -> tuple[dict[str, Variable], str]:
    """The variables by name, sorted, and the checkpoint's format.

    The format is "saver" without an object graph, and "both" if each tensor of the graph (other
    than `save_counter`, which no Saver has) also stands, with equal bytes, under a variable name.
    Else it is "checkpoint": what the graph does not name is listed under its key all the same, and
    a name in `var_list` that is also the key of other bytes is left to the key.
    """
    with collector_paused():
        entries = {
            key.decode("utf-8", "surrogateescape"): entry
            for key, entry in index.entries.items()
            if key[:1] != b"\0"
        }
        entries.pop(OBJECT_GRAPH_KEY, None)
        if graph is None:
            by_name = {name: (name,) for name in entries}
            return dict(_variables(index, entries, by_name, {}, {})), "saver"
        keys, places, slots, is_both = _named_by_graph(index, graph, entries)
        variables = dict(_variables(index, entries, keys, places, slots))
        return variables, "both" if is_both else "checkpoint"


def _variables(
    index: Index,
    entries: Mapping[str, Entry],
    keys: Mapping[str, tuple[str, ...]],
    places: Mapping[str, str],
    slots: Mapping[str, tuple[str, str]],
) -> Iterator[tuple[str, Variable]]:
    """The variables by name, of which `keys` has all keys, the one that counts first."""
    shape_of = {name: entries[its_keys[0]].shape for name, its_keys in keys.items()}.get
    dtypes = {number: dtype_name(number) for number in {entry.dtype for entry in entries.values()}}
    make = Variable._make  # twice as fast as Variable(...), and there may be a million
    for name in sorted(keys):
        its_keys = keys[name]
        entry = entries[its_keys[0]]
        slot_of, slot_name = slots.get(name) or slot_by_name(name, shape_of) or (None, None)
        nbytes = entry.size
        if entry.slices:
            parts = (slice_key(its_keys[0], extents) for extents in entry.slices)
            nbytes = sum(index.entries[part].size for part in parts)
        fields = (
            name,
            its_keys[0],
            its_keys,
            places.get(name),
            entry.shape,
            dtypes[entry.dtype],
            nbytes,
            len(entry.slices),
            slot_of,
            slot_name,
            entry,
        )
        yield name, make(fields)


def _named_by_graph(
    index: Index, graph: ObjectGraph, entries: Mapping[str, Entry]
) -> tuple[dict[str, tuple[str, ...]], dict[str, str], dict[str, tuple[str, str]], bool]:
    """By name: the keys, the object paths, the slots that the graph refers to.

    And whether all tensors of the graph have a variable name for a key as well.
    """
    tensors = graph_tensors(graph, entries)
    graph_keys = {tensor.key for tensor in tensors}
    plain_keys = entries.keys() - graph_keys
    places = graph.places()
    in_var_list = names_in_var_list(graph)
    outside = [tensor for tensor in tensors if tensor.node not in in_var_list]
    full_names = Counter(tensor.full_name + tensor.suffix for tensor in outside)
    reserved = {
        name + tensor.suffix
        for tensor in (tensors if outside else ())
        for name in in_var_list.get(tensor.node, ())
    }
    save_counter = graph.nodes[0].children.get(SAVE_COUNTER)
    keys: dict[str, tuple[str, ...]] = {}
    object_paths: dict[str, str] = {}
    name_of_node: dict[int, str] = {}
    single = 0

    def choose(tensor: GraphTensor) -> tuple[str, bool]:
        """The name that is a key of the same bytes, else the first that means nothing else."""
        key, node, suffix, full_name = tensor
        others = [full_name] if full_name and full_names[full_name + suffix] == 1 else []
        others += [places[node]] if node in places else []
        names = [name + suffix for name in in_var_list.get(node, ())]
        names += [name + suffix for name in others if name + suffix not in reserved]
        free = [name for name in names if name not in keys and name not in graph_keys]
        for name in free:
            if name in plain_keys and same_tensor(index, name, key):
                return name, True
        return next((name for name in free if name not in plain_keys), key), False

    for tensor in tensors:
        key, node, suffix, _ = tensor
        listed = in_var_list.get(node)
        name, has_plain = listed[0] + suffix if listed else "", False
        if not listed or plain_keys or name in keys or name in graph_keys:
            name, has_plain = choose(tensor)
        keys[name] = (name, key) if has_plain else (key,)
        if not has_plain and node != save_counter:
            single += 1
        if node in places:
            object_paths[name] = places[node]
        name_of_node.setdefault(node, name)
    for name in plain_keys:
        keys.setdefault(name, (name,))
    slots = {}
    for _, slot in graph.slot_references():
        slot_variable, original = name_of_node.get(slot.slot), name_of_node.get(slot.original)
        if slot_variable is not None and original is not None:
            slots[slot_variable] = (original, slot.slot_name)
    is_both = not single and any(tensor.node != save_counter for tensor in tensors)
    return keys, object_paths, slots, is_both


def names_in_var_list(graph: ObjectGraph) -> dict[int, list[str]]:
    """The variable names by the object that they stand for."""
    names: dict[int, list[str]] = {}
    var_list = graph.child_at((VAR_LIST,))
    if var_list is not None:
        for name, node in graph.nodes[var_list].children.items():
            names.setdefault(node, []).append(name)
    return names


def same_tensor(index: Index, one: str, other: str) -> bool:
    """Whether two keys have equal bytes, by place or by checksum; slice by slice if partitioned."""
    a, b = index.entries[key_bytes(one)], index.entries[key_bytes(other)]
    if a == b and not a.slices:
        return True
    if (a.dtype, a.shape, a.size, a.crc32c, a.slices) != (
        b.dtype,
        b.shape,
        b.size,
        b.crc32c,
        b.slices,
    ):
        return False
    return all(
        index.entries[slice_key(one, extents)].crc32c
        == index.entries[slice_key(other, extents)].crc32c
        for extents in a.slices
    )
