"""The pages and the tab of TensorBoard as a person sees them: in a real Chromium."""

from __future__ import annotations

import json
import re
import shutil
import urllib.error
import urllib.request

import numpy as np
import pytest
from conversion_files import write_bundle
from tensorboard_process import tensorboard

from estimator_ckpt import cli, convert_checkpoint
from estimator_ckpt.reading.state import CheckpointState, write_state

pytestmark = pytest.mark.browser

LAYERS = 40
SCRIPT = "<script>document.title='taken'</script>"
BACKWARDS = "\u05d0\u05d1\u202eabc\x1b[31m"
LONG = "long/" + "x" * 10_000
DEEP = "/".join("d" * 3000)


def make_checkpoint(prefix, *, shift=0.0, layers=LAYERS, hostile=True):
    values = {"global_step": np.array(7)}
    for n in range(layers):
        values[f"encoder/layer_{n}/kernel"] = np.full((8, 4), n + shift, np.float32)
        values[f"encoder/layer_{n}/kernel/Momentum"] = np.zeros((8, 4), np.float32)
        values[f"encoder/layer_{n}/bias"] = np.arange(4, dtype=np.float32)
    values["head/kernel"] = np.array([np.nan, np.inf, 1], np.float32)
    if hostile:
        values.update({name: np.ones(2, np.float32) for name in (SCRIPT, BACKWARDS, LONG, DEEP)})
    write_bundle(prefix, values)
    convert_checkpoint(prefix, None, "both", in_place=True)
    return str(prefix)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser):
    """A page whose errors and warnings of the console fail the test, TensorBoard's own excepted."""
    context = browser.new_context(viewport={"width": 1300, "height": 900})
    page = context.new_page()
    problems = []

    def listen(message):
        ours = message.location["url"].startswith("file:") or "/checkpoints" in message.text
        ours |= "plugin/checkpoints" in message.location["url"]
        if message.type in ("error", "warning") and ours:
            problems.append(message.text)

    page.on("console", listen)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(f"dialog {dialog.message}"))
    yield page
    context.close()
    assert problems == []


