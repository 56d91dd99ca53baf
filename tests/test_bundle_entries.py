"""Entries to and from messages: many at once as each alone, as TensorFlow's parser reads them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estimator_ckpt.bundle.dtypes import dtype_size
from estimator_ckpt.bundle.entries import Entry, decode_entries, encode_entries
from estimator_ckpt.errors import CorruptCheckpointError

FLOAT, STRING, INT64 = 1, 7, 9
SHARDS = 300  # so that some take two bytes
UNKNOWN_FIELD = b"\x92\x03\x01\x35"  # number 50, of one byte that looks like a tag


@st.composite
def entries(draw):
    dtype = draw(st.sampled_from([FLOAT, STRING, INT64]))
    shape = tuple(draw(st.lists(st.sampled_from([0, 1, 3, 200]), max_size=3)))
    width = dtype_size(dtype)
    count = math.prod(shape)
    if width is not None:
        size = count * width
    else:
        size = draw(st.integers(count + 4, 2**40)) if count else 0
    shard = draw(st.sampled_from([0, 0, 1, 127, 128, SHARDS - 1]))
    offset = draw(st.sampled_from([0, 0x18, 0x20, 200, 2**40]))
    crc = draw(st.integers(0, 2**32 - 1))
    slices = draw(st.sampled_from([(), (), (), (((0, 1), (1, 2)),)]))
    return (
        Entry(dtype, shape, 0, 0, 0, 0, slices)
        if slices
        else Entry(dtype, shape, shard, offset, size, crc)
    )


def decode(messages):
    return list(decode_entries(messages, SHARDS, {}))


@given(st.lists(entries()))
def test_entries_come_back(given_entries):
    assert decode(list(encode_entries(given_entries))) == given_entries


@given(st.lists(entries(), min_size=1), st.data())
def test_each_entry_of_many_is_as_the_parser_of_tensorflow_reads_it(given_entries, data):
    from tensorflow.core.protobuf import tensor_bundle_pb2

    messages = [
        data.draw(st.sampled_from([message, UNKNOWN_FIELD + message, message + UNKNOWN_FIELD]))
        for message in encode_entries(given_entries)
    ]
    for message, entry in zip(messages, decode(messages)):
        parsed = tensor_bundle_pb2.BundleEntryProto.FromString(message)
        assert (parsed.dtype, [dim.size for dim in parsed.shape.dim]) == (
            entry.dtype,
            list(entry.shape),
        )
        assert (parsed.shard_id, parsed.offset, parsed.size, parsed.crc32c) == entry[2:6]
        assert len(parsed.slices) == len(entry.slices)


@pytest.mark.parametrize(
    "wrong",
    [
        Entry(FLOAT, (2,), 0, 8, 12, 1),
        Entry(FLOAT, (2,), SHARDS, 8, 8, 1),
        Entry(0, (2,), 0, 8, 8, 1),
        Entry(STRING, (2,), 0, 8, 5, 1),
    ],
    ids=["size", "shard", "dtype", "no room for the strings"],
)
def test_the_entries_before_a_wrong_one_are_handed_out(wrong):
    sound = [Entry(FLOAT, (2,), 0, 8 * n, 8, n) for n in range(1, 4)]
    found = []
    with pytest.raises(CorruptCheckpointError):
        found.extend(decode_entries(list(encode_entries([*sound, wrong, *sound])), SHARDS, {}))
    assert found == sound
