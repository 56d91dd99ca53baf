"""What a saver is to save, read from a graph: each tensor gets its name, its key and its object."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Union

import tensorflow as tf

from estimator_ckpt.bulk import collector_paused
from estimator_ckpt.errors import ConflictError
from estimator_ckpt.matching.restoring import Wanted
from estimator_ckpt.objects.message import VARIABLE_VALUE
from estimator_ckpt.objects.nodes import Attribute
from estimator_ckpt.objects.object_graph import (
    BEFORE_ATTRIBUTE,
    OBJECT_GRAPH_KEY,
    SAVE_COUNTER,
    VAR_LIST,
    ObjectGraph,
    escape,
    flat_graph,
    flat_key,
    object_key,
)
from estimator_ckpt.saving import tf_internals
from estimator_ckpt.saving.contents import Contents, Record, SavedTensor
from estimator_ckpt.saving.given import (
    Objects,
    VarList,
    named_saveables,
    names_on_purpose,
    users_objects,
)
from estimator_ckpt.saving.saveables import holders_of, shape_of, source, suffixes_of, variable_of
from estimator_ckpt.saving.tf_internals import Saveable

SAVE_COUNTER_KEY = object_key(SAVE_COUNTER)

# How the parts of a saveable are told apart in its keys, and what TensorFlow calls the attribute
# (tensorflow/python/ops/lookup_ops.py, tensorflow/python/data/ops/iterator_ops.py).
_ATTRIBUTES = {("",): VARIABLE_VALUE, ("-keys", "-values"): "table", ("_STATE",): "ITERATOR"}

# The attributes of an object graph by their keys, each with the index of its node.
_Attributes = Mapping[str, tuple[int, Attribute]]

# What an object of `var_list` is: a node of the user's own objects, or a new one with an attribute.
_Object = Union[int, str]


class _Assigned(NamedTuple):
    """What the saveables of one name get in an object-based checkpoint.

    Attributes:
      keys: the key of each part, by its suffix.
      to: its object.
      owner: the user's saveable of the same variable, if an object of theirs holds it.
    """

    keys: Mapping[str, str]
    to: _Object
    owner: Saveable | None


@collector_paused()
def graph_contents(
    var_list: VarList = None, objects: Objects | None = None, *, ema: Any = None
) -> Contents:
    """Reads from the default graph what a saver is to save.

    Args:
      var_list: as tf.compat.v1.train.Saver takes it; None means all saveable objects.
      objects: the user's own: a tf.train.Checkpoint, a dict of trackables, a callable that returns
        one of these, or the saveables that TensorFlow made of one.
      ema: a tf.train.ExponentialMovingAverage or its name, whose variables a restore reads instead
        of the averaged ones.

    Raises:
      ConflictError: one name or key would mean two tensors.
      SettingsError: `objects` is none of these, creates variables, or has a saver registered for
        one of its classes, which cannot run inside a graph; `var_list` is not what a Saver takes.
    """
    graph, users_saveables, weak = users_objects(objects)
    saveables = named_saveables(var_list)
    on_purpose = names_on_purpose(var_list, saveables)
    assigned = _assign_objects(saveables, users_saveables, graph)
    for name, given in assigned.items():
        if isinstance(given.to, int):
            _rename(graph, given.to, name)
    step = _global_step_name(saveables)
    structure = _with_var_list(graph, {name: given.to for name, given in assigned.items()}, step)

    attributes = _attributes(graph)
    with_average = _averages(ema)
    records = []
    for name, group in saveables.items():
        for saveable in group:
            tensors = []
            for suffix, spec in zip(suffixes_of(name, saveable), saveable.specs):
                key = assigned[name].keys[suffix]
                wanted = _wanted(name, suffix, key, attributes, saveable, spec)
                if name in on_purpose or name in weak:
                    wanted = replace(wanted, is_named=name in on_purpose, weak=weak.get(name, ()))
                tensors.append(SavedTensor(with_average(wanted, saveable), key))
            records.append(Record(name, saveable, tensors, holders_of(saveable)))

    owners = {id(given.owner) for given in assigned.values() if given.owner is not None}
    others = [saveable for saveable in users_saveables if id(saveable) not in owners]
    covered = {source(record.saveable) for record in records} if others else set()
    records += _users_records(others, covered, set(saveables), graph, attributes)
    contents = Contents(records, graph, structure, step)
    _check_keys(contents)
    return contents


def _assign_objects(
    saveables: Mapping[str, Sequence[Saveable]],
    users_saveables: Sequence[Saveable],
    graph: ObjectGraph,
) -> dict[str, _Assigned]:
    """The keys and the object of each name: the user's own, or those of the default structure."""
    by_source = {source(saveable): saveable for saveable in reversed(users_saveables)}
    attributes = _attributes(graph)
    found = {}
    for name, group in saveables.items():
        suffixes = suffixes_of(name, group[0])
        owner = by_source.get(source(group[0])) if by_source else None
        keys = None if owner is None else _keys_of(owner, group[0], suffixes, attributes)
        if owner is None or keys is None:
            attribute = _ATTRIBUTES.get(tuple(suffixes), "STATE")
            keys = {suffix: flat_key(name, attribute) + suffix for suffix in suffixes}
            found[name] = _Assigned(keys, attribute, None)
        else:
            node, _ = _attribute_of(owner, owner.specs[0], attributes)
            found[name] = _Assigned(keys, node, owner)
    return found