def run(*arguments):
    assert cli.main([str(one) for one in arguments]) in (0, 1)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A model_dir with two checkpoints of three that its state file names."""
    directory = tmp_path_factory.mktemp("logs") / "first"
    paths = [make_checkpoint(directory / f"model.ckpt-{n}", shift=n / 100) for n in (10, 20)]
    gone = str(directory / "model.ckpt-5")
    write_state(str(directory), CheckpointState(paths[1], (gone, *paths), (1.0, 2.0, 3.0)))
    report = {
        "checkpoint": "old/model.ckpt-1",
        "variables": [
            {"variable": "w", "status": "warm-started", "source": "v", "rule": "rename"},
            {"variable": "u", "status": "initialized", "source": None, "rule": "missing"},
        ],
        "unexpected": ["left"],
    }
    (directory / "warm_start.json").write_text(json.dumps(report), encoding="utf-8")
    return directory


LABEL = {"x": 20, "y": 8}  # of a scope on the map; what is in it can be clicked, too


def rows(section):
    """The rows of the table on the screen; one to be printed may be beside it."""
    return section.locator(".tablewrap tbody tr")


def test_a_report_shows_all_views_and_names_as_text(page, run_dir, tmp_path):
    output = tmp_path / "report.html"
    run("report", run_dir, f"--output={output}", "--values", f"--compare={run_dir}/model.ckpt-10")
    page.goto(output.as_uri())
    views = [one.get_attribute("data-view") for one in page.locator("section[data-view]").all()]
    assert views == ["contents", "values", "mapping", "history", "changes"]

    contents = page.locator("[data-view=contents]")
    search = contents.get_by_label("search variables")
    for name in (SCRIPT, "\u05d0\u05d1\\u202eabc\\x1b[31m"):
        search.fill(name)
        assert rows(contents).count() == 1
        assert rows(contents).first.locator("td").first.inner_text() == name
    search.fill("long/")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.title() != "taken"

    search.fill("layer_7 kernel")
    assert rows(contents).count() == 2
    contents.get_by_label("which variables").select_option(label="slot")
    assert rows(contents).locator("td:nth-child(5)").all_inner_texts() == ["encoder/layer_7/kernel"]

    changes = page.locator("[data-view=changes]")
    changes.get_by_label("search changes").fill("layer_1/kernel")
    # From 1.1 to 1.2 in each of its values.
    assert "0.09091" in rows(changes).first.locator("td:nth-child(3)").inner_text()
    assert "32 of 32" in rows(changes).first.inner_text()

    values = page.locator("[data-view=values]")
    values.get_by_label("which values").select_option(label="with NaN or Inf")
    assert rows(values).locator("td:last-child").all_inner_texts() == ["1 NaN, 1 Inf"]

    history = page.locator("[data-view=history]")
    assert rows(history).locator("td:nth-child(1)").all_inner_texts() == [
        "model.ckpt-20",
        "model.ckpt-10",
        "model.ckpt-5",
    ]
    assert rows(history).locator("td:last-child").all_inner_texts() == ["newest", "kept", "missing"]

    mapping = rows(page.locator("[data-view=mapping]"))
    assert [row.locator("td").all_inner_texts() for row in mapping.all()] == [
        ["", "○\nmissing", "u", "initialized"],
        ["left", "○", "", "unused"],
        ["v", "rename", "w", "warm-started"],
    ]
    assert mapping.locator(".name .alone").all_inner_texts() == ["u", "left"]
    assert mapping.locator(".stroke").count() == 2  # on both sides of what it goes by


def test_the_map_of_bytes_zooms_by_click_and_by_key(page, run_dir, tmp_path):
    output = tmp_path / "report.html"
    run("report", run_dir / "model.ckpt-20", f"--output={output}")
    page.goto(output.as_uri())
    encoder = page.get_by_role("button", name=re.compile("zoom to encoder"))
    encoder.click(position=LABEL)
    trail = page.get_by_label("scope", exact=True)
    assert trail.get_by_role("button").all_inner_texts() == ["all", "encoder"]
    layer = page.get_by_role("button", name=re.compile("zoom to layer_3:"))
    layer.focus()
    page.keyboard.press("Enter")
    assert trail.get_by_role("button").all_inner_texts() == ["all", "encoder", "layer_3"]
    trail.get_by_role("button", name="all").click()
    assert encoder.is_visible()


def test_the_map_of_bytes_has_variables_that_are_scopes_too(page, tmp_path):
    values = {"w": np.ones(10, np.float32), "w/ExponentialMovingAverage": np.ones(20, np.float32)}
    write_bundle(tmp_path / "m", {**values, "/x": np.ones(1, np.float32)})
    run("report", tmp_path / "m", f"--output={tmp_path / 'report.html'}")
    page.goto((tmp_path / "report.html").as_uri())
    titles = page.locator(".map title")
    assert titles.evaluate_all("all => all.map((one) => one.textContent)") == [
        "w\nweight: 40 B\naverage: 80 B",
        "w/ExponentialMovingAverage\naverage: 80 B",
        "w\nweight: 40 B",
        "/x\nweight: 4 B",
    ]
    page.get_by_role("button", name="zoom to w: 120 B").click(position=LABEL)
    trail = page.get_by_label("scope", exact=True)
    assert trail.get_by_role("button").all_inner_texts() == ["all", "w"]


def test_very_many_layers_stand_in_groups_on_the_map(page, tmp_path):
    values = {f"top/layer_{n}/kernel": np.zeros(2, np.float32) for n in range(130)}
    write_bundle(tmp_path / "m", {**values, "top/large": np.zeros(100, np.float32)})
    run("report", tmp_path / "m", f"--output={tmp_path / 'report.html'}")
    page.goto((tmp_path / "report.html").as_uri())
    page.get_by_role("button", name="zoom to top").click(position=LABEL)
    zooms = page.locator(".map [role=button]")
    assert zooms.evaluate_all("all => all.map((one) => one.getAttribute('aria-label'))") == [
        "zoom to layer_0 … layer_59: 480 B",
        "zoom to layer_60 … layer_119: 480 B",
        "zoom to layer_120 … layer_129: 80 B",
    ]
    zooms.last.click()
    assert page.locator(".map title").first.text_content() == "top/layer_120/kernel\nweight: 8 B"


def test_what_is_printed_is_whole_and_dark_on_white(browser, run_dir, tmp_path):
    output = tmp_path / "report.html"
    run("report", run_dir / "model.ckpt-20", f"--output={output}", "--values")
    page = browser.new_page(color_scheme="dark")
    page.goto(output.as_uri())
    values = rows(page.locator("[data-view=values]"))
    assert values.count() == 50
    page.evaluate("""addEventListener("beforeprint", () => {
      window.printed = document.querySelectorAll("[data-view=values] tbody tr").length;
    })""")
    page.pdf()
    assert page.evaluate("window.printed") == 3 * LAYERS + 7  # head, step, counter, 4 hostile
    assert values.count() == 50
    page.emulate_media(media="print")
    style = "getComputedStyle(document.querySelector('{}')).{}"
    assert page.evaluate(style.format(".map text.scope", "fill")) == "rgb(0, 0, 0)"
    assert page.evaluate(style.format(".ckpt", "backgroundColor")) == "rgb(255, 255, 255)"
    assert page.locator(".totals").is_visible()
    page.close()


def test_the_tree_of_objects_opens_step_by_step(page, run_dir, tmp_path):
    output = tmp_path / "report.html"
    run("report", run_dir / "model.ckpt-20", f"--output={output}")
    page.goto(output.as_uri())
    page.locator("summary", has_text="var_list").click()
    leaf = page.locator(".leaf", has_text="encoder.Slayer_7.Sbias")
    leaf.wait_for()  # browsers tell of what has been opened a moment later
    assert "float32[4]" in leaf.inner_text()


def test_the_pages_of_verbs_show_what_is_wrong(page, tmp_path):
    good, other = make_checkpoint(tmp_path / "good", hostile=False), tmp_path / "other"
    convert_checkpoint(good, other, "saver", exclude=["head/.*"])
    run("check", f"--model={good}", other, f"--html={tmp_path / 'check.html'}")
    page.goto((tmp_path / "check.html").as_uri())
    assert page.locator(".name .bad").all_inner_texts() == ["head/kernel"]

    run("convert", good, tmp_path / "new", "--checkpoint_format=saver", "--dry_run",
        "--rename=head/kernel:tail/kernel", f"--html={tmp_path / 'plan.html'}")  # fmt: skip
    assert not list(tmp_path.glob("new*"))
    page.goto((tmp_path / "plan.html").as_uri())
    page.get_by_label("search lines").fill("tail")
    assert rows(page).locator("td:nth-child(3)").all_inner_texts() == ["tail/kernel"]

    data = str(next(tmp_path.glob("other.data-00000-*")))  # a link
    shutil.copy(data, f"{data}.copy")
    with open(f"{data}.copy", "r+b") as file:
        file.write(b"\xff\xff\xff\xff")
    shutil.move(f"{data}.copy", data)
    run("verify", other, good, f"--html={tmp_path / 'verify.html'}")
    page.goto((tmp_path / "verify.html").as_uri())
    kinds = page.locator("tbody td:first-child").all_inner_texts()
    assert "checksum" in kinds
    assert kinds.count("whole") == 1


def test_the_dark_theme_follows_the_system(browser, run_dir, tmp_path):
    output = tmp_path / "report.html"
    run("report", run_dir / "model.ckpt-20", f"--output={output}")
    backs = []
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(output.as_uri())
        backs.append(
            page.evaluate("getComputedStyle(document.querySelector('.ckpt')).backgroundColor")
        )
        page.close()
    assert backs == ["rgb(255, 255, 255)", "rgb(20, 23, 28)"]


def test_a_hundred_thousand_variables_are_searched_and_printed_folded(page, tmp_path):
    values = {f"layer_{n}/kernel": np.zeros(1, np.float32) for n in range(50_000)}
    values.update({f"layer_{n}/bias": np.zeros(1, np.float32) for n in range(50_000)})
    write_bundle(tmp_path / "m", values)
    run("report", tmp_path / "m", f"--output={tmp_path / 'report.html'}")
    page.goto((tmp_path / "report.html").as_uri())
    page.get_by_label("search variables").fill("layer_49999/bias")
    assert rows(page).count() == 1
    page.emulate_media(media="print")
    assert page.locator(".paper").is_visible()


# --- the tab ---------------------------------------------------------------------------------


@pytest.mark.parametrize("load_fast", ["false", "true"])
def test_the_tab_shows_a_run_and_follows_it(page, run_dir, tmp_path, load_fast):
    logs = tmp_path / "logs"
    shutil.copytree(run_dir, logs / "first")
    with tensorboard(f"--logdir={logs}", f"--load_fast={load_fast}") as url:
        page.goto(f"{url}/#checkpoints")
        tab = page.frame_locator("iframe")
        tab.get_by_label("search variables").wait_for()
        assert "model.ckpt-20" in tab.locator("[data-view=contents] h2").inner_text()
        names = tab.get_by_label("checkpoint", exact=True).locator("option").all_inner_texts()
        assert names == ["the newest", "model.ckpt-20", "model.ckpt-10"]

        tab.get_by_label("compare with").select_option(label="first: model.ckpt-10")
        changes = tab.locator("[data-view=changes]")
        changes.get_by_label("search changes").fill("layer_1/kernel")
        assert "0.09091" in rows(changes).first.inner_text()

        # What was zoomed, searched and is being written stays when a new checkpoint is drawn.
        tab.get_by_role("button", name=re.compile("zoom to encoder")).click(position=LABEL)
        search = tab.get_by_label("search variables")
        search.fill("layer_7")
        make_checkpoint(logs / "first" / "model.ckpt-30")
        tab.locator("[data-view=contents] h2", has_text="model.ckpt-30").wait_for(timeout=20_000)
        search.press_sequentially("/bias")
        shown = rows(tab.locator("[data-view=contents]")).locator("td:first-child")
        assert shown.all_inner_texts() == ["encoder/layer_7/bias"]
        trail = tab.get_by_label("scope", exact=True).get_by_role("button")
        assert trail.all_inner_texts() == ["all", "encoder"]


def test_the_page_of_another_checkpoint_does_not_stand_under_a_broken_one(browser, tmp_path):
    make_checkpoint(tmp_path / "model.ckpt-3", layers=1)
    write_state(str(tmp_path), CheckpointState(str(tmp_path / "model.ckpt-3")))
    (tmp_path / "broken.index").write_bytes(b"no index")
    with tensorboard(f"--logdir={tmp_path}", "--load_fast=false") as url:
        page = browser.new_page()
        page.goto(f"{url}/#checkpoints")
        tab = page.frame_locator("iframe")
        tab.get_by_label("search variables").wait_for()
        chosen = tab.get_by_role("banner").get_by_label("checkpoint")
        chosen.select_option("broken")
        tab.get_by_text("broken.index: no checkpoint's index").wait_for()
        assert tab.locator("section[data-view]").count() == 0
        chosen.select_option("the newest")
        tab.get_by_label("search variables").wait_for()
        page.close()


def test_what_was_not_listed_is_not_found(run_dir):
    def ask(path):
        try:
            with urllib.request.urlopen(f"{plugin}/{path}") as answer:
                return answer.status, answer.headers["X-Content-Type-Options"]
        except urllib.error.HTTPError as error:
            return error.code, error.headers["X-Content-Type-Options"]

    # A path with a scheme is read as a remote one is.
    spec = f"one:{run_dir.parent},far:file://{run_dir.parent}"
    with tensorboard(f"--logdir_spec={spec}", "--load_fast=false") as url:
        plugin = f"{url}/data/plugin/checkpoints"
        for name in ("one", "far"):
            good = f"contents?run={name}/first&checkpoint=model.ckpt-20"
            assert ask(good) == (200, "nosniff")
        for wrong in (
            "contents?run=one/first&checkpoint=../first/model.ckpt-20",
            "contents?run=one/../one/first&checkpoint=model.ckpt-20",
            "contents?run=/etc&checkpoint=passwd",
            "values?run=../..&checkpoint=../../etc/passwd",
            "changes?run=one/first&checkpoint=model.ckpt-20&before_run=..&before=x",
            "contents?run=one/first",
            "job?run=../..",
        ):
            assert ask(wrong) == (404, "nosniff"), wrong


def test_without_checkpoints_the_tab_is_hidden(tmp_path):
    with tensorboard(f"--logdir={tmp_path}", "--load_fast=false") as url:
        answer = urllib.request.urlopen(f"{url}/data/plugins_listing")
        with answer:
            assert json.load(answer)["checkpoints"]["enabled"] is False
