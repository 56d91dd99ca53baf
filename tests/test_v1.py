"""TensorFlow's first checkpoint format, everywhere that a checkpoint is read."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from command_line import command_runner
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_party import tf
from v1_files import DTYPES, WIDE, stock_value, write_v1

from estimator_ckpt import (
    WarmStart,
    compare_checkpoints,
    convert_checkpoint,
    export_checkpoint,
    open_checkpoint,
    verify_checkpoint,
)
from estimator_ckpt.bundle import table
from estimator_ckpt.bundle.coding import encode_varint
from estimator_ckpt.bundle.protos import SavedTensorSlices
from estimator_ckpt.bundle.slices import slice_key
from estimator_ckpt.bundle.v1_values import _decode_varints
from estimator_ckpt.checking.audit import verify_directory
from estimator_ckpt.errors import (
    CheckpointError,
    CorruptCheckpointError,
    NotACheckpointError,
    SettingsError,
)

WHOLE = np.arange(14, dtype=np.float32).reshape(7, 2)


@pytest.fixture
def sharded(tmp_path):
    """Two files: a scalar and slices of `w` in each; its prefix."""
    slices = {"first": ("w", "7 2 0,3:-"), "second": ("w", "7 2 3,4:0,2")}
    write_v1(tmp_path / "m-20-00000-of-00002", {"a": np.float32(1), "second": WHOLE[3:]}, slices)
    write_v1(
        tmp_path / "m-20-00001-of-00002",
        {"global_step": np.int64(20), "first": WHOLE[:3]},
        slices,
    )
    return str(tmp_path / "m-20-?????-of-00002")


# --- values ---


def test_every_dtype_is_read_as_stock_reads_it(tmp_path):
    prefix = write_v1(tmp_path / "old", DTYPES)
    with open_checkpoint(prefix) as checkpoint:
        assert set(checkpoint.variables) == set(DTYPES)
        for name, value in DTYPES.items():
            dtype = tf.as_dtype(value.dtype) if value.dtype != object else tf.string
            found, stock = checkpoint.get_tensor(name), stock_value(prefix, name, dtype)
            assert checkpoint.variables[name].shape == found.shape == value.shape
            assert found.tolist() == value.tolist() == np.asarray(stock, value.dtype).tolist()
            if dtype != tf.string:
                assert found.dtype == value.dtype
                assert found.tobytes() == value.tobytes()
                assert checkpoint.variables[name].nbytes == value.nbytes


def test_quantized_values_are_the_integers(tmp_path):
    values = {
        "qint8": tf.bitcast(tf.constant([-128, 5], tf.int8), tf.qint8),
        "quint8": tf.bitcast(tf.constant([255, 5], tf.uint8), tf.quint8),
        "qint32": tf.bitcast(tf.constant([-(2**31), 5], tf.int32), tf.qint32),
    }
    prefix = str(tmp_path / "old")
    tf.raw_ops.SaveSlices(
        filename=prefix,
        tensor_names=list(values),
        shapes_and_slices=[""] * len(values),
        data=list(values.values()),
    )
    with open_checkpoint(prefix) as checkpoint:
        assert checkpoint.get_tensor("qint8").tolist() == [-128, 5]
        assert checkpoint.get_tensor("quint8").tolist() == [255, 5]
        assert checkpoint.get_tensor("qint32").tolist() == [-(2**31), 5]
        assert checkpoint.variables["qint8"].dtype == "qint8"


def test_floats_are_a_view_of_the_file(tmp_path):
    prefix = write_v1(tmp_path / "old", {"w": WHOLE})
    with open_checkpoint(prefix) as checkpoint:
        value = checkpoint.get_tensor("w")
        assert not value.flags.owndata
        assert not value.flags.writeable
    assert value.tolist() == WHOLE.tolist()  # it outlives the reader


def test_slices_of_several_files_are_put_together(sharded):
    with open_checkpoint(sharded) as checkpoint:
        assert list(checkpoint.variables) == ["a", "global_step", "w"]
        assert checkpoint.variables["w"].slices == 2
        assert checkpoint.variables["w"].nbytes == WHOLE.nbytes
        assert checkpoint.get_tensor("w").tolist() == WHOLE.tolist()
        assert checkpoint.global_step == 20


def test_one_tensor_is_read_without_the_blocks_of_the_others(tmp_path):
    tensors = {name: np.full([100_000], n, np.float32) for n, name in enumerate("abc")}
    path = write_v1(tmp_path / "old", tensors)
    data = bytearray((tmp_path / "old").read_bytes())
    data[len(data) // 2] ^= 1  # in b
    (tmp_path / "old").write_bytes(data)
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.variables) == ["a", "b", "c"]
        assert checkpoint.get_tensor("a").tolist() == tensors["a"].tolist()
        assert checkpoint.get_tensor("c").tolist() == tensors["c"].tolist()
        with pytest.raises(CorruptCheckpointError, match="block checksum") as caught:
            checkpoint.get_tensor("b")
    assert (caught.value.path, caught.value.key) == (path, "b")


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_varints_are_decoded_all_at_once(values):
    codes = np.frombuffer(b"".join(map(encode_varint, values)), np.uint8)
    assert _decode_varints(codes, np.flatnonzero(codes < 0x80)).tolist() == values


def test_more_varints_than_are_decoded_at_a_time(tmp_path):
    value = np.resize(WIDE, 400_000)
    with open_checkpoint(write_v1(tmp_path / "old", {"v": value})) as checkpoint:
        assert np.array_equal(checkpoint.get_tensor("v"), value)


# --- names ---


@pytest.mark.parametrize(
    "given_name",
    ["m-20-?????-of-00002", "m-20-00001-of-00002", "m-20", "m-20.meta", "", "checkpoint"],
)
def test_every_way_to_name_a_sharded_one(sharded, tmp_path, given_name):
    (tmp_path / "m-20.meta").touch()
    state = 'model_checkpoint_path: "m-20-?????-of-00002"'
    (tmp_path / "checkpoint").write_text(state)
    assert open_checkpoint(tmp_path / given_name).prefix == sharded


def test_a_directory_without_a_state_file_is_searched_for_the_magic_number(tmp_path):
    (tmp_path / "note").write_text("no checkpoint")
    path = write_v1(tmp_path / "weights", {"w": WHOLE})
    write_v1(tmp_path / "weights.tempstate123", {"w": WHOLE})
    assert open_checkpoint(tmp_path).prefix == path


def test_the_newer_format_is_meant_where_both_have_the_prefix(tmp_path):
    prefix = write_v1(tmp_path / "m", {"w": WHOLE})
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=["w"], shape_and_slices=[""], tensors=[WHOLE + 1])
    assert stock_value(prefix, "w", tf.float32)[0, 0] == 1
    for path in (prefix, tmp_path):
        with open_checkpoint(path) as checkpoint:
            assert checkpoint.get_tensor("w")[0, 0] == 1


def test_a_missing_file_of_several_is_an_error(sharded, tmp_path):
    (tmp_path / "m-20-00000-of-00002").unlink()
    for path in (sharded, tmp_path / "m-20"):
        with pytest.raises(CorruptCheckpointError, match="1 of 2 files are missing"):
            open_checkpoint(path)
    with pytest.raises(NotACheckpointError):
        open_checkpoint(tmp_path)  # it is not complete


# --- verbs ---


def test_inspect_verify_and_compare(tmp_path, sharded, capsys):
    run = command_runner(capsys)
    copy = str(tmp_path / "new" / "m")
    convert_checkpoint(sharded, copy, "saver")
    assert "w" in run("inspect", sharded).out
    assert run("inspect", sharded).out.startswith(f"{sharded}: saver (V1), ")
    report = verify_checkpoint(sharded)
    assert (report.ok, report.checked_bytes) == (True, WHOLE.nbytes + 4 + 8)
    assert run("verify", sharded).code == 0
    assert compare_checkpoints(sharded, copy).equal
    assert json.loads(run("inspect", "--json", sharded).out)["global_step"] == 20


def test_verify_names_the_file_that_is_damaged(tmp_path, sharded):
    path = tmp_path / "m-20-00001-of-00002"
    data = path.read_bytes()
    at = data.index(WHOLE[:3].tobytes())
    path.write_bytes(data[:at] + b"\xff" + data[at + 1 :])
    report = verify_checkpoint(sharded)
    ((kind, file, message),) = [(f.kind, f.file, f.message) for f in report.faults]
    assert (kind, file) == ("index", str(path))  # of which the block is, too: it is so small
    assert "block checksum" in message


def test_a_tree_is_verified_with_what_it_has_in_the_v1_format(tmp_path, sharded):
    (tmp_path / "m-20.meta").touch()
    (tmp_path / "below").mkdir()
    other = write_v1(tmp_path / "below" / "old", DTYPES)
    audit = verify_directory(tmp_path)
    assert audit.ok
    assert {report.prefix for report in audit.checkpoints} == {sharded, other}


def test_compare_sees_what_has_changed(tmp_path):
    changed = {**DTYPES, "int64": WIDE + np.int64(1), "string": DTYPES["string"][::-1].copy()}
    one = write_v1(tmp_path / "one", DTYPES)
    two = write_v1(tmp_path / "two", changed)
    compared = compare_checkpoints(one, two).variables
    assert {c.name for c in compared if c.status == "changed"} == {"int64", "string"}


@pytest.mark.parametrize("checkpoint_format", ["saver", "checkpoint", "both"])
def test_converted_values_are_what_stock_reads(tmp_path, checkpoint_format):
    prefix = write_v1(tmp_path / "old", DTYPES)
    done = convert_checkpoint(prefix, tmp_path / "new", checkpoint_format, verify=True)
    assert verify_checkpoint(done.destination).ok
    reader = tf.train.load_checkpoint(done.destination)
    with open_checkpoint(done.destination) as result:
        for name, value in DTYPES.items():
            stock = reader.get_tensor(result.variables[name].key)
            assert np.asarray(stock, value.dtype).tolist() == value.tolist()


def test_slices_stay_slices_in_a_conversion(sharded, tmp_path):
    done = convert_checkpoint(sharded, str(tmp_path / "out") + "/", "both")
    assert done.destination == str(tmp_path / "out" / "m-20")
    with open_checkpoint(done.destination) as result:
        assert result.variables["w"].slices == 2
    w = tf.train.load_checkpoint(done.destination).get_tensor("w")
    assert w.tolist() == WHOLE.tolist()


def test_conversion_with_rules_and_another_dtype(tmp_path):
    prefix = write_v1(tmp_path / "old", {"a/w": WHOLE, "a/n": np.int32([1, -2])})
    convert_checkpoint(
        prefix, tmp_path / "new", "saver", rename=[("a/(.*)", r"b/\1")], dtype="bfloat16"
    )
    with open_checkpoint(tmp_path / "new") as result:
        assert result.variables["b/w"].dtype == "bfloat16"
        assert result.get_tensor("b/w").astype(np.float32).tolist() == WHOLE.tolist()
        assert result.get_tensor("b/n").tolist() == [1, -2]


def test_in_place_is_refused_and_the_file_stays(tmp_path):
    path = tmp_path / "old"
    prefix = write_v1(path, {"w": WHOLE})
    before = path.read_bytes()
    with pytest.raises(SettingsError, match="V1"):
        convert_checkpoint(prefix, None, "both", in_place=True)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["old"]


def test_warm_start_of_an_eager_model(sharded):
    w, a = tf.Variable(tf.zeros([7, 2]), name="w"), tf.Variable(0.0, name="a")
    WarmStart(sharded).apply([w, a])
    assert w.numpy().tolist() == WHOLE.tolist()
    assert a.numpy() == 1


def test_export_writes_the_same_values(tmp_path):
    prefix = write_v1(tmp_path / "old", DTYPES)
    export_checkpoint(prefix, tmp_path / "values.npz", exclude=["string", "text"])
    with np.load(tmp_path / "values.npz") as values:
        for name, value in DTYPES.items():
            if value.dtype != object:
                assert values[name].tobytes() == value.tobytes()


def test_remote_files_are_read_block_by_block():
    prefix = write_v1("ram://v1/m-3", {"w": WHOLE, "global_step": np.int64(3)})
    for path in (prefix, "ram://v1"):
        with open_checkpoint(path) as checkpoint:
            assert (checkpoint.prefix, checkpoint.global_step) == (prefix, 3)
            assert checkpoint.get_tensor("w").tolist() == WHOLE.tolist()
    assert verify_checkpoint(prefix).ok
    convert_checkpoint(prefix, "ram://v1_out/m", "both")
    assert compare_checkpoints(prefix, "ram://v1_out/m").equal


# --- files that are wrong ---


def meta(name=b"w", dtype=1, sizes=(2,), slices=1, min_consumer=0):
    message = SavedTensorSlices()
    message.meta.versions.producer = 1
    message.meta.versions.min_consumer = min_consumer
    tensor = message.meta.tensor.add(name=name, type=dtype)
    for size in sizes:
        tensor.shape.dim.add(size=size)
    for _ in range(slices):
        part = tensor.slice.add()
        for _ in sizes:
            part.extent.add()
    return message.SerializeToString()


def field(number, payload):
    return encode_varint(number << 3 | 2) + encode_varint(len(payload)) + payload


def data(payload, number=5, times=1):
    tensor = field(3, field(number, payload)) * times
    return field(2, field(1, b"w") + field(2, b"") + tensor)


KEY = slice_key("w", [(0, -1)])
TWO = np.float32([1, 2]).tobytes()


def v1_table(path, header, value, key=KEY):
    path.write_bytes(table.encode_table([(b"", header), (key, value)]))
    return str(path)


def test_the_file_that_the_wrong_ones_are_made_of_is_right(tmp_path):
    path = v1_table(tmp_path / "m", meta(), data(TWO))
    assert open_checkpoint(path).get_tensor("w").tolist() == [1, 2]
    assert stock_value(path, "w", tf.float32).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("header", "value", "message"),
    [
        (meta(name=b""), data(TWO), "name is empty"),
        (meta(name=b"\0w"), data(TWO), "NUL character"),
        (meta(sizes=(-1,)), data(TWO), "shape"),
        (meta(dtype=0), data(TWO), "dtype 0"),
        (meta(slices=0), data(TWO), "without a slice"),
        (meta(min_consumer=9), data(TWO), "format version 9"),
        (meta()[:-1], data(TWO), "no SavedTensorSlices message"),
        (meta(sizes=(3,)), data(TWO), "8 bytes, expected 12"),
        (meta(sizes=(1 << 40,)), data(TWO), "8 bytes, expected"),
        (meta(dtype=9, sizes=(1 << 40,)), data(b"\1\2", 10), "other than 1099511627776 varints"),
        (meta(dtype=7, sizes=(1 << 40,)), data(b"a", 8), "1 strings"),
        (meta(dtype=9), data(b"\1" + b"\xff" * 10 + b"\1", 10), "more than 10 bytes"),
        (meta(dtype=9), data(b"\1\x81", 10), "other than 2 varints"),
        (meta(dtype=14), data(TWO), "bfloat16, which the V1 format does not have"),
        (meta(dtype=20), data(TWO), "resource cannot be shown"),
        (meta(), data(TWO, number=6), "0 bytes, expected 8"),
        (meta(), data(TWO, times=2), "2 messages, expected one"),
        (meta(), data(TWO)[:-1], "goes beyond its message"),
        (meta(), b"\x0b", "goes beyond its message"),
        (meta(), b"", "0 messages, expected one"),
        (meta(name=b"v"), data(TWO), "does not have it"),
    ],
    ids=str,
)
def test_wrong_files_are_refused(tmp_path, header, value, message):
    path = v1_table(tmp_path / "m", header, value)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_all(path)
    assert caught.value.path == path


def read_all(path):
    with open_checkpoint(path) as checkpoint:
        return [checkpoint.get_tensor(name) for name in checkpoint.variables]


def test_a_wrong_value_is_no_reason_to_refuse_the_listing(tmp_path):
    path = v1_table(tmp_path / "m", meta(sizes=(3,)), data(TWO))
    assert list(open_checkpoint(path).variables) == ["w"]
    (fault,) = verify_checkpoint(path).faults
    assert (fault.file, fault.key) == (path, "w")
    with pytest.raises(CorruptCheckpointError):
        convert_checkpoint(path, tmp_path / "new", "both")
    assert [one.name for one in tmp_path.iterdir()] == ["m"]


def test_one_variable_in_two_shapes_is_refused(tmp_path):
    write_v1(tmp_path / "m-00000-of-00002", {"w": WHOLE})
    write_v1(tmp_path / "m-00001-of-00002", {"w": WHOLE[:3]})
    with pytest.raises(CorruptCheckpointError, match="another shape"):
        open_checkpoint(tmp_path / "m")
    shutil.copy(tmp_path / "m-00000-of-00002", tmp_path / "m-00001-of-00002")
    with pytest.raises(CorruptCheckpointError, match="in two files"):
        open_checkpoint(tmp_path / "m")
