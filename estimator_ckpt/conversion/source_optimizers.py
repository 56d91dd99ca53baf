"""The optimizers of a checkpoint: which tensors are their slots, and which their own variables.

Three dialects are known. `tf1`: tf.compat.v1 optimizers, by the names of their slots
(`dense/kernel/Adam`, `dense/kernel/Adam_1`; tensorflow/python/training/slot_creator.py) or as
objects. `keras`: Keras' optimizers up to 2.10, now `legacy`, as objects with slot references or by
names (`Adam/dense/kernel/m`). `keras_new`: those after, which keep one list of variables; by names
(`Adam/m/dense/kernel`, `adam/dense_kernel_momentum`) where their count of steps is beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from estimator_ckpt.conversion.found_optimizer import KNOWN_SLOTS, Optimizer, SlotOf, default_name
from estimator_ckpt.conversion.optimizers_by_name import (
    followed,
    keras_scope,
    newer_by_names,
    tf1_and_legacy_by_names,
)
from estimator_ckpt.conversion.plan import Item, OptimizerPart
from estimator_ckpt.conversion.updates import Update
from estimator_ckpt.errors import UnsupportedCheckpointError
from estimator_ckpt.objects.nodes import SlotReference
from estimator_ckpt.objects.object_graph import ObjectGraph
from estimator_ckpt.roles.dialects import (
    DECAY,
    LEGACY_COUNT,
    LEGACY_NUMBERS,
    LIST_NAMES,
    has_powers,
    tf1_of,
)
from estimator_ckpt.roles.loss_scale import scale_by_names, scale_of, wrapper_of
from estimator_ckpt.roles.newer_keras import (
    ALL_VARIABLES,
    is_newer,
    newer_state,
)
from estimator_ckpt.roles.records import LEGACY, NEWER, TF1
from estimator_ckpt.roles.slots import BETA_POWER
from estimator_ckpt.roles.tf1_slots import COUNTED, slot_variable


def find_optimizers(
    items: list[Item],
    graph: ObjectGraph | None,
    from_optimizer: str | None = None,
    updates: Sequence[Update] = (),
) -> list[Optimizer]:
    """The optimizers, in objects and by names.

    Args:
      items: of a checkpoint, named as they are to be known.
      graph: its objects, if any.
      from_optimizer: the class of an optimizer with a name that does not say it.
      updates: the ops of optimizers, where the graph is known: by them it is clear, too.

    Raises:
      SettingsError: several names may be that optimizer's.
    """
    found = object_optimizers(items, graph) if graph is not None else []
    known = {number for optimizer in found for number in optimizer.items()}
    found += tf1_and_legacy_by_names(items, known, from_optimizer, updates)
    known = {number for optimizer in found for number in optimizer.items()}
    found += newer_by_names(items, known)
    known = {number for optimizer in found for number in optimizer.items()}
    rest = {
        item.name: number
        for number, item in enumerate(items)
        if number not in known and item.content.shape == ()
    }
    for scale in scale_by_names(rest):
        wrapped = next((one for one in found if not one.scale), None)
        if wrapped is not None:
            wrapped.scale = {number: rest[name] for number, name in scale.items()}
        else:
            found.append(Optimizer("LossScale", TF1, others=[rest[n] for n in scale.values()]))
    return found


def mark_parts(items: list[Item], optimizers: list[Optimizer]) -> None:
    """Tells the items, in place, of which optimizers they are parts."""
    for optimizer in optimizers:
        own = OptimizerPart(optimizer.label, False)
        slot = OptimizerPart(optimizer.label, True)
        for number in optimizer.numbers():
            items[number] = items[number]._replace(part=own)
        for number in [one.item for one in optimizer.slots]:
            items[number] = items[number]._replace(part=slot)


def check_parts(items: list[Item], optimizer: Optimizer) -> None:
    """Raises UnsupportedCheckpointError where each part of a variable has slots of its own."""
    names: dict[tuple[int, str], str] = {}
    for slot in optimizer.slots:
        name = items[slot.item].name
        other = names.setdefault((slot.variable, slot.name), name)
        if other != name:
            raise UnsupportedCheckpointError(
                f"{other!r} and {name!r} both have the slot {slot.name} of parts of "
                f"{items[slot.variable].name!r}, which takes one slot variable. Save the "
                "checkpoint again without a partitioner, leave the slots out (drop_slots), or "
                "convert without `optimizer`",
                key=name,
            )


# --- objects ---


def object_optimizers(items: list[Item], graph: ObjectGraph) -> list[Optimizer]:
    """The optimizers among the objects."""
    item_of: dict[int, int] = {}
    copies: dict[int, list[int]] = {}
    for number, item in enumerate(items):
        if item.node >= 0 and item_of.setdefault(item.node, number) != number:
            copies.setdefault(item.node, [item_of[item.node]]).append(number)
    found = []
    wrappers = wrapper_of(graph)
    for number, node in sorted(graph.nodes.others.items()):
        own = {name: item_of[child] for name, child in node.children.items() if child in item_of}
        if number in wrappers.values():
            continue
        if is_newer(node):
            optimizer = _newer_optimizer(items, graph, number, item_of)
        elif node.slots or {LEGACY_COUNT, DECAY} <= own.keys():
            slots = [
                SlotOf(item, variable, slot.slot_name)
                for slot in node.slots
                if slot.slot in item_of and slot.original in item_of
                for item, variable in (
                    _copied_slots(items, copies, slot, item_of[slot.slot])
                    if slot.original in copies
                    else ((item_of[slot.slot], item_of[slot.original]),)
                )
            ]
            # Without `iter`, if its `iterations` were set to be the global step.
            is_keras = not LEGACY_NUMBERS.isdisjoint(node.children) or any(
                keras_scope(items[slot.item].name) for slot in slots[:1]
            )
            optimizer = Optimizer("", LEGACY if is_keras else TF1, slots, own)
            optimizer.label = _label(items, optimizer)
        else:
            continue
        wrapper = wrappers.get(number, number)
        optimizer.scale = {
            name: item_of[child]
            for name, child in scale_of(graph, wrapper).items()
            if child in item_of
        }
        if wrapper != number:
            optimizer.wrapper_node = wrapper
            known = {*optimizer.items(), *optimizer.scale.values()}
            optimizer.wrapper = {
                name: item_of[child]
                for name, child in graph.nodes[wrapper].children.items()
                if child in item_of and item_of[child] not in known
            }
        optimizer.others = [n for n in optimizer.others if n not in optimizer.scale.values()]
        found.append(optimizer)
    return found


def _newer_optimizer(
    items: list[Item], graph: ObjectGraph, number: int, item_of: dict[int, int]
) -> Optimizer:
    children = graph.nodes[number].children
    listed = (
        graph.nodes[child].children.values()
        for name, child in children.items()
        if name == ALL_VARIABLES or name in LIST_NAMES
    )
    others = {item_of[child] for one in listed for child in one if child in item_of}
    others |= {item_of[child] for child in children.values() if child in item_of}
    optimizer = Optimizer("Keras optimizer", NEWER, others=sorted(others))
    optimizer.follows = followed(items, optimizer.others)
    optimizer.newer = newer_state(graph, number, item_of, optimizer.follows.get)
    return optimizer


def _copied_slots(
    items: list[Item], copies: dict[int, list[int]], slot: SlotReference, first: int
) -> Iterator[tuple[int, int]]:
    """A variable with several names by rules: each slot, by its name, with that whose it is."""
    for number in copies.get(slot.slot, [first]):
        name = f"/{items[number].name}/"
        named = [one for one in copies[slot.original] if f"/{items[one].name}/" in name]
        if named:
            yield number, max(named, key=lambda one: len(items[one].name))


def _label(items: list[Item], optimizer: Optimizer) -> str:
    """What the names of its variables call it: `Adam` of `Adam/iter` and of `dense/kernel/Adam`."""
    if optimizer.dialect == LEGACY:
        for slot in optimizer.slots[:1]:
            known = keras_scope(items[slot.item].name)
            if known:
                return known.group(1)
        # `iter` may have another name, if it is the step of the whole program.
        own = sorted(optimizer.own, key=lambda name: name == LEGACY_COUNT)
        name = items[optimizer.own[own[0]]].name if own else ""
        scope = name.rpartition("/")[0].rpartition("/")[2]
        counted = COUNTED.fullmatch(scope)
        return counted.group(1) if counted else scope
    labels = set()
    for slot in optimizer.slots:
        counted = COUNTED.fullmatch(items[slot.item].name.rpartition("/")[2])
        labels.add(counted.group(1) if counted else "")
    label = labels.pop() if len(labels) == 1 else ""
    names = optimizer.slot_names()
    of_name = [one for one, slots in KNOWN_SLOTS.items() if default_name(one) == label]
    for one in sorted(of_name, key=lambda one: len(KNOWN_SLOTS[one])):
        if names <= set(KNOWN_SLOTS[one]):
            return one
    # Eager variables without names of their own: the slots alone tell, where they do.
    powers = [name for name in optimizer.own if BETA_POWER.fullmatch(name)]
    fitting = [
        one
        for one, slots in KNOWN_SLOTS.items()
        if names == set(slots) and bool(powers) == has_powers(one)
    ]
    if len(fitting) == 1 or (fitting and powers):
        return fitting[0]
    return "" if of_name else label  # another optimizer that took the name


def tf1_slot_name(variable: str, label: str, slot: str, name: str = "") -> str:
    """The name that a TF1 optimizer gives a slot, the first time it is made in a graph.

    Args:
      variable: the slot's variable.
      label: of the optimizer.
      slot: the slot's name.
      name: what it is called now; a TF1 optimizer's name keeps its scopes: slots.slot_variable().
    """
    tf1 = tf1_of(label)
    assert tf1 is not None
    if tf1.orders:
        return name  # which of its slots a variable has depends on the variable
    for end, of_slot in tf1.ends.items():
        if of_slot == slot:
            return f"{variable}{end}"
    start, _, last = name.rpartition("/")
    counted = COUNTED.fullmatch(last)
    if not (counted and counted.group(1) == tf1.name) or (
        slot_variable(start, (), {variable: ()}.get) != variable
    ):
        start = variable
    count = tf1.slots.index(slot)
    return f"{start}/{tf1.name}" + (f"_{count}" if count else "")
