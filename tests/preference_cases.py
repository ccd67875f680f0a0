"""A small tokenizer with Llama 3.2's special tokens, tiny models, and pairs of descriptions."""

import functools
from dataclasses import replace
from random import Random

import torch

from llama_from_scratch import family
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer import Tokenizer
from llama_from_scratch.tokenizer.chat_format import FORMATS
from llama_from_scratch.tune.preferences import preferred
from llama_from_scratch.tune.world.describing import careless, describing, score

FORMAT = FORMATS["llama-3.2"]
SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
           "<|eot_id|>", "<|eom_id|>", "<|python_tag|>")


@functools.cache
def tokenizer():
    rng = Random(0)
    told = [describing(rng, "train") for _ in range(150)]
    texts = [text for each in told for text in (each.user, f" {each.answer}")]
    return Tokenizer.train([*texts, *["user", "assistant", "system", "ipython"] * 50], 500,
                           special_tokens=SPECIAL)


def config():
    return replace(family.tiny("llama-3.2"), vocab_size=tokenizer().vocab_size)


def model(*, seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    return Llama(config()).to(dtype)


def pairs(n, *, seed=0):
    """Pairs of two careless answers each, of which the better one is chosen."""
    rng, found = Random(seed), []
    while len(found) < n:
        told = describing(rng, "train")
        answers = [told.answer, careless(rng, told.person)]
        scores = [score(answer, told.person) for answer in answers]
        if scores[0] == scores[1]:
            continue
        rejected, chosen = (f" {answers[i]}" for i in sorted((0, 1), key=lambda i: scores[i]))
        found.append(preferred(told.user, chosen, rejected, margin=abs(scores[0] - scores[1])))
    return found
