"""Names to the objects of another checkpoint, matched by variable name."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from estimator_ckpt.bundle.dtypes import dtype_name
from estimator_ckpt.checkpoint import Checkpoint, open_checkpoint
from estimator_ckpt.conversion.names_to_objects import Structure, pruned, save_counter_item
from estimator_ckpt.conversion.objects_to_names import read_items
from estimator_ckpt.conversion.plan import (
    Content,
    Item,
    is_counter,
    is_number,
    number_content,
    read_number,
)
from estimator_ckpt.conversion.source_optimizers import KNOWN_SLOTS, Optimizer, find_optimizers
from estimator_ckpt.errors import MismatchError, SettingsError
from estimator_ckpt.objects.object_graph import (
    SAVE_COUNTER,
    STEP,
    VARIABLE_VALUE,
    Attribute,
    ObjectGraph,
    ObjectPath,
    object_key,
)
from estimator_ckpt.roles.dialects import (
    ITERATIONS,
    LEGACY_CLASSES,
    LEGACY_COUNT,
    NEWER_BY_CLASS,
    legacy_records,
)
from estimator_ckpt.roles.loss_scale import is_scale, loss_scale_of
from estimator_ckpt.roles.newer_keras import ALL_VARIABLES, classes, list_name
from estimator_ckpt.roles.records import LEGACY, NEWER
from estimator_ckpt.text.names import NameIndex, meant
from estimator_ckpt.text.quantities import counted, tensor_text
from estimator_ckpt.text.rows import Row, fold
from estimator_ckpt.text.tables import text_table

_MOST_HINTS = 100
_SHARED = "of a second optimizer of the class: one learning rate cannot scale the slots of both"


class TemplateOptimizers(NamedTuple):
    """What the optimizers of a template are.

    Attributes:
      newer: whether one of them is one of Keras' since 2.11.
      is_keras_3: whether that one is Keras 3's.
      numbers: the hyperparameters that they have as variables, by name; of several optimizers by
        their labels, `Adam/learning_rate`.
    """

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
        numbers = {}
        for optimizer in optimizers:
            own = optimizer.own if optimizer.newer is None else optimizer.newer.own
            start = f"{optimizer.label}/" if len(optimizers) > 1 else ""
            for name, number in own.items():
                content = places[number].content
                if is_number(content) and not is_counter(content):
                    value = read_number(template.prefix, template.index, content)
                    numbers[start + name.lstrip("_")] = value
        return TemplateOptimizers(bool(newer), any(one.is_keras_3 for one in newer), numbers)


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


def _graph_of(template: Checkpoint) -> ObjectGraph:
    if template.object_graph is None:
        raise SettingsError(
            "expected an object-based checkpoint, found a name-based one",
            path=template.prefix,
            key="like",
        )
    return template.object_graph


def like_structure(
    items: list[Item], step: int | None, like: Any, *, drop_slots: bool
) -> Structure:
    """The objects of another checkpoint, or of a tf.train.Checkpoint, with the values of `items`.

    Each value of the template takes the item of its variable name, or of its object path; a slot
    that of the same slot of the same variable and of an optimizer of the same class, such an
    optimizer's own variable that of its name, the root's `step` the global step.

    Raises:
      MismatchError: a value of the template has no item, or one of another shape or dtype; or an
        item has no place in the template. Lists all of them.
      SettingsError: the template has no objects.
    """
    with _opened(like) as template:
        return _fill(items, step, template, drop_slots, with_counter=hasattr(like, "write"))


def _fill(
    items: list[Item], step: int | None, template: Checkpoint, drop_slots: bool, with_counter: bool
) -> Structure:
    graph = _graph_of(template)
    places = read_items(template)
    optimizers = find_optimizers(places, graph)
    unwanted = {number for one in optimizers for number in one.items()} if drop_slots else set()
    wanted = {
        number: place
        for number, place in enumerate(places)
        if place.node >= 0 and number not in unwanted
    }
    found = _matched(items, step, wanted, template)
    matched, notes = _matched_slots(items, found, wanted, optimizers)
    found.update(matched)
    # Without a conversion of optimizers, what the template has is found by its name or path.
    newer = [one for one in optimizers if one.newer is not None and _relinked(items)]
    items = _with_newer(items, found, notes, template, places=wanted, optimizers=newer)
    if (
        step is not None
        and step not in found.values()
        and any(
            item.place is not None and item.place[-1] in (LEGACY_COUNT, ITERATIONS)
            for item in items
        )
    ):
        why = "the optimizer's count of steps is made of it; the template has no place for it"
        items[step] = items[step]._replace(in_objects=False, why=why)
    counter = graph.nodes[0].children.get(SAVE_COUNTER)
    for number, place in wanted.items():
        if place.node == counter and number not in found:
            items = [*items, save_counter_item()]
            found[number] = len(items) - 1
    _check(items, wanted, found, notes, template.prefix)

    new = pruned(graph, {(wanted[n].node, wanted[n].attribute): "" for n in found})
    _drop_all_variables(new, newer)
    keys: list[str | None] = [None] * len(items)
    for number, item in found.items():
        keys[item] = places[number].content.source
    if with_counter and SAVE_COUNTER not in new.nodes[0].children:
        items, keys = [*items, save_counter_item()], [*keys, object_key(SAVE_COUNTER)]
        new.add(0, SAVE_COUNTER, Attribute(VARIABLE_VALUE, SAVE_COUNTER, object_key(SAVE_COUNTER)))
    return Structure(items, keys, new)


def _matched(
    items: list[Item], step: int | None, wanted: dict[int, Item], template: Checkpoint
) -> dict[int, int]:
    """The item for each place, by variable name, by object path, and for the root's `step`."""
    by_name = {item.name: number for number, item in enumerate(items) if item.in_objects}
    paths = {
        key: variable.object_path
        for variable in template.variables.values()
        for key in variable.keys
    }
    assert template.object_graph is not None
    root_step = template.object_graph.nodes[0].children.get(STEP)
    found = {}
    for number, place in wanted.items():
        match = by_name.get(place.name)
        if match is None:
            match = by_name.get(paths.get(place.content.source) or "")
        if match is None and place.node == root_step:
            match = step
        if match is not None:
            found[number] = match
    return found


