"""Shows whether a model fits a mesh, what each stage of it then holds, and how long ranks wait.

Used by chapter 47. Source: The Llama 3 herd of models, arXiv:2407.21783, section 3.3.2 (the order
of the axes, interleaved stages, and the bubble (P - 1) / (V M)).
"""

import functools
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from llama_from_scratch import family
from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.lessons.figures import shards as figures
from llama_from_scratch.lessons.figures.look import BLUE
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore
from llama_from_scratch.parallel.fits import refuse_unfit
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.pipeline.layers import layers_of
from llama_from_scratch.parallel.pipeline.plan import PipelinePlan
from llama_from_scratch.parallel.pipeline.stage import TIED
from llama_from_scratch.parallel.sharded_cost import ROOT, STAGES, padded
from llama_from_scratch.parallel.sizes import BLOCK, local_sizes

MODELS = ["llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b"]
SIZES = {axis: {f"{n:,}": n for n in (1, 2, 4, 8, 16, *extra)}
         for axis, extra in dict(tp=(), cp=(), pp=(), dp=(32, 64, 128)).items()}
N_CHUNKS = {f"{n}": n for n in (1, 2, 4, 8)}
N_MICRO = {f"{n}": n for n in (8, 16, 32)}
TOKENS = {f"{n:,}": n for n in (8192, 131_072)}
GPU_BYTES = 80 * 10**9
START = dict(stage=2, model="llama-3.1-405b", tp=8, cp=1, pp=16, dp=128, n_chunks=8, n_micro=16,
             seq_len=8192)


def unit_sizes_of(
    config: LlamaConfig, mesh: Mesh, *, n_chunks: int, pp_rank: int
) -> dict[str, int]:
    """Returns how many parameters a rank has in each unit, after pipeline and tensor parallelism.

    `n_chunks`: the pieces of the model on each rank of the pipeline, of which `pp_rank` is one.
    """
    return _units(config.n_layers, local_sizes(config, mesh), n_chunks=n_chunks, pp_rank=pp_rank,
                  pp=mesh.pp, is_tied=config.is_tied)


def _units(
    n_layers: int, local: Mapping[str, int], *, n_chunks: int, pp_rank: int, pp: int, is_tied: bool
) -> dict[str, int]:
    pieces = layers_of(n_layers, pp * n_chunks)
    own = {i for piece in pieces[pp_rank::pp] for i in piece}
    is_last = pp_rank == pp - 1
    found = {ROOT: 0}
    for name, n in local.items():
        if name.startswith(BLOCK):
            number = int(name.split(".")[1])
            if number in own:
                unit = f"{BLOCK}{number}"
                found[unit] = found.get(unit, 0) + n
        elif (pp_rank == 0 or (is_last and is_tied)) if name == TIED else is_last:
            found[ROOT] += n
    return found


def states(units: Mapping[str, int], *, n_shards: int, stage: int, is_piped: bool
           ) -> dict[str, int]:
    """Returns the bytes of a rank's states, by the words in `figures.shards.PARTS`.

    bf16 weights, and fp32 master weights, gradients and two averages of AdamW, when they take the
    most. `n_shards`: the ranks that hold the same units, among which a stage divides. `is_piped`:
    gradients of all micro-batches are added up before they are divided, as Llama 3 does.
    """
    if stage == 0:
        n = sum(units.values())
        return dict(zip(figures.PARTS, (2 * n, 4 * n, 4 * n, 8 * n, 0), strict=True))
    units = padded(units, n_ranks=n_shards)
    n = sum(units.values())
    n_own = n // n_shards
    largest = max((size for unit, size in units.items() if unit != ROOT), default=0)
    n_near = min(units[ROOT] + 2 * largest, n)
    n_gradients = n if stage == 1 or is_piped else n_near
    return dict(zip(figures.PARTS, (
        2 * n if stage < 3 else 0, 4 * n_own, 4 * (n_own + n_gradients), 8 * n_own,
        2 * n_near if stage == 3 else 0), strict=True))


