"""What an eager program's objects have: a Keras model, a tf.Module, a tf.train.Checkpoint, ..."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from estimator_ckpt.bulk import collector_paused
from estimator_ckpt.errors import SettingsError
from estimator_ckpt.matching.counted import may_be_counted, weak_segments
from estimator_ckpt.matching.kinds import (
    has_other_state,
    is_layer,
    is_variable,
    own_name,
    role_by_name,
    shape_and_dtype,
)
from estimator_ckpt.matching.live import LiveObjects
from estimator_ckpt.matching.model import Model, ModelVariable
from estimator_ckpt.roles.training_state import state_by_names
from estimator_ckpt.text.names import some_of

_KEY = "variables"
_BUILD = (
    "call it on an input first, or have its variables started when they are made: "
    "`with settings.deferred(): model(inputs)`"
)
_MOST_SHOWN = 5


@dataclass(frozen=True)
class EagerModel:
    """A model, and its variables as the program has them.

    Attributes:
      model: what a checkpoint is matched with.
      variables: by their names in it.
    """

    model: Model
    variables: Mapping[str, Any]


@collector_paused()
def eager_model(given: Any) -> EagerModel:
    """What a program gives to start: objects, variables, or names of variables.

    Args:
      given: a Keras model or layer, a tf.Module, a tf.train.Checkpoint, an optimizer or another
        trackable object; a list of variables, or of objects; a mapping from names to variables, or
        to objects as tf.train.Checkpoint takes them.

    Raises:
      SettingsError: it is none of these, or has no variables yet.
    """
    given = as_object(given)
    if isinstance(given, Mapping) and not hasattr(given, "_trackable_children"):
        _check_variables(given.values())
        return _by_names([(str(name), variable) for name, variable in given.items()])
    if isinstance(given, (list, tuple)) and not hasattr(given, "_trackable_children"):
        _check_variables(given)
        unique = {id(variable): variable for variable in given}
        return _by_names([("", variable) for variable in unique.values()])
    try:
        objects = LiveObjects(given)
    except (AttributeError, TypeError, ValueError):
        raise SettingsError(
            "expected a Keras model, a tf.Module, a trackable object, or variables, found "
            f"{type(given).__name__}",
            key=_KEY,
        ) from None
    if not objects.hold_anything and any(map(has_other_state, objects.live)):
        raise SettingsError(
            f"{type(given).__name__} has state, but neither variables nor lookup tables: a warm "
            "start leaves it alone, tf.train.Checkpoint.read() restores it",
            key=_KEY,
        )
    if not objects.hold_anything:
        raise SettingsError(f"{type(given).__name__} has no variables yet; {_BUILD}", key=_KEY)
    _check_built(objects.live)
    return of_objects(objects)


def as_object(given: Any) -> Any:
    """The one object that a mapping of names to objects is, or a list of objects; else `given`.

    A mapping is what tf.train.Checkpoint makes of it; a list of objects may stand anywhere.
    """
    import tensorflow as tf

    def is_object(one: Any) -> bool:
        return isinstance(one, tf.__internal__.tracking.Trackable) and not is_variable(one)

    if isinstance(given, Mapping) and any(map(is_object, given.values())):
        with contextlib.suppress(TypeError, ValueError):  # then it is said what is no variable
            return tf.train.Checkpoint(**{str(name): one for name, one in given.items()})
    if isinstance(given, (list, tuple)) and given and all(map(is_object, given)):
        holder = tf.Module()
        holder.tracked = list(given)
        return holder.tracked
    return given


def of_objects(objects: LiveObjects) -> EagerModel:
    """The variables that objects have so far."""
    return EagerModel(*objects.model())


def _check_variables(variables: Iterable[Any]) -> None:
    for variable in variables:
        if not is_variable(variable):
            raise SettingsError(f"expected a variable, found {variable!r}", key=_KEY)


def _check_built(live: Sequence[Any]) -> None:
    """What they are yet to make would not start from anything, and nobody would know."""
    unbuilt = [one.name for one in live if is_layer(one) and not one.built]
    if unbuilt:
        shown = some_of(list(map(repr, unbuilt)), _MOST_SHOWN)
        raise SettingsError(
            f"not built, so without all of their variables: {shown}; {_BUILD}. A list of "
            "variables starts these alone",
            key=_KEY,
        )


def _by_names(given: Sequence[tuple[str, Any]]) -> EagerModel:
    """Variables alone: each with a name that was given, or its own."""
    if not given:
        raise SettingsError(f"there are no variables; {_BUILD}", key=_KEY)
    found: dict[str, Any] = {}
    variables = []
    shapes = [shape_and_dtype(variable) for _, variable in given]
    called = [name or own_name(variable) for name, variable in given]
    roles = state_by_names({name: shape for name, (shape, _) in zip(called, shapes)})
    times = Counter(called)
    counted = may_be_counted([own_name(variable) for _, variable in given])
    for (_, variable), known_as, (shape, dtype), is_counted in zip(given, called, shapes, counted):
        is_own = known_as.partition(":")[0] == own_name(variable)
        weak = weak_segments(known_as, ()) if is_own else ()
        name = known_as
        if times[known_as] > 1:
            name = f"{known_as} [{len(found)}]"
        found[name] = variable
        role, optimizer, owner = roles.get(known_as, ("", "", ""))
        variables.append(
            ModelVariable(
                name=name,
                shape=shape,
                dtype=dtype,
                trainable=bool(variable.trainable),
                parts=(f"{known_as}:0",),
                called="" if any(weak) else known_as,
                is_given=not is_own,
                is_counted=is_own and is_counted,
                role=role or role_by_name(variable),
                optimizer=optimizer,
                owner=owner,
            )
        )
    return EagerModel(Model(variables, starts_all=True), found)
