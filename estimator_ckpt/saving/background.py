"""What finishes a saver's saves beside training: one thread, one save at a time.

An error there is logged at once, and raised where the job comes by next: at the session's next
run, at the next save, where it waits for the end of a save, or where it closes the session.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

import tensorflow as tf
from absl import logging

from estimator_ckpt.errors import CheckpointError, WriteError
from estimator_ckpt.saving import tf_internals
from estimator_ckpt.saving.images import Image
from estimator_ckpt.saving.op_errors import reason_of
from estimator_ckpt.saving.snapshots import Snapshot

# A MonitoredSession makes a new session after these, if they reach it as they are.
_LOST_SESSION = (tf.errors.AbortedError, tf.errors.UnavailableError)


class Background:
    """Finishes one save at a time."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._watched: weakref.WeakSet[tf.compat.v1.Session] = weakref.WeakSet()

    def start(self, snapshot: Image | Snapshot, prefix: str, finish: Callable[[], object]) -> None:
        """Starts to finish a save; the one before has ended.

        Args:
          snapshot: what is saved. Its session is not closed before the save has ended.
          prefix: of the checkpoint.
          finish: the rest of the save.
        """
        session = snapshot.session
        if session not in self._watched:
            self._watched.add(session)
            tf_internals.before_run_and_close(session, self._before_run, self._before_close)

        def run() -> None:
            try:
                finish()
            except Exception as error:
                snapshot.let_go()
                raised = _raised(error, prefix)
                logging.error("%s", raised)
                _let_go_of_frames(error)
                self._error = raised

        # No daemon: the end of the process waits for it.
        self._thread = threading.Thread(target=run, name="checkpoint_save")
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter is ending
            self._thread = None
            run()

    def join(self) -> None:
        """Waits until the last save has ended, well or not."""
        thread = self._thread
        if thread is not None:
            thread.join()
            if self._thread is thread:  # a session that fails is closed in a thread of its own
                self._thread = None

    def wait(self) -> None:
        """Waits until the last save has ended.

        Raises:
          CheckpointError: the error that it ended with, unless it has been raised elsewhere;
            tf.errors.AbortedError or UnavailableError where the session was lost.
        """
        self.join()
        self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _before_run(self) -> None:
        if self._thread is not None and tf_internals.is_ending():
            self.join()
        if self._error is not None:
            self._raise()

    def _before_close(self) -> None:
        self.join()
        if isinstance(self._error, _LOST_SESSION):
            self._error = None  # as that of a save without a thread, in a session that is lost
        if not tf_internals.drops_errors_of_close():
            self._raise()


def _let_go_of_frames(error: BaseException | None) -> None:
    """Takes away where an error and its causes have come through. As long as nobody has raised
    it, that would keep the session alive, and with it the lease of the directory."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _raised(error: Exception, prefix: str) -> Exception:
    """What is raised in training for an error in the thread."""
    if isinstance(error, (CheckpointError, *_LOST_SESSION)):
        return error
    raised = WriteError(
        "the checkpoint could not be written beside training: "
        f"{type(error).__name__}: {reason_of(error)}",
        path=prefix,
    )
    raised.__cause__ = error
    return raised
