"""Races and signals: python races.py [--races N] [--signals N] [--seed N] [--async_checkpoint].

A race is a trainer, a second trainer, an evaluator and a converter in one model_dir, all at once.
One trainer at least gets through, the other may be refused, by an error; the newest checkpoint that
the state file names can always be read, with the values of one step; what is converted has these,
too; no conversion in place gets between the saves of a trainer.

A signal, SIGTERM or SIGINT, hits a trainer at a random moment. After each race and each signal the
job resumes by itself, as after the faults of saves.py, and nothing is left over.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import layer
import numpy as np
import saves
import tensorflow as tf

from estimator_ckpt import convert_checkpoint, make_scaffold
from estimator_ckpt.errors import BusyError, CheckpointError
from estimator_ckpt.saving import lease

v1 = tf.compat.v1
_ROUNDS = 12


class Started:
    """A job in a fork; how it ended is read from a pipe."""

    def __init__(self, job: Callable[[], object]) -> None:
        self._reading, writing = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            result = "killed"
            try:
                job()
                result = "done"
            except BaseException as error:
                result = f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
            finally:
                layer.join_threads()
                os.write(writing, result.encode())
                os._exit(0)
        os.close(writing)

    def end(self) -> str:
        """Waits for it; "" for one that a signal has ended."""
        with os.fdopen(self._reading, "rb") as pipe:
            answer = pipe.read().decode()
        os.waitpid(self.pid, 0)
        return answer


def newest(directory: str) -> tuple[str, int]:
    path = tf.train.latest_checkpoint(directory)
    assert path is not None, "no checkpoint is named"
    return path, int(path.rpartition("-")[2])


def evaluate(scenario: saves.Scenario) -> None:
    """Restores the newest checkpoint again and again."""
    graph, _ = saves.job_graph(None)
    with graph.as_default():
        scaffold = make_scaffold(scenario.checkpoint_format)
        scaffold.finalize()
        with v1.Session() as session:
            for _ in range(_ROUNDS):
                path, step = newest(scenario.directory)
                try:
                    scaffold.saver.restore(session, path)
                except (CheckpointError, tf.errors.OpError):
                    assert newest(scenario.directory)[0] != path, f"{path} cannot be restored"
                    continue
                for value in session.run(v1.global_variables()):
                    assert np.all(value == step), f"{path}: {value}"


def convert(scenario: saves.Scenario) -> None:
    """Converts the newest checkpoint again and again: to a new place, and in place if it may."""
    other = saves.other_format(scenario.checkpoint_format)
    with tempfile.TemporaryDirectory() as place:
        for number in range(_ROUNDS):
            path, step = newest(scenario.directory)
            result = f"{place}/{number}/model.ckpt-{step}"
            try:
                convert_checkpoint(path, result, other)
                scenario.look_at(result)
                convert_checkpoint(path, None, other, in_place=True)
            except BusyError:
                pass
            except CheckpointError:
                if newest(scenario.directory)[0] == path:
                    raise


def race(scenario: saves.Scenario, chance: random.Random) -> str:
    """One race; what is wrong, "" for nothing."""
    scenario.prepare()

    def late(job: Callable[[], object], seconds: float) -> Callable[[], object]:
        return lambda: (time.sleep(seconds), job())

    def train() -> None:
        lease._WAIT = 0.0
        scenario.run(steps=5)

    jobs = [train, train, functools.partial(evaluate, scenario)]
    jobs += [functools.partial(convert, scenario)]
    started = [Started(late(job, chance.uniform(0, 0.5))) for job in jobs]
    first, second, *others = (one.end() for one in started)
    trained = [first, second]
    # Who comes second may find that the first has deleted what it was about to restore.
    fair = ("done", "BusyError", "NotACheckpointError")
    if "done" not in trained or not all(one.startswith(fair) for one in trained):
        return f"trainers: {trained}"
    return next((one for one in others if one != "done"), "")


def interrupt(scenario: saves.Scenario, chance: random.Random) -> str:
    """One signal at a random moment; how the trainer ended."""
    scenario.prepare()
    trainer = Started(functools.partial(scenario.run, 1000))
    time.sleep(chance.uniform(0, 1.5))
    os.kill(trainer.pid, chance.choice((signal.SIGTERM, signal.SIGINT)))
    return trainer.end()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--races", type=int, default=50)
    parser.add_argument("--signals", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--async_checkpoint", action="store_true", help="save beside training")
    arguments = parser.parse_args()
    layer.require()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # nohup and `&` have it ignored
    chance = random.Random(arguments.seed)
    work = tempfile.mkdtemp()  # not a context: a fork that unwinds would remove it
    is_async = arguments.async_checkpoint
    scenarios = [saves.Scenario("save", one, work, is_async=is_async) for one in saves.FORMATS]
    saves.prepare_graphs(scenarios[0])
    bad = []
    ends: Counter[str] = Counter()
    for number in range(arguments.races + arguments.signals):
        scenario = scenarios[number % len(scenarios)]
        if number < arguments.races:
            kind, wrong = "race", race(scenario, chance)
        else:
            kind, wrong = "signal", ""
            ends[interrupt(scenario, chance).partition(":")[0] or "at once"] += 1
        looked, _ = layer.trial(functools.partial(scenario.look, kind), scenario.directory)
        if wrong or looked != "done":
            bad.append(f"{kind} {number}, {scenario.checkpoint_format}: {wrong or looked}")
            print(bad[-1], flush=True)
    shutil.rmtree(work)
    print(f"signals ended trainers so: {dict(ends)}")
    print(f"{arguments.races} races, {arguments.signals} signals, {len(bad)} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
