"""What a warm start adds to the start of a job: this package against stock TensorFlow.

usage: python benchmarks/warm_start.py [--variables=4000] [--rounds=3] [--format=saver]

Each start is a process of its own: it builds a graph of so many small variables, finalizes it in a
MonitoredTrainingSession and runs one step. The kinds of start take turns, so that a busy machine
slows all of them alike; the medians are compared, of the processor time too, which tells more where
others are at work. "plain" starts from initial values with the
stock Scaffold, "plain, ours" with one of this package, "stock" calls tf.compat.v1.train.warm_start,
"ours" gives the Scaffold warm_start=. (benchmarks/run.py measures other kinds with the same
function: "first, FORMAT" is a job's first start in a model_dir, with its first save, and "resume,
FORMAT" goes on from the source; FORMAT is that of a Scaffold of this package, or stock.)

The plain starts are measured on both sides, as a saver costs something, too, whatever it starts
from. What a warm start adds is the difference to the plain start of its own side.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time

from absl import app, flags
from measuring import run_script

_VARIABLES = flags.DEFINE_integer("variables", 4000, "How many variables.", lower_bound=2)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "How often each kind starts.", lower_bound=1)
_FORMAT = flags.DEFINE_enum(
    "format", "saver", ["saver", "checkpoint", "both"], "The format of the source."
)
_START = flags.DEFINE_string("start", None, "For the processes it starts: the kind of start.")
_SOURCE = flags.DEFINE_string("source", None, "For the processes it starts: the checkpoint.")

_PLAIN_OF = {"stock": "plain", "ours": "plain, ours"}


def start(kind: str, variables: int, source: str, checkpoint_format: str) -> tuple[float, float]:
    """Seconds from the empty graph to the end of the first step: by the clock, by the processor."""
    import tensorflow as tf

    from estimator_ckpt import make_scaffold

    v1 = tf.compat.v1
    what, _, how = kind.partition(", ")
    is_job = what in ("first", "resume")
    with tempfile.TemporaryDirectory() as own, tf.Graph().as_default():
        if what == "resume":
            shutil.copytree(source, own, dirs_exist_ok=True)
        model_dir = source if kind == "source" else own
        begun = time.perf_counter(), time.process_time()
        value = 1.0 if kind == "source" else 0.0
        made = [
            v1.get_variable(f"layer_{n}/w", [8], initializer=v1.constant_initializer(value))
            for n in range(variables)
        ]
        step = v1.assign_add(v1.train.get_or_create_global_step(), 1)
        scaffold = None
        if kind == "stock":
            v1.train.warm_start(source)
        elif kind == "ours":
            scaffold = make_scaffold("saver", warm_start=source)
        elif kind == "plain, ours":
            scaffold = make_scaffold("saver")
        elif kind == "source":
            scaffold = make_scaffold(checkpoint_format)
        elif is_job and how != "stock":
            scaffold = make_scaffold(how)
        with v1.train.MonitoredTrainingSession(
            checkpoint_dir=model_dir if kind == "source" or is_job else None,
            scaffold=scaffold,
            log_step_count_steps=None,
            save_summaries_steps=None,
            save_summaries_secs=None,
        ) as session:
            session.run(step)
            seconds = time.perf_counter() - begun[0], time.process_time() - begun[1]
            if kind in ("stock", "ours") or what == "resume":
                last = session._tf_sess().run(made[-1])
                assert (last == 1.0).all(), last
        return seconds


def measure(
    kind: str, source: str, *, variables: int, checkpoint_format: str
) -> tuple[float, float]:
    """The seconds of one start in a process of its own."""
    wall, processor = run_script(
        "warm_start.py",
        f"--start={kind}",
        f"--source={source}",
        f"--variables={variables}",
        f"--format={checkpoint_format}",
    )
    return wall, processor


def main(argv: list[str]) -> None:
    del argv
    if _START.value is not None:
        found = start(_START.value, _VARIABLES.value, _SOURCE.value, _FORMAT.value)
        print(json.dumps(found))
        return
    kinds = ["plain", "stock", "plain, ours", "ours"]
    seconds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    given = {"variables": _VARIABLES.value, "checkpoint_format": _FORMAT.value}
    with tempfile.TemporaryDirectory() as source:
        measure("source", source, **given)
        for number in range(_ROUNDS.value):
            for kind in kinds[::-1] if number % 2 else kinds:
                seconds[kind].append(measure(kind, source, **given))
                wall, processor = seconds[kind][-1]
                print(f"{kind:<12} {wall:8.2f} s, processor {processor:8.2f} s", flush=True)
    print(f"\n{_VARIABLES.value:,} variables from a {_FORMAT.value} checkpoint, medians:")
    for place, clock in enumerate(("by the clock", "by the processor")):
        medians = {
            kind: statistics.median(one[place] for one in taken) for kind, taken in seconds.items()
        }
        added = {kind: medians[kind] - medians[plain] for kind, plain in _PLAIN_OF.items()}
        for kind, plain in _PLAIN_OF.items():
            print(
                f"{clock}: {kind} takes {medians[kind]:.2f} s, {added[kind]:.2f} s more than a "
                f"plain start ({medians[plain]:.2f} s)"
            )
        print(f"{clock}: ours adds {added['ours'] / added['stock']:.1%} of what stock adds")


if __name__ == "__main__":
    app.run(main)
