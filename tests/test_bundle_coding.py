"""Varints, masked checksums, the ordered code and slice keys, against literal bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estimator_ckpt.bundle import coding
from estimator_ckpt.bundle.slices import decode_slice_key, slice_key
from estimator_ckpt.errors import CorruptCheckpointError

UINT64 = st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1))
INT64 = st.one_of(st.integers(-300, 300), st.integers(-(2**63), 2**63 - 1))
# Mostly bytes that the ordered code escapes.
BYTES = st.lists(st.sampled_from([0x00, 0x01, 0x61, 0xFE, 0xFF])).map(bytes)

VARINTS = [
    (0, "00"),
    (1, "01"),
    (127, "7f"),
    (128, "80 01"),
    (300, "ac 02"),
    (2**32 - 1, "ff ff ff ff 0f"),
    (2**64 - 1, "ff ff ff ff ff ff ff ff ff 01"),
]

# The signed ones of more than two bytes are those of the comment in ordered_code.cc.
ORDERED = [
    ("unsigned", 0, "00"),
    ("unsigned", 1, "01 01"),
    ("unsigned", 255, "01 ff"),
    ("unsigned", 256, "02 01 00"),
    ("unsigned", 2**64 - 1, "08 ff ff ff ff ff ff ff ff"),
    ("signed", 0, "80"),
    ("signed", 63, "bf"),
    ("signed", 64, "c0 40"),
    ("signed", 8191, "df ff"),
    ("signed", 8192, "e0 20 00"),
    ("signed", 0x424242, "f0 42 42 42"),
    ("signed", 2**63 - 1, "ff c0 7f ff ff ff ff ff ff ff"),
    ("signed", -1, "7f"),
    ("signed", -64, "40"),
    ("signed", -65, "3f bf"),
    ("signed", -0x800, "38 00"),
    ("signed", -(2**63), "00 3f 80 00 00 00 00 00 00 00"),
    ("string", b"", "00 01"),
    ("string", b"foo", "66 6f 6f 00 01"),
    ("string", b"\x00\x13\xff", "00 ff 13 ff 00 00 01"),
    ("string", b"\xff\x00", "ff 00 00 ff 00 01"),
]

MALFORMED = [
    (coding.decode_varint, "", "byte 0: a varint without an end"),
    (coding.decode_varint, "80 80", "byte 0: a varint without an end"),
    (coding.decode_varint, "80 " * 10 + "00", "byte 0: a varint without an end"),
    (coding.decode_varint, "ff ff ff ff ff ff ff ff ff 02", "byte 0: a varint of more than 64"),
    (coding.decode_ordered_unsigned, "", "byte 0: a number is missing"),
    (coding.decode_ordered_unsigned, "02 01", "byte 0: a number of 2 bytes"),
    (coding.decode_ordered_unsigned, "09" + "01" * 9, "byte 0: a number of 9 bytes"),
    (coding.decode_ordered_unsigned, "02 00 01", "byte 0: a number with leading zeros"),
    (coding.decode_ordered_signed, "", "byte 0: a number is missing"),
    (coding.decode_ordered_signed, "c0", "byte 0: a number of 2 bytes"),
    (coding.decode_ordered_signed, "c0 3f", "byte 0: a number of 2 bytes that is out of range or"),
    (coding.decode_ordered_signed, "ff e0" + "00" * 9, "byte 0: a number of 11 bytes"),
    (coding.decode_ordered_signed, "ff c0 80" + "00" * 7, "byte 0: a number of 10 bytes that is"),
    (coding.decode_ordered_string, "", "byte 0: an ordered string without an end"),
    (coding.decode_ordered_string, "61 00", "byte 2: an ordered string without an end"),
    (coding.decode_ordered_string, "61 00 02", "byte 1: escape 00 02"),
    (coding.decode_ordered_string, "ff ff", "byte 0: escape ff ff"),
]

SLICE_KEYS = [
    ("v", ((0, 1), (0, 3)), "00 76 00 01 01 02 80 81 80 83"),
    ("v", ((1, 3), (0, -1)), "00 76 00 01 01 02 81 83 80 7f"),
    ("a/b", ((0, 64),), "00 61 2f 62 00 01 01 01 80 c0 40"),
]

NO_SLICE_KEYS = [
    ("", "a number is missing"),
    ("01 01", "not a slice key"),
    ("00 76", "an ordered string without an end"),
    ("00 76 00 01", "a number is missing"),
    ("00 76 00 01 01 02 80 81", "1 extents in a slice key of rank 2"),
    ("00 76 00 01 01 01 80", "a number is missing"),
    ("00 76 00 01 01 01 80 81 80", "1 extents in a slice key of rank 1"),
    ("00 76 00 01 08 7f ff ff ff ff ff ff ff 80 81", "1 extents in a slice key of rank 9223"),
]


def encode(kind, value):
    return getattr(coding, f"encode_ordered_{kind}")(value)


def decode(kind, data, position):
    return getattr(coding, f"decode_ordered_{kind}")(data, position)


@pytest.mark.parametrize(("value", "code"), VARINTS)
def test_varint_has_seven_bits_a_byte_the_lowest_first(value, code):
    code = bytes.fromhex(code)
    assert coding.encode_varint(value) == code
    assert coding.decode_varint(b"??" + code + b"?", 2) == (value, 2 + len(code))


@given(UINT64, st.binary())
def test_varint_comes_back(value, rest):
    code = coding.encode_varint(value)
    assert coding.decode_varint(code + rest, 0) == (value, len(code))


@given(st.lists(st.integers(0, 2**63 - 1)))
def test_many_varints_are_those_of_each(values):
    assert coding.encode_varints(values) == [coding.encode_varint(value) for value in values]


def test_varint_may_be_bounded_further():
    assert coding.decode_varint(b"\xff\xff\xff\xff\x0f", 0, bits=32) == (2**32 - 1, 5)
    with pytest.raises(CorruptCheckpointError, match="a varint of more than 32 bits"):
        coding.decode_varint(b"\xff\xff\xff\xff\x1f", 0, bits=32)


def test_mask_rotates_and_adds():
    assert coding.mask(0) == 0xA282EAD8
    assert coding.mask(0x00008000) == 0xA282EAD9
    assert coding.mask(0x00000001) == (0xA282EAD8 + (1 << 17))


@pytest.mark.parametrize(("kind", "value", "code"), ORDERED)
def test_ordered_code(kind, value, code):
    code = bytes.fromhex(code)
    assert encode(kind, value) == code
    assert decode(kind, b"??" + code + b"?", 2) == (value, 2 + len(code))


@given(st.sampled_from(["unsigned", "signed", "string"]), st.data())
def test_ordered_code_comes_back(kind, data):
    value = data.draw({"unsigned": UINT64, "signed": INT64, "string": BYTES}[kind])
    code = encode(kind, value)
    assert decode(kind, code + data.draw(st.binary()), 0) == (value, len(code))


@given(st.sampled_from(["unsigned", "signed", "string"]), st.data())
def test_ordered_code_sorts_as_its_values_do(kind, data):
    values = {"unsigned": UINT64, "signed": INT64, "string": BYTES}[kind]
    one, other = data.draw(values), data.draw(values)
    assert (encode(kind, one) < encode(kind, other)) == (one < other)


@pytest.mark.parametrize(("decoder", "code", "message"), MALFORMED)
def test_malformed_bytes_are_refused_with_their_place(decoder, code, message):
    with pytest.raises(CorruptCheckpointError) as caught:
        decoder(bytes.fromhex(code), 0, path="m.index")
    assert str(caught.value).startswith(f"m.index: {message}")


@given(st.sampled_from([case[0] for case in MALFORMED]), st.binary(max_size=12), st.integers(0, 12))
def test_any_bytes_give_a_value_or_a_checkpoint_error(decoder, data, position):
    try:
        value, end = decoder(data, position)
    except CorruptCheckpointError:
        return
    assert position < end <= len(data)
    assert value is not None


@pytest.mark.parametrize(("name", "extents", "code"), SLICE_KEYS)
def test_slice_key(name, extents, code):
    assert slice_key(name, extents) == bytes.fromhex(code)
    assert decode_slice_key(bytes.fromhex(code)) == (name, extents)


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(st.tuples(INT64, INT64), min_size=1, max_size=5).map(tuple),
)
def test_slice_key_comes_back(name, extents):
    assert decode_slice_key(slice_key(name, extents)) == (name, extents)


@pytest.mark.parametrize(("code", "message"), NO_SLICE_KEYS)
def test_malformed_slice_keys_are_refused(code, message):
    with pytest.raises(CorruptCheckpointError, match=message):
        decode_slice_key(bytes.fromhex(code))


def test_a_name_that_is_no_utf8_survives():
    key = b"\x00" + b"caf\xe9" + b"\x00\x01" + b"\x01\x01" + b"\x80\x81"
    assert slice_key(*decode_slice_key(key)) == key
