"""Fine-tuning the base: how many steps, at which rate, and with the earlier texts or without.

Notebook 50.
"""

import dataclasses
from random import Random

from llama_from_scratch.tune import sft
from llama_from_scratch.tune.studies.starts import (
    FORMAT,
    bits_per_byte,
    fresh,
    lessons,
    obeyed,
    stories,
)
from llama_from_scratch.tune.studies.study import Measured, Study
from llama_from_scratch.tune.world import instructions


def _mostly_single(rng: Random) -> tuple[str, ...]:
    return (rng.choice(instructions.SINGLES),) if rng.random() < 0.8 else ()


def _taught(
    seed: int, *, n_steps: int, peak_lr: float = 2e-3, has_stories: bool = True,
) -> Measured:
    model, tokenizer = fresh("base")
    if n_steps:
        sft.fit(model, lessons(32 * n_steps, _mostly_single, seed=1000 * seed + 2), tokenizer,
                format=FORMAT, replay=stories()[0] if has_stories else (),
                config=dataclasses.replace(sft.SFT, n_steps=n_steps, peak_lr=peak_lr,
                                           n_warmup=min(10, n_steps // 2), seed=seed))
    return {"plain questions": obeyed(model, tokenizer, instructions.no_instruction),
            "one instruction": obeyed(model, tokenizer, instructions.any_single),
            "bits per byte": bits_per_byte(model, tokenizer)}


STUDY = Study(
    name="answering",
    about="What do steps, learning rate and replayed stories do in supervised fine-tuning?",
    methods={
        "no training": lambda seed: _taught(seed, n_steps=0),
        "80 steps": lambda seed: _taught(seed, n_steps=80),
        "240 steps": lambda seed: _taught(seed, n_steps=240),
        "240 steps, 5e-4": lambda seed: _taught(seed, n_steps=240, peak_lr=5e-4),
        "240 steps, 8e-3": lambda seed: _taught(seed, n_steps=240, peak_lr=8e-3),
        "240 steps, no stories": lambda seed: _taught(seed, n_steps=240, has_stories=False)},
    control="no training")
