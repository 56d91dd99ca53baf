"""Which checkpoints stay: ours beside tf.compat.v1.train.Saver's, by one clock."""

import os
import shutil

import pytest
import tensorflow as tf
from graph_jobs import latest, run_job

from estimator_ckpt import Retention, SaverOptions, make_scaffold
from estimator_ckpt.errors import SettingsError
from estimator_ckpt.reading.state import CheckpointState
from estimator_ckpt.saving.retention import CheckpointList

v1 = tf.compat.v1

HOUR = 3600.0


class Clock:
    """Hours since the first checkpoint could have been written; time.time() and a list's `now`."""

    def __init__(self):
        self.hours = 0.0

    def __call__(self):
        return 1e9 + self.hours * HOUR


@pytest.fixture
def clock():
    return Clock()


def keeping(clock, newest, *said, **options):
    return CheckpointList(Retention(newest, *said, **options), now=clock)


def written_at(clock, retention, hours):
    """Writes a checkpoint, named by its hour, at each of `hours`; returns those that are left."""
    left = []
    for clock.hours in hours:
        deleted = retention.add(f"{clock.hours:g}")
        left = [name for name in [*left, f"{clock.hours:g}"] if name not in deleted]
    return left


def left_by_stock(clock, monkeypatch, directory, hours, **options):
    """The same by a stock Saver, whose files are looked at."""
    monkeypatch.setattr("time.time", clock)
    with tf.Graph().as_default(), v1.Session() as session:
        session.run(v1.get_variable("w", [], initializer=v1.zeros_initializer()).initializer)
        saver = v1.train.Saver(**options)
        for clock.hours in hours:
            saver.save(session, str(directory / f"{clock.hours:g}"), write_meta_graph=False)
    return [f"{hour:g}" for hour in hours if (directory / f"{hour:g}.index").exists()]


def every(hours, until):
    return [number * hours for number in range(1, round(until / hours) + 1)]


@pytest.mark.parametrize(
    ("max_to_keep", "every_n_hours", "hours"),
    [
        (5, 10_000, every(1, 8)),
        (1, 10_000, every(1, 3)),
        (0, 10_000, every(1, 8)),
        (2, 1, every(0.25, 5)),
        (2, 1, every(0.375, 6)),
        (2, 1, every(0.75, 9)),
        (2, 1, every(3, 15)),
        (1, 2, every(0.75, 9)),
        (3, 0.5, [0.25, 0.375, 0.75, 1.1, 1.2, 1.3, 1.7, 1.9, 2.4, 2.6, 2.8]),
    ],
)
def test_the_same_stay_as_with_the_stock_saver(
    tmp_path, monkeypatch, clock, max_to_keep, every_n_hours, hours
):
    ours = written_at(clock, keeping(clock, max_to_keep, every_n_hours), hours)
    clock.hours = 0.0
    stock = left_by_stock(
        clock,
        monkeypatch,
        tmp_path,
        hours,
        max_to_keep=max_to_keep,
        keep_checkpoint_every_n_hours=every_n_hours,
    )
    assert ours == stock


def test_after_a_pause_one_is_preserved_not_one_for_each_hour_missed(clock):
    retention = keeping(clock, 1, 1.0)
    left = written_at(clock, retention, [0.5, 48.5, 48.75, 49.0, 49.25, 49.5])
    assert left == ["48.5", "49.25", "49.5"]


def test_a_checkpoint_written_again_counts_once(clock):
    retention = keeping(clock, 2)
    for name in ("a", "b", "a"):
        assert retention.add(name) == []
    assert retention.prefixes == ["b", "a"]
    assert retention.add("c") == ["b"]


def test_the_state_lists_what_stays(clock):
    retention = keeping(clock, 2)
    for clock.hours in (1, 2, 3):
        retention.add(f"{clock.hours}")
    assert retention.state() == CheckpointState(
        "3", ("2", "3"), (1e9 + 2 * HOUR, 1e9 + 3 * HOUR), last_preserved_timestamp=1e9
    )


def test_where_all_stay_the_state_lists_them_so_that_they_count_again_later(clock):
    retention = keeping(clock, 0)
    assert written_at(clock, retention, [1, 2, 3]) == ["1", "2", "3"]
    listed = retention.state().all_model_checkpoint_paths
    assert listed == ("1", "2", "3")
    later = keeping(clock, 2)
    later.adopt([(prefix, clock()) for prefix in listed])
    assert later.add("4") == ["1", "2"]


