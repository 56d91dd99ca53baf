"""The optimizers of a graph: what their ops update, and what they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import tensorflow as tf

from estimator_ckpt.conversion.found_optimizer import Optimizer
from estimator_ckpt.conversion.optimizer_relations import several
from estimator_ckpt.conversion.optimizers_by_name import newer_state_by_names, slots_by_names
from estimator_ckpt.conversion.plan import Content, Item
from estimator_ckpt.conversion.source_optimizers import find_optimizers
from estimator_ckpt.conversion.updates import PASSED, Update, kind_of_update
from estimator_ckpt.errors import CheckpointError
from estimator_ckpt.matching.model import LiveOptimizer, ModelVariable
from estimator_ckpt.roles import NUMBER, SLOT
from estimator_ckpt.roles.dialects import (
    ITERATIONS,
    LEGACY_COUNT,
    LEGACY_NUMBERS,
    LEGACY_RECORDS,
    RATE,
)
from estimator_ckpt.roles.newer_keras import classes_by_names
from estimator_ckpt.roles.records import LEGACY, NEWER
from estimator_ckpt.roles.training_state import BY_NAME
from estimator_ckpt.saving import tf_internals

# What these ops call the numbers: `beta1` is beta_1.
_NUMBERS = {"lr": RATE, **{name.replace("_", ""): name for name in LEGACY_NUMBERS}}


def state_by_ops(updates: Sequence[Update]) -> dict[str, tuple[str, str, str]]:
    """What the ops of optimizers update beside a variable, whatever it is called: as
    state_by_names() has it; `updates` are all of the default graph."""
    found: dict[str, tuple[str, str, str]] = {}
    for update in updates:
        found.update(dict.fromkeys(update.slots, (SLOT, BY_NAME, update.owner)))
        found.update(dict.fromkeys(update.read.values(), (NUMBER, BY_NAME, "")))
    return found


def graph_optimizers(
    found: Sequence[ModelVariable], updates: Sequence[Update]
) -> list[LiveOptimizer]:
    """The optimizers of the default graph, by the names of their slots.

    Args:
      found: the variables of the default graph, as the model has them.
      updates: all of it.
    """
    if not any(variable.role == SLOT for variable in found):
        return []
    items = [
        Item(Content("", tf.as_dtype(v.dtype).as_datatype_enum, v.shape or (), 0), v.name, "")
        for v in found
    ]
    numbers: dict[str, dict[str, float]] = {}
    for update in updates:
        numbers.setdefault(update.owner, {}).update(update.numbers)
    made: list[LiveOptimizer] = []
    for optimizer in find_optimizers(items, None, updates=updates):
        if optimizer.dialect == NEWER:
            made.append(_by_names(optimizer, items))
        elif optimizer.slots:
            made += _live(optimizer, items, numbers, {one.name for one in made})
    return made


def _by_names(optimizer: Optimizer, items: Sequence[Item]) -> LiveOptimizer:
    """One of Keras' since 2.11: no op tells of it, and names not always the class."""
    slots = slots_by_names(items, optimizer.follows)
    fitting = classes_by_names(slots.values())
    known = LiveOptimizer(
        name=fitting[0] if fitting else optimizer.label,
        label=fitting[0] if fitting else "",
        dialect=NEWER,
        fitting=fitting,
        is_keras_3=any(slot.is_keras_3 for slot in slots.values()),
        slots={(s.variable, s.called): items[number].name for number, s in slots.items()},
    )
    try:
        found = newer_state_by_names(items, optimizer, fitting[0] if fitting else None)
    except CheckpointError as error:
        return replace(known, problem=error.message)
    own = {ITERATIONS if n == LEGACY_COUNT else n: items[k].name for n, k in found.own.items()}
    called = {(items[s.variable].name, s.name): items[s.item].name for s in found.slots}
    return replace(known, slots=called, own=own)


