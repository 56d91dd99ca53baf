"""Names to the objects of another checkpoint, matched by variable name."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from estimator_ckpt.bundle.dtypes import dtype_name
from estimator_ckpt.checkpoint import Checkpoint, open_checkpoint
from estimator_ckpt.errors import MismatchError, SettingsError
from estimator_ckpt.layout import Structure, save_counter_item
from estimator_ckpt.naming import read_items
from estimator_ckpt.object_graph import (
    SAVE_COUNTER,
    VARIABLE_VALUE,
    Attribute,
    Node,
    ObjectGraph,
    object_key,
)
from estimator_ckpt.optimizer_state import find_optimizers
from estimator_ckpt.plan import Item, describe
from estimator_ckpt.report import NameIndex, Row, fold, text_table

_MOST_HINTS = 100


def like_structure(
    items: list[Item], step: int | None, like: Any, *, drop_slots: bool
) -> Structure:
    """The objects of another checkpoint, or of a tf.train.Checkpoint, with the values of `items`.

    Each value of the template takes the item of its variable name, or of its object path; a slot
    that of the same slot of the same variable, an optimizer's own variable that of its name.

    Raises:
      MismatchError: a value of the template has no item, or one of another shape or dtype; or an
        item has no place in the template. Lists all of them.
      SettingsError: the template has no objects.
    """
    if hasattr(like, "write"):
        with tempfile.TemporaryDirectory() as directory:
            prefix = like.write(os.path.join(directory, "like"))
            with open_checkpoint(prefix) as template:
                return _fill(items, step, template, drop_slots, with_counter=True)
    with open_checkpoint(like) as template:
        return _fill(items, step, template, drop_slots, with_counter=False)


def _fill(
    items: list[Item], step: int | None, template: Checkpoint, drop_slots: bool, with_counter: bool
) -> Structure:
    graph = template.object_graph
    if graph is None:
        raise SettingsError(
            "expected an object-based checkpoint, found a name-based one",
            path=template.prefix,
            key="like",
        )
    places = read_items(template)
    optimizers = find_optimizers(places, graph)
    unwanted = {n for o in optimizers for n in o.items()} if drop_slots else set()
    finder = _Finder(items, step)
    found: dict[int, int] = {}
    for number in range(len(places)):
        if number not in unwanted and places[number].node >= 0:
            finder.find(number, places, found)
    slots = {slot.item: slot for optimizer in optimizers for slot in optimizer.slots}
    own = {number: name for o in optimizers for name, number in o.own.items()}
    for number in range(len(places)):
        if number in unwanted or places[number].node < 0:
            continue
        if number in slots and slots[number].variable in found:
            variable = items[found[slots[number].variable]].name
            match = finder.by_slot.get((variable, slots[number].name))
        else:
            match = finder.by_own.get(own.get(number, ""))
        if match is not None:
            found[number] = match
    root_counter = graph.nodes[0].children.get(SAVE_COUNTER)
    for number, place in enumerate(places):
        if place.node == root_counter and number not in found:
            items = [*items, save_counter_item()]
            found[number] = len(items) - 1
    _check(items, places, found, unwanted, template, step)

    kept = {(places[number].node, places[number].attribute) for number in found}
    new = ObjectGraph(
        Node(
            node.children,
            [a for a in node.attributes if (number, a.name) in kept],
            node.slots,
            node.registered_saver,
        )
        for number, node in enumerate(graph.nodes)
    )
    for node in new.nodes:
        node.slots = [slot for slot in node.slots if new.nodes[slot.slot].attributes]
    keys: list[str | None] = [None] * len(items)
    for number, item in found.items():
        keys[item] = places[number].content.source
    if with_counter and SAVE_COUNTER not in new.nodes[0].children:
        items, keys = [*items, save_counter_item()], [*keys, object_key(SAVE_COUNTER)]
        counter = Attribute(VARIABLE_VALUE, SAVE_COUNTER, object_key(SAVE_COUNTER))
        new.add(0, SAVE_COUNTER, counter)
    return Structure(items, keys, new)


class _Finder:
    """The items by what a template may call them."""

    def __init__(self, items: list[Item], step: int | None) -> None:
        self.by_name: dict[str, int] = {}
        self.by_slot: dict[tuple[str, str], int] = {}
        self.by_own: dict[str, int] = {}
        self.step = step
        for number, item in enumerate(items):
            if not item.in_objects:
                continue
            if item.slot is not None:
                self.by_slot[item.slot.of, item.slot.name] = number
            elif item.place is not None and len(item.place) > 1:
                self.by_own[item.place[-1]] = number
            self.by_name[item.name] = number
        self.taken: set[int] = set()

    def find(self, number: int, places: list[Item], found: dict[int, int]) -> None:
        match = self.by_name.get(places[number].name)
        if match is not None:
            found[number] = match


def _check(
    items: list[Item],
    places: list[Item],
    found: dict[int, int],
    unwanted: set[int],
    template: Checkpoint,
    step: int | None,
) -> None:
    rows = []
    missing = [
        place.name
        for number, place in enumerate(places)
        if number not in found and number not in unwanted and place.node >= 0
    ]
    index = NameIndex(item.name for item in items if item.in_objects)
    for count, name in enumerate(missing):
        near = index.near(name, 1) if count < _MOST_HINTS else []
        rows.append(Row("missing", name, note=f"did you mean {near[0]}?" if near else ""))
    for number, match in found.items():
        wanted, has = places[number].content, items[match].content
        if wanted.shape != has.shape:
            rows.append(Row("shape", places[number].name, describe(wanted), describe(has)))
        elif wanted.dtype != has.dtype:
            expected, other = dtype_name(wanted.dtype), dtype_name(has.dtype)
            rows.append(Row("dtype", places[number].name, expected, other))
    taken = set(found.values())
    for number, item in enumerate(items):
        counter = item.place == (SAVE_COUNTER,)
        if item.in_objects and number not in taken and not counter:
            rows.append(Row("no place", item.name, note="rename it, or leave it out"))
    if rows:
        table = text_table(
            ("problem", "variable", "expected", "found", "note"),
            [(r.status, r.name, r.expected, r.found, r.note) for r in fold(rows)],
        )
        raise MismatchError(
            f"{len(rows)} variables do not fit the objects of {template.prefix}:\n{table}"
        )
