"""What a run of `estimator-ckpt train` does not take over from the program that trained before."""

from __future__ import annotations

import os
from collections.abc import Sequence

from estimator_ckpt import files
from estimator_ckpt.reading.state import read_state

_LACKING = {
    "run_config": "its RunConfig (--run_config)",
    "hooks": "its hooks (--hooks)",
    "exporter": "its exporters (--exporter)",
}
_NEVER = ("hooks of its evaluation", "its saving listeners")


def not_taken_over(
    model_dir: str,
    *,
    lacking: Sequence[str],
    exporters: Sequence[str],
    keep_checkpoint_max: int | None,
) -> list[str]:
    """Lines about what a program may have had, as far as its model_dir and the flags tell.

    Args:
      model_dir: where it has trained.
      lacking: those of the flags run_config, hooks and exporter that are not given.
      exporters: the names of the exporters that this run has.
      keep_checkpoint_max: how many checkpoints stay; 0 or None: all.
    """
    parts = [*(_LACKING[flag] for flag in lacking), *_NEVER]
    notes = [f"not taken over from a program that trained here before: {', '.join(parts)}"]
    gone = [n for n in _directories(os.path.join(model_dir, "export")) if n not in exporters]
    if gone:
        where = ", ".join(os.path.join(model_dir, "export", name) for name in gone)
        notes.append(f"no exporter writes to {where}: give it as --exporter")
    named = _directories(model_dir, "eval_")
    if named:
        notes.append(f"evaluations go to eval, not to {', '.join(named)}")
    listed = read_state(model_dir)
    count = 0 if listed is None else len(listed.all_model_checkpoint_paths)
    if keep_checkpoint_max and count > keep_checkpoint_max:
        notes.append(
            f"the state file lists {count} checkpoints, and {keep_checkpoint_max} stay: the first "
            "save deletes the others; --keep_checkpoint_max says how many stay, 0 for all"
        )
    return notes


def _directories(path: str, start: str = "") -> list[str]:
    """The names of directories in a directory that begin in a certain way."""
    if not files.is_dir(path):
        return []
    names = sorted(name.rstrip("/") for name in files.list_dir(path) if name.startswith(start))
    return [name for name in names if files.is_dir(os.path.join(path, name))]
