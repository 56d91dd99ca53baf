"""What a graph saves: each tensor with its name, its key and its place in the object graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

import tensorflow as tf

from estimator_ckpt import tf_internals
from estimator_ckpt.errors import ConflictError, SettingsError
from estimator_ckpt.matching import Wanted
from estimator_ckpt.object_graph import (
    OBJECT_GRAPH_KEY,
    SAVE_COUNTER,
    VARIABLE_VALUE,
    ObjectGraph,
    flat_graph,
    flat_key,
    object_key,
)
from estimator_ckpt.tf_internals import Saveable

VarList = Union[Sequence[Any], Mapping[str, Any], None]
Objects = Union["tf.train.Checkpoint", Mapping[str, Any], Sequence[Saveable], Callable[[], Any]]

SAVE_COUNTER_KEY = object_key(SAVE_COUNTER)

# How the parts of a saveable are told apart in its keys, and what TensorFlow calls the attribute
# (tensorflow/python/ops/lookup_ops.py).
_ATTRIBUTES = {("",): VARIABLE_VALUE, ("-keys", "-values"): "table"}


@dataclass(frozen=True)
class SavedTensor:
    """One tensor that is written: a variable, a slice of one, or a part of a lookup table.

    Attributes:
      wanted: how it is found again; `wanted.tensor` is its key in a name-based checkpoint.
      key: its key in an object-based one.
      source: the name of the op that holds the value.
    """

    wanted: Wanted
    key: str
    source: str


@dataclass(frozen=True)
class Contents:
    """Everything that one saver writes and restores.

    Attributes:
      saveables: by name; the slices of a partitioned variable stand under one name.
      tensors: what each saveable consists of, by its id(), in the order of its specs.
      object_graph: the user's objects, if any, with the complete `var_list` beside them.
    """

    saveables: Mapping[str, Sequence[Saveable]]
    tensors: Mapping[int, Sequence[SavedTensor]]
    object_graph: ObjectGraph

    def all_tensors(self) -> Iterator[SavedTensor]:
        for group in self.saveables.values():
            for saveable in group:
                yield from self.tensors[id(saveable)]

    def wanted(self) -> list[Wanted]:
        """What a restore needs, each tensor once, however many slices it has."""
        found: dict[str, Wanted] = {}
        for group in self.saveables.values():
            for saveable in group:
                if not tf_internals.never_restored(saveable):
                    for tensor in self.tensors[id(saveable)]:
                        found.setdefault(tensor.wanted.tensor, tensor.wanted)
        return list(found.values())


def all_saveable_objects() -> list[Any]:
    """The default graph's global variables and other saveables: what a stock Saver saves."""
    return [
        *tf.compat.v1.global_variables(),
        *tf.compat.v1.get_collection(tf.compat.v1.GraphKeys.SAVEABLE_OBJECTS),
    ]


def graph_contents(
    var_list: VarList = None, objects: Objects | None = None, *, average: str | None = None
) -> Contents:
    """Reads from the default graph what a saver is to save.

    Args:
      var_list: as tf.compat.v1.train.Saver takes it; None means all saveable objects.
      objects: the user's own: a tf.train.Checkpoint, a dict of trackables, a callable that returns
        one of these, or the saveables that TensorFlow made of one.
      average: the name of a tf.train.ExponentialMovingAverage, whose variables a restore reads
        instead of the averaged ones where the checkpoint has them.

    Raises:
      ConflictError: one name or key would mean two tensors.
      SettingsError: `objects` is none of these, creates variables, or has a saver registered for
        one of its classes, which cannot run inside a graph.
    """
    users_graph, users_saveables = _users_objects(objects)
    try:
        saveables = tf_internals.saveables_by_name(
            all_saveable_objects() if var_list is None else var_list
        )
    except ValueError as error:
        raise ConflictError(str(error)) from None

    theirs = {_source(saveable): saveable for saveable in users_saveables}
    owners = {name: theirs.pop(_source(group[0]), None) for name, group in saveables.items()}
    node_of_key = {key: node for key, (node, _) in _attributes(users_graph).items()}
    places: dict[str, str | int] = {}
    for name, owner in owners.items():
        if owner is None:
            suffixes = tuple(_suffixes(name, saveables[name][0]))
            places[name] = _ATTRIBUTES.get(suffixes, "STATE")
        else:
            places[name] = node_of_key.get(owner.specs[0].name, node_of_key.get(owner.name, 0))
    graph = flat_graph(places, step=_global_step_name(saveables), base=users_graph)

    attributes = _attributes(graph)
    tensors: dict[int, tuple[SavedTensor, ...]] = {}
    for name, group in saveables.items():
        for saveable in group:
            suffixes = tuple(_suffixes(name, saveable))
            owner = owners[name]
            keys = (
                [spec.name for spec in owner.specs]
                if owner is not None
                else [flat_key(name, str(places[name])) + suffix for suffix in suffixes]
            )
            tensors[id(saveable)] = tuple(
                _saved_tensor(name, suffix, key, attributes, saveable, spec, average)
                for suffix, key, spec in zip(suffixes, keys, saveable.specs)
            )
    # What only the user's objects reach: local variables, state of Python objects.
    for saveable in theirs.values():
        name, parts = _users_name(saveable, attributes)
        saveables[name] = [saveable]
        tensors[id(saveable)] = tuple(
            _saved_tensor(name, suffix, spec.name, attributes, saveable, spec, None)
            for suffix, spec in zip(parts, saveable.specs)
        )
    contents = Contents(saveables, tensors, graph)
    _check_keys(contents)
    return contents


