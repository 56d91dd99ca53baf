"""The values of a checkpoint, compared with those that TensorFlow reads."""

import os
import struct

import fuzz_bundle
import google_crc32c
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_party import tf

from estimator_ckpt.bundle import tensors
from estimator_ckpt.bundle.coding import mask
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, read_index, write_index
from estimator_ckpt.bundle.slices import slice_key
from estimator_ckpt.bundle.tensors import TensorReader
from estimator_ckpt.errors import (
    CorruptCheckpointError,
    MissingTensorError,
    UnsupportedCheckpointError,
)

FLOAT, STRING, RESOURCE, VARIANT, UNKNOWN = 1, 7, 20, 21, 99

NUMPY_DTYPES = ["float16", "float32", "float64", "complex64", "complex128", "bool"]
NUMPY_DTYPES += [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
SMALL_DTYPES = ["bfloat16", "float8_e5m2", "float8_e4m3fn", "int4"]
QUANTIZED = ["qint8", "quint8", "qint16", "quint16", "qint32"]

STRINGS = {
    "scalar": np.array(b"one", object),
    "empty scalar": np.array(b"", object),
    "vector": np.array([b"", b"\0\xff", b"x" * 70_000, b"end"], object),
    "matrix": np.array([[b"a", b"bb"], [b"ccc", b""]], object),
    "no strings": np.array([], object),
    "no strings of rank 2": np.empty((3, 0), object),
}


def save(prefix, values, shapes_and_slices=None):
    """Saves (key, value) pairs with TensorFlow's own op."""
    keys = [key for key, _ in values]
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=keys,
        shape_and_slices=shapes_and_slices or [""] * len(keys),
        tensors=[value for _, value in values],
    )


def reader(prefix):
    return TensorReader(str(prefix), read_index(str(prefix)))


def value_of(tmp_path, value):
    """What our reader makes of one tensor, saved by TensorFlow."""
    save(tmp_path / "m", [("v", value)])
    return reader(tmp_path / "m").read(b"v")


def by_hand(tmp_path, data, **entries):
    """A reader of a checkpoint with these bytes and these entries."""
    prefix = tmp_path / "m"
    (tmp_path / "m.data-00000-of-00001").write_bytes(data)
    return TensorReader(
        str(prefix), Index(1, {key.encode(): entry for key, entry in entries.items()})
    )


def crc(data):
    return mask(google_crc32c.value(data))


# --- values ---


@pytest.mark.parametrize("name", NUMPY_DTYPES)
def test_values_of_numpy_s_dtypes(tmp_path, name):
    expected = np.array([[0, 1, 2], [3, 1, 100]]).astype(name)
    found = value_of(tmp_path, expected)
    assert (found.dtype, found.shape) == (expected.dtype, (2, 3))
    assert found.tolist() == expected.tolist()


NUMBERS = {"int4": 29, "uint4": 30}  # types.proto


def small(tmp_path, values, name):
    """What our reader makes of a tensor of a small dtype.

    TensorFlow 2.12 has NumPy types of its own, and none for int4 and uint4: these by hand.
    """
    try:
        dtype = tf.as_dtype(name)
    except TypeError:
        data = np.array(values).astype(getattr(ml_dtypes, name)).tobytes()
        entry = Entry(NUMBERS[name], np.shape(values), 0, 0, len(data), crc(data))
        return by_hand(tmp_path, data, v=entry).read(b"v")
    return value_of(tmp_path, tf.constant(np.array(values).astype(dtype.as_numpy_dtype)))


@pytest.mark.parametrize("name", SMALL_DTYPES)
def test_values_of_small_dtypes(tmp_path, name):
    found = small(tmp_path, [[0, 1], [-2, 3]], name)
    assert found.dtype == getattr(ml_dtypes, name)
    assert found.astype(float).tolist() == [[0, 1], [-2, 3]]


def test_values_of_uint4(tmp_path):
    found = small(tmp_path, [0, 1, 15], "uint4")
    assert found.dtype.name == "uint4"
    assert found.astype(int).tolist() == [0, 1, 15]


@pytest.mark.parametrize("name", QUANTIZED)
def test_quantized_values_are_their_integers(tmp_path, name):
    integers = np.array([[0, 1], [2, 100]], name[1:])
    found = value_of(tmp_path, tf.bitcast(integers, getattr(tf, name)))
    assert found.dtype == integers.dtype
    assert found.tolist() == integers.tolist()


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0, 3), (1, 2, 1, 3)])
def test_values_of_any_shape(tmp_path, shape):
    expected = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    found = value_of(tmp_path, expected)
    assert found.shape == shape
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("expected", STRINGS.values(), ids=STRINGS)
def test_strings(tmp_path, expected):
    found = value_of(tmp_path, tf.constant(expected, tf.string))
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tolist() == expected.tolist()


