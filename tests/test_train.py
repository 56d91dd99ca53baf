"""The job that flags drive. Where it is stopped it is a real process; else it runs in this one."""

import io
import json
import os
import re
import signal
import sys

import numpy as np
import pytest
import tensorflow as tf
import train_jobs
from estimator_jobs import file_format, latest_step, steps_on_disk
from train_runs import JOB, MODEL, Process, losses, run

from estimator_ckpt import cli, open_checkpoint
from estimator_ckpt.jobs.training_hooks import Progress, duration, shown_lines

TRAIN = [*JOB, "--mode=train"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The losses of 12 steps that nothing interrupts."""
    model_dir = tmp_path_factory.mktemp("undisturbed")
    done = run(*TRAIN, f"--model_dir={model_dir}", "--max_steps=12", "--checkpoint_format=saver")
    assert done.code == 0, done.errors
    found = losses(done.output)
    assert sorted(found) == list(range(1, 13))
    assert len(set(found.values())) == 12
    return found


# Stops.


@pytest.mark.faults
@pytest.mark.estimator
@pytest.mark.parametrize(
    ("number", "code", "mode", "next_format"),
    [
        (signal.SIGTERM, 143, "train", "checkpoint"),
        (signal.SIGINT, 130, "train_and_evaluate", "both"),
    ],
)
def test_a_job_stopped_in_mid_run_and_resumed_in_another_format_has_the_losses_of_one_never_stopped(
    undisturbed, tmp_path, number, code, mode, next_format
):
    arguments = [*JOB, f"--mode={mode}", f"--model_dir={tmp_path}", "--max_steps=12"]
    with Process(*arguments, "--checkpoint_format=saver", "--params={hold_at: 5}") as process:
        process.read_until("loss 5 ")
        process.signal(number)
        process.read_until("finishing the step, saving a checkpoint")
        process.send_line()
        assert process.finish() == code, process.errors
    stopped_at = latest_step(tmp_path)
    first = losses(process.output)
    assert stopped_at in (5, 6)
    assert sorted(first) == list(range(1, stopped_at + 1))
    assert file_format(tmp_path) == "saver"
    assert "evaluated" not in process.output

    resumed = run(*arguments, f"--checkpoint_format={next_format}")
    assert resumed.code == 0, resumed.errors
    assert f"resumes at step {stopped_at}, ends at step 12" in resumed.errors
    second = losses(resumed.output)
    assert sorted(second) == list(range(stopped_at + 1, 13))
    assert {**first, **second} == undisturbed
    assert latest_step(tmp_path) == 12
    assert file_format(tmp_path) == next_format


@pytest.mark.estimator
def test_a_stop_before_the_first_step_saves_nothing_and_says_so_by_the_exit_code(
    monkeypatch, tmp_path
):
    def input_fn():
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(train_jobs, "input_fn", input_fn)
    before = signal.getsignal(signal.SIGTERM)
    stopped = run(*TRAIN, f"--model_dir={tmp_path}")
    assert stopped.code == 143
    assert os.listdir(tmp_path) == []
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.estimator
def test_a_stop_during_an_evaluation_leaves_no_metrics_of_a_part_and_nothing_is_lost(
    monkeypatch, tmp_path
):
    input_fn = train_jobs.eval_input_fn

    def eval_input_fn():
        os.kill(os.getpid(), signal.SIGTERM)
        return input_fn()

    monkeypatch.setattr(train_jobs, "eval_input_fn", eval_input_fn)
    saving = ["--save_checkpoints_steps=4", "--eval_throttle_secs=0"]
    stopped = run(*JOB, f"--model_dir={tmp_path}", "--max_steps=12", *saving)
    assert stopped.code == 143
    assert latest_step(tmp_path) == 4
    assert steps_on_disk(tmp_path) == [0, 4]
    assert "evaluated" not in stopped.output


# Modes.


@pytest.mark.estimator
def test_train_and_evaluate_evaluates_after_checkpoints_and_at_the_end(tmp_path):
    done = run(
        *JOB,
        f"--model_dir={tmp_path}",
        "--max_steps=6",
        "--save_checkpoints_steps=3",
        "--eval_throttle_secs=0",
        "--eval_steps=1",
    )
    assert done.code == 0, done.errors
    assert re.findall(r"^evaluated step (\d+): loss [\d.]+, mean ", done.output, re.M) == ["3", "6"]
    assert steps_on_disk(tmp_path) == [0, 3, 6]


@pytest.mark.estimator
def test_evaluate_reads_the_newest_checkpoint_and_writes_none(tmp_path):
    run(*TRAIN, f"--model_dir={tmp_path}", "--train_steps=2")
    done = run(*JOB, "--mode=evaluate", f"--model_dir={tmp_path}")
    assert done.code == 0, done.errors
    assert re.fullmatch(r"evaluated step 2: loss [\d.]+, mean \S+\n", done.output)
    assert steps_on_disk(tmp_path) == [0, 2]


@pytest.mark.estimator
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"task": {"type": "evaluator", "index": 0}}, "TF_CONFIG makes this the evaluator"),
        ({"task": {"type": "ps", "index": 1}}, "1 is not a valid task_id for task_type ps"),
        ({"cluster": 3}, "TF_CONFIG"),
        ([], "TF_CONFIG"),
    ],
)
def test_a_tf_config_that_does_not_fit_is_told_in_a_line(monkeypatch, tmp_path, config, message):
    if "task" in config:
        config["cluster"] = {"chief": ["127.0.0.1:1"], "ps": ["127.0.0.1:2"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    failed = run(*TRAIN, f"--model_dir={tmp_path}")
    assert failed.code == 2
    assert message in failed.errors
    assert len(failed.errors.strip().splitlines()) == 1


# What is given: an Estimator, params, the module's own flags.


@pytest.mark.estimator
def test_a_factory_gets_what_its_arguments_name(tmp_path):
    done = run(
        "--estimator=train_jobs:make_estimator",
        "--train_input_fn=train_jobs:input_fn",
        "--mode=train",
        f"--model_dir={tmp_path}",
        "--max_steps=2",
        "--params={units: 2}",
        "--checkpoint_format=both",
    )
    assert done.code == 0, done.errors
    assert file_format(tmp_path) == "both"
    assert tf.train.load_variable(str(tmp_path), "head/w2").shape == (3, 2)


@pytest.mark.estimator
def test_params_come_from_files_and_from_the_command_line_later_ones_winning(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("units: 3\nscope: layer\n")
    run(
        *TRAIN,
        f"--model_dir={tmp_path / 'run'}",
        "--max_steps=1",
        f"--params={path}",
        "--params={units: 2}",
        "--checkpoint_format=saver",
    )
    assert tf.train.load_variable(str(tmp_path / "run"), "head/w2").shape == (3, 2)
    assert tf.train.load_variable(str(tmp_path / "run"), "layer/kernel").shape == (2, 3)


@pytest.mark.estimator
def test_flags_of_the_models_module_stand_after_two_dashes(tmp_path):
    arguments = [
        *MODEL,
        "--train_input_fn=train_jobs:scaled_input_fn",
        "--params={label: 2.0}",
        "--mode=train",
        "--max_steps=1",
    ]
    plain = run(*arguments, f"--model_dir={tmp_path / 'plain'}")
    scaled = run(
        *arguments, f"--model_dir={tmp_path / 'scaled'}", "--", "--train_jobs_label_scale=100"
    )
    first, second = (float.fromhex(losses(done.output)[1]) for done in (plain, scaled))
    assert second > 1000 > first


@pytest.mark.estimator
def test_a_program_of_others_is_trained_as_it_is_though_it_has_flags_of_the_same_names(tmp_path):
    digits = "estimator_ckpt.examples.digits"
    with Process(
        f"--model_fn={digits}:model_fn",
        f"--train_input_fn={digits}:train_input_fn",
        "--mode=train",
        f"--model_dir={tmp_path}",
        "--max_steps=2",
        "--params={learning_rate: 0.001}",
        "--",
        "--batch_size=8",
    ) as process:
        assert process.finish() == 0, process.errors
    assert latest_step(tmp_path) == 2


# What else a job has: a RunConfig, hooks, exporters.


@pytest.mark.estimator
def test_exporters_follow_each_evaluation_and_the_last_one(tmp_path):
    done = run(
        *JOB,
        "--exporter=train_jobs:make_exporters",
        f"--model_dir={tmp_path}",
        "--max_steps=4",
        "--save_checkpoints_steps=2",
        "--eval_throttle_secs=0",
        "--checkpoint_format=checkpoint",
    )
    assert done.code == 0, done.errors
    assert re.findall(r"^weights of step (\d)$", done.output, re.M) == ["2", "4"]
    exports = {path.name: os.listdir(path) for path in (tmp_path / "export").iterdir()}
    assert {name: len(found) for name, found in exports.items()} == {"best": 1, "final": 1}
    variables = tmp_path / "export" / "final" / exports["final"][0] / "variables" / "variables"
    np.testing.assert_array_equal(
        tf.train.load_variable(str(variables), "dense/kernel"),
        open_checkpoint(tmp_path).get_tensor("dense/kernel"),
    )


@pytest.mark.estimator
@pytest.mark.parametrize(
    "job", [MODEL[:1], ["--estimator=train_jobs:make_estimator"]], ids=["model_fn", "estimator"]
)
def test_a_run_config_of_the_program_counts_where_no_flag_is_given(tmp_path, job):
    def train(name, *arguments):
        done = run(
            *job,
            "--train_input_fn=train_jobs:input_fn",
            "--mode=train",
            "--run_config=train_jobs:make_run_config",
            f"--model_dir={tmp_path / name}",
            "--max_steps=6",
            *arguments,
        )
        assert done.code == 0, done.errors
        return steps_on_disk(tmp_path / name)

    assert train("own") == [4, 6]
    assert train("flags", "--save_checkpoints_steps=1", "--keep_checkpoint_max=3") == [4, 5, 6]
    seeded = [open_checkpoint(tmp_path / n).get_tensor("head/w1") for n in ("own", "flags")]
    np.testing.assert_array_equal(*seeded)


@pytest.mark.estimator
def test_hooks_of_the_program_run_in_the_training_and_get_its_params(tmp_path):
    hooks = "--hooks=train_jobs:make_hooks"
    done = run(*TRAIN, hooks, f"--model_dir={tmp_path}", "--max_steps=9", "--params={stops_at: 3}")
    assert done.code == 0, done.errors
    assert latest_step(tmp_path) == 3
    assert "finished at step 3: the input has ended, or a hook has asked for the end" in done.errors


@pytest.mark.estimator
def test_a_resumed_run_says_what_it_does_not_take_over(tmp_path):
    first = run(*TRAIN, f"--model_dir={tmp_path}", "--max_steps=6", "--save_checkpoints_steps=1",
                "--keep_checkpoint_max=0")  # fmt: skip
    assert "not taken over" not in first.errors
    for name in ("export/best", "eval_dev"):
        (tmp_path / name).mkdir(parents=True)
    hooks = ["--hooks=train_jobs:make_hooks", "--params={stops_at: 9}"]
    second = run(*TRAIN, *hooks, f"--model_dir={tmp_path}", "--max_steps=7")
    assert second.errors.splitlines()[:4] == [
        "not taken over from a program that trained here before: its RunConfig (--run_config), its"
        " exporters (--exporter), hooks of its evaluation, its saving listeners",
        f"no exporter writes to {tmp_path}/export/best: give it as --exporter",
        "evaluations go to eval, not to eval_dev",
        "the state file lists 7 checkpoints, and 5 stay: the first save deletes the others;"
        " --keep_checkpoint_max says how many stay, 0 for all",
    ]
    assert steps_on_disk(tmp_path) == [3, 4, 5, 6, 7]


# What it says of its end.


@pytest.mark.estimator
@pytest.mark.parametrize("mode", ["train", "train_and_evaluate"])
def test_a_finished_job_says_that_it_is_finished(tmp_path, mode):
    arguments = [*JOB, f"--mode={mode}", f"--model_dir={tmp_path}", "--max_steps=2"]
    first = run(*arguments)
    assert re.search(r"^finished at step 2$", first.errors, re.M)
    again = run(*arguments)
    assert again.code == 0
    assert again.errors.splitlines()[-1] == "finished at step 2 before: --max_steps=2 is reached"
    assert "resumes" not in again.errors
    assert "not taken over" not in again.errors


# Mistakes: one line that says what to do, and exit code 2.

MISTAKES = [
    (["--model_fn=no_such_module:f"], "there is no module 'no_such_module'"),
    (["--model_fn=train_jobs.sub:f"], "there is no module 'train_jobs.sub'"),
    (["--model_fn=train_jobs"], "expected package.module:function"),
    (["--model_fn=train_jobs:modelfn"], "did you mean 'model_fn'"),
    (
        ["--model_fn=train_jobs:not_a_function"],
        "expected a function, but train_jobs",
    ),
    (["--model_fn=train_jobs:model_fn_of_wrong_arguments"], "features"),
    (["--model_fn=train_jobs:model_fn_without_params", "--params={a: 1}"], "params"),
    (["--estimator=train_jobs:make_estimator"], "one of the two"),
    (["--model_fn=", "--estimator=train_jobs:make_nothing"], "expected a tf.estimator.Estimator"),
    (["--model_fn=", "--estimator=train_jobs:make_canned", "--params={a: 1}"], "no `params`"),
    (["--model_fn=", "--estimator=train_jobs:input_fn_of_a_path"], "needs 'path'"),
    (["--train_input_fn=train_jobs:input_fn_of_a_path"], "needs 'path'"),
    (["--train_input_fn="], "--mode=train needs it"),
    (["--params=missing.yaml"], "there is no such file"),
    (["--params={a: [}"], "no YAML"),
    (["--params=3"], "expected a file, or a YAML mapping"),
    (["--params=[1]"], "expected a file, or a YAML mapping"),
    (["--mode=tune"], "--mode=tune"),
    (["--max_steps=0"], "--max_steps=0"),
    (["--max_stepz=1"], "did you mean '--max_steps'"),
    (["--model_dir="], "model_dir should be non-empty"),
    (["--save_checkpoints_steps=1", "--save_checkpoints_secs=1"], "not both"),
    (["--keep_checkpoint_every_n_hours=-1"], "keep_checkpoint_every_n_hours should be > 0"),
    (["--warm_start_from=no/such/checkpoint"], "no/such/checkpoint"),
    (["--warm_start_config=no_such.yaml"], "no_such.yaml"),
    (["--ignore_missing_vars"], "--warm_start_from"),
    (["--run_config=train_jobs:make_nothing"], "needs 'config'"),
    (["--run_config=train_jobs:Model"], "expected a tf.estimator.RunConfig"),
    (["--hooks=train_jobs:make_three"], "expected a SessionRunHook or a list of them"),
    (["--hooks=train_jobs:make_hookz"], "did you mean 'make_hooks'"),
    (["--exporter=train_jobs:make_exporters"], "--mode=train exports nothing"),
    (["argument"], "unexpected arguments: argument"),
    (["--", "--no_such_flag=1"], "no_such_flag"),
]


@pytest.mark.estimator
@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(m[0]) for m in MISTAKES])
def test_a_mistake_is_told_in_a_line_or_a_table_without_a_traceback(tmp_path, arguments, message):
    failed = run(*TRAIN, f"--model_dir={tmp_path / 'run'}", "--max_steps=1", *arguments)
    assert failed.code == 2
    assert message in failed.errors
    assert "Traceback" not in failed.errors
    assert not (tmp_path / "run").exists() or latest_step_or_none(tmp_path / "run") is None


def latest_step_or_none(model_dir):
    return tf.train.latest_checkpoint(str(model_dir))


@pytest.mark.estimator
@pytest.mark.parametrize("where", ["--model_fn=train_jobs:failing_model_fn",
                                   "--train_input_fn=train_jobs:failing_input_fn"])  # fmt: skip
def test_what_the_users_own_code_raises_keeps_its_traceback(tmp_path, where):
    with pytest.raises(ZeroDivisionError, match="the user's own"):
        run(*TRAIN, f"--model_dir={tmp_path}", "--max_steps=1", where)


@pytest.mark.estimator
def test_a_tf_config_that_is_no_json_is_a_mistake(monkeypatch, tmp_path):
    monkeypatch.setenv("TF_CONFIG", "{cluster")
    failed = run(*TRAIN, f"--model_dir={tmp_path}")
    assert failed.code == 2
    assert "TF_CONFIG" in failed.errors


def test_without_estimators_the_verb_says_what_to_install(monkeypatch, tmp_path):
    class NoEstimator:
        def __getattr__(self, name):
            raise AttributeError(name)

    monkeypatch.setattr(tf, "estimator", NoEstimator(), raising=False)
    failed = run(*TRAIN, f"--model_dir={tmp_path}")
    assert failed.code == 2
    assert "pip install 'estimator-ckpt[estimator]'" in failed.errors
    assert len(failed.errors.strip().splitlines()) == 1


def test_help_tells_every_flag_in_a_line_of_less_than_a_hundred_characters(capsys):
    assert cli.main(["train", "--help"]) == 0
    told = capsys.readouterr().out
    for name in ("model_fn", "estimator", "max_steps", "checkpoint_format", "init_checkpoint"):
        assert re.search(rf"^  --{name}=", told, re.M)
    assert max(map(len, told.splitlines())) < 100


# Progress.


class Steps:
    """A session of 100 steps a second, in the time of its own clock."""

    def __init__(self, graph, every_secs, model_dir="run"):
        self.lines = []
        self.seconds = 0.0
        self.step = tf.compat.v1.train.get_or_create_global_step()
        self.loss = tf.constant(0.25)
        tf.compat.v1.add_to_collection("losses", self.loss)
        self.train = tf.compat.v1.assign_add(self.step, 1)
        self.hook = Progress(1000, model_dir, every_secs, self.show, lambda: self.seconds)

    def show(self, line, passes=False):
        self.lines.append(line)

    def run(self, count):
        with tf.compat.v1.train.MonitoredSession(hooks=[self.hook]) as session:
            for _ in range(count):
                self.seconds += 0.01
                session.run(self.train)


def test_progress_tells_step_speed_loss_checkpoint_and_time_to_go(graph, tmp_path):
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-50"\n')
    job = Steps(graph, every_secs=0.995, model_dir=str(tmp_path))
    job.run(200)
    assert job.lines == [
        f"starts at step 0, ends at step 1,000; model_dir {tmp_path}",
        "step 100 of 1,000 (10 %), 100 steps/s, loss 0.25, checkpoint model.ckpt-50, 0:09 to go",
        "step 200 of 1,000 (20 %), 100 steps/s, loss 0.25, checkpoint model.ckpt-50, 0:08 to go",
    ]
    assert job.hook.step == 200


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0:00"),
        (-1, "0:00"),
        (59.6, "1:00"),
        (723, "12:03"),
        (3723, "1:02:03"),
        (86400, "1 day 0:00:00"),
        (2 * 86400 + 3601, "2 days 1:00:01"),
    ],
)
def test_durations_read_as_a_clock_shows_them(seconds, told):
    assert duration(seconds) == told


def test_on_a_terminal_a_line_that_passes_makes_way_and_others_stay(monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with shown_lines() as show:
        show("starts")
        show("step 1", passes=True)
        print("to a file")
        show("step 2", passes=True)
    assert re.search(r"starts\n.*step 1.*\x1b\[2K.*step 2.*\x1b\[2K", terminal.getvalue(), re.S)
    assert "to a file" not in terminal.getvalue()
    assert capsys.readouterr().out == "to a file\n"
