"""check_checkpoint: will a model restore, or warm-start, from this checkpoint?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from estimator_ckpt.checkpoint import Checkpoint, open_checkpoint
from estimator_ckpt.errors import MissingTensorError
from estimator_ckpt.model_side import expected_variables
from estimator_ckpt.object_graph import SAVE_COUNTER
from estimator_ckpt.report import NameIndex, Row, tensor_text
from estimator_ckpt.warm_start import WarmStart
from estimator_ckpt.warm_starting.values import Target, find_starting_values

_MOST_HINTS = 100
_FITS = ("matched", "warm-started", "initialized", "unused")


@dataclass(frozen=True)
class Fit:
    """What check_checkpoint() has found.

    Attributes:
      checkpoint: the prefix of the checkpoint.
      rows: one for each variable of the model, and one for each of the checkpoint that nothing
        reads. The status is `matched`; `warm-started` or `initialized`; `unused`; or, where it does
        not fit, `missing`, `shape`, `dtype` or `unexpected`.
      hint: a rule for a warm start that would help, or "".
    """

    checkpoint: str
    rows: Sequence[Row]
    hint: str = ""

    @property
    def fits(self) -> bool:
        """Whether the model would start."""
        return all(row.status in _FITS for row in self.rows)


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
        the path of another checkpoint, a SavedModel, a `.meta` graph or a `graph.pbtxt`; or
        `package.module:function`, a model_fn or a function without arguments, which is called in a
        graph. Of files without that knowledge, all variables count as trainable but the state of a
        training: slots and numbers of optimizers, the global step.
      warm_start: settings by which the model would start from this checkpoint; the one that they
        name does not count. None: it would restore all of its variables, by name or object path.
      input_fn: `package.module:function`, which gives such a model_fn its features and labels.

    Raises:
      CheckpointError: one of the two sides cannot be read.
      SettingsError: `expected` is none of these, or a rule of the settings is wrong.
    """
    with open_checkpoint(path) as checkpoint:
        targets = expected_variables(expected, input_fn)
        if warm_start is None:
            return Fit(checkpoint.prefix, _restored(checkpoint, targets))
        settings = replace(warm_start, ckpt_to_initialize_from=checkpoint.prefix)
        report, problems, hint = find_starting_values(settings, checkpoint, targets)
        rows = [*problems, *report.rows()]
        named = {row.name for row in rows}
        rows += [Row("unused", name) for name in report.unexpected if name not in named]
        return Fit(checkpoint.prefix, rows, hint.strip())


def _restored(checkpoint: Checkpoint, targets: Sequence[Target]) -> list[Row]:
    rows: list[Row] = []
    used: set[str] = set()
    names = NameIndex(checkpoint.variables)
    for target in targets:
        wanted = tensor_text(target.dtype, target.shape)
        try:
            found = checkpoint.variable(target.name)
        except MissingTensorError:
            near = names.near(target.name, limit=1) if len(rows) < _MOST_HINTS else []
            note = f"did you mean {near[0]}?" if near else ""
            rows.append(Row("missing", target.name, wanted, "", note))
            continue
        used.add(found.name)
        has = tensor_text(found.dtype, found.shape)
        if found.dtype != target.dtype:
            rows.append(Row("dtype", target.name, wanted, has))
        elif target.shape is not None and found.shape != target.shape:
            rows.append(Row("shape", target.name, wanted, has))
        else:
            rows.append(Row("matched", target.name, wanted, has))
    rows.sort(key=lambda row: row.status == "matched")
    rows += [
        Row("unused", v.name, "", tensor_text(v.dtype, v.shape))
        for v in checkpoint.variables.values()
        if v.name not in used and v.name != SAVE_COUNTER
    ]
    return rows
