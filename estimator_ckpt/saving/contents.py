"""What one saver writes and restores: a record for each saveable, and the object graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from estimator_ckpt.formats import CheckpointFormat, keys_in
from estimator_ckpt.matching.model import OtherState
from estimator_ckpt.matching.restoring import Wanted
from estimator_ckpt.objects.object_graph import ObjectGraph
from estimator_ckpt.saving import tf_internals
from estimator_ckpt.saving.saveables import source, variable_of
from estimator_ckpt.saving.tf_internals import Saveable
from estimator_ckpt.saving.upstream import VARIABLE_OPS


@dataclass(frozen=True)
class SavedTensor:
    """One tensor that is written: a variable, a slice of one, or a part of a lookup table.

    Attributes:
      wanted: how it is found again; `wanted.tensor` is its key in a name-based checkpoint.
      key: its key in an object-based one.
    """

    wanted: Wanted
    key: str


@dataclass(frozen=True)
class Record:
    """One saveable, and what it consists of.

    Attributes:
      name: the slices of a partitioned variable, a saveable each, have one name.
      saveable: TensorFlow's.
      tensors: in the order of its specs.
      holders: the names of the ops that hold what it saves.
    """

    name: str
    saveable: Saveable
    tensors: Sequence[SavedTensor]
    holders: frozenset[str]

    @property
    def is_restored(self) -> bool:
        """Whether a restore gives it a value."""
        return not tf_internals.never_restored(self.saveable)


@dataclass(frozen=True)
class Contents:
    """Everything that one saver writes and restores.

    Attributes:
      records: one for each saveable.
      object_graph: the user's objects, if any, with the complete `var_list` beside them.
      structure: the same objects, without those edges of `var_list` that only repeat names.
      step: the name of the global step, if it is saved.
    """

    records: Sequence[Record]
    object_graph: ObjectGraph
    structure: ObjectGraph
    step: str | None

    def saveables(self) -> dict[str, list[Saveable]]:
        """The saveables by name, as a stock Saver is given them."""
        found: dict[str, list[Saveable]] = {}
        for record in self.records:
            found.setdefault(record.name, []).append(record.saveable)
        return found

    def all_tensors(self) -> Iterator[SavedTensor]:
        for record in self.records:
            yield from record.tensors

    def further_keys(self, checkpoint_format: CheckpointFormat) -> dict[str, tuple[str, ...]]:
        """What an object-based checkpoint of a format has besides: object key -> other keys."""
        if checkpoint_format == "saver":
            return {}
        name_of = {tensor.key: tensor.wanted.tensor for tensor in self.all_tensors()}
        names, keys = list(name_of.values()), list(name_of)
        step = names.index(self.step) if self.step in names else None
        further = {
            key: tuple(other for other in found if other != key)
            for key, found in zip(keys, keys_in(checkpoint_format, names, keys, step))
        }
        return {key: others for key, others in further.items() if others}

    def wanted(self) -> list[Wanted]:
        """What a restore needs, each tensor once, however many slices it has."""
        found: dict[str, Wanted] = {}
        for record in self.records:
            for tensor in record.tensors if record.is_restored else ():
                found.setdefault(tensor.wanted.tensor, tensor.wanted)
        return list(found.values())

    def by_holder(self) -> dict[str, Wanted]:
        """What is wanted of each variable, by the names of the ops that hold it."""
        return {
            holder: record.tensors[0].wanted for record in self.records for holder in record.holders
        }

    def other_state(self, holders: Collection[str]) -> list[OtherState]:
        """What it saves that is in none of the ops `holders`, those of variables: lookup tables,
        iterators, local variables, state of Python."""
        graph = tf.compat.v1.get_default_graph()
        found = {}
        for record in self.records:
            if record.holders.isdisjoint(holders):
                op_type = graph.get_operation_by_name(source(record.saveable)).type
                kind = "local variable" if op_type in VARIABLE_OPS else op_type
                found[record.name] = kind if record.is_restored else "PythonState"
        return [OtherState(name, kind) for name, kind in found.items()]

    def held(
        self,
        absent: Collection[str] = (),
        outside: Callable[[str], bool] = lambda name: False,
    ) -> tuple[set[str], set[str]]:
        """The ops that hold what a restore gives a value, and those that it leaves without one.

        Args:
          absent: the Wanted.tensor of what is not restored.
          outside: which global variables that no saveable covers are among the latter.
        """
        restored: set[str] = set()
        others: set[str] = set()
        for record in self.records:
            if record.is_restored:
                is_absent = any(tensor.wanted.tensor in absent for tensor in record.tensors)
                (others if is_absent else restored).update(record.holders)
        others.update(filter(outside, map(tf_internals.op_name, tf.compat.v1.global_variables())))
        return restored, others - restored

    def all_variables(self) -> list[Any]:
        """The variables of the graph, and those that only the user's objects reach."""
        saved = [variable_of(record.saveable) for record in self.records]
        return [
            *tf.compat.v1.global_variables(),
            *tf.compat.v1.local_variables(),
            *(variable for variable in saved if variable is not None),
        ]
