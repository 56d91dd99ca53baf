"""What a training loses for a save: with TensorFlow's saver, with ours, and with ours beside it.

    python benchmarks/save_async.py [--gigabytes=1] [--threads=0] [--steps=40] [--rounds=3]

A job in a MonitoredSession with a CheckpointSaverHook: each step multiplies matrices and updates
every variable. The ways take turns, each round in a new process and a new directory; what was
written before is on the disk, and removed, before the clock starts.

- `stock`: the Saver of a stock Scaffold.
- `sync`: the one of estimator_ckpt.saver_scaffold().
- `async`: the same, with async_checkpoint=True.

The median of the later half of the steps between two saves, when the thread that writes has ended,
is what a step takes. What the steps take longer is lost to the saves, also where that thread takes
time from a step. Printed are the medians of the rounds: the seconds lost for each save and its
ratio to stock, the longest step, and the memory of the process before the first of these saves, at
most, and after the last. Aimed at is a ratio of 0.4 where the step uses all cores, 0.2 with one
core free (--threads).
"""

from __future__ import annotations

import argparse
import json
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

from measuring import run_script

WAYS = ("stock", "sync", "async")


def memory(field: str) -> int:
    """A field of /proc/self/status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith(field))


def train(way: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One training; what it lost for each save, in seconds, and its memory, in MiB."""
    import tensorflow as tf

    from estimator_ckpt import saver_scaffold

    v1 = tf.compat.v1
    count = max(1, round(arguments.gigabytes * 1024 / arguments.variable_megabytes))
    elements = arguments.variable_megabytes << 18
    config = v1.ConfigProto(
        intra_op_parallelism_threads=arguments.threads,
        inter_op_parallelism_threads=arguments.threads,
    )
    with tf.Graph().as_default(), tempfile.TemporaryDirectory(dir=arguments.directory) as place:
        step = v1.train.get_or_create_global_step()
        matrix = v1.random_uniform([arguments.matrix, arguments.matrix])
        small = tf.reduce_mean(tf.matmul(matrix, matrix)) * 1e-9
        updates = [
            v1.assign_sub(v, v * small)
            for v in (
                v1.get_variable(
                    f"layer_{n}/kernel",
                    initializer=tf.random.uniform([elements], seed=n),
                    use_resource=not arguments.reference,
                )
                for n in range(count)
            )
        ]
        with tf.control_dependencies(updates):
            op = v1.assign_add(step, 1).op
        options = {"keep_checkpoint_max": 1, "durable": arguments.durable}
        if way == "stock":
            scaffold = v1.train.Scaffold(saver=v1.train.Saver(sharded=True, max_to_keep=1))
        else:
            scaffold = saver_scaffold(async_checkpoint=way == "async", **options)
        hook = v1.train.CheckpointSaverHook(place, save_steps=arguments.steps, scaffold=scaffold)
        creator = v1.train.ChiefSessionCreator(scaffold, config=config, checkpoint_dir=place)
        with v1.train.MonitoredSession(creator, [hook]) as session:
            if way == "async":
                scaffold.saver.wait_until_finished()
            os.sync()
            times = []
            # The first call makes step 1, and the save at `steps` is in that step's call.
            for number in range(1, (arguments.saves + 1) * arguments.steps):
                if number == arguments.steps:
                    before = memory("VmRSS")
                    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
                start = time.perf_counter()
                session.run(op)
                times.append(time.perf_counter() - start)
            if way == "async":
                scaffold.saver.wait_until_finished()
            peak, after = memory("VmHWM"), memory("VmRSS")
    rest = times[arguments.steps - 1 :]
    between = [t for n, t in enumerate(rest) if n % arguments.steps >= arguments.steps // 2]
    usual = statistics.median(between)
    lost = (sum(rest) - len(rest) * usual) / arguments.saves
    return {
        "step": usual,
        "lost": lost,
        "longest": max(rest),
        "times": [round(one, 5) for one in times],
        "before": before,
        "peak": peak,
        "after": after,
    }


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of the variables, in GiB")
    parser.add_argument("--variable_megabytes", type=int, default=16, help="MiB of each variable")
    parser.add_argument("--matrix", type=int, default=2048, help="rows of what a step multiplies")
    parser.add_argument("--threads", type=int, default=0, help="of the session; 0: all cores")
    parser.add_argument("--steps", type=int, default=40, help="from one save to the next")
    parser.add_argument("--saves", type=int, default=3, help="in each round, after a first one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--durable", action="store_true", help="ours wait for the disk")
    parser.add_argument("--reference", action="store_true", help="reference variables")
    parser.add_argument("--ways", nargs="*", default=WAYS, choices=WAYS)
    parser.add_argument("--directory", help="where to write; the system's temporary one")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    return parser


def train_alone(way: str, flags: list[str]) -> dict[str, Any]:
    """train() in a process of its own, with flags of this program."""
    os.sync()
    found: dict[str, Any] = run_script("save_async.py", *flags, f"--one={way}")
    return found


def main() -> None:
    arguments = options().parse_args()
    if arguments.one:
        print(json.dumps(train(arguments.one, arguments)))
        return
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in arguments.ways}
    for _ in range(arguments.rounds):
        for way in arguments.ways:
            found[way].append(train_alone(way, sys.argv[1:]))
    print(f"{platform.machine()}, {os.cpu_count()} cores, {arguments.gigabytes} GiB of variables")
    medians = {
        way: {
            name: statistics.median(one[name] for one in rounds)
            for name in rounds[0]
            if name != "times"
        }
        for way, rounds in found.items()
    }
    stock = medians.get("stock", {}).get("lost")
    for way, m in medians.items():
        ratio = f"{m['lost'] / stock:.2f}x stock, " if stock else ""
        every = ", ".join(f"{one['lost']:.2f}" for one in found[way])
        print(
            f"{way:6} lost {m['lost']:.3f} s for each save ({every}), {ratio}longest step "
            f"{m['longest']:.3f} s of {m['step']:.3f} s; memory {m['before']:.0f} MiB, "
            f"at most {m['peak'] - m['before']:+.0f}, after it {m['after'] - m['before']:+.0f}"
        )


if __name__ == "__main__":
    main()
