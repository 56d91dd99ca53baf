"""Planning a conversion: from a checkpoint and the options what will be done."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from absl import logging

from estimator_ckpt.bulk import collector_paused, columns_of, from_columns
from estimator_ckpt.bundle.dtypes import dtype_size
from estimator_ckpt.bundle.slices import key_bytes
from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.conversion.casting import parse_casts
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.like import like_structure, template_optimizers
from estimator_ckpt.conversion.names_to_objects import (
    Structure,
    check_scopes,
    kept_structure,
    new_structure,
)
from estimator_ckpt.conversion.objects_to_names import global_step, read_items
from estimator_ckpt.conversion.plan import (
    Content,
    Conversion,
    ConversionRow,
    Item,
    read_number,
    string_content,
)
from estimator_ckpt.conversion.slots_follow import apply_rules
from estimator_ckpt.conversion.source_optimizers import Optimizer, find_optimizers, mark_parts
from estimator_ckpt.conversion.translate_optimizer import (
    KERAS_2,
    KERAS_3,
    NEWER_TARGETS,
    Relinker,
)
from estimator_ckpt.conversion.use_averages import averages_as_weights
from estimator_ckpt.errors import (
    CheckpointError,
    ConflictError,
    CorruptCheckpointError,
    SettingsError,
    UnsupportedCheckpointError,
)
from estimator_ckpt.formats import GLOBAL_STEP, keys_in
from estimator_ckpt.objects.object_graph import OBJECT_GRAPH_KEY, SAVE_COUNTER, ObjectGraph
from estimator_ckpt.reading.object_tensors import Entries
from estimator_ckpt.roles.records import LEGACY, NEWER
from estimator_ckpt.roles.slots import unknown_names
from estimator_ckpt.text.names import first_names
from estimator_ckpt.verify import structure_faults


def make_plan(
    checkpoint: Checkpoint, destination: str, options: ConvertOptions
) -> tuple[Conversion, dict[str, Content]]:
    """What a conversion will do, and what the result will have under each key.

    Raises:
      SettingsError, ConflictError, MismatchError, CorruptCheckpointError,
      UnsupportedCheckpointError: as convert_checkpoint() does.
    """
    with collector_paused():
        _check_structure(checkpoint)
        try:
            return _make_plan(checkpoint, destination, options)
        except CheckpointError as error:
            if error.path is None:
                error.path = checkpoint.prefix
            raise


def _make_plan(
    checkpoint: Checkpoint, destination: str, options: ConvertOptions
) -> tuple[Conversion, dict[str, Content]]:
    graph = checkpoint.object_graph
    chosen = _choose(checkpoint, options)
    rows, step = chosen.rows, chosen.step
    items = _cast(chosen.items, step, options)
    if options.optimizer:
        step, notes = _relink(checkpoint, items, chosen.optimizers, step, options)
        chosen.notes.extend(notes)
    if step is not None and options.checkpoint_format != "checkpoint":
        items[step] = _with_hint(items[step])
    keys: list[str | None] = [None] * len(items)
    tensors: dict[str, Content] = {}
    if options.checkpoint_format != "saver":
        items, keys, content = _with_objects(checkpoint, items, step, chosen.excluded, options)
        tensors[OBJECT_GRAPH_KEY] = content
        rows.append(_row(content, (OBJECT_GRAPH_KEY,), "the objects and their keys"))
    rows += _configs(checkpoint, tensors, options)
    names = [item.name if item.in_names else "" for item in items]
    targets = keys_in(options.checkpoint_format, names, keys, step)
    _put(tensors, items, targets)
    contents, whys = map(list, columns_of(items, "content", "why"))
    rows += _rows(contents, targets, whys)
    if graph is not None and OBJECT_GRAPH_KEY not in tensors:
        content = _source(checkpoint, OBJECT_GRAPH_KEY)
        rows.append(_row(content, (), "a name-based checkpoint has no objects"))
    if not tensors:
        raise SettingsError("nothing would be left of the checkpoint")
    conversion = Conversion(
        checkpoint.prefix,
        destination,
        "saver" if graph is None else checkpoint.format,
        options.checkpoint_format,
        tuple(rows),
        notes=tuple(chosen.notes),
    )
    return conversion, tensors


# --- which tensors, and what they are called ---


class _Chosen(NamedTuple):
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


def _choose(checkpoint: Checkpoint, options: ConvertOptions) -> _Chosen:
    """Applies use_averages, the rules and drop_slots, in this order."""
    graph, rules = checkpoint.object_graph, options.rules()
    items = read_items(checkpoint)
    optimizers: list[Optimizer] = []
    excluded: list[str] = []
    rows: list[ConversionRow] = []
    notes: list[str] = []
    if options.use_averages:
        items, left_out = _averaged(items, graph, options)
        rows += [_row(item.content, (), why) for item, why in left_out]
    if rules or options.drop_slots or options.optimizer or options.dtype is not None:
        # By the source's own names: rules change what things are called, not what they are.
        optimizers = find_optimizers(items, graph, options.from_optimizer)
        mark_parts(items, optimizers)
    if rules:
        items, optimizers, left_out = apply_rules(
            checkpoint,
            items,
            optimizers,
            rules,
            relinks=options.optimizer is not None,
            from_optimizer=options.from_optimizer,
        )
        rows += [_row(item.content, (), why) for item, why in left_out]
        excluded = [item.name for item, _ in left_out]
    step = global_step(items, graph)
    if options.drop_slots:
        notes = _not_dropped(items, checkpoint.prefix)
        items = _without_slots(items, step, rows)
        step = global_step(items, graph)
    return _Chosen(items, step, optimizers, excluded, rows, notes)


def _averaged(
    items: list[Item], graph: ObjectGraph | None, options: ConvertOptions
) -> tuple[list[Item], list[tuple[Item, str]]]:
    """The items with averages for weights; and those that are left out, each with the reason."""
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
            rows.append(_row(item.content, (), f"of the optimizer {item.part.label}".rstrip()))
    return found


def _cast(items: list[Item], step: int | None, options: ConvertOptions) -> list[Item]:
    """The items with other dtypes; of an optimizer's variables the slots alone."""
    casts = parse_casts(options.dtype)
    if not casts:
        return items
    found = []
    for position, item in enumerate(items):
        content = item.content
        target = casts.get(content.dtype, content.dtype)
        counts = position == step or item.place == (SAVE_COUNTER,)
        is_own = item.part is not None and not item.part.is_slot and content.shape == ()
        if target != content.dtype and (counts or is_own):
            whys = filter(None, (item.why, "no model variable, so it keeps its dtype"))
            item = item._replace(why="; ".join(whys))
        elif target != content.dtype:
            before, after = dtype_size(content.dtype), dtype_size(target)
            assert before is not None
            assert after is not None
            nbytes = content.nbytes // before * after
            strict = item.part is not None
            cast = content._replace(dtype=target, nbytes=nbytes, cast=True, strict=strict)
            item = item._replace(content=cast)
        found.append(item)
    if not any(item.content.cast for item in found):
        raise SettingsError(f"{options.dtype!r} applies to no variable", key="dtype")
    return found


