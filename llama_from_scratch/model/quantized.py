"""Linear layers whose weights are stored as integers of 8 or 4 bits, with scales in floating point.

Decoding one token reads every weight once, so it takes half the time if a weight has half the
bytes. A row, or a group of neighbors in a row, shares one scale: weight = scale * integer. These
modules are plain PyTorch: they compute the weights and multiply. `kernels.fuse` replaces them by
kernels that never write the weights to memory.

Letters: F inputs, D outputs. Notebook 35. Sources: Dettmers et al., LLM.int8(), arXiv:2208.07339,
section 2.1 (a scale per row); Frantar et al., GPTQ, arXiv:2210.17323, section 4 (groups).
"""

import torch
from jaxtyping import Float, Int, Int8, Int32
from torch import Tensor, nn
from torch.nn import functional as F

GROUP_STEP = 32       # a group is a multiple of it: 32 numbers of 4 bits are one access of 16 bytes
PER_WORD = 8          # numbers of 4 bits in one word of 32
ZERO = 8              # the stored number that stands for 0 without a minimum
# Where each of a word's 8 numbers begins. Neighbors are 16 bits apart: one mask then takes both,
# each in the half of a word where a pair of 16-bit floating-point numbers has its own.
SHIFTS = (0, 16, 4, 20, 8, 24, 12, 28)
_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


# --- 8 bits: one scale per row --------------------------------------------------------------------


def quantize_int8(
    weight: Float[Tensor, "D F"]
) -> tuple[Int8[Tensor, "D F"], Float[Tensor, " D"]]:
    """Returns integers from -127 to 127, and each row's scale in the weight's dtype.

    The largest number of a row becomes 127 or -127. Raises ValueError for a weight that is not a
    matrix of finite numbers.
    """
    _refuse_other_weights(weight)
    wide_DF = weight.detach().to(_wide(weight.dtype))
    scale_D = _scale(wide_DF.abs().amax(1) / 127, weight.dtype)
    numbers_DF = (wide_DF / scale_D.to(wide_DF.dtype)[:, None]).round().clamp(-127, 127)
    return numbers_DF.to(torch.int8), scale_D


def dequantize_int8(
    numbers: Int8[Tensor, "D F"], scale: Float[Tensor, " D"]
) -> Float[Tensor, "D F"]:
    """Returns the weight in the scale's dtype."""
    return numbers.to(scale.dtype) * scale[:, None]


# --- 4 bits: one scale per group of neighbors in a row --------------------------------------------


def quantize_int4(
    weight: Float[Tensor, "D F"], *, group: int, is_symmetric: bool = True
) -> tuple[Int32[Tensor, "D words"], Float[Tensor, "D groups"], Float[Tensor, "D groups"] | None]:
    """Returns words of eight 4-bit numbers, each group's scale, and each group's minimum or None.

    Symmetric: weight = scale * (number - 8), and 0 stays 0. Otherwise weight = scale * number +
    minimum, which uses all 16 numbers for a group that is not centered. Scales and minimums have
    the weight's dtype. Number j of a word begins at bit `SHIFTS[j]`.
    Raises ValueError for a group that is no multiple of 32 or does not divide a row, and for a
    weight that is not a matrix of finite numbers.
    """
    _refuse_other_weights(weight)
    check_group(group, in_features=weight.shape[1])
    wide = weight.detach().to(_wide(weight.dtype)).unflatten(1, (-1, group))
    if is_symmetric:
        scale, minimum, zero = _scale(wide.abs().amax(2) / 7, weight.dtype), None, ZERO
    else:
        minimum, zero = wide.amin(2).to(weight.dtype), 0
        wide = wide - minimum.to(wide.dtype)[..., None]
        scale = _scale(wide.amax(2) / 15, weight.dtype)
    numbers = (wide / scale.to(wide.dtype)[..., None]).round() + zero
    return pack_int4(numbers.clamp(0, 15).to(torch.int32).flatten(1)), scale, minimum


def dequantize_int4(
    words: Int32[Tensor, "D words"], scale: Float[Tensor, "D groups"],
    minimum: Float[Tensor, "D groups"] | None,
) -> Float[Tensor, "D F"]:
    """Returns the weight in the scale's dtype."""
    numbers = unpack_int4(words).unflatten(1, (scale.shape[1], -1))
    if minimum is None:
        return ((numbers - ZERO).to(scale.dtype) * scale[..., None]).flatten(1)
    return (numbers.to(scale.dtype) * scale[..., None] + minimum[..., None]).flatten(1)


def pack_int4(numbers: Int[Tensor, "D F"]) -> Int32[Tensor, "D words"]:
    """Returns eight numbers from 0 to 15 in each word; F must be a multiple of 8."""
    shifts = torch.tensor(SHIFTS, device=numbers.device)
    words = (numbers.long().unflatten(1, (-1, PER_WORD)) << shifts).sum(2)
    return torch.where(words < 2**31, words, words - 2**32).to(torch.int32)


