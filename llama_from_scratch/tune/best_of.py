"""Best of n: draw n answers, keep the one with the largest score; and learn from what was kept.

A model becomes better without training, at n times the cost. How far it can move from itself is
bounded by log n - (n - 1)/n nats. Where the score is a reward model's, the true quality rises, and
falls again once n is so large that the winners are the answers about which the reward model is
wrong. Rejection sampling trains the model on the winners. Here n is the number of answers, and N
the number in the pool from which they are drawn.

Notebook 52. Sources: Llama 2, arXiv:2307.09288, section 3.2.3; the bound: arXiv:2009.01325, section
3; over-optimization: arXiv:2210.10760.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from llama_from_scratch.config import record
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.chat_format import ChatFormat, ChatTemplate, Message
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.train.records import History, Step, TrainConfig
from llama_from_scratch.tune import sft
from llama_from_scratch.tune.dialogs import Dialog
from llama_from_scratch.tune.policy.samples import groups


def best_of(scores: Sequence[float | int]) -> int:
    """Returns the place of the largest score; the first of several equal ones.

    Raises ValueError if there is no score, or one that is not a number.
    """
    if not scores or any(math.isnan(score) for score in scores):
        raise ValueError("the best of n needs at least one score, and each a number; got "
                         f"{list(scores)[:5]}")
    return max(range(len(scores)), key=lambda i: scores[i])


def expected_best(
    scores: Sequence[float | int], n: int, *, values: Sequence[float | int]
) -> float:
    """Returns the mean value of the best of n answers, over all ways to draw n from the pool.

    The best is the one with the largest score, the first in the pool of several equal ones.
    `values`: what is averaged, such as the true quality; the scores themselves are possible too.
    This is exact: the answer with rank i (from 0) of N is the best of C(N - 1 - i, n - 1) of the
    C(N, n) draws. Raises ValueError unless 1 <= n <= N and each answer has a score and a value.
    """
    N = len(scores)
    if len(values) != N:
        raise ValueError(f"each answer has a score and a value; got {N} scores and {len(values)} "
                         "values")
    if not 1 <= n <= N:
        raise ValueError(f"of a pool of {N} answers, n can be 1 to {N}; got n={n}. Draw more")
    best_of(scores)  # refuses what is not a number
    ranked = sorted(range(N), key=lambda i: -scores[i])  # equal ones keep their order
    return math.fsum(math.comb(N - 1 - rank, n - 1) / math.comb(N, n) * values[i]
                     for rank, i in enumerate(ranked))


def kl_bound(n: int) -> float:
    """Returns log n - (n - 1)/n, in nats: the largest KL divergence of best of n from the model.

    It is reached if no two answers have the same score. Raises ValueError for n below 1.
    """
    if n < 1:
        raise ValueError(f"best of n needs at least one answer; got n={n}")
    return math.log(n) - (n - 1) / n


@record
class DrawnAnswer:
    """One answer that was drawn to a prompt, which is number `number` of the prompts.

    `text`: without special tokens. `is_finished`: whether the model ended it.
    """

    prompt: tuple[Message, ...]
    number: int
    text: str
    is_finished: bool

    @property
    def can_win(self) -> bool:
        """Whether it has words and an end. Other answers would teach the model not to end."""
        return self.is_finished and bool(self.text.strip())

    @property
    def dialog(self) -> Dialog:
        """The prompt and this answer. The answers within the prompt are not learned."""
        said = tuple(i for i, each in enumerate(self.prompt) if each.role == "assistant")
        return Dialog(messages=(*self.prompt, Message(role="assistant", content=self.text)),
                      unlearned=said)


Score = Callable[[Sequence[DrawnAnswer]], Sequence[float]]
"""A function that returns one number for each candidate, the larger the better."""


def draw(
    model: Llama, prompts: Sequence[Sequence[Message]], tokenizer: AnyTokenizer, *, n: int,
    format: ChatFormat | ChatTemplate | None = None, max_tokens: int = 48,
    temperature: float = 1.0, seed: int = 0,
) -> list[list[DrawnAnswer]]:
    """Returns n answers to each prompt, drawn as `policy.samples.groups` draws them.

    An answer of `max_tokens` that has no end is not finished. Raises ValueError for n below 1, and
    as `groups` does.
    """
    if n < 1:
        raise ValueError(f"best of n needs at least one answer; got n={n}")
    format = sft.format_of(model, tokenizer, format)
    drawn = groups(model, [format.encode(list(prompt), tokenizer) for prompt in prompts], n=n,
                   max_tokens=max_tokens, stop_ids=format.stop_ids(tokenizer),
                   temperature=temperature, seed=seed)
    return [[DrawnAnswer(prompt=tuple(prompt), number=number,
                         text=tokenizer.decode(list(answer.text_ids)),
                         is_finished=answer.is_finished) for answer in group]
            for number, (prompt, group) in enumerate(zip(prompts, drawn, strict=True))]


@record
class Winners:
    """The best candidate of each prompt. `without`: the prompts of which none can be learned."""

    candidates: tuple[DrawnAnswer, ...]
    scores: tuple[float, ...]
    without: tuple[int, ...]


def winners(drawn: Sequence[Sequence[DrawnAnswer]], score: Score) -> Winners:
    """Returns the candidate with the largest score in each group.

    A candidate that is not finished, or empty, never wins: it would teach the model not to end.
    Raises ValueError unless `score` returns one number for each candidate, or if no group has a
    candidate that can win.
    """
    flat = [each for group in drawn for each in group if each.can_win]
    if not flat:
        raise ValueError("the best of n needs an answer that the model ended; got "
                         f"{sum(map(len, drawn))} answers and none with words and an end. Allow "
                         "more tokens")
    scores = [float(each) for each in score(flat)]
    if len(scores) != len(flat):
        raise ValueError(f"a score returns one number for each candidate; got {len(scores)} for "
                         f"{len(flat)}")
    places: dict[int, list[int]] = {}
    for place, candidate in enumerate(flat):
        places.setdefault(candidate.number, []).append(place)
    best = [group[best_of([scores[i] for i in group])] for group in places.values()]
    return Winners(candidates=tuple(flat[i] for i in best), scores=tuple(scores[i] for i in best),
                   without=tuple(group[0].number for group in drawn
                                 if group[0].number not in places))


def fit(
    model: Llama, prompts: Sequence[Sequence[Message]], tokenizer: AnyTokenizer, *, score: Score,
    n: int = 8, format: ChatFormat | ChatTemplate | None = None, max_tokens: int = 48,
    temperature: float = 1.0, seed: int = 0, config: TrainConfig = sft.SFT,
    replay: Sequence[str] = (), folder: str | Path | None = None,
    on_step: Callable[[Step], object] | None = None,
) -> History:
    """Rejection sampling: teaches `model`, in place, the best of n of its own answers.

    With n = 1 it learns its own answers as they are, which is the control of an experiment.
    Arguments as in `draw` and `sft.fit`; `seed` belongs to `draw`. Raises ValueError as they
    and `winners` do.
    """
    drawn = draw(model, prompts, tokenizer, n=n, format=format, max_tokens=max_tokens,
                 temperature=temperature, seed=seed)
    best = winners(drawn, score)
    return sft.fit(model, [each.dialog for each in best.candidates], tokenizer, config=config,
                   format=format, replay=replay, folder=folder, on_step=on_step)
