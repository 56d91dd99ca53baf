"""How much memory each task takes with a checkpoint that is larger than the memory it may have.

    python benchmarks/larger_than_memory.py [--megabytes=1536] [--directory=DIRECTORY]

Each task is a process of its own. It first does the same with a tiny checkpoint, so that what it
loads and the threads it starts do not count. Then its address space is limited (RLIMIT_AS) to what
it has, the largest tensor, and 64 MiB; where the task makes a model, to that, too. The model has
the weights, a third of the checkpoint; the rest are an optimizer's slots. What a task maps of a
file counts as well. Printed are the limit and the most memory that was resident at a time, both
beyond what the process had before. A task that does not get by fails.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from estimator_ckpt import (
    compare_checkpoints,
    convert_checkpoint,
    export_checkpoint,
    verify_checkpoint,
)
from estimator_ckpt.bundle.checksum import masked_crc32c
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, shard_path, write_index

FLOAT, INT64 = 1, 9
ALLOWED = 64 << 20
LAYERS = 12  # of which the first is three times as large as the others
SLOTS = ("", "/Adam", "/Adam_1")


def sizes(megabytes: float) -> dict[str, int]:
    """The bytes of each weight; with two slots for each they make so many megabytes."""
    part = int(megabytes * (1 << 20)) // len(SLOTS) // (LAYERS + 2) // 4 * 4
    return {f"layer_{n:02d}/kernel": part * (1 if n else 3) for n in range(LAYERS)}


def write_checkpoint(prefix: str, megabytes: float, fill: float = 1.0) -> None:
    """The weights, Adam's slots, and the step, in one data file."""
    entries: dict[bytes, Entry] = {}
    with open(shard_path(prefix, 0, 1), "wb") as file:
        for name, nbytes in sizes(megabytes).items():
            for number, slot in enumerate(SLOTS):
                data = np.full(nbytes // 4, fill + number, np.float32).data.cast("B")
                crc = masked_crc32c(data)
                entries[(name + slot).encode()] = Entry(
                    FLOAT, (nbytes // 4,), 0, file.tell(), nbytes, crc
                )
                file.write(data)
        step = (7).to_bytes(8, "little")
        entries[b"global_step"] = Entry(INT64, (), 0, file.tell(), 8, masked_crc32c(step))
        file.write(step)
    write_index(prefix, Index(1, entries))


# --- the tasks ---


def _session(scaffold_of: Callable[[], Any], place: str, megabytes: float, source: str) -> None:
    """A job that has the weights alone, up to its first step."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default():
        last = [
            v1.get_variable(name, [nbytes // 4], initializer=v1.zeros_initializer())
            for name, nbytes in sizes(megabytes).items()
        ][-1]
        value = last[0]
        v1.train.get_or_create_global_step()
        creator = v1.train.ChiefSessionCreator(
            scaffold_of(), checkpoint_filename_with_path=source or None
        )
        with v1.train.MonitoredSession(creator) as session:
            assert session.run(value) == 1.0


def restore(prefix: str, out: str, megabytes: float) -> None:
    from estimator_ckpt import make_scaffold

    _session(lambda: make_scaffold("both"), out, megabytes, prefix)


def warm_start(prefix: str, out: str, megabytes: float) -> None:
    from estimator_ckpt import make_scaffold

    _session(lambda: make_scaffold("both", warm_start=prefix), out, megabytes, "")


def apply(prefix: str, out: str, megabytes: float) -> None:
    import tensorflow as tf

    from estimator_ckpt import WarmStart

    model = {
        name: tf.Variable(tf.zeros([nbytes // 4]), name=name)
        for name, nbytes in sizes(megabytes).items()
    }
    WarmStart(prefix).apply(list(model.values()))
    assert float(model["layer_11/kernel"][0]) == 1.0


FILES: dict[str, Callable[[str, str, float], object]] = {
    "verify": lambda prefix, out, _: verify_checkpoint(prefix),
    "compare, equal": lambda prefix, out, _: compare_checkpoints(prefix, prefix),
    "compare, changed": lambda prefix, out, _: compare_checkpoints(prefix, f"{prefix}-changed"),
    "convert --copy": lambda prefix, out, _: convert_checkpoint(
        prefix, f"{out}/m", "both", copy=True
    ),
    "convert --compact": lambda prefix, out, _: convert_checkpoint(
        prefix, f"{out}/m", "both", compact=True
    ),
    "convert --dtype": lambda prefix, out, _: convert_checkpoint(
        prefix, f"{out}/m", "both", dtype="bfloat16"
    ),
    "export .safetensors": lambda prefix, out, _: export_checkpoint(prefix, f"{out}/m.safetensors"),
    "export .npz": lambda prefix, out, _: export_checkpoint(prefix, f"{out}/m.npz"),
}
MODELS = {"restore": restore, "warm start": warm_start, "apply": apply}
TASKS = {**FILES, **MODELS}


# --- measuring ---


def memory(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


def run_one(name: str, directory: str, megabytes: float) -> dict[str, int]:
    """A task, in this process."""
    task = TASKS[name]
    with tempfile.TemporaryDirectory(dir=directory) as out:
        task(f"{directory}/tiny", out, 0.01)
    largest = max(sizes(megabytes).values())
    limit = largest + ALLOWED + (sum(sizes(megabytes).values()) if name in MODELS else 0)
    most = memory("VmSize") + limit
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    before = memory("VmRSS")
    with tempfile.TemporaryDirectory(dir=directory) as out:
        task(f"{directory}/large", out, megabytes)
    return {"limit": limit, "peak": memory("VmHWM") - before}


def measure(megabytes: float, directory: str | None = None) -> Iterator[dict[str, Any]]:
    """For each task its `name`, `limit`, `peak` in bytes, and the `error` of one that failed."""
    with tempfile.TemporaryDirectory(dir=directory) as place:
        for name, size in (("tiny", 0.01), ("large", megabytes)):
            write_checkpoint(f"{place}/{name}", size)
            write_checkpoint(f"{place}/{name}-changed", size, fill=2.0)
        for name in TASKS:
            command = [sys.executable, __file__, "--one", name, place, str(megabytes)]
            done = subprocess.run(command, capture_output=True, text=True)
            last = (done.stdout.splitlines() or [""])[-1]
            if done.returncode:
                lines = [line for line in done.stderr.splitlines() if line.strip()]
                yield {"name": name, "error": lines[-1] if lines else f"exit {done.returncode}"}
            else:
                yield {"name": name, **json.loads(last)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=float, default=1536, help="of the checkpoint, in MiB")
    parser.add_argument("--directory", help="where to write; the system's temporary one")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, directory, megabytes = options.one
        print(json.dumps(run_one(name, directory, float(megabytes))))
        return 0
    largest = max(sizes(options.megabytes).values())
    model = sum(sizes(options.megabytes).values())
    print(
        f"{options.megabytes:g} MiB, the largest tensor {largest >> 20} MiB, "
        f"the model {model >> 20} MiB"
    )
    print(f"{'':<22}{'limit':>10}{'most':>10}")
    failed = False
    for one in measure(options.megabytes, options.directory):
        failed |= "error" in one
        if "error" in one:
            print(f"{one['name']:<22}  failed: {one['error']}", flush=True)
        else:
            limit, peak = one["limit"] >> 20, one["peak"] >> 20
            print(f"{one['name']:<22}{limit:>6} MiB{peak:>6} MiB", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
