"""The optimizers of a checkpoint: which tensors are their slots, and which their own variables.

Three dialects are known. `tf1`: tf.compat.v1 optimizers, by the names of their slots
(`dense/kernel/Adam`, `dense/kernel/Adam_1`; tensorflow/python/training/slot_creator.py) or as
objects. `keras`: Keras' optimizers up to 2.10, now `legacy`, as objects with slot references or by
names (`Adam/dense/kernel/m`). `keras_new`: those after, which keep one list of variables; by names
(`Adam/m/dense/kernel`, `adam/dense_kernel_momentum`) where their count of steps is beside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from estimator_ckpt.conversion.plan import Item, OptimizerPart, is_counter
from estimator_ckpt.errors import SettingsError, UnsupportedCheckpointError
from estimator_ckpt.objects.object_graph import ObjectGraph, SlotReference
from estimator_ckpt.roles.dialects import (
    BY_NAME,
    DECAY,
    ITERATIONS,
    LEGACY_COUNT,
    LEGACY_NUMBERS,
    LEGACY_SLOTS,
    LIST_NAMES,
    NEWER_COUNTS,
    RATE,
    has_powers,
    tf1_of,
)
from estimator_ckpt.roles.loss_scale import scale_by_names, scale_of, wrapper_of
from estimator_ckpt.roles.newer_keras import (
    ALL_VARIABLES,
    NewerState,
    is_newer,
    newer_state,
)
from estimator_ckpt.roles.records import LEGACY, NEWER, TF1
from estimator_ckpt.roles.slots import (
    BETA_POWER,
    COUNTED,
    KERAS_SCOPE,
    flat_names,
    legacy_owner,
    legacy_scope,
    named_by_users,
    newer_keras_slot,
    slot_variable,
    tf1_slot,
    unknown_names,
)

KNOWN_SLOTS = {one.name: one.tf1.slots for one in BY_NAME.values() if one.tf1 is not None}
# By their names, or by those of the objects where the optimizers are several.
_COUNTS = (NEWER_COUNTS[0], ITERATIONS)
_CURRENT = f"current_{RATE}"
_RATES = (RATE, f"_{RATE}", _CURRENT, f"_{_CURRENT}")


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
      dialect: TF1, LEGACY or NEWER; see roles/records.py.
      slots: its slot variables.
      own: its other variables, by their names in the dialect: `beta1_power`, `iter`, `beta_1`.
      others: variables that are certainly its own, but of no known meaning.
      follows: those of them that go where a variable goes, with that variable.
      newer: of dialect NEWER as an object: its state in full.
      scale: the numbers of the wrapper that scales its losses, by their names in the table.
      wrapper: the wrapper's other variables, which mean nothing, by their names in the object.
      wrapper_node: the wrapper's object; -1 where it is none of its own.
    """

    label: str
    dialect: str
    slots: list[SlotOf] = field(default_factory=list)
    own: dict[str, int] = field(default_factory=dict)
    others: list[int] = field(default_factory=list)
    follows: dict[int, int] = field(default_factory=dict)
    newer: NewerState | None = None
    scale: dict[str, int] = field(default_factory=dict)
    wrapper: dict[str, int] = field(default_factory=dict)
    wrapper_node: int = -1

    def items(self) -> Iterator[int]:
        for slot in self.slots:
            yield slot.item
        yield from self.numbers()

    def numbers(self) -> Iterator[int]:
        """All but the slots."""
        yield from self.own.values()
        yield from self.others
        yield from self.scale.values()
        yield from self.wrapper.values()

    def slot_names(self) -> set[str]:
        return {slot.name for slot in self.slots}


def find_optimizers(
    items: list[Item], graph: ObjectGraph | None, from_optimizer: str | None = None
) -> list[Optimizer]:
    """The optimizers, in objects and by names.

    Args:
      items: of a checkpoint, named as they are to be known.
      graph: its objects, if any.
      from_optimizer: the class of an optimizer with a name that does not say it.

    Raises:
      SettingsError: several names may be that optimizer's.
    """
    found = object_optimizers(items, graph) if graph is not None else []
    known = {number for optimizer in found for number in optimizer.items()}
    found += _by_names(items, known, from_optimizer)
    known = {number for optimizer in found for number in optimizer.items()}
    found += _newer_keras_by_names(items, known)
    known = {number for optimizer in found for number in optimizer.items()}
    rest = {
        item.name: number
        for number, item in enumerate(items)
        if number not in known and item.content.shape == ()
    }
    for scale in scale_by_names(rest):
        wrapped = next((one for one in found if not one.scale), None)
        if wrapped is not None:
            wrapped.scale = {number: rest[name] for number, name in scale.items()}
        else:
            found.append(Optimizer("LossScale", TF1, others=[rest[n] for n in scale.values()]))
    return found


