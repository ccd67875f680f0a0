"""Schedules as data: for each stage of a pipeline, the order of its passes.

A batch is divided into M micro-batches, and a model of S = P V pieces among P ranks: rank r has the
pieces r, P + r, 2 P + r, ..., its chunks 0 to V - 1. Each micro-batch goes through all pieces
forward (F) and then backward (B). A backward pass may be divided: B then computes the gradient that
the piece before needs, and W, at any later time, the gradients of the weights.

Notebook 44.
"""

import functools

from llama_from_scratch.config import record

FORWARD, BACKWARD, WEIGHTS = "F", "B", "W"


@record
class Op:
    """One pass of a micro-batch through one chunk of a rank: its `kind` is F, B or W."""

    kind: str
    micro_batch: int
    chunk: int = 0

    def __str__(self) -> str:
        return f"{self.kind}{self.micro_batch}" + (f".{self.chunk}" if self.chunk else "")


@record
class Schedule:
    """What each rank of a pipeline does, in its order. `ops[r]` is rank r's list.

    `n_ranks`: P, the ranks of the pipeline. `n_chunks`: V, the pieces of the model on each.
    """

    name: str
    n_ranks: int
    n_chunks: int
    n_micro_batches: int
    ops: tuple[tuple[Op, ...], ...]

    @property
    def n_pieces(self) -> int:
        """S = P V."""
        return self.n_ranks * self.n_chunks

    @functools.cached_property
    def splits_backward(self) -> bool:
        """Whether W passes are apart from B passes."""
        return any(op.kind == WEIGHTS for ops in self.ops for op in ops)

    def piece(self, rank: int, chunk: int) -> int:
        """Returns the number of the piece that is this chunk of the rank."""
        return chunk * self.n_ranks + rank

    def home(self, piece: int) -> tuple[int, int]:
        """Returns the rank and the chunk of a piece."""
        chunk, rank = divmod(piece, self.n_ranks)
        return rank, chunk
