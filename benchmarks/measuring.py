"""What a benchmark is made of: ways to do one task, which take turns, and what limits them all."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = (
    "tensorflow",
    "tensorflow-estimator",
    "numpy",
    "protobuf",
    "google-crc32c",
    "safetensors",
    "fsspec",
)
_BLOCK = 16 << 20

Way = Callable[[], float]


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
      megabytes: of a checkpoint with few large variables.
      variables: counts of small ones, for what grows with their number; each ten times the last.
      job_variables: counts of a job's variables, for its start.
      rounds: how often each way takes its turn.
      steps: of a training between two saves.
    """

    megabytes: int
    variables: tuple[int, ...]
    job_variables: tuple[int, ...]
    rounds: int
    steps: int

    def growing(self) -> tuple[int, ...]:
        """Megabytes, for what grows with them."""
        return (self.megabytes // 4, self.megabytes // 2, self.megabytes)


QUICK = Size(32, (100, 1000), (40,), 1, 10)
FULL = Size(1024, (1000, 10_000, 100_000), (40, 400, 4000), 5, 40)


@dataclass(frozen=True)
class Case:
    """One task and the ways to do it.

    Attributes:
      task: what is done.
      ways: by name; each does it once and returns its seconds. The first one is what the others
        are compared with: the stock or the guide's way, where there is one.
      limit: the way that is no way to do it, but what no way can be faster than; "" for none.
      nbytes: of the checkpoint.
      variables: how many it has.
      grows: "bytes" or "variables", where the task is measured at several of these.
      traces: what else a way has found, by its name.
    """

    task: str
    ways: Mapping[str, Way]
    limit: str = ""
    nbytes: int = 0
    variables: int = 0
    grows: str = ""
    traces: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What was measured: see Case; `seconds` has those of each round, by way."""

    task: str
    seconds: Mapping[str, list[float]]
    limit: str
    nbytes: int
    variables: int
    grows: str
    traces: Mapping[str, Any]

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Result:
        """What as_json() has made."""
        return cls(**{name: found[name] for name in cls.__dataclass_fields__})

    def as_json(self) -> dict[str, Any]:
        """Its fields, with the medians and the ratios by way."""
        return {
            **vars(self),
            "medians": {way: self.median(way) for way in self.seconds},
            "ratios": {way: self.ratio(way) for way in self.seconds},
        }

    def median(self, way: str) -> float:
        return statistics.median(self.seconds[way])

    def ratio(self, way: str) -> float:
        """To the first way; round by round, as other work slows down the ways of a round alike."""
        first = next(iter(self.seconds.values()))
        return statistics.median(
            own / other if other else math.nan for own, other in zip(self.seconds[way], first)
        )


def run_case(case: Case, rounds: int) -> Result:
    """Has the ways of a case take turns, in the other order every other round."""
    found: dict[str, list[float]] = {name: [] for name in case.ways}
    for turn in range(rounds):
        names = list(case.ways)
        for name in names[::-1] if turn % 2 else names:
            found[name].append(case.ways[name]())
    return Result(
        case.task, found, case.limit, case.nbytes, case.variables, case.grows, case.traces
    )


# --- ways ---


def timed(action: Callable[[], object]) -> float:
    """Seconds of it; what was written before is on the disk."""
    os.sync()
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def into_new(directory: str, action: Callable[[str], object]) -> Way:
    """A way that writes to a place of its own, which is gone when the clock has stopped."""

    def way() -> float:
        place = tempfile.mkdtemp(dir=directory)
        try:
            return timed(lambda: action(os.path.join(place, "model")))
        finally:
            shutil.rmtree(place)

    return way


def environment() -> dict[str, str]:
    """Of a process that is measured."""
    found = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }
    found.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    return found


def run_script(script: str, *arguments: str) -> Any:
    """The JSON that a script of this directory prints in its last line."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *arguments],
        env=environment(),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{script} {' '.join(arguments)}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# --- limits ---


def disk_write(directory: str, nbytes: int) -> Way:
    """A file of so many bytes, and all of it on the disk."""
    block = os.urandom(1 << 20) * (_BLOCK >> 20)

    def write(path: str) -> None:
        with open(path, "wb") as file:
            for start in range(0, nbytes, _BLOCK):
                file.write(block[: nbytes - start])
            file.flush()
            os.fsync(file.fileno())

    return into_new(directory, write)


def memory_copy(nbytes: int) -> Way:
    """So many bytes from one place in memory to another."""
    import numpy as np

    source = np.ones(nbytes, np.uint8)

    def way() -> float:
        return timed(source.copy)

    return way


def hard_link(directory: str, source: str) -> Way:
    """A second name for a file."""
    return into_new(directory, lambda path: os.link(source, path))


def cat(*paths: str) -> Way:
    """What `cat` takes for files, whose bytes go nowhere."""

    def way() -> float:
        return timed(lambda: subprocess.run(["cat", *paths], stdout=subprocess.DEVNULL, check=True))

    return way


# --- the machine ---


def machine() -> dict[str, Any]:
    """What was measured on: processor, memory, versions, how busy it was."""
    processor = platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gb": round(pages / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load": round(os.getloadavg()[0], 1),
        "versions": versions,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


@contextlib.contextmanager
def scratch(directory: str | None) -> Iterator[str]:
    """A directory to write to, gone in the end."""
    with tempfile.TemporaryDirectory(dir=directory) as place:
        yield place
