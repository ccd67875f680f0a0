"""Programs: how much training leaves for tests to choose, and what a model learns from its own.

Notebook 58.
"""

import dataclasses
from collections.abc import Sequence

from llama_from_scratch.generate.sampling import Sampling
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer import Tokenizer
from llama_from_scratch.tokenizer.chat_format import Message
from llama_from_scratch.tune import best_of, code, evals, sft
from llama_from_scratch.tune.best_of import DrawnAnswer
from llama_from_scratch.tune.code import ScoredProgram
from llama_from_scratch.tune.studies.starts import FORMAT, fresh
from llama_from_scratch.tune.studies.study import Measured, Study
from llama_from_scratch.tune.world import functions

_N_TASKS, _N_DRAWN = 96, 16


def _drawn(
    model: Llama, tokenizer: Tokenizer, tasks: Sequence[functions.FunctionTask]
) -> list[list[ScoredProgram]]:
    repeated = [each for each in tasks for _ in range(_N_DRAWN)]
    answers = evals.ask(model, tokenizer, [f" {each.task.prompt()}" for each in repeated], FORMAT,
                        max_tokens=40, batch_size=320, sampling=Sampling(temperature=0.8), seed=5)
    scored = code.score([code.program_in(answer) for answer in answers],
                        [each.task for each in repeated])
    return [scored[i:i + _N_DRAWN] for i in range(0, len(scored), _N_DRAWN)]


def _taught(seed: int, *, n_steps: int, n_own: int | None = None) -> Measured:
    """Trains a coder; with `n_own`, then on the best of that many programs of its own."""
    model, tokenizer = fresh("assistant")
    if n_steps:
        told = functions.function_tasks(32 * n_steps, "train", seed=1000 * seed + 3)
        sft.fit(model, [functions.function_dialog(each) for each in told], tokenizer,
                format=FORMAT, config=dataclasses.replace(
                    sft.SFT, n_steps=n_steps, peak_lr=2e-3, n_warmup=min(20, n_steps // 2),
                    seed=seed))
    if n_own is not None:
        more = functions.function_tasks(320, "train", seed=1000 * seed + 11)

        def n_passed(candidates: Sequence[DrawnAnswer]) -> list[float]:
            results = code.score([code.program_in(each.text) for each in candidates],
                                 [more[each.number].task for each in candidates])
            return [float(sum(each.visible)) for each in results]

        best_of.fit(model, [(Message(role="user", content=f" {each.task.prompt()}"),)
                            for each in more], tokenizer, score=n_passed, n=n_own, format=FORMAT,
                    max_tokens=40, config=dataclasses.replace(
                        sft.SFT, n_steps=40, batch_size=32, n_warmup=5, peak_lr=1e-3, seed=seed))
    groups = _drawn(model, tokenizer, functions.function_tasks(_N_TASKS, "test", seed=9))
    passing = {k: evals.mean(evals.pass_at_k(_N_DRAWN, sum(one.passes for one in group), k)
                             for group in groups) for k in (1, _N_DRAWN)}
    return {"pass@1": passing[1], f"pass@{_N_DRAWN}": passing[_N_DRAWN],
            "chosen by two tests": evals.share(
                group[code.first_passing(group)].passes for group in groups)}


STUDY = Study(
    name="coding",
    about="How often is a program right for unseen pairs of operations, drawn once, drawn often, "
    "or chosen by two tests?",
    methods={
        "no training": lambda seed: _taught(seed, n_steps=0),
        "100 steps": lambda seed: _taught(seed, n_steps=100),
        "150 steps": lambda seed: _taught(seed, n_steps=150),
        "150, then own": lambda seed: _taught(seed, n_steps=150, n_own=1),
        "150, then best of 8": lambda seed: _taught(seed, n_steps=150, n_own=8),
        "400 steps": lambda seed: _taught(seed, n_steps=400)},
    control="no training")
