"""docs/switching.md: what it tells one to type exists, and its way there and back is gone here."""

import importlib
import re
import shlex
import shutil
from pathlib import Path

import pytest
import tensorflow as tf
import train_jobs
from absl import flags
from estimator_jobs import file_format, latest_step, run_config
from train_runs import JOB, losses, run

import estimator_ckpt
from estimator_ckpt import cli
from estimator_ckpt.flags import JobFlags

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "switching.md").read_text()
SHELL = [
    shlex.split(line)
    for block in re.findall(r"```sh\n(.*?) *```", PAGE, re.S)
    for line in block.splitlines()
]
COMMANDS = [words for words in SHELL if words[0] == "estimator-ckpt"]


def flags_of(verb):
    values = flags.FlagValues()
    importlib.import_module(f"estimator_ckpt.commands.{verb}").define(values)
    return set(values)


def test_the_readme_leads_to_the_page():
    assert "(docs/switching.md)" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_has_a_verb_and_flags_that_there_are(words):
    assert words[1] in cli.VERBS
    used = {word[2:].partition("=")[0] for word in words[2:] if word.startswith("--")}
    assert used <= flags_of(words[1]) | {"flagfile"}


def test_every_other_line_for_a_shell_is_one_of_a_system():
    assert {words[0] for words in SHELL} == {"estimator-ckpt", "mkdir", "cp"}


def test_flags_in_the_text_are_flags_of_train():
    text = re.sub(r"```.*?```", "", PAGE, flags=re.S)
    assert set(re.findall(r"--(\w+)", text)) <= flags_of("train")


def test_files_that_it_names_are_there():
    linked = re.findall(r"\]\(\.\./([^)]*)\)", PAGE) + re.findall(r"=(configs/\S+)", PAGE)
    assert linked
    assert [path for path in linked if not (ROOT / path).exists()] == []


def test_python_names_are_there():
    names = set(re.findall(r"\b(\w+)\(", PAGE)) & {*estimator_ckpt.__all__}
    assert names == {"open_checkpoint", "stop_hook", "wrap_model_fn"}
    for name in re.findall(r"JOB\.(\w+)\(", PAGE):
        assert callable(getattr(JobFlags, name))


@pytest.mark.estimator
def test_the_way_from_a_stock_job_to_tf2_and_back_to_a_stock_job(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(ROOT)
    model_dir, before = tmp_path / "run", tmp_path / "run_before"

    def stock(model_dir, steps):
        config = run_config(model_dir, tf_random_seed=1)
        job = tf.estimator.Estimator(train_jobs.model_fn, config=config, params={})
        job.train(train_jobs.input_fn, max_steps=steps)

    def train(steps, *arguments):
        done = run(
            *JOB, "--mode=train", f"--model_dir={model_dir}", f"--max_steps={steps}", *arguments
        )
        assert done.code == 0, done.errors
        return sorted(losses(done.output))

    stock(model_dir, 2)
    shutil.copytree(model_dir, before)
    assert train(4, "--checkpoint_format=saver") == [3, 4]
    assert cli.main(["compare", str(before), str(model_dir / "model.ckpt-2")]) == 0
    assert train(6, "--flagfile=configs/both.flags") == [5, 6]
    stock(model_dir, 7)  # back from "both"
    assert train(9, "--flagfile=configs/switch_to_tf2.flags") == [8, 9]
    assert file_format(model_dir / "model.ckpt-7") == "checkpoint"  # replaced on resuming
    assert file_format(model_dir / "model.ckpt-4") == "both"

    mistake = shutil.copytree(model_dir, tmp_path / "mistake")
    with pytest.raises((ValueError, RuntimeError, tf.errors.NotFoundError)):
        stock(mistake, 10)
    assert latest_step(mistake) == 9

    command = ["convert", str(model_dir), str(tmp_path / "run_tf1"), "--checkpoint_format=saver"]
    assert cli.main(command) == 0
    stock(tmp_path / "run_tf1", 11)
    assert latest_step(tmp_path / "run_tf1") == 11
    assert train(12, "--checkpoint_format=saver") == [10, 11, 12]
