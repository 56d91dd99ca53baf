"""Where a model's objects stand among those of a checkpoint, and the tensors in their places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from estimator_ckpt.errors import SettingsError
from estimator_ckpt.matching.counted import is_position
from estimator_ckpt.matching.model import NO_NODE, Model, ModelVariable
from estimator_ckpt.matching.saved import Named, Saved
from estimator_ckpt.objects.object_graph import (
    SAVE_COUNTER,
    STEP,
    ObjectGraph,
    match,
    parse_path,
)
from estimator_ckpt.reading.variables import Variable
from estimator_ckpt.roles import COUNTER
from estimator_ckpt.roles.dialects import LEGACY_NUMBERS
from estimator_ckpt.roles.training_state import SEED_NAME
from estimator_ckpt.text.names import did_you_mean, near_names

_MOST_SHOWN = 5

# What an object holds: the ways to its tensors, each with the tensor's rank.
_Look = frozenset[tuple[tuple[str, ...], int]]


@dataclass
class Structure:
    """What the objects of a model and of a checkpoint say.

    Attributes:
      tensors: the variables of the checkpoint by the model's variable that stands in their place;
        more than one where its paths lead to different ones.
      objects: the node ids in the checkpoint by those of the model.
      by_position: the names of the variables of which a position decides, in a list or among the
        layers of a Keras model.
      disputed: those of them where model and checkpoint have different numbers of objects that look
        alike, each with what was counted: one more or less has moved the positions.
      places: where a bare object fits, if that is more than one place.
      of_another_kind: the slots in whose places another kind of optimizer has others.
    """

    tensors: Mapping[str, Sequence[Variable]] = field(default_factory=dict)
    objects: Mapping[int, Sequence[int]] = field(default_factory=dict)
    by_position: set[str] = field(default_factory=set)
    disputed: dict[str, str] = field(default_factory=dict)
    places: Sequence[str] = ()
    of_another_kind: set[str] = field(default_factory=set)

    def says_anything(self, model: Model) -> bool:
        """Whether it finds more than a step and a count of saves, which the default has, too."""
        edges = model.structure.nodes.children(0)
        flat = {edges.get(name) for name in (STEP, SAVE_COUNTER)}
        return any(v.name in self.tensors and v.node not in flat for v in model.variables)


def find_structure(model: Model, saved: Saved, root: str | None = None) -> Structure:
    """Lays the objects of a model on those of a checkpoint.

    A tf.train.Checkpoint is laid on the root. A bare object is laid on the one node under which all
    of its variables fit, by path and shape. Where the model has names alone, `root` is the object
    that has the variables under these: a dictionary, such as `vars`.

    Args:
      model: with its structure.
      saved: the checkpoint.
      root: the object path in the checkpoint where the model's root object stands, `/` for the
        checkpoint's root; None to find it.

    Raises:
      SettingsError: there is no such path.
    """
    if root is not None:
        start = _node_at(saved, root)
        if model.has_names_alone:
            return Structure(stand_below(model, saved, start))
        return _laid(model, saved, start)
    if len(model.structure.nodes) == 1:
        return Structure()  # names alone
    if not model.is_bare:
        return _laid(model, saved, 0)
    fitting = _fitting(model, saved)
    if len(fitting) > 1:
        agreeing = {n: one for n, one in fitting.items() if not _contradicts(model, saved, one)}
        fitting = agreeing or fitting
    if not fitting:
        return Structure()
    start, *others = fitting
    if others:
        return Structure(places=[saved.path_of(node) for node in fitting])
    return _laid(model, saved, start)


def stand_below(model: Model, saved: Saved, start: int) -> dict[str, list[Variable]]:
    """What stands in the places of a model's variables below one object of a checkpoint.

    Args:
      model: with objects; or with names alone, each the name of one edge from there (a dictionary
        of variables), or of one edge for each scope.
      saved: the checkpoint.
      start: the node id of the object.
    """
    if not model.has_names_alone:
        return _tensors(model, saved, match(model.structure, saved.graph, start))
    found = {}
    for variable in model.variables:
        name = variable.known_as
        for path in ((name,), tuple(name.split("/"))):
            node = saved.graph.child_at(path, start) if name else None
            tensor = None
            if node is not None:
                tensor = saved.at_node(node, variable.attribute, variable.suffix)
            if tensor is not None:
                found[variable.name] = [tensor]
                break
    return found


def by_strong_name(
    variable: ModelVariable, saved: Saved, named: Named | None = None
) -> list[Variable]:
    """What a checkpoint has under a name, as far as that was given and no counter made it.

    Args:
      named: what it has under the whole name, if that is known.
    """
    if not variable.tensor:
        return []
    if not variable.is_weak:
        if named is None:
            named = saved.named(variable.known_as, variable.attribute, variable.suffix)
        return saved.distinct(named.all())
    if all(variable.weak[:-1]) or variable.weak[-1]:
        return []  # `kernel` alone says nothing
    return saved.of_masked_name(variable.known_as, variable.weak)


def _node_at(saved: Saved, root: str) -> int:
    node = saved.graph.child_at(parse_path(root.strip("/")))
    if node is None or not saved.has_objects:
        paths = [saved.path_of(number) for number in sorted(saved.graph.nodes.others)]
        hint = did_you_mean(near_names(root, paths))
        raise SettingsError(
            f"{saved.checkpoint.prefix} has no object at {root!r}{hint}", key="root"
        )
    return node


def _laid(model: Model, saved: Saved, start: int) -> Structure:
    objects = match(model.structure, saved.graph, start)
    found = Structure(objects=objects)
    others: set[int] = set()
    for optimizer, slot in model.structure.slot_references():
        is_legacy = _is_legacy(model.structure, optimizer)
        if any(_is_legacy(saved.graph, node) != is_legacy for node in objects.get(optimizer, ())):
            objects.pop(slot.slot, None)
            others.add(slot.slot)
    found.of_another_kind = {v.name for v in model.variables if v.node in others}
    found.tensors = _tensors(model, saved, objects)
    _count_alike(model, saved, found)
    return found


def _is_legacy(graph: ObjectGraph, optimizer: int) -> bool:
    """Whether an optimizer with slots is one of Keras', whose slots mean something else than TF1's:
    the `momentum` of SGD is -learning_rate times that of Momentum.
    """
    return not LEGACY_NUMBERS.isdisjoint(graph.nodes.children(optimizer))


def _tensors(
    model: Model, saved: Saved, objects: Mapping[int, Sequence[int]]
) -> dict[str, list[Variable]]:
    found = {}
    for variable in model.variables:
        nodes = objects.get(variable.node, ()) if variable.node != NO_NODE else ()
        at = (saved.at_node(node, variable.attribute, variable.suffix) for node in nodes)
        tensors = [one for one in at if one is not None]
        if tensors:
            found[variable.name] = saved.distinct(tensors)
    return found


def _to_fit(model: Model) -> list[ModelVariable]:
    """The variables by which a place is found: not those that a checkpoint may well lack."""
    held = [v for v in model.variables if v.node != NO_NODE and v.role != COUNTER]
    return [v for v in held if v.is_required] or held


def _fitting(model: Model, saved: Saved) -> dict[int, dict[str, list[Variable]]]:
    """The nodes of the checkpoint under which all variables of a model fit, with what is there."""
    wanted = _to_fit(model)
    edges = model.structure.nodes.children(0).keys()
    found: dict[int, dict[str, list[Variable]]] = {}
    known = set()
    for node in sorted(saved.graph.nodes.others) if wanted else ():
        if edges.isdisjoint(saved.graph.nodes.children(node)):
            continue
        tensors = _tensors(model, saved, match(model.structure, saved.graph, node))
        if all(any(_has_shape(v, one) for one in tensors.get(v.name, ())) for v in wanted):
            keys = tuple(one.key for v in wanted for one in tensors[v.name])
            if keys not in known:
                known.add(keys)
                found[node] = tensors
    return found


def _has_shape(variable: ModelVariable, tensor: Variable) -> bool:
    return variable.shape is None or variable.shape == tensor.shape


def _contradicts(model: Model, saved: Saved, tensors: Mapping[str, Sequence[Variable]]) -> bool:
    """Whether a name that was given says of any variable that it stands elsewhere."""
    for variable in _to_fit(model):
        named = by_strong_name(variable, saved)
        here = tensors.get(variable.name, ())
        if named and here and not any(saved.same(one, other) for one in named for other in here):
            return True
    return False


def _count_alike(model: Model, saved: Saved, found: Structure) -> None:
    """Finds the variables of which positions decide, and where these cannot be trusted."""
    named = {v.node: v for v in _to_fit(model) if v.shape is not None}
    looks = _Looks(model.structure, {node: len(v.shape or ()) for node, v in named.items()})
    for parent, others in found.objects.items():
        ours = _at_positions(model.structure, parent)
        if not ours or parent in model.optimizers.values():
            continue
        for other in others:
            theirs = _at_positions(saved.graph, other)
            if not theirs:
                continue
            groups = looks.groups(ours)
            for look, alike in groups.items():
                below = {named[n].name for child in alike for n in looks.below(child)}
                found.by_position |= below
                count = sum(len(some) for other, some in groups.items() if look <= other)
                there = sum(_is_like(saved, one, look) for one in theirs)
                if there != count:
                    note = f"{count} alike there in the model, {there} in the checkpoint"
                    found.disputed.update(dict.fromkeys(below, note))


def _at_positions(graph: ObjectGraph, node: int) -> list[int]:
    children = graph.nodes.children(node)
    return list(dict.fromkeys(child for name, child in children.items() if is_position(name)))


def _is_like(saved: Saved, node: int, look: _Look) -> bool:
    for path, rank in look:
        found = saved.graph.child_at(path, node)
        variable = None if found is None else saved.at_node(found)
        if variable is None or len(variable.shape) != rank or variable.name.endswith(SEED_NAME):
            return False
    return True


class _Looks:
    """What the objects of a model hold, by which one is like another."""

    def __init__(self, graph: ObjectGraph, ranks: Mapping[int, int]) -> None:
        self._graph = graph
        self._ranks = ranks
        self._paths: dict[int, dict[int, tuple[str, ...]]] = {}

    def _below(self, node: int) -> dict[int, tuple[str, ...]]:
        paths = self._paths.get(node)
        if paths is None:
            paths = self._paths[node] = {node: ()}
            waiting = [node]
            for parent in waiting:
                for name, child in self._graph.nodes.children(parent).items():
                    if child not in paths:
                        paths[child] = (*paths[parent], name)
                        waiting.append(child)
        return paths

    def below(self, node: int) -> list[int]:
        """The objects of variables that an object holds."""
        return [one for one in self._below(node) if one in self._ranks]

    def groups(self, nodes: Sequence[int]) -> dict[_Look, list[int]]:
        """The objects that hold any variables by what they look like."""
        found: dict[_Look, list[int]] = {}
        for node in nodes:
            look = self.of(node)
            if look:
                found.setdefault(look, []).append(node)
        return found

    def of(self, node: int) -> _Look:
        """The ways from an object to the variables that it holds."""
        paths = self._below(node)
        return frozenset((paths[one], self._ranks[one]) for one in self.below(node))
