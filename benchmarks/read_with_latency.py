"""How much faster remote checkpoints are read where several parts are under way at once.

    python benchmarks/read_with_latency.py [--milliseconds=30] [--megabytes=64] [--variables=200]

The file system is a stand-in for an object store: in memory, behind fsspec, and each request takes
--milliseconds and what its bytes take at --speed. "One at a time" is the same code with one
request under way, which is how a plain reader waits. Both run in turns, and the medians count. One
checkpoint has few large variables in four data files, the other --variables of 4 KB each.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from estimator_ckpt import (
    compare_checkpoints,
    convert_checkpoint,
    export_checkpoint,
    verify_checkpoint,
)
from estimator_ckpt.bundle.checksum import masked_crc32c
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, shard_path, write_index
from estimator_ckpt.files import ahead, remote

FLOAT = 1
SHARDS = 4
PLACE = "slow://bucket"
AT_ONCE = ahead._AT_ONCE


class SlowFiles(MemoryFileSystem):
    """Files in memory, each request for which takes time."""

    protocol = "slow"
    store: dict[str, Any] = {}  # noqa: RUF012 (as fsspec has it)
    seconds = 0.0
    speed = 1e8  # bytes in a second, of one request

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.rpartition("://")[2].strip("/")

    def _wait(self, count: int = 0) -> None:
        time.sleep(self.seconds + count / self.speed)

    def info(self, path: str, **kwargs: Any) -> Any:
        self._wait()
        return super().info(path, **kwargs)

    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        data = bytes(super().cat_file(path, start, end, **kwargs))
        self._wait(len(data))
        return data

    def open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if "r" in mode:
            self._wait()
        return super().open(path, mode, **kwargs)


def write_checkpoint(prefix: str, count: int, nbytes: int) -> None:
    """So many variables of so many bytes, in four data files."""
    entries = {}
    for shard in range(SHARDS):
        path = shard_path(prefix, shard, SHARDS)
        with fsspec.open(path, "wb") as file:
            for number in range(shard, count, SHARDS):
                data = bytes([number % 64]) * nbytes
                name = f"layer_{number // SHARDS:06d}/part_{shard}"
                place = Entry(
                    FLOAT, (nbytes // 4,), shard, file.tell(), nbytes, masked_crc32c(data)
                )
                entries[name.encode()] = place
                file.write(data)
    write_index(prefix, Index(SHARDS, dict(sorted(entries.items()))))


def tasks(prefix: str, local: str, out: str) -> dict[str, Callable[[], object]]:
    """What is measured, each with a remote checkpoint and a local copy of it."""
    return {
        "verify": lambda: verify_checkpoint(prefix),
        "compare": lambda: compare_checkpoints(prefix, local),
        "convert --copy": lambda: convert_checkpoint(prefix, f"{out}/copy", "both", copy=True),
        "convert --dtype": lambda: convert_checkpoint(
            prefix, f"{out}/cast", "both", dtype="bfloat16"
        ),
        "export": lambda: export_checkpoint(prefix, f"{out}/m.safetensors"),
    }


def seconds_of(name: str, prefix: str, local: str, *, at_once: int) -> float:
    """One run of a task with at most so many requests under way."""
    ahead._AT_ONCE = at_once
    try:
        with tempfile.TemporaryDirectory() as out:
            start = time.perf_counter()
            tasks(prefix, local, out)[name]()
            return time.perf_counter() - start
    finally:
        ahead._AT_ONCE = AT_ONCE


@contextlib.contextmanager
def through_fsspec() -> Iterator[None]:
    """As where TensorFlow is not installed, which is asked first for remote files."""
    with mock.patch.dict(sys.modules, {"tensorflow": None}):
        remote.remote_files.cache_clear()
        yield
    remote.remote_files.cache_clear()


@through_fsspec()
def measure(
    *, milliseconds: float, speed: float, megabytes: int, variables: int, rounds: int
) -> list[tuple[str, str, float, float]]:
    """Checkpoint, task, and the median seconds: one at a time, and several at once."""
    fsspec.register_implementation("slow", SlowFiles, clobber=True)
    found = []
    with tempfile.TemporaryDirectory() as directory:
        for name, count, nbytes in (
            (f"{megabytes} MB in {2 * SHARDS}", 2 * SHARDS, megabytes * 10**6 // (2 * SHARDS)),
            (f"{variables} of 4 KB", variables, 4096),
        ):
            nbytes = nbytes // 4 * 4
            remote, local = f"{PLACE}/{count}/m", f"{directory}/{count}"
            SlowFiles.seconds, SlowFiles.speed = 0.0, 1e12
            write_checkpoint(remote, count, nbytes)
            write_checkpoint(local, count, nbytes)
            SlowFiles.seconds, SlowFiles.speed = milliseconds / 1e3, speed * 1e6
            for task in tasks(remote, local, directory):
                times: dict[int, list[float]] = {1: [], AT_ONCE: []}
                for turn in range(rounds):
                    for at_once in (1, AT_ONCE) if turn % 2 else (AT_ONCE, 1):
                        times[at_once].append(seconds_of(task, remote, local, at_once=at_once))
                found.append((name, task, *(statistics.median(times[n]) for n in (1, AT_ONCE))))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--milliseconds", type=float, default=30, help="that a request takes")
    parser.add_argument("--speed", type=float, default=100, help="MB in a second, of one request")
    parser.add_argument("--megabytes", type=int, default=64, help="of the large variables")
    parser.add_argument("--variables", type=int, default=200, help="small ones")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"a request takes {options.milliseconds:g} ms, and at most {AT_ONCE} are under way")
    print(f"{'checkpoint':<16}{'':<18}{'one at a time':>14}{'several':>10}{'ratio':>8}")
    for name, task, alone, together in measure(**vars(options)):
        print(f"{name:<16}{task:<18}{alone:>12.2f} s{together:>8.2f} s{together / alone:>8.2f}")


if __name__ == "__main__":
    main()
