"""The object graph of a checkpoint as an indented tree, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator

from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.errors import MissingTensorError, printable
from estimator_ckpt.objects.message import VARIABLE_VALUE
from estimator_ckpt.objects.nodes import Node
from estimator_ckpt.objects.object_graph import OBJECT_CONFIG, ObjectGraph, escape
from estimator_ckpt.reading.object_tensors import graph_tensors
from estimator_ckpt.reading.variables import Variable
from estimator_ckpt.text.quantities import counted, tensor_text


def tree_lines(checkpoint: Checkpoint, *, all_branches: bool = False) -> Iterator[str]:
    """A line for each edge of the object graph, from the root on.

    Branches without a value, a slot or a saver are counted in a last line, unless `all_branches`
    asks for them: of a SavedModel they are nearly all.

    An object stands with all that is below it at its shortest path, its object path; further edges
    to it, as shared objects and cycles have, show that path instead.

    Raises:
      MissingTensorError: the checkpoint is name-based and has no objects.
    """
    graph, tensors = _objects(checkpoint)
    paths, classes = graph.object_paths(), checkpoint.object_classes
    shown = range(len(graph.nodes)) if all_branches else _with_values(graph, tensors)
    shortest = {(parent, local_name) for parent, local_name, _ in graph.edges_from_root()}
    # Node, its label, whether it stands here, how many are above it, the bar before what is below.
    waiting = [(0, "root", True, 0, "")]
    bars: list[str] = []
    while waiting:
        number, label, stands_here, depth, bar = waiting.pop()
        del bars[depth:]
        start = "".join(bars) + label
        if not stands_here:
            yield f"{start} -> {printable(paths[number] or '') or 'root'}"
            continue
        node = graph.nodes[number]
        details = _details(node, tensors.get(number, []), classes.get(number))
        yield start + "".join(f"  {text}" for text in details)
        bars.append(bar)
        edges = [edge for edge in node.children.items() if edge[1] in shown]
        for index in range(len(edges) - 1, -1, -1):
            local_name, child = edges[index]
            corner, bar = ("└── ", "    ") if index == len(edges) - 1 else ("├── ", "│   ")
            label = corner + printable(escape(local_name))
            waiting.append((child, label, (number, local_name) in shortest, depth + 1, bar))
    hidden = sum(path is not None for path in paths) - len(shown)
    if not all_branches and hidden > 0:
        objects = "1 object" if hidden == 1 else f"{hidden:,} objects"
        yield f"({objects} without values hidden; --all shows all)"


def _with_values(graph: ObjectGraph, tensors: dict[int, list[Variable]]) -> set[int]:
    """The root, the objects with something of their own, and those that these stand below."""
    shown = {0}
    for parent, _, child in reversed(list(graph.edges_from_root())):
        node = graph.nodes[child]
        if (
            child in shown
            or tensors.get(child)
            or any((node.attributes, node.slots, node.registered_saver))
        ):
            shown |= {parent, child}
    return shown


def tree_json(checkpoint: Checkpoint) -> Iterator[str]:
    """The lines of a JSON object with all objects by node id, those that no edge leads to as well.

    Raises:
      MissingTensorError: the checkpoint is name-based and has no objects.
    """
    graph, tensors = _objects(checkpoint)
    head = {"path": checkpoint.path, "prefix": checkpoint.prefix}
    yield "{" + json.dumps(head)[1:-1] + ', "objects": ['
    for number, (path, node) in enumerate(zip(graph.object_paths(), graph.nodes)):
        fields = {
            "id": number,
            "object_path": path,
            "children": dict(node.children),
            "variables": [one.name for one in tensors.get(number, ())],
            "slots": [slot._asdict() for slot in node.slots],
            "saver": node.registered_saver and node.registered_saver[0],
            "class": checkpoint.object_classes.get(number),
        }
        yield json.dumps(fields) + ("," if number < len(graph.nodes) - 1 else "")
    yield "]}"


def _objects(checkpoint: Checkpoint) -> tuple[ObjectGraph, dict[int, list[Variable]]]:
    """The objects, and by node id the variables that their values are."""
    graph = checkpoint.object_graph
    if graph is None:
        raise MissingTensorError(
            "a name-based checkpoint has no objects; list it without --tree", path=checkpoint.prefix
        )
    by_key = {key: one for one in checkpoint.variables.values() for key in one.keys}
    tensors: dict[int, list[Variable]] = {}
    for tensor in graph_tensors(graph, by_key).values():
        tensors.setdefault(tensor.node, []).append(by_key[tensor.key])
    return graph, tensors


def _details(node: Node, variables: list[Variable], class_name: str | None) -> Iterator[str]:
    if class_name is not None:
        yield printable(class_name)
    names = [attribute.name for attribute in node.attributes if attribute.name != OBJECT_CONFIG]
    if names and names != [VARIABLE_VALUE]:
        yield f"({', '.join(map(printable, names))})"
    for one in variables:
        yield tensor_text(one.dtype, one.shape)
        if one.name != one.object_path:
            yield printable(one.name)
    if node.slots:
        slots = ", ".join(map(printable, sorted({slot.slot_name for slot in node.slots})))
        count = len({slot.original for slot in node.slots})
        yield f"slots {slots} of {counted(count, 'variable')}"
    if node.registered_saver:
        yield f"saved by {printable(node.registered_saver[0])}"
