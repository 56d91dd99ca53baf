"""Breaks conversions at their file calls, and looks at what is left: python conversions.py [flags].

After each fault: the source is what it was; the result opens, verifies and has the expected values,
or is not there; in place it is the old checkpoint or the new one. The same conversion, run again
and again, succeeds with the same values, and thereafter the directory has no file that nothing
names. One that told success has left the result; one that failed has left nothing.

Scenarios:
  new       to a new place: links, one small data file, `.meta`, the state file
  copy      the same with copies
  compact   the same with new data files
  in_place  an object graph appended to the data
  detach    the same where the data file is linked from elsewhere
  tree      two checkpoints with their state file
  swap      in place, by rules that mean the opposite on their own result: two names are swapped
  swap_tree the same for two checkpoints of a directory, to names alone
  race      no faults: three processes convert to one place, by different rules
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import layer
import numpy as np
from conversion_files import contents, write_bundle

from estimator_ckpt import convert_checkpoint, verify_checkpoint
from estimator_ckpt.conversion.batch import convert_directory
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.errors import CheckpointError, WriteError
from estimator_ckpt.files import claims
from estimator_ckpt.reading.state import CheckpointState, read_state, write_state

SCENARIOS = ("new", "copy", "compact", "in_place", "detach", "tree", "swap", "swap_tree")
IN_PLACE = ("in_place", "detach", "swap", "swap_tree")
TREES = ("tree", "swap_tree")
SWAP = (("w0", "w1"), ("w1", "w0"))
RERUNS = 3
WAYS = ({"compact": True}, {"rename": [("w(.*)", r"x\1")]}, {"exclude": ["w1"]})


def make(scenario: str, home: str) -> None:
    """The source; for a conversion in place it is the checkpoint that is converted."""
    for step in (7, 8) if scenario in TREES else (7,):
        values = {f"w{n}": np.full(50, step + n, np.float32) for n in range(4)}
        values["global_step"] = np.int64(step)
        write_bundle(f"{home}/source/m-{step}", values, shards=2)
        Path(f"{home}/source/m-{step}.meta").write_bytes(b"no graph")
    write_state(f"{home}/source", CheckpointState(f"{home}/source/m-{step}"))
    if scenario == "detach":
        convert_checkpoint(f"{home}/source/m-7", f"{home}/other/m-7", "saver")


def job(scenario: str, home: str) -> None:
    """The conversion."""
    source, target = f"{home}/source/m-7", f"{home}/target/m-7"
    if scenario in TREES:
        where, options = f"{home}/target", ConvertOptions("both")
        if scenario == "swap_tree":
            where, options = None, ConvertOptions("saver", rename=SWAP, in_place=True)
        outcomes = convert_directory(f"{home}/source", where, options)
        failed = [one.message for one in outcomes if one.status == "failed"]
        if failed:
            raise CheckpointError("; ".join(failed))
    elif scenario in IN_PLACE:
        rules = SWAP if scenario == "swap" else ()
        convert_checkpoint(source, None, "both", in_place=True, rename=rules)
    else:
        more = {} if scenario == "new" else {scenario: True}
        convert_checkpoint(source, target, "both", **more)


def names(home: str) -> list[str]:
    """All files and directories."""
    return sorted(str(path.relative_to(home)) for path in Path(home).rglob("*"))


def values(prefix: str) -> dict[str, bytes]:
    """The bytes under each key; raises unless all checksums are right."""
    faults = verify_checkpoint(prefix).faults
    assert not faults, faults
    return {key: found[-1] for key, found in contents(prefix).items()}


def results(scenario: str, home: str) -> dict[str, dict[str, bytes]]:
    """What is where the result belongs, by prefix."""
    where = "source" if scenario in IN_PLACE else "target"
    indexes = sorted(Path(home, where).glob("*.index"))
    return {one.name[:-6]: values(str(one)[:-6]) for one in indexes}


class Checker:
    """Knows what a conversion reads and writes where nothing goes wrong."""

    def __init__(self, scenario: str, home: str) -> None:
        self.scenario = scenario
        make(scenario, home)
        self.before = {key: values(f"{home}/source/{key}") for key in self._sources(home)}
        self.names_before = names(home)
        job(scenario, home)
        self.after = results(scenario, home)
        self.names_after = names(home)
        if scenario in ("swap", "swap_tree"):
            for key, one in self.after.items():
                old = self.before[key]
                assert (one["w0"], one["w1"]) == (old["w1"], old["w0"]) != (old["w0"], old["w1"])

    def _sources(self, home: str) -> list[str]:
        return [one.name[:-6] for one in sorted(Path(home, "source").glob("*.index"))]

    def check(self, home: str, ended: str) -> str | None:
        """What is wrong; None if nothing is."""
        try:
            self._check(home, ended)
        except (AssertionError, CheckpointError) as error:
            return f"{type(error).__name__}: {error}"[:400]
        return None

    def _check(self, home: str, ended: str) -> None:
        found = results(self.scenario, home)
        if self.scenario in IN_PLACE:
            assert found.keys() == self.before.keys(), "not all are there"
            for key, one in found.items():
                old_and_new = (self.before[key], self.after[key])
                assert one in old_and_new, f"{key} is neither the old nor the new"
        else:
            assert found.items() <= self.after.items(), "another result"
            for key, expected in self.before.items():
                assert values(f"{home}/source/{key}") == expected, "the source was changed"
        if self.scenario == "detach":
            assert values(f"{home}/other/m-7") == self.before["m-7"], "what shares the data"
        state = read_state(f"{home}/target") if os.path.isdir(f"{home}/target") else None
        if state is not None:
            assert os.path.exists(f"{state.model_checkpoint_path}.index"), "the state is ahead"
        if ended == "done":
            assert found == self.after, "success was told"
            assert names(home) == self.names_after, set(names(home)) ^ set(self.names_after)
        elif ended != "killed" and self.scenario not in TREES and not self._disk_is_broken:
            left = set(names(home)) - set(self.names_before)
            assert not left or found == self.after, f"a failure has left {sorted(left)}"
        for _ in range(RERUNS):
            try:
                job(self.scenario, home)
            except WriteError as error:
                if "there already" not in error.message:  # it was done but for the last call
                    raise
            assert results(self.scenario, home) == self.after, "not the same when it is run again"
        assert names(home) == self.names_after, set(names(home)) ^ set(self.names_after)

    _disk_is_broken = False

    def trial(self, kind: str, at: int, *, sticky: bool = False) -> tuple[str, str | None]:
        """One fault; returns how the conversion ended, and what is wrong."""
        home = tempfile.mkdtemp()
        try:
            make(self.scenario, home)
            ended, _ = layer.trial(lambda: job(self.scenario, home), home, kind, at, sticky=sticky)
            self._disk_is_broken = sticky or kind == "EIO"
            return ended, self.check(home, ended)
        finally:
            shutil.rmtree(home, ignore_errors=True)

    def calls(self) -> int:
        """How many file calls the conversion makes."""
        home = tempfile.mkdtemp()
        try:
            make(self.scenario, home)
            return layer.trial(lambda: job(self.scenario, home), home)[1]
        finally:
            shutil.rmtree(home)


def race(count: int) -> int:
    """Three processes convert to one place; returns how often not exactly one has won."""
    wrong = 0
    for _ in range(count):
        home = tempfile.mkdtemp()
        make("new", home)
        reading, writing = os.pipe()
        children = []
        for way in WAYS:
            child = os.fork()
            if not child:
                os.read(reading, 1)
                code = 2
                try:
                    convert_checkpoint(f"{home}/source/m-7", f"{home}/target/m", "saver", **way)
                    code = 0
                except CheckpointError:
                    code = 1
                finally:
                    os._exit(code)
            children.append(child)
        os.write(writing, b"go!")
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        os.close(reading)
        os.close(writing)
        good = sorted(codes) == [0, 1, 1]
        if good:
            found = values(f"{home}/target/m")
            expected = [("w3", 5), ("x3", 5), ("w3", 4)][codes.index(0)]
            good = expected[0] in found and len(found) == expected[1]
        wrong += not good
        shutil.rmtree(home)
    return wrong


def main() -> int:
    """Runs the trials; 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", default=[*SCENARIOS, "race"])
    parser.add_argument("--kinds", nargs="*", default=layer.KINDS)
    parser.add_argument("--each", type=int, default=0, help="calls of each kind; 0: every one")
    parser.add_argument("--kills", type=int, default=200, help="kills at random calls")
    parser.add_argument("--races", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no_links", action="store_true", help="a file system without hard links")
    options = parser.parse_args()
    layer.require(no_links=options.no_links)
    claims.STALE = 1.0  # not a minute: without links a claim may be torn, and is then watched
    chance = random.Random(options.seed)
    lost = 0
    for scenario in options.scenarios:
        if scenario == "race":
            wrong = race(options.races)
            print(f"race: {options.races} trials, {wrong} wrong")
            lost += wrong
            continue
        home = tempfile.mkdtemp()
        checker = Checker(scenario, home)
        calls = checker.calls()
        kinds = [(kind, False) for kind in options.kinds]
        kinds += [("ENOSPC", True)] if "ENOSPC" in options.kinds else []
        trials = [
            (kind, at, sticky)
            for kind, sticky in kinds
            for at in layer.spread(options.each, range(1, calls + 1))
        ]
        trials += [("kill", chance.randint(1, calls), False) for _ in range(options.kills)]
        wrong = 0
        for kind, at, sticky in trials:
            ended, what = checker.trial(kind, at, sticky=sticky)
            if what is not None:
                wrong += 1
                more = " for ever" if sticky else ""
                print(f"{scenario}: {kind}{more} at {at} of {calls}, {ended}: {what}")
        print(f"{scenario}: {calls} file calls, {len(trials)} trials, {wrong} wrong", flush=True)
        lost += wrong
        shutil.rmtree(home)
    print("nothing was lost" if not lost else f"{lost} WRONG")
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
