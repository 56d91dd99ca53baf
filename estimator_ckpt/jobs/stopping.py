"""A stop in good order: SIGTERM or Ctrl-C finishes the step, saves, sets the exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from absl import logging

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def stop_hook() -> StopHook:
    """A hook with which SIGTERM, or SIGINT (Ctrl-C), stops a job without losing a step.

        hook = estimator_ckpt.stop_hook()
        estimator.train(input_fn, hooks=[hook], max_steps=10000)

    It belongs in the hooks of `Estimator.train`, of `tf.estimator.TrainSpec`, or of a
    MonitoredTrainingSession; and in those of `tf.estimator.EvalSpec` or `Estimator.evaluate`, so
    that a stop does not wait for an evaluation.

    While steps are made, a signal is kept until the step is done. Then the session ends as it does
    at the end of its input: every hook's `end()` runs, the CheckpointSaverHook saves; this one's
    calls a handler that the program had installed before. When the session is closed, SystemExit
    is raised, with the code that shells report of the signal: 143 for SIGTERM, 130 for SIGINT. What
    stands behind the training in the program (evaluations, exports) does not run; `finally` blocks
    and exit handlers do. The next start resumes at the step that was saved. A training inside
    another one (in a hook, say) just ends; the outer one saves, too, and exits.

    While nothing is there to be saved (the session is being made, or it evaluates), SystemExit is
    raised at once; the metrics of an evaluation that is broken off are not written. A second signal
    does what it would do without the hook. Before a session begins and after its end, signals do
    what they did before; a signal that the program ignores stays ignored.

    It does not belong into an InMemoryEvaluatorHook, whose evaluation follows no save: what was
    trained since the last one would be lost.

    In a cluster that TF_CONFIG describes, each process has the hook: the chief saves, workers
    leave after their step, the evaluator at once. Parameter servers hold the variables, so they
    serve until the chief and all workers are gone. Call stop_hook() before train_and_evaluate()
    there, as the TrainSpec does. Where the steps of several workers wait for each other (collective
    all-reduce), a worker that stops leaves the others waiting: signal all of them, and let the
    second signal, or the scheduler, end those that hang.

    Signals reach the main thread alone. A training in another thread goes on without a clean
    stop, and a warning says so.

    Returns:
      A `tf.compat.v1.train.SessionRunHook`. It can be used for any number of sessions, one after
      another or one inside the other. All that are made in a process share one state: a stop is
      a stop of the process.
    """
    from estimator_ckpt.jobs.parameter_server import serve_until_trainers_end

    serve_until_trainers_end()
    return StopHook(STOP)


@dataclass(frozen=True)
class _Session:
    """A session with the hook: `coordinator` is None while it is being made."""

    graph: Any
    evaluates: bool
    coordinator: Any = None

    @property
    def is_closed(self) -> bool:
        """Also true where an exception has closed it, of which hooks are not told."""
        return self.coordinator is not None and self.coordinator.joined


class Stop:
    """The stop that a signal asks for.

    Attributes:
      signal: the signal that has come, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._sessions: list[_Session] = []
        self._before: dict[int, Any] = {}
        self._process = os.getpid()
        self._everywhere = False

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells report it: 130 or 143; 0 where none has come."""
        return 0 if self.signal is None else 128 + self.signal

    @property
    def name(self) -> str:
        """The signal's name, such as SIGTERM."""
        return signal.Signals(self.signal).name if self.signal is not None else ""

    @contextlib.contextmanager
    def everywhere(self) -> Iterator[None]:
        """Handles signals outside of sessions, too: they raise SystemExit there."""
        self.signal = None
        self._everywhere = True
        self._install()
        try:
            yield
        finally:
            self._everywhere = False
            self._sessions.clear()
            self._uninstall()

    def begin(self, graph: Any, evaluates: bool) -> None:
        """A session is about to be made; SystemExit if it evaluates after the last save."""
        self._sessions = [
            one for one in self._open_sessions() if one.coordinator and one.graph is not graph
        ]
        if not self._sessions and not self._everywhere:
            self.signal = None
        if self.signal is not None and evaluates:
            raise self.exit()
        self._sessions.append(_Session(graph, evaluates))
        self._install()

    def created(self, graph: Any, evaluates: bool, coordinator: Any) -> None:
        """The session is there: at its start, and each time it has been lost."""
        self._sessions = [one for one in self._open_sessions() if one.graph is not graph]
        self._sessions.append(_Session(graph, evaluates, coordinator))

    def end(self, graph: Any) -> None:
        """The hooks of a session end it; if a signal has come, closing it raises SystemExit."""
        sessions = self._open_sessions()
        self._sessions = [one for one in sessions if one.graph is not graph]
        ending = [one for one in sessions if one.graph is graph]
        inside = any(not one.evaluates for one in self._sessions)  # of another one, which saves
        if ending and self.signal is not None and not inside:
            _raise_when_closed(ending[-1].coordinator, self._final_exception())
        if not self._sessions and not self._everywhere:
            self._uninstall()

    def coordinator(self, graph: Any) -> Any:
        """The tf.train.Coordinator of the session of a graph; None in another thread."""
        found = [one.coordinator for one in self._open_sessions() if one.graph is graph]
        return found[-1] if found else None

    def exit(self) -> SystemExit:
        """What ends the program."""
        return SystemExit(self.exit_code)

    def _open_sessions(self) -> list[_Session]:
        return [one for one in self._sessions if not one.is_closed]

    def _final_exception(self) -> BaseException:
        """SystemExit, or what the program's own handler raises."""
        number = int(self.signal or 0)
        before = self._before.get(number)
        if callable(before) and before is not signal.default_int_handler:
            try:
                before(number, None)
            except BaseException as error:
                return error
        return self.exit()

    def _install(self) -> None:
        self._process = os.getpid()
        for number in _SIGNALS:
            before = signal.getsignal(number)
            # None: it is not Python that handles it.
            if before not in (self._handle, signal.SIG_IGN, None):
                self._before[number] = before
                signal.signal(number, self._handle)

    def _uninstall(self) -> None:
        for number, before in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, before)
        self._before = {}

    def _handle(self, number: int, frame: Any) -> None:
        sessions = self._open_sessions()
        is_child = os.getpid() != self._process  # a worker that was forked, and is to end
        if self.signal is not None or is_child or not (sessions or self._everywhere):
            self._handle_as_before(number, frame)
            return
        self.signal = number
        steps = any(one.coordinator is not None and not one.evaluates for one in sessions)
        what = "finishing the step, saving a checkpoint" if steps else "stopping"
        # Not print(): the signal may have come in the middle of another one.
        os.write(2, f"{_clear_line()}{self.name}: {what}\n".encode())
        if not steps:
            raise self.exit()

    def _handle_as_before(self, number: int, frame: Any) -> None:
        """What a signal does without Stop.

        Python complains of a signal that has come where its handler is SIG_DFL by now; so the
        handler is changed only as that signal is handled.
        """
        before = self._before.get(number, signal.SIG_DFL)
        if callable(before):
            before(number, frame)
        elif before == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


