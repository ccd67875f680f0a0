"""From logits to the next token: reshape the distribution, then draw from it.

Every method here is a function from logits to logits that rules tokens out (their logit becomes
-inf) or flattens the rest. They are applied in one fixed order: repetition penalty, temperature,
top-k, top-p, min-p. The draw inverts the cumulative distribution at one uniform number per
sequence. So equal seeds give equal tokens, and a row gives the same tokens in a batch as alone.
Probabilities are computed in float64, relative to the largest logit. In float32, extreme cases lose
tokens: 100,000 small probabilities add up to more than 1, and a tiny temperature overflows.

Notebook 16. Sources: Holtzman et al., arXiv:1904.09751 (top-p); Fan et al., arXiv:1805.04833
(top-k); Nguyen et al., arXiv:2407.01082 (min-p); Keskar et al., arXiv:1909.05858, section 4.1
(repetition penalty).
"""

import math
from numbers import Integral, Real

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.generate.checks import check_numbers


@record
class Sampling:
    """How to choose the next token.

    `temperature`: 0 takes the most likely token, and 1.0 changes nothing. `top_k`: only the k most
    likely. `top_p`: the fewest tokens that together reach this probability. `min_p`: only tokens at
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
        for name in ("temperature", "top_p", "min_p", "repetition_penalty"):
            value = getattr(self, name)
            is_off = value is None and name.endswith("_p")
            if not is_off and (not isinstance(value, Real) or isinstance(value, bool)):
                raise ValueError(f"{name} is a number; got {value!r:.80}")
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise ValueError("temperature must be 0 (greedy) or a finite number above it; "
                             f"got {self.temperature}")
        if self.top_k is not None:
            if not isinstance(self.top_k, Integral) or isinstance(self.top_k, bool):
                raise ValueError(f"top_k is a whole number of tokens; got {self.top_k!r:.80}")
            if self.top_k < 1:
                raise ValueError(f"top_k keeps at least 1 token; got {self.top_k}. "
                                 "None turns it off")
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{name} is a probability above 0 and at most 1; got {value}. "
                                 "None turns it off")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError("repetition_penalty must be above 0 (1.0 is off) and finite; "
                             f"got {self.repetition_penalty}")


GREEDY = Sampling(temperature=0.0)


def penalize_repetition(
    logits: Float[Tensor, "B V"], seen: Bool[Tensor, "B V"], *, penalty: float
) -> Float[Tensor, "B V"]:
    """Returns logits with which every `seen` token is less likely.

    Positive logits are divided by `penalty`, and negative ones are multiplied by it.
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def keep_top_k(logits: Float[Tensor, "B V"], k: int) -> Float[Tensor, "B V"]:
    """Returns the k largest logits, and all that equal the k-th; the others are -inf."""
    kth_B1 = logits.topk(min(k, logits.shape[-1])).values[:, -1:]
    return logits.masked_fill(logits < kth_B1, -math.inf)


def keep_top_p(logits: Float[Tensor, "B V"], p: float) -> Float[Tensor, "B V"]:
    """Returns the logits of the fewest tokens that reach probability p; others are -inf.

    At p = 1, all tokens stay.
    """
    if p == 1:
        return logits
    sorted_BV, order_BV = logits.sort(descending=True, stable=True)
    # The probability of a token and all after it is summed from the smallest on, so that a p close
    # to 1 is not lost in the rounding of a sum close to 1.
    rest_BV = sorted_BV.double().softmax(-1).flip(-1).cumsum(-1).flip(-1)
    is_dropped_BV = rest_BV <= (1 - p) * rest_BV[:, :1]
    is_dropped_BV[:, 0] = False
    return logits.masked_fill(is_dropped_BV.scatter(-1, order_BV, is_dropped_BV), -math.inf)


def keep_min_p(logits: Float[Tensor, "B V"], p: float) -> Float[Tensor, "B V"]:
    """Returns the logits of tokens at least p times as likely as the best; others are -inf."""
    wide_BV = logits.double()
    least_B1 = wide_BV.amax(-1, keepdim=True) + math.log(p)
    return logits.masked_fill(wide_BV < least_B1, -math.inf)


def distribution(
    logits: Float[Tensor, "B V"], sampling: Sampling, *, seen: Bool[Tensor, "B V"] | None = None
) -> Float[Tensor, "B V"]:
    """Returns the probabilities of the next token under `sampling`, computed in float64.

    They are float32, or float64 for logits of that dtype. At temperature 0 the most likely token
    has probability 1; of several equally likely tokens, it is the one with the smallest id. `seen`
    marks the tokens that the repetition penalty applies to, and is needed unless that is 1.
    Raises ValueError if a row's largest logit is not a finite number.
    """
    wide_BV = logits.double()
    check_numbers(wide_BV.amax(-1))
    if sampling.repetition_penalty != 1.0:
        if seen is None:
            raise ValueError(f"repetition_penalty={sampling.repetition_penalty} needs `seen`, the "
                             "tokens that already occurred; got None")
        wide_BV = penalize_repetition(wide_BV, seen, penalty=sampling.repetition_penalty)
    largest_B1, best_B1 = wide_BV.max(-1, keepdim=True)
    if not largest_B1.isfinite().all():
        raise ValueError(f"repetition_penalty={sampling.repetition_penalty} makes logits infinite, "
                         "so no next token can be chosen. Take one closer to 1")
    if sampling.temperature == 0:
        return torch.zeros_like(logits, dtype=_result(logits)).scatter(-1, best_B1, 1.0)
    # Divided by a tensor, because a GPU multiplies by the inverse of a number, which may overflow.
    wide_BV = (wide_BV - largest_B1) / wide_BV.new_tensor(sampling.temperature)
    if sampling.top_k is not None:
        wide_BV = keep_top_k(wide_BV, sampling.top_k)
    if sampling.top_p is not None:
        wide_BV = keep_top_p(wide_BV, sampling.top_p)
    if sampling.min_p is not None:
        wide_BV = keep_min_p(wide_BV, sampling.min_p)
    return wide_BV.softmax(-1).to(_result(logits))


def _result(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def draw(probs: Float[Tensor, "B V"], uniform: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
    """Returns, for each row, the token whose part of the cumulative distribution holds `uniform`.

    `uniform`: one number in [0, 1) per row. The sum is in float64, so that a token of probability 0
    is never drawn, not even where `uniform` is rounded to 1.
    Raises ValueError for a row whose probabilities have no sum above 0.
    """
    cumulative_BV = probs.double().cumsum(-1)
    total_B1 = cumulative_BV[:, -1:].contiguous()
    if not ((total_B1 > 0) & total_B1.isfinite()).all():
        raise ValueError("a token is drawn from probabilities with a finite sum above 0; got sums "
                         f"{total_B1[:, 0].tolist()[:4]}")
    target_B1 = uniform.double()[:, None] * total_B1
    drawn_B1 = torch.searchsorted(cumulative_BV, target_B1, right=True)
    last_B1 = torch.searchsorted(cumulative_BV, total_B1)  # the last token that adds to the sum
    return torch.minimum(drawn_B1, last_B1)[:, 0]
