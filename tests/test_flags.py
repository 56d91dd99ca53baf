"""The flags of a program, read through a main of its own; what they make."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import train_jobs
from absl import flags
from absl.testing import flagsaver
from estimator_jobs import file_format
from graph_jobs import build_plain_model, latest, run_job

from estimator_ckpt.errors import SettingsError
from estimator_ckpt.flags import define_flags
from estimator_ckpt.options import SaverOptions
from estimator_ckpt.warm_start import WarmStart

NAMES = (
    "model_dir",
    "checkpoint_format",
    "save_checkpoints_steps",
    "save_checkpoints_secs",
    "keep_checkpoint_max",
    "keep_checkpoint_every_n_hours",
    "keep_checkpoint_every_n_steps",
    "keep_best",
    "reset",
    "reset_once",
    "deletion_grace_secs",
    "on_missing",
    "match_by",
    "durable",
    "async_checkpoint",
    "on_corrupt",
    "check_data",
    "ema",
    "save_input",
    "on_input_change",
    "on_unsavable_input",
    "save_input_max_bytes",
    "warm_start_from",
    "warm_start_config",
    "warm_start_override",
    "warm_start_dry_run",
    "checkpoint_exclude_scopes",
    "ignore_missing_vars",
    "init_checkpoint",
)

# A program, as its main would be: its flags at import, what they make when it runs.
JOB = define_flags(prefix="test_flags_")


def main(argv):
    """Two steps in a MonitoredTrainingSession, checkpoints as the flags say."""
    del argv
    return run_job(JOB.value("model_dir"), scaffold=JOB.scaffold, build=build_plain_model)


def train_estimator(steps):
    config = JOB.run_config(tf_random_seed=1)
    estimator = tf.estimator.Estimator(
        JOB.wrap_model_fn(train_jobs.model_fn), config=config, params={}
    )
    estimator.train(train_jobs.input_fn, max_steps=steps)
    return estimator


@pytest.fixture
def given():
    """Sets flags of the program, by the names without its prefix."""
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver():

        def give(**values):
            for name, value in values.items():
                flags.FLAGS[f"test_flags_{name}"].value = value

        yield give


def parsed(*arguments, prefix=""):
    """The JobFlags of a command line, in FlagValues of their own."""
    values = flags.FlagValues()
    job = define_flags(prefix, values)
    values(["program", *map(str, arguments)])
    return job


# Definition.


def test_importing_the_module_defines_no_flag():
    script = (
        "from absl import flags; before = set(flags.FLAGS); import estimator_ckpt.flags; "
        "assert set(flags.FLAGS) == before; assert 'tensorflow' not in __import__('sys').modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize("prefix", ["", "ckpt_"])
def test_a_call_defines_every_flag_with_the_prefix_and_a_help_that_uses_it(prefix):
    values = flags.FlagValues()
    define_flags(prefix, values)
    assert set(values) == {prefix + name for name in NAMES}
    for name in values:
        assert values[name].help
        assert all(mentioned in values for mentioned in re.findall(r"--(\w+)", values[name].help))


def test_the_help_of_a_program_lists_the_flags_as_its_own(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from absl import app\nfrom estimator_ckpt.flags import define_flags\n"
        "define_flags('ckpt_')\napp.run(lambda _: None)\n"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[1])}
    told = subprocess.run(
        [sys.executable, str(program), "--help"], env=environment, capture_output=True, text=True
    ).stdout
    assert str(program) in told
    assert "--ckpt_checkpoint_format: <saver|checkpoint|both>" in told
    assert "Alias for --ckpt_warm_start_from." in told


def test_a_second_call_gives_the_same_flags():
    values = flags.FlagValues()
    define_flags("", values)
    second = define_flags("", values)
    values(["program", "--model_dir=run"])
    assert second.value("model_dir") == "run"


def test_a_clash_names_the_flag_and_the_file_that_has_it_and_defines_nothing():
    values = flags.FlagValues()
    flags.DEFINE_string("model_dir", None, "Theirs.", flag_values=values)
    with pytest.raises(SettingsError) as failed:
        define_flags("", values)
    message = str(failed.value)
    assert "--model_dir" in message
    assert "test_flags" in message
    assert "use_existing=['model_dir']" in message
    assert 'prefix="ckpt_"' in message
    assert set(values) == {"model_dir"}


def test_a_prefix_and_the_programs_own_flags_both_end_a_clash():
    values = flags.FlagValues()
    flags.DEFINE_string("model_dir", None, "Theirs.", flag_values=values)
    flags.DEFINE_string("init_checkpoint", None, "Theirs.", flag_values=values)
    job = define_flags("", values, use_existing=["model_dir", "init_checkpoint"])
    with_prefix = define_flags("ckpt_", values)
    values(["program", "--model_dir=a", "--init_checkpoint=b", "--ckpt_model_dir=c"])
    assert (job.value("model_dir"), with_prefix.value("model_dir")) == ("a", "c")
    assert job.warm_start() == WarmStart("b")
    assert with_prefix.warm_start() is None
    values(["program", "--warm_start_from=other"])
    with pytest.raises(SettingsError, match="different checkpoints"):
        job.warm_start()


def test_use_existing_has_to_name_flags_that_are_there():
    with pytest.raises(SettingsError, match="no such flag"):
        define_flags("", flags.FlagValues(), use_existing=["modeldir"])
    values = flags.FlagValues()
    job = define_flags("", values, use_existing=["model_dir"])
    values(["program"])
    with pytest.raises(SettingsError, match="not defined"):
        job.value("model_dir")


def test_flags_that_have_not_been_parsed_have_no_value():
    with pytest.raises(flags.UnparsedFlagAccessError):
        define_flags("", flags.FlagValues()).saver_options()


# SaverOptions.


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("--keep_checkpoint_max=0", {"keep_checkpoint_max": 0}),
        ("--keep_checkpoint_every_n_hours=1.5", {"keep_checkpoint_every_n_hours": 1.5}),
        ("--keep_checkpoint_every_n_steps=7", {"keep_checkpoint_every_n_steps": 7}),
        ("--reset=head/.{1,2}", {"reset": ["head/.{1,2}"]}),
        ("--keep_best=loss:3:min", {"keep_best": (("loss", 3, "min"),)}),
        ("--deletion_grace_secs=30", {"deletion_grace_secs": 30.0}),
        ("--on_missing=init", {"on_missing": "init"}),
        ("--on_missing={head/.*: init}", {"on_missing": {"head/.*": "init"}}),
        ("--match_by=name", {"match_by": "name"}),
        ("--durable", {"durable": True}),
        ("--async_checkpoint", {"async_checkpoint": True}),
        ("--on_corrupt=fall_back", {"on_corrupt": "fall_back"}),
        ("--check_data", {"check_data": True}),
        ("--ema=average", {"ema": "average"}),
    ],
)
def test_saver_options_are_those_that_the_flags_give(argument, options):
    assert parsed(argument).saver_options() == SaverOptions(**options)


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ("--ckpt_on_missing=ignore", "--ckpt_on_missing"),
        ("--ckpt_on_missing={", "--ckpt_on_missing"),
        ("--ckpt_keep_checkpoint_every_n_hours=0", "--ckpt_keep_checkpoint_every_n_hours"),
    ],
)
def test_an_option_out_of_its_range_is_an_error_of_the_flag(argument, key):
    with pytest.raises(SettingsError) as failed:
        parsed(argument, prefix="ckpt_").saver_options()
    assert failed.value.key == key


# WarmStart.

WARM_STARTS = [
    ([], {}),
    (["--warm_start_override=on_missing=init"], {"on_missing": "init"}),
    (
        ["--warm_start_override=on_missing.a.b/.*=init"],
        {"on_missing": {"a.b/.*": "init", ".*": "error"}},
    ),
    (
        ["--warm_start_override=on_missing=warn", "--warm_start_override=on_missing.a=error"],
        {"on_missing": {"a": "error", ".*": "warn"}},
    ),
    (
        ['--warm_start_override=vars_to_warm_start=[".*"]'],
        {"vars_to_warm_start": [".*"]},
    ),
    (["--warm_start_override=vars_to_warm_start=null"], {"vars_to_warm_start": None}),
    (["--warm_start_override=exclude=[a, b]"], {"exclude": ["a", "b"]}),
    (
        ["--warm_start_override=exclude=[a, b]", "--warm_start_override=exclude.1=c"],
        {"exclude": ["a", "c"]},
    ),
    (["--warm_start_override=assignment_map.0=[a/, b/]"], {"assignment_map": [("a/", "b/")]}),
    (["--warm_start_override=rename={a: b}"], {"rename": [("a", "b")]}),
    (
        ["--warm_start_override=var_name_to_prev_var_name.a.b=c"],
        {"var_name_to_prev_var_name": {"a.b": "c"}},
    ),
    (["--warm_start_override=require_all_rules_match=false"], {"require_all_rules_match": False}),
    (["--ignore_missing_vars"], {"on_missing": "warn"}),
    (["--ignore_missing_vars", "--warm_start_override=on_missing=init"], {"on_missing": "init"}),
    (["--checkpoint_exclude_scopes=head/,a.b"], {"exclude": ["head/.*", r"a\.b.*"]}),
]


def comparable(settings):
    pairs = {name: [tuple(pair) for pair in getattr(settings, name)] for name in PAIRS}
    return {**vars(settings), **pairs}


PAIRS = ("assignment_map", "rename")


@pytest.mark.parametrize(("arguments", "fields"), WARM_STARTS)
@pytest.mark.parametrize("name", ["warm_start_from", "init_checkpoint"])
def test_a_warm_start_has_the_fields_that_the_flags_give(name, arguments, fields):
    settings = parsed(f"--{name}=old/model.ckpt-3", *arguments).warm_start()
    assert comparable(settings) == comparable(WarmStart("old/model.ckpt-3", **fields))


def test_flags_win_over_the_file(tmp_path):
    path = tmp_path / "warm_start.yaml"
    path.write_text("ckpt_to_initialize_from: file\non_missing: warn\nexclude: [a]\n")
    settings = parsed(
        f"--warm_start_config={path}",
        "--warm_start_from=flag",
        "--warm_start_override=on_unexpected=error",
        "--checkpoint_exclude_scopes=b",
    ).warm_start()
    assert settings == WarmStart(
        "flag", on_missing="warn", on_unexpected="error", exclude=["a", "b.*"]
    )
    assert parsed(f"--warm_start_config={path}").warm_start().ckpt_to_initialize_from == "file"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("on_mising=init", "did you mean 'on_missing'"),
        ("on_missing", "expected FIELD=VALUE"),
        ("on_missing.=init", "expected FIELD=VALUE"),
        ("on_missing=ignore", "ignore"),
        ("exclude=[", "no YAML"),
        ("exclude=a", "expected a list"),
        ("exclude.7=a", "the number of a line, 0 to 0"),
        ("exclude.a=a", "the number of a line, 0 to 0"),
        ("ckpt_to_initialize_from.a=b", "has no items"),
        ("ckpt_to_initialize_from=3", "the path of a checkpoint"),
        ("var_name_to_vocab_info.a.new_vocabulary=b", "no such field; did you mean 'new_vocab'"),
        ("var_name_to_vocab_info.a.new_vocab=b", "expected new_vocab_size, num_oov_buckets"),
        ("var_name_to_vocab_info.a=3", "var_name_to_vocab_info"),
        ("var_name_to_prev_var_name=3", "a mapping"),
        ("var_name_to_prev_var_name.a=3", "a variable name"),
    ],
)
def test_a_wrong_override_is_an_error_that_names_it(override, message):
    job = parsed("--warm_start_from=old", f"--warm_start_override={override}")
    with pytest.raises(SettingsError, match=re.escape(message)) as failed:
        job.warm_start()
    assert "--warm_start_override" in str(failed.value)


@pytest.mark.parametrize(
    "argument",
    [
        "--warm_start_override=on_missing=init",
        "--warm_start_dry_run",
        "--checkpoint_exclude_scopes=head",
        "--ignore_missing_vars",
    ],
)
def test_flags_about_a_warm_start_need_one(argument):
    with pytest.raises(SettingsError, match="it needs --warm_start_from"):
        parsed(argument).warm_start()


# The Scaffold, through a MonitoredTrainingSession.


@pytest.mark.parametrize("checkpoint_format", ["saver", "checkpoint", "both"])
def test_a_scaffold_writes_the_format(given, tmp_path, checkpoint_format):
    given(model_dir=str(tmp_path), checkpoint_format=checkpoint_format)
    main([])
    found = {key for key, _ in tf.train.list_variables(latest(tmp_path))}
    assert ("scope/w" in found) == (checkpoint_format != "checkpoint")
    assert any("var_list" in key for key in found) == (checkpoint_format != "saver")


def test_a_scaffold_warm_starts(given, tmp_path):
    given(model_dir=str(tmp_path / "old"))
    _, trained = main([])
    given(model_dir=str(tmp_path / "new"), warm_start_from=str(tmp_path / "old"))
    start, _ = main([])
    np.testing.assert_array_equal(start["scope/w"], trained["scope/w"])
    assert start["global_step"] == 0


def test_a_dry_run_of_a_scaffold_prints_and_ends_the_program(given, tmp_path, capsys):
    given(model_dir=str(tmp_path / "old"))
    main([])
    new = tmp_path / "new"
    given(model_dir=str(new), warm_start_from=str(tmp_path / "old"), warm_start_dry_run=True)
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    assert re.search(r"warm-started +scope/w ", capsys.readouterr().out)
    assert not new.exists()

    given(model_dir=str(tmp_path / "old"))
    with pytest.raises(SystemExit):
        main([])
    assert "there would be no warm start" in capsys.readouterr().out


# A clean stop, and where a job will resume.


def test_the_hooks_stop_a_session_on_a_signal(given, tmp_path):
    given(model_dir=str(tmp_path))
    before = signal.getsignal(signal.SIGTERM)

    class Sends(tf.compat.v1.train.SessionRunHook):
        def after_run(self, run_context, run_values):
            os.kill(os.getpid(), signal.SIGTERM)

    with tf.Graph().as_default():
        op = build_plain_model()
        session = tf.compat.v1.train.MonitoredTrainingSession(
            checkpoint_dir=JOB.value("model_dir"),
            scaffold=JOB.scaffold(),
            hooks=[Sends(), *JOB.hooks()],
        )
        session.run(op)
        assert session.should_stop()
        with pytest.raises(SystemExit) as exited:
            session.close()
    assert exited.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert JOB.resume_point().path == str(tmp_path / "model.ckpt-1")
    assert JOB.resume_point(max_steps=1).finished


def test_a_resume_point_needs_a_model_dir():
    with pytest.raises(SettingsError, match="where checkpoints are"):
        parsed(prefix="ckpt_").resume_point()


# RunConfig, model_fn and Estimator.


@pytest.mark.estimator
@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ([], {"model_dir": None, "save_checkpoints_secs": 600, "keep_checkpoint_max": 5}),
        (["--model_dir=run"], {"model_dir": "run"}),
        (["--save_checkpoints_steps=7"], {"save_checkpoints_steps": 7}),
        (["--save_checkpoints_steps=7"], {"save_checkpoints_secs": None}),
        (["--save_checkpoints_secs=7"], {"save_checkpoints_secs": 7}),
        (["--keep_checkpoint_max=0"], {"keep_checkpoint_max": 0}),
        (["--keep_checkpoint_every_n_hours=2"], {"keep_checkpoint_every_n_hours": 2.0}),
    ],
)
def test_a_run_config_has_what_the_flags_give(arguments, settings):
    config = parsed(*arguments).run_config()
    assert {name: getattr(config, name) for name in settings} == settings


@pytest.mark.estimator
def test_a_flag_that_is_given_wins_over_the_programs_own_settings():
    job = parsed("--save_checkpoints_secs=9", "--keep_checkpoint_max=2")
    config = job.run_config(save_checkpoints_steps=5, keep_checkpoint_max=7, tf_random_seed=3)
    assert (config.save_checkpoints_secs, config.save_checkpoints_steps) == (9, None)
    assert (config.keep_checkpoint_max, config.tf_random_seed) == (2, 3)


@pytest.mark.estimator
def test_a_program_moves_to_another_format_by_its_flags_alone(given, tmp_path):
    given(model_dir=str(tmp_path), checkpoint_format="saver", save_checkpoints_steps=1)
    train_estimator(2)
    assert file_format(tmp_path) == "saver"
    given(checkpoint_format="checkpoint", keep_checkpoint_max=2)
    train_estimator(4)
    assert file_format(tmp_path) == "checkpoint"
    assert len(tf.train.get_checkpoint_state(str(tmp_path)).all_model_checkpoint_paths) == 2


@pytest.mark.estimator
def test_a_canned_estimator_is_wrapped_and_told_about_as_well(given, tmp_path, capsys):
    def input_fn():
        return tf.data.Dataset.from_tensors(({"x": [[1.0, 2.0]]}, [[1.0]])).repeat()

    def train(model_dir):
        job = JOB.wrap_estimator(train_jobs.make_canned(str(model_dir)))
        job.train(input_fn, steps=1)

    train(tmp_path / "old")
    assert file_format(tmp_path / "old") == "checkpoint"
    given(warm_start_from=str(tmp_path / "old"), warm_start_dry_run=True)
    with pytest.raises(SystemExit):
        train(tmp_path / "new")
    assert re.search(r"warm-started +\S+/x/weights ", capsys.readouterr().out)
