"""What a training job tells while it runs."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import tensorflow as tf

from estimator_ckpt.reading import state


class Show(Protocol):
    """Shows a line, which stays on a terminal unless it `passes`: then the next one replaces it."""

    def __call__(self, line: str, *, passes: bool = False) -> None: ...


class Progress(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Tells the step, steps a second, the loss, the newest checkpoint and the time to go.

    Attributes:
      step: the global step that was seen last; None before a session has begun.
    """

    def __init__(
        self,
        max_steps: int | None,
        model_dir: str,
        every_secs: float,
        show: Show,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes the hook.

        Args:
          max_steps: the global step at which training ends, if it does.
          model_dir: where the newest checkpoint is looked up.
          every_secs: seconds between two lines.
          show: shows a line.
          clock: seconds from any time on.
        """
        self._max_steps = max_steps
        self._model_dir = model_dir
        self._every_secs = every_secs
        self._show = show
        self._clock = clock
        self._loss: Any = None
        self.last_loss = ""
        self.step: int | None = None

    def begin(self) -> None:
        """Finds the loss, which Estimator puts into this collection last."""
        losses = tf.compat.v1.get_collection(tf.compat.v1.GraphKeys.LOSSES)
        self._loss = losses[-1] if losses else None
        self._global_step = tf.compat.v1.train.get_global_step()

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Tells where training starts."""
        del coord
        self.step = int(session.run(self._global_step))
        self._time = self._clock()
        newest = self._newest()
        start = f"starts at step {self.step:,}"
        if self.step and newest is not None:
            start = f"resumes at step {self.step:,}"
        end = "" if self._max_steps is None else f", ends at step {self._max_steps:,}"
        self._show(f"{start}{end}; model_dir {self._model_dir}")

    def before_run(self, run_context: Any) -> Any:
        """Asks for the loss of the step only where a line is due."""
        del run_context
        self._due = self._clock() - self._time >= self._every_secs
        if not self._due or self._loss is None:
            return None
        return tf.compat.v1.train.SessionRunArgs(self._loss)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Shows a line where one is due."""
        if not self._due:
            return
        if self._loss is not None:
            self.last_loss = f"loss {float(run_values.results):.6g}"
        step, now = int(run_context.session.run(self._global_step)), self._clock()
        rate = (step - (self.step or 0)) / max(now - self._time, 1e-9)
        self.step, self._time = step, now
        self._show(self._line(step, rate), passes=True)

    def end(self, session: Any) -> None:
        """Notes where training ended."""
        self.step = int(session.run(self._global_step))

    def _line(self, step: int, rate: float) -> str:
        of = ""
        to_go = ""
        if self._max_steps:
            of = f" of {self._max_steps:,} ({100 * step // self._max_steps} %)"
            if rate > 0:
                to_go = f"{duration((self._max_steps - step) / rate)} to go"
        newest = self._newest()
        saved = f"checkpoint {newest}" if newest else "no checkpoint yet"
        parts = [f"step {step:,}{of}", f"{rate:.3g} steps/s", self.last_loss, saved, to_go]
        return ", ".join(part for part in parts if part)

    def _newest(self) -> str | None:
        found = state.read_state(self._model_dir)
        return None if found is None else os.path.basename(found.model_checkpoint_path)


def duration(seconds: float) -> str:
    """`0:45`, `12:03`, `1:02:03`, `3 days 4:05:06`."""
    minutes, secs = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours}:{minutes:02}:{secs:02}" if hours or days else f"{minutes}:{secs:02}"
    return f"{days} day{'s' * (days != 1)} {clock}" if days else clock


@contextlib.contextmanager
def shown_lines() -> Iterator[Show]:
    """What shows lines on the standard error; only on a terminal do some of them pass."""
    if not sys.stderr.isatty():

        def show(line: str, *, passes: bool = False) -> None:
            del passes
            print(line, file=sys.stderr, flush=True)

        yield show
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True)
    # What the program prints goes above the line, unless it goes to a file.
    above = sys.stdout.isatty()
    with Live(console=console, auto_refresh=False, transient=True, redirect_stdout=above) as live:

        def show_on_terminal(line: str, *, passes: bool = False) -> None:
            if passes:
                live.update(Text(line), refresh=True)
            else:
                console.print(Text(line), soft_wrap=True)

        yield show_on_terminal
