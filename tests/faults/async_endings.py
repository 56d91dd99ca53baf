"""How a process ends that is writing a checkpoint beside training, and what the next one finds:
python async_endings.py.

The job makes step 2 while the checkpoint of step 1 is held back; then it gets a signal, or ends by
itself, and a moment later the writing goes on. Printed are, as JSON, for each ending: how the
process ended; the steps whose checkpoints the state file names, and those on disk; and the step at
which the next job starts. Every checkpoint is read, and has to have the values of its step.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import numpy as np
import saves
import tensorflow as tf

from estimator_ckpt import make_scaffold, stop_hook
from estimator_ckpt.reading.state import read_state
from estimator_ckpt.saving.snapshots import Snapshot

v1 = tf.compat.v1


def train(directory: str, end: str | None) -> None:
    """Two steps, each saved; with `end` the process ends so in the second."""
    may_write = threading.Event()
    write = Snapshot.write
    graph, op = saves.job_graph(None)
    with graph.as_default():
        scaffold = make_scaffold("both", async_checkpoint=True)
        hooks = [stop_hook()] if end == "SIGTERM, stop_hook" else []
        saver_hook = v1.train.CheckpointSaverHook(directory, save_steps=1, scaffold=scaffold)
        creator = v1.train.ChiefSessionCreator(
            scaffold, config=saves.CONFIG, checkpoint_dir=directory
        )
        with v1.train.MonitoredSession(creator, [saver_hook, *hooks]) as session:
            raw = session._tf_sess()
            step = v1.train.get_global_step()
            print("starts at", raw.run(step), file=sys.stderr)
            if end is None:
                return
            scaffold.saver.wait_until_finished()
            Snapshot.write = lambda *args: (may_write.wait(), write(*args))
            session.run(op)
            raw.run(op)  # without hooks: while step 1 is being saved
            threading.Timer(0.5, may_write.set).start()
            name = end.partition(",")[0]
            if name.startswith("SIG"):
                os.kill(os.getpid(), getattr(signal, name))
                session.run(op)
            elif name == "sys.exit":
                sys.exit(0)
            elif name == "os._exit":
                os._exit(0)


def steps_of(names: list[str]) -> list[int]:
    return sorted(int(name.rpartition("-")[2].partition(".")[0]) for name in names)


def look_at(directory: str) -> list[object]:
    """The steps that the state file names, all of them read, and those on disk."""
    state = read_state(directory)
    assert state is not None
    for prefix in state.all_model_checkpoint_paths:
        reader = tf.train.load_checkpoint(prefix)
        for key in reader.get_variable_to_shape_map():
            if "OBJECT_GRAPH" not in key and not key.startswith("save_counter"):
                assert np.all(reader.get_tensor(key) == steps_of([prefix])[0]), (prefix, key)
    on_disk = [name for name in os.listdir(directory) if name.endswith(".index")]
    return [steps_of(list(state.all_model_checkpoint_paths)), steps_of(on_disk)]


def main() -> None:
    fork = multiprocessing.get_context("fork")
    found = {}
    saves.job_graph(None)
    gc.freeze()  # as layer.trial() does
    for end in (
        "SIGKILL",
        "SIGTERM",
        "SIGTERM, stop_hook",
        "SIGINT",
        "sys.exit",
        "os._exit",
        "the end",
    ):
        with tempfile.TemporaryDirectory() as directory:
            process = fork.Process(target=train, args=(directory, end))
            process.start()
            process.join(120)
            code = process.exitcode
            assert code is not None, f"{end}: it goes on"
            how = signal.Signals(-code).name if code < 0 else f"exit {code}"
            found[end] = [how, *look_at(directory)]
            following = fork.Process(target=train, args=(directory, None))
            following.start()
            following.join(120)
            assert following.exitcode == 0
            left = [name for name in os.listdir(directory) if ".saving-" in name]
            assert not left, left
            found[end].append(look_at(directory)[0][-1])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
