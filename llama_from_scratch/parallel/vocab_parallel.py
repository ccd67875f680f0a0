"""The vocabulary on many ranks: an embedding and a loss, of which each rank holds some rows.

With V tokens on t ranks, rank r holds the rows from r V / t on. The embedding adds up what the
ranks find, because exactly one of them has the row. The loss needs three numbers per target from
all ranks: the largest logit, the sum of the exponentials, and the target's own logit. So no rank
ever holds all logits, which for a large vocabulary are the largest tensor of a training step.

Notebook 43. Source: Megatron-LM, arXiv:1909.08053, section 3.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.differentiable import add_up
from llama_from_scratch.train.data import IGNORE


class VocabEmbedding(nn.Module):
    """An embedding of which this rank holds the rows of its part of the vocabulary.

    `weight`: these rows. It takes the parameter of an `nn.Embedding` over.
    """

    def __init__(self, part: nn.Embedding, group: RankGroup) -> None:
        super().__init__()
        self.weight, self.group = part.weight, group

    def forward(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch D"]:
        """Returns the row of each id, on all ranks. Raises IndexError for an id without a row."""
        at, is_here = _own(ids, self.weight.shape[0], self.group)
        found = F.embedding(at, self.weight).masked_fill(~is_here[..., None], 0)
        return add_up(found, self.group, note="embedding")


def cross_entropy(
    logits: Float[Tensor, "*batch part"], targets: Int[Tensor, "*batch"], *, group: RankGroup
) -> Float[Tensor, "*batch"]:
    """Returns -log p(target) in nats on all ranks, 0 where the target is `IGNORE`.

    `logits`: of this rank's part of the vocabulary. The targets are the same on all ranks. Computed
    in fp32, or in float64 for such logits. A batch may come in pieces of any size.
    Raises ValueError on a CPU for targets outside of the vocabulary; a GPU checks them later.
    """
    is_scored, n_ids = targets != IGNORE, logits.shape[-1] * group.size
    if targets.device.type == "cpu" and not _is_inside(targets[is_scored], n_ids).all():
        raise ValueError(f"targets run from 0 to {n_ids - 1}, or are {IGNORE} to be left out; got "
                         f"{targets[is_scored].min()} to {targets[is_scored].max()}. Use the "
                         "tokenizer that the model is trained with")
    return _CrossEntropy.apply(logits, targets, is_scored, group)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, logits: Tensor, targets: Tensor, is_scored: Tensor, group: RankGroup
    ) -> Tensor:
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        largest = group.all_reduce(wide.amax(-1), op="max", note="largest logit")
        shifted = wide - largest[..., None]
        at, is_here = _own(targets.masked_fill(~is_scored, 0), logits.shape[-1], group)
        of_target = shifted.gather(-1, at[..., None]).squeeze(-1).masked_fill(~is_here, 0)
        of_target = group.all_reduce(of_target, note="target's logit")
        exponentials = shifted.exp_()
        total = group.all_reduce(exponentials.sum(-1), note="sum of exponentials")
        ctx.dtype = logits.dtype
        ctx.save_for_backward(exponentials.div_(total[..., None]), at, is_here, is_scored)
        return (total.log() - of_target).masked_fill(~is_scored, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple:
        probabilities, at, is_here, is_scored = ctx.saved_tensors
        gradient = gradient.masked_fill(~is_scored, 0)
        found = probabilities * gradient[..., None]
        of_target = gradient.masked_fill(~is_here, 0)[..., None]
        return found.scatter_add_(-1, at[..., None], -of_target).to(ctx.dtype), None, None, None


def _own(ids: Tensor, n_rows: int, group: RankGroup) -> tuple[Tensor, Tensor]:
    """Returns the row of each id on this rank (0 if it is another rank's), and which are here."""
    at = ids - group.rank * n_rows
    is_here = _is_inside(at, n_rows)
    at = torch.where(is_here, at, 0)
    # An id of no rank gets a row that does not exist, so that PyTorch refuses it.
    return torch.where(_is_inside(ids, n_rows * group.size), at, n_rows), is_here


def _is_inside(ids: Tensor, n: int) -> Tensor:
    return (ids >= 0) & (ids < n)
