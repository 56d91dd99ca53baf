"""All benchmarks in one run: ours beside the stock or the guide's way, and what limits them.

    python benchmarks/run.py [--quick] [--only=REGEX] [--json=FILE] [--plots=DIRECTORY]
    python benchmarks/run.py --show=FILE [--plots=DIRECTORY]

The ways of a task take turns, several rounds, each round in the other order; medians count, and
ratios are taken round by round, as other work on the machine slows down all ways of a round alike.
What was written before is on the disk before a clock starts. A line in parentheses is no way to do
the task, but what none can be faster than: a disk write with fsync, a copy in memory, a hard link,
`cat`. The files of a task are in the page cache.

The full size takes an hour or two, 10 GB in --directory, and wants a machine with nothing else to
do; --quick takes minutes, and shows that all runs. `.[benchmarks]` installs what it needs.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import measuring

os.environ.update(measuring.environment())

import file_cases
import job_cases
import larger_than_memory
import read_with_latency
import showing

SECTIONS = {**file_cases.SECTIONS, **job_cases.SECTIONS}
EXTRA = ("memory", "latency")  # which have tables of their own


def latencies(size: measuring.Size) -> list[measuring.Result]:
    """read_with_latency.py, as results."""
    is_quick = size is measuring.QUICK
    measured = read_with_latency.measure(
        milliseconds=30,
        speed=100,
        megabytes=16 if is_quick else 64,
        variables=50 if is_quick else 200,
        rounds=min(size.rounds, 3),
    )
    return [
        measuring.Result(
            f"{task}, remote, {checkpoint}",
            {"one at a time": [alone], "ours": [together]},
            "",
            0,
            0,
            "",
            {},
        )
        for checkpoint, task, alone, together in measured
    ]


def show(*lines: str) -> None:
    print("\n".join(lines), flush=True)


def title_of(machine: dict[str, Any]) -> str:
    """The machine and the versions."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"load {machine['load']}, {machine['system']}; {versions}"
    )


def measure(
    size: measuring.Size, rounds: int, only: str, directory: str
) -> tuple[list[measuring.Result], list[dict[str, Any]], list[str]]:
    """Measures and shows; returns the results, those of memory, and what has failed."""
    results: list[measuring.Result] = []
    memory: list[dict[str, Any]] = []
    failed = []
    for name, section in SECTIONS.items():
        if not re.search(only, name):
            continue
        show("", f"== {name}")
        try:
            for case in section(size, directory):
                results.append(measuring.run_case(case, rounds))
                show(*showing.table(results[-1]))
        except Exception as error:  # the others are worth measuring all the same
            failed.append(f"{name}: {type(error).__name__}: {error}")
            show(f"  failed: {failed[-1]}")
    if re.search(only, "latency"):
        show("", "== latency")
        for result in latencies(size):
            results.append(result)
            show(*showing.table(result))
    if re.search(only, "memory"):
        show("", "== memory: the most beyond a process's own, and the limit it had")
        for one in larger_than_memory.measure(size.megabytes * 1.5, directory):
            memory.append(one)
            failed += [f"memory, {one['name']}"] if "error" in one else []
            text = one.get("error") or f"{one['peak'] >> 20} of {one['limit'] >> 20} MiB"
            show(f"  {one['name']:<22}{text}")
    return results, memory, failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument(
        "--only", default="", help=f"a pattern of sections: {', '.join([*SECTIONS, *EXTRA])}"
    )
    parser.add_argument("--rounds", type=int, help="how often each way takes its turn")
    parser.add_argument("--megabytes", type=int, help="of a checkpoint of few large variables")
    parser.add_argument("--directory", help="where to write; the system's temporary one")
    parser.add_argument("--json", metavar="FILE", help="all seconds, with machine and versions")
    parser.add_argument("--plots", metavar="DIRECTORY", help="pictures; needs matplotlib")
    parser.add_argument("--show", metavar="FILE", help="measure nothing, show such a JSON file")
    options = parser.parse_args()
    if options.plots and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plots needs matplotlib: pip install '.[benchmarks]'")
    if options.show:
        found = json.loads(Path(options.show).read_text())
        results = list(map(measuring.Result.from_json, found["results"]))
        show(title_of(found["machine"]))
        for result in results:
            show(*showing.table(result))
        show("", *showing.growth_table(results))
        if options.plots:
            show(*showing.plot(results, options.plots, title_of(found["machine"])))
        return 0
    sections = [*SECTIONS, *EXTRA]
    if not any(re.search(options.only, section) for section in sections):
        parser.error(f"--only={options.only}: no section is called so: {', '.join(sections)}")
    size = measuring.QUICK if options.quick else measuring.FULL
    if options.megabytes:
        size = dataclasses.replace(size, megabytes=options.megabytes)
    rounds = options.rounds or size.rounds
    machine = measuring.machine()
    show(title_of(machine), f"{rounds} rounds; median, fastest, ratios")
    start = time.perf_counter()
    with measuring.scratch(options.directory) as directory:
        results, memory, failed = measure(size, rounds, options.only, directory)
    show("", "== growth: the exponent, 1 is linear", *showing.growth_table(results))
    show("", f"{time.perf_counter() - start:.0f} s in all", *(f"FAILED {one}" for one in failed))
    if options.json:
        found = {
            "machine": machine,
            "command": sys.argv,
            "results": [result.as_json() for result in results],
            "growth": showing.growth(results),
            "memory": memory,
            "failed": failed,
        }
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")
    if options.plots:
        show(*showing.plot(results, options.plots, title_of(machine)))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
