"""What a saver is given to save: variables, or objects of the user's own."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Union

import tensorflow as tf

from estimator_ckpt.errors import ConflictError, SettingsError
from estimator_ckpt.matching.live import LiveObjects
from estimator_ckpt.objects.object_graph import BEFORE_ATTRIBUTE, ObjectGraph
from estimator_ckpt.saving import tf_internals
from estimator_ckpt.saving.saveables import graph_of, source
from estimator_ckpt.saving.tf_internals import Saveable
from estimator_ckpt.saving.upstream import VARIABLE_OPS
from estimator_ckpt.text.names import some_of

if TYPE_CHECKING:
    from typing_extensions import TypeGuard

VarList = Union[Sequence[Any], Mapping[str, Any], None]
Objects = Union["tf.train.Checkpoint", Mapping[str, Any], Sequence[Saveable], Callable[[], Any]]

_EXPECTED = (
    "expected variables and objects of the graph that is trained: make them in the model_fn, or in "
    "the graph in which the session is to run; found"
)
_MOST_SHOWN = 5


def check_var_list(var_list: object) -> None:
    """Raises SettingsError for what tf.compat.v1.train.Saver does not take, as far as it shows."""
    if isinstance(var_list, (list, tuple, set, Mapping, type(None))):
        return
    raise SettingsError(
        "expected a list of variables and other saveable objects, or a mapping from names to "
        f"them, found {var_list!r}",
        key="var_list",
    )


def check_objects(objects: object) -> None:
    """Raises SettingsError for what users_objects() does not take, as far as it shows."""
    if isinstance(objects, Mapping):
        _as_checkpoint(objects)
    elif _is_function(objects):
        try:
            inspect.signature(objects).bind()
        except TypeError as error:
            raise SettingsError(
                f"a callable is called without arguments, but {error}", key="checkpoint"
            ) from None
        except ValueError:
            pass  # written in C
    elif isinstance(objects, (list, tuple)):
        if not all(map(tf_internals.is_saveable, objects)):
            raise _no_objects(objects)
    elif objects is not None and not isinstance(objects, tf.train.Checkpoint):
        raise _no_objects(objects)


def _is_function(objects: object) -> TypeGuard[Callable[[], Any]]:
    return callable(objects) and not isinstance(objects, tf.__internal__.tracking.Trackable)


def _as_checkpoint(objects: Mapping[str, Any]) -> tf.train.Checkpoint:
    try:
        return tf.train.Checkpoint(**objects)
    except (TypeError, ValueError) as error:
        reason = f"expected a dict of trackables: {error}"
        raise SettingsError(reason, key="checkpoint") from None


def _no_objects(objects: object) -> SettingsError:
    hint = ""
    if isinstance(objects, tf.__internal__.tracking.Trackable):
        hint = "; give it a name: {'model': ...}"
    return SettingsError(
        "expected a tf.train.Checkpoint, a dict of trackables or a callable that returns one, "
        f"found {type(objects).__name__}{hint}",
        key="checkpoint",
    )


def all_saveable_objects() -> list[Any]:
    """The default graph's global variables and other saveables: what a stock Saver saves."""
    return [
        *tf.compat.v1.global_variables(),
        *tf.compat.v1.get_collection(tf.compat.v1.GraphKeys.SAVEABLE_OBJECTS),
    ]


def named_saveables(var_list: VarList) -> dict[str, list[Saveable]]:
    """The saveables by name; a partitioned variable's slices stand under one name.

    Raises:
      ConflictError, SettingsError: as graph_contents() does.
    """
    given = all_saveable_objects() if var_list is None else var_list
    try:
        saveables = tf_internals.saveables_by_name(given)
    except ValueError as error:
        raise ConflictError(str(error)) from None
    except (TypeError, AttributeError) as error:
        raise SettingsError(
            f"expected what tf.compat.v1.train.Saver takes: {error}", key="var_list"
        ) from None
    _check_graph(saveables, "var_list")
    for one in given if not isinstance(given, Mapping) else ():
        # Of two tables with one name TensorFlow saves the last and forgets the other.
        kept = saveables.get(one.name) if tf_internals.is_saveable(one) else None
        if kept and kept[0] is not one and source(kept[0]) != source(one):
            raise ConflictError("two saveable objects have this name; rename one", key=one.name)
    return saveables


