"""One optimizer of a checkpoint: what it is called, its slots, its other variables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from estimator_ckpt.roles.dialects import (
    BY_NAME,
    tf1_of,
)
from estimator_ckpt.roles.newer_keras import (
    NewerState,
)

KNOWN_SLOTS = {one.name: one.tf1.slots for one in BY_NAME.values() if one.tf1 is not None}


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
      alike: other classes that it may be of, which keep the same.
      again: how many others of its class come before it, where their ops tell them apart.
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
    alike: tuple[str, ...] = ()
    again: int = 0

    @property
    def name(self) -> str:
        """What a user calls it: by its label, and a number where there are more of it."""
        return f"{self.label}_{self.again}" if self.again else self.label

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


def default_name(label: str) -> str:
    """What a TF1 optimizer calls itself if it is given no name; "" if there is none."""
    tf1 = tf1_of(label)
    return "" if tf1 is None else tf1.name
