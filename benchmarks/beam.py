"""How the time of a conversion with casts, and of verify, falls with the workers of Beam.

    python benchmarks/beam.py [--checkpoints=240] [--megabytes=64] [--workers=1,2,4] [--directory=D]

Beam's DirectRunner has the workers in processes of this machine, so more of them than it has
processors, or than its disk can feed, gain nothing. The first line is one machine's own way,
without Beam. What a run takes to start is in its time; with the defaults the work takes minutes.
Before each run what was written is on the disk (os.sync()); the source's bytes stay in memory if
they fit.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["PYTHONPATH"] = sys.path[0]  # for the workers

from estimator_ckpt import beam
from estimator_ckpt.bundle.checksum import masked_crc32c
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, shard_path, write_index
from estimator_ckpt.checking.audit import verify_directory
from estimator_ckpt.conversion.batch import convert_directory

FLOAT32 = 1
OPTIONS = beam.ConvertOptions("both", dtype="bfloat16")


def write_checkpoint(prefix: str, nbytes: int) -> None:
    """A name-based checkpoint of eight variables, `nbytes` in all."""
    data = os.urandom(1 << 10) * (nbytes // 8 >> 10)
    data = data.translate(bytes(range(64)) * 4)  # floats that bfloat16 has, too
    crc = masked_crc32c(data)
    entries = {}
    with open(shard_path(prefix, 0, 1), "wb") as file:
        for number in range(8):
            place = Entry(FLOAT32, (len(data) // 4,), 0, file.tell(), len(data), crc)
            entries[f"layer_{number}/kernel".encode()] = place
            file.write(data)
    write_index(prefix, Index(1, entries))


def timed(run: Callable[[], object]) -> float:
    os.sync()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def one_machine(source: str, out: str) -> tuple[float, float]:
    """Seconds of a conversion and of verify."""
    converting = timed(lambda: convert_directory(source, out, OPTIONS))
    return converting, timed(lambda: verify_directory(source))


def on_beam(source: str, out: str, workers: int) -> tuple[float, float]:
    """The same, with so many workers."""
    flags = [
        "--runner=DirectRunner",
        "--direct_running_mode=multi_processing",
        f"--direct_num_workers={workers}",
    ]
    logs = [f"{source}-{verb}-{workers}" for verb in ("convert", "verify")]
    converting = timed(
        lambda: beam.convert_directory(source, out, OPTIONS, log=logs[0], arguments=flags)
    )
    return converting, timed(lambda: beam.verify_directory(source, log=logs[1], arguments=flags))


def measure(options: argparse.Namespace, directory: str) -> None:
    source, out = os.path.join(directory, "runs"), os.path.join(directory, "out")
    for job in range(8):
        os.makedirs(f"{source}/{job}")
    count, nbytes = options.checkpoints, options.megabytes << 20
    for number in range(count):
        write_checkpoint(f"{source}/{number % 8}/model.ckpt-{number}", nbytes)
    print(f"{count} checkpoints of {options.megabytes} MB, {os.cpu_count()} processors")
    print(f"{'workers':>10}{'convert':>10}{'verify':>10}")
    for workers in (0, *map(int, options.workers.split(","))):
        converting, verifying = (
            on_beam(source, out, workers) if workers else one_machine(source, out)
        )
        shutil.rmtree(out)
        print(f"{workers or 'no Beam':>10}{converting:>8.1f} s{verifying:>8.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--checkpoints", type=int, default=240)
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--workers", default="1,2,4", help="how many, one run for each")
    parser.add_argument("--directory", help="where to write; a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        measure(options, directory)


if __name__ == "__main__":
    main()
