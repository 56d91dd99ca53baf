"""Which variables are slots by their names, and whose; see optimizers.py for what each is called.

A name alone may mislead: a slot's variable must be there, and have the slot's shape.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence

from estimator_ckpt.roles.dialects import (
    ADAM,
    LEGACY_CLASSES,
    LEGACY_COUNT,
    LEGACY_SLOTS,
    POWER_OF,
    TF1_ENDS,
    TF1_ORDERS,
    has_powers,
    pattern,
)
from estimator_ckpt.roles.tf1_slots import (
    COUNTED,
    NOBODY,
    ShapeOf,
    kind_of,
    tf1_slot,
)

# The powers of their betas that Adams of TF1 keep beside the slots.
BETA_POWER = re.compile(rf"(?:.*/)?({pattern(POWER_OF.values())})(?:_\d+)?(?::0)?")
# Of Adam's two the one that AdaMax has not.
_ADAMS_POWER = re.compile(rf"{[*POWER_OF.values()][-1]}(?:_\d+)?(?::0)?")
# X/m below a scope of a legacy Keras optimizer, of which the group is the class.
KERAS_SCOPE = re.compile(rf"(?:training(?:_\d+)?/)?({pattern(LEGACY_CLASSES)})(?:_\d+)?/")
AVERAGE = re.compile(r"(?:.*/)?ExponentialMovingAverage")
_COUNTED_NAME = re.compile(r"(.+)_([1-9]\d?)")
_OUTPUT = ":0"  # of a Saver({v.name: v}), behind all names


_ENDS_INSIDE = tuple(end for end in TF1_ENDS if "/" not in end)


def slot_by_name(
    name: str, shape_of: ShapeOf, named: Mapping[str, str] = NOBODY
) -> tuple[str, str] | None:
    """The variable whose slot `name` is and the slot's name; None where that is not certain.

    Args:
      name: a variable name.
      shape_of: the shape of a variable, None if the checkpoint has none of that name. A slot's
        variable is there and has the slot's shape.
      named: what named_by_users() found.
    """
    if name.endswith(_OUTPUT):
        found = slot_by_name(name[: -len(_OUTPUT)], lambda other: shape_of(other + _OUTPUT), named)
        return None if found is None else (found[0] + _OUTPUT, found[1])
    last = name.rpartition("/")[2]
    if last in LEGACY_SLOTS:
        owner = legacy_owner(name, shape_of)
        if owner is not None:
            return owner, last
    found_in_tf1 = tf1_slot(name, shape_of, named)
    return None if found_in_tf1 is None else (found_in_tf1.variable, found_in_tf1.slot)


def legacy_owner(name: str, shape_of: ShapeOf) -> str | None:
    """The variable of what is called as a slot of Keras' legacy optimizers, `Adam/X/m` or `X/m`.

    An optimizer with a name of its own has its count of steps below it: `mine/iter`.
    """
    start, _, _ = name.rpartition("/")
    shape = shape_of(name)
    scope = KERAS_SCOPE.match(start)
    if start and shape_of(start) == shape:
        return start
    if scope and shape_of(start[scope.end() :]) == shape:
        return start[scope.end() :]
    given = legacy_scope(start, shape_of)
    below = start[len(given) :]
    return below if given and shape_of(below) == shape else None


def legacy_scope(name: str, shape_of: ShapeOf) -> str:
    """The scope of the legacy optimizer that a name is in, with a "/"; "" if it is in none."""
    scopes = name.split("/")
    for count in range(1, len(scopes)):
        scope = "/".join(scopes[:count])
        if shape_of(f"{scope}/{LEGACY_COUNT}") == ():
            return f"{scope}/"
    return ""


def named_by_users(shapes: Mapping[str, tuple[int, ...] | None]) -> dict[str, str]:
    """The names that users gave to Adams, with the record's: where powers of betas tell of one.

    `w/opt` and `w/opt_1` have the shape of w, wherever there is one of them, and `beta1_power` is
    there, and nothing else that keeps powers. Of other optimizers a name tells nothing.

    Args:
      shapes: of all variables of a checkpoint, by name; those of a Saver({v.name: v}) too.
    """
    plain = {name.removesuffix(_OUTPUT): shape for name, shape in shapes.items()}
    powers = sum(
        shape == () and _ADAMS_POWER.fullmatch(name.rpartition("/")[2]) is not None
        for name, shape in plain.items()
    )
    if not powers:
        return {}
    known = set()
    covered = set()
    for name in plain:
        slot = tf1_slot(name, plain.get)
        if slot is not None:
            covered.add(slot.variable)
            if has_powers(slot.optimizer):
                known.add(slot.given or slot.optimizer)
    found = {
        name: ADAM
        for name, owners in unknown_names(plain).items()
        if len(owners) == 2 and owners[0] == owners[1] and not owners[0] & covered
    }
    return found if len(found) + len(known) <= powers else {}


def unknown_names(shapes: Mapping[str, tuple[int, ...] | None]) -> dict[str, list[set[str]]]:
    """What may be names that users gave to optimizers: `opt` of `w/opt`, like w in its shape.

    Averages are named so, too, and masks.

    Returns:
      By name the variables that have `X/NAME`, those that have `X/NAME_1`, and so on.
    """
    found: dict[str, list[set[str]]] = {}
    for full_name, shape in sorted(shapes.items()):
        name = full_name.removesuffix(_OUTPUT)
        end = full_name[len(name) :]
        start = name.rpartition("/")[0]
        while start and shapes.get(start + end) != shape:
            start = start.rpartition("/")[0]
        if not start or slot_by_name(full_name, shapes.get) is not None or AVERAGE.search(name):
            continue
        given, count = name[len(start) + 1 :], 0
        counted = _COUNTED_NAME.fullmatch(given)
        if counted and f"{start}/{counted.group(1)}{end}" in shapes:
            given, count = counted.group(1), int(counted.group(2))
        owners = found.setdefault(given, [])
        owners += [set() for _ in range(count + 1 - len(owners))]
        owners[count].add(start)
    return found


def slots_by_name(
    names: Sequence[str], shapes: Sequence[tuple[int, ...]], order: Iterable[int]
) -> tuple[list[str | None], list[str | None]]:
    """slot_by_name() of each variable of a checkpoint, by columns.

    Args:
      names, shapes: of the variables.
      order: their numbers, counted from 0, in the order of their names.
    """
    variables: list[str | None] = [None] * len(names)
    slots: list[str | None] = [None] * len(names)
    slot_name = functools.cache(_slot_name)
    shape_of: dict[str, tuple[int, ...]] = {}
    variable = ""  # the last that is no slot: the next ones may be its slots
    shape_of_variable: tuple[int, ...] = ()
    powers = 0
    ends: set[str] = set()
    for number in order:
        name = names[number]
        cut = name.rfind("/")
        slot = slot_name(name[cut + 1 :])
        if slot is None:
            variable, shape_of_variable = name, shapes[number]
            powers += _ADAMS_POWER.fullmatch(name[cut + 1 :]) is not None
        elif slot and cut > 0 and name[:cut] == variable and shapes[number] == shape_of_variable:
            variables[number], slots[number] = variable, slot
            ends.add(name[cut + 1 :])
        else:
            shape_of = shape_of or dict(zip(names, shapes))
            variables[number], slots[number] = slot_by_name(name, shape_of.get) or (None, None)
    known = {kind for end in ends if (kind := _kind_at(end)) and has_powers(kind)}
    if powers > len(known):
        by_name = dict(zip(names, shapes))
        named = named_by_users(by_name)
        for number, name in enumerate(names) if named else ():
            if variables[number] is None:
                found = slot_by_name(name, by_name.get, named)
                variables[number], slots[number] = found or (None, None)
    return variables, slots


def _slot_name(last: str) -> str | None:
    """The slot that a name ending so may be; "" if that depends on more; None if it is none."""
    last = last.removesuffix(_OUTPUT)
    if last in LEGACY_SLOTS:
        return last
    if f"/{last}" in TF1_ENDS:
        return TF1_ENDS[f"/{last}"][1]
    if last.endswith(_ENDS_INSIDE):
        return ""
    kind = _kind_at(last)
    if not kind:
        return None
    if len(TF1_ORDERS[kind]) > 1:
        return ""
    counted, order = COUNTED.fullmatch(last), TF1_ORDERS[kind][0][1]
    return order[int(counted.group(2) or 0) % len(order)] if counted else None


def _kind_at(last: str) -> str:
    """The default name of the optimizer whose slots end so; "" if none."""
    counted = COUNTED.fullmatch(last.removesuffix(_OUTPUT))
    return kind_of(counted.group(1)) if counted else ""
