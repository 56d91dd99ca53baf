"""What an optimizer of a checkpoint is, by the table of optimizers, and what becomes of it.

What the table says of a pair was found in the kernels that both call
(tensorflow/core/kernels/training_ops.cc), in what keras/src/optimizers does around them, and by
training on both sides (tests/test_convert_optimizers.py and its neighbours).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from estimator_ckpt.bundle.checksum import masked_crc32c
from estimator_ckpt.conversion.found_optimizer import Optimizer, SlotOf
from estimator_ckpt.conversion.optimizers_by_name import newer_state_by_names
from estimator_ckpt.conversion.plan import INT32, Content, Item, Slot
from estimator_ckpt.conversion.source_optimizers import tf1_slot_name
from estimator_ckpt.errors import SettingsError, UnsupportedCheckpointError
from estimator_ckpt.objects.object_graph import ObjectPath
from estimator_ckpt.roles import records
from estimator_ckpt.roles.dialects import (
    ITERATIONS,
    LEGACY_COUNT,
    NEWER_BY_CLASS,
    has_powers,
    legacy_records,
    relations,
    slots_in,
    tf1_of,
    with_the_same_ends,
)
from estimator_ckpt.roles.newer_keras import classes, list_name, newer_class
from estimator_ckpt.roles.optimizers import OPTIMIZERS
from estimator_ckpt.roles.records import LEGACY, NEWER, REFUSED, TF1, Relation

_TARGETS = {
    TF1: "a TF1 optimizer",
    LEGACY: "a legacy Keras optimizer",
    NEWER: "a Keras optimizer since 2.11",
}
_WHOSE = {TF1: "", LEGACY: "Keras' ", NEWER: "Keras' "}


class Related(NamedTuple):
    """An optimizer in another dialect.

    Attributes:
      record: what it is, in the table.
      relation: what becomes of its state.
      slots: its names of slots -> the table's.
    """

    record: records.Optimizer
    relation: Relation
    slots: Mapping[str, str]

    def class_in(self, dialect: str) -> str:
        """What it is called there: TF1's by its record."""
        if dialect == LEGACY and self.record.legacy is not None:
            return self.record.legacy.name
        if dialect == NEWER and self.record.newer is not None:
            return self.record.newer.name
        return self.record.name


def related(optimizer: Optimizer, target: str) -> Related:
    """What an optimizer becomes in a dialect, with_class() having said what it is.

    Raises:
      UnsupportedCheckpointError: its state means something else there, or it is not known.
    """
    is_second = optimizer.label.rpartition(" ")[2].isdigit()  # of its class on a variable
    if optimizer.dialect != NEWER and (optimizer.others or is_second):
        raise UnsupportedCheckpointError(several(optimizer))
    names = optimizer.slot_names()
    candidates: list[Related] = []
    if optimizer.dialect == LEGACY:
        for record, legacy in legacy_records(optimizer.label, names, optimizer.own):
            slots = {its: slot for slot, its in legacy.slots.items()}
            own = {slots[name] for name in names}
            for one, relation in relations(LEGACY, legacy.name, target, own):
                if one is record:
                    candidates.append(Related(record, relation, slots))
    else:
        slots = {name: name for name in names}
        for record, relation in relations(optimizer.dialect, optimizer.label, target, names):
            candidates.append(Related(record, relation, slots))
    candidates.sort(key=lambda one: len(slots_in(one.record, target)))
    classes = {one.class_in(optimizer.dialect) for one in candidates}
    if not candidates or len(classes) > 1 or (optimizer.dialect == LEGACY and not names):
        raise _refusal(optimizer, target, _why_not(optimizer, target, sorted(classes)))
    best = candidates[0]
    if best.relation.how == REFUSED:
        raise _refusal(optimizer, target, best.relation.why)
    if not {best.slots[name] for name in names} >= set(best.relation.with_slots):
        raise _refusal(optimizer, target, best.relation.why)
    return best