class _Relinked(NamedTuple):
    """An optimizer among the items, as it is to be: its slots and its own variables, by item."""

    kind: str
    slots: dict[tuple[str, str], int]  # by the variable's name and the slot's
    own: dict[str, int]


def _relinked(items: list[Item]) -> list[_Relinked]:
    found: dict[ObjectPath, _Relinked] = {}
    for number, item in enumerate(items):
        if item.in_objects and item.slot is not None:
            slot = item.slot
            one = found.setdefault(slot.optimizer, _Relinked(slot.kind, {}, {}))
            one.slots[slot.of, slot.name] = number
    for number, item in enumerate(items):
        is_own = item.in_objects and item.place is not None and len(item.place) > 1
        if is_own and item.place is not None and not is_scale(item.place):
            label = item.part.label if item.part is not None else ""
            one = found.setdefault(item.place[:-1], _Relinked(label, {}, {}))
            one.own[item.place[-1]] = number
    return list(found.values())


def _is_shared(items: list[Item], one: _Relinked, taken: list[_Relinked]) -> bool:
    """Whether another has slots of this optimizer, scaled by one learning rate; adds it to those.

    Two of one class on variables of their own have rates of their own, and names do not tell them.
    """
    is_scaled = any(items[number].content.scale != 1.0 for number in one.slots.values())
    is_shared = is_scaled and any(one is other for other in taken)
    taken.append(one)
    return is_shared


