"""Results as a table of text, and as pictures."""

from __future__ import annotations

import itertools
import math
import statistics
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from measuring import Result

_STEEP = 1.15  # an exponent from which growth is said to be more than linear


def seconds_text(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.3g} ms"


def _bytes_text(nbytes: int) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if nbytes >= unit:
            return f"{nbytes / unit:.3g} {name}"
    return f"{nbytes / 1e3:.3g} KB"


def size_text(result: Result) -> str:
    parts = [f"{result.variables:,} variables"] if result.variables else []
    return ", ".join(parts + ([_bytes_text(result.nbytes)] if result.nbytes else []))


def table(result: Result) -> Iterable[str]:
    """A line for each way: median, fastest, ratio to the first one, and to the limit."""
    yield f"{result.task}   ({size_text(result)})" if size_text(result) else result.task
    first = next(iter(result.seconds))
    limit = result.median(result.limit) if result.limit else 0.0
    for way, seconds in result.seconds.items():
        ratio = "" if way in (first, result.limit) else f"{result.ratio(way):.2f}x {first}"
        beside = ""
        if limit and way != result.limit:
            beside = f"{result.median(way) / limit:.3g}x {result.limit}"
        name = f"({way})" if way == result.limit else way
        line = (
            f"  {name:<22}{seconds_text(result.median(way)):>10}{seconds_text(min(seconds)):>10}"
            f"   {ratio:<16}{beside}"
        )
        yield line.rstrip()


def growth(results: Sequence[Result], way: str = "ours") -> list[dict[str, Any]]:
    """For each task that was measured at several sizes, from which to which size how it grew.

    Returns:
      `task`, `grows`, `sizes`, `seconds`, and `exponent`: 1 is linear, of the last step, where what
      is constant counts least.
    """
    found = []
    for (task, grows), several in _by_task(results):
        sizes = [one.nbytes if grows == "bytes" else one.variables for one in several]
        ways = several[0].seconds
        name = way if way in ways else list(ways)[-1]
        seconds = [one.median(name) for one in several]
        if len(sizes) > 1:
            exponent = math.log(seconds[-1] / seconds[-2]) / math.log(sizes[-1] / sizes[-2])
            found.append(
                {
                    "task": task,
                    "grows": grows,
                    "sizes": sizes,
                    "seconds": seconds,
                    "exponent": round(exponent, 2),
                }
            )
    return found


def growth_table(results: Sequence[Result]) -> Iterable[str]:
    for one in growth(results):
        times = " -> ".join(map(seconds_text, one["seconds"]))
        note = "   more than linear" if one["exponent"] > _STEEP else ""
        yield f"  {one['task']:<26}by {one['grows']:<10}{one['exponent']:>6}   {times}{note}"


def _by_task(results: Iterable[Result]) -> list[tuple[tuple[str, str], list[Result]]]:
    growing = sorted((one for one in results if one.grows), key=lambda one: (one.task, one.grows))
    return [
        (key, sorted(group, key=lambda one: (one.variables, one.nbytes)))
        for key, group in itertools.groupby(growing, key=lambda one: (one.task, one.grows))
    ]


# --- pictures ---


def plot(results: Sequence[Result], directory: str, title: str) -> list[str]:
    """Writes pictures: ratios, growth, and the steps of trainings; returns their paths."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    Path(directory).mkdir(parents=True, exist_ok=True)
    paths = []

    def save(figure: Any, name: str) -> None:
        figure.suptitle(textwrap.fill(title, 110), fontsize=8)
        figure.tight_layout()
        path = str(Path(directory) / f"{name}.png")
        figure.savefig(path, dpi=120)
        plt.close(figure)
        paths.append(path)

    bars = [
        (f"{', '.join(filter(None, [one.task, size_text(one)]))}: {way}", one.ratio(way))
        for one in results
        for way in list(one.seconds)[1:]
        if way != one.limit
    ]
    if bars:
        figure, axes = plt.subplots(figsize=(9, 1 + 0.2 * len(bars)))
        names, ratios = zip(*bars[::-1])
        colors = ["tab:blue" if ratio <= 1 else "tab:orange" for ratio in ratios]
        axes.barh(range(len(names)), ratios, color=colors)
        axes.set_yticks(range(len(names)), names, fontsize=6)
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_xlabel("time beside the stock or the guide's way (1: as long)")
        save(figure, "ratios")
    for grows in ("bytes", "variables"):
        several = [(key, group) for key, group in _by_task(results) if key[1] == grows]
        if not several:
            continue
        rows = math.ceil(len(several) / 3)
        figure, grid = plt.subplots(rows, 3, figsize=(11, 3 * rows), squeeze=False)
        for axes in grid.flat[len(several) :]:
            axes.axis("off")
        for axes, ((task, _), group) in zip(grid.flat, several):
            sizes = [one.nbytes if grows == "bytes" else one.variables for one in group]
            for way in group[0].seconds:
                style = "--" if way == group[0].limit else "o-"
                axes.loglog(sizes, [one.median(way) for one in group], style, label=way)
            axes.set_title(task, fontsize=9)
            axes.set_xlabel(grows, fontsize=8)
            axes.set_ylabel("seconds", fontsize=8)
            axes.legend(fontsize=7)
        save(figure, f"growth_by_{grows}")
    for result in results:
        if not result.traces:
            continue
        figure, grid = plt.subplots(
            len(result.traces), 1, figsize=(9, 1.5 * len(result.traces)), sharey=True, squeeze=False
        )
        for axes, (way, times) in zip(grid.flat, result.traces.items()):
            axes.plot(times, linewidth=0.8)
            axes.axhline(statistics.median(times), color="gray", linewidth=0.5)
            axes.set_title(f"{way}: seconds of each step", fontsize=8)
        save(figure, "steps")
    return paths
