"""How likely a text is for the model: the log-probability of each token, given all before it.

These are the model's own numbers: the log-softmax of its logits, without temperature, top-k, top-p
or mask, however the token was chosen. The negative of their mean is the training loss (notebook
17). The exponential of the loss is the perplexity.

Continues notebook 16.
"""

import math
from collections.abc import Sequence, Set

import torch
from jaxtyping import Float
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.generate.checks import (
    GivenImages,
    Prompts,
    as_images,
    as_prompts,
    check_ids,
)
from llama_from_scratch.generate.generate import LogitMask, decode
from llama_from_scratch.generate.sampling import GREEDY, Sampling
from llama_from_scratch.model.transformer import Llama

# The logits of a whole text would be T x V numbers: 4 GB for 8,192 tokens and 128,256 ids.
_N_TOKENS_AT_ONCE = 256


@record
class Scored:
    """An id that was written, with its log-probability in nats.

    `likeliest`: the likeliest ids in its place and their log-probabilities, best first.
    """

    id: int
    log_prob: float
    likeliest: tuple[tuple[int, float], ...]


def generate_scored(
    model: Llama, prompts: Prompts, *, images: GivenImages | None = None, n_likeliest: int = 0,
    max_tokens: int | Sequence[int] | None = None, sampling: Sampling = GREEDY, seed: int = 0,
    stop_ids: Set[int] | Sequence = frozenset(), mask: LogitMask | None = None,
) -> list[list[Scored]]:
    """Returns what `generate` does, with each id's score and the `n_likeliest` ids in its place."""
    if not 0 <= n_likeliest <= model.config.vocab_size:
        raise ValueError("n_likeliest is a number of ids from 0 to the vocabulary's "
                         f"{model.config.vocab_size}; got {n_likeliest}")
    prompts = as_prompts(prompts)
    answers = [[] for _ in prompts]
    for step in decode(model, prompts, images=images, max_tokens=max_tokens, sampling=sampling,
                       seed=seed, stop_ids=stop_ids, mask=mask):
        log_probs_BV = step.logits.log_softmax(-1)
        for b, log_probs_V in zip(step.rows, log_probs_BV, strict=True):
            if (token := step.tokens[b]) is not None:
                best = log_probs_V.topk(n_likeliest)
                answers[b].append(Scored(
                    id=token, log_prob=log_probs_V[token].item(),
                    likeliest=tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True)),
                ))
    return answers


def score(
    model: Llama, ids: Sequence[int], *, images: GivenImages | None = None
) -> Float[Tensor, "T"]:
    """Returns the log-probability in nats of each id after the first, given the ids before it.

    `images`: the text's, as in `generate`; they must be written out in the text. An id after the
    vocabulary, which stands for an image, has no probability, because no model writes it; its
    number is NaN.
    Raises ValueError for fewer than two ids, an id outside the vocabulary, a text longer than
    the model's context, or more images than ids for them or fewer.
    """
    if len(ids) < 2:
        raise ValueError(f"an id is scored after at least one other id; got {len(ids)} in all. "
                         "Encode the text with bos=True")
    check_ids(model, ids, name="the text")
    [read], images = as_images(model, [ids], images)
    if images is not None and len(read) != len(ids):
        raise ValueError("each id of a text gets a score, and this model reads an image as many "
                         f"ids; got {len(ids)} ids for what it reads as {len(read)}. Write the "
                         "images out first: model.written_out([ids], model.cut(images))")
    with torch.inference_mode():
        ids_1T = torch.tensor([ids], device=model.device)
        # With images the whole text is read, because its last id may stand for one.
        hidden_TD = (model.hidden(ids_1T[:, :-1])[0] if images is None
                     else model.hidden(ids_1T, images=images)[0, :-1])
        is_written_T = ids_1T[0, 1:] < model.config.vocab_size
        next_T = torch.where(is_written_T, ids_1T[0, 1:], 0)
        found_T = torch.cat([
            model.output(some_TD).float().log_softmax(-1).gather(-1, next_T[:, None])[:, 0]
            for some_TD, next_T in zip(hidden_TD.split(_N_TOKENS_AT_ONCE),
                                       next_T.split(_N_TOKENS_AT_ONCE), strict=True)
        ])
        return found_T.masked_fill(~is_written_T, math.nan)
