"""Planning a conversion: from a checkpoint and the options what will be done."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from estimator_ckpt.bulk import collector_paused, columns_of
from estimator_ckpt.bundle.dtypes import dtype_size
from estimator_ckpt.bundle.slices import key_bytes
from estimator_ckpt.checkpoint import Checkpoint
from estimator_ckpt.conversion.casting import parse_casts
from estimator_ckpt.conversion.choose import choose
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.names_to_objects import (
    Structure,
    check_scopes,
    kept_structure,
    new_structure,
)
from estimator_ckpt.conversion.plan import (
    Content,
    Conversion,
    ConversionRow,
    Item,
    string_content,
)
from estimator_ckpt.conversion.plan_rows import row_of, rows_of
from estimator_ckpt.errors import (
    CheckpointError,
    ConflictError,
    CorruptCheckpointError,
    SettingsError,
    UnsupportedCheckpointError,
)
from estimator_ckpt.formats import GLOBAL_STEP, RESETS_KEY, keys_in
from estimator_ckpt.objects.object_graph import OBJECT_GRAPH_KEY, SAVE_COUNTER, ObjectGraph
from estimator_ckpt.reading.object_tensors import NO_VARIABLES, Entries
from estimator_ckpt.verify import structure_faults

if TYPE_CHECKING:
    from estimator_ckpt.conversion.misfits import Refusal


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
    chosen = choose(checkpoint, options)
    rows, step = chosen.rows, chosen.step
    items = _cast(chosen.items, step, options)
    refusal = None
    if options.optimizer:
        from estimator_ckpt.conversion.relink import relink  # few conversions need it

        items, step, notes, refusal = relink(checkpoint, items, chosen.optimizers, step, options)
        chosen.notes.extend(notes)
    if step is not None and options.checkpoint_format != "checkpoint":
        items[step] = _with_hint(items[step])
    keys: list[str | None] = [None] * len(items)
    tensors: dict[str, Content] = {}
    if options.checkpoint_format != "saver":
        structure = _structure(checkpoint, items, options, step, refusal)
        items, keys = structure.items, structure.keys
        chosen.notes.extend(structure.notes)
        content = _objects(checkpoint, structure.graph, chosen.excluded, options)
        tensors[OBJECT_GRAPH_KEY] = content
        rows.append(row_of(content, (OBJECT_GRAPH_KEY,), "the objects and their keys"))
    if key_bytes(RESETS_KEY) in checkpoint.index.entries:
        tensors[RESETS_KEY] = _source(checkpoint, RESETS_KEY)
        rows.append(row_of(tensors[RESETS_KEY], (RESETS_KEY,), "the resets that the job has made"))
    rows += _configs(checkpoint, tensors, options)
    names = [item.name if item.in_names else "" for item in items]
    targets = keys_in(options.checkpoint_format, names, keys, step)
    _put(tensors, items, targets)
    contents, whys = map(list, columns_of(items, "content", "why"))
    rows += rows_of(contents, targets, whys)
    if graph is not None and OBJECT_GRAPH_KEY not in tensors:
        content = _source(checkpoint, OBJECT_GRAPH_KEY)
        rows.append(row_of(content, (), "a name-based checkpoint has no objects"))
    if not tensors:
        raise SettingsError("nothing would be left of the checkpoint")
    conversion = Conversion(
        source=checkpoint.prefix,
        destination=destination,
        source_format="saver" if graph is None else checkpoint.format,
        checkpoint_format=options.checkpoint_format,
        rows=tuple(rows),
        notes=tuple(chosen.notes),
    )
    return conversion, tensors


# --- other dtypes ---


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


def _with_hint(step: Item) -> Item:
    """The global step; where it is a `step` of another name, with the rule that a TF1 job needs.

    No rule is taken for granted: the program may read it by its own name.
    """
    if step.name == GLOBAL_STEP or step.renamed or not step.in_names:
        return step
    rule = f"rename {re.escape(step.name)} -> {GLOBAL_STEP} makes it TF1's global step"
    return step._replace(why="; ".join(filter(None, (step.why, rule))))


# --- objects and keys ---


def _objects(
    checkpoint: Checkpoint,
    graph: ObjectGraph | None,
    excluded: Sequence[str],
    options: ConvertOptions,
) -> Content:
    """The object graph as a tensor; None for the source's, unchanged."""
    if graph is None:
        return _source(checkpoint, OBJECT_GRAPH_KEY)
    if options.layout == "scopes":
        check_scopes(excluded, graph)
    return string_content(graph.serialize())


def _structure(
    checkpoint: Checkpoint,
    items: list[Item],
    options: ConvertOptions,
    step: int | None,
    refusal: Refusal | None,
) -> Structure:
    if options.like is not None:
        from estimator_ckpt.conversion.like import like_structure  # few conversions need it

        return like_structure(items, step, options, source=checkpoint, refusal=refusal)
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
            yield row_of(content, (), "what an object is, not a variable")
        else:
            tensors[key] = content
            yield row_of(content, (key,), "what an object is")


def _put(
    tensors: dict[str, Content], items: Sequence[Item], targets: Sequence[tuple[str, ...]]
) -> None:
    for item, keys in zip(items, targets):
        for key in keys:
            if key in NO_VARIABLES:
                raise ConflictError(
                    "a checkpoint has something else under this key; rename "
                    f"{item.content.source or item.name!r} or leave it out",
                    key=key,
                )
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


# --- the source ---


def _check_structure(checkpoint: Checkpoint) -> None:
    """Raises CorruptCheckpointError for the first fault that shows without reading the data."""
    prefix, index = checkpoint.prefix, checkpoint.index
    for fault in structure_faults(prefix, index, checkpoint.object_graph):
        raise CorruptCheckpointError(fault.message, path=fault.file, key=fault.key)
