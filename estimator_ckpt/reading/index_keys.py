"""Whether the keys of an index belong together: slices of a variable, values of an object."""

from __future__ import annotations

import math
from collections.abc import Iterator

from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, same_tensor
from estimator_ckpt.bundle.slices import decode_slice_key, key_text, overlap, slice_key, slice_shape
from estimator_ckpt.objects.object_graph import BEFORE_ATTRIBUTE, ObjectGraph, is_object_key
from estimator_ckpt.reading.object_tensors import Entries, graph_tensors, names_in_var_list
from estimator_ckpt.text.names import first_names


def slice_faults(index: Index) -> Iterator[tuple[str, str]]:
    """(key, message) for variables that their slices do not cover, and slices of no variable.

    That a variable's slices exist, lie within it and do not overlap is seen to by read_index().
    """
    named: set[bytes] = set()
    partial: list[tuple[str, Entry]] = []
    for key, entry in index.entries.items():
        if entry.slices:
            name = key_text(key)
            named.update(slice_key(name, extents) for extents in entry.slices)
            if _sliced_values(entry) != math.prod(entry.shape):
                partial.append((name, entry))
    complete = _complete_together(partial)
    for name, entry in partial:
        if name not in complete:
            count, have = len(entry.slices), _sliced_values(entry)
            slices = "slice has" if count == 1 else f"{count} slices have"
            yield name, f"its {slices} {have} of its {math.prod(entry.shape)} values"
    for key in index.entries:
        if key[:1] == b"\0" and key not in named:
            name, extents = decode_slice_key(key)
            yield name, f"the slice {extents} belongs to no variable"


def _sliced_values(entry: Entry) -> int:
    return sum(math.prod(slice_shape(entry.shape, extents)) for extents in entry.slices)


def _complete_together(partial: list[tuple[str, Entry]]) -> set[str]:
    """The keys of slots whose variable's other parts have slots of their own, which have the rest.

    In a scope tf.compat.v1 gives each part of a partitioned variable a slot of another name, of
    the whole shape and with the part's slice alone: see slots.slot_variable().
    """
    groups: dict[tuple[str, str, int, tuple[int, ...]], list[tuple[str, Entry]]] = {}
    for name, entry in partial:
        path = name.partition(BEFORE_ATTRIBUTE)[0].replace(".S", "/")
        start, _, slot = path.rpartition("/")
        same = start.rstrip("0123456789"), slot, entry.dtype, entry.shape
        groups.setdefault(same, []).append((name, entry))
    complete: set[str] = set()
    for (_, _, _, shape), group in groups.items():
        slices = [extents for _, entry in group for extents in entry.slices]
        values = sum(_sliced_values(entry) for _, entry in group)
        if values == math.prod(shape) and not overlap(shape, slices):
            complete.update(name for name, _ in group)
    return complete


def graph_faults(graph: ObjectGraph | None, index: Index) -> Iterator[tuple[str | None, str]]:
    """(key, message) for everything in an object graph that a reader would trip over."""
    if graph is None:
        return
    entries = Entries(index)
    keys = entries.by_key.keys()
    paths = graph.object_paths()
    shown = ["no path" if path is None else path for path in paths]
    tensors = graph_tensors(graph, keys)
    nodes_with_tensors = {tensor.node for tensor in tensors.values()}
    owner: dict[str, int] = {}

    def path_of(number: int) -> str:
        return f"object {number} ({shown[number]!r})"

    for number, node in enumerate(graph.nodes):
        if node.attributes and paths[number] is None:
            key = node.attributes[0].checkpoint_key
            yield key, f"object {number} has values, but no path and no slot leads to it"
        for attribute in node.attributes:
            key = attribute.checkpoint_key
            if owner.setdefault(key, number) != number:
                first = str(owner[key]) if paths[owner[key]] is None else shown[owner[key]]
                yield (
                    key,
                    f"{path_of(number)} has the key of {first!r}: only one of them is restored",
                )
            elif key in entries.configs:
                continue
            elif key not in keys and number not in nodes_with_tensors:
                yield key, f"the value {attribute.name!r} of {path_of(number)} is not in the index"
            elif not is_object_key(key):
                what = "has a key without .ATTRIBUTES/, which no reader restores"
                yield key, f"{path_of(number)} {what}"
    plain_keys = keys - tensors.keys()
    in_var_list = names_in_var_list(graph)
    for tensor in tensors.values():
        for name in in_var_list.get(tensor.node, ()):
            name += tensor.suffix
            if name in plain_keys and not same_tensor(index, name, tensor.key):
                yield name, f"a variable name, but {tensor.key!r} has other bytes for that name"


def graph_notes(graph: ObjectGraph | None, index: Index) -> list[str]:
    """What of the objects and keys is unusual, but does no harm."""
    keys = Entries(index).by_key.keys()
    notes = []
    if graph is None:
        stray = sorted(key for key in keys if is_object_key(key))
        what = "are keys of objects, but there is no object graph"
    else:
        known = graph_tensors(graph, keys)
        stray = sorted(key for key in keys if is_object_key(key) and key not in known)
        what = "are keys of objects that the object graph does not name"
        for number, node in enumerate(graph.nodes):
            if node.registered_saver is not None:
                name, object_name = node.registered_saver
                notes.append(f"object {number} ({object_name!r}) has a saver of its own, {name!r}")
    if stray:
        notes.append(f"{first_names(stray)}: {len(stray)} {what}")
    return notes
