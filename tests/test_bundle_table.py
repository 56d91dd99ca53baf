"""The table format: written, read back, and refused where a byte is wrong."""

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snappy_tables import compress, compressed_table

from estimator_ckpt.bundle import checksum, table
from estimator_ckpt.bundle.coding import encode_varint
from estimator_ckpt.errors import CheckpointError, CorruptCheckpointError

ITEMS = st.dictionaries(st.binary(max_size=40), st.binary(max_size=40)).map(
    lambda items: sorted(items.items())
)

SEPARATORS = [
    (b"the quick brown fox", b"the who", b"the r"),
    (b"abc", b"abd", b"abc"),  # nothing fits between c and d
    (b"abc", b"abe", b"abd"),
    (b"ab", b"abc", b"ab"),  # one begins with the other
    (b"a\xff", b"b", b"a\xff"),
    (b"\xfe", b"\xff\x00", b"\xfe"),
]

SUCCESSORS = [(b"abc", b"b"), (b"\xffabc", b"\xffb"), (b"\xff\xff", b"\xff\xff"), (b"", b"")]

# A table of two entries in one block, byte by byte.
LITERAL = [
    ("00 00 02", b"", b"hi"),  # shared, non-shared and value length; the rest of the key; value
    ("00 03 01", b"a/b", b"v"),
    ("02 01 00", b"c", b""),  # a/c
    ("00000000 01000000", b"", b""),  # restart offsets, their count
]


def read(data, path="m.index"):
    return [
        item
        for keys, values in table.read_table(memoryview(data), path)
        for item in zip(keys, values)
    ]


def sealed(block, kind=0):
    """A block with a trailer that fits."""
    return block + bytes([kind]) + struct.pack("<I", checksum.masked_crc32c(block + bytes([kind])))


def entry(shared, key, value):
    """An entry; ``key`` is what it does not share."""
    return b"".join(map(encode_varint, (shared, len(key), len(value)))) + key + value


def block(entries, restarts=(0,), count=None):
    """A data block as it stands, right or wrong."""
    count = len(restarts) if count is None else count
    return b"".join(entries) + struct.pack(f"<{len(restarts)}II", *restarts, count)


def handle(offset, size):
    return encode_varint(offset) + encode_varint(size)


def table_of(*blocks, separators=None, handles=None, metaindex=None, kind=0):
    """A table of whole data blocks, every checksum right."""
    file, places = b"", []
    for data in blocks:
        places.append(handle(len(file), len(data)))
        file += sealed(data, kind)
    metaindex = block([]) if metaindex is None else metaindex
    metaindex_handle = handle(len(file), len(metaindex))
    file += sealed(metaindex)
    handles = handles or places
    separators = separators or [bytes([0x7A + i]) for i in range(len(handles))]
    entries = [entry(0, key, place) for key, place in zip(separators, handles)]
    restarts = [sum(map(len, entries[:i])) for i in range(len(entries))] or [0]
    index = block(entries, restarts)
    handles = metaindex_handle + handle(len(file), len(index))
    return file + sealed(index) + handles.ljust(40, b"\0") + table.MAGIC


GOOD = block([entry(0, b"", b"h"), entry(0, b"a", b"1"), entry(1, b"b", b"2")])

