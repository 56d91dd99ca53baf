"""The state of a checkpoint's optimizers as that of a program's, by the table of `convert --like`.

A conversion places what it makes in a template; here the program's optimizer is the template.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import NamedTuple

from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.conversion.found_optimizer import Optimizer
from estimator_ckpt.conversion.like_optimizers import Relinked, relinked_optimizers
from estimator_ckpt.conversion.live_starts import Start, number_start, slot_start
from estimator_ckpt.conversion.meta_graph import updates_beside
from estimator_ckpt.conversion.objects_to_names import global_step, read_items
from estimator_ckpt.conversion.optimizer_relations import related, with_class
from estimator_ckpt.conversion.optimizers_by_name import slots_by_names
from estimator_ckpt.conversion.plan import Content, read_number
from estimator_ckpt.conversion.source_optimizers import find_optimizers
from estimator_ckpt.conversion.translate_optimizer import Relinker
from estimator_ckpt.errors import SettingsError, UnsupportedCheckpointError
from estimator_ckpt.formats import GLOBAL_STEP
from estimator_ckpt.matching.model import LiveOptimizer, ModelVariable
from estimator_ckpt.roles import STEP
from estimator_ckpt.roles.dialects import (
    BY_NAME,
    LEGACY_CLASSES,
    LEGACY_COUNT,
    NEWER_BY_CLASS,
    legacy_records,
)
from estimator_ckpt.roles.loss_scale import loss_scale_of
from estimator_ckpt.roles.newer_keras import classes, classes_by_names, newer_class
from estimator_ckpt.roles.records import LEGACY, NEWER, TF1

# What a conversion says to do, and who has a program in hand cannot.
ADVICE = re.compile(
    r"[.,]?( or| Or)? [Ll]eave (?:it|them|the slots) out \(drop_slots\)"
    r"(?:, or convert without `optimizer`)?"
)
STAYS = "a number of the program's own, which stays"


class LiveState(NamedTuple):
    """What an optimizer of a program starts from.

    Attributes:
      starts: by the names of its variables.
      stays: those that keep what the program has given them, each with the reason.
      step: what a global step starts from that counts the same steps; None if nothing does.
      notes: what must be equal in the program, for the training to go on as it would have.
      keys: all keys of the checkpoint that its optimizer has.
    """

    starts: dict[str, Start]
    stays: dict[str, str]
    step: Start | None
    notes: list[str]
    keys: set[str]


class SourceOptimizers:
    """The optimizers of a checkpoint.

    Args:
      checkpoint: whose.
      from_optimizer: the class of those with names that do not say it.

    Raises:
      CheckpointError: they cannot be told; as find_optimizers() does.
    """

    def __init__(self, checkpoint: Checkpoint, from_optimizer: str | None) -> None:
        self._checkpoint = checkpoint
        self._from_optimizer = from_optimizer
        self._items = read_items(checkpoint)
        self._step = global_step(self._items, checkpoint.object_graph)
        self._optimizers = find_optimizers(
            self._items,
            checkpoint.object_graph,
            from_optimizer,
            updates_beside(checkpoint.prefix, {item.name for item in self._items}),
        )
        self._number_of = {item.content.source: n for n, item in enumerate(self._items)}

    def state_for(
        self,
        live: LiveOptimizer,
        variables: Mapping[str, ModelVariable],
        sources: Mapping[str, Collection[str]],
        numbers: Mapping[str, float],
    ) -> LiveState | None:
        """What an optimizer starts from: all of its state.

        Args:
          live: the program's optimizer.
          variables: of the model, by name.
          sources: by the names of those that start the keys of what starts them.
          numbers: the hyperparameters that are given for it.

        Returns:
          None if no optimizer of the checkpoint trains its variables.

        Raises:
          CheckpointError: the two do not mean the same, or it is not clear whether they do; as
            convert_checkpoint() raises it.
        """
        owners = self._owners(sources)
        if not live.is_built:
            if any(_trained(one) & set(owners.values()) for one in self._optimizers):
                raise SettingsError(live.problem, key=live.name)
            return None
        optimizer = self._counterpart(live, owners)
        if optimizer is None:
            return None
        if live.problem:
            raise UnsupportedCheckpointError(live.problem)
        lacking = sorted({v for v, _ in live.slots if owners.get(v, -1) < 0})
        if lacking:
            raise UnsupportedCheckpointError(
                f"an optimizer's state starts all or not at all: {lacking[0]!r}, which "
                f"{live.label} trains, does not start from the checkpoint"
            )
        label = self._class_there(self._copy(optimizer, live), live)
        if live.fitting:
            live = self._told(live, label)
        if label != live.label:
            raise UnsupportedCheckpointError(_other_class(live, label))
        relinker = self._relinker(live, numbers)
        relinker.relink([self._copy(optimizer, live)])
        made = next((one for one in relinked_optimizers(relinker.items) if one.slots), None)
        if made is None:
            return None
        return self._placed(live, variables, owners, relinker, made, optimizer)

    def another_class(
        self, live: LiveOptimizer, sources: Mapping[str, Collection[str]]
    ) -> str | None:
        """Why what has the objects or names of an optimizer's state is not its own all the same.

        Returns:
          The reason; None if the class is the same, as far as that shows.
        """
        optimizer = self._counterpart(live, self._owners(sources))
        if optimizer is None or optimizer.dialect != live.dialect:
            return None
        if self._from_optimizer is not None:
            labels = [self._from_optimizer]
        elif optimizer.dialect == NEWER:
            state = optimizer.newer
            labels = classes_by_names(slots_by_names(self._items, optimizer.follows).values())
            labels = labels if state is None else classes(state)
            labels += [n for n, one in NEWER_BY_CLASS.items() if one.taken_for in labels]
        elif optimizer.dialect == LEGACY:
            records = legacy_records(optimizer.label, optimizer.slot_names(), optimizer.own)
            labels = [label for _, one in records for label in (one.name, *one.also)]
        else:
            labels = [optimizer.label] if optimizer.label in BY_NAME else []
        return None if live.label in labels or not labels else _other_class(live, labels[0])

    def slots_fit(self, live: LiveOptimizer, sources: Mapping[str, Collection[str]]) -> bool | None:
        """Whether what has the objects or names of an optimizer's slots are slots of what starts
        the same variables.

        Returns:
          None where nothing but an order tells whose they are in the checkpoint.
        """
        owners = self._owners(sources)
        owner_of: dict[int, int | None] = {}
        for optimizer in self._optimizers:
            owner_of.update(_owner_of_slots(optimizer))
        is_clear = True
        for (variable, _), name in live.slots.items():
            owner = owner_of.get(owners[name], owners.get(variable))
            if owner is not None and owner != owners.get(variable):
                return False
            is_clear = is_clear and owner is not None
        return True if is_clear else None

    def _told(self, live: LiveOptimizer, label: str) -> LiveOptimizer:
        """The optimizer as one of a class, where names alone tell of it: as it is said."""
        try:
            given = None if self._from_optimizer is None else label
            return replace(live, label=newer_class(live.fitting, given, ""))
        except SettingsError:
            raise SettingsError(
                f"by the names of its slots the program's optimizer is {' or '.join(live.fitting)}"
                f", and the state is of {label}; say the class",
                key="from_optimizer",
            ) from None

    def _owners(self, sources: Mapping[str, Collection[str]]) -> dict[str, int]:
        """The items of the program's variables; -1 where they do not start."""
        return {
            name: next((self._number_of[k] for k in keys if k in self._number_of), -1)
            for name, keys in sources.items()
        }

    def _counterpart(self, live: LiveOptimizer, owners: Mapping[str, int]) -> Optimizer | None:
        """The checkpoint's optimizer that trained the same variables."""
        trained = {owners.get(variable, -1) for variable, _ in live.slots} - {-1}
        if live.problem and not live.slots:
            trained = set(owners.values()) - {-1}
        found = [one for one in self._optimizers if trained & _trained(one)]
        if len(found) > 1:
            found = [one for one in found if one.label == live.label] or found
        if len(found) > 1:
            raise UnsupportedCheckpointError(
                f"several optimizers of the checkpoint have slots of the same variables: "
                f"{', '.join(sorted(one.label or 'one without a name' for one in found))}"
            )
        return found[0] if found else None

    def _copy(self, optimizer: Optimizer, live: LiveOptimizer) -> Optimizer:
        """The optimizer, to be changed; of the program's dialect, it must be of its class, too."""
        optimizer = replace(optimizer, slots=list(optimizer.slots), own=dict(optimizer.own))
        if optimizer.dialect != live.dialect or live.dialect == NEWER:
            return optimizer
        if self._from_optimizer is not None:
            optimizer.label = self._from_optimizer
        elif optimizer.dialect == LEGACY and optimizer.label not in LEGACY_CLASSES:
            fitting = legacy_records(optimizer.label, optimizer.slot_names(), optimizer.own)
            labels = sorted({legacy.name for _, legacy in fitting})
            if len(labels) > 1:
                raise SettingsError(
                    f"by its slots the checkpoint's optimizer may be {' or '.join(labels)}; say "
                    "which",
                    key="from_optimizer",
                )
            optimizer.label = labels[0] if labels else optimizer.label
        return optimizer

    def _class_there(self, optimizer: Optimizer, live: LiveOptimizer) -> str:
        """The class that an optimizer becomes in the program's dialect."""
        optimizer = with_class(optimizer, self._items, live.dialect, self._from_optimizer)
        if optimizer.dialect == live.dialect != NEWER:
            return optimizer.label
        return related(optimizer, live.dialect).class_in(live.dialect)

    def _relinker(self, live: LiveOptimizer, numbers: Mapping[str, float]) -> Relinker:
        return Relinker(
            list(self._items),
            self._step,
            live.dialect,
            numbers,
            self._read,
            template=live.numbers,
            from_optimizer=self._from_optimizer,
            is_keras_3=live.is_keras_3,
        )

    def _read(self, content: Content) -> float:
        return read_number(self._checkpoint.prefix, self._checkpoint.index, content)

    def _placed(
        self,
        live: LiveOptimizer,
        variables: Mapping[str, ModelVariable],
        owners: Mapping[str, int],
        relinker: Relinker,
        made: Relinked,
        optimizer: Optimizer,
    ) -> LiveState:
        items, from_other = relinker.items, optimizer.dialect != live.dialect
        keys = {self._items[number].content.source for number in optimizer.items()}
        found = LiveState({}, {}, None, list(relinker.notes), keys)
        names = _slot_names(live)
        for (variable, slot), name in live.slots.items():
            number = made.slots.get((self._items[owners[variable]].name, names.get(slot, slot)))
            if number is None:
                raise UnsupportedCheckpointError(
                    f"an optimizer's state starts all or not at all: the checkpoint's {made.kind} "
                    f"has no slot {slot} of {variable!r}"
                )
            why = f"{slot} of {variable}, of {optimizer.label or made.kind}"
            if items[number].content.scale != 1.0:
                why += f", {items[number].content.scale:.6g} times"
            found.starts[name] = slot_start(items[number], variables[name], why)
        for name, variable in live.own.items():
            is_theirs = name == LEGACY_COUNT or not from_other or live.dialect != LEGACY
            if name in made.own and is_theirs:
                found.starts[variable] = number_start(
                    items[made.own[name]], variables[variable], self._read
                )
            else:
                found.stays[variable] = STAYS
        for name, variable in live.scale.items():
            path = loss_scale_of(live.dialect, live.is_keras_3).paths[name]
            at = [one for one in items if (one.place or ())[-len(path) :] == path]
            if at:
                found.starts[variable] = number_start(at[0], variables[variable], self._read)
            else:
                found.stays[variable] = "the checkpoint scales no losses"
        if live.dialect == TF1 and relinker.step is not None:
            steps = [v for v in variables.values() if v.role == STEP]
            if items[relinker.step].name == GLOBAL_STEP and len(steps) == 1:
                start = number_start(items[relinker.step], steps[0], self._read)
                found = found._replace(step=start)
        return found


