"""Shows what data parallel costs by model, ranks and bucket size, next to a real run's log.

Used by chapter 41.
"""

import functools
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.lessons.figures.look import BLUE, GREEN, ORANGE, RED, SKY
from llama_from_scratch.lessons.views.collectives import duration
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore
from llama_from_scratch.model.unwritten import unwritten
from llama_from_scratch.parallel import costs, ways
from llama_from_scratch.parallel.comm_log import Call, CommLog, Span
from llama_from_scratch.parallel.data_parallel import grouped
from llama_from_scratch.parallel.mesh import Mesh

RANKS = {f"{n:,}": n for n in (2, 4, 8, 64, 1024, 16_384)}
BUCKETS = {"one gradient": 0, "100 KB": 100_000, "25 MB": 25 * 2**20, "400 MB": 400 * 2**20,
           "all at once": 10**15}
N_TOKENS, FLOPS_PER_S = 8192, 4e14
"""What a rank computes in one step, and how fast: a GPU such as Llama 3's, on one sequence."""
NETWORK = {"latency_s": 2e-6, "bytes_per_s": 5e10}
"""Two microseconds, and one cable of 400 Gb/s."""
Runs = Mapping[tuple[int, int], CommLog]


def data_parallel_costs(
    models: Mapping[str, LlamaConfig], *, runs: Runs, measured: str,
    start: Mapping[str, Any] | None = None,
) -> Explorer:
    """Returns a widget with model, ranks and bucket size, which shows time, bytes and memory.

    `runs`: by (ranks, bucket size), the log of rank 0 in a real step of the model `measured`.
    `start`: other first values, such as {"n_ranks": 1024}.
    """
    return explore(
        functools.partial(data_parallel_frame, models, runs=runs, measured=measured),
        title="Data parallel: time, bytes and memory",
        controls={"model": {name: name for name in models}, "n_ranks": RANKS,
                  "bucket_bytes": BUCKETS},
        labels={"model": "model", "n_ranks": "ranks", "bucket_bytes": "a bucket has at least"},
        start={"model": measured, "n_ranks": 4, "bucket_bytes": 100_000} | dict(start or {}))


def data_parallel_frame(
    models: Mapping[str, LlamaConfig], *, model: str, n_ranks: int, bucket_bytes: int, runs: Runs,
    measured: str,
) -> Figure:
    """Draws one step on GPUs by the formulas, a real step if there is one, and the memory."""
    config = models[model]
    log = calculated(config, n_ranks=n_ranks, bucket_bytes=bucket_bytes)
    plan = costs.Plan(config=config, mesh=Mesh(dp=n_ranks))
    fig, axes = plt.subplot_mosaic([["gpu", "gpu"], ["real", "memory"]], figsize=(9, 4.6),
                                   width_ratios=(1.5, 1))
    _draw_lanes(axes["gpu"], log, title=f"Calculated: {model} on {n_ranks:,} GPUs")
    run = runs.get((n_ranks, bucket_bytes)) if model == measured else None
    if run is None:
        axes["real"].axis("off")
        axes["real"].text(0.5, 0.5, "no real run of this choice", ha="center", va="center",
                          transform=axes["real"].transAxes)
    else:
        _draw_lanes(axes["real"], run, title="Measured: rank 0 on this CPU")
    held = {what: n for what, n in costs.memory_bytes(plan).items() if n}
    unit, scale = ("GB", 1e9) if sum(held.values()) >= 1e9 else ("MB", 1e6)
    bars = axes["memory"].barh(list(held), [n / scale for n in held.values()],
                               color=[BLUE, ORANGE, GREEN])
    axes["memory"].bar_label(bars, fmt="{:,.3g}", padding=3, fontsize=11)
    axes["memory"].set(title=f"{unit} on every rank")
    axes["memory"].set_xlim(0, 1.3 * max(held.values()) / scale)
    axes["memory"].locator_params(axis="x", nbins=3)
    axes["memory"].invert_yaxis()
    sent = float(sum(costs.sent_bytes(plan).values()))
    exposed_s = log.calls[-1].ended_s - log.spans[-1].ended_s
    told = (f"{model} on {n_ranks:,} ranks: {len(log.calls)} "
            f"{'bucket' if len(log.calls) == 1 else 'buckets'}, and each rank sends {_size(sent)}"
            f" in a step. On GPUs it would wait {duration(exposed_s)} after backward.")
    if run is not None:
        told += (f" The real run: {len(run.calls)} all-reduces, "
                 f"{_size(float(run.sent_bytes('all_reduce')))} sent.")
    fig.set_label(told)
    return fig


def calculated(config: LlamaConfig, *, n_ranks: int, bucket_bytes: int) -> CommLog:
    """Returns the log that a step on GPUs would have: backward, and the all-reduces below it.

    A gradient is there when the products of its parameter are done, which cost four operations per
    weight and token; an all-reduce waits for its bucket and for the one before it.
    """
    log, now_s, sent_s = CommLog(), 0.0, 0.0
    ready: list[tuple[str, int, float]] = []
    for name, names, n_bytes, n_multiplied in _sizes(config, bucket_bytes):
        began_s, now_s = now_s, now_s + 4 * n_multiplied * N_TOKENS / FLOPS_PER_S
        log.spans.append(Span(name=name, began_s=began_s, ended_s=now_s))
        ready.append((names, n_bytes, now_s))
    for names, n_bytes, ready_s in ready:
        began_s = max(ready_s, sent_s)
        sent_s = began_s + ways.all_reduce("ring", n_ranks, n_bytes=n_bytes).seconds(**NETWORK)
        log.calls.append(Call(op="all_reduce", group="data", size=n_ranks, n_bytes=n_bytes,
                              note=names, began_s=began_s, waited_s=min(max(now_s, began_s),
                                                                        sent_s), ended_s=sent_s))
    return log


@functools.lru_cache(maxsize=16)
def _sizes(config: LlamaConfig, bucket_bytes: int) -> list[tuple[str, str, int, int]]:
    """Returns for each bucket a name, its parameters, its bytes, and its weights that multiply."""
    found = []
    for named in grouped(dict(unwritten(config).named_parameters()), n_bytes=bucket_bytes):
        n_bytes = sum(p.numel() for p in named.values()) * torch.float32.itemsize
        n_multiplied = sum(p.numel() for name, p in named.items()
                           if config.is_tied or not name.startswith("tok_embeddings"))
        found.append((f"backward of {next(iter(named))}", ", ".join(named), n_bytes, n_multiplied))
    return found


def _draw_lanes(ax: Axes, log: CommLog, *, title: str) -> None:
    """Draws what the rank computes, what it sends, and where it waits."""
    first_s = min(each.began_s for each in (*log.spans, *log.calls))
    for row, (events, color) in enumerate(((log.spans, SKY), (log.calls, ORANGE))):
        ax.broken_barh([(1e3 * (e.began_s - first_s), 1e3 * (e.ended_s - e.began_s))
                        for e in events], (row - 0.4, 0.8), facecolor=color, edgecolor="0.35",
                       linewidth=0.5)
    ax.broken_barh([(1e3 * (call.waited_s - first_s), 1e3 * call.exposed_s)
                    for call in log.calls], (-0.4, 0.8), facecolor="none", edgecolor=RED,
                   hatch="////", linewidth=0)
    ax.set_yticks([0, 1], ["computes", "sends"])
    ax.set(title=title, xlabel="ms", ylim=(1.6, -0.6))
    ax.locator_params(axis="x", nbins=5)


def _size(n_bytes: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.3g} {unit}"
    return f"{n_bytes:.0f} bytes"
