"""The slots of tf.compat.v1 optimizers by their names: `dense/kernel/Adam`, `dense/kernel/Adam_1`.

See tensorflow/python/training/slot_creator.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, Optional

from estimator_ckpt.roles.dialects import TF1_ENDS, TF1_ORDERS, pattern, tf1_of

# An optimizer may have been given a name, by one who trains two: G_Adam, MyAdamOptimizer.
_KINDS = pattern(TF1_ORDERS)
_NAMED_KIND = re.compile(rf"(?:\w*(?:_|[a-z](?=[A-Z])))?({_KINDS})(?:Optimizer)?")

# What a scope or slot is called, and the number that made it unique.
COUNTED = re.compile(r"(\w+?)(?:_([1-9]\d*))?")
_PART = re.compile(r"\d+$")

NOBODY: Mapping[str, str] = {}
ShapeOf = Callable[[str], Optional[tuple[int, ...]]]


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


def tf1_slot(name: str, shape_of: ShapeOf, named: Mapping[str, str] = NOBODY) -> NamedSlot | None:
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
            if all(fits(shape, one, slot in reduced) for one, slot in zip(shapes, slots)):
                return optimizer, order
    fitting = [one for one in orders if count < len(one[1])]
    return (fitting or orders)[0]


def fits(variable: tuple[int, ...] | None, slot: tuple[int, ...] | None, is_reduced: bool) -> bool:
    """Whether a slot has the shape of its variable, or that without one dimension."""
    if not is_reduced:
        return variable == slot
    if variable is None or slot is None or len(variable) != len(slot) + 1:
        return False
    return any(variable[:i] + variable[i + 1 :] == slot for i in range(len(variable)))


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
    if fits(shape_of(start), shape, is_reduced):
        return start
    variable, _, tail = start.rpartition("/")
    part = _PART.search(tail)
    while part and variable:
        if f"{variable}/part_{part.group()}".endswith(tail) and fits(
            shape_of(variable), shape, is_reduced
        ):
            return variable
        variable, _, above = variable.rpartition("/")
        tail = f"{above}/{tail}"
    while "/" in start:
        start = start.partition("/")[2]
        if fits(shape_of(start), shape, is_reduced):
            return start
    return None


def kind_of(label: str) -> str:
    """The default name of an optimizer by its name: `Adam` of `G_Adam`; "" if none."""
    if label in TF1_ORDERS:
        return label
    named = _NAMED_KIND.fullmatch(label)
    return named.group(1) if named else ""
