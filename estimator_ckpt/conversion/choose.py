"""Which tensors of a checkpoint go into the result of a conversion, and what they are called."""

from __future__ import annotations

from typing import NamedTuple

from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.found_optimizer import Optimizer
from estimator_ckpt.conversion.meta_graph import updates_beside
from estimator_ckpt.conversion.objects_to_names import global_step, read_items
from estimator_ckpt.conversion.plan import (
    ConversionRow,
    Item,
)
from estimator_ckpt.conversion.plan_rows import row_of
from estimator_ckpt.conversion.source_optimizers import find_optimizers, mark_parts
from estimator_ckpt.conversion.updates import Update
from estimator_ckpt.objects.object_graph import ObjectGraph
from estimator_ckpt.roles.slots import unknown_names
from estimator_ckpt.text.names import first_names


class Chosen(NamedTuple):
    """The tensors that go into the result.

    Attributes:
      items: these, by their new names.
      step: which of them is the global step.
      optimizers: the source's.
      excluded: the names of what rules have left out.
      rows: lines for everything that is left out.
      notes: what is to be said of the options.
    """

    items: list[Item]
    step: int | None
    optimizers: list[Optimizer]
    excluded: list[str]
    rows: list[ConversionRow]
    notes: list[str]


def choose(checkpoint: Checkpoint, options: ConvertOptions) -> Chosen:
    """Applies use_averages, the rules and drop_slots, in this order."""
    graph, rules = checkpoint.object_graph, options.rules()
    items = read_items(checkpoint)
    optimizers: list[Optimizer] = []
    excluded: list[str] = []
    rows: list[ConversionRow] = []
    notes: list[str] = []
    gone = False
    if options.use_averages:
        items, left_out = _averaged(items, graph, options)
        gone = any(item.part is not None for item, _ in left_out)
        rows += [row_of(item.content, (), why) for item, why in left_out]
    updates: list[Update] = []
    if rules or options.drop_slots or options.optimizer or options.dtype is not None:
        # By the source's own names: rules change what things are called, not what they are.
        updates = updates_beside(checkpoint.prefix, {item.name for item in items})
        optimizers = find_optimizers(items, graph, options.from_optimizer, updates)
        mark_parts(items, optimizers)
    if rules:
        from estimator_ckpt.conversion.slots_follow import apply_rules

        items, optimizers, left_out = apply_rules(
            checkpoint,
            items,
            optimizers,
            rules,
            relinks=options.optimizer is not None,
            from_optimizer=options.from_optimizer,
            updates=updates,
        )
        rows += [row_of(item.content, (), why) for item, why in left_out]
        excluded = [item.name for item, _ in left_out]
    step = global_step(items, graph)
    if options.drop_slots:
        notes = _not_dropped(items, checkpoint.prefix, gone)
        items = _without_slots(items, step, rows)
        step = global_step(items, graph)
    return Chosen(items, step, optimizers, excluded, rows, notes)


def _averaged(
    items: list[Item], graph: ObjectGraph | None, options: ConvertOptions
) -> tuple[list[Item], list[tuple[Item, str]]]:
    """The items with averages for weights; and those that are left out, each with the reason."""
    from estimator_ckpt.conversion.use_averages import averages_as_weights

    mark_parts(items, find_optimizers(items, graph))
    step = global_step(items, graph)
    averaged = averages_as_weights(
        items,
        use_averages=options.use_averages,
        keep_raw=options.keep_raw,
        stays=() if step is None else (step,),
    )
    return averaged.items, averaged.left_out


def _without_slots(items: list[Item], step: int | None, rows: list[ConversionRow]) -> list[Item]:
    """The items that are no optimizer's; the global step stays, if it is its `iter` too."""
    found = []
    for position, item in enumerate(items):
        if item.part is None or position == step:
            found.append(item)
        else:
            rows.append(row_of(item.content, (), f"of the optimizer {item.part.label}".rstrip()))
    return found


def _not_dropped(items: list[Item], prefix: str, gone: bool) -> list[str]:
    """What drop_slots leaves, to be said: nothing to drop, or what may be slots all the same.

    Args:
      items: all that is there.
      prefix: of the source.
      gone: whether the optimizers' variables are left out already.
    """
    may_be = may_be_slots(items)
    if not gone and all(item.part is None for item in items):
        from absl import logging  # 5 ms

        logging.warning("drop_slots: %s has no variables of optimizers%s", prefix, may_be)
        return []
    return [f"drop_slots leaves some{may_be}"] if may_be else []


def may_be_slots(items: list[Item]) -> str:
    """What else may be slots by their names, as the end of a message; "" if nothing."""
    names = unknown_names(
        {item.name: item.content.shape for item in items if item.part is None and item.name}
    )
    if not names:
        return ""
    return (
        "; by their names these may be slots, averages or masks: "
        f"{first_names([f'VARIABLE/{name}' for name in sorted(names)])}. from_optimizer says the "
        "class of an optimizer that was given a name, exclude leaves them out"
    )
