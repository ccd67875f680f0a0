"""Log-probabilities of answers: of each learned token, given everything before it, with gradients.

The log-probability of an answer is the sum over its tokens. It is not their mean: a mean would make
long answers look as likely as short ones.

Notebook 53.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train.data import IGNORE, Batch
from llama_from_scratch.tune.rows import at_targets


def token_log_probs(
    model: Llama, batch: Batch, *, is_bf16: bool = False
) -> Float[Tensor, "B T"]:
    """Returns log p(target) in nats at every position, and 0 where there is no target.

    Logits are computed only where there is a target; `is_bf16` and the dtype: see `at_targets`.
    """
    logits_NV, targets_N = at_targets(model, batch, is_bf16=is_bf16)
    found_N = -F.cross_entropy(logits_NV, targets_N, reduction="none")
    return found_N.new_zeros(batch.targets.shape).masked_scatter(batch.targets != IGNORE, found_N)
