"""Which variables are the state of a training and not of its model: by their names.

That is the slots of optimizers, the numbers that optimizers keep beside them, and the step. Some of
them without the others are worse than none: Adam's `beta1_power` of an old training, say, with
slots that start at zero.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from estimator_ckpt.slots import KERAS_SLOTS, slot_by_name

# The slots of tf.compat.v1 optimizers, and of BERT's, as they end.
_TF1_SLOT = (
    r".*/(?:(?:Adadelta|Adagrad|AdagradDA|Adam|AdamW|AdaMax|Ftrl|LazyAdam|Momentum|ProximalAdagrad"
    r"|RMSProp)(?:_\d+)?|adam_m|adam_v)"
)
# What stands alone: AdamOptimizer's two, the step, Keras' step, the two of loss scaling
# (tensorflow/python/training/experimental/loss_scale.py).
_NUMBER = (
    r"(?:.*/)?(?:beta[12]_power(?:_\d+)?|global_step|iteration|current_loss_scale|good_steps)"
    r"|learning_rate"
)
# Keras' optimizers, whose variables are below a scope of their own: numbers, `X/m` of the legacy
# ones, `m/X` of the newer.
_KERAS_NUMBER = (
    "iter|iteration|learning_rate|decay|beta_1|beta_2|rho|momentum|momentum_cache|beta"
    "|learning_rate_power|l1_regularization_strength|l2_regularization_strength"
)
_KERAS_SLOT = "|".join(sorted([*KERAS_SLOTS, "velocity"]))
_KERAS = (
    r"(?:.*/)?(?:Adadelta|Adafactor|Adagrad|Adam|Adamax|AdamW|Ftrl|Lion|Nadam|RMSprop|SGD)(?:_\d+)?"
    rf"/(?:{_KERAS_NUMBER}|.*/(?:{_KERAS_SLOT})|(?:{_KERAS_SLOT})/.*)"
)

# Of whole names, where nothing but names is known.
TRAINING_STATE = rf"(?:{_TF1_SLOT}|{_NUMBER}|{_KERAS})"

_NUMBERS_AND_KERAS = re.compile(rf"{_NUMBER}|{_KERAS}")


def training_state(shapes: Mapping[str, tuple[int, ...] | None]) -> set[str]:
    """Those of the names that are a training's state.

    Args:
      shapes: of all variables of a model, by name; None for one that is not known.
    """
    return {
        name
        for name in shapes
        if slot_by_name(name, shapes.get) or _NUMBERS_AND_KERAS.fullmatch(name)
    }
