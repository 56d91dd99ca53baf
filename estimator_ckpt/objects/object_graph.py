"""Names, object paths and keys; the object graph of a checkpoint, built, read and matched.

An object-based checkpoint is an index of tensors plus one string tensor, OBJECT_GRAPH_KEY, that
holds a TrackableObjectGraph (tensorflow/core/protobuf/trackable_object_graph.proto): objects with
named children, and for each object the keys of its tensors. Node 0 is the root.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress, repeat

from estimator_ckpt.bulk import collector_paused
from estimator_ckpt.errors import (
    ConflictError,
    CorruptCheckpointError,
    UnsupportedCheckpointError,
)
from estimator_ckpt.objects.message import VARIABLE_VALUE, decode_graph, encode_graph
from estimator_ckpt.objects.nodes import Attribute, Node, Nodes, SlotReference

__all__ = [
    "BEFORE_ATTRIBUTE",
    "OBJECT_CONFIG",
    "OBJECT_GRAPH_KEY",
    "SAVE_COUNTER",
    "STEP",
    "VAR_LIST",
    "ObjectGraph",
    "ObjectPath",
    "escape",
    "flat_graph",
    "flat_key",
    "is_object_key",
    "match",
    "object_key",
    "parse_path",
    "path_string",
    "slot_path",
    "unescape",
]

OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
# What Keras of TensorFlow 2.0 saved of a layer beside its variables: its class and settings as
# JSON, a string scalar. That is no variable.
OBJECT_CONFIG = "OBJECT_CONFIG_JSON"
VAR_LIST = "var_list"
SAVE_COUNTER = "save_counter"
STEP = "step"
# What the root of the default structure has.
DEFAULT_EDGES = (SAVE_COUNTER, STEP, VAR_LIST)
OPTIMIZER_SLOT = ".OPTIMIZER_SLOT"
BEFORE_ATTRIBUTE = "/.ATTRIBUTES/"  # in a key, between the object path and the attribute

_MOST_PATH_BYTES = 500_000_000

# In an optimizer of Keras 3 (keras/src/optimizers/base_optimizer.py).
_STATE, _WEIGHTS = "_variables", "_trainable_variables"

ObjectPath = tuple[str, ...]


def escape(local_name: str) -> str:
    """A local name as it stands inside a key (tensorflow/python/trackable/trackable_utils.py)."""
    return local_name.replace(".", "..").replace("/", ".S")


def unescape(part: str) -> str:
    """The local name that escape() turned into `part`; unknown escapes are kept as they are."""
    if "." not in part:
        return part
    out = []
    position = 0
    while position < len(part):
        pair = part[position : position + 2]
        if pair in ("..", ".S"):
            out.append("." if pair == ".." else "/")
            position += 2
        else:
            out.append(part[position])
            position += 1
    return "".join(out)


def path_string(path: Sequence[str]) -> str:
    """An object path as it stands in keys and in what we print: `model/dense.Skernel`."""
    return "/".join(map(escape, path))


def parse_path(text: str) -> ObjectPath:
    """The inverse of path_string()."""
    return tuple(unescape(part) for part in text.split("/")) if text else ()


def object_key(path: str, attribute: str = VARIABLE_VALUE) -> str:
    """The key of an object's tensor; `path` is a path_string()."""
    return f"{path}{BEFORE_ATTRIBUTE}{escape(attribute)}"


def flat_key(name: str, attribute: str = VARIABLE_VALUE) -> str:
    """The key that a variable has in the default structure: root, var_list, the variable."""
    return object_key(path_string((VAR_LIST, name)), attribute)


def slot_path(variable_path: str, optimizer_path: str, slot_name: str) -> str:
    """What a slot variable has instead of a path from the root."""
    return f"{variable_path}/{OPTIMIZER_SLOT}/{optimizer_path}/{escape(slot_name)}"


def is_object_key(key: str) -> bool:
    """Whether `key` names a tensor of an object, and not a variable by its name."""
    return BEFORE_ATTRIBUTE in key or key.startswith(BEFORE_ATTRIBUTE[1:])


