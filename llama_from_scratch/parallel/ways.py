"""Three ways to an all-reduce, and how long each takes with a given latency and bandwidth.

Each step of a collective costs a **latency**, the time until a message of any size begins to
arrive, and then the bytes of its message one after the other. In one step a rank can send one
message and receive one.

    naive    2 (n - 1) steps       of the whole tensor    rank 0 adds all up, and answers each
    tree     2 ceil(log2 n) steps  of the whole tensor    up the tree to rank 0, and down again
    ring     2 (n - 1) steps       of one n-th            reduce-scatter, then all-gather

Notebook 40. Source: Thakur, Rabenseifner and Gropp, Optimization of collective communication
operations in MPICH, 2005, section 3.
"""

from collections.abc import Callable, Mapping
from fractions import Fraction

from llama_from_scratch.config import record


@record
class WayCost:
    """`n_steps`: one after the other. `n_bytes`: of their messages together, the largest each."""

    n_steps: int
    n_bytes: Fraction

    def seconds(self, *, latency_s: float, bytes_per_s: float) -> float:
        """Returns the time on a network with this latency and bandwidth."""
        return self.n_steps * latency_s + float(self.n_bytes) / bytes_per_s


WAYS: Mapping[str, Callable[[int], tuple[int, Fraction]]] = {
    "naive": lambda n: (2 * (n - 1), Fraction(1)),
    "tree": lambda n: (2 * (n - 1).bit_length(), Fraction(1)),
    "ring": lambda n: (2 * (n - 1), Fraction(1, n)),
}
"""For each way, with n ranks: the number of steps, and a message as a share of the tensor."""


def all_reduce(way: str, n_ranks: int, *, n_bytes: int) -> WayCost:
    """Returns the cost of an all-reduce of a tensor. Raises ValueError for an unknown way."""
    if way not in WAYS:
        raise ValueError(f"the ways to reduce are {', '.join(WAYS)}; got {way!r}")
    n_steps, share = WAYS[way](n_ranks)
    return WayCost(n_steps=n_steps, n_bytes=n_steps * share * n_bytes)
