"""What the graph beside a checkpoint tells: a `.meta` file, or a SavedModel's saved_model.pb."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError

from estimator_ckpt import files
from estimator_ckpt.bundle import protos
from estimator_ckpt.errors import CheckpointError

_LARGEST = 256 << 20  # bytes of a graph that is read for a listing
_OF_TENSORFLOW = "__saved_model_"  # signatures for the loader alone (init_op, train_op)
_SAVED_MODEL_VARIABLES = os.path.join("variables", "variables")


@dataclass(frozen=True)
class GraphFacts:
    """What a graph tells; all empty where there is none.

    Attributes:
      path: its file.
      tensorflow_version: of the TensorFlow that wrote it.
      trainable: whether a variable is, by variable name; of those that the graph knows.
      tags: one text for each graph of a SavedModel, such as `serve`.
      signatures: one text for each, such as `serving_default (x) -> (y)`.
      assets: the names of a SavedModel's files.
    """

    path: str = ""
    tensorflow_version: str = ""
    trainable: Mapping[str, bool] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    signatures: tuple[str, ...] = ()
    assets: tuple[str, ...] = ()


def read_graph_facts(prefix: str) -> GraphFacts:
    """What stands beside the checkpoint with this prefix; a graph that is broken tells nothing.

    Sources: tensorflow/core/protobuf/meta_graph.proto and saved_object_graph.proto,
    tensorflow/core/framework/variable.proto.
    """
    path = f"{prefix}.meta"
    of_saved_model = prefix.endswith(_SAVED_MODEL_VARIABLES)
    if of_saved_model:
        directory = prefix[: -len(_SAVED_MODEL_VARIABLES)]
        path = os.path.join(directory, "saved_model.pb")
    try:
        if not files.exists(path) or files.size(path) > _LARGEST:
            return GraphFacts()
        data = files.read_bytes(path)
        if of_saved_model:
            graphs = list(protos.SavedModelFacts.FromString(data).meta_graphs)
        else:
            graphs = [protos.MetaGraphFacts.FromString(data)]
        trainable: dict[str, bool] = {}
        for graph in graphs:
            trainable.update(_trainable(graph))
    except (CheckpointError, DecodeError):
        return GraphFacts()
    return GraphFacts(
        path,
        next((graph.meta_info_def.tensorflow_version for graph in graphs), ""),
        trainable,
        tuple(", ".join(graph.meta_info_def.tags) for graph in graphs) if of_saved_model else (),
        tuple(sorted({text for graph in graphs for text in _signatures(graph)}))
        if of_saved_model
        else (),
        tuple(sorted({one.filename for graph in graphs for one in graph.asset_file_def})),
    )


def _trainable(graph: Any) -> dict[str, bool]:
    found: dict[str, bool] = {}
    collections = {one.key: one.value.bytes_list.value for one in graph.collection_def}
    for name in _names(collections.get("variables", ())):
        found[name] = False
    for name in _names(collections.get("trainable_variables", ())):
        found[name] = True
    seen: set[str] = set()
    for node in graph.object_graph_def.nodes:
        name = node.variable.name
        if name and name in seen:
            found.pop(name, None)  # of two variables with one name nobody can tell
        elif name:
            seen.add(name)
            found[name] = node.variable.trainable
    return found


def _names(definitions: Iterable[bytes]) -> Iterable[str]:
    for data in definitions:
        variable = protos.VariableDef.FromString(data)
        yield variable.save_slice_info_def.full_name or variable.variable_name.partition(":")[0]


def _signatures(graph: Any) -> Iterator[str]:
    for signature in graph.signature_def:
        if signature.key.startswith(_OF_TENSORFLOW):
            continue
        inputs, outputs = (
            ", ".join(sorted(one.key for one in side))
            for side in (signature.value.inputs, signature.value.outputs)
        )
        yield f"{signature.key} ({inputs}) -> ({outputs})"