def _users_records(
    saveables: Sequence[Saveable],
    covered: Collection[str],
    names: set[str],
    graph: ObjectGraph,
    attributes: _Attributes,
) -> list[Record]:
    """What only the user's objects reach: local variables, tables of their own, Python state.

    Args:
      saveables: theirs.
      covered: the ops whose values are saved already.
      names: those that are taken.
      graph: of the user's objects, in which variables get their full names.
      attributes: of the graph.
    """
    found = []
    for saveable in saveables:
        for name, part, tensors in _users_parts(saveable, covered, graph, attributes):
            if name in names:
                raise ConflictError("two objects would be saved under this name", key=name)
            names.add(name)
            found.append(Record(name, part, tensors, holders_of(part)))
    return found


def _with_var_list(
    graph: ObjectGraph, objects: Mapping[str, _Object], step: str | None
) -> ObjectGraph:
    """Adds the default structure to a graph; returns what was there, with the new objects."""
    index = graph.child_at((VAR_LIST,))
    theirs = dict(graph.nodes[index].children) if index is not None else {}
    flat_graph(objects, step=step, base=graph)
    structure = ObjectGraph(graph.nodes)
    index = graph.nodes[0].children[VAR_LIST]
    structure.nodes[index] = graph.nodes[index]._replace(children=theirs)
    return structure


def _attributes(graph: ObjectGraph) -> _Attributes:
    return {
        attribute.checkpoint_key: (index, attribute)
        for index, node in enumerate(graph.nodes)
        for attribute in node.attributes
    }


def _attribute_of(saveable: Saveable, spec: Any, attributes: _Attributes) -> tuple[int, Attribute]:
    """The object and the attribute of it that one tensor of the user's objects belongs to."""
    return attributes.get(spec.name) or attributes[saveable.name]


def _keys_of(
    owner: Saveable, saveable: Saveable, suffixes: Sequence[str], attributes: _Attributes
) -> Mapping[str, str] | None:
    """The key of each part, if the user's object saves the same parts as `saveable`, else None."""
    if bool(owner.specs[0].slice_spec) != bool(saveable.specs[0].slice_spec):
        # One slice of a partitioned variable, tracked as if it were a variable by itself.
        return None
    found = [spec.name for spec in owner.specs]
    if len(suffixes) == len(set(found)) == 1:
        return {suffixes[0]: found[0]}
    keys = {suffix: owner.name + suffix for suffix in suffixes}
    return keys if owner.name in attributes and sorted(keys.values()) == sorted(found) else None


def _rename(graph: ObjectGraph, index: int, name: str) -> None:
    """Full names are the names of var_list: a stock Saver looks for them in an object graph."""
    node = graph.nodes[index]
    attributes = tuple(attribute._replace(full_name=name) for attribute in node.attributes)
    graph.nodes[index] = node._replace(attributes=attributes)


