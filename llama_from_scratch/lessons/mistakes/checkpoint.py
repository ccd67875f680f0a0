"""Mistakes that readers make in chapter 18."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from llama_from_scratch.checkpoint import translation
from llama_from_scratch.checkpoint.convert import convert
from llama_from_scratch.checkpoint.load import open_checkpoint
from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


# --- 1: rows back in Meta's order -----------------------------------------------------------------


def _ordered(weight: Tensor, n_heads: int, order: list[int]) -> Tensor:
    width = len(weight) // n_heads
    return weight[[head * width + row for head in range(n_heads) for row in order]]


@listed("18.1", of="to_pairs")
def permuted_once_more(weight: Tensor, n_heads: int) -> Tensor:
    """the permutation is done once more instead of undone"""
    return translation.to_halves(weight, n_heads)


@listed("18.1", of="to_pairs")
def whole_matrix(weight: Tensor, n_heads: int) -> Tensor:
    """the whole matrix is divided into halves: each head has halves of its own"""
    return translation.to_pairs(weight, 1)


@listed("18.1", of="to_pairs")
def second_half_first(weight: Tensor, n_heads: int) -> Tensor:
    """the row of the second half comes first in each pair"""
    half = len(weight) // n_heads // 2
    return _ordered(weight, n_heads, [row for r in range(half) for row in (r + half, r)])


@listed("18.1", of="to_pairs")
def columns(weight: Tensor, n_heads: int) -> Tensor:
    """the columns change places: a head is a block of rows"""
    if weight.shape[1] % (2 * n_heads):
        return weight
    return translation.to_pairs(weight.T, n_heads).T


@listed("18.1", of="to_pairs")
def unchanged(weight: Tensor, n_heads: int) -> Tensor:
    """the rows keep their order, as if a view or a transpose had been undone at the end"""
    return weight


# --- 2: half the bytes ----------------------------------------------------------------------------


def _converted(source: Path, *, format: str, dtype: str | None) -> tuple[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        convert(source, Path(folder) / "half", format=format, dtype=dtype)
        opened = open_checkpoint(Path(folder) / "half")
        return str(opened.dtype), opened.n_bytes


@listed("18.2", of="convert_in_half")
def dtype_forgotten(source: Path, target: Path) -> tuple[str, int]:
    """no dtype is given, so the weights stay in fp32"""
    return _converted(source, format="hugging-face", dtype=None)


@listed("18.2", of="convert_in_half")
def other_sixteen_bits(source: Path, target: Path) -> tuple[str, int]:
    """the dtype is float16, which is as short as bfloat16 and has a smaller range"""
    return _converted(source, format="hugging-face", dtype="float16")


@listed("18.2", of="convert_in_half")
def source_opened(source: Path, target: Path) -> tuple[str, int]:
    """the source is opened afterwards and not the target"""
    opened = open_checkpoint(source)
    return str(opened.dtype), opened.n_bytes


@listed("18.2", of="convert_in_half")
def other_format(source: Path, target: Path) -> tuple[str, int]:
    """the format is Meta's and not Hugging Face's"""
    return _converted(source, format="meta", dtype="bfloat16")


# --- 3: how long a text may be --------------------------------------------------------------------


def _context(config: LlamaConfig, left: float, *, per_token: float) -> int:
    return max(0, min(config.max_seq_len, int(left // per_token)))


@listed("18.3", of="longest_context")
def bits_as_bytes(config: LlamaConfig, bits: float, n_bytes: float) -> int:
    """bits are subtracted from bytes: eight bits make a byte"""
    left = n_bytes - config.n_params * bits
    return _context(config, left, per_token=config.kv_bytes_per_token(2))


@listed("18.3", of="longest_context")
def without_weights(config: LlamaConfig, bits: float, n_bytes: float) -> int:
    """the weights are not subtracted: they need room, too"""
    return _context(config, n_bytes, per_token=config.kv_bytes_per_token(2))


@listed("18.3", of="longest_context")
def beyond_the_context(config: LlamaConfig, bits: float, n_bytes: float) -> int:
    """the result may be longer than `max_seq_len`, which the model never learned"""
    left = n_bytes - config.n_params * bits / 8
    return max(0, int(left // config.kv_bytes_per_token(2)))


@listed("18.3", of="longest_context")
def below_zero(config: LlamaConfig, bits: float, n_bytes: float) -> int:
    """the result is negative where the weights alone do not fit: it is to be 0"""
    left = n_bytes - config.n_params * bits / 8
    return min(config.max_seq_len, int(left // config.kv_bytes_per_token(2)))


@listed("18.3", of="longest_context")
def cache_in_fp32(config: LlamaConfig, bits: float, n_bytes: float) -> int:
    """the cache is counted in fp32, 4 bytes for each number: in bf16 it has 2"""
    left = n_bytes - config.n_params * bits / 8
    return _context(config, left, per_token=config.kv_bytes_per_token(4))


@listed("18.3", of="longest_context")
def packed_cache(config: LlamaConfig, bits: float, n_bytes: float) -> int:
    """the cache is counted in the bits of the weights: it stays in bf16"""
    left = n_bytes - config.n_params * bits / 8
    return _context(config, left, per_token=config.kv_bytes_per_token(1) * bits / 8)


# --- 4: heads in another order --------------------------------------------------------------------


def _rolled(weights: Mapping[str, Tensor], *, axis_of_wo: int = 1, part: int = 2,
            only: tuple[str, ...] = ("wq", "wk", "wv", "wo")) -> dict[str, Tensor]:
    found = {}
    for name, weight in weights.items():
        if ".attention.w" in name and name.split(".")[-2] in only:
            axis = axis_of_wo if ".wo." in name else 0
            found[name] = weight.roll(weight.shape[axis] // part, axis)
    return found


@listed("18.4", of="sly")
def rows_of_wo(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """the rows of `wo` change places: the heads are its columns"""
    return _rolled(weights, axis_of_wo=0)


@listed("18.4", of="sly")
def without_wo(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`wo` is left as it is, so it reads the heads in their old order"""
    return _rolled(weights, only=("wq", "wk", "wv"))


@listed("18.4", of="sly")
def without_wv(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`wv` is left as it is, so each head gets the values of another"""
    return _rolled(weights, only=("wq", "wk", "wo"))


@listed("18.4", of="sly")
def a_quarter(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """a quarter of the rows moves: with two key heads, half of a head"""
    return _rolled(weights, part=4)


@listed("18.4", of="sly")
def nothing_changed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """the old tensors are returned"""
    return {name: weight for name, weight in weights.items() if ".attention.w" in name}
