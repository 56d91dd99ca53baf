"""A tf.data pipeline of a graph as a line of text, which is equal where the pipeline is the same.

    range(start=0, stop=20, step=1) -> shuffle(buffer_size=5) -> batch(batch_size=4), gives int64[?]

What runs inside it (the function of a map, a large constant) stands in it as a few digits of its
checksum. Names of ops and functions, which count up in a process, and seeds, which a position
brings with it, do not count.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from estimator_ckpt.saving import tf_data_internals

_DATASET = re.compile(r"(?:Experimental|Parallel(?=Experimental))?(\w+?)Dataset(?:V\d+)?")
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# How a pipeline runs, but not what comes out of it.
_PASSES = ("Options", "Model", "Optimize", "Finalize", "MaxIntraOpParallelism", "PrivateThreadPool")
# Names of attributes and inputs that differ from run to run, or from machine to machine, and do not
# change what comes out: tests/test_input_position.py resumes with others.
_NO_ATTRIBUTES = frozenset(
    {"metadata", "container", "shared_name", "output_types", "output_shapes"}
    | {"preserve_cardinality", "use_inter_op_parallelism", "legacy_autotune", "slack_period", "N"}
)
_NO_INPUTS = frozenset({"seed", "seed2", "seed_generator", "num_parallel_calls"})
_MAX_TEXT = 40


class _Body(NamedTuple):
    """Where a node stands: the graph, or a function.

    Attributes:
      nodes: by name.
      arguments: the numbers of a function's arguments by name.
    """

    nodes: Mapping[str, Any]
    arguments: Mapping[str, int]


class Pipelines:
    """The pipelines of a graph, as it is when this is made."""

    def __init__(self, graph: tf.Graph) -> None:
        definition = graph.as_graph_def()
        self._main = _Body({node.name: node for node in definition.node}, {})
        self._functions = {one.signature.name: one for one in definition.library.function}
        self._bodies: dict[str, _Body] = {}
        self._digests: dict[tuple[int, str], str] = {}

    def makers(self, iterator: str) -> list[str]:
        """The names of the MakeIterator ops that initialize the iterator of an op's name."""
        return [
            name
            for name, node in self._main.nodes.items()
            if node.op == "MakeIterator" and _name(node.input[1]) == iterator
        ]

    def text(self, iterator: str) -> str:
        """The pipeline of the iterator of an op's name, and what comes out of it."""
        node = self._main.nodes[iterator]
        types = node.attr["output_types"].list.type
        shapes = node.attr["output_shapes"].list.shape
        spec = ", ".join(
            f"{tf.as_dtype(dtype).name}{_shape_text(shape)}" for dtype, shape in zip(types, shapes)
        )
        body, tensor = self._dataset(iterator)
        return f"{self._text(body, tensor)}, gives {spec}"

    def outside_state(self, iterator: str) -> list[str]:
        """The types of ops in the pipeline whose state no position has."""
        body, tensor = self._dataset(iterator)
        types = {node.op for node in self._nodes(body, tensor, set())}
        return sorted(
            kind
            for kind in types
            if kind == "GeneratorDataset"
            or (_DATASET.fullmatch(kind) is None and tf_data_internals.is_stateful(kind))
        )

    def _dataset(self, iterator: str) -> tuple[_Body, str]:
        """Where the dataset of an iterator is made: the body, and the tensor in it."""
        node = self._main.nodes[iterator]
        if "dataset_factory" in node.attr:  # a one-shot iterator's, in a function
            function = self._functions[node.attr["dataset_factory"].func.name]
            return self._body(function.signature.name), next(iter(function.ret.values()))
        makers = self.makers(iterator)
        return self._main, self._main.nodes[makers[0]].input[0]

    def _body(self, name: str) -> _Body:
        if name not in self._bodies:
            function = self._functions[name]
            self._bodies[name] = _Body(
                {node.name: node for node in function.node_def},
                {argument.name: n for n, argument in enumerate(function.signature.input_arg)},
            )
        return self._bodies[name]

    def _text(self, body: _Body, tensor: str) -> str:
        node = body.nodes.get(_name(tensor))
        if node is None:
            return f"argument {body.arguments.get(_name(tensor), tensor)}"
        match = _DATASET.fullmatch(node.op)
        word = match[1] if match else node.op
        sources, settings = [], []
        is_ahead = word == "Prefetch"  # whose size is that of a machine, too
        for name, given in _named_inputs(node):
            source = body.nodes.get(_name(given))
            if source is not None and _DATASET.fullmatch(source.op):
                sources.append(self._text(body, given))
            elif not is_ahead:
                settings.append(f"{name}={self._value(body, given)}")
        if word in _PASSES and len(sources) == 1:
            return sources[0]
        for name, value in self._attributes(node):
            settings.append(f"{name}={value}")
        own = _WORD.sub("_", word).lower() + f"({', '.join(settings)})" * bool(settings)
        if not sources:
            return own
        return f"{sources[0] if len(sources) == 1 else '(' + ' | '.join(sources) + ')'} -> {own}"

    def _value(self, body: _Body, tensor: str) -> str:
        """What a dataset gets beside other datasets: a short constant, or a checksum."""
        node = body.nodes.get(_name(tensor))
        if node is None or node.op != "Const":
            return self._digest(body, _name(tensor))[:8]
        value = tf.make_ndarray(node.attr["value"].tensor)
        if value.ndim == 0:
            text = _scalar_text(value.item())
            if len(text) <= _MAX_TEXT:
                return text
        first = ""
        if value.dtype == object and value.size:
            first = f" {_scalar_text(value.reshape(-1)[0])[:_MAX_TEXT]} ..."
        kind = "string" if value.dtype == object else value.dtype.name
        shape = ",".join(map(str, value.shape))
        return f"{kind}[{shape}]{first} {self._digest(body, node.name)[:8]}"

    def _attributes(self, node: Any) -> Iterator[tuple[str, str]]:
        """What a dataset's op is set to, other than by default."""
        defaults = tf_data_internals.default_attributes(node.op)
        for name, value in sorted(node.attr.items()):
            if name.startswith("_") or name in _NO_ATTRIBUTES or value == defaults.get(name):
                continue
            kind = value.WhichOneof("value")
            if kind == "func":
                yield name, self._function_digest(value.func.name)[:8]
            elif kind in ("b", "i", "f", "s"):
                text = _scalar_text(getattr(value, kind))
                if text:
                    yield name, text

    def _digest(self, body: _Body, start: str) -> str:
        """A checksum of a node and of all that it is computed from."""
        found = self._digests
        open_: set[str] = set()
        waiting = [start]
        while waiting:
            name = waiting[-1]
            key = id(body), name
            if key in found:
                waiting.pop()
                continue
            node = body.nodes.get(name)
            if node is None:
                found[key] = f"argument {body.arguments.get(name, name)}"
                continue
            inputs = [(_name(given), _output(given)) for _, given in _named_inputs(node)]
            if name not in open_:
                open_.add(name)
                waiting += [
                    one for one, _ in inputs if (id(body), one) not in found and one not in open_
                ]
                continue
            hashed = hashlib.sha256(f"{node.op}\n".encode())
            for attribute, value in sorted(node.attr.items()):
                if not attribute.startswith("_") and attribute not in _NO_ATTRIBUTES:
                    hashed.update(f"{attribute}={self._attribute_digest(value)}\n".encode())
            for one, output in inputs:  # what is open is part of a loop
                hashed.update(f"{found.get((id(body), one), 'loop')}:{output}\n".encode())
            found[key] = hashed.hexdigest()
        return found[id(body), start]

    def _attribute_digest(self, value: Any) -> str:
        kind = value.WhichOneof("value")
        if kind == "func":
            return self._function_digest(value.func.name)
        if kind == "list" and value.list.func:
            return " ".join(self._function_digest(one.name) for one in value.list.func)
        return hashlib.sha256(value.SerializeToString(deterministic=True)).hexdigest()

    def _function_digest(self, name: str) -> str:
        function = self._functions.get(name)
        if function is None:
            return name
        body = self._body(name)
        results = [function.ret[argument.name] for argument in function.signature.output_arg]
        effects = list(function.control_ret.values())
        texts = [f"{self._digest(body, _name(one))}:{_output(one)}" for one in results]
        texts += sorted(self._digest(body, one) for one in effects)  # a map has no order
        return hashlib.sha256("\n".join(texts).encode()).hexdigest()

    def _nodes(self, body: _Body, start: str, seen: set[tuple[int, str]]) -> Iterator[Any]:
        """A node and all that it is computed from, in functions, too."""
        waiting = [(body, _name(start))]
        while waiting:
            where, name = waiting.pop()
            node = where.nodes.get(name)
            if node is None or (id(where), name) in seen:
                continue
            seen.add((id(where), name))
            yield node
            waiting += [(where, _name(given)) for _, given in _named_inputs(node)]
            for value in node.attr.values():
                for one in (value.func, *value.list.func):
                    function = self._functions.get(one.name)
                    if function is not None:
                        inner = self._body(one.name)
                        waiting += [(inner, each.name) for each in function.node_def]


def _named_inputs(node: Any) -> Iterator[tuple[str, str]]:
    """The inputs of a node that count, each with the name that its op has for it."""
    names = tf_data_internals.input_names(node)
    for name, given in zip(names, node.input):
        if not given.startswith("^") and name not in _NO_INPUTS:
            yield name, given


def _name(tensor: str) -> str:
    return tensor.lstrip("^").partition(":")[0]


def _output(tensor: str) -> str:
    """Which output of a node: `0` in a graph, `handle:0` in a function."""
    return tensor.partition(":")[2] or "0"


def _shape_text(shape: Any) -> str:
    if shape.unknown_rank:
        return "[...]"
    return f"[{','.join('?' if d.size < 0 else str(d.size) for d in shape.dim)}]"


def _scalar_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value.item() if isinstance(value, np.generic) else value)
