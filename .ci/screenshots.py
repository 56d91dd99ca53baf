#!/usr/bin/env python3
"""Makes the screenshots of docs/pictures.md anew, in a real browser.

Run it by .venv-browser/bin/python .ci/screenshots.py; `.ci/run` makes that environment.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

import numpy as np
from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))
from tensorboard_process import tensorboard

from estimator_ckpt import convert_checkpoint, import_checkpoint, write_report

ASSETS = pathlib.Path(__file__).resolve().parents[1] / "docs" / "assets"
WIDTH, LAYERS, WORDS = 64, 12, 3000


def make_checkpoint(prefix: pathlib.Path, step: int) -> str:
    """A small transformer in training: the more a layer is behind, the more it changes."""
    random = np.random.default_rng(0)
    shapes = {"embeddings/word_embeddings": (WORDS, WIDTH), "head/kernel": (WIDTH, 2)}
    for n in range(LAYERS):
        for name in ("query", "key", "value", "output"):
            shapes[f"encoder/layer_{n}/attention/{name}/kernel"] = (WIDTH, WIDTH)
        shapes[f"encoder/layer_{n}/dense/kernel"] = (WIDTH, 4 * WIDTH)
    values: dict[str, np.ndarray] = {"global_step": np.array(step)}
    for place, (name, shape) in enumerate(shapes.items()):
        drift = random.normal(0, 1e-6 * place * step, shape)
        values[name] = (random.normal(0, 0.02, shape) + drift).astype("f4")
        for slot in ("Adam", "Adam_1"):
            values[f"{name}/{slot}"] = random.normal(0, 1e-4, shape).astype("f4")
    np.savez(f"{prefix}.npz", **values)
    import_checkpoint(f"{prefix}.npz", prefix, "both")
    pathlib.Path(f"{prefix}.npz").unlink()
    return str(prefix)


def make_history(run: pathlib.Path) -> None:
    """A job that has kept some checkpoints and deleted others, as its files tell."""
    kept = [1000, *range(1600, 2001, 100)]
    for step in kept[1:-1]:
        for path in run.glob("model.ckpt-1000.*"):
            shutil.copy(path, run / path.name.replace("1000", str(step)))
    names = [f"model.ckpt-{step}" for step in kept]
    paths = "".join(f"all_model_checkpoint_paths: {json.dumps(name)}\n" for name in names)
    (run / "checkpoint").write_text(f"model_checkpoint_path: {json.dumps(names[-1])}\n{paths}")
    seconds = {name: 0.2 + number / 50 for number, name in enumerate(names)}
    (run / "checkpoint.journal").write_text(json.dumps({"seconds": seconds}))
    records = []
    for step in range(100, 2001, 100):  # each an event with a session log, see pages/history.py
        name = f"model.ckpt-{step}".encode()
        log = bytes([8, 3, 18, len(name)]) + name
        time_of_it = struct.pack("<Bd", 9, 1.7e9 + 60 * step)
        event = time_of_it + bytes([58, len(log)]) + log
        records.append(struct.pack("<QI", len(event), 0) + event + bytes(4))
    (run / "events.out.tfevents.1").write_bytes(b"".join(records))


def picture(page: Page, name: str, height: int) -> None:
    page.set_viewport_size({"width": 1200, "height": height})
    page.wait_for_timeout(300)
    page.screenshot(path=str(ASSETS / name))


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        os.chdir(directory)  # paths on the pictures are short ones
        run = pathlib.Path("logs", "run")
        run.mkdir(parents=True)
        before, after = (make_checkpoint(run / f"model.ckpt-{n}", n) for n in (1000, 2000))
        make_history(run)
        convert_checkpoint(before, "old/model.ckpt-1000", "saver", exclude=["head/.*"])
        report = pathlib.Path(directory, "report.html")
        write_report(run, report, compare_with=before, values=True)
        command = [sys.executable, "-m", "estimator_ckpt", "check", f"--model={after}"]
        check = pathlib.Path(directory, "check.html")
        subprocess.run(
            [*command, "old/model.ckpt-1000", f"--html={check}"], stdout=subprocess.DEVNULL
        )
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page()
        page.goto(report.as_uri())
        picture(page, "report_contents.png", 900)
        page.evaluate("document.querySelector('[data-view=values]').scrollIntoView()")
        picture(page, "report_values.png", 500)
        page.evaluate("document.querySelector('[data-view=history]').scrollIntoView()")
        picture(page, "report_history.png", 560)
        page.goto(check.as_uri())
        picture(page, "report_mapping.png", 700)
        with tensorboard("--logdir=logs", "--load_fast=false") as url:
            page.goto(f"{url}/#checkpoints")
            tab = page.frame_locator("iframe")
            tab.get_by_label("compare with").select_option(label="run: model.ckpt-1000")
            tab.locator("[data-view=changes] tbody tr").first.wait_for()
            picture(page, "tab_changes.png", 900)
        browser.close()


if __name__ == "__main__":
    main()
