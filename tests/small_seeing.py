"""A tokenizer that knows the words of the pictures, and a model that is made in a moment."""

import itertools
import random

import torch

from llama_from_scratch.config import LayerSpec, LlamaConfig, VisionConfig
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.train.questions import examples
from llama_from_scratch.train.scenes import Scenes
from llama_from_scratch.vision.adapter import attach


def some(task, n, *, split="train", seed=0, n_questions=3):
    """The first n examples of a task."""
    made = examples(task, n_questions=n_questions, split=split, pick=random.Random(seed))
    return list(itertools.islice(made, n))


def tokenizer():
    """350 tokens, learned from questions and answers."""
    lines = [f"{example.picture.caption} {question.text} {question.answer}"
             for example in some(Scenes(), 100) for question in example.questions]
    return Tokenizer.train(lines, 350, special_tokens=["<|begin_of_text|>", "<|end_of_text|>"])


def seeing_model(vocab_size, *, seed=0):
    """A VisionLlama with a block before its second layer."""
    torch.manual_seed(seed)
    text = Llama(LlamaConfig(dim=16, n_heads=2, n_kv_heads=1, ffn_dim=32, vocab_size=vocab_size,
                             max_seq_len=64, norm_eps=1e-5, rope_theta=1e4,
                             layers=(LayerSpec(),) * 2, is_tied=True))
    vision = VisionConfig(dim=16, n_heads=2, ffn_dim=32, n_local_layers=1, n_global_layers=1,
                          intermediate_layers=(0,), tile_px=28, patch_px=7, max_tiles=1,
                          aspect_ratios=((1, 1),), norm_eps=1e-5, output_dim=16)
    return attach(text, vision, cross_layers=(1,))
