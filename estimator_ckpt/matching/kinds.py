"""What an object of a program is: a variable, a layer, an optimizer, something else with state."""

from __future__ import annotations

from typing import Any

from estimator_ckpt.errors import SettingsError
from estimator_ckpt.matching.lookup_tables import is_table
from estimator_ckpt.roles import METRIC, SEED, STATISTIC, WEIGHT
from estimator_ckpt.roles.training_state import METRIC_NAMES, SEED_NAME

# What a class of its own state overrides (tensorflow/python/trackable/base.py), since TensorFlow
# 2.10 and before.
_SERIALIZERS = ("_serialize_to_tensors", "_gather_saveables_for_checkpoint")


def is_variable(one: Any) -> bool:
    """Whether it is a variable, of TensorFlow or of Keras 3."""
    import tensorflow as tf

    names = ("assign", "dtype", "shape", "trainable", "path")
    return isinstance(one, tf.Variable) or all(hasattr(one, name) for name in names)


def is_layer(one: Any) -> bool:
    """Whether it is a Keras layer or model of any Keras, and no metric."""
    return (
        all(hasattr(one, name) for name in ("built", "call", "name"))
        and hasattr(type(one), "weights")
        and not is_metric(one)
    )


def own_name(variable: Any) -> str:
    """A variable's full name, or its path in Keras 3, without `:0`."""
    name = getattr(variable, "path", None) or getattr(variable, "name", None)
    if not isinstance(name, str) or not name:
        raise SettingsError(f"expected a variable, found {variable!r}", key="variables")
    return name.partition(":")[0]


def shape_and_dtype(variable: Any) -> tuple[tuple[int, ...] | None, str]:
    """The shape of a variable, None if it is not known, and the name of its dtype."""
    import tensorflow as tf

    shape = tf.TensorShape(variable.shape)
    known = tuple(shape.as_list()) if shape.is_fully_defined() else None
    return known, str(tf.as_dtype(variable.dtype).base_dtype.name)


def role_by_name(variable: Any) -> str:
    """What a variable is for, as far as it tells itself."""
    name = own_name(variable).rpartition("/")[2]
    if name == SEED_NAME:
        return SEED
    if not variable.trainable and name in METRIC_NAMES:
        return METRIC
    return WEIGHT if variable.trainable else STATISTIC


def is_metric(one: Any) -> bool:
    return hasattr(one, "update_state") and hasattr(one, "result")


def is_optimizer(one: Any) -> bool:
    has_state = hasattr(one, "get_slot_names") or hasattr(one, "iterations")
    return hasattr(one, "apply_gradients") and has_state


def is_seed(one: Any) -> bool:
    import tensorflow as tf

    return type(one).__name__ == "SeedGenerator" or isinstance(one, tf.random.Generator)


def has_other_state(one: Any) -> bool:
    """Whether a tf.train.Checkpoint saves something of an object itself that no variable holds.

    So it is with an iterator of a dataset, a PythonState, a partitioned variable of a parameter
    server. A lookup table is not meant, nor an optimizer, which passes on what another has.
    """
    import tensorflow as tf

    base = tf.__internal__.tracking.Trackable
    if not isinstance(one, base) or is_variable(one) or is_table(one) or is_optimizer(one):
        return False
    return any(
        getattr(type(one), name, None) is not getattr(base, name, None) for name in _SERIALIZERS
    )
