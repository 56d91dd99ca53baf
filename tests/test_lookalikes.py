"""What is no checkpoint, or but a part of one: named for what it is, with what to do."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from command_line import command_runner
from stock_files import data_file, save
from tensorflow_party import tf

from estimator_ckpt import open_checkpoint, verify_checkpoint
from estimator_ckpt.errors import CorruptCheckpointError, NotACheckpointError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"


def archive(*members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for member in members:
            opened.writestr(member, b"")
    return file.getvalue()


def npz():
    file = io.BytesIO()
    np.savez(file, w=np.zeros(2))
    return file.getvalue()


def safetensors():
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + b"\0" * 4


FILES = [
    ("model.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 100, "HDF5 file (as Keras writes).*load it"),
    ("model.weights.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 100, "weights of a Keras model.*load it"),
    ("model.keras", archive("metadata.json", "config.json"), "a Keras model.*load_model"),
    ("model.zip", archive("a/ckpt.index", "a/ckpt.data-00000-of-00001"), "unpack it"),
    ("model.pt", archive("archive/data.pkl", "archive/data/0"), "a PyTorch file; .*torch.load"),
    ("old.pth", pickle.dumps([1], protocol=2), "a Python pickle.*torch.load"),
    ("arrays.npz", npz(), "NumPy arrays"),
    ("model.safetensors", safetensors(), "a safetensors file"),
    ("model.ckpt-7.pt", POINTER, "Git LFS.*git lfs pull"),
]


@pytest.mark.parametrize(("name", "data", "message"), FILES, ids=[name for name, *_ in FILES])
def test_files_are_named_alone_and_in_a_directory(tmp_path, name, data, message):
    message = message.replace("(", r"\(").replace(")", r"\)")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(NotACheckpointError, match=f"this is .*{message}"):
        open_checkpoint(tmp_path / name)
    with pytest.raises(NotACheckpointError, match=f"{name} is .*{message}"):
        open_checkpoint(tmp_path)


def test_a_checkpoint_beside_them_is_the_one_that_is_meant(tmp_path):
    for name, data, _ in FILES:
        (tmp_path / name).write_bytes(data)
    prefix = save(tmp_path / "model.ckpt-7", {"w": np.float32([1])})
    assert open_checkpoint(tmp_path).prefix == prefix


def test_events_and_a_saved_model_graph(tmp_path):
    events = tmp_path / "events.out.tfevents.1700000000.host"
    events.write_bytes(b"\x18\0\0\0\0\0\0\0")
    with pytest.raises(NotACheckpointError, match="TensorBoard"):
        open_checkpoint(events)
    tf.saved_model.save(tf.Module(), str(tmp_path / "saved"))
    with pytest.raises(NotACheckpointError, match="give the directory that it is in"):
        open_checkpoint(tmp_path / "saved" / "saved_model.pb")


@pytest.mark.parametrize("names", [["_METADATA", "checkpoint"], ["manifest.ocdbt", "d"]], ids=str)
def test_orbax_directories(tmp_path, names):
    for name in names:
        (tmp_path / name).write_bytes(b"\x83\xa4")
    with pytest.raises(NotACheckpointError, match="Orbax"):
        open_checkpoint(tmp_path)


def test_an_index_that_is_a_pointer_of_git_lfs(tmp_path):
    (tmp_path / "m.index").write_bytes(POINTER)
    with pytest.raises(NotACheckpointError, match="git lfs pull"):
        open_checkpoint(tmp_path / "m")


# --- SavedModels without variables ---


def test_a_saved_model_that_never_had_variables_is_no_error(tmp_path, capsys):
    path = str(tmp_path / "saved")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        builder = tf.compat.v1.saved_model.Builder(path)
        builder.add_meta_graph_and_variables(session, ["serve"])
        builder.save()
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.variables == {}
    assert verify_checkpoint(path).ok
    run = command_runner(capsys)
    assert run("inspect", path).code == 0
    assert run("verify", path).code == 0


def test_a_saved_model_that_has_lost_its_variables_is_an_error(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "saved"))
    (tmp_path / "saved" / "variables" / "variables.index").unlink()
    with pytest.raises(CorruptCheckpointError, match="bring the directory `variables` back"):
        open_checkpoint(tmp_path / "saved")


# --- an index without its data ---


@pytest.mark.parametrize("by_directory", [False, True])
def test_an_index_without_its_data_is_listed_and_an_error(tmp_path, capsys, by_directory):
    prefix = save(tmp_path / "m-7", {"dense/w": np.float32([[1, 2]]), "global_step": np.int64(7)})
    os.remove(data_file(prefix))
    path = tmp_path if by_directory else prefix
    result = command_runner(capsys)("inspect", path)
    assert result.code == 1
    assert "dense/w" in result.out
    assert "float32" in result.out
    assert "1 of 1 data file is missing" in result.err
    with pytest.raises(CorruptCheckpointError, match="data file is missing"):
        open_checkpoint(path)


def test_the_objects_of_an_index_without_its_data_are_listed_by_keys(tmp_path, capsys):
    prefix = tf.train.Checkpoint(w=tf.Variable([1.0])).write(str(tmp_path / "ckpt"))
    os.remove(data_file(prefix))
    result = command_runner(capsys)("inspect", "--json", prefix)
    found = json.loads(result.out)
    assert result.code == 1
    assert [one["name"] for one in found["variables"]] == ["w/.ATTRIBUTES/VARIABLE_VALUE"]
    assert found["format"] == "checkpoint"


def test_data_that_is_cut_off_is_listed_and_an_error(tmp_path, capsys):
    prefix = save(tmp_path / "m", {"w": np.float32([1, 2])})
    Path(data_file(prefix)).write_bytes(b"\0" * 7)
    result = command_runner(capsys)("inspect", prefix)
    assert result.code == 1
    assert "float32" in result.out
    assert "cut off" in result.err
    for mode in ("--tree", "--all_tensors", "--tensor=w"):
        assert command_runner(capsys)("inspect", mode, prefix).code == 2
