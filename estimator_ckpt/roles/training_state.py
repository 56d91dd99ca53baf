"""Which variables are the state of a training and not of its model: by their names.

That is the slots of optimizers, the numbers that optimizers keep beside them, and the step. Some of
them without the others are worse than none: Adam's `beta1_power` of an old training, say, with
slots that start at zero.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from estimator_ckpt.roles import NUMBER, SLOT, STEP
from estimator_ckpt.roles.slots import (
    BERT_SLOTS,
    KERAS_NUMBERS,
    KERAS_SLOTS,
    NEWER_KERAS_CLASSES,
    NEWER_KERAS_SLOTS,
    TF1_SLOTS,
    flat_names,
    newer_keras_slot,
    slot_by_name,
)

STEP_NAMES = ("global_step", "step")
SEED_NAME = "seed_generator_state"
# What Keras' metrics keep (keras/src/metrics); none of them is ever required.
METRIC_NAMES = frozenset(
    ["total", "count", "true_positives", "true_negatives", "false_positives", "false_negatives"]
    + ["total_cm", "total_confusion_matrix", "accumulator", "intermediate_weights", "weighted_sum"]
    + ["weights_intermediate", "squared_sum", "sum", "total_mse", "num_samples", "res", "count_sum"]
)


# The slots of tf.compat.v1 optimizers, and of BERT's, as they end.
_TF1_SLOT = (
    rf".*/(?:(?:\w*_)?(?:{'|'.join(TF1_SLOTS)})(?:Optimizer)?(?:_\d+)?|{'|'.join(BERT_SLOTS)})"
)
# What stands alone: AdamOptimizer's two, the step, Keras' step, the two of loss scaling
# (tensorflow/python/training/experimental/loss_scale.py).
_NUMBER = (
    r"(?:.*/)?(?:beta[12]_power(?:_\d+)?|global_step|iteration|current_loss_scale|good_steps)"
    r"|learning_rate"
)
# Keras' optimizers, whose variables are below a scope of their own: numbers, `X/m` of the legacy
# ones, `m/X` of the newer.
_KERAS_NUMBER = "|".join(sorted([*KERAS_NUMBERS, "iteration"]))
_KERAS_SLOT = "|".join(sorted({*KERAS_SLOTS, *NEWER_KERAS_SLOTS}))
_KERAS = (
    rf"(?:.*/)?(?:{'|'.join(NEWER_KERAS_CLASSES)})(?:_\d+)?"
    rf"/(?:{_KERAS_NUMBER}|.*/(?:{_KERAS_SLOT})|(?:{_KERAS_SLOT})/.*)"
)

# Of whole names, where nothing but names is known.
TRAINING_STATE = rf"(?:{_TF1_SLOT}|{_NUMBER}|{_KERAS})"

_NUMBERS_AND_KERAS = re.compile(rf"(?:{_NUMBER}|{_KERAS})(?::0)?")


# The count of steps of a Keras optimizer since 2.11; its slots are where one is.
_COUNTS = ("iteration", "iterations")
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
    counts = [name for name in shapes if name.rpartition("/")[2] in _COUNTS]
    scopes = tuple(f"{name.rpartition('/')[0]}/" for name in counts if "/" in name)
    anywhere = any("/" not in name for name in counts) and "learning_rate" in shapes
    flat = flat_names(shapes) if counts else {}
    for name, shape in shapes.items():
        slot = slot_by_name(name, shapes.get)
        if slot is None and shape is not None and (anywhere or name.startswith(scopes)):
            slot = newer_keras_slot(name, shape, shapes.get, flat)
        if slot is not None:
            found[name] = (SLOT, BY_NAME, slot[0])
        elif name.rpartition("/")[2].removesuffix(":0") == STEP_NAMES[0]:
            found[name] = (STEP, "", "")
        elif _NUMBERS_AND_KERAS.fullmatch(name) or _is_number_beside_count(name, scopes):
            found[name] = (NUMBER, BY_NAME, "")
    return found


def _is_number_beside_count(name: str, scopes: tuple[str, ...]) -> bool:
    start, slash, last = name.rpartition("/")
    return f"{start}{slash}" in scopes and last in (*_COUNTS, "learning_rate")


def training_state(shapes: Mapping[str, tuple[int, ...] | None]) -> set[str]:
    """Those of the names that are a training's state.

    Args:
      shapes: of all variables of a model, by name; None for one that is not known.
    """
    return set(state_by_names(shapes))
