"""Draws who holds which slice of each matrix under tensor parallel, and how a block's data flows.

Both are read from a real model that was split in a pretended world: the slices, the shapes and the
collectives are those that a rank would have.

Notebook 43.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure

from llama_from_scratch.config import LlamaConfig, record
from llama_from_scratch.lessons.figures.flow import Drawing, Node
from llama_from_scratch.lessons.figures.look import TINTS
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.model.unwritten import unwritten
from llama_from_scratch.parallel import tensor_parallel
from llama_from_scratch.parallel.fake import pretended
from llama_from_scratch.parallel.placement import Slice

MAX_RANKS = 4
COPIED = "#E4E4E4"
"""The color of what every rank holds."""
ROWS = (("tok_embeddings", "attention.wq", "attention.wk", "attention.wv", "attention.wo"),
        ("feed_forward.w_gate", "feed_forward.w_up", "feed_forward.w_down", "output",
         "attention_norm"))
_D, _SMALLEST, _LARGEST = 1.2, 0.27, 1.56
"""The edge of D channels in inches, and limits for longer and shorter edges."""


def held(config: LlamaConfig, *, n_ranks: int) -> Figure:
    """Draws the matrices of a layer, the embedding, the head and a norm, cut among 2 to 4 ranks.

    A number in a part says which ranks hold it. Raises ValueError for another number of ranks, and
    if the config cannot be split (`parallel.divisible`).

    Example: `slices.held(family.config("llama-3.1-8b"), n_ranks=4)`
    """
    if not 2 <= n_ranks <= MAX_RANKS:
        raise ValueError(f"the drawing has room for 2 to {MAX_RANKS} ranks; got {n_ranks}")
    of_ranks, shapes = _split(config, n_ranks)
    drawing, top = Drawing(f"Which of {n_ranks} ranks holds what"), 0.35
    for names in ROWS:
        sizes = [[_edge(n, config.dim, least=n_ranks) for n in shapes[_full(name)]]
                 for name in names]
        tallest, left = max(size[0] for size in sizes), 0.85
        for name, size in zip(names, sizes, strict=True):
            _matrix(drawing, name, shapes[_full(name)], [mine[_full(name)] for mine in of_ranks],
                    size=(size[0], size[1] if len(size) > 1 else 0.0),
                    at=(left, top + tallest / 2))
            left += 1.72
        top += tallest + 0.95
    drawing.key({"every rank": COPIED} | {f"rank {rank}": TINTS[rank] for rank in range(n_ranks)},
                (0.1, top - 0.35))
    return drawing.figure(
        "The rows of a matrix are its outputs. What reads the stream is cut by rows, and what "
        "writes to it by columns. Embedding and head are cut by rows of the vocabulary. A number "
        "is a rank; the sides are not to scale.")


def _split(
    config: LlamaConfig, n_ranks: int
) -> tuple[list[dict[str, Slice]], dict[str, tuple[int, ...]]]:
    """Returns the slices of each rank, and the whole shapes, in a model of one layer."""
    small = dataclasses.replace(config, layers=config.layers[:1], is_tied=False)
    found = []
    for rank in range(n_ranks):
        with pretended(size=n_ranks, rank=rank) as world:
            model = unwritten(small)
            shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
            found.append(tensor_parallel.split(model, world).slices)
    return found, shapes


def _full(name: str) -> str:
    return f"{name}.weight" if name in ("tok_embeddings", "output") else f"layers.0.{name}.weight"


def _edge(n: int, dim: int, *, least: int) -> float:
    """Returns how long an edge of n channels is drawn, with room for `least` parts."""
    return max(min(_D * (n / dim) ** 0.4, _LARGEST), _SMALLEST * least)


def _matrix(
    drawing: Drawing, name: str, shape: tuple[int, ...], mine: Sequence[Slice], *,
    size: tuple[float, float], at: tuple[float, float],
) -> None:
    (height, width), (x, y), first = size, at, mine[0]
    width = width or 0.4
    holders: dict[int, list[int]] = {}
    for rank, its in enumerate(mine):
        holders.setdefault(its.part, []).append(rank)
    for part, ranks in holders.items():
        is_whole = first.n_parts == 1
        share = 1.0 if is_whole else 1 / first.n_parts
        shift = (part + 0.5) * share - 0.5
        drawing.cell(
            ", ".join(map(str, ranks)) if not is_whole else "all",
            (x + width * shift, y) if first.axis == 1 else (x, y + height * shift),
            color=COPIED if is_whole else TINTS[ranks[0]],
            width=width * share if first.axis == 1 else width,
            height=height if first.axis == 1 else height * share)
    drawing.note(name.split(".")[-1], (x, y - height / 2 - 0.16), align="center")
    drawing.note(" × ".join(f"{n:,}" for n in shape), (x, y + height / 2 + 0.17), align="center")


# --- a block --------------------------------------------------------------------------------------


@record
class BlockRun:
    """What one of two ranks does in a block.

    `forward`, `backward`: the collectives by what they are about, such as "attention output".
    `stream`, `whole`: the shapes between the blocks and inside of them.
    """

    forward: Mapping[str, str]
    backward: Mapping[str, str]
    stream: tuple[int, ...]
    whole: tuple[int, ...]
    n_heads: int
    n_channels: int


def block_run(
    config: LlamaConfig, *, is_sequence_parallel: bool, n_tokens: int = 8
) -> BlockRun:
    """Returns what a rank of two does in the first block, forward and backward."""
    small = dataclasses.replace(config, layers=config.layers[:1])
    with pretended(size=2) as world:
        model: Llama = unwritten(small).to("meta")
        tensor_parallel.split(model, world, is_sequence_parallel=is_sequence_parallel)
        block, shapes = model.layers[0], {}
        for name, part in (("stream", block.attention_norm), ("whole", block.attention.wq)):
            part.register_forward_pre_hook(
                lambda _, args, name=name: shapes.update({name: tuple(args[0].shape)}))
        x = torch.empty(1, n_tokens, config.dim, device="meta", requires_grad=True)
        y, n_forward = model.run(x, model.prepare(x)), len(world.log.calls)
        y.sum().backward()
        forward, backward = ({call.note.removeprefix("gradient of "): call.op.replace("_", "-")
                              for call in calls if "stream" not in call.note}
                             for calls in (world.log.calls[:n_forward],
                                           world.log.calls[n_forward:]))
    return BlockRun(forward=forward, backward=backward, **shapes,
                    n_heads=block.attention.wq.out_features // config.head_dim,
                    n_channels=block.feed_forward.w_up.out_features)


def block(
    config: LlamaConfig, *, is_sequence_parallel: bool = False, n_tokens: int = 8
) -> Figure:
    """Draws a block on two ranks: what each computes, and what is sent, forward and backward.

    Example: `slices.block(family.tiny("llama-3.1"), is_sequence_parallel=True)`
    """
    run = block_run(config, is_sequence_parallel=is_sequence_parallel, n_tokens=n_tokens)
    title = "A block on two ranks" + (", sequence parallel" if is_sequence_parallel else "")
    drawing, xs, y = Drawing(title), (1.75, 4.95), 0.4
    heads, channels = f"{run.n_heads} of {config.n_heads} heads", (
        f"{run.n_channels:,} of {config.ffn_dim:,} channels")
    above = [drawing.tensor("x", (x, y), shape=dict(zip("BTD", run.stream, strict=True)))
             for x in xs]
    for rank, x in enumerate(xs):
        drawing.note(f"rank {rank}", (x - 1.5, y))
    shape = " × ".join(f"{n:,}" for n in run.whole)
    for name, detail, about in (
            ("attention_norm", "the same on both ranks" if run.stream == run.whole
             else "of this rank's tokens", "attention input"),
            ("wq, wk, wv, attention, wo", f"{heads}; {shape}:\na part of a sum",
             "attention output"),
            ("+ x, ffn_norm", "the same on both ranks" if run.stream == run.whole
             else "of this rank's tokens", "feed-forward input"),
            ("w_gate, w_up, w_down", f"{channels}; {shape}:\na part of a sum",
             "feed-forward output")):
        does = "focus" if "part" in detail else "weights"
        y += 1.02 if above[0].kind == "tensor" else 0.86
        steps = [drawing.step(name, (x, y), detail=detail, does=does) for x in xs]
        _join(drawing, above, steps)
        y += 0.86
        ops = [kind.get(about, "nothing to send") for kind in (run.forward, run.backward)]
        above = [drawing.step(ops[0], (sum(xs) / 2, y), does="memory", width=xs[1] - xs[0] + 2.7)]
        drawing.note(f"backward:\n{ops[1]}", (xs[1] + 1.65, y))
        _join(drawing, steps, above)
    y += 0.86
    last = [drawing.tensor("+ x", (x, y), shape=dict(zip("BTD", run.stream, strict=True)))
            for x in xs]
    _join(drawing, above, last)
    n = len(run.forward)
    return drawing.figure(
        f"From top to bottom, a block forward; a wide bar is what the ranks send. There are {n} "
        f"collectives forward and {len(run.backward)} backward.")


def _join(drawing: Drawing, above: Sequence[Node], below: Sequence[Node]) -> None:
    for column in range(2):
        upper, lower = above[column % len(above)], below[column % len(below)]
        x = (upper if len(above) == 2 else lower).x
        drawing.arrow((x, upper.bottom[1]), (x, lower.top[1]))
