"""Index files: what TensorFlow writes is read and written again byte for byte; the rest refused."""

import gc
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_party import tf

from estimator_ckpt import files
from estimator_ckpt.bundle import index, protos, slices, table
from estimator_ckpt.bundle.dtypes import dtype_name, dtype_size
from estimator_ckpt.bundle.entries import Entry
from estimator_ckpt.bundle.index import Index, Version
from estimator_ckpt.errors import (
    CorruptCheckpointError,
    NotACheckpointError,
    UnsupportedCheckpointError,
    WriteError,
)

GOLDENS = Path(__file__).parent / "goldens"
FLOAT, STRING, VARIANT, UNKNOWN = 1, 7, 21, 99


# --- checkpoints by TensorFlow ---


def save(prefix, tensors, shapes_and_slices=None):
    """Saves (key, tensor) pairs with TensorFlow's own op."""
    keys = [key for key, _ in tensors]
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=keys,
        shape_and_slices=shapes_and_slices or [""] * len(keys),
        tensors=[tensor for _, tensor in tensors],
    )
    return prefix


def many_keys(tmp_path, count, width):
    keys = [f"layer_{i * 7919 % count:05d}/{'x' * width}/kernel_{i}" for i in range(count)]
    values = [np.float32(0), np.zeros((3, 2), np.int64), np.zeros((0, 4), np.uint8)]
    return save(str(tmp_path / "m"), [(key, values[i % 3]) for i, key in enumerate(keys)])


def object_based(tmp_path):
    module = tf.Module()
    module.v = tf.Variable([1.0, 2.0])
    module.layers = [tf.Variable(3, dtype=tf.int64), tf.Variable("text")]
    return tf.train.Checkpoint(module=module).save(str(tmp_path / "ckpt"))


def partitioned_and_sharded(tmp_path):
    with tf.Graph().as_default():
        for device in ("/cpu:0", "/cpu:1"):
            with tf.device(device):
                tf.compat.v1.get_variable(f"plain{device[-1]}", [3])
        tf.compat.v1.get_variable(
            "parts", [7, 3], partitioner=tf.compat.v1.fixed_size_partitioner(3, axis=0)
        )
        tf.compat.v1.get_variable(
            "columns", [2, 8], partitioner=tf.compat.v1.fixed_size_partitioner(2, axis=1)
        )
        saver = tf.compat.v1.train.Saver(sharded=True)
        config = tf.compat.v1.ConfigProto(device_count={"CPU": 2})
        with tf.compat.v1.Session(config=config) as session:
            session.run(tf.compat.v1.global_variables_initializer())
            return saver.save(session, str(tmp_path / "model.ckpt"), global_step=7)


CHECKPOINTS = {
    "one key": lambda tmp_path: save(str(tmp_path / "m"), [("v", 1.0)]),
    "10 keys": lambda tmp_path: many_keys(tmp_path, 10, 5),
    "3,000 long keys": lambda tmp_path: many_keys(tmp_path, 3_000, 200),
    "30,000 keys": lambda tmp_path: many_keys(tmp_path, 30_000, 40),
    "keys of 70,000 bytes": lambda tmp_path: many_keys(tmp_path, 20, 70_000),
    "object-based": object_based,
    "partitioned and sharded": partitioned_and_sharded,
}


@pytest.fixture(scope="module", params=CHECKPOINTS)
def prefix(request, tmp_path_factory):
    """A checkpoint of each kind."""
    return CHECKPOINTS[request.param](tmp_path_factory.mktemp("checkpoint"))


def test_an_index_of_tensorflow_is_written_again_byte_for_byte(prefix):
    assert index.encode_index(index.read_index(prefix)) == files.read_bytes(f"{prefix}.index")


@pytest.mark.parametrize(
    "path",
    # Compressed blocks are read, and written plain.
    sorted(path for path in GOLDENS.rglob("*.index") if path.parent.name != "snappy"),
    ids=lambda path: str(path.relative_to(GOLDENS)),
)
def test_an_index_of_any_tensorflow_is_written_again_byte_for_byte(path):
    assert index.encode_index(index.read_index(str(path)[: -len(".index")])) == path.read_bytes()


def test_names_shapes_and_dtypes_are_those_that_tensorflow_finds(prefix):
    reader = tf.train.load_checkpoint(prefix)
    shapes = reader.get_variable_to_shape_map()
    dtypes = reader.get_variable_to_dtype_map()
    entries = index.read_index(prefix).entries
    assert list(entries) == sorted(entries)
    assert {
        key.decode(): (list(entry.shape), entry.dtype)
        for key, entry in entries.items()
        if not key.startswith(b"\0")
    } == {name: (shapes[name], dtypes[name].as_datatype_enum) for name in shapes}