def _users_parts(
    saveable: Saveable,
    covered: Collection[str],
    graph: ObjectGraph,
    attributes: _Attributes,
) -> Iterator[tuple[str, Saveable, Sequence[SavedTensor]]]:
    """What to save for an object that no variable of the graph stands for: name and saveable."""
    twice = source(saveable) in covered
    variable = None if twice else variable_of(saveable)
    name = "" if variable is None else tf_internals.op_name(variable)
    tensors = []
    for spec in saveable.specs:
        index, attribute = _attribute_of(saveable, spec, attributes)
        _rename(graph, index, name)
        key = attribute.checkpoint_key
        base = name or key.rpartition(BEFORE_ATTRIBUTE)[0] or "root"
        if len(graph.nodes[index].attributes) > 1 and attribute.name != VARIABLE_VALUE:
            base += f"/{escape(attribute.name)}"
        wanted = Wanted(
            name=base,
            suffix=spec.name[len(key) :],
            node=index,
            attribute=attribute.name,
            shape=shape_of(saveable, spec),
            dtype=spec.dtype.base_dtype.name,
        )
        tensors.append(SavedTensor(wanted, spec.name))
    if not twice:
        yield tensors[0].wanted.name, saveable, tensors
        return
    # A slice, say, that is saved with its partitioned variable, too. That one is restored.
    for spec, tensor in zip(saveable.specs, tensors):
        yield tensor.wanted.tensor, tf_internals.written_only(spec), [tensor]


def _wanted(
    name: str,
    suffix: str,
    key: str,
    attributes: _Attributes,
    saveable: Saveable,
    spec: Any,
) -> Wanted:
    index, attribute = attributes.get(key) or attributes[key[: len(key) - len(suffix)]]
    named_otherwise = not spec.name.startswith(name)
    return Wanted(
        name="" if named_otherwise else name,
        suffix=suffix,
        node=index,
        attribute=attribute.name,
        shape=shape_of(saveable, spec),
        dtype=spec.dtype.base_dtype.name,
    )


def _averages(ema: Any) -> Callable[[Wanted, Saveable], Wanted]:
    """Adds to what is wanted of a saveable what is known of its average."""
    label = ema if isinstance(ema, str) else getattr(ema, "name", "")
    # Averages that this graph has itself, by the ops of their variables.
    own = {}
    for variable in tf.compat.v1.global_variables() if hasattr(ema, "average") else ():
        average = ema.average(variable)
        if average is not None:
            own[tf_internals.op_name(variable)] = tf_internals.full_name(average)
    trainable = {tf_internals.op_name(variable) for variable in tf.compat.v1.trainable_variables()}

    def with_average(wanted: Wanted, saveable: Saveable) -> Wanted:
        if not label or wanted.attribute != VARIABLE_VALUE:
            return wanted
        op = source(saveable)
        average = own.get(op, "")
        if not own and tf.as_dtype(wanted.dtype).is_floating:
            average = f"{wanted.name}/{label}"
        return replace(wanted, average=average, is_averaged=op in own, is_trainable=op in trainable)

    return with_average


def _global_step_name(saveables: Mapping[str, Sequence[Saveable]]) -> str | None:
    step = tf.compat.v1.train.get_global_step()
    if step is None:
        return None
    return next(
        (n for n, group in saveables.items() if source(group[0]) == tf_internals.op_name(step)),
        None,
    )


def _check_keys(contents: Contents) -> None:
    keys_of: dict[str, str] = {}
    names_of = {OBJECT_GRAPH_KEY: OBJECT_GRAPH_KEY}
    for tensor in contents.all_tensors():
        name = tensor.wanted.tensor
        if names_of.setdefault(tensor.key, name) != name:
            raise ConflictError(
                f"{names_of[tensor.key]!r} and {name!r} would both be saved under it",
                key=tensor.key,
            )
        if keys_of.setdefault(name, tensor.key) != tensor.key:
            raise ConflictError("two variables would be saved under this name", key=name)
    names_of.setdefault(SAVE_COUNTER_KEY, SAVE_COUNTER_KEY)
    for name in sorted(keys_of.keys() & names_of.keys()):
        raise ConflictError(
            f"a variable has this name, and {names_of[name]!r} is saved under it as a key; "
            "rename one",
            key=name,
        )
