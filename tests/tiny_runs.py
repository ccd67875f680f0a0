"""Runs of a model of two layers on nine short stories: a second each, for tests of training."""

import dataclasses

import torch

from llama_from_scratch import family
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.train.data import Packed
from llama_from_scratch.train.loop import train
from llama_from_scratch.train.records import TrainConfig

BYTES = Tokenizer.train("", 258, special_tokens=("<|begin_of_text|>", "<|end_of_text|>"))
STORIES = [f"The {who} saw a {what}. The {what} saw the {who}, and both ran home."
           for who in ("cat", "dog", "old owl") for what in ("mouse", "cow", "very small bee")]
DATA = Packed(STORIES, BYTES)
OTHER = Packed(["The cat saw a bee."] * 3, BYTES)
CONFIG = TrainConfig(n_steps=8, batch_size=4, seq_len=24, peak_lr=1e-2, n_warmup=2,
                     validate_every=4, checkpoint_every=2)


def make(seed=0, **changes):
    """Returns the model, with weights drawn from a seed."""
    torch.manual_seed(seed)
    sizes = dict(vocab_size=258, dim=16, ffn_dim=32, max_seq_len=32,
                 layers=family.tiny("llama-3").layers[:2])
    return Llama(dataclasses.replace(family.tiny("llama-3"), **sizes | changes))


def run(model=None, *, config=CONFIG, **options):
    """Returns the history of a run on DATA, and the trained model."""
    model = make() if model is None else model
    return train(model, DATA, config=config, **options), model


def equal(a, b):
    """Returns whether two models have the same parameters, bit for bit."""
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
