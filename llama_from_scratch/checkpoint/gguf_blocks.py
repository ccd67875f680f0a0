"""How GGUF packs numbers: blocks of 32 or 256 values of a row that share a scale.

All kinds are unpacked to fp32; Q8_0 is packed too. A weight is a small whole number times its
block's scale, and in the kinds with a K each block has parts with scales of their own. In fp32 the
products are those that llama.cpp computes with, bit for bit.

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
    """Each block as an fp16 scale, a 127th of its largest size, and 32 whole numbers.

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
    q = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
    return _halves(blocks[:, :2]) * (q.astype(np.float32) - 8)


def unpack_q4_k(blocks: UInt8[np.ndarray, "blocks 144"]) -> Float32[np.ndarray, "blocks 256"]:
    """Scales of the scales and the minima, 8 pairs of them in 12 bytes, then 4 bits a value.

    The pairs have 6 bits each. Two parts of 32 share 32 bytes: the first has the low halves.
    """
    packed, nibbles = blocks[:, 4:16], blocks[:, 16:].reshape(-1, 4, 1, 32)
    first, second, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, rest & 15 | first >> 6 << 4], axis=1).astype(np.float32)
    minima = np.concatenate([second & 63, rest >> 4 | second >> 6 << 4], axis=1).astype(np.float32)
    q = (nibbles >> np.array([0, 4], np.uint8)[:, None] & 15).reshape(-1, 8, 32).astype(np.float32)
    scale, minimum = _halves(blocks[:, :2]) * scales, _halves(blocks[:, 2:4]) * minima
    return (scale[..., None] * q - minimum[..., None]).reshape(-1, 256)


def unpack_q6_k(blocks: UInt8[np.ndarray, "blocks 210"]) -> Float32[np.ndarray, "blocks 256"]:
    """Low 4 bits of each value, high 2 bits, 16 signed scales, and the scale of the scales.

    A scale belongs to 16 values. Of each half block, 64 bytes hold the low bits of values 0 to 63
    in their low halves and of 64 to 127 in their high ones; each of 32 bytes has the high bits of
    four values 32 apart. Values have 32 too much.
    """
    low = blocks[:, :128].reshape(-1, 2, 1, 64) >> np.array([0, 4], np.uint8)[:, None] & 15
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    q = (low.reshape(-1, 16, 16) | high.reshape(-1, 16, 16) << 4).astype(np.float32) - 32
    scale = _halves(blocks[:, 208:]) * blocks[:, 192:208].view(np.int8).astype(np.float32)
    return (scale[..., None] * q).reshape(-1, 256)


def _halves(raw: UInt8[np.ndarray, "blocks 2"]) -> Float32[np.ndarray, "blocks 1"]:
    return np.ascontiguousarray(raw).view("<f2").astype(np.float32)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).view(np.uint8)


KINDS = {kind.number: kind for kind in (
    BlockKind(name="F32", number=0, n_values=1, n_bytes=4),
    BlockKind(name="F16", number=1, n_values=1, n_bytes=2),
    BlockKind(name="BF16", number=30, n_values=1, n_bytes=2),
    BlockKind(name="Q4_0", number=2, n_values=32, n_bytes=18, unpack=unpack_q4_0),
    BlockKind(name="Q8_0", number=8, n_values=32, n_bytes=34, unpack=unpack_q8_0),
    BlockKind(name="Q4_K", number=12, n_values=256, n_bytes=144, unpack=unpack_q4_k),
    BlockKind(name="Q6_K", number=14, n_values=256, n_bytes=210, unpack=unpack_q6_k),
)}
"""What can be read, by the number that files have for it."""

UNREAD = {3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 13: "Q5_K",
          15: "Q8_K", 24: "I8", 25: "I16",
          26: "I32", 27: "I64", 28: "F64"}
"""What is known and not read."""