# (what is wrong, the file, the message); every checksum is right, so that only the check itself
# can find it.
WRONG = [
    ("no restarts", table_of(b"\0" * 8), "0 restart offsets in a block of 8 bytes"),
    ("restarts beyond the block", table_of(block([], count=7)), "7 restart offsets"),
    (
        "absurd count of restarts",
        table_of(block([], count=2**32 - 1)),
        "4294967295 restart offsets in a block of 8 bytes",
    ),
    ("block too short", table_of(b"\0" * 4), "a block of 4 bytes, too short"),
    ("empty block", table_of(block([])), "the block's keys do not fit"),
    (
        "restart inside an entry",
        table_of(block([entry(0, b"a", b"1"), entry(0, b"b", b"2")], [0, 2])),
        "restart offset 2 is at no entry",
    ),
    (
        "restart at the end",
        table_of(block([entry(0, b"a", b"1")], [0, 5])),
        "restart offset 5 is at no entry",
    ),
    (
        "restarts out of order",
        table_of(block([entry(0, b"a", b"1"), entry(0, b"b", b"2")], [5, 0])),
        "restart offset 0 is at no entry",
    ),
    (
        "restart twice",
        table_of(block([entry(0, b"a", b"1")], [0, 0])),
        "restart offset 0 is at no entry",
    ),
    (
        "restart at an entry that shares",
        table_of(block([entry(0, b"a", b"1"), entry(1, b"b", b"2")], [0, 5])),
        "byte 5: a restart offset at an entry without its whole key",
    ),
    (
        "first entry shares",
        table_of(block([entry(3, b"a", b"1")])),
        "byte 0: a restart offset at an entry without its whole key",
    ),
    (
        "shares more than there is",
        table_of(block([entry(0, b"a", b"1"), entry(9, b"b", b"2")])),
        "byte 5: an entry longer than its block",
    ),
    (
        "key longer than the block",
        table_of(block([b"\x00\x7f\x00a"])),
        "byte 0: an entry longer than its block",
    ),
    (
        "value longer than the block",
        table_of(block([b"\x00\x01\xff\xff\xff\xff\x0fa"])),
        "byte 0: an entry longer than its block",
    ),
    (
        "a length above 32 bits",
        table_of(block([b"\x00\x01\xff\xff\xff\xff\x1fa"])),
        "byte 2: a varint of more than 32 bits",
    ),
    (
        "key twice",
        table_of(block([entry(0, b"a", b"1"), entry(0, b"a", b"2")])),
        "byte 5: key b'a' after key b'a'",
    ),
    (
        "empty key twice",
        table_of(block([entry(0, b"", b"1"), entry(0, b"", b"2")])),
        "byte 4: key b'' after key b''",
    ),
    (
        "keys fall",
        table_of(block([entry(0, b"b", b"1"), entry(0, b"a", b"2")])),
        "byte 5: key b'a' after key b'b'",
    ),
    (
        "keys fall from block to block",
        table_of(
            block([entry(0, b"b", b"1")]), block([entry(0, b"a", b"1")]), separators=[b"b", b"c"]
        ),
        "byte 18: the block's keys do not fit",
    ),
    (
        "index key too low",
        table_of(block([entry(0, b"b", b"1")]), separators=[b"a"]),
        "byte 0: the block's keys do not fit to index key b'a'",
    ),
    (
        "index key too high",
        table_of(
            block([entry(0, b"a", b"1")]), block([entry(0, b"b", b"1")]), separators=[b"b", b"c"]
        ),
        "byte 18: the block's keys do not fit to index key b'c'",
    ),
    ("block named twice", table_of(GOOD, handles=[handle(0, len(GOOD))] * 2), "a data block at 0"),
    (
        "a hole before the first block",
        table_of(GOOD, handles=[handle(1, len(GOOD) - 1)]),
        "a data block at 1",
    ),
    ("block beyond the file", table_of(GOOD, handles=[handle(0, 2**60)]), "a data block at 0 with"),
    ("handle without an end", table_of(GOOD, handles=[b"\x80"]), "a varint without an end"),
    (
        "bytes behind a handle",
        table_of(GOOD, handles=[handle(0, len(GOOD)) + b"?"]),
        "a data block at 0",
    ),
    (
        "a block nobody names",
        table_of(GOOD, block([entry(0, b"{", b"1")]), handles=[handle(0, len(GOOD))]),
        "byte 27: bytes that belong to no block",
    ),
    (
        "metaindex not empty",
        table_of(GOOD, metaindex=block([entry(0, b"a", b"1")])),
        "the metaindex block is not empty",
    ),
]


@pytest.mark.parametrize(("key", "following", "expected"), SEPARATORS)
def test_separator_is_the_shortest_that_leveldb_finds(key, following, expected):
    assert table._separator(key, following) == expected


@pytest.mark.parametrize(("key", "expected"), SUCCESSORS)
def test_successor_is_the_shortest_that_leveldb_finds(key, expected):
    assert table._successor(key) == expected


def test_layout_of_a_small_table():
    data = b"".join(bytes.fromhex(lengths) + key + value for lengths, key, value in LITERAL)
    assert table.encode_table([(b"", b"hi"), (b"a/b", b"v"), (b"a/c", b"")]) == table_of(
        data, separators=[b"b"]
    )


def test_every_sixteenth_key_is_whole():
    items = [(b"key%02d" % i, b"") for i in range(33)]
    data = table.encode_table(items)
    assert [i for i in range(33) if b"\x00\x05\x00key%02d" % i in data] == [0, 16, 32]
    assert read(data) == items


def test_a_block_ends_once_it_has_262144_bytes():
    # Entry: 3 lengths (the last of 3 bytes), key, value; then one restart offset and their count.
    fits, full = 262144 - (5 + 1 + 8) - 1, 262144 - (5 + 1 + 8)
    for size, count in ((fits, 1), (full, 2)):
        data = table.encode_table([(b"a", b"v" * size), (b"b", b"")])
        assert len(list(table.read_table(memoryview(data), ""))) == count


def test_an_overlong_entry_gets_a_block_of_its_own():
    items = [(b"a", b""), (b"b", b"v" * 600_000), (b"c", b"")]
    data = table.encode_table(items)
    assert [keys for keys, _ in table.read_table(memoryview(data), "")] == [[b"a"], [b"b"], [b"c"]]
    assert read(data) == items


