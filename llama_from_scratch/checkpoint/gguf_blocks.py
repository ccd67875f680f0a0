"""How GGUF packs numbers: blocks of 32 or 256 values of a row share a scale.

Every kind can be unpacked, to fp32; only Q8_0 can also be packed. A weight is a small whole number
times the scale of its block, in some kinds plus an offset. In the kinds with a K, each part of a
block has its own scale. IQ4 and MXFP4 have a table of 16 steps instead of the whole numbers. The
fp32 results equal llama.cpp's, bit for bit.

Notebook 18. Source of the layouts: ggml, ggml-quants.c; gguf-py, quants.py.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float32, UInt8

from llama_from_scratch.config import record


@record
class BlockKind:
    """One way to pack numbers: `n_values` numbers take `n_bytes`.

    `unpack`: None for plain floats.
    """

    name: str
    number: int
    n_values: int
    n_bytes: int
    unpack: Callable[[UInt8[np.ndarray, "blocks bytes"]],
                     Float32[np.ndarray, "blocks values"]] | None = None


def pack_q8_0(values: Float[np.ndarray, "blocks 32"]) -> UInt8[np.ndarray, "blocks 34"]:
    """Returns each block as an fp16 scale and 32 whole numbers.

    The scale is 1/127 of the largest absolute value. Halves are rounded away from 0.
    """
    values = values.astype(np.float32)
    scale = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.where(scale == 0, np.float32(0), np.float32(1) / scale)
    scaled = values * inverse
    whole = np.trunc(scaled)
    whole += np.trunc(2 * (scaled - whole))
    return np.concatenate([_bytes(scale.astype("<f2")), _bytes(whole.astype(np.int8))], axis=1)


def unpack_q8_0(blocks: UInt8[np.ndarray, "blocks 34"]) -> Float32[np.ndarray, "blocks 32"]:
    """Unpacks Q8_0: the scale, then 32 signed bytes."""
    return _halves(blocks[:, :2]) * blocks[:, 2:].view(np.int8).astype(np.float32)


def unpack_q4_0(blocks: UInt8[np.ndarray, "blocks 18"]) -> Float32[np.ndarray, "blocks 32"]:
    """Unpacks Q4_0: the scale, then 16 bytes with two values each.

    Values 0 to 15 are in the low halves, 16 to 31 in the high halves, with an offset of 8.
    """
    return _halves(blocks[:, :2]) * (_two_rows(blocks[:, 2:]).astype(np.float32) - 8)


def unpack_q4_1(blocks: UInt8[np.ndarray, "blocks 20"]) -> Float32[np.ndarray, "blocks 32"]:
    """Unpacks Q4_1: the scale and the smallest value, then 16 bytes as in Q4_0."""
    q = _two_rows(blocks[:, 4:]).astype(np.float32)
    return _halves(blocks[:, :2]) * q + _halves(blocks[:, 2:4])


def unpack_q5_0(blocks: UInt8[np.ndarray, "blocks 22"]) -> Float32[np.ndarray, "blocks 32"]:
    """Unpacks Q5_0: the scale, 4 bytes with the fifth bit of each value, then 16 as in Q4_0.

    Each value is stored with an offset of 16.
    """
    q = _five_bits(blocks[:, 2:6], blocks[:, 6:]).astype(np.float32)
    return _halves(blocks[:, :2]) * (q - 16)


def unpack_q5_1(blocks: UInt8[np.ndarray, "blocks 24"]) -> Float32[np.ndarray, "blocks 32"]:
    """Unpacks Q5_1: the scale and the smallest value, then 20 bytes as in Q5_0."""
    q = _five_bits(blocks[:, 4:8], blocks[:, 8:]).astype(np.float32)
    return _halves(blocks[:, :2]) * q + _halves(blocks[:, 2:4])


def unpack_q2_k(blocks: UInt8[np.ndarray, "blocks 84"]) -> Float32[np.ndarray, "blocks 256"]:
    """Unpacks Q2_K: 16 pairs of a 4-bit scale and a 4-bit minimum, 2-bit values, scales of both.

    A pair belongs to 16 values. Each half block has 32 bytes; each byte has four values that are 32
    apart.
    """
    q = (blocks[:, 16:80].reshape(-1, 2, 1, 32) >> _QUARTERS & 3).astype(np.float32)
    scale = _halves(blocks[:, 80:82]) * (blocks[:, :16] & 15).astype(np.float32)
    minimum = _halves(blocks[:, 82:]) * (blocks[:, :16] >> 4).astype(np.float32)
    return (scale[..., None] * q.reshape(-1, 16, 16) - minimum[..., None]).reshape(-1, 256)


def unpack_q3_k(blocks: UInt8[np.ndarray, "blocks 110"]) -> Float32[np.ndarray, "blocks 256"]:
    """Unpacks Q3_K: high bits, low 2 bits, 16 scales in 12 bytes, the scale of the scales.

    Each of 32 bytes has the high bits of eight values that are 32 apart. The low bits are as in
    Q2_K. If the high bit is not set, 4 is subtracted. Scales have 6 bits, four of them in 8 bytes
    and two in the other 4 bytes, and an offset of 32.
    """
    low = blocks[:, 32:96].reshape(-1, 2, 1, 32) >> _QUARTERS & 3
    high = blocks[:, :32].reshape(-1, 1, 32) >> _EIGHTHS & 1
    q = (low.reshape(-1, 16, 16) | high.reshape(-1, 16, 16) << 2).astype(np.float32) - 4
    scales = (_two_rows(blocks[:, 96:104])
              | (blocks[:, None, 104:108] >> _QUARTERS & 3).reshape(-1, 16) << 4)
    scale = _halves(blocks[:, 108:]) * (scales.astype(np.float32) - 32)
    return (scale[..., None] * q).reshape(-1, 256)


def unpack_q4_k(blocks: UInt8[np.ndarray, "blocks 144"]) -> Float32[np.ndarray, "blocks 256"]:
    """Unpacks Q4_K: the scales of scales and minima, 8 pairs of these in 12 bytes, 4-bit values.

    Two parts of 32 values share 32 bytes; the first part has the low halves.
    """
    scale, minimum = _scales_and_minima(blocks)
    q = (blocks[:, 16:].reshape(-1, 4, 1, 32) >> _HALVES & 15).reshape(-1, 8, 32)
    return (scale * q.astype(np.float32) - minimum).reshape(-1, 256)


def unpack_q5_k(blocks: UInt8[np.ndarray, "blocks 176"]) -> Float32[np.ndarray, "blocks 256"]:
    """Unpacks Q5_K: like Q4_K, with the fifth bits before the other four.

    Each of 32 bytes has the fifth bits of eight values that are 32 apart.
    """
    scale, minimum = _scales_and_minima(blocks)
    low = (blocks[:, 48:].reshape(-1, 4, 1, 32) >> _HALVES & 15).reshape(-1, 8, 32)
    q = low | (blocks[:, None, 16:48] >> _EIGHTHS & 1) << 4
    return (scale * q.astype(np.float32) - minimum).reshape(-1, 256)


def unpack_q6_k(blocks: UInt8[np.ndarray, "blocks 210"]) -> Float32[np.ndarray, "blocks 256"]:
    """Unpacks Q6_K: low 4 bits, high 2 bits, 16 signed scales, and the scale of the scales.

    A scale belongs to 16 values. In each half block, 64 bytes have the low bits of values 0 to 63
    in their low halves and of values 64 to 127 in their high halves. Each of 32 bytes has the high
    bits of four values that are 32 apart. Values are stored with an offset of 32.
    """
    low = blocks[:, :128].reshape(-1, 2, 1, 64) >> _HALVES & 15
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> _QUARTERS & 3
    q = (low.reshape(-1, 16, 16) | high.reshape(-1, 16, 16) << 4).astype(np.float32) - 32
    scale = _halves(blocks[:, 208:]) * blocks[:, 192:208].view(np.int8).astype(np.float32)
    return (scale[..., None] * q).reshape(-1, 256)


def unpack_iq4_nl(blocks: UInt8[np.ndarray, "blocks 18"]) -> Float32[np.ndarray, "blocks 32"]:
    """Unpacks IQ4_NL: the scale, then 16 bytes as in Q4_0; each number chooses one of 16 steps."""
    return _halves(blocks[:, :2]) * _IQ4_STEPS[_two_rows(blocks[:, 2:])]


def unpack_iq4_xs(blocks: UInt8[np.ndarray, "blocks 136"]) -> Float32[np.ndarray, "blocks 256"]:
    """Unpacks IQ4_XS: the scale of the scales, 8 scales in 6 bytes, 16 bytes per 32 values.

    The values are as in IQ4_NL. Scales have 6 bits and an offset of 32; the high two bits of all
    scales are in the first 2 bytes.
    """
    high = (blocks[:, 2:4, None] >> _QUARTERS[:, 0] & 3).reshape(-1, 8)
    low = (blocks[:, 4:8, None] >> _HALVES[:, 0] & 15).reshape(-1, 8)
    scale = _halves(blocks[:, :2]) * ((low | high << 4).astype(np.float32) - 32)
    steps = _IQ4_STEPS[_two_rows(blocks[:, 8:].reshape(-1, 16))].reshape(-1, 8, 32)
    return (scale[..., None] * steps).reshape(-1, 256)


def unpack_mxfp4(blocks: UInt8[np.ndarray, "blocks 17"]) -> Float32[np.ndarray, "blocks 32"]:
    """Unpacks MXFP4: the exponent of a power of two, then 16 bytes of 4-bit floats as in Q4_0.

    Each float has a sign, two exponent bits and one fraction bit. The table holds the floats times
    2, so 128 is subtracted from the exponent instead of its offset 127.
    """
    scale = np.ldexp(np.float32(1), blocks[:, :1].astype(np.int32) - 128)
    return scale * _FP4_STEPS[_two_rows(blocks[:, 1:])]


_IQ4_STEPS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113],
                      np.float32)
_FP4_STEPS = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
# How far to shift a byte to the right for each of the parts that share it, one per row
_HALVES = np.array([0, 4], np.uint8)[:, None]
_QUARTERS = np.array([0, 2, 4, 6], np.uint8)[:, None]
_EIGHTHS = np.arange(8, dtype=np.uint8)[:, None]


def _two_rows(packed: UInt8[np.ndarray, "blocks bytes"]) -> UInt8[np.ndarray, "blocks values"]:
    """Returns the low halves of all bytes, then the high halves."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _five_bits(
    fifth: UInt8[np.ndarray, "blocks 4"], packed: UInt8[np.ndarray, "blocks 16"]
) -> UInt8[np.ndarray, "blocks 32"]:
    return _two_rows(packed) | np.unpackbits(fifth, axis=1, bitorder="little") << 4


