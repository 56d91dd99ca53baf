"""What one saveable of TensorFlow saves: from which op, under which names, of which shape."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from estimator_ckpt.saving import tf_internals
from estimator_ckpt.saving.tf_internals import Saveable, SaveSpec
from estimator_ckpt.saving.upstream import VARIABLE_OPS, upstream


def variable_of(saveable: Saveable) -> Any:
    """The variable, or the slice of one, that it saves; None where it saves something else."""
    if isinstance(saveable.op, tf.Variable):
        return saveable.op
    return tf_internals.distributed_variable(saveable)


def _starts(saveable: Saveable) -> list[tf.Operation]:
    variable = variable_of(saveable)
    if variable is not None:
        return [replica.op for replica in tf_internals.replicas(variable)]
    if isinstance(saveable.op, tf.Tensor):
        return [saveable.op.op]
    return [spec.tensor.op for spec in saveable.specs]


def graph_of(saveable: Saveable) -> tf.Graph | None:
    """The graph that holds the value; None if eager execution does."""
    variable = variable_of(saveable)
    if variable is not None:
        holder = tf_internals.replicas(variable)[0]
    else:
        holder = saveable.op if isinstance(saveable.op, tf.Tensor) else saveable.specs[0].tensor
    graph: tf.Graph | None = getattr(holder, "graph", None)
    return graph


def source(saveable: Saveable) -> str:
    """The op that holds the value, whatever reads it: one variable or table, one source."""
    op = _starts(saveable)[0]
    while True:
        handles = [t for t in op.inputs if t.dtype == tf.resource or t.dtype != t.dtype.base_dtype]
        if op.type != "Identity" and len(handles) != 1:
            name: str = op.name
            return name
        op = (handles or op.inputs)[0].op


def holders_of(saveable: Saveable) -> frozenset[str]:
    """The ops that hold what it saves: variables, all replicas of one, a table."""
    found = {op.name for op in upstream(_starts(saveable)) if op.type in VARIABLE_OPS}
    return frozenset({*found, source(saveable)})


def suffixes_of(name: str, saveable: Saveable) -> list[str]:
    """What each spec's name has after the saveable's own."""
    # A spec that is named otherwise altogether keeps its name: Wanted.tensor must be it.
    return [
        spec.name[len(name) :] if spec.name.startswith(name) else spec.name
        for spec in saveable.specs
    ]


def shape_of(saveable: Saveable, spec: SaveSpec) -> tuple[int, ...] | None:
    """The shape of a whole variable, also of one that `spec` is a slice of; None if not known."""
    if spec.slice_spec:
        # "10 4 0,5:0,4": the whole shape, then start and length of the slice in each dimension.
        return tuple(int(size) for size in spec.slice_spec.split()[:-1])
    op = variable_of(saveable) if variable_of(saveable) is not None else saveable.op
    if not isinstance(op, (tf.Variable, tf.Tensor)) or op.dtype.base_dtype != spec.dtype.base_dtype:
        return None  # a table, or the handle of an iterator
    return tuple(op.shape.as_list()) if op.shape.is_fully_defined() else None
