"""Tiny models and a tokenizer for the tests of checkpoints, and the far positions at which a wrong RoPE shows."""

import dataclasses
import functools

import torch
from hugging_face_twin import loud

from llama_from_scratch import family
from llama_from_scratch.tokenizer import released
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece

TEXT = "the cat sat on the mat, the rat sat on the cat. " * 4
VOCAB = 520


@functools.cache
def tokenizer_for(generation):
    """A small tokenizer of the generation's kind, with its special tokens: 520 ids."""
    if generation in ("llama-1", "llama-2"):
        return SentencePiece.train("".join(map(chr, range(33, 255))) + TEXT, VOCAB)
    return Tokenizer.train(TEXT, VOCAB, special_tokens=released.SPECIAL_TOKENS[generation])


TOKENIZER = tokenizer_for("llama-3.1")


def large_tokenizer(vocab_size):
    """A tokenizer of Llama 3.1's kind with as many ids, most of them never used."""
    tokens = [bytes([i]) for i in range(256)] + [i.to_bytes(3, "big") for i in range(vocab_size - 512)]
    return Tokenizer({token: rank for rank, token in enumerate(tokens)}, special_tokens=released.LLAMA_3_1)


def tiny(generation="llama-3.1", **changes):
    """A model of a generation whose every part matters to the logits."""
    return loud(dataclasses.replace(family.tiny(generation), **dict(vocab_size=VOCAB) | changes))


def far_logits(model, n_tokens=48):
    """Our logits for tokens spread to the end of the context, which differ if any frequency of RoPE does."""
    with torch.no_grad():
        return model(ids(n_tokens), positions=far_positions(model.config.max_seq_len, n_tokens))


def ids(n_tokens=48):
    return torch.randint(VOCAB, (1, n_tokens), generator=torch.Generator().manual_seed(1))


def far_positions(max_seq_len, n_tokens=48):
    """From 0 to the last position, ever farther apart: near tokens show fast pairs, far ones slow pairs."""
    return (torch.linspace(0, 1, n_tokens) ** 2 * (max_seq_len - 1)).long()[None]


def same_weights(a, b):
    theirs = dict(b.named_parameters())
    return theirs.keys() == dict(a.named_parameters()).keys() and all(
        torch.equal(p, theirs[name]) and p.dtype == theirs[name].dtype for name, p in a.named_parameters())
