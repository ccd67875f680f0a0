"""The loss of a policy gradient, term by term: ratio, clip, penalty, normalizer.

The policy is the model, and its actions are tokens. Each token's log-probability is pushed up by
its answer's advantage, or down by a negative one. After the first update on a batch the model is no
longer the one that drew it. The ratio q = p(token) / p_old(token) corrects for that, and the clip
ends the push of tokens that have moved far enough. The penalty k3 holds the model close to a
reference. With one update per batch q is 1, the clip does nothing, and the gradient equals the
gradient of advantage times log p.

Notebook 54. Sources: PPO, arXiv:1707.06347; GRPO, arXiv:2402.03300; clip with two sides and tokens
that count alike: DAPO, arXiv:2503.14476; a constant normalizer: Dr. GRPO, arXiv:2503.20783; k3:
Schulman, "Approximating KL divergence".
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from llama_from_scratch.config import record

Normalizer = Literal["token", "sequence", "constant"]
"""What a sum over tokens is divided by, so that a batch of any size has a mean."""
NORMALIZERS: tuple[Normalizer, ...] = ("token", "sequence", "constant")


@record
class Counts:
    """What a normalizer divides by: answers and written tokens of the batch, and their most.

    They count the whole batch, also rows that were left out because their gradient is 0.
    """

    n_answers: int
    n_tokens: int
    max_tokens: int


def gains(
    log_ratio: Float[Tensor, "B T"], advantages: Float[Tensor, "B"], *,
    clip_low: float | None = None, clip_high: float | None = None,
) -> Float[Tensor, "B T"]:
    """Returns min(q A, clip(q, 1 - clip_low, 1 + clip_high) A) of each token, with q = exp(log q).

    The minimum makes the clip act only on the side to which A pushes: a token with A > 0 gets no
    gradient once q is above 1 + clip_high, and one with A < 0 none once q is below 1 - clip_low.
    A limit of None is no limit.
    """
    ratio_BT, advantages_B1 = log_ratio.exp(), advantages[:, None]
    if clip_low is None and clip_high is None:
        return ratio_BT * advantages_B1
    clipped_BT = ratio_BT.clamp(min=None if clip_low is None else 1 - clip_low,
                                max=None if clip_high is None else 1 + clip_high)
    return torch.minimum(ratio_BT * advantages_B1, clipped_BT * advantages_B1)


def is_clipped(
    log_ratio: Float[Tensor, "B T"], advantages: Float[Tensor, "B"], *,
    clip_low: float | None = None, clip_high: float | None = None,
) -> Bool[Tensor, "B T"]:
    """Returns which tokens the clip has taken the gradient of."""
    ratio_BT, advantages_B1 = log_ratio.exp(), advantages[:, None]
    found_BT = torch.zeros_like(ratio_BT, dtype=torch.bool)
    if clip_high is not None:
        found_BT |= (ratio_BT > 1 + clip_high) & (advantages_B1 > 0)
    if clip_low is not None:
        found_BT |= (ratio_BT < 1 - clip_low) & (advantages_B1 < 0)
    return found_BT


def k3(
    log_probs: Float[Tensor, "B T"], reference: Float[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """Returns p0/p - 1 - log(p0/p) of each token: never negative, and 0 where p equals p0.

    For tokens drawn from p, its mean is KL(p || p0). (Its gradient, with the draw held fixed, is
    not the gradient of that mean; it is close to it while p is close to p0.)
    """
    log_ratio_BT = reference - log_probs
    return torch.expm1(log_ratio_BT) - log_ratio_BT


def normalized(
    values: Float[Tensor, "B T"], is_written: Bool[Tensor, "B T"], *, by: Normalizer, counts: Counts
) -> Float[Tensor, ""]:
    """Returns the sum of the written tokens' values, divided as `by` says.

    "token": by the number of tokens in the batch, so that all count alike (DAPO). "sequence": by
    the length of each answer, then by the number of answers, so that all answers count alike
    (GRPO); a token of a long answer counts less. "constant": by the number of answers times the
    most tokens that an answer can have (Dr. GRPO). They agree up to a factor if all answers have
    the same length.
    """
    values_BT = torch.where(is_written, values, 0.0)
    if by == "sequence":
        n_B = is_written.sum(1).clamp(min=1)
        return (values_BT.sum(1) / n_B).sum() / counts.n_answers
    n = counts.n_tokens if by == "token" else counts.n_answers * counts.max_tokens
    return values_BT.sum() / max(n, 1)


def policy_loss(
    log_probs: Float[Tensor, "B T"], old: Float[Tensor, "B T"], advantages: Float[Tensor, "B"],
    is_written: Bool[Tensor, "B T"], *, normalizer: Normalizer, counts: Counts,
    clip_low: float | None = None, clip_high: float | None = None, beta: float = 0.0,
    reference: Float[Tensor, "B T"] | None = None,
) -> Float[Tensor, ""]:
    """Returns minus the mean gain of the written tokens, plus beta times their mean k3.

    `old`: the log-probabilities with which the tokens were drawn. `reference`: a frozen model's,
    needed unless `beta` is 0. The advantages have no gradient. Tokens that are not written get
    exactly 0.
    """
    # Numbers of other tokens are replaced first, because 0 times an infinite slope is not 0.
    log_ratio_BT = torch.where(is_written, log_probs - old, 0.0)
    loss_BT = -gains(log_ratio_BT, advantages.detach(), clip_low=clip_low, clip_high=clip_high)
    if beta:
        if reference is None:
            raise ValueError(f"beta={beta} holds the model close to a reference, and there is "
                             "none. Give the reference's log-probabilities, or beta=0")
        own_BT, other_BT = (torch.where(is_written, x, 0.0) for x in (log_probs, reference))
        loss_BT = loss_BT + beta * k3(own_BT, other_BT)
    return normalized(loss_BT, is_written, by=normalizer, counts=counts)
