"""What one saveable of TensorFlow saves: from which op, under which names, of which shape."""

from __future__ import annotations

import tensorflow as tf

from estimator_ckpt.tf_internals import Saveable, SaveSpec

VARIABLE_OPS = ("VarHandleOp", "VariableV2", "Variable", "AutoReloadVariable")


def _starts(saveable: Saveable) -> list[tf.Operation]:
    if isinstance(saveable.op, (tf.Variable, tf.Tensor)):
        return [saveable.op.op]
    return [spec.tensor.op for spec in saveable.specs]


def graph_of(saveable: Saveable) -> tf.Graph | None:
    """The graph that holds the value; None if eager execution does."""
    is_direct = isinstance(saveable.op, (tf.Variable, tf.Tensor))
    graph: tf.Graph | None = getattr(
        saveable.op if is_direct else saveable.specs[0].tensor, "graph", None
    )
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


def variables_of(saveable: Saveable) -> frozenset[str]:
    """The variable ops that what it saves is computed from."""
    waiting = _starts(saveable)
    seen = {op.name: op for op in waiting}
    while waiting:
        for tensor in waiting.pop().inputs:
            if seen.setdefault(tensor.op.name, tensor.op) is tensor.op:
                waiting.append(tensor.op)
    return frozenset(name for name, op in seen.items() if op.type in VARIABLE_OPS)


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
    op = saveable.op
    if not isinstance(op, (tf.Variable, tf.Tensor)) or op.dtype.base_dtype != spec.dtype.base_dtype:
        return None  # a table, or the handle of an iterator
    return tuple(op.shape.as_list()) if op.shape.is_fully_defined() else None
