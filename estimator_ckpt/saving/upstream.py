"""What runs along with an op: all that is upstream of it, and what that writes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import tensorflow as tf

from estimator_ckpt.saving import tf_internals

VARIABLE_OPS = ("VarHandleOp", "VariableV2", "Variable", "AutoReloadVariable")
# Ops that give a variable its whole value.
ASSIGNS = ("Assign", "AssignVariableOp")

# Ops that take the handle of a variable or a table and only read it. Any other is taken for one
# that writes: there are many of those, and custom ones.
_READS = frozenset(
    {
        "ReadVariableOp",
        "VarIsInitializedOp",
        "IsVariableInitialized",
        "VariableShape",
        "ResourceGather",
        "ResourceGatherNd",
        "LookupTableFindV2",
        "LookupTableSizeV2",
        "LookupTableExportV2",
    }
)
# Ops that hand it on.
_PASSES = frozenset(
    {"Identity", "IdentityN", "Switch", "Merge", "Enter", "Exit", "NextIteration"}
    | {"RefIdentity", "RefSwitch", "RefMerge", "RefEnter", "RefExit", "RefNextIteration"}
)


def operations(fetches: Any) -> list[tf.Operation]:
    """The ops of what a session can run, names or nested lists of them; none where that is not of
    the default graph: a strategy's, of several replicas, or what the session will refuse."""
    graph = tf.compat.v1.get_default_graph()
    try:
        found = [graph.as_graph_element(one) for one in tf.nest.flatten(fetches) if one is not None]
    except (KeyError, TypeError, ValueError):
        return []
    return [getattr(element, "op", element) for element in found]


def upstream(starts: Iterable[tf.Operation], fed: Collection[str] = ()) -> Iterator[tf.Operation]:
    """All ops that run when `starts` run, these included.

    Args:
      starts: what is run.
      fed: the names of the tensors that are fed, whose own ops then do not run for them.
    """
    waiting = list(starts)
    seen = {op.name for op in waiting}
    while waiting:
        op = waiting.pop()
        yield op
        needed = [tensor.op for tensor in op.inputs if tensor.name not in fed]
        for other in [*needed, *op.control_inputs]:
            if other.name not in seen:
                seen.add(other.name)
                waiting.append(other)


def written_by(op: tf.Operation, holders: Collection[str]) -> list[str]:
    """Those of `holders`, the names of ops that hold variables or tables, that `op` may write."""
    handles = [(index, tensor) for index, tensor in enumerate(op.inputs) if is_handle(tensor)]
    return [
        holder
        for index, tensor in handles
        if (holder := _holder(tensor)) in holders and _writes(op, index, set())
    ]


def is_handle(tensor: tf.Tensor) -> bool:
    """Whether it is a variable or a table, not a value: a resource, or a reference."""
    dtype: tf.DType = tensor.dtype
    return bool(dtype == tf.resource or dtype != dtype.base_dtype)


def _holder(tensor: tf.Tensor) -> str:
    """The op that holds what a handle leads to."""
    op = tensor.op
    seen = set()
    while op.name not in seen:  # the handle in a loop leads back to itself
        seen.add(op.name)
        op = next((given.op for given in op.inputs if is_handle(given)), op)
    name: str = op.name
    return name


def _writes(op: tf.Operation, index: int, seen: set[tuple[tf.Graph, str, int]]) -> bool:
    """Whether an op may write what the handle at this input leads to."""
    place = (op.graph, op.name, index)
    if op.type in _READS or place in seen:
        return False
    if op.inputs[index].dtype != tf.resource and not _takes_reference(op, index):
        return False
    seen.add(place)
    if op.type in _PASSES:
        # In a function this is all that leads on; in a graph the walk comes to those ops anyway.
        return any(_is_written(tensor, seen) for tensor in op.outputs if op.graph.building_function)
    names = [
        function.name
        for value in op.node_def.attr.values()
        for function in (value.func, *value.list.func)
        if function.name
    ]
    graphs = [tf_internals.function_graph(op.graph, name) for name in names]
    # `If` and `Case` have an input before those of their functions.
    inputs = [None if g is None else g.inputs[index - len(op.inputs)] for g in graphs]
    return not names or any(tensor is None or _is_written(tensor, seen) for tensor in inputs)


def _is_written(tensor: tf.Tensor, seen: set[tuple[tf.Graph, str, int]]) -> bool:
    """Whether an op of the graph may write what a handle leads to."""
    return any(
        _writes(op, index, seen)
        for op in tensor.consumers()
        for index, given in enumerate(op.inputs)
        if given is tensor or given.name == tensor.name
    )


def _takes_reference(op: tf.Operation, index: int) -> bool:
    """Whether an op takes a reference as such; to any other it is the value."""
    arguments = op.op_def.input_arg
    return index < len(arguments) and arguments[index].is_ref