def _counterpart(optimizer: Optimizer, relinked: list[_Relinked]) -> _Relinked | None:
    """Which of the items' optimizers an optimizer of the template is.

    That of its class; where its name does not tell the class, the one that has the same slots. But
    Adam, Adamax and Nadam have slots of the same names, which mean something else.
    """
    alike = [one for one in relinked if one.kind == optimizer.label]
    if not alike and optimizer.label not in (*KNOWN_SLOTS, *LEGACY_CLASSES):
        names = optimizer.slot_names()
        alike = [one for one in relinked if {name for _, name in one.slots} == names]
        fitting = legacy_records(optimizer.label, names, optimizer.own)
        if len({legacy.name for _, legacy in fitting}) > 1:
            return None
    return alike[0] if len(alike) == 1 else None


def _matched_slots(
    items: list[Item], found: dict[int, int], wanted: dict[int, Item], optimizers: list[Optimizer]
) -> tuple[dict[int, int], dict[int, str]]:
    """The item for each slot and each variable of an optimizer's own; and why there is none."""
    matched, notes = {}, {}
    taken: list[_Relinked] = []
    relinked = _relinked(items)
    for optimizer in optimizers if relinked else ():
        if optimizer.newer is not None:
            continue
        other = _counterpart(optimizer, relinked)
        if other is None:
            kinds = ", ".join(sorted(one.kind for one in relinked))
            note = f"of {optimizer.label or 'an optimizer without a name'}; there is {kinds}"
            notes.update(dict.fromkeys(optimizer.items(), note))
            continue
        if _is_shared(items, other, taken):
            notes.update(dict.fromkeys(optimizer.items(), _SHARED))
            continue
        for slot in optimizer.slots:
            if slot.item in wanted and slot.variable in found:
                match = other.slots.get((items[found[slot.variable]].name, slot.name))
                if match is not None:
                    matched[slot.item] = match
        for name, place in optimizer.own.items():
            if place in wanted and name in other.own:
                matched[place] = other.own[name]
        scale = _scale_items(items, LEGACY, False)
        for name, place in optimizer.scale.items():
            if place in wanted and name in scale:
                matched[place] = scale[name]
    return matched, notes


def _scale_items(items: list[Item], dialect: str, is_keras_3: bool) -> dict[str, int]:
    """The numbers of loss scaling, where they have their places."""
    paths = loss_scale_of(dialect, is_keras_3).paths
    return {
        name: number
        for number, item in enumerate(items)
        for name, path in paths.items()
        if item.in_objects and item.place is not None and item.place[-len(path) :] == path
    }


