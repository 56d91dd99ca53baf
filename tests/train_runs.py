"""Runs of `estimator-ckpt train`: as a real process, and in this one."""

import contextlib
import io
import os
import re
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf
import train_jobs  # noqa: F401
from absl import flags

from estimator_ckpt import cli
from estimator_ckpt import train as train_module

TESTS = Path(__file__).resolve().parent
MODEL = ["--model_fn=train_jobs:model_fn", "--tf_random_seed=1"]
JOB = [
    *MODEL,
    "--train_input_fn=train_jobs:input_fn",
    "--eval_input_fn=train_jobs:eval_input_fn",
]


class Process:
    """A real `python -m estimator_ckpt.train`, started in the directory of its modules."""

    def __init__(self, *arguments, environment=None, cwd=TESTS, command=None):
        self.output = ""
        self.errors = ""
        self._process = subprocess.Popen(
            command or [sys.executable, "-m", "estimator_ckpt.train", *arguments],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(TESTS.parent), **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            stream.close()

    def read_until(self, text):
        """Reads what it writes, until the text is in it."""
        deadline = time.monotonic() + 120
        streams = [self._process.stdout, self._process.stderr]
        while text not in self.output and text not in self.errors:
            ready, _, _ = select.select(streams, [], [], max(deadline - time.monotonic(), 0))
            for stream in ready:
                read = os.read(stream.fileno(), 1 << 16).decode()
                if not read:
                    streams.remove(stream)
                elif stream is self._process.stdout:
                    self.output += read
                else:
                    self.errors += read
            assert ready, f"{text!r} does not come:\n{self.errors}"
            assert streams, f"it has ended without {text!r}:\n{self.errors}"

    def signal(self, number):
        self._process.send_signal(number)

    def send_line(self):
        self._process.stdin.write(b"\n")

    def finish(self):
        """The exit code, when it ends."""
        output, errors = self._process.communicate(timeout=120)
        self.output += output.decode()
        self.errors += errors.decode()
        return self._process.returncode


def losses(output):
    return {int(step): value for step, value in re.findall(r"^loss (\d+) (\S+)$", output, re.M)}


@contextlib.contextmanager
def flags_of_modules():
    """FLAGS for the verb to parse, with that of train_jobs and none of other tests' modules."""
    values = flags.FlagValues()
    values["train_jobs_label_scale"] = flags.FLAGS["train_jobs_label_scale"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "flags", SimpleNamespace(FLAGS=values, Error=flags.Error))
        flags.FLAGS.mark_as_parsed()
        yield
    flags.FLAGS["train_jobs_label_scale"].value = 1.0


def run(*arguments):
    """What the verb does in this process: its exit code, its output, its errors."""
    output, errors = io.StringIO(), io.StringIO()
    path, handlers = list(sys.path), list(tf.get_logger().handlers)
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), flags_of_modules():
        try:
            code = cli.main(["train", *map(str, arguments)])
        except SystemExit as exit:
            code = exit.code
        finally:
            sys.path[:] = path
            tf.get_logger().handlers[:] = handlers
    return SimpleNamespace(code=code, output=output.getvalue(), errors=errors.getvalue())


def free_ports(count):
    """Ports of 127.0.0.1 that nobody listens on; all held at once, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
