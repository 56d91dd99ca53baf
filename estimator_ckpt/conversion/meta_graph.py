"""The `.meta` file beside a checkpoint, without TensorFlow: which keys its Saver restores, and what
trains which variable.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from estimator_ckpt import files
from estimator_ckpt.bundle import protos
from estimator_ckpt.bundle.slices import key_text
from estimator_ckpt.bundle.v1 import plain_prefix
from estimator_ckpt.conversion.updates import PASSED, Update, kind_of_update
from estimator_ckpt.errors import NotACheckpointError

_MOST_PASSED = 10  # ops on the way from a variable; a wrong file may have a circle of them


def restored_keys(path: str) -> set[str] | None:
    """The keys that the Saver of a `.meta` file reads from the checkpoint beside it.

    They are constants: the second input of each RestoreV2 on which the Saver's restore op depends
    (tensorflow/python/training/saver.py, restore_v2 in tensorflow/core/ops/io_ops.cc).

    Returns:
      None where the file does not tell: it has no Saver, or is no MetaGraphDef.
    """
    try:
        meta = protos.MetaGraph.FromString(files.read_bytes(path))
    except DecodeError:
        return None
    nodes = {node.name: node for node in meta.graph_def.node}
    pending = [meta.saver_def.restore_op_name]
    keys: set[str] = set()
    seen: set[bytes] = set()
    while pending:
        name = _node_name(pending.pop())
        if name in seen:
            continue
        seen.add(name)
        node = nodes.get(name)
        if node is None:
            return None
        if node.op == b"RestoreV2" and len(node.input) > 1:
            names = _strings(nodes.get(_node_name(node.input[1])))
            if names is None:
                return None
            keys.update(names)
        else:
            pending += node.input
    return keys or None


def meta_path(prefix: str) -> str:
    """The file of the graph beside a checkpoint."""
    return f"{plain_prefix(prefix)}.meta"


def updates_beside(prefix: str, variables: Collection[str]) -> list[Update]:
    """The ops of optimizers in the graph that a checkpoint's `.meta` file has; none without it.

    Args:
      prefix: of the checkpoint.
      variables: the names of its own. A part of one is called `NAME/part_0` in a graph.
    """
    try:
        meta = protos.MetaGraph.FromString(files.read_bytes(meta_path(prefix)))
    except (DecodeError, NotACheckpointError):  # the job may just have deleted it
        return []
    nodes = {node.name: node for node in meta.graph_def.node}
    found = []
    for node in meta.graph_def.node:
        kind = kind_of_update(key_text(node.op))
        names = [_variable(nodes, name, variables) for name in node.input] if kind else []
        if names and names[0]:
            found.append(Update(kind, names[0], [name for name in names[1:] if name]))
    return found


def _variable(nodes: Mapping[bytes, Any], name: bytes, variables: Collection[str]) -> str:
    """The variable that an input is read from; "" if it is none."""
    node = nodes.get(_node_name(name))
    for _ in range(_MOST_PASSED):
        if node is not None and key_text(node.op) in PASSED and node.input:
            node = nodes.get(_node_name(node.input[0]))
    found = "" if node is None else key_text(node.name)
    whole = re.sub(r"/part_\d+(?=/|$)", "", found)
    return found if found in variables else whole if whole in variables else ""


def _node_name(name: bytes) -> bytes:
    """Of an input: `^node` is a control input, `node:1` its second output."""
    return name.removeprefix(b"^").partition(b":")[0]


def _strings(node: Any) -> list[str] | None:
    """The strings of a constant; those that repeat to its end are stored once."""
    for attribute in node.attr if node is not None and node.op == b"Const" else ():
        if attribute.key == b"value":
            tensor = attribute.value.tensor
            values = [key_text(value) for value in tensor.string_val]
            count = tensor.tensor_shape.dim[0].size if tensor.tensor_shape.dim else 1
            return values + values[-1:] * (count - len(values))
    return None
