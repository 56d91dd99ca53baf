"""What an optimizer of an eager program is: its class, whose its slots are, its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from estimator_ckpt.matching.model import LiveOptimizer
from estimator_ckpt.roles.dialects import (
    BY_NAME,
    DECAY,
    LEARNING_RATE,
    LEGACY_COUNT,
    LEGACY_NUMBERS,
    LEGACY_RECORDS,
    NEWER_BY_CLASS,
    RATE,
)
from estimator_ckpt.roles.loss_scale import WRAPPED
from estimator_ckpt.roles.newer_keras import MODEL_VARIABLES, list_name
from estimator_ckpt.roles.optimizers import LOSS_SCALES
from estimator_ckpt.roles.records import LEGACY, NEWER, TF1

# Keras' optimizers since 2.11 keep as plain numbers what the legacy ones have as variables.
_ATTRIBUTES = sorted(LEGACY_NUMBERS - {LEGACY_COUNT, RATE, DECAY})
_BUILD = {
    TF1: "apply gradients once",
    LEGACY: "apply gradients once",
    NEWER: "call its build() with the variables that it trains",
}


def live_optimizer(name: str, given: Any, by_name: Mapping[str, Any]) -> LiveOptimizer:
    """What an optimizer object is.

    Args:
      name: what its variables call it.
      given: the optimizer, or a wrapper that scales its losses.
      by_name: the program's variables by their names in the model.
    """
    names = {id(variable): variable_name for variable_name, variable in by_name.items()}
    optimizer = getattr(given, WRAPPED, given)
    children = _children(optimizer)
    dialect = _dialect(optimizer)
    is_keras_3 = dialect == NEWER and (
        MODEL_VARIABLES in children or hasattr(optimizer, MODEL_VARIABLES)
    )
    label = _class(optimizer, dialect)
    slots: dict[tuple[str, str], str] = {}
    problem, is_built = f"{type(optimizer).__name__} is no optimizer that is known", True
    if label:
        problem = ""
        owners = list(by_name.values())
        found = (
            _listed(optimizer, label, owners, is_keras_3=is_keras_3)
            if dialect == NEWER
            else _referred(optimizer, label if dialect == LEGACY else "", owners)
        )
        for variable, slot, one in found:
            if variable is None:
                problem = "nothing tells whose its slots are"
            elif id(variable) in names and id(one) in names:
                slots[names[id(variable)], slot] = names[id(one)]
        is_built = bool(slots or problem) or _is_built(optimizer, dialect, children)
        if not is_built:
            problem = f"{label} has no slots yet: {_BUILD[dialect]}"
    return LiveOptimizer(
        name=name,
        label=label or type(optimizer).__name__,
        dialect=dialect,
        is_keras_3=is_keras_3,
        slots=slots,
        own={n: names[id(one)] for n, one in children.items() if id(one) in names},
        scale=_scale(given, names) if given is not optimizer else {},
        numbers=_numbers(optimizer, dialect, children),
        is_built=is_built,
        problem=problem,
    )


def _children(one: Any) -> dict[str, Any]:
    import tensorflow as tf

    return dict(tf.train.TrackableView(one).children(one))


def _dialect(optimizer: Any) -> str:
    import tensorflow as tf

    if isinstance(optimizer, tf.compat.v1.train.Optimizer):
        return TF1
    return LEGACY if hasattr(optimizer, "get_slot_names") else NEWER


def _class(optimizer: Any, dialect: str) -> str:
    """Its class as the table has it; "" if that has it not.

    A class that derives from one of the table's may mean something else by the same slots.
    """
    label = type(optimizer).__name__
    if dialect == NEWER:
        return label if label in NEWER_BY_CLASS else ""
    if dialect == LEGACY:
        labels = (one.name for _, one in LEGACY_RECORDS if label in (one.name, *one.also))
        return next(labels, "")
    slots = set(optimizer.get_slot_names())
    for one in BY_NAME.values():
        for name in () if one.tf1 is None else one.tf1.classes:
            is_called = name.partition("(")[0].rpartition(".")[2] == label
            if is_called and one.tf1 is not None and slots <= set(one.tf1.slots):
                return one.name
    return ""


def _is_built(optimizer: Any, dialect: str, children: Mapping[str, Any]) -> bool:
    """Whether an optimizer without slots has none at all, as SGD without momentum."""
    if dialect == NEWER:
        return bool(getattr(optimizer, "built", False) or getattr(optimizer, "_built", False))
    return dialect == LEGACY and LEGACY_COUNT in children


def _referred(optimizer: Any, label: str, owners: Sequence[Any]) -> Iterator[tuple[Any, str, Any]]:
    """Variables, the table's names of slots, and the slots, where a variable leads to its slots."""
    called: dict[str, str] = {}
    for _, legacy in LEGACY_RECORDS:
        if legacy.name == label:
            called.update({its: slot for slot, its in legacy.slots.items()})
    for name in optimizer.get_slot_names():
        for variable in owners:
            try:
                slot = optimizer.get_slot(variable, name)
            except (AttributeError, KeyError):
                continue
            if slot is not None:
                yield variable, called.get(name, name), slot


