"""What happens around a job, and is no fault of its files: python surroundings.py [flags].

  full       a disk that is full and stays so, through several starts; then there is room again
  read_only  a model_dir that cannot be written: what reads works, what writes fails
  twice      two signals, one shortly after the other, for a job with stop_hook()
  tree       a model_dir is converted, as a whole, again and again, while a trainer deletes in it
  clock      a clock that jumps days back and forth, and files with times of any day

After each the job resumes by itself, as after the faults of saves.py, with the values of one step,
and nothing is left over. `full` and `read_only` mount a file system in memory, so they are for
root.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import jumping  # before others take the clock
import layer
import races
import saves
import tensorflow as tf

from estimator_ckpt import convert_checkpoint, make_scaffold, stop_hook, verify_checkpoint
from estimator_ckpt.conversion.batch import convert_directory
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.errors import BusyError, CheckpointError
from estimator_ckpt.reading.state import read_state

v1 = tf.compat.v1
_DAY = 86400.0


@contextlib.contextmanager
def mounted(scenario: saves.Scenario, size: str) -> Iterator[None]:
    """Has the model_dir of a scenario on a small file system of its own."""
    before = scenario.directory
    place = tempfile.mkdtemp()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    scenario.directory = f"{place}/model"
    try:
        yield
    finally:
        scenario.directory = before
        subprocess.run(["umount", "-l", place], check=True)
        os.rmdir(place)


def in_fork(job: Callable[[], object]) -> str:
    """Runs a job, and says how it ended; this process itself must never run a session."""
    return races.Started(job).end()


def must(job: Callable[[], object]) -> None:
    ended = in_fork(job)
    assert ended == "done", ended


def full(scenario: saves.Scenario, chance: random.Random) -> None:
    with mounted(scenario, "1m"):
        scenario.prepare()
        filler = Path(scenario.directory, "..", "filler")
        free = shutil.disk_usage(scenario.directory).free
        filler.write_bytes(bytes(max(free - chance.randrange(0, 40) * 4096, 0)))
        for _ in range(3):
            ended = in_fork(functools.partial(scenario.run, 3))
            is_full = "pace" in ended or "RESOURCE_EXHAUSTED" in ended  # "No space left"
            assert ended == "done" or is_full, ended
            state = read_state(scenario.directory)
            assert state is not None, "the state file is gone"
            must(functools.partial(scenario.look_at, state.model_checkpoint_path))
        filler.unlink()
        check(scenario, "ENOSPC")


def read_only(scenario: saves.Scenario, chance: random.Random) -> None:
    with mounted(scenario, "4m"), tempfile.TemporaryDirectory() as place:
        scenario.prepare()
        directory = scenario.directory
        mount = os.path.dirname(directory)
        before = sorted(os.listdir(directory))
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        path = str(tf.train.latest_checkpoint(directory))
        other = saves.other_format(scenario.checkpoint_format)
        assert verify_checkpoint(path).ok
        convert_checkpoint(path, f"{place}/{os.path.basename(path)}", "both")
        must(functools.partial(scenario.look_at, f"{place}/{os.path.basename(path)}"))
        must(functools.partial(restore, scenario, path))
        for job in (
            functools.partial(scenario.run, 2),
            lambda: convert_checkpoint(path, None, other, in_place=True),
            lambda: convert_checkpoint(path, f"{directory}/beside", "both"),
        ):
            ended = in_fork(job)
            assert "Read-only file system" in ended, ended
        assert sorted(os.listdir(directory)) == before
        subprocess.run(["mount", "-o", "remount,rw", mount], check=True)
        check(scenario, "none")


def restore(scenario: saves.Scenario, path: str) -> None:
    graph, _ = saves.job_graph(None)
    with graph.as_default():
        scaffold = make_scaffold(scenario.checkpoint_format)
        scaffold.finalize()
        with v1.Session() as session:
            scaffold.saver.restore(session, path)
            step = int(path.rpartition("-")[2])
            assert session.run(v1.train.get_global_step()) == step


def stoppable(scenario: saves.Scenario) -> None:
    """A long job with stop_hook(), which saves seldom of its own accord."""
    graph, op = saves.job_graph(None)
    with graph.as_default():
        creator = v1.train.ChiefSessionCreator(
            make_scaffold(scenario.checkpoint_format, keep_checkpoint_max=2, **scenario.options),
            checkpoint_dir=scenario.directory,
        )
        saver = v1.train.CheckpointSaverHook(scenario.directory, save_steps=20)
        with v1.train.MonitoredSession(creator, hooks=[saver, stop_hook()]) as session:
            while not session.should_stop():
                session.run(op)


def twice(scenario: saves.Scenario, chance: random.Random) -> None:
    scenario.prepare()
    trainer = races.Started(functools.partial(stoppable, scenario))
    time.sleep(chance.uniform(0, 2.5))
    for pause in (chance.choice((0.0, 0.01, 0.1, 0.5)), 0.0):
        with contextlib.suppress(ProcessLookupError):
            os.kill(trainer.pid, signal.SIGTERM)
        time.sleep(pause)
    ended = trainer.end()
    assert ended in ("", "SystemExit: 143"), ended  # "": by the signal itself
    check(scenario, "signal")


def tree(scenario: saves.Scenario, chance: random.Random) -> None:
    scenario.prepare()
    trainer = races.Started(functools.partial(scenario.run, 12))
    must(functools.partial(convert_trees, scenario))
    ended = trainer.end()
    assert ended == "done" or ended.startswith("BusyError"), ended
    check(scenario, "none")


def convert_trees(scenario: saves.Scenario) -> None:
    place = tempfile.mkdtemp()
    other = saves.other_format(scenario.checkpoint_format)
    for number in range(8):
        target = f"{place}/{number}"
        for outcome in convert_directory(scenario.directory, target, ConvertOptions(other)):
            gone = not os.path.exists(f"{outcome.source}.index")
            assert outcome.status in ("converted", "already") or gone, outcome
        results = sorted(Path(target).glob("*.index"))
        for result in results:
            scenario.look_at(str(result)[:-6])
        state = read_state(target)
        listed = state.all_model_checkpoint_paths if state is not None else ()
        assert {*listed} <= {str(result)[:-6] for result in results}, listed
        left = [one for one in os.listdir(target) if "converting" in one]
        assert not left, left
        for outcome in convert_directory(
            scenario.directory, None, ConvertOptions(other, in_place=True)
        ):
            fine = outcome.status in ("converted", "already") or "at work here" in outcome.message
            assert fine or not os.path.exists(f"{outcome.source}.index"), outcome
    shutil.rmtree(place)


def clock(scenario: saves.Scenario, chance: random.Random) -> None:
    scenario.prepare()
    for _ in range(3):
        for path in Path(scenario.directory).iterdir():
            moment = jumping.real_time() + chance.uniform(-9, 9) * _DAY
            os.utime(path, (moment, moment))
        before = races.newest(scenario.directory)[1]
        jumping.jumps[:] = [chance.uniform(-3, 3) * _DAY for _ in range(5)]
        ended = in_fork(functools.partial(scenario.run, 4))
        jumping.jumps[:] = [0.0]
        assert ended == "done", ended
        assert races.newest(scenario.directory)[1] == before + 4
        state = read_state(scenario.directory)
        assert state is not None
        steps = [int(one.rpartition("-")[2]) for one in state.all_model_checkpoint_paths]
        assert steps == sorted(steps)[-2:] == [before + 3, before + 4], steps
    check(scenario, "none")


def check(scenario: saves.Scenario, kind: str) -> None:
    looked, _ = layer.trial(functools.partial(scenario.look, kind), scenario.directory)
    assert looked == "done", looked


KINDS = {one.__name__: one for one in (full, read_only, twice, tree, clock)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", choices=[[], *KINDS])
    parser.add_argument("--count", type=int, default=30, help="trials of each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--async_checkpoint", action="store_true", help="save beside training")
    arguments = parser.parse_args()
    layer.require()
    chance = random.Random(arguments.seed)
    work = tempfile.mkdtemp()  # not a context: a fork that unwinds would remove it
    is_async = arguments.async_checkpoint
    scenarios = [saves.Scenario("save", one, work, is_async=is_async) for one in saves.FORMATS]
    saves.prepare_graphs(scenarios[0])
    wrong = 0
    for name in arguments.kinds or KINDS:
        before = wrong
        for number in range(arguments.count):
            scenario = scenarios[number % len(scenarios)]
            try:
                KINDS[name](scenario, chance)
            except (AssertionError, CheckpointError, BusyError) as error:
                wrong += 1
                text = f"{type(error).__name__}: {error}"[:600]
                print(f"{name} {number}, {scenario.checkpoint_format}: {text}", flush=True)
        print(f"{name}: {arguments.count} trials, {wrong - before} wrong", flush=True)
    shutil.rmtree(work)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
