"""Warm-starts the variables of an eager program: reads and checks everything, then assigns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from absl import logging

from estimator_ckpt.checkpoint import Checkpoint, open_checkpoint
from estimator_ckpt.conversion.live_starts import content_value
from estimator_ckpt.errors import SettingsError
from estimator_ckpt.matching.eager import EagerModel, as_object, eager_model
from estimator_ckpt.warm_starting.building import build_optimizers
from estimator_ckpt.warm_starting.fitting import fitted
from estimator_ckpt.warm_starting.report import StartingValue, WarmStartReport
from estimator_ckpt.warm_starting.settings import Settings
from estimator_ckpt.warm_starting.values import starting_values

if TYPE_CHECKING:
    import numpy as np

_SELECTED = "vars_to_warm_start"


def apply_eagerly(settings: Settings, variables: Any) -> WarmStartReport:
    """See WarmStart.apply()."""
    check_eager(settings)
    found = model_to_start(settings, variables)
    report, values = read_values(settings, found)
    for name, value in values.items():
        assign(found.variables[name], value)
    logging.info("Warm start:\n%s", report)
    return report


def model_to_start(settings: Settings, given: Any) -> EagerModel:
    """What a program gives to start, with the slots of its optimizers where these can start.

    Raises:
      SettingsError: as eager_model() does.
    """
    given = as_object(given)
    found = eager_model(given)
    if any(not one.is_built for one in found.model.live_optimizers) and not settings.use_averages:
        with open_checkpoint(settings.ckpt_to_initialize_from) as checkpoint:
            has_slots = any(checkpoint.columns.slot_of)
        if has_slots and build_optimizers(found.model, given):
            return eager_model(given)
    return found


def assign(variable: Any, value: np.ndarray[Any, Any]) -> None:
    """Assigns what a checkpoint has to a variable of the same dtype."""
    variable.assign(tensorflow_array(value))


def tensorflow_array(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same values in TensorFlow's own NumPy dtype: that of 2.12 for bfloat16 and float8 is not
    the one of ml_dtypes, which it refuses."""
    import tensorflow as tf

    if value.dtype.isbuiltin == 1 or value.dtype.hasobject:
        return value
    return value.view(tf.as_dtype(value.dtype.name).as_numpy_dtype)


def check_eager(settings: Settings) -> None:
    """Raises SettingsError where settings cannot be applied to variables of an eager program."""
    import tensorflow as tf

    if not tf.executing_eagerly():
        raise SettingsError(
            "a graph is warm-started by its Scaffold: give warm_start= to a scaffold factory or to "
            "wrap_model_fn()",
            key="variables",
        )
    if settings.var_name_to_vocab_info:
        raise SettingsError(
            "vocabularies are remapped in graphs only: give warm_start= to a scaffold factory",
            key="var_name_to_vocab_info",
        )


def read_values(settings: Settings, found: EagerModel) -> tuple[WarmStartReport, dict[str, Any]]:
    """What came from where, and the values by the names of the variables; assigns nothing yet.

    Raises:
      CheckpointError: as WarmStart.apply() does.
    """
    settings = with_names(settings, found.variables)
    with open_checkpoint(settings.ckpt_to_initialize_from) as checkpoint:
        report = starting_values(settings, checkpoint, found.model)
        values = {}
        for value in report.values:
            if value.content is not None:
                values[value.target] = content_value(checkpoint, value.content)
            elif value.source is not None:
                values[value.target] = read_value(
                    checkpoint, value.source, value, found.variables[value.target]
                )
    return report, values


def read_value(
    checkpoint: Checkpoint, source: str, value: StartingValue, variable: Any
) -> np.ndarray[Any, Any]:
    """What a variable starts with: a tensor, made to fit where the variable has another shape.

    Args:
      checkpoint: that it starts from.
      source: the key of the tensor.
      value: what is known of its start.
      variable: with its initial value.
    """
    import numpy as np

    array = checkpoint.get_tensor(source)
    if not value.fitting:
        return array
    initial = np.asarray(variable).view(array.dtype)
    return fitted(value.fitting, array, value.shape or (), initial)


def with_names(settings: Settings, variables: Mapping[str, Any]) -> Settings:
    """The settings with names for the variables themselves, which a mapping may call otherwise."""

    def named(place: str, given: Any) -> str:
        for one in given if isinstance(given, (list, tuple)) else [given]:
            for name, variable in variables.items():
                if one is variable:
                    return name
        raise SettingsError(f"{given!r} is none of the variables to start", key=place)

    pairs = [
        (source, model if isinstance(model, str) else named(f"assignment_map[{number}]", model))
        for number, (source, model) in enumerate(settings.assignment_map)
    ]
    selected = settings.vars_to_warm_start
    if isinstance(selected, (list, tuple)):
        selected = [
            one if isinstance(one, str) else f"{re.escape(named(f'{_SELECTED}[{number}]', one))}$"
            for number, one in enumerate(selected)
        ]
    return replace(settings, assignment_map=pairs, vars_to_warm_start=selected)
