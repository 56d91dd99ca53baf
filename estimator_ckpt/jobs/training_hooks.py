"""What a training job tells while it runs, and how it stops in good order."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from estimator_ckpt.reading import state

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A signal has asked to stop where there is nothing to finish and nothing to save.

    Not an Exception, so that nobody who handles errors takes it for one.
    """


class Stop:
    """A stop that SIGINT or SIGTERM asks for.

    While steps are made, the step is finished and a checkpoint is saved; at other times Stopped is
    raised at once. A second signal has the effect that it always had.

    Attributes:
      signal: the signal that has come, or None.
      training: whether steps are being made.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.training = False

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells report it: 130 or 143; 0 where none has come."""
        return 0 if self.signal is None else 128 + self.signal

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Handles the signals, in the main thread; what handled them before does so afterwards."""
        before = {int(number): signal.getsignal(number) for number in _SIGNALS}

        def handle(number: int, frame: Any) -> None:
            if self.signal is not None:
                _handle_as_before(number, frame, before[number])
                return
            self.signal = number
            what = "finishing the step, saving a checkpoint" if self.training else "stopping"
            # Not print(): the signal may have come in the middle of another one.
            os.write(2, f"{signal.Signals(number).name}: {what}\n".encode())
            if not self.training:
                raise Stopped

        for number in _SIGNALS:
            signal.signal(number, handle)
        try:
            yield
        finally:
            for number in _SIGNALS:
                signal.signal(number, before[number])


def _handle_as_before(number: int, frame: Any, before: Any) -> None:
    """What a signal does without Stop.

    Python complains of a signal that has come where its handler is SIG_DFL by now; so the handler
    is changed only as that signal is handled.
    """
    if callable(before):
        before(number, frame)
    elif before == signal.SIG_DFL:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


class StopTraining(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Ends training after the current step; the CheckpointSaverHook then saves, as at any end."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def after_create_session(self, session: Any, coord: Any) -> None:
        """From now on there is something to save."""
        del session, coord
        self._stop.training = True

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """The step is done."""
        del run_values
        if self._stop.signal is not None:
            run_context.request_stop()


class StopEvaluation(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Breaks off an evaluation, so that no metrics of a part of the data are taken for the whole's.

    In the midst of a training an evaluation follows a save: nothing is lost.
    """

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def before_run(self, run_context: Any) -> None:
        """Raises Stopped, if a signal has come since training began."""
        del run_context
        if self._stop.signal is not None:
            raise Stopped


class Progress(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Tells the step, steps a second, the loss, the newest checkpoint and the time to go."""

    def __init__(
        self,
        max_steps: int | None,
        model_dir: str,
        every_secs: float,
        show: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes the hook.

        Args:
          max_steps: the global step at which training ends, if it does.
          model_dir: where the newest checkpoint is looked up.
          every_secs: seconds between two lines.
          show: what to call with a line.
          clock: seconds from any time on.
        """
        self._max_steps = max_steps
        self._model_dir = model_dir
        self._every_secs = every_secs
        self._show = show
        self._clock = clock
        self._loss: Any = None
        self._last_loss = ""

    def begin(self) -> None:
        """Finds the loss, which Estimator puts into this collection last."""
        losses = tf.compat.v1.get_collection(tf.compat.v1.GraphKeys.LOSSES)
        self._loss = losses[-1] if losses else None
        self._global_step = tf.compat.v1.train.get_global_step()

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Tells where training starts."""
        del coord
        self._step = int(session.run(self._global_step))
        self._time = self._clock()
        newest = self._newest()
        start = f"starts at step {self._step:,}"
        if self._step and newest is not None:
            start = f"resumes at step {self._step:,}"
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
            self._last_loss = f"loss {float(run_values.results):.6g}"
        step, now = int(run_context.session.run(self._global_step)), self._clock()
        rate = (step - self._step) / max(now - self._time, 1e-9)
        self._step, self._time = step, now
        self._show(self._line(step, rate))

    def end(self, session: Any) -> None:
        """Tells where training ended."""
        self._show(f"ends at step {int(session.run(self._global_step)):,}")

    def _line(self, step: int, rate: float) -> str:
        of = ""
        to_go = ""
        if self._max_steps:
            of = f" of {self._max_steps:,} ({100 * step // self._max_steps} %)"
            if rate > 0:
                to_go = f"{duration((self._max_steps - step) / rate)} to go"
        newest = self._newest()
        saved = f"checkpoint {newest}" if newest else "no checkpoint yet"
        parts = [f"step {step:,}{of}", f"{rate:.3g} steps/s", self._last_loss, saved, to_go]
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
def shown_lines() -> Iterator[Callable[[str], None]]:
    """What shows a line: on a terminal each replaces the one before, elsewhere each stays."""
    if not sys.stderr.isatty():
        yield lambda line: print(line, file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    # What the program prints goes above the line, unless it goes to a file.
    above = sys.stdout.isatty()
    with Live(console=Console(stderr=True), auto_refresh=False, redirect_stdout=above) as live:
        yield lambda line: live.update(Text(line), refresh=True)
