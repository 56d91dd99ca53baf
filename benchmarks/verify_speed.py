"""How long `verify` takes, beside reading the same file with cat.

    python benchmarks/verify_speed.py [--gigabytes=1] [--runs=5] [--directory=DIRECTORY]

The file is in the page cache when it is timed, so that both are measured at the speed of memory;
the best of the runs counts. `verify` is timed as a call and as a whole process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from estimator_ckpt.bundle.checksum import masked_crc32c
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, shard_path, write_index
from estimator_ckpt.verify import verify_checkpoint

FLOAT = 1
SIZES = [100 << 20, 10 << 20, 1 << 20, 4 << 10]  # of variables, in bytes, again and again


def write_checkpoint(prefix: str, total: int) -> str:
    """Writes variables of different sizes with `total` bytes in all; returns the data file."""
    path = shard_path(prefix, 0, 1)
    entries = {}
    offset = 0
    with open(path, "wb") as file:
        while offset < total:
            size = min(SIZES[len(entries) % len(SIZES)], total - offset)
            data = os.urandom(1 << 12) * (size >> 12) + bytes(size % (1 << 12))
            file.write(data)
            shape = (size // 4,)
            key = b"variable_%05d" % len(entries)
            entries[key] = Entry(FLOAT, shape, 0, offset, size, masked_crc32c(data))
            offset += size
    write_index(prefix, Index(1, entries))
    return path


def best_time(action: Callable[[], object], runs: int) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--directory", default=None, help="where to write the file")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = sys.path[0]
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        prefix = os.path.join(directory, "model.ckpt")
        total = int(options.gigabytes * 1e9) // 4 * 4
        path = write_checkpoint(prefix, total)
        command = [sys.executable, "-m", "estimator_ckpt", "verify", prefix]
        ways: dict[str, Callable[[], object]] = {
            "cat FILE > /dev/null": lambda: subprocess.run(f"cat {path} > /dev/null", shell=True),
            "verify_checkpoint()": lambda: verify_checkpoint(prefix),
            "estimator-ckpt verify": lambda: subprocess.run(command, stdout=subprocess.DEVNULL),
        }
        assert verify_checkpoint(prefix).ok
        print(f"{total / 1e9:.1f} GB")
        first = 0.0
        for name, action in ways.items():
            seconds = best_time(action, options.runs)
            first = first or seconds
            speed = total / seconds / 1e9
            print(f"  {name:<22} {seconds:6.2f} s  {speed:5.1f} GB/s  {seconds / first:.2f} x cat")


if __name__ == "__main__":
    main()
