"""The lease of a model_dir: one process trains in it, and a second one is refused.

It is a claim, see files/claims.py, which this process takes at its first save that writes the state
file, for all its sessions. It goes with the last session that has saved, or with the process. A
stock Saver does not look for it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref

from absl import logging

from estimator_ckpt import files
from estimator_ckpt.errors import BusyError, CheckpointError
from estimator_ckpt.files import claims

_WAIT = 75.0  # seconds: longer than it takes to see that an owner on another machine is dead
_WORK = "training"


class Lease:
    """The right to write one state file; for each process one object."""

    def __init__(self, directory: str, state_name: str) -> None:
        self._process = os.getpid()
        self._path = os.path.join(directory, f"{state_name}.lease")
        self._claim: claims.Claim | None = None
        self._holders: weakref.WeakSet[object] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._is_impossible = False

    def take(self, holder: object) -> None:
        """Takes the lease, or keeps it; waits up to 75 s for another to end.

        Args:
          holder: the session that saves; the lease goes when the last one is gone.

        Raises:
          BusyError: another process trains here, and which; or it has taken over from this one.
        """
        with self._lock:
            if holder not in self._holders:
                self._holders.add(holder)
                weakref.finalize(holder, self._leave_soon).atexit = False
            if self._claim is not None:
                self.check()
            elif not self._is_impossible:
                self._acquire()

    def _acquire(self) -> None:
        reason: object = "on remote paths no step makes a file only where there is none"
        if files.is_remote(self._path):
            reason = f"{reason}{self._who_was_here()}"
        if not files.is_remote(self._path):
            try:
                self._claim = claims.acquire(self._path, _WORK, wait=_WAIT)
                atexit.register(self._release)
                return
            except BusyError as error:
                raise BusyError(
                    f"{error.message}. Two jobs in one model_dir overwrite each other's "
                    "checkpoints: stop one, or give it another model_dir",
                    path=error.path,
                ) from error
            except CheckpointError as error:
                reason = error
        self._is_impossible = True
        logging.warning(
            "A second job in this directory would not be noticed: %s: %s", self._path, reason
        )

    def _who_was_here(self) -> str:
        """Of a remote directory, whose lease came along when it was copied there."""
        try:
            owner = claims.find_owner(self._path)
        except CheckpointError:
            owner = None
        return f"; who was at work here, or where it was copied from: {owner}" if owner else ""

    def check(self) -> None:
        """Before the state file is written.

        Raises:
          BusyError: another process has taken over; this one has not been seen alive for a minute.
        """
        if self._claim is None:
            return
        owner = claims.find_owner(self._path)
        if owner is None or owner.token == self._claim.owner.token:
            return  # one that was removed by hand is nobody's
        raise BusyError(
            f"another has taken over this model_dir, as this process showed no life: {owner}. This "
            "job stops, for two would overwrite each other's checkpoints",
            path=self._path,
        )

    def _leave_soon(self) -> None:
        """A session is gone. The garbage collector calls this anywhere, within a lock even, or in
        the thread that a claim beats in, or in a forked child, where the lock may never be free."""
        if os.getpid() != self._process:
            return
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and self._lock.acquire(blocking=False):
            try:
                self._leave()
            finally:
                self._lock.release()
        else:
            with contextlib.suppress(RuntimeError):  # the interpreter is ending: see atexit
                threading.Thread(target=self._leave_later, name="lease").start()

    def _leave_later(self) -> None:
        with self._lock:
            self._leave()

    def _leave(self) -> None:
        # The set's length may still count the one that is going.
        if next(iter(self._holders), None) is None:
            self._release()

    def _release(self) -> None:
        claim, self._claim = self._claim, None
        atexit.unregister(self._release)
        if claim is not None:
            with contextlib.suppress(CheckpointError):  # it then stands as that of a dead process
                claim.release()
