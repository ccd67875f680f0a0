"""Advantages: how much better an answer is than what one could expect from its prompt.

A reward alone says little, because some prompts are easy. Compared with the other answers to the
same prompt, it says which answers to make likelier. A baseline does not change the mean of the
gradient as long as it does not depend on the answer itself. It makes the gradient far less noisy.

Notebook 54. Sources: GRPO, arXiv:2402.03300, section 4.1.1; leave one out, arXiv:2402.14740; no
division by the deviation: Dr. GRPO, arXiv:2503.20783.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Baseline = Literal["none", "mean", "others"]
"""What is subtracted from a reward: nothing, the mean of its group, or the mean of the others."""
BASELINES: tuple[Baseline, ...] = ("none", "mean", "others")

EPSILON = 1e-4
"""Added to a group's deviation, so that nearly equal rewards do not become huge advantages."""


def advantages(
    rewards: Float[Tensor, "prompts answers"], *, baseline: Baseline = "mean",
    is_scaled: bool = False,
) -> Float[Tensor, "prompts answers"]:
    """Returns the advantage of each answer, in the dtype of the rewards.

    `baseline`: the mean of the `others` gives an unbiased gradient. Its advantages are n / (n - 1)
    times the ones of the `mean`. `is_scaled`: they are divided by the group's standard deviation
    (of n - 1).
    With a baseline, groups of equal rewards get exactly 0.
    Raises ValueError for a reward that is not finite, or a group of one that has nothing to be
    compared with.
    """
    check_group(rewards.shape[1], baseline=baseline, is_scaled=is_scaled)
    if not rewards.isfinite().all():
        i, j = (~rewards.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"a reward is a finite number; answer {j} to prompt {i} got "
                         f"{rewards[i, j].item()}")
    n = rewards.shape[1]
    expected = torch.zeros_like(rewards[:, :1])
    if baseline == "mean":
        expected = rewards.mean(1, keepdim=True)
    elif baseline == "others":
        expected = (rewards.sum(1, keepdim=True) - rewards) / (n - 1)
    found = rewards - expected
    if is_scaled:
        found = found / (rewards.std(1, keepdim=True) + EPSILON)
    if baseline == "none":
        return found
    # A mean of equal numbers may be rounded, which would leave a tiny advantage.
    return found.masked_fill(are_equal(rewards)[:, None], 0.0)


def are_equal(rewards: Float[Tensor, "prompts answers"]) -> Bool[Tensor, "prompts"]:
    """Returns whether all answers of a group earned the same. Such a group teaches nothing."""
    return rewards.amax(1) == rewards.amin(1)


def check_group(n: int, *, baseline: Baseline, is_scaled: bool) -> None:
    """Raises ValueError for an unknown baseline, or one that needs more than `n` answers."""
    if baseline not in BASELINES:
        raise ValueError(f"baseline is one of {', '.join(BASELINES)}; got {baseline!r:.80}")
    if n < 2 and (baseline != "none" or is_scaled):
        needs = f"baseline={baseline!r}" if baseline != "none" else "is_scaled=True"
        raise ValueError(f"{needs} compares the answers to one prompt, so a group has at least 2; "
                         f"got {n}. Draw more answers, or take baseline='none' without scaling")
