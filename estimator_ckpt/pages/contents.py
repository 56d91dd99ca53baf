"""The view of one checkpoint: what it is, its variables, its objects, as plain data."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

from estimator_ckpt.bulk import collector_paused
from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.errors import CheckpointError, printable
from estimator_ckpt.objects.object_graph import VAR_LIST, ObjectGraph, escape
from estimator_ckpt.reading.graph_facts import GraphFacts, read_graph_facts
from estimator_ckpt.reading.object_tensors import graph_tensors
from estimator_ckpt.reading.variables import Columns
from estimator_ckpt.roles import NUMBER, SLOT, STATISTIC, STEP, WEIGHT
from estimator_ckpt.roles.slots import AVERAGE
from estimator_ckpt.roles.training_state import state_by_names
from estimator_ckpt.text.quantities import counted, tensor_text
from estimator_ckpt.text.rows import Row, fold_groups

_AVERAGE = "average"
_ALL, _NO_SLOTS = "all", "without slots"
_ROLES = (WEIGHT, SLOT, _AVERAGE, STATISTIC, NUMBER, STEP)
_STATISTIC = re.compile(r"(?:.*/)?moving_(?:mean|variance)(?::0)?")
_T = TypeVar("_T", bound=Hashable)


def contents(checkpoint: Checkpoint) -> dict[str, Any]:
    """The view "contents" of a checkpoint: no value is read but the global step.

    Texts that repeat stand once, in `dtypes`, `shapes` and `roles`; the columns of `variables` are
    indices into them. `owner` is the index of the variable whose slot one is, or -1.
    """
    with collector_paused():
        columns = checkpoint.columns
        facts = read_graph_facts(checkpoint.prefix)
        roles = _roles(columns, facts)
        index_of = {name: index for index, name in enumerate(columns.name)}
        shapes, shape = _shared(columns.shape, lambda shape: tensor_text("", shape))
        dtypes, dtype = _shared(columns.dtype, str)
        return {
            "view": "contents",
            "prefix": printable(checkpoint.prefix),
            "facts": _facts(checkpoint, facts),
            "totals": _totals(columns, roles),
            "dtypes": dtypes,
            "shapes": shapes,
            "roles": list(_ROLES),
            "variables": {
                "name": list(map(printable, columns.name)),
                "shape": shape,
                "dtype": dtype,
                "role": [_ROLES.index(role) for role in roles],
                "bytes": list(columns.nbytes),
                "owner": [index_of.get(owner or "", -1) for owner in columns.slot_of],
                "path": _paths(columns),
            },
            "folded": _folded(columns),
            "objects": _objects(checkpoint, index_of),
        }


def _paths(columns: Columns) -> list[str]:
    """The object paths, without those in `var_list` that say no more than the name."""
    return [
        "" if path is None or path == f"{VAR_LIST}/{escape(name)}" else printable(path)
        for name, path in zip(columns.name, columns.object_path)
    ]


def _shared(values: Sequence[_T], text: Callable[[_T], str]) -> tuple[list[str], list[int]]:
    """The texts of the values that differ, and for each value the index of its text."""
    indices: dict[_T, int] = {}
    found = [indices.setdefault(value, len(indices)) for value in values]
    return list(map(text, indices)), found


def _roles(columns: Columns, facts: GraphFacts) -> list[str]:
    """What each variable is for, by the objects' slots and by names."""
    # Of those that are slots by now nothing more is asked, which takes a while for each.
    others = zip(columns.name, columns.shape, columns.slot_of)
    state = state_by_names({name: shape for name, shape, slot_of in others if slot_of is None})
    found = []
    for name, slot_of in zip(columns.name, columns.slot_of):
        if AVERAGE.match(name):
            found.append(_AVERAGE)
        elif slot_of is not None:
            found.append(SLOT)
        elif name in state:
            found.append(state[name][0])
        elif facts.trainable.get(name) is False or _STATISTIC.fullmatch(name):
            found.append(STATISTIC)
        else:
            found.append(WEIGHT)
    return found


def _facts(checkpoint: Checkpoint, facts: GraphFacts) -> list[list[str]]:
    """What the head of the page says, in pairs of a label and a text."""
    shards = checkpoint.index.num_shards
    found = [
        ["format", checkpoint.format + (" (V1)" if checkpoint.index.v1 else "")],
        ["data", counted(shards, "file")],
    ]
    try:
        step = checkpoint.global_step
    except CheckpointError as error:
        found.append(["not readable", str(error)])
    else:
        found += [] if step is None else [["global step", f"{step:,}"]]
    if facts.tensorflow_version:
        found.append(["written by", f"TensorFlow {printable(facts.tensorflow_version)}"])
    found += [["signature", printable(text)] for text in facts.signatures]
    found += [["tags", printable(text)] for text in facts.tags]
    found += [["asset", printable(text)] for text in facts.assets]
    if checkpoint.data_error is not None:
        found.append(["not readable", str(checkpoint.data_error)])
    return found


def _totals(columns: Columns, roles: Sequence[str]) -> list[tuple[str, int, int, int]]:
    """A line for all variables, one for those that are no slots, one for each role that some have.

    The label, how many variables, how many values are in them, and their bytes.
    """
    sizes = dict.fromkeys((_ALL, _NO_SLOTS, *_ROLES), (0, 0, 0))
    for role, shape, nbytes in zip(roles, columns.shape, columns.nbytes):
        values = math.prod(shape)
        for label in (_ALL, role) if role == SLOT else (_ALL, _NO_SLOTS, role):
            count, before, total = sizes[label]
            sizes[label] = (count + 1, before + values, total + nbytes)
    if not sizes[SLOT][0]:
        del sizes[_NO_SLOTS]
    return [
        (label, count, values, nbytes)
        for label, (count, values, nbytes) in sizes.items()
        if count or label == _ALL
    ]


def _folded(columns: Columns) -> list[list[str]]:
    """Name, tensor and bytes with repeated layers in a row."""
    rows = (
        Row(tensor_text(dtype, shape), name, note=str(nbytes))
        for name, dtype, shape, nbytes in zip(
            columns.name, columns.dtype, columns.shape, columns.nbytes
        )
    )
    return [
        [printable(row.name), row.status, str(sum(int(member.note) for member in members))]
        for row, members in fold_groups(rows)
    ]


def _objects(checkpoint: Checkpoint, index_of: dict[str, int]) -> dict[str, Any] | None:
    """The objects by node id: their edges, classes, and the variables that are their values."""
    graph = checkpoint.object_graph
    if graph is None:
        return None
    by_key = {key: one.name for one in checkpoint.variables.values() for key in one.keys}
    tensors: dict[int, list[int]] = {}
    for tensor in graph_tensors(graph, by_key).values():
        tensors.setdefault(tensor.node, []).append(index_of[by_key[tensor.key]])
    try:
        classes = checkpoint.object_classes
    except CheckpointError:
        classes = {}
    return {
        "children": [_children(graph, node) for node in range(len(graph.nodes))],
        "tensors": {str(node): found for node, found in tensors.items()},
        "classes": {str(node): printable(name) for node, name in classes.items()},
    }


def _children(graph: ObjectGraph, node: int) -> list[list[Any]]:
    edges = graph.nodes.children(node).items()
    return [[printable(escape(name)), child] for name, child in edges]
