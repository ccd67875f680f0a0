"""Shows what bounds decoding: tokens per second by context, and blocks by the number of splits.

Both are counted, not measured: bytes by the speed of memory, and blocks by places. Notebook 35.
Sources of the speeds: data sheets of NVIDIA (H200, H100 SXM, GeForce RTX 4090); two channels of
DDR5-5600 have 89.6 GB/s.
"""

import math
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from llama_from_scratch import family
from llama_from_scratch.config import LlamaConfig, record
from llama_from_scratch.kernels.decode import splits_for
from llama_from_scratch.lessons.figures.look import BLUE, GREEN, ORANGE, RED
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore

MODELS = {"Llama 3.2 1B": "llama-3.2-1b", "Llama 3.1 8B": "llama-3.1-8b",
          "Llama 3.1 70B": "llama-3.1-70b"}
WEIGHTS = {"bf16": 16.0, "int8": 8.0, "int4, groups of 128": 4 + 16 / 128}
"""Bits per weight, with the scales of the groups. A scale per row is less than 0.01 bits."""
READERS = {f"{n}": n for n in (1, 4, 16, 64, 256)}
SPLITS = {f"{n}": n for n in (1, 2, 4, 8, 16, 32, 64, 128)}
CONTEXTS = {f"{n:,}": n for n in (512, 2048, 8192, 32768, 131072)}
N_PROCESSORS, RESIDENT, N_KV_HEADS = 132, 2, 8
_COLORS = (BLUE, ORANGE, GREEN)
_CONTEXT = np.geomspace(512, 131072, 97)


@record
class DataSheet:
    """Where a model is stored, and how fast it is read: data sheets, in bytes."""

    memory_bytes: float
    bytes_per_s: float


MACHINES = {"laptop, 16 GB": DataSheet(memory_bytes=16e9, bytes_per_s=89.6e9),
            "RTX 4090, 24 GB": DataSheet(memory_bytes=24e9, bytes_per_s=1008e9),
            "H100, 80 GB": DataSheet(memory_bytes=80e9, bytes_per_s=3.35e12),
            "H200, 141 GB": DataSheet(memory_bytes=141e9, bytes_per_s=4.8e12)}


@record
class StepBytes:
    """What one decoding step of some readers reads, and what they hold in memory."""

    weights: float | int
    cache: float | int
    held: float | int

    @property
    def read(self) -> float | int:
        return self.weights + self.cache


def step_bytes(
    config: LlamaConfig, *, bits: float | int, context: float | int, n_readers: int,
    cache_bits: int = 16,
) -> StepBytes:
    """Returns the bytes of a step in which every reader has `context` tokens in the cache.

    All matrices but the embedding have `bits` per weight. Of the embedding, which has 16, a step
    reads one row per reader; norms are in bf16 too. A tied output layer is the embedding, and is
    read as a whole. Scales are counted in `bits`.
    """
    counts = config.param_counts
    n_matrices = sum(n for place, n in counts.items() if place not in ("embedding", "norms"))
    row = 2 * config.dim * n_readers
    tied = 0 if counts.get("output") else 2 * counts["embedding"]
    weights = n_matrices * bits / 8 + 2 * counts["norms"] + tied + row
    cache = n_readers * context * config.kv_bytes_per_token(1) * cache_bits / 8
    held = n_matrices * bits / 8 + 2 * (counts["norms"] + counts["embedding"]) + cache
    return StepBytes(weights=weights, cache=cache, held=held)


def decoding_bound(*, start: Mapping[str, Any] | None = None) -> Explorer:
    """Returns a widget with model, machine, readers and cache, which bounds tokens per second.

    `start`: other first values, such as {"n_readers": 16}.
    """
    return explore(
        decoding_bound_frame, title="Tokens per second, at most",
        controls={"model": MODELS, "machine": list(MACHINES), "n_readers": READERS,
                  "is_cache_int8": False},
        labels={"model": "model", "machine": "machine", "n_readers": "readers at a time",
                "is_cache_int8": "cache in 8 bits"},
        start={"model": "llama-3.1-8b", "machine": "H200, 141 GB"} | dict(start or {}))


