"""The objects of an eager program, as the model's side of a match: which object holds which."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from estimator_ckpt.matching.counted import may_be_counted, weak_segments
from estimator_ckpt.matching.kinds import (
    has_other_state,
    is_layer,
    is_metric,
    is_optimizer,
    is_seed,
    is_variable,
    own_name,
    role_by_name,
    shape_and_dtype,
)
from estimator_ckpt.matching.live_optimizers import live_optimizer
from estimator_ckpt.matching.lookup_tables import ATTRIBUTE, SUFFIXES, TablePart, is_table
from estimator_ckpt.matching.model import Model, ModelVariable, OtherState
from estimator_ckpt.objects.nodes import Node, SlotReference
from estimator_ckpt.objects.object_graph import SAVE_COUNTER, ObjectGraph, ObjectPath, path_string
from estimator_ckpt.roles import COUNTER, METRIC, NUMBER, SEED, SLOT, STEP
from estimator_ckpt.roles.newer_names import flat_names, newer_keras_slot
from estimator_ckpt.roles.training_state import STEP_NAMES

# Of Keras 3's optimizers: a list of the model's variables, not of their own.
_OF_THE_MODEL = "_trainable_variables"
_ALL = "_variables"
_VARIABLES = "variables"


class _Slot(NamedTuple):
    optimizer: int
    name: str
    original: int
    slot: int


class LiveObjects:
    """The objects below a root, each once; node ids count them from 0, the root.

    Attributes:
      live: the objects by node id.
      beside: variables that Keras knows and no object holds: of layers in a plain list, in Keras 3.
    """

    def __init__(self, root: Any) -> None:
        """Goes through the objects, as tf.train.Checkpoint does.

        Raises:
          AttributeError, TypeError, ValueError: it is no trackable object.
        """
        import tensorflow as tf

        self.live: list[Any] = []
        self._children: list[dict[str, int]] = []
        self._number: dict[int, int] = {}
        self._is_bare = not isinstance(root, tf.train.Checkpoint)
        view = tf.train.TrackableView(root)
        self._add(root)
        for node, one in enumerate(self.live):  # which grows on the way
            edges = dict(view.children(one))
            if node == 0 and not self._is_bare and hasattr(root, "root"):
                # The others that it was given stand beside the children of its root.
                inner = root.root() if isinstance(root.root, weakref.ref) else root.root
                edges = {**view.children(inner), **edges, "root": root}
            self._children.append({name: self._add(child) for name, child in edges.items()})
        self._variables = [n for n, one in enumerate(self.live) if is_variable(one)]
        self._tables = [n for n, one in enumerate(self.live) if is_table(one)]
        self._optimizers = self._outermost_optimizers()
        self._slots = list(self._find_slots())
        known = {id(self.live[node]) for node in self._variables}
        self.beside: list[Any] = []
        for layer in list(self.live):
            for variable in layer.variables if is_layer(layer) and layer.built else ():
                if id(variable) not in known:
                    known.add(id(variable))
                    self.beside.append(variable)
        is_model = self._is_bare and is_layer(root) and root.built
        if is_model and _VARIABLES not in self._children[0]:
            # As a SavedModel has them, which may have nothing else (Keras' export()).
            items = [self._number.get(id(variable)) for variable in root.variables]
            listed = {str(n): node for n, node in enumerate(items) if node is not None}
            self._children[0][_VARIABLES] = self._add([])
            self._children.append(listed)

    def _add(self, one: Any) -> int:
        number = self._number.setdefault(id(one), len(self.live))
        if number == len(self.live):
            self.live.append(one)
        return number

    def model(self) -> tuple[Model, dict[str, Any]]:
        """The variables, the model's own before those of its training; and these by their names."""
        paths, roles, optimizer_of = self._ways()
        own = {node: own_name(self.live[node]) for node in paths if node in roles}
        counted = dict(zip(own, may_be_counted(list(own.values()))))
        times = Counter([*own.values(), *map(own_name, self.beside)])
        owners = self._owners(own)
        classes = self._classes()
        variables: list[ModelVariable] = []
        by_name: dict[str, Any] = {}

        def add(name: str, variable: Any, **known: Any) -> None:
            shape, dtype = shape_and_dtype(variable)
            made = ModelVariable(name, shape, dtype, bool(variable.trainable), **known)
            variables.append(made)
            by_name[name] = variable

        for node, called in own.items():
            optimizer = optimizer_of.get(node)
            weak = weak_segments(called, classes[node])
            is_named = optimizer is not None or not weak[-1]
            add(
                called if is_named and times[called] == 1 else path_string(paths[node]),
                self.live[node],
                parts=(f"{called}:0",),
                called=called if is_named else "",
                weak=weak if optimizer is None else (True,) * len(weak),
                is_counted=counted[node],
                node=node,
                role=roles[node],
                optimizer="" if optimizer is None else path_string(paths[optimizer]),
                owner=owners.get(node, ""),
            )
        for made, part in self._table_parts(paths):
            variables.append(made)
            by_name[made.name] = part
        metrics = self._of_layers_metrics()
        for number, variable in enumerate(self.beside):
            called = own_name(variable)
            add(
                called if times[called] == 1 else f"{called} [{number}]",
                variable,
                parts=(f"{called}:0",),
                called=called,
                weak=weak_segments(called, {type(one).__name__ for one in self.live}),
                role=METRIC if id(variable) in metrics else role_by_name(variable),
            )
        optimizers = {path_string(paths[node]): node for node in self._optimizers if node in paths}
        live = [live_optimizer(n, self.live[node], by_name) for n, node in optimizers.items()]
        model = Model(
            variables,
            self._structure(paths),
            optimizers,
            self._is_bare,
            starts_all=True,
            scope=self._scope(variables),
            others=self._others(paths, by_name),
            live_optimizers=live,
        )
        return model, by_name

    def _table_parts(
        self, paths: Mapping[int, ObjectPath]
    ) -> Iterator[tuple[ModelVariable, TablePart]]:
        """Keys and values of lookup tables, which start as variables do."""
        for node in filter(paths.__contains__, self._tables):
            table, values = self.live[node], dict[str, Any]()
            for suffix in SUFFIXES:
                part = TablePart(table, suffix, values)
                made = ModelVariable(
                    name=(path_string(paths[node]) or ATTRIBUTE) + suffix,
                    shape=None,
                    dtype=str(part.dtype.name),
                    trainable=False,
                    parts=(),
                    called="",
                    node=node,
                    attribute=ATTRIBUTE,
                    suffix=suffix,
                )
                yield made, part

    def _of_layers_metrics(self) -> set[int]:
        """The variables, by id(), of metrics that layers know."""
        layers = filter(is_layer, self.live)
        metrics = (metric for layer in layers for metric in getattr(layer, "metrics", ()))
        return {id(variable) for metric in metrics for variable in metric.variables}

    def _scope(self, variables: Sequence[ModelVariable]) -> str:
        """What a model, and not one layer alone, puts before all names of its variables.

        It is the root, or one that the root holds beside other things: a step, an optimizer.
        """
        names = [v.known_as for v in variables if v.is_required]
        for node in (0, *self._children[0].values()):
            scope = f"{self.live[node].name}/" if is_layer(self.live[node]) else ""
            if scope and all(n.startswith(scope) and n.count("/") > 1 for n in names):
                return scope
        return ""

    def _others(self, paths: Mapping[int, ObjectPath], taken: Collection[str]) -> list[OtherState]:
        found = []
        for node, one in enumerate(self.live):
            if node in paths and has_other_state(one):
                name, kind = path_string(paths[node]) or "/", type(one).__name__
                found.append(OtherState(f"{name} ({kind})" if name in taken else name, kind))
        return found

    @property
    def hold_anything(self) -> bool:
        """Whether there is anything to start: variables, or lookup tables."""
        return bool(self._variables or self._tables or self.beside)

    def weak_names(self) -> dict[str, tuple[bool, ...]]:
        """By the names of the variables, for each segment whether a counter may have made it."""
        classes = self._classes()
        names = {node: own_name(self.live[node]) for node in self._variables}
        return {name: weak_segments(name, classes[node]) for node, name in names.items()}

    def _outermost_optimizers(self) -> list[int]:
        inner: set[int] = set()
        found = []
        for node, one in enumerate(self.live):
            if is_optimizer(one) and node not in inner:
                found.append(node)
                inner.update(self._below([node], {}))
        return found

    def _below(self, start: Sequence[int], skip: Mapping[int, Any]) -> dict[int, ObjectPath]:
        """The objects that edges reach, by breadth, with the rest of the path to each."""
        found: dict[int, ObjectPath] = dict.fromkeys(start, ())
        waiting = list(start)
        for parent in waiting:
            if parent in skip and parent not in start:
                continue
            for name, child in self._children[parent].items():
                if child not in found:
                    found[child] = (*found[parent], name)
                    waiting.append(child)
        return found

    def _ways(self) -> tuple[dict[int, ObjectPath], dict[int, str], dict[int, int]]:
        """The path to each object, what each variable is for, and whose the optimizers' are.

        A path leads through the model, if one does, and not through its optimizer, metrics or
        generators of random numbers.
        """
        aside = {node: METRIC for node, one in enumerate(self.live) if is_metric(one)}
        aside.update({node: SEED for node, one in enumerate(self.live) if is_seed(one)})
        aside.update(dict.fromkeys(self._optimizers, NUMBER))
        paths = self._below([0], aside)
        roles: dict[int, str] = {}
        optimizer_of: dict[int, int] = {}
        if 0 not in aside:
            for node in filter(paths.__contains__, self._variables):
                roles[node] = self._role(node, paths[node])
        for start in [node for node in (0, *aside) if node in aside]:
            for node, rest in self._below([start], {}).items():
                paths.setdefault(node, (*paths.get(start, ()), *rest))
                if node not in self._variables or node in roles:
                    continue
                roles[node] = aside[start]
                if aside[start] == NUMBER and _OF_THE_MODEL in rest:
                    roles[node] = self._role(node, rest)
                elif aside[start] == NUMBER:
                    roles[node] = NUMBER if len(rest) == 1 else SLOT
                    optimizer_of[node] = start
        for optimizer, name, original, slot in self._slots:
            if slot not in roles:
                roles[slot] = SLOT
                optimizer_of[slot] = next(
                    (one for one in self._optimizers if optimizer in self._below([one], {})),
                    optimizer,
                )
                paths[slot] = (*paths[original], *paths[optimizer], name)
        return paths, roles, optimizer_of

    def _role(self, node: int, path: ObjectPath) -> str:
        variable = self.live[node]
        shape, dtype = shape_and_dtype(variable)
        if not self._is_bare and path == (SAVE_COUNTER,):
            return COUNTER
        if shape == () and dtype in ("int32", "int64"):
            last = own_name(variable).rpartition("/")[2]
            if last == STEP_NAMES[0] or (len(path) == 1 and path[0] in STEP_NAMES):
                return STEP
        return role_by_name(variable)

    def _find_slots(self) -> Iterator[_Slot]:
        """Slot variables that no edge leads to: of tf.compat.v1 and Keras' legacy optimizers."""
        for node, one in enumerate(list(self.live)):
            if not is_optimizer(one) or not hasattr(one, "get_slot_names"):
                continue
            for name in one.get_slot_names():
                for original in self._variables:
                    try:
                        slot = one.get_slot(self.live[original], name)
                    except (AttributeError, KeyError):
                        continue
                    if slot is not None:
                        number = self._add(slot)
                        if number == len(self._children):
                            self._children.append({})
                            self._variables = [*self._variables, number]
                        yield _Slot(node, name, original, number)

    def _owners(self, own: Mapping[int, str]) -> dict[int, str]:
        """The names of the slots' variables by the node ids of the slots."""
        found = {slot: own[original] for _, _, original, slot in self._slots if original in own}
        for optimizer in self._optimizers:
            inside = self._below([optimizer], {})
            for node in inside:
                children = self._children[node]
                if _ALL not in children:
                    continue
                in_order = self._children[children.get(_OF_THE_MODEL, children[_ALL])]
                flat = flat_names(own.values())
                shapes = {name: shape_and_dtype(self.live[n])[0] for n, name in own.items()}
                for name, listed in children.items():
                    if name in (_ALL, _OF_THE_MODEL):
                        continue
                    for position, slot in self._children[listed].items():
                        if _OF_THE_MODEL in children and position in in_order:
                            found[slot] = own.get(in_order[position], "")
                        elif slot in own:
                            shape = shapes[own[slot]] or ()
                            named = newer_keras_slot(own[slot], shape, shapes.get, flat)
                            if named is not None:
                                found[slot] = named.variable
        return found

    def _classes(self) -> dict[int, set[str]]:
        """For each object the classes of those that hold it, however indirectly."""
        parents: list[list[int]] = [[] for _ in self.live]
        for parent, children in enumerate(self._children):
            for child in children.values():
                parents[child].append(parent)
        names = [type(one).__name__ for one in self.live]
        found: dict[int, set[str]] = {}
        for node in self._variables:
            above = {node}
            waiting = [node]
            for one in waiting:
                for parent in parents[one]:
                    if parent not in above and parent not in self._optimizers:
                        above.add(parent)
                        waiting.append(parent)
            found[node] = {names[one] for one in above}
        return found

    def _structure(self, paths: Mapping[int, ObjectPath]) -> ObjectGraph:
        """The objects; of an optimizer's list of the model's variables, those with no other way."""
        nodes = []
        for node, children in enumerate(self._children):
            slots = tuple(
                SlotReference(one.name, one.original, one.slot)
                for one in self._slots
                if one.optimizer == node
            )
            kept = {
                name: child
                for name, child in children.items()
                if name != _OF_THE_MODEL
                or any(_OF_THE_MODEL in paths[item] for item in self._children[child].values())
            }
            nodes.append(Node(kept, (), slots))
        return ObjectGraph(nodes)