def test_an_earlier_runs_checkpoints_are_adopted_and_pruned_at_once(clock):
    retention = keeping(clock, 2)
    retention.adopt([(name, 1e9) for name in "abcd"])
    assert retention.prefixes == ["a", "b", "c", "d"]
    assert retention.add("e") == ["a", "b", "c"]
    assert retention.prefixes == ["d", "e"]


def test_what_an_earlier_run_preserved_last_is_remembered(clock):
    """A stock Saver starts counting anew with each process."""
    retention = keeping(clock, 1, 2.0)
    retention.adopt([("old", 1e9 + HOUR)], last_preserved=1e9 - 1.5 * HOUR)
    clock.hours = 1
    assert retention.add("new") == []  # "old" is 2.5 hours younger than the last preserved
    clock.hours = 1.25
    assert retention.add("newer") == ["new"]


def test_a_checkpoint_stays_for_the_grace_period_and_the_state_lists_it(clock):
    retention = keeping(clock, 1, deletion_grace_secs=0.5 * HOUR)
    deleted = {}
    listed = {}
    for clock.hours in (1.0, 1.25, 1.5, 1.75, 2.0, 3.0):
        deleted[clock.hours] = retention.add(f"{clock.hours:g}")
        listed[clock.hours] = " ".join(retention.state().all_model_checkpoint_paths)
    assert deleted == {1.0: [], 1.25: [], 1.5: [], 1.75: ["1"], 2.0: ["1.25"], 3.0: ["1.5", "1.75"]}
    assert listed == {
        1.0: "1",
        1.25: "1 1.25",
        1.5: "1 1.25 1.5",
        1.75: "1.25 1.5 1.75",
        2.0: "1.5 1.75 2",
        3.0: "2 3",
    }
    assert retention.prefixes == ["3"]


def test_a_checkpoint_written_again_within_the_grace_period_stays(clock):
    retention = keeping(clock, 1, deletion_grace_secs=HOUR)
    retention.add("a")
    retention.add("b")
    retention.add("a")
    clock.hours = 2
    assert retention.add("c") == ["b"]


# --- one object for what stays ---

ALL = Retention(2, 1.5, 300, ("accuracy", 3), 60.0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"retention": ALL}, ALL),
        (ALL.as_options(), ALL),
        ({"retention": ALL, "keep_checkpoint_max": 2}, ALL),
        (
            {"retention": Retention(newest=2), "keep_best": ("loss", 1, "min")},
            Retention(2, best=("loss", 1, "min")),
        ),
        ({}, Retention()),
    ],
)
def test_the_object_and_the_options_say_the_same(options, expected):
    found = SaverOptions(**options)
    assert found.retention == expected
    assert {name: getattr(found, name) for name in ALL.as_options()} == expected.as_options()
    later = found.else_keep(None, 9.0)
    assert later.retention.newest == later.keep_checkpoint_max == (expected.newest or 0)
    assert later.keep_checkpoint_every_n_hours == (expected.every_n_hours or 9.0)


@pytest.mark.parametrize(
    ("make", "key", "message"),
    [
        (lambda: Retention(-1), "newest", "expected a whole number, 0 for all, found -1"),
        (lambda: Retention(every_n_hours=0), "every_n_hours", "expected a positive number of h"),
        (lambda: Retention(every_n_steps=1.5), "every_n_steps", "expected a positive number of s"),
        (lambda: Retention(best="accuracy"), "best", r"expected \(metric, how many\)"),
        (lambda: Retention(deletion_grace_secs=-1), "deletion_grace_secs", "expected a number of"),
        (
            lambda: SaverOptions(retention=5),
            "retention",
            r"expected a Retention, as Retention\(newest=5\), found 5",
        ),
        (lambda: SaverOptions(keep_best=("loss", 3)), "keep_best", "say whether the largest or"),
        (
            lambda: SaverOptions(retention=ALL, keep_checkpoint_max=3),
            "keep_checkpoint_max",
            "it is 3, but retention says newest=2; say it in one place",
        ),
    ],
)
def test_what_is_no_retention_is_refused_by_the_name_that_was_given(make, key, message):
    with pytest.raises(SettingsError, match=message) as caught:
        make()
    assert caught.value.key == key


# --- one of every so many steps ---


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        (range(0, 900, 100), [300, 600, 700, 800]),  # step 0 is before the first multiple
        ([90, 190, 290, 390, 490, 690, 790, 1000, 1100], [390, 690, 1000, 1100]),
        ([350, 1000, 1050, 1099, 1300], [350, 1000, 1099, 1300]),
        ([299, 100, 301, 302, 303, 304], [301, 303, 304]),  # rolled back once
    ],
)
def test_the_first_at_or_after_each_multiple_stays(clock, steps, left):
    retention = keeping(clock, 2, every_n_steps=300)
    gone = [prefix for step in steps for prefix in retention.add(f"model.ckpt-{step}")]
    assert [step for step in steps if f"model.ckpt-{step}" not in gone] == left


