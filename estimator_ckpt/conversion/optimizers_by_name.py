"""The optimizers of a checkpoint by the names of their variables, where no objects tell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from estimator_ckpt.conversion.found_optimizer import KNOWN_SLOTS, Optimizer, SlotOf, default_name
from estimator_ckpt.conversion.plan import Item, is_counter
from estimator_ckpt.conversion.updates import Update, named_by_ops, told_apart
from estimator_ckpt.errors import SettingsError, UnsupportedCheckpointError
from estimator_ckpt.roles.dialects import (
    ITERATIONS,
    LEARNING_RATE,
    LEGACY_COUNT,
    LEGACY_NUMBERS,
    LEGACY_SLOTS,
    LIST_NAMES,
    NEWER_BY_CLASS,
    NEWER_COUNTS,
    RATE,
    has_powers,
    has_reduced_slots,
)
from estimator_ckpt.roles.newer_keras import classes_by_names, newer_class
from estimator_ckpt.roles.newer_names import NewerSlot, flat_names, newer_keras_slot
from estimator_ckpt.roles.records import LEGACY, NEWER, TF1
from estimator_ckpt.roles.slots import (
    BETA_POWER,
    KERAS_SCOPE,
    legacy_owner,
    legacy_scope,
    named_by_users,
    unknown_names,
)
from estimator_ckpt.roles.tf1_slots import slot_variable, tf1_slot

# By their names, or by those of the objects where the optimizers are several.
_COUNTS = (NEWER_COUNTS[0], ITERATIONS)
_CURRENT = f"current_{RATE}"
_RATES = (RATE, f"_{RATE}", _CURRENT, f"_{_CURRENT}")


def tf1_and_legacy_by_names(
    items: list[Item],
    known: set[int],
    from_optimizer: str | None = None,
    updates: Sequence[Update] = (),
) -> list[Optimizer]:
    """Those of TF1 and of Keras up to 2.10; arguments as of find_optimizers()."""
    by_name = {item.name: number for number, item in enumerate(items) if number not in known}
    shapes = {name: items[number].content.shape for name, number in by_name.items()}
    named = {**named_by_users(shapes), **named_by_ops(updates, shapes)}
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
            for name in sorted(LEGACY_NUMBERS):
                if scope + name in by_name:
                    optimizer.own[name] = by_name[scope + name]
    with_powers = [o for o in found.values() if o.dialect == TF1 and has_powers(o.label)]
    if with_powers:
        for name, number in by_name.items():
            power = BETA_POWER.fullmatch(name)
            if power and items[number].content.shape == ():
                with_powers[0].own.setdefault(power.group(1), number)
                if with_powers[0].own[power.group(1)] != number:
                    with_powers[0].others.append(number)
    return [one for several in found.values() for one in told_apart(several, items, updates)]


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
            f"what it calls them by itself, VARIABLE/{default_name(label)}",
            key="from_optimizer",
        )
    return dict.fromkeys(names, label)


def newer_by_names(items: list[Item], known: set[int]) -> list[Optimizer]:
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
    slots = slots_by_names(items, names)
    if not slots:
        return []
    others = sorted(own | slots.keys())
    return [Optimizer("Keras optimizer", NEWER, others=others, follows=followed(items, slots))]


def newer_state_by_names(
    items: Sequence[Item], optimizer: Optimizer, from_optimizer: str | None
) -> Optimizer:
    """One of newer_by_names(), with the slots that its class has.

    Raises:
      UnsupportedCheckpointError: names do not tell all of its state.
      SettingsError: they do not tell its class, or it is not the one that is given.
    """
    named = slots_by_names(items, optimizer.follows)
    ends = ", ".join(sorted({slot.called for slot in named.values()}))
    fitting = classes_by_names(named.values())
    label = newer_class(fitting, from_optimizer, f"slots {ends}")
    newer = NEWER_BY_CLASS[label]
    own: dict[str, int] = {}
    for number in optimizer.others:
        last = items[number].name.removesuffix(":0").rpartition("/")[2]
        name = LEGACY_COUNT if last in _COUNTS else LEARNING_RATE if last in _RATES else ""
        if name and own.setdefault(name, number) != number:
            raise _untold(
                f"there are several: {items[own[name]].name!r} and {items[number].name!r}"
            )
    slots = []
    owners: dict[str, set[int]] = {}
    for number, slot in named.items():
        name = (newer.ends if slot.is_keras_3 else newer.starts)[slot.called]
        slots.append(SlotOf(number, optimizer.follows[number], name))
        of_name = owners.setdefault(name, set())
        if slots[-1].variable in of_name:
            raise _untold(f"{slot.variable!r} has several slots {name}")
        of_name.add(slots[-1].variable)
    if newer.own or has_reduced_slots(label) or len(set(map(frozenset, owners.values()))) > 1:
        raise _untold(f"not all that {label} keeps has a name that tells what it is")
    listed = [item.name for item in items if not LIST_NAMES.isdisjoint(item.name.split("/"))]
    if listed:
        raise _untold(f"whose {listed[0]!r} is")
    return replace(optimizer, label=label, slots=slots, own=own, others=[], follows={})


def _untold(what: str) -> UnsupportedCheckpointError:
    return UnsupportedCheckpointError(
        "the state of a Keras optimizer after Keras 2.10 is known by its objects, and here there "
        f"are names alone, which do not tell it: {what}. Convert the checkpoint that Keras wrote, "
        "leave the state out (drop_slots), or convert without `optimizer`"
    )


def followed(items: Sequence[Item], numbers: Iterable[int]) -> dict[int, int]:
    """Those that by their names are slots of Keras' newer optimizers, each with its variable."""
    by_name = {item.name: number for number, item in enumerate(items)}
    slots = slots_by_names(items, numbers)
    return {number: by_name[slot.variable] for number, slot in slots.items()}


def slots_by_names(items: Sequence[Item], numbers: Iterable[int]) -> dict[int, NewerSlot]:
    """The same, with all that their names say."""
    by_name = {item.name: number for number, item in enumerate(items)}
    flat = flat_names(by_name)

    def shape_of(name: str) -> tuple[int, ...] | None:
        return items[by_name[name]].content.shape if name in by_name else None

    found = {}
    for number in numbers:
        item = items[number]
        slot = newer_keras_slot(item.name, item.content.shape, shape_of, flat)
        if slot is not None:
            found[number] = slot
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


def keras_scope(name: str) -> re.Match[str] | None:
    """The optimizer's scope in what is called as Keras calls slots: the group is the class."""
    start, _, last = name.rpartition("/")
    return KERAS_SCOPE.match(start) if last in LEGACY_SLOTS else None
