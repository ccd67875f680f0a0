"""Equal collectives of one step, as a row of a table of what a strategy sends.

`costs` and `context.costs` make such rows from sizes alone, without any rank.

Notebook 41.
"""

from fractions import Fraction

from llama_from_scratch.config import record
from llama_from_scratch.parallel.comm_log import SHARE_SENT


@record
class Exchange:
    """Equal collectives of one step: `times` of them, each on a whole tensor of `n_bytes`."""

    what: str
    op: str
    group: str
    size: int
    n_bytes: Fraction | int
    times: int = 1

    @property
    def sent_bytes(self) -> Fraction:
        """What one rank sends in all of them; the mean, where ranks differ."""
        return self.times * self.n_bytes * SHARE_SENT[self.op](self.size)
