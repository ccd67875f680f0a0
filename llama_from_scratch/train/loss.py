"""The loss: how surprised the model is by the tokens that really come next.

In nats per token it is one sum divided by one count, so that a batch may be divided in any way. In
bits per byte of text, models with different vocabularies can be compared.

Notebook 17.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train.data import IGNORE, Batch
from llama_from_scratch.train.protocols import Loss, Validation
from llama_from_scratch.train.records import Evaluation


def sum_of_nats(model: Llama, batch: Batch, *, is_bf16: bool = False) -> Float[Tensor, ""]:
    """Returns the sum of -log p(target) over the targets of the batch, in nats.

    The softmax and the sum are in fp32. `is_bf16`: the matrix products of the model run in
    bfloat16; its norms and its weights stay in fp32.
    """
    with torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=is_bf16):
        logits_BTV = batch.logits(model)
    return F.cross_entropy(logits_BTV.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE,
                           reduction="sum")


@torch.no_grad()
def evaluate(
    model: Llama, data: Validation, *, batch_size: int, seq_len: int, is_bf16: bool = False,
    loss: Loss = sum_of_nats,
) -> Evaluation:
    """Returns how well the model predicts each token of `data` from the tokens before it.

    A token's window limits how many tokens those are. Nats per token depend on the tokenizer; bits
    per byte of text do not. The nats of end-of-text count, although it represents no byte. `loss`:
    how a batch's sum of nats is computed.
    """
    nats, n_targets, n_bytes = 0.0, 0, 0
    for batch in data.in_order(batch_size=batch_size, seq_len=seq_len):
        nats += loss(model, batch.to(model.device), is_bf16=is_bf16).item()
        n_targets += batch.n_targets
        n_bytes += data.n_bytes_in(batch.targets)
    return Evaluation(loss=nats / n_targets, bits_per_byte=nats / n_bytes / math.log(2),
                      n_targets=n_targets, n_bytes=n_bytes)
