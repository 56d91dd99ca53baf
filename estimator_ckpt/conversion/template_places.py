"""Which tensor of a source goes to which place of a template: the template is the model that the
one matcher (matching/resolve.py) finds tensors for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from estimator_ckpt.bundle.dtypes import dtype_name
from estimator_ckpt.checkpoint import Checkpoint, Variable
from estimator_ckpt.conversion.plan import Item
from estimator_ckpt.matching.counted import keras_segments
from estimator_ckpt.matching.live import LiveObjects
from estimator_ckpt.matching.model import Model, ModelVariable
from estimator_ckpt.matching.resolve import resolve
from estimator_ckpt.matching.saved import Saved
from estimator_ckpt.objects.object_graph import STEP, VAR_LIST, ObjectGraph
from estimator_ckpt.text.rows import Row

_DECIDES = "a `rename` rule for it decides, one that makes the same name, too"


class Placed(NamedTuple):
    """What goes where.

    Attributes:
      items: the item for each place, by their numbers.
      problems: a row for each place that it is not clear or known for, with the reason.
    """

    items: dict[int, int]
    problems: dict[int, Row]


def place_items(
    items: Sequence[Item],
    step: int | None,
    *,
    places: Mapping[int, Item],
    optimizers: Collection[int],
    template: Checkpoint,
    source: Checkpoint,
    like: Any,
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
    """
    saved, numbers = _saved(items, source)
    is_weak = LiveObjects(like).weak_names() if hasattr(like, "write") else {}
    variables = {
        number: ModelVariable(
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
        for number, place in places.items()
    }
    graph = template.object_graph or ObjectGraph()
    structure = _without_lists(graph, optimizers)
    matches = resolve(Model(list(variables.values()), structure), saved).matches
    by_name = {item.name: number for number, item in enumerate(items) if item.in_objects}
    paths = {key: v.object_path for v in template.variables.values() for key in v.keys}
    root_step = graph.nodes.children(0).get(STEP)
    found: dict[int, int] = {}
    problems: dict[int, Row] = {}
    for number, place in places.items():
        match = matches[place.name]
        if match.source is not None:
            found[number] = numbers[match.source.name]
            continue
        named: int | None = None
        if not saved.has_objects:
            named = by_name.get(paths.get(place.content.source) or "")
        if named is None and place.node == root_step:
            named = step
        if named is not None:
            found[number] = named
        elif match.problem is not None and match.problem.note:
            note = match.problem.note.partition("; match_by")[0].partition("; root=")[0]
            problems[number] = replace(match.problem, note=f"{note}; {_DECIDES}")
    return Placed(found, problems)


def _saved(items: Sequence[Item], source: Checkpoint) -> tuple[Saved, dict[str, int]]:
    """The source under the items' names; and the numbers of the items by the source's names."""
    by_key = {key: v for v in source.variables.values() for key in v.keys}
    names: dict[str, Variable] = {}
    given: set[str] = set()
    numbers: dict[str, int] = {}
    for number, item in enumerate(items):
        variable = by_key.get(item.own_key) if item.in_objects else None
        if variable is not None:
            names[item.name] = variable
            numbers.setdefault(variable.name, number)
            if item.renamed:
                given.add(item.name)
    return Saved(source, names=names, given=given), numbers


def _without_lists(graph: ObjectGraph, optimizers: Collection[int]) -> ObjectGraph:
    """The objects without those edges that only repeat names, or list what stands elsewhere."""
    structure = ObjectGraph(graph.nodes)
    for node in {0, *optimizers}:
        children = {} if node in optimizers else dict(graph.nodes.children(node))
        children.pop(VAR_LIST, None)
        structure.nodes[node] = graph.nodes[node]._replace(children=children)
    return structure
