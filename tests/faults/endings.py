"""How a process ends that has just saved, and what the next one finds: python endings.py.

The disk does not have yet what was saved last, so the checkpoint before it still waits for its
deletion. Who ends without a word leaves that to the next start; who ends in good order sees to it
before. Children that a training process forks, as data workers are, change nothing, however they
end. Printed are, as JSON, the steps on disk and whether the lease stands, after each ending and
after the next job.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import saves
import tensorflow as tf

from estimator_ckpt import make_scaffold
from estimator_ckpt.files import claims
from estimator_ckpt.saving import keeping

v1 = tf.compat.v1


class Disk:
    """A disk that gets nothing done until it is told to."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._may_sync = threading.Event()
        sync = keeping.sync_checkpoint
        keeping._PATIENCE = 0.01
        keeping.sync_checkpoint = lambda prefix: (self._may_sync.wait(), sync(prefix))

    def go(self) -> None:
        self._may_sync.set()


def train(directory: str, end: Callable[[Disk], object] | None) -> None:
    """Saves, keeps one checkpoint; with `end` saves again, on a slow disk, and ends so."""
    graph, op = saves.job_graph(None)
    with graph.as_default():
        scaffold = make_scaffold("both", keep_checkpoint_max=1)
        creator = v1.train.ChiefSessionCreator(
            scaffold, config=saves.CONFIG, checkpoint_dir=directory
        )
        with v1.train.MonitoredSession(creator) as session:

            def save() -> None:
                session.run(op)
                raw = session._tf_sess()
                step = v1.train.global_step(raw, v1.train.get_global_step())
                scaffold.saver.save(raw, f"{directory}/model.ckpt", step)

            save()
            if end is not None:
                disk = Disk(directory)
                save()
                end(disk)


def leave(disk: Disk) -> None:
    threading.Timer(0.2, disk.go).start()
    sys.exit(0)


def fail(disk: Disk) -> None:
    threading.Timer(0.2, disk.go).start()
    raise RuntimeError("the job fails")


def in_fork(job: Callable[[], object]) -> str:
    """Runs a job in a fork that ends as a process does; returns how."""
    child = os.fork()
    if not child:
        job()
        sys.exit(0)
    return ended(child)


def ended(child: int) -> str:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            return f"exit {code}" if code >= 0 else signal.Signals(-code).name
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hangs"


def contents(directory: str) -> dict[str, object]:
    """The files, but for the beat of the lease."""
    lease = claims.lease_path(directory)
    found: dict[str, object] = {p.name: p.read_bytes() for p in Path(directory).iterdir()}
    return {**found, os.path.basename(lease): claims.find_owner(lease)}


def fork_children(disk: Disk) -> None:
    """Forks what data workers are, while a sync is under way; and then trains on."""
    before = contents(disk.directory)
    for end in (os._exit, lambda _: os.kill(os.getpid(), signal.SIGKILL)):
        child = os.fork()
        if not child:
            end(0)
        ended(child)
    worker = multiprocessing.get_context("fork").Process(target=len, args=("",))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    assert contents(disk.directory) == before
    disk.go()


ENDINGS: dict[str, Callable[[Disk], object]] = {
    "os._exit": lambda _: os._exit(0),
    "SIGTERM": lambda _: os.kill(os.getpid(), signal.SIGTERM),
    "SIGKILL": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "sys.exit": leave,
    "an error": fail,
    "after forks": fork_children,
}


def found_in(directory: str) -> list[object]:
    steps = sorted(int(path.stem[11:]) for path in Path(directory).glob("model.ckpt-*.index"))
    data = {int(path.stem[11:]) for path in Path(directory).glob("model.ckpt-*.data-*")}
    assert data == set(steps)
    return [steps, os.path.exists(claims.lease_path(directory))]


def main() -> None:
    saves.job_graph(None)
    gc.freeze()  # as layer.trial() does
    results = {}
    for name, end in ENDINGS.items():
        directory = tempfile.mkdtemp()  # not a context: a fork that unwinds would remove it
        how = in_fork(lambda end=end, directory=directory: train(directory, end))
        after = found_in(directory)
        assert in_fork(lambda directory=directory: train(directory, None)) == "exit 0"
        results[name] = [how, *after, *found_in(directory)]
        shutil.rmtree(directory)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
