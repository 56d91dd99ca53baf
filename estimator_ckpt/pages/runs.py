"""The runs below a logdir that have checkpoints, and their views: what the tab asks for."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from typing import Any

from estimator_ckpt import files
from estimator_ckpt.checkpoint import open_checkpoint
from estimator_ckpt.compare import compare_checkpoints
from estimator_ckpt.errors import CheckpointError, printable
from estimator_ckpt.pages.contents import contents
from estimator_ckpt.pages.history import checkpoint_names, history_view
from estimator_ckpt.pages.mapping import mapping_view, warm_start_view
from estimator_ckpt.pages.values import changes_view, values_view

_STATE = "checkpoint"
_SPEC = re.compile(r"(?:([^:/]+):(?!//))?(.+)")  # of --logdir_spec: NAME:PATH or PATH
_FILE = re.compile(r"\.(?:index|meta|data-\d+-of-\d+)$|\.tfevents\.")  # not asked what they are
_SECONDS = 0.3  # for the formats of a run's checkpoints: the tab is to be there within one


class UnknownRunError(Exception):
    """A run, or a checkpoint of a run, that is not among those that were listed."""


class Runs:
    """The directories below a logdir that have a state file.

    The logdir is walked beside what asks for them, from the start on: where it is remote or large
    that takes a while.

    Args:
      logdir: a path, as TensorBoard's flag `--logdir` has it, or "".
      spec: `NAME:PATH,NAME:PATH`, as `--logdir_spec` has it; counts where there is no `logdir`.
    """

    def __init__(self, logdir: str, spec: str = "") -> None:
        self._roots = [("", os.path.expanduser(logdir))] if logdir else list(_roots(spec))
        self._directories: dict[str, str] = {}
        self._starting = threading.Lock()
        self._walk: threading.Thread | None = None
        self._find_beside()

    @property
    def found_any(self) -> bool:
        """Whether there is one, as far as is known."""
        self._find_beside()
        return bool(self._directories)

    def listed(self) -> list[dict[str, Any]]:
        """Each run with the names of its checkpoints, oldest first, all as they are printed.

        Once some are known, those that are new since are there at the next call.
        """
        self._find_beside()
        found = []
        for run, directory in self._known().items():
            with contextlib.suppress(CheckpointError):  # it is gone meanwhile
                names = list(map(printable, checkpoint_names(directory)))
                found.append({"run": run, "checkpoints": names})
        return found

    def contents(self, run: str, checkpoint: str) -> list[dict[str, Any]]:
        """What a checkpoint is.

        Raises:
          UnknownRunError: it is none of those listed.
          CheckpointError: it cannot be read.
        """
        with open_checkpoint(self._prefix(run, checkpoint), need_data=False) as opened:
            return [contents(opened)]

    def job(self, run: str) -> list[dict[str, Any]]:
        """What the job of a run started from, and its checkpoints over time.

        Raises:
          UnknownRunError: it is none of those listed.
        """
        directory = self._directory(run)
        started = _warm_start(directory)
        return [*([started] if started else []), history_view(directory, seconds=_SECONDS)]

    def values(self, run: str, checkpoint: str) -> list[dict[str, Any]]:
        """The values of a checkpoint. Raises as contents() does."""
        with open_checkpoint(self._prefix(run, checkpoint)) as opened:
            return [values_view(opened)]

    def changes(self, before: tuple[str, str], after: tuple[str, str]) -> list[dict[str, Any]]:
        """How the values of two checkpoints differ, each a run and a name.

        Raises as contents() does.
        """
        a, b = self._prefix(*before), self._prefix(*after)
        with open_checkpoint(a) as ours, open_checkpoint(b) as theirs:
            return [changes_view(ours, theirs, compare_checkpoints(ours, theirs))]

    def _find_beside(self) -> threading.Thread:
        """The walk that is under way, or one that begins."""
        with self._starting:  # TensorBoard answers each request in a thread of its own
            if self._walk is None or not self._walk.is_alive():
                self._walk = threading.Thread(target=self._find, daemon=True)
                self._walk.start()
            return self._walk

    def _known(self) -> dict[str, str]:
        """The directories by what the runs are called; of the first walk its end is waited for."""
        if not self._directories:
            self._find_beside().join()
        return self._directories

    def _find(self) -> None:
        found: dict[str, str] = {}
        for name, root in self._roots:
            for directory in _walk(root):
                below = os.path.relpath(directory, root) if directory != root else ""
                run = printable("/".join(filter(None, (name, below)))) or "."
                found[printable(directory) if run in found else run] = directory
        self._directories = dict(sorted(found.items()))

    def _directory(self, run: str) -> str:
        directory = self._known().get(run)
        if directory is None:
            raise UnknownRunError(f"run {printable(run)}")
        return directory

    def _prefix(self, run: str, checkpoint: str) -> str:
        directory = self._directory(run)
        names = {printable(name): name for name in checkpoint_names(directory)}
        if checkpoint not in names:
            raise UnknownRunError(f"checkpoint {printable(checkpoint)} of run {printable(run)}")
        return os.path.join(directory, names[checkpoint])


def _warm_start(directory: str) -> dict[str, Any] | None:
    """What warm_start_view() says, or what is wrong with its file: the rest is shown still."""
    try:
        return warm_start_view(directory)
    except CheckpointError as error:
        return mapping_view("warm start", [], left="checkpoint", right="model", hint=str(error))


def _roots(spec: str) -> Iterator[tuple[str, str]]:
    """Names and paths, as _parse_event_files_spec() of TensorBoard's data_ingester.py has them."""
    for part in spec.split(","):
        found = _SPEC.fullmatch(part.strip())
        if found:
            yield found.group(1) or "", os.path.expanduser(found.group(2))


def _walk(root: str) -> Iterator[str]:
    """The directories from `root` on that have a state file; none twice, by whatever links."""
    waiting, seen = [root], set()
    while waiting:
        directory = waiting.pop()
        real = directory if files.is_remote(directory) else os.path.realpath(directory)
        if real in seen:
            continue
        seen.add(real)
        with contextlib.suppress(CheckpointError, OSError):  # not there yet, or not to be read
            names = files.list_dir(directory)
            if _STATE in names and not files.is_dir(os.path.join(directory, _STATE)):
                yield directory
            others = (name for name in names if not _FILE.search(name))
            below = (os.path.join(directory, name) for name in others)
            waiting += [path for path in below if files.is_dir(path)]
