"""Which optimizers' state means the same in TF1 and in Keras, or can be made to.

Which is so, by the kernels that both call (tensorflow/core/kernels/training_ops.cc) and by what
keras/src/optimizers/legacy does around them:

- Adam: ResourceApplyAdam in both, epsilon in the same place ("epsilon hat"), so an equal epsilon is
  the same number; only the defaults differ, 1e-8 and 1e-7. TF1 keeps beta1^(t+1) and beta2^(t+1)
  as variables, Keras computes them from `iter`, which is t.
- Adadelta: ResourceApplyAdadelta in both, the same epsilon; defaults 1e-8 and 1e-7.
- Ftrl: ResourceApplyFtrl in both; it has no epsilon.
- Adagrad: TF1 divides by sqrt(accumulator), Keras by sqrt(accumulator) + epsilon. The equal epsilon
  is 0, which Keras takes for its default of 1e-7; 1e-30 has no effect on float32.
- Momentum and Keras' SGD: TF1 keeps the sum of gradients, Keras' the sum times -learning_rate.
- RMSProp with momentum > 0: ResourceApplyRMSProp (or ...CenteredRMSProp) in both, the same epsilon;
  defaults 1e-10 and 1e-7. Without momentum Keras adds epsilon outside of the root, where TF1 adds
  it inside, and keeps no momentum slot: no state makes the two equal.

Keras' optimizers since 2.11 compute RMSProp, Adadelta, Adagrad, Ftrl and Adam as TF1 does, epsilon
included, with or without momentum; SGD's momentum is scaled as the legacy one's is. With sparse
gradients they decay all rows, where TF1's Momentum and RMSProp decay those that are hit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from estimator_ckpt.bundle.checksum import masked_crc32c
from estimator_ckpt.conversion.plan import Content, Item, Slot
from estimator_ckpt.conversion.source_optimizers import Optimizer, SlotOf, tf1_slot_name
from estimator_ckpt.errors import UnsupportedCheckpointError
from estimator_ckpt.objects.object_graph import ObjectPath
from estimator_ckpt.roles.newer_keras import (
    ITERATIONS,
    LISTS,
    list_name,
    newer_class,
)


class Kind(NamedTuple):
    """A TF1 optimizer's namesake in Keras.

    Attributes:
      keras: its class.
      slots: TF1's name of a slot -> the legacy Keras optimizer's.
      numbers: the hyperparameters that are variables of the legacy one.
    """

    keras: str
    slots: Mapping[str, str]
    numbers: tuple[str, ...]


KINDS = {
    "Adam": Kind("Adam", {"m": "m", "v": "v"}, ("beta_1", "beta_2")),
    "Adagrad": Kind("Adagrad", {"accumulator": "accumulator"}, ()),
    "Adadelta": Kind("Adadelta", {"accum": "accum_grad", "accum_update": "accum_var"}, ("rho",)),
    "Ftrl": Kind(
        "Ftrl",
        {"accum": "accumulator", "linear": "linear"},
        ("learning_rate_power", "l1_regularization_strength", "l2_regularization_strength", "beta"),
    ),
    "Momentum": Kind("SGD", {"momentum": "momentum"}, ("momentum",)),
    "RMSProp": Kind("RMSprop", {"rms": "rms", "momentum": "momentum"}, ("rho", "momentum")),
    "CenteredRMSProp": Kind(
        "RMSprop", {"rms": "rms", "mg": "mg", "momentum": "momentum"}, ("rho", "momentum")
    ),
}
# Keras' newer optimizers whose state a TF1 optimizer has, too.
NEWER_TO_TF1 = {
    "Adam": "Adam",
    "AdamW": "AdamW",
    "Adagrad": "Adagrad",
    "Adadelta": "Adadelta",
    "Ftrl": "Ftrl",
    "SGD": "Momentum",
    "RMSprop": "RMSProp",
}
# The legacy ones whose state a newer one of the class has, too, and their slots' names in LISTS.
LEGACY_TO_NEWER: Mapping[str, Mapping[str, str]] = {
    "Adam": {"m": "m", "v": "v", "vhat": "vhat"},
    "Adamax": {"m": "m", "v": "v"},
    "SGD": {"momentum": "momentum"},
    "RMSprop": {"rms": "rms", "momentum": "momentum", "mg": "mg"},
}


def kind_of(optimizer: Optimizer) -> Kind:
    """What is known of a TF1 optimizer's namesake in Keras.

    Raises:
      UnsupportedCheckpointError: it is not known.
    """
    kind = KINDS.get(optimizer.label)
    if kind is None or optimizer.others or not optimizer.slot_names() <= kind.slots.keys():
        if optimizer.others or optimizer.label[-1:].isdigit():
            raise UnsupportedCheckpointError(several(optimizer))
        raise UnsupportedCheckpointError(
            f"the state of {optimizer.label or 'an unnamed optimizer'} cannot be turned into "
            f"that of a Keras optimizer; known are {', '.join(KINDS)}. Leave "
            "it out (drop_slots), or convert without `optimizer`"
        )
    return kind


def tf1_label(optimizer: Optimizer) -> str:
    """The TF1 optimizer with the state of a legacy Keras one.

    Raises:
      UnsupportedCheckpointError: there is none, or it is not known.
    """
    names = optimizer.slot_names()
    for label, kind in KINDS.items():
        # Adamax and Nadam have slots of the same names, which mean something else.
        ambiguous = label == "Adam" and optimizer.label != "Adam"
        if names == set(kind.slots.values()) and not ambiguous:
            return label
    reason = "known are " + ", ".join(sorted({kind.keras for kind in KINDS.values()}))
    if names == {"rms"} or names == {"rms", "mg"}:
        reason = (
            "without momentum Keras adds epsilon outside of the root, TF1 inside, and no state "
            "makes them equal"
        )
    elif not names:
        reason = "it has no slots"
    raise UnsupportedCheckpointError(
        f"the state of Keras' {optimizer.label or 'unnamed optimizer'} with the slots "
        f"{', '.join(sorted(names)) or '(none)'} cannot be turned into that of a TF1 "
        f"optimizer: {reason}. Leave it out (drop_slots), or convert without `optimizer`"
    )


def newer_kind(optimizer: Optimizer) -> tuple[str, Mapping[str, str]]:
    """The newer class that has an optimizer's state, and its slots' names in LISTS.

    Raises:
      UnsupportedCheckpointError: there is none.
    """
    if optimizer.newer is not None:
        return optimizer.label, {slot: slot for slot in LISTS[optimizer.label]}
    if optimizer.dialect == "tf1":
        kind = kind_of(optimizer)
        return kind.keras, {slot: slot for slot in kind.slots}
    names = optimizer.slot_names()
    for label, slots in LEGACY_TO_NEWER.items():
        # Without momentum a legacy RMSprop adds epsilon outside of the root, a newer one inside.
        is_other = label == "RMSprop" and "momentum" not in names
        if optimizer.label == label and names <= slots.keys() and not is_other:
            return label, slots
    raise UnsupportedCheckpointError(
        f"the state of Keras' legacy {optimizer.label or 'optimizer'} with the slots "
        f"{', '.join(sorted(names)) or '(none)'} is not that of a newer one; those that are: "
        f"{', '.join(LEGACY_TO_NEWER)} (RMSprop with momentum). Leave it out (drop_slots)"
    )


def with_class(
    optimizer: Optimizer, items: Sequence[Item], target: str, from_optimizer: str | None
) -> Optimizer:
    """A newer optimizer by the class that has its state in the target, with that one's slots.

    Args:
      optimizer: any other is returned as it is.
      items: of the checkpoint.
      target: as Relinker takes it.
      from_optimizer: its class, where the checkpoint does not say it.

    Raises:
      UnsupportedCheckpointError: the target has no such state, or nothing says whose a slot is.
      SettingsError: the class is not known.
    """
    if optimizer.dialect != "keras_new":
        return optimizer
    state = optimizer.newer
    if state is None:
        raise UnsupportedCheckpointError(
            "the state of a Keras optimizer after Keras 2.10 is known by its objects; names do not "
            "tell whose each slot is. Leave it out (drop_slots), or convert without `optimizer`"
        )
    label = newer_class(state, from_optimizer)
    if target == "tf1" and label == "RMSprop" and state.lists["_average_gradients"]:
        label_in_tf1 = "CenteredRMSProp"
    else:
        label_in_tf1 = NEWER_TO_TF1.get(label, "")
    slots = []
    for name in LISTS[label]:
        members = state.lists.get(list_name(label, name, state.is_keras_3), [])
        for index, item in enumerate(members):
            owner = state.owners[index] if index < len(state.owners) else None
            if item is None or owner is None:
                raise UnsupportedCheckpointError(
                    f"nothing says whose the slot {index} of {name} of {label} is: several "
                    "variables have its name, or none. Leave the slots out (drop_slots)",
                    key=items[item].name if item is not None else None,
                )
            slots.append(SlotOf(item, owner, name))
    own = {name: number for name, number in state.own.items() if name != ITERATIONS}
    if ITERATIONS in state.own:
        own["iter"] = state.own[ITERATIONS]
    known = {slot.item for slot in slots} | set(own.values())
    others = [number for number in optimizer.others if number not in known]
    if target == "tf1":
        if not label_in_tf1 or state.lists.get("_velocity_hats"):
            raise UnsupportedCheckpointError(
                f"the state of Keras' {label} cannot be turned into that of a TF1 optimizer; "
                f"that can {', '.join(NEWER_TO_TF1)} (Adam without amsgrad). Leave it out "
                "(drop_slots), or convert without `optimizer`"
            )
        label = label_in_tf1
    return Optimizer(label, "keras_new", slots, own, others, newer=state)


def unused_momentum(items: Sequence[Item], optimizer: Optimizer, path: ObjectPath) -> list[Item]:
    """Zeros for TF1's momentum slot, which Keras' optimizer has only where it is used.

    Without momentum TF1 keeps the last step there and does not read it
    (ApplyRMSProp in tensorflow/core/kernels/training_ops.cc).
    """
    label, found = optimizer.label, []
    if label not in ("RMSProp", "CenteredRMSProp") or "momentum" in optimizer.slot_names():
        return []
    for slot in [one for one in optimizer.slots if one.name == "rms"]:
        variable, rms = items[slot.variable], items[slot.item].content
        data = bytes(rms.nbytes)
        content = Content("", rms.dtype, rms.shape, rms.nbytes, value=data)
        name = tf1_slot_name(variable.name, label, "momentum", items[slot.item].name)
        why = "TF1's slot momentum, not used without momentum"
        place = Slot(variable.name, path, "momentum", label)
        content = content._replace(crc32c=masked_crc32c(data))
        found.append(Item(content, name, why, slot=place))
    return found


def several(optimizer: Optimizer) -> str:
    """The reason why optimizers of one name are refused."""
    return (
        f"there are several optimizers {optimizer.label}, and nothing tells whose each slot is. "
        "Leave them out (drop_slots), or convert without `optimizer`"
    )
