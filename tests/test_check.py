"""check_checkpoint and the command's check: will this model start from this checkpoint?"""

import collections
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from graph_jobs import FORMATS, build_model, build_plain_model, latest, run_job, v1
from saver_sessions import make_saver, save
from tensorflow_party import tf

from estimator_ckpt import (
    WarmStart,
    check_checkpoint,
    checkpoint_scaffold,
    make_scaffold,
    wrap_model_fn,
)
from estimator_ckpt.cli import main
from estimator_ckpt.errors import (
    CheckpointError,
    MismatchError,
    NotACheckpointError,
    SettingsError,
)
from estimator_ckpt.saving.saver import Saver

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
    "function": lambda jobs, tmp_path: "graph_jobs:build_model",
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
        ("scope/w", [3, 2], "float32", "shape", "key KEY"),
        ("scope/w", (2, 3), "float64", "dtype", "key KEY"),
        ("model/scope/w", (2, 3), "float32", "missing", "did you mean scope/w?"),
    ],
)
def test_each_variable_is_compared(jobs, checkpoint_format, name, shape, dtype, status, note):
    fit = check_checkpoint(jobs / checkpoint_format, {name: (shape, dtype)})
    (row,) = (row for row in fit.rows if row.name == name)
    key = (
        "scope/w"
        if checkpoint_format == "saver"
        else "var_list/scope.Sw/.ATTRIBUTES/VARIABLE_VALUE"
    )
    assert (row.status, row.note) == (status, note.replace("KEY", key))
    assert fit.fits == (status == "matched")
    unused = {row.name for row in fit.rows if row.status == "unused"}
    assert unused == NAMES - {name}


def net(name="other", value=1.0):
    module = tf.Module()
    module.kernel = v1.get_variable(name, initializer=[value])
    return module


def by_name():
    net("other")


def by_path():
    net("model/kernel")


def by_objects():
    return checkpoint_scaffold({"model": net("new")})


def by_objects_in_a_spec():
    def model_fn(mode):
        model.append(net("new"))
        spec = collections.namedtuple("Spec", "mode scaffold training_hooks")
        return spec(mode, v1.train.Scaffold(), ())

    model = []
    wrapped = wrap_model_fn(model_fn, "both", checkpoint=lambda: {"model": model[0]})
    return wrapped(mode="train")


def contradicted():
    return checkpoint_scaffold({"model": net("second"), "second": net("other")})


def decided():
    objects = {"model": net("second"), "second": net("other")}
    return checkpoint_scaffold(objects, match_by="path")


def with_more():
    net("other")
    v1.get_variable("more", initializer=[2.0])


def with_more_that_may_be_missing():
    with_more()
    return checkpoint_scaffold(on_missing={"more": "init"})


def of_another_shape():
    v1.get_variable("other", initializer=[1.0, 2.0])


def with_a_table():
    net("other")
    return tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, 0, name="words")


# Against objects `model` with the kernel `other`, and `second`, of TensorFlow's own.
RESTORES = {
    by_name: {"other": "matched", "second": "unused"},
    by_path: {"model/kernel": "missing", "other": "unused", "second": "unused"},
    by_objects: {"new": "matched", "second": "unused"},
    by_objects_in_a_spec: {"new": "matched", "second": "unused"},
    contradicted: {"other": "ambiguous", "second": "ambiguous"},
    decided: {"other": "matched", "second": "matched"},
    with_more: {"other": "matched", "more": "missing", "second": "unused"},
    with_more_that_may_be_missing: {"other": "matched", "more": "initialized", "second": "unused"},
    of_another_shape: {"other": "shape", "second": "unused"},
    with_a_table: {
        "other": "matched",
        "words-keys": "missing",
        "words-values": "missing",
        "second": "unused",
    },
}


def objects_checkpoint(directory):
    model, second = tf.Module(), tf.Module()
    model.kernel = tf.Variable([1.0], name="other")
    second.kernel = tf.Variable([2.0], name="second")
    return tf.train.Checkpoint(model=model, second=second).save(str(directory / "ckpt"))


@pytest.mark.parametrize("build", RESTORES)
def test_a_check_says_what_the_restore_then_does(tmp_path, build):
    prefix = objects_checkpoint(tmp_path)
    fit = check_checkpoint(prefix, f"test_check:{build.__name__}")
    assert statuses(fit) == RESTORES[build]
    with tf.Graph().as_default(), v1.Session() as session:
        made = build()
        saver = getattr(getattr(made, "scaffold", made), "saver", None) or Saver("both")
        with contextlib.nullcontext() if fit.fits else pytest.raises(MismatchError):
            saver.restore(session, prefix)


def test_another_checkpoint_is_a_model_of_its_objects(tmp_path):
    model = tf.Module()
    model.kernel = tf.Variable([1.0], name="renamed")
    like = tf.train.Checkpoint(model=model).save(str(tmp_path / "like"))
    fit = check_checkpoint(objects_checkpoint(tmp_path), like)
    assert statuses(fit) == {"renamed": "matched", "second": "unused"}
    fit = check_checkpoint(like, objects_checkpoint(tmp_path))
    assert statuses(fit) == {"other": "matched", "second": "missing"}


