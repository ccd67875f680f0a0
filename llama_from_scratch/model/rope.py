"""RoPE: turn each query and key by an angle proportional to its position.

A score then sees only the distance. The K channels of a head are K/2 = R pairs, read as complex
numbers. Pair r of the token at position t is multiplied by exp(i t f_r); the frequencies f_r fall
from one radian per token to nearly none. Turning q by t and k by s leaves the product with t - s.

Notebook 12. In every text Llama; frequency scaling came with Llama 3.1. Sources: Su et al.,
RoFormer, arXiv:2104.09864, section 3.2; The Llama 3 Herd of Models, arXiv:2407.21783, and the
reference code for the scaling.

Pairs are neighbors (2r, 2r+1), Meta's layout. Hugging Face stores pairs (r, r + K/2) and permutes
the rows of wq and wk to match; only `checkpoint/` knows of that. Frequencies, angles and the
rotation are fp32 at any model dtype: at position 100,000 a bf16 angle would be off by hundreds of
radians.
"""

import math

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn

from llama_from_scratch.config import LlamaConfig, RopeScaling


def rope_frequencies(
    head_dim: int, *, theta: float, scaling: RopeScaling | None = None
) -> Float[Tensor, "R"]:
    """Radians per token of each pair r: theta^(-2r/K), slowed by `scaling` if one is given. fp32.

    `theta`: 1e4 in Llama 1 and 2, 5e5 from Llama 3. Raises ValueError if `head_dim` is odd.
    Source: RoFormer, section 3.2.2.
    """
    if head_dim % 2:
        raise ValueError(f"RoPE turns pairs of channels, so head_dim must be even; got {head_dim}")
    freq_R = 1.0 / theta ** (torch.arange(0, head_dim, 2).float() / head_dim)
    return freq_R if scaling is None else scale_frequencies(freq_R, scaling)


def scale_frequencies(freq_R: Float[Tensor, "R"], scaling: RopeScaling) -> Float[Tensor, "R"]:
    """Returns frequencies for a context `scaling.factor` times longer.

    Fast pairs are kept, slow ones divided, those between blended. A pair is fast when the original
    context held at least `high_freq_factor` of its turns: it tells neighbors apart and must not
    change. It is slow when not even `low_freq_factor` turns fitted: it tells far from near and is
    stretched.
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
    """One unit complex number per token and pair: exp(i t f_r), the angle in radians and fp32."""
    angle_BTR = positions[..., None].float() * freq_R
    return torch.polar(torch.ones_like(angle_BTR), angle_BTR)


def apply_rope(
    x: Float[Tensor, "B T H K"], rotation: Complex[Tensor, "#B T R"]
) -> Float[Tensor, "B T H K"]:
    """x with every pair (2r, 2r+1) of every head turned by its token's rotation.

    Computed in fp32, returned in x's dtype. The batch axis of `rotation` may be 1, for positions
    that all sequences share.
    """
    pairs_BTHR = torch.view_as_complex(x.float().view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs_BTHR * rotation.unsqueeze(2)).flatten(-2).to(x.dtype)


class Rotate(nn.Module):
    """Queries and keys turned alike. A part without parameters, so that a kernel can replace it."""

    def forward(
        self, q: Float[Tensor, "B T H K"], k: Float[Tensor, "B T G K"],
        rotation: Complex[Tensor, "#B T R"],
    ) -> tuple[Float[Tensor, "B T H K"], Float[Tensor, "B T G K"]]:
        return apply_rope(q, rotation), apply_rope(k, rotation)


class Unrotated(nn.Module):
    """In the place of `Rotate` where a layer has no RoPE: queries and keys as they are."""

    def forward(
        self, q: Float[Tensor, "B T H K"], k: Float[Tensor, "B T G K"],
        rotation: Complex[Tensor, "#B T R"],
    ) -> tuple[Float[Tensor, "B T H K"], Float[Tensor, "B T G K"]]:
        return q, k


class Rope(nn.Module):
    """The frequencies of one config, kept in fp32 when the model is moved to another dtype."""

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
