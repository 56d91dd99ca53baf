"""What a graph saves: each tensor with its name, its key and its place in the object graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from estimator_ckpt.errors import ConflictError
from estimator_ckpt.formats import CheckpointFormat, keys_in
from estimator_ckpt.matching.restoring import Wanted
from estimator_ckpt.objects.object_graph import (
    BEFORE_ATTRIBUTE,
    OBJECT_GRAPH_KEY,
    SAVE_COUNTER,
    VAR_LIST,
    VARIABLE_VALUE,
    Attribute,
    ObjectGraph,
    escape,
    flat_graph,
    flat_key,
    object_key,
)
from estimator_ckpt.saving import tf_internals
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


@dataclass(frozen=True)
class SavedTensor:
    """One tensor that is written: a variable, a slice of one, or a part of a lookup table.

    Attributes:
      wanted: how it is found again; `wanted.tensor` is its key in a name-based checkpoint.
      key: its key in an object-based one.
    """

    wanted: Wanted
    key: str


@dataclass(frozen=True)
class Contents:
    """Everything that one saver writes and restores.

    Attributes:
      saveables: by name; the slices of a partitioned variable stand under one name.
      tensors: what each saveable consists of, by its id(), in the order of its specs.
      holders: the names of the ops that hold what each saveable saves, by its id().
      object_graph: the user's objects, if any, with the complete `var_list` beside them.
      structure: the same objects, without those edges of `var_list` that only repeat names.
      step: the name of the global step, if it is saved.
    """

    saveables: Mapping[str, Sequence[Saveable]]
    tensors: Mapping[int, Sequence[SavedTensor]]
    holders: Mapping[int, Collection[str]]
    object_graph: ObjectGraph
    structure: ObjectGraph
    step: str | None

    def all_tensors(self) -> Iterator[SavedTensor]:
        for group in self.saveables.values():
            for saveable in group:
                yield from self.tensors[id(saveable)]

    def further_keys(self, checkpoint_format: CheckpointFormat) -> dict[str, tuple[str, ...]]:
        """What an object-based checkpoint of a format has besides: object key -> other keys."""
        if checkpoint_format == "saver":
            return {}
        name_of = {tensor.key: tensor.wanted.tensor for tensor in self.all_tensors()}
        names, keys = list(name_of.values()), list(name_of)
        step = names.index(self.step) if self.step in names else None
        further = {
            key: tuple(other for other in found if other != key)
            for key, found in zip(keys, keys_in(checkpoint_format, names, keys, step))
        }
        return {key: others for key, others in further.items() if others}

    def wanted(self) -> list[Wanted]:
        """What a restore needs, each tensor once, however many slices it has."""
        found: dict[str, Wanted] = {}
        for group in self.saveables.values():
            for saveable in group:
                if not tf_internals.never_restored(saveable):
                    for tensor in self.tensors[id(saveable)]:
                        found.setdefault(tensor.wanted.tensor, tensor.wanted)
        return list(found.values())

    def by_holder(self) -> dict[str, Wanted]:
        """What is wanted of each variable, by the names of the ops that hold it."""
        return {
            holder: self.tensors[id(saveable)][0].wanted
            for group in self.saveables.values()
            for saveable in group
            for holder in self.holders[id(saveable)]
        }

    def held(
        self,
        absent: Collection[str] = (),
        outside: Callable[[str], bool] = lambda name: False,
    ) -> tuple[set[str], set[str]]:
        """The ops that hold what a restore gives a value, and those that it leaves without one.

        Args:
          absent: the Wanted.tensor of what is not restored.
          outside: which global variables that no saveable covers are among the latter.
        """
        restored: set[str] = set()
        others: set[str] = set()
        for group in self.saveables.values():
            for saveable in group:
                if not tf_internals.never_restored(saveable):
                    is_absent = any(t.wanted.tensor in absent for t in self.tensors[id(saveable)])
                    (others if is_absent else restored).update(self.holders[id(saveable)])
        others.update(filter(outside, map(tf_internals.op_name, tf.compat.v1.global_variables())))
        return restored, others - restored

    def all_variables(self) -> list[Any]:
        """The variables of the graph, and those that only the user's objects reach."""
        saved = [variable_of(one) for group in self.saveables.values() for one in group]
        return [
            *tf.compat.v1.global_variables(),
            *tf.compat.v1.local_variables(),
            *(variable for variable in saved if variable is not None),
        ]


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

    by_source = {source(saveable): saveable for saveable in reversed(users_saveables)}
    attributes = _attributes(graph)
    keys: dict[str, Mapping[str, str]] = {}
    places: dict[str, str | int] = {}
    owners = set()
    for name, group in saveables.items():
        suffixes = suffixes_of(name, group[0])
        owner = by_source.get(source(group[0]))
        theirs = None if owner is None else _keys_of(owner, group[0], suffixes, attributes)
        if owner is None or theirs is None:
            places[name] = attribute = _ATTRIBUTES.get(tuple(suffixes), "STATE")
            keys[name] = {suffix: flat_key(name, attribute) + suffix for suffix in suffixes}
        else:
            owners.add(id(owner))
            keys[name] = theirs
            places[name] = node = _attribute_of(owner, owner.specs[0], attributes)[0]
            _rename(graph, node, name)

    step = _global_step_name(saveables)
    structure = _with_var_list(graph, places, step)
    attributes = _attributes(graph)
    with_average = _averages(ema)
    tensors: dict[int, Sequence[SavedTensor]] = {}
    for name, group in saveables.items():
        for saveable in group:
            tensors[id(saveable)] = [
                SavedTensor(
                    replace(
                        with_average(
                            _wanted(name, suffix, keys[name][suffix], attributes, saveable, spec),
                            saveable,
                        ),
                        is_named=name in on_purpose,
                        weak=weak.get(name, ()),
                    ),
                    keys[name][suffix],
                )
                for suffix, spec in zip(suffixes_of(name, saveable), saveable.specs)
            ]

    # What only the user's objects reach: local variables, tables of their own, Python state.
    covered = {source(saveable) for group in saveables.values() for saveable in group}
    for saveable in users_saveables:
        if id(saveable) in owners:
            continue
        for name, part, parts_tensors in _users_parts(saveable, covered, graph, attributes):
            if name in saveables:
                raise ConflictError("two objects would be saved under this name", key=name)
            saveables[name] = [part]
            tensors[id(part)] = parts_tensors
    holders = {id(one): holders_of(one) for group in saveables.values() for one in group}
    contents = Contents(saveables, tensors, holders, graph, structure, step)
    _check_keys(contents)
    return contents