def four_d_costs(*, start: Mapping[str, Any] | None = None) -> Explorer:
    """Returns a widget: choose a mesh for a model, and see whether and how it fits.

    `start`: other first values, such as {"cp": 16, "dp": 8}.
    """
    return explore(
        four_d_frame, title="A mesh for a model",
        controls={"stage": [*reversed(STAGES)], "model": MODELS, **SIZES, "n_chunks": N_CHUNKS,
                  "n_micro": N_MICRO, "seq_len": TOKENS},
        labels={"stage": "ZeRO stage", "n_chunks": "pieces on a rank (V)",
                "n_micro": "micro-batches (M)", "seq_len": "tokens in a row"},
        start=START | dict(start or {}))


def four_d_frame(
    stage: int, model: str, tp: int, cp: int, pp: int, dp: int, n_chunks: int, n_micro: int,
    seq_len: int,
) -> Figure:
    """Draws the bytes of the states on the first, a middle and the last stage, and the bubble.

    Each micro-batch is one row. Raises ValueError, in the words of `fits.refuse_unfit`, for a mesh
    that does not fit.
    """
    config, mesh = family.config(model), Mesh(tp=tp, cp=cp, pp=pp, dp=dp)
    n_chunks = n_chunks if pp > 1 else 1
    plan = PipelinePlan(schedule="1f1b" if n_chunks == 1 else "interleaved", n_chunks=n_chunks)
    refuse_unfit(config, mesh, batch_size=n_micro * dp, micro_batch_size=1, seq_len=seq_len,
                 pipeline=plan)
    bars, counts = {}, []
    for name, rank in (("first", 0), ("middle", pp // 2), ("last", pp - 1)):
        if rank == 0 or name == "last" or 0 < rank < pp - 1:
            units = _units(config.n_layers, _local(model, tp), n_chunks=n_chunks, pp_rank=rank,
                           pp=pp, is_tied=config.is_tied)
            label = f"{name} stage" if pp > 1 else "each rank"
            if label not in bars:
                counts.append(sum(units.values()))
            bars[label] = states(units, n_shards=cp * dp, stage=stage, is_piped=pp > 1)
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), width_ratios=(1.7, 1))
    entries = figures.stack(left, bars, colors=figures.PARTS, limit=("an H100", GPU_BYTES))
    left.set_title("states on one GPU")
    left.locator_params(axis="x", nbins=5)
    fig.legend(*zip(*entries, strict=True), loc="outside lower center", ncols=3)
    bubbles = {f"V = {v}": float(bubble(pp, n_micro, v)) for v in dict.fromkeys((1, n_chunks))}
    shown = right.barh(list(bubbles), [100 * each for each in bubbles.values()], color=BLUE,
                       height=0.5)
    right.bar_label(shown, fmt="%.3g", padding=3, fontsize=11)
    right.invert_yaxis()
    right.set(xlim=(0, 125 * max(bubbles.values()) or 1), xlabel="% of computing",
              title="waiting: the bubble", ylim=(len(bubbles) - 0.4, -0.6))
    right.locator_params(axis="x", nbins=4)
    sizes = ", ".join(f"{n:,}" for n in counts)
    told = "; ".join(f"{name} {figures.size(sum(parts.values()))}" for name, parts in bars.items())
    fig.set_label(
        f"{model} on {mesh.size:,} GPUs, {n_micro * dp * seq_len:,} tokens in a step. Parameters "
        f"on a GPU: {sizes}. States, before activations: {told}. Ranks wait "
        f"{100 * float(bubble(pp, n_micro, n_chunks)):.3g} % of the time that they compute.")
    return fig


def bubble(n_ranks: int, n_micro_batches: int, n_chunks: int) -> Fraction:
    """Returns the waiting of 1F1B, interleaved or not, relative to computing."""
    return Fraction(n_ranks - 1, n_chunks * n_micro_batches)


@functools.lru_cache
def _local(model: str, tp: int) -> Mapping[str, int]:
    return local_sizes(family.config(model), Mesh(tp=tp))
