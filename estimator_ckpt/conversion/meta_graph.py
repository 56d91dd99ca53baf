"""The `.meta` file beside a checkpoint: which keys its Saver restores, without TensorFlow."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError

from estimator_ckpt import files
from estimator_ckpt.bundle import protos
from estimator_ckpt.bundle.slices import key_text


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
