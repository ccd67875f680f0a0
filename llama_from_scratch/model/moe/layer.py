"""A feed-forward of many experts: a shared one for every token, and routed ones for few each.

out = shared(x) + sum over the chosen experts e of expert_e(score_e x). The score multiplies the
*input*. That is not the same as multiplying the output, because an expert is a SwiGLU, and that is
no linear function.

All copies of tokens are sorted by their expert, so that each expert is one product over its own
tokens (`grouped`). Experts without tokens cost nothing, and their weights are not read. The result
does not depend on the order of additions, so it is the same in every run.

E experts, A of them for each token, N tokens, F the width of an expert. Notebook 23. Llama 4.
Source: llama-models, models/llama4/moe.py.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llama_from_scratch.config import Experts
from llama_from_scratch.model import feed_forward
from llama_from_scratch.model.feed_forward import FeedForward, SwiGLU
from llama_from_scratch.model.init import init_weight
from llama_from_scratch.model.moe.grouped import grouped_product
from llama_from_scratch.model.moe.routing import Router


class RoutedExperts(nn.Module):
    """E SwiGLUs without biases. Their weights are stored as published: x @ w, expert by expert."""

    def __init__(self, dim: int, width: int, *, n_experts: int) -> None:
        super().__init__()
        self.w_gate = nn.Parameter(torch.empty(n_experts, dim, width))
        self.w_up = nn.Parameter(torch.empty(n_experts, dim, width))
        self.w_down = nn.Parameter(torch.empty(n_experts, width, dim))
        self.activation = SwiGLU()

    def forward(
        self, x: Float[Tensor, "copies D"], counts: list[int]
    ) -> Float[Tensor, "copies D"]:
        """Returns each expert's result for its tokens, which are neighbors in `x`.

        `counts`: how many tokens each expert has, in the order of the experts; they sum to M.
        """
        gate_MF = grouped_product(x, self.w_gate, counts=counts)
        up_MF = grouped_product(x, self.w_up, counts=counts)
        return grouped_product(self.activation(gate_MF, up_MF), self.w_down, counts=counts)

    def init_weights(self, *, n_additions: int) -> None:
        """Draws fresh weights; the stream receives `n_additions` results (`model.init`)."""
        for weight in (self.w_gate, self.w_up):
            init_weight(weight, n_inputs=weight.shape[1])
        init_weight(self.w_down, n_inputs=self.w_down.shape[1], n_additions=n_additions)


class MoE(nn.Module):
    """shared(x) + sum over the chosen experts of expert(score x), token by token."""

    def __init__(self, dim: int, spec: Experts) -> None:
        super().__init__()
        self.n_experts, self.n_active = spec.n_experts, spec.n_active
        self.router = Router(dim, spec.n_experts, n_active=spec.n_active)
        self.experts = RoutedExperts(dim, spec.width, n_experts=spec.n_experts)
        self.shared = FeedForward(dim, spec.shared_width)

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """Raises ValueError if a token's scores are not numbers."""
        x_ND = x.reshape(-1, x.shape[-1])
        routing = self.router(x_ND)
        counts = _counts(routing.experts, routing.scores, n_experts=self.n_experts)
        # Each of a token's A copies is scaled by the score of the expert that it goes to.
        copies_MD = (x_ND[:, None] * routing.scores[..., None]).flatten(0, 1)
        order_M = routing.experts.flatten().argsort(stable=True)
        found_MD = self.experts(copies_MD[order_M], counts)
        routed_MD = torch.empty_like(found_MD).index_copy(0, order_M, found_MD)
        routed_ND = routed_MD.unflatten(0, routing.experts.shape).sum(1)
        return self.shared(x) + routed_ND.view_as(x)

    def init_weights(self, *, n_additions: int) -> None:
        """Draws fresh weights; the stream receives `n_additions` results (`model.init`)."""
        self.router.init_weights()
        self.experts.init_weights(n_additions=n_additions)
        self.shared.init_weights(n_additions=n_additions)


@feed_forward.build.register
def _(spec: Experts, dim: int) -> MoE:
    return MoE(dim, spec)


def _counts(
    experts: Int[Tensor, "N A"], scores: Float[Tensor, "N A"], *, n_experts: int
) -> list[int]:
    """Returns how many tokens go to each expert. It is the only moment that waits for the device.

    Raises ValueError if a score is not a number, because a NaN would reach the whole stream.
    """
    counts_E = torch.bincount(experts.flatten(), minlength=n_experts)
    *counts, n_bad = torch.cat([counts_E, scores.isnan().sum()[None]]).tolist()
    if n_bad:
        raise ValueError("a router's scores must be numbers between 0 and 1; got NaN for "
                         f"{n_bad} of {scores.numel()}. Did training diverge, or is the dtype too "
                         "small for the weights?")
    return counts
