"""Every public door refuses what it cannot take, at once and in words of this package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from golden_files import golden_case

import estimator_ckpt as ec
from estimator_ckpt.errors import NotACheckpointError, SettingsError
from estimator_ckpt.files import path_text
from estimator_ckpt.flags import define_flags

v1 = tf.compat.v1

GOOD = golden_case("2.15", "name_based").prefix
NO_PATHS = (None, 5, b"run/model.ckpt-1", ["run"])


def model_fn(features, labels, mode):
    raise AssertionError("nothing builds the model")


class Model:
    """What is no trackable object, and no function."""


def keras_like():
    """A trackable object that can be called, as a Keras model is."""

    class Callable(tf.Module):
        def __call__(self, inputs):
            return inputs

    return Callable()


def needs_an_argument(mode):
    raise AssertionError(mode)


FACTORIES = {
    "saver_scaffold": ec.saver_scaffold,
    "checkpoint_scaffold": ec.checkpoint_scaffold,
    "dual_scaffold": ec.dual_scaffold,
    "make_scaffold": lambda **arguments: ec.make_scaffold("both", **arguments),
    "wrap_model_fn": lambda **arguments: ec.wrap_model_fn(model_fn, **arguments),
}
# Of every factory and wrapper, the arguments with values that it cannot take.
EVERYWHERE = [
    ("warm_start", 5),
    ("warm_start", ""),
    ("warm_start", Model()),
    ("keep_checkpoint_max", -1),
    ("keep_checkpoint_max", True),
    ("keep_checkpoint_max", "5"),
    ("keep_checkpoint_every_n_hours", 0),
    ("keep_checkpoint_every_n_steps", 0),
    ("keep_best", "accuracy"),
    ("deletion_grace_secs", -1.0),
    ("deletion_grace_secs", None),
    ("on_missing", "ignore"),
    ("on_missing", None),
    ("on_missing", {"(": "init"}),
    ("match_by", "names"),
    ("ema", ""),
    ("ema", 0.99),
    ("colour", "red"),
]
OBJECTS = [
    ("checkpoint", "run"),
    ("checkpoint", 5),
    ("checkpoint", Model()),
    ("checkpoint", [Model()]),
    ("checkpoint", {"net": Model()}),
    ("checkpoint", {1: 2}),
    ("checkpoint", keras_like()),
    ("checkpoint", needs_an_argument),
]
SCAFFOLDS = [("base", "x"), ("base", 5), ("run_config", "x"), ("run_config", {})]


def calls():
    """(door and argument, call, the key that the error has)."""
    for door, make in FACTORIES.items():
        wrong = [*EVERYWHERE]
        wrong += OBJECTS if door != "saver_scaffold" else [("var_list", "w"), ("var_list", 5)]
        wrong += SCAFFOLDS if door != "wrap_model_fn" else []
        for name, value in wrong:
            key = "ckpt_to_initialize_from" if value == "" and name == "warm_start" else name
            yield f"{door}({name}={value!r})", lambda m=make, n=name, v=value: m(**{n: v}), key
    for value in (None, "tf2", 2, ["saver"]):
        for door, make in (("make_scaffold", ec.make_scaffold), ("wrap_model_fn", wrap_as)):
            yield f"{door}({value!r})", lambda m=make, v=value: m(v), "checkpoint_format"
    for value in (None, 5, "model_fn", keras_like(), Model, Model()):
        yield (f"wrap_model_fn({value!r})", lambda v=value: ec.wrap_model_fn(v), "model_fn")
    for value in NO_PATHS:
        for door, call, key in (
            ("open_checkpoint", ec.open_checkpoint, "path"),
            ("verify_checkpoint", ec.verify_checkpoint, "path"),
            ("compare_checkpoints", lambda v: ec.compare_checkpoints(v, GOOD), "path"),
            ("compare_checkpoints", lambda v: ec.compare_checkpoints(GOOD, v), "path"),
            ("check_checkpoint", lambda v: ec.check_checkpoint(v, {}), "path"),
            ("check_checkpoint", lambda v: ec.check_checkpoint(GOOD, v), "expected"),
            ("convert_checkpoint", lambda v: ec.convert_checkpoint(v, "x", "both"), "path"),
            (
                "convert_checkpoint",
                lambda v: ec.convert_checkpoint(GOOD, v, "both"),
                "destination",
            ),
            ("load_warm_start", ec.load_warm_start, "path"),
            ("WarmStart", ec.WarmStart, "ckpt_to_initialize_from"),
        ):
            yield f"{door}({value!r})", lambda c=call, v=value: c(v), key
    for name, value in (
        ("like", 5),
        ("hyperparameters", ["iter"]),
        ("hyperparameters", 5),
        ("layout", "tree"),
        ("dtype", 16),
        ("rename", "a:b"),
        ("rename", 5),
        ("assignment_map", "a:b"),
        ("exclude", "a"),
        ("exclude", [5]),
        ("copy", "no"),
        ("in_place", 1),
        ("verify", "yes"),
        ("checkpoint_format", "tf2"),
    ):
        arguments = {"checkpoint_format": "both", name: value}
        yield (
            f"convert_checkpoint({name}={value!r})",
            lambda a=arguments: ec.convert_checkpoint(GOOD, "x", **a),
            name,
        )
    for name, value in (("rtol", "1"), ("rtol", -1), ("atol", None), ("atol", float("nan"))):
        yield (
            f"compare_checkpoints({name}={value!r})",
            lambda n=name, v=value: ec.compare_checkpoints(GOOD, GOOD, **{n: v}),
            name,
        )
    yield (
        "check_checkpoint(warm_start='x')",
        lambda: ec.check_checkpoint(GOOD, {}, warm_start="x"),
        "warm_start",
    )


def wrap_as(checkpoint_format):
    return ec.wrap_model_fn(model_fn, checkpoint_format)


CALLS = list(calls())
IDS = [re.sub(" at 0x[0-9a-f]+", "", one[0]) for one in CALLS]


@pytest.mark.parametrize(("call", "key"), [one[1:] for one in CALLS], ids=IDS)
def test_a_wrong_argument_is_an_error_of_the_call_itself(call, key, graph):
    with pytest.raises(SettingsError) as caught:
        call()
    assert (caught.value.key or "").startswith(key)
    assert not v1.global_variables()


@pytest.mark.parametrize("variables", [None, 5, "w", [5], {"w": 5}])
def test_a_warm_start_of_what_are_no_variables_is_refused(variables):
    with pytest.raises(SettingsError):
        ec.WarmStart(GOOD).apply(variables)


def test_a_saver_whose_scaffold_was_not_finalized_says_how_to(graph, tmp_path):
    v1.get_variable("w", initializer=1.0)
    init = v1.global_variables_initializer()
    scaffold = ec.checkpoint_scaffold()
    graph.finalize()
    with v1.Session() as session:
        session.run(init)
        for use in (scaffold.saver.save, scaffold.saver.restore):
            with pytest.raises(SettingsError, match=r"call finalize\(\) on its Scaffold"):
                use(session, str(tmp_path / "model.ckpt"))
    assert not list(tmp_path.iterdir())


# --- `~` -------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home directory with a checkpoint in it; the current one is another, and stays empty."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    ec.convert_checkpoint(GOOD, tmp_path / "home" / "run" / "model.ckpt-7", "both")
    yield tmp_path / "home"
    assert not list((tmp_path / "here").iterdir())


def test_a_tilde_is_the_home_directory_for_every_door_of_files(home):
    run, prefix = "~/run", "~/run/model.ckpt-7"
    assert ec.open_checkpoint(run).prefix == str(home / "run" / "model.ckpt-7")
    assert ec.open_checkpoint(Path(prefix)).format == "both"
    assert ec.verify_checkpoint(prefix).ok
    assert ec.compare_checkpoints(prefix, run).equal
    assert ec.check_checkpoint(run, prefix).fits
    ec.convert_checkpoint(prefix, "~/new/", "checkpoint", like=prefix)
    assert (home / "new" / "model.ckpt-7.index").exists()


def test_a_tilde_is_the_home_directory_in_settings_and_flags(home):
    (home / "rules.yaml").write_text("ckpt_to_initialize_from: ~/run\n", encoding="utf-8")
    assert ec.load_warm_start("~/rules.yaml").ckpt_to_initialize_from == str(home / "run")
    words = {"new_vocab_size": 2, "num_oov_buckets": 0, "old_vocab": "/words"}
    given = {"table": {"new_vocab": "~/words", **words}}
    settings = ec.WarmStart("~/run", var_name_to_vocab_info=given)
    assert settings.ckpt_to_initialize_from == str(home / "run")
    assert settings.var_name_to_vocab_info["table"]["new_vocab"] == str(home / "words")
    assert settings.var_name_to_vocab_info["table"]["old_vocab"] == "/words"
    from absl import flags

    values = flags.FlagValues()
    job = define_flags(flag_values=values)
    values(["job", "--model_dir=~/run", "--warm_start_from=~/run"])
    assert job.value("model_dir") == str(home / "run")
    assert job.warm_start().ckpt_to_initialize_from == str(home / "run")


def test_the_command_expands_what_a_shell_does_not(home):
    from estimator_ckpt import cli

    assert cli.main(["verify", "~/run/model.ckpt-7"]) == 0
    assert cli.main(["check", "--model=~/run", "~/run/model.ckpt-7"]) == 0
    command = ["convert", "--checkpoint_format=checkpoint", "--like=~/run", "--log=~/log"]
    assert cli.main([*command, "~/run", "~/tree"]) == 0
    assert {"log", "tree"} <= set(os.listdir(home))


def test_a_directory_that_is_called_tilde_is_found_by_the_saver_that_wrote_there(
    graph, tmp_path, monkeypatch
):
    """RunConfig("~/run") makes one, and names it so."""
    monkeypatch.chdir(tmp_path)
    v1.get_variable("w", initializer=1.0)
    init = v1.global_variables_initializer()
    scaffold = ec.checkpoint_scaffold().finalize()
    os.makedirs("~/run")
    with v1.Session() as session:
        session.run(init)
        prefix = scaffold.saver.save(session, "~/run/model.ckpt", write_meta_graph=False)
        scaffold.saver.restore(session, prefix)


@pytest.mark.parametrize("given", ["gs://~/x", "a/~/b", "~nobody-of-this-name/x", "/~", ""])
def test_other_tildes_stay(given):
    assert path_text(given) == given


def test_an_empty_path_is_no_checkpoint():
    with pytest.raises(NotACheckpointError, match="found an empty one"):
        ec.open_checkpoint("")


# --- `train` ---------------------------------------------------------------------------------


@pytest.mark.estimator
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--model_dir.*say where checkpoints are to be"),
        (["--model_dir=job.py"], "--model_dir.*expected a directory, found a file"),
        (["--model_dir=run", "--mode=train", "--ema=average"], "--ema.*--mode=train does neither"),
    ],
)
def test_train_refuses_in_one_line(flags, message, tmp_path):
    import re

    (tmp_path / "job.py").write_text("raise AssertionError('it is loaded')\n", encoding="utf-8")
    command = [sys.executable, "-m", "estimator_ckpt", "train", "--model_fn=job:model_fn"]
    done = subprocess.run(
        [*command, "--train_input_fn=job:input_fn", *flags],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("estimator-ckpt: ")
    assert re.search(message, line)
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == ["job.py"]