def _clear_line() -> str:
    """On a terminal, what takes away a line of progress, or the `^C` that was typed."""
    return "\r\x1b[2K" if os.isatty(2) and os.environ.get("TERM", "dumb") != "dumb" else ""


def _raise_when_closed(coordinator: Any, error: BaseException) -> None:
    """Has the session of this tf.train.Coordinator raise an exception when all hooks have ended.

    Coordinator.join(), which closing the session calls, raises the first one that request_stop()
    was given before a stop without any (tensorflow/python/training/coordinator.py).
    """
    if coordinator is None:
        return
    try:
        coordinator.raise_requested_exception()
    except BaseException:  # a thread of the input has failed: it is raised in any case
        return
    coordinator.clear_stop()
    try:
        raise error
    except BaseException as raised:
        coordinator.request_stop(raised)


STOP = Stop()


class StopHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """See stop_hook()."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def begin(self) -> None:
        """Handles signals from now on."""
        if threading.current_thread() is not threading.main_thread():
            logging.warning(
                "stop_hook(): this session runs in the thread %r, but signals reach the main "
                "thread alone: SIGTERM will end it without saving",
                threading.current_thread().name,
            )
            return
        graph = tf.compat.v1.get_default_graph()
        self._stop.begin(graph, _evaluates(graph))

    def after_create_session(self, session: Any, coord: Any) -> None:
        """From now on there is something to save."""
        if threading.current_thread() is threading.main_thread():
            self._stop.created(session.graph, _evaluates(session.graph), coord)

    def before_run(self, run_context: Any) -> None:
        """Breaks off an evaluation; ends a training whose loop does not ask should_stop().

        As at the end of the input, `with` closes the session then, and hooks save.
        """
        graph = run_context.session.graph
        coordinator = self._stop.coordinator(graph)
        if self._stop.signal is None or coordinator is None:
            return
        if _evaluates(graph):
            raise self._stop.exit()
        if coordinator.should_stop():
            raise tf.errors.OutOfRangeError(None, None, f"stopped by {self._stop.name}")

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """The step is done, and should_stop() is true from now on.

        Not by run_context.request_stop(): after that, a loop that does not ask should_stop() gets a
        RuntimeError, and nothing is saved (tensorflow/python/training/monitored_session.py).
        """
        del run_values
        graph = run_context.session.graph
        coordinator = self._stop.coordinator(graph)
        if self._stop.signal is None or coordinator is None or _evaluates(graph):
            return  # an evaluation that just ended would have metrics of a part
        coordinator.request_stop()

    def end(self, session: Any) -> None:
        """Leaves signals to those who handled them before."""
        if threading.current_thread() is threading.main_thread():
            self._stop.end(session.graph)


def _evaluates(graph: Any) -> bool:
    """Whether a session of this graph evaluates, and so has nothing to save.

    Estimator.evaluate() has made the counter of its steps before hooks begin
    (tensorflow/python/training/evaluation.py).
    """
    return bool(graph.get_collection(tf.compat.v1.GraphKeys.EVAL_STEP))