@pytest.mark.parametrize("model_format", [*FORMATS, None])
@pytest.mark.parametrize("checkpoint_format", FORMATS)
def test_a_lookup_table_is_found_in_every_format(tmp_path, checkpoint_format, model_format):
    """By the side of a checkpoint, or of plain shapes; it takes any number of rows."""

    def written(directory, one, words):
        directory.mkdir()
        with tf.Graph().as_default():
            table = with_a_table()
            insert = table.insert(words, tf.range(len(words), dtype=tf.int64))
            return save(make_saver(one), directory, insert)

    model = {"words-keys": ((3,), "string"), "words-values": ((3,), "int64")}
    if model_format is not None:
        model = written(tmp_path / "model", model_format, ["a", "b"])
    fit = check_checkpoint(written(tmp_path / "other", checkpoint_format, ["c"]), model)
    assert statuses(fit).items() >= {"words-keys": "matched", "words-values": "matched"}.items()


def test_a_missing_variable_that_an_object_has_the_path_of_is_told(tmp_path):
    fit = check_checkpoint(objects_checkpoint(tmp_path), {"model/kernel": ((1,), "float32")})
    (row,) = (row for row in fit.rows if row.status == "missing")
    assert row.note == "the object there is other; `checkpoint=` gives the model objects"


WARM_STARTS = {
    "by name": ({}, {"scope/w": "warm-started", "scope/parts": "warm-started"}, True),
    "a list": (
        {"vars_to_warm_start": ["scope/w/Adam$"]},
        {"scope/w/Adam": "warm-started", "scope/w": "not selected", "scope/parts": "not selected"},
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
        ("no_such_module:build", "there is no module 'no_such_module'"),
        ("graph_jobs:build_modell", "did you mean 'build_model'"),
        ("graph_jobs:FORMATS", "expected a function"),
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
    assert main(["check", "--model=graph_jobs:build_model", str(tmp_path / "plain")]) == 1
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
    arguments = ["check", f"--warm_start_config={config}", "--model=graph_jobs:build_model"]
    assert main(arguments) == 0
    assert "2 warm-started" in capsys.readouterr().out
    config.write_text(
        f"ckpt_to_initialize_from: {jobs / 'checkpoint'}\nassignment_map: [[old/, scope/]]\n"
    )
    assert main(arguments) == 1
    assert 'assignment_map: [["/", "/"]]' in capsys.readouterr().out
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


def list_in_order():
    return tf.train.Checkpoint(weights=[v1.get_variable(name, []) for name in ("a", "b")])


def list_in_another_order():
    a, b = (v1.get_variable(name, []) for name in ("a", "b"))
    return tf.train.Checkpoint(weights=[b, a])


def module_with_list():
    module = tf.Module()
    module.weights = [v1.get_variable(name, []) for name in ("a", "b")]
    return module


class Dense(tf.Module):
    def __init__(self, kernel):
        super().__init__()
        self.kernel = kernel


def layers_of_a_job():
    kernels = [v1.get_variable(f"{name}/kernel", []) for name in ("dense_1", "dense_2")]
    return checkpoint_scaffold({"layers": [Dense(kernel) for kernel in kernels]})


def test_a_jobs_warm_start_is_checked_with_its_objects(tmp_path):
    kernels = [tf.Variable(0.0, name=f"{name}/kernel") for name in ("dense", "dense_1")]
    objects = tf.train.Checkpoint(layers=[Dense(kernel) for kernel in kernels])
    prefix = objects.write(str(tmp_path / "ckpt"))
    settings = WarmStart(prefix)
    fit = check_checkpoint(prefix, "test_check:layers_of_a_job", warm_start=settings)
    assert {row.name: row.found for row in fit.rows} == {
        f"dense_{n + 1}/kernel": f"layers/{n}/kernel/.ATTRIBUTES/VARIABLE_VALUE" for n in (0, 1)
    }


def not_built():
    return tf.keras.Sequential([tf.keras.layers.Dense(4, name="other")], name="net")


def without_variables():
    return tf.no_op()


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (list_in_order, {"a": "matched", "b": "matched"}),
        (list_in_another_order, {"a": "ambiguous", "b": "ambiguous"}),
        (module_with_list, {"a": "matched", "b": "matched"}),
    ],
)
def test_the_objects_that_a_function_returns_are_checked(tmp_path, build, expected):
    weights = [tf.Variable(value, name=name) for name, value in (("a", 1.0), ("b", 2.0))]
    prefix = tf.train.Checkpoint(weights=weights).write(str(tmp_path / "ckpt"))
    fit = check_checkpoint(prefix, f"test_check:{build.__name__}")
    assert statuses(fit) == expected
    assert fit.fits == ("ambiguous" not in expected.values())


@pytest.mark.parametrize("build", [not_built, without_variables])
def test_a_model_without_variables_fits_nothing(jobs, build):
    with pytest.raises(SettingsError, match="no variables"):
        check_checkpoint(jobs / "checkpoint", f"test_check:{build.__name__}")
    with pytest.raises(SettingsError, match="no variables"):
        check_checkpoint(jobs / "checkpoint", {})


def test_objects_of_an_eager_program_are_checked(tmp_path):
    module = tf.Module()
    module.kernel = tf.Variable([1.0])
    prefix = tf.train.Checkpoint(model=module).write(str(tmp_path / "ckpt"))
    assert statuses(check_checkpoint(prefix, module)) == {"kernel": "matched"}
    settings = WarmStart(prefix, root="model")
    assert statuses(check_checkpoint(prefix, module, warm_start=settings)) == {
        "kernel": "warm-started"
    }


def test_names_that_are_no_utf8_are_compared(tmp_path):
    prefix = str(tmp_path / "ckpt")
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=[b"caf\xe9/w"],
        shape_and_slices=[""],
        tensors=[tf.ones([2])],
    )
    fit = check_checkpoint(prefix, prefix)
    assert fit.fits
    assert [row.status for row in fit.rows] == ["matched"]
