"""The wrappers of optimizers that scale losses: which objects and names are theirs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from estimator_ckpt.objects.object_graph import ObjectGraph
from estimator_ckpt.roles.optimizers import LOSS_SCALES
from estimator_ckpt.roles.records import NEWER, TF1, LossScale

# All of Keras' wrappers have the optimizer under this name, whatever their objects are.
WRAPPED = next(one.inner for one in reversed(LOSS_SCALES) if one.inner)


def scale_of(graph: ObjectGraph, node: int) -> dict[str, int]:
    """The objects of a wrapper's numbers, by their names in the table; none if it is no wrapper."""
    for one in LOSS_SCALES:
        found = {}
        for number, path in one.paths.items():
            child: int | None = node
            for name in path:
                child = None if child is None else graph.nodes[child].children.get(name)
            if child is not None:
                found[number] = child
        if len(found) == len(one.paths):
            return found
    return {}


def loss_scale_of(dialect: str, is_keras_3: bool) -> LossScale:
    """The wrapper of a dialect's optimizers."""
    return LOSS_SCALES[1 if dialect == TF1 else 2 if dialect == NEWER and is_keras_3 else 0]


def is_scale(path: tuple[str, ...]) -> bool:
    """Whether a path is that of a wrapper's number."""
    return any(path[-len(end) :] == end for one in LOSS_SCALES for end in one.paths.values())


def wrapper_of(graph: ObjectGraph) -> dict[int, int]:
    """By the objects of wrapped optimizers the wrappers, where these are objects of their own."""
    found = {}
    for number, node in sorted(graph.nodes.others.items()):
        for one in LOSS_SCALES:
            inner = node.children.get(one.inner) if one.inner else None
            # Keras 2 has an empty object in this place, for TF 2.2's files.
            has_state = inner is not None and (
                graph.nodes[inner].children or graph.nodes[inner].slots
            )
            if inner is not None and has_state and scale_of(graph, number):
                found[inner] = number
    return found


def scale_by_names(names: Iterable[str]) -> Iterator[dict[str, str]]:
    """The names of wrappers' numbers, wrapper by wrapper: by the number's name in the table."""
    present = set(names)
    for one in _with_different_names():
        first, *others = one.names.items()
        for name in sorted(present):
            start, _, last = name.removesuffix(":0").rpartition("/")
            base, _, count = last.partition(first[1])
            in_scope = start.rpartition("/")[2].startswith(one.scope)
            if base or not last.startswith(first[1]) or not in_scope:
                continue
            found = {first[0]: name}
            for number, other in others:
                found[number] = name[: len(name) - len(name.rpartition("/")[2])] + other + count
                found[number] += ":0" if name.endswith(":0") else ""
            if present.issuperset(found.values()):
                yield found


def _with_different_names() -> list[LossScale]:
    return list({tuple(one.names.items()): one for one in LOSS_SCALES}.values())
