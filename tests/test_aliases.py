"""A second key for the same bytes: read by stock TensorFlow, refused where it would mislead."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from own_files import add_keys
from tensorflow_party import tf

from estimator_ckpt import files
from estimator_ckpt.bundle.aliases import rekey
from estimator_ckpt.bundle.index import read_index
from estimator_ckpt.bundle.slices import slice_key
from estimator_ckpt.errors import ConflictError, MissingTensorError, WriteError

ROOT = Path(__file__).resolve().parents[1]
VALUES = {
    "a": np.array([[1, 2, 3], [4, 5, 6]], np.float32),
    "b": np.array([6, 5, 4, 3, 2, 1], np.float32).reshape(2, 3),
    "words": np.array([b"x", b"yy"], object),
    "empty": np.zeros([0, 3], np.float32),
    "parts": np.arange(8, dtype=np.float32).reshape(4, 2),
    "other": np.arange(8, 16, dtype=np.float32).reshape(4, 2),
    "rows": np.arange(16, 24, dtype=np.float32).reshape(4, 2),
}
SLICES = {"parts": ["0,2:-", "2,2:-"], "other": ["0,2:-", "2,2:-"], "rows": ["0,1:-", "1,3:-"]}


@pytest.fixture
def prefix(tmp_path):
    """A checkpoint with all of VALUES, three of them partitioned, written by TensorFlow."""
    names, specs, tensors = [], [], []
    for name, value in VALUES.items():
        for extent in SLICES.get(name, [""]):
            names.append(name)
            specs.append(f"4 2 {extent}" if extent else "")
            start, length = map(int, extent.partition(":")[0].split(",")) if extent else (0, None)
            tensors.append(tf.constant(value[start : start + length] if extent else value))
    path = str(tmp_path / "model")
    tf.raw_ops.SaveV2(prefix=path, tensor_names=names, shape_and_slices=specs, tensors=tensors)
    return path


def stock_read(prefix, name, spec=""):
    """A tensor, or the slice of it that `spec` says, read by TensorFlow."""
    dtype = tf.string if VALUES.get(name, VALUES["a"]).dtype == object else tf.float32
    (tensor,) = tf.raw_ops.RestoreV2(
        prefix=prefix, tensor_names=[name], shape_and_slices=[spec], dtypes=[dtype]
    )
    return tensor.numpy()


def bytes_of(prefix):
    directory = os.path.dirname(prefix)
    return {name: files.read_bytes(os.path.join(directory, name)) for name in os.listdir(directory)}


# --- with_keys ---


def test_a_second_key_reads_the_same_values(prefix):
    add_keys(prefix, {name: f"new/{name}" for name in VALUES if name != "words"})
    for name, value in VALUES.items():
        np.testing.assert_array_equal(stock_read(prefix, name), value)
        if name != "words":
            np.testing.assert_array_equal(stock_read(prefix, f"new/{name}"), value)


def test_the_second_key_of_a_partitioned_variable_reads_under_any_partitioning(prefix):
    add_keys(prefix, {"parts": "new"})
    for spec, expected in (
        ("4 2 1,2:-", VALUES["parts"][1:3]),
        ("4 2 -:1,1", VALUES["parts"][:, 1:]),
        ("4 2 0,2:-", VALUES["parts"][:2]),
    ):
        np.testing.assert_array_equal(stock_read(prefix, "new", spec), expected)


def test_keys_of_every_kind(prefix):
    for number, key in enumerate(["naïve/字", "a/.ATTRIBUTES/b", "with space", "x" * 1000]):
        add_keys(prefix, {"parts" if number % 2 else "a": key})
        expected = VALUES["parts" if number % 2 else "a"]
        np.testing.assert_array_equal(stock_read(prefix, key), expected)


def test_the_data_are_not_touched(prefix):
    before = bytes_of(prefix)
    add_keys(prefix, {"a": "new", "parts": "more"})
    after = bytes_of(prefix)
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == ["model.index"]


def test_a_key_that_has_the_same_bytes_already_is_no_conflict(prefix):
    names = {"a": "new", "parts": "more", "b": "b"}
    add_keys(prefix, names)
    once = bytes_of(prefix)
    add_keys(prefix, names)
    assert bytes_of(prefix) == once


@pytest.mark.parametrize(
    ("names", "key"),
    [
        ({"a": "b"}, "b"),
        ({"a": "words"}, "words"),
        ({"parts": "other"}, "other"),  # their entries differ in nothing but the slices' places
        ({"parts": "rows"}, "rows"),
        ({"parts": "a"}, "a"),
        ({"a": "parts"}, "parts"),
        ({"a": "new", "b": "new"}, "new"),
        ({"parts": "new", "other": "new"}, "new"),
        ({"a": "b", "b": "a"}, "b"),
    ],
    ids=str,
)
def test_a_key_of_other_bytes_is_refused_and_nothing_is_changed(prefix, names, key):
    before = bytes_of(prefix)
    with pytest.raises(ConflictError) as caught:
        add_keys(prefix, names)
    assert caught.value.key == key
    assert bytes_of(prefix) == before


def test_a_key_that_is_not_there_is_refused_and_nothing_is_changed(prefix):
    before = bytes_of(prefix)
    with pytest.raises(MissingTensorError) as caught:
        add_keys(prefix, {"a": "new", "none": "more"})
    assert caught.value.key == "none"
    assert bytes_of(prefix) == before


# --- all or nothing ---


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_write_that_fails_leaves_the_old_index(prefix, monkeypatch, call):
    before = bytes_of(prefix)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(WriteError, match="No space left"):
        add_keys(prefix, {"a": "new"})
    assert bytes_of(prefix) == before


def test_a_process_killed_before_the_rename_leaves_the_old_index(prefix):
    before = bytes_of(prefix)
    script = f"""