def decoding_bound_frame(
    model: str, machine: str, n_readers: int, is_cache_int8: bool
) -> Figure:
    """Draws the most tokens per second for each reader against the context, per kind of weights.

    A line ends where weights and cache do not fit into the machine's memory.
    """
    config, where = family.config(model), MACHINES[machine]
    fig, ax = plt.subplots(figsize=(7.5, 3.8))
    told = []
    for (name, bits), color in zip(WEIGHTS.items(), _COLORS, strict=True):
        steps = [step_bytes(config, bits=bits, context=context, n_readers=n_readers,
                            cache_bits=8 if is_cache_int8 else 16) for context in _CONTEXT]
        rates = np.array([where.bytes_per_s / step.read for step in steps])
        fits = np.array([step.held <= where.memory_bytes for step in steps])
        if not fits.any():
            ax.plot([], [], color=color, label=f"{name}: does not fit")
            told.append(f"{name} does not fit")
            continue
        ax.plot(_CONTEXT[fits], rates[fits], color=color, label=name)
        longest = _CONTEXT[fits][-1]
        if not fits.all():
            ax.plot(longest, rates[fits][-1], "X", color=color, markersize=10)
        told.append(f"{name} {rates[0]:,.0f} at {_CONTEXT[0]:.0f} tokens and "
                    f"{rates[fits][-1]:,.0f} at {longest:,.0f}"
                    + ("" if fits.all() else ", the longest that fits"))
    ax.set(xscale="log", xlim=(450, 150000), xlabel="tokens in the cache, for each reader",
           ylabel="tokens/s for each reader", xticks=list(CONTEXTS.values()),
           xticklabels=list(CONTEXTS), title="Tokens per second, at most (×: memory is full)")
    ax.xaxis.minorticks_off()
    top = ax.get_ylim()[1]
    ax.set_ylim(0, 1.45 * max(top, 0.05))
    ax.legend(loc="upper right", ncols=3)
    fig.set_label(f"{n_readers} reader{'s' * (n_readers > 1)}. Tokens per second for each, at "
                  f"most: {'; '.join(told)}.")
    return fig


def decoding_splits(*, start: Mapping[str, Any] | None = None) -> Explorer:
    """Returns a widget with texts, context and splits, which shows the places that are in use.

    `start`: other first values, such as {"n_splits": 16}.
    """
    return explore(
        decoding_splits_frame, title="Keys split among the processors of a GPU",
        controls={"n_texts": READERS, "context": CONTEXTS, "n_splits": SPLITS},
        labels={"n_texts": "texts at a time", "context": "tokens in the cache",
                "n_splits": "splits"},
        start={"context": 8192} | dict(start or {}))


def decoding_splits_frame(n_texts: int, context: int, n_splits: int) -> Figure:
    """Draws which of a GPU's places have a block, and the share that works for every split.

    The GPU has 132 processors with two places each, and a block per text, key/value head and split.
    The dashed line is what the library takes.
    """
    n_places, n_blocks = N_PROCESSORS * RESIDENT, n_texts * N_KV_HEADS
    taken = splits_for(n_blocks=n_blocks, n_keys=context, n_places=n_places)
    busy, waves = share_of_places(n_blocks * n_splits, n_places=n_places)
    last = n_blocks * n_splits - (waves - 1) * n_places
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.6), width_ratios=(1, 1.5))
    cells = np.zeros(n_places)
    cells[:last] = 1
    left.imshow(cells.reshape(22, 12), cmap=plt.matplotlib.colors.ListedColormap(["#DDDDDD", BLUE]),
                vmin=0, vmax=1, aspect="auto")
    left.set(xticks=[], yticks=[], title=f"Wave {waves} of {waves}",
             xlabel=f"{last} of {n_places} places\nhave a block")
    counts = range(1, 129)
    shares = [share_of_places(n_blocks * n, n_places=n_places)[0] for n in counts]
    right.plot(counts, np.multiply(100, shares), color=BLUE, linewidth=1.4)
    right.plot(n_splits, 100 * busy, "o", color=ORANGE, markersize=10)
    right.axvline(taken, color=RED, linestyle="--", label=f"the library: {taken}")
    right.set(xlabel="splits of each text", ylabel="places with a block (%)", ylim=(0, 128),
              yticks=[0, 25, 50, 75, 100], title="In all waves together")
    right.legend(loc="upper right")
    each = math.ceil(context / n_splits)
    fig.set_label(
        f"{n_blocks * n_splits:,} blocks of {each:,} keys for {n_places} places: {waves} "
        f"wave{'s' * (waves > 1)}, {busy:.0%} of the places have a block. The library takes "
        f"{taken} split{'s' * (taken > 1)}.")
    return fig


def share_of_places(n_blocks: int, *, n_places: int) -> tuple[float, int]:
    """Returns which share of the places has a block, over all waves, and the number of waves."""
    waves = -(-n_blocks // n_places)
    return n_blocks / (waves * n_places), waves
