"""Which variables are slots by their names, and whose; see optimizers.py for what each is called.

A name alone may mislead: a slot's variable must be there, and have the slot's shape.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Optional

from estimator_ckpt.roles.dialects import (
    ADAM,
    LEGACY_CLASSES,
    LEGACY_COUNT,
    LEGACY_SLOTS,
    NEWER_ENDS,
    POWER_OF,
    TF1_ENDS,
    TF1_ORDERS,
    has_powers,
    pattern,
    tf1_of,
)

# The powers of their betas that Adams of TF1 keep beside the slots.
BETA_POWER = re.compile(rf"(?:.*/)?({pattern(POWER_OF.values())})(?:_\d+)?(?::0)?")
_FIRST_POWER = re.compile(rf"{next(iter(POWER_OF.values()))}(?:_\d+)?(?::0)?")
# An optimizer may have been given a name, by one who trains two: G_Adam, MyAdamOptimizer.
_KINDS = pattern(TF1_ORDERS)
_NAMED_KIND = re.compile(rf"(?:\w*(?:_|[a-z](?=[A-Z])))?({_KINDS})(?:Optimizer)?")
# X/m below a scope of a legacy Keras optimizer, of which the group is the class.
KERAS_SCOPE = re.compile(rf"(?:training(?:_\d+)?/)?({pattern(LEGACY_CLASSES)})(?:_\d+)?/")
AVERAGE = re.compile(r"(?:.*/)?ExponentialMovingAverage")

# What a scope or slot is called, and the number that made it unique.
COUNTED = re.compile(r"(\w+?)(?:_([1-9]\d*))?")
_COUNTED_NAME = re.compile(r"(.+)_([1-9]\d?)")
_PART = re.compile(r"\d+$")
_OUTPUT = ":0"  # of a Saver({v.name: v}), behind all names


_ENDS_INSIDE = tuple(end for end in TF1_ENDS if "/" not in end)


class NamedSlot(NamedTuple):
    """What the name of a TF1 slot says.

    Attributes:
      variable: whose it is.
      slot: its name in the table.
      optimizer: the record's name.
      given: what the optimizer calls itself, if that is not its default name.
      again: how many optimizers of this name have slots of the variable before it.
    """

    variable: str
    slot: str
    optimizer: str
    given: str = ""
    again: int = 0


_NOBODY: Mapping[str, str] = {}
ShapeOf = Callable[[str], Optional[tuple[int, ...]]]


def slot_by_name(
    name: str, shape_of: ShapeOf, named: Mapping[str, str] = _NOBODY
) -> tuple[str, str] | None:
    """The variable whose slot `name` is and the slot's name; None where it is none for sure.

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


