"""From logits to the next token: reshape the distribution, then draw from it.

Every method here is a function from logits to logits that rules tokens out (their logit becomes
-inf) or flattens the rest. They are applied in one fixed order: repetition penalty, temperature,
top-k, top-p, min-p. The draw inverts the cumulative distribution at one uniform number per
sequence, so a seed repeats and a batch equals its rows.

Notebook 16. Sources: Holtzman et al., arXiv:1904.09751 (top-p); Fan et al., arXiv:1805.04833
(top-k); Nguyen et al., arXiv:2407.01082 (min-p); Keskar et al., arXiv:1909.05858, section 4.1
(repetition penalty).
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llama_from_scratch.config import record


@record
class Sampling:
    """How to choose the next token.

    `temperature`: 0 takes the most likely token, and 1.0 changes nothing. `top_k`: only the k most
    likely. `top_p`: the fewest tokens that together hold this probability. `min_p`: only tokens at
    least this fraction as likely as the most likely one. `repetition_penalty`: a value above 1
    makes tokens that already occur in the prompt or the answer less likely, and 1.0 changes
    nothing. None turns a setting off.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise ValueError("temperature must be 0 (greedy) or a finite number above it; "
                             f"got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k keeps at least 1 token; got {self.top_k}. None turns it off")
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{name} is a probability above 0 and at most 1; got {value}. "
                                 "None turns it off")
        if not self.repetition_penalty > 0:
            raise ValueError("repetition_penalty must be above 0 (1.0 is off); "
                             f"got {self.repetition_penalty}")


GREEDY = Sampling(temperature=0.0)


def penalize_repetition(
    logits: Float[Tensor, "B V"], seen: Bool[Tensor, "B V"], *, penalty: float
) -> Float[Tensor, "B V"]:
    """Logits where every `seen` token is less likely.

    Positive logits are divided by `penalty`, and negative ones are multiplied by it.
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def keep_top_k(logits: Float[Tensor, "B V"], k: int) -> Float[Tensor, "B V"]:
    """Only the k largest logits and those equal to the k-th, with the rest at -inf."""
    kth_B1 = logits.topk(min(k, logits.shape[-1])).values[:, -1:]
    return logits.masked_fill(logits < kth_B1, -math.inf)


def keep_top_p(logits: Float[Tensor, "B V"], p: float) -> Float[Tensor, "B V"]:
    """Only the most likely tokens, up to the one with which they hold probability p."""
    sorted_BV, order_BV = logits.sort(descending=True, stable=True)
    probs_BV = sorted_BV.softmax(-1)
    before_BV = probs_BV.cumsum(-1) - probs_BV
    return logits.masked_fill((before_BV >= p).scatter(-1, order_BV, before_BV >= p), -math.inf)


def keep_min_p(logits: Float[Tensor, "B V"], p: float) -> Float[Tensor, "B V"]:
    """Only tokens at least p times as likely as the most likely one."""
    return logits.masked_fill(logits < logits.max(-1, keepdim=True).values + math.log(p), -math.inf)


def distribution(
    logits: Float[Tensor, "B V"], sampling: Sampling, *, seen: Bool[Tensor, "B V"] | None = None
) -> Float[Tensor, "B V"]:
    """Probabilities of the next token once `sampling` is applied.

    At temperature 0 the most likely token has probability 1. `seen` marks the tokens that the
    repetition penalty applies to, and is needed if that is not 1.
    """
    if sampling.repetition_penalty != 1.0:
        if seen is None:
            raise ValueError(f"repetition_penalty={sampling.repetition_penalty} needs `seen`: "
                             "which tokens already occurred")
        logits = penalize_repetition(logits, seen, penalty=sampling.repetition_penalty)
    if sampling.temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.max(-1, keepdim=True).indices, 1.0)
    logits = logits / sampling.temperature
    if sampling.top_k is not None:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None:
        logits = keep_top_p(logits, sampling.top_p)
    if sampling.min_p is not None:
        logits = keep_min_p(logits, sampling.min_p)
    return logits.softmax(-1)


def draw(probs: Float[Tensor, "B V"], uniform: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
    """The token whose slice of the cumulative distribution holds `uniform`, in each row.

    `uniform`: one number in [0, 1) per row. The sum is in float64, so that a token of probability 0
    is never drawn.
    """
    cumulative_BV = probs.double().cumsum(-1)
    target_B1 = uniform.double()[:, None] * cumulative_BV[:, -1:]
    return torch.searchsorted(
        cumulative_BV, target_B1, right=True)[:, 0].clamp(max=probs.shape[-1] - 1)
