"""How long `inspect` takes: beside TensorFlow's inspect_checkpoint, and for many variables.

    python benchmarks/inspect_speed.py [--runs=5] [--most=1000000]

Each time is that of a whole process, its start included; the best of the runs counts. (The file is
not called inspect.py: Python would take it for its own module of that name.)
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from estimator_ckpt.bundle.checksum import masked_crc32c
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, shard_path, write_index
from estimator_ckpt.bundle.tensors import encode_strings
from estimator_ckpt.objects.message import VARIABLE_VALUE
from estimator_ckpt.objects.object_graph import OBJECT_GRAPH_KEY, flat_graph, flat_key, object_key

FLOAT, STRING, INT64 = 1, 7, 9
OURS = [sys.executable, "-m", "estimator_ckpt", "inspect"]
THEIRS = [sys.executable, "-m", "tensorflow.python.tools.inspect_checkpoint", "--all_tensor_names"]


def variable_names(count: int) -> list[str]:
    """Names of a deep model with Adam's slots."""
    models = (f"model/layer_{n // 16}/block_{n % 16}/kernel" for n in range(count // 3 + 1))
    return [name + slot for name in models for slot in ("", "/Adam", "/Adam_1")][:count]


def write_checkpoint(
    prefix: str, count: int, checkpoint_format: str, value: bytes = bytes(16)
) -> None:
    """Writes `count` variables of four float32 each, all of which are these bytes."""
    keys = variable_names(count)
    data = value
    entries = {}
    if checkpoint_format == "checkpoint":
        graph, crc = encode_strings([flat_graph(dict.fromkeys(keys, VARIABLE_VALUE)).serialize()])
        data = value + graph + value[:8]
        entries[OBJECT_GRAPH_KEY.encode()] = Entry(STRING, (), 0, len(value), len(graph), crc)
        counter = Entry(INT64, (), 0, len(value + graph), 8, masked_crc32c(value[:8]))
        entries[object_key("save_counter").encode()] = counter
        keys = [flat_key(key) for key in keys]
    shared = Entry(FLOAT, (4,), 0, 0, len(value), masked_crc32c(value))
    entries.update((key.encode(), shared) for key in keys)
    Path(shard_path(prefix, 0, 1)).write_bytes(data)
    write_index(prefix, Index(1, entries))


def best_time(command: list[str], runs: int) -> float:
    """Seconds of the fastest run of a process."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--most", type=int, default=1_000_000, help="variables, at most")
    options = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["PYTHONPATH"] = sys.path[0]
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    with tempfile.TemporaryDirectory() as directory:
        prefix = os.path.join(directory, "300")
        write_checkpoint(prefix, 300, "saver")
        ours = best_time([*OURS, prefix], options.runs)
        theirs = best_time([*THEIRS, f"--file_name={prefix}"], min(options.runs, 3))
        print("300 variables, process start included")
        print(f"  inspect_checkpoint  {theirs:7.2f} s")
        print(f"  estimator-ckpt      {ours:7.2f} s   {theirs / ours:.1f} times as fast")
        print("variables  format      seconds  microseconds per variable")
        count = 10_000
        while count <= options.most:
            for checkpoint_format in ("saver", "checkpoint"):
                prefix = os.path.join(directory, f"{checkpoint_format}-{count}")
                write_checkpoint(prefix, count, checkpoint_format)
                seconds = best_time([*OURS, prefix], 1 if count > 100_000 else options.runs)
                each = seconds / count * 1e6
                print(
                    f"{count:9,}  {checkpoint_format:<10}  {seconds:7.2f}  {each:6.1f}", flush=True
                )
            count *= 10


if __name__ == "__main__":
    main()
