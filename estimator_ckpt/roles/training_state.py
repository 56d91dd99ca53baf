"""Which variables are the state of a training and not of its model: by their names.

That is the slots of optimizers, the numbers that optimizers keep beside them, and the step. Some of
them without the others are worse than none: Adam's `beta1_power` of an old training, say, with
slots that start at zero.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from estimator_ckpt.roles import NUMBER, SLOT, STEP
from estimator_ckpt.roles.dialects import (
    LEGACY_CLASSES,
    LEGACY_NUMBERS,
    LEGACY_SLOTS,
    NEWER_BY_CLASS,
    NEWER_COUNTS,
    NEWER_ENDS,
    NEWER_STARTS,
    POWER_OF,
    RATE,
    SCALE_NAMES,
    TF1_ENDS,
    TF1_ORDERS,
    pattern,
)
from estimator_ckpt.roles.newer_names import flat_names, newer_keras_slot
from estimator_ckpt.roles.slots import legacy_scope, named_by_users, slot_by_name

STEP_NAMES = ("global_step", "step")
SEED_NAME = "seed_generator_state"
# What Keras' metrics keep (keras/src/metrics); none of them is ever required.
METRIC_NAMES = frozenset(
    ["total", "count", "true_positives", "true_negatives", "false_positives", "false_negatives"]
    + ["total_cm", "total_confusion_matrix", "accumulator", "intermediate_weights", "weighted_sum"]
    + ["weights_intermediate", "squared_sum", "sum", "total_mse", "num_samples", "res", "count_sum"]
)


# The slots of tf.compat.v1 optimizers as they end, `X/Adam` and what has ends of its own.
_TF1_SLOT = (
    rf"(?:.*/(?:\w*_)?(?:{pattern(TF1_ORDERS)})(?:Optimizer)?(?:_\d+)?|.+(?:{pattern(TF1_ENDS)}))"
)
# What stands alone: powers of betas, the step, Keras' count, the two of loss scaling.
_NUMBER = (
    rf"(?:.*/)?(?:(?:{pattern(POWER_OF.values())})(?:_\d+)?|global_step|iteration"
    rf"|{pattern(SCALE_NAMES)})|{RATE}"
)
# Keras' optimizers, whose variables are below a scope of their own: numbers, `X/m` of the legacy
# ones, `m/X` of the newer.
_KERAS_NUMBER = pattern([*LEGACY_NUMBERS, *NEWER_COUNTS])
_KERAS_SLOT = pattern([*LEGACY_SLOTS, *NEWER_STARTS, *NEWER_ENDS])
_KERAS = (
    rf"(?:.*/)?(?:{pattern([*LEGACY_CLASSES, *NEWER_BY_CLASS])})(?:_\d+)?"
    rf"/(?:{_KERAS_NUMBER}|.*/(?:{_KERAS_SLOT})|(?:{_KERAS_SLOT})/.*)"
)

# Of whole names, where nothing but names is known.
TRAINING_STATE = rf"(?:{_TF1_SLOT}|{_NUMBER}|{_KERAS})"

_NUMBERS_AND_KERAS = re.compile(rf"(?:{_NUMBER}|{_KERAS})(?::0)?")


BY_NAME = "the optimizers"


def state_by_names(
    shapes: Mapping[str, tuple[int, ...] | None],
) -> dict[str, tuple[str, str, str]]:
    """The role, the optimizer and the owner of those variables that are a training's state.

    Args:
      shapes: of all variables of a model, by name; None for one that is not known.

    Returns:
      By name: STEP, SLOT or NUMBER; a text that stands for all optimizers, which names alone do not
      tell apart; and of a slot the name of its variable.
    """
    found: dict[str, tuple[str, str, str]] = {}
    counts = [name for name in shapes if name.rpartition("/")[2] in NEWER_COUNTS]
    scopes = tuple(f"{name.rpartition('/')[0]}/" for name in counts if "/" in name)
    anywhere = any("/" not in name for name in counts) and RATE in shapes
    flat = flat_names(shapes) if counts else {}
    named = named_by_users(shapes)
    for name, shape in shapes.items():
        owner = next(iter(slot_by_name(name, shapes.get, named) or ()), None)
        if owner is None and shape is not None and (anywhere or name.startswith(scopes)):
            newer = newer_keras_slot(name, shape, shapes.get, flat)
            owner = None if newer is None else newer.variable
        if owner is not None:
            found[name] = (SLOT, BY_NAME, owner)
        elif name.rpartition("/")[2].removesuffix(":0") == STEP_NAMES[0]:
            found[name] = (STEP, "", "")
        elif (
            _NUMBERS_AND_KERAS.fullmatch(name)
            or _is_number_beside_count(name, scopes)
            or (
                name.rpartition("/")[2] in LEGACY_NUMBERS
                and legacy_scope(name, shapes.get) == name[: name.rfind("/") + 1] != ""
            )
        ):
            found[name] = (NUMBER, BY_NAME, "")
    return found


def _is_number_beside_count(name: str, scopes: tuple[str, ...]) -> bool:
    start, slash, last = name.rpartition("/")
    return f"{start}{slash}" in scopes and last in (*NEWER_COUNTS, RATE)


def training_state(shapes: Mapping[str, tuple[int, ...] | None]) -> set[str]:
    """Those of the names that are a training's state.

    Args:
      shapes: of all variables of a model, by name; None for one that is not known.
    """
    return set(state_by_names(shapes))
