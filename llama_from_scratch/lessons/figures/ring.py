"""Draws the messages of a collective: which piece goes from whom to whom, step by step.

What is drawn was traced in a run of the real function, see `messages`.

Notebook 40.
"""

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from llama_from_scratch.lessons.figures.flow import MAX_WIDTH, Drawing, Node
from llama_from_scratch.lessons.figures.look import TINTS
from llama_from_scratch.lessons.figures.messages import SentMessage, contents, trace

SENT, COMPLETE, OWN, WRONG = TINTS[1], TINTS[2], TINTS[0], TINTS[3]
_CELL, _ROW, _NAME, _STUB = 0.58, 0.5, 0.75, 0.2
_MAX_RANKS, _MAX_STEPS = 6, 14


def steps(
    function: Callable, n_ranks: int, *, is_cut: bool = False, title: str = "Around the ring"
) -> Figure:
    """Draws the pieces that each rank has before and after, and those that it sends in each step.

    A row is a rank and a column is a piece. The numbers in a cell are the ranks whose values were
    added up in it. The other arguments are the same as in `messages.trace`. Raises ValueError for
    messages that do not go around a ring, or with too many ranks for a page.

    Example: `ring.steps(collectives.reduce_scatter, 4)`
    """
    if not 2 <= n_ranks <= _MAX_RANKS:
        raise ValueError(f"this drawing needs 2 to {_MAX_RANKS} ranks; got {n_ranks}")
    traced = trace(function, n_ranks, is_cut=is_cut)
    for message in traced.messages:
        if message.to != (message.source + 1) % n_ranks:
            raise ValueError("in a ring each rank sends to the next one; here rank "
                             f"{message.source} sends to rank {message.to}. `ring.messages` draws "
                             "any messages")
    panels = [("before", traced.before)]
    panels += [(f"step {step}", [message for message in traced.messages
                                     if message.step == step]) for step in range(traced.n_steps)]
    panels += [("after", traced.after)]

    drawing = Drawing(title)
    width, height = _NAME + (_CELL + 0.04) * n_ranks + 0.2, _ROW * n_ranks + 0.95
    n_columns = int((MAX_WIDTH - 0.4) / width)
    for i, (name, shown) in enumerate(panels):
        row, column = divmod(i, n_columns)
        _panel(drawing, name, shown, n_ranks=n_ranks, at=(column * width, row * height))
    n_rows = (len(panels) - 1) // n_columns + 1
    key = {"held": OWN, "sent in this step": SENT, "complete sum": COMPLETE,
           "wrong: a rank twice": WRONG}
    colors = {node.color for node in drawing.nodes}
    drawing.key({words: color for words, color in key.items() if color in colors},
                (0.1, n_rows * height - 0.2))
    return drawing.figure(
        f"{n_ranks} ranks, {n_ranks} pieces, {traced.n_steps} steps. In each step every rank sends "
        "one piece to the rank below it, and the last rank sends to the first. A cell names the "
        "ranks whose values are in it.")


def messages(
    function: Callable, n_ranks: int, *, is_cut: bool = False, title: str = "Who sends to whom"
) -> Figure:
    """Draws each message of a collective as an arrow from rank to rank; time goes to the right.

    A rank that neither sends nor receives in a step is white. The arguments are as in `steps`.

    Example: `ring.messages(collectives.broadcast, 8)`
    """
    traced = trace(function, n_ranks, is_cut=is_cut)
    if not 0 < traced.n_steps <= _MAX_STEPS:
        raise ValueError(f"this drawing has space for 1 to {_MAX_STEPS} steps; these are "
                         f"{traced.n_steps}. Take fewer ranks")
    drawing = Drawing(title)
    pitch = min(1.3, (MAX_WIDTH - 1.6) / traced.n_steps)
    places: dict[tuple[int, int], Node] = {}
    for rank in range(n_ranks):
        drawing.note(f"rank {rank}", (0.1, 0.42 * rank))
        for step in range(traced.n_steps + 1):
            is_busy = any(rank in (message.source, message.to) for message in traced.messages
                          if message.step == step)
            places[rank, step] = drawing.cell(
                "", (1.0 + pitch * step, 0.42 * rank), width=0.17, height=0.24,
                color=OWN if is_busy else COMPLETE if step == traced.n_steps else "white")
    for message in traced.messages:
        drawing.arrow(places[message.source, message.step], places[message.to, message.step + 1])
    for step in range(traced.n_steps):
        drawing.note(f"step {step}" if pitch > 0.7 else f"{step}",
                     (1.0 + pitch * (step + 0.5), 0.42 * n_ranks), align="center")
    drawing.key({"sends or receives": OWN, "idle": "white", "done": COMPLETE},
                (1.0, 0.42 * n_ranks + 0.35))
    n_idle = sum(node.color == "white" for node in places.values())
    return drawing.figure(
        f"{len(traced.messages)} messages among {n_ranks} ranks in {traced.n_steps} steps. A rank "
        f"is idle in {n_idle} of {n_ranks * traced.n_steps} places.")


def _panel(
    drawing: Drawing, name: str, shown: Sequence[Tensor] | Sequence[SentMessage], *, n_ranks: int,
    at: tuple[float, float],
) -> None:
    """Draws one table: what each rank has, or what each rank sends."""
    left, top = at
    drawing.note(name, (left + 0.1, top + 0.1))
    columns = [left + _NAME + (_CELL + 0.04) * (piece + 0.5) for piece in range(n_ranks)]
    rows = [top + 0.62 + _ROW * rank for rank in range(n_ranks)]
    for piece, x in enumerate(columns):
        drawing.note("ABCDEF"[piece], (x, top + 0.1), align="center")
    for rank, y in enumerate(rows):
        drawing.note(f"rank {rank}", (left + 0.1, y))
    if isinstance(shown[0], SentMessage):
        held = {(message.source, piece): ranks for message in shown
                for piece, ranks in contents(message.content)}
    else:
        held = {(rank, piece): ranks for rank, tensor in enumerate(shown)
                for piece, ranks in contents(tensor)}
    for rank, y in enumerate(rows):
        for piece, x in enumerate(columns):
            ranks = held.get((rank, piece))
            is_message = isinstance(shown[0], SentMessage)
            node = drawing.cell(_words(ranks, n_ranks), (x, y), width=_CELL,
                                color=_color(ranks, n_ranks, is_message=is_message))
            if ranks is not None and is_message:
                _arrow_down(drawing, node, is_last=rank == n_ranks - 1,
                            first=(x, rows[0] - node.height / 2))


def _arrow_down(
    drawing: Drawing, node: Node, *, is_last: bool, first: tuple[float, float]
) -> None:
    """Draws an arrow to the cell below, or out at the bottom and in at the top."""
    x, y = node.bottom
    if not is_last:
        drawing.arrow((x, y), (x, y + _ROW - node.height))
        return
    drawing.arrow((x, y), (x, y + _STUB))
    drawing.arrow((first[0], first[1] - _STUB), first)


def _words(ranks: tuple[int, ...] | None, n_ranks: int) -> str:
    if ranks is None:
        return ""
    if ranks == tuple(range(n_ranks)):
        return "all"
    if len(ranks) >= n_ranks and n_ranks > 2:
        return "wrong"
    return ("+" if len(ranks) < 4 else "").join(map(str, ranks))


def _color(ranks: tuple[int, ...] | None, n_ranks: int, *, is_message: bool) -> str:
    if ranks is None:
        return "white"
    if len(set(ranks)) < len(ranks):
        return WRONG
    if is_message:
        return SENT
    return COMPLETE if len(ranks) == n_ranks else OWN
