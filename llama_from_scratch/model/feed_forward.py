"""The gated feed-forward network, SwiGLU: two thirds of a dense Llama's parameters live here.

Each token is widened twice: one copy passes through silu and becomes a gate, the other is what the gate lets through. The
product is projected back to the residual stream.

Notebook 14. In every Llama. Source: Shazeer, GLU Variants Improve Transformer, arXiv:2002.05202, eq. 6.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class FeedForward(nn.Module):
    """w_down(silu(w_gate x) * w_up x), token by token. No biases. In Meta's files w_gate is w1, w_up w3, w_down w2."""

    def __init__(self, dim: int, ffn_dim: int) -> None:
        super().__init__()
        self.w_gate = nn.Linear(dim, ffn_dim, bias=False)
        self.w_up = nn.Linear(dim, ffn_dim, bias=False)
        self.w_down = nn.Linear(ffn_dim, dim, bias=False)

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        return self.w_down(F.silu(self.w_gate(x)) * self.w_up(x))
