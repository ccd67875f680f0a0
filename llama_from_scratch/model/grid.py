"""Grids: which values a weight can be rounded to, how they are packed, and what they cost in bits.

A group of neighbors in a row shares a scale, stored in fp16. A grid says how many bits the number
of a weight has, how long a group is, and which values the numbers stand for:

- symmetric: scale * (-m .. m) with m = 2^(bits-1) - 1, where the largest weight becomes m
- signed: scale * (-n .. n - 1) with n = 2^(bits-1), where the largest weight becomes -n
- minimum: scale * (number - zero), a zero point for groups that are not centered
- normal: scale * one of 16 quantiles of a normal distribution, between -1 and 1

Notebook 60. Sources: Krishnamoorthi, arXiv:1806.08342, section 2 (zero points); llama.cpp, Q4_0
(signed); Dettmers et al., QLoRA, arXiv:2305.14314, section 3 (quantiles).
"""

import functools
import math

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from llama_from_scratch.config import record

KINDS = ("symmetric", "signed", "minimum", "normal")
"""The kinds of a grid."""
SCALE_BITS = 16
"""The bits of a group's scale."""
ZERO_BITS = 8
"""The bits of a group's zero point."""
_TAIL = 0.9677083
"""The probability up to which quantiles are taken, so that the outermost one is finite."""


@record
class WeightGrid:
    """The values that weights are rounded to.

    `bits`: of each number, from 2 to 8. `group`: how many neighbors of a row share a scale; None
    for the whole row. The last group of a row may be shorter. Raises ValueError for bits and groups
    outside these, for an unknown kind, and for quantiles with other than 4 bits.
    """

    bits: int
    group: int | None = 32
    kind: str = "signed"

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 2 <= self.bits <= 8:
            raise ValueError(f"the numbers of a grid have 2 to 8 bits; got {self.bits!r}")
        if self.group is not None and (type(self.group) is not int or self.group < 1):
            raise ValueError("a group has at least 1 weight, or is None for a whole row; got "
                             f"{self.group!r}")
        if self.kind not in KINDS:
            raise ValueError(f"a grid is {', '.join(KINDS)}; got {self.kind!r}")
        if self.kind == "normal" and self.bits != 4:
            raise ValueError(f"the grid of quantiles has 4 bits; got {self.bits}. Use another kind")

    @property
    def has_zeros(self) -> bool:
        """Whether each group has a zero point of its own."""
        return self.kind == "minimum"

    def n_groups(self, row: int) -> int:
        """Returns how many groups a row of this many weights has."""
        return 1 if self.group is None else math.ceil(row / self.group)

    def bits_per_weight(self, row: int) -> float:
        """Returns the bits of a weight in rows of this length, with scales and zero points."""
        of_group = SCALE_BITS + (ZERO_BITS if self.has_zeros else 0)
        return self.bits + of_group * self.n_groups(row) / row

    def levels(self) -> Float[Tensor, " numbers"]:
        """Returns the value of each number in units of the scale, for a zero point of 0."""
        if self.kind == "normal":
            return normal_levels()
        lowest = 0 if self.has_zeros else -(2 ** (self.bits - 1))
        return torch.arange(lowest, lowest + 2**self.bits, dtype=torch.float32)


@functools.cache
def normal_levels() -> Float[Tensor, "16"]:
    """Returns the 16 values of NF4: quantiles of a normal distribution, 0, and ends of -1 and 1.

    There are 8 quantiles above 0 and 7 below it, so that 0 itself is exact.
    """
    def quantiles(n: int) -> Tensor:
        probabilities = torch.linspace(_TAIL, 0.5, n + 1, dtype=torch.float64)[:-1]
        return math.sqrt(2) * torch.erfinv(2 * probabilities - 1)

    positive, negative = quantiles(8), -quantiles(7)
    values = torch.cat([negative, torch.zeros(1, dtype=torch.float64), positive]).sort().values
    return (values / values.abs().max()).float()


def values(
    numbers: Int[Tensor, "D F"] | UInt8[Tensor, "D F"], scales: Float[Tensor, "D groups"],
    zeros: UInt8[Tensor, "D groups"] | None, *, grid: WeightGrid,
) -> Float[Tensor, "D F"]:
    """Returns the values that numbers stand for, in fp32."""
    F = numbers.shape[1]
    of = torch.arange(F, device=numbers.device) // (grid.group or max(F, 1))
    levels = grid.levels().to(numbers.device)[numbers.long()]
    if zeros is not None:
        levels = levels - zeros.float()[:, of]
    return levels * scales.float()[:, of]


def pack_bits(numbers: UInt8[Tensor, "D F"], *, bits: int) -> UInt8[Tensor, "D bytes"]:
    """Returns each row as bytes: `bits` bits for each number, the lowest bit first.

    A row is filled up with zeros to whole bytes. Raises ValueError for a number that has more bits.
    """
    if numbers.numel() and int(numbers.max()) >= 2**bits:
        raise ValueError(f"numbers of {bits} bits are below {2**bits}; got {int(numbers.max())}")
    shifts = torch.arange(bits, device=numbers.device)
    single = (numbers[..., None].long() >> shifts & 1).flatten(1)
    single = functional.pad(single, (0, -single.shape[1] % 8)).unflatten(1, (-1, 8))
    return (single << torch.arange(8, device=numbers.device)).sum(-1).to(torch.uint8)


def unpack_bits(
    packed: UInt8[Tensor, "D bytes"], *, bits: int, row: int
) -> UInt8[Tensor, "D F"]:
    """Returns the first `row` numbers of each row that `pack_bits` packed."""
    if bits == 8:
        return packed
    if 8 % bits == 0:
        shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)
        return (packed[..., None] >> shifts & (2**bits - 1)).flatten(1)[:, :row]
    single = (packed[..., None] >> torch.arange(8, dtype=torch.uint8, device=packed.device)
              & 1).flatten(1)[:, : row * bits].unflatten(1, (row, bits))
    shifts = torch.arange(bits, device=packed.device)
    return (single.long() << shifts).sum(-1).to(torch.uint8)
