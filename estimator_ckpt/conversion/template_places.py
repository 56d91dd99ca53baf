"""Which tensor of a source goes to which place of a template: the template is the model that the
one matcher (matching/resolve.py) finds tensors for.

The names of a source without objects may be the template's object paths as well as its variable
names, and so may a name that a rule gives on purpose. Where the path of a place and its variable
name are names of two tensors, neither is taken without match_by.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from estimator_ckpt.bundle.dtypes import dtype_name
from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.conversion.plan import Item
from estimator_ckpt.matching.counted import keras_segments
from estimator_ckpt.matching.live import LiveObjects
from estimator_ckpt.matching.model import Model, ModelVariable
from estimator_ckpt.matching.resolve import RENAME, SAME_NAME, Match, resolve
from estimator_ckpt.matching.saved import Saved
from estimator_ckpt.objects.object_graph import STEP, VAR_LIST, ObjectGraph, parse_path
from estimator_ckpt.reading.variables import Variable
from estimator_ckpt.text.rows import Row

_DECIDES = "--match_by=path or name decides"
_BY_NAME = "--match_by=name takes the name"
# The words of the matcher, and those of a conversion.
_WORDS = (
    ("match_by='path' or 'name'", "--match_by=path or name"),
    ("match_by='name'", "--match_by=name"),
    ("variables of the model", "variables of the template"),
    ("there in the model,", "there in the template,"),
    ("in the checkpoint", "in the source"),
    ("the model's objects", "the template's objects"),
)


class Placed(NamedTuple):
    """What goes where.

    Attributes:
      items: the item for each place, by their numbers.
      ways: by which way each was found: "its name", "object path net/kernel", ...
      problems: a row for each place that it is not clear or known for, with the reason.
    """

    items: dict[int, int]
    ways: dict[int, str]
    problems: dict[int, Row]


class _Source(NamedTuple):
    """What the source has, under the names that the rules give it.

    Attributes:
      saved: as the matcher sees it.
      items: all of them.
      by_name: the numbers of those that objects may have, by their names.
      variables: the source's variables, by the numbers of the items.
      numbers: the first item of each variable, by its name in the source.
    """

    saved: Saved
    items: Sequence[Item]
    by_name: dict[str, int]
    variables: dict[int, Variable]
    numbers: dict[str, int]

    def number(self, match: Match, place: Item) -> int | None:
        """The item that a match leads to: of several names of one variable that of the place."""
        if match.source is None:
            return None
        own = self.by_name.get(place.name)
        if own is not None and self.variables.get(own) is match.source:
            return own
        return self.numbers[match.source.name]

    def is_same(self, one: int, other: int) -> bool:
        """Whether two items are one tensor, or have equal bytes."""
        return one == other or self.saved.same(self.variables[one], self.variables[other])


def place_items(
    items: Sequence[Item],
    step: int | None,
    *,
    places: Mapping[int, Item],
    optimizers: Collection[int],
    template: Checkpoint,
    source: Checkpoint,
    like: Any,
    match_by: str | None = None,
) -> Placed:
    """Finds the item for each place of a template, but for the slots of optimizers.

    Args:
      items: what the source has, under the names that the rules give it.
      step: which of them is the global step.
      places: what the template has, by number.
      optimizers: the node ids of the template's optimizers.
      template: where these are.
      source: where the items are.
      like: the template as it was given: a tf.train.Checkpoint knows the classes of its objects.
      match_by: "path" or "name" decides where the two lead to different tensors.
    """
    has = _read_source(items, source)
    graph = template.object_graph or ObjectGraph()
    structure = _without_lists(graph, optimizers)
    variables = _model_variables(places, like)
    matches = resolve(Model(variables, structure), has.saved, match_by=match_by).matches
    of_paths = _of_paths(has, places, structure, template)
    root_step = graph.nodes.children(0).get(STEP)
    found = Placed({}, {}, {})
    for number, place in places.items():
        match, at_path = matches[place.name], of_paths.get(number, [])
        named = has.number(match, place)
        chosen = _choose(has, named, at_path, match_by)
        if chosen is not None:
            found.items[number] = chosen
            is_plain = match.rule in (SAME_NAME, RENAME)
            found.ways[number] = "its name" if is_plain else match.rule
            if chosen != named:
                found.ways[number] = f"its name, the object path {items[chosen].name}"
        elif at_path:
            found.problems[number] = _two_names(has, place, named, at_path)
        elif place.node == root_step and step is not None:
            found.items[number] = step
            found.ways[number] = "being the global step"
        elif match.problem is not None and match.problem.note:
            found.problems[number] = _in_words_of_convert(match.problem)
    return found


def _choose(
    has: _Source, named: int | None, at_path: Sequence[int], match_by: str | None
) -> int | None:
    """Which item a place takes: one that was matched, or one whose name is the place's path."""
    if not at_path or (named is not None and any(has.is_same(named, one) for one in at_path)):
        return named
    if len(at_path) > 1:
        return None
    path_given = has.items[at_path[0]].renamed
    name_given = named is not None and has.items[named].renamed
    if named is None or path_given > name_given:
        return at_path[0]
    if path_given < name_given:
        return named
    return {"path": at_path[0], "name": named}.get(match_by or "")