def test_entries_of_a_partitioned_variable(tmp_path):
    found = index.read_index(partitioned_and_sharded(tmp_path))
    assert found.num_shards == 3  # /cpu:0, /cpu:1, and no device
    whole = found.entries[b"parts"]
    extents = [((0, 3), (0, 3)), ((3, 2), (0, 3)), ((5, 2), (0, 3))]
    assert whole == Entry(FLOAT, (7, 3), 0, 0, 0, 0, tuple(extents))
    parts = [found.entries[index.slice_key("parts", extent)] for extent in extents]
    assert [part.shape for part in parts] == [(3, 3), (2, 3), (2, 3)]
    assert [part.size for part in parts] == [36, 24, 24]


def test_a_slice_of_whole_dimensions_has_minus_one_as_length(tmp_path):
    prefix = save(
        str(tmp_path / "m"),
        [("v", np.zeros((1, 3))), ("v", np.zeros((3, 3)))],
        ["4 3 0,1:-", "4 3 1,3:-"],
    )
    found = index.read_index(prefix)
    assert found.entries[b"v"].slices == (((0, 1), (0, -1)), ((1, 3), (0, -1)))
    assert index.encode_index(found) == files.read_bytes(f"{prefix}.index")


def test_tensorflow_reads_an_index_with_other_keys(tmp_path):
    prefix = save(str(tmp_path / "m"), [("a", [1.0, 2.0]), ("b", np.arange(3))])
    found = index.read_index(prefix)
    entries = {
        "z/ümläut".encode(): found.entries[b"a"],
        b"a.b/.ATTRIBUTES/VARIABLE_VALUE": found.entries[b"b"],
        b"b": found.entries[b"b"],
    }
    index.write_index(prefix, Index(found.num_shards, entries))
    reader = tf.train.load_checkpoint(prefix)
    assert reader.get_tensor("z/ümläut").tolist() == [1.0, 2.0]
    assert reader.get_tensor("a.b/.ATTRIBUTES/VARIABLE_VALUE").tolist() == [0, 1, 2]
    assert sorted(reader.get_variable_to_shape_map()) == [key.decode() for key in sorted(entries)]


def test_tensorflow_reads_a_partitioned_variable_under_another_key(tmp_path):
    prefix = save(
        str(tmp_path / "m"), [("v", [[1, 2]]), ("v", [[3, 4]])], ["2 2 0,1:-", "2 2 1,1:-"]
    )
    found = index.read_index(prefix)
    whole = found.entries[b"v"]
    entries = {b"w": whole}
    for extents in whole.slices:
        entries[index.slice_key("w", extents)] = found.entries[index.slice_key("v", extents)]
    index.write_index(prefix, Index(found.num_shards, entries))
    assert tf.train.load_checkpoint(prefix).get_tensor("w").tolist() == [[1, 2], [3, 4]]


KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(st.dictionaries(KEYS, st.tuples(st.integers(0, 2**62), st.integers(0, 2**32 - 1))))
def test_any_entries_come_back_in_the_order_of_the_keys(tmp_path_factory, given_entries):
    prefix = str(tmp_path_factory.getbasetemp() / "any")
    entries = {
        key.encode(): Entry(FLOAT, (2, 0, 5)[: crc % 4], 3, offset, (4, 8, 0, 0)[crc % 4], crc)
        for key, (offset, crc) in given_entries.items()
    }
    index.write_index(prefix, Index(4, entries))
    found = index.read_index(prefix)
    assert found == Index(4, entries)
    assert list(found.entries) == sorted(entries)


# --- indexes by hand ---

HEADER = protos.BundleHeader(num_shards=2)
HEADER.version.producer = 1


def header(**fields):
    return protos.BundleHeader.FromString(
        HEADER.SerializeToString() + protos.BundleHeader(**fields).SerializeToString()
    )


def entry(dtype=FLOAT, shape=(), size=0, slices=(), **fields):
    message = protos.BundleEntry(dtype=dtype, size=size, **fields)
    message.shape.SetInParent()
    for dimension in shape:
        message.shape.dim.add(size=dimension)
    for extents in slices:
        field = message.slices.add()
        for start, length in extents:
            extent = field.extent.add(start=start)
            if length is not None:
                extent.length = length
    return message.SerializeToString()


