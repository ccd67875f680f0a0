"""Draws what logits cost: memory over time, and how often a row of them crosses the memory bus.

Notebook 34.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.lessons.figures.flow import MAX_WIDTH, Drawing
from llama_from_scratch.lessons.figures.look import BLACK, BLUE, GREEN, ORANGE, PINK
from llama_from_scratch.lessons.figures.shards import size

_COLORS = (ORANGE, BLUE, GREEN, PINK)


class MemoryAfter(NamedTuple):
    """An operation, and the bytes of all tensors that exist after it and were made since the start.
    """

    operation: str
    n_bytes: int


def record(run: Callable[[], object]) -> list[MemoryAfter]:
    """Returns the memory after each operation of `run`, also of its backward passes.

    Tensors of the device "meta" have sizes and no memory, so the largest model can be recorded.
    What `run` returns exists until the end. Views take no memory of their own.
    """
    recorder = _Recorder()
    with recorder:
        kept = run()
    del kept
    return recorder.moments


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.moments: list[MemoryAfter] = []
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        out = op(*args, **(kwargs or {}))
        given = {x.untyped_storage()._cdata for x in _tensors((args, kwargs))}
        for x in _tensors(out):
            storage = x.untyped_storage()
            if storage._cdata not in given:
                self._live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._live = {key: each for key, each in self._live.items() if not each[0].expired()}
        n_bytes = sum(n_bytes for _, n_bytes in self._live.values())
        self.moments.append(MemoryAfter(op.overloadpacket.__name__.strip("_"), n_bytes))
        return out


def _tensors(tree: object) -> list[Tensor]:
    return [each for each in tree_leaves(tree) if isinstance(each, Tensor)]


def peak(moments: Sequence[MemoryAfter]) -> int:
    """Returns the most bytes that existed at one time."""
    return max(moment.n_bytes for moment in moments)


def over_time(
    runs: Mapping[str, Sequence[MemoryAfter]], *, limit: tuple[str, int] | None = None
) -> Figure:
    """Draws the memory of each run from its first operation to its last.

    `runs`: by name, what `record` returned. The runs have different numbers of operations, so time
    goes from 0 to 1. `limit`: words and bytes of a line. Raises ValueError for more runs than there
    are colors.

    Example: `logits.over_time({"plain": logits.record(plain), "in chunks": logits.record(chunks)})`
    """
    if not 1 <= len(runs) <= len(_COLORS):
        raise ValueError(f"this picture has colors for 1 to {len(_COLORS)} runs; got {len(runs)}")
    fig, ax = plt.subplots(figsize=(MAX_WIDTH * 0.9, 3.4))
    peaks = {name: peak(moments) for name, moments in runs.items()}
    for (name, moments), color in zip(runs.items(), _COLORS, strict=False):
        times = torch.linspace(0, 1, len(moments) + 1)[1:].tolist()
        gigabytes = [moment.n_bytes / 1e9 for moment in moments]
        ax.step([0.0, *times], [0.0, *gigabytes], where="pre", color=color,
                label=f"{name}: at most {size(peaks[name])}")
        ax.fill_between([0.0, *times], [0.0, *gigabytes], step="pre", color=color, alpha=0.25)
    if limit:
        ax.axhline(limit[1] / 1e9, color=BLACK, linestyle="--", label=limit[0])
    highest = max([*peaks.values(), *([limit[1]] if limit else [])]) / 1e9
    ax.set(xlabel="share of the operations that are done", ylabel="GB", xlim=(0, 1),
           ylim=(0, 1.35 * highest), title="Memory of the loss and its gradients, over time")
    ax.legend(loc="upper right")
    fig.set_label("The most memory at one time: " + "; ".join(
        f"{name} {size(n_bytes)}" for name, n_bytes in peaks.items()) + ".")
    return fig


def passes(config: LlamaConfig, *, dtype: torch.dtype = torch.bfloat16) -> Figure:
    """Draws how a row of this model's logits becomes its gradient, in three ways.

    Example: `logits.passes(family.config("llama-3.1-8b"))`
    """
    n_bytes = config.vocab_size * dtype.itemsize
    drawing, row = Drawing("A row of logits becomes its gradient"), size(n_bytes)
    ways = (("three passes", ("largest", "sum", "gradient"), False),
            ("two passes", ("largest and sum", "gradient"), False),
            ("two passes, the second from the cache", ("largest and sum", "gradient"), True))
    n_moved = []
    for i, (name, steps, is_cached) in enumerate(ways):
        y = 0.15 + 1.85 * i
        n_moved.append(len(steps) + 1 - is_cached)
        drawing.note(f"{name}: {n_moved[-1]} × {row} through memory", (0.0, y - 0.3))
        drawing.cell("memory", (3.9, y), width=7.8, color="#ECECEC")
        for j, step in enumerate(steps):
            x = 3.9 + (j - (len(steps) - 1) / 2) * 2.6
            is_last = j == len(steps) - 1
            made = drawing.step(step, (x, y + 1.1), does="focus" if is_last else "plain")
            from_cache = is_cached and is_last
            source = (drawing.cell("L2 cache", (x - 0.35, y + 0.5), color="#D8ECD8").bottom[1]
                      if from_cache else y + 0.14)
            drawing.arrow((x - 0.35, source), (x - 0.35, made.top[1]), is_left=True, label=row)
            if is_last:
                drawing.arrow((x + 0.3, made.top[1]), (x + 0.3, y + 0.14), label=row)
    return drawing.figure(
        f"A row of {config.vocab_size:,} logits takes {row}. It crosses to or from memory "
        f"{n_moved[0]}, {n_moved[1]} or {n_moved[2]} times until it is a gradient.")
