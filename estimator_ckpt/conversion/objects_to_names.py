"""Objects to names: every tensor of a checkpoint with a variable name, and why it is that."""

from __future__ import annotations

from collections import Counter
from itertools import repeat

from estimator_ckpt.bulk import from_columns
from estimator_ckpt.bundle.dtypes import STRING
from estimator_ckpt.bundle.index import Index
from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.conversion.found_optimizer import KNOWN_SLOTS
from estimator_ckpt.conversion.plan import (
    INT64,
    Content,
    Item,
    is_counter,
    read_number,
    source_content,
)
from estimator_ckpt.conversion.source_optimizers import object_optimizers, tf1_slot_name
from estimator_ckpt.formats import GLOBAL_STEP
from estimator_ckpt.objects.object_graph import (
    OPTIMIZER_SLOT,
    SAVE_COUNTER,
    STEP,
    ObjectGraph,
)
from estimator_ckpt.reading.object_tensors import (
    Entries,
    GraphTensor,
    graph_tensors,
    names_in_var_list,
)
from estimator_ckpt.reading.variables import Variable

_HAS_NAME = "its variable name"


def read_items(checkpoint: Checkpoint) -> list[Item]:
    """The tensors of a checkpoint, each with its variable name, without the object graph.

    A slot variable whose name does not tell its variable, as those of eager variables without
    names do not, is named below it: `dense/kernel/m`. A `save_counter` of 0 has no name: it says
    nothing that its absence does not say, too.
    """
    if checkpoint.object_graph is None:
        return _read_names(checkpoint.index)
    graph = checkpoint.object_graph
    tensors = graph_tensors(graph, Entries(checkpoint.index).by_key)
    in_var_list = names_in_var_list(graph)
    full_names = Counter(tensor.full_name for tensor in tensors.values())
    save_counter = graph.nodes[0].children.get(SAVE_COUNTER)
    taken = set(checkpoint.variables)
    items = []
    for variable in checkpoint.variables.values():
        tensor = next(filter(None, map(tensors.get, variable.keys)), None)
        if tensor is None:
            content = source_content(checkpoint.index, variable.key, variable.entry)
            items.append(Item(content, variable.name, "no object has it"))
            continue
        name, why = variable.name, _reason(variable, tensor, in_var_list, full_names)
        is_below = OPTIMIZER_SLOT in (variable.object_path or "")
        if variable.slot_of and is_below and f"/{variable.slot_of}/" not in f"/{name}/":
            below = f"{variable.slot_of}/{variable.slot_name}"
            if below not in taken:  # by another optimizer
                taken.add(below)
                name, why = below, f"the slot {variable.slot_name} of {variable.slot_of}"
        if not name:
            name, why = tensor.key, "its key, as the root object has no name"
        item = _item(checkpoint, graph, variable, tensor, name, why)
        if tensor.node == save_counter:
            item = item._replace(
                place=(SAVE_COUNTER,), in_names=not _is_zero(checkpoint, item.content)
            )
        items.append(item)
    return _with_tf1_slot_names(items, graph)


def _with_tf1_slot_names(items: list[Item], graph: ObjectGraph) -> list[Item]:
    """The slots of TF1 optimizers by the names that they have in a graph of their own.

    An eager program counts on with every optimizer that it makes: `dense/kernel/Adam_6`.
    """
    items = list(items)
    taken = {item.name for item in items}
    for optimizer in object_optimizers(items, graph):
        if optimizer.dialect != "tf1" or optimizer.label not in KNOWN_SLOTS:
            continue
        names = {
            slot.item: tf1_slot_name(
                items[slot.variable].name, optimizer.label, slot.name, items[slot.item].name
            )
            for slot in optimizer.slots
        }
        own = {items[number].name for number in names}
        if _HAS_NAME in {items[number].why for number in names} or (taken - own) & set(
            names.values()
        ):
            continue
        for number, name in names.items():
            if items[number].name != name:
                why = "TF1's name of the slot"
                items[number] = items[number]._replace(name=name, why=why)
        taken = (taken - own) | set(names.values())
    return items


def _read_names(index: Index) -> list[Item]:
    entries = Entries(index).by_key
    contents = map(source_content, repeat(index), entries, entries.values())
    items = list(from_columns(Item, contents, entries, repeat("")))
    counter = entries.get(SAVE_COUNTER)
    if counter is not None and counter.dtype == INT64 and counter.shape == ():
        # An object-based checkpoint was converted to this one.
        number = list(entries).index(SAVE_COUNTER)
        items[number] = items[number]._replace(place=(SAVE_COUNTER,))
    return items


def _item(
    checkpoint: Checkpoint,
    graph: ObjectGraph,
    variable: Variable,
    tensor: GraphTensor,
    name: str,
    why: str,
) -> Item:
    attribute, start = graph.nodes.names[tensor.node], graph.nodes.keys[tensor.node]
    if not start:
        attributes = graph.nodes[tensor.node].attributes
        starts = [a for a in attributes if tensor.key.startswith(a.checkpoint_key)]
        attribute, _, start = max(starts, key=lambda a: len(a.checkpoint_key))
    return Item(
        source_content(checkpoint.index, tensor.key, variable.entry),
        name,
        why,
        tensor.node,
        attribute,
        tensor.key[len(start) :],
        tensor.suffix,
    )


def _reason(
    variable: Variable,
    tensor: GraphTensor,
    in_var_list: dict[int, tuple[str, ...]],
    full_names: Counter[str],
) -> str:
    full_name = tensor.full_name
    if variable.name == variable.key != tensor.key:
        return _HAS_NAME
    if variable.name[: len(variable.name) - len(tensor.suffix)] in in_var_list.get(tensor.node, ()):
        return "its name in var_list"
    if full_name and variable.name == full_name + tensor.suffix:
        return "its full name"
    if not full_name:
        return "its object path, as it has no full name"
    if full_names[full_name] > 1:
        return f"its object path, as {full_names[full_name]} have the full name {full_name!r}"
    return f"its object path, as its full name {full_name!r} means another tensor"


def _is_zero(checkpoint: Checkpoint, content: Content) -> bool:
    return is_counter(content) and not read_number(checkpoint.prefix, checkpoint.index, content)


def global_step(items: list[Item], graph: ObjectGraph | None) -> int | None:
    """Which item is the global step: that of this name, or else the root object's `step`."""
    step = None if graph is None else graph.nodes[0].children.get(STEP)
    found = None
    for number, item in enumerate(items):
        if item.name == GLOBAL_STEP and is_counter(item.content):
            return number
        if step is not None and item.node == step and is_counter(item.content):
            found = number
    return found


def lookup_tables(items: list[Item]) -> dict[str, tuple[str, str]]:
    """Names that are the two tensors of a lookup table: name -> the table's name, the suffix.

    TF1's `MutableHashTable` saves `words-keys` and `words-values`
    (tensorflow/python/ops/lookup_ops.py): a row of keys, strings or integers, and as many values.
    """
    by_name = {
        item.name: item.content for item in items if item.name.endswith(("-keys", "-values"))
    }
    found = {}
    for name, keys in by_name.items():
        table, end = name[: -len("-keys")], name[-len("-keys") :]
        values = by_name.get(f"{table}-values")
        if (
            end == "-keys"
            and values is not None
            and keys.dtype in (STRING, 3, INT64)
            and len(keys.shape) == 1
            and keys.shape == values.shape[:1]
        ):
            found[name] = table, "-keys"
            found[f"{table}-values"] = table, "-values"
    return found
