"""The variables of a checkpoint: its keys, named as a person and a Saver name them."""

from __future__ import annotations

import bisect
import functools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, repeat
from operator import itemgetter
from typing import Any, NamedTuple, Union

from estimator_ckpt.bundle.dtypes import dtype_name
from estimator_ckpt.bundle.index import Entry, Index, slice_key
from estimator_ckpt.bundle.slices import key_bytes, key_text
from estimator_ckpt.collector import collector_paused
from estimator_ckpt.object_graph import (
    OBJECT_GRAPH_KEY,
    SAVE_COUNTER,
    VAR_LIST,
    VARIABLE_VALUE,
    ObjectGraph,
    escape,
)
from estimator_ckpt.slots import slots_by_name


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


def graph_tensors(graph: ObjectGraph, keys: Collection[str]) -> dict[str, GraphTensor]:
    """The tensors of all objects by their keys, as far as these are among `keys`.

    An attribute's checkpoint_key is a key, or the start of several: `...table` stands for
    `...table-keys` and `...table-values`.
    """
    make = functools.partial(tuple.__new__, GraphTensor)
    values = [number for number, node in enumerate(graph.nodes) if node.attributes]
    attributes = list(chain.from_iterable(node.attributes for node in graph.nodes))
    starts = [attribute.checkpoint_key for attribute in attributes]
    if len(values) == len(attributes) and all(map(keys.__contains__, starts)):
        # One value each, and each with a key of its own, as in nearly all graphs.
        full_names = [attribute.full_name for attribute in attributes]
        found = dict(zip(starts, map(make, zip(starts, values, repeat(""), full_names))))
        if len(found) == len(starts):
            return found
    found = {}
    ordered: list[str] = []
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


def read_variables(index: Index, graph: ObjectGraph | None) -> tuple[dict[str, Variable], str]:
    """The variables by name, sorted, and the checkpoint's format.

    The format is "saver" without an object graph, and "both" if each tensor of the graph (other
    than `save_counter`, which no Saver has) also stands, with equal bytes, under a variable name.
    Else it is "checkpoint": what the graph does not name is listed under its key all the same, and
    a name in `var_list` that is also the key of other bytes is left to the key.
    """
    with collector_paused():
        texts = map(bytes.decode, index.entries, repeat("utf-8"), repeat("surrogateescape"))
        entries = dict(zip(texts, index.entries.values()))
        for key in [key for key in index.entries if key[:1] == b"\0"]:
            del entries[key_text(key)]
        entries.pop(OBJECT_GRAPH_KEY, None)
        if graph is None:
            names = sorted(entries)
            columns = list(zip(names)), [None] * len(names)
            return _variables(index, entries, names, *columns, {}), "saver"
        named, slots, is_both = _named_by_graph(index, graph, entries)
        names = sorted(named)
        keys, places = zip(*map(named.__getitem__, names)) if names else ((), ())
        variables = _variables(index, entries, names, keys, places, slots)
        return variables, "both" if is_both else "checkpoint"


def _variables(
    index: Index,
    entries: Mapping[str, Entry],
    names: Sequence[str],
    keys: Sequence[tuple[str, ...]],
    places: Sequence[str | None],
    slots: Mapping[str, tuple[str, str]],
) -> dict[str, Variable]:
    """The variables by name; all keys of each, the one that counts first."""
    # Field by field, as no loop of Python's is as fast as map, and there may be a million.
    first_keys = list(map(itemgetter(0), keys))
    found = list(map(entries.__getitem__, first_keys))
    dtypes, shapes, _, _, sizes, _, slices = (list(map(itemgetter(n), found)) for n in range(7))
    for number in [number for number, extents in enumerate(slices) if extents]:
        parts = (slice_key(first_keys[number], extents) for extents in slices[number])
        sizes[number] = sum(index.entries[part].size for part in parts)
    dtype_names = {number: dtype_name(number) for number in set(dtypes)}
    shape_of: dict[str, tuple[int, ...]] = {}

    def find_shape(name: str) -> tuple[int, ...] | None:
        if not shape_of:
            shape_of.update(zip(names, shapes))
        return shape_of.get(name)

    slots_of = [slot or (None, None) for slot in slots_by_name(names, shapes, find_shape)]
    if slots:
        slots_of = list(map(slots.get, names, slots_of))
    fields = (
        names,
        first_keys,
        keys,
        places,
        shapes,
        map(dtype_names.__getitem__, dtypes),
        sizes,
        map(len, slices),
        map(itemgetter(0), slots_of),
        map(itemgetter(1), slots_of),
        found,
    )
    return dict(zip(names, map(functools.partial(tuple.__new__, Variable), zip(*fields))))