def test_what_an_earlier_run_preserved_is_seen_on_the_disk(clock):
    retention = keeping(clock, 1, every_n_steps=300)
    listed = [("model.ckpt-500", 1e9)]
    retention.adopt(listed, on_disk=["model.ckpt-300", "model.ckpt-500", "other-600"])
    assert retention.add("model.ckpt-599") == ["model.ckpt-500"]  # 300 is there for 300 to 599
    assert retention.add("model.ckpt-600") == ["model.ckpt-599"]
    assert retention.add("model.ckpt-650") == []  # another saver's 600 is none of these
    assert retention.add("model") == ["model.ckpt-650"]  # a name without a step is none


def test_what_is_written_again_after_a_fall_back_is_preserved_again(clock):
    retention = keeping(clock, 1, every_n_steps=300)
    gone = [retention.add(f"model.ckpt-{step}") for step in (300, 400, 300, 500, 600)]
    assert gone == [[], [], ["model.ckpt-400"], [], ["model.ckpt-500"]]


def test_hours_and_steps_are_counted_apart(clock):
    retention = keeping(clock, 1, 1.0, every_n_steps=10)
    names = {0.5: "m-1", 1.5: "m-12", 1.75: "m-15", 2.25: "m-21", 2.5: "m-22"}
    assert {h: add_at(clock, retention, h, name) for h, name in names.items()} == {
        0.5: ([], []),
        1.5: (["m-1"], []),
        1.75: ([], [("m-12", "one of every 1 hours and one of every 10 steps")]),
        2.25: (["m-15"], []),
        2.5: ([], [("m-21", "one of every 1 hours and one of every 10 steps")]),
    }


def add_at(clock, retention, hours, name):
    clock.hours = hours
    return retention.add(name), retention.preserved


# --- one directory, spelled in several ways ---


def test_two_spellings_of_one_checkpoint_are_one(tmp_path, monkeypatch, clock):
    monkeypatch.chdir(tmp_path)
    os.symlink(tmp_path, tmp_path / "link")
    for spelling in ("model-5", "./model-5", "link/model-5", str(tmp_path / "model-5")):
        retention = keeping(clock, 1)
        retention.adopt([("model-4", 1e9), (spelling, 1e9), ("model-5", 1e9)])
        assert retention.add(str(tmp_path / "link" / "model-5")) == ["model-4"]
        assert retention.prefixes == [str(tmp_path / "link" / "model-5")]


def test_the_checkpoints_of_another_directory_are_left_alone(tmp_path, clock):
    retention = keeping(clock, 1)
    retention.adopt([(str(tmp_path / "other" / "model-4"), 1e9)])
    assert retention.add(str(tmp_path / "model-5")) == []
    assert retention.prefixes == [str(tmp_path / "model-5")]


def train_with_own_saver(model_dir, steps=2):
    """A job whose stock Saver records its checkpoints by their absolute paths."""

    def scaffold():
        return v1.train.Scaffold(saver=v1.train.Saver(save_relative_paths=False))

    _, end = run_job(model_dir, scaffold, steps=steps)
    assert str(model_dir) in (model_dir / "checkpoint").read_text()
    return end


def test_a_job_resumes_in_its_directory_by_a_relative_path(tmp_path, monkeypatch):
    """Its first checkpoint overwrites the one that it resumes from, and counts as that one."""
    end = train_with_own_saver(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        start, _ = run_job("run", lambda: make_scaffold("both", keep_checkpoint_max=1), steps=0)
        assert (start["scope/w"] == end["scope/w"]).all()
        assert latest(tmp_path / "run") == str(tmp_path / "run" / "model.ckpt-2")


def test_a_copied_directory_does_not_prune_the_one_it_was_copied_from(tmp_path):
    train_with_own_saver(tmp_path / "run")
    before = sorted(os.listdir(tmp_path / "run"))
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    start, _ = run_job(tmp_path / "copy", lambda: make_scaffold("both", keep_checkpoint_max=1))
    assert start["global_step"] == 2
    assert latest(tmp_path / "copy") == str(tmp_path / "copy" / "model.ckpt-4")
    assert sorted(os.listdir(tmp_path / "run")) == before
