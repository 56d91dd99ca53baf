"""A page about checkpoints: one HTML file, to be looked at in a browser."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from estimator_ckpt import files
from estimator_ckpt.checkpoint import Checkpoint, open_checkpoint
from estimator_ckpt.compare import compare_checkpoints
from estimator_ckpt.errors import WriteError
from estimator_ckpt.files import Progress
from estimator_ckpt.pages.contents import contents
from estimator_ckpt.pages.document import document
from estimator_ckpt.pages.history import history_view
from estimator_ckpt.pages.mapping import warm_start_view
from estimator_ckpt.pages.values import changes_view, values_view

_PAGE = b"<!DOCTYPE html>"


def write_report(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    compare_with: str | os.PathLike[str] | None = None,
    values: bool = False,
    progress: Progress = None,
) -> None:
    """Writes a page about a checkpoint: what is in it, and what there is to tell of its run.

    The page is one file that loads nothing else. It has the checkpoint's variables and objects; if
    `path` is a directory, its checkpoints over time; where a `warm_start.json` is beside it, what
    started from where; on request the spread of the values, and the change since another one.

    Args:
      path: what open_checkpoint() takes.
      output: the page, which is written in one step. Another page there is replaced, and nothing
        else is.
      compare_with: another checkpoint, whose values count as those before.
      values: whether to read all values, for a histogram of each variable.
      progress: called with the bytes read so far, and the bytes in all, of one view after the
        other.

    Raises:
      NotACheckpointError, CorruptCheckpointError, UnsupportedCheckpointError: as open_checkpoint().
      WriteError: something else than a page stands at `output`, or it cannot be written.
    """
    text, target = files.path_text(path), files.path_text(output)
    check_page(target)
    need_data = values or compare_with is not None
    with open_checkpoint(text, need_data=need_data) as checkpoint:
        views = _views(checkpoint, values, progress)
        if compare_with is not None:
            with open_checkpoint(compare_with) as before:
                comparison = compare_checkpoints(before, checkpoint, progress=progress)
                views.append(changes_view(before, checkpoint, comparison, progress))
    write_page(target, text, views)


def _views(checkpoint: Checkpoint, values: bool, progress: Progress) -> list[dict[str, Any]]:
    """The views of a checkpoint and, if it was opened by a directory, of its run."""
    views = [contents(checkpoint)]
    if values:
        views.append(values_view(checkpoint, progress))
    started = warm_start_view(os.path.dirname(checkpoint.prefix) or ".")
    if started is not None:
        views.append(started)
    path = checkpoint.path
    if files.is_dir(path) and files.exists(os.path.join(path, "checkpoint")):
        views.append(history_view(path, progress=progress))
    return views


def check_page(output: str) -> None:
    """Raises WriteError unless a page may be written there."""
    odd = "a directory" if files.is_dir(output) else files.oddity(output)
    if odd:
        raise WriteError(f"expected the name of a page, found {odd}", path=output)
    if files.exists(output) and not files.is_remote(output) and not os.access(output, os.W_OK):
        raise WriteError("the page that is there is read-only", path=output)
    directory = os.path.dirname(output) or "."
    if not files.is_remote(output) and not os.access(directory, os.W_OK | os.X_OK):
        wrong = "cannot be written to" if files.exists(directory) else "is not there"
        raise WriteError(f"the directory of the page {wrong}", path=directory)
    if files.exists(output) and files.read_range(output, 0, len(_PAGE)) != _PAGE:
        raise WriteError(
            "this file is no HTML page, and is not replaced: name another one", path=output
        )


def write_page(output: str, title: str, views: Sequence[dict[str, Any]]) -> None:
    """Writes the page with these views in one step. Raises as write_report() does."""
    check_page(output)
    files.write_atomic(output, document(title, views).encode("utf-8"))
