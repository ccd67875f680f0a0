"""RoPE: turn each query and key by an angle proportional to its position.

A score then depends only on the distance of two tokens. The K channels of a head are K/2 = R pairs,
read as complex numbers. Pair r of the token at position t is multiplied by exp(i t f_r). The
frequencies f_r fall from one radian per token to almost zero. Turning q by t f_r and k by s f_r
changes their product as if only q had been turned, by (t - s) f_r.

Notebook 12. In every text Llama; frequency scaling came with Llama 3.1. Sources: Su et al.,
RoFormer, arXiv:2104.09864, section 3.2; The Llama 3 Herd of Models, arXiv:2407.21783, and the
reference code for the scaling.

Pairs are neighboring channels (2r, 2r+1), as in Meta's layout. Hugging Face uses pairs (r, r + K/2)
and permutes the rows of wq and wk to match; only `checkpoint/` handles that. Frequencies, angles
and the rotation are fp32 at any model dtype, because at position 100,000 a bf16 angle would be
wrong by hundreds of radians.
"""

import math

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn

from llama_from_scratch.config import LlamaConfig, RopeScaling


def rope_frequencies(
    head_dim: int, *, theta: float, scaling: RopeScaling | None = None
) -> Float[Tensor, "R"]:
    """Returns the radians per token of each pair r, theta^(-2r/K), in fp32.

    `theta`: 1e4 in Llama 1 and 2, 5e5 from Llama 3 on. `scaling`: makes slow pairs even slower, see
    `scale_frequencies`. Raises ValueError if `head_dim` is odd.
    Source: RoFormer, section 3.2.2.
    """
    if head_dim % 2:
        raise ValueError(f"RoPE turns pairs of channels, so head_dim must be even; got {head_dim}")
    freq_R = 1.0 / theta ** (torch.arange(0, head_dim, 2).float() / head_dim)
    return freq_R if scaling is None else scale_frequencies(freq_R, scaling)


def scale_frequencies(freq_R: Float[Tensor, "R"], scaling: RopeScaling) -> Float[Tensor, "R"]:
    """Returns frequencies for a context `scaling.factor` times longer.

    Fast pairs are kept, slow pairs are divided by `scaling.factor`, and pairs in between are
    blended. A pair is fast if it made more than `high_freq_factor` turns in the original context.
    It distinguishes neighboring tokens and must not change. A pair is slow if it made fewer than
    `low_freq_factor` turns. It distinguishes far tokens from near ones and is stretched.
    """
    turns_R = scaling.original_max_seq_len / (2 * math.pi / freq_R)
    width = scaling.high_freq_factor - scaling.low_freq_factor
    keep_R = (turns_R - scaling.low_freq_factor) / width if width else torch.zeros_like(turns_R)
    blend_R = (1 - keep_R) * freq_R / scaling.factor + keep_R * freq_R
    is_fast_R, is_slow_R = turns_R > scaling.high_freq_factor, turns_R < scaling.low_freq_factor
    return torch.where(is_fast_R, freq_R, torch.where(is_slow_R, freq_R / scaling.factor, blend_R))


def rope_rotation(
    positions: Int[Tensor, "B T"], freq_R: Float[Tensor, "R"]
) -> Complex[Tensor, "B T R"]:
    """Returns exp(i t f_r) for each token and pair; the angle is in radians and fp32."""
    angle_BTR = positions[..., None].float() * freq_R
    return torch.polar(torch.ones_like(angle_BTR), angle_BTR)


def apply_rope(
    x: Float[Tensor, "B T H K"], rotation: Complex[Tensor, "#B T R"]
) -> Float[Tensor, "B T H K"]:
    """Returns x with every pair (2r, 2r+1) of every head turned by its token's rotation.

    Computed in fp32, or in float64 for such an x, and returned in x's dtype. The batch axis of
    `rotation` may be 1, for positions that all sequences share.
    """
    wide = x if x.dtype == torch.float64 else x.float()
    pairs_BTHR = torch.view_as_complex(wide.view(*x.shape[:-1], x.shape[-1] // 2, 2))
    return torch.view_as_real(pairs_BTHR * rotation.unsqueeze(2)).flatten(-2).to(x.dtype)


class Rotate(nn.Module):
    """Turns queries and keys. A module without parameters, so that a kernel can replace it."""

    def forward(
        self, q: Float[Tensor, "B T H K"], k: Float[Tensor, "B T G K"],
        rotation: Complex[Tensor, "#B T R"],
    ) -> tuple[Float[Tensor, "B T H K"], Float[Tensor, "B T G K"]]:
        return apply_rope(q, rotation), apply_rope(k, rotation)


class Unrotated(nn.Module):
    """Returns queries and keys unchanged: replaces `Rotate` where a layer has no RoPE."""

    def forward(
        self, q: Float[Tensor, "B T H K"], k: Float[Tensor, "B T G K"],
        rotation: Complex[Tensor, "#B T R"],
    ) -> tuple[Float[Tensor, "B T H K"], Float[Tensor, "B T G K"]]:
        return q, k


class Rope(nn.Module):
    """The frequencies of one config, which stay in fp32 when the model gets another dtype."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self._config = config
        self.register_buffer("freq_R", self._frequencies(), persistent=False)

    def _frequencies(self) -> Float[Tensor, "R"]:
        config = self._config
        freq_R = rope_frequencies(config.head_dim, theta=config.rope_theta,
                                  scaling=config.rope_scaling)
        return freq_R / config.rope_linear_factor

    def _apply(self, fn, recurse=True):  # torch calls this for .to(), .half(), .cuda()
        super()._apply(fn, recurse)
        with torch.device(self.freq_R.device):
            self.freq_R = self._frequencies()
        return self

    def forward(self, positions: Int[Tensor, "B T"]) -> Complex[Tensor, "B T R"]:
        return rope_rotation(positions, self.freq_R)
