"""The bytes of a protobuf message: fields, each a number and a wire type, then a value.

Notebook 10. Llama 1 and 2. Source: https://protobuf.dev/programming-guides/encoding.
"""

import struct
from collections.abc import Iterator, Mapping

_WIRE = {int: 0, bytes: 2, float: 5}


def fields(data: bytes, wanted: Mapping[int, type]) -> Iterator[tuple[int, int | bytes | float]]:
    r"""Yields (number, value) of each field of a message whose number is in `wanted`.

    `wanted`: field number -> type. `b"\x08\x05", {1: int}` -> (1, 5). Raises ValueError if the
    message is damaged.
    """
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if number == 0 or (number in wanted and wire != _WIRE[wanted[number]]):
            raise ValueError("the wire type of a field must fit its values; got "
                             f"{wire} for field {number}. The file is damaged")
        if wire == 0:
            value, at = _varint(data, at)
            begin = at
        elif wire in (1, 2, 5):
            length, begin = (8, at) if wire == 1 else (4, at) if wire == 5 else _varint(data, at)
            at = begin + length
        else:
            raise ValueError("a field must be a number, bytes, or 4 or 8 bytes long; got wire type "
                             f"{wire}. The file is damaged")
        if at > end:
            raise ValueError("a field must end before the message does; field "
                             f"{number} has {at - begin} bytes and {end - begin} are left. The "
                             "file is cut short or damaged")
        if number not in wanted:
            continue
        if wire == 0:
            yield number, value
        else:
            found = data[begin:at]
            yield number, found if wire == 2 else struct.unpack("<f", found)[0]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns the number that begins at `at`, seven bits per byte, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("a number must end before the message does; the message ended first. "
                             "The file is cut short or damaged")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number may have at most ten bytes; got more. The file is damaged")


def field(number: int, value: int | bytes | float) -> bytes:
    """Returns the bytes of one field. A negative int is 64 bits in two's complement: ten bytes."""
    key = _number(number << 3 | _WIRE[type(value)])
    if isinstance(value, bytes):
        return key + _number(len(value)) + value
    if isinstance(value, float):
        return key + struct.pack("<f", value)
    return key + _number(value & (1 << 64) - 1)


def _number(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
