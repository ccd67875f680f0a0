"""The best of 16 by judges that saw many or few pairs, and by what needs no judge.

Notebook 52.
"""

import dataclasses
import functools
from collections.abc import Sequence

from llama_from_scratch.tokenizer.chat_format import Message
from llama_from_scratch.tune import best_of, evals, reward
from llama_from_scratch.tune.best_of import DrawnAnswer
from llama_from_scratch.tune.studies.starts import (
    FORMAT,
    careless_pairs,
    careless_writer,
    descriptions,
)
from llama_from_scratch.tune.studies.study import Measured, Study
from llama_from_scratch.tune.world import describing

_NS = (4, 16, 32)


@functools.lru_cache(maxsize=2)
def _pool(seed: int) -> tuple[list[list[DrawnAnswer]], list[list[float]]]:
    """Returns 40 answers to each of 64 unseen requests, and their true scores."""
    writer, tokenizer = careless_writer(seed)
    asked = descriptions(64, "test", seed=98)
    drawn = best_of.draw(writer, [(Message(role="user", content=f" {each.user}"),)
                                  for each in asked], tokenizer, n=40, format=FORMAT, seed=seed)
    pool = [[answer for answer in group if answer.can_win] for group in drawn]
    return pool, [[describing.score(answer.text, each.person) for answer in group]
                  for each, group in zip(asked, pool, strict=True)]


def _best(scores: Sequence[Sequence[float]], values: Sequence[Sequence[float]]) -> Measured:
    return {f"true score of the best of {n}": evals.mean(
        best_of.expected_best(group, n, values=worth)
        for group, worth in zip(scores, values, strict=True)) for n in _NS}


def _by_judge(seed: int, *, n_pairs: int, n_steps: int) -> Measured:
    writer, tokenizer = careless_writer(seed)
    judge = reward.RewardModel(writer)
    reward.fit(judge, careless_pairs(n_pairs, "train", seed=1000 * seed + 20), tokenizer,
               format=FORMAT, config=dataclasses.replace(
                   reward.REWARD, n_steps=n_steps, batch_size=8, seed=seed,
                   n_warmup=min(reward.REWARD.n_warmup, n_steps // 2)))
    pool, true = _pool(seed)
    flat = iter(reward.scores(judge, [each.dialog for group in pool for each in group], tokenizer,
                              format=FORMAT))
    own = [[next(flat) for _ in group] for group in pool]
    right = reward.accuracy(judge, careless_pairs(512, "test", seed=21), tokenizer, format=FORMAT)
    return {"right about unseen pairs": right, **_best(own, true)}


def _by_chance(seed: int) -> Measured:
    """Returns the true score of any answer: all are equally good to a judge that never looks."""
    _, true = _pool(seed)
    means = evals.mean(sum(group) / len(group) for group in true)
    return {f"true score of the best of {n}": means for n in _NS}


def _by_truth(seed: int) -> Measured:
    _, true = _pool(seed)
    return _best(true, true)


STUDY = Study(
    name="judging",
    about="How good is the best of n by judges that saw few or many pairs?",
    methods={
        "any answer": _by_chance,
        "60 pairs": lambda seed: _by_judge(seed, n_pairs=60, n_steps=80),
        "240 pairs": lambda seed: _by_judge(seed, n_pairs=240, n_steps=80),
        "2,400 pairs": lambda seed: _by_judge(seed, n_pairs=2400, n_steps=300),
        "true score": _by_truth},
    control="any answer")