def _scales_and_minima(
    blocks: UInt8[np.ndarray, "blocks bytes"]
) -> tuple[Float32[np.ndarray, "blocks 8 1"], Float32[np.ndarray, "blocks 8 1"]]:
    """Returns the scales and minima, of 6 bits each, of the 8 parts of a Q4_K or Q5_K block."""
    first, second, rest = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = np.concatenate([first & 63, rest & 15 | first >> 6 << 4], axis=1).astype(np.float32)
    minima = np.concatenate([second & 63, rest >> 4 | second >> 6 << 4], axis=1).astype(np.float32)
    return ((_halves(blocks[:, :2]) * scales)[..., None],
            (_halves(blocks[:, 2:4]) * minima)[..., None])


def _halves(raw: UInt8[np.ndarray, "blocks 2"]) -> Float32[np.ndarray, "blocks 1"]:
    return np.ascontiguousarray(raw).view("<f2").astype(np.float32)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).view(np.uint8)


KINDS = {kind.number: kind for kind in (
    BlockKind(name="F32", number=0, n_values=1, n_bytes=4),
    BlockKind(name="F16", number=1, n_values=1, n_bytes=2),
    BlockKind(name="BF16", number=30, n_values=1, n_bytes=2),
    BlockKind(name="Q4_0", number=2, n_values=32, n_bytes=18, unpack=unpack_q4_0),
    BlockKind(name="Q4_1", number=3, n_values=32, n_bytes=20, unpack=unpack_q4_1),
    BlockKind(name="Q5_0", number=6, n_values=32, n_bytes=22, unpack=unpack_q5_0),
    BlockKind(name="Q5_1", number=7, n_values=32, n_bytes=24, unpack=unpack_q5_1),
    BlockKind(name="Q8_0", number=8, n_values=32, n_bytes=34, unpack=unpack_q8_0),
    BlockKind(name="Q2_K", number=10, n_values=256, n_bytes=84, unpack=unpack_q2_k),
    BlockKind(name="Q3_K", number=11, n_values=256, n_bytes=110, unpack=unpack_q3_k),
    BlockKind(name="Q4_K", number=12, n_values=256, n_bytes=144, unpack=unpack_q4_k),
    BlockKind(name="Q5_K", number=13, n_values=256, n_bytes=176, unpack=unpack_q5_k),
    BlockKind(name="Q6_K", number=14, n_values=256, n_bytes=210, unpack=unpack_q6_k),
    BlockKind(name="IQ4_NL", number=20, n_values=32, n_bytes=18, unpack=unpack_iq4_nl),
    BlockKind(name="IQ4_XS", number=23, n_values=256, n_bytes=136, unpack=unpack_iq4_xs),
    BlockKind(name="MXFP4", number=39, n_values=32, n_bytes=17, unpack=unpack_mxfp4),
)}
"""The kinds that can be read, by their number in files."""

UNREAD = {4: "Q4_2", 5: "Q4_3", 9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS",
          18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S", 22: "IQ2_S", 24: "I8", 25: "I16", 26: "I32",
          27: "I64", 28: "F64", 29: "IQ1_M", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8",
          34: "TQ1_0", 35: "TQ2_0", 36: "IQ4_NL_4_4", 37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8",
          40: "NVFP4", 41: "Q1_0"}
"""The kinds that are known but cannot be read."""
