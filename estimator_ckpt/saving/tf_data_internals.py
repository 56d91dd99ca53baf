"""The uses of TensorFlow's private API for tf.data, and for the position of an input; all others
are in tf_internals.py."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from estimator_ckpt.saving import tf_internals


def iterators(graph: tf.Graph) -> list[tf.Tensor]:
    """The handles of the tf.data iterators of a graph, in the order in which they were made.

    Private because only the collection has them, whose name is in
    tensorflow/python/data/ops/iterator_ops.py (GLOBAL_ITERATORS) alone.
    """
    return list(graph.get_collection("iterators"))


def is_stateful(op_type: str) -> bool:
    """Whether ops of a type have state; of ops in functions only the definition tells."""
    definition = op_def_registry.get(op_type)
    return definition is not None and bool(definition.is_stateful)


def default_attributes(op_type: str) -> dict[str, Any]:
    """The default values of an op's attributes, by name; for the reason see is_stateful()."""
    definition = op_def_registry.get(op_type)
    if definition is None:
        return {}
    return {a.name: a.default_value for a in definition.attr if a.HasField("default_value")}


def input_names(node: Any) -> list[str]:
    """What a node's op calls its data inputs, one name for each; see is_stateful()."""
    definition = op_def_registry.get(node.op)
    if definition is None:
        return [f"input {number}" for number in range(len(node.input))]
    names: list[str] = []
    for argument in definition.input_arg:
        count = 1
        if argument.number_attr:
            count = node.attr[argument.number_attr].i
        elif argument.type_list_attr:
            count = len(node.attr[argument.type_list_attr].list.type)
        names += [argument.name] * count
    return names


def put_local_init(
    scaffold: tf.compat.v1.train.Scaffold, local_init_op: tf.Operation, feeds: dict[Any, Any]
) -> None:
    """Gives a Scaffold another local_init_op, and what it is fed with, in place; for the reason see
    tf_internals.put_saver(). The SessionManager keeps the very dict, whose values may change."""
    scaffold._local_init_op = local_init_op
    scaffold._local_init_feed_dict = feeds


def resuming_local_init_op() -> Any:
    """What a SessionManager that is restoring at this moment will run when that is done; for the
    reason see tf_internals.resuming_directory()."""
    frame = tf_internals.frame_of(tf.compat.v1.train.SessionManager._restore_checkpoint.__code__)
    return None if frame is None else frame.f_locals["self"]._local_init_op
