"""The schedules of a pipeline: GPipe, 1F1B, interleaved and zero bubble, and how one is chosen.

All compute the same gradients. They differ in how long ranks wait for each other (the bubble), and
in how many micro-batches a rank keeps in memory between their forward and backward passes. P ranks
have V chunks each, and a batch is M micro-batches.

Notebook 44. Sources: Huang et al., GPipe, arXiv:1811.06965; Narayanan et al., Efficient large-scale
language model training on GPU clusters, arXiv:2104.04473, section 2.2; The Llama 3 herd of models,
arXiv:2407.21783, section 3.3.2; Qi et al., Zero bubble pipeline parallelism, arXiv:2401.10241.
"""

from collections.abc import Mapping, Sequence

from llama_from_scratch.config import nearest
from llama_from_scratch.parallel.pipeline.schedule import (
    BACKWARD,
    FORWARD,
    WEIGHTS,
    Op,
    Schedule,
)
from llama_from_scratch.parallel.pipeline.validate import validate

Pass = tuple[int, int]
"""A micro-batch and a chunk."""


def gpipe(n_ranks: int, n_micro_batches: int) -> Schedule:
    """Returns all forward passes, then all backward passes in reverse order.

    Source: Huang et al., GPipe, arXiv:1811.06965, section 2.3.
    """
    forward = tuple(Op(kind=FORWARD, micro_batch=m) for m in range(n_micro_batches))
    backward = tuple(Op(kind=BACKWARD, micro_batch=m) for m in reversed(range(n_micro_batches)))
    return Schedule(name="gpipe", n_ranks=n_ranks, n_chunks=1, n_micro_batches=n_micro_batches,
                    ops=(forward + backward,) * n_ranks)


def one_f_one_b(n_ranks: int, n_micro_batches: int) -> Schedule:
    """Returns the schedule in which each rank soon does one forward, one backward, and so on.

    Rank r begins with P - 1 - r forward passes, so that the first micro-batch comes back just in
    time. From then on it never keeps more than P - r micro-batches.

    Source: Narayanan et al., arXiv:2104.04473, section 2.2.1 (1F1B with flushes).
    """
    passes = [(m, 0) for m in range(n_micro_batches)]
    ops = tuple(_one_by_one(passes, passes, n_before=n_ranks - 1 - r) for r in range(n_ranks))
    return Schedule(name="1f1b", n_ranks=n_ranks, n_chunks=1, n_micro_batches=n_micro_batches,
                    ops=ops)


def interleaved(
    n_ranks: int, n_chunks: int, *, n_micro_batches: int, n_together: int | None = None
) -> Schedule:
    """Returns 1F1B over V chunks per rank, which divides the bubble by V.

    A rank does at least `n_together` micro-batches (Llama 3's N) with one chunk before it changes
    to the next. N = P is called depth-first: the first micro-batch is back from the other ranks
    just when the rank is done with the last, and the rank keeps the least. N = M is called
    breadth-first: there are more passes between two chunks, which hide slow sending, and the rank
    keeps more. The default is P, or M if that is less. M need not be a multiple of N: the
    micro-batches that are left over go to the groups there are, see `groups`.

    Raises ValueError for an N below P (or M) or above M.

    Source: Llama 3, arXiv:2407.21783, section 3.3.2; Narayanan et al., arXiv:2104.04473, 2.2.2.
    """
    smallest = min(n_ranks, n_micro_batches)
    n_together = smallest if n_together is None else n_together
    if not smallest <= n_together <= n_micro_batches:
        raise ValueError(
            "n_together, the micro-batches that a rank does with one chunk before the next, must "
            f"be between the number of ranks and the number of micro-batches, {smallest} to "
            f"{n_micro_batches} here; got {n_together}. With fewer, a rank would wait until the "
            f"first is back. Take n_together={min(max(n_together, smallest), n_micro_batches)}")
    together = groups(n_micro_batches, n_together)
    forward = [(m, c) for group in together for c in range(n_chunks) for m in group]
    backward = [(m, c) for group in together for c in reversed(range(n_chunks)) for m in group]
    ops = tuple(_one_by_one(forward, backward, n_before=2 * (n_ranks - 1 - r)
                            + (n_chunks - 1) * len(together[0])) for r in range(n_ranks))
    return Schedule(name="interleaved", n_ranks=n_ranks, n_chunks=n_chunks,
                    n_micro_batches=n_micro_batches, ops=ops)


def groups(n_micro_batches: int, n_together: int) -> list[range]:
    """Returns the micro-batches that follow each other in one chunk: groups of N, or some more.

    There are as many groups as fit with N each, and what is left over is divided among the first.
    A last group of fewer than N would be back too late and make the bubble larger.

    Example: `groups(10, 4) == [range(0, 5), range(5, 10)]`
    """
    n_groups = n_micro_batches // n_together
    size, n_more = divmod(n_micro_batches, n_groups)
    firsts = [g * size + min(g, n_more) for g in range(n_groups + 1)]
    return [range(a, b) for a, b in zip(firsts, firsts[1:], strict=False)]


