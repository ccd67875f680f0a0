"""Tiny models and a tokenizer for the tests of checkpoints, and the far positions at which a wrong RoPE shows."""

import dataclasses

import torch
from hugging_face_twin import loud

from llama_from_scratch import family
from llama_from_scratch.tokenizer.byte_bpe import BEGIN_AND_END, Tokenizer

TOKENIZER = Tokenizer.train("the cat sat on the mat, the rat sat on the cat. " * 4, 272, special_tokens=BEGIN_AND_END)


def tiny(generation="llama-3.1", **changes):
    """A model of a generation whose every part matters to the logits."""
    return loud(dataclasses.replace(family.tiny(generation), **dict(vocab_size=272) | changes))


def far_logits(model, n_tokens=48):
    """Our logits for tokens spread to the end of the context, which differ if any frequency of RoPE does."""
    with torch.no_grad():
        return model(ids(n_tokens), positions=far_positions(model.config.max_seq_len, n_tokens))


def ids(n_tokens=48):
    return torch.randint(272, (1, n_tokens), generator=torch.Generator().manual_seed(1))


def far_positions(max_seq_len, n_tokens=48):
    """From 0 to the last position, ever farther apart: near tokens show fast pairs, far ones slow pairs."""
    return (torch.linspace(0, 1, n_tokens) ** 2 * (max_seq_len - 1)).long()[None]


def same_weights(a, b):
    theirs = dict(b.named_parameters())
    return theirs.keys() == dict(a.named_parameters()).keys() and all(
        torch.equal(p, theirs[name]) and p.dtype == theirs[name].dtype for name, p in a.named_parameters())