def read(tmp_path, entries, header=HEADER):
    items = {b"": header if isinstance(header, bytes) else header.SerializeToString(), **entries}
    (tmp_path / "m.index").write_bytes(table.encode_table(sorted(items.items())))
    return index.read_index(str(tmp_path / "m"))


def test_an_index_by_hand_is_read(tmp_path):
    assert read(tmp_path, {b"v": entry(shape=(2, 3), size=24, shard_id=1, offset=5)}) == Index(
        2, {b"v": Entry(FLOAT, (2, 3), 1, 5, 24, 0)}, Version(1, 0)
    )


def test_the_format_version_comes_back(tmp_path):
    message = header()
    message.version.producer, message.version.min_consumer = 3, 1
    message.version.bad_consumers.extend([2, 5])
    found = read(tmp_path, {b"v": entry(size=4)}, message)
    assert found.version == Version(3, 1, (2, 5))
    assert index.encode_index(found) == (tmp_path / "m.index").read_bytes()


def test_fields_in_any_order_and_unknown_ones_are_understood(tmp_path):
    # size, dtype, 15: unknown varint, crc32c, 100: unknown bytes, shape
    data = bytes.fromhex("28 04  08 01  78 07  35 01000000  a2 06 02 6869  12 04 12 02 08 01")
    assert read(tmp_path, {b"v": data}).entries == {b"v": Entry(FLOAT, (1,), 0, 0, 4, 1)}


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [
        (FLOAT, (), 4),
        (FLOAT, (2, 0, 3), 0),
        (STRING, (), 5),
        (STRING, (0,), 4),
        (STRING, (0,), 0),
        (STRING, (3,), 1_000_000),
        (VARIANT, (2,), 10),
        (UNKNOWN, (5,), 1),
        (FLOAT, (1,) * 254, 4),
    ],
)
def test_sizes_that_fit(tmp_path, dtype, shape, size):
    assert read(tmp_path, {b"v": entry(dtype, shape, size)}).entries[b"v"][:2] == (dtype, shape)


HEADERS = [
    (header(num_shards=-1), CorruptCheckpointError, "header: -1 data files"),
    (header(num_shards=2**31 - 1), CorruptCheckpointError, "header: 2147483647 data files"),
    (b"", CorruptCheckpointError, "header: 0 data files"),
    (b"\x0a\x02ab", CorruptCheckpointError, "header: 0 data files"),
    (header(endianness=1), UnsupportedCheckpointError, "a big-endian checkpoint"),
    (header(endianness=2), CorruptCheckpointError, "header: endianness 2"),
    (b"\x08", CorruptCheckpointError, "no protobuf message"),
    (header(version={"producer": -1}), CorruptCheckpointError, "header: Version"),
    (header(version={"min_consumer": 2}), UnsupportedCheckpointError, "format version 2 or higher"),
    (header(version={"bad_consumers": [1]}), UnsupportedCheckpointError, r"not in \(1,\)"),
]


@pytest.mark.parametrize(("message", "error", "text"), HEADERS, ids=[case[2] for case in HEADERS])
def test_headers_that_are_refused(tmp_path, message, error, text):
    with pytest.raises(error, match=text) as caught:
        read(tmp_path, {b"v": entry(size=4)}, message)
    assert caught.value.path == str(tmp_path / "m.index")
    with pytest.raises(error, match=text):
        index.read_num_shards(str(tmp_path / "m"))


def test_the_count_of_data_files_is_read_without_the_entries(tmp_path):
    with pytest.raises(CorruptCheckpointError):
        read(tmp_path, {b"v": entry(dtype=0)})
    assert index.read_num_shards(str(tmp_path / "m")) == HEADER.num_shards == 2


ENTRIES = [
    (entry(dtype=0), r"dtype 0 and shape \[\]"),
    (entry(dtype=-1), r"dtype -1 and shape \[\]"),
    (entry(shape=(2, -1)), r"dtype 1 and shape \[2, -1\]"),
    (entry(shape=(1,) * 255, size=4), "a tensor of unknown rank, or above 254"),
    (b"\x08\x01\x12\x02\x18\x01\x28\x04", "a tensor of unknown rank, or above 254"),
    (entry(shape=(2**40, 2**40), size=4), "which is beyond all memory"),
    (entry(shape=(2**40, 0, 2**40), size=0), "which is beyond all memory"),
    (entry(shape=(2**62,), size=4), "which is beyond all memory"),
    (entry(shape=(2,), size=4), r"float32\[2\] of 4 bytes at byte 0 .* expected 8 bytes$"),
    (entry(shape=(2,), size=0), "expected 8 bytes$"),
    (entry(shape=(0,), size=1), "expected 0 bytes$"),
    (entry(STRING, (3,), 6), "expected 7 bytes or more$"),
    (entry(VARIANT, (3,), 14), "expected 15 bytes or more$"),
    (entry(UNKNOWN, (3,), -1), r"dtype 99\[3\] of -1 bytes"),
    (entry(size=4, offset=-1), "4 bytes at byte -1 of data file 0 of 2"),
    (entry(size=4, shard_id=2), "data file 2 of 2"),
    (entry(size=4, shard_id=-1), "data file -1 of 2"),
    (b"\x08", "no entry message"),
    (b"\x08\x01\x12\x7f", "no entry message"),
    (b"", r"dtype 0 and shape \[\]"),
]


