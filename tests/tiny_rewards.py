"""A model of two layers, prompts of a few ids, and rewards that random weights can learn from."""

import tiny_runs
import torch

from llama_from_scratch.tune.policy.records import ReinforceConfig
from llama_from_scratch.tune.policy.samples import SampledAnswer

TOKENIZER = tiny_runs.BYTES
STOPS = frozenset(range(200, 258))
"""Many ids end an answer, so that random weights end most of them."""
PROMPTS = [[256, 65 + i, 70, 71] + [72] * (i % 3) for i in range(12)]
CONFIG = ReinforceConfig(n_steps=4, n_prompts=4, n_answers=4, max_tokens=6, peak_lr=1e-2,
                         n_warmup=0, max_cut_reward=None, checkpoint_every=2)
make = tiny_runs.make


def share_of_letters(prompt, text, is_finished):
    """The share of small letters among the characters of an answer."""
    return sum("a" <= c <= "z" for c in text) / max(len(text), 1)


def answer(*ids, log_probs=None, is_finished=True, is_written=None):
    return SampledAnswer(ids=ids, log_probs=tuple(log_probs or [-1.0] * len(ids)),
                  is_finished=is_finished, is_written=is_written)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def gradient(model):
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten()
                      for p in model.parameters()])
