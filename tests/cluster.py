"""The processes of a training cluster on loopback; cluster_job.py is what they run."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cluster_job import wait_for

ROOT = Path(__file__).resolve().parents[1]


class Cluster:
    """The processes of one run, each with a log file; none is left when the block ends."""

    def __init__(self, directory, model_dir, checkpoint_format, *job_flags, workers=0, ps=0):
        self.directory = directory
        self.model_dir = str(model_dir)
        self.directory.mkdir()
        self._flags = [
            f"--model_dir={model_dir}",
            f"--signals={directory}",
            f"--checkpoint_format={checkpoint_format}",
            *job_flags,
        ]
        addresses = iter([f"127.0.0.1:{port}" for port in free_ports(1 + workers + ps)])
        self._cluster = {"chief": [next(addresses)]}
        if workers:
            self._cluster["worker"] = [next(addresses) for _ in range(workers)]
        if ps:
            self._cluster["ps"] = [next(addresses) for _ in range(ps)]
        self._processes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()

    def start(self, task, index=0):
        """Starts the process with this place in TF_CONFIG."""
        name = f"{task}-{index}-{len(self._processes)}"
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TF_CONFIG": json.dumps(
                {"cluster": self._cluster, "task": {"type": task, "index": index}}
            ),
        }
        with open(self.directory / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "tests" / "cluster_job.py"), *self._flags],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        process.name = f"{task}-{index}-{process.pid}"
        process.log = log.name
        self._processes.append(process)
        return process

    def wait(self, condition, what):
        """Waits for `condition()`, but not longer than the processes are well."""

        def checked():
            for process in self._processes:
                if process.poll() not in (None, 0, -signal.SIGKILL):
                    log = Path(process.log).read_text(errors="replace")
                    pytest.fail(f"{process.name} exited with {process.returncode}:\n{log[-6000:]}")
            return condition()

        return wait_for(checked, what)

    def wait_until_held(self, *processes):
        """Until each has made the steps of --hold_after."""
        for process in processes:
            self.wait(self._path(process, "holds").exists, f"{process.name} does not hold")

    def wait_until_done(self, *processes):
        for process in processes:
            self.wait(lambda p=process: p.poll() is not None, f"{process.name} does not end")

    def kill(self, process):
        process.send_signal(signal.SIGKILL)
        process.wait()

    def go(self):
        """Lets all go on that hold."""
        (self.directory / "go").touch()

    def _path(self, process, suffix):
        return self.directory / f"{process.name}.{suffix}"

    def steps(self, process):
        """The global steps that it has seen, one for each of its own."""
        return [int(line) for line in self._path(process, "steps").read_text().split()]

    def start_values(self, process, session=0):
        """The variables by name when its session began; session 1 is the one after a recovery."""
        with np.load(self._path(process, f"start-{session}.npz")) as values:
            return dict(values)


def free_ports(count):
    """Ports of 127.0.0.1 that nobody listens on; all held at once, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