def _other_class(live: LiveOptimizer, label: str) -> str:
    newer = NEWER_BY_CLASS.get(live.label) if live.dialect == NEWER else None
    same = newer is not None and newer.taken_for == label
    return (
        f"the program's optimizer is {live.label}, and the state is of {label or 'another'}, which "
        + (f"keeps the same: from_optimizer={live.label!r} takes it" if same else "is another")
    )


def _trained(optimizer: Optimizer) -> set[int]:
    """The items of the variables that an optimizer has slots of."""
    if optimizer.newer is not None:
        return {owner for owner in optimizer.newer.owners if owner is not None}
    return {slot.variable for slot in optimizer.slots} | set(optimizer.follows.values())


def _owner_of_slots(optimizer: Optimizer) -> Mapping[int, int | None]:
    """By the items of slots those of their variables; None where nothing tells."""
    state = optimizer.newer
    if state is None:
        return {slot.item: slot.variable for slot in optimizer.slots} | dict(optimizer.follows)
    found: dict[int, int | None] = {}
    for members in state.lists.values():
        for index, item in enumerate(members):
            if item is not None:
                found[item] = state.owners[index] if index < len(state.owners) else None
    return found


def _slot_names(live: LiveOptimizer) -> dict[str, str]:
    """By the table's names of slots the names that a conversion leaves them with."""
    if live.dialect != LEGACY:
        return {}
    for _, legacy in legacy_records(live.label, (), ()):
        if legacy.name == live.label and {s for _, s in live.slots} <= set(legacy.slots):
            return dict(legacy.slots)
    return {}
