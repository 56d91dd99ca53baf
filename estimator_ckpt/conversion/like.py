"""Names to the objects of another checkpoint, matched by variable name."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from estimator_ckpt.bundle.slices import key_bytes, key_text
from estimator_ckpt.checkpoint import Checkpoint, open_checkpoint
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.like_optimizers import (
    drop_all_variables,
    matched_slots,
    relinked_optimizers,
    with_newer,
)
from estimator_ckpt.conversion.misfits import Fit, Refusal, check_fit
from estimator_ckpt.conversion.names_to_objects import Structure, pruned, save_counter_item
from estimator_ckpt.conversion.objects_to_names import read_items
from estimator_ckpt.conversion.plan import (
    Item,
    is_counter,
    is_number,
    read_number,
)
from estimator_ckpt.conversion.source_optimizers import find_optimizers
from estimator_ckpt.conversion.template_places import place_items
from estimator_ckpt.errors import SettingsError
from estimator_ckpt.matching.resolve import BY_POSITION
from estimator_ckpt.objects.message import VARIABLE_VALUE
from estimator_ckpt.objects.nodes import Attribute
from estimator_ckpt.objects.object_graph import (
    OBJECT_GRAPH_KEY,
    SAVE_COUNTER,
    ObjectGraph,
    object_key,
)
from estimator_ckpt.roles.dialects import (
    ITERATIONS,
    LEGACY_COUNT,
)
from estimator_ckpt.text.names import some_of

_MOST_NAMED = 5


class TemplateOptimizers(NamedTuple):
    """What the optimizers of a template are.

    Attributes:
      name: what the user calls the template.
      newer: whether one of them is one of Keras' since 2.11.
      is_keras_3: whether that one is Keras 3's.
      numbers: the hyperparameters that they have as variables, by name; of several optimizers by
        their labels, `Adam/learning_rate`.
    """

    name: str
    newer: bool
    is_keras_3: bool
    numbers: Mapping[str, float]


def template_optimizers(like: Any) -> TemplateOptimizers:
    """The optimizers of the objects of `like`.

    Raises:
      SettingsError: the template has no objects.
      CheckpointError: it cannot be read.
    """
    with _opened(like) as template:
        places = read_items(template)
        optimizers = find_optimizers(places, _graph_of(template))
        newer = [one.newer for one in optimizers if one.newer is not None]
        numbers: dict[str, float] = {}
        labels = [optimizer.label for optimizer in optimizers]
        for optimizer in optimizers:
            if labels.count(optimizer.label) > 1:
                continue  # nothing tells whose number it would be
            own = optimizer.own if optimizer.newer is None else optimizer.newer.own
            start = f"{optimizer.label}/" if len(optimizers) > 1 else ""
            for name, number in own.items():
                content = places[number].content
                if is_number(content) and not is_counter(content):
                    value = read_number(template.prefix, template.index, content)
                    numbers[start + name.lstrip("_")] = value
        is_keras_3 = any(one.is_keras_3 for one in newer)
        return TemplateOptimizers(_name_of(like, template), bool(newer), is_keras_3, numbers)


def template_stamp(like: Any, *, numbers: bool) -> list[Any]:
    """What a template has that a result depends on, as JSON: its objects, keys, dtypes and shapes.

    Args:
      like: as for convert_checkpoint().
      numbers: whether the hyperparameters of its optimizers count, too.

    Raises:
      CheckpointError: it cannot be read.
    """
    with _opened(like) as template:
        index = template.index
        graph = index.entries.get(key_bytes(OBJECT_GRAPH_KEY))
        tensors = [[key_text(key), one.dtype, one.shape] for key, one in index.entries.items()]
        stamp = [graph and graph.crc32c, tensors]
    return [*stamp, dict(template_optimizers(like).numbers)] if numbers else stamp


@contextlib.contextmanager
def _opened(like: Any) -> Iterator[Checkpoint]:
    if hasattr(like, "write"):
        with tempfile.TemporaryDirectory() as directory:
            prefix = like.write(os.path.join(directory, "like"))
            with open_checkpoint(prefix) as template:
                yield template
    else:
        with open_checkpoint(like) as template:
            yield template


def _name_of(like: Any, template: Checkpoint) -> str:
    """What the user calls a template."""
    return "the tf.train.Checkpoint given as `like`" if hasattr(like, "write") else template.prefix


def _graph_of(template: Checkpoint) -> ObjectGraph:
    if template.object_graph is None:
        raise SettingsError(
            "expected an object-based checkpoint, found a name-based one",
            path=template.prefix,
            key="like",
        )
    return template.object_graph


def like_structure(
    items: list[Item],
    step: int | None,
    options: ConvertOptions,
    *,
    source: Checkpoint,
    refusal: Refusal | None = None,
) -> Structure:
    """The objects of another checkpoint, or of a tf.train.Checkpoint, with the values of `items`.

    Each value of the template takes the item that matching/resolve.py finds for it among what the
    source has: by the source's own objects first, if it has any, else by its variable name, or by
    its object path as a name. A slot takes that of the same slot of the same variable and of an
    optimizer of the same class, such an optimizer's own variable that of its name, the root's
    `step` the global step.

    Args:
      items: what the source has.
      step: which of them is the global step.
      options: `like`, `match_by`, `drop_slots`.
      source: where the items are.
      refusal: why the source's optimizers were not converted; nothing is returned then, but what
        else does not fit is told with it.

    Raises:
      MismatchError: a value of the template has no item, or one of another shape or dtype; or an
        item has no place in the template. Lists all of them.
      SettingsError: the template has no objects.
    """
    with _opened(options.like) as template:
        return _fill(items, step, template, source=source, options=options, refusal=refusal)


def _fill(
    items: list[Item],
    step: int | None,
    template: Checkpoint,
    *,
    source: Checkpoint,
    options: ConvertOptions,
    refusal: Refusal | None,
) -> Structure:
    with_counter = hasattr(options.like, "write")
    graph = _graph_of(template)
    places = read_items(template)
    optimizers = find_optimizers(places, graph)
    unwanted = {n for one in optimizers for n in one.items()} if options.drop_slots else set()
    wanted = {
        number: place
        for number, place in enumerate(places)
        if place.node >= 0 and number not in unwanted
    }
    found, ways, problems = place_items(
        items,
        step,
        places=wanted,
        optimizers=[one.newer.node for one in optimizers if one.newer is not None],
        template=template,
        source=source,
        like=options.like,
        match_by=options.match_by,
    )
    matched, notes = matched_slots(items, found, wanted, optimizers)
    found.update(matched)
    ways.update(dict.fromkeys(matched, ""))  # what they are to the optimizer says it
    # Without a conversion of optimizers, what the template has is found by its name or path.
    newer = [one for one in optimizers if one.newer is not None and relinked_optimizers(items)]
    items = with_newer(items, found, notes, template, places=wanted, optimizers=newer)
    if step is not None and step not in found.values() and _has_count(items):
        why = "the optimizer's count of steps is made of it; the template has no place for it"
        items[step] = items[step]._replace(in_objects=False, why=why)
    counter = graph.nodes[0].children.get(SAVE_COUNTER)
    for number, place in wanted.items():
        if place.node == counter and number not in found:
            items = [*items, save_counter_item()]
            found[number] = len(items) - 1
    items, unwritten = _without_new_numbers(items, found)
    fit = Fit(_name_of(options.like, template), wanted, found, problems, notes, optimizers, refusal)
    check_fit(fit, items, source.object_graph, options)
    items = _with_ways(items, found, ways)

    new = pruned(graph, {(wanted[n].node, wanted[n].attribute): "" for n in found})
    drop_all_variables(new, newer)
    keys: list[str | None] = [None] * len(items)
    for number, item in found.items():
        keys[item] = places[number].content.source
    if with_counter and SAVE_COUNTER not in new.nodes[0].children:
        items, keys = [*items, save_counter_item()], [*keys, object_key(SAVE_COUNTER)]
        new.add(0, SAVE_COUNTER, Attribute(VARIABLE_VALUE, SAVE_COUNTER, object_key(SAVE_COUNTER)))
    return Structure(items, keys, new, [*_notes(items, found, ways), *unwritten])


def _has_count(items: Sequence[Item]) -> bool:
    """Whether an optimizer has a count of its steps."""
    last = (item.place[-1] for item in items if item.place is not None)
    return any(name in (LEGACY_COUNT, ITERATIONS) for name in last)


def _without_new_numbers(
    items: list[Item], found: Mapping[int, int]
) -> tuple[list[Item], Sequence[str]]:
    """The items without numbers of optimizers that are new and have no place; and what to say.

    The template's program has them as constants, or in a schedule.
    """
    placed, names = set(found.values()), []
    items = list(items)
    for number, item in enumerate(items):
        is_new = item.in_objects and not item.content.source and item.slot is None
        if is_new and number not in placed and item.place != (SAVE_COUNTER,):
            why = f"{item.why}; the template has no variable for it"
            items[number] = item._replace(in_objects=False, why=why)
            names.append(item.name)
    if not names:
        return items, ()
    return items, (f"the template has no variable for {some_of(names, _MOST_NAMED)}",)


def _with_ways(items: list[Item], found: Mapping[int, int], ways: Mapping[int, str]) -> list[Item]:
    """The items, each with the way by which its place was found."""
    items = list(items)
    for place, number in found.items():
        if ways.get(place):
            why = f"matched by {ways[place]}"
            items[number] = items[number]._replace(
                why="; ".join(filter(None, (items[number].why, why)))
            )
    return items


def _notes(
    items: Sequence[Item], found: Mapping[int, int], ways: Mapping[int, str]
) -> Sequence[str]:
    """What was matched by nothing more than its position, to be said."""
    names = [items[found[place]].name for place, way in ways.items() if way.endswith(BY_POSITION)]
    if not names:
        return ()
    return (f"matched by position only: {some_of(names, _MOST_NAMED)}",)
