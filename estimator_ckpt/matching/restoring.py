"""Which tensor of a checkpoint belongs to which tensor of a model: by object path and by name."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from estimator_ckpt.bundle.index import Entry, same_tensor, slice_key
from estimator_ckpt.bundle.slices import key_bytes
from estimator_ckpt.bundle.tensors import dtype_name
from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.errors import MismatchError
from estimator_ckpt.formats import IN_WORDS
from estimator_ckpt.matching.counted import differ_in_weak_segments_only
from estimator_ckpt.matching.saved import has_objects_of_its_own
from estimator_ckpt.objects.object_graph import SAVE_COUNTER, STEP, VAR_LIST, ObjectGraph, match
from estimator_ckpt.text.names import NameIndex, meant
from estimator_ckpt.text.quantities import counted, tensor_text
from estimator_ckpt.text.rows import Row, fold
from estimator_ckpt.text.tables import text_table

MATCH_BY = ("path", "name")

# Beyond so many pairs of names a hint for each missing tensor costs more time than it saves.
_MOST_COMPARED = 500_000


@dataclass(frozen=True)
class Wanted:
    """One tensor that a model restores.

    Attributes:
      name: the variable name, as a Saver knows it.
      suffix: what the tensor's key has after the object's own (`-keys` of a lookup table), or "".
      node: its object in the model's object graph.
      attribute: the name of its value there (VARIABLE_VALUE, `table`, ...).
      shape: of the whole variable, not of a slice; None where it is not known.
      dtype: its name, `float32`.
      is_named: whether a mapping of the user's gives it a name other than the variable's own. It
        is found by that name alone then, wherever its object is.
      weak: for each segment of the name, whether a counter may have made it: the class of an object
        of the user's that holds the variable is called so. Empty where no object does.
      average: the variable name of its average, to be read instead where there is one, or "".
      is_averaged: whether the model knows that there is one.
      is_trainable: whether the model trains it.
    """

    name: str
    suffix: str
    node: int
    attribute: str
    shape: tuple[int, ...] | None
    dtype: str
    is_named: bool = False
    weak: tuple[bool, ...] = ()
    average: str = ""
    is_averaged: bool = False
    is_trainable: bool = False

    @property
    def tensor(self) -> str:
        return self.name + self.suffix

    @property
    def variable(self) -> str:
        """The name that a pattern matches; a tensor without one stands for itself."""
        return self.name or self.suffix


@dataclass(frozen=True)
class Resolution:
    """What a checkpoint has of what a model wants.

    Attributes:
      keys: the key of every tensor that fits, by its Wanted.tensor.
      missing: the tensors that the checkpoint lacks.
      problems: one row for each that does not fit: a path and a name that lead to different
        tensors, a name that two variables share, another shape or dtype.
      averages: the tensors, by their Wanted.tensor, of which `keys` has the average.
    """

    keys: Mapping[str, str]
    missing: Sequence[Wanted]
    problems: Sequence[Row]
    averages: Collection[str] = ()


def resolve(
    checkpoint: Checkpoint,
    wanted: Sequence[Wanted],
    structure: ObjectGraph,
    *,
    match_by: str | None = None,
    reshape: bool = False,
) -> Resolution:
    """Finds the key of every wanted tensor.

    Args:
      checkpoint: name-based, object-based or both.
      wanted: what the model needs.
      structure: the model's object graph, whose node ids `wanted` names, without the edges that
        only repeat the variables' names.
      match_by: "path" or "name" decides where the two lead to different tensors.
      reshape: whether another shape with as many elements will do.
    """
    finder = _Finder(checkpoint, structure)
    found = {want.tensor: finder.find(want, match_by) for want in wanted}
    finder.settle(found, match_by)
    keys: dict[str, str] = {}
    missing: list[Wanted] = []
    rows: list[Row] = []
    for want in wanted:
        one = found[want.tensor]
        if one.note:
            rows.append(_ambiguous(want, one))
        elif one.key is None:
            missing.append(want)
        else:
            entry = checkpoint.index.entries[key_bytes(one.key)]
            row = _misfit(want, entry, one.key, reshape=reshape)
            if row is None:
                keys[want.tensor] = one.key
            else:
                rows.append(row)
    averages = [tensor for tensor, one in found.items() if one.is_average]
    return Resolution(keys, missing, rows, averages)


def mismatch(checkpoint: Checkpoint, rows: Iterable[Row]) -> MismatchError:
    """The error that shows everything which does not fit, folded, in one table."""
    rows = list(rows)
    table = text_table(
        ("problem", "variable", "expected", "found", "note"),
        [(r.status, r.name, r.expected, r.found, r.note) for r in fold(rows)],
    )
    if any(row.status == "missing" for row in rows):
        table += "\non_missing='warn' or 'init' initializes what is missing instead."
    if any(row.status == "no average" for row in rows):
        table += "\non_missing='warn' or 'init' for these names reads the variables themselves."
    do = "does" if len(rows) == 1 else "do"
    return MismatchError(
        f"{counted(len(rows), 'variable')} {do} not fit this {IN_WORDS[checkpoint.format]}:\n"
        f"{table}",
        path=checkpoint.prefix,
    )


def missing_rows(
    checkpoint: Checkpoint, missing: Sequence[Wanted], status: str = "missing"
) -> list[Row]:
    """A row for each tensor that the checkpoint lacks, with the nearest name that it has."""
    pairs = len(missing) * len(checkpoint.variables)
    names = NameIndex(checkpoint.variables if pairs <= _MOST_COMPARED else ())
    at = {v.object_path: v.name for v in checkpoint.variables.values() if v.name != v.object_path}
    rows = []
    for want in missing:
        note = meant(names.near(want.tensor))
        if want.tensor in checkpoint.variables:
            note = "it is there by a name that a counter may have made; match_by='name' takes it"
        elif want.tensor in at:
            note = f"the object there is {at[want.tensor]}; `checkpoint=` gives the model objects"
        if want.is_named:
            note = f"the Saver's mapping gives this name; {note}".removesuffix("; ")
        rows.append(Row(status, want.tensor, tensor_text(want.dtype, want.shape), note=note))
    return rows


def _misfit(want: Wanted, entry: Entry, key: str, *, reshape: bool) -> Row | None:
    def row(status: str) -> Row:
        found = tensor_text(dtype_name(entry.dtype), entry.shape)
        return Row(status, want.tensor, tensor_text(want.dtype, want.shape), found, f"key {key}")

    if dtype_name(entry.dtype) != want.dtype:
        return row("dtype")
    if want.shape is None or entry.shape == want.shape:
        return None
    if reshape and math.prod(entry.shape) == math.prod(want.shape):
        return None
    return row("shape")


def _ambiguous(want: Wanted, found: _Found) -> Row:
    ways = found.ways
    by_path = ways.get("structure") or ways.get("var_list") or ()
    by_name = [key for way in ("var_list", "full name", "key") for key in ways.get(way, ())]
    return Row(
        "ambiguous",
        want.tensor,
        expected=f"by path: {' and '.join(by_path) or '-'}",
        found=f"by name: {' and '.join(dict.fromkeys(by_name)) or '-'}",
        note=found.note,
    )


# The ways to a tensor of a checkpoint, by what decides: the objects that the model's own objects
# match, the object that `var_list` has for the name, the objects that had the name in their graph,
# and the plain key that is the name.
_ORDERS = {
    "path": ("structure", "var_list", "full name", "key"),
    "name": ("key", "full name", "var_list", "structure"),
}
_DECIDES = "match_by='path' or 'name' decides"


@dataclass
class _Found:
    """Where the ways to one tensor lead.

    Attributes:
      ways: the keys that each way has found.
      key: the one that was chosen; None where there is none, or no one choice.
      note: why there is no one choice.
      is_average: whether the chosen one is the variable's average.
      is_named: as its Wanted has it.
    """

    ways: Mapping[str, Sequence[str]]
    key: str | None = None
    note: str = ""
    is_average: bool = False
    is_named: bool = False


class _Finder:
    """The ways to the tensors of one checkpoint."""

    def __init__(self, checkpoint: Checkpoint, structure: ObjectGraph) -> None:
        self._index = checkpoint.index
        self._saved = checkpoint.object_graph or ObjectGraph()
        self._bindings = match(structure, self._saved)
        self._full_names: dict[str, list[int]] = {}
        for number, node in enumerate(self._saved.nodes):
            for name in {attribute.full_name for attribute in node.attributes}:
                self._full_names.setdefault(name, []).append(number)

    def find(self, want: Wanted, match_by: str | None) -> _Found:
        ways = self._ways(want, want.average, ()) if want.average else {}
        if any(ways.values()):
            found = self._choose(ways, match_by)
            found.is_average = True
            return found
        bound = () if want.is_named else self._bindings.get(want.node, ())
        ways = self._ways(want, want.name, bound)
        if match_by is None and any(want.weak) and not want.is_named:
            ways, note = self._without_weak_name(want, ways)
            if note:
                return _Found(ways, note=note)
        found = self._choose(ways, match_by)
        found.is_named = want.is_named
        return found

    def _without_weak_name(
        self, want: Wanted, ways: dict[str, list[str]]
    ) -> tuple[dict[str, list[str]], str]:
        """The ways without those of a name that says nothing; or why there is no way."""
        here = ways["structure"]
        if here:
            names = {
                attribute.full_name
                for node in self._bindings.get(want.node, ())
                for attribute in self._saved.nodes[node].attributes
            }
            if all(differ_in_weak_segments_only(want.name, want.weak, name) for name in names):
                return {way: here if keys else [] for way, keys in ways.items()}, ""
        elif any(ways.values()) and has_objects_of_its_own(self._saved):
            if self._is_bound:
                return {way: [] for way in ways}, ""
            return ways, f"a counter may have made this name, and no object is there; {_DECIDES}"
        return ways, ""

    @cached_property
    def _is_bound(self) -> bool:
        """Whether any object of the model has a counterpart with a value, other than the step."""
        flat = set(map(self._saved.nodes.children(0).get, (STEP, SAVE_COUNTER)))
        nodes = {node for theirs in self._bindings.values() for node in theirs} - flat
        return any(self._saved.nodes[node].attributes for node in nodes)

    def settle(self, found: Mapping[str, _Found], match_by: str | None) -> None:
        """Sees to it that no tensor is read by two variables that came to it by different ways.

        One that has its path now, say, and one that has its name: one of the two must be new. Two
        that came by the same way were one variable when the checkpoint was written. A name that
        the user has given comes before all ways.
        """
        claims: dict[object, list[str]] = {}
        for tensor, one in found.items():
            if one.key is not None and not one.is_average:
                claims.setdefault(self._place(one.key), []).append(tensor)
        for place, tensors in claims.items():
            named = [tensor for tensor in tensors if found[tensor].is_named]
            if named:
                for tensor in set(tensors).difference(named):
                    found[tensor].key = None
                tensors = named
            if len(tensors) < 2:
                continue
            rivals = [
                (tensor, found[tensor], self._ways_to(place, found[tensor])) for tensor in tensors
            ]
            if set.intersection(*(ways for _, _, ways in rivals)):
                continue
            order = _ORDERS.get(match_by or "", ())
            strongest = next((way for way in order if any(way in r[2] for r in rivals)), None)
            for tensor, one, ways in rivals:
                if strongest is None:
                    others = ", ".join(other for other, _, _ in rivals if other != tensor)
                    one.note = f"this is also the one for {others}; {_DECIDES}"
                elif strongest not in ways:
                    one.key = None

    def _ways_to(self, place: object, one: _Found) -> set[str]:
        return {way for way, keys in one.ways.items() if place in map(self._place, keys)}

    def _ways(self, want: Wanted, name: str, bound: Sequence[int]) -> dict[str, list[str]]:
        listed = self._saved.child_at((VAR_LIST, name))
        plain = name + want.suffix
        return {
            "structure": self._keys(bound, want),
            "var_list": self._keys(() if listed is None else (listed,), want),
            "full name": self._keys(self._full_names.get(name, ()) if name else (), want),
            "key": [plain] if key_bytes(plain) in self._index.entries else [],
        }

    def _keys(self, nodes: Iterable[int], want: Wanted) -> list[str]:
        keys = [
            attribute.checkpoint_key + want.suffix
            for node in nodes
            for attribute in self._saved.nodes[node].attributes
            if attribute.name == want.attribute
        ]
        return [key for key in keys if key_bytes(key) in self._index.entries]

    def _choose(self, ways: Mapping[str, Sequence[str]], match_by: str | None) -> _Found:
        distinct = self._distinct(key for keys in ways.values() for key in keys)
        if len(distinct) < 2:
            return _Found(ways, distinct[0] if distinct else None)
        if match_by is not None:
            distinct = self._distinct(next(ways[way] for way in _ORDERS[match_by] if ways[way]))
        shared = self._distinct(ways["full name"])
        others = self._distinct(k for w, keys in ways.items() if w != "full name" for k in keys)
        if len(others) == 1 and len(self._distinct([*shared, *others])) == len(shared) > 1:
            # A full name that several variables share, to one of which the other ways lead.
            distinct = others
        if len(distinct) == 1:
            return _Found(ways, distinct[0])
        return _Found(ways, note=_DECIDES if others else "one name for several variables")

    def _distinct(self, keys: Iterable[str]) -> list[str]:
        """One key for each value: two keys of one checkpoint may stand for the same bytes."""
        found: list[str] = []
        for key in keys:
            if not any(same_tensor(self._index, key, other) for other in found):
                found.append(key)
        return found

    def _place(self, key: str) -> object:
        """Where its bytes are; a tensor without bytes is nowhere but under its key."""
        entry = self._index.entries[key_bytes(key)]
        if entry.slices:
            entry = self._index.entries[slice_key(key, entry.slices[0])]
        return (entry.shard, entry.offset) if entry.size else key
