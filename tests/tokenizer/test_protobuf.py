"""Fields of protobuf messages, read and written."""

import struct

from llama_from_scratch.tokenizer.protobuf import fields


def test_fields_that_are_not_ours_are_skipped():
    data = b"\x08\x96\x01" + b"\x11" + bytes(8) + b"\x1a\x02hi" + b"\x25" + struct.pack("<f", 1.5) + b"\x28\x07"
    assert list(fields(data, {1: int, 3: bytes, 4: float})) == [(1, 150), (3, b"hi"), (4, 1.5)]
