"""check_checkpoint: will a model restore, or warm-start, from this checkpoint?"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from estimator_ckpt.bundle.dtypes import dtype_name
from estimator_ckpt.bundle.slices import key_bytes
from estimator_ckpt.checking.model import expected_model
from estimator_ckpt.checking.restore import Restore, restore_of
from estimator_ckpt.checkpoint import Checkpoint, open_checkpoint
from estimator_ckpt.errors import SettingsError
from estimator_ckpt.matching.model import Model
from estimator_ckpt.matching.policies import policy_for
from estimator_ckpt.matching.restoring import conversion_that_helps, missing_rows
from estimator_ckpt.objects.object_graph import SAVE_COUNTER
from estimator_ckpt.text.html import html_table
from estimator_ckpt.text.quantities import counted, tensor_text
from estimator_ckpt.text.rows import Row, columns, fold, total_line

if TYPE_CHECKING:
    from estimator_ckpt.warm_start import WarmStart

# In the order in which they are shown, after what does not fit.
_FITS = ("initialized", "not selected", "warm-started", "matched", "unused")
_SLOT_OF = "slot of "


@dataclass(frozen=True)
class Fit:
    """What check_checkpoint() has found.

    Attributes:
      checkpoint: the prefix of the checkpoint.
      rows: one for each variable of the model, and one for each of the checkpoint that nothing
        reads. The status is `matched`; `warm-started` or `initialized`; `unused`; or, where it does
        not fit, `missing`, `no average`, `shape`, `dtype`, `ambiguous` or `unexpected`.
      hint: a setting for a warm start that would help, or a conversion for a restore, or "".
      sources: what each variable of the model that fits is read from, by its name.
      ways: what led to each of these in a restore: `same name`, `object path net/kernel`; the rows
        of a warm start say it.
    """

    checkpoint: str
    rows: Sequence[Row]
    hint: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    ways: Mapping[str, str] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        headers, cells = columns(self.folded_rows(), expected="model", found="checkpoint")
        return html_table(self.checkpoint, headers, cells, total_line(self.rows))

    def sorted_rows(self) -> list[Row]:
        """The rows, what does not fit first, what is unused last."""
        ranks = {status: rank for rank, status in enumerate(_FITS, 1)}
        return sorted(self.rows, key=lambda row: ranks.get(row.status, 0))

    def folded_rows(self) -> list[Row]:
        """sorted_rows(), with repeated layers in a row, and slots that nothing reads in one."""
        rows = [row for row in self.sorted_rows() if not _is_unused_slot(row)]
        slots = len(self.rows) - len(rows)
        more = [Row("unused", counted(slots, "slot") + " of optimizers")] if slots else []
        return fold(rows) + more

    @property
    def misfits(self) -> set[str]:
        """The statuses of rows that do not fit."""
        return {row.status for row in self.rows} - {*_FITS}

    @property
    def fits(self) -> bool:
        """Whether the model would start."""
        return not self.misfits


def check_checkpoint(
    path: str | os.PathLike[str],
    expected: Any,
    *,
    warm_start: WarmStart | None = None,
    input_fn: str | None = None,
) -> Fit:
    """Compares what a model expects with what a checkpoint has, before a job runs.

    Args:
      path: a checkpoint, as open_checkpoint() takes it.
      expected: the model's variables: a mapping from variable names to (shape, dtype); a tf.Graph;
        what WarmStart.apply() takes (a Keras model, a tf.Module, a list or mapping of these or of
        variables); another checkpoint, open or its path, a SavedModel, a `.meta` graph or a
        `graph.pbtxt`; or `package.module:function`, a model_fn or a function without arguments,
        which is called in a graph: a Scaffold, a tf.train.Checkpoint or a Keras model that it
        returns counts. Of files without that knowledge, all variables count as trainable but the
        state of a training: slots and numbers of optimizers, the global step.
      warm_start: settings by which the model would start from this checkpoint; the one that they
        name does not count. None: it would restore all of its variables, as its saver does: that of
        a function which makes one (wrap_model_fn(), or a factory's Scaffold that it returns), with
        its objects and options; of a Keras model or another object what WarmStart.apply() does;
        else by names, and by objects where another checkpoint is the model's side.
      input_fn: `package.module:function`, which gives such a model_fn its features and labels.

    Raises:
      CheckpointError: one of the two sides cannot be read.
      SettingsError: `expected` is none of these, or a rule of the settings is wrong.
    """
    if warm_start is not None:
        _expect_settings(warm_start)
    if isinstance(expected, Checkpoint):
        expected = expected.prefix
    with open_checkpoint(path) as checkpoint:
        if warm_start is None:
            restore = restore_of(expected, checkpoint, input_fn)
            if isinstance(restore, Restore):
                return _restored(checkpoint, restore)
            return _started(checkpoint, None, restore, "matched")
        model = expected_model(expected, input_fn)
        return _started(checkpoint, warm_start, model, "warm-started")


def _expect_settings(warm_start: Any) -> None:
    from estimator_ckpt.warm_start import WarmStart  # few checks need it

    if not isinstance(warm_start, WarmStart):
        raise SettingsError(f"expected a WarmStart, found {warm_start!r}", key="warm_start")


def _started(checkpoint: Checkpoint, settings: WarmStart | None, model: Model, word: str) -> Fit:
    """What a warm start would do, None: by default; `word` is the status of what starts."""
    from estimator_ckpt.warm_start import WarmStart
    from estimator_ckpt.warm_starting.values import find_starting_values

    if settings is None:
        settings = WarmStart(checkpoint.prefix)
    settings = replace(settings, ckpt_to_initialize_from=checkpoint.prefix)
    report, problems, hint = find_starting_values(settings, checkpoint, model)
    wrong = {row.name for row in problems if row.status != "unexpected"}
    rows = [
        replace(row, status=word) if row.status == "warm-started" else row
        for row in report.rows()
        if row.name not in wrong
    ]
    rows += problems
    named = {row.name for row in rows}
    unused = (name for name in report.unexpected if name not in named)
    rows += [Row("unused", name, note=_slot_note(checkpoint, name)) for name in unused]
    sources = {value.target: value.source for value in report.values if value.source is not None}
    return Fit(checkpoint.prefix, rows, hint.strip(), sources)


def _restored(checkpoint: Checkpoint, restore: Restore) -> Fit:
    """What a restore would do."""
    resolution = restore.resolution
    policies = {w.tensor: policy_for(w.variable, restore.on_missing) for w in resolution.missing}
    required = [want for want in resolution.missing if policies[want.tensor] == "error"]
    others = [want for want in resolution.missing if policies[want.tensor] != "error"]
    rows = [*resolution.problems, *restore.no_averages]
    rows += missing_rows(checkpoint, resolution, required)
    rows += missing_rows(checkpoint, resolution, others, "initialized")
    for want in restore.wanted:
        key = resolution.keys.get(want.tensor)
        if key is not None:
            entry = checkpoint.index.entries[key_bytes(key)]
            has = tensor_text(dtype_name(entry.dtype), entry.shape)
            rows.append(Row("matched", want.tensor, tensor_text(want.dtype, want.shape), has))
    used = {*resolution.keys.values()}
    named = {SAVE_COUNTER, *(row.name for row in rows)}
    rows += [
        Row("unused", v.name, "", tensor_text(v.dtype, v.shape), _slot_note(checkpoint, v.name))
        for v in checkpoint.variables.values()
        if v.name not in named and used.isdisjoint(v.keys)
    ]
    hint = conversion_that_helps(checkpoint, resolution, required)
    return Fit(checkpoint.prefix, rows, hint.strip(), resolution.keys, resolution.ways)


def _is_unused_slot(row: Row) -> bool:
    return row.status == "unused" and row.note.startswith(_SLOT_OF)


def _slot_note(checkpoint: Checkpoint, name: str) -> str:
    variable = checkpoint.variables.get(name)
    return "" if variable is None or variable.slot_of is None else _SLOT_OF + variable.slot_of
