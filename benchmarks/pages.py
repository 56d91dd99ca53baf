"""How long the views of a page take, and the tab of TensorBoard, by the number of variables.

    python benchmarks/pages.py [--counts=300,10000,100000] [--runs=3]

It needs what `.[browser,tensorboard]` installs, and a Chromium. `made` is the time in which Python
makes the data of a view and the page around it (of the processor, so that what else a machine does
counts little); `painted` what Chromium takes from the start of the navigation to its first paint,
which has the whole view; `search` is the time from a key to the frame with the rows that it leaves.
Of the tab: from the click on its name to the first rows, with the page of TensorBoard already
there. The best of the runs counts.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import numpy as np
from inspect_speed import variable_names, write_checkpoint
from playwright.sync_api import Browser, sync_playwright
from tensorboard_process import tensorboard

from estimator_ckpt import compare_checkpoints, open_checkpoint
from estimator_ckpt.pages.contents import contents
from estimator_ckpt.pages.document import document
from estimator_ckpt.pages.history import history_view
from estimator_ckpt.pages.mapping import warm_start_view
from estimator_ckpt.pages.values import changes_view, values_view

PAINTED = """() => new Promise((found) => new PerformanceObserver((list) => {
  for (const one of list.getEntries()) {
    if (one.name === "first-contentful-paint") found(one.startTime);
  }
}).observe({ type: "paint", buffered: true }))"""
SEARCH = """async (words) => {
  const field = document.querySelector("input[type=search]");
  const frame = () => new Promise((next) => requestAnimationFrame(next));
  await frame();
  const start = performance.now();
  field.value = words;
  field.dispatchEvent(new Event("input"));
  await frame();
  await frame();
  return performance.now() - start;
}"""


def make_run(directory: Path, count: int) -> None:
    """Two checkpoints with objects, and a report that says that all but one in ten started."""
    directory.mkdir(parents=True)
    for step, value in ((1000, (0, 1, 2, 3)), (2000, (0, 1.1, 2, 3.3))):
        data = np.array(value, "<f4").tobytes()
        write_checkpoint(str(directory / f"model.ckpt-{step}"), count, "checkpoint", data)
    (directory / "checkpoint").write_text(
        'model_checkpoint_path: "model.ckpt-2000"\n'
        'all_model_checkpoint_paths: "model.ckpt-1000"\n'
        'all_model_checkpoint_paths: "model.ckpt-2000"\n'
    )
    variables = [
        {"variable": name, "status": "initialized", "source": None, "rule": "not in the checkpoint"}
        if number % 10 == 0
        else {"variable": name, "status": "warm-started", "source": f"old/{name}", "rule": "rename"}
        for number, name in enumerate(variable_names(count))
    ]
    report = {"checkpoint": "old/model.ckpt-9", "variables": variables, "unexpected": []}
    (directory / "warm_start.json").write_text(json.dumps(report))


def views(run: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    """What makes each view, by its name."""

    def with_checkpoint(view: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        with open_checkpoint(run) as checkpoint:
            return view(checkpoint)

    def changes() -> dict[str, Any]:
        with open_checkpoint(run / "model.ckpt-1000") as a, open_checkpoint(run) as b:
            return changes_view(a, b, compare_checkpoints(a, b))

    return {
        "contents": lambda: with_checkpoint(contents),
        "mapping": lambda: warm_start_view(str(run)) or {},
        "changes": changes,
        "values": lambda: with_checkpoint(values_view),
        "history": lambda: history_view(str(run)),
    }


def page_times(browser: Browser, run: Path, runs: int) -> None:
    """Prints a line for each view."""
    output = run / "page.html"
    for name, view in views(run).items():
        made, painted, searched = [], [], []
        for _ in range(runs):
            start = time.process_time()
            output.write_text(document(name, [view()]), encoding="utf-8")
            made.append(time.process_time() - start)
            page = browser.new_page()
            page.goto(output.as_uri())
            painted.append(page.evaluate(PAINTED) / 1000)
            searched.append(page.evaluate(SEARCH, "block_7 kernel") / 1000)
            page.close()
        size = output.stat().st_size / 1e6
        print(
            f"  {name:<9} {min(made):7.2f} s made {size:7.2f} MB {min(painted):6.2f} s painted"
            f" {min(searched):6.2f} s search",
            flush=True,
        )


def tab_time(browser: Browser, logdir: Path, runs: int) -> tuple[float, float]:
    """Seconds from the click on the tab to its rows, the first time and the best of the others."""
    times = []
    with tensorboard(f"--logdir={logdir}") as url:
        for _ in range(1 + runs):
            page = browser.new_page()
            page.goto(f"{url}/#timeseries")
            tab = page.get_by_role("tab", name="Checkpoints")
            tab.wait_for()
            page.wait_for_timeout(1000)
            start = time.perf_counter()
            tab.click()
            page.frame_locator("iframe").locator("[data-view=contents] tbody tr").first.wait_for()
            times.append(time.perf_counter() - start)
            page.close()
    return times[0], min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", default="300,10000,100000")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for count in map(int, options.counts.split(",")):
            print(f"{count:,} variables", flush=True)
            logdir = Path(directory, str(count))
            make_run(logdir / "run", count)
            page_times(browser, logdir / "run", options.runs)
            first, again = tab_time(browser, logdir, options.runs)
            print(f"  tab       {first:7.2f} s from click to rows, {again:.2f} s once it is cached")
        browser.close()


if __name__ == "__main__":
    main()