def _why_not(optimizer: Optimizer, target: str, classes: Sequence[str]) -> str:
    if len(classes) > 1:
        return f"by its slots it may be {' or '.join(classes)}; say which (from_optimizer)"
    if not optimizer.slots:
        return "it has no slots"
    can: dict[str, set[str]] = {}
    for one in OPTIMIZERS:
        relation = one.relations.get((optimizer.dialect, target))
        if relation is not None and relation.how != REFUSED:
            related_to = Related(one, relation, {})
            can[related_to.class_in(optimizer.dialect)] = slots_in(one, target)
    if optimizer.label in can:
        missing = ", ".join(sorted(optimizer.slot_names() - can[optimizer.label]))
        newer = NEWER_BY_CLASS.get(optimizer.label)
        option = newer.options.get(missing) if newer is not None else None
        return f"it can{f' without {option}' if option else ''}, for there is no slot {missing}"
    if not can:
        return (
            "one after Keras 2.10 can become a TF1 optimizer (tf1), or with `like` another one "
            "after 2.10 (keras2, keras3)"
        )
    known = f"known are {', '.join(sorted(can))}"
    return f"{known}; where it is one of these by another name, say it (from_optimizer)"


def _refusal(optimizer: Optimizer, target: str, why: str) -> UnsupportedCheckpointError:
    whose = _WHOSE[optimizer.dialect]
    label = f"{whose}{optimizer.label or 'unnamed optimizer'}"
    slots = ", ".join(sorted(optimizer.slot_names()))
    return UnsupportedCheckpointError(
        f"the state of {label} cannot be turned into that of {_TARGETS[target]}: "
        f"{f'with the slots {slots}, ' if slots else ''}{why}. Leave it out (drop_slots), or "
        "convert without `optimizer`"
    )


def with_class(
    optimizer: Optimizer, items: Sequence[Item], target: str, from_optimizer: str | None
) -> Optimizer:
    """An optimizer by its class: as it is given, or as names and lists tell.

    Args:
      optimizer: one of a checkpoint.
      items: of the checkpoint.
      target: the dialect that it is to be of.
      from_optimizer: its class, where the checkpoint does not say it.

    Raises:
      UnsupportedCheckpointError: nothing says whose a slot is.
      SettingsError: the class is not known, or cannot be the one that is given.
    """
    if optimizer.dialect == NEWER:
        return _listed(optimizer, items, from_optimizer)
    if optimizer.dialect == target:
        return optimizer
    if optimizer.dialect == LEGACY:
        if from_optimizer is not None:
            optimizer.label = from_optimizer
        return optimizer
    tf1, alike = tf1_of(from_optimizer or ""), with_the_same_ends(optimizer.label)
    if from_optimizer is not None and not optimizer.others:
        if tf1 is None or not (
            from_optimizer in alike
            or (
                optimizer.slot_names() <= set(tf1.slots)
                and has_powers(from_optimizer) == has_powers(optimizer.label)
            )
        ):
            raise SettingsError(
                f"expected {' or '.join(alike)}, by the names of its slots, found "
                f"{from_optimizer!r}",
                key="from_optimizer",
            )
        optimizer.label = from_optimizer
    elif len(alike) > 1 and any(
        relation.how != REFUSED for one in alike for _, relation in relations(TF1, one, target)
    ):
        raise SettingsError(
            f"{' and '.join(alike)} call their slots the same; say whose they are",
            key="from_optimizer",
        )
    return optimizer


def _listed(optimizer: Optimizer, items: Sequence[Item], from_optimizer: str | None) -> Optimizer:
    """One of Keras' since 2.11, with the slots that its class has."""
    state = optimizer.newer
    if state is None:
        return newer_state_by_names(items, optimizer, from_optimizer)
    fitting = classes(state)
    label = newer_class(fitting, from_optimizer, f"lists {', '.join(sorted(state.lists))}")
    slots = []
    for name in NEWER_BY_CLASS[label].lists:
        members = state.lists.get(list_name(label, name, state.is_keras_3), [])
        for index, item in enumerate(members):
            owner = state.owners[index] if index < len(state.owners) else None
            if item is None:
                continue
            if owner is None:
                raise UnsupportedCheckpointError(
                    f"nothing says whose the slot {index} of {name} of {label} is: several "
                    "variables have its name, or none. Leave the slots out (drop_slots)",
                    key=items[item].name,
                )
            slots.append(SlotOf(item, owner, name))
    own = {name: number for name, number in state.own.items() if name != ITERATIONS}
    own = {n: number for n, number in own.items() if number not in optimizer.scale.values()}
    if ITERATIONS in state.own:
        own[LEGACY_COUNT] = state.own[ITERATIONS]
    known = {slot.item for slot in slots} | set(own.values())
    others = [number for number in optimizer.others if number not in known]
    return Optimizer(
        label,
        NEWER,
        slots,
        own,
        others,
        newer=state,
        scale=optimizer.scale,
        wrapper=optimizer.wrapper,
        wrapper_node=optimizer.wrapper_node,
        alike=tuple(one for one in fitting if one != label) if from_optimizer is None else (),
    )


