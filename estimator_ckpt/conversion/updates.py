"""What trains a variable: the ops of optimizers, in a graph or in the `.meta` file of one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from estimator_ckpt.conversion.found_optimizer import KNOWN_SLOTS, Optimizer
from estimator_ckpt.conversion.plan import Item
from estimator_ckpt.roles.records import TF1
from estimator_ckpt.roles.slots import slot_by_name

# The ops of optimizers (tensorflow/core/ops/training_ops.cc): the variable, then its slots.
_OP = re.compile(
    r"(?:Resource)?(?:Sparse)?Apply(?!GradientDescent|ProximalGradientDescent)(\w+?)(?:V2)?"
)
# What a variable's value comes through on its way into such an op.
PASSED = ("Identity", "ReadVariableOp", "Cast")


class Update(NamedTuple):
    """An op that trains a variable.

    Attributes:
      kind: of optimizer, as TensorFlow calls its op, which is what the table calls it.
      owner: the name of the variable.
      inputs: the names of other variables that it has.
      read: those of them that it does not write, by what the op calls them, as `beta1_power`;
        told of graphs, not of `.meta` files.
      numbers: those of its numbers that are constants; told where `read` is.
    """

    kind: str
    owner: str
    inputs: Sequence[str]
    read: Mapping[str, str] = {}
    numbers: Mapping[str, float] = {}

    @property
    def slots(self) -> set[str]:
        """The other variables that it writes; of a graph."""
        return set(self.inputs).difference(self.read.values())


def kind_of_update(op: str) -> str:
    """The kind of optimizer that an op is of; "" if of none that keeps anything."""
    found = _OP.fullmatch(op)
    return found.group(1) if found else ""


def renamed(updates: Iterable[Update], names: Mapping[str, str]) -> list[Update]:
    """The ops as those of variables by other names; those without one are none of theirs."""
    return [
        update._replace(
            owner=names[update.owner],
            inputs=[names[n] for n in update.inputs if n in names],
            read={called: names[n] for called, n in update.read.items() if n in names},
        )
        for update in updates
        if update.owner in names
    ]


def named_by_ops(
    updates: Iterable[Update], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, str]:
    """The names that users gave to TF1 optimizers, each with its record's: as their ops say.

    Args:
      updates: of a graph.
      shapes: of all variables, by name.
    """
    found: dict[str, str] = {}
    for update in updates:
        slots = [
            name
            for name in update.inputs
            if name.startswith(f"{update.owner}/")
            and shapes.get(name) == shapes.get(update.owner, ())
        ]
        first = min(slots, key=len, default="")  # the others have numbers behind it
        is_known = update.kind in KNOWN_SLOTS and len(slots) == len(KNOWN_SLOTS[update.kind])
        if is_known and slot_by_name(first, shapes.get) is None:
            found[first[len(update.owner) + 1 :]] = update.kind
    return found


def told_apart(
    optimizer: Optimizer, items: Sequence[Item], updates: Iterable[Update]
) -> list[Optimizer]:
    """TF1 optimizers of one class, which keep powers of betas: each has those that its ops read.

    Returns:
      The one itself, where it is one, or where the ops do not tell.
    """
    numbers = {items[n].name: n for n in (*optimizer.own.values(), *optimizer.others)}
    if optimizer.dialect != TF1 or not optimizer.others:
        return [optimizer]
    powers_of: dict[str, tuple[str, ...]] = {}
    for update in updates:
        powers = tuple(name for name in update.inputs if name in numbers)
        if powers and powers_of.setdefault(update.owner, powers) != powers:
            return [optimizer]  # two train one variable
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, slot in enumerate(optimizer.slots):
        groups.setdefault(powers_of.get(items[slot.variable].name, ()), []).append(number)
    used = [name for powers in groups for name in powers]
    if len(set(used)) != len(used) or set(used) != set(numbers) or () in groups:
        return [optimizer]
    found = []
    for again, (powers, slots) in enumerate(sorted(groups.items())):
        own = {}
        for power in powers:
            plain = next(
                name for name in optimizer.own if power.rpartition("/")[2].startswith(name)
            )
            own[plain] = numbers[power]
        found.append(
            Optimizer(
                optimizer.label,
                TF1,
                [optimizer.slots[number] for number in slots],
                own,
                again=again,
            )
        )
    return found
