"""What the start of a job with many variables costs: TensorFlow's saver and ours, side by side.

    python benchmarks/start_many_variables.py [--variables 40 400 4000] [--rounds=3] [--reference]

A job in a MonitoredTrainingSession, whose variables have 8 floats each. The ways take turns, in one
process and each time in a new graph and directory: a first start, which initializes and saves, and
a resume of that.

- `stock`: a Scaffold with a sharded tf.compat.v1.train.Saver.
- `saver`, `checkpoint`, `both`: make_scaffold() of that format.

Printed are medians of the rounds, in seconds, without the building of the user's graph: `start`,
until the session is there (its first save is part of a first start and of a resume); of that
`save` and `restore`; `step`, the first step; and the ratio of start and step to stock's, of
the seconds that pass, and of those of the processor. Other work on the machine disturbs the second
one less.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

WAYS = ("stock", "saver", "checkpoint", "both")


class Clock:
    """Adds up the seconds, of a clock and of the processor, that calls take, by their names."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.processor: dict[str, float] = {}

    def timed(self, name: str, function: Any) -> Any:
        """The function, timed."""

        def call(*args: Any, **kwargs: Any) -> Any:
            start, processor = time.perf_counter(), time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - start
                used = time.process_time() - processor
                self.processor[name] = self.processor.get(name, 0) + used

        return call


def start(way: str, model_dir: str, count: int, is_reference: bool) -> Clock:
    """Starts a job, makes a step and ends; the times of it."""
    import tensorflow as tf

    from estimator_ckpt import make_scaffold

    v1, clock = tf.compat.v1, Clock()
    with tf.Graph().as_default():
        variables = [
            v1.get_variable(
                f"layer_{number}/kernel",
                [8],
                initializer=v1.random_normal_initializer(seed=number),
                use_resource=not is_reference,
            )
            for number in range(count)
        ]
        updates = [v1.assign_sub(variable, tf.ones([8])) for variable in variables]
        with tf.control_dependencies(updates):
            op = v1.assign_add(v1.train.get_or_create_global_step(), 1).op

        def session() -> Any:
            if way == "stock":
                scaffold = v1.train.Scaffold(saver=v1.train.Saver(sharded=True))
            else:
                scaffold = make_scaffold(way)
            saver = scaffold.saver
            saver.save = clock.timed("save", saver.save)
            saver.restore = clock.timed("restore", saver.restore)
            return v1.train.MonitoredTrainingSession(
                checkpoint_dir=model_dir,
                scaffold=scaffold,
                save_checkpoint_steps=1_000_000,
                save_summaries_steps=None,
                log_step_count_steps=None,
            )

        with clock.timed("start", session)() as opened:
            first_save = clock.seconds["save"]
            clock.timed("step", lambda: opened.run(op))()
    clock.seconds["save"] = first_save  # not that of the end
    return clock


def table(found: dict[str, list[Clock]]) -> list[str]:
    """A line for each way: medians, and ratios to stock."""
    lines = []
    names = ("start", "save", "restore", "step")

    def whole(way: str, kind: str) -> float:
        times = [getattr(clock, kind) for clock in found[way]]
        return statistics.median(one["start"] + one["step"] for one in times)

    for way, clocks in found.items():
        medians = [statistics.median(c.seconds.get(name, 0) for c in clocks) for name in names]
        ratios = [whole(way, kind) / whole("stock", kind) for kind in ("seconds", "processor")]
        lines.append(
            f"{way:<11}"
            + "".join(f"{n:9.2f}" for n in (*medians, whole(way, "processor"), *ratios))
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--variables", type=int, nargs="+", default=[40, 400, 4000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    parser.add_argument("--reference", action="store_true", help="reference variables")
    options = parser.parse_args()
    import tensorflow as tf

    tf.compat.v1.logging.set_verbosity("ERROR")
    print(
        f"TensorFlow {tf.__version__}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    columns = ("start", "save", "restore", "step", "cpu s", "ratio", "cpu")
    for count in options.variables:
        found: dict[str, dict[str, list[Clock]]] = {"first start": {}, "resume": {}}
        for turn in range(options.rounds + 1):
            for way in options.ways:
                with tempfile.TemporaryDirectory() as model_dir:
                    for by_way in found.values():
                        # The first one in a process loads what the others have then.
                        size = count if turn else min(count, 40)
                        clock = start(way, model_dir, size, options.reference)
                        if turn:
                            by_way.setdefault(way, []).append(clock)
        for kind, by_way in found.items():
            print(f"\n{count} variables, {kind}")
            print(f"{'':<11}" + "".join(f"{name:>9}" for name in columns))
            print("\n".join(table(by_way)), flush=True)


if __name__ == "__main__":
    main()
