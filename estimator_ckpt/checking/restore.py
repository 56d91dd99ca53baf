"""What a model would restore from a checkpoint: decided as its saver decides it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Union

from estimator_ckpt import files
from estimator_ckpt.checking.model import (
    built_graph,
    expected_model,
    holds_variables,
    is_checkpoint,
    is_eager,
    is_function,
    saver_of,
)
from estimator_ckpt.checkpoint import Checkpoint, open_checkpoint
from estimator_ckpt.errors import SettingsError
from estimator_ckpt.matching.eager import eager_model
from estimator_ckpt.matching.model import Model
from estimator_ckpt.matching.restoring import Resolution, Wanted, resolve
from estimator_ckpt.objects.message import VARIABLE_VALUE
from estimator_ckpt.objects.object_graph import SAVE_COUNTER, ObjectGraph
from estimator_ckpt.reading.variables import Variable
from estimator_ckpt.text.rows import Row

_NO_NODE = -1
_TABLE = ("keys", "values")


class Restore(NamedTuple):
    """What a model wants, and what it would get.

    Attributes:
      wanted: the tensors that the model restores.
      resolution: what the checkpoint has of them.
      on_missing: the model's own policy for what the checkpoint lacks.
      no_averages: rows of the averages that ought to be there, and are not.
    """

    wanted: Sequence[Wanted]
    resolution: Resolution
    on_missing: Union[str, Mapping[str, str]] = "error"
    no_averages: Sequence[Row] = ()


def restore_of(
    expected: Any, checkpoint: Checkpoint, input_fn: str | None = None
) -> Restore | Model:
    """What a model would restore; of objects that no saver restores, what apply() would start.

    A function is called in a graph, whose saver decides: one of this package that it makes, or one
    with the tf.train.Checkpoint that it returns, or else one of all variables. Another checkpoint
    is a model of its names and objects. Any other side is known by its names alone.

    Args:
      expected: the model's side, as check_checkpoint() takes it.
      checkpoint: what it would restore.
      input_fn: `package.module:function` that gives a model_fn its features and labels.

    Raises:
      CheckpointError: the model's side cannot be read or built.
    """
    is_text = isinstance(expected, (str, os.PathLike))
    text = files.path_text(expected, "expected") if is_text else ""
    if text and is_function(text):
        with built_graph(text, input_fn) as made:
            return _restore_of_made(made, checkpoint, text)
    if not text and is_eager(expected):
        return eager_model(expected).model
    if text and is_checkpoint(text):
        with open_checkpoint(text) as other:
            structure = other.object_graph or ObjectGraph()
            wanted = list(_wanted_of(other, structure))
    else:
        structure = ObjectGraph()
        targets = expected_model(expected, input_fn).variables
        names = {target.name for target in targets}
        wanted = [_named(t.name, names, t.shape, t.dtype) for t in targets]
    return Restore(wanted, resolve(checkpoint, wanted, structure))


def _restore_of_made(made: Any, checkpoint: Checkpoint, text: str) -> Restore | Model:
    import tensorflow as tf

    from estimator_ckpt.saving.lacking_averages import average_problems
    from estimator_ckpt.saving.saver import Saver

    saver = saver_of(made)
    if saver is None and holds_variables(made):
        found = eager_model(made)
        if not isinstance(made, tf.train.Checkpoint):
            return found.model
        saver = Saver("checkpoint", None, made)
    saver = saver or Saver("saver")
    saver.build()
    if not saver.built.wanted:
        raise SettingsError("it makes no variables, so there is nothing to check", key=text)
    resolution = saver.built.resolution(checkpoint)
    on_missing = saver.options.on_missing
    lacking = average_problems(checkpoint, saver.built.wanted, resolution, on_missing)
    return Restore(saver.built.wanted, resolution, on_missing, lacking)


def _wanted_of(other: Checkpoint, structure: ObjectGraph) -> Iterator[Wanted]:
    """What the model that wrote a checkpoint would restore."""
    places = {
        attribute.checkpoint_key: (node, attribute.name)
        for node, one in enumerate(structure.nodes)
        for attribute in one.attributes
    }
    for variable in other.variables.values():
        if variable.name != SAVE_COUNTER:
            yield _wanted(variable, places) or _named(
                variable.name, other.variables, variable.shape, variable.dtype
            )


def _named(name: str, names: Collection[str], shape: tuple[int, ...] | None, dtype: str) -> Wanted:
    """What is known by its name alone: a variable, or one of the two tensors of a lookup table."""
    start, _, end = name.rpartition("-")
    if end in _TABLE and all(f"{start}-{one}" in names for one in _TABLE):
        return Wanted(start, f"-{end}", _NO_NODE, "table", None, dtype)
    return Wanted(name, "", _NO_NODE, VARIABLE_VALUE, shape, dtype)


def _wanted(variable: Variable, places: Mapping[str, tuple[int, str]]) -> Wanted | None:
    for key in variable.keys:
        # Of a lookup table's `...table-keys` the object has the start.
        for end in ("", "-keys", "-values", "_STATE"):
            place = places.get(key[: len(key) - len(end)]) if key.endswith(end) else None
            if place is not None:
                name = variable.name[: len(variable.name) - len(end)]
                # A table takes any number of rows.
                return Wanted(name, end, *place, None if end else variable.shape, variable.dtype)
    return None
