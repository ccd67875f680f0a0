"""A rollout: answers that a model draws to some prompts, what they earn, and their advantages.

Prompts come in an endless order of epochs, and answers are drawn with numbers that follow from a
seed and the place of the prompt in that order. So a rollout depends only on the model, the settings
and how many prompts were used before.

Notebook 54. Source of drawing equal groups again: DAPO, arXiv:2503.14476, section 3.2.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.tune.policy import samples
from llama_from_scratch.tune.policy.advantages import advantages, are_equal
from llama_from_scratch.tune.policy.records import ReinforceConfig
from llama_from_scratch.tune.policy.rewards import Reward, rewards_of
from llama_from_scratch.tune.policy.samples import SampledAnswer


@runtime_checkable
class Sampler(Protocol):
    """What draws a group of answers to each prompt; `samples.groups` is one.

    Another one may let the model use tools and mark their results as not written.
    """

    def __call__(
        self, model: Llama, prompts: Sequence[Sequence[int]], *, n: int, max_tokens: int,
        stop_ids: frozenset[int], temperature: float, seed: int, first: int, rows_at_once: int,
    ) -> list[list[SampledAnswer]]: ...


@record
class Rollout:
    """The answers that a step learns from, with the ids of each answer's prompt.

    `reward`, `share_equal`, `share_cut`, `n_tokens`, `n_groups`: of all that was drawn, see
    `ReinforceStep`.
    """

    prompts: Sequence[Sequence[int]]
    answers: Sequence[SampledAnswer]
    advantages: Float[Tensor, "B"]
    reward: float
    share_equal: float
    share_cut: float
    n_tokens: float
    n_groups: int


def draw(
    model: Llama, prompts: Sequence[Any], tokenizer: AnyTokenizer, *,
    ids: Sequence[Sequence[int]], reward: Reward, stop_ids: frozenset[int],
    config: ReinforceConfig, n_used: int = 0, sample: Sampler = samples.groups,
) -> Rollout:
    """Returns the answers of one step; `n_used` prompts were used before it.

    `ids`: of each prompt. With `config.n_rounds` above 1, groups of equal rewards are replaced by
    groups of other prompts, as long as there are rounds; those that remain are left out.
    Raises ValueError for rewards as `rewards_of` does, and for a sampler that does not return one
    group of `config.n_answers` for each prompt.
    """
    kept: list[tuple[int, Sequence[SampledAnswer], Tensor]] = []
    answers, rewards, n_groups = [], [], 0
    for _ in range(config.n_rounds):
        first = n_used + n_groups
        numbers = prompt_numbers(first, config.n_prompts - len(kept), n_prompts=len(ids),
                                 seed=config.seed)
        groups = sample(model, [ids[i] for i in numbers], n=config.n_answers,
                        max_tokens=config.max_tokens, stop_ids=stop_ids,
                        temperature=config.temperature, seed=config.seed, first=first,
                        rows_at_once=config.answers_at_once)
        if [len(group) for group in groups] != [config.n_answers] * len(numbers):
            raise ValueError(f"a sampler returns {config.n_answers} answers to each of "
                             f"{len(numbers)} prompts; got groups of "
                             f"{[len(group) for group in groups]}")
        earned = rewards_of(reward, [prompts[i] for i in numbers], groups, tokenizer,
                            max_tokens=config.max_tokens, soft_tokens=config.soft_tokens,
                            max_cut_reward=config.max_cut_reward)
        rewards.append(earned)
        n_groups += len(numbers)
        answers += [answer for group in groups for answer in group]
        kept += [(number, group, own) for number, group, own, is_equal in zip(
            numbers, groups, earned, are_equal(earned).tolist(), strict=True)
            if config.n_rounds == 1 or not is_equal]
        if len(kept) == config.n_prompts:
            break
    every = torch.cat(rewards)
    found = torch.zeros(0, config.n_answers) if not kept else advantages(
        torch.stack([own for _, _, own in kept]), baseline=config.baseline,
        is_scaled=config.is_scaled)
    return Rollout(
        prompts=[ids[number] for number, group, _ in kept for _ in group],
        answers=[answer for _, group, _ in kept for answer in group],
        advantages=found.flatten().float(), reward=every.mean().item(),
        share_equal=are_equal(every).float().mean().item(),
        share_cut=sum(not answer.is_finished for answer in answers) / len(answers),
        n_tokens=sum(sum(answer.written) for answer in answers) / len(answers),
        n_groups=n_groups)


def prompt_numbers(first: int, n: int, *, n_prompts: int, seed: int) -> list[int]:
    """Returns which of the prompts have the `n` places from `first` on.

    An epoch has every prompt once, in an order drawn from the seed and the epoch's number.
    """
    numbers: list[int] = []
    for epoch in range(first // n_prompts, (first + n - 1) // n_prompts + 1):
        order = np.random.default_rng([seed, epoch]).permutation(n_prompts)
        begin = epoch * n_prompts
        numbers += order[max(first - begin, 0) : first + n - begin].tolist()
    return numbers
