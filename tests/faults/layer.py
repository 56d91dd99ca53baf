"""A fault at the N-th file call of this process, C++ and Python alike: kill, tear, cut, error.

The layer stands between the program and the C library (layer.c), so a process has to be started
with it: run(...) does so. In that process arm(...) says where the fault strikes, and calls() how
many file calls there were since. A trial is best run in a fork of a process that has imported what
it needs: trial(...) forks, runs a function, and says how it ended.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

_SOURCE = Path(__file__).with_name("layer.c")
_KINDS = {"none": 0, "kill": 1, "tear": 2, "cut": 3, "ENOSPC": 4, "EIO": 4}
KINDS = ("kill", "tear", "cut", "ENOSPC", "EIO")
_BESIDE = "/events.out."  # the summaries
_WRITES = ("write", "pwrite", "fwrite", "copy_file_range", "sendfile")


def lacks() -> str:
    """What this machine lacks that the layer needs; "" where it can be built."""
    if not sys.platform.startswith("linux"):
        return "LD_PRELOAD is of Linux"
    return "" if _compiler() else "the layer is compiled: install cc, gcc or clang"


def _compiler() -> str | None:
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def build() -> Path:
    """The layer as a shared library, compiled once for each version of its source."""
    name = f"faults-{hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]}-{os.getuid()}.so"
    library = Path(tempfile.gettempdir()) / name
    if not library.exists():
        fresh = library.with_suffix(f".{os.getpid()}")
        command = [_compiler() or "cc", "-O1", "-shared", "-fPIC", "-o", str(fresh), str(_SOURCE)]
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


def require(*, no_links: bool = False) -> None:
    """Starts this program anew, with the layer, unless this process has it.

    Args:
      no_links: whether its files are on a file system without hard links.
    """
    if not hasattr(ctypes.CDLL(None), "faults_arm"):
        preloaded = {**os.environ, "LD_PRELOAD": str(build())}
        if no_links:
            preloaded["FAULTS_NO_LINKS"] = "1"
        os.execve(sys.executable, [sys.executable, *sys.argv], preloaded)


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


class Call(NamedTuple):
    """One file call: which, whether it fails on a full disk, on what file."""

    name: str
    needs_space: bool
    path: str


def record(job: Callable[[], object], directory: str | os.PathLike[str]) -> list[Call]:
    """The file calls of a job, in their order; it runs as trial() has it, and has to succeed."""
    with tempfile.TemporaryFile("w+") as log:
        ctypes.CDLL(None).faults_log(log.fileno())
        try:
            ended, _ = trial(job, directory)
        finally:
            ctypes.CDLL(None).faults_log(-1)
        assert ended == "done", ended
        log.seek(0)
        lines = [line.rstrip("\n").split(" ", 2) for line in log]
    return [Call(name, space == "1", path) for name, space, path in lines]


def worthwhile(calls: Sequence[Call], kind: str) -> list[int]:
    """The numbers of those calls at which a fault differs from that at the call before or after.

    Of a run of equal calls on one file these are the first and the last, and of a run on summaries,
    which are TensorFlow's, the first. A call that is not a write has no half; a full disk shows
    at the next call that needs space.
    """
    chosen = []
    for number, call in enumerate(calls, 1):
        before, after = (calls[n] if 0 <= n < len(calls) else None for n in (number - 2, number))
        is_inside = before == call == after
        is_beside = before is not None and _BESIDE in call.path and _BESIDE in before.path
        is_moot = (kind == "tear" and not call.name.startswith(_WRITES)) or (
            kind == "ENOSPC" and not call.needs_space
        )
        if not is_inside and not is_beside and not is_moot:
            chosen.append(number)
    return chosen


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
    gc.freeze()  # savers look for each other among all objects; TensorFlow's own cost 0.2 s each
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
            join_threads()
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


def join_threads() -> None:
    """Waits as the end of a process does; a fork that ends by os._exit() would not."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()


def spread(count: int, numbers: Sequence[int]) -> Sequence[int]:
    """`count` of the numbers, evenly, both ends among them; all where count is 0."""
    if count <= 0 or count >= len(numbers):
        return numbers
    last = len(numbers) - 1
    return [numbers[round(n * last / max(count - 1, 1))] for n in range(count)]
