"""Rules on the names of a conversion: what belongs to a variable goes where the variable goes.

Whose a slot is, the source says: by its names as they were, and by its objects. The rules may give
both other names, but not make it the slot of another variable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.conversion.found_optimizer import Optimizer
from estimator_ckpt.conversion.objects_to_names import lookup_tables
from estimator_ckpt.conversion.plan import Item
from estimator_ckpt.conversion.source_optimizers import find_optimizers, mark_parts
from estimator_ckpt.conversion.updates import Update, renamed
from estimator_ckpt.errors import ConflictError
from estimator_ckpt.matching.rules import Line, Rules
from estimator_ckpt.roles.records import NEWER
from estimator_ckpt.roles.tf1_slots import slot_variable
from estimator_ckpt.text.names import some_of

_MOST_SHOWN = 10
_AVERAGE = re.compile(r"ExponentialMovingAverage(?:_\d+)?")

# By the name of a slot: its variable's, and what the optimizer calls it.
_Slots = dict[str, tuple[str, str]]


def apply_rules(
    checkpoint: Checkpoint,
    items: list[Item],
    optimizers: list[Optimizer],
    rules: Rules,
    *,
    relinks: bool,
    from_optimizer: str | None = None,
    updates: Sequence[Update] = (),
) -> tuple[list[Item], list[Optimizer], list[tuple[Item, str]]]:
    """The items by their new names, and what is left out.

    Args:
      checkpoint: the source.
      items: of it; those without a name are no rule's.
      optimizers: among the items.
      rules: of which each must match a name.
      relinks: whether a slot must still be known as one by its new name.
      from_optimizer, updates: as find_optimizers() takes them.

    Returns:
      The items that stay; the optimizers among them; those left out, each with the reason.

    Raises:
      SettingsError: a rule matches nothing, or makes an empty name.
      ConflictError: two would have one name, or a slot would be another variable's, or none's, or
        one tensor of a lookup table would go without the other.
    """
    by_name = {item.name: number for number, item in enumerate(items) if item.in_names}
    slots: _Slots = {
        items[slot.item].name: (items[slot.variable].name, slot.name)
        for optimizer in optimizers
        for slot in optimizer.slots
        if items[slot.item].in_names and items[slot.variable].in_names
    }
    lines = rules.resolve(
        by_name,
        also=_object_paths(checkpoint, items),
        owners=_owners(items, by_name, slots, optimizers),
    )
    _check_tables(items, lines)
    if relinks:
        _check_own(items, optimizers, lines)
    found = [item for item in items if not item.in_names]
    names: dict[str, str] = {}
    line_of: dict[int, Line] = {}
    left_out = []
    for line in lines:
        item = items[by_name[line.source]]
        if line.target is None:
            left_out.append((item, line.reason))
            continue
        line_of[len(found)] = line
        names[line.source] = line.target
        if line.reason:
            item = item._replace(
                name=line.target,
                why=line.reason,
                renamed=True,
                tail=item.tail if line.target.endswith(item.tail) else "",
            )
        found.append(item)
    ops = renamed(updates, names)
    remaining = find_optimizers(found, checkpoint.object_graph, from_optimizer, ops)
    _check_slots(
        slots, line_of, found, remaining, {item.name: why for item, why in left_out}, relinks
    )
    mark_parts(found, remaining)
    return found, remaining, left_out


def _object_paths(checkpoint: Checkpoint, items: list[Item]) -> dict[str, str]:
    """The object path by name, for what has both."""
    if checkpoint.object_graph is None:
        return {}
    paths = {
        key: variable.object_path
        for variable in checkpoint.variables.values()
        for key in variable.keys
    }
    found = {item.name: paths.get(item.own_key) for item in items if item.in_names}
    return {name: path for name, path in found.items() if path is not None}


def _owners(
    items: list[Item], by_name: dict[str, int], slots: _Slots, optimizers: list[Optimizer]
) -> dict[str, str]:
    """What goes along with which variable: its slots, its average, and all that is below its name.

    So slot_creator.py names the slots of any optimizer, not all of which have the variable's shape
    (Adafactor's have not), and its moving average (`X/ExponentialMovingAverage`, if made in a scope
    below that). slots.py has how Keras' newer optimizers name slots.
    """

    def shape_of(name: str) -> tuple[int, ...] | None:
        return items[by_name[name]].content.shape if name in by_name else None

    in_keras = {
        items[number].name: optimizer.follows.get(number)
        for optimizer in optimizers
        if optimizer.dialect == NEWER
        for number in optimizer.others
    }
    found: dict[str, str] = {}
    for name, number in by_name.items():
        owner: str | None
        start, _, last = name.rpartition("/")
        if name in slots:
            owner = slots[name][0]
        elif name in in_keras:
            variable = in_keras[name]
            if variable is not None:
                owner = items[variable].name
            else:  # whatever that optimizer calls its slots
                owner = slot_variable(name.partition("/")[2], items[number].content.shape, shape_of)
        elif _AVERAGE.fullmatch(last):
            owner = slot_variable(start, items[number].content.shape, shape_of)
        else:
            owner = start
            while owner and owner not in by_name:
                owner = owner.rpartition("/")[0]
        if owner in by_name:
            found[name] = owner
    roots = {}
    for name in found:
        owner, seen = found[name], {name}
        while owner in found and owner not in seen:
            seen.add(owner)
            owner = found[owner]
        if owner not in found:  # else they go round in a circle
            roots[name] = owner
    return roots


def _check_tables(items: list[Item], lines: Iterable[Line]) -> None:
    """Raises ConflictError where a rule takes one tensor of a lookup table without the other."""
    tables = lookup_tables(items)
    lines_of: dict[str, list[Line]] = {}
    for line in lines if tables else ():
        if line.source in tables:
            lines_of.setdefault(line.source, []).append(line)
    for name, keys in lines_of.items():
        table, end = tables[name]
        values = lines_of.get(f"{table}-values")
        if end != "-keys" or values is None:
            continue
        ends = "-keys", "-values"
        if not any(v.target is None or v.target.endswith(ends) for v in (*keys, *values)):
            continue  # it is no table any more
        places = (
            {_table(line, "-keys") for line in keys},
            {_table(line, "-values") for line in values},
        )
        if places[0] != places[1]:
            one = next((line for line in keys if _table(line, "-keys") not in places[1]), keys[0])
            two = next((v for v in values if _table(v, "-values") not in places[0]), values[0])
            raise ConflictError(
                f"two tensors of one lookup table: {_fate(one)}, but {_fate(two)}. Let the rule "
                "take both",
                key=table,
            )


def _table(line: Line, end: str) -> str | None:
    """The table that a tensor is a part of by its new name; None if it is left out."""
    return None if line.target is None else line.target.removesuffix(end)


def _check_own(items: list[Item], optimizers: list[Optimizer], lines: Iterable[Line]) -> None:
    """Raises ConflictError where an optimizer's own variable goes to several places."""
    own = {
        items[number].name: optimizer.label
        for optimizer in optimizers
        for number in optimizer.numbers()
    }
    first: dict[str, Line] = {}
    for line in lines:
        other = first.setdefault(line.source, line)
        if other is not line and line.source in own:
            raise ConflictError(
                f"it would be both {other.target!r} ({other.reason}) and {line.target!r} "
                f"({line.reason}), but the optimizer {own[line.source]} has one variable of this "
                "name. Let the rules take the variables of the model alone",
                key=line.source,
            )