def _listed(
    optimizer: Any, label: str, owners: Sequence[Any], *, is_keras_3: bool
) -> Iterator[tuple[Any, str, Any]]:
    """The same, where the slots stand in lists; None for a variable that nothing tells."""
    in_order: dict[int, Any]
    if is_keras_3:
        in_order = dict(enumerate(getattr(optimizer, MODEL_VARIABLES)))
    else:
        in_order = _indices_in_keras_2(optimizer, owners)
    for slot in NEWER_BY_CLASS[label].lists:
        members = getattr(optimizer, list_name(label, slot, is_keras_3), None)
        for index, one in enumerate(members or ()):
            yield in_order.get(index), slot, one


def _indices_in_keras_2(optimizer: Any, owners: Sequence[Any]) -> dict[int, Any]:
    """The variables by their indices in the lists of an optimizer of Keras 2.11 to 2.15.

    It finds a variable's slots by a dictionary of its own (keras/src/optimizers/optimizer.py,
    `_build_index_dict`), and nothing public tells the order; names may repeat.
    """
    indices = getattr(optimizer, "_index_dict", {})
    keys = {getattr(variable, "_unique_id", None): variable for variable in owners}
    return {index: keys[key] for key, index in indices.items() if key in keys}


def _scale(wrapper: Any, names: Mapping[int, str]) -> dict[str, str]:
    """The names of the numbers of a wrapper that scales losses."""
    for one in LOSS_SCALES:
        found = {}
        for number, path in one.paths.items():
            at: Any = wrapper
            for name in path:
                at = None if at is None else _children(at).get(name)
            if id(at) in names:
                found[number] = names[id(at)]
        if len(found) == len(one.paths):
            return found
    return {}


def _numbers(optimizer: Any, dialect: str, children: Mapping[str, Any]) -> dict[str, float]:
    """The hyperparameters by the names that conversions have for them.

    No learning rate that a schedule or a decay changes: it could scale no slots.
    """
    import tensorflow as tf

    found: dict[str, float] = {}
    if not tf.executing_eagerly():
        return found  # within a graph variables have no values
    if dialect == LEGACY:
        for name, one in children.items():
            if name != LEGACY_COUNT and hasattr(one, "numpy") and one.shape == ():
                found[name] = float(one.numpy())
        if found.get(DECAY):
            found.pop(RATE, None)
    elif dialect == NEWER:
        for name in _ATTRIBUTES:
            value = getattr(optimizer, name, None)
            if isinstance(value, (int, float)):
                found[name] = float(value)
        rate: Any = children.get(LEARNING_RATE)
        if hasattr(rate, "numpy"):
            found[RATE] = float(rate.numpy())
    return found
