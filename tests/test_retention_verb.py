"""What `retention --dry_run` says, beside what the next save of the job does."""

import json
import os

import pytest
import tensorflow as tf
from command_line import command_runner
from graph_jobs import build_plain_model, run_job

from estimator_ckpt import (
    Retention,
    SaverOptions,
    make_scaffold,
    pin_checkpoint,
    record_metrics,
)

v1 = tf.compat.v1


@pytest.fixture
def run(capsys):
    return command_runner(capsys)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(steps, **options):
    """A job in `run` that saves at its start, after each step and at its end."""
    run_job(
        "run",
        lambda: make_scaffold("both", **options),
        build=build_plain_model,
        steps=steps,
        save_checkpoint_steps=1,
    )


def on_disk():
    found = {name[: -len(".index")] for name in os.listdir("run") if name.endswith(".index")}
    return sorted(found, key=lambda name: int(name.rpartition("-")[2]))


def told(run, *flags):
    result = run("retention", "run", "--dry_run", "--json", *flags)
    assert result.code == 0, result.err
    return json.loads(result.out)


def names(checkpoints, *, goes):
    return [os.path.basename(one["prefix"]) for one in checkpoints if one["goes"] is goes]


POLICIES = [
    {"keep_checkpoint_max": 2},
    {"keep_checkpoint_max": 0},
    {"retention": Retention(newest=2, every_n_steps=3)},
    {"keep_checkpoint_max": 1, "keep_checkpoint_every_n_hours": 1e-9},
    {"keep_checkpoint_max": 1, "deletion_grace_secs": 3600.0},
]


@pytest.mark.parametrize("policy", POLICIES)
def test_it_says_what_the_next_save_does_by_the_options_of_the_last(place, run, policy):
    """The first save of the next start is that of the step resumed from; the second adds one."""
    train(7, **policy)
    before = on_disk()
    found = told(run)
    assert found["known_by"] == "the job's last save"
    said = SaverOptions(**policy).retention.else_keep().as_options()
    assert found["policy"] == {**said, "keep_best": []}
    assert on_disk() == before  # nothing was deleted
    train(1, **policy)
    assert names(found["checkpoints"], goes=True) == [one for one in before if one not in on_disk()]
    assert names(found["checkpoints"], goes=False) == [one for one in before if one in on_disk()]


def test_other_options_can_be_tried(place, run):
    train(3)
    assert names(told(run)["checkpoints"], goes=True) == []
    found = told(run, "--keep_checkpoint_max=1")
    assert found["known_by"] == "given"
    assert names(found["checkpoints"], goes=True) == [f"model.ckpt-{step}" for step in range(4)]


def test_the_table_has_every_checkpoint_with_its_reason(place, run):
    train(4, keep_checkpoint_max=2, keep_checkpoint_every_n_steps=2, keep_best=("accuracy", 1))
    pin_checkpoint("run@step=3", "release-7")
    record_metrics("run@step=4", {"accuracy": 0.5})
    train(1, keep_checkpoint_max=2, keep_checkpoint_every_n_steps=2, keep_best=("accuracy", 1))
    result = run("retention", "run", "--dry_run")
    head, _, table = result.out.partition("\n\n")
    assert head == (
        "run, by the job's last save: keep_checkpoint_max=2, keep_checkpoint_every_n_hours=10000.0,"
        " keep_checkpoint_every_n_steps=2, keep_best=accuracy:1:max, deletion_grace_secs=0.0"
    )
    rows = [" ".join(line.split()) for line in table.splitlines()]
    assert rows[2:-2] == [
        "model.ckpt-2 stays the state file does not list it: preserved, or another's",
        "model.ckpt-4 stays one of every 2 steps, for ever",
        "model.ckpt-5 stays one of the newest 2",
        "best/model.ckpt-4/model.ckpt-4 stays number 1 of the best 1 by accuracy: 0.5",
        "pinned/release-7/model.ckpt-3 stays pinned as release-7",
    ]
    assert rows[-1] == "0 checkpoints of 5 would go at the next save"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "deletes nothing itself; add --dry_run"),
        (["--dry_run"], "expected one directory, found 0"),
        (["empty", "--dry_run"], "empty: expected a model_dir, with the file `checkpoint`"),
        (["nowhere", "--dry_run"], "nowhere: expected a model_dir"),
        (["run", "--dry_run", "--keep_checkpoint_every_n_hours=-1"], "expected a positive number"),
        (["run", "--dry_run", "--keep_best=loss:3"], "say whether the largest or the smallest"),
    ],
)
def test_what_cannot_be_shown_is_an_error(place, run, arguments, message):
    os.mkdir("empty")
    os.mkdir("run")
    (place / "run" / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-1"')
    result = run("retention", *arguments)
    assert (result.code, result.out) == (2, "")
    assert message in result.err


def test_stock_reads_what_is_left(place):
    """Preserved and best checkpoints are no entries of the state file, as with the stock Saver."""
    train(4, keep_checkpoint_max=1, keep_checkpoint_every_n_steps=2, keep_best=("accuracy", 1))
    record_metrics("run", {"accuracy": 0.5})
    state = v1.train.get_checkpoint_state("run")
    assert [os.path.basename(p) for p in state.all_model_checkpoint_paths] == ["model.ckpt-4"]
    assert on_disk() == ["model.ckpt-2", "model.ckpt-4"]
