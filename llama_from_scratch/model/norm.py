"""RMSNorm: divide each token by its own size, then multiply each channel by a learned weight.

The residual stream grows from layer to layer. Without a norm, the input of each layer would have a
different scale. LayerNorm also subtracts the mean. RMSNorm leaves that out, without a measured
loss of quality.

Notebook 11. In every Llama. Source: Zhang and Sennrich, Root Mean Square Layer Normalization,
arXiv:1910.07467, eq. 4.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis.

    The mean and the division run in fp32, or in float64 for such an input. The result is converted
    back to the input's dtype *before* it is multiplied by the weight, as in Meta's code.
    (Multiplying first would differ in the last bit of bf16.)
    """

    def __init__(self, dim: int, *, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        wide = x if x.dtype == torch.float64 else x.float()
        inverse_size = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * inverse_size).to(x.dtype) * self.weight

    def init_weights(self) -> None:
        """Sets the weight of every channel to 1."""
        nn.init.ones_(self.weight)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"


class HeadNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) over each head alone, without a weight.

    Afterward all heads of queries and keys have the same length, so that scores cannot grow without
    limit. The mean and the division run in fp32. Llama 4 Scout, in layers with RoPE, after RoPE.
    Source: llama-models, models/llama4/model.py.
    """

    def __init__(self, *, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Float[Tensor, "B T H K"]) -> Float[Tensor, "B T H K"]:
        wide = x if x.dtype == torch.float64 else x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"eps={self.eps}"


class AddNorm(nn.Module):
    """Adds to the residual stream and norms the sum: (norm(x + addition), x + addition).

    It has no parameters, because the norm belongs to the block. So a kernel can replace it and do
    both in one pass.
    """

    def forward(
        self, x: Float[Tensor, "*batch D"], addition: Float[Tensor, "*batch D"], norm: nn.Module
    ) -> tuple[Float[Tensor, "*batch D"], Float[Tensor, "*batch D"]]:
        total = x + addition
        return norm(total), total