def mark_parts(items: list[Item], optimizers: list[Optimizer]) -> None:
    """Tells the items, in place, of which optimizers they are parts."""
    for optimizer in optimizers:
        own = OptimizerPart(optimizer.label, False)
        slot = OptimizerPart(optimizer.label, True)
        for number in optimizer.numbers():
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
    wrappers = wrapper_of(graph)
    for number, node in sorted(graph.nodes.others.items()):
        own = {name: item_of[child] for name, child in node.children.items() if child in item_of}
        if number in wrappers.values():
            continue
        if is_newer(node):
            optimizer = _newer_optimizer(items, graph, number, item_of)
        elif node.slots or {LEGACY_COUNT, DECAY} <= own.keys():
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
            is_keras = not LEGACY_NUMBERS.isdisjoint(own) or any(
                _keras_scope(items[slot.item].name) for slot in slots[:1]
            )
            optimizer = Optimizer("", LEGACY if is_keras else TF1, slots, own)
            optimizer.label = _label(items, optimizer)
        else:
            continue
        wrapper = wrappers.get(number, number)
        optimizer.scale = {
            name: item_of[child]
            for name, child in scale_of(graph, wrapper).items()
            if child in item_of
        }
        if wrapper != number:
            optimizer.wrapper_node = wrapper
            known = {*optimizer.items(), *optimizer.scale.values()}
            optimizer.wrapper = {
                name: item_of[child]
                for name, child in graph.nodes[wrapper].children.items()
                if child in item_of and item_of[child] not in known
            }
        optimizer.others = [n for n in optimizer.others if n not in optimizer.scale.values()]
        found.append(optimizer)
    return found


def _newer_optimizer(
    items: list[Item], graph: ObjectGraph, number: int, item_of: dict[int, int]
) -> Optimizer:
    children = graph.nodes[number].children
    listed = (
        graph.nodes[child].children.values()
        for name, child in children.items()
        if name == ALL_VARIABLES or name in LIST_NAMES
    )
    others = {item_of[child] for one in listed for child in one if child in item_of}
    others |= {item_of[child] for child in children.values() if child in item_of}
    optimizer = Optimizer("Keras optimizer", NEWER, others=sorted(others))
    optimizer.follows = _followed(items, optimizer.others)
    optimizer.newer = newer_state(graph, number, item_of, optimizer.follows.get)
    return optimizer


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
    if optimizer.dialect == LEGACY:
        for slot in optimizer.slots[:1]:
            known = _keras_scope(items[slot.item].name)
            if known:
                return known.group(1)
        # `iter` may have another name, if it is the step of the whole program.
        own = sorted(optimizer.own, key=lambda name: name == LEGACY_COUNT)
        scope = items[optimizer.own[own[0]]].name.rpartition("/")[0].rpartition("/")[2]
        counted = COUNTED.fullmatch(scope)
        return counted.group(1) if counted else scope
    labels = set()
    for slot in optimizer.slots:
        counted = COUNTED.fullmatch(items[slot.item].name.rpartition("/")[2])
        labels.add(counted.group(1) if counted else "")
    label = labels.pop() if len(labels) == 1 else ""
    names = optimizer.slot_names()
    of_name = [one for one, slots in KNOWN_SLOTS.items() if _default_name(one) == label]
    for one in sorted(of_name, key=lambda one: len(KNOWN_SLOTS[one])):
        if names <= set(KNOWN_SLOTS[one]):
            return one
    # Eager variables without names of their own: the slots alone tell, where they do.
    powers = [name for name in optimizer.own if BETA_POWER.fullmatch(name)]
    fitting = [
        one
        for one, slots in KNOWN_SLOTS.items()
        if names == set(slots) and bool(powers) == has_powers(one)
    ]
    if len(fitting) == 1 or (fitting and powers):
        return fitting[0]
    return "" if of_name else label  # another optimizer that took the name


def _default_name(label: str) -> str:
    tf1 = tf1_of(label)
    return "" if tf1 is None else tf1.name


def tf1_slot_name(variable: str, label: str, slot: str, name: str = "") -> str:
    """The name that a TF1 optimizer gives a slot, the first time it is made in a graph.

    Args:
      variable: the slot's variable.
      label: of the optimizer.
      slot: the slot's name.
      name: what it is called now; a TF1 optimizer's name keeps its scopes: slots.slot_variable().
    """
    tf1 = tf1_of(label)
    assert tf1 is not None
    if tf1.orders:
        return name  # which of its slots a variable has depends on the variable
    for end, of_slot in tf1.ends.items():
        if of_slot == slot:
            return f"{variable}{end}"
    start, _, last = name.rpartition("/")
    counted = COUNTED.fullmatch(last)
    if not (counted and counted.group(1) == tf1.name) or (
        slot_variable(start, (), {variable: ()}.get) != variable
    ):
        start = variable
    count = tf1.slots.index(slot)
    return f"{start}/{tf1.name}" + (f"_{count}" if count else "")


