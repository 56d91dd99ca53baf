"""The variables of a checkpoint: its keys, named as a person and a Saver name them."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from estimator_ckpt.bundle.dtypes import dtype_name
from estimator_ckpt.bundle.index import Entry, Index, slice_key
from estimator_ckpt.bundle.slices import key_bytes, key_text
from estimator_ckpt.object_graph import (
    OBJECT_GRAPH_KEY,
    SAVE_COUNTER,
    VAR_LIST,
    VARIABLE_VALUE,
    ObjectGraph,
    escape,
)
from estimator_ckpt.slots import slot_by_name


@dataclass(frozen=True)
class Variable:
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


def graph_tensors(graph: ObjectGraph, keys: Mapping[str, object]) -> Iterator[GraphTensor]:
    """The tensors of all objects as far as they are among `keys`, each key once.

    An attribute's checkpoint_key is a key, or the start of several: `...table` stands for
    `...table-keys` and `...table-values`.
    """
    ordered: list[str] = []
    seen: set[str] = set()
    for number, node in enumerate(graph.nodes):
        for attribute in node.attributes:
            key = attribute.checkpoint_key
            if key in keys:
                suffixes = [""]
            else:
                ordered = ordered or sorted(keys)
                suffixes = _suffixes(key, ordered)
            own = (
                ""
                if len(node.attributes) == 1 or attribute.name == VARIABLE_VALUE
                else (f"/{escape(attribute.name)}")
            )
            for suffix in suffixes:
                if key + suffix not in seen:
                    seen.add(key + suffix)
                    yield GraphTensor(key + suffix, number, own + suffix, attribute.full_name)


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
    entries = {key_text(key): entry for key, entry in index.entries.items() if key[:1] != b"\0"}
    entries.pop(OBJECT_GRAPH_KEY, None)
    if graph is None:
        named = {name: _Named(name, (name,), None) for name in entries}
        checkpoint_format = "saver"
        slots: dict[str, tuple[str, str]] = {}
    else:
        named, slots, is_both = _named_by_graph(index, graph, entries)
        checkpoint_format = "both" if is_both else "checkpoint"
    shapes = {name: entries[one.key].shape for name, one in named.items()}
    dtypes: dict[int, str] = {}
    variables = {}
    for name in sorted(named):
        key, keys, object_path = named[name]
        entry = entries[key]
        dtype = dtypes.get(entry.dtype) or dtypes.setdefault(entry.dtype, dtype_name(entry.dtype))
        slot_of, slot_name = slots.get(name) or slot_by_name(name, shapes) or (None, None)
        nbytes = entry.size if not entry.slices else _slices_size(index, key, entry)
        variables[name] = Variable(
            name,
            key,
            keys,
            object_path,
            entry.shape,
            dtype,
            nbytes,
            len(entry.slices),
            slot_of,
            slot_name,
            entry,
        )
    return variables, checkpoint_format


class _Named(NamedTuple):
    key: str
    keys: tuple[str, ...]
    object_path: str | None


def _slices_size(index: Index, key: str, entry: Entry) -> int:
    return sum(index.entries[slice_key(key, extents)].size for extents in entry.slices)


def _named_by_graph(
    index: Index, graph: ObjectGraph, entries: Mapping[str, Entry]
) -> tuple[dict[str, _Named], dict[str, tuple[str, str]], bool]:
    """The tensors by name, the slots that the graph refers to, and whether all have two keys."""
    tensors = list(graph_tensors(graph, entries))
    places = graph.places()
    in_var_list = _names_in_var_list(graph)
    save_counter = graph.nodes[0].children.get(SAVE_COUNTER)
    graph_keys = {tensor.key for tensor in tensors}
    full_names = Counter(tensor.full_name + tensor.suffix for tensor in tensors)
    for tensor in tensors:  # no other variable may take a name that var_list gives
        full_names.update(name + tensor.suffix for name in in_var_list.get(tensor.node, ()))

    named: dict[str, _Named] = {}
    name_of_node: dict[int, str] = {}
    single = 0
    for key, node, suffix, full_name in tensors:
        names = [name + suffix for name in in_var_list.get(node, ())]
        if full_name and full_names[full_name + suffix] == 1:
            names.append(full_name + suffix)
        place = places.get(node)
        if place is not None:
            names.append(place + suffix)
        names = [name for name in names if name not in named and name not in graph_keys]
        plain = [name for name in names if name in entries and same_tensor(index, name, key)]
        if plain:
            name = plain[0]
            named[name] = _Named(name, (name, key), place)
        else:
            name = next((name for name in names if name not in entries), key)
            named[name] = _Named(key, (key,), place)
            single += node != save_counter
        name_of_node.setdefault(node, name)
    for name in entries:
        if name not in named and name not in graph_keys:
            named[name] = _Named(name, (name,), None)
    slots = {}
    for _, slot in graph.slot_references():
        slot_variable, original = name_of_node.get(slot.slot), name_of_node.get(slot.original)
        if slot_variable is not None and original is not None:
            slots[slot_variable] = (original, slot.slot_name)
    is_both = not single and any(tensor.node != save_counter for tensor in tensors)
    return named, slots, is_both


def _names_in_var_list(graph: ObjectGraph) -> dict[int, list[str]]:
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
