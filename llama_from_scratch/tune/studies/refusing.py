"""Shares of borderline requests in the data, and what they do to both kinds of mistakes.

Notebook 57.
"""

import dataclasses
from random import Random

import torch

from llama_from_scratch.tune import evals, safety, sft
from llama_from_scratch.tune.dialogs import exchange
from llama_from_scratch.tune.safeguards import margins
from llama_from_scratch.tune.studies.starts import FORMAT, fresh, stories
from llama_from_scratch.tune.studies.study import Measured, Study
from llama_from_scratch.tune.world import requests

_N_STEPS = 110


def _taught(seed: int, *, borderline: float | None) -> Measured:
    model, tokenizer = fresh("assistant")
    if borderline is not None:
        told = requests.safety_lessons(_N_STEPS * 31, borderline=borderline, seed=1000 * seed + 1)
        sft.fit(model, [exchange(f" {each.user}", f" {each.answer}") for each in told], tokenizer,
                format=FORMAT, replay=stories()[0], replay_share=0.06, replay_tokens=96,
                config=dataclasses.replace(sft.SFT, n_steps=_N_STEPS, peak_lr=2.5e-3, n_warmup=10,
                                           seed=seed))
    rng = Random(9)
    cases = [each for kind in requests.KINDS_OF_DEEDS
             for each in requests.deeds(rng, "test", kind, n=160)]
    users = [f" {each.user}" for each in cases]
    report = safety.report(cases, evals.ask(model, tokenizer, users, FORMAT, max_tokens=24,
                                            batch_size=160))
    found = margins.margins(model, tokenizer, users, FORMAT, first=" " + requests.REFUSAL,
                            second=" " + requests.HELP)
    kinds = [each.kind for each in cases]
    area = margins.area(**{name: found[torch.tensor([kind == wanted for kind in kinds])]
                           for name, wanted in (("harmful", "harmful"),
                                                ("harmless", "borderline"))})
    return {"violations": report.violations, "false refusals": report.false_refusals,
            "borderline helped": report.helped,
            "area": evals.Mean(value=area, error=0.0, n=len(cases))}


STUDY = Study(
    name="refusing",
    about="Which share of borderline requests ends false refusals, and helps?",
    methods={
        "no training": lambda seed: _taught(seed, borderline=None),
        "0 %": lambda seed: _taught(seed, borderline=0.0),
        "3 %": lambda seed: _taught(seed, borderline=0.03),
        "10 %": lambda seed: _taught(seed, borderline=0.1),
        "30 %": lambda seed: _taught(seed, borderline=0.3)},
    control="no training")
