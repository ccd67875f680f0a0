"""Adapters: which rank, on which matrices, and what a skill costs in what was known before.

Notebook 51.
"""

import dataclasses
from collections.abc import Sequence
from random import Random

from llama_from_scratch.tune import lora, sft
from llama_from_scratch.tune.studies.starts import FORMAT, bits_per_byte, fresh, lessons, obeyed
from llama_from_scratch.tune.studies.study import Measured, Study
from llama_from_scratch.tune.world import instructions


def _taught_pair(rng: Random) -> tuple[str, ...]:
    return rng.choice(instructions.TAUGHT_PAIRS)


def _taught(
    seed: int, *, n_steps: int = 120, rank: int | None = None, peak_lr: float = 3e-4,
    targets: Sequence[str] = lora.MATRICES,
) -> Measured:
    model, tokenizer = fresh("assistant")
    if rank is not None:
        lora.add(model, rank=rank, targets=targets, seed=seed)
    if n_steps:
        sft.fit(model, lessons(32 * n_steps, _taught_pair, seed=1000 * seed + 3), tokenizer,
                format=FORMAT, parts=None if rank is None else lora.parts(),
                config=dataclasses.replace(
                    sft.SFT, n_steps=n_steps, peak_lr=peak_lr, n_warmup=min(10, n_steps // 2),
                    weight_decay=0.1 if rank is None else 0.0, seed=seed))
    return {"taught pairs": obeyed(model, tokenizer, _taught_pair),
            "one instruction": obeyed(model, tokenizer, instructions.any_single),
            "bits per byte": bits_per_byte(model, tokenizer)}


STUDY = Study(
    name="ranks",
    about="Which rank do adapters need, on which matrices, and what is forgotten?",
    methods={
        "no training": lambda seed: _taught(seed, n_steps=0),
        "all weights": lambda seed: _taught(seed),
        "all weights, 1e-3": lambda seed: _taught(seed, peak_lr=1e-3),
        "rank 1": lambda seed: _taught(seed, rank=1, peak_lr=5e-3),
        "rank 4": lambda seed: _taught(seed, rank=4, peak_lr=5e-3),
        "rank 4, 1e-3": lambda seed: _taught(seed, rank=4, peak_lr=1e-3),
        "rank 16": lambda seed: _taught(seed, rank=16, peak_lr=5e-3),
        "rank 4, attention": lambda seed: _taught(seed, rank=4, peak_lr=5e-3, targets=(
            "wq", "wk", "wv", "wo")),
        "rank 4, feed-forward": lambda seed: _taught(seed, rank=4, peak_lr=5e-3, targets=(
            "w_gate", "w_up", "w_down"))},
    control="no training")
