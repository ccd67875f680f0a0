"""Shows what each stage of sharding costs, for a published model on any number of ranks.

Used by chapter 42.
"""

import functools
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from llama_from_scratch import family
from llama_from_scratch.lessons.figures import shards as figures
from llama_from_scratch.lessons.figures.look import GREEN, ORANGE, SKY
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore
from llama_from_scratch.parallel.sharded_cost import STAGES, Held, held, sent, unit_sizes

MODELS = ["llama-3.2-1b", "llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b"]
RANKS = {f"{2**i:,}": 2**i for i in range(1, 15)}
PRECISIONS = {"bf16, fp32 master": True, "fp32": False}
GPUS = {f"{gb} GB{name}": gb * 10**9 for gb, name in ((24, ""), (80, " (H100)"), (141, " (H200)"))}
OPERATIONS = {"all-reduce": ORANGE, "all-gather": SKY, "reduce-scatter": GREEN}


def sharding(*, start: Mapping[str, Any] | None = None) -> Explorer:
    """Returns a widget: memory and bytes sent per stage, by model, ranks, precision, micro-batches.

    `start`: other first values, such as {"n_ranks": 1024}.
    """
    return explore(
        sharding_frame, title="What each stage keeps and sends",
        controls={"model": MODELS, "n_ranks": RANKS, "is_bf16": PRECISIONS, "n_micro": (1, 16),
                  "gpu_bytes": GPUS},
        labels={"model": "model", "n_ranks": "ranks", "is_bf16": "computes in",
                "n_micro": "micro-batches", "gpu_bytes": "memory of a GPU"},
        start={"model": "llama-3.1-8b", "n_ranks": 8, "is_bf16": True, "n_micro": 1,
               "gpu_bytes": 80 * 10**9} | dict(start or {}))


def sharding_frame(
    model: str, n_ranks: int, is_bf16: bool, n_micro: int, gpu_bytes: int
) -> Figure:
    """Draws what a rank holds with AdamW (left), and what it sends in one step (right)."""
    sizes = _sizes(model)
    options = dict(n_ranks=n_ranks, is_bf16=is_bf16)
    kept = {name_of(stage): held(sizes, stage=stage, **options) for stage in STAGES}
    moved = {name_of(stage): sent(sizes, stage=stage, n_micro=n_micro, **options)
             for stage in STAGES}
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.9), width_ratios=(1.15, 1))
    entries = figures.stack(left, {name: parts_of(found) for name, found in kept.items()},
                            colors=figures.PARTS, limit=("the GPU's memory", gpu_bytes))
    entries += figures.stack(right, {name: {op.replace("_", "-"): n for op, n in found.items()}
                                     for name, found in moved.items()}, colors=OPERATIONS)
    left.set_title("held on each rank")
    right.set_title("sent by each rank per step")
    for ax in (left, right):
        ax.locator_params(axis="x", nbins=4)
    fig.legend(*zip(*entries, strict=True), loc="outside lower center", ncols=3)
    fits = [name for name, found in kept.items() if found.total <= gpu_bytes]
    told = "; ".join(f"{name} {figures.size(found.total)}" for name, found in kept.items())
    fig.set_label(f"{model} on {n_ranks:,} ranks, before activations: {told}. "
                  f"It fits with {', '.join(fits) or 'none of them'}.")
    return fig


def name_of(stage: int) -> str:
    """Returns how a stage is called; stage 0 is data parallel."""
    return f"stage {stage}" if stage else "copies"


def parts_of(found: Held) -> dict[str, int]:
    """Returns the parts of a rank's memory, by the words in `figures.shards.PARTS`."""
    values = (found.weights, found.master, found.gradients, found.averages, found.gathered)
    return dict(zip(figures.PARTS, values, strict=True))


@functools.lru_cache
def _sizes(model: str) -> Mapping[str, int]:
    return unit_sizes(family.config(model))
