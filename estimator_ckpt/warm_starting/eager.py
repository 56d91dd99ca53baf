"""Warm-starts the variables of an eager program: reads and checks everything, then assigns."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from absl import logging

from estimator_ckpt.checkpoint import open_checkpoint
from estimator_ckpt.errors import SettingsError
from estimator_ckpt.warm_starting.values import Target, starting_values

if TYPE_CHECKING:
    from estimator_ckpt.warm_start import WarmStart
    from estimator_ckpt.warm_starting.report import WarmStartReport


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
            key="variables",
        )
    if settings.var_name_to_vocab_info:
        raise SettingsError(
            "vocabularies are remapped in graphs only: give warm_start= to a scaffold factory",
            key="var_name_to_vocab_info",
        )
    by_name = _named(variables)
    targets = [_target(name, variable) for name, variable in by_name.items()]
    with open_checkpoint(settings.ckpt_to_initialize_from) as checkpoint:
        report = starting_values(settings, checkpoint, targets)
        values = {
            value.target: checkpoint.get_tensor(value.source)
            for value in report.values
            if value.source is not None
        }
        for name, value in values.items():
            by_name[name].assign(value)
    logging.info("Warm start:\n%s", report)
    return report


@contextlib.contextmanager
def deferred_start(settings: WarmStart) -> Iterator[Deferred]:
    """See WarmStart.deferred()."""
    import tensorflow as tf

    created: list[Any] = []

    def creator(next_creator: Any, **arguments: Any) -> Any:
        variable = next_creator(**arguments)
        created.append(variable)
        return variable

    deferred = Deferred()
    with tf.variable_creator_scope(creator):
        yield deferred
    deferred.report = apply_eagerly(settings, created)


def _named(given: Any) -> dict[str, Any]:
    """The variables by name."""
    if isinstance(given, Mapping):
        return {str(name): variable for name, variable in given.items()}
    found: dict[str, Any] = {}
    for variable in _variables(given):
        name = _name(variable)
        if found.setdefault(name, variable) is not variable:
            raise SettingsError(
                f"two variables have the name {name!r}; give a mapping from names to variables",
                key="variables",
            )
    if not found:
        raise SettingsError(
            f"{type(given).__name__} has no variables yet; build the model first, or build it in a "
            "`with settings.deferred():`",
            key="variables",
        )
    return found


def _variables(given: Any) -> Iterable[Any]:
    import tensorflow as tf

    if isinstance(given, (list, tuple)):
        return given
    if hasattr(type(given), "weights") and hasattr(given, "built"):  # Keras
        if not given.built:
            raise SettingsError(
                f"{given.name!r} is not built, so it has not all of its variables; build it first, "
                "or build it in a `with settings.deferred():`",
                key="variables",
            )
        weights: Iterable[Any] = given.weights
        return weights
    try:
        reached = tf.train.TrackableView(given).descendants()
    except (AttributeError, TypeError, ValueError):
        raise SettingsError(
            "expected a Keras model, a tf.Module, a trackable object, or variables, found "
            f"{type(given).__name__}",
            key="variables",
        ) from None
    return [one for one in reached if isinstance(one, tf.Variable)]


def _name(variable: Any) -> str:
    name = getattr(variable, "path", None) or getattr(variable, "name", None)
    if not isinstance(name, str) or not name:
        raise SettingsError(f"expected a variable, found {variable!r}", key="variables")
    return name.partition(":")[0]


def _target(name: str, variable: Any) -> Target:
    import tensorflow as tf

    try:
        shape = tf.TensorShape(variable.shape)
        dtype = tf.as_dtype(variable.dtype).base_dtype.name
        trainable = bool(variable.trainable)
    except (AttributeError, TypeError, ValueError):
        raise SettingsError(f"expected a variable, found {variable!r}", key=name) from None
    known = tuple(shape.as_list()) if shape.is_fully_defined() else None
    return Target(name, known, dtype, trainable, (f"{name}:0",))
