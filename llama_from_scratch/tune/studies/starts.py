"""What several studies begin with: bundled models, the stories, and the careless writer.

Notebooks 50 to 57.
"""

import copy
import dataclasses
import functools
from random import Random

from llama_from_scratch import bundled
from llama_from_scratch.checkpoint import native
from llama_from_scratch.generate.sampling import Sampling
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer import FORMATS, Tokenizer
from llama_from_scratch.train import Packed, evaluate, read_documents, split_validation
from llama_from_scratch.tune import evals, sft
from llama_from_scratch.tune.dialogs import Dialog, exchange
from llama_from_scratch.tune.evals import Mean, Share
from llama_from_scratch.tune.pairs.preferences import Preference, preferred
from llama_from_scratch.tune.world import checking, describing, instructions
from llama_from_scratch.tune.world.instructions import Choose

FORMAT = FORMATS["llama-3.2"]
N_CASES = 160
"""How many requests a share is counted on."""
N_SCORED = 256
"""How many descriptions a mean score is taken of."""
N_STORIES = 80
"""How many unseen stories the bits per byte are measured with."""


@functools.cache
def _bundled(name: str) -> tuple[Llama, Tokenizer]:
    model, tokenizer = native.load(bundled.path(f"world/{name}"))
    return model.float(), tokenizer


def fresh(name: str) -> tuple[Llama, Tokenizer]:
    """Returns a copy of a bundled model of the small world in fp32, and its tokenizer."""
    model, tokenizer = _bundled(name)
    return copy.deepcopy(model), tokenizer


@functools.cache
def stories() -> tuple[list[str], list[str]]:
    """Returns the stories to learn from, and the last 5 %, which no model has read."""
    return split_validation(read_documents(bundled.path("stories.txt"), separator="\n\n"),
                            fraction=0.05)


def bits_per_byte(model: Llama, tokenizer: Tokenizer) -> Mean:
    """Returns the bits per byte that unseen stories cost, with the spread of four quarters."""
    unseen = stories()[1][:N_STORIES]
    return evals.mean(
        evaluate(model, Packed(unseen[quarter::4], tokenizer), batch_size=8,
                 seq_len=256).bits_per_byte for quarter in range(4))


def lessons(n: int, choose: Choose, *, seed: int) -> list[Dialog]:
    """Returns `n` dialogs of one request about a scene, with the instructions that are chosen."""
    rng = Random(seed)
    tasks = [instructions.instruct(rng, "train", choose) for _ in range(n)]
    return [exchange(f" {task.user}", f" {task.answer}") for task in tasks]


def obeyed(model: Llama, tokenizer: Tokenizer, choose: Choose) -> Share:
    """Returns the share of held-out requests that a model answers as it was told to."""
    rng = Random(99)
    tasks = [instructions.instruct(rng, "test", choose) for _ in range(N_CASES)]
    answers = evals.ask(model, tokenizer, [f" {task.user}" for task in tasks], FORMAT,
                        batch_size=N_CASES)
    return evals.share(map(checking.obeys, answers, tasks))


def descriptions(n: int, split: str, *, seed: int) -> list[describing.Description]:
    """Returns `n` requests to describe a person, each with a careless answer."""
    rng = Random(seed)
    return [describing.describing(rng, split) for _ in range(n)]


@functools.cache
def _writer(seed: int) -> Llama:
    model, tokenizer = fresh("assistant")
    careless = [exchange(f" {each.user}", f" {each.answer}")
                for each in descriptions(3200, "train", seed=1000 * seed + 10)]
    sft.fit(model, careless, tokenizer, format=FORMAT, config=dataclasses.replace(
        sft.SFT, n_steps=100, n_warmup=10, peak_lr=1e-3, weight_decay=0.0, seed=seed))
    return model


def careless_writer(seed: int) -> tuple[Llama, Tokenizer]:
    """Returns a copy of a model that learned to describe people as a careless writer does."""
    return copy.deepcopy(_writer(seed)), fresh("assistant")[1]


def careless_pairs(n: int, split: str, *, seed: int) -> list[Preference]:
    """Returns `n` pairs of careless answers with different scores, the better one chosen."""
    rng, found = Random(seed), []
    while len(found) < n:
        task = describing.describing(rng, split)
        answers = [task.answer, describing.careless(rng, task.person)]
        worse, better = sorted(answers, key=lambda text: describing.score(text, task.person))
        if describing.score(worse, task.person) < describing.score(better, task.person):
            found.append(preferred(f" {task.user}", f" {better}", f" {worse}"))
    return found


def described(model: Llama, tokenizer: Tokenizer) -> tuple[list[float], list[float]]:
    """Returns scores and words of one answer to each of N_SCORED unseen requests, drawn at 1."""
    unseen = descriptions(N_SCORED, "test", seed=98)
    answers = evals.ask(model, tokenizer, [f" {each.user}" for each in unseen], FORMAT,
                        max_tokens=64, sampling=Sampling(temperature=1.0), seed=7, batch_size=128)
    scores = [describing.score(answer, each.person, is_finished=answer.endswith("."))
              for answer, each in zip(answers, unseen, strict=True)]
    return scores, [float(len(answer.split())) for answer in answers]