class ObjectGraph:
    """Objects by node id; node 0 is the root.

    Attributes:
      nodes: by id.
      path: the checkpoint that they are of, for errors; None for objects of a program.
    """

    def __init__(self, nodes: Iterable[Node] = (), path: str | None = None) -> None:
        self.nodes = Nodes(nodes)
        self.path = path
        if not len(self.nodes):
            self.nodes.append(Node())

    @classmethod
    def parse(cls, data: bytes, *, path: str | None = None) -> ObjectGraph:
        """Reads a serialized TrackableObjectGraph.

        Raises:
          CorruptCheckpointError: not such a message, or one that names nodes it does not have or
            has two children of one name.
        """
        with collector_paused():
            try:
                return cls(decode_graph(bytes(data)), path)
            except CorruptCheckpointError as error:
                message = error.message
        raise CorruptCheckpointError(message, path=path, key=OBJECT_GRAPH_KEY)

    def serialize(self) -> bytes:
        """The TrackableObjectGraph message, with has_checkpoint_values filled in."""
        return encode_graph(self.nodes)

    def add(self, parent: int, local_name: str, *attributes: Attribute) -> int:
        """A new object below `parent`; returns its node id."""
        self.nodes.append(Node({}, attributes))
        self.link(parent, local_name, len(self.nodes) - 1)
        return len(self.nodes) - 1

    def add_variables(self, parent: int, path: str, names: Sequence[str]) -> list[str]:
        """New objects below `parent`, all at once: variables of these names; returns their keys.

        Args:
          parent: an object without children.
          path: the path_string() of it.
          names: the local and full names, each once.
        """
        end = object_key("")
        keys = [f"{path}/{escape(name)}{end}" for name in names]
        numbers = range(len(self.nodes), len(self.nodes) + len(names))
        self.nodes.extend_values([VARIABLE_VALUE] * len(names), names, keys)
        self.nodes[parent] = self.nodes[parent]._replace(children=dict(zip(names, numbers)))
        return keys

    def link(self, parent: int, local_name: str, node: int) -> None:
        """One more edge. Raises ConflictError where another object has that place already."""
        children = self.nodes.children(parent)
        if children.get(local_name, node) != node:
            path = path_string((*self.paths().get(parent, ("?",)), local_name))
            raise ConflictError(f"two objects would stand at {path!r}", key=path)
        if isinstance(children, dict):
            children[local_name] = node
        else:
            children = {**children, local_name: node}
            self.nodes[parent] = self.nodes[parent]._replace(children=children)

    def paths(self) -> dict[int, ObjectPath]:
        """The shortest path to every object that edges reach, as TensorFlow names keys by it.

        Raises:
          UnsupportedCheckpointError: objects so deep below each other that their paths together
            would fill the memory; a file of one megabyte can ask for hundreds of gigabytes.
        """
        found: dict[int, ObjectPath] = {0: ()}
        total = 0
        for parent, local_name, child in self.edges_from_root():
            found[child] = (*found[parent], local_name)
            total += 8 * len(found[child])
            self._check_path_bytes(total)
        return found

    def object_paths(self) -> list[str | None]:
        """paths() as strings, by node id, with slot variables named below their variables.

        None for an object that neither an edge nor a slot leads to. A weight's path leads through
        its model, if any does, and not through the optimizer, which lists it in Keras 3.

        Raises:
          UnsupportedCheckpointError: as paths() does.
        """
        found: list[str | None] = [None] * len(self.nodes)
        found[0] = ""
        total = 0
        level = [0]
        lists: list[tuple[int, int]] = []  # of optimizers, with the weights that they train
        while level or lists:
            if not level:
                optimizer, listed = lists.pop(0)
                if found[listed] is None:
                    found[listed] = f"{found[optimizer]}/" * bool(optimizer) + _WEIGHTS
                    level = [listed]
                continue
            starts: list[str] = []
            names: list[str] = []
            children: list[int] = []
            for parent in level:
                edges = self.nodes.children(parent)
                if _WEIGHTS in edges and _STATE in edges:
                    lists.append((parent, edges[_WEIGHTS]))
                    edges = {name: child for name, child in edges.items() if name != _WEIGHTS}
                starts.extend(repeat(f"{found[parent]}/" if parent else "", len(edges)))
                names.extend(edges)
                children.extend(edges.values())
            new = [found[child] is None for child in children]
            if not all(new):
                starts, names = list(compress(starts, new)), list(compress(names, new))
                children = list(compress(children, new))
            self._check_path_bytes(total + sum(map(len, starts)))
            paths = [start + escape(name) for start, name in zip(starts, names)]
            total += sum(map(len, paths))
            # Backwards, so that of several edges to an object the first counts.
            for child, path in zip(reversed(children), reversed(paths)):
                found[child] = path
            level = list(dict.fromkeys(filter(self.nodes.others.__contains__, children)))
        for number, slot in self.slot_references():
            of_variable, of_optimizer = found[slot.original], found[number]
            if found[slot.slot] is None and of_variable is not None and of_optimizer is not None:
                found[slot.slot] = path = slot_path(of_variable, of_optimizer, slot.slot_name)
                total += len(path)
                self._check_path_bytes(total)
        return found

    def _check_path_bytes(self, total: int) -> None:
        if total > _MOST_PATH_BYTES:
            message = f"an object graph so deep that its paths take over {_MOST_PATH_BYTES} bytes"
            raise UnsupportedCheckpointError(message, path=self.path, key=OBJECT_GRAPH_KEY)

    def edges_from_root(self) -> Iterator[tuple[int, str, int]]:
        """(parent, local name, child) by the first edge to each object, near the root first."""
        found = {0}
        waiting = deque([0])
        while waiting:
            parent = waiting.popleft()
            for local_name, child in self.nodes.children(parent).items():
                if child not in found:
                    found.add(child)
                    waiting.append(child)
                    yield parent, local_name, child

    def slot_references(self) -> Iterator[tuple[int, SlotReference]]:
        """Every slot with the node id of the optimizer that it belongs to."""
        for number in sorted(self.nodes.others):
            for slot in self.nodes[number].slots:
                yield number, slot

    def child_at(self, path: Sequence[str], start: int = 0) -> int | None:
        """The node at an object path, or None."""
        node: int | None = start
        for local_name in path:
            if node is None:
                return None
            node = self.nodes.children(node).get(local_name)
        return node

    def names(self) -> dict[str, list[tuple[int, Attribute]]]:
        """The values by variable name.

        The child of `var_list` named so (that is what the name was when it was saved), or else
        every value whose full name it is: two of them are two variables that share the name.
        """
        by_full_name: dict[str, list[tuple[int, Attribute]]] = {}
        for number, node in enumerate(self.nodes):
            for attribute in node.attributes:
                if attribute.full_name:
                    by_full_name.setdefault(attribute.full_name, []).append((number, attribute))
        var_list = self.child_at((VAR_LIST,))
        if var_list is not None:
            for name, number in self.nodes.children(var_list).items():
                if self.nodes[number].attributes:
                    by_full_name[name] = [(number, a) for a in self.nodes[number].attributes]
        return by_full_name