def _two_names(has: _Source, place: Item, named: int | None, at_path: Sequence[int]) -> Row:
    """That a place's object path and its variable name lead to different items."""
    paths = " and ".join(has.items[number].name for number in at_path)
    note = _DECIDES
    if len(at_path) > 1:
        note = "these are paths to one object; leave all but one out (exclude)"
    by_name = "-" if named is None else has.items[named].name
    return Row("ambiguous", place.name, f"by path: {paths}", f"by name: {by_name}", note)


def _in_words_of_convert(problem: Row) -> Row:
    """A problem of the matcher, as it is told where the model is a template."""
    note, by_root, _ = problem.note.partition("; root=")
    if by_root:
        note = f"{note}; {_BY_NAME}"
    note, mapping, _ = note.partition("; give a mapping from")
    if mapping:
        note = f"{note}; name yours by the template's object paths (rename)"
    for words, others in _WORDS:
        note = note.replace(words, others)
    return replace(problem, note=note)


def _read_source(items: Sequence[Item], source: Checkpoint) -> _Source:
    by_key = {key: v for v in source.variables.values() for key in v.keys}
    names: dict[str, Variable] = {}
    by_name: dict[str, int] = {}
    variables: dict[int, Variable] = {}
    numbers: dict[str, int] = {}
    for number, item in enumerate(items):
        variable = by_key.get(item.own_key) if item.in_objects else None
        if variable is not None:
            names[item.name] = variable
            by_name.setdefault(item.name, number)
            variables[number] = variable
            numbers.setdefault(variable.name, number)
    given = {item.name for item in items if item.renamed and item.in_objects}
    saved = Saved(source, names=names, given=given)
    return _Source(saved, items, by_name, variables, numbers)


def _model_variables(places: Mapping[int, Item], like: Any) -> list[ModelVariable]:
    is_weak = LiveObjects(like).weak_names() if hasattr(like, "write") else {}
    return [
        ModelVariable(
            name=place.name,
            shape=place.content.shape,
            dtype=dtype_name(place.content.dtype),
            trainable=True,
            parts=(),
            called=place.owner,
            weak=is_weak.get(place.owner, ()) if is_weak else keras_segments(place.owner),
            node=place.node,
            attribute=place.attribute,
            suffix=place.suffix,
        )
        for place in places.values()
    ]


def _of_paths(
    has: _Source, places: Mapping[int, Item], structure: ObjectGraph, template: Checkpoint
) -> dict[int, list[int]]:
    """For each place the items whose names are paths to it: of a source without objects, or given.

    By any path that the template's objects have, not only by the one that is shown.
    """
    shown = {
        key: v.object_path for v in template.variables.values() if v.object_path for key in v.keys
    }
    of_path = {}
    of_node: dict[int, int] = {}
    for number, place in places.items():
        of_path[shown.get(place.content.source, "")] = number
        if not place.suffix:
            of_node.setdefault(place.node, number)
    found: dict[int, list[int]] = {}
    for name, number in has.by_name.items():
        if name and (has.items[number].renamed or not has.saved.has_objects):
            node = structure.child_at(parse_path(name))
            there = of_path.get(name, of_node.get(-1 if node is None else node))
            if there is not None:
                found.setdefault(there, []).append(number)
    return found


def _without_lists(graph: ObjectGraph, optimizers: Collection[int]) -> ObjectGraph:
    """The objects without those edges that only repeat names, or list what stands elsewhere."""
    structure = ObjectGraph(graph.nodes)
    for node in {0, *optimizers}:
        children = {} if node in optimizers else dict(graph.nodes.children(node))
        children.pop(VAR_LIST, None)
        structure.nodes[node] = graph.nodes[node]._replace(children=children)
    return structure