def _users_objects(objects: Objects | None) -> tuple[ObjectGraph, list[Saveable]]:
    """The user's object graph and its saveables, each named by its key."""
    if objects is None:
        return ObjectGraph(), []
    if callable(objects) and not isinstance(objects, tf.train.Checkpoint):
        before = len(tf.compat.v1.global_variables())
        objects = objects()
        created = tf.compat.v1.global_variables()[before:]
        if created:
            raise SettingsError(
                "the callable runs while the graph is finalized, when variables can no longer be "
                f"initialized, but it created {[v.name for v in created]}; create them in the "
                "model_fn",
                key="checkpoint",
            )
    if isinstance(objects, Mapping):
        objects = tf.train.Checkpoint(**objects)
    if isinstance(objects, tf.train.Checkpoint):
        objects = tf_internals.frozen_saveables(objects)
    if not isinstance(objects, (list, tuple)):
        raise SettingsError(
            "expected a tf.train.Checkpoint, a dict of trackables or a callable that returns one, "
            f"found {type(objects).__name__}",
            key="checkpoint",
        )
    graph = ObjectGraph()
    saveables = []
    for saveable in objects:
        data = tf_internals.object_graph_bytes(saveable)
        if data is None:
            saveables.append(saveable)
        else:
            graph = ObjectGraph.parse(data)
    registered = [node.registered_saver[0] for node in graph.nodes if node.registered_saver]
    if registered:
        raise SettingsError(
            f"objects saved through registered savers ({', '.join(sorted(set(registered)))}) "
            "cannot be saved from a graph",
            key="checkpoint",
        )
    return graph, saveables


def _source(saveable: Saveable) -> str:
    """The op that holds the value, whatever reads it: one variable, one source."""
    op = getattr(saveable.op, "op", None) or saveable.specs[0].tensor.op
    while op.inputs:
        op = op.inputs[0].op
    name: str = op.name
    return name


def _suffixes(name: str, saveable: Saveable) -> Iterator[str]:
    """What each spec's name has after the saveable's own."""
    for spec in saveable.specs:
        # A spec that is named otherwise altogether keeps its name: Wanted.tensor must be it.
        yield spec.name[len(name) :] if spec.name.startswith(name) else spec.name


def _attributes(graph: ObjectGraph) -> dict[str, tuple[int, str]]:
    return {
        attribute.checkpoint_key: (number, attribute.name)
        for number, node in enumerate(graph.nodes)
        for attribute in node.attributes
    }


def _users_name(
    saveable: Saveable, attributes: Mapping[str, tuple[int, str]]
) -> tuple[str, list[str]]:
    """A name for what has none in the graph: its object path, as its keys begin with."""
    name = saveable.name.partition("/.ATTRIBUTES/")[0]
    start = len(saveable.name) if saveable.name in attributes else None
    return name, [spec.name[start:] if start else "" for spec in saveable.specs]


def _saved_tensor(
    name: str,
    suffix: str,
    key: str,
    attributes: Mapping[str, tuple[int, str]],
    saveable: Saveable,
    spec: Any,
    average: str | None,
) -> SavedTensor:
    node, attribute = attributes.get(key) or attributes[key[: len(key) - len(suffix)]]
    wanted = Wanted(
        name=name if spec.name.startswith(name) or "/.ATTRIBUTES/" in spec.name else "",
        suffix=suffix,
        node=node,
        attribute=attribute,
        shape=_shape(saveable, spec),
        dtype=spec.dtype.base_dtype.name,
        aliases=(f"{name}/{average}",) if average and attribute == VARIABLE_VALUE else (),
    )
    return SavedTensor(wanted, key, _source(saveable))


def _shape(saveable: Saveable, spec: Any) -> tuple[int, ...] | None:
    if spec.slice_spec:
        # "10 4 0,5:0,4": the whole shape, then start and length of the slice in each dimension.
        return tuple(int(size) for size in spec.slice_spec.split()[:-1])
    shape = getattr(saveable.op, "shape", None)
    if len(saveable.specs) > 1 or not isinstance(shape, tf.TensorShape):
        return None
    return tuple(shape.as_list()) if shape.is_fully_defined() else None


def _global_step_name(saveables: Mapping[str, Sequence[Saveable]]) -> str | None:
    step = tf.compat.v1.train.get_global_step()
    if step is None:
        return None
    return next(
        (name for name, group in saveables.items() if _source(group[0]) == step.op.name), None
    )


def _check_keys(contents: Contents) -> None:
    names: dict[str, SavedTensor] = {}
    keys: dict[str, str] = {OBJECT_GRAPH_KEY: OBJECT_GRAPH_KEY, SAVE_COUNTER_KEY: SAVE_COUNTER_KEY}
    for tensor in contents.all_tensors():
        name = tensor.wanted.tensor
        names.setdefault(name, tensor)
        if keys.setdefault(tensor.key, name) != name:
            raise ConflictError(
                f"variables {keys[tensor.key]!r} and {name!r} would both be saved under it",
                key=tensor.key,
            )
    for name in names.keys() & keys.keys():
        raise ConflictError(
            f"a variable has this name, and {keys[name]!r} is saved under it as a key; rename one",
            key=name,
        )
