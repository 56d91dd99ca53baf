"""The optimizers of a checkpoint: which tensors are their slots, and which their own variables.

Three dialects are known. `tf1`: tf.compat.v1 optimizers, by the names of their slots
(`dense/kernel/Adam`, `dense/kernel/Adam_1`; tensorflow/python/training/slot_creator.py) or as
objects. `keras`: Keras' optimizers up to 2.10, now `legacy`, as objects with slot references or by
names (`Adam/dense/kernel/m`). `keras_new`: those after, which keep one list of variables; by names
(`Adam/m/dense/kernel`, `adam/dense_kernel_momentum`) where their count of steps is beside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from estimator_ckpt.conversion.plan import Item, OptimizerPart, is_counter
from estimator_ckpt.errors import UnsupportedCheckpointError
from estimator_ckpt.objects.object_graph import ObjectGraph, SlotReference
from estimator_ckpt.roles.newer_keras import (
    ALL_VARIABLES,
    LIST_NAMES,
    NewerState,
    is_newer,
    newer_state,
)
from estimator_ckpt.roles.slots import (
    BERT_SLOTS,
    BETA_POWER,
    BETA_POWERS,
    CENTERED_RMSPROP,
    COUNTED,
    KERAS_NUMBERS,
    KERAS_SCOPE,
    KERAS_SLOTS,
    TF1_SLOTS,
    flat_names,
    kind_of,
    newer_keras_slot,
    slot_variable,
)

KNOWN_SLOTS = {**TF1_SLOTS, "CenteredRMSProp": CENTERED_RMSPROP}
# By their names, or by those of the objects where the optimizers are several.
_NEWER_KERAS_COUNTS = ("iteration", "_iterations")
_RATE, _CURRENT = "learning_rate", "current_learning_rate"
_NEWER_KERAS_RATES = (_RATE, f"_{_RATE}", _CURRENT, f"_{_CURRENT}")


class SlotOf(NamedTuple):
    """A slot variable: its item, the item of its variable, the slot's name in its dialect."""

    item: int
    variable: int
    name: str


@dataclass
class Optimizer:
    """One optimizer of a checkpoint; items are given by their place in the list.

    Attributes:
      label: what it calls itself: `Adam`, the name of the class unless it was given another.
      dialect: "tf1", "keras" or "keras_new".
      slots: its slot variables.
      own: its other variables, by their names in the dialect: `beta1_power`, `iter`, `beta_1`.
      others: variables that are certainly its own, but of no known meaning.
      follows: those of them that go where a variable goes, with that variable.
      newer: of dialect "keras_new" as an object: its state in full.
    """

    label: str
    dialect: str
    slots: list[SlotOf] = field(default_factory=list)
    own: dict[str, int] = field(default_factory=dict)
    others: list[int] = field(default_factory=list)
    follows: dict[int, int] = field(default_factory=dict)
    newer: NewerState | None = None

    def items(self) -> Iterator[int]:
        for slot in self.slots:
            yield slot.item
        yield from self.own.values()
        yield from self.others

    def slot_names(self) -> set[str]:
        return {slot.name for slot in self.slots}


def find_optimizers(items: list[Item], graph: ObjectGraph | None) -> list[Optimizer]:
    """The optimizers, in objects and by names.

    Args:
      items: of a checkpoint, named as they are to be known.
      graph: its objects, if any.
    """
    found = object_optimizers(items, graph) if graph is not None else []
    known = {number for optimizer in found for number in optimizer.items()}
    found += _by_names(items, known)
    known = {number for optimizer in found for number in optimizer.items()}
    return found + _newer_keras_by_names(items, known)


def mark_parts(items: list[Item], optimizers: list[Optimizer]) -> None:
    """Tells the items, in place, of which optimizers they are parts."""
    for optimizer in optimizers:
        own = OptimizerPart(optimizer.label, False)
        slot = OptimizerPart(optimizer.label, True)
        for number in (*optimizer.own.values(), *optimizer.others):
            items[number] = items[number]._replace(part=own)
        for number in [one.item for one in optimizer.slots]:
            items[number] = items[number]._replace(part=slot)


def check_parts(items: list[Item], optimizer: Optimizer) -> None:
    """Raises UnsupportedCheckpointError where each part of a variable has slots of its own."""
    names: dict[tuple[int, str], str] = {}
    for slot in optimizer.slots:
        name = items[slot.item].name
        other = names.setdefault((slot.variable, slot.name), name)
        if other != name:
            raise UnsupportedCheckpointError(
                f"{other!r} and {name!r} both have the slot {slot.name} of parts of "
                f"{items[slot.variable].name!r}, which takes one slot variable. Save the "
                "checkpoint again without a partitioner, leave the slots out (drop_slots), or "
                "convert without `optimizer`",
                key=name,
            )


# --- objects ---


