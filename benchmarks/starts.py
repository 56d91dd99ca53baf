"""What the start of each verb of files costs: the processor's time of whole processes.

    python benchmarks/starts.py [--rounds=11]

Each does a small task. The time is that of the processor, user and system, so that other work on
the machine disturbs it less. All run in turns, and the medians count. Bytecode is there, as in an
installed package.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from estimator_ckpt.bundle.checksum import masked_crc32c
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, shard_path, write_index

FLOAT = 1
VARIABLES = 300


def write_checkpoint(prefix: str) -> None:
    """Writes variables of four zeros each."""
    value = bytes(16)
    Path(shard_path(prefix, 0, 1)).write_bytes(value)
    shared = Entry(FLOAT, (4,), 0, 0, len(value), masked_crc32c(value))
    names = [f"model/layer_{n}/kernel" for n in range(VARIABLES)]
    write_index(prefix, Index(1, {name.encode(): shared for name in names}))


def commands(prefix: str, template: str, exported: str, out: str) -> dict[str, list[str]]:
    """What is run, by what it is called in the table; results are named `out`."""
    verb = [sys.executable, "-m", "estimator_ckpt"]
    to_objects = ["--checkpoint_format=checkpoint"]
    return {
        "pass": [sys.executable, "-c", "pass"],
        "import numpy": [sys.executable, "-c", "import numpy"],
        "import estimator_ckpt": [sys.executable, "-c", "import estimator_ckpt"],
        "inspect": [*verb, "inspect", prefix],
        "verify": [*verb, "verify", prefix],
        "compare": [*verb, "compare", prefix, prefix],
        "check": [*verb, "check", f"--model={prefix}", prefix],
        "convert --help": [*verb, "convert", "--help"],
        "convert": [*verb, "convert", *to_objects, prefix, out],
        "convert --like": [*verb, "convert", *to_objects, f"--like={template}", prefix, out],
        "export": [*verb, "export", prefix, f"{out}.safetensors"],
        "import": [*verb, "import", *to_objects, exported, out],
    }


def processor_time(command: list[str], environment: dict[str, str]) -> float:
    """Seconds of the processor that a process takes, with what it starts.

    Raises:
      RuntimeError: it fails.
    """
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}")
    return usage.ru_utime + usage.ru_stime


@contextlib.contextmanager
def prepared(directory: str) -> Iterator[dict[str, Callable[[], float]]]:
    """What is run, by name, each as a function that runs it once and returns processor_time()."""
    with tempfile.TemporaryDirectory(dir=directory) as place:
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
            "PYTHONPYCACHEPREFIX": f"{place}/bytecode",
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        prefix, template = f"{place}/model", f"{place}/template"
        exported = f"{place}/exported.safetensors"
        write_checkpoint(prefix)
        made = commands(prefix, template, exported, f"{place}/made")
        processor_time([*made["convert"][:-1], "--layout=scopes", template], environment)
        processor_time([*made["export"][:-1], exported], environment)

        def run(name: str) -> float:
            out = tempfile.mkdtemp(dir=place)  # each writes to a place of its own
            command = commands(prefix, template, exported, f"{out}/result")[name]
            return processor_time(command, environment)

        for name in made:
            run(name)  # makes the bytecode
        yield {name: functools.partial(run, name) for name in made}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as directory, prepared(directory) as tasks:
        for _ in range(options.rounds):
            for name, run in tasks.items():
                times.setdefault(name, []).append(run())
    print(f"{'process':<16} {'median':>7} {'least':>7}  seconds of the processor")
    for name, found in times.items():
        print(f"{name:<16} {statistics.median(found):7.3f} {min(found):7.3f}")


if __name__ == "__main__":
    main()
