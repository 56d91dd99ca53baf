"""The variables that a model expects: of a graph, a file of one, a checkpoint, or plain shapes."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from estimator_ckpt import files
from estimator_ckpt.checkpoint import open_checkpoint
from estimator_ckpt.errors import CheckpointError, NotACheckpointError, SettingsError
from estimator_ckpt.loading import has_form_of_function, load_function
from estimator_ckpt.matching.eager import eager_model
from estimator_ckpt.matching.kinds import is_layer, is_variable
from estimator_ckpt.matching.live import LiveObjects
from estimator_ckpt.matching.lookup_tables import is_table
from estimator_ckpt.matching.model import Model, ModelVariable
from estimator_ckpt.objects.object_graph import BEFORE_ATTRIBUTE, SAVE_COUNTER, VAR_LIST, unescape
from estimator_ckpt.roles.training_state import state_by_names

_PART = re.compile(r"/part_\d+(?=/|$)")
_VARIABLE_OPS = ("VarHandleOp", "VariableV2", "Variable")
_GRAPH_FILES = (".meta", ".pbtxt", ".pb")
_ASSIGN_OPS = ("AssignVariableOp", "Assign")


def expected_model(expected: Any, input_fn: str | None = None) -> Model:
    """The variables of a model's side; see check_checkpoint() for what `expected` may be.

    Args:
      expected: a mapping, a tf.Graph, objects of an eager program, or a path or name.
      input_fn: `package.module:function` that gives a model_fn its features and labels.

    Raises:
      SettingsError: it is none of these, has no variables, or the function cannot be imported or
        called.
      CheckpointError: the file is not what it should be.
    """
    model = _expected_model(expected, input_fn)
    if not model.variables:
        text = expected if isinstance(expected, (str, os.PathLike)) else type(expected).__name__
        raise SettingsError("the model has no variables, so nothing to check", key=str(text))
    return model


def _expected_model(expected: Any, input_fn: str | None) -> Model:
    if is_eager(expected):
        return eager_model(expected).model
    if isinstance(expected, Mapping):
        plain = [_plain(name, value) for name, value in expected.items()]
        return Model(_without_training_state(plain))
    if isinstance(expected, (str, os.PathLike)):
        return _named(files.path_text(expected, "expected"), input_fn)
    if hasattr(expected, "as_graph_def") and hasattr(expected, "as_default"):
        from estimator_ckpt.warm_starting.starter import graph_model

        with expected.as_default():
            saver = saver_of(None)
            return graph_model(saver if saver is not None and saver.is_built else None)
    raise SettingsError(
        "expected a mapping from names to (shape, dtype), a tf.Graph, a Keras model or another "
        "object, a path or package.module:model_fn, found "
        f"{type(expected).__name__}",
        key="expected",
    )


def holds_variables(made: Any) -> bool:
    """Whether something is an object of TensorFlow's or Keras' that holds variables, or should."""
    import tensorflow as tf

    if made is None or isinstance(made, (str, tuple)) or is_variable(made):
        return False
    if is_layer(made):
        return True
    try:
        objects = LiveObjects(made)
    except (AttributeError, TypeError, ValueError):
        return False
    # A table of a graph is one of its other saveable objects.
    return objects.hold_anything and bool(tf.executing_eagerly() or not is_table(made))


def is_eager(expected: Any) -> bool:
    """Whether it is what WarmStart.apply() takes: objects, or variables."""
    if isinstance(expected, (str, os.PathLike)):
        return False
    if isinstance(expected, Mapping) and not hasattr(expected, "_trackable_children"):
        values = [one for one in expected.values() if not isinstance(one, (tuple, list))]
        return any(is_variable(one) or holds_variables(one) for one in values)
    if isinstance(expected, (list, tuple)):
        return any(is_variable(one) or holds_variables(one) for one in expected)
    return holds_variables(expected)


def saver_of(made: Any) -> Any:
    """The Saver of this package that a function has made in the default graph, or None."""
    import tensorflow as tf

    from estimator_ckpt.saving.saver import Saver

    own = getattr(getattr(made, "scaffold", made), "saver", None)
    collection = tf.compat.v1.get_collection(tf.compat.v1.GraphKeys.SAVERS)
    return next((s for s in (own, *collection) if isinstance(s, Saver)), None)


def is_function(text: str) -> bool:
    """Whether a text names a function, and no file."""
    return has_form_of_function(text) and not files.exists(text)


def is_checkpoint(text: str) -> bool:
    """Whether a text can only be the path of a checkpoint or a SavedModel."""
    return not (text.endswith(_GRAPH_FILES) and not files.is_dir(text)) and not is_function(text)


def _named(text: str, input_fn: str | None) -> Model:
    if text.endswith(_GRAPH_FILES) and not files.is_dir(text):
        return Model(_of_meta_graph(text) if text.endswith(".meta") else _of_graph_def(text))
    if is_function(text):
        from estimator_ckpt.warm_starting.starter import graph_model

        with built_graph(text, input_fn) as made:
            saver = saver_of(made)
            if saver is None and holds_variables(made):
                return eager_model(made).model
            if saver is not None:
                saver.build()
            return graph_model(saver)
    with open_checkpoint(text) as checkpoint:
        variables = (
            ModelVariable(v.name, v.shape, v.dtype, v.slot_of is None, (f"{v.name}:0",))
            for v in checkpoint.variables.values()
            if v.name != SAVE_COUNTER
        )
        return Model(_without_training_state(variables))


def _without_training_state(targets: Iterable[ModelVariable]) -> list[ModelVariable]:
    """The same, as far as names tell which of them are trainable: nothing else does."""
    targets = list(targets)
    state = state_by_names({target.name: target.shape for target in targets})
    return [
        replace(t, trainable=False, role=state[t.name][0]) if t.name in state else t
        for t in targets
    ]


def _plain(name: Any, value: Any) -> ModelVariable:
    try:
        shape, dtype = value
        found = None if shape is None else tuple(int(size) for size in shape)
        text = dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or dtype.__name__
        return ModelVariable(str(name), found, text.rstrip("_"), True, (f"{name}:0",))
    except (AttributeError, TypeError, ValueError):
        raise SettingsError(
            f"expected a shape and a dtype, such as ((3, 4), 'float32'), found {value!r}",
            key=str(name),
        ) from None


def _of_meta_graph(path: str) -> list[ModelVariable]:
    from tensorflow.core.framework import variable_pb2
    from tensorflow.core.protobuf import meta_graph_pb2

    meta = _parsed(path, meta_graph_pb2.MetaGraphDef())
    collections = meta.collection_def
    if "variables" not in collections:
        return _targets_of(meta.graph_def, path)
    trainable = set(collections["trainable_variables"].bytes_list.value)
    nodes = {node.name: node for node in meta.graph_def.node}
    found: dict[str, ModelVariable] = {}
    for data in collections["variables"].bytes_list.value:
        try:
            variable = variable_pb2.VariableDef.FromString(data)
            node = nodes[variable.variable_name.partition(":")[0]]
        except Exception as error:  # protobuf's DecodeError has no stable place; or no such node
            raise NotACheckpointError(f"its variables are broken: {error!r}", path=path) from None
        target = _of_node(node, data in trainable, path)
        info = variable.save_slice_info_def
        if info.full_name:
            before = found.get(info.full_name)
            parts = (*(before.parts if before else ()), *target.parts)
            target = ModelVariable(
                info.full_name, tuple(info.full_shape), target.dtype, target.trainable, parts
            )
        found[target.name] = target
    return list(found.values())


def _of_graph_def(path: str) -> list[ModelVariable]:
    from tensorflow.core.framework import graph_pb2

    return _targets_of(_parsed(path, graph_pb2.GraphDef()), path)


def _targets_of(graph_def: Any, path: str) -> list[ModelVariable]:
    """The variables of a graph without collections: those that it restores, else all of them.

    A graph.pbtxt does not tell global variables from local ones, but its Saver knows them.
    """
    nodes = {node.name: node for node in graph_def.node}
    variables = {name: node for name, node in nodes.items() if node.op in _VARIABLE_OPS}
    if not variables:
        raise NotACheckpointError("the graph has no variables", path=path)
    restored: dict[str, tuple[str, str]] = {}
    for node in graph_def.node:
        if node.op in _ASSIGN_OPS and len(node.input) > 1 and node.input[0] in variables:
            source, output = _behind_identities(node.input[1], nodes)
            if source is not None and source.op == "RestoreV2":
                key, extents = (_text(nodes, source.input[n], output) for n in (1, 2))
                restored[node.input[0]] = _name_of_key(key), extents
    found: dict[str, ModelVariable] = {}
    for node_name in restored or variables:
        target = _of_node(variables[node_name], True, path)
        name, extents = restored.get(node_name, ("", ""))
        if not extents:
            found[name or node_name] = replace(target, name=name or node_name)
            continue
        name = name or _PART.sub("", node_name)
        shape = tuple(int(size) for size in extents.split()[:-1])  # "10 2 0,4:0,2": whole, slice
        parts = (*(found[name].parts if name in found else ()), *target.parts)
        found[name] = replace(target, name=name, shape=shape, parts=parts)
    return _without_training_state(found.values())


def _behind_identities(name: str, nodes: Mapping[str, Any]) -> tuple[Any, int]:
    for _ in range(8):
        base, _, output = name.partition(":")
        node = nodes.get(base)
        if node is None or node.op != "Identity" or not node.input:
            return node, int(output) if output.isdigit() else 0
        name = node.input[0]
    return None, 0


def _text(nodes: Mapping[str, Any], name: str, place: int) -> str:
    """One text of a constant; empty if the graph does not say it."""
    constant = nodes.get(name.partition(":")[0])
    values = constant.attr["value"].tensor.string_val if constant is not None else ()
    return values[place].decode(errors="replace") if place < len(values) else ""


def _name_of_key(key: str) -> str:
    """The variable name that a Saver reads under `key`; empty if it is an object's of the user."""
    if BEFORE_ATTRIBUTE not in key:
        return key
    start = f"{VAR_LIST}/"
    return (
        unescape(key[len(start) :].partition(BEFORE_ATTRIBUTE)[0]) if key.startswith(start) else ""
    )


