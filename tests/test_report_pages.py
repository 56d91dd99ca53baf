"""What pages say, as data; how they look is for test_pages_in_browser.py."""

from __future__ import annotations

import json
import math
import os
import re

import numpy as np
import pytest
from conversion_files import write_bundle
from golden_files import golden_case
from graph_jobs import latest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tensorflow_party import tf, v1

from estimator_ckpt import cli, compare_checkpoints, open_checkpoint, write_report
from estimator_ckpt.errors import CorruptCheckpointError, WriteError
from estimator_ckpt.pages.contents import contents
from estimator_ckpt.pages.document import document, module_text, tab_module
from estimator_ckpt.pages.history import history_view
from estimator_ckpt.pages.runs import Runs, UnknownRunError
from estimator_ckpt.pages.values import BINS, changes_view, histogram, spread_of, values_view


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
    assert view["totals"][0] == ["all", "6 variables", "92 B"]
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


def test_a_broken_report_of_a_warm_start_is_named(tmp_path):
    prefix = write_bundle(tmp_path / "m", {"w": np.ones(2, np.float32)})
    (tmp_path / "warm_start.json").write_text('{"variables": 3}', encoding="utf-8")
    with pytest.raises(CorruptCheckpointError, match=r"warm_start\.json"):
        write_report(prefix, tmp_path / "x.html")


def test_runs_are_found_by_their_state_files_and_named_by_their_place(tmp_path):
    for run in ("", "a/b", "c.d"):
        (tmp_path / run).mkdir(parents=True, exist_ok=True)
        prefix = write_bundle(tmp_path / run / "model.ckpt-3", {"w": np.ones(2, np.float32)})
        (tmp_path / run / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-3"\n')
    (tmp_path / "loop").symlink_to(tmp_path)
    listed = Runs(str(tmp_path)).listed()
    assert [one["run"] for one in listed] == [".", "a/b", "c.d"]
    assert listed[0]["checkpoints"] == ["model.ckpt-3"]
    named = Runs(f"x:{tmp_path}/a,{tmp_path}/c.d")
    assert [one["run"] for one in named.listed()] == [".", "x/b"]
    assert named.views("x/b", "model.ckpt-3")[0]["prefix"] == f"{tmp_path}/a/b/model.ckpt-3"
    with pytest.raises(UnknownRunError):
        named.views("x/b", "../../model.ckpt-3")
    assert prefix


def test_modules_have_what_the_frame_of_tensorboard_takes():
    """Its content policy refuses inline handlers, and workers made of blobs."""
    assert "export async function render()" in tab_module()
    assert "export function drawViews(" in module_text()
    for forbidden in ("innerHTML", "eval(", "new Function", "createObjectURL", "onclick="):
        assert forbidden not in tab_module()
