"""What a user types, and the checkpoint that it stands for."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from absl import logging
from golden_files import golden_case
from stock_files import data_file, save
from tensorflow_party import tf

from estimator_ckpt import files, open_checkpoint
from estimator_ckpt.errors import CheckpointError, NotACheckpointError

TENSORS = {"dense/bias": np.float32([1, 2]), "dense/kernel": np.float32([[3, 4], [5, 6]])}


def error_of(path: str) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    return caught.value


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged as a warning."""
    found: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: found.append(text % args))
    return found


@pytest.mark.parametrize(
    "path",
    [
        "m/model.ckpt-7",
        "m/model.ckpt-7.index",
        "m/model.ckpt-7.meta",
        "m/model.ckpt-7.data-00000-of-00001",
        "m",
        "m/",
        "m/checkpoint",
    ],
)
def test_every_way_to_name_a_checkpoint(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m").mkdir()
    monkeypatch.chdir(tmp_path)
    save(Path("m/model.ckpt-7"), TENSORS)
    Path("m/model.ckpt-7.meta").touch()
    Path("m/checkpoint").write_text('model_checkpoint_path: "model.ckpt-7"')
    for given in (path, Path(path), tmp_path / path):
        checkpoint = open_checkpoint(given)
        assert checkpoint.path == os.fspath(given)
        assert os.path.samefile(f"{checkpoint.prefix}.index", "m/model.ckpt-7.index")
        assert list(checkpoint.variables) == ["dense/bias", "dense/kernel"]


def test_a_saved_model(tmp_path: Path) -> None:
    module = tf.Module()
    module.kernel = tf.Variable([1.0, 2.0], name="kernel")
    tf.saved_model.save(module, str(tmp_path / "saved"))
    checkpoint = open_checkpoint(tmp_path / "saved")
    assert checkpoint.prefix == str(tmp_path / "saved/variables/variables")
    np.testing.assert_array_equal(checkpoint.get_tensor("kernel"), [1, 2])


def test_a_remote_checkpoint_is_read_through_tensorflow() -> None:
    prefix = tf.train.Checkpoint(w=tf.Variable([1.0, 2.0])).save("ram://somewhere/ckpt")
    for path in (prefix, "ram://somewhere"):
        checkpoint = open_checkpoint(path)
        assert checkpoint.prefix == prefix
        np.testing.assert_array_equal(checkpoint.get_tensor("w"), [1, 2])
    assert isinstance(error_of("ram://nowhere/ckpt"), NotACheckpointError)


def three_checkpoints(directory: Path) -> None:
    for step in (1, 20, 3):
        save(directory / f"model.ckpt-{step}", {"global_step": np.int64(step)})


@pytest.mark.parametrize(
    ("state", "step", "reason"),
    [
        ('model_checkpoint_path: "model.ckpt-3"', 3, None),
        ('model_checkpoint_path: "/elsewhere/model.ckpt-3"', 3, "/elsewhere/model.ckpt-3, which"),
        ('model_checkpoint_path: "model.ckpt-99"', 20, "model.ckpt-99, which is not there"),
        ("}", 20, "`checkpoint` file is broken"),
        (None, 20, "there is no `checkpoint` file"),
    ],
)
def test_the_newest_of_a_directory(
    state: str | None, step: int, reason: str | None, tmp_path: Path, warnings: list[str]
) -> None:
    three_checkpoints(tmp_path)
    if state is not None:
        (tmp_path / "checkpoint").write_text(state)
    assert open_checkpoint(tmp_path).global_step == step
    assert len(warnings) == (reason is not None)
    for warning in warnings:
        assert str(reason) in warning
        assert warning.endswith(f"reading {tmp_path}/model.ckpt-{step}")


def test_an_incomplete_checkpoint_is_not_the_newest(tmp_path: Path, warnings: list[str]) -> None:
    three_checkpoints(tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-20"')
    os.remove(data_file(str(tmp_path / "model.ckpt-20")))
    assert open_checkpoint(tmp_path).global_step == 3
    assert "not complete" in warnings[0]


def test_without_steps_in_the_names_the_time_decides(tmp_path: Path) -> None:
    for number, name in enumerate(("b", "a", "c")):
        prefix = save(tmp_path / name, {"global_step": np.int64(number)})
        os.utime(f"{prefix}.index", (0, (number + 1) % 3))
    assert open_checkpoint(tmp_path).global_step == 1


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", ["found an empty one"]),
        ("m/model.ckpt-8", ["m/model.ckpt-8.index", "did you mean 'm/model.ckpt-7'"]),
        ("m/modle.ckpt-7", ["did you mean 'm/model.ckpt-7'"]),
        ("nowhere/model.ckpt-7", ["there is no directory nowhere"]),
        ("empty", ["there is no `checkpoint` file", "no complete checkpoint"]),
        ("empty/x", ["no checkpoint is there"]),
        ("mm", ["1 checkpoint; did you mean 'm'?"]),
        ("./mm/", ["did you mean './m'?"]),
        ("model.ckpt-7", ["did you mean 'm/model.ckpt-7'?"]),
        (".", ["did you mean './m'"]),
        ("text", ["another kind of file"]),
        ("model.h5", ["an HDF5 file", "tf.train.Checkpoint"]),
        ("lonely.meta", ["no lonely.index beside it"]),
        ("lonely", ["looked for lonely.index"]),
        ("broken.index", ["no checkpoint's index", "magic number"]),
        ("nul\0", ["nul"]),
    ],
)
def test_a_wrong_path_says_what_was_looked_for(
    path: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for directory in ("m", "empty"):
        Path(directory).mkdir()
    save(Path("m/model.ckpt-7"), TENSORS)
    Path("m/checkpoint").write_text('model_checkpoint_path: "model.ckpt-7"')
    Path("text").write_text("hello")
    Path("model.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    Path("lonely.meta").touch()
    Path("broken.index").write_bytes(bytes(100))
    error = error_of(path)
    assert isinstance(error, NotACheckpointError)
    for word in words:
        assert word in str(error)


def test_a_hint_takes_no_request_for_each_file_of_a_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.ckpt-7.index").touch()
    asked: list[str] = []
    exists = files.exists
    monkeypatch.setattr(files, "exists", lambda path: asked.append(path) or exists(path))
    for is_remote, found in ((True, False), (False, True)):
        monkeypatch.setattr(files, "is_remote", lambda path, answer=is_remote: answer)
        message = str(error_of(str(tmp_path / "model.ckpt-7")))
        assert ("did you mean" in message) == any("/m/" in path for path in asked) == found


@pytest.mark.parametrize("version", ["2.12", "2.15", "2.21"])
def test_the_first_file_format_is_found_by_its_file_and_by_the_state_file(version: str) -> None:
    case = golden_case(version, "v1_format")
    for path in (case.prefix, case.directory, f"{case.directory}/checkpoint"):
        assert open_checkpoint(path).prefix == case.prefix
