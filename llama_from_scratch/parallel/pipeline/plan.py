"""The choices of a pipeline: which schedule, and what is kept between forward and backward.

Notebook 44.
"""

import functools

from llama_from_scratch.config import record
from llama_from_scratch.parallel.pipeline import schedules
from llama_from_scratch.parallel.pipeline.schedule import Schedule


@record
class PipelinePlan:
    """How the ranks along `pp` work: see `schedules.make` for the first three fields.

    `recomputes`: whether a rank keeps only what it received for a micro-batch, and computes the
    rest again in backward. Raises ValueError for a schedule that does not exist.
    """

    schedule: str = "1f1b"
    n_chunks: int = 1
    n_together: int | None = None
    recomputes: bool = False

    def __post_init__(self) -> None:
        n = 2 if self.n_together is None else self.n_together
        schedules.make(self.schedule, 2, n_micro_batches=max(n, 2), n_chunks=self.n_chunks,
                       n_together=self.n_together)

    @property
    def splits_backward(self) -> bool:
        """Whether gradients of weights are computed apart."""
        return self.schedule == "zero_bubble"

    def on(self, n_ranks: int, *, n_micro_batches: int) -> Schedule:
        """Returns the schedule for that many ranks and micro-batches. Raises ValueError."""
        return _made(self.schedule, n_ranks, n_micro_batches, self.n_chunks, self.n_together)


@functools.lru_cache(maxsize=64)
def _made(
    name: str, n_ranks: int, n_micro_batches: int, n_chunks: int, n_together: int | None
) -> Schedule:
    return schedules.make(name, n_ranks, n_micro_batches=n_micro_batches, n_chunks=n_chunks,
                          n_together=n_together)
