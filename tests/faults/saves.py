"""Breaks saves at their file calls, and looks at what is left: python saves.py SCENARIO... [flags].

Every variable of the job has the global step for its value, in all its elements, so that values of
two steps in one checkpoint show. After each fault: the newest checkpoint that the state file names
opens, verifies, and is restored by stock TensorFlow with the values of its step; the job resumes by
itself, and thereafter the directory has no file that nothing names.

Scenarios:
  save        resumes, and saves twice with two checkpoints kept, so that others are deleted
  again       resumes from another format and saves that step again under its name
  changed     resumes with one more variable in the model and saves that step again
  only        as `changed`, where that checkpoint is the only one that is kept
  warm        starts from another checkpoint
  input       as `save`, with the position of the input, which gives the number of the step
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import layer
import numpy as np
import tensorflow as tf

from estimator_ckpt import make_scaffold, verify_checkpoint
from estimator_ckpt.bundle.index import read_index, shard_path
from estimator_ckpt.reading.input_files import positions
from estimator_ckpt.reading.state import read_state
from estimator_ckpt.saving.journal import read_journal

v1 = tf.compat.v1
FORMATS = ("saver", "checkpoint", "both")
SCENARIOS = ("save", "again", "changed", "only", "warm", "input")
# A trial pays for sessions, so they are small and run the graph as it is.
CONFIG = v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
CONFIG.graph_options.rewrite_options.disable_meta_optimizer = True


def build(*, more: bool = False, start: int = 0) -> tf.Operation:
    """A graph whose variables are all `start`, and 1 more after each run of the op returned."""
    step = v1.train.get_or_create_global_step()
    fill = v1.constant_initializer(float(start))
    v1.get_variable("dense/w", [3, 5], initializer=fill)
    v1.get_variable("dense/b", [7], tf.float64, initializer=v1.constant_initializer(start))
    partitioner = v1.fixed_size_partitioner(2)
    v1.get_variable("parts", [6, 2], initializer=fill, partitioner=partitioner)
    if more:
        v1.get_variable("more", [4], initializer=fill)
    adds = [v1.assign_add(v, tf.ones_like(v)) for v in v1.global_variables() if v is not step]
    with tf.control_dependencies(adds):
        return v1.assign_add(step, 1).op


@functools.lru_cache
def job_graph(more: int | None, *, reads: bool = False) -> tuple[tf.Graph, tf.Operation]:
    """The graph of a job, with what trains; built once, for forks of this process that each use it
    once. One that `reads` has the step before, and what was read, in the collection "read"."""
    with tf.Graph().as_default() as graph:
        if not reads:
            return graph, build(more=more is not None, start=more or 0)
        iterator = v1.data.make_initializable_iterator(tf.data.Dataset.range(1000))
        v1.add_to_collection(v1.GraphKeys.TABLE_INITIALIZERS, iterator.initializer)
        read = [tf.identity(v1.train.get_or_create_global_step()), iterator.get_next()]
        for tensor in read:
            v1.add_to_collection("read", tensor)
        with tf.control_dependencies(read):
            return graph, build()


@functools.lru_cache
def stock_graph(more: bool) -> tuple[tf.Graph, v1.train.Saver]:
    """A graph with the Saver of TensorFlow; built once as well."""
    with tf.Graph().as_default() as graph:
        build(more=more)
        return graph, v1.train.Saver()


def train(
    directory: str,
    checkpoint_format: str,
    *,
    steps: int,
    more: int | None = None,
    **options: object,
) -> list[list[int]]:
    """A job that saves at every step. `more`: one more variable, and what it starts with.

    Returns:
      Of each step its number and what it has read, where the job saves the input's position.
    """
    graph, op = job_graph(more, reads="save_input" in options)
    with graph.as_default():
        read = v1.get_collection("read")
        options = {"keep_checkpoint_max": 2, **options}
        with v1.train.MonitoredTrainingSession(
            config=CONFIG,
            checkpoint_dir=directory,
            scaffold=make_scaffold(checkpoint_format, **options),
            save_checkpoint_steps=1,
            save_summaries_steps=None,
            save_summaries_secs=None,
            log_step_count_steps=None,
        ) as session:
            return [session.run([op, read])[1] for _ in range(steps)]


def other_format(checkpoint_format: str) -> str:
    return FORMATS[(FORMATS.index(checkpoint_format) + 1) % len(FORMATS)]


class Scenario:
    """One job, from the same start each time."""

    def __init__(
        self, name: str, checkpoint_format: str, work: str, *, is_async: bool = False
    ) -> None:
        self.name = name
        self.checkpoint_format = checkpoint_format
        self.start = os.path.join(work, f"{name}-{checkpoint_format}-start")
        self.directory = os.path.join(work, "model")
        self.options: dict[str, object] = {"async_checkpoint": is_async}
        steps = {"save": 2, "again": 0, "changed": 0, "only": 0, "warm": 1, "input": 2}
        self.steps = steps[name]
        self.more: int | None = None
        if name == "only":
            self.options["keep_checkpoint_max"] = 1
        if name == "input":
            self.options["save_input"] = True
        begin = other_format(checkpoint_format) if name == "again" else checkpoint_format
        must(lambda: train(self.start, begin, steps=3, **self.options), work)
        if name in ("changed", "only"):
            self.more = 3
            self.options["on_missing"] = {"more": "init"}
        if name == "warm":
            self.options["warm_start"] = f"{self.start}/model.ckpt-3"

    def prepare(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.name == "warm":
            os.makedirs(self.directory)
        else:
            shutil.copytree(self.start, self.directory)

    def run(self, steps: int | None = None) -> None:
        steps = self.steps if steps is None else steps
        names = [name[:-6] for name in os.listdir(self.directory) if name.endswith(".index")]
        have = {name: bool(positions(f"{self.directory}/{name}")) for name in names}
        read = train(
            self.directory, self.checkpoint_format, steps=steps, more=self.more, **self.options
        )
        for number, pair in enumerate(read if self.name == "input" else []):
            goes_on = have[f"model.ckpt-{read[0][0]}"]
            assert pair[1] == (pair[0] if goes_on else number), f"read, by step: {read}"

    def look(self, kind: str) -> None:
        """Looks at what a fault has left, resumes, and looks again."""
        state = read_state(self.directory)
        assert state is not None or self.name == "warm", "the state file is gone"
        if state is not None and kind != "cut":
            self.look_at(state.model_checkpoint_path)
            if self.name == "input" and kind in ("kill", "tear"):
                assert positions(state.model_checkpoint_path), "without the input's position"
        if state is not None and self.name == "warm":
            assert os.path.exists(f"{self.directory}/warm_start.json"), "no warm_start.json"
        self.run(steps=1)
        layer.join_threads()  # what expired is deleted beside the training
        state = read_state(self.directory)
        assert state is not None
        for prefix in state.all_model_checkpoint_paths:
            self.look_at(prefix)
        self.look_for_orphans(state.all_model_checkpoint_paths)

    def look_at(self, prefix: str) -> None:
        faults = verify_checkpoint(prefix).faults
        assert not faults, f"{prefix}: {faults}"
        reader = tf.train.load_checkpoint(prefix)
        step = int(prefix.rpartition("-")[2])
        keys = reader.get_variable_to_shape_map()
        for key in keys:
            if "OBJECT_GRAPH" not in key and not key.startswith("save_counter"):
                value = reader.get_tensor(key)
                # A warm start takes the weights, and begins to count the steps.
                begun = 3 if self.name == "warm" and "step" not in key else 0
                assert np.all(value == step + begun), f"{prefix}: {key}: {value}, not of {step}"
        if "dense/w" in keys:
            graph, saver = stock_graph("more" in keys)
            with graph.as_default(), v1.Session(config=CONFIG) as session:
                saver.restore(session, prefix)
                assert session.run(v1.train.get_global_step()) == step
        elif "_CHECKPOINTABLE_OBJECT_GRAPH" in keys:
            with tf.Graph().as_default():
                weight = v1.get_variable("w", [3, 5])
                status = tf.train.Checkpoint(var_list={"dense/w": weight}).restore(prefix)
                with v1.Session(config=CONFIG) as session:
                    status.expect_partial().run_restore_ops(session)
                    begun = 3 if self.name == "warm" else 0
                    assert np.all(session.run(weight) == step + begun)

    def look_for_orphans(self, prefixes: tuple[str, ...]) -> None:
        known = {"checkpoint", "checkpoint.journal", "checkpoint.lease"}
        known |= {"graph.pbtxt", "warm_start.json"}
        known |= set(read_journal(self.directory, "checkpoint").unused)
        names = set(os.listdir(self.directory))
        # One that was skipped, being damaged, stays with its index.
        skipped = [f"{self.directory}/{n[:-6]}" for n in names if n.endswith(".index")]
        if self.name != "cut":
            assert {*skipped} >= {*prefixes}
        for prefix in {*prefixes, *skipped}:
            base = os.path.basename(prefix)
            known |= {f"{base}.index", f"{base}.meta"}
            for step in positions(prefix):
                known.add(f"{base}.input")
                assert step == int(base.rpartition("-")[2]), f"{base}: the position of {step}"
            count = read_index(prefix).num_shards
            known |= {os.path.basename(shard_path(prefix, n, count)) for n in range(count)}
        left = {n for n in names - known if not n.startswith(("events.", "graph.pbtxt.tmp"))}
        assert not left, f"left over: {sorted(left)}"


def prepare_graphs(scenario: Scenario) -> None:
    """Builds the graphs of all trials in this process, which then forks them."""
    for is_changed in (False, True):
        stock_graph(is_changed)
    job_graph(scenario.more, reads=scenario.name == "input")


def must(job: Callable[[], object], directory: str) -> None:
    result, _ = layer.trial(job, directory)
    assert result == "done", result


class Trials:
    """Breaks scenarios, and counts."""

    def __init__(self) -> None:
        self.total: Counter[str] = Counter()
        self.bad: list[str] = []

    def run(self, scenario: Scenario, kind: str, at: int) -> None:
        """One fault; ENOSPC stays from there on, as on a full disk."""
        scenario.prepare()
        is_sticky = kind == "ENOSPC"
        ended, _ = layer.trial(scenario.run, scenario.directory, kind, at, sticky=is_sticky)
        look, _ = layer.trial(functools.partial(scenario.look, kind), scenario.directory)
        where = f"{scenario.name}/{scenario.checkpoint_format} {kind}"
        self.total[where] += 1
        if look != "done" or ended.startswith("AssertionError"):
            self.bad.append(f"{where} at {at} ({ended}): {look}")
            print(self.bad[-1], file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scenarios", nargs="*", choices=[[], *SCENARIOS])
    parser.add_argument("--formats", nargs="*", default=FORMATS)
    parser.add_argument("--kinds", nargs="*", default=layer.KINDS)
    parser.add_argument("--count", type=int, default=0, help="calls of each; 0: every call")
    parser.add_argument("--seed", type=int, help="random calls instead of evenly spread ones")
    parser.add_argument("--async_checkpoint", action="store_true", help="save beside training")
    parser.add_argument("--no_links", action="store_true", help="a file system without hard links")
    arguments = parser.parse_args()
    layer.require(no_links=arguments.no_links)
    chance = random.Random(arguments.seed)
    trials = Trials()
    with tempfile.TemporaryDirectory() as work:
        for name in arguments.scenarios or SCENARIOS:
            for checkpoint_format in arguments.formats:
                start = time.monotonic()
                is_async = arguments.async_checkpoint
                scenario = Scenario(name, checkpoint_format, work, is_async=is_async)
                prepare_graphs(scenario)
                scenario.prepare()
                calls = layer.record(scenario.run, scenario.directory)
                for kind in arguments.kinds:
                    if arguments.seed is None:
                        numbers = layer.spread(arguments.count, layer.worthwhile(calls, kind))
                    else:
                        numbers = [chance.randint(1, len(calls)) for _ in range(arguments.count)]
                    for at in numbers:
                        trials.run(scenario, kind, at)
                done, seconds = sum(trials.total.values()), time.monotonic() - start
                print(
                    f"{name}/{checkpoint_format}: {len(calls)} calls, {done} trials so far, "
                    f"{len(trials.bad)} bad, {seconds:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
    print(json.dumps({"trials": trials.total, "bad": trials.bad}))
    return 1 if trials.bad else 0


if __name__ == "__main__":
    sys.exit(main())