@pytest.mark.parametrize(("data", "text"), ENTRIES)
def test_entries_that_are_refused(tmp_path, data, text):
    with pytest.raises(CorruptCheckpointError, match=text) as caught:
        read(tmp_path, {b"a": entry(size=4), b"v": data})
    assert (caught.value.path, caught.value.key) == (str(tmp_path / "m.index"), "v")


TOP, BOTTOM = ((0, 1), (0, 3)), ((1, 3), (0, 3))
PARTS = {
    index.slice_key("v", TOP): entry(shape=(1, 3), size=12),
    index.slice_key("v", BOTTOM): entry(shape=(3, 3), size=36),
}

SLICES = [
    (entry(shape=(4, 3), slices=[TOP, BOTTOM], size=48), PARTS, "bytes of its own"),
    (entry(shape=(4, 3), slices=[TOP, BOTTOM], offset=1), PARTS, "bytes of its own"),
    (entry(shape=(4, 3), slices=[((0, 1),)]), PARTS, "slice .* of a tensor of shape"),
    (entry(shape=(3, 3), slices=[TOP, BOTTOM]), PARTS, "slice .* of a tensor of shape"),
    (entry(shape=(4, 3), slices=[TOP, ((-1, 2), (0, 3))]), PARTS, "slice .* of a tensor of sha"),
    (entry(shape=(4, 3), slices=[TOP, ((1, None), (0, 3))]), PARTS, "slice .* of a tensor of sh"),
    (entry(shape=(4, 3), slices=[TOP, ((1, -1), (0, 3))]), PARTS, "slice .* of a tensor of shape"),
    (
        entry(shape=(4, 3), slices=[TOP, ((1, 2), (0, 3))]),
        PARTS,
        r"slice \(\(1, 2\), .* is missing",
    ),
    (entry(shape=(4, 3), slices=[((0, None), (0, None))]), PARTS, "is missing"),
    (entry(shape=(4, 3), slices=[TOP, TOP]), PARTS, "its slices overlap"),
    (entry(2, shape=(4, 3), slices=[TOP, BOTTOM]), PARTS, r"is float32\[1, 3\], the whole float64"),
    (
        entry(shape=(4, 3), slices=[TOP, BOTTOM]),
        {**PARTS, index.slice_key("v", TOP): entry(shape=(3, 1), size=12)},
        r"is float32\[3, 1\], the whole float32\[4, 3\]",
    ),
]


@pytest.mark.parametrize(("data", "parts", "text"), SLICES)
def test_slices_that_are_refused(tmp_path, data, parts, text):
    with pytest.raises(CorruptCheckpointError, match=text) as caught:
        read(tmp_path, {b"v": data, **parts})
    assert (caught.value.path, caught.value.key) == (str(tmp_path / "m.index"), "v")


def test_slice_keys_must_be_such(tmp_path):
    with pytest.raises(CorruptCheckpointError, match="an ordered string without an end"):
        read(tmp_path, {b"\0v": entry(size=4)})
    with pytest.raises(CorruptCheckpointError, match="a slice that is sliced itself"):
        read(tmp_path, {index.slice_key("v", TOP): entry(shape=(4, 3), slices=[BOTTOM])})


def test_slices_that_no_variable_names_do_no_harm(tmp_path):
    assert set(read(tmp_path, PARTS).entries) == set(PARTS)


def test_slices_that_do_not_fit_together_are_not_written(tmp_path):
    whole = Entry(FLOAT, (4, 3), 0, 0, 0, 0, (TOP, BOTTOM))
    with pytest.raises(CorruptCheckpointError, match="is missing"):
        index.write_index(str(tmp_path / "m"), Index(1, {b"v": whole}))
    assert not list(tmp_path.iterdir())


