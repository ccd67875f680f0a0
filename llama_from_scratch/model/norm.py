"""RMSNorm: divide each token by its own size, then let the model choose a size per channel.

The residual stream grows from layer to layer; without a fixed size, each layer's input would be on
another scale. LayerNorm also subtracts the mean; RMSNorm leaves that out at no measured loss.

Notebook 11. In every Llama. Source: Zhang and Sennrich, Root Mean Square Layer Normalization,
arXiv:1910.07467, eq. 4.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis.

    The mean and the division run in fp32 whatever the input is; the result returns to the input's
    dtype *before* it is multiplied by the weight, as in Meta's code. (Multiplying first would
    differ in the last bit of bf16.)
    """

    def __init__(self, dim: int, *, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        wide = x.float()
        inverse_size = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * inverse_size).to(x.dtype) * self.weight

    def init_weights(self) -> None:
        """Every channel at size 1, to begin with."""
        nn.init.ones_(self.weight)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"


class AddNorm(nn.Module):
    """The sum of stream and addition, and the norm of that sum: (norm(x + addition), x + addition).

    A part without parameters, so that a kernel can do both in one pass; the norm is the block's.
    """

    def forward(
        self, x: Float[Tensor, "*batch D"], addition: Float[Tensor, "*batch D"], norm: nn.Module
    ) -> tuple[Float[Tensor, "*batch D"], Float[Tensor, "*batch D"]]:
        total = x + addition
        return norm(total), total