def _of_node(node: Any, trainable: bool, path: str) -> ModelVariable:
    import tensorflow as tf

    shape = node.attr["shape"].shape
    known = not shape.unknown_rank and all(dim.size >= 0 for dim in shape.dim)
    try:
        dtype = tf.dtypes.as_dtype(node.attr["dtype"].type).base_dtype.name
    except TypeError:
        raise NotACheckpointError("a variable without a dtype", path=path, key=node.name) from None
    sizes = tuple(dim.size for dim in shape.dim) if known else None
    return ModelVariable(node.name, sizes, dtype, trainable, (f"{node.name}:0",))


def _parsed(path: str, message: Any) -> Any:
    from google.protobuf import text_format

    data = files.read_bytes(path)
    try:
        if path.endswith(".pbtxt"):
            return text_format.Parse(data, message, allow_unknown_field=True)
        message.ParseFromString(data)
        return message
    except Exception as error:  # DecodeError, ParseError, UnicodeDecodeError, ...
        kind = type(message).__name__
        raise NotACheckpointError(f"expected a {kind}: {error}", path=path) from None


@contextlib.contextmanager
def built_graph(text: str, input_fn: str | None) -> Iterator[Any]:
    """A graph, as the default one, in which a model_fn or a function without arguments was called.

    Yields:
      What the function returned.

    Raises:
      SettingsError: the function cannot be imported, or called.
    """
    import tensorflow as tf

    from estimator_ckpt.saving import tf_internals

    function = _loaded(text)
    names = tf_internals.argument_names(function)
    with tf.Graph().as_default():
        given: dict[str, Any] = {"mode": "train", "params": {}, "config": None}
        try:
            if "features" in names:
                if input_fn is None:
                    raise SettingsError(
                        "it takes features: say with --input_fn=package.module:function where to "
                        "get them, or name a function without arguments that builds the model",
                        key=text,
                    )
                tf.compat.v1.train.get_or_create_global_step()
                given["features"], given["labels"] = _inputs(tf, _loaded(input_fn)())
            made = function(**{name: given[name] for name in names if name in given})
        except CheckpointError:
            raise
        except Exception as error:  # whatever a user's function raises
            raise SettingsError(
                f"building the model failed: {type(error).__name__}: {error}", key=text
            ) from error
        yield made


def _inputs(tf: Any, made: Any) -> tuple[Any, Any]:
    if isinstance(made, tf.data.Dataset):
        made = tf.compat.v1.data.make_one_shot_iterator(made).get_next()
    return made if isinstance(made, tuple) and len(made) == 2 else (made, None)


def _loaded(text: str) -> Any:
    try:
        return load_function(text)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a user's module raises
        raise SettingsError(
            f"importing it failed: {type(error).__name__}: {error}", key=text
        ) from error
