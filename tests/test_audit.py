"""A model_dir or a tree of them verified: each checkpoint, and what stands beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from command_line import Run, command_runner
from stock_files import data_file, flip, save

from estimator_ckpt.checking.audit import verify_directory
from estimator_ckpt.errors import NotACheckpointError


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return command_runner(capsys)


def model_dir(directory: Path, *steps: int) -> list[str]:
    """Checkpoints with their state file."""
    directory.mkdir(parents=True, exist_ok=True)
    prefixes = [save(directory / f"model.ckpt-{n}", {"v": np.float32([n])}) for n in steps]
    tf.compat.v1.train.update_checkpoint_state(str(directory), prefixes[-1], prefixes)
    return prefixes


def seen(path: Path) -> dict[str, list[str]]:
    """What is wrong, by file: the kinds of the faults."""
    report = verify_directory(path)
    faults = [*report.faults, *(fault for one in report.checkpoints for fault in one.faults)]
    found: dict[str, list[str]] = {}
    for fault in faults:
        found.setdefault(str(Path(fault.file).relative_to(path)), []).append(fault.kind)
    return found


def test_all_checkpoints_of_a_tree_are_verified_from_the_oldest_on(tmp_path):
    expected = [*model_dir(tmp_path / "a", 9, 10), *model_dir(tmp_path / "b" / "deep", 1)]
    report = verify_directory(tmp_path)
    assert [one.prefix for one in report.checkpoints] == expected
    assert report.ok
    assert report.notes == ()


def lose_index(directory: Path) -> None:
    (directory / "model.ckpt-2.index").unlink()


def lose_data(directory: Path) -> None:
    Path(data_file(str(directory / "model.ckpt-1"))).unlink()


def name_a_file(directory: Path) -> None:
    (directory / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-2.index"\n')


def link_to_nothing(directory: Path) -> None:
    (directory / "model.ckpt-1.index").unlink()
    (directory / "model.ckpt-1.index").symlink_to("gone")


def damage(directory: Path) -> None:
    flip(data_file(str(directory / "model.ckpt-1")), 0)


def lose_all(directory: Path) -> None:
    lose_index(directory)
    Path(data_file(str(directory / "model.ckpt-2"))).unlink()


def lone_meta(directory: Path) -> None:
    (directory / "model.ckpt-7.meta").write_bytes(b"")


def lone_input(directory: Path) -> None:
    save(directory / "model.ckpt-7.input" / "position-7", {"global_step": np.int64(7)})


def broken_state(directory: Path) -> None:
    (directory / "checkpoint").write_text("model_checkpoint_path: 3")


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        (
            lose_index,
            {"checkpoint": ["state file"], "model.ckpt-2": ["data file"]},
        ),
        (lose_data, {"model.ckpt-1.data-00000-of-00001": ["data file"]}),
        (damage, {"model.ckpt-1.data-00000-of-00001": ["checksum"]}),
        (lose_all, {"checkpoint": ["state file"]}),
        (lone_meta, {"model.ckpt-7": ["meta graph"]}),
        (lone_input, {"model.ckpt-7.input": ["input"]}),
        (broken_state, {"checkpoint": ["state file"]}),
        (name_a_file, {"checkpoint": ["state file"]}),
        (link_to_nothing, {"model.ckpt-1": ["unreadable"]}),
    ],
)
def test_what_is_not_whole_is_a_fault_of_the_directory(change, faults, tmp_path, run):
    model_dir(tmp_path, 1, 2)
    change(tmp_path)
    assert seen(tmp_path) == faults
    result = run("verify", tmp_path)
    assert result.code == 1
    assert all(name in result.out for name in faults)


def test_a_save_that_is_under_way_is_noted_and_no_fault(tmp_path):
    model_dir(tmp_path, 1)
    save(tmp_path / "model.ckpt-2_temp" / "part-00000-of-00001", {"v": np.float32([2])})
    (tmp_path / "checkpoint.tmpstate").touch()
    model_dir(tmp_path / "my_temp", 5)  # somebody's directory of that name
    report = verify_directory(tmp_path)
    assert report.ok
    assert len(report.checkpoints) == 2
    assert [Path(note.split()[0]).name for note in report.notes] == ["model.ckpt-2_temp"]


def test_a_state_file_may_name_checkpoints_of_another_directory(tmp_path):
    (prefix,) = model_dir(tmp_path / "trained", 1)
    (tmp_path / "points").mkdir()
    (tmp_path / "points" / "checkpoint").write_text(f'model_checkpoint_path: "{prefix}"\n')
    assert seen(tmp_path) == {}


def test_a_directory_with_no_checkpoint_at_any_depth_is_an_error(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(NotACheckpointError, match="no checkpoint is in it, nor below"):
        verify_directory(tmp_path)


def test_the_command_prints_each_checkpoint_and_a_total(tmp_path, run):
    first, second = model_dir(tmp_path, 1, 2)
    assert run("verify", tmp_path).out.splitlines() == [
        f"{first}: whole; 1 key, 4 B in data files checked",
        f"{second}: whole; 1 key, 4 B in data files checked",
        f"{tmp_path}: 2 of 2 checkpoints whole",
    ]
    assert run("verify", tmp_path, "--quiet").out == f"{tmp_path}: 2 of 2 checkpoints whole\n"
    newest = run("verify", tmp_path, "--newest")
    assert newest.out == f"{second}: whole; 1 key, 4 B in data files checked\n"


def test_every_path_has_its_report_in_the_json(tmp_path, run):
    first, second = model_dir(tmp_path / "a", 1, 2)
    lone = save(tmp_path / "b" / "m", {"v": np.float32([3])})
    result = run("verify", "--json", tmp_path / "a", tmp_path / "nowhere", lone)
    assert result.code == 2
    directory, nowhere, single = json.loads(result.out)
    assert (directory["path"], directory["ok"]) == (str(tmp_path / "a"), True)
    assert [one["prefix"] for one in directory["checkpoints"]] == [first, second]
    assert (nowhere["path"], nowhere["ok"]) == (str(tmp_path / "nowhere"), False)
    assert "nowhere.index" in nowhere["error"]
    assert (single["path"], single["ok"]) == (lone, True)


def test_json_lines_come_one_for_each_checkpoint_and_directory(tmp_path, run):
    first, second = model_dir(tmp_path, 1, 2)
    flip(data_file(first), 0)
    result = run("verify", "--json_lines", tmp_path)
    assert result.code == 1
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [(line["path"], line["ok"]) for line in lines] == [
        (first, False),
        (second, True),
        (str(tmp_path), True),
    ]
