"""DPO with and without the usual loss on chosen answers, next to fine-tuning on these answers.

Notebook 53.
"""

import dataclasses

from llama_from_scratch.tune import dpo, evals, sft
from llama_from_scratch.tune.dialogs import Dialog
from llama_from_scratch.tune.studies.starts import (
    FORMAT,
    careless_pairs,
    careless_writer,
    described,
)
from llama_from_scratch.tune.studies.study import Measured, Study


def _measured(seed: int, *, method: str, beta: float = 0.1, nll: float = 0.0) -> Measured:
    model, tokenizer = careless_writer(seed)
    before, _ = described(model, tokenizer)
    pairs = careless_pairs(1600, "train", seed=1000 * seed + 20)
    if method == "dpo":
        dpo.fit(model, pairs, tokenizer, beta=beta, nll=nll, format=FORMAT,
                config=dataclasses.replace(dpo.DPO, seed=seed))
    elif method == "sft":
        chosen = [Dialog(messages=(*each.prompt, *each.chosen)) for each in pairs]
        sft.fit(model, chosen, tokenizer, format=FORMAT, config=dataclasses.replace(
            sft.SFT, n_steps=100, batch_size=16, peak_lr=3e-4, n_warmup=10, seed=seed))
    scores, words = described(model, tokenizer)
    return {"score": evals.mean(scores), "wins": evals.win_rate(scores, before),
            "words": evals.mean(words)}


STUDY = Study(
    name="preferring",
    about="What do the usual loss on chosen answers and beta change in DPO?",
    methods={
        "writer": lambda seed: _measured(seed, method="none"),
        "chosen answers only": lambda seed: _measured(seed, method="sft"),
        "DPO": lambda seed: _measured(seed, method="dpo"),
        "DPO + 0.2 NLL": lambda seed: _measured(seed, method="dpo", nll=0.2),
        "beta 0.03": lambda seed: _measured(seed, method="dpo", beta=0.03, nll=0.2),
        "beta 0.5": lambda seed: _measured(seed, method="dpo", beta=0.5, nll=0.2)},
    control="writer")
