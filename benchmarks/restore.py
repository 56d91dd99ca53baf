"""How long it takes to restore a checkpoint, in a graph and in an eager program.

    python benchmarks/restore.py [--variables=10000] [--megabytes=40] [--rounds=3]

Each restore is a process of its own, as the first run of an op is what a job waits for; the clock
runs from the built graph, or the made variables, to their values. `stock` is
tf.compat.v1.train.Saver.restore(), or an assignment of each value of tf.train.load_checkpoint();
`ours` the saver of make_scaffold("both"), or WarmStart.apply(). They take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import convert
from measuring import run_script

WAYS = ("stock", "ours")


def restore(way: str, source: str, shapes: dict[str, list[int]]) -> float:
    """Seconds of a restore in a graph."""
    import tensorflow as tf

    from estimator_ckpt import make_scaffold

    v1 = tf.compat.v1
    with tf.Graph().as_default():
        for name, shape in shapes.items():
            v1.get_variable(name, shape, initializer=v1.zeros_initializer())
        saver = v1.train.Saver() if way == "stock" else make_scaffold("both").saver
        saver.build()
        with v1.Session() as session:
            start = time.perf_counter()
            saver.restore(session, source)
            return time.perf_counter() - start


def apply(way: str, source: str, shapes: dict[str, list[int]]) -> float:
    """Seconds until the variables of an eager program have their values."""
    import tensorflow as tf

    from estimator_ckpt import WarmStart

    variables = {name: tf.Variable(tf.zeros(shape), name=name) for name, shape in shapes.items()}
    start = time.perf_counter()
    if way == "stock":
        reader = tf.train.load_checkpoint(source)
        for name, variable in variables.items():
            variable.assign(reader.get_tensor(name))
    else:
        WarmStart(source).apply(list(variables.values()))
    return time.perf_counter() - start


TASKS = {"restore": restore, "apply": apply}


def run_one(task: str, way: str, source: str) -> float:
    """A task in this process."""
    import tensorflow as tf

    # Both have the module that reads a checkpoint's shapes.
    shapes: dict[str, Any] = tf.train.load_checkpoint(source).get_variable_to_shape_map()
    return TASKS[task](way, source, dict(sorted(shapes.items())))


def measure(task: str, way: str, source: str) -> float:
    """The seconds of a task in a process of its own."""
    return float(run_script("restore.py", "--one", task, way, source))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--variables", type=int, default=10_000)
    parser.add_argument("--megabytes", type=float, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_one(*options.one)))
        return
    with tempfile.TemporaryDirectory() as directory:
        source = convert.write_checkpoint(
            f"{directory}/m/model", options.variables, int(options.megabytes * 1e6)
        )
        for task in TASKS:
            found: dict[str, list[float]] = {way: [] for way in WAYS}
            for turn in range(options.rounds):
                for way in WAYS[::-1] if turn % 2 else WAYS:
                    found[way].append(measure(task, way, source))
            stock, ours = (statistics.median(found[way]) for way in WAYS)
            print(f"{task:8} stock {stock:.2f} s, ours {ours:.2f} s, {ours / stock:.2f} of it")


if __name__ == "__main__":
    main()
