"""How GGUF packs numbers: blocks of 32 or 256 values of a row that share a scale.

All kinds are unpacked to fp32; Q8_0 is packed too. A weight is a small whole number times its
block's scale, in some kinds plus an offset. In the kinds with a K each block has parts with scales
of their own; IQ4 and MXFP4 have a table of 16 steps in place of the whole numbers. In fp32 the
results are those that llama.cpp computes with, bit for bit.

Notebook 18. Source: ggml, ggml-quants.c and gguf-py's quants.py, whose layouts these are.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float32, UInt8

from llama_from_scratch.config import record


@record
class BlockKind:
    """One way to pack numbers: `n_values` of them take `n_bytes`.

    `unpack`: None where they are plain floats.
    """

    name: str
    number: int
    n_values: int
    n_bytes: int
    unpack: Callable[[UInt8[np.ndarray, "blocks bytes"]],
                     Float32[np.ndarray, "blocks values"]] | None = None


def pack_q8_0(values: Float[np.ndarray, "blocks 32"]) -> UInt8[np.ndarray, "blocks 34"]:
    """Returns each block as an fp16 scale, a 127th of its largest size, and 32 whole numbers.

    Halves are rounded away from 0.
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
    """Scale, then 32 signed bytes."""
    return _halves(blocks[:, :2]) * blocks[:, 2:].view(np.int8).astype(np.float32)


def unpack_q4_0(blocks: UInt8[np.ndarray, "blocks 18"]) -> Float32[np.ndarray, "blocks 32"]:
    """Scale, then 16 bytes: values 0 to 15 in the low halves, 16 to 31 in the high ones.

    Each is stored with an offset of 8.
    """
    return _halves(blocks[:, :2]) * (_two_rows(blocks[:, 2:]).astype(np.float32) - 8)


def unpack_q4_1(blocks: UInt8[np.ndarray, "blocks 20"]) -> Float32[np.ndarray, "blocks 32"]:
    """Scale and smallest value, then 16 bytes as in Q4_0."""
    q = _two_rows(blocks[:, 4:]).astype(np.float32)
    return _halves(blocks[:, :2]) * q + _halves(blocks[:, 2:4])


def unpack_q5_0(blocks: UInt8[np.ndarray, "blocks 22"]) -> Float32[np.ndarray, "blocks 32"]:
    """Scale, then the fifth bits of the values in 4 bytes and the other four as in Q4_0.

    Each is stored with an offset of 16.
    """
    q = _five_bits(blocks[:, 2:6], blocks[:, 6:]).astype(np.float32)
    return _halves(blocks[:, :2]) * (q - 16)


def unpack_q5_1(blocks: UInt8[np.ndarray, "blocks 24"]) -> Float32[np.ndarray, "blocks 32"]:
    """Scale and smallest value, then 20 bytes as in Q5_0."""
    q = _five_bits(blocks[:, 4:8], blocks[:, 8:]).astype(np.float32)
    return _halves(blocks[:, :2]) * q + _halves(blocks[:, 2:4])


def unpack_q2_k(blocks: UInt8[np.ndarray, "blocks 84"]) -> Float32[np.ndarray, "blocks 256"]:
    """16 pairs of a scale and a minimum in 4 bits each, 2 bits a value, then the scales of both.

    A pair belongs to 16 values. Of each half block, each of 32 bytes has four values 32 apart.
    """
    q = (blocks[:, 16:80].reshape(-1, 2, 1, 32) >> _QUARTERS & 3).astype(np.float32)
    scale = _halves(blocks[:, 80:82]) * (blocks[:, :16] & 15).astype(np.float32)
    minimum = _halves(blocks[:, 82:]) * (blocks[:, :16] >> 4).astype(np.float32)
    return (scale[..., None] * q.reshape(-1, 16, 16) - minimum[..., None]).reshape(-1, 256)


def unpack_q3_k(blocks: UInt8[np.ndarray, "blocks 110"]) -> Float32[np.ndarray, "blocks 256"]:
    """High bits of the values, their low 2 bits, 16 scales in 12 bytes, the scale of the scales.

    Each of 32 bytes has the high bits of eight values 32 apart; the low ones are as in Q2_K. A bit
    that is not set takes 4 away. Scales have 6 bits, four in 8 bytes and two in the other 4, and an
    offset of 32.
    """
    low = blocks[:, 32:96].reshape(-1, 2, 1, 32) >> _QUARTERS & 3
    high = blocks[:, :32].reshape(-1, 1, 32) >> _EIGHTHS & 1
    q = (low.reshape(-1, 16, 16) | high.reshape(-1, 16, 16) << 2).astype(np.float32) - 4
    scales = (_two_rows(blocks[:, 96:104])
              | (blocks[:, None, 104:108] >> _QUARTERS & 3).reshape(-1, 16) << 4)
    scale = _halves(blocks[:, 108:]) * (scales.astype(np.float32) - 32)
    return (scale[..., None] * q).reshape(-1, 256)


