"""Every flagfile of configs/, on a small real model. Commands stand in its first lines."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from estimator_jobs import file_format, latest_step, steps_on_disk
from tensorflow_party import tf
from train_runs import JOB, Process, free_ports, losses, run

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
TRAIN = [*JOB, "--mode=train"]

pytestmark = pytest.mark.estimator


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    """Where the flagfiles' own paths begin."""
    monkeypatch.chdir(ROOT)


def config(name):
    return f"--flagfile=configs/{name}.flags"


def train(model_dir, steps, *arguments):
    done = run(*TRAIN, f"--model_dir={model_dir}", f"--max_steps={steps}", *arguments)
    assert done.code == 0, done.errors
    return done


def old_job(model_dir, steps=3):
    """A job on TF1 checkpoints."""
    return train(model_dir, steps, "--checkpoint_format=saver")


def value(model_dir, name, step):
    """What a name-based checkpoint has for a variable."""
    return tf.train.load_variable(f"{model_dir}/model.ckpt-{step}", name)


def write_pretrained(model_dir, values):
    """A TF1 checkpoint of these variables by name, in a model_dir."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [
            tf.compat.v1.get_variable(name, initializer=np.float32(initial))
            for name, initial in values.items()
        ]
        session.run(tf.compat.v1.global_variables_initializer())
        os.makedirs(model_dir)
        tf.compat.v1.train.Saver(variables).save(session, f"{model_dir}/model.ckpt")


def test_every_flagfile_has_a_test_here():
    here = Path(__file__).read_text()
    names = {path.stem for path in CONFIGS.glob("*.flags")} - {"digits"}
    assert names == set(re.findall(r'config\("(\w+)"\)', here))


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("*.flags")))
def test_a_flagfile_says_how_to_run_it(name):
    text = (CONFIGS / name).read_text()
    assert text.startswith("# ")
    assert f"--flagfile=configs/{name}" in text
    assert max(map(len, text.splitlines())) <= 104


def test_switch_to_tf2_goes_on_at_the_step_of_the_old_job_in_object_based_checkpoints(tmp_path):
    old_job(tmp_path)
    done = train(tmp_path, 6, config("switch_to_tf2"))
    assert sorted(losses(done.output)) == [4, 5, 6]
    assert file_format(tmp_path) == "checkpoint"
    assert file_format(tmp_path / "model.ckpt-0") == "saver"


def test_both_is_read_by_name_and_by_object_and_goes_back_to_either(tmp_path):
    old_job(tmp_path)
    train(tmp_path, 6, config("both"))
    assert file_format(tmp_path) == "both"
    train(tmp_path, 7, config("both"), "--checkpoint_format=saver")
    assert file_format(tmp_path) == "saver"


def test_new_head_starts_all_but_the_head(tmp_path):
    old_job(tmp_path / "old")
    new = tmp_path / "new"
    done = train(
        new, 1, config("new_head"), f"--warm_start_from={tmp_path / 'old'}", "--params={units: 2}",
        "--checkpoint_format=saver",
    )  # fmt: skip
    assert sorted(losses(done.output)) == [1]
    expected = value(tmp_path / "old", "dense/kernel", 3)
    np.testing.assert_array_equal(value(new, "dense/kernel", 0), expected)
    assert value(new, "head/w2", 0).shape == (3, 2)


def test_new_head_by_the_flags_that_its_comment_gives(tmp_path):
    old_job(tmp_path / "old")
    text = (CONFIGS / "new_head.flags").read_text()
    arguments = re.search(r"--init_checkpoint=pretrained (.*)", text)
    train(
        tmp_path / "new", 1, f"--init_checkpoint={tmp_path / 'old'}", *arguments[1].split(),
        "--params={units: 2}", "--checkpoint_format=saver",
    )  # fmt: skip
    expected = value(tmp_path / "old", "dense/kernel", 3)
    np.testing.assert_array_equal(value(tmp_path / "new", "dense/kernel", 0), expected)


def test_a_dry_run_tells_what_would_come_from_where_and_trains_nothing(tmp_path):
    old_job(tmp_path / "old")
    new = tmp_path / "new"
    arguments = [config("new_head"), f"--warm_start_from={tmp_path / 'old'}", "--params={units: 2}"]
    done = train(new, 1, *arguments, "--warm_start_dry_run")
    assert losses(done.output) == {}
    assert re.search(r"warm-started +dense/kernel +\[2,3\] +dense/kernel +same name", done.output)
    assert re.search(r"initialized +head/w2 +\[3,2\] +- +exclude\S*: head/", done.output)
    assert not new.exists() or steps_on_disk(new) == []


def test_move_scope_finds_the_variables_in_their_new_places(tmp_path):
    kernel = np.arange(6).reshape(2, 3)
    old = {"bert/encoder/layer_0/weights": kernel, "step_size": 0.5}
    write_pretrained(tmp_path / "pretrained", old)
    done = run(
        "--model_fn=train_jobs:towers_model_fn",
        "--train_input_fn=train_jobs:input_fn",
        "--mode=train",
        "--max_steps=1",
        f"--model_dir={tmp_path / 'new'}",
        "--checkpoint_format=saver",
        config("move_scope"),
        f"--warm_start_from={tmp_path / 'pretrained'}",
    )
    assert done.code == 0, done.errors
    for tower in ("tower_a", "tower_b"):
        found = value(tmp_path / "new", f"{tower}/encoder/layer_0/kernel", 0)
        np.testing.assert_array_equal(found, kernel)
    assert value(tmp_path / "new", "optimizer/step_size", 0) == 0.5


def test_vocabulary_gives_each_word_its_old_row(tmp_path):
    (tmp_path / "old.txt").write_text("cat\ndog\n")
    (tmp_path / "new.txt").write_text("dog\nemu\ncat\nyak\n")
    old = {"words/table": [[1, 2], [3, 4]], "dense/kernel": [[5], [6]]}
    write_pretrained(tmp_path / "pretrained", old)
    vocabulary = "--warm_start_override=var_name_to_vocab_info.embedding/table"
    done = run(
        "--model_fn=train_jobs:embedding_model_fn",
        "--train_input_fn=train_jobs:ids_input_fn",
        "--mode=train",
        "--max_steps=1",
        f"--model_dir={tmp_path / 'new'}",
        "--checkpoint_format=saver",
        config("vocabulary"),
        f"--warm_start_from={tmp_path / 'pretrained'}",
        f"{vocabulary}.new_vocab={tmp_path / 'new.txt'}",
        f"{vocabulary}.old_vocab={tmp_path / 'old.txt'}",
    )
    assert done.code == 0, done.errors
    found = value(tmp_path / "new", "embedding/table", 0)
    np.testing.assert_array_equal(found, [[3, 4], [0, 0], [1, 2], [0, 0]])


@pytest.mark.parametrize("paths", ["relative", "absolute", "of a copy"])
def test_resume_elsewhere_goes_on_at_the_same_step(tmp_path, paths):
    old, new = tmp_path / "old", tmp_path / "new"
    old_job(old)
    if paths != "relative":
        prefix = str(old / "model.ckpt-3")
        (old / "checkpoint").write_text(
            f'model_checkpoint_path: "{prefix}"\nall_model_checkpoint_paths: "{prefix}"\n'
        )
    shutil.copytree(old, new)
    if paths != "of a copy":
        shutil.rmtree(old)
    before = sorted(os.listdir(old)) if old.exists() else None
    done = train(new, 5, config("resume_elsewhere"), "--keep_checkpoint_max=1")
    assert sorted(losses(done.output)) == [4, 5]
    assert latest_step(new) == 5
    if before is not None:
        assert sorted(os.listdir(old)) == before


def test_a_moved_model_dir_without_its_newest_checkpoint_does_not_start_anew(tmp_path):
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/gone/model.ckpt-3"\n')
    failed = run(*TRAIN, f"--model_dir={tmp_path}", "--max_steps=1", config("resume_elsewhere"))
    assert failed.code == 2
    assert "/gone/model.ckpt-3" in failed.errors
    assert os.listdir(tmp_path) == ["checkpoint"]


@pytest.mark.faults
def test_cluster_runs_every_task_with_the_same_flags(tmp_path):
    """Chief, worker, parameter server, evaluator; then SIGTERM to all, the server first."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
    cluster = dict(zip(("chief", "worker", "ps"), ([address] for address in addresses)))
    arguments = [*JOB, config("cluster"), f"--model_dir={tmp_path}", "--max_steps=1000000"]

    def start(task):
        tf_config = {"cluster": cluster, "task": {"type": task, "index": 0}}
        modules = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
        environment = {"TF_CONFIG": json.dumps(tf_config), "PYTHONPATH": modules}
        return Process(*arguments, environment=environment, cwd=ROOT)

    with start("ps") as server, start("chief") as chief:
        chief.read_until("loss 1 ")
        with start("worker") as worker, start("evaluator") as evaluator:
            worker.read_until("loss ")
            evaluator.read_until("evaluated step ")
            server.signal(signal.SIGTERM)
            server.read_until("serving until the chief and the workers have ended")
            before = latest_step(tmp_path)
            for process in (chief, worker, evaluator):
                process.signal(signal.SIGTERM)
            for process in (chief, worker, evaluator):
                assert process.finish() == 143, process.errors
            assert server.finish() == -signal.SIGTERM
    assert file_format(tmp_path) == "both"
    assert latest_step(tmp_path) > before
    assert f"stopped at step {latest_step(tmp_path):,}; the next start resumes" in chief.errors
