"""What a conversion costs: beside the way of TensorFlow's migration guide, which loads and saves.

    python benchmarks/convert.py [--gigabytes=2] [--variables=300] [--runs=5] [--directory=DIR]

The guide's converters (https://www.tensorflow.org/guide/migrate/migrating_checkpoints) read every
tensor into memory and save it again; `load_and_save_objects` and `load_and_save_names` do the same
here. Each of their runs is a process of its own, timed without and with its start. Aimed at, for
2 GB: 500 times faster as a library call, 50 times as a command, less than 80 MB of memory; 2 GB in
1.2 times the time of 0.2 GB; 100,000 variables in 3 s.

What was written before is on the disk before the clock starts (os.sync()). The median counts.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from estimator_ckpt import convert_checkpoint
from estimator_ckpt.bundle.checksum import masked_crc32c
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, shard_path, write_index

ROOT = Path(__file__).resolve().parent.parent
FLOAT32 = 1


def write_checkpoint(prefix: str, count: int, nbytes: int) -> str:
    """A name-based checkpoint of random float32 values, `nbytes` in all."""
    os.makedirs(os.path.dirname(prefix), exist_ok=True)
    size = nbytes // count // 4 * 4
    data = os.urandom(size)
    crc = masked_crc32c(data)
    entries = {}
    with open(shard_path(prefix, 0, 1), "wb") as file:
        for number in range(count):
            name = f"scope_{number // 10}/layer_{number}/kernel"
            entries[name.encode()] = Entry(FLOAT32, (size // 4,), 0, file.tell(), size, crc)
            file.write(data)
    write_index(prefix, Index(1, entries))
    return prefix


# --- the guide's way ---


def load_and_save_objects(source: str, destination: str) -> None:
    """TF1 to TF2: a variable for each tensor, saved by a tf.train.Checkpoint."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(source)
    variables = {
        name: tf.Variable(reader.get_tensor(name), name=name)
        for name in reader.get_variable_to_shape_map()
    }
    tf.train.Checkpoint(var_list=variables).save(destination)


def load_and_save_names(source: str, destination: str) -> None:
    """TF2 to TF1: a graph with a variable for each tensor, saved by a Saver."""
    import tensorflow as tf

    v1 = tf.compat.v1
    reader = tf.train.load_checkpoint(source)
    with tf.Graph().as_default(), v1.Session() as session:
        placeholders, assignments = {}, []
        for key, dtype in reader.get_variable_to_dtype_map().items():
            if not key.startswith("var_list/"):
                continue
            name = key.split("/")[1].replace(".S", "/")
            placeholder = v1.placeholder(dtype, reader.get_variable_to_shape_map()[key])
            variable = v1.get_variable(name, shape=placeholder.shape, dtype=dtype)
            assignments.append(variable.assign(placeholder))
            placeholders[placeholder] = reader.get_tensor(key)
        session.run(assignments, placeholders)
        v1.train.Saver().save(session, destination, write_meta_graph=False)


GUIDE = {"saver to checkpoint": load_and_save_objects, "checkpoint to saver": load_and_save_names}


def run_guide(way: str, source: str, destination: str) -> None:
    """One run in this process, which then says how long it took and how much memory it held."""
    import tensorflow  # noqa: F401, which is no part of the conversion

    start = time.perf_counter()
    GUIDE[way](source, destination)
    print(json.dumps({"seconds": time.perf_counter() - start, "kilobytes": most_memory()}))


def most_memory() -> int:
    """The most kilobytes that this process has held."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found.group(1)) if found else 0


# --- measuring ---


class Place:
    """A directory of its own for each result, gone when the clock has stopped."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def timed(self, run: Callable[[str], None]) -> float:
        path = tempfile.mkdtemp(dir=self.directory)
        os.sync()
        start = time.perf_counter()
        run(os.path.join(path, "model"))
        seconds = time.perf_counter() - start
        shutil.rmtree(path)
        return seconds

    def median(self, run: Callable[[str], None], runs: int) -> float:
        return statistics.median(self.timed(run) for _ in range(runs))


def library(source: str, checkpoint_format: str) -> Callable[[str], None]:
    def run(destination: str) -> None:
        convert_checkpoint(source, destination, checkpoint_format)

    return run


def run_command(*arguments: str) -> int:
    """One run of the command; returns its kilobytes."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    return int(done.stdout.split()[-1])


# The command as its script runs it, which then says how much memory it held.
COMMAND = """
import sys
from estimator_ckpt import cli
code = cli.main(sys.argv[1:])
with open("/proc/self/status") as file:
    print(*(line.split()[1] for line in file if line.startswith("VmHWM")))
sys.exit(code)
"""


def command(source: str, checkpoint_format: str, memory: list[int]) -> Callable[[str], None]:
    def run(destination: str) -> None:
        flag = f"--checkpoint_format={checkpoint_format}"
        memory.append(run_command("convert", flag, source, destination))

    return run


def guide(way: str, source: str, place: Place) -> tuple[float, float, int]:
    """Seconds without and with the start of the process, and kilobytes."""
    said: dict[str, float] = {}

    def run(destination: str) -> None:
        done = subprocess.run(
            [sys.executable, __file__, "--guide", way, source, destination],
            check=True,
            stdout=subprocess.PIPE,
        )
        said.update(json.loads(done.stdout.splitlines()[-1]))

    whole = place.timed(run)
    return said["seconds"], whole, int(said["kilobytes"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--variables", type=int, default=300)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--directory", help="where to write; a temporary one")
    parser.add_argument("--guide", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.guide:
        run_guide(*options.guide)
        return
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        measure(options, Place(directory))


def measure(options: argparse.Namespace, place: Place) -> None:
    nbytes = int(options.gigabytes * 1e9)
    large = write_checkpoint(f"{place.directory}/large/model", options.variables, nbytes)
    small = write_checkpoint(f"{place.directory}/small/model", options.variables, nbytes // 10)
    many = write_checkpoint(f"{place.directory}/many/model", 100_000, 400_000)
    objects = f"{place.directory}/objects/model"
    convert_checkpoint(large, objects, "checkpoint")
    os.sync()

    print(f"{options.gigabytes:g} GB in {options.variables} variables")
    print(f"{'':22}{'guide':>10}{'ours':>10}{'ratio':>9}{'command':>10}{'ratio':>9}{'memory':>20}")
    for way, source, target in (
        ("saver to checkpoint", large, "checkpoint"),
        ("checkpoint to saver", objects, "saver"),
    ):
        call, process, memory = guide(way, source, place)
        ours = place.median(library(source, target), options.runs)
        held: list[int] = []
        as_command = place.median(command(source, target, held), options.runs)
        print(
            f"{way:22}{call:>8.2f} s{ours * 1e3:>7.1f} ms{call / ours:>8.0f}x"
            f"{as_command * 1e3:>7.0f} ms{process / as_command:>8.0f}x"
            f"{memory / 1e3:>9.0f} / {max(held) / 1e3:.0f} MB"
        )
    # In turn, as other work on the machine slows both down alike.
    times: dict[str, list[float]] = {large: [], small: []}
    for _ in range(4 * options.runs):
        for source, seconds in times.items():
            seconds.append(place.timed(library(source, "both")))
    ratio = statistics.median(times[large]) / statistics.median(times[small])
    print(f"ten times the bytes: {ratio:.2f} times the time")
    for target in ("checkpoint", "both"):
        seconds = place.median(library(many, target), options.runs)
        print(f"100,000 variables, saver to {target}: {seconds:.2f} s")


if __name__ == "__main__":
    main()
