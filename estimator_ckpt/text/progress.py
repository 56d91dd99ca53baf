"""Progress bars on the standard error, for what a person waits for."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from estimator_ckpt.text.terminal import cut_text

_PATIENCE = 0.5  # seconds before a bar is shown: for less it would only flash up


@contextlib.contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """What to call with the bytes done and the bytes in all; None where nobody would see it.

    Until it is called, and where it never is, the bar says that something is going on.
    """
    if not _is_shown():
        yield None
        return
    bar = _Bar(label)
    try:
        yield bar.update
    finally:
        bar.stop()


@contextlib.contextmanager
def counting_bar(label: str) -> Iterator[Callable[[float, int], None] | None]:
    """What to call with the number done and the number in all; None where nobody would see it.

    What is done in part counts as a fraction.
    """
    if not _is_shown():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    )
    with bar:
        task = bar.add_task(_short(label, console.width), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _is_shown() -> bool:
    """Whether the standard error is a terminal that can draw a line anew."""
    return sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def _short(label: str, width: int) -> str:
    """A label that leaves room for what it is the label of."""
    return cut_text(label, max(width // 2 - 4, 16))


class _Bar:
    def __init__(self, label: str) -> None:
        self._label = label
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._progress: Any = None
        self._task: Any = None
        self._is_over = False
        self._timer = threading.Timer(_PATIENCE, self._show)
        self._timer.daemon = True
        self._timer.start()

    def update(self, done: int, total: int) -> None:
        if time.monotonic() - self._began < _PATIENCE:
            return
        self._show()
        if len(self._progress.columns) == len(self._columns):
            from rich.progress import DownloadColumn, TransferSpeedColumn

            self._progress.columns = (*self._columns, DownloadColumn(), TransferSpeedColumn())
        self._progress.update(self._task, completed=done, total=total)

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        with self._lock:
            if self._progress is not None or self._is_over:
                return
            console = Console(stderr=True)
            self._columns = (TextColumn("{task.description}", markup=False), BarColumn())
            self._progress = Progress(
                *self._columns,
                console=console,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
            )
            self._progress.start()
            self._task = self._progress.add_task(_short(self._label, console.width), total=None)

    def stop(self) -> None:
        with self._lock:
            self._timer.cancel()
            self._is_over = True
            if self._progress is not None:
                self._progress.stop()
