"""Log-probabilities of answers: of each learned token, given everything before it, with gradients.

The log-probability of an answer is the sum over its tokens. It is not their mean: a mean would make
long answers look as likely as short ones.

Notebook 53.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train.data import IGNORE, Batch


def token_log_probs(
    model: Llama, batch: Batch, *, is_bf16: bool = False
) -> Float[Tensor, "B T"]:
    """Returns log p(target) in nats at every position, and 0 where there is no target.

    Logits are computed only where there is a target. The softmax is in fp32, or in float64 for a
    model in float64. `is_bf16`: as in `train.loss.sum_of_nats`.
    """
    with torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=is_bf16):
        is_target_BT = batch.targets != IGNORE
        logits_NV = model.output(batch.hidden(model)[is_target_BT])
    if logits_NV.dtype != torch.float64:
        logits_NV = logits_NV.float()
    found_N = -F.cross_entropy(logits_NV, batch.targets[is_target_BT], reduction="none")
    return found_N.new_zeros(batch.targets.shape).masked_scatter(is_target_BT, found_N)