def tf1_slot(name: str, shape_of: ShapeOf, named: Mapping[str, str] = _NOBODY) -> NamedSlot | None:
    """What a name says, if it is that of a TF1 slot; arguments as of slot_by_name()."""
    shape = shape_of(name)
    for end, (optimizer, slot) in TF1_ENDS.items():
        if name.endswith(end):
            reduced = slot in _reduced(optimizer)
            owner = slot_variable(name[: -len(end)], shape, shape_of, is_reduced=reduced)
            if owner is not None:
                return NamedSlot(owner, slot, optimizer)
    for own_name, optimizer in named.items():
        tf1 = tf1_of(optimizer)
        for count, slot in enumerate(() if tf1 is None else tf1.slots):
            end = f"/{own_name}_{count}" if count else f"/{own_name}"
            owner = slot_variable(name[: -len(end)], shape, shape_of)
            if name.endswith(end) and owner is not None:
                return NamedSlot(owner, slot, optimizer, own_name)
    start, _, last = name.rpartition("/")
    counted = COUNTED.fullmatch(last)
    kind = kind_of(counted.group(1)) if counted is not None else ""
    if counted is None or not kind or not start:
        return None
    given, count = counted.group(1), int(counted.group(2) or 0)
    is_reduced = any(_reduced(optimizer) for optimizer, _ in TF1_ORDERS[kind])
    owner = slot_variable(start, shape, shape_of)
    if owner is None and is_reduced:
        owner = slot_variable(start, shape, shape_of, is_reduced=True)
    if owner is None:
        return None
    optimizer, order = _order(kind, f"{start}/{given}", count, shape_of(owner), shape_of)
    slot = order[count % len(order)]
    return NamedSlot(owner, slot, optimizer, given if given != kind else "", count // len(order))


def _reduced(optimizer: str) -> tuple[str, ...]:
    tf1 = tf1_of(optimizer)
    return () if tf1 is None else tf1.reduced


def _order(
    kind: str, start: str, count: int, shape: tuple[int, ...] | None, shape_of: ShapeOf
) -> tuple[str, tuple[str, ...]]:
    """Which slots an optimizer has of a variable: those that are there, with their shapes.

    Args:
      kind: its default name.
      start: the name of the first slot.
      count: the number of one that is there.
      shape: of the variable.
    """
    orders = TF1_ORDERS[kind]
    if len(orders) == 1:
        return orders[0]
    shapes: list[tuple[int, ...] | None] = []
    while (found := shape_of(f"{start}_{len(shapes)}" if shapes else start)) is not None:
        shapes.append(found)
    for optimizer, order in orders:
        if shapes and not len(shapes) % len(order):
            reduced = _reduced(optimizer)
            slots = order * (len(shapes) // len(order))
            if all(_fits(shape, one, slot in reduced) for one, slot in zip(shapes, slots)):
                return optimizer, order
    fitting = [one for one in orders if count < len(one[1])]
    return (fitting or orders)[0]


def _fits(variable: tuple[int, ...] | None, slot: tuple[int, ...] | None, is_reduced: bool) -> bool:
    """Whether a slot has the shape of its variable, or that without one dimension."""
    if not is_reduced:
        return variable == slot
    if variable is None or slot is None or len(variable) != len(slot) + 1:
        return False
    return any(variable[:i] + variable[i + 1 :] == slot for i in range(len(variable)))


def named_by_users(shapes: Mapping[str, tuple[int, ...] | None]) -> dict[str, str]:
    """The names that users gave to Adams, with the record's: where powers of betas tell of one.

    `w/opt` and `w/opt_1` have the shape of w, wherever there is one of them, and `beta1_power` is
    there, and nothing else that keeps powers. Of other optimizers a name tells nothing.

    Args:
      shapes: of all variables of a checkpoint, by name; those of a Saver({v.name: v}) too.
    """
    plain = {name.removesuffix(_OUTPUT): shape for name, shape in shapes.items()}
    powers = sum(
        shape == () and _FIRST_POWER.fullmatch(name.rpartition("/")[2]) is not None
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
            powers += _FIRST_POWER.fullmatch(name[cut + 1 :]) is not None
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


def slot_variable(
    start: str,
    shape: tuple[int, ...] | None,
    shape_of: ShapeOf,
    *,
    is_reduced: bool = False,
) -> str | None:
    """The variable of a TF1 slot, by what the slot's name has before its last part.

    That is the variable's own name, or more: the scopes that the optimizer was made in before it;
    or behind it the end of `NAME/part_N`, as long as those scopes are. slot_creator.py cuts a
    partitioned variable's slot there, as if it were in no scope. So the canned Estimators of
    tf.compat.v1 have slots `dnn/logits/kernel/t_0/Adagrad` and `linear/.../weights/part_0/Ftrl`.

    Args:
      start: without the last part.
      shape: of the slot.
      shape_of: as slot_by_name() takes it.
      is_reduced: whether the slot lacks one dimension of its variable.
    """
    if _fits(shape_of(start), shape, is_reduced):
        return start
    variable, _, tail = start.rpartition("/")
    part = _PART.search(tail)
    while part and variable:
        if f"{variable}/part_{part.group()}".endswith(tail) and _fits(
            shape_of(variable), shape, is_reduced
        ):
            return variable
        variable, _, above = variable.rpartition("/")
        tail = f"{above}/{tail}"
    while "/" in start:
        start = start.partition("/")[2]
        if _fits(shape_of(start), shape, is_reduced):
            return start
    return None


def newer_keras_slot(
    name: str,
    shape: tuple[int, ...],
    shape_of: Callable[[str], tuple[int, ...] | None],
    by_flat_name: Mapping[str, Sequence[str]],
) -> tuple[str, str] | None:
    """The variable of a slot of Keras' newer optimizers and the slot's name, by the name of both.

    Args:
      name: of the slot variable.
      shape: of it.
      shape_of: as slot_by_name() takes it.
      by_flat_name: the variable names, as flat_names() makes it.
    """
    scopes = name.split("/")
    for number, scope in enumerate(scopes[:-1]):
        variable = "/".join(scopes[number + 1 :])
        if scope in NEWER_ENDS and shape_of(variable) == shape:
            return variable, scope
    last = scopes[-1]
    slot = next((slot for slot in NEWER_ENDS if last.endswith(f"_{slot}")), None)
    if slot is None or len(scopes) == 1:
        return None
    flat = last[: -len(slot) - 1]
    # A variable that is none of Keras' own is called `X:0` there.
    flats = {flat, flat.removesuffix("_0")}
    variables = [v for one in flats for v in by_flat_name.get(one, ()) if shape_of(v) == shape]
    return (variables[0], slot) if len(variables) == 1 else None


def flat_names(names: Iterable[str]) -> dict[str, list[str]]:
    """Variable names by what they are with "_" for each "/", as in the names of Keras 3's slots."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.replace("/", "_"), []).append(name)
    return found


def kind_of(label: str) -> str:
    """The default name of an optimizer by its name: `Adam` of `G_Adam`; "" if none."""
    if label in TF1_ORDERS:
        return label
    named = _NAMED_KIND.fullmatch(label)
    return named.group(1) if named else ""


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