def unpack_q4_k(blocks: UInt8[np.ndarray, "blocks 144"]) -> Float32[np.ndarray, "blocks 256"]:
    """Scales of the scales and the minima, 8 pairs of them in 12 bytes, then 4 bits a value.

    Two parts of 32 share 32 bytes: the first has the low halves.
    """
    scale, minimum = _scales_and_minima(blocks)
    q = (blocks[:, 16:].reshape(-1, 4, 1, 32) >> _HALVES & 15).reshape(-1, 8, 32)
    return (scale * q.astype(np.float32) - minimum).reshape(-1, 256)


def unpack_q5_k(blocks: UInt8[np.ndarray, "blocks 176"]) -> Float32[np.ndarray, "blocks 256"]:
    """As Q4_K, with the fifth bits before the other four.

    Each of 32 bytes has those of eight values 32 apart.
    """
    scale, minimum = _scales_and_minima(blocks)
    low = (blocks[:, 48:].reshape(-1, 4, 1, 32) >> _HALVES & 15).reshape(-1, 8, 32)
    q = low | (blocks[:, None, 16:48] >> _EIGHTHS & 1) << 4
    return (scale * q.astype(np.float32) - minimum).reshape(-1, 256)


def unpack_q6_k(blocks: UInt8[np.ndarray, "blocks 210"]) -> Float32[np.ndarray, "blocks 256"]:
    """Low 4 bits of each value, high 2 bits, 16 signed scales, and the scale of the scales.

    A scale belongs to 16 values. Of each half block, 64 bytes hold the low bits of values 0 to 63
    in their low halves and of 64 to 127 in their high ones; each of 32 bytes has the high bits of
    four values 32 apart. Values are stored with an offset of 32.
    """
    low = blocks[:, :128].reshape(-1, 2, 1, 64) >> _HALVES & 15
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> _QUARTERS & 3
    q = (low.reshape(-1, 16, 16) | high.reshape(-1, 16, 16) << 4).astype(np.float32) - 32
    scale = _halves(blocks[:, 208:]) * blocks[:, 192:208].view(np.int8).astype(np.float32)
    return (scale[..., None] * q).reshape(-1, 256)


def unpack_iq4_nl(blocks: UInt8[np.ndarray, "blocks 18"]) -> Float32[np.ndarray, "blocks 32"]:
    """Scale, then 16 bytes as in Q4_0 that say which of 16 steps a value is."""
    return _halves(blocks[:, :2]) * _IQ4_STEPS[_two_rows(blocks[:, 2:])]


def unpack_iq4_xs(blocks: UInt8[np.ndarray, "blocks 136"]) -> Float32[np.ndarray, "blocks 256"]:
    """Scale of the scales, 8 scales in 6 bytes, then each 32 values in 16 bytes as in IQ4_NL.

    Scales have 6 bits, the high two of all in the first 2 bytes, and an offset of 32.
    """
    high = (blocks[:, 2:4, None] >> _QUARTERS[:, 0] & 3).reshape(-1, 8)
    low = (blocks[:, 4:8, None] >> _HALVES[:, 0] & 15).reshape(-1, 8)
    scale = _halves(blocks[:, :2]) * ((low | high << 4).astype(np.float32) - 32)
    steps = _IQ4_STEPS[_two_rows(blocks[:, 8:].reshape(-1, 16))].reshape(-1, 8, 32)
    return (scale[..., None] * steps).reshape(-1, 256)


def unpack_mxfp4(blocks: UInt8[np.ndarray, "blocks 17"]) -> Float32[np.ndarray, "blocks 32"]:
    """Returns the exponent of a power of two, then 16 bytes as in Q4_0 of numbers with 4 bits.

    These have a sign, two bits of exponent and one more, and stand in the table doubled, so the
    exponent has 1 too much beyond its offset of 127.
    """
    scale = np.ldexp(np.float32(1), blocks[:, :1].astype(np.int32) - 128)
    return scale * _FP4_STEPS[_two_rows(blocks[:, 1:])]


_IQ4_STEPS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113],
                      np.float32)
_FP4_STEPS = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
# How far to move a byte to the right for each of the parts that share it, one a row
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
    """Those of the 8 parts of a block of Q4_K or Q5_K; they have 6 bits each."""
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
"""What can be read, by the number that files have for it."""

UNREAD = {4: "Q4_2", 5: "Q4_3", 9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS",
          18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S", 22: "IQ2_S", 24: "I8", 25: "I16", 26: "I32",
          27: "I64", 28: "F64", 29: "IQ1_M", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8",
          34: "TQ1_0", 35: "TQ2_0", 36: "IQ4_NL_4_4", 37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8",
          40: "NVFP4", 41: "Q1_0"}
"""What is known and not read."""
