"""The variables of a checkpoint: its keys, named as a person and a Saver name them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from operator import itemgetter
from typing import Any, NamedTuple

from estimator_ckpt.bundle.dtypes import dtype_name
from estimator_ckpt.bundle.index import Entry, Index, slice_key
from estimator_ckpt.collector import collector_paused
from estimator_ckpt.graph_variables import Entries, Named, named_by_graph
from estimator_ckpt.object_graph import ObjectGraph
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


def read_variables(index: Index, graph: ObjectGraph | None) -> tuple[dict[str, Variable], str]:
    """The variables by name, sorted, and the checkpoint's format.

    The format is "saver" without an object graph, and "both" if each tensor of the graph (other
    than `save_counter`, which no Saver has) also stands, with equal bytes, under a variable name.
    Else it is "checkpoint": what the graph does not name is listed under its key all the same, and
    a name in `var_list` that is also the key of other bytes is left to the key.
    """
    with collector_paused():
        entries = Entries(index)
        if graph is None:
            names = sorted(entries.by_key)
            found = list(map(entries.by_key.__getitem__, names))
            places: list[str | None] = [None] * len(names)
            named = Named(names, list(zip(names)), places, [-1] * len(names), found)
            return _variables(index, named, {}), "saver"
        named, slots, is_both = named_by_graph(index, graph, entries)
        variables = _variables(index, named.by_name(), slots)
        return variables, "both" if is_both else "checkpoint"


def _variables(
    index: Index, named: Named, slots: Mapping[str, tuple[str, str]]
) -> dict[str, Variable]:
    """The variables by name, in the order of `named`."""
    # Field by field, as no loop of Python's is as fast as map, and there may be a million.
    names, keys, places, _, found = named
    first_keys = list(map(itemgetter(0), keys))
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
