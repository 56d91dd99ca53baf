"""The optimizers of a template, found among what is converted: by slots, or by their lists."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.conversion.found_optimizer import KNOWN_SLOTS, Optimizer
from estimator_ckpt.conversion.plan import (
    Item,
    is_number,
    number_content,
    read_number,
)
from estimator_ckpt.objects.object_graph import (
    ObjectGraph,
    ObjectPath,
)
from estimator_ckpt.roles.dialects import (
    LEGACY_CLASSES,
    NEWER_BY_CLASS,
    legacy_records,
)
from estimator_ckpt.roles.loss_scale import is_scale, loss_scale_of
from estimator_ckpt.roles.newer_keras import ALL_VARIABLES, NewerState, classes, list_name
from estimator_ckpt.roles.records import LEGACY, NEWER

_SHARED = "of a second optimizer of the class: one learning rate cannot scale the slots of both"


class Relinked(NamedTuple):
    """An optimizer among the items, as it is to be: its slots and its own variables, by item."""

    kind: str
    slots: dict[tuple[str, str], int]  # by the variable's name and the slot's
    own: dict[str, int]


def relinked_optimizers(items: list[Item]) -> list[Relinked]:
    found: dict[ObjectPath, Relinked] = {}
    for number, item in enumerate(items):
        if item.in_objects and item.slot is not None:
            slot = item.slot
            one = found.setdefault(slot.optimizer, Relinked(slot.kind, {}, {}))
            one.slots[slot.of, slot.name] = number
    for number, item in enumerate(items):
        is_own = item.in_objects and item.place is not None and len(item.place) > 1
        if is_own and item.place is not None and not is_scale(item.place):
            label = item.part.label if item.part is not None else ""
            one = found.setdefault(item.place[:-1], Relinked(label, {}, {}))
            one.own[item.place[-1]] = number
    return list(found.values())


def _is_shared(items: list[Item], one: Relinked, taken: list[Relinked]) -> bool:
    """Whether another has slots of this optimizer, scaled by one learning rate; adds it to those.

    Two of one class on variables of their own have rates of their own, and names do not tell them.
    """
    is_scaled = any(items[number].content.scale != 1.0 for number in one.slots.values())
    is_shared = is_scaled and any(one is other for other in taken)
    taken.append(one)
    return is_shared


def _with_variables(alike: list[Relinked], names: Collection[str]) -> list[Relinked]:
    """Of several of one class, those that have slots of some variables."""
    if len(alike) < 2:
        return alike
    return [one for one in alike if any(of in names for of, _ in one.slots)]


def _counterpart(
    optimizer: Optimizer, relinked: list[Relinked], names: Collection[str]
) -> Relinked | None:
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
    alike = _with_variables(alike, names)
    return alike[0] if len(alike) == 1 else None


def matched_slots(
    items: list[Item], found: dict[int, int], wanted: dict[int, Item], optimizers: list[Optimizer]
) -> tuple[dict[int, int], dict[int, str]]:
    """The item for each slot and each variable of an optimizer's own; and why there is none."""
    matched, notes = {}, {}
    taken: list[Relinked] = []
    relinked = relinked_optimizers(items)
    for optimizer in optimizers if relinked else ():
        if optimizer.newer is not None:
            continue
        owners = [found[slot.variable] for slot in optimizer.slots if slot.variable in found]
        other = _counterpart(optimizer, relinked, {items[owner].name for owner in owners})
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


def with_newer(
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
    items, relinked = list(items), relinked_optimizers(items)
    taken: list[Relinked] = []
    for optimizer in optimizers:
        state = optimizer.newer
        if state is None:
            continue
        fitting = classes(state)
        owners = [found[one] for one in state.owners if one is not None and one in found]
        alike = [one for one in relinked if one.kind in fitting]
        alike = _with_variables(alike, {items[owner].name for owner in owners})
        if state.size and len(alike) != 1:
            kinds = ", ".join(sorted({one.kind for one in relinked})) or "none"
            note = f"of {' or '.join(fitting) or 'an optimizer'}; there is {kinds}"
            notes.update(dict.fromkeys(optimizer.items(), note))
            continue
        other = alike[0] if alike and state.size else Relinked("", {}, {})
        if _is_shared(items, other, taken):
            notes.update(dict.fromkeys(optimizer.items(), _SHARED))
            continue
        _place_slots(items, other, state, places=places, found=found, notes=notes)
        _place_numbers(items, other, optimizer, state, template, places=places, found=found)
    return items


def _place_slots(
    items: list[Item],
    other: Relinked,
    state: NewerState,
    *,
    places: Mapping[int, Item],
    found: dict[int, int],
    notes: dict[int, str],
) -> None:
    """Finds the slots of a template's optimizer among those of an optimizer of the items."""
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


def _place_numbers(
    items: list[Item],
    other: Relinked,
    optimizer: Optimizer,
    state: NewerState,
    template: Checkpoint,
    *,
    places: Mapping[int, Item],
    found: dict[int, int],
) -> None:
    """Finds an optimizer's numbers, or takes the template's, which become items."""
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


def drop_all_variables(graph: ObjectGraph, optimizers: list[Optimizer]) -> None:
    """Keras' newer optimizers list all their variables once more: an order that shifts with their
    options, while the lists by slot say the same for certain."""
    for optimizer in optimizers:
        if optimizer.newer is not None:
            for number in {optimizer.newer.node, optimizer.wrapper_node} - {-1}:
                node = graph.nodes[number]
                children = {n: child for n, child in node.children.items() if n != ALL_VARIABLES}
                graph.nodes[number] = node._replace(children=children)
