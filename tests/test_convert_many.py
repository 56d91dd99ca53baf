"""Many checkpoints at once: a model_dir, a tree of them, failures, interruptions, a second run."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from conversion_files import contents, names_in, write_bundle
from golden_files import golden_case
from tensorflow_party import tf

from estimator_ckpt import open_checkpoint
from estimator_ckpt.conversion.batch import convert_directory, convert_one
from estimator_ckpt.conversion.convert_options import ConvertOptions
from estimator_ckpt.conversion.outcomes import done_by
from estimator_ckpt.conversion.trees import find_left
from estimator_ckpt.errors import NotACheckpointError, SettingsError, WriteError
from estimator_ckpt.reading.state import CheckpointState, read_state, write_state

BOTH = ConvertOptions("both")
BOTH_IN_PLACE = ConvertOptions("both", in_place=True)


def model_dir(directory, steps=(100, 200, 1000), timed=True):
    """A model_dir with its state file; the first checkpoint is on disk only."""
    prefixes = [
        write_bundle(
            directory / f"model.ckpt-{step}",
            {"x": np.float32([step, 1]), "global_step": np.array(step, np.int64)},
        )
        for step in steps
    ]
    times = tuple(1e9 + step for step in steps[1:]) if timed else ()
    state = CheckpointState(prefixes[-1], tuple(prefixes[1:]), times, 123.5 if timed else None)
    write_state(str(directory), state)
    return directory


def statuses(outcomes, root):
    return {str(Path(one.source).relative_to(root)): one.status for one in outcomes}


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "jobs"
    model_dir(root / "one")
    model_dir(root / "deep" / "two", steps=(1, 2), timed=False)
    (root / "one" / "eval").mkdir()
    (root / "one" / "eval" / "events.out.tfevents.1").write_bytes(b"")
    return root


ALL = {
    "one/model.ckpt-100": "converted",
    "one/model.ckpt-200": "converted",
    "one/model.ckpt-1000": "converted",
    "deep/two/model.ckpt-1": "converted",
    "deep/two/model.ckpt-2": "converted",
}


def test_a_tree_of_model_dirs_is_converted_to_a_tree_of_the_same_shape(tree, tmp_path):
    outcomes = convert_directory(tree, tmp_path / "out", BOTH)
    assert statuses(outcomes, tree) == ALL
    for name in ALL:
        found = open_checkpoint(tmp_path / "out" / name)
        assert found.format == "both"
        assert found.global_step == int(name.rpartition("-")[2])


def test_state_files_keep_their_order_times_and_relative_paths(tree, tmp_path):
    convert_directory(tree, tmp_path / "out", BOTH)
    one = str(tmp_path / "out" / "one")
    assert read_state(one) == CheckpointState(
        f"{one}/model.ckpt-1000",
        (f"{one}/model.ckpt-200", f"{one}/model.ckpt-1000"),
        (1e9 + 200, 1e9 + 1000),
        123.5,
    )
    assert f'"{one}' not in (tmp_path / "out" / "one" / "checkpoint").read_text()
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    assert tf.train.latest_checkpoint(str(moved / "one")) == str(moved / "one" / "model.ckpt-1000")
    assert tf.train.latest_checkpoint(str(moved / "deep" / "two")) == (
        str(moved / "deep" / "two" / "model.ckpt-2")
    )


def test_state_files_with_paths_of_before_a_move(tree, tmp_path):
    text = (tree / "one" / "checkpoint").read_text()
    (tree / "one" / "checkpoint").write_text(text.replace('"model', '"/gone/model'))
    convert_directory(tree, tmp_path / "out", BOTH)
    one = tmp_path / "out" / "one"
    assert tf.train.latest_checkpoint(str(one)) == str(one / "model.ckpt-1000")


def test_the_older_checkpoints_come_first(tree, tmp_path):
    order = [Path(one.source).name for one in convert_directory(tree / "one", tmp_path / "o", BOTH)]
    assert order == ["model.ckpt-100", "model.ckpt-200", "model.ckpt-1000"]


def test_in_place_changes_indexes_and_no_state_file(tree):
    state = (tree / "one" / "checkpoint").read_bytes()
    names = names_in(tree / "one")
    assert statuses(convert_directory(tree, None, BOTH_IN_PLACE), tree) == ALL
    assert (tree / "one" / "checkpoint").read_bytes() == state
    assert names_in(tree / "one") == names
    assert {open_checkpoint(tree / name).format for name in ALL} == {"both"}


# --- Twice, interrupted, failed ---


@pytest.mark.parametrize("options", [BOTH, BOTH_IN_PLACE], ids=["new", "in_place"])
def test_a_second_run_does_nothing(options, tree, tmp_path):
    def everything():
        return {
            path: (path.stat().st_mtime_ns, path.stat().st_ino)
            for path in tmp_path.rglob("*")
            if path.is_file()
        }

    destination = None if options.in_place else tmp_path / "out"
    convert_directory(tree, destination, options)
    before = everything()
    outcomes = convert_directory(tree, destination, options)
    assert set(statuses(outcomes, tree).values()) == {"already"}
    assert everything() == before


def test_an_interrupted_run_is_taken_up_again(tree, tmp_path):
    def interrupt(outcome, number, total):
        assert total == 5
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_directory(tree, tmp_path / "out", BOTH, report=interrupt)
    outcomes = convert_directory(tree, tmp_path / "out", BOTH)
    assert [one.status for one in outcomes] == ["already"] * 2 + ["converted"] * 3
    assert read_state(str(tmp_path / "out" / "one")).model_checkpoint_path.endswith("-1000")


def test_two_at_once_do_each_checkpoint_once(tree, tmp_path):
    """What is done meanwhile, by the same rules, is no failure."""
    out = tmp_path / "out"

    def convert_too(outcome, number, total):
        if number == 1:
            others.extend(convert_directory(tree, out, BOTH))

    others = []
    outcomes = convert_directory(tree, out, BOTH, report=convert_too)
    assert [one.status for one in outcomes] == ["converted"] + ["already"] * 4
    assert [one.status for one in others] == ["already"] + ["converted"] * 4


def test_who_waits_for_another_conversion_to_the_same_place_finds_its_result(tmp_path):
    source = write_bundle(tmp_path / "source" / "m", {f"x{n}": np.float32(n) for n in range(200)})
    results = [str(tmp_path / "out" / f"m{n}") for n in range(10)]

    def convert(result):
        return convert_one(source, result, BOTH, wait=60).status

    with ThreadPoolExecutor(3) as pool:
        statuses = list(pool.map(convert, [one for one in results for _ in range(3)]))
    found = [sorted(statuses[n : n + 3]) for n in range(0, len(statuses), 3)]
    assert found == [["already", "already", "converted"]] * len(results)
    assert all(contents(one) == contents(results[0]) for one in results)


def test_it_goes_on_after_a_failure_and_leaves_the_failed_out_of_the_state(tree, tmp_path):
    data = tree / "one" / "model.ckpt-1000.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:4])
    outcomes = convert_directory(tree, tmp_path / "out", BOTH)
    assert statuses(outcomes, tree) == {**ALL, "one/model.ckpt-1000": "failed"}
    (failed,) = [one for one in outcomes if one.status == "failed"]
    assert "cut off" in failed.message
    one = str(tmp_path / "out" / "one")
    assert read_state(one) == CheckpointState(
        f"{one}/model.ckpt-200", (f"{one}/model.ckpt-200",), (1e9 + 200,), 123.5
    )


def test_a_failed_checkpoint_is_one_failure_though_the_state_file_names_no_other(tmp_path):
    prefix = write_bundle(tmp_path / "run" / "model.ckpt-1", {"x": np.float32(1)})
    write_state(str(tmp_path / "run"), CheckpointState(prefix, (prefix,)))
    Path(f"{prefix}.index").write_bytes(b"")
    outcomes = convert_directory(tmp_path / "run", tmp_path / "out", BOTH)
    assert statuses(outcomes, tmp_path) == {"run/model.ckpt-1": "failed"}


def test_a_state_file_is_not_counted_as_a_checkpoint(tree, tmp_path):
    (tree / "deep" / "two" / "checkpoint").write_bytes(b"\xff")
    seen = []
    convert_directory(
        tree,
        tmp_path / "out",
        BOTH,
        report=lambda outcome, number, total: seen.append((outcome.is_state, number, total)),
    )
    of_two = [(False, 1, 5), (False, 2, 5), (True, 2, 5)]
    assert seen == [*of_two, (False, 3, 5), (False, 4, 5), (False, 5, 5)]


def test_checkpoints_in_the_v1_format_are_converted_with_their_state_file(tmp_path):
    case = golden_case("2.15", "v1_format")
    with pytest.raises(NotACheckpointError):
        convert_directory(tmp_path, tmp_path.parent / "never", BOTH)
    for status in ("converted", "already"):
        (outcome,) = convert_directory(case.directory, tmp_path / "out", BOTH, log=tmp_path / "log")
        assert outcome.status == status
    with open_checkpoint(tmp_path / "out") as result:
        assert result.global_step == case.global_step
        assert result.prefix == str(tmp_path / "out" / "model.ckpt-7")


def test_a_broken_state_file_fails_and_the_checkpoints_are_converted(tree, tmp_path):
    (tree / "one" / "checkpoint").write_bytes(b"\xff")
    outcomes = convert_directory(tree, tmp_path / "out", BOTH)
    assert statuses(outcomes, tree) == {**ALL, "one/checkpoint": "failed"}


def test_a_state_file_of_a_job_that_has_gone_on_is_left_alone(tree, tmp_path):
    convert_directory(tree, tmp_path / "out", BOTH)
    state = tmp_path / "out" / "one" / "checkpoint"
    write_bundle(tmp_path / "out" / "one" / "model.ckpt-2000", {"x": np.float32(1)})
    state.write_text('model_checkpoint_path: "model.ckpt-2000"\n')
    outcomes = convert_directory(tree, tmp_path / "out", BOTH)
    assert state.read_text() == 'model_checkpoint_path: "model.ckpt-2000"\n'
    (said,) = [one for one in outcomes if one.source.endswith("/checkpoint")]
    assert "names checkpoints that were not converted" in said.message


def test_another_checkpoint_in_the_way_is_not_overwritten(tree, tmp_path):
    there = write_bundle(tmp_path / "out" / "one" / "model.ckpt-200", {"mine": np.float32(1)})
    outcomes = convert_directory(tree, tmp_path / "out", BOTH)
    assert statuses(outcomes, tree) == {**ALL, "one/model.ckpt-200": "failed"}
    assert contents(there).keys() == {"mine"}


@pytest.mark.parametrize("logged", [True, False])
@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"job": "other"}, BOTH),
        ({"values": [7, 8]}, BOTH),
        ({"values": [7, 8]}, ConvertOptions("both", dtype="float64")),
        ({}, ConvertOptions("saver")),
        ({}, ConvertOptions("both", rename={"x": "y"})),
        ({}, ConvertOptions("both", dtype="float64")),
    ],
)
def test_what_is_there_of_the_same_name_is_no_result_of_other_values_or_rules(
    changes, options, logged, tmp_path
):
    def convert(options, job="job", values=(1, 2)):
        source = tmp_path / str(values) / job
        if not source.exists():
            write_bundle(source / "model.ckpt-9", {"x": np.float32([*values, len(job)])})
        source.rename(tmp_path / job)
        log = tmp_path / "log" if logged else None
        (outcome,) = convert_directory(tmp_path / job, tmp_path / "out", options, log=log)
        (tmp_path / job).rename(source)
        return outcome

    first = options if changes else BOTH
    assert convert(first).status == "converted"
    before = contents(tmp_path / "out" / "model.ckpt-9")
    again = convert(options, **changes)
    assert again.status == "failed"
    assert "another checkpoint is there" in again.message
    assert contents(tmp_path / "out" / "model.ckpt-9") == before
    assert convert(first).status == "already"


def test_another_rule_for_what_is_in_place_is_carried_out_though_the_log_has_it(tmp_path):
    prefix = write_bundle(tmp_path / "run" / "model.ckpt-1", {"x": np.float32(1)})
    for rename in ({"x": "y"}, {"y": "z"}):
        options = ConvertOptions("saver", rename=rename, in_place=True)
        (outcome,) = convert_directory(tmp_path / "run", None, options, log=tmp_path / "log")
        assert outcome.status == "converted"
    assert contents(prefix).keys() == {"z"}


# --- The log ---


def test_the_log_has_a_line_for_each(tree, tmp_path):
    log = tmp_path / "log.jsonl"
    convert_directory(tree, tmp_path / "out", BOTH, log=log)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["source"] for line in lines} == {str(tree / name) for name in ALL}
    first = lines[0]
    assert first["status"] == "converted"
    assert first["checkpoint_format"] == "both"
    assert first["tensors"] == 4
    assert [how for _, how in first["data_files"]] == ["link", "write"]


def test_rules_that_match_nothing_any_more_are_no_failure_for_what_was_converted(tree, tmp_path):
    options = ConvertOptions("saver", rename={"x": "y"}, in_place=True)
    log = tmp_path / "log.jsonl"
    convert_directory(tree, None, options, log=log)
    again = convert_directory(tree, None, options, log=log)
    assert {one.status for one in again} == {"already"}
    without = convert_directory(tree, None, options)
    assert {one.status for one in without} == {"already"}
    assert {one.message for one in without} == {"converted by the same options"}
    # A job that saves again makes it a new checkpoint.
    write_bundle(tree / "one" / "model.ckpt-100", {"x": np.float32([5, 6, 7])})
    outcomes = convert_directory(tree, None, options, log=log)
    assert statuses(outcomes, tree)["one/model.ckpt-100"] == "converted"


def test_a_torn_line_of_the_log_is_passed_over(tree, tmp_path):
    log = tmp_path / "log.jsonl"
    convert_directory(tree, None, BOTH_IN_PLACE, log=log)
    log.write_bytes(b"\0\0\n" + log.read_bytes()[:-20] + b"\0\0")  # as a power cut leaves it
    outcomes = convert_directory(tree, None, BOTH_IN_PLACE, log=log)
    assert {one.status for one in outcomes} == {"already"}
    assert len(log.read_bytes().splitlines()) == 11


# A value of each option that is another than the default.
OTHER_OPTIONS = {
    "checkpoint_format": "checkpoint",
    "layout": "scopes",
    "like": "LIKE",
    "match_by": "name",
    "rename": {"x": "y"},
    "assignment_map": {"x": "y"},
    "exclude": ["x"],
    "drop_slots": True,
    "drop_configs": True,
    "use_averages": True,
    "keep_raw": "raw",
    "optimizer": "tf1",
    "from_optimizer": "SGD",
    "hyperparameters": {"momentum": 0.5},
    "dtype": "float16",
    "with_input": True,
}
NEEDED = {
    "match_by": {"like": "LIKE"},
    "keep_raw": {"use_averages": True},
    "from_optimizer": {"optimizer": "tf1"},
    "hyperparameters": {"optimizer": "tf1"},
}
HOW_ONLY = {"copy", "compact", "in_place", "verify"}


@pytest.mark.parametrize("in_place", [False, True])
def test_what_a_job_is_saving_is_left_alone(in_place, tmp_path):
    run = tmp_path / "run"
    write_bundle(run / "model.ckpt-1", {"x": np.float32(1)})
    staged = write_bundle(run / "model.ckpt-2.saving-0f0f" / "model.ckpt-2", {"x": np.float32(2)})
    before = contents(staged)
    options = ConvertOptions("both", in_place=in_place)
    outcomes = convert_directory(run, None if in_place else tmp_path / "out", options)
    assert [one.source for one in outcomes] == [f"{run}/model.ckpt-1"]
    assert contents(staged) == before
    assert find_left(str(run)) == [f"{run}/model.ckpt-2.saving-0f0f"]


def test_a_directory_is_gone_on_with_in_place_by_rules_that_swap_names(tree):
    options = ConvertOptions("saver", rename={"x": "y", "y": "x"}, in_place=True)
    for prefix in (tree / name for name in ALL):
        write_bundle(prefix, {"x": np.float32(1), "y": np.float32(2)})
    first = str(tree / min(ALL))
    convert_one(first, first, options)  # and was killed then
    outcomes = convert_directory(tree, None, options)
    assert sorted(statuses(outcomes, tree).values()) == ["already"] + ["converted"] * 4
    for name in ALL:
        assert contents(tree / name)["x"][-1] == np.float32(2).tobytes()


def test_the_log_knows_a_conversion_by_every_option_that_changes_the_result(tmp_path):
    source = write_bundle(tmp_path / "m", {"x": np.float32(1)})
    like = write_bundle(tmp_path / "like", {"x": np.float32(2)})
    assert OTHER_OPTIONS.keys() | HOW_ONLY == {one.name for one in fields(ConvertOptions)}
    for name, value in OTHER_OPTIONS.items():
        needed = {"checkpoint_format": "both", **NEEDED.get(name, {})}
        needed, other = (
            {key: like if one == "LIKE" else one for key, one in options.items()}
            for options in (needed, {**needed, name: value})
        )
        known = [
            done_by(source, source, ConvertOptions(**options)) for options in (needed, other, other)
        ]
        assert known[0] != known[1] == known[2], name
    for name in HOW_ONLY:
        other = ConvertOptions("both", **{name: True})
        assert done_by(source, source, other)[2:] == done_by(source, source, BOTH)[2:]


def test_the_log_knows_a_template_by_what_it_has(tmp_path):
    source = write_bundle(tmp_path / "m", {"x": np.float32(1)})
    options = ConvertOptions("both", like=write_bundle(tmp_path / "like", {"x": np.float32(2)}))
    before = done_by(source, source, options)
    write_bundle(tmp_path / "like", {"x": np.float32([2, 3])})
    assert done_by(source, source, options) != before


def test_the_shards_of_a_log_count_as_well(tree, tmp_path):
    options = ConvertOptions("saver", rename={"x": "y"}, in_place=True)
    log = tmp_path / "log"
    convert_directory(tree, None, options, log=log)
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0])
    (tmp_path / f"log-{'a' * 16}-{'1' * 16}.jsonl").write_bytes(b"".join(lines[1:3]))
    (tmp_path / f"log-{'a' * 16}-{'2' * 16}.jsonl").write_bytes(b"".join(lines[3:])[:-30])
    (tmp_path / f"log-b-{'a' * 16}-{'3' * 16}.jsonl").write_text("{}")  # of the log `log-b`
    outcomes = convert_directory(tree, None, options, log=log)
    # The last one is known by its index.
    by_index = "converted by the same options"
    assert [one.message for one in outcomes] == ["the log has it"] * 4 + [by_index]


@pytest.mark.parametrize(
    "text", ["{}\n", "a note\n", "a note", "\0note", '{"a": ' * 9999 + "}", "{\n  1\n}", "INDEX"]
)
def test_another_file_is_no_log(tree, tmp_path, text):
    log = tmp_path / "log"
    log.write_text(text)
    if text == "INDEX":
        log.write_bytes(next(tree.glob("one/*.index")).read_bytes())
    before = log.read_bytes()
    with pytest.raises(SettingsError) as raised:
        convert_directory(tree, tmp_path / "out", BOTH, log=log)
    assert raised.value.key == "log"
    assert log.read_bytes() == before
    assert not (tmp_path / "out").exists()


# --- What is left alone ---


def test_a_checkpoint_without_its_data_is_counted_as_failed(tree, tmp_path):
    (tree / "one" / "model.ckpt-100.data-00000-of-00001").unlink()  # which no state file names
    outcomes = convert_directory(tree, tmp_path / "out", BOTH)
    assert statuses(outcomes, tree) == {**ALL, "one/model.ckpt-100": "failed"}
    (failed,) = (one for one in outcomes if one.status == "failed")
    assert "1 of 1 data file is missing" in failed.message


def test_of_two_checkpoints_with_one_name_one_fails(tmp_path):
    source, out = tmp_path / "run", tmp_path / "out"
    for kind in ("name_based", "v1_sharded"):
        shutil.copytree(golden_case("2.15", kind).directory, source, dirs_exist_ok=True)
    (source / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-7"\n')
    for done in ("converted", "already"):
        found = statuses(convert_directory(source, out, BOTH), source)
        assert found == {"model.ckpt-7": done, "model.ckpt-7-?????-of-00002": "failed"}
    assert read_state(str(out)).model_checkpoint_path == f"{out}/model.ckpt-7"


def test_a_state_file_whose_newest_checkpoint_is_not_there_is_told(tree, tmp_path):
    state = tree / "one" / "checkpoint"
    state.write_text(state.read_text().replace("model.ckpt-1000", "/gone/model.ckpt-9", 1))
    (failed,) = (
        one for one in convert_directory(tree, tmp_path / "out", BOTH) if one.status == "failed"
    )
    assert failed.source == str(state)
    assert (
        "newest checkpoint that it names, /gone/model.ckpt-9, is not in the dir" in failed.message
    )
    assert not (tmp_path / "out" / "one" / "checkpoint").exists()


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_result_whose_data_is_gone_is_not_there_already(tree, tmp_path, damage):
    out = tmp_path / "out"
    convert_directory(tree, out, BOTH)
    damage(out / "one" / "model.ckpt-100.data-00001-of-00002")
    found = statuses(convert_directory(tree, out, BOTH), tree)
    assert found == dict.fromkeys(ALL, "already") | {"one/model.ckpt-100": "failed"}


def test_saved_models_are_left_alone(tree, tmp_path):
    case = golden_case("2.15", "saved_model_tf1")
    (tree / "one" / "export").mkdir()
    (tree / "one" / "export" / "1").symlink_to(case.directory)
    export = tree / "one" / "export" / "2"
    export.mkdir()
    (export / "saved_model.pb").write_bytes(b"")
    write_bundle(export / "variables" / "variables", {"x": np.float32(1)})
    assert statuses(convert_directory(tree, tmp_path / "out", BOTH), tree) == ALL


def test_what_does_not_go_along_is_known(tree, tmp_path):
    for name in ("graph.pbtxt", "warm_start.json", "model.ckpt-9.meta", "model.ckpt-100.meta"):
        (tree / "one" / name).write_bytes(b"")
    (tree / "one" / "checkpoint.lease").write_bytes(b"")
    (tree / "one" / "export" / "best" / "1").mkdir(parents=True)
    (tree / "one" / "export" / "best" / "1" / "saved_model.pb").write_bytes(b"")
    (tree / "linked").symlink_to(tree / "one")
    assert [one[len(f"{tree}/") :] for one in find_left(str(tree))] == [
        "linked",
        "one/checkpoint.lease",
        "one/eval/",
        "one/export/",
        "one/graph.pbtxt",
        "one/model.ckpt-9.meta",
        "one/warm_start.json",
    ]


def test_a_dry_run_plans_all_and_touches_nothing(tree, tmp_path):
    outcomes = convert_directory(tree, tmp_path / "out", BOTH, dry_run=True, log=tmp_path / "log")
    assert {one.status for one in outcomes} == {"planned"}
    assert all(one.conversion.rows for one in outcomes)
    assert names_in(tmp_path) == ["jobs"]


@pytest.mark.parametrize("inside", [".", "one", "one/new"])
def test_a_destination_inside_the_source(inside, tree):
    with pytest.raises(WriteError, match="inside the source"):
        convert_directory(tree, tree / inside, BOTH)


def test_a_destination_and_in_place_exclude_each_other(tree, tmp_path):
    with pytest.raises(SettingsError):
        convert_directory(tree, tmp_path / "out", BOTH_IN_PLACE)
    with pytest.raises(SettingsError):
        convert_directory(tree, None, BOTH)