# --- names ---


def _by_names(
    items: list[Item], known: set[int], from_optimizer: str | None = None
) -> list[Optimizer]:
    by_name = {item.name: number for number, item in enumerate(items) if number not in known}
    shapes = {name: items[number].content.shape for name, number in by_name.items()}
    named = named_by_users(shapes)
    if from_optimizer in KNOWN_SLOTS:
        named.update(_named(shapes, from_optimizer))
    found: dict[tuple[str, str], Optimizer] = {}
    for name, number in by_name.items():
        slot = _tf1_slot(name, shapes, named) or _keras_slot(name, shapes)
        if slot is not None:
            scope, label, dialect, slot_name, variable = slot
            optimizer = found.setdefault((scope, label), Optimizer(label, dialect))
            optimizer.slots.append(SlotOf(number, by_name[variable], slot_name))
    for (scope, _), optimizer in found.items():
        if optimizer.dialect == LEGACY:
            for name in LEGACY_NUMBERS & {n[len(scope) :] for n in by_name if n.startswith(scope)}:
                optimizer.own[name] = by_name[scope + name]
    with_powers = [o for o in found.values() if o.dialect == TF1 and has_powers(o.label)]
    if with_powers:
        for name, number in by_name.items():
            power = BETA_POWER.fullmatch(name)
            if power and items[number].content.shape == ():
                with_powers[0].own.setdefault(power.group(1), number)
                if with_powers[0].own[power.group(1)] != number:
                    with_powers[0].others.append(number)
    return list(found.values())


def _named(shapes: Mapping[str, tuple[int, ...]], label: str) -> dict[str, str]:
    """The name that must be that of an optimizer of this class: no other has its slots' shapes."""
    slots = KNOWN_SLOTS[label]
    names = [
        name
        for name, owners in unknown_names(shapes).items()
        if len(owners) == len(slots) and all(one == owners[0] for one in owners)
    ]
    if len(names) > 1:
        raise SettingsError(
            f"{' and '.join(sorted(names))} may all be names of a {label}: rename its slots to "
            f"what it calls them by itself, VARIABLE/{_default_name(label)}",
            key="from_optimizer",
        )
    return dict.fromkeys(names, label)


def _newer_keras_by_names(items: list[Item], known: set[int]) -> list[Optimizer]:
    """All of Keras' newer optimizers, as one.

    Their slots are what is named so where a count of steps is in their scope (Keras 3), or a count
    and a learning rate are anywhere (Keras 2): what a model has under such a name is no slot.
    """
    counts = [
        number
        for number, item in enumerate(items)
        if item.name.endswith(_COUNTS) and is_counter(item.content)
        if item.name.rpartition("/")[2] in _COUNTS and number not in known
    ]
    if not counts:
        return []
    by_name = {item.name: number for number, item in enumerate(items) if number not in known}
    own, scopes, anywhere = set(counts), [], False
    for number in counts:
        start = items[number].name.rpartition("/")[0]
        start += "/" * bool(start)
        rates = {start + name for name in _RATES} & by_name.keys()
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
    return [Optimizer("Keras optimizer", NEWER, others=others, follows=slots)]


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


_Named = tuple[str, str, str, str, str]  # scope, label, dialect, slot name, variable


def _tf1_slot(
    name: str, shapes: Mapping[str, tuple[int, ...]], named: Mapping[str, str]
) -> _Named | None:
    end = ":0" if name.endswith(":0") else ""  # of a Saver({v.name: v})
    slot = tf1_slot(name.removesuffix(end), lambda other: shapes.get(other + end), named)
    if slot is None:
        return None
    # Beyond its slots: those of a second optimizer of the class, on the same variable.
    again = f" {slot.again + 1}" if slot.again else ""
    # Two that were given names of their own are two.
    return slot.given, slot.optimizer + again, TF1, slot.slot, slot.variable + end


def _keras_slot(name: str, shapes: Mapping[str, tuple[int, ...]]) -> _Named | None:
    start, _, last = name.rpartition("/")
    if last not in LEGACY_SLOTS:
        return None
    scope = KERAS_SCOPE.match(start)
    if scope is not None:
        owner = slot_variable(start[scope.end() :], shapes[name], shapes.get)
        return None if owner is None else (scope.group(), scope.group(1), LEGACY, last, owner)
    given, owner = legacy_scope(name, shapes.get), legacy_owner(name, shapes.get)
    if not given or owner is None:
        return None
    return given, given.rstrip("/").rpartition("/")[2], LEGACY, last, owner


def _keras_scope(name: str) -> re.Match[str] | None:
    """The optimizer's scope in what is called as Keras calls slots: the group is the class."""
    start, _, last = name.rpartition("/")
    return KERAS_SCOPE.match(start) if last in LEGACY_SLOTS else None