def object_optimizers(items: list[Item], graph: ObjectGraph) -> list[Optimizer]:
    """The optimizers among the objects."""
    item_of: dict[int, int] = {}
    copies: dict[int, list[int]] = {}
    for number, item in enumerate(items):
        if item.node >= 0 and item_of.setdefault(item.node, number) != number:
            copies.setdefault(item.node, [item_of[item.node]]).append(number)
    found = []
    for number, node in sorted(graph.nodes.others.items()):
        own = {name: item_of[child] for name, child in node.children.items() if child in item_of}
        if is_newer(node):
            listed = (
                graph.nodes[child].children.values()
                for name, child in node.children.items()
                if name == ALL_VARIABLES or name in LIST_NAMES
            )
            others = {item_of[child] for one in listed for child in one if child in item_of}
            optimizer = Optimizer("Keras optimizer", "keras_new")
            optimizer.others = sorted(others | set(own.values()))
            optimizer.follows = _followed(items, optimizer.others)
            optimizer.newer = newer_state(graph, number, item_of, optimizer.follows.get)
            found.append(optimizer)
        elif node.slots or {"iter", "decay"} <= own.keys():
            slots = [
                SlotOf(item, variable, slot.slot_name)
                for slot in node.slots
                if slot.slot in item_of and slot.original in item_of
                for item, variable in (
                    _copied_slots(items, copies, slot, item_of[slot.slot])
                    if slot.original in copies
                    else ((item_of[slot.slot], item_of[slot.original]),)
                )
            ]
            # Without `iter`, if its `iterations` were set to be the global step.
            is_keras = not KERAS_NUMBERS.isdisjoint(own) or any(
                _keras_scope(items[slot.item].name) for slot in slots[:1]
            )
            optimizer = Optimizer("", "keras" if is_keras else "tf1", slots, own)
            optimizer.label = _label(items, optimizer)
            found.append(optimizer)
    return found


def _copied_slots(
    items: list[Item], copies: dict[int, list[int]], slot: SlotReference, first: int
) -> Iterator[tuple[int, int]]:
    """A variable with several names by rules: each slot, by its name, with that whose it is."""
    for number in copies.get(slot.slot, [first]):
        name = f"/{items[number].name}/"
        told = [one for one in copies[slot.original] if f"/{items[one].name}/" in name]
        if told:
            yield number, max(told, key=lambda one: len(items[one].name))


def _label(items: list[Item], optimizer: Optimizer) -> str:
    """What the names of its variables call it: `Adam` of `Adam/iter` and of `dense/kernel/Adam`."""
    if optimizer.dialect == "keras":
        for slot in optimizer.slots[:1]:
            known = _keras_scope(items[slot.item].name)
            if known:
                return known.group(1)
        # `iter` may have another name, if it is the step of the whole program.
        own = sorted(optimizer.own, key=lambda name: name == "iter")
        scope = items[optimizer.own[own[0]]].name.rpartition("/")[0].rpartition("/")[2]
        counted = COUNTED.fullmatch(scope)
        return counted.group(1) if counted else scope
    labels = set()
    for slot in optimizer.slots:
        counted = COUNTED.fullmatch(items[slot.item].name.rpartition("/")[2])
        labels.add(counted.group(1) if counted else "")
    label = labels.pop() if len(labels) == 1 else ""
    names = optimizer.slot_names()
    if label == "RMSProp" and "mg" in names:
        return "CenteredRMSProp"
    if label in KNOWN_SLOTS and names <= set(KNOWN_SLOTS[label]):
        return label
    # Eager variables without names of their own: the slots alone tell, where they do.
    if names <= {"m", "v"} and "beta1_power" in optimizer.own:
        return "Adam"
    fitting = [known for known, slots in KNOWN_SLOTS.items() if names == set(slots)]
    if len(fitting) == 1:
        return fitting[0]
    return "" if label in KNOWN_SLOTS else label  # another optimizer that took the name


def tf1_slot_name(variable: str, label: str, slot: str, name: str = "") -> str:
    """The name that a TF1 optimizer gives a slot, the first time it is made in a graph.

    Args:
      variable: the slot's variable.
      label: of the optimizer.
      slot: the slot's name.
      name: what it is called now; a TF1 optimizer's name keeps its scopes: slots.slot_variable().
    """
    shown = "RMSProp" if label == "CenteredRMSProp" else label
    start, _, last = name.rpartition("/")
    counted = COUNTED.fullmatch(last)
    if not (counted and counted.group(1) == shown) or (
        slot_variable(start, (), {variable: ()}.get) != variable
    ):
        start = variable
    count = KNOWN_SLOTS[label].index(slot)
    return f"{start}/{shown}" + (f"_{count}" if count else "")


# --- names ---


