"""A fault at the N-th file call of this process, C++ and Python alike: kill, tear, cut, error.

The layer stands between the program and the C library (layer.c), so a process has to be started
with it: run(...) does so. In that process arm(...) says where the fault strikes, and calls() how
many file calls there were since. A trial is best run in a fork of a process that has imported what
it needs: trial(...) forks, runs a function, and says how it ended.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

_SOURCE = Path(__file__).with_name("layer.c")
_KINDS = {"none": 0, "kill": 1, "tear": 2, "cut": 3, "ENOSPC": 4, "EIO": 4}
KINDS = ("kill", "tear", "cut", "ENOSPC", "EIO")


def build() -> Path:
    """The layer as a shared library, compiled once for each version of its source."""
    name = f"faults-{hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]}-{os.getuid()}.so"
    library = Path(tempfile.gettempdir()) / name
    if not library.exists():
        fresh = library.with_suffix(f".{os.getpid()}")
        command = ["gcc", "-O1", "-shared", "-fPIC", "-o", str(fresh), str(_SOURCE)]
        subprocess.run([*command, "-ldl", "-lpthread"], check=True)
        os.replace(fresh, library)
    return library


def run(script: str | os.PathLike[str], *arguments: str, timeout: float = 600) -> str:
    """Runs a Python script in a process with the layer; returns what it prints.

    Raises:
      subprocess.CalledProcessError: it failed.
    """
    environment = {**os.environ, "LD_PRELOAD": str(build())}
    command = [sys.executable, os.fspath(script), *arguments]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, timeout=timeout, check=True
    )
    return done.stdout


def is_loaded() -> bool:
    """Whether this process has the layer."""
    return hasattr(ctypes.CDLL(None), "faults_arm")


def arm(directory: str | os.PathLike[str], kind: str, at: int, *, sticky: bool = False) -> None:
    """Starts to count the calls below a directory anew, with a fault at call `at`, from 1 on.

    Args:
      directory: which files count.
      kind: one of KINDS, or "none".
      at: the call that it strikes.
      sticky: for an error: strikes all calls from there on, as a full disk does.
    """
    real = os.fsencode(os.path.realpath(directory))
    number = getattr(errno, kind, 0) if _KINDS[kind] == 4 else 0
    at_call = ctypes.c_long(at)
    ctypes.CDLL(None).faults_arm(real, _KINDS[kind], at_call, number, int(sticky))


def disarm() -> None:
    """No more faults, and no more counting."""
    ctypes.CDLL(None).faults_disarm()


def calls() -> int:
    """How many file calls there were since arm()."""
    count = ctypes.CDLL(None).faults_calls
    count.restype = ctypes.c_long
    return int(count())


def log_to(descriptor: int) -> None:
    """Writes a line for each call: its number, its name, the path; -1 stops that."""
    ctypes.CDLL(None).faults_log(descriptor)


def trial(
    job: Callable[[], object],
    directory: str | os.PathLike[str],
    kind: str = "none",
    at: int = 0,
    *,
    sticky: bool = False,
) -> tuple[str, int]:
    """Runs `job` in a fork, with a fault.

    Returns:
      How it ended: "done"; "killed", by a signal; or the error that it raised, on one line. And
      the count of its file calls, 0 of one that was killed.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        code = 1
        try:
            arm(directory, kind, at, sticky=sticky)
            try:
                job()
                result = "done"
            except BaseException as error:
                if os.environ.get("FAULTS_TRACE"):
                    traceback.print_exc()
                result = f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
            _join_threads()
            result = f"{calls()} {result}"
            disarm()
            os.write(writing, result.encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        ended = os.WTERMSIG(status)
        assert ended == signal.SIGKILL, f"ended by signal {ended}"
        return "killed", 0
    assert answer, "the trial ended without an answer"
    count, _, result = answer.partition(" ")
    return result, int(count)


def _join_threads() -> None:
    """What the end of a process waits for: a fork that ends by os._exit() would not."""
    import threading

    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()


def spread(count: int, of: int) -> Sequence[int]:
    """`count` numbers from 1 to `of`, evenly, both ends among them; all where count is 0."""
    if count <= 0 or count >= of:
        return range(1, of + 1)
    return sorted({1 + round(n * (of - 1) / max(count - 1, 1)) for n in range(count)})