def _not_dropped(items: list[Item], prefix: str) -> list[str]:
    """What drop_slots leaves, to be said: nothing to drop, or what may be slots all the same."""
    may_be = _may_be_slots(items)
    if all(item.part is None for item in items):
        logging.warning("drop_slots: %s has no variables of optimizers%s", prefix, may_be)
        return []
    return [f"drop_slots leaves some{may_be}"] if may_be else []


def _may_be_slots(items: list[Item]) -> str:
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


def _with_hint(step: Item) -> Item:
    """The global step; where it is a `step` of another name, with the rule that a TF1 job needs.

    No rule is taken for granted: the program may read it by its own name.
    """
    if step.name == GLOBAL_STEP or step.renamed or not step.in_names:
        return step
    rule = f"rename {re.escape(step.name)} -> {GLOBAL_STEP} makes it TF1's global step"
    return step._replace(why="; ".join(filter(None, (step.why, rule))))


# --- what optimizers become ---


def _relink(
    checkpoint: Checkpoint,
    items: list[Item],
    optimizers: list[Optimizer],
    step: int | None,
    options: ConvertOptions,
) -> tuple[int | None, list[str]]:
    """Makes the optimizers those of `options.optimizer`, in `items`.

    Returns:
      The global step, and what the program must see to.
    """

    def read(content: Content) -> float:
        return read_number(checkpoint.prefix, checkpoint.index, content)

    target, template = _target(options)
    relinker = Relinker(
        items,
        step,
        target,
        options.hyperparameters,
        read,
        template=template,
        from_optimizer=options.from_optimizer,
        is_keras_3=options.optimizer == KERAS_3,
    )
    try:
        relinker.relink(optimizers)
    except UnsupportedCheckpointError as error:
        error.message += _may_be_slots(items) if not optimizers else ""
        raise
    return relinker.step, relinker.notes


