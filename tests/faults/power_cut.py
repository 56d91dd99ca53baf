"""Power cuts on a real ext4: python power_cut.py [flags], as root, with loop devices.

A job saves at every step on a loop-mounted image, or checkpoints are converted there, one
after the other, to a new place or in place. At a random moment that is stopped, and the image
copied as it is: what the file system has not written to its device by then is lost, as when
the power goes. On the copy the job must resume by itself, with the values of one step; of a
conversion the source has to be there, and the result or nothing, so that the next one gets
through.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import conversions
import layer
import saves

from estimator_ckpt.reading.state import read_state

# The worst that ext4 does: data in any order, and no help for those who forget to sync.
_OPTIONS = "loop,data=writeback,noauto_da_alloc"


def resume(directory: str, checkpoint_format: str) -> None:
    scenario = saves.Scenario.__new__(saves.Scenario)
    scenario.name, scenario.checkpoint_format = "cut", checkpoint_format
    scenario.directory, scenario.options, scenario.more = directory, {}, None
    before = read_state(directory)
    scenario.run(steps=1)
    after = read_state(directory)
    assert after is not None
    step = int(after.model_checkpoint_path.rpartition("-")[2])
    if before is not None:
        assert step >= 2, f"it begins anew, though {before.model_checkpoint_path} was named"
    for prefix in after.all_model_checkpoint_paths:
        scenario.look_at(prefix)


def convert(directory: str, scenario: str) -> None:
    """Converts checkpoints, each of which is on the disk before."""
    for number in range(1000):
        home = f"{directory}/{number}"
        conversions.make(scenario, home)
        for path in [*Path(home).rglob("*"), Path(home), Path(directory)]:
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        Path(directory, "checkpoint").write_text("one is there")
        os.rename(home, f"{home}.ready")
        conversions.job(scenario, f"{home}.ready")


def look_at_conversions(directory: str, checker: conversions.Checker) -> None:
    for home in Path(directory).glob("*.ready"):
        wrong = checker.check(str(home), "killed")
        assert wrong is None, f"{home}: {wrong}"


def cut(work: Path, begin: Callable[[str], object], look: Callable[[str], object]) -> str:
    """One power cut.

    Args:
      work: a directory for the images.
      begin: works in a directory for a long time, with a file `checkpoint` when it has begun.
      look: looks at what is left.

    Returns:
      "done", or what is wrong.
    """
    image, copy, place = work / "image", work / "copy", work / "place"
    place.mkdir(exist_ok=True)
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    subprocess.run(["mount", "-o", _OPTIONS, str(image), str(place)], check=True)
    directory = str(place / "model")
    child = os.fork()
    if not child:
        os.setsid()
        begin(directory)
        os._exit(0)
    end = time.monotonic() + 60
    while not os.path.exists(f"{directory}/checkpoint") and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(random.uniform(0.2, 3))
    os.kill(child, signal.SIGSTOP)
    shutil.copyfile(image, copy)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    subprocess.run(["umount", str(place)], check=True)
    subprocess.run(["mount", "-o", _OPTIONS, str(copy), str(place)], check=True)
    try:
        result, _ = layer.trial(lambda: look(directory), work)
    finally:
        subprocess.run(["umount", str(place)], check=True)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=6, help="of saves")
    parser.add_argument("--conversions", type=int, default=6, help="of each kind")
    parser.add_argument("--async_checkpoint", action="store_true", help="save beside training")
    arguments = parser.parse_args()
    layer.require()
    results = []
    with tempfile.TemporaryDirectory() as work:
        for number in range(arguments.count):
            kind = saves.FORMATS[number % 3]
            train = functools.partial(
                saves.train,
                checkpoint_format=kind,
                steps=1000,
                async_checkpoint=arguments.async_checkpoint,
            )
            look = functools.partial(resume, checkpoint_format=kind)
            results.append(cut(Path(work), train, look))
            print(f"saves, {kind}: {results[-1]}", flush=True)
        for kind in ("new", "in_place") if arguments.conversions else ():
            checker = conversions.Checker(kind, f"{work}/{kind}")
            for _ in range(arguments.conversions):
                begin = functools.partial(convert, scenario=kind)
                look = functools.partial(look_at_conversions, checker=checker)
                results.append(cut(Path(work), begin, look))
                print(f"conversions, {kind}: {results[-1]}", flush=True)
    sound = results.count("done")
    print(f"{sound} of {len(results)} are sound")
    return 0 if sound == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
