"""The object graph of a checkpoint as an indented tree."""

from __future__ import annotations

from collections.abc import Iterator

from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.errors import MissingTensorError
from estimator_ckpt.object_graph import VARIABLE_VALUE, Node, escape
from estimator_ckpt.report import printable, tensor_text
from estimator_ckpt.variables import Variable, graph_tensors


def tree_lines(checkpoint: Checkpoint) -> Iterator[str]:
    """A line for each edge of the object graph, from the root on.

    An object that has been shown before, as shared ones and those of a cycle have, is shown by its
    path, without what is below it.

    Raises:
      MissingTensorError: the checkpoint is name-based and has no objects.
    """
    graph = checkpoint.object_graph
    if graph is None:
        raise MissingTensorError(
            "a name-based checkpoint has no objects; list it without --tree", path=checkpoint.prefix
        )
    places = graph.places()
    by_key = {key: one for one in checkpoint.variables.values() for key in one.keys}
    tensors: dict[int, list[Variable]] = {}
    for tensor in graph_tensors(graph, by_key):
        tensors.setdefault(tensor.node, []).append(by_key[tensor.key])
    shown: set[int] = set()
    waiting = [(0, "root", "", "")]  # node, label, indent of its line, indent of those below
    while waiting:
        number, label, indent, below = waiting.pop()
        line = indent + printable(label)
        if number in shown:
            yield f"{line} -> {printable(places[number]) or 'root'}"
            continue
        shown.add(number)
        node = graph.nodes[number]
        yield line + "".join(f"  {text}" for text in _details(node, tensors.get(number, [])))
        children = list(node.children.items())
        for place in range(len(children) - 1, -1, -1):
            last = place == len(children) - 1
            local_name, child = children[place]
            corner, bar = ("└── ", "    ") if last else ("├── ", "│   ")
            waiting.append((child, escape(local_name), below + corner, below + bar))


def _details(node: Node, variables: list[Variable]) -> Iterator[str]:
    names = [attribute.name for attribute in node.attributes]
    if names and names != [VARIABLE_VALUE]:
        yield f"({', '.join(map(printable, names))})"
    for one in variables:
        yield tensor_text(one.dtype, one.shape)
        if one.name != one.object_path:
            yield printable(one.name)
    if node.slots:
        slots = ", ".join(map(printable, sorted({slot.slot_name for slot in node.slots})))
        count = len({slot.original for slot in node.slots})
        yield f"slots {slots} of {count} variables"
    if node.registered_saver:
        yield f"saved by {printable(node.registered_saver[0])}"
