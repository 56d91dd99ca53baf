"""check_checkpoint and the command's check: will this model start from this checkpoint?"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from jobs import FORMATS, build_model, build_plain_model, latest, run_job, v1

from estimator_ckpt import WarmStart, check_checkpoint, make_scaffold
from estimator_ckpt.cli import main
from estimator_ckpt.errors import CheckpointError, NotACheckpointError, SettingsError

NAMES = {
    "scope/w",
    "scope/w/Adam",
    "scope/w/Adam_1",
    "scope/parts",
    "scope/parts/Adam",
    "scope/parts/Adam_1",
    "beta1_power",
    "beta2_power",
    "global_step",
}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """The model_dirs of trained jobs by format."""
    parent = tmp_path_factory.mktemp("jobs")
    for checkpoint_format in FORMATS:
        run_job(parent / checkpoint_format, lambda f=checkpoint_format: make_scaffold(f))
    return parent


def statuses(fit):
    return {row.name: row.status for row in fit.rows}


def graph_of(build):
    with tf.Graph().as_default() as graph:
        build()
    return graph


def saved_model(jobs, tmp_path):
    with tf.Graph().as_default(), v1.Session() as session:
        build_model()
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(tmp_path / "exported"))
        builder.add_meta_graph_and_variables(session, ["serve"])
        builder.save()
    return str(tmp_path / "exported")


SIDES = {
    "graph": lambda jobs, tmp_path: graph_of(build_model),
    "checkpoint": lambda jobs, tmp_path: str(jobs / "both"),
    "saver checkpoint": lambda jobs, tmp_path: str(jobs / "saver"),
    "SavedModel": saved_model,
    "meta graph": lambda jobs, tmp_path: f"{latest(jobs / 'checkpoint')}.meta",
    "graph.pbtxt": lambda jobs, tmp_path: str(jobs / "checkpoint" / "graph.pbtxt"),
    "graph.pbtxt of a saver": lambda jobs, tmp_path: str(jobs / "saver" / "graph.pbtxt"),
    "function": lambda jobs, tmp_path: "jobs:build_model",
}


@pytest.mark.parametrize("checkpoint_format", FORMATS)
@pytest.mark.parametrize("side", SIDES)
def test_a_model_fits_its_own_checkpoint(jobs, tmp_path, side, checkpoint_format):
    fit = check_checkpoint(jobs / checkpoint_format, SIDES[side](jobs, tmp_path))
    assert fit.fits
    assert statuses(fit).keys() == NAMES
    assert set(statuses(fit).values()) == {"matched"}


@pytest.mark.parametrize("checkpoint_format", FORMATS)
@pytest.mark.parametrize(
    ("name", "shape", "dtype", "status", "note"),
    [
        ("scope/w", (2, 3), "float32", "matched", ""),
        ("scope/w", (2, 3), np.float32, "matched", ""),
        ("scope/w", None, tf.float32, "matched", ""),
        ("scope/w", [3, 2], "float32", "shape", ""),
        ("scope/w", (2, 3), "float64", "dtype", ""),
        ("model/scope/w", (2, 3), "float32", "missing", "did you mean scope/w?"),
    ],
)
def test_each_variable_is_compared(jobs, checkpoint_format, name, shape, dtype, status, note):
    fit = check_checkpoint(jobs / checkpoint_format, {name: (shape, dtype)})
    (row,) = (row for row in fit.rows if row.name == name)
    assert (row.status, row.note) == (status, note)
    assert fit.fits == (status == "matched")
    unused = {row.name for row in fit.rows if row.status == "unused"}
    assert unused == NAMES - ({name} if status != "missing" else set())


def test_an_object_is_found_by_its_path(tmp_path):
    module = tf.Module()
    module.kernel = tf.Variable([1.0], name="other")
    prefix = tf.train.Checkpoint(model=module).save(str(tmp_path / "ckpt"))
    assert check_checkpoint(prefix, {"model/kernel": ((1,), "float32")}).fits


WARM_STARTS = {
    "by name": ({}, {"scope/w": "warm-started", "scope/parts": "warm-started"}, True),
    "a list": (
        {"vars_to_warm_start": ["scope/w/Adam$"]},
        {"scope/w/Adam": "warm-started", "scope/w": "unused", "scope/parts": "unused"},
        True,
    ),
    "excluded": ({"exclude": ["scope/w"]}, {"scope/w": "initialized"}, True),
    "unexpected": ({"on_unexpected": "error"}, {"global_step": "unexpected"}, False),
    "another name": (
        {"var_name_to_prev_var_name": {"scope/w": "none"}},
        {"scope/w": "missing"},
        False,
    ),
}


@pytest.mark.parametrize("case", WARM_STARTS)
def test_a_warm_start_is_checked_by_its_settings(jobs, case):
    fields, expected, fits = WARM_STARTS[case]
    settings = WarmStart("elsewhere", **fields)
    fit = check_checkpoint(jobs / "both", graph_of(build_model), warm_start=settings)
    assert fit.fits == fits
    found = statuses(fit)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("side", ["meta graph", "function", "checkpoint", "graph.pbtxt"])
def test_a_side_tells_what_is_trainable(jobs, tmp_path, side):
    fit = check_checkpoint(
        jobs / "both", SIDES[side](jobs, tmp_path), warm_start=WarmStart("elsewhere")
    )
    started = {name for name, status in statuses(fit).items() if status == "warm-started"}
    assert started == {"scope/w", "scope/parts"}


def test_two_checkpoints_are_checked_without_tensorflow(jobs):
    code = (
        "import sys; from estimator_ckpt.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(code or 'tensorflow' in sys.modules)"
    )
    arguments = ["check", f"--model={jobs / 'saver'}", str(jobs / "checkpoint")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, check=False)
    assert done.returncode == 0


def test_one_rule_that_helps_is_shown(jobs):
    model = {f"model/{name}": ((2, 3), "float32") for name in ("scope/w", "scope/w/Adam")}
    model = {**model, "model/scope/parts": ((10, 2), "float32")}
    fit = check_checkpoint(jobs / "both", model, warm_start=WarmStart("elsewhere"))
    assert 'assignment_map: [["/", "model/"]]' in fit.hint


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (3, "expected a mapping"),
        ({"x": 3}, "expected a shape and a dtype"),
        ("no_such_module:build", "importing no_such_module failed"),
        ("jobs:build_modell", "did you mean 'build_model'"),
        ("jobs:FORMATS", "expected a function"),
        ("test_check:fails", "building the model failed: ZeroDivisionError"),
        ("test_check:takes_features", "--input_fn"),
    ],
)
def test_a_wrong_model_is_refused(jobs, expected, message):
    with pytest.raises(SettingsError, match=message):
        check_checkpoint(jobs / "both", expected)


def fails():
    return 1 / 0


def takes_features(features, labels, mode, params):
    assert mode == "train"
    assert (labels is None) == (features.shape == (7,))
    v1.get_variable("w", features.shape)
    v1.get_variable("step_size", [], trainable=False)


def gives_features():
    return tf.data.Dataset.from_tensors((tf.zeros([3]), tf.zeros([1])))


def gives_features_alone():
    return tf.zeros([7])


@pytest.mark.parametrize(("input_fn", "size"), [("gives_features", 3), ("gives_features_alone", 7)])
def test_a_model_fn_takes_its_features_from_an_input_fn(jobs, input_fn, size):
    fit = check_checkpoint(
        jobs / "both", "test_check:takes_features", input_fn=f"test_check:{input_fn}"
    )
    expected = {row.name: row.expected for row in fit.rows if row.expected}
    assert expected == {
        "w": f"float32[{size}]",
        "step_size": "float32[]",
        "global_step": "int64[]",
    }


@pytest.mark.parametrize("name", ["graph.meta", "graph.pbtxt", "graph.pb"])
@pytest.mark.parametrize("data", [b"", b"\xff\xfe{", b"node { op: 'NoOp' name: 'x' }"])
def test_a_file_that_is_no_graph_is_refused(jobs, tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(NotACheckpointError):
        check_checkpoint(jobs / "both", str(tmp_path / name))
    with pytest.raises(CheckpointError):
        check_checkpoint(jobs / "both", str(tmp_path / "none" / name))


def test_the_command_says_that_it_fits(jobs, capsys):
    assert main(["check", f"--model={jobs / 'saver'}", str(jobs / "checkpoint")]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == latest(jobs / "checkpoint")
    assert out.endswith("9 matched\nfits\n")


def test_the_command_says_what_does_not_fit(jobs, tmp_path, capsys):
    run_job(tmp_path / "plain", build=build_plain_model)
    assert main(["check", "--model=jobs:build_model", str(tmp_path / "plain")]) == 1
    out = capsys.readouterr().out
    assert "scope/parts" in out
    assert out.endswith("3 missing, 6 matched\ndoes not fit\n")


def test_the_command_prints_json(jobs, capsys):
    assert main(["check", "--json", f"--model={jobs / 'saver'}", str(jobs / "both")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] is True
    assert found["totals"] == {"matched": 9}
    assert {row["name"] for row in found["rows"]} == NAMES


def test_the_command_checks_a_settings_file(jobs, tmp_path, capsys):
    config = tmp_path / "settings.yaml"
    config.write_text(f"ckpt_to_initialize_from: {jobs / 'checkpoint'}\n")
    arguments = ["check", f"--warm_start_config={config}", "--model=jobs:build_model"]
    assert main(arguments) == 0
    assert "2 warm-started" in capsys.readouterr().out
    config.write_text(
        f"ckpt_to_initialize_from: {jobs / 'checkpoint'}\nassignment_map: [[old/, scope/]]\n"
    )
    assert main(arguments) == 1
    assert 'assignment_map: [["scope/", "old/"]]' in capsys.readouterr().out
    config.write_text("ckpt_to_initialize_from: 3\n")
    assert main(arguments) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["check", "a"],
        ["check", "--model=b", "a", "b"],
        ["check", "--model=none", "none"],
        ["check", "--modell=x", "a"],
    ],
)
def test_trouble_is_two(arguments, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err