def _by_names(items: list[Item], known: set[int]) -> list[Optimizer]:
    by_name = {item.name: number for number, item in enumerate(items) if number not in known}
    found: dict[tuple[str, str], Optimizer] = {}
    for name, number in by_name.items():
        slot = _tf1_slot(name, items, by_name) or _keras_slot(name, items, by_name)
        if slot is not None:
            scope, label, dialect, slot_name, variable = slot
            optimizer = found.setdefault((scope, label), Optimizer(label, dialect))
            optimizer.slots.append(SlotOf(number, variable, slot_name))
    for (scope, _), optimizer in found.items():
        if optimizer.dialect == "keras":
            for name in KERAS_NUMBERS & {n[len(scope) :] for n in by_name if n.startswith(scope)}:
                optimizer.own[name] = by_name[scope + name]
    with_powers = [o for o in found.values() if o.label in BETA_POWERS]
    if with_powers:
        for name, number in by_name.items():
            power = BETA_POWER.fullmatch(name)
            if power and items[number].content.shape == ():
                with_powers[0].own.setdefault(power.group(1), number)
                if with_powers[0].own[power.group(1)] != number:
                    with_powers[0].others.append(number)
    return list(found.values())


def _newer_keras_by_names(items: list[Item], known: set[int]) -> list[Optimizer]:
    """All of Keras' newer optimizers, as one.

    Their slots are what is named so where a count of steps is in their scope (Keras 3), or a count
    and a learning rate are anywhere (Keras 2): what a model has under such a name is no slot.
    """
    counts = [
        number
        for number, item in enumerate(items)
        if item.name.endswith(_NEWER_KERAS_COUNTS) and is_counter(item.content)
        if item.name.rpartition("/")[2] in _NEWER_KERAS_COUNTS and number not in known
    ]
    if not counts:
        return []
    by_name = {item.name: number for number, item in enumerate(items) if number not in known}
    own, scopes, anywhere = set(counts), [], False
    for number in counts:
        start = items[number].name.rpartition("/")[0]
        start += "/" * bool(start)
        rates = {start + name for name in _NEWER_KERAS_RATES} & by_name.keys()
        own |= {by_name[name] for name in rates}
        anywhere = anywhere or bool(rates)
        scopes += [start] * bool(start)
    names = [
        number
        for name, number in by_name.items()
        if number not in own and (anywhere or name.startswith(tuple(scopes)))
    ]
    slots = _followed(items, names)
    if not slots:
        return []
    others = sorted(own | slots.keys())
    return [Optimizer("Keras optimizer", "keras_new", others=others, follows=slots)]


def _followed(items: list[Item], numbers: Iterable[int]) -> dict[int, int]:
    """Those that by their names are slots of Keras' newer optimizers, each with its variable."""
    by_name = {item.name: number for number, item in enumerate(items)}
    flat = flat_names(by_name)

    def shape_of(name: str) -> tuple[int, ...] | None:
        return items[by_name[name]].content.shape if name in by_name else None

    found = {}
    for number in numbers:
        item = items[number]
        slot = newer_keras_slot(item.name, item.content.shape, shape_of, flat)
        if slot is not None:
            found[number] = by_name[slot[0]]
    return found


_Named = tuple[str, str, str, str, int]  # scope, label, dialect, slot name, item of the variable


def _tf1_slot(name: str, items: list[Item], by_name: dict[str, int]) -> _Named | None:
    end = ":0" if name.endswith(":0") else ""  # of a Saver({v.name: v})
    start, _, last = name.removesuffix(end).rpartition("/")
    counted = COUNTED.fullmatch(last)
    if not start or not counted:
        return None
    given = counted.group(1)
    label = "CenteredRMSProp" if given == "CenteredRMSProp" else kind_of(given)
    if not label and last not in BERT_SLOTS:
        return None
    variable = _owner(start, name, items, by_name, end)
    if variable is None:
        return None
    if last in BERT_SLOTS:
        return "", "AdamWeightDecayOptimizer", "tf1", BERT_SLOTS[last], variable
    count = int(counted.group(2) or 0)
    if label == "RMSProp" and f"{start}/{given}_2{end}" in by_name:
        label = "CenteredRMSProp"
    slots = KNOWN_SLOTS[label]
    # Beyond its slots: those of a second optimizer of the class, on the same variable.
    again = "" if count < len(slots) else f" {count // len(slots) + 1}"
    # Two that were given names of their own are two.
    scope = "" if given == label else given
    return scope, label + again, "tf1", slots[count % len(slots)], variable


def _keras_slot(name: str, items: list[Item], by_name: dict[str, int]) -> _Named | None:
    start, _, last = name.rpartition("/")
    scope = _keras_scope(name)
    if scope is None:
        return None
    variable = _owner(start[scope.end() :], name, items, by_name)
    return None if variable is None else (scope.group(), scope.group(1), "keras", last, variable)


def _keras_scope(name: str) -> re.Match[str] | None:
    """The optimizer's scope in what is called as Keras calls slots: the group is the class."""
    start, _, last = name.rpartition("/")
    return KERAS_SCOPE.match(start) if last in KERAS_SLOTS else None


def _owner(
    start: str, slot: str, items: list[Item], by_name: dict[str, int], end: str = ""
) -> int | None:
    """The item whose slot is of this name, which begins with `start`; all names end with `end`."""

    def shape_of(name: str) -> tuple[int, ...] | None:
        name += end
        return items[by_name[name]].content.shape if name in by_name else None

    variable = slot_variable(start, shape_of(slot.removesuffix(end)), shape_of)
    return None if variable is None else by_name[variable + end]