def test_arrays_are_read_only_views_of_the_file(tmp_path):
    save(tmp_path / "m", [("a", [1.0, 2.0]), ("b", "text"), ("c", [3.0, 4.0])])
    values = reader(tmp_path / "m")
    for key in (b"a", b"c"):
        array = values.read(key)
        assert not array.flags.writeable
        assert not array.flags.owndata


def test_arrays_stay_valid_when_the_reader_is_closed(tmp_path):
    save(tmp_path / "m", [("v", [1.0, 2.0])])
    with reader(tmp_path / "m") as values:
        array = values.read(b"v")
    assert array.tolist() == [1.0, 2.0]


def test_a_tensor_at_the_end_of_a_hundred_gigabytes(tmp_path):
    offset, data = 100 << 30, np.float32([1, 2]).tobytes()
    path = tmp_path / "m.data-00000-of-00001"
    with path.open("wb") as file:
        file.truncate(offset)
        file.seek(offset)
        file.write(data)
    entry = Entry(FLOAT, (2,), 0, offset, 8, crc(data))
    assert TensorReader(str(tmp_path / "m"), Index(1, {b"v": entry})).read(b"v").tolist() == [1, 2]


def test_many_data_files_are_not_all_open_at_once(tmp_path):
    entries = {}
    for shard in range(200):
        data = np.float32([shard]).tobytes()
        (tmp_path / f"m.data-{shard:05d}-of-00200").write_bytes(data)
        entries[b"v%d" % shard] = Entry(FLOAT, (1,), shard, 0, 4, crc(data))
    values = TensorReader(str(tmp_path / "m"), Index(200, entries))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        assert [values.read(key).tolist() for key in entries] == [[i] for i in range(200)]
    assert len(os.listdir("/proc/self/fd")) - before < 100


@pytest.mark.parametrize(
    ("parts", "specs"),
    [
        ([(0, 3, 0, 4), (3, 7, 0, 4)], ["7 4 0,3:0,4", "7 4 3,4:0,4"]),
        ([(0, 3, 0, 4), (3, 7, 0, 4)], ["7 4 0,3:-", "7 4 3,4:-"]),
        ([(0, 7, 3, 4), (0, 7, 0, 3)], ["7 4 -:3,1", "7 4 -:0,3"]),
        (
            [(0, 2, 0, 1), (2, 7, 0, 1), (0, 2, 1, 4), (2, 7, 1, 4)],
            ["7 4 0,2:0,1", "7 4 2,5:0,1", "7 4 0,2:1,3", "7 4 2,5:1,3"],
        ),
    ],
)
@pytest.mark.parametrize("name", ["float32", "int64", "bfloat16", "string"])
def test_a_partitioned_variable_is_put_together(tmp_path, parts, specs, name):
    expected = np.arange(28).reshape(7, 4).astype(object if name == "string" else np.float32)
    if name == "string":
        expected = np.vectorize(lambda i: b"s" * i, otypes=[object])(expected)
    whole = tf.constant(expected, tf.string) if name == "string" else tf.cast(expected, name)
    values = [("v", whole[a:b, c:d]) for a, b, c, d in parts]
    save(tmp_path / "m", values, specs)
    found = reader(tmp_path / "m").read(b"v")
    assert found.dtype == tensors.numpy_dtype(whole.dtype.as_datatype_enum)
    assert found.astype(expected.dtype).tolist() == expected.tolist()


def test_slices_can_be_read_by_their_own_keys(tmp_path):
    save(tmp_path / "m", [("v", [[1, 2]]), ("v", [[3, 4]])], ["2 2 0,1:-", "2 2 1,1:-"])
    assert reader(tmp_path / "m").read(slice_key("v", ((1, 1), (0, -1)))).tolist() == [[3, 4]]


@pytest.mark.parametrize("scheme", ["ram://checkpoint", "file://{tmp_path}"])
def test_remote_checkpoints(tmp_path, scheme):
    save(tmp_path / "local", [("v", [1.0, 2.0]), ("s", ["a", "b"])])
    prefix = f"{scheme.format(tmp_path=tmp_path)}/m"
    for name in (".index", ".data-00000-of-00001"):
        tf.io.gfile.copy(f"{tmp_path}/local{name}", prefix + name, overwrite=True)
    values = reader(prefix)
    assert values.read(b"v").tolist() == [1.0, 2.0]
    assert values.read(b"s").tolist() == [b"a", b"b"]
    tf.io.gfile.remove(f"{prefix}.data-00000-of-00001")
    with pytest.raises(CorruptCheckpointError, match="a data file: cannot"):
        values.read(b"v")


