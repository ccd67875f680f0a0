"""The methods of `reinforce.METHODS` with equal sizes, and the reward that obeys to the letter.

Notebook 54.
"""

import dataclasses

from llama_from_scratch.tune import evals, reinforce
from llama_from_scratch.tune.policy.records import METHODS, ReinforceConfig
from llama_from_scratch.tune.studies.starts import (
    FORMAT,
    careless_writer,
    described,
    descriptions,
)
from llama_from_scratch.tune.studies.study import Measured, Study
from llama_from_scratch.tune.world import describing
from llama_from_scratch.tune.world.describing import Description

_N_STEPS = 30


def _true(task: Description, text: str, is_finished: bool) -> float:
    return describing.score(text, task.person, is_finished=is_finished)


def _raised(task: Description, text: str, is_finished: bool) -> float:
    """Returns three points more for every answer: rewards that are never negative."""
    return 3.0 + _true(task, text, is_finished)


def _ask(task: Description) -> str:
    return f" {task.user}"


def _rewarded(seed: int, config: ReinforceConfig | None, *, reward=_true) -> Measured:
    model, tokenizer = careless_writer(seed)
    if config is not None:
        reinforce.fit(model, descriptions(640, "train", seed=1000 * seed + 5), tokenizer,
                      reward=reward, ask=_ask, format=FORMAT, config=dataclasses.replace(
                          config, n_steps=_N_STEPS, seed=seed))
    scores, words = described(model, tokenizer)
    perfect = evals.share(each == describing.BEST for each in scores)
    return {"score": evals.mean(scores), "perfect": perfect, "words": evals.mean(words)}


STUDY = Study(
    name="rewarding",
    about=f"How far do REINFORCE and its successors come in {_N_STEPS} steps of 128 answers?",
    methods={
        "writer": lambda seed: _rewarded(seed, None),
        "REINFORCE": lambda seed: _rewarded(seed, METHODS["reinforce"]),
        "REINFORCE, raised": lambda seed: _rewarded(seed, METHODS["reinforce"], reward=_raised),
        "RLOO": lambda seed: _rewarded(seed, METHODS["rloo"]),
        "GRPO": lambda seed: _rewarded(seed, METHODS["grpo"]),
        "Dr. GRPO": lambda seed: _rewarded(seed, METHODS["dr-grpo"]),
        "DAPO": lambda seed: _rewarded(seed, METHODS["dapo"])},
    control="writer")
