"""Which tensors of an object graph are slots of optimizers, and of which variables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.objects.object_graph import ObjectGraph
from estimator_ckpt.roles.dialects import LIST_NAMES
from estimator_ckpt.roles.newer_keras import ALL_VARIABLES, is_newer
from estimator_ckpt.roles.newer_names import flat_names, newer_keras_slot


def slots_of_graph(
    graph: ObjectGraph, names: Sequence[str], nodes: Sequence[int], entries: Sequence[Entry]
) -> dict[str, tuple[str, str]]:
    """By name the slots that an object graph tells of, each with its variable's name and its own.

    Args:
      graph: of the objects.
      names: of the variables.
      nodes: the object of each.
      entries: the entry of each.
    """
    found = _slots_by_reference(graph, zip(names, nodes))
    found.update(_slots_in_lists(graph, names, nodes, entries))
    return found


def _slots_by_reference(
    graph: ObjectGraph, names: Iterable[tuple[str, int]]
) -> dict[str, tuple[str, str]]:
    references = [slot for _, slot in graph.slot_references()]
    if not references:
        return {}
    name_of: dict[int, str] = {}
    for name, node in names:
        name_of.setdefault(node, name)
    return {
        name_of[slot.slot]: (name_of[slot.original], slot.slot_name)
        for slot in references
        if slot.slot in name_of and slot.original in name_of
    }


def _slots_in_lists(
    graph: ObjectGraph, names: Sequence[str], nodes: Sequence[int], entries: Sequence[Entry]
) -> dict[str, tuple[str, str]]:
    """The slots of Keras' newer optimizers: without references, in a list with other variables.

    Their full names tell what they are (keras/src/optimizers/optimizer.py, base_optimizer.py).
    """
    listed: set[int] = set()
    for optimizer in graph.nodes.others.values():
        if is_newer(optimizer):
            for name, child in optimizer.children.items():
                if name == ALL_VARIABLES or name in LIST_NAMES:
                    listed.update(graph.nodes.children(child).values())
    if not listed:
        return {}
    shapes = {name: entry.shape for name, entry in zip(names, entries)}
    flat = flat_names(names)
    found = {}
    for name, node in zip(names, nodes):
        if node in listed:
            full_name = graph.nodes.full_names[node] or name
            slot = newer_keras_slot(full_name, shapes[name], shapes.get, flat)
            if slot is not None:
                found[name] = slot.variable, slot.called
    return found
