"""What a command shows of log messages: own ones as plain lines, TensorFlow's if asked for."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import PurePath

_LIBRARIES = {"keras", "tensorflow", "tensorflow_estimator", "tf_keras"}
_INSTALLED = {"dist-packages", "site-packages"}


@contextlib.contextmanager
def plain_logs(*, trains: bool = False, verbose: bool = False) -> Iterator[None]:
    """Shows log messages on the standard error as a person reads them, while a command runs.

    To keep away the lines of TensorFlow's C++ code, too, it has to begin before TensorFlow is
    imported. TF_CPP_MIN_LOG_LEVEL in the environment wins.

    Args:
      trains: whether to show what is no warning, too: from where a job resumes or warm-starts.
      verbose: whether to show what TensorFlow and Keras log.
    """
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if not trains and "absl.logging" not in sys.modules:
        # It is slow to import. Who has something to say does it, and the line comes to the root.
        root, handler = logging.getLogger(), _Lines(verbose)
        root.addHandler(handler)
        try:
            yield
        finally:
            root.removeHandler(handler)
        return
    from absl.logging import get_absl_logger

    absl, tensorflow = get_absl_logger(), logging.getLogger("tensorflow")
    before = absl.level, absl.propagate, tensorflow.level
    handler = _Lines(verbose)
    absl.addHandler(handler)
    absl.propagate = False
    absl.setLevel(logging.INFO if trains or verbose else logging.WARNING)
    tensorflow.setLevel(logging.INFO if verbose else logging.ERROR)
    try:
        yield
    finally:
        absl.removeHandler(handler)
        absl.setLevel(before[0])
        absl.propagate = before[1]
        tensorflow.setLevel(before[2])


class _Lines(logging.Handler):
    """Writes `message` or `warning: message` to sys.stderr, as a live line may have replaced it."""

    def __init__(self, verbose: bool) -> None:
        super().__init__()
        self._verbose = verbose

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.ERROR and not self._verbose and _is_of_library(record):
            return
        try:
            text = record.getMessage()
            if record.levelno > logging.INFO:
                text = f"{record.levelname.lower()}: {text}"
            print(text, file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


def _is_of_library(record: logging.LogRecord) -> bool:
    parts = PurePath(record.pathname).parts
    return any(here in _INSTALLED and below in _LIBRARIES for here, below in zip(parts, parts[1:]))


def import_tensorflow(*, verbose: bool = False) -> None:
    """Imports TensorFlow, without the lines that its C++ code writes meanwhile.

    Since 2.17 it writes some before it reads TF_CPP_MIN_LOG_LEVEL. A process of its own drops them,
    so that what a crash says is still shown.

    Args:
      verbose: whether to show them.
    """
    loaded = "tensorflow" in sys.modules
    wanted = verbose or os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3") in ("0", "1")
    with contextlib.nullcontext() if loaded or wanted else _filtered_errors():
        import tensorflow  # noqa: F401


# What absl's logging writes: `I0000 00:00:1795908925.403994   32338 port.cc:153] ...`.
_FILTER = """
import sys
for line in sys.stdin.buffer:
    is_log = line[:1] in (b"I", b"W") and line[1:5].isdigit()
    starts = (b"WARNING: All log messages before absl::", b"To enable the following instructions: ")
    if not is_log and not line.startswith(starts):
        sys.stderr.buffer.write(line)
        sys.stderr.flush()
"""


@contextlib.contextmanager
def _filtered_errors() -> Iterator[None]:
    """Has what is written to the standard error go through a filter."""
    import subprocess  # slow to import, and rarely needed

    try:
        before = os.dup(2)
    except OSError:  # closed, as by `2>&-`
        yield
        return
    command = [sys.executable, "-I", "-S", "-c", _FILTER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as filtering:
        assert filtering.stdin is not None
        os.dup2(filtering.stdin.fileno(), 2)
        filtering.stdin.close()
        try:
            yield
        finally:
            os.dup2(before, 2)  # the last that had the pipe
            os.close(before)