def flat_graph(
    variables: Mapping[str, str | int],
    *,
    step: str | None = None,
    base: ObjectGraph | None = None,
) -> ObjectGraph:
    """The default structure: root -> var_list -> one child per variable, keyed by its name.

    Args:
      variables: variable name -> the name of its attribute (VARIABLE_VALUE, `table`, ...), or the
        node id of the object that it is in `base` already, to which one more edge is added.
      step: the variable name of the global step, to which root -> step is one more edge.
      base: a graph to add it to, in place.

    Raises:
      ConflictError: `base` has another object where a variable belongs.
    """
    graph = base if base is not None else ObjectGraph()
    root = graph.nodes[0]
    var_list = root.children.get(VAR_LIST)
    if var_list is None:
        var_list = graph.add(0, VAR_LIST)
    for name, variable in variables.items():
        if isinstance(variable, int):
            graph.link(var_list, name, variable)
        else:
            graph.add(var_list, name, Attribute(variable, name, flat_key(name, variable)))
    if step is not None and STEP not in root.children:
        graph.link(0, STEP, graph.nodes[var_list].children[step])
    if SAVE_COUNTER not in root.children:
        counter = Attribute(VARIABLE_VALUE, SAVE_COUNTER, object_key(SAVE_COUNTER))
        graph.add(0, SAVE_COUNTER, counter)
    return graph


def match(template: ObjectGraph, saved: ObjectGraph, start: int = 0) -> dict[int, list[int]]:
    """For every object of `template` the objects of `saved` that stand in its place.

    The one is walked from its root, the other from `start`, along edges of the same names, then
    along slots of the same name that belong to matched variables and optimizers, as
    tf.train.Checkpoint.restore does (tensorflow/python/checkpoint/restore.py). More than one object
    means that the edges of the template lead to different objects of the checkpoint.
    """
    found: dict[int, list[int]] = {0: [start]}
    waiting = deque([(0, start)])

    def bind(ours: int, theirs: int) -> None:
        bound = found.setdefault(ours, [])
        if theirs not in bound:
            bound.append(theirs)
            waiting.append((ours, theirs))

    @functools.cache
    def slots_of(optimizer: int) -> dict[tuple[str, int], int]:
        return {(s.slot_name, s.original): s.slot for s in saved.nodes[optimizer].slots}

    while waiting:
        while waiting:
            ours, theirs = waiting.popleft()
            for local_name, child in template.nodes.children(ours).items():
                other = saved.nodes.children(theirs).get(local_name)
                if other is not None:
                    bind(child, other)
        for optimizer, slot in template.slot_references():
            for theirs in found.get(optimizer, ()):
                for original in found.get(slot.original, ()):
                    other = slots_of(theirs).get((slot.slot_name, original))
                    if other is not None:
                        bind(slot.slot, other)
    return found