def test_the_header_must_be_there(tmp_path):
    (tmp_path / "m.index").write_bytes(table.encode_table([(b"v", entry(size=4))]))
    with pytest.raises(CorruptCheckpointError, match="the header, under the empty key, is missing"):
        index.read_index(str(tmp_path / "m"))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "there is no such file; expected a checkpoint's index"),
        (b"PK\x03\x04", "found 504b0304"),
        (b"x" * 1000, "found 7878787878787878"),
        ("directory", "expected a file, found a directory"),
    ],
    ids=str,
)
def test_other_files_are_no_checkpoint(tmp_path, content, text):
    path = tmp_path / "m.index"
    if content == "directory":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(NotACheckpointError, match=text) as caught:
        index.read_index(str(tmp_path / "m"))
    assert caught.value.path == str(path)


@pytest.mark.parametrize("size", [0, 4, 20, -1])
def test_an_index_that_is_cut_off_is_a_corrupt_one(tmp_path, size):
    read(tmp_path, {b"v": entry(size=4)})
    path = tmp_path / "m.index"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CorruptCheckpointError, match="the index is cut off: expected a table's"):
        index.read_index(str(tmp_path / "m"))


@pytest.mark.parametrize("good", [True, False])
@pytest.mark.parametrize("collecting", [True, False])
def test_reading_leaves_the_garbage_collector_as_it_was(tmp_path, good, collecting):
    (gc.enable if collecting else gc.disable)()
    try:
        read(tmp_path, {b"v": entry(size=4 if good else 5)})
    except CorruptCheckpointError:
        assert not good
    finally:
        found = gc.isenabled()
        gc.enable()
    assert found == collecting


def test_an_index_that_cannot_be_written(tmp_path):
    with pytest.raises(WriteError, match="cannot write the file: No such file or directory"):
        index.write_index(str(tmp_path / "missing" / "m"), Index(1, {}))


def test_names_of_data_files():
    assert index.shard_path("a/model.ckpt-7", 2, 12) == "a/model.ckpt-7.data-00002-of-00012"


# --- slices that overlap ---


EXTENT = st.tuples(st.integers(0, 5), st.integers(0, 3)).map(lambda e: (e[0], min(e[1], 6 - e[0])))


@given(st.integers(1, 3).flatmap(lambda n: st.lists(st.tuples(*[EXTENT] * n), max_size=6)))
def test_overlap_is_found_as_by_counting(extents):
    rank = len(extents[0]) if extents else 1
    counts = np.zeros((6,) * rank, int)
    for extent in extents:
        counts[tuple(slice(start, start + length) for start, length in extent)] += 1
    assert slices.overlap((6,) * rank, extents) == (counts.max() > 1)


def grid(rows, columns):
    return [((2 * r, 2), (3 * c, 3)) for r, c in itertools.product(range(rows), range(columns))]


def test_a_large_grid_is_understood():
    assert not slices.overlap((400, 600), grid(200, 200))
    assert slices.overlap((400, 600), [*grid(200, 200), ((77, 2), (300, 3))])


def pinwheel(turns):
    """Four slices around a smaller pinwheel, and so on; no straight cut divides them."""
    size = 2 * turns + 1
    found = [((turns, 1), (turns, 1))]
    for i in range(turns):
        n, last = size - 2 * i, size - 1 - i
        found += [((i, 1), (i, n - 1)), ((i, n - 1), (last, 1))]
        found += [((last, 1), (i + 1, n - 1)), ((i + 1, n - 1), (i, 1))]
    return (size, size), found


def test_slices_that_no_straight_cut_divides():
    shape, wheel = pinwheel(2)
    assert sum(rows * columns for (_, rows), (_, columns) in wheel) == 25
    assert not slices.overlap(shape, wheel)
    assert slices.overlap(shape, [*wheel, ((1, 1), (1, 1))])


def test_hundreds_of_slices_that_no_straight_cut_divides_count_as_overlapping():
    assert not slices.overlap(*pinwheel(100))
    assert slices.overlap(*pinwheel(200))


# --- dtypes ---


@pytest.mark.parametrize("number", range(1, 26))
def test_dtypes_are_named_as_tensorflow_names_them(number):
    dtype = tf.dtypes.as_dtype(number)
    assert dtype_name(number) == dtype.name
    assert dtype_size(number) == (dtype.size or None)


def test_an_unknown_dtype_is_named_by_its_number():
    assert (dtype_name(UNKNOWN), dtype_size(UNKNOWN)) == ("dtype 99", None)
