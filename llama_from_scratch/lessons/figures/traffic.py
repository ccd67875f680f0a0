"""Draws what travels when ranks divide the experts: rows on their way, and how many go where.

Notebook 46.
"""

from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.experts import color_of
from llama_from_scratch.lessons.figures.flow import Drawing, Node
from llama_from_scratch.lessons.figures.look import TINTS
from llama_from_scratch.parallel.expert_parallel import ExpertTraffic

MAX_ROWS, MAX_RANKS = 20, 8
STAYS = "#E3E3E3"
_CELL, _GAP, _BETWEEN = 0.3, 0.06, 0.55
_WIDE, _HIGH = 0.72, 0.42


def travel(traffic: ExpertTraffic) -> Figure:
    """Draws each rank's rows and where they arrive. A cell is a row, with its expert's number.

    Rows that are over a capacity are not drawn. Raises ValueError for more rows than fit on a page.

    Example: `traffic.travel(seen["layers.0.feed_forward"][0])`
    """
    n_ranks, n_experts = traffic.sent.shape
    n_rows = int(traffic.sent.sum())
    if n_rows > MAX_ROWS or n_ranks > 4:
        raise ValueError(f"this drawing has room for {MAX_ROWS} rows of 4 ranks; got {n_rows} of "
                         f"{n_ranks}. Draw a smaller example")
    drawing = Drawing("Each row travels to the rank of its expert")
    own = n_experts // n_ranks
    rows = [(rank, e) for rank in range(n_ranks) for e in range(n_experts)
            for _ in range(int(traffic.sent[rank, e]))]
    arrived = sorted(range(len(rows)), key=lambda i: (rows[i][1] // own, rows[i][0], rows[i][1]))
    leaving = _line(drawing, rows, range(len(rows)), [rank for rank, _ in rows], y=0.6,
                    n_ranks=n_ranks)
    coming = _line(drawing, rows, arrived, [rows[i][1] // own for i in arrived], y=2.2,
                   n_ranks=n_ranks)
    for i, node in leaving.items():
        drawing.arrow(node.bottom, coming[i].top, color="0.55")
    for rank in range(n_ranks):
        first, last = rank * own, (rank + 1) * own - 1
        names = f"expert {first}" if own == 1 else f"experts {first} to {last}"
        mine = [coming[i] for i in arrived if rows[i][1] // own == rank]
        if mine:
            drawing.note(f"rank {rank}: {names}", (mine[0].left[0], 2.55))
        owned = [leaving[i] for i, (source, _) in enumerate(rows) if source == rank]
        if owned:
            drawing.note(f"rank {rank}", (owned[0].left[0], 0.25))
    told = "; ".join(f"rank {rank} sends {_away(traffic, rank)} of its {int(n)}"
                     for rank, n in enumerate(traffic.sent.sum(1)))
    return drawing.figure(f"{n_rows} rows, each with the number of its expert: {told}. The rows "
                          "of a rank stay in their order, after the rows of the ranks before it.")


def _line(
    drawing: Drawing, rows: list[tuple[int, int]], order: range | list[int], places: list[int], *,
    y: float, n_ranks: int,
) -> dict[int, Node]:
    """Adds a cell for each row, in an order, with a gap before each new place."""
    found, left = {}, 0.35
    for i, (row, place) in enumerate(zip(order, places, strict=True)):
        if i and place != places[i - 1]:
            left += _BETWEEN * (place - places[i - 1])
        expert = rows[row][1]
        found[row] = drawing.cell(str(expert), (left + _CELL / 2, y), width=_CELL,
                                  color=color_of(expert))
        left += _CELL + _GAP
    return found


def _away(traffic: ExpertTraffic, rank: int) -> int:
    return int(traffic.rows[rank].sum() - traffic.rows[rank, rank])


def matrix(traffic: ExpertTraffic) -> Figure:
    """Draws how many rows go from each rank to each, with their sums.

    Raises ValueError for more than 8 ranks.

    Example: `traffic.matrix(seen["layers.0.feed_forward"][0])`
    """
    n_ranks = len(traffic.sent)
    if n_ranks > MAX_RANKS:
        raise ValueError(f"this drawing has room for {MAX_RANKS} ranks; got {n_ranks}")
    drawing = Drawing("How many rows go from rank to rank")
    rows = traffic.rows
    largest = max(int(rows.max()), 1)
    for rank in range(n_ranks):
        y = 0.75 + _HIGH * rank
        drawing.note(f"from rank {rank}", (0.0, y))
        for other in range(n_ranks):
            n = int(rows[rank, other])
            drawing.cell(str(n), (1.5 + _WIDE * other, y), width=_WIDE - 0.06, height=_HIGH - 0.06,
                         color=STAYS if rank == other else _shade(n / largest))
        drawing.note(f"{_away(traffic, rank)} leave", (1.35 + _WIDE * n_ranks, y))
    for other in range(n_ranks):
        drawing.note(f"to {other}", (1.5 + _WIDE * other, 0.4), align="center")
        drawing.note(str(int(rows[:, other].sum())),
                     (1.5 + _WIDE * other, 0.75 + _HIGH * n_ranks), align="center")
    drawing.note("computes", (0.0, 0.75 + _HIGH * n_ranks))
    computed = rows.sum(0)
    dropped = f" {traffic.n_dropped} more were dropped." if traffic.n_dropped else ""
    return drawing.figure(
        f"{int(rows.sum())} rows, of which {int(rows.sum() - rows.diag().sum())} leave their rank; "
        f"gray ones stay.{dropped} The ranks compute {', '.join(map(str, computed.tolist()))} rows."
        )


def _shade(share: float) -> str:
    """Returns a color from white to yellow; the largest number is the strongest."""
    strong = to_rgb(TINTS[1])
    mixed = (round(255 * (1 - share * (1 - part))) for part in strong)
    return "#" + "".join(f"{part:02X}" for part in mixed)
