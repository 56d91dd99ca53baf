"""What the table of optimizers says of each dialect: names to look for, and what they mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from estimator_ckpt.roles.optimizers import LOSS_SCALES, OPTIMIZERS
from estimator_ckpt.roles.records import (
    LEGACY,
    NEWER,
    REFUSED,
    TF1,
    Legacy,
    Newer,
    Optimizer,
    Relation,
    Tf1,
)
from estimator_ckpt.roles.relations import GRADIENTS

BY_NAME = {one.name: one for one in OPTIMIZERS}

# --- TF1 ---

# The one that a pair of slots beside powers of betas belongs to, whatever it is called.
ADAM = next(one.name for one in OPTIMIZERS if one.tf1 is not None and len(one.tf1.powers) == 2)

# What an optimizer calls itself -> the slots that it may make of a variable, in its order, with the
# name of the record.
_Orders = dict[str, list[tuple[str, tuple[str, ...]]]]


def _tf1_orders() -> _Orders:
    found: _Orders = {}
    for one in OPTIMIZERS:
        if one.tf1 is not None:
            orders = one.tf1.orders or (one.tf1.slots,)
            found.setdefault(one.tf1.name, []).extend((one.name, order) for order in orders)
    return found


TF1_ORDERS = _tf1_orders()
# How slots end that are not called so: end -> the record's name and the slot. Of two with one end,
# as BERT's Adam and some LAMBs, the first.
TF1_ENDS = {
    end: (one.name, slot)
    for one in reversed(OPTIMIZERS)
    if one.tf1 is not None
    for end, slot in one.tf1.ends.items()
}
# The betas of which optimizers keep powers -> what TF1 calls the power.
POWER_OF = {
    beta: f"{beta.replace('_', '')}_power"
    for one in OPTIMIZERS
    if one.tf1 is not None
    for beta in one.tf1.powers
}


def tf1_of(name: str) -> Tf1 | None:
    """What TF1 has of the record with this name."""
    return BY_NAME[name].tf1 if name in BY_NAME else None


def with_the_same_ends(name: str) -> list[str]:
    """The records whose slots TF1 calls as it does those of this one, itself among them."""
    tf1 = tf1_of(name)
    ends = set() if tf1 is None else set(tf1.ends)
    return [
        one.name
        for one in OPTIMIZERS
        if one.name == name or (one.tf1 is not None and ends & set(one.tf1.ends))
    ]


def has_powers(name: str) -> bool:
    """Whether the TF1 optimizer with this record keeps powers of its betas."""
    found = tf1_of(name)
    return found is not None and bool(found.powers)


# --- Keras up to 2.10 ---

LEGACY_RECORDS = [(one, one.legacy) for one in OPTIMIZERS if one.legacy is not None]
LEGACY_COUNT, RATE, DECAY = "iter", "learning_rate", "decay"
LEGACY_CLASSES = tuple(
    dict.fromkeys(label for _, legacy in LEGACY_RECORDS for label in (legacy.name, *legacy.also))
)
LEGACY_SLOTS = frozenset(slot for _, one in LEGACY_RECORDS for slot in one.slots.values())
LEGACY_NUMBERS = frozenset(
    [LEGACY_COUNT, RATE, DECAY, *(number for _, one in LEGACY_RECORDS for number in one.numbers)]
)


def legacy_records(
    label: str, slots: Iterable[str], numbers: Iterable[str]
) -> list[tuple[Optimizer, Legacy]]:
    """Those that a legacy optimizer can be: by its class, or where that is not known by all else.

    Args:
      label: what it calls itself.
      slots, numbers: those that are there, by its own names.
    """
    present, own = set(slots), set(numbers)
    found = []
    for one, legacy in LEGACY_RECORDS:
        of_class = label in (legacy.name, *legacy.also)
        if not of_class and label in LEGACY_CLASSES:
            continue
        known = {LEGACY_COUNT, RATE, DECAY, *legacy.numbers}
        fits = present <= set(legacy.slots.values()) and own <= known
        told = present == set(legacy.slots.values()) or own >= known
        if fits and (of_class or told):
            found.append((one, legacy))
    return found


# --- Keras since 2.11 ---

NEWER_RECORDS = [(one, one.newer) for one in OPTIMIZERS if one.newer is not None]
# Two records with one class have the same lists.
NEWER_BY_CLASS: dict[str, Newer] = {newer.name: newer for _, newer in NEWER_RECORDS}
# How names of their slots begin in Keras 2, and end in Keras 3.
NEWER_STARTS = frozenset(start for _, one in NEWER_RECORDS for start in one.starts)
NEWER_ENDS = tuple(
    sorted(
        {GRADIENTS, *(end for _, one in NEWER_RECORDS for end in one.ends)},
        key=lambda end: (-len(end), end),
    )
)
NEWER_OWN = frozenset(name for _, one in NEWER_RECORDS for name in one.own)
LIST_NAMES = frozenset(
    name
    for _, one in NEWER_RECORDS
    for lists in (one.lists, one.lists_in_keras_2)
    for name in lists.values()
)


def has_reduced_slots(label: str) -> bool:
    """Whether a newer class has slots that lack one dimension of their variables."""
    return any(
        one.tf1 is not None and one.tf1.reduced
        for one, newer in NEWER_RECORDS
        if newer.name == label
    )


# What a variable is called that counts the steps; in Keras 2 and 3, by its object, and by a user's.
NEWER_COUNTS = ("iteration", "iterations")
ITERATIONS, LEARNING_RATE = "_iterations", "_learning_rate"

# --- all ---

# What nobody else calls a variable; below a scope of their own the others are known, too.
SCALE_NAMES = frozenset(
    f"{one.scope}/{name}" if one.scope else name
    for one in LOSS_SCALES
    for name in one.names.values()
)


def class_names() -> Iterator[str]:
    """All names by which a program may say which class a source's optimizer is of."""
    yield from dict.fromkeys([*NEWER_BY_CLASS, *BY_NAME, *LEGACY_CLASSES])


def relations(
    dialect: str, name: str, target: str, slots: Iterable[str] = ()
) -> list[tuple[Optimizer, Relation]]:
    """What becomes of an optimizer in another dialect: of each record that it may be.

    Args:
      dialect: the source's.
      name: of its class there; of TF1 the record's.
      target: the dialect.
      slots: those that it has, by the table's names; the target must have them, too.
    """
    found = []
    for one in OPTIMIZERS:
        relation = one.relations.get((dialect, target))
        fits = relation is not None and (
            relation.how == REFUSED or set(slots) <= slots_in(one, target)
        )
        if relation is not None and fits and _is(one, dialect, name):
            found.append((one, relation))
    return found


def _is(one: Optimizer, dialect: str, name: str) -> bool:
    if dialect == TF1:
        return one.tf1 is not None and one.name == name
    if dialect == LEGACY:
        return one.legacy is not None and name in (one.legacy.name, *one.legacy.also)
    return one.newer is not None and one.newer.name == name


def slots_in(one: Optimizer, dialect: str) -> set[str]:
    """The slots that a record has in a dialect, by the table's names."""
    slots: Iterable[str] = ()
    if dialect == TF1 and one.tf1 is not None:
        slots = one.tf1.slots
    elif dialect == LEGACY and one.legacy is not None:
        slots = one.legacy.slots
    elif dialect == NEWER and one.newer is not None:
        slots = one.newer.lists
    return set(slots)


def pattern(names: Iterable[str]) -> str:
    """An expression for one of some names, the longest first."""
    ordered: Sequence[str] = sorted(set(names), key=lambda name: (-len(name), name))
    return "|".join(map(re.escape, ordered))