def _with_var_list(
    graph: ObjectGraph, places: Mapping[str, str | int], step: str | None
) -> ObjectGraph:
    """Adds the default structure to a graph; returns what was there, with the new objects."""
    number = graph.child_at((VAR_LIST,))
    theirs = dict(graph.nodes[number].children) if number is not None else {}
    flat_graph(places, step=step, base=graph)
    structure = ObjectGraph(graph.nodes)
    number = graph.nodes[0].children[VAR_LIST]
    structure.nodes[number] = graph.nodes[number]._replace(children=theirs)
    return structure


def _attributes(graph: ObjectGraph) -> dict[str, tuple[int, Attribute]]:
    return {
        attribute.checkpoint_key: (number, attribute)
        for number, node in enumerate(graph.nodes)
        for attribute in node.attributes
    }


def _attribute_of(
    saveable: Saveable, spec: Any, attributes: Mapping[str, tuple[int, Attribute]]
) -> tuple[int, Attribute]:
    """The object and the attribute of it that one tensor of the user's objects belongs to."""
    return attributes.get(spec.name) or attributes[saveable.name]


def _keys_of(
    owner: Saveable, saveable: Saveable, suffixes: Sequence[str], attributes: Mapping[str, Any]
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


def _rename(graph: ObjectGraph, number: int, name: str) -> None:
    """Full names are the names of var_list: a stock Saver looks for them in an object graph."""
    node = graph.nodes[number]
    attributes = tuple(attribute._replace(full_name=name) for attribute in node.attributes)
    graph.nodes[number] = node._replace(attributes=attributes)


def _users_parts(
    saveable: Saveable,
    covered: Collection[str],
    graph: ObjectGraph,
    attributes: Mapping[str, tuple[int, Attribute]],
) -> Iterator[tuple[str, Saveable, Sequence[SavedTensor]]]:
    """What to save for an object that no variable of the graph stands for: name and saveable."""
    twice = source(saveable) in covered
    variable = None if twice else variable_of(saveable)
    name = "" if variable is None else tf_internals.op_name(variable)
    tensors = []
    for spec in saveable.specs:
        number, attribute = _attribute_of(saveable, spec, attributes)
        _rename(graph, number, name)
        key = attribute.checkpoint_key
        base = name or key.rpartition(BEFORE_ATTRIBUTE)[0] or "root"
        if len(graph.nodes[number].attributes) > 1 and attribute.name != VARIABLE_VALUE:
            base += f"/{escape(attribute.name)}"
        wanted = Wanted(
            name=base,
            suffix=spec.name[len(key) :],
            node=number,
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
    attributes: Mapping[str, tuple[int, Attribute]],
    saveable: Saveable,
    spec: Any,
) -> Wanted:
    number, attribute = attributes.get(key) or attributes[key[: len(key) - len(suffix)]]
    named_otherwise = not spec.name.startswith(name)
    return Wanted(
        name="" if named_otherwise else name,
        suffix=suffix,
        node=number,
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
    for name in keys_of.keys() & names_of.keys():
        raise ConflictError(
            f"a variable has this name, and {names_of[name]!r} is saved under it as a key; "
            "rename one",
            key=name,
        )
