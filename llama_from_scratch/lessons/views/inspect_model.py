"""Records the values inside a plain Llama while it reads: attention weights and residual stream.

`trace(model, ids)` runs the model once with hooks on its blocks and then removes them, so the model
does not change. Fused attention does not keep its weights, so they are computed again here, from
the same queries and keys, by the plain formula. `lens` computes the prediction at any point of the
stream, as if it were the last point.

Sources: nostalgebraist, "interpreting GPT: the logit lens" (2020); Elhage et al., "A Mathematical
Framework for Transformer Circuits" (2021), for the view of the blocks as additions to one stream.
"""

import math
from contextlib import ExitStack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.model.attention import Attention
from llama_from_scratch.model.inputs import BlockInputs
from llama_from_scratch.model.mask import causal_mask
from llama_from_scratch.model.transformer import Llama


@record
class Activations:
    """The recorded values of one text in all layers, in fp32 on the CPU.

    On axis L+1, the embedding comes first and then each block.

    `weights[l, h, t, s]`: the weight of key s for query t in head h of layer l; each row sums to 1.
    `attention` and `feed_forward`: what the two halves of each block add to the stream.
    """

    weights: Float[Tensor, "L H T S"]
    attention: Float[Tensor, "L T D"]
    feed_forward: Float[Tensor, "L T D"]
    stream: Float[Tensor, "L+1 T D"]


@torch.no_grad()
def trace(model: Llama, ids: Int[Tensor, "T"]) -> Activations:
    """Returns the recorded values of one pass over `ids`. Raises ValueError if the model does."""
    weights, attention, feed_forward, stream = [], [], [], []

    def keep(rows: list[Tensor], value: Tensor) -> None:
        rows.append(value[0].float().cpu())

    def see_attention(
        module: Attention, arguments: tuple[Tensor, BlockInputs], output: Tensor
    ) -> None:
        keep(weights, attention_weights(module, *arguments))
        keep(attention, output)

    with ExitStack() as hooks:
        def hook(handle: torch.utils.hooks.RemovableHandle) -> None:
            hooks.callback(handle.remove)

        hook(model.tok_embeddings.register_forward_hook(
            lambda _, inputs, output: keep(stream, output)))
        for block in model.layers:
            hook(block.attention.register_forward_hook(see_attention))
            hook(block.feed_forward.register_forward_hook(
                lambda _, inputs, output: keep(feed_forward, output)))
            hook(block.register_forward_hook(lambda _, inputs, output: keep(stream, output)))
        model.hidden(ids[None].to(model.device))
    return Activations(weights=torch.stack(weights), attention=torch.stack(attention),
                 feed_forward=torch.stack(feed_forward), stream=torch.stack(stream))


def attention_weights(
    attention: Attention, x: Float[Tensor, "B T D"], inputs: BlockInputs
) -> Float[Tensor, "B H T T"]:
    """Returns softmax(q k^T / sqrt(K)) of a whole sequence x, for each query head.

    The weight of a hidden key is 0.
    """
    q_BTHK, k_BTGK = (project(x).unflatten(-1, (-1, attention.head_dim))
                      for project in (attention.wq, attention.wk))
    q_BTHK, k_BTGK = attention.rotate(q_BTHK, k_BTGK, inputs.rotation)
    q_BTHK, k_BTGK = attention.q_norm(q_BTHK), attention.k_norm(k_BTGK)
    q_BTHK = attention.scale_queries(q_BTHK, inputs.positions)
    k_BTHK = k_BTGK.repeat_interleave(q_BTHK.shape[2] // k_BTGK.shape[2], dim=2)
    scores_BHTS = (torch.einsum("bthk,bshk->bhts", q_BTHK.float(), k_BTHK.float())
                   / math.sqrt(attention.head_dim))
    T, mask = x.shape[1], inputs.visible[attention.chunk_size].mask
    mask = causal_mask(T, T, device=x.device)[None] if mask is None else mask
    return scores_BHTS.masked_fill(~mask, -math.inf).softmax(-1)


@torch.no_grad()
def lens(model: Llama, stream: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
    """Returns the logits that the model would give if the stream ended here.

    They come from the last norm and the output head, applied to `stream`.
    """
    stream = stream.to(model.device, model.dtype)
    return model.output(model.norm(stream)).float().cpu()