import os, signal
from own_files import add_keys
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
add_keys({prefix!r}, {{"a": "new"}})
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT / "tests",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    after = bytes_of(prefix)
    assert {name: after[name] for name in before} == before
    np.testing.assert_array_equal(stock_read(prefix, "a"), VALUES["a"])
    add_keys(prefix, {"a": "new"})
    np.testing.assert_array_equal(stock_read(prefix, "new"), VALUES["a"])


# --- rekey ---


def test_rekey_keeps_what_is_named_with_the_slices(prefix):
    entries = read_index(prefix).entries
    found = rekey(entries, {"a": ["a", "one"], "parts": ["two"], "b": []})
    assert found == {
        b"a": entries[b"a"],
        b"one": entries[b"a"],
        b"two": entries[b"parts"],
        slice_key("two", ((0, 2), (0, -1))): entries[slice_key("parts", ((0, 2), (0, -1)))],
        slice_key("two", ((2, 2), (0, -1))): entries[slice_key("parts", ((2, 2), (0, -1)))],
    }


def test_rekey_may_swap_names(prefix):
    entries = read_index(prefix).entries
    found = rekey(entries, {"parts": ["other"], "other": ["parts"]})
    key = ((0, 2), (0, -1))
    assert found[slice_key("parts", key)] == entries[slice_key("other", key)]
    assert found[slice_key("other", key)] == entries[slice_key("parts", key)]


@pytest.mark.parametrize(
    "pair", [("a", "b"), ("parts", "other"), ("parts", "rows"), ("a", "parts")]
)
def test_rekey_refuses_one_key_for_two_tensors(prefix, pair):
    with pytest.raises(ConflictError, match="'new'"):
        rekey(read_index(prefix).entries, {name: ["new"] for name in pair})


def test_rekey_refuses_a_key_that_is_not_there(prefix):
    with pytest.raises(MissingTensorError, match="'none'"):
        rekey(read_index(prefix).entries, {"none": []})