def _target(options: ConvertOptions) -> tuple[str, Mapping[str, float]]:
    """What the optimizers are to become, and the hyperparameters that the template has."""
    target = options.optimizer
    assert target is not None
    if options.like is None:
        if target in NEWER_TARGETS:
            raise SettingsError(
                "Keras' optimizers since 2.11 know their slots by the order of the variables, and "
                "only the program knows that; let it write a template, after "
                "optimizer.build(model.trainable_variables), by tf.train.Checkpoint(model=model, "
                "optimizer=optimizer).write(PATH), and give PATH as `like`",
                key="like",
            )
        return target, {}
    template = template_optimizers(options.like)
    there = "none of them"
    if template.newer:
        there = KERAS_3 if template.is_keras_3 else KERAS_2
    if target in NEWER_TARGETS and there != target:
        raise SettingsError(f"expected an optimizer of {target} in it, found {there}", key="like")
    if target in (LEGACY, *NEWER_TARGETS) and template.newer:
        target = NEWER
    return target, template.numbers


# --- objects and keys ---


def _with_objects(
    checkpoint: Checkpoint,
    items: list[Item],
    step: int | None,
    excluded: Sequence[str],
    options: ConvertOptions,
) -> tuple[list[Item], list[str | None], Content]:
    """The items as objects have them, the keys of these, and the object graph."""
    items, keys, graph = _structure(checkpoint, items, options, step)
    if graph is None:
        return items, keys, _source(checkpoint, OBJECT_GRAPH_KEY)
    if options.layout == "scopes":
        check_scopes(excluded, graph)
    return items, keys, string_content(graph.serialize())


def _structure(
    checkpoint: Checkpoint, items: list[Item], options: ConvertOptions, step: int | None
) -> Structure:
    if options.like is not None:
        return like_structure(
            items, step, options.like, source=checkpoint, drop_slots=options.drop_slots
        )
    if options.layout is None and checkpoint.object_graph is not None:
        if options.optimizer:
            raise SettingsError(
                "an optimizer that is converted needs a new structure of objects; say which: "
                "'var_list', 'scopes' or `like`",
                key="layout",
            )
        return kept_structure(items, checkpoint.object_graph, drop_configs=options.drop_configs)
    return new_structure(items, options.layout or "var_list", step)


def _configs(
    checkpoint: Checkpoint, tensors: dict[str, Content], options: ConvertOptions
) -> Iterator[ConversionRow]:
    """Adds what objects are to the result, where the objects themselves are in it."""
    made_anew = options.layout is not None or options.like is not None
    has_objects = checkpoint.object_graph is not None and options.checkpoint_format != "saver"
    for key in Entries(checkpoint.index).configs:
        content = _source(checkpoint, key)
        if options.drop_configs or made_anew or not has_objects:
            yield _row(content, (), "what an object is, not a variable")
        else:
            tensors[key] = content
            yield _row(content, (key,), "what an object is")


def _put(
    tensors: dict[str, Content], items: Sequence[Item], targets: Sequence[tuple[str, ...]]
) -> None:
    for item, keys in zip(items, targets):
        for key in keys:
            there = tensors.setdefault(key, item.content)
            if there is not item.content and there != item.content:
                raise ConflictError(
                    f"{there.source or 'what is added'!r} and {item.content.source or item.name!r} "
                    "would both have this key; rename one or leave it out",
                    key=key,
                )
    first = min(tensors, default=None)
    if first is not None and first[:1] in ("", "\0"):
        raise UnsupportedCheckpointError(
            "a key cannot be empty or begin with a NUL character; rename the variable",
            key=tensors[first].source or first,
        )


def _source(checkpoint: Checkpoint, key: str) -> Content:
    entry = checkpoint.index.entries[key_bytes(key)]
    return Content(key, entry.dtype, entry.shape, entry.size)


# --- lines of the plan ---


def _rows(
    contents: Sequence[Content], targets: Sequence[tuple[str, ...]], whys: Iterable[str]
) -> Iterator[ConversionRow]:
    """A line for each tensor; `targets` are its keys in the result."""
    sources, nbytes = columns_of(contents, "source", "nbytes")
    actions = map(_action, contents, targets)
    return from_columns(ConversionRow, actions, sources, targets, whys, nbytes)


def _row(content: Content, targets: tuple[str, ...], why: str) -> ConversionRow:
    return next(_rows([content], [targets], [why]))


def _action(content: Content, targets: tuple[str, ...]) -> str:
    if not targets:
        return "left out"
    if not content.source:
        return "added"
    if content.cast:
        return "cast"
    if content.scale != 1.0:
        return "computed"
    return "kept" if content.source in targets else "renamed"


# --- the source ---


def _check_structure(checkpoint: Checkpoint) -> None:
    """Raises CorruptCheckpointError for the first fault that shows without reading the data."""
    prefix, index = checkpoint.prefix, checkpoint.index
    for fault in structure_faults(prefix, index, checkpoint.object_graph):
        raise CorruptCheckpointError(fault.message, path=fault.file, key=fault.key)
