"""What pages say, as data; how they look is for test_pages_in_browser.py."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import math
import os
import re
import shutil
import struct
import threading
import time
import types

import numpy as np
import pytest
from conversion_files import write_bundle
from golden_files import golden_case
from graph_jobs import latest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tensorflow_party import WITH_TENSORFLOW, tf, v1

from estimator_ckpt import (
    cli,
    compare_checkpoints,
    convert_checkpoint,
    files,
    open_checkpoint,
    write_report,
)
from estimator_ckpt.errors import CorruptCheckpointError, WriteError
from estimator_ckpt.pages.contents import contents
from estimator_ckpt.pages.document import document, module_text, static_text, tab_module
from estimator_ckpt.pages.history import history_view
from estimator_ckpt.pages.mapping import mapping_view
from estimator_ckpt.pages.runs import Runs, UnknownRunError
from estimator_ckpt.pages.values import (
    BINS,
    changes_view,
    histogram,
    spread_of,
    values_view,
)
from estimator_ckpt.text.rows import Row


def views_of(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="views">(.*?)</script>', text, re.DOTALL).group(1))


# --- contents ---


def test_contents_say_what_each_variable_is_for(tmp_path):
    values = {
        "dense/kernel": np.ones((3, 2), np.float32),
        "dense/kernel/Momentum": np.ones((3, 2), np.float32),
        "dense/kernel/ExponentialMovingAverage": np.ones((3, 2), np.float32),
        "norm/moving_mean": np.ones(2, np.float32),
        "beta1_power": np.float32(0.9),
        "global_step": np.int64(7),
    }
    with open_checkpoint(write_bundle(tmp_path / "m", values)) as checkpoint:
        view = contents(checkpoint)
    columns = view["variables"]
    found = {
        name: (view["dtypes"][dtype] + view["shapes"][shape], view["roles"][role], owner, nbytes)
        for name, dtype, shape, role, owner, nbytes in zip(
            *(columns[name] for name in ("name", "dtype", "shape", "role", "owner", "bytes"))
        )
    }
    kernel = columns["name"].index("dense/kernel")
    assert found == {
        "dense/kernel": ("float32[3,2]", "weight", -1, 24),
        "dense/kernel/Momentum": ("float32[3,2]", "slot", kernel, 24),
        "dense/kernel/ExponentialMovingAverage": ("float32[3,2]", "average", -1, 24),
        "norm/moving_mean": ("float32[2]", "statistic", -1, 8),
        "beta1_power": ("float32[]", "number of an optimizer", -1, 4),
        "global_step": ("int64[]", "step", -1, 8),
    }
    assert view["totals"][:3] == [
        ("all", 6, 22, 92),
        ("without slots", 5, 16, 68),
        ("weight", 1, 6, 24),
    ]
    assert ["global step", "7"] in view["facts"]


def test_objects_lead_to_their_variables():
    with open_checkpoint(golden_case("2.15", "object_based").prefix) as checkpoint:
        view = contents(checkpoint)
        paths = {
            path: one.name
            for one in checkpoint.variables.values()
            if (path := one.object_path) and ".OPTIMIZER_SLOT" not in path
        }
    objects, names = view["objects"], view["variables"]["name"]
    for path, name in paths.items():
        node = 0
        for part in path.split("/"):
            node = dict(objects["children"][node])[part]
        assert name in [names[index] for index in objects["tensors"][str(node)]]


def test_a_page_holds_names_as_text_alone():
    hostile = "</script><script>alert(1)</script>"
    page = document(hostile, [{"view": "contents", "prefix": hostile}])
    assert hostile not in page
    assert page.count("</script>") == 2  # of the data and of the module
    assert "alert(1)" in page


# --- values ---


@given(arrays.arrays(np.float32, st.integers(0, 50), elements=st.floats(width=32)))
def test_a_spread_is_what_numpy_says(array):
    spread, finite = spread_of(array), array[np.isfinite(array)].astype("f8")
    assert (spread.count, spread.zeros) == (array.size, int((array == 0).sum()))
    assert (spread.nan, spread.infinite) == (np.isnan(array).sum(), np.isinf(array).sum())
    assert math.isclose(spread.norm, np.linalg.norm(finite), rel_tol=1e-9)
    assert spread.low == (finite.min() if finite.size else None)
    counts = histogram(array, spread.low, spread.high)
    assert sum(counts) == finite.size
    if finite.size and spread.low < spread.high:
        expected, _ = np.histogram(finite, BINS, (spread.low, spread.high))
        assert counts == expected.tolist()


@pytest.mark.parametrize("value", [1.7e308, -1.7e308])
def test_the_largest_numbers_have_a_norm_or_none(value, tmp_path):
    prefix = write_bundle(tmp_path / "m", {"x": np.array([value, value, -value])})
    with open_checkpoint(prefix) as checkpoint:
        ((name, tensor, spread, counts),) = values_view(checkpoint)["rows"]
    assert (name, tensor, sum(counts)) == ("x", "float64[3]", 3)
    assert spread["norm"] is None or math.isclose(spread["norm"], 1.7e308 * 3**0.5)


def test_a_change_is_relative_to_what_was_before(tmp_path):
    a = {"w": np.array([3.0, 4.0]), "same": np.ones(2), "only": np.ones(1), "z": np.zeros(2)}
    b = {"w": np.array([3.0, 4.5]), "same": np.ones(2), "z": np.array([np.nan, 1])}
    paths = write_bundle(tmp_path / "a", a), write_bundle(tmp_path / "b", b)
    with open_checkpoint(paths[0]) as before, open_checkpoint(paths[1]) as after:
        view = changes_view(before, after, compare_checkpoints(before, after))
    rows = {row["name"]: row for row in view["rows"]}
    assert view["same"] == 1
    assert rows["w"]["relative"] == 0.1  # 0.5 of 5
    assert rows["w"]["range"] == [3.0, 4.5]
    assert [sum(counts) for counts in rows["w"]["counts"]] == [2, 2]
    assert rows["z"]["relative"] is None
    assert rows["z"]["after"]["nan"] == 1
    assert rows["only"]["status"] == "only in A"


def test_changes_are_in_the_order_of_the_layers(tmp_path):
    names = ["layer_10/w", "layer_2/w", "layer_1/w", "head"]
    a, b = (dict.fromkeys(names, np.full(2, value)) for value in (1.0, 2.0))
    paths = write_bundle(tmp_path / "a", a), write_bundle(tmp_path / "b", b)
    with open_checkpoint(paths[0]) as before, open_checkpoint(paths[1]) as after:
        view = changes_view(before, after, compare_checkpoints(before, after))
    assert [row["name"] for row in view["rows"]] == ["head", "layer_1/w", "layer_2/w", "layer_10/w"]


def test_a_change_of_complex_and_of_the_largest_numbers_is_that_of_the_values(tmp_path):
    values = {"c": np.array([1j, 1]), "large": np.array([1.7e308])}
    paths = [
        write_bundle(tmp_path / key, {name: sign * value for name, value in values.items()})
        for key, sign in (("a", 1), ("b", -1))
    ]
    with open_checkpoint(paths[0]) as before, open_checkpoint(paths[1]) as after:
        view = changes_view(before, after, compare_checkpoints(before, after))
    assert {row["name"]: row["relative"] for row in view["rows"]} == {"c": 2.0, "large": 2.0}


def test_a_range_of_two_neighbouring_numbers_has_a_histogram():
    array = np.array([1.0, 1.0, np.nextafter(1.0, 2.0)])
    counts = histogram(array, array.min(), array.max())
    assert (counts[0], counts[-1], sum(counts)) == (2, 1, 3)


def test_numbers_of_any_length_in_names_are_text(tmp_path):
    name = f"layer_{'9' * 5000}/w"
    paths = [
        write_bundle(tmp_path / key, {name: np.full(2, value), "u_7": np.ones(1)})
        for key, value in (("a", 1.0), ("b", 2.0))
    ]
    assert cli.main(["compare", *paths, f"--html={tmp_path / 'page.html'}"]) == 1
    assert [row["name"] for row in views_of(tmp_path / "page.html")[0]["rows"]] == [name]
    with open_checkpoint(paths[0]) as checkpoint:
        assert [row[0] for row in contents(checkpoint)["folded"]] == [name, "u_7"]


# --- mapping ---


def test_a_mapping_says_the_way_and_what_stands_alone():
    rows = [
        *(Row("warm-started", f"n_{n}/w", "", f"n_{n}/w", f"object path n_{n}/w") for n in (0, 1)),
        Row("warm-started", "v", "", "u", "assignment_map[0]: {'u': 'v'}, same name"),
        Row("warm-started", "x", "", "x", "same name"),
        Row("warm-started", "m", "", "computed", "m of x, of Adam"),
        Row("initialized", "y", "", "-", "not in the checkpoint"),
        Row("not selected", "z", "", "-"),
        *(Row("unused", "", "", f"old_{n}/a") for n in (0, 1)),
        Row("shape", "s", "[2]", "", "other shape"),
    ]
    view = mapping_view("", rows, left="checkpoint", right="model", bad=["shape"])
    assert view["rows"] == [
        ["warm-started", "n_{0,1}/w", "n_{0,1}/w", "object path", 2, "structure", ""],
        ["warm-started", "u", "v", "assignment_map[0]: {'u': 'v'}, same name", 1, "rule", ""],
        ["warm-started", "x", "x", "same name", 1, "name", ""],
        ["warm-started", "computed", "m", "m of x, of Adam", 1, "warm-started", ""],
        ["initialized", "", "y", "not in the checkpoint", 1, "", "alone"],
        ["not selected", "", "z", "", 1, "", ""],
        ["unused", "old_{0,1}/a", "", "", 2, "", "alone"],
        ["shape", "", "s", "other shape", 1, "", "bad"],
    ]


def test_check_and_convert_say_by_which_way_each_tensor_goes(tmp_path):
    values = {"a/w": np.ones(2, np.float32), "a/w/Momentum": np.ones(2, np.float32)}
    names = write_bundle(tmp_path / "names", {**values, "left": np.ones(1)})
    both = convert_checkpoint(names, tmp_path / "both", "both", exclude=["left"]).destination
    page = str(tmp_path / "page.html")
    cli.main(["check", f"--model={both}", names, f"--html={page}"])
    rows = {tuple(row[1:3]): row[5:] for row in views_of(tmp_path / "page.html")[0]["rows"]}
    assert rows[("a/w", "a/w")] == ["name", ""]
    assert rows[("left", "")] == ["", "alone"]
    cli.main(["convert", names, str(tmp_path / "new"), "--checkpoint_format=saver", "--drop_slots",
        "--dry_run", "--rename=a/(.*):b/\\1", f"--html={page}"])  # fmt: skip
    rows = {tuple(row[1:3]): row[5:] for row in views_of(tmp_path / "page.html")[0]["rows"]}
    assert rows == {
        ("a/w", "b/w"): ["rule", ""],
        ("left", "left"): ["kept", ""],
        ("a/w/Momentum", ""): ["", "alone"],
    }


# --- a run over time ---


def test_event_files_tell_of_checkpoints_that_are_gone(tmp_path):
    with tf.Graph().as_default():
        step = v1.train.get_or_create_global_step()
        train = step.assign_add(1)
        saver = v1.train.Saver(max_to_keep=2)
        hook = v1.train.CheckpointSaverHook(str(tmp_path), save_steps=1, saver=saver)
        with v1.train.MonitoredSession(hooks=[hook]) as session:
            for _ in range(3):
                session.run(train)
    rows = history_view(str(tmp_path))["rows"]
    listed = {row["name"]: (row["kept"], row["bytes"] is not None, row["newest"]) for row in rows}
    newest = os.path.basename(latest(tmp_path))
    assert listed.pop(newest) == (True, True, True)
    assert list(listed.values())[-1] == (True, True, False)
    assert set(list(listed.values())[:-1]) == {(False, False, False)}
    assert all(row["saved"] > 1e9 for row in rows)


STATE = 'model_checkpoint_path: "model.ckpt-5"\n'
EVENT = struct.Struct("<QI")  # a record's length and its checksum


def make_run(directory, state=STATE, files=None):
    directory.mkdir(parents=True, exist_ok=True)
    write_bundle(directory / "model.ckpt-5", {"w": np.ones(2, np.float32)})
    (directory / "checkpoint").write_bytes(state.encode("utf-8", "surrogateescape"))
    for name, data in (files or {}).items():
        (directory / name).write_bytes(data)
    return str(directory)


@pytest.mark.parametrize(
    ("state", "files", "names"),
    [
        ("all_model_checkpoint_timestamps: nan all_model_checkpoint_paths: 'x'", {}, ["x"]),
        ("all_model_checkpoint_timestamps: 1e300 all_model_checkpoint_paths: 'x'", {}, ["x"]),
        (f"all_model_checkpoint_paths: 'x-{'9' * 5000}'", {}, [f"x-{'9' * 5000}"]),
        ("all_model_checkpoint_paths: '/'", {}, []),
        ("", {"a.tfevents.1": EVENT.pack(2**64 - 1, 0)}, []),
        ("", {"a.tfevents.1": EVENT.pack(9, 0) + b"\x08\x03\xff\xff\xff\xff\xff\xff\xff1234"}, []),
        ("", {"a.tfevents.1": EVENT.pack(60, 0) + b"\x08\x03"}, []),
        # An event whose time is NaN, with a session log.
        ("", {"a.tfevents.1": EVENT.pack(16, 0) + b"\x09" + struct.pack("<d", math.nan)
            + b"\x3a\x05\x08\x03\x12\x01y" + b"1234"}, ["y"]),
    ],
)  # fmt: skip
def test_whatever_a_run_has_beside_its_checkpoints_they_are_listed(tmp_path, state, files, names):
    run = make_run(tmp_path / "run", STATE + state, files)
    view = history_view(run)
    assert [row["name"] for row in view["rows"]] == [*names, "model.ckpt-5"]
    assert all(row["step"] < 10 for row in view["rows"])
    assert [row["saved"] for row in view["rows"]][:-1] == [None] * len(names)
    json.dumps(view, allow_nan=False)


@pytest.mark.parametrize(("said", "shown"), [("1.5", 1.5), ("NaN", None), ("-1", None)])
def test_the_journal_tells_how_long_a_save_took(said, shown, tmp_path):
    journal = b'{"seconds": {"model.ckpt-5": %s}}' % said.encode()
    run = make_run(tmp_path / "run", files={"checkpoint.journal": journal})
    assert [row["seconds"] for row in history_view(run)["rows"]] == [shown]


def test_a_run_that_changes_while_it_is_looked_at(tmp_path):
    """Names that lead to nothing stand for files that are gone between two looks."""
    run = make_run(tmp_path / "run")
    for name in ("model.ckpt-9.index", "a.tfevents.1"):
        (tmp_path / "run" / name).symlink_to("gone")
    (tmp_path / "run" / "b.tfevents.2").mkdir()
    rows = {row["name"]: row for row in history_view(run)["rows"]}
    assert rows["model.ckpt-5"]["format"] == "saver"
    assert "a symbolic link to what is not there" in rows["model.ckpt-9"]["problem"]
    runs = Runs(str(tmp_path))
    assert [one["run"] for one in runs.listed()] == ["run"]
    shutil.rmtree(run)
    assert runs.listed() == []  # whatever the walk beside this has found so far


def test_requests_at_once_share_a_walk(tmp_path, monkeypatch):
    class Slow(threading.Thread):
        def start(self):
            time.sleep(0.01)
            super().start()

    slow = types.SimpleNamespace(Thread=Slow, Lock=threading.Lock)
    monkeypatch.setattr("estimator_ckpt.pages.runs.threading", slow)
    runs = Runs(str(tmp_path))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: runs.listed(), range(12)))
    assert found == [[]] * 12


@pytest.mark.parametrize("kind", ["v1_format", "v1_sharded"])
def test_files_of_the_first_format_are_there_and_in_the_tab(kind, tmp_path):
    prefix = golden_case("2.15", kind).prefix
    shutil.copytree(os.path.dirname(prefix), tmp_path / "run")
    (row,) = history_view(str(tmp_path / "run"))["rows"]
    assert (row["name"], row["newest"], row["format"]) == ("model.ckpt-7", True, "saver")
    assert row["bytes"] > 0
    runs = Runs(str(tmp_path))
    assert runs.listed() == [{"run": "run", "checkpoints": ["model.ckpt-7"]}]
    shown = runs.contents("run", "model.ckpt-7")[0]
    assert ["format", "saver (V1)"] in shown["facts"]
    (values,) = runs.values("run", "model.ckpt-7")
    listed = [*(row[0] for row in values["rows"]), *values["left_out"]]
    assert sorted(listed) == shown["variables"]["name"]


def test_remote_runs_are_found_read_and_compared(tmp_path):
    """By TensorFlow's file system in memory, or without TensorFlow by fsspec's."""
    remote = f"{'ram' if WITH_TENSORFLOW else 'memory'}://{tmp_path.name}"
    run = make_run(tmp_path / "run")
    write_bundle(tmp_path / "run" / "model.ckpt-6", {"w": np.full(2, 3, np.float32)})
    files.make_dirs(f"{remote}/logs/run")
    for name in os.listdir(run):
        with open(os.path.join(run, name), "rb") as file:
            files.write_atomic(f"{remote}/logs/run/{name}", file.read())
    for runs in (Runs(f"{remote}/logs"), Runs("", f"far:{remote}/logs,{tmp_path}")):
        name = next(one["run"] for one in runs.listed() if one["run"] in ("run", "far/run"))
        assert runs.found_any
        (shown,), (over_time,) = runs.contents(name, "model.ckpt-6"), runs.job(name)
        assert shown["prefix"] == f"{remote}/logs/run/model.ckpt-6"
        assert [(row["there"], row["bytes"] > 0) for row in over_time["rows"]] == 2 * [(True, True)]
        (changed,) = runs.changes((name, "model.ckpt-5"), (name, "model.ckpt-6"))
        assert changed["rows"][0]["relative"] == 2.0


def test_formats_are_looked_up_from_the_newest_on_as_long_as_there_is_time(tmp_path):
    run = make_run(tmp_path / "run")
    write_bundle(tmp_path / "run" / "model.ckpt-6", {"w": np.ones(2, np.float32)})
    for seconds, expected in ((0, [None, "saver"]), (math.inf, ["saver", "saver"])):
        rows = history_view(run, seconds=seconds)["rows"]
        assert [(row["step"], row.get("format")) for row in rows] == [*zip((5, 6), expected)]
    # Another checkpoint of the same name is looked at anew.
    convert_checkpoint(f"{run}/model.ckpt-6", None, "both", in_place=True)
    assert history_view(run)["rows"][-1]["format"] == "both"


def test_what_is_broken_beside_a_checkpoint_does_not_hide_it_in_the_tab(tmp_path):
    files = {"warm_start.json": b"[" * 100_000}
    make_run(tmp_path / "run", "\udcff", files)
    runs = Runs(str(tmp_path))
    (shown,), (started, over_time) = runs.contents("run", "model.ckpt-5"), runs.job("run")
    assert shown["variables"]["name"] == ["w"]
    assert "warm_start.json: no report of a warm start" in started["hint"]
    assert "no CheckpointState text" in over_time["problem"]
    assert [row["name"] for row in over_time["rows"]] == ["model.ckpt-5"]


# --- files and runs ---


def test_a_page_replaces_a_page_and_nothing_else(tmp_path):
    prefix = write_bundle(tmp_path / "m", {"w": np.ones(2, np.float32)})
    page = tmp_path / "report.html"
    write_report(prefix, page)
    write_report(prefix, page, values=True)
    assert [view["view"] for view in views_of(page)] == ["contents", "values"]
    before = (tmp_path / "m.index").read_bytes()
    with pytest.raises(WriteError, match="no HTML page"):
        write_report(prefix, f"{prefix}.index")
    assert (tmp_path / "m.index").read_bytes() == before
    assert cli.main(["report", prefix]) == 2
    assert cli.main(["report", str(tmp_path / "none"), "-o", str(tmp_path / "x.html")]) == 2
    assert not (tmp_path / "x.html").exists()


@pytest.mark.parametrize(
    "text",
    [
        '{"variables": 3}',
        "[" * 100_000,
        "[]",
        '{"checkpoint": "c", "unexpected": [], "notes": 3, "variables": []}',
        '{"checkpoint": "c", "unexpected": [NaN], "variables": []}',
        '{"checkpoint": "c", "unexpected": [], "variables": '
        '[{"variable": "w", "status": ["x"], "source": null, "rule": ""}]}',
        '{"checkpoint": "c", "unexpected": [], "variables": '
        '[{"variable": "w", "status": "x", "source": 5, "rule": ""}]}',
    ],
)
def test_a_broken_report_of_a_warm_start_is_named(tmp_path, text):
    run = make_run(tmp_path / "run", files={"warm_start.json": text.encode()})
    with pytest.raises(CorruptCheckpointError, match=r"warm_start\.json"):
        write_report(run, tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


def test_where_a_page_cannot_be_written_nothing_is_done(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    for page, wrong in (
        (tmp_path / "none" / "x.html", "none: the directory of the page is not there"),
        (tmp_path, "expected the name of a page, found a directory"),
        ("/dev/null", "/dev/null: expected the name of a page, found a device"),
    ):
        new = tmp_path / "new"
        assert cli.main(["convert", run + "/model.ckpt-5", str(new), "--checkpoint_format=both",
            f"--html={page}"]) == 2  # fmt: skip
        assert wrong in capsys.readouterr().err
        assert not list(tmp_path.glob("new*"))


def test_a_page_is_made_of_a_path_that_is_no_text_and_of_a_step_that_is_damaged(tmp_path):
    directory = tmp_path / os.fsdecode(b"\xff")
    prefix = write_bundle(directory / "m", {"global_step": np.int64(7)})
    data = directory / "m.data-00000-of-00001"
    data.write_bytes(b"\xff" * 8)
    write_report(prefix, tmp_path / "x.html")
    (view,) = views_of(tmp_path / "x.html")
    assert view["variables"]["name"] == ["global_step"]
    assert any(label == "not readable" and "checksum" in text for label, text in view["facts"])


def test_runs_are_found_by_their_state_files_and_named_by_their_place(tmp_path, monkeypatch):
    for run in ("", "a/b", "c.d"):
        (tmp_path / run).mkdir(parents=True, exist_ok=True)
        prefix = write_bundle(tmp_path / run / "model.ckpt-3", {"w": np.ones(2, np.float32)})
        (tmp_path / run / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-3"\n')
    (tmp_path / "loop").symlink_to(tmp_path)
    listed = Runs(str(tmp_path)).listed()
    assert [one["run"] for one in listed] == [".", "a/b", "c.d"]
    assert listed[0]["checkpoints"] == ["model.ckpt-3"]
    named = Runs("", f"x:{tmp_path}/a,{tmp_path}/c.d,{tmp_path}/a/b")
    assert [one["run"] for one in named.listed()] == [".", f"{tmp_path}/a/b", "x/b"]
    assert named.contents("x/b", "model.ckpt-3")[0]["prefix"] == f"{tmp_path}/a/b/model.ckpt-3"
    with pytest.raises(UnknownRunError):
        named.contents("x/b", "../../model.ckpt-3")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [one["run"] for one in Runs("~/a").listed()] == ["b"]
    assert prefix


def test_runs_and_checkpoints_are_asked_for_by_the_names_that_are_shown(tmp_path):
    run = os.fsdecode(b"\xff\n\xe2\x80\xae")
    make_run(tmp_path / run)
    for name in os.listdir(tmp_path / run):
        os.rename(tmp_path / run / name, tmp_path / run / name.replace("model", run))
    runs = Runs(str(tmp_path))
    shown = "\\udcff\\n\\u202e"
    assert runs.listed() == [{"run": shown, "checkpoints": [f"{shown}.ckpt-5"]}]
    assert runs.contents(shown, f"{shown}.ckpt-5")[0]["variables"]["name"] == ["w"]


def test_the_library_that_draws_the_map_is_what_npm_has():
    """What .ci/vendor fetches."""
    library = static_text("d3-hierarchy.min.js")
    assert library.startswith("// https://d3js.org/d3-hierarchy/ v3.1.2 Copyright 2010-2021 Mike")
    checksum = "a8771380454be89ec5ffe9a6396ba7c247081e348ae740dc9cb9629abd4c0e43"
    assert hashlib.sha256(library.encode()).hexdigest() == checksum
    assert "Mike Bostock" in static_text("d3-hierarchy.LICENSE")


def test_modules_have_what_the_frame_of_tensorboard_takes():
    """Its content policy refuses inline handlers, and workers made of blobs."""
    assert "export async function render()" in tab_module()
    assert "export function drawViews(" in module_text()
    for forbidden in ("innerHTML", "eval(", "new Function", "createObjectURL", "onclick="):
        assert forbidden not in tab_module()
