"""Draws which layers of a model each rank of a pipeline has, and the way of a micro-batch.

Notebook 44.
"""

from matplotlib.figure import Figure

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.lessons.figures.flow import Drawing
from llama_from_scratch.parallel.pipeline.layers import layers_of
from llama_from_scratch.parallel.pipeline.stage import ModelPiece, pieces_of

_ACROSS, _DOWN, _CELL = 2.0, 1.35, 1.35
_MOST_RANKS, _MOST_CHUNKS = 4, 4


def on_ranks(config: LlamaConfig, *, n_ranks: int, n_chunks: int = 1) -> Figure:
    """Draws the pieces of a model, a column for each rank and a row for each chunk.

    Raises ValueError for more than 4 ranks or 4 chunks, and for too few layers.

    Example: `pieces.on_ranks(family.config("llama-3.2-1b"), n_ranks=4, n_chunks=2)`
    """
    if not (1 < n_ranks <= _MOST_RANKS and 0 < n_chunks <= _MOST_CHUNKS):
        raise ValueError(f"the drawing has room for 2 to {_MOST_RANKS} ranks with up to "
                         f"{_MOST_CHUNKS} chunks; got {n_ranks} ranks with {n_chunks}")
    counts = [len(layers) for layers in layers_of(config.n_layers, n_ranks * n_chunks)]
    drawing = Drawing(f"{config.n_layers} layers on {n_ranks} ranks")
    nodes = []
    for piece in pieces_of(counts):
        chunk, rank = divmod(piece.number, n_ranks)
        does = "focus" if piece.is_first or piece.is_last else "weights"
        nodes.append(drawing.step(f"piece {piece.number}", (rank * _ACROSS, chunk * _DOWN),
                                  detail=_holds(piece), does=does, width=_CELL))
    for rank in range(n_ranks):
        drawing.frame(f"rank {rank}", nodes[rank::n_ranks])
    for before, after in zip(nodes, nodes[1:], strict=False):
        if before.y == after.y:
            drawing.arrow(before, after)
        else:  # from the last rank to the first, between the rows
            y = (before.bottom[1] + after.top[1]) / 2
            drawing.arrow(before.bottom, (before.x, y), (after.x, y), after.top)
    return drawing.figure(
        f"Each column is a rank. A micro-batch goes through {len(nodes)} pieces, and its gradient "
        "takes the same way back.")


def _holds(piece: ModelPiece) -> str:
    """Returns what a piece has, in up to three lines."""
    first, last = piece.layers.start, piece.layers.stop - 1
    layers = [] if last < first else [
        f"layer {first}" if first == last else f"layers {first} to {last}"]
    return "\n".join([*["embedding"] * piece.is_first, *layers, *["norm, head"] * piece.is_last])
