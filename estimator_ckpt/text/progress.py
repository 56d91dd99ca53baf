"""Progress bars on the standard error, for what a person waits for."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from estimator_ckpt.text.terminal import cut_text

_LONG = 256 << 20  # bytes; below it a bar would only flash up


@contextlib.contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """What to call with the bytes done and the bytes in all; None where nobody would see it."""
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
        self._progress: Any = None

    def update(self, done: int, total: int) -> None:
        if total < _LONG:
            return
        if self._progress is None:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TransferSpeedColumn,
            )

            console = Console(stderr=True)
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                console=console,
                transient=True,
            )
            self._progress.start()
            self._task = self._progress.add_task(_short(self._label, console.width), total=total)
        self._progress.update(self._task, completed=done)

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