def names_on_purpose(var_list: VarList, saveables: Mapping[str, Sequence[Saveable]]) -> set[str]:
    """The names that a mapping gives to variables which are called otherwise in the graph.

    So an evaluation reads averages: tf.train.ExponentialMovingAverage.variables_to_restore() names
    the average for the variable. `{v.op.name: v}` names nothing otherwise.

    Args:
      var_list: as tf.compat.v1.train.Saver takes it.
      saveables: what named_saveables() makes of it.
    """
    given = var_list.items() if isinstance(var_list, Mapping) else ()
    found = set()
    for name, value in given:
        if name not in saveables or tf_internals.is_saveable(value):
            continue  # it goes by its own name
        own = {source(saveable) for saveable in saveables[name]}
        for part in _parts(value):
            own.add(_without_number(str(getattr(part, "name", ""))))
            if isinstance(part, tf.Variable):
                own.update((tf_internals.op_name(part), tf_internals.full_name(part)))
        if _without_number(name) not in own:
            found.add(name)
    return found


def _without_number(name: str) -> str:
    """`dense/kernel` of `dense/kernel:0`, the name that tf.Variable.name says."""
    return re.sub(r":\d+$", "", name)


def _parts(value: Any) -> list[Any]:
    """The slices of a partitioned variable; anything else is one part."""
    is_many = isinstance(value, (list, tuple)) or hasattr(value, "as_tensor")
    return list(value) if is_many else [value]


def users_objects(
    objects: Objects | None,
) -> tuple[ObjectGraph, list[Saveable], dict[str, tuple[bool, ...]]]:
    """The user's object graph; its saveables, each named by its key; and for the names of its
    variables, which segments a counter may have made.

    Raises:
      SettingsError: as graph_contents() does.
    """
    if objects is None:
        return ObjectGraph(), [], {}
    weak: dict[str, tuple[bool, ...]] = {}
    if _is_function(objects):
        ops = tf.compat.v1.get_default_graph().get_operations
        before = len(ops())
        objects = objects()
        created = [op.name for op in ops()[before:] if op.type in VARIABLE_OPS]
        if created:
            raise SettingsError(
                "the callable runs while the graph is finalized, when variables can no longer be "
                f"initialized, but it created {created}; create them in the model_fn",
                key="checkpoint",
            )
    if isinstance(objects, Mapping):
        objects = _as_checkpoint(objects)
    if isinstance(objects, tf.train.Checkpoint):
        try:
            weak = LiveObjects(objects).weak_names()
            objects = tf_internals.frozen_saveables(objects)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            # Tables, iterators and the like of eager execution refuse in words of their own.
            raise SettingsError(f"{_EXPECTED}: {error}", key="checkpoint") from error
    if not isinstance(objects, (list, tuple)) or not all(map(tf_internals.is_saveable, objects)):
        raise _no_objects(objects)
    graph = ObjectGraph()
    saveables = []
    for saveable in objects:
        data = tf_internals.object_graph_bytes(saveable)
        if data is None:
            saveables.append(saveable)
        else:
            graph = ObjectGraph.parse(data)
    registered = [node.registered_saver[0] for node in graph.nodes if node.registered_saver]
    if registered:
        raise SettingsError(
            f"objects saved through registered savers ({', '.join(sorted(set(registered)))}) "
            "cannot be saved from a graph",
            key="checkpoint",
        )
    paths = {one.name.partition(BEFORE_ATTRIBUTE)[0]: [one] for one in saveables}
    _check_graph(paths, "checkpoint")
    return graph, saveables, weak


def _check_graph(saveables: Mapping[str, Sequence[Saveable]], key: str) -> None:
    """Raises SettingsError for what belongs to another graph than the default one, or to none."""
    strangers: dict[str, list[str]] = {}
    for name, group in saveables.items():
        graph = graph_of(group[0])
        if graph is not tf.compat.v1.get_default_graph():
            whose = "eager execution" if graph is None else "another graph"
            strangers.setdefault(whose, []).append(name)
    for whose, names in strangers.items():
        shown = some_of(list(map(repr, names)), _MOST_SHOWN)
        raise SettingsError(f"{_EXPECTED} {shown} of {whose}", key=key)
