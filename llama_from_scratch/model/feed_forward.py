"""The gated feed-forward network, SwiGLU, which holds two thirds of a dense Llama's parameters.

Each token is projected to a larger width twice. One result passes through silu and becomes a gate.
The gate multiplies the other result. The product is projected back to the residual stream.

Notebook 14. In every Llama. Source: Shazeer, GLU Variants Improve Transformer, arXiv:2002.05202,
eq. 6.
"""

import functools

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from llama_from_scratch.config import Dense, FeedForwardSpec
from llama_from_scratch.model.init import init_linear


class SwiGLU(nn.Module):
    """silu(gate) * up, as a module without parameters, so that a kernel can replace it."""

    def forward(
        self, gate: Float[Tensor, "*batch F"], up: Float[Tensor, "*batch F"]
    ) -> Float[Tensor, "*batch F"]:
        return F.silu(gate) * up


class FeedForward(nn.Module):
    """w_down(silu(w_gate x) * w_up x), token by token.

    In Meta's files w_gate is called w1, w_up w3, and w_down w2. `has_bias`: each of the three adds
    a bias. No published Llama has these biases, but some relatives do.
    """

    def __init__(self, dim: int, ffn_dim: int, *, has_bias: bool = False) -> None:
        super().__init__()
        self.w_gate = nn.Linear(dim, ffn_dim, bias=has_bias)
        self.w_up = nn.Linear(dim, ffn_dim, bias=has_bias)
        self.w_down = nn.Linear(ffn_dim, dim, bias=has_bias)
        self.activation = SwiGLU()

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        return self.w_down(self.activation(self.w_gate(x), self.w_up(x)))

    def init_weights(self, *, n_additions: int) -> None:
        """Draws fresh weights; the stream receives `n_additions` results (`model.init`)."""
        init_linear(self.w_gate)
        init_linear(self.w_up)
        init_linear(self.w_down, n_additions=n_additions)


@functools.singledispatch
def build(spec: FeedForwardSpec, dim: int) -> nn.Module:
    """Returns the module that a spec describes, for a stream of `dim` channels.

    It maps (..., D) to (..., D), and has `init_weights(n_additions=...)`. To add a kind, put
    `@build.register` above a function of its spec and `dim` that returns its module.
    Raises ValueError for a spec of an unregistered kind.
    """
    raise ValueError(f"a feed-forward must be one of {', '.join(_kinds())}; got {spec!r}. "
                     "Register its module with model.feed_forward.build.register")


@build.register
def _(spec: Dense, dim: int) -> FeedForward:
    if type(spec) is not Dense:  # a subclass is another kind, which must register its own module
        return build.dispatch(FeedForwardSpec)(spec, dim)
    return FeedForward(dim, spec.width, has_bias=spec.has_bias)


def _kinds() -> list[str]:
    return [kind.__name__ for kind in build.registry if kind not in (object, FeedForwardSpec)]
