"""What it costs to write both formats: beside the stock single save, and beside two savers.

    python benchmarks/save_both.py [--variables=64] [--megabytes=16] [--runs=5] [--directory=DIR]

The savers of one graph take turns, in another order each time:

- `stock`: tf.compat.v1.train.Saver(sharded=True), as MonitoredSession makes it. Names alone.
- `saver`, `checkpoint`, `both`: those that a Scaffold of estimator_ckpt has. Names, objects, or
  both in one set of files.
- `two savers`: the guide's way to have both: the stock one, and the Saver that a Scaffold makes
  of a tf.train.Checkpoint, one after the other.

What was written before is on the disk, and removed, before the clock starts (os.sync()). The
median of the rounds counts; aimed at are 1.05 times the time and 1.001 times the bytes of `stock`.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import tensorflow as tf

from estimator_ckpt.options import SaverOptions
from estimator_ckpt.saving.saver import Saver

v1 = tf.compat.v1

Save = Callable[[v1.Session, str], object]
FORMATS = ("saver", "checkpoint", "both")


def build(count: int, megabytes: float) -> dict[str, tf.Variable]:
    """Variables of float32 with random values, which no file system compresses."""
    elements = int(megabytes * (1 << 20) / 4)
    return {
        name: v1.get_variable(name, initializer=tf.random.uniform([elements], seed=1))
        for name in (f"layer_{number}/kernel" for number in range(count))
    }


def savers(variables: dict[str, tf.Variable]) -> dict[str, Save]:
    """The ways to save, each a function of a session and a prefix."""
    ours = {name: Saver(name, options=SaverOptions()) for name in FORMATS}
    for saver in ours.values():
        saver.build()
    stock = v1.train.Saver(sharded=True)
    of_objects = v1.train.Scaffold(saver=tf.train.Checkpoint(var_list=variables)).finalize().saver

    def save_stock(session: v1.Session, prefix: str) -> None:
        stock.save(session, prefix, write_meta_graph=False)

    def save_ours(saver: Any) -> Save:
        return lambda session, prefix: saver.save(session, prefix, write_meta_graph=False)

    def save_twice(session: v1.Session, prefix: str) -> None:
        stock.save(session, prefix, write_meta_graph=False)
        of_objects.save(session, f"{prefix}_objects", write_meta_graph=False)

    return {
        "stock": save_stock,
        **{n: save_ours(ours[n]) for n in FORMATS},
        "two savers": save_twice,
    }


def measure(save: Save, session: v1.Session, directory: str) -> tuple[float, int]:
    """Seconds and bytes of one save, the second one into a directory of its own.

    The first one of a directory is not counted: ours waits until that is on the disk.
    """
    with tempfile.TemporaryDirectory(dir=directory) as path:
        save(session, os.path.join(path, "model-1"))
        os.sync()
        start = time.perf_counter()
        save(session, os.path.join(path, "model-2"))
        seconds = time.perf_counter() - start
        size = sum(file.stat().st_size for file in Path(path).glob("model-2*"))
    return seconds, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--variables", type=int, default=64)
    parser.add_argument("--megabytes", type=float, default=16, help="of each variable")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--directory", help="where to write; a temporary one")
    options = parser.parse_args()

    with tf.Graph().as_default():
        variables = build(options.variables, options.megabytes)
        init = v1.global_variables_initializer()
        ways = savers(variables)  # which finalizes the graph
        with v1.Session() as session:
            session.run(init)
            for save in ways.values():  # the first run of each op is slower
                measure(save, session, options.directory)
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            sizes: dict[str, int] = {}
            for _ in range(options.runs):
                for name in random.sample(list(ways), len(ways)):
                    took, sizes[name] = measure(ways[name], session, options.directory)
                    seconds[name].append(took)

    total = options.variables * options.megabytes / 1024
    print(f"TensorFlow {tf.__version__}, {total:.3g} GB in {options.variables} variables")
    print(f"{'':12}{'median s':>10}{'fastest s':>11}{'ratio':>8}{'bytes':>15}{'ratio':>10}")
    for name, times in seconds.items():
        # Round by round, as other work on the machine slows down the savers of one round alike.
        ratio = statistics.median(took / of for took, of in zip(times, seconds["stock"]))
        print(
            f"{name:12}{statistics.median(times):>10.3f}{min(times):>11.3f}{ratio:>8.3f}"
            f"{sizes[name]:>15,}{sizes[name] / sizes['stock']:>10.6f}"
        )


if __name__ == "__main__":
    main()