# --- strings by hand ---


def test_layout_of_strings():
    lengths = struct.pack("<III", 0, 2, 300)
    data, checksum = tensors.encode_strings([b"", b"ab", b"c" * 300])
    tail = struct.pack("<I", crc(lengths)) + b"ab" + b"c" * 300
    assert data == bytes.fromhex("00 02 ac 02") + tail
    assert checksum == crc(lengths + tail)


def test_lengths_beyond_32_bits_are_checksummed_as_64_bits():
    data = struct.pack("<IQI", 1, 2**32, 2**32 - 1)
    assert tensors._lengths_crc([1, 2**32, 2**32 - 1]) == google_crc32c.value(data)


@given(st.lists(st.binary(max_size=300)))
def test_tensorflow_stores_strings_as_encode_strings_does(tmp_path_factory, strings):
    prefix = tmp_path_factory.getbasetemp() / "strings"
    save(prefix, [("v", tf.constant(strings, tf.string))])
    values = reader(prefix)
    entry = read_index(str(prefix)).entries[b"v"]
    assert (bytes(values.raw(entry)), entry.crc32c) == tensors.encode_strings(strings)
    assert values.read(b"v").tolist() == strings
    assert values.strings(entry) == strings


def test_tensorflow_reads_strings_that_encode_strings_wrote(tmp_path):
    data, checksum = tensors.encode_strings([b"", b"two", b"x" * 200])
    (tmp_path / "m.data-00000-of-00001").write_bytes(b"padding" + data)
    entry = Entry(STRING, (3,), 0, 7, len(data), checksum)
    write_index(str(tmp_path / "m"), Index(1, {b"v": entry}))
    found = tf.train.load_checkpoint(str(tmp_path / "m")).get_tensor("v")
    assert found.tolist() == [b"", b"two", b"x" * 200]


# Bytes of a tensor of three strings, whose checksum is right.
WRONG_STRINGS = [
    ("80 80 80 80", "byte 0: a varint without an end", 4),
    ("01 80 80 80 80 80", "byte 1: a varint without an end", 6),
    ("01 01 01 00000000 6161", "3 strings with 3 bytes in all", 9),
    ("01 01 01 00000000 61616161", "3 strings with 3 bytes in all", 11),
    ("01 01 ff ff ff ff ff ff ff ff ff 01 00000000", "3 strings with 184467440737", 16),
    ("01 01 01 00000000 616161", "the checksum of the string lengths is wrong", 10),
]


@pytest.mark.parametrize(("data", "text", "size"), WRONG_STRINGS)
def test_wrong_strings_are_refused(tmp_path, data, text, size):
    data = bytes.fromhex(data)
    assert len(data) == size
    values = by_hand(tmp_path, data, v=Entry(STRING, (3,), 0, 0, size, crc(data)))
    with pytest.raises(CorruptCheckpointError, match=text) as caught:
        values.read(b"v")
    assert caught.value.path == str(tmp_path / "m.data-00000-of-00001")
    assert caught.value.key == "v"


# --- checksums ---


def every_kind():
    handle = tf.raw_ops.TensorListReserve(
        element_shape=tf.constant([2]), num_elements=3, element_dtype=tf.float32
    )
    handle = tf.raw_ops.TensorListSetItem(input_handle=handle, index=1, item=[1.0, 2.0])
    return {
        "numbers": [tf.constant([1.5, -2.0])],
        "bool": [tf.constant([True, False])],
        "bfloat16": [tf.constant([1.5, -2.0], tf.bfloat16)],
        "strings": [tf.constant(["", "abc", "d" * 130])],
        "variants": [tf.stack([handle, handle])],
        "slices": [tf.constant([[1, 2]]), tf.constant([[3, 4]])],
    }


@pytest.mark.parametrize("kind", every_kind())
def test_check_finds_every_flipped_bit(tmp_path, kind):
    values = every_kind()[kind]
    specs = ["2 2 0,1:-", "2 2 1,1:-"] if kind == "slices" else [""]
    save(tmp_path / "m", [("v", value) for value in values], specs)
    index = read_index(str(tmp_path / "m"))
    path = tmp_path / "m.data-00000-of-00001"
    data = path.read_bytes()

    def check():
        with TensorReader(str(tmp_path / "m"), index) as values:
            for entry in index.entries.values():
                values.check(entry)
            if kind != "variants":
                values.read(b"v")

    check()
    for position in range(len(data)):
        path.write_bytes(
            data[:position] + bytes([data[position] ^ 1 << position % 8]) + data[position + 1 :]
        )
        with pytest.raises(CorruptCheckpointError) as caught:
            check()
        assert caught.value.path == str(path)