@given(ITEMS)
def test_table_comes_back(items):
    assert read(table.encode_table(items)) == items


@given(ITEMS, st.integers(20, 200))
def test_table_of_many_blocks_comes_back(items, block_size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "_BLOCK_SIZE", block_size)
        assert read(table.encode_table(items)) == items


@pytest.mark.parametrize("keys", [[b"b", b"a"], [b"a", b"a"]])
@pytest.mark.parametrize("size", [0, 300_000], ids=["in a block", "between blocks"])
def test_writing_keys_out_of_order_is_a_mistake(keys, size):
    with pytest.raises(ValueError, match="strictly increasing"):
        table.encode_table([(key, b"v" * size) for key in keys])


def test_the_wrong_tables_below_are_right_but_for_one_thing():
    assert read(table_of(GOOD)) == [(b"", b"h"), (b"a", b"1"), (b"ab", b"2")]
    assert read(table_of(GOOD, block([entry(0, b"{", b"1")]))) == [
        *read(table_of(GOOD)),
        (b"{", b"1"),
    ]


@pytest.mark.parametrize(
    ("data", "message"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG]
)
def test_wrong_tables_are_refused_with_file_and_place(data, message):
    with pytest.raises(CorruptCheckpointError) as caught:
        read(data)
    assert str(caught.value).startswith("m.index: byte ")
    assert message in str(caught.value)


@pytest.mark.parametrize(("kind", "name"), [(2, "Zstandard"), (9, "type 9")], ids=str)
def test_compressed_blocks_are_named(kind, name):
    with pytest.raises(CheckpointError, match=rf"byte 0: a compressed block \({name}\)"):
        read(table_of(GOOD, kind=kind))


SOME = [(b"", b"header"), *((b"layer_%02d/kernel" % n, b"0" * 30 + b"%d" % n) for n in range(40))]


def test_snappy_blocks_are_read():
    data = compressed_table(SOME)
    assert len(data) < len(table.encode_table(SOME)) / 2
    assert read(data) == SOME


@pytest.mark.parametrize(
    ("squeeze", "message"),
    [
        (lambda data: encode_varint(22 * 50 + 1) + b"x" * 48, "claim to be 1101"),
        (lambda data: encode_varint(2**32 - 1) + b"x" * 48, "claim to be 4294967295"),
        (lambda data: encode_varint(2**32) + b"x" * 48, "more than 32 bits"),
        (lambda data: compress(data)[:-1], "no Snappy data"),
        (lambda data: encode_varint(len(data) + 1) + compress(data)[2:], "no Snappy data"),
        (lambda data: b"", "a varint without an end"),
        (lambda data: compress(b"1234567"), "a block of 7 bytes"),
        (lambda data: compress(data + b"\1"), "restart offsets"),
    ],
)
def test_wrong_snappy_blocks_are_refused(squeeze, message):
    with pytest.raises(CorruptCheckpointError, match=message):
        read(compressed_table(SOME, squeeze))


def test_every_flipped_bit_of_a_snappy_table_is_found():
    data = compressed_table(SOME[:5])
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        with pytest.raises(CheckpointError):
            read(bytes(flipped))


@pytest.mark.parametrize("items", [[], [(b"", b"header"), (b"a/b", b"1"), (b"a/c", b"2")]], ids=len)
def test_every_flipped_bit_is_found(items):
    data = table.encode_table(items)
    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            with pytest.raises(CheckpointError):
                read(bytes(flipped))


def test_every_cut_is_found():
    data = table.encode_table([(b"", b"header"), (b"a/b", b"1"), (b"a/c", b"2")])
    for size in range(len(data)):
        with pytest.raises(CorruptCheckpointError):
            read(data[:size])
        with pytest.raises(CorruptCheckpointError):
            read(data[size + 1 :] if size else b"?" + data)


def test_keys_that_repeat_each_other_beyond_measure_are_refused():
    # 100 KB in the file that would be 1.2 GB of keys.
    entries = [entry(0, b"k" * 60_000, b"")] + [entry(60_000 + i, b"k", b"") for i in range(20_000)]
    data = table_of(block(entries))
    tracemalloc.start()
    try:
        with pytest.raises(CorruptCheckpointError, match="repeat each other beyond measure"):
            read(data)
        assert tracemalloc.get_traced_memory()[1] < 200 * len(data)
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=2000))
def test_checksum_of_a_view_is_that_of_its_bytes(data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checksum, "_MOST_COPIED", 7)
        assert checksum.masked_crc32c(memoryview(data)) == checksum.masked_crc32c(data)


def test_checksum_is_the_one_of_rfc_3720():
    assert checksum.extend_crc32c(0, b"\0" * 32) == 0x8A9136AA
    assert checksum.extend_crc32c(checksum.extend_crc32c(0, b"1234"), b"56789") == 0xE3069283