def _fate(line: Line) -> str:
    if line.target is None:
        return f"{line.source!r} is left out ({line.reason})"
    if not line.reason:
        return f"{line.source!r} stays as it is"
    return f"{line.source!r} becomes {line.target!r} ({line.reason})"


def _check_slots(
    slots: _Slots,
    line_of: dict[int, Line],
    items: list[Item],
    optimizers: list[Optimizer],
    left_out: dict[str, str],
    relinks: bool,
) -> None:
    """Raises ConflictError where a slot does not stay what it is, or another becomes one."""
    now = {
        slot.item: (items[slot.variable].name, slot.name)
        for optimizer in optimizers
        for slot in optimizer.slots
    }
    wrong = []
    for number, line in line_of.items():
        is_now = now.get(number)
        if line.source not in slots:
            if is_now is not None and not line.reason:
                wrong.append(
                    f"{line.source!r} is no slot, but would be the slot {is_now[1]} of what "
                    f"becomes {is_now[0]!r}"
                )
            continue
        variable, slot_name = slots[line.source]
        what = f"{line.source!r} is the slot {slot_name} of {variable!r}"
        if line.of is None:
            reason = left_out.get(variable, "")
            wrong.append(f"{what}, which is left out ({reason}); it would stay ({line.reason})")
        elif is_now is None and relinks:
            wrong.append(f"{what}, which {line.target!r} would not tell ({line.reason})")
        elif is_now is not None and is_now != (line.of, slot_name):
            wrong.append(
                f"{what}, which becomes {line.of!r}; it would be {line.target!r} "
                f"({line.reason or 'its own name'}), the slot {is_now[1]} of {is_now[0]!r}"
            )
    if wrong:
        raise ConflictError(
            some_of(wrong, _MOST_SHOWN, "; ")
            + ". A slot goes where its variable goes: leave out the rule for it alone, or leave "
            "the slots out (drop_slots)"
        )