def unpack_int4(words: Int32[Tensor, "D words"]) -> Int32[Tensor, "D F"]:
    """Returns the numbers, from 0 to 15, that `pack_int4` packed."""
    shifts = torch.tensor(SHIFTS, device=words.device, dtype=torch.int32)
    return ((words[..., None] >> shifts) & 15).flatten(1)


def check_group(group: int, *, in_features: int) -> None:
    """Raises ValueError unless groups of this many numbers divide rows of `in_features`."""
    if group < 1 or group % GROUP_STEP or in_features % group:
        raise ValueError(f"a group of 4-bit weights must be a multiple of {GROUP_STEP}, and rows "
                         f"must be whole groups; got a group of {group} and rows of {in_features}. "
                         "Use a smaller group, or 8 bits for this layer")


# --- the modules ----------------------------------------------------------------------------------


class Int8Linear(nn.Module):
    """y = x W^T + bias with W in 8 bits; `from_linear` makes one from an `nn.Linear`.

    In a state_dict: `numbers` (int8, D x F), `scale` (D), and `bias` if there is one.
    """

    def __init__(
        self, in_features: int, out_features: int, *, has_bias: bool = False,
        dtype: torch.dtype | None = None, device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer("numbers", torch.zeros(
            out_features, in_features, dtype=torch.int8, device=device))
        self.register_buffer("scale", torch.ones(out_features, dtype=dtype, device=device))
        self.register_buffer("bias", torch.zeros(out_features, dtype=dtype, device=device)
                             if has_bias else None)

    @classmethod
    def from_linear(cls, linear: nn.Linear) -> "Int8Linear":
        """Returns a layer with this layer's weights, rounded, and its bias."""
        new = cls(linear.in_features, linear.out_features, has_bias=linear.bias is not None,
                  dtype=linear.weight.dtype, device="meta")
        new.numbers, new.scale = quantize_int8(linear.weight)
        return _with_bias(new, linear)

    def dequantized(self) -> Float[Tensor, "D F"]:
        """Returns the weight in the scale's dtype."""
        return dequantize_int8(self.numbers, self.scale)

    def forward(self, x: Float[Tensor, "*batch F"]) -> Float[Tensor, "*batch D"]:
        return F.linear(x, self.dequantized(), self.bias)


class Int4Linear(nn.Module):
    """y = x W^T + bias with W in 4 bits; `from_linear` makes one from an `nn.Linear`.

    In a state_dict: `words` (int32, D x F/8), `scale` and, unless symmetric, `minimum` (D x F/group
    each), and `bias` if there is one.
    """

    def __init__(
        self, in_features: int, out_features: int, *, group: int, is_symmetric: bool = True,
        has_bias: bool = False, dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        check_group(group, in_features=in_features)
        self.in_features, self.out_features, self.group = in_features, out_features, group
        shape = out_features, in_features // group
        self.register_buffer("words", torch.zeros(
            out_features, in_features // PER_WORD, dtype=torch.int32, device=device))
        self.register_buffer("scale", torch.ones(shape, dtype=dtype, device=device))
        self.register_buffer("minimum", None if is_symmetric
                             else torch.zeros(shape, dtype=dtype, device=device))
        self.register_buffer("bias", torch.zeros(out_features, dtype=dtype, device=device)
                             if has_bias else None)

    @classmethod
    def from_linear(
        cls, linear: nn.Linear, *, group: int, is_symmetric: bool = True
    ) -> "Int4Linear":
        """Returns a layer with this layer's weights, rounded, and its bias."""
        new = cls(linear.in_features, linear.out_features, group=group, is_symmetric=is_symmetric,
                  has_bias=linear.bias is not None, dtype=linear.weight.dtype, device="meta")
        new.words, new.scale, new.minimum = quantize_int4(
            linear.weight, group=group, is_symmetric=is_symmetric)
        return _with_bias(new, linear)

    def dequantized(self) -> Float[Tensor, "D F"]:
        """Returns the weight in the scale's dtype."""
        return dequantize_int4(self.words, self.scale, self.minimum)

    def forward(self, x: Float[Tensor, "*batch F"]) -> Float[Tensor, "*batch D"]:
        return F.linear(x, self.dequantized(), self.bias)


def _with_bias(new: nn.Module, linear: nn.Linear) -> nn.Module:
    if linear.bias is not None:
        new.bias = linear.bias.detach().clone()
    return new.train(linear.training)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _scale(wide: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns scales in `dtype`. A row of zeros, or of numbers that `dtype` hardly holds, has one.

    Numbers are divided by the scale as it is stored, so its rounding costs no accuracy.
    """
    return wide.to(dtype).clamp(min=torch.finfo(dtype).tiny)


def _refuse_other_weights(weight: Tensor) -> None:
    if weight.ndim != 2 or weight.dtype not in _FLOATS:
        raise ValueError("a weight to quantize must be a matrix of floating-point numbers; got "
                         f"{tuple(weight.shape)} of {weight.dtype}")
    if not weight.isfinite().all():
        raise ValueError("a weight to quantize must be finite; got "
                         f"{int((~weight.isfinite()).sum())} of {weight.numel()} that are not. "
                         "Check the checkpoint, or the run that made it")
