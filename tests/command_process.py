"""Runs the command as a process of its own: on a terminal, or with its output in pipes."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import estimator_ckpt

ROOT = Path(estimator_ckpt.__file__).parent.parent


def start(*arguments: Any, term: str = "xterm", **streams: Any) -> subprocess.Popen[bytes]:
    """The command, started."""
    command = [sys.executable, "-m", "estimator_ckpt", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "TERM": term}, **streams)


def run_on_terminal(*arguments: Any, term: str = "xterm", colors: bool = False) -> tuple[int, str]:
    """The exit code, and all that a person sees, with what moves the cursor.

    Args:
      arguments: the command's.
      term: $TERM.
      colors: whether the codes of colors and bold letters are to be left in.
    """
    code, text = on_terminal(lambda **streams: start(*arguments, term=term, **streams))
    return code, text if colors else re.sub(r"\x1b\[[0-9;]*m", "", text)


def on_terminal(begin: Callable[..., subprocess.Popen[bytes]]) -> tuple[int, str]:
    """The exit code of a process, and what stands on its terminal; `begin` takes its streams."""
    terminal, inner = pty.openpty()
    process = begin(stdin=inner, stdout=inner, stderr=inner)
    os.close(inner)
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 1 << 16)
        except OSError:  # Linux says so where no process has the terminal any more
            break
    os.close(terminal)
    return process.wait(), shown.decode()