def test_reading_checks_unless_told_not_to(tmp_path):
    data = np.float32([1, 2]).tobytes()
    values = by_hand(tmp_path, data, v=Entry(FLOAT, (2,), 0, 0, 8, 7))
    with pytest.raises(
        CorruptCheckpointError, match="the 8 bytes at byte 0: checksum: stored 0000"
    ):
        values.read(b"v")
    assert values.read(b"v", check=False).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("05 6162", "a variant of 5 bytes"),
        ("02 6162 00000000", "the checksum of a variant is wrong"),
        ("ff ff ff ff ff ff ff ff ff 01 00000000", "a variant of 18446744073709551615 bytes"),
        ("80", "a varint without an end"),
    ],
)
def test_wrong_variants_are_refused(tmp_path, data, text):
    data = bytes.fromhex(data)
    entry = Entry(VARIANT, (), 0, 0, len(data), crc(data))
    with pytest.raises(CorruptCheckpointError, match=text):
        by_hand(tmp_path, data).check(entry)


def test_bytes_behind_the_last_variant_are_refused(tmp_path):
    head = struct.pack("<Q", 1) + b"a"
    data = b"\x01a" + struct.pack("<I", crc(head)) + b"?"
    with pytest.raises(CorruptCheckpointError, match="its variants take 6 bytes"):
        by_hand(tmp_path, data).check(Entry(VARIANT, (), 0, 0, 7, crc(data)))


# --- what cannot be read ---


def test_a_missing_key(tmp_path):
    save(tmp_path / "m", [("v", 1.0)])
    with pytest.raises(MissingTensorError) as caught:
        reader(tmp_path / "m").read(b"w")
    assert (caught.value.path, caught.value.key) == (str(tmp_path / "m"), "w")


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (os.remove, "a data file: cannot read the file: No such file or directory"),
        (lambda path: os.truncate(path, 8), "byte 4: expected 8 bytes of a tensor, found 4 before"),
        (lambda path: os.truncate(path, 0), "byte 4: expected 8 bytes of a tensor, found 0 before"),
    ],
)
def test_a_data_file_that_is_missing_or_too_short(tmp_path, damage, text):
    save(tmp_path / "m", [("a", 1.0), ("v", [1.0, 2.0])])
    damage(tmp_path / "m.data-00000-of-00001")
    values = reader(tmp_path / "m")
    for read in (values.read, lambda key: values.check(read_index(f"{tmp_path}/m").entries[key])):
        with pytest.raises(CorruptCheckpointError, match=text) as caught:
            read(b"v")
        assert caught.value.path == str(tmp_path / "m.data-00000-of-00001")


@pytest.mark.parametrize("offset", [9, 2**62])
def test_an_offset_beyond_the_file(tmp_path, offset):
    values = by_hand(tmp_path, b"12345678", v=Entry(FLOAT, (2,), 0, offset, 8, 0))
    with pytest.raises(CorruptCheckpointError, match=f"byte {offset}: expected 8 bytes"):
        values.read(b"v")


@pytest.mark.parametrize(
    ("dtype", "name"), [(RESOURCE, "resource"), (VARIANT, "variant"), (UNKNOWN, "dtype 99")]
)
def test_dtypes_that_numpy_has_not_are_named(tmp_path, dtype, name):
    values = by_hand(tmp_path, b"12345678", v=Entry(dtype, (), 0, 0, 8, crc(b"12345678")))
    with pytest.raises(UnsupportedCheckpointError, match=f"values of dtype.* {name} cannot be"):
        values.read(b"v")


def test_a_rank_that_numpy_has_not_is_named(tmp_path):
    values = by_hand(tmp_path, b"1234", v=Entry(FLOAT, (1,) * 200, 0, 0, 4, crc(b"1234")))
    with pytest.raises(UnsupportedCheckpointError, match=r"float32\[1, .* cannot be a NumPy array"):
        values.read(b"v")


def test_slices_that_do_not_make_the_whole(tmp_path):
    save(tmp_path / "m", [("v", [[1, 2]])], ["2 2 0,1:-"])
    with pytest.raises(UnsupportedCheckpointError, match="slices have 2 of the 4 values") as caught:
        reader(tmp_path / "m").read(b"v")
    assert (caught.value.path, caught.value.key) == (str(tmp_path / "m"), "v")


# --- files broken at random ---


def test_two_thousand_random_mutations(tmp_path):
    failures, outcomes = fuzz_bundle.run(2_000, seed=0, directory=tmp_path)
    assert failures == []
    assert outcomes["refused"] > 1_000
    assert outcomes["refused by tensor"] > 100
    assert outcomes["sealed again, accepted"] > 100
