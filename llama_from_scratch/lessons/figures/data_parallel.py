"""Draws data parallel training: who reads which rows, and which gradients travel together.

Notebook 41.
"""

from collections.abc import Sequence

from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.flow import Drawing
from llama_from_scratch.lessons.figures.look import TINTS
from llama_from_scratch.parallel.data_parallel import DataParallel
from llama_from_scratch.train.data import Batch

_LANE, _STRIP, _LEFT = 0.72, 6.6, 1.75
_MIN_CELL = 0.05


def replicas(shares: Sequence[Batch], *, n_params: int) -> Figure:
    """Draws one step: the rows of each rank, its copy of the model, and the sum of the gradients.

    `shares`: each rank's rows of one batch. Raises ValueError for more than 8 ranks.

    Example: `data_parallel.replicas([batch.split(2)[rank] for rank in range(4)], n_params=1000)`
    """
    if len(shares) > 8:
        raise ValueError(f"the drawing has room for 8 ranks; got {len(shares)}")
    drawing = Drawing("One step: other rows, the same model, one sum")
    middle = 0.35 + _LANE * (len(shares) - 1) / 2
    total = drawing.step("add up", (6.15, middle), detail="all-reduce", does="focus")
    n_all, first = sum(share.n_targets for share in shares), 0
    for rank, share in enumerate(shares):
        y, last = 0.35 + _LANE * rank, first + len(share.ids) - 1
        drawing.note(f"rank {rank}", (0.0, y))
        rows = drawing.cell(f"rows {first} to {last}\n{share.n_targets} targets", (1.2, y),
                            color=TINTS[rank % len(TINTS)], width=1.1)
        model = drawing.step("whole model", (2.85, y), detail=f"{n_params:,}", does="weights")
        grad = drawing.cell(f"gradient of\n{share.n_targets} / {n_all}", (4.55, y),
                            color=TINTS[rank % len(TINTS)], width=1.0)
        step = drawing.step("the same step", (7.85, y))
        drawing.arrow(rows, model)
        drawing.arrow(model, grad)
        drawing.arrow(grad.right, total)
        drawing.arrow(total, step.left)
        first = last + 1
    return drawing.figure(
        f"{len(shares)} ranks read other rows and compute with the same {n_params:,} weights. "
        f"Their gradients are parts of one sum over {n_all:,} targets, and all get the sum.")


def buckets(strategy: DataParallel) -> Figure:
    """Draws the buckets in the order in which they are sent, each with its parameters, to scale.

    Raises ValueError for more than 12 buckets.

    Example: `data_parallel.buckets(DataParallel(model, world, bucket_bytes=100_000))`
    """
    if len(strategy.buckets) > 12:
        raise ValueError(f"the drawing has room for 12 buckets; got {len(strategy.buckets)}. "
                         "Choose a larger bucket_bytes")
    names = {p: name for name, p in strategy.params.items()}
    largest = max(bucket.flat.nbytes for bucket in strategy.buckets)
    drawing = Drawing("The last parameters are sent first")
    for number, bucket in enumerate(strategy.buckets):
        y, x = 0.25 + 0.66 * number, _LEFT
        drawing.note(f"{number + 1}. {bucket.flat.nbytes / 1000:,.0f} KB", (0.0, y))
        for place, view in enumerate(bucket.views.values()):
            width = max(_STRIP * view.nbytes / largest, _MIN_CELL)
            drawing.cell("", (x + width / 2, y), width=width, height=0.24,
                         color=TINTS[place % len(TINTS)])
            x += width
        shown = [names[p] for p in bucket.views]
        words = shown[0] if len(shown) == 1 else f"{len(shown)}: {shown[0]} to {shown[-1]}"
        drawing.note(words, (_LEFT, y + 0.3))
    return drawing.figure(
        f"{len(strategy.buckets)} buckets, from the first sent to the last. A cell is the "
        "gradient of one parameter; its width is its size.")
