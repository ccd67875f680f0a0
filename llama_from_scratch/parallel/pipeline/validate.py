"""Proves that a schedule computes every gradient once, in a possible order, and never hangs.

Every rank follows its list. A pass that needs something from another rank waits for it, as a
blocking receive does; sending never waits. If no rank can go on before all are done, they would
wait forever, and the proof says who waits for what. No process is needed for that.

Notebook 44.
"""

from collections import Counter
from collections.abc import Iterator

from llama_from_scratch.parallel.pipeline.schedule import (
    BACKWARD,
    FORWARD,
    WEIGHTS,
    Op,
    Schedule,
)

At = tuple[str, int, int]
"""A pass of the whole pipeline: its kind, its micro-batch and its piece."""


def validate(schedule: Schedule, *, most_kept: int | None = None) -> None:
    """Raises ValueError with rank, pass and rule unless the schedule is right.

    Rules: each piece does F and B of each micro-batch once, and if backward is divided, W. F comes
    after F of the piece before; B after F of its own piece and B of the piece after; W after B of
    its own piece. All ranks come to their end. `most_kept`: also, no rank keeps more micro-batches
    (times chunks) than these at once.
    """
    _check_sizes(schedule)
    _check_ops(schedule)
    for rank, ops in enumerate(schedule.ops):
        _check_own_order(schedule, rank, ops)
    for _ in in_order(schedule):
        pass
    if most_kept is not None:
        _check_kept(schedule, most_kept)


def kept(schedule: Schedule) -> list[int]:
    """Returns for each rank how many micro-batches (times chunks) it keeps at most at once.

    One is kept from its F on until its last pass, which is W if backward is divided.
    """
    return [max(n for _, n in _counted(schedule, ops)) for ops in schedule.ops]


def needs(schedule: Schedule, rank: int, op: Op) -> list[At]:
    """Returns the passes that a pass needs the results of."""
    piece, m = schedule.piece(rank, op.chunk), op.micro_batch
    if op.kind == FORWARD:
        return [(FORWARD, m, piece - 1)] if piece > 0 else []
    if op.kind == WEIGHTS:
        return [(BACKWARD, m, piece)]
    after = [(BACKWARD, m, piece + 1)] if piece < schedule.n_pieces - 1 else []
    return [(FORWARD, m, piece), *after]


def in_order(schedule: Schedule) -> Iterator[tuple[int, Op]]:
    """Yields every pass with its rank, in an order in which everything it needs comes before.

    Raises ValueError if there is none: then some ranks would wait forever.
    """
    done: set[At] = set()
    place = [0] * schedule.n_ranks
    while any(at < len(ops) for at, ops in zip(place, schedule.ops, strict=True)):
        n_done = len(done)
        for rank, ops in enumerate(schedule.ops):
            while place[rank] < len(ops) and done.issuperset(
                    needs(schedule, rank, ops[place[rank]])):
                op = ops[place[rank]]
                done.add((op.kind, op.micro_batch, schedule.piece(rank, op.chunk)))
                place[rank] += 1
                yield rank, op
        if len(done) == n_done:
            raise ValueError(f"the ranks would wait forever: {_waiting(schedule, place, done)}. "
                             "Put what another rank waits for first")


def _check_sizes(schedule: Schedule) -> None:
    for field in ("n_ranks", "n_chunks", "n_micro_batches"):
        if (n := getattr(schedule, field)) < 1:
            raise ValueError(f"Schedule.{field} must be at least 1; got {n}")
    if len(schedule.ops) != schedule.n_ranks:
        raise ValueError(f"a schedule has a list of passes for each of its {schedule.n_ranks} "
                         f"ranks; got {len(schedule.ops)} lists")


def _check_ops(schedule: Schedule) -> None:
    """Raises ValueError unless each rank has each of its passes exactly once."""
    kinds = [FORWARD, BACKWARD, *([WEIGHTS] if schedule.splits_backward else [])]
    for rank, ops in enumerate(schedule.ops):
        for op in ops:
            _check_op(schedule, rank, op)
        counts = Counter((op.kind, op.micro_batch, op.chunk) for op in ops)
        for chunk in range(schedule.n_chunks):
            for m in range(schedule.n_micro_batches):
                for kind in kinds:
                    if (n := counts[kind, m, chunk]) != 1:
                        op = Op(kind=kind, micro_batch=m, chunk=chunk)
                        why = (" Some passes of this schedule divide backward, so all must"
                               if kind == WEIGHTS and n == 0 else "")
                        raise ValueError(f"rank {rank} must do {op} exactly once; it does it "
                                         f"{n} times.{why}")


def _check_op(schedule: Schedule, rank: int, op: Op) -> None:
    if op.kind not in (FORWARD, BACKWARD, WEIGHTS):
        raise ValueError(f"a pass is {FORWARD} (forward), {BACKWARD} (backward) or {WEIGHTS} "
                         f"(gradients of the weights); rank {rank} has {op.kind!r}")
    if not 0 <= op.micro_batch < schedule.n_micro_batches:
        raise ValueError(f"the micro-batches are 0 to {schedule.n_micro_batches - 1}; rank {rank} "
                         f"has {op}")
    if not 0 <= op.chunk < schedule.n_chunks:
        raise ValueError(f"the chunks of a rank are 0 to {schedule.n_chunks - 1}; rank {rank} has "
                         f"{op}, of chunk {op.chunk}")


def _check_own_order(schedule: Schedule, rank: int, ops: tuple[Op, ...]) -> None:
    """Raises ValueError if a rank's list has a pass before another that it needs."""
    later: set[At] = {(op.kind, op.micro_batch, schedule.piece(rank, op.chunk)) for op in ops}
    for op in ops:
        for kind, m, piece in needs(schedule, rank, op):
            if (kind, m, piece) in later:
                needed = Op(kind=kind, micro_batch=m, chunk=schedule.home(piece)[1])
                raise ValueError(f"{op} of rank {rank} needs {needed}, which is after it in the "
                                 f"rank's own list. {_RULES[op.kind]}")
        later.discard((op.kind, op.micro_batch, schedule.piece(rank, op.chunk)))


_RULES = {FORWARD: "F comes after F of the piece before",
          BACKWARD: "B comes after F of its piece and B of the piece after",
          WEIGHTS: "W comes after B of its piece"}


def _waiting(schedule: Schedule, place: list[int], done: set[At]) -> str:
    found = []
    for rank, (at, ops) in enumerate(zip(place, schedule.ops, strict=True)):
        if at < len(ops):
            kind, m, piece = next(n for n in needs(schedule, rank, ops[at]) if n not in done)
            other, chunk = schedule.home(piece)
            found.append(f"rank {rank} waits at {ops[at]} for "
                         f"{Op(kind=kind, micro_batch=m, chunk=chunk)} of rank {other}")
    return ", ".join(found)


def _check_kept(schedule: Schedule, most_kept: int) -> None:
    for rank, ops in enumerate(schedule.ops):
        for op, n in _counted(schedule, ops):
            if n > most_kept:
                raise ValueError(f"a rank must keep at most {most_kept} micro-batches at once; rank"
                                 f" {rank} keeps {n} at {op}. Do a backward pass earlier")


def _counted(schedule: Schedule, ops: tuple[Op, ...]) -> Iterator[tuple[Op, int]]:
    """Yields each pass of a rank and how much the rank keeps while it runs."""
    last, n = WEIGHTS if schedule.splits_backward else BACKWARD, 0
    for op in ops:
        n += op.kind == FORWARD
        yield op, n
        n -= op.kind == last