def zero_bubble(n_ranks: int, n_micro_batches: int) -> Schedule:
    """Returns ZB-H1: 1F1B in which weight gradients wait until a rank would be idle.

    B computes only the gradient that the rank before needs, so that rank waits less. A rank does W
    as late as the memory of 1F1B allows: as soon as it keeps P micro-batches, as many as rank 0
    does in 1F1B, each B is followed by the oldest W.

    Source: Qi et al., arXiv:2401.10241, section 2.1.
    """
    ops = tuple(_weights_late(n_micro_batches, n_before=n_ranks - 1 - r, n_kept=n_ranks)
                for r in range(n_ranks))
    return Schedule(name="zero_bubble", n_ranks=n_ranks, n_chunks=1,
                    n_micro_batches=n_micro_batches, ops=ops)


SCHEDULES: Mapping[str, str] = {
    "gpipe": "all forward passes, then all backward passes",
    "1f1b": "one forward, one backward: keeps at most P micro-batches",
    "interleaved": "1f1b with several chunks on each rank",
    "zero_bubble": "1f1b, and gradients of weights fill the bubble"}
"""The schedules that `make` makes, and what each is."""


def make(
    name: str, n_ranks: int, *, n_micro_batches: int, n_chunks: int = 1,
    n_together: int | None = None,
) -> Schedule:
    """Returns the schedule of this name, checked by `validate`.

    `n_chunks` and `n_together` are for "interleaved" only.

    Raises ValueError for another name, for fewer micro-batches than ranks, with which some rank
    would always be idle, and for chunks or an `n_together` that the schedule does not have.
    """
    if name not in SCHEDULES:
        raise ValueError(f"the schedules of a pipeline are {', '.join(SCHEDULES)}; got {name!r}; "
                         f"{nearest(str(name), SCHEDULES)}")
    for what, n in (("ranks", n_ranks), ("micro-batches", n_micro_batches), ("chunks", n_chunks)):
        if not isinstance(n, int) or isinstance(n, bool) or n < 1:
            raise ValueError(f"a pipeline's number of {what} must be a whole number of at least 1; "
                             f"got {n!r}")
    if n_micro_batches < n_ranks:
        raise ValueError(
            f"a pipeline of {n_ranks} ranks needs at least {n_ranks} micro-batches, because with "
            f"fewer some rank is always idle; got {n_micro_batches}. Divide the batch into "
            f"{n_ranks} micro-batches or more, or take a pipeline of {n_micro_batches} "
            f"{'rank' if n_micro_batches == 1 else 'ranks'}")
    if name != "interleaved" and n_chunks > 1:
        raise ValueError(f"only the schedule 'interleaved' has more than one chunk per rank; got "
                         f"{n_chunks} chunks for {name!r}. Take 'interleaved', or one chunk")
    if name != "interleaved" and n_together is not None:
        raise ValueError("n_together chooses when the schedule 'interleaved' goes to another chunk;"
                         f" got n_together={n_together} for {name!r}. Leave it out, or take "
                         "'interleaved'")
    if name == "interleaved" and n_chunks == 1:
        raise ValueError("the schedule 'interleaved' needs at least 2 chunks per rank, and with one"
                         " it is '1f1b'; got 1. Take 2 chunks or more, or '1f1b'")
    if name == "interleaved":
        made = interleaved(n_ranks, n_chunks, n_micro_batches=n_micro_batches,
                           n_together=n_together)
    else:
        made = _OF_ONE_CHUNK[name](n_ranks, n_micro_batches)
    validate(made)
    return made


_OF_ONE_CHUNK = {"gpipe": gpipe, "1f1b": one_f_one_b, "zero_bubble": zero_bubble}


def _one_by_one(
    forward: Sequence[Pass], backward: Sequence[Pass], *, n_before: int
) -> tuple[Op, ...]:
    """Returns `n_before` forward passes, then one forward and one backward until all are done."""
    forwards = [Op(kind=FORWARD, micro_batch=m, chunk=c) for m, c in forward]
    backwards = [Op(kind=BACKWARD, micro_batch=m, chunk=c) for m, c in backward]
    ops = forwards[:n_before]
    for i, op in enumerate(backwards):
        ops += [*forwards[n_before + i : n_before + i + 1], op]
    return tuple(ops)


def _weights_late(n_micro_batches: int, *, n_before: int, n_kept: int) -> tuple[Op, ...]:
    """Returns 1F1B's order, with each W as late as it can be if `n_kept` micro-batches are kept."""
    passes = [(m, 0) for m in range(n_micro_batches)]
    weights = [Op(kind=WEIGHTS, micro_batch=m) for m in range(n_micro_batches)]
    ops, n_forward, n_weights = [], 0, 0
    for op in _one_by_one(passes, passes, n_before=n_before):
        ops.append(op)
        n_forward += op.kind == FORWARD
        is_full = n_forward - n_weights == n_kept or n_forward == n_micro_batches
        if op.kind == BACKWARD and is_full:
            ops.append(weights[n_weights])
            n_weights += 1
    return (*ops, *weights[n_weights:])
