"""Rewards: what each answer earns, by a function that a reader writes.

The function sees the prompt, the answer's text, and whether the answer was finished. Whatever it
says, an answer that was cut off earns nothing: no one can use half an answer, and a model that is
paid for it learns to go on forever. A soft penalty may make the last tokens before the limit cost
something, so that the limit does not come as a surprise.

Notebook 54. Source of the penalty: DAPO, arXiv:2503.14476, section 3.4.
"""

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.tune.policy.samples import SampledAnswer

Reward = Callable[[Any, str, bool], float]
"""`reward(prompt, text, is_finished)`: what an answer to a prompt earns.

`prompt`: as it was given to `reinforce.fit`. `text`: without the end token and outer spaces.
"""


def rewards_of(
    reward: Reward, prompts: Sequence[Any], groups: Sequence[Sequence[SampledAnswer]],
    tokenizer: AnyTokenizer, *, max_tokens: int, soft_tokens: int = 0,
    max_cut_reward: float | None = 0.0,
) -> Float[Tensor, "prompts answers"]:
    """Returns in float64 what each answer of each prompt's group earns.

    `max_cut_reward`: an answer that was cut off earns at most this, or what the function
    says for None. `soft_tokens`: see
    `length_penalty`.
    Raises ValueError, naming the answer, if the reward function raises an error or returns anything
    except a finite number.
    """
    return torch.tensor([
        [_earned(reward, prompt, answer, tokenizer, max_cut_reward=max_cut_reward)
         - length_penalty(sum(answer.written), max_tokens=max_tokens, soft_tokens=soft_tokens)
         for answer in group]
        for prompt, group in zip(prompts, groups, strict=True)], dtype=torch.float64)


def text_of(answer: SampledAnswer, tokenizer: AnyTokenizer) -> str:
    """Returns the answer's text, without the token that ended it and outer spaces."""
    return tokenizer.decode(answer.text_ids).strip()


def length_penalty(n_tokens: int, *, max_tokens: int, soft_tokens: int) -> float:
    """Returns the penalty of an answer's length: 0, and from 0 to 1 in the last `soft_tokens`.

    `soft_tokens` 0 turns it off.
    """
    if not soft_tokens:
        return 0.0
    n_over = n_tokens - (max_tokens - soft_tokens)
    return min(max(n_over / soft_tokens, 0.0), 1.0)


def _earned(
    reward: Reward, prompt: Any, answer: SampledAnswer, tokenizer: AnyTokenizer, *,
    max_cut_reward: float | None,
) -> float:
    text = text_of(answer, tokenizer)
    where = f"the answer {text!r:.200} to the prompt {prompt!r:.200}"
    try:
        earned = reward(prompt, text, answer.is_finished)
    except Exception as error:  # a reader's function may raise anything
        raise ValueError("a reward function returns a number for every text that a model may "
                         f"write; for {where} it raised {type(error).__name__}: {error}. Let it "
                         "return the lowest reward there") from error
    if not isinstance(earned, Real) or not math.isfinite(earned):
        raise ValueError(f"a reward is one finite number for one answer; for {where} the function "
                         f"returned {earned!r:.80}")
    is_limited = not answer.is_finished and max_cut_reward is not None
    return min(float(earned), max_cut_reward) if is_limited else float(earned)