def _with_newer(
    items: list[Item],
    found: dict[int, int],
    notes: dict[int, str],
    template: Checkpoint,
    *,
    places: Mapping[int, Item],
    optimizers: list[Optimizer],
) -> list[Item]:
    """Finds the items for Keras' newer optimizers of a template: slots by the order of its lists.

    Their `_learning_rate` and other numbers, which no TF1 optimizer keeps, stay the template's.

    Args:
      found, notes: the item of each place, and why there is none; added to.

    Returns:
      The items, with those of the template's numbers.
    """
    items, relinked = list(items), _relinked(items)
    taken: list[_Relinked] = []
    for optimizer in optimizers:
        state = optimizer.newer
        if state is None:
            continue
        fitting = classes(state)
        alike = [one for one in relinked if one.kind in fitting]
        if state.size and len(alike) != 1:
            kinds = ", ".join(sorted({one.kind for one in relinked})) or "none"
            note = f"of {' or '.join(fitting) or 'an optimizer'}; there is {kinds}"
            notes.update(dict.fromkeys(optimizer.items(), note))
            continue
        other = alike[0] if alike and state.size else _Relinked("", {}, {})
        if _is_shared(items, other, taken):
            notes.update(dict.fromkeys(optimizer.items(), _SHARED))
            continue
        placed = set()
        for slot in NEWER_BY_CLASS[other.kind].lists if other.kind else ():
            members = state.lists.get(list_name(other.kind, slot, state.is_keras_3), [])
            for place, owner in zip(members, state.owners):
                if place is None or place not in places:
                    continue
                if owner is None:
                    notes[place] = "nothing says whose slot it is; give the variables names"
                elif owner in found:
                    match = other.slots.get((items[found[owner]].name, slot))
                    if match is not None:
                        found[place] = match
                        placed.add(slot)
        for (_, slot), number in other.slots.items():
            if slot not in placed and not state.lists.get(
                list_name(other.kind, slot, state.is_keras_3)
            ):
                why = f"the template's {other.kind} has no {slot}"
                items[number] = items[number]._replace(in_objects=False, why=why)
        scale = _scale_items(items, NEWER, state.is_keras_3)
        if not optimizer.scale:
            for number in scale.values():
                why = "the template scales no losses"
                items[number] = items[number]._replace(in_objects=False, why=why)
        for name, place in optimizer.scale.items():
            if place in places and name in scale:
                found[place] = scale[name]
        for name, place in [
            *state.own.items(),
            *optimizer.scale.items(),
            *optimizer.wrapper.items(),
        ]:
            is_inner = place not in optimizer.wrapper.values()
            if place in places and is_inner and name in other.own and place not in found:
                found[place] = other.own[name]
            elif place in places and place not in found:
                content = places[place].content
                if is_number(content):
                    value = read_number(template.prefix, template.index, content)
                    new = number_content(value, content.dtype)
                    items.append(Item(new, places[place].name, "the template's", in_names=False))
                    found[place] = len(items) - 1
    return items


def _drop_all_variables(graph: ObjectGraph, optimizers: list[Optimizer]) -> None:
    """Keras' newer optimizers list all their variables once more: an order that shifts with their
    options, while the lists by slot say the same for certain."""
    for optimizer in optimizers:
        if optimizer.newer is not None:
            for number in {optimizer.newer.node, optimizer.wrapper_node} - {-1}:
                node = graph.nodes[number]
                children = {n: child for n, child in node.children.items() if n != ALL_VARIABLES}
                graph.nodes[number] = node._replace(children=children)


def _check(
    items: list[Item],
    wanted: dict[int, Item],
    found: dict[int, int],
    notes: dict[int, str],
    template: str,
) -> None:
    """Raises MismatchError for places without an item, items without one, and what does not fit."""
    rows = []
    missing = [number for number in wanted if number not in found]
    index = NameIndex(item.name for item in items if item.in_objects)
    for count, number in enumerate(missing):
        name, note = wanted[number].name, notes.get(number, "")
        if not note and count < _MOST_HINTS:
            note = meant(index.near(name, 1))
        rows.append(Row("missing", name, note=note))
    place_of: dict[int, str] = {}
    for number, match in found.items():
        place, has = wanted[number], items[match].content
        other = place_of.setdefault(match, place.name)
        if other != place.name:
            rows.append(Row("two places", items[match].name, note=f"{other} and {place.name}"))
        if place.content.shape != has.shape:
            rows.append(Row("shape", place.name, _text(place.content), _text(has)))
        elif place.content.dtype != has.dtype:
            names = dtype_name(place.content.dtype), dtype_name(has.dtype)
            rows.append(Row("dtype", place.name, *names))
    for number, item in enumerate(items):
        if item.in_objects and number not in place_of and item.place != (SAVE_COUNTER,):
            rows.append(Row("no place", item.name, note="rename it, or leave it out"))
    if rows:
        table = text_table(
            ("problem", "variable", "expected", "found", "note"),
            [(r.status, r.name, r.expected, r.found, r.note) for r in fold(rows)],
        )
        do = "does" if len(rows) == 1 else "do"
        raise MismatchError(
            f"{counted(len(rows), 'variable')} {do} not fit the objects of {template}:\n{table}"
        )


def _text(content: Content) -> str:
    return tensor_text(dtype_name(content.dtype), content.shape)