# By name: all keys, the one that counts first, and the object path.
_Named = dict[str, tuple[tuple[str, ...], Union[str, None]]]


def _named_by_graph(
    index: Index, graph: ObjectGraph, entries: Mapping[str, Entry]
) -> tuple[_Named, dict[str, tuple[str, str]], bool]:
    """The variables by name, and the slots that the graph refers to, by the names of both.

    And whether all tensors of the graph have a variable name for a key as well.
    """
    tensors = graph_tensors(graph, entries)
    plain_keys = entries.keys() - tensors.keys() if len(entries) > len(tensors) else set()
    places = graph.places()
    in_var_list = names_in_var_list(graph)
    named: _Named = {}
    rest: list[GraphTensor] = []
    # Nearly all are in var_list once, by a name that means nothing else.
    var_list = _var_list(graph)
    distinct = tensors.keys().isdisjoint(var_list)
    for key, tensor in tensors.items():
        _, node, suffix, full_name = tensor
        listed = in_var_list.get(node, ())
        place = places.get(node)
        if suffix or len(listed) != 1 or not distinct:
            rest.append(tensor)
        elif not plain_keys:
            named[listed[0]] = ((key,), place)
        elif listed[0] in plain_keys and same_tensor(index, listed[0], key):
            named[listed[0]] = ((listed[0], key), place)
        elif plain_keys.isdisjoint((listed[0], full_name, place)):
            named[listed[0]] = ((key,), place)
        else:
            rest.append(tensor)

    full_names = Counter(t.full_name + t.suffix for t in rest if t.node not in in_var_list)
    reserved = {
        name + tensor.suffix for tensor in rest for name in in_var_list.get(tensor.node, ())
    }

    def choose(tensor: GraphTensor) -> tuple[str, bool]:
        """The name that is a key of the same bytes, else the first that means nothing else."""
        key, node, suffix, full_name = tensor
        others = [full_name] if full_name and full_names[full_name + suffix] == 1 else []
        others += [places[node]] if node in places else []
        names = [name + suffix for name in in_var_list.get(node, ())]
        names += [
            name + suffix
            for name in others
            if name + suffix not in reserved and name + suffix not in var_list
        ]
        free = [name for name in names if name not in named and name not in tensors]
        for name in free:
            if name in plain_keys and same_tensor(index, name, key):
                return name, True
        return next((name for name in free if name not in plain_keys), key), False

    for tensor in rest:
        name, has_plain = choose(tensor)
        named[name] = ((name, tensor.key) if has_plain else (tensor.key,), places.get(tensor.node))
    save_counter = graph.nodes[0].children.get(SAVE_COUNTER)
    counted = [key for key, tensor in tensors.items() if tensor.node != save_counter]
    is_both = bool(counted) and {
        keys[-1] for keys, _ in named.values() if len(keys) > 1
    }.issuperset(counted)
    for name in plain_keys:
        named.setdefault(name, ((name,), None))
    return named, _slots_by_reference(graph, tensors, named), is_both


def _slots_by_reference(
    graph: ObjectGraph, tensors: Mapping[str, GraphTensor], named: _Named
) -> dict[str, tuple[str, str]]:
    references = [slot for _, slot in graph.slot_references()]
    if not references:
        return {}
    names: dict[int, str] = {}
    for name, (keys, _) in named.items():
        if keys[-1] in tensors:
            names.setdefault(tensors[keys[-1]].node, name)
    return {
        names[slot.slot]: (names[slot.original], slot.slot_name)
        for slot in references
        if slot.slot in names and slot.original in names
    }


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


def same_tensor(index: Index, one: str, other: str, other_index: Index | None = None) -> bool:
    """Whether two keys have equal bytes, by place or by checksum; slice by slice if partitioned.

    Args:
      index: of the first.
      one: a key.
      other: another.
      other_index: of the second, if that is in another checkpoint.
    """
    there = index if other_index is None else other_index
    a, b = index.entries[key_bytes(one)], there.entries[key_bytes(other)]
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
        == there.entries[slice_key(other, extents)].crc32c
        for extents in a.slices
    )
