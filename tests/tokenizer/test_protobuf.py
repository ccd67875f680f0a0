"""Fields of protobuf messages, read and written."""

import struct

import pytest

from llama_from_scratch.tokenizer.protobuf import field, fields


def test_fields_that_are_not_ours_are_skipped():
    data = b"\x08\x96\x01" + b"\x11" + bytes(8) + b"\x1a\x02hi"
    data += b"\x25" + struct.pack("<f", 1.5) + b"\x28\x07"
    assert list(fields(data, {1: int, 3: bytes, 4: float})) == [(1, 150), (3, b"hi"), (4, 1.5)]


@pytest.mark.parametrize(
    "number, value",
    [(1, 0), (15, 127), (16, 128), (2, 10**9), (3, b""), (300, b"x" * 300), (5, 0.5), (6, -1e9)],
)
def test_a_field_comes_back_as_it_was_written(number, value):
    assert list(fields(field(number, value), {number: type(value)})) == [(number, value)]


def test_a_negative_number_has_ten_bytes_as_in_protobuf():
    assert field(43, -1) == b"\xd8\x02" + b"\xff" * 9 + b"\x01"
    assert list(fields(field(43, -1), {43: int})) == [(43, 2**64 - 1)]