def _live(
    optimizer: Optimizer,
    items: Sequence[Item],
    numbers: Mapping[str, Mapping[str, float]],
    taken: set[str],
) -> list[LiveOptimizer]:
    """An optimizer; as many of one class as there are rates, where each variable tells its own."""
    label, called = optimizer.label, {}
    if optimizer.dialect == LEGACY:
        for _, legacy in LEGACY_RECORDS:
            if label in (legacy.name, *legacy.also):
                label = legacy.name
                called.update({its: slot for slot, its in legacy.slots.items()})
    groups: dict[float | None, dict[tuple[str, str], str]] = {}
    for slot in optimizer.slots:
        owner = items[slot.variable].name
        rate = None if optimizer.own or optimizer.scale else numbers.get(owner, {}).get(RATE)
        slots = groups.setdefault(rate, {})
        slots[owner, called.get(slot.name, slot.name)] = items[slot.item].name
    is_second = label.rpartition(" ")[2].isdigit()
    found = []
    for slots in groups.values():
        name = label
        while name in taken:
            name = f"{label}_{len(taken)}"
        taken.add(name)
        of_slots = [numbers.get(owner, {}) for owner, _ in slots]
        found.append(
            LiveOptimizer(
                name=name,
                label=label,
                dialect=optimizer.dialect,
                slots=slots,
                own={n: items[number].name for n, number in optimizer.own.items()},
                scale={n: items[number].name for n, number in optimizer.scale.items()},
                numbers={
                    number: value
                    for number, value in (of_slots[0] if of_slots else {}).items()
                    if all(one.get(number, value) == value for one in of_slots)
                },
                problem=several(optimizer) if optimizer.others or is_second else "",
            )
        )
    return found


def graph_updates(variables: Mapping[str, Sequence[tf.Variable]]) -> list[Update]:
    """The ops of optimizers in the default graph; `variables` are its own, by name."""
    name_of = {
        op.name: name
        for name, parts in variables.items()
        for part in parts
        for op in (replica.op for replica in tf_internals.replicas(part))
    }
    found = []
    for op in tf.compat.v1.get_default_graph().get_operations():
        kind = kind_of_update(op.type)
        if not kind or not op.inputs:
            continue
        behind = [_behind_reads(tensor.op) for tensor in op.inputs]
        owner, *others = [name_of.get(one.name, "") for one in behind]
        if owner:
            arguments = op.op_def.input_arg
            numbers = {
                _NUMBERS[argument.name]: _constant(one)
                for argument, one in zip(arguments, behind)
                if argument.name in _NUMBERS and one.type == "Const"
            }
            read = {
                argument.name: name
                for argument, name in zip(arguments[1:], others)
                if name and not _is_written(argument)
            }
            found.append(Update(kind, owner, [name for name in others if name], read, numbers))
    return found


def _is_written(argument: Any) -> bool:
    """Whether an op of an optimizer gets a variable, and not a value."""
    return bool(argument.is_ref or argument.type == tf.resource.as_datatype_enum)


def counts_without_slots(
    variables: Iterable[ModelVariable], updates: Sequence[Update], chosen: Collection[str]
) -> set[str]:
    """The counts of steps, as Adam's `beta1_power`, that go with no other slots than some.

    Args:
      variables: of the default graph.
      updates: all of it.
      chosen: the names of those slots.
    """
    slots = {variable.name for variable in variables if variable.role == SLOT}
    # Where gradients are sparse, say, no op tells which count goes with a slot: any may.
    untold = slots.difference(*(update.slots for update in updates))
    used: dict[str, set[str]] = {}
    for update in updates:
        for argument, name in update.read.items():
            if argument.endswith("_power"):
                used.setdefault(name, set()).update(update.slots, untold)
    return {name for name, its_slots in used.items() if its_slots.issubset(chosen)}


def _constant(op: tf.Operation) -> float:
    """The value of a constant, read so that it stays one that can be fed."""
    return float(tf.make_ndarray(op.get_attr("value")).reshape(-1)[0])


def _behind_reads(op: tf.Operation) -> tf.Operation:
    while op.type in PASSED and op.inputs:
        op = op.inputs[0].op
    return op
