"""A linear layer with a low-rank adapter next to it: y = W x + scale B A x.

W stays as it is. A maps the inputs to a few numbers, the rank, and B maps these to the outputs. So
a layer of n_in inputs and n_out outputs has rank x (n_in + n_out) trainable numbers in place of
n_in x n_out. B starts at zero, so the layer first computes what W computes, exactly. `tune.lora`
puts such layers into a finished model and takes them out again.

Letters: F inputs, D outputs. Notebook 51. Sources: Hu et al., LoRA, arXiv:2106.09685, section 4.1;
Kalajdzievski, arXiv:2312.03732 (the scale alpha / sqrt(rank)).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from llama_from_scratch.config import record
from llama_from_scratch.config.record import check_claims, check_number
from llama_from_scratch.model.costs import matmul_flops


@record
class LowRank:
    """How large the adapters of a model are, and how much they count.

    What A and B compute is multiplied by `scale`: alpha / rank, or alpha / sqrt(rank) if
    `is_rank_stabilized`. With alpha / rank, a larger rank makes each step of training smaller; the
    square root prevents that.
    """

    rank: int
    alpha: float
    is_rank_stabilized: bool = False

    def __post_init__(self) -> None:
        check_number(self, "rank", int)
        check_number(self, "alpha", float)
        check_claims(self, "is_rank_stabilized")

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.is_rank_stabilized else self.rank)


class AdaptedLinear(nn.Module):
    """`base(x) + scale B A x`, where A is `w_a` and B is `w_b`.

    `base`: a linear layer with `in_features` and `out_features`, plain or quantized. The parameters
    of the adapter are on the device of the base, in fp32 if the base has fewer bits, and otherwise
    in its dtype: a step of training may be smaller than the rounding of 16 bits. A product of the
    adapter is computed in the adapter's dtype and added in the base's.
    """

    def __init__(self, base: nn.Module, how: LowRank) -> None:
        super().__init__()
        self.base, self.how = base, how
        self.in_features, self.out_features = base.in_features, base.out_features
        first = next(t for t in (*base.parameters(), *base.buffers()) if t.is_floating_point())
        about = dict(dtype=torch.promote_types(first.dtype, torch.float32), device=first.device)
        self.w_a = nn.Parameter(torch.zeros(how.rank, self.in_features, **about))
        self.w_b = nn.Parameter(torch.zeros(self.out_features, how.rank, **about))

    def forward(self, x: Float[Tensor, "*batch F"]) -> Float[Tensor, "*batch D"]:
        y = self.base(x)
        low = F.linear(x.to(self.w_a.dtype), self.w_a) * self.how.scale
        return y + F.linear(low, self.w_b).to(y.dtype)

    @torch.no_grad()
    def init_weights(self, *, generator: torch.Generator) -> None:
        """Draws A with a variance of 1 / n_in, and sets B to zero.

        The numbers are drawn on the CPU in fp32, so that they are the same on every device.
        """
        drawn = torch.randn(self.w_a.shape, generator=generator) / math.sqrt(self.in_features)
        self.w_a.copy_(drawn)
        self.w_b.zero_()

    @torch.no_grad()
    def delta(self) -> Float[Tensor, "D F"]:
        """Returns scale B A, the matrix that the adapter adds to W, in the adapter's dtype."""
        return self.how.scale * (self.w_b @ self.w_a)

    @property
    def bias(self) -> Tensor | None:
        """The base's own bias, which an adapter does not change."""
        return self.base.bias

    @property
    def weight(self) -> Tensor:
        """Raises ValueError, because code that reads one matrix would leave out the adapter."""
        raise ValueError("a layer with an adapter is called as a whole and has no single weight; "
                         "it was asked for one. Merge the adapters into the weights with "
                         "tune.lora.merge(model), or take them out with tune.lora.remove(model)")


def adapters(model: nn.Module) -> dict[str, AdaptedLinear]:
    """Returns the layers of a model that have an adapter, by name."""
    return {name: part for name, part in model.named_modules() if isinstance(part, AdaptedLinear)}


@matmul_flops.register
def _(adapted: AdaptedLinear, context: int) -> int:
    n_adapter = adapted.w_a.numel() + adapted.w_b.numel()
    return matmul_flops(adapted.base, context) + 2 * n_adapter
