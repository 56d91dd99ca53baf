"""A command on a terminal of its own, and what a person has on the screen when it has ended."""

import fcntl
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent
_CONTROL = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])")


def _environment():
    """That of a new user, who has not told TensorFlow to be quiet."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return {**environment, "PYTHONPATH": str(TESTS.parent), "TERM": "xterm", "COLUMNS": "300"}


class Terminal:
    """`python -m MODULE ...`, whose input and output are a terminal."""

    def __init__(self, module, *arguments):
        self.output = ""
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=TESTS,
            env=_environment(),
            stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # Ctrl-C is this terminal's
        )  # fmt: skip
        os.close(slave)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def type(self, text):
        """What a person types; "\\x03" is Ctrl-C."""
        os.write(self._master, text.encode())

    def read_until(self, text):
        deadline = time.monotonic() + 120
        while text not in self.output:
            assert self._read(deadline), f"it ended without {text!r}:\n{self.output}"

    def finish(self):
        """The exit code, when it ends."""
        while self._read(time.monotonic() + 120):
            pass
        return self._process.wait(timeout=120)

    @property
    def screen(self):
        """The lines that are left, blank ones aside."""
        lines, row, column = [""], 0, 0
        for part in re.split(r"(\x1b\[\??[\d;]*[A-Za-z]|[\r\n])", self.output):
            if part == "\r":
                column = 0
            elif part == "\n":
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            elif control := _CONTROL.fullmatch(part):
                if control[2] == "A":
                    row -= int(control[1] or 1)
                elif control[2] == "K":
                    lines[row] = "" if control[1] == "2" else lines[row][:column]
            else:
                lines[row] = lines[row][:column] + part + lines[row][column + len(part) :]
                column += len(part)
        return [line.rstrip() for line in lines if line.strip()]

    def _read(self, deadline):
        ready, _, _ = select.select([self._master], [], [], max(deadline - time.monotonic(), 0))
        assert ready, f"nothing comes:\n{self.output}"
        try:
            read = os.read(self._master, 1 << 16)
        except OSError:  # Linux: the other side is closed
            return False
        self.output += read.decode()
        return bool(read)
