"""Warm-starts the variables of an eager program: reads and checks everything, then assigns."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from absl import logging

from estimator_ckpt.checkpoint import open_checkpoint
from estimator_ckpt.errors import SettingsError
from estimator_ckpt.warm_starting.values import Target, starting_values

if TYPE_CHECKING:
    from estimator_ckpt.warm_start import WarmStart
    from estimator_ckpt.warm_starting.report import WarmStartReport


_KEY = "variables"
_SELECTED = "vars_to_warm_start"
_BUILD = (
    "call it on an input first, or have its variables started when they are made: "
    "`with settings.deferred(): model(inputs)`"
)
_MOST_SHOWN = 5


class Deferred:
    """What WarmStart.deferred() yields.

    Attributes:
      report: what came from where; None until the block has ended.
    """

    report: WarmStartReport | None = None


def apply_eagerly(settings: WarmStart, variables: Any) -> WarmStartReport:
    """See WarmStart.apply()."""
    import tensorflow as tf

    if not tf.executing_eagerly():
        raise SettingsError(
            "a graph is warm-started by its Scaffold: give warm_start= to a scaffold factory or to "
            "wrap_model_fn()",
            key=_KEY,
        )
    if settings.var_name_to_vocab_info:
        raise SettingsError(
            "vocabularies are remapped in graphs only: give warm_start= to a scaffold factory",
            key="var_name_to_vocab_info",
        )
    by_name = _named(variables)
    targets = [_target(name, same_named) for name, same_named in by_name.items()]
    settings = _by_names(settings, by_name)
    with open_checkpoint(settings.ckpt_to_initialize_from) as checkpoint:
        report = starting_values(settings, checkpoint, targets)
        for name in (value.target for value in report.values):
            if len(by_name[name]) > 1:
                raise SettingsError(
                    f"{len(by_name[name])} variables have the name {name!r}; give a mapping from "
                    "names to variables",
                    key=_KEY,
                )
        values = {
            value.target: checkpoint.get_tensor(value.source)
            for value in report.values
            if value.source is not None
        }
        for name, array in values.items():
            by_name[name][0].assign(array)
    logging.info("Warm start:\n%s", report)
    return report


@contextlib.contextmanager
def deferred_start(settings: WarmStart) -> Iterator[Deferred]:
    """See WarmStart.deferred()."""
    import tensorflow as tf

    created: list[Any] = []

    def creator(next_creator: Any, **arguments: Any) -> Any:
        variable = next_creator(**arguments)
        # A Keras model makes counters without names, which are no part of what it learns.
        if arguments.get("name") is not None or not variable.dtype.is_integer:
            created.append(variable)
        return variable

    deferred = Deferred()
    with tf.variable_creator_scope(creator):
        yield deferred
    deferred.report = apply_eagerly(settings, created)


def _named(given: Any) -> dict[str, list[Any]]:
    """The variables by name, of which several may have one."""
    if isinstance(given, Mapping):
        return {str(name): [variable] for name, variable in given.items()}
    found: dict[str, list[Any]] = {}
    for variable in _variables(given):
        same_named = found.setdefault(_name(variable), [])
        if not any(variable is other for other in same_named):
            same_named.append(variable)
    if not found:
        raise SettingsError(f"{type(given).__name__} has no variables yet; {_BUILD}", key=_KEY)
    return found


def _by_names(settings: WarmStart, by_name: Mapping[str, list[Any]]) -> WarmStart:
    """The settings with names for the variables themselves, which a mapping may call otherwise."""

    def named(place: str, given: Any) -> str:
        for one in given if isinstance(given, (list, tuple)) else [given]:
            for name, same_named in by_name.items():
                if any(one is variable for variable in same_named):
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


def _variables(given: Any) -> Iterable[Any]:
    import tensorflow as tf

    if isinstance(given, (list, tuple)):
        return given
    try:
        reached = list(tf.train.TrackableView(given).descendants())
    except (AttributeError, TypeError, ValueError):
        raise SettingsError(
            "expected a Keras model, a tf.Module, a trackable object, or variables, found "
            f"{type(given).__name__}",
            key=_KEY,
        ) from None
    # What they are yet to make would not start from anything, and nobody would be told.
    unbuilt = [one.name for one in reached if _is_layer(one) and not one.built]
    if unbuilt:
        shown = ", ".join(map(repr, unbuilt[:_MOST_SHOWN]))
        more = f" and {len(unbuilt) - _MOST_SHOWN} more" if len(unbuilt) > _MOST_SHOWN else ""
        raise SettingsError(
            f"not built, so without all of their variables: {shown}{more}; {_BUILD}. A list of "
            "variables starts these alone",
            key=_KEY,
        )
    if _is_layer(given):
        weights: Iterable[Any] = given.weights
        return weights
    return [one for one in reached if isinstance(one, tf.Variable)]


def _is_layer(one: Any) -> bool:
    """Whether it is a Keras layer or model of any Keras, and no metric."""
    return (
        all(hasattr(one, name) for name in ("built", "call", "name"))
        and hasattr(type(one), "weights")
        and not hasattr(one, "update_state")
    )


def _name(variable: Any) -> str:
    name = getattr(variable, "path", None) or getattr(variable, "name", None)
    if not isinstance(name, str) or not name:
        raise SettingsError(f"expected a variable, found {variable!r}", key=_KEY)
    return name.partition(":")[0]


def _target(name: str, same_named: list[Any]) -> Target:
    import tensorflow as tf

    variable = same_named[0]
    try:
        shape = tf.TensorShape(variable.shape)
        dtype = tf.as_dtype(variable.dtype).base_dtype.name
        trainable = any(bool(one.trainable) for one in same_named)
    except (AttributeError, TypeError, ValueError):
        raise SettingsError(f"expected a variable, found {variable!r}", key=name) from None
    known = tuple(shape.as_list()) if shape.is_fully_defined() else None
    return Target(name, known, dtype, trainable, (f"{name}:0",))
