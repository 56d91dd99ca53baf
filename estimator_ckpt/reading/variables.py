"""The variables of a checkpoint: its keys, named as a person and a Saver name them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress, count, islice
from operator import eq, le
from typing import Any, NamedTuple

from estimator_ckpt.bulk import AT_ONCE, collector_paused, columns_of, from_columns
from estimator_ckpt.bundle.dtypes import dtype_name
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index
from estimator_ckpt.bundle.slices import slice_key
from estimator_ckpt.objects.object_graph import ObjectGraph
from estimator_ckpt.reading.object_names import Named, named_by_graph
from estimator_ckpt.reading.object_tensors import Entries
from estimator_ckpt.roles.slots import slots_by_name


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


class Columns:
    """Variables by columns, which are fields of Variable: there may be a million of them.

    A column is put in order when it is asked for, as a listing does without some.

    Attributes:
      last_key: of the object; the same as the key where there is no other.
    """

    name: Sequence[str]
    key: Sequence[str]
    last_key: Sequence[str]
    object_path: Sequence[str | None]
    shape: Sequence[tuple[int, ...]]
    dtype: Sequence[str]
    nbytes: Sequence[int]
    slices: Sequence[int]
    slot_of: Sequence[str | None]
    slot_name: Sequence[str | None]
    entry: Sequence[Entry]

    def __init__(
        self,
        columns: Mapping[str, Sequence[Any]],
        order: Sequence[int],
        further_keys: Mapping[str, tuple[str, ...]],
    ) -> None:
        self._columns = columns
        self._order = order
        self._further_keys = further_keys

    def __len__(self) -> int:
        return len(self._order)

    def __getattr__(self, field: str) -> Sequence[Any]:
        if field not in Columns.__annotations__:
            raise AttributeError(field)
        column = self._columns[field]
        if not isinstance(self._order, range):  # then it is in order as it stands
            column = list(map(column.__getitem__, self._order))
        setattr(self, field, column)
        return column

    def take(self, positions: Sequence[int]) -> Columns:
        """The variables at these positions, in that order."""
        if len(positions) == len(self) and all(map(eq, positions, count())):
            return self
        order = list(map(self._order.__getitem__, positions))
        return Columns(self._columns, order, self._further_keys)

    def rows(self) -> Iterator[Variable]:
        """The variables one by one."""
        keys: Iterable[tuple[str, ...]] = (
            (key,) if key == last_key else (key, last_key)
            for key, last_key in zip(self.key, self.last_key)
        )
        if self._further_keys:
            further = (self._further_keys.get(name, ()) for name in self.name)
            keys = ((*own[:-1], *more, own[-1]) for own, more in zip(keys, further))
        fields = (keys if name == "keys" else getattr(self, name) for name in Variable._fields)
        return from_columns(Variable, *fields)


def read_variables(index: Index, graph: ObjectGraph | None) -> tuple[Columns, str]:
    """The variables, sorted by name, and the checkpoint's format.

    The format is "saver" without an object graph, and "both" if each tensor of the graph (other
    than `save_counter`, which no Saver has) also stands, with equal bytes, under a variable name,
    and not the global step alone, which does in every format. Else it is "checkpoint": what the
    graph does not name is listed under its key all the same, and a name in `var_list` that is also
    the key of other bytes is left to the key.
    """
    with collector_paused():
        entries = Entries(index)
        if graph is None:
            names = sorted(entries.by_key)
            found = list(map(entries.by_key.__getitem__, names))
            paths: list[str | None] = [None] * len(names)
            no_object = [-1] * len(names)
            named = Named(names, names, [False] * len(names), paths, no_object, found)
            return _variables(index, named, {}, {}), "saver"
        named, slots, is_both, further_keys = named_by_graph(index, graph, entries)
        return _variables(index, named, slots, further_keys), "both" if is_both else "checkpoint"


def _variables(
    index: Index,
    named: Named,
    slots: Mapping[str, tuple[str, str]],
    further_keys: Mapping[str, tuple[str, ...]],
) -> Columns:
    """The variables sorted by name. In the order of `named` less memory is walked through."""
    names, last_keys, is_key, paths, _, found = named
    keys = last_keys
    if any(is_key):
        keys = [name if both else key for name, key, both in zip(names, last_keys, is_key)]
    of_entries: Any = [[], [], [], []]
    for start in range(0, len(found), AT_ONCE):
        part = columns_of(found[start : start + AT_ONCE], "dtype", "shape", "size", "slices")
        for column, values in zip(of_entries, part):
            column.extend(values)
    dtypes, shapes, sizes, slices = of_entries
    for position in compress(count(), slices):
        parts = (slice_key(keys[position], extents) for extents in slices[position])
        sizes[position] = sum(index.entries[part].size for part in parts)
    dtype_names = {dtype: dtype_name(dtype) for dtype in set(dtypes)}
    order: Sequence[int] = range(len(names))
    if not all(map(le, names, islice(names, 1, None))):
        order = sorted(order, key=names.__getitem__)
    slot_of, slot_names = slots_by_name(names, shapes, order)
    for position in compress(count(), map(slots.__contains__, names)) if slots else ():
        slot_of[position], slot_names[position] = slots[names[position]]
    columns: dict[str, Sequence[Any]] = {
        "name": names,
        "key": keys,
        "last_key": last_keys,
        "object_path": paths,
        "shape": shapes,
        "dtype": list(map(dtype_names.__getitem__, dtypes)),
        "nbytes": sizes,
        "slices": list(map(len, slices)),
        "slot_of": slot_of,
        "slot_name": slot_names,
        "entry": found,
    }
    return Columns(columns, order, further_keys)