def unused_slots(
    items: Sequence[Item], optimizer: Optimizer, to: Related, path: ObjectPath
) -> list[Item]:
    """Zeros for slots that TF1's optimizer has, and Keras' only where they are used.

    Without momentum TF1's RMSProp keeps the last step in its slot and does not read it
    (ApplyRMSProp in tensorflow/core/kernels/training_ops.cc).
    """
    found = []
    for unused in to.relation.unused:
        if unused in optimizer.slot_names():
            continue
        first = min(optimizer.slots, key=lambda slot: slot.item).name
        for slot in [one for one in optimizer.slots if one.name == first]:
            variable, other = items[slot.variable], items[slot.item].content
            data = bytes(other.nbytes)
            content = Content("", other.dtype, other.shape, other.nbytes, value=data)
            name = tf1_slot_name(variable.name, to.record.name, unused, items[slot.item].name)
            why = f"TF1's slot {unused}, not used without {unused}"
            place = Slot(variable.name, path, unused, to.record.name)
            content = content._replace(crc32c=masked_crc32c(data))
            found.append(Item(content, name, why, slot=place))
    return found


def filled_slots(
    items: Sequence[Item], optimizer: Optimizer, to: Related, path: ObjectPath
) -> list[Item]:
    """What Keras' Adafactor has beside the slots that it uses.

    It has the two reduced slots of every variable, which are a 0 where it has one dimension, and a
    whole one, which is computed from them where it has more (keras/src/optimizers/adafactor.py).

    Raises:
      UnsupportedCheckpointError: other dimensions are reduced than the last two, or none.
    """
    tf1, newer = to.record.tf1, to.record.newer
    if not to.relation.fills or tf1 is None or newer is None:
        return []
    by_row, by_column = tf1.reduced
    whole = next(slot for slot in newer.lists if slot not in tf1.reduced)
    slots: dict[int, dict[str, tuple[int, ...]]] = {}
    for slot in optimizer.slots:
        slots.setdefault(slot.variable, {})[slot.name] = items[slot.item].content.shape
    found = []
    for number, shapes in slots.items():
        variable, shape = items[number], items[number].content.shape
        expected = {whole: shape}
        if len(shape) > 1:
            expected = {by_row: shape[:-1], by_column: (*shape[:-2], shape[-1])}
        if shapes != expected:
            raise _refusal(
                optimizer,
                NEWER,
                f"Keras' factors the last two dimensions, and only those; {variable.name!r} of "
                f"shape {list(shape)} has {', '.join(sorted(shapes))}",
            )
        for name in (one for one in newer.lists if one not in expected):
            data = bytes(variable.content.nbytes if name == whole else 4)
            content = Content(
                "",
                variable.content.dtype if name == whole else INT32,
                shape if name == whole else (),
                len(data),
                crc32c=masked_crc32c(data),
                value=data,
            )
            place = Slot(variable.name, path, name, newer.name)
            found.append(Item(content, variable.name, "not used", slot=place, in_names=False))
    return found


def several(optimizer: Optimizer) -> str:
    """The reason why optimizers of one name are refused."""
    beside = ""
    if optimizer.dialect == TF1 and optimizer.others:
        beside = (
            " The .meta file of the graph beside the checkpoint tells it, where each has its own."
        )
    return (
        f"there are several optimizers {optimizer.label}, and nothing tells whose each slot is."
        f"{beside} Leave them out (drop_slots), or convert without `optimizer`"
    )


def exactness(optimizer: Optimizer, to: Related, target: str, is_keras_3: bool) -> list[str]:
    """What else must be equal for a conversion to be exact, as notes."""
    notes, label = [], optimizer.label or to.class_in(optimizer.dialect)
    if optimizer.alike and optimizer.dialect != target:
        notes.append(
            f"{label}: it may be {' or '.join(optimizer.alike)} as well, which keeps the same, and "
            "whose weight decay the program would need: from_optimizer says which"
        )
    if to.relation.dense_only and optimizer.dialect != target:
        notes.append(
            f"{label}: exact where gradients are dense; with sparse ones, as of "
            "embeddings, the two do not treat alike the rows that no gradient hits"
        )
    elif target == NEWER and is_keras_3:
        notes.append(
            f"{label}: exact but for sparse gradients, as of embeddings, that have a "
            "row more than once: Keras 3 does not add these up"
        )
    if to.relation.why:
        notes.append(f"{label}: {to.relation.why}")
    return notes
